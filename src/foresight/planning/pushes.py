"""Ways of an object that a tip pushes from behind: straight pushes one after the other, clear of keep-outs.

Between two pushes the tip lets go and goes round the object, which costs as much as TURN_M of pushing. The graph of all pushes
between places on the table is worked out once for a set of keep-outs. Knows no model and no time.

Shape letters: M pushes, W places.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from foresight.data import Box
from foresight.planning.around import Blocked

CONTACT_M = 0.035  # [m] from the object's centre to the tip that pushes it
LINED_UP_M = 0.03  # [m] farther behind the object than that from where a push begins
OBJECT_M, HIGH_M = 0.035, 0.05  # [m] radius and height that the object is taken to have
LONGEST_M, SHORTEST_M = 0.16, 0.02  # [m] of one push
TURN_M = 0.12  # [m] of pushing that a turn is worth
CLEAR_M = 0.010  # [m] beyond its radius that the object is kept from a keep-out, where there is room for it
NARROW = 2.0  # times its length that a push counts where there is not
ROUNDS = 8  # pushes in a way, at most


class Pushes:
    """All straight pushes between places, and what each costs."""

    def __init__(
        self, keep_outs: Sequence[Box], wide: Blocked, narrow: Blocked, places: Float[np.ndarray, "W 3"], height_m: float
    ) -> None:
        """`wide` and `narrow`: where the tip that pushes at `height_m` had better not come, and where it must not."""
        self.keep_outs, self.height_m = tuple(box for box in keep_outs if box.low[2] < HIGH_M), height_m
        self._wide, self._narrow = (_at(blocked, height_m) for blocked in (wide, narrow))
        self.places = places
        self._between = np.full((len(places), len(places)), np.inf)
        lengths = np.linalg.norm(places[:, None] - places[None], axis=2)
        i, j = np.nonzero((lengths <= LONGEST_M) & (lengths >= SHORTEST_M))
        for part in np.array_split(np.arange(len(i)), max(1, len(i) // 20_000)):
            self._between[i[part], j[part]] = self._cost(places[i[part]], places[j[part]], OBJECT_M, OBJECT_M + CLEAR_M)
        self._there: Float[np.ndarray, "3"] | None = None

    def way(
        self, here: Float[np.ndarray, "3"], there: Float[np.ndarray, "3"], kept: Float[np.ndarray, "3"] | None = None
    ) -> list[Float[np.ndarray, "3"]] | None:
        """Where the object turns on its cheapest way, then `there`; None when there is no way. `kept`: a turn to rather take."""
        last, after = self._to(there)
        straight = float(self._ending(here[None], there[None], here, there)[0])
        first = self._ending(np.broadcast_to(here, self.places.shape), self.places, here) + TURN_M
        first = np.where(np.linalg.norm(self.places - here, axis=1) < SHORTEST_M, np.inf, first)
        costs = first + last
        if kept is not None:
            costs = np.where(np.linalg.norm(self.places - kept, axis=1) < 1e-6, costs - TURN_M / 2, costs)
        best = int(np.argmin(costs))
        if straight <= costs[best]:
            return [there] if np.isfinite(straight) else None
        way, at = [], best
        while at >= 0:
            way.append(self.places[at])
            at = int(after[at])
        return [*way, there]

    def _to(self, there: Float[np.ndarray, "3"]) -> tuple[Float[np.ndarray, "W"], np.ndarray]:
        """What the cheapest way from each place on costs, and the place that comes next on it; -1 where that is `there`."""
        if self._there is None or not (self._there == there).all():
            cost = self._ending(self.places, np.broadcast_to(there, self.places.shape), there)
            cost = np.where(np.linalg.norm(self.places - there, axis=1) > LONGEST_M, np.inf, cost)
            after = np.full(len(cost), -1)
            for _ in range(ROUNDS):
                through = self._between + TURN_M + cost[None]
                best = through.argmin(1)
                found = through[np.arange(len(best)), best]
                better = found < cost - 1e-9
                if not better.any():
                    break
                cost, after = np.where(better, found, cost), np.where(better, best, after)
            self._there, self._found = there, (cost, after)
        return self._found

    def _ending(self, begin, end, *ends: Float[np.ndarray, "3"]) -> Float[np.ndarray, "M"]:
        """As `_cost`, of pushes with these ends, which may be nearer to a keep-out than an object ought to be."""
        most = min(self._apart(place) for place in ends)
        return self._cost(begin, end, min(OBJECT_M, most), min(OBJECT_M + CLEAR_M, most))

    def _cost(self, begin, end, narrow_m: float, wide_m: float) -> Float[np.ndarray, "M"]:
        """In metres of pushing; inf where object or tip would come where they must not."""
        lengths = np.linalg.norm(end - begin, axis=1)
        cost = np.where(self._free(begin, end, self._narrow, narrow_m), NARROW * lengths, np.inf)
        return np.where(self._free(begin, end, self._wide, wide_m), lengths, cost)

    def _free(self, begin, end, blocked: Blocked, radius_m: float) -> Bool[np.ndarray, "M"]:
        step = end - begin
        ahead = step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)
        tip = blocked.free(begin - (CONTACT_M + LINED_UP_M) * ahead, end - CONTACT_M * ahead)
        return tip & self._of_object(radius_m).free(begin, end)

    def _of_object(self, radius_m: float) -> Blocked:
        low = [np.array([*(box.low[:2] - radius_m), -1.0]) for box in self.keep_outs]
        high = [np.array([*(box.high[:2] + radius_m), 1.0]) for box in self.keep_outs]
        return Blocked(np.array(low).reshape(-1, 3), np.array(high).reshape(-1, 3))

    def _apart(self, place: Float[np.ndarray, "3"]) -> float:
        """[m] along the farther axis from the nearest keep-out, at least 0."""
        apart = [float(np.maximum(box.low - place, place - box.high)[:2].max()) for box in self.keep_outs]
        return max(0.0, min(apart, default=np.inf) - 1e-6)


def _at(blocked: Blocked, height_m: float) -> Blocked:
    """Those of the boxes that a tip at this height can come into."""
    there = (blocked.low[:, 2] < height_m) & (blocked.high[:, 2] > height_m)
    return Blocked(blocked.low[there], blocked.high[there])
