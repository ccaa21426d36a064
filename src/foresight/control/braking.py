"""From motion to rest, jerk-limited, by ruckig. Knows no goal: it only stops."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from ruckig import ControlInterface, InputParameter, Result, Ruckig, RuckigError, Synchronization
from ruckig import Trajectory as RuckigTrajectory

from foresight.control.trajectory import hold
from foresight.data import Trajectory
from foresight.robots.profile import RobotProfile

POINT_S = 0.02  # spacing of the tail's points: a cubic through them stays within 1 % of the profile's acceleration
HEADROOM = 0.9  # share of the acceleration limit that braking uses, so that the cubic stays inside it


class BrakingError(RuntimeError):
    """The arm cannot be brought to rest within the profile's limits from this state."""


def braking(
    q: Float[np.ndarray, "J"],
    dq: Float[np.ndarray, "J"],
    profile: RobotProfile,
    start_s: float,
    ddq: Float[np.ndarray, "J"] | None = None,
) -> Trajectory:
    """The quickest jerk-limited motion from (q [rad], dq [rad/s], ddq [rad/s^2]) at `start_s` to rest.

    Raises BrakingError when no such motion exists, for instance because a value is not finite.
    """
    joints = len(q)
    if np.abs(dq).max() < 1e-9:
        return hold(q, start_s)
    problem = InputParameter(joints)
    problem.control_interface = ControlInterface.Velocity
    problem.synchronization = Synchronization.Phase  # along a straight line in joint space where that is possible
    problem.current_position, problem.current_velocity = q.tolist(), dq.tolist()
    limit = profile.acceleration_max * HEADROOM
    problem.current_acceleration = (np.zeros(joints) if ddq is None else np.clip(ddq, -limit, limit)).tolist()
    problem.target_velocity = [0.0] * joints
    problem.target_acceleration = [0.0] * joints
    problem.max_acceleration, problem.max_jerk = limit.tolist(), profile.jerk_max.tolist()
    profile_to_rest = RuckigTrajectory(joints)
    try:
        result = Ruckig(joints).calculate(problem, profile_to_rest)
    except RuckigError as error:
        raise BrakingError(f"No braking motion from velocity {np.round(dq, 3).tolist()} rad/s: {error}") from error
    if result not in (Result.Working, Result.Finished):
        raise BrakingError(f"No braking motion from velocity {np.round(dq, 3).tolist()} rad/s: ruckig says {result}.")
    duration = profile_to_rest.duration
    times = np.linspace(0.0, duration, max(2, int(np.ceil(duration / POINT_S)) + 1))
    points = [profile_to_rest.at_time(float(t))[:2] for t in times]
    velocity = np.array([p[1] for p in points])
    velocity[-1] = 0.0
    return Trajectory(start_s + times, np.array([p[0] for p in points]), velocity)
