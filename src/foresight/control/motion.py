"""A plan of the tip becomes a joint trajectory that joins the motion in force and ends at rest.

Knows kinematics and limits; knows neither goals nor the model.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from foresight.control.braking import BrakingError, braking
from foresight.control.trajectory import derivatives, join, sample
from foresight.data import Plan, RobotState, Start, Trajectory
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile

KEPT_S = 0.3  # of the plan after the joint; then the tail brakes. Long enough to outlast two replans
MIN_SEGMENT_S = 0.05  # a knot nearer to the joint than this is skipped: to reach it would take too much acceleration
GRID_S = 0.01  # [s] between two looks at the limits; the guard looks at the controller's rate
WALL_M = 0.001  # [m] kept from the workspace's walls
RIGHTING_S = 0.5  # time constant in which a tilted tool is brought upright
RIGHTING_ACCELERATION = 1.0  # [rad/s^2] at most, of that turn
SLOWER = (1.0, 0.8, 0.6, 0.4, 0.2)  # shares of the planned velocity tried until the limits hold


def start_of(in_force: Trajectory | None, stamp_s: float, join_s: float, dt_s: float, kinematics: MujocoKinematics) -> Start:
    """What the arm is already bound to do between the observation at `stamp_s` and the joint at `join_s`.

    Commits the commanded tip velocity at each knot before the joint (at most 6); with nothing in force the arm stands until then.
    """
    knots = min(6, max(0, int(np.floor((join_s - stamp_s) / dt_s + 1e-6))))
    if in_force is None:
        return Start(np.zeros(3), np.zeros((knots, 3)))
    times = stamp_s + dt_s * np.arange(knots + 1)
    q, dq = sample(in_force, times)
    velocities = np.array([kinematics.tip_velocity(a, b) for a, b in zip(q, dq, strict=True)])
    return Start(velocities[0], velocities[1:])


def joint_trajectory(
    plan: Plan,
    in_force: Trajectory | None,
    state: RobotState,
    join_s: float,
    kinematics: MujocoKinematics,
    profile: RobotProfile,
) -> Trajectory:
    """The plan from `join_s` on, KEPT_S of it, then a braking tail.

    Joins the trajectory in force with equal position, velocity and acceleration (the measured position, at rest, when none
    is in force).
    Where the plan would break a joint limit or leave the arm's reach it is slowed; at worst the result only brakes.
    """
    if in_force is None:
        q, dq, ddq = np.asarray(state.q, dtype=np.float64), np.zeros(len(state.q)), np.zeros(len(state.q))
    else:
        q, dq, ddq, _ = derivatives(in_force, join_s)
    for share in SLOWER:
        head = _follow(plan, share, q, dq, ddq, join_s, kinematics)
        if head is None:
            continue
        try:
            tail = braking(head.q[-1], head.dq[-1], profile, float(head.times_s[-1]), head.ddq[-1])
        except BrakingError:
            continue
        trajectory = join(head, tail)
        if _within_limits(trajectory, profile) and _inside(trajectory, kinematics, profile):
            return trajectory
    return braking(q, dq, profile, join_s, ddq)


def _follow(
    plan: Plan,
    share: float,
    q: Float[np.ndarray, "J"],
    dq: Float[np.ndarray, "J"],
    ddq: Float[np.ndarray, "J"],
    join_s: float,
    kinematics: MujocoKinematics,
) -> Trajectory | None:
    """Knots of the plan after the joint in joint space; None where the arm cannot reach."""
    knots_s = plan.stamp_s + plan.dt_s * (1 + np.arange(len(plan.tip_velocity)))
    kept = (knots_s > join_s + MIN_SEGMENT_S) & (knots_s <= join_s + KEPT_S + 1e-6)
    if not kept.any():
        return None
    times, positions, velocities = [join_s], [q], [dq]
    tip, rotation = kinematics.tip(q), kinematics.rotation(q)
    tip_velocity, angular_velocity = np.split(kinematics.jacobian(q) @ dq, 2)
    for knot_s, wanted in zip(knots_s[kept], share * plan.tip_velocity[kept], strict=True):
        step_s = knot_s - times[-1]
        turning = angular_velocity + _limited(
            kinematics.tilt(rotation) / RIGHTING_S - angular_velocity, RIGHTING_ACCELERATION * step_s
        )
        tip = tip + step_s * (tip_velocity + wanted) / 2
        rotation = kinematics.turned(rotation, step_s * (angular_velocity + turning) / 2)
        solution = kinematics.solve(tip, near=positions[-1], rotation=rotation)
        if solution is None:
            return None
        times.append(float(knot_s))
        positions.append(solution)
        velocities.append(kinematics.joint_velocity(solution, wanted, turning))
        tip_velocity, angular_velocity = wanted, turning
    return Trajectory(np.array(times), np.array(positions), np.array(velocities), _accelerations(times, velocities, ddq))


def _accelerations(times_s: list[float], velocities: list[np.ndarray], first: Float[np.ndarray, "J"]) -> Float[np.ndarray, "N J"]:
    """Accelerations at the knots: `first`, then the slope of the velocity across each knot, at the last the slope before it."""
    t, dq = np.array(times_s), np.array(velocities)
    across = (dq[2:] - dq[:-2]) / (t[2:] - t[:-2])[:, None]
    return np.vstack([first, across, (dq[-1] - dq[-2]) / (t[-1] - t[-2])])


def _limited(vector: Float[np.ndarray, "3"], length: float) -> Float[np.ndarray, "3"]:
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-12))


def _within_limits(trajectory: Trajectory, profile: RobotProfile) -> bool:
    times = np.arange(trajectory.times_s[0], trajectory.times_s[-1], GRID_S)
    q, dq, ddq, jerk = derivatives(trajectory, times)
    inside = (q >= profile.position_min).all() and (q <= profile.position_max).all()
    slowest, fastest = profile.velocity_bounds(q)
    slow = (dq >= slowest).all() and (dq <= fastest).all()
    return bool(inside and slow and (np.abs(ddq) <= profile.acceleration_max).all() and (np.abs(jerk) <= profile.jerk_max).all())


def _inside(trajectory: Trajectory, kinematics: MujocoKinematics, profile: RobotProfile) -> bool:
    """True when the tip keeps inside the workspace, or leaves it no farther than it already is outside."""
    times = np.append(np.arange(trajectory.times_s[0], trajectory.times_s[-1], 0.03), trajectory.times_s[-1])
    tips = kinematics.tips(sample(trajectory, times)[0])
    outside = np.maximum(profile.workspace_min + WALL_M - tips, tips - profile.workspace_max + WALL_M).max(axis=1)
    return bool((outside <= max(0.0, outside[0])).all())
