"""From motion to rest, jerk-limited, by ruckig. Knows no goal: it only stops."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from ruckig import ControlInterface, InputParameter, Result, Ruckig, RuckigError, Synchronization
from ruckig import Trajectory as RuckigTrajectory

from foresight.control.trajectory import hold
from foresight.data import Trajectory
from foresight.robots.profile import RobotProfile

POINT_S = 0.02  # [s] at most between two points
APART_S = 1e-4  # [s] at least between two points
HEADROOM = 0.98  # share of the acceleration limit that is used
ALIKE = 0.02  # share of the acceleration that may lie across the velocity where both count as in one line
EVEN = 1.05  # times the least jerk with which a joint rests as soon as the slowest
HALVINGS = 7  # of the ratio between the jerk limit and the least that is tried
LEAST = 1e-3  # of the jerk limit
JERK_SHARE = 0.95  # of the jerk limit: where two changes of the jerk lie nearer than APART_S, a quintic has a little more


class BrakingError(RuntimeError):
    """The arm cannot be brought to rest within the profile's limits from this state."""


def braking(
    q: Float[np.ndarray, "J"],
    dq: Float[np.ndarray, "J"],
    profile: RobotProfile,
    start_s: float,
    ddq: Float[np.ndarray, "J"] | None = None,
) -> Trajectory:
    """The quickest jerk-limited motion from (q [rad], dq [rad/s], ddq [rad/s^2]) at `start_s` to rest, wherever that is.

    On a straight line in joint space where that is possible. Else the joints of a robot with a limit on the torque's rate change
    their acceleration no harder than resting together needs: one at its jerk limit would turn all others' torques with it.
    Raises BrakingError when no such motion exists, for instance because a value is not finite.
    """
    if np.abs(dq).max() < 1e-9 and (ddq is None or np.abs(ddq).max() < 1e-6):
        return hold(q, start_s)
    problem = _problem(q, dq, ddq, profile)
    problem.control_interface = ControlInterface.Velocity
    problem.synchronization = Synchronization.Phase  # along a straight line in joint space where that is possible
    if profile.torque_rate_max is not None and ddq is not None and not _in_line(dq, ddq):
        limit = problem.max_jerk
        try:
            problem.max_jerk = _even_jerk(problem).tolist()
            return _solve(problem, start_s)
        except BrakingError:  # then as hard as it may
            problem.max_jerk = limit
    return _solve(problem, start_s)


def _in_line(dq: np.ndarray, ddq: np.ndarray) -> bool:
    """Whether the acceleration only makes the motion faster or slower."""
    across = ddq - dq * (dq @ ddq) / max(dq @ dq, np.finfo(float).tiny)
    return bool(np.abs(across).max() <= ALIKE * np.abs(ddq).max())


def _even_jerk(problem: InputParameter) -> Float[np.ndarray, "J"]:
    """For each joint a little more than the least jerk [rad/s^3] with which it rests as soon as the slowest joint can."""
    lasts_s = np.array(_found(problem).independent_min_durations)
    limit = np.array(problem.max_jerk)
    jerk = limit.copy()
    for j in np.flatnonzero(lasts_s < lasts_s.max()):
        one = InputParameter(1)
        one.control_interface = ControlInterface.Velocity
        one.current_position, one.target_velocity, one.target_acceleration = [0.0], [0.0], [0.0]
        one.current_velocity, one.current_acceleration = [problem.current_velocity[j]], [problem.current_acceleration[j]]
        one.max_acceleration = [problem.max_acceleration[j]]
        low, high = LEAST, 1.0
        for _ in range(HALVINGS):
            share = np.sqrt(low * high)
            one.max_jerk = [share * limit[j]]
            low, high = (low, share) if _found(one).duration <= lasts_s.max() else (share, high)
        jerk[j] = min(1.0, EVEN * high) * limit[j]
    return jerk


def coming_to(
    target: Float[np.ndarray, "J"],
    q: Float[np.ndarray, "J"],
    dq: Float[np.ndarray, "J"],
    ddq: Float[np.ndarray, "J"],
    profile: RobotProfile,
    speed_max: float,
    start_s: float,
    straight: bool = False,
) -> Trajectory:
    """The quickest jerk-limited motion that ends at rest at `target` [rad], each joint at most at `speed_max` [rad/s].

    `straight`: along a straight line in joint space where that is possible, as from rest.
    Raises BrakingError as `braking` does.
    """
    problem = _problem(q, dq, ddq, profile)
    problem.target_position = np.asarray(target, dtype=np.float64).tolist()
    problem.max_velocity = np.minimum(speed_max, profile.velocity_max).tolist()
    if straight:
        problem.synchronization = Synchronization.Phase
    return _solve(problem, start_s)


def _problem(q: np.ndarray, dq: np.ndarray, ddq: np.ndarray | None, profile: RobotProfile) -> InputParameter:
    joints = len(q)
    problem = InputParameter(joints)
    limit = profile.acceleration_max * HEADROOM
    if ddq is not None:  # what is in force may use all of it
        limit = np.clip(np.abs(ddq), limit, profile.acceleration_max)
    problem.current_position, problem.current_velocity = q.tolist(), dq.tolist()
    problem.current_acceleration = (np.zeros(joints) if ddq is None else np.clip(ddq, -limit, limit)).tolist()
    problem.target_velocity = problem.target_acceleration = [0.0] * joints
    problem.max_acceleration, problem.max_jerk = limit.tolist(), (JERK_SHARE * profile.jerk_max).tolist()
    return problem


def _found(problem: InputParameter) -> RuckigTrajectory:
    """What ruckig finds; raises BrakingError where that is nothing."""
    found = RuckigTrajectory(problem.degrees_of_freedom)
    velocity = np.round(problem.current_velocity, 3).tolist()
    try:
        result = Ruckig(problem.degrees_of_freedom).calculate(problem, found)
    except RuckigError as error:
        raise BrakingError(f"No motion to rest from velocity {velocity} rad/s: {error}") from error
    if result not in (Result.Working, Result.Finished):
        raise BrakingError(f"No motion to rest from velocity {velocity} rad/s: ruckig says {result}.")
    return found


def _solve(problem: InputParameter, start_s: float) -> Trajectory:
    found = _found(problem)
    times = start_s + _points(found)
    since = times - start_s  # as the clock's digits have it: far from its zero they are coarser than a point needs
    q, dq, ddq = (np.array(v) for v in zip(*(found.at_time(float(t))[:3] for t in since), strict=True))
    dq[-1] = ddq[-1] = 0.0
    return Trajectory(times, q, dq, ddq)


def _points(found: RuckigTrajectory) -> np.ndarray:
    """Times [s] of the points: wherever a jerk changes, since a quintic through those is the motion itself, and between."""
    end = found.duration
    switches = [np.cumsum([*joint.brake.t, *joint.t]) for section in found.profiles for joint in section]
    kept = [0.0]
    for t in np.sort(np.concatenate([*switches, np.arange(0.0, end, POINT_S)])):
        if t - kept[-1] >= APART_S and end - t >= APART_S:
            kept.append(float(t))
    return np.array([*kept, max(end, APART_S)])
