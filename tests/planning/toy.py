"""A world whose best plan is known: the latent is the tip itself, actions add up, and the goal is a point."""

from __future__ import annotations

import numpy as np
import torch

from foresight.contract import CameraContract, Contract
from foresight.data import Belief, Goal

BLOCK_M = 0.075  # farthest that a block moves the tip at full speed


class ToyModel:
    """Satisfies Dynamics, Actor, Critic and Readout. The actor errs by `bias` [m per step]; the dynamics are exact.

    The object always lies 10 cm beside the tip.
    """

    model_id = "toy"

    def __init__(self, profile, bias=(0.0, 0.0, 0.0)) -> None:
        self.contract = Contract(profile.name, profile.joint_names, (CameraContract("front", 8, 8, (0, 0, 8, 8), 16),))
        self.bias = torch.tensor(bias)

    def imagine(self, latent, proprio, block):
        moved = block.unflatten(-1, (-1, 3)).sum(1)
        proprio = proprio.clone()
        proprio[:, -6:-3] += moved
        return latent + moved, proprio

    def propose(self, latent, proprio, goal, k):
        way = torch.as_tensor(goal.tip, dtype=torch.float32) - latent
        step = way / (3 * k.unsqueeze(-1)) + self.bias
        return step.repeat(1, 3)

    def read(self, latent):
        return latent, latent + torch.tensor([0.0, 0.1, 0.0])

    def blocks_to_go(self, latent, proprio, goal):
        return (torch.as_tensor(goal.tip, dtype=torch.float32) - latent).norm(dim=-1) / BLOCK_M


def belief_at(tip, velocity=(0.0, 0.0, 0.0), stamp_s=0.0) -> Belief:
    proprio = np.concatenate([np.zeros(6), tip, velocity]).astype(np.float32)
    return Belief(stamp_s, "toy", np.asarray(tip, dtype=np.float32), proprio, 1.0)


def goal_at(tip) -> Goal:
    return Goal(tip=np.asarray(tip, dtype=np.float64))
