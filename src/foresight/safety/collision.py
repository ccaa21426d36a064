"""How far the arm is from itself, its table and keep-out boxes, and whether a motion comes too near: swept, so nothing is missed.

One look at the arm vouches for the time around it: no pair can come nearer than its distance there less a bound on its
motion, from the joints' greatest speeds and their lever arms. Where that is not more than the margin, the time is divided, down
to looks between which nothing moves more than `resolution_m`. So a motion with a pair nearer than its margin is always refused,
one that keeps margin + `resolution_m / 2` never is, and between the two either may happen.

Knows no goals: what the arm may touch (the cube) is not in the scene. Refuses numbers that are not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from foresight.control.trajectory import coefficients
from foresight.data import Box, Trajectory
from foresight.robots.profile import RobotProfile
from foresight.robots.proximity import Proximity
from foresight.safety.config import GuardConfig, Margins
from foresight.safety.obstacles import TABLE, from_text

WINDOW_S = 0.04  # [s] for which the first looks have to vouch; divided where something is near
NEAR_AT_HOME_M = 0.1  # [m] links nearer than this to each other at home are near by design
FIXED_M = 1e-3  # a link whose distance from the table changes by less when every joint bends is near it by design
BENT_RAD = 0.3
PIECES = 16  # at most, into which a window is divided at once
NOISE_M = 2e-6  # [m] that a distance may differ by at the same place


@dataclass(frozen=True)
class Contact:
    """Where a motion first comes too near."""

    time_s: float
    names: tuple[str, str]  # of the bodies; a table or keep-out stands second
    distance_m: float  # [m] between the two then; below 0 they overlap
    margin_m: float  # [m] that must be kept
    keep_out: bool  # the second is a keep-out box


class Clearance(NamedTuple):
    """What is left until the nearest pair is at its margin; below 0 it is nearer than that."""

    distance_m: float  # [m] beyond the margin
    names: tuple[str, str]  # of the pair; empty when nothing is within the range asked for


def _bent(profile: RobotProfile) -> Float[np.ndarray, "J"]:
    """Home with every joint bent towards the middle of its range."""
    middle = (profile.position_min + profile.position_max) / 2
    return profile.home + np.where(middle > profile.home, BENT_RAD, -BENT_RAD)


class Scene:
    """The arm among what it must not touch, its gripper closed, or wherever it can be where it moves."""

    def __init__(
        self,
        profile: RobotProfile,
        boxes: Sequence[Box] = (),
        margins: Margins = Margins(),
        table: Box | None = TABLE,
        resolution_m: float = 1e-3,
        gripper_moves: bool = False,
    ) -> None:
        if not (np.isfinite(resolution_m) and resolution_m > 0):
            raise ValueError(f"The sweep's resolution must be finite and above 0 m, got {resolution_m} m.")
        self.boxes, self.table, self.margins, self.resolution_m = tuple(boxes), table, margins, resolution_m
        tables = () if table is None else (table,)
        self.proximity = Proximity(
            profile, (*tables, *boxes), mounted_on=len(tables) - 1, touching_m=margins.self_m, gripper_moves=gripper_moves
        )
        obstacle = self.proximity.obstacle
        self._keep_out = obstacle >= len(tables)
        from_table = np.where(self.proximity.finger, margins.fingers_table_m, margins.table_m)
        self._margin = np.where(self._keep_out, margins.keep_out_m, np.where(obstacle < 0, margins.self_m, from_table))
        self._every = np.ones(len(obstacle), dtype=bool)
        at_home, bent = (self.proximity.distances(q, np.arange(len(obstacle))) for q in (profile.home, _bent(profile)))
        links_near = (obstacle < 0) & (at_home < NEAR_AT_HOME_M)
        of_table = ~self._keep_out & (obstacle >= 0)
        fixed = of_table & (np.abs(at_home - bent) < FIXED_M)  # a shoulder that only turns above its table
        self._slowing = ~(links_near | fixed | (of_table & self.proximity.hand))

    def clearance(self, q: Float[np.ndarray, "J"], range_m: float = 0.1, by_design: bool = True) -> Clearance:
        """What is left beyond the margin of the nearest pair, exact up to `range_m` [m], and who they are.

        Without `by_design` pairs that are near by design do not count, as in `room`.
        """
        return self._clearances(np.asarray(q)[None], range_m, self._every if by_design else self._slowing)[0]

    def nearest(self, q: Float[np.ndarray, "M J"], range_m: float = 0.1, by_design: bool = True) -> Clearance:
        """The least clearance at any of these positions, as `clearance` has it of one; of equal ones the first."""
        found = self._clearances(q, range_m, self._every if by_design else self._slowing)
        return min(found, key=lambda clearance: clearance.distance_m)

    def room(self, q: Float[np.ndarray, "M J"], range_m: float = 0.1) -> Float[np.ndarray, "M"]:
        """What is left [m] beyond the margin of the nearest pair of those that ought to slow the arm when they come near.

        Pairs that are near by design do not count: the hand over the table, where pushes work, a link whose distance from the
        table never changes, and links that are near each other at home already.
        """
        return np.array([clearance.distance_m for clearance in self._clearances(q, range_m, self._slowing)])

    def first_contact(self, trajectory: Trajectory, from_s: float) -> Contact | None:
        """Where the motion from `from_s` on first comes too near, or None when it never does.

        A pair that is too near at `from_s` already may only move apart: until it has reached its margin, each look finds
        it no nearer than the looks before.
        """
        for value in (trajectory.times_s, trajectory.q, trajectory.dq, trajectory.ddq, np.array([from_s])):
            if value is not None:
                _require_finite(value)
        path = _Path(trajectory)
        q = path(np.array([from_s]))[0]
        kept = self._margin + self.resolution_m / 2
        pairs = np.flatnonzero(self.proximity.lower_bounds(q[None])[0] < kept)
        near = pairs[self.proximity.distances(q, pairs) < kept[pairs]]
        windows = self._windows(trajectory, path, from_s)
        found = (self._parting(path, windows, near), self._sweep(path, windows, near))
        return min((c for c in found if c is not None), key=lambda c: c.time_s, default=None)

    def _clearances(self, q: Float[np.ndarray, "M J"], range_m: float, among: Bool[np.ndarray, "P"]) -> list[Clearance]:
        _require_finite(q)
        least = np.where(among, self.proximity.lower_bounds(q) - self._margin, np.inf)
        found = [Clearance(range_m, ("", ""))] * len(q)
        for i in np.flatnonzero(least.min(axis=1) < range_m):
            found[i] = self._clearance(q[i], least[i], range_m)
        return found

    def _clearance(self, q: Float[np.ndarray, "J"], least: Float[np.ndarray, "P"], range_m: float) -> Clearance:
        """Asks the pairs in the order of what they have left at least, until none can have less than the least so far."""
        nearest = Clearance(range_m, ("", ""))
        for pair in np.argsort(least):
            if least[pair] >= nearest.distance_m:
                break
            most = nearest.distance_m + self._margin[pair]
            left = float(self.proximity.distances(q, pair[None], most[None])[0] - self._margin[pair])
            if left < nearest.distance_m:
                nearest = Clearance(left, self.proximity.names[pair])
        return nearest

    def _windows(self, trajectory: Trajectory, path: "_Path", from_s: float) -> "_Windows":
        times = trajectory.times_s
        first, last = max(from_s, float(times[0])), float(times[-1])
        if last <= first:
            return _Windows(np.array([first]), np.array([first]), trajectory.q[-1:], np.zeros((1, len(self._margin))))
        edges = np.linspace(first, last, int(np.ceil((last - first) / WINDOW_S)) + 1)
        begin, end = edges[:-1], edges[1:]
        speed = speed_bounds(trajectory)
        i = np.clip(np.searchsorted(times, begin, side="right") - 1, 0, len(speed) - 1)
        j = np.clip(np.searchsorted(times, end, side="left"), i + 1, len(speed))
        fastest = np.array([speed[a:b].max(axis=0) for a, b in zip(i, j, strict=True)])
        middle = path((begin + end) / 2)
        return _Windows(begin, end, middle, self.proximity.motion(middle, fastest * (end - begin)[:, None] / 2))

    def _sweep(self, path: "_Path", windows: "_Windows", but: Int[np.ndarray, "n"]) -> Contact | None:
        """The first look at which a pair is within its margin and what it moves until the next look."""
        possible = self.proximity.lower_bounds(windows.middle) < self._margin + windows.half
        possible[:, but] = False
        for k in np.flatnonzero(possible.any(axis=1)):
            pairs = np.flatnonzero(possible[k])
            span = (windows.begin[k], windows.end[k])
            contact = self._vouch(path, windows.middle[k], span, pairs, windows.half[k, pairs])
            if contact is not None:
                return contact
        return None

    def _vouch(
        self,
        path: "_Path",
        q: Float[np.ndarray, "J"],
        span: tuple[float, float],
        pairs: Int[np.ndarray, "n"],
        half: Float[np.ndarray, "n"],
    ) -> Contact | None:
        """None of the pairs comes too near in the span, seen from its middle `q`; `half` bounds their motion to either side."""
        margin = self._margin[pairs]
        distances = self.proximity.distances(q, pairs, margin + half)
        within = ~(distances >= margin + half)
        if not within.any():
            return None
        pairs, half, distances, margin = pairs[within], half[within], distances[within], margin[within]
        too_near = half <= self.resolution_m / 2
        if too_near.any():
            i = int(np.argmin(np.where(too_near, distances - margin, np.inf)))
            return self._contact(sum(span) / 2, int(pairs[i]), float(distances[i]))
        needed = half / np.maximum(distances - margin, self.resolution_m / 2)
        pieces = int(np.clip(np.ceil(1.01 * needed.max()), 2, PIECES))
        edges = np.linspace(*span, pieces + 1)
        for i, middle in enumerate(path((edges[:-1] + edges[1:]) / 2)):
            contact = self._vouch(path, middle, (edges[i], edges[i + 1]), pairs, half / pieces)
            if contact is not None:
                return contact
        return None

    def _parting(self, path: "_Path", windows: "_Windows", near: Int[np.ndarray, "n"]) -> Contact | None:
        """The first look at which a pair that began too near is nearer than it was, its margin aside."""
        if not len(near):
            return None
        kept = self._margin[near] + self.resolution_m / 2
        margin, floor, least = self._margin[near], np.full(len(near), -np.inf), None
        for begin, end, middle, half in zip(windows.begin, windows.end, windows.middle, windows.half[:, near], strict=True):
            if (floor > -np.inf).all() and (self.proximity.distances(middle, near) - half >= kept).all():
                floor = kept  # apart throughout
                continue
            times = np.linspace(begin, end, max(1, int(np.ceil(2 * half.max() / self.resolution_m))) + 1)
            for time_s, q in zip(times.tolist(), path(times), strict=True):
                distances = self.proximity.distances(q, near)
                if least is None:  # not even noise brings it nearer than it began: that would add up from motion to motion
                    least = np.minimum(margin, distances) - NOISE_M / 1e3
                low = np.maximum(floor - NOISE_M, least)
                if not (distances >= low).all():
                    i = int(np.argmax(low - distances))
                    return self._contact(time_s, int(near[i]), float(distances[i]))
                floor = np.minimum(np.maximum(floor, distances), kept)
        return None

    def _contact(self, time_s: float, pair: int, distance_m: float) -> Contact:
        margin, keep_out = float(self._margin[pair]), bool(self._keep_out[pair])
        return Contact(float(time_s), self.proximity.names[pair], distance_m, margin, keep_out)


def scene_from(text: str, profile: RobotProfile, config: GuardConfig) -> Scene | None:
    """The scene that a text (`obstacles.to_text`) tells of, with the guard's margins; None for an empty one."""
    if not text:
        return None
    table, boxes, gripper_moves = from_text(text)
    return Scene(profile, boxes, config.margins, table, config.sweep_resolution_m, gripper_moves)


