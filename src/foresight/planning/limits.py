"""Keeps candidate motions of the tip inside speed, acceleration and workspace, in physical units, by projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.planning.around import Blocked

BRAKING_SHARE = 0.5  # of the acceleration that may be counted on to stop before a wall


@dataclass(frozen=True)
class Landing:
    """Where the hand may come down on an object, and how fast it comes down there.

    A hand that comes down on an edge is turned aside, the farther the faster it came.
    """

    over: Blocked  # where the tip's hand is near the object
    above_m: float  # [m] height of the tip from which it is over the object, not beside it
    speed: float  # [m/s] downwards

    def slowed(self, position: Float[Tensor, "S 3"], wanted: Float[Tensor, "S 3"]) -> Float[Tensor, "S 3"]:
        """What is wanted, no faster downwards than it may be there."""
        there = (self.over.depth(position) > 0) & (position[:, 2] > self.above_m)
        down = torch.where(there, wanted[:, 2].clamp_min(-self.speed), wanted[:, 2])
        return torch.cat([wanted[:, :2], down[:, None]], 1)


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
        wanted = wanted if self.landing is None else self.landing.slowed(position, wanted)
        half_s, speed, most = dt_s / 2, self.speed, self.acceleration * dt_s
        reserve = velocity * half_s  # covered in this step whatever is wished
        rooms = torch.stack([self.high - position - reserve.clamp_min(0), position + reserve.clamp_max(0) - self.low])
        fastest_up, fastest_down = self._stoppable(rooms.clamp_min(0), dt_s).unbind(0)
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


def length(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 1"]:
    """Euclidean norm, with less on the way to it than `Tensor.norm` has."""
    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
