"""Keeps candidate motions of the tip inside speed, acceleration and workspace, in physical units, by projection.

Also how fast it comes down over an object.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

BRAKING_SHARE = 0.5  # of the acceleration that may be counted on to stop before a wall


@dataclass(frozen=True)
class Landing:
    """How fast the hand may come down on an object, which turns it aside, the farther the faster it came.

    The boxes, B of them, are where the tip is when its hand is near the object.
    """

    low: Float[Tensor, "B 3"]  # [m]
    high: Float[Tensor, "B 3"]  # [m]
    beside_m: float  # [m] height of the tip up to which the hand is beside the object, not over it
    speed: float  # [m/s] downwards, from the top of the boxes on

    def top(self, position: Float[Tensor, "S 3"]) -> Float[Tensor, "S"]:
        """Height [m] of the boxes that the tip is over or in; minus infinity where there are none, or it is beside the object."""
        inside = ((self.low[:, :2] < position[:, None, :2]) & (position[:, None, :2] < self.high[:, :2])).all(-1)
        inside = inside & (position[:, 2:] > self.beside_m)
        return self.high[:, 2].where(inside, -torch.inf).amax(-1)


@dataclass(frozen=True)
class TipLimits:
    """Limits of the tool centre point."""

    speed: float  # [m/s]
    acceleration: float  # [m/s^2]
    low: Float[Tensor, "3"]  # [m] workspace
    high: Float[Tensor, "3"]  # [m]
    landing: Landing | None = None

    def step(
        self, position: Float[Tensor, "S 3"], velocity: Float[Tensor, "S 3"], wanted: Float[Tensor, "S 3"], dt_s: float
    ) -> tuple[Float[Tensor, "S 3"], Float[Tensor, "S 3"]]:
        """The velocity nearest to `wanted` that may stand at the end of a step, and the position then.

        Acceleration has the last word: a motion that comes too fast for a wall brakes as hard as it may.
        """
        half_s, speed, most = dt_s / 2, self.speed, self.acceleration * dt_s
        reserve = velocity * half_s  # covered in this step whatever is wished
        rooms = torch.stack([self.high - position - reserve.clamp_min(0), position + reserve.clamp_max(0) - self.low])
        fastest_up, fastest_down = self._stoppable(rooms.clamp_min(0), dt_s).unbind(0)
        if self.landing is not None:
            above = (position[:, 2] + reserve[:, 2] - self.landing.top(position)).clamp_min(0)
            fastest_down = torch.cat([fastest_down[:, :2], fastest_down[:, 2:].minimum(self._landable(above, dt_s)[:, None])], 1)
        inside, kept = torch.stack([wanted, velocity]).clamp(-fastest_down, fastest_up).unbind(0)
        inside = inside * (speed / length(inside).clamp_min(speed))
        brake = kept - velocity  # owed to the walls before anything is wished
        brake = brake * (most / length(brake).clamp_min(most))
        kept = velocity + brake
        wish = inside - velocity - brake
        left = most - length(brake)
        new = kept + wish * (left / length(wish).clamp_min(1e-9)).clamp_max(1)
        return new, position + half_s * (velocity + new)

    def _stoppable(self, room: Float[Tensor, "*n 3"], dt_s: float) -> Float[Tensor, "*n 3"]:
        """The highest speed [m/s] from which the arm stops within the room [m]."""
        return (2 * BRAKING_SHARE * self.acceleration * room).sqrt().minimum(room / (dt_s / 2))

    def _landable(self, above: Float[Tensor, "S"], dt_s: float) -> Float[Tensor, "S"]:
        """The highest speed [m/s] downwards at a step's end, that far [m] above if the step ended at rest, which still falls to
        the landing's on the way: v^2 <= landing^2 + 2 a (above - v dt / 2).
        """
        braking, landing = BRAKING_SHARE * self.acceleration, self.landing.speed
        spent = braking * dt_s / 2
        return ((spent**2 + landing**2 + 2 * braking * above).sqrt() - spent).clamp_min(landing)


def length(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 1"]:
    """Euclidean norm, with less on the way to it than `Tensor.norm` has."""
    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
