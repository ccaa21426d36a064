"""A quintic motion as the controller will see it: sampled at its rate, with the exact extremes where they are cheap.

Knows no limits and no robot. Segments are sampled evenly, at most one control period apart and at every point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from foresight.control.trajectory import coefficients
from foresight.data import Trajectory

NOWHERE = np.empty(0)
HALVINGS = 12  # of a piece in which an acceleration passes through zero: the speed is flat there


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

    def at(self, after_s: Float[np.ndarray, "M"]) -> tuple[Float[np.ndarray, "M J"], Float[np.ndarray, "M J"]]:
        """Position and velocity at times [s] after the beginning or before it; at rest after the end."""
        starts, positions, velocities = self._with_before("q", "dq")
        segment = np.maximum(np.searchsorted(starts, after_s, side="right") - 1, 0)
        into, ended = (after_s - starts[segment])[:, None], (after_s >= self.end_s - self.starts_s[0])[:, None]
        q, dq = (self._at(part, segment, into) for part in (positions, velocities))
        return np.where(ended, self.last[0], q), np.where(ended, 0.0, dq)

    def _with_before(self, *names: str) -> tuple[np.ndarray, ...]:
        """When segments begin [s], from the beginning of this motion on, and those polynomials, the motion before it included."""
        parts = (self,) if self.before is None else (self.before, self)
        starts = np.concatenate([part.starts_s - self.starts_s[0] for part in parts])
        return starts, *(np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names)

    @staticmethod
    def _at(part: np.ndarray, segment: np.ndarray, t: np.ndarray) -> np.ndarray:
        value = part[-1].take(segment, axis=0)
        for c in part[-2::-1]:
            value *= t
            value += c.take(segment, axis=0)
        return value

    def turns(self) -> Float[np.ndarray, "2 S J"]:
        """Times [s] into each segment at which the acceleration is extreme; 0 where it is at the ends only."""
        return _zeros(*self.jerk, self.lengths_s[:, None])

    def coasting(self) -> Float[np.ndarray, "K"]:
        """Times [s] after the beginning at which a joint's acceleration passes through zero, so that its speed is extreme.

        Between its ends and where it turns an acceleration rises or falls: each of these pieces is halved again and again.
        """
        turns = self.turns()
        ends = np.broadcast_to(self.lengths_s[:, None], turns.shape[1:])
        edges = np.sort(np.stack([np.zeros_like(ends), *turns, ends]), axis=0)
        values = polynomial(self.ddq, edges)
        piece, segment, joint = np.nonzero(values[:-1] * values[1:] < 0)
        low, high = edges[piece, segment, joint], edges[piece + 1, segment, joint]
        rising, cubics = values[piece + 1, segment, joint] > 0, self.ddq[:, segment, joint]
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            beyond = (polynomial(cubics, middle) > 0) == rising
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        return self.starts_s[segment] - self.starts_s[0] + low

    @cached_property
    def greatest_acceleration(self) -> Float[np.ndarray, "J"]:
        """Exact [rad/s^2]: a cubic is extreme at its ends and where the jerk is zero."""
        ends = (*self.turns(), self.lengths_s[:, None])
        return np.abs(np.stack([*(polynomial(self.ddq, t) for t in ends), self.ddq[0]])).max((0, 1))

    @cached_property
    def greatest_jerk(self) -> Float[np.ndarray, "J"]:
        """Exact [rad/s^3]: a parabola is extreme at its ends and its vertex."""
        h = self.lengths_s[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            vertex = -self.jerk[1] / (2 * self.jerk[2])
        vertex = np.where((vertex > 0) & (vertex < h), vertex, 0.0)
        return np.abs(np.stack([self.jerk[0], polynomial(self.jerk, vertex), polynomial(self.jerk, h)])).max((0, 1))

    def over(self, period_s: float, splits_s: Float[np.ndarray, "C"] = NOWHERE) -> Periods:
        """What the acceleration changes by in a period, as a function of when the period begins.

        It bends where a period begins or ends on a point; between two bends (or `splits_s` [s], absolute) it is a cubic. Periods
        that begin before the motion end in it; after its end the acceleration is zero.
        """
        zero_s = self.starts_s[0]  # all in seconds since then: a wall clock has too few digits for what follows
        (starts, parts), end_s = self._with_before("ddq"), self.end_s - zero_s
        first_s = max(-period_s, float(starts[0]))
        bends = np.append(starts, end_s)
        marks = np.unique(np.concatenate([bends, bends - period_s, splits_s - zero_s, [first_s]]))
        marks = marks[(marks >= first_s) & (marks <= end_s)]
        begins, lengths = marks[:-1], np.diff(marks)
        here, there = (_shifted(parts, starts, begins + by_s, lengths) for by_s in (0.0, period_s))
        there[:, begins + lengths / 2 + period_s > end_s] = 0.0
        return Periods(begins + zero_s, lengths, there - here, there)


@dataclass(frozen=True)
class Periods:
    """Cubics over the seconds by which a period begins later than `begins_s`, lowest power first."""

    begins_s: Float[np.ndarray, "K"]  # absolute [s]
    lengths_s: Float[np.ndarray, "K"]  # [s] for which they hold
    change: Float[np.ndarray, "4 K J"]  # of the acceleration in the period [rad/s^2]
    after: Float[np.ndarray, "4 K J"]  # acceleration at the end of the period [rad/s^2]

    def of(self, pieces: Int[np.ndarray, "M"]) -> Periods:
        """These pieces of them."""
        return Periods(self.begins_s[pieces], self.lengths_s[pieces], self.change[:, pieces], self.after[:, pieces])

    def extremes(self, cubics: Float[np.ndarray, "4 K J"]) -> Float[np.ndarray, "4 K J"]:
        """Seconds into each piece at which cubics like these can be extreme: its ends, and where they turn."""
        _, c1, c2, c3 = cubics
        last = np.broadcast_to(self.lengths_s[:, None], c1.shape)
        return np.stack([np.zeros_like(last), last, *_zeros(c1, 2 * c2, 3 * c3, last)])


def _zeros(c0: np.ndarray, c1: np.ndarray, c2: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Both zeros of c0 + c1 t + c2 t^2, one after the other; 0 for one that is not between 0 and the length, or not there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        pivot = -(c1 + np.copysign(np.sqrt(c1**2 - 4 * c2 * c0), c1)) / 2
        roots = np.stack([pivot / c2, c0 / pivot])
    return np.where((roots > 0) & (roots < length), roots, 0.0)  # NaN where there is none


def _shifted(parts: np.ndarray, starts: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> Float[np.ndarray, "4 K J"]:
    """The cubics of the segments that hold from `begins` on, in the seconds since then."""
    i = np.maximum(np.searchsorted(starts, begins + lengths / 2, side="right") - 1, 0)
    c0, c1, c2, c3 = parts[:, i]
    t = (begins - starts[i])[:, None]
    return np.stack([((c3 * t + c2) * t + c1) * t + c0, (3 * c3 * t + 2 * c2) * t + c1, 3 * c3 * t + c2, c3])


def polynomial(coefficients: np.ndarray, t: np.ndarray) -> np.ndarray:
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
