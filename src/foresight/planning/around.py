"""Where the tip may not be because of keep-outs, for many places at once, and ways round that.

The tool keeps its orientation, so a keep-out forbids the tip the box grown by the boxes around the hand. What of the arm is above
the hand is left to the exact examination (`constraints.py`). Knows no model, no cost and no time.

Shape letters: B boxes, M ways, W places where a way may turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foresight.data import Box

NEAREST_M = 0.03  # [m] from the begin at which a way may turn first: nearer is nowhere
SHORTEST = 80  # places on either side that are tried for a way with two turns


@dataclass(frozen=True)
class Blocked:
    """Boxes that the tip stays out of, in the base frame."""

    low: Float[np.ndarray, "B 3"]  # [m]
    high: Float[np.ndarray, "B 3"]  # [m]

    @classmethod
    def by(
        cls,
        boxes: Sequence[Box],
        hand: tuple[Float[np.ndarray, "G 3"], Float[np.ndarray, "G 3"]],
        margin_m: float,
    ) -> Blocked:
        """What the boxes forbid the tip of this hand (corners seen from the tip) that keeps `margin_m` from them."""
        low = [box.low - hand[1] - margin_m for box in boxes]
        high = [box.high - hand[0] + margin_m for box in boxes]
        return cls(np.concatenate([np.zeros((0, 3)), *low]), np.concatenate([np.zeros((0, 3)), *high]))

    def and_(self, other: Blocked) -> Blocked:
        """Both."""
        return Blocked(np.concatenate([self.low, other.low]), np.concatenate([self.high, other.high]))

    def depth(self, tips: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """How deep [m] each place lies in the deepest box; 0 outside all."""
        low, high = torch.as_tensor(self.low).to(tips), torch.as_tensor(self.high).to(tips)
        inside = torch.minimum(tips[..., None, :] - low, high - tips[..., None, :]).amin(-1)
        return inside.amax(-1).clamp_min(0)

    def free(self, begin: Float[np.ndarray, "#M 3"], end: Float[np.ndarray, "#M 3"]) -> Bool[np.ndarray, "M"]:
        """Whether each straight way from begin to end misses all boxes."""
        step = end - begin
        step = np.where(np.abs(step) < 1e-9, 1e-9, step)[:, None]
        one, other = (self.low - begin[:, None]) / step, (self.high - begin[:, None]) / step
        enter, leave = np.minimum(one, other).max(2), np.maximum(one, other).min(2)
        return ~((enter < leave) & (enter < 1) & (leave > 0)).any(1)

    def outside(self, place: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
        """The place, or the nearest found outside of boxes that it lies a little inside of."""
        for _ in range(8):
            up, down = self.high - place, place - self.low
            inside = (np.minimum(up, down) > 0).all(1)
            if not inside.any():
                break
            b = int(np.argmax(inside))
            ways = np.concatenate([up[b], -down[b]])
            i = int(np.argmin(np.abs(ways)))
            place = place.copy()
            place[i % 3] += ways[i] * (1 + 1e-6) + np.sign(ways[i]) * 1e-6
        return place


def grid(low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"], apart_m: float) -> Float[np.ndarray, "W 3"]:
    """Places that far or less apart in a volume, its corners among them."""
    axes = [np.linspace(a, b, int(np.ceil((b - a) / apart_m)) + 1) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def way_of_tip(
    blocked: Blocked, begin: Float[np.ndarray, "3"], end: Float[np.ndarray, "3"], places: Float[np.ndarray, "W 3"]
) -> list[Float[np.ndarray, "3"]] | None:
    """Where the shortest way with at most two turns turns, then its end; None when there is no such way."""
    begin, end, free = blocked.outside(begin), blocked.outside(end), blocked.free
    if free(begin[None], end[None])[0]:
        return [end]
    places = places[np.linalg.norm(places - begin, axis=1) > NEAREST_M]
    from_begin, to_end = free(begin[None], places), free(places, end[None])
    both = places[from_begin & to_end]
    if len(both):
        lengths = np.linalg.norm(both - begin, axis=1) + np.linalg.norm(both - end, axis=1)
        return [both[int(lengths.argmin())], end]
    first, last = places[from_begin], places[to_end]
    if not (len(first) and len(last)):
        return None
    there, on = np.linalg.norm(first - begin, axis=1), np.linalg.norm(last - end, axis=1)
    i = np.argsort(there + np.linalg.norm(first - end, axis=1))[:SHORTEST]
    j = np.argsort(on + np.linalg.norm(last - begin, axis=1))[:SHORTEST]
    a, b = np.repeat(first[i], len(j), 0), np.tile(last[j], (len(i), 1))
    lengths = np.repeat(there[i], len(j)) + np.tile(on[j], len(i)) + np.linalg.norm(b - a, axis=1)
    lengths = np.where(free(a, b), lengths, np.inf)
    best = int(lengths.argmin())
    return [a[best], b[best], end] if np.isfinite(lengths[best]) else None
