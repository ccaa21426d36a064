"""Which sources have fallen silent? Ages on a steady clock that the caller reads; knows no ROS and no clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Silence(NamedTuple):
    """A source that has not been heard of for too long."""

    name: str
    age_s: float  # [s] infinite when it was never seen
    limit_s: float  # [s]


class Watchdog:
    """Remembers when each named source (observation, joint_state, plan, ...) was last seen.

    A source never seen is silent, so that nothing starts before everything has arrived. Times must come from a steady
    clock: wall clocks step, and stamps are the sender's word.
    """

    def __init__(self, limits_s: Mapping[str, float]) -> None:
        for name, limit in limits_s.items():
            if not np.isfinite(limit) or limit <= 0:
                raise ValueError(f"The silence limit of '{name}' must be finite and greater than 0 s, got {limit}.")
        self.limits_s = dict(limits_s)
        self._seen_s: dict[str, float] = {}

    def seen(self, name: str, now_s: float) -> None:
        """The source has just been heard of."""
        if name not in self.limits_s:
            raise KeyError(f"Source '{name}' is not watched. Watched: {', '.join(self.limits_s)}.")
        self._seen_s[name] = now_s

    def silent(self, now_s: float) -> list[Silence]:
        """The sources that exceed their limit now, in the order they were named."""
        ages = {name: now_s - self._seen_s.get(name, -np.inf) for name in self.limits_s}
        return [Silence(name, age, self.limits_s[name]) for name, age in ages.items() if not age <= self.limits_s[name]]
