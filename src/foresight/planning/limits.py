"""Keeps candidate motions of the tip inside speed, acceleration and workspace, in physical units, by projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

BRAKING_SHARE = 0.5  # of the acceleration that may be counted on to stop before a wall


@dataclass(frozen=True)
class TipLimits:
    """Limits of the tool centre point."""

    speed: float  # [m/s]
    acceleration: float  # [m/s^2]
    low: Float[Tensor, "3"]  # [m] workspace
    high: Float[Tensor, "3"]  # [m]

    def step(
        self, position: Float[Tensor, "S 3"], velocity: Float[Tensor, "S 3"], wanted: Float[Tensor, "S 3"], dt_s: float
    ) -> tuple[Float[Tensor, "S 3"], Float[Tensor, "S 3"]]:
        """The velocity nearest to `wanted` that may stand at the end of a step, and the position then.

        Acceleration has the last word: a motion that comes too fast for a wall brakes as hard as it may.
        """
        reserve = velocity * dt_s / 2  # covered in this step whatever is wished
        fastest_up = self._stoppable((self.high - position - reserve.clamp_min(0)).clamp_min(0), dt_s)
        fastest_down = self._stoppable((position + reserve.clamp_max(0) - self.low).clamp_min(0), dt_s)
        allowed = lambda v: torch.maximum(torch.minimum(v, fastest_up), -fastest_down)  # noqa: E731
        inside = allowed(wanted)
        inside = inside * (self.speed / inside.norm(dim=-1, keepdim=True).clamp_min(self.speed))
        most = self.acceleration * dt_s
        brake = allowed(velocity) - velocity  # owed to the walls before anything is wished
        brake = brake * (most / brake.norm(dim=-1, keepdim=True).clamp_min(most))
        wish = inside - velocity - brake
        left = most - brake.norm(dim=-1, keepdim=True)
        new = velocity + brake + wish * (left / wish.norm(dim=-1, keepdim=True).clamp_min(1e-9)).clamp_max(1)
        return new, position + dt_s * (velocity + new) / 2

    def _stoppable(self, room: Float[Tensor, "S 3"], dt_s: float) -> Float[Tensor, "S 3"]:
        """The highest speed [m/s] from which the arm stops within the room [m]."""
        return (2 * BRAKING_SHARE * self.acceleration * room).sqrt().minimum(2 * room / dt_s)
