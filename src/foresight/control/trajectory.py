"""Reading joint trajectories as joint_trajectory_controller does: quintic between points that carry accelerations, cubic
between points that do not, held at the last point. Knows no robot and no clock."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from foresight.data import Trajectory

HOLD_S = 0.1
IGNORED_RAD_S = 1.2e-7  # [rad/s] at a trajectory's end, above which joint_trajectory_controller does not take it


def sample(trajectory: Trajectory, times_s: float | Float[np.ndarray, "M"]) -> tuple[np.ndarray, np.ndarray]:
    """Position [rad] and velocity [rad/s] at absolute times: (J,) for one time, (M, J) for many.

    Before the first point the first position is held, after the last the last; velocity is then zero.
    """
    q, dq, _, _ = _evaluate(trajectory, times_s, 2)
    return q, dq


def derivatives(
    trajectory: Trajectory, times_s: float | Float[np.ndarray, "M"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Position [rad], velocity [rad/s], acceleration [rad/s^2] and jerk [rad/s^3] at absolute times, shaped as in `sample`.

    At a point, the values of the segment that begins there; outside the trajectory all but the position are zero.
    """
    return _evaluate(trajectory, times_s, 4)


def _evaluate(trajectory: Trajectory, times_s: float | np.ndarray, orders: int) -> tuple[np.ndarray, ...]:
    if np.ndim(times_s) == 0 and len(trajectory.times_s) > 1 and trajectory.ddq is not None:
        return _evaluate_once(trajectory, float(times_s))
    t = np.atleast_1d(np.asarray(times_s, dtype=np.float64))
    knots, shape = trajectory.times_s, (len(t), trajectory.q.shape[1])
    if len(knots) == 1:
        found = [np.repeat(trajectory.q[:1], len(t), 0)] + [np.zeros(shape)] * 3
    else:
        i = np.clip(np.searchsorted(knots, t, side="right") - 1, 0, len(knots) - 2)
        inside = np.clip(t, knots[0], knots[-1])
        if len(t) < len(knots):  # only the segments that are asked for
            rows = lambda v: None if v is None else (v[i], v[i + 1])  # noqa: E731
            h = (knots[i + 1] - knots[i])[:, None]
            polynomial = _coefficients(h, rows(trajectory.q), rows(trajectory.dq), rows(trajectory.ddq))
        else:
            polynomial = coefficients(trajectory)[i].swapaxes(0, 1)  # (6, M, J)
        found = [_horner(polynomial, (inside - knots[i])[:, None])]
        for _ in range(orders - 1):
            polynomial = _derivative(polynomial)
            found.append(_horner(polynomial, (inside - knots[i])[:, None]))
        outside = (t < knots[0]) | (t > knots[-1])
        for value in found[1:]:
            value[outside] = 0.0
        found[0][t <= knots[0]], found[0][t >= knots[-1]] = trajectory.q[0], trajectory.q[-1]  # to the last digit
        found[1][t == knots[-1]] = trajectory.dq[-1]
        found += [np.zeros(shape)] * (4 - orders)
    return tuple(value[0] if np.ndim(times_s) == 0 else value for value in found)


