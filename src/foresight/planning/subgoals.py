"""A goal on the way to a goal that is far: what the model's coarser predictor foresees, judged by the critic.

A critic counts only so many blocks, and an imagined motion is a few blocks long; towards what lies beyond both are blind. The
predictor proposes states a few blocks ahead on several ways, from what episodes did on their way to what they later reached, and
the nearest of them that leads to the goal is pursued first. So the plan has two levels in one latent space, as HIQL has it (Park
2023, arXiv 2307.11949), with a search below instead of a policy. Knows a model only through its interfaces.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.data import Goal
from foresight.interfaces import Critic, Subgoals
from foresight.planning.search.state import comparable

GUESSES = (0.75, 1.0, 1.5)  # how far the goal is taken to be, in what the critic says: it is told to the predictor, and vague
ASTRAY = 1.0  # blocks by which a sub-goal may seem farther from the goal than the present is, for critics err


def next_subgoal(
    goal: Goal, latent: Float[Tensor, "1 D"], proprio: Float[Tensor, "1 P"], distance: float, model: Critic
) -> Goal | None:
    """The state to pursue first towards a goal `distance` blocks away; None where the model proposes none that leads there."""
    if not (isinstance(model, Subgoals) and model.subgoal_ways):
        return None
    k = distance * torch.tensor(GUESSES, device=latent.device)
    here, joints = latent.expand(len(k), -1), proprio.expand(len(k), -1)
    ahead, joints_ahead = (found.flatten(0, 1) for found in model.subgoals(here, joints, goal, k))
    left = model.blocks_to_go(ahead, joints_ahead, goal)
    way = left + model.apart(latent.expand(len(ahead), -1), proprio.expand(len(ahead), -1), ahead)
    way = torch.where(left < distance + ASTRAY, way, torch.inf)
    if not torch.isfinite(way).any():
        return None
    best = ahead[int(comparable(way).argmin())].float().cpu().numpy()
    return replace(goal, latent=best, tip=None, object=None, weights=(1.0, 1.0, 1.0), yaw=None, opening=None, contact=None)
