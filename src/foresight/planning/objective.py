"""Scores imagined motions: blocks still to go along the horizon, effort, smoothness. Knows no model, no search."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.planning.config import PlannerConfig


def score(
    to_go: Float[Tensor, "S H"],
    velocities: Float[Tensor, "S N 3"],
    start_velocity: Float[Tensor, "3"],
    step_s: float,
    config: PlannerConfig,
) -> dict[str, Float[Tensor, "S"]]:
    """Cost by term, all in blocks. The sum over the horizon with growing weight reaches goals sooner than the last step alone."""
    weight = 1 + config.final_weight * torch.arange(to_go.shape[1], dtype=to_go.dtype, device=to_go.device)
    changes = torch.diff(torch.cat([start_velocity.expand(len(velocities), 1, 3), velocities], 1), dim=1)
    return {
        "to_go": (to_go * weight).sum(1) / weight.sum(),
        "effort": config.effort_weight * velocities.norm(dim=-1).mean(1) / config.speed_max,
        "smooth": config.smooth_weight * changes.norm(dim=-1).mean(1) / (config.acceleration_max * step_s),
    }