class _Path:
    """Positions of one trajectory, its polynomials worked out once."""

    def __init__(self, trajectory: Trajectory) -> None:
        self._knots, self._last = trajectory.times_s, trajectory.q[-1]
        self._polynomials = coefficients(trajectory)

    def __call__(self, times_s: Float[np.ndarray, "M"]) -> Float[np.ndarray, "M J"]:
        if not len(self._polynomials):
            return np.repeat(self._last[None], len(times_s), axis=0)
        inside = np.clip(times_s, self._knots[0], self._knots[-1])
        i = np.minimum(np.searchsorted(self._knots, inside, side="right") - 1, len(self._polynomials) - 1)
        polynomials, t = self._polynomials[i], (inside - self._knots[i])[:, None]
        q = polynomials[:, -1]
        for power in range(polynomials.shape[1] - 2, -1, -1):
            q = q * t + polynomials[:, power]
        return q


class _Windows(NamedTuple):
    """Spans of time that one look each has to vouch for."""

    begin: Float[np.ndarray, "K"]  # [s]
    end: Float[np.ndarray, "K"]  # [s]
    middle: Float[np.ndarray, "K J"]  # [rad] halfway
    half: Float[np.ndarray, "K P"]  # [m] that each pair moves at most, from the middle to either end


def speed_bounds(trajectory: Trajectory) -> Float[np.ndarray, "segments J"]:
    """What no joint's speed [rad/s] exceeds in each segment: the greatest of the velocity's Bezier control points."""
    h = np.diff(trajectory.times_s)[:, None]
    dq, ddq, step = trajectory.dq, trajectory.ddq, np.diff(trajectory.q, axis=0) / h
    a, b = dq[:-1], dq[1:]
    if ddq is None:
        inner = [3 * step - a - b]
    else:
        inner = [a + h * ddq[:-1] / 4, 5 * step - 2 * (a + b) + h * (ddq[1:] - ddq[:-1]) / 4, b - h * ddq[1:] / 4]
    return np.abs([a, *inner, b]).max(axis=0)


def _require_finite(values: np.ndarray) -> None:
    finite = int(np.isfinite(values).sum())
    if finite != values.size:
        raise ValueError(f"{values.size - finite} of {values.size} numbers are not finite, expected 0.")