def _evaluate_once(trajectory: Trajectory, time_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same for one time, where there are accelerations: the values are linear in those at the ends of its segment."""
    knots, last = trajectory.times_s, len(trajectory.times_s) - 1
    i = min(max(int(knots.searchsorted(time_s, side="right")) - 1, 0), last - 1)
    (begin_s, end_s), (first_s, second_s) = (knots[[0, -1]].tolist(), knots[i : i + 2].tolist())
    h, t = second_s - first_s, min(max(time_s, begin_s), end_s) - first_s
    powers = (t**3, t**4, t**5), (3 * t**2, 4 * t**3, 5 * t**4), (6 * t, 12 * t**2, 20 * t**3), (6.0, 24 * t, 60 * t**2)
    from_ends = (  # of way, velocities and accelerations at both ends to the third to fifth power
        (10 / h**3, -15 / h**4, 6 / h**5),
        (-6 / h**2, 8 / h**3, -3 / h**4),
        (-4 / h**2, 7 / h**3, -3 / h**4),
        (-1.5 / h, 1.5 / h**2, -0.5 / h**3),
        (0.5 / h, -1 / h**2, 0.5 / h**3),
    )
    weights = np.array([[a * x + b * y + c * z for x, y, z in from_ends] for a, b, c in powers])
    ends = np.empty((5, trajectory.q.shape[1]))
    q0, v0, a0 = trajectory.q[i], trajectory.dq[i], trajectory.ddq[i]
    ends[0], ends[1:3], ends[3:] = trajectory.q[i + 1] - q0, trajectory.dq[i : i + 2], trajectory.ddq[i : i + 2]
    q, dq, ddq, jerk = weights @ ends
    q, dq, ddq = q + q0 + t * v0 + t**2 / 2 * a0, dq + v0 + t * a0, ddq + a0
    if time_s < begin_s or time_s > end_s:
        dq, ddq, jerk = np.zeros((3, len(q)))
    if time_s <= begin_s or time_s >= end_s:  # to the last digit
        q = trajectory.q[0 if time_s <= begin_s else last].copy()
        dq = trajectory.dq[last].copy() if time_s == end_s else dq
    return q, dq, ddq, jerk


class Rates:
    """Velocity, acceleration and jerk of one trajectory, for whoever asks again and again: its polynomials are found once."""

    def __init__(self, trajectory: Trajectory) -> None:
        self._since_s = trajectory.times_s - trajectory.times_s[0]
        polynomial = coefficients(trajectory).swapaxes(0, 1)  # (6, segments, J)
        self._polynomials = []
        for _ in range(3):
            polynomial = _derivative(polynomial)
            self._polynomials.append(polynomial)

    def __call__(self, since_s: Float[np.ndarray, "M"]) -> tuple[Float[np.ndarray, "M J"], ...]:
        """At times [s] since its first point, none of them outside of it: as `derivatives`, without the position."""
        i = np.clip(np.searchsorted(self._since_s, since_s, side="right") - 1, 0, len(self._since_s) - 2)
        into = (since_s - self._since_s[i])[:, None]
        return tuple(_horner(polynomial[:, i], into) for polynomial in self._polynomials)


def _derivative(polynomial: np.ndarray) -> np.ndarray:
    return polynomial[1:] * np.arange(1, len(polynomial))[:, None, None]


def _horner(polynomial: np.ndarray, t: np.ndarray) -> np.ndarray:
    value = polynomial[-1]
    for c in polynomial[-2::-1]:
        value = value * t + c
    return value.copy()


def coefficients(trajectory: Trajectory) -> Float[np.ndarray, "segments 6 J"]:
    """Of each segment's polynomial in the seconds since its first point, lowest power first."""
    ends = lambda v: None if v is None else (v[:-1], v[1:])  # noqa: E731
    h = np.diff(trajectory.times_s)[:, None]
    return _coefficients(h, ends(trajectory.q), ends(trajectory.dq), ends(trajectory.ddq)).swapaxes(0, 1)


def _coefficients(
    h: np.ndarray,
    q: tuple[np.ndarray, np.ndarray],
    dq: tuple[np.ndarray, np.ndarray],
    ddq: tuple[np.ndarray, np.ndarray] | None,
) -> np.ndarray:
    """(6, segments, J) from the values at both ends of segments that last h."""
    way, (v0, v1) = q[1] - q[0], dq
    if ddq is None:
        zero = np.zeros_like(way)
        return np.stack([q[0], v0, (3 * way / h - 2 * v0 - v1) / h, (v0 + v1 - 2 * way / h) / h**2, zero, zero])
    a0, a1 = ddq
    cubic = (20 * way - (8 * v1 + 12 * v0) * h - (3 * a0 - a1) * h**2) / (2 * h**3)
    quartic = (-30 * way + (14 * v1 + 16 * v0) * h + (3 * a0 - 2 * a1) * h**2) / (2 * h**4)
    quintic = (12 * way - 6 * (v1 + v0) * h - (a0 - a1) * h**2) / (2 * h**5)
    return np.stack([q[0], v0, a0 / 2, cubic, quartic, quintic])


def hold(q: Float[np.ndarray, "J"], now_s: float) -> Trajectory:
    """Stay where the joints are. Lasts HOLD_S, because controllers ignore a trajectory that lies wholly in the past."""
    still = np.zeros((2, len(q)))
    return Trajectory(np.array([now_s, now_s + HOLD_S]), np.tile(np.asarray(q, dtype=np.float64), (2, 1)), still, still.copy())


def join(head: Trajectory, tail: Trajectory) -> Trajectory:
    """One trajectory from two, both with accelerations or both without; the tail's first point stands for the head's last."""
    return _stack(head, slice(None, -1), tail)


def splice(before: Trajectory | None, after: Trajectory, since_s: float) -> Trajectory:
    """The motion before up to where `after` begins, then that; what lies before `since_s` is forgotten.

    Where `before` ended earlier its last position is held in between.
    """
    start_s = float(after.times_s[0])
    if before is None or since_s >= start_s:
        return after
    if before.times_s[0] < since_s:
        before = cut(before, since_s)
    return _stack(before, (before.times_s >= since_s) & (before.times_s < start_s - 1e-6), after)


def cut(trajectory: Trajectory, from_s: float) -> Trajectory:
    """What is left of the trajectory from then on, beginning with a point at that time; its last point held when it is over."""
    left = trajectory.times_s > from_s + 1e-9
    q, dq, ddq, _ = derivatives(trajectory, from_s)
    times = np.r_[from_s, trajectory.times_s[left]]
    accelerations = None if trajectory.ddq is None else np.vstack([ddq, trajectory.ddq[left]])
    return Trajectory(times, np.vstack([q, trajectory.q[left]]), np.vstack([dq, trajectory.dq[left]]), accelerations)


def ends_at_rest(trajectory: Trajectory) -> bool:
    """Whether a joint_trajectory_controller takes it: it ignores, silently, one that ends with a velocity."""
    return bool((np.abs(trajectory.dq[-1]) <= IGNORED_RAD_S).all())


def take_over(before: Trajectory, after: Trajectory, now_s: float) -> Trajectory | None:
    """What a joint_trajectory_controller executes when `after` comes while it executes `before`: from its present command
    straight to the first point that still lies ahead. None when `after` lies wholly in the past."""
    ahead = after.times_s > now_s + 1e-9
    if not ahead.any():
        return None
    q, dq, ddq, _ = derivatives(before, now_s)
    accelerations = None if after.ddq is None else np.vstack([ddq, after.ddq[ahead]])
    return Trajectory(
        np.r_[now_s, after.times_s[ahead]], np.vstack([q, after.q[ahead]]), np.vstack([dq, after.dq[ahead]]), accelerations
    )


def _stack(before: Trajectory, kept: slice | np.ndarray, after: Trajectory) -> Trajectory:
    if (before.ddq is None) != (after.ddq is None):
        raise ValueError("A trajectory with accelerations cannot be joined with one that has none.")
    both = lambda a, b: np.concatenate([a[kept], b])  # noqa: E731
    return Trajectory(
        both(before.times_s, after.times_s),
        both(before.q, after.q),
        both(before.dq, after.dq),
        None if after.ddq is None else both(before.ddq, after.ddq),
    )
