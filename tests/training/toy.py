"""The world of the toy dataset in closed loop: a dot that follows the tip, goals shown as images only."""

from __future__ import annotations

import numpy as np
import torch

from foresight.data import Goal
from foresight.world_model.model import WorldModel

MIDDLE = np.array([0.45, 0.0, 0.15])  # [m]
FARTHEST_M = np.array([0.1, 0.1, 0.03])  # of starts and goals from the middle


def dot(tip: np.ndarray) -> np.ndarray:
    """What both cameras see, (2, 16, 16, 3)."""
    y, x = np.mgrid[:16, :16]
    spot = (tip[:2] - [0.3, -0.15]) / 0.3 * 15
    pixels = (255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 6)).astype(np.uint8)
    return np.broadcast_to(pixels[..., None], (2, 16, 16, 3)).copy()


@torch.no_grad()
def reached(model: WorldModel, at_random: bool = False, goals: int = 40, blocks: int = 12) -> float:
    """Share of goals at which the dot is within 3 cm after so many blocks of the actor's alone (or of random ones)."""
    rng, successes = np.random.default_rng(0), 0
    for _ in range(goals):
        tip, there = MIDDLE + rng.uniform(-1, 1, (2, 3)) * FARTHEST_M
        goal, velocity = Goal(latent=model.encode_images(dot(there))), np.zeros(3)
        for _ in range(blocks):
            z = torch.from_numpy(model.encode_images(dot(tip)))[None]
            proprio = torch.from_numpy(np.concatenate([np.zeros(6), tip, velocity]).astype(np.float32))[None]
            aim = model.blocks_to_go(z, proprio, goal).round().clamp(1, model.config.max_blocks)
            block = model.propose(z, proprio, goal, aim)[0].view(3, 3).numpy()
            if at_random:
                block = rng.normal(size=(3, 3)) * model.action_std.view(3, 3).numpy()
            block = block.clip(-0.02, 0.02)
            tip, velocity = (tip + block.sum(0)).clip(MIDDLE - 0.15, MIDDLE + 0.15), 10 * block[-1]
        successes += np.linalg.norm((tip - there)[:2]) < 0.03
    return successes / goals
