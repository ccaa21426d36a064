"""Reading joint trajectories: cubic between points, held at the last point. Knows no robot and no clock."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from foresight.data import Trajectory

HOLD_S = 0.1


def sample(trajectory: Trajectory, times_s: float | Float[np.ndarray, "M"]) -> tuple[np.ndarray, np.ndarray]:
    """Position [rad] and velocity [rad/s] at absolute times: (J,) for one time, (M, J) for many.

    Before the first point the first position is held, after the last the last; velocity is then zero.
    """
    t = np.atleast_1d(np.asarray(times_s, dtype=np.float64))
    knots, q, dq = trajectory.times_s, trajectory.q, trajectory.dq
    if len(knots) == 1:
        position, velocity = np.repeat(q[:1], len(t), 0), np.zeros((len(t), q.shape[1]))
    else:
        i = np.clip(np.searchsorted(knots, t, side="right") - 1, 0, len(knots) - 2)
        h = (knots[i + 1] - knots[i])[:, None]
        s = np.clip((t - knots[i])[:, None] / h, 0.0, 1.0)
        q0, q1, m0, m1 = q[i], q[i + 1], dq[i] * h, dq[i + 1] * h
        position = (1 + 2 * s) * (1 - s) ** 2 * q0 + s * (1 - s) ** 2 * m0 + s**2 * (3 - 2 * s) * q1 + s**2 * (s - 1) * m1
        velocity = (6 * s * (s - 1) * (q0 - q1) + (1 - s) * (1 - 3 * s) * m0 + s * (3 * s - 2) * m1) / h
        velocity[(t < knots[0]) | (t > knots[-1])] = 0.0
    return (position[0], velocity[0]) if np.ndim(times_s) == 0 else (position, velocity)


def accelerations(trajectory: Trajectory) -> Float[np.ndarray, "segments 2 J"]:
    """Acceleration [rad/s^2] at both ends of each segment; between them it is linear, so these are its extremes."""
    h = np.diff(trajectory.times_s)[:, None]
    slope = np.diff(trajectory.q, axis=0) / h
    dq0, dq1 = trajectory.dq[:-1], trajectory.dq[1:]
    return np.stack([(6 * slope - 4 * dq0 - 2 * dq1) / h, (-6 * slope + 2 * dq0 + 4 * dq1) / h], axis=1)


def hold(q: Float[np.ndarray, "J"], now_s: float) -> Trajectory:
    """Stay where the joints are. Lasts HOLD_S, because controllers ignore a trajectory that lies wholly in the past."""
    return Trajectory(np.array([now_s, now_s + HOLD_S]), np.tile(np.asarray(q, dtype=np.float64), (2, 1)), np.zeros((2, len(q))))


def is_at_rest(trajectory: Trajectory, now_s: float) -> bool:
    """True once the trajectory has ended."""
    return bool(now_s >= trajectory.times_s[-1])


def join(head: Trajectory, tail: Trajectory) -> Trajectory:
    """One trajectory from two; the tail's first point stands for the head's last."""
    return Trajectory(
        np.concatenate([head.times_s[:-1], tail.times_s]),
        np.concatenate([head.q[:-1], tail.q]),
        np.concatenate([head.dq[:-1], tail.dq]),
    )
