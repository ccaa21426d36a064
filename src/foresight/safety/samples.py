"""A quintic motion as the controller will see it: sampled at its rate, with the exact extremes where they are cheap.

Knows no limits and no robot. Segments are sampled evenly, at most one control period apart and at every point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from foresight.control.trajectory import coefficients
from foresight.data import Trajectory

AT_EDGE_S = 1e-6  # [s] before and after a step, where it is seen from both sides; wall clocks count in quarters of it
GOLDEN, GOLDEN_STEPS = 0.618, 8  # eight steps leave a fiftieth of the way


@dataclass(frozen=True)
class Samples:
    """Position and its first two derivatives at increasing times."""

    times_s: Float[np.ndarray, "M"]  # absolute [s]
    q: Float[np.ndarray, "M J"]  # [rad]
    dq: Float[np.ndarray, "M J"]  # [rad/s]
    ddq: Float[np.ndarray, "M J"]  # [rad/s^2]

    def every(self, spacing_s: float) -> np.ndarray:
        """Indices of samples at most about `spacing_s` apart, first and last among them."""
        slots = np.floor((self.times_s - self.times_s[0]) / spacing_s)
        chosen = np.flatnonzero(np.diff(slots, prepend=-1.0) > 0)
        return np.append(chosen, len(self.times_s) - 1) if chosen[-1] < len(self.times_s) - 1 else chosen


class Motion:
    """The polynomials of a trajectory of at least two points with accelerations, and of the motion before it."""

    def __init__(self, trajectory: Trajectory, before: Motion | None = None) -> None:
        self.before = before
        self.starts_s, self.lengths_s = trajectory.times_s[:-1], np.diff(trajectory.times_s)
        self.last = tuple(value[-1:] for value in (trajectory.q, trajectory.dq, trajectory.ddq))
        self.end_s = float(trajectory.times_s[-1])
        c = np.ascontiguousarray(coefficients(trajectory).swapaxes(0, 1))  # (6, S, J)
        powers = np.arange(1.0, 6.0)[:, None, None]
        self.q = c
        self.dq = c[1:] * powers
        self.ddq = self.dq[1:] * powers[:4]
        self.jerk = self.ddq[1:] * powers[:3]

    def samples(self, rate_hz: float) -> Samples:
        """At most one period apart, and at every point."""
        counts = np.maximum(1, np.ceil(self.lengths_s * rate_hz - 1e-6)).astype(int)
        segment = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts)
        t = (within * (self.lengths_s / counts)[segment])[:, None]
        values = (self._at(part, segment, t) for part in (self.q, self.dq, self.ddq))
        q, dq, ddq = (np.concatenate([value, last]) for value, last in zip(values, self.last, strict=True))
        return Samples(np.append(self.starts_s[segment] + t[:, 0], self.end_s), q, dq, ddq)

    @staticmethod
    def _at(part: np.ndarray, segment: np.ndarray, t: np.ndarray) -> np.ndarray:
        value = part[-1][segment]
        for c in part[-2::-1]:
            value *= t
            value += c[segment]
        return value

    def turns(self) -> Float[np.ndarray, "2 S J"]:
        """Times [s] into each segment at which the acceleration is extreme; 0 where it is at the ends only."""
        c0, c1, c2 = self.jerk
        with np.errstate(divide="ignore", invalid="ignore"):
            pivot = -(c1 + np.copysign(np.sqrt(c1**2 - 4 * c2 * c0), c1)) / 2
            roots = np.stack([pivot / c2, c0 / pivot])
        return np.where((roots > 0) & (roots < self.lengths_s[:, None]), roots, 0.0)  # NaN where there is none

    @cached_property
    def greatest_acceleration(self) -> Float[np.ndarray, "J"]:
        """Exact [rad/s^2]: a cubic is extreme at its ends and where the jerk is zero."""
        ends = (*self.turns(), self.lengths_s[:, None])
        return np.abs(np.stack([*(_polynomial(self.ddq, t) for t in ends), self.ddq[0]])).max((0, 1))

    @cached_property
    def greatest_jerk(self) -> Float[np.ndarray, "J"]:
        """Exact [rad/s^3]: a parabola is extreme at its ends and its vertex."""
        h = self.lengths_s[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            vertex = -self.jerk[1] / (2 * self.jerk[2])
        vertex = np.where((vertex > 0) & (vertex < h), vertex, 0.0)
        return np.abs(np.stack([self.jerk[0], _polynomial(self.jerk, vertex), _polynomial(self.jerk, h)])).max((0, 1))

    def change(self, begins_s: Float[np.ndarray, "M"], period_s: float) -> Float[np.ndarray, "M J"]:
        """By how much the acceleration [rad/s^2] changes in a period that begins then; zero acceleration after the end."""
        return self.acceleration(begins_s + period_s) - self.acceleration(begins_s)

    def edges(self, period_s: float) -> Float[np.ndarray, "M"]:
        """Times [s] at which a period's change of acceleration can be greatest: points, and turns within a period of one."""
        short = self.lengths_s < period_s
        turns = self.starts_s[short, None] + self.turns()[:, short]
        earlier = np.empty(0) if self.before is None else self.before.edges(period_s)
        earlier = earlier[(earlier > self.starts_s[0] - period_s) & (earlier < self.starts_s[0])]
        return np.concatenate([earlier, self.starts_s, np.unique(turns), [self.end_s - AT_EDGE_S, self.end_s + AT_EDGE_S]])

    def acceleration(self, times_s: Float[np.ndarray, "M"]) -> Float[np.ndarray, "M J"]:
        """Acceleration [rad/s^2] at times; zero after the end, and before the beginning that of the motion before."""
        i = np.clip(np.searchsorted(self.starts_s, times_s, side="right") - 1, 0, len(self.starts_s) - 1)
        value = self._at(self.ddq, i, (times_s - self.starts_s[i])[:, None])
        value[times_s > self.end_s] = 0.0
        if self.before is not None and (early := times_s < self.starts_s[0]).any():
            value[early] = self.before.acceleration(times_s[early])
        return value


def _polynomial(coefficients: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Values (S, J) of the polynomials (powers, S, J), lowest power first, at times into them (S, 1) or (S, J)."""
    value = coefficients[-1]
    for c in coefficients[-2::-1]:
        value = value * t + c
    return value


def peaks(values: Float[np.ndarray, "M ..."]) -> Float[np.ndarray, "M ..."]:
    """The samples, raised where a parabola through three neighbours peaks between them: what another phase would see."""
    if len(values) < 3:
        return values
    raised = values.copy()
    before, here, after = values[:-2], values[1:-1], values[2:]
    bend = before - 2 * here + after
    top = (here >= before) & (here >= after) & (bend < 0)
    raised[1:-1][top] -= (after - before)[top] ** 2 / (8 * bend[top])
    return raised


def greatest_between(
    value: Callable[[Float[np.ndarray, "M"]], Float[np.ndarray, "M J"]],
    times_s: Float[np.ndarray, "M"],
    edges_s: Float[np.ndarray, "E"],
    worth: Float[np.ndarray, "J"],
) -> tuple[Float[np.ndarray, "J"], Float[np.ndarray, "J"]]:
    """The greatest absolute values over time, with their times: at the edges, at the even times, and between these.

    Between them a golden section is taken around every maximum above `worth`, which is too little to matter.
    """
    looked, found = np.concatenate([times_s, edges_s]), np.abs(value(np.concatenate([times_s, edges_s])))
    at = found.argmax(0)
    best, when = found.max(0), looked[at]
    even = np.pad(found[: len(times_s)], ((1, 1), (0, 0)))
    row, joint = np.nonzero((even[1:-1] > worth) & (even[1:-1] >= even[:-2]) & (even[1:-1] > even[2:]))
    if not len(row):
        return best, when
    low, high = times_s[np.maximum(row - 1, 0)], times_s[np.minimum(row + 1, len(times_s) - 1)]
    pick = np.arange(len(row))
    for _ in range(GOLDEN_STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        both = np.abs(value(np.concatenate([left, right])))
        a, b = both[pick, joint], both[len(row) + pick, joint]
        np.maximum.at(best, joint, np.maximum(a, b))
        low, high = np.where(a < b, left, low), np.where(a < b, high, right)
    return best, when
