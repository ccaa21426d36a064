"""Is this trajectory safe to send? A pure function of what is known now; the answer is no until every check has passed.

Velocity, position and acceleration are checked exactly, at the extremes of each cubic, so they hold at any controller
rate. Knows no clock, no ROS, no torch, no model: it trusts none of those who made the trajectory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from foresight.control.trajectory import derivatives, sample
from foresight.data import Candidate, Reason, RobotState, Trajectory, Verdict
from foresight.interfaces import Kinematics
from foresight.robots.profile import RobotProfile
from foresight.safety.config import GuardConfig


def check(
    candidate: Candidate,
    in_force: Trajectory | None,
    state: RobotState | None,
    profile: RobotProfile,
    kinematics: Kinematics,
    config: GuardConfig,
    now_s: float,
) -> Verdict:
    """The first thing wrong with the candidate, or OK.

    `in_force` is what the controller executes now; with None the arm is expected to be at rest where it was measured.
    """
    trajectory = candidate.trajectory
    refusals = (
        _shape(trajectory, profile, config),
        _finite(candidate, now_s),
        _joints(candidate.joint_names, profile),
        _state(state, profile, config, now_s),
        _following(state, in_force, profile, config),
        _ages(candidate, config, now_s),
        _timing(trajectory, config, now_s),
        _join(trajectory, in_force, state, profile, config, now_s),
        _joint_limits(trajectory, profile, config),
        _tip(trajectory, profile, kinematics, config, now_s),
        _rest(trajectory, profile, config),
    )
    for part in refusals:  # generators: a check runs only when those before it have passed
        for verdict in part:
            return verdict
    return Verdict(Reason.OK)


def state_refusal(state: RobotState | None, profile: RobotProfile, config: GuardConfig, now_s: float) -> Verdict | None:
    """Why the measured state says nothing about where the arm is now; None when it does."""
    return next(_state(state, profile, config, now_s), None)


def following_refusal(
    state: RobotState, in_force: Trajectory | None, profile: RobotProfile, config: GuardConfig
) -> Verdict | None:
    """Why the arm is not doing what it was told; None when it is."""
    return next(_following(state, in_force, profile, config), None)


def _shape(trajectory: Trajectory, profile: RobotProfile, config: GuardConfig) -> Iterator[Verdict]:
    joints = len(profile.joint_names)
    for name in ("times_s", "q", "dq", "ddq"):
        value = getattr(trajectory, name)
        if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.floating):
            yield Verdict(
                Reason.MALFORMED,
                f"Trajectory {name} must be an array of floats, got {getattr(value, 'dtype', type(value).__name__)}.",
            )
    points = trajectory.times_s.shape[0] if trajectory.times_s.ndim == 1 else -1
    if not 1 <= points <= config.points_max:
        yield Verdict(
            Reason.MALFORMED, f"Trajectory times_s must be 1 to {config.points_max} times, got shape {trajectory.times_s.shape}."
        )
    for name in ("q", "dq", "ddq"):
        if getattr(trajectory, name).shape != (points, joints):
            yield Verdict(
                Reason.MALFORMED, f"Trajectory {name} must have shape {(points, joints)}, got {getattr(trajectory, name).shape}."
            )
    steps = np.diff(trajectory.times_s)
    if (steps <= 0).any():  # false for NaN, which is reported by its own name
        i = int(np.argmax(steps <= 0))
        first, second = trajectory.times_s[i : i + 2]
        yield Verdict(
            Reason.MALFORMED,
            f"Trajectory times must increase: point {i + 1} is at {second:.6f} s, the one before at {first:.6f} s.",
        )


def _finite(candidate: Candidate, now_s: float) -> Iterator[Verdict]:
    trajectory = candidate.trajectory
    stamps = np.array([candidate.observation_stamp_s, candidate.plan_stamp_s, now_s], dtype=np.float64)
    for name, value in (("times_s", trajectory.times_s), ("q", trajectory.q), ("dq", trajectory.dq), ("ddq", trajectory.ddq), ("stamps", stamps)):
        bad = int(value.size - np.isfinite(value).sum())
        if bad:
            yield Verdict(Reason.NOT_FINITE, f"Candidate {name}: {bad} of {value.size} numbers are not finite, expected 0.")


def _joints(names: tuple[str, ...], profile: RobotProfile) -> Iterator[Verdict]:
    expected = profile.joint_names
    if tuple(names) == expected:
        return
    missing = [n for n in expected if n not in names]
    extra = [n for n in names if n not in expected]
    if missing or extra:
        what = f"missing {missing}, unknown {extra}"
    elif len(names) != len(expected):
        what = f"{len(names)} names for {len(expected)} joints, some twice"
    else:
        what = "the same joints in another order"
    yield Verdict(
        Reason.WRONG_JOINTS, f"Joints do not match robot '{profile.name}': {what}. Expected {list(expected)}, got {list(names)}."
    )


def _state(state: RobotState | None, profile: RobotProfile, config: GuardConfig, now_s: float) -> Iterator[Verdict]:
    joints = len(profile.joint_names)
    if state is None:
        yield Verdict(
            Reason.STALE_STATE, f"No joint state has arrived (0), one not older than {config.state_age_max_s} s is needed."
        )
        return
    if state.q.shape != (joints,) or state.dq.shape != (joints,):
        yield Verdict(
            Reason.BAD_STATE,
            f"Joint state must have {joints} positions and velocities, got shapes {state.q.shape} and {state.dq.shape}.",
        )
        return
    bad = 2 * joints + 1 - int(np.isfinite(state.q).sum() + np.isfinite(state.dq).sum() + np.isfinite(state.stamp_s))
    if bad:
        yield Verdict(Reason.BAD_STATE, f"Joint state: {bad} of {2 * joints + 1} numbers are not finite, expected 0.")
    yield from _age("Joint state", state.stamp_s, config.state_age_max_s, Reason.STALE_STATE, config, now_s)


def _following(
    state: RobotState | None, in_force: Trajectory | None, profile: RobotProfile, config: GuardConfig
) -> Iterator[Verdict]:
    assert state is not None  # an earlier check has passed
    if in_force is not None:
        commanded = sample(in_force, state.stamp_s)[0]
        error = np.abs(state.q - commanded)
        if not (error <= config.tracking_error_max_rad).all():
            j = int(np.argmax(error))
            yield Verdict(
                Reason.BAD_STATE,
                f"The arm does not follow: {profile.joint_names[j]} is {error[j]:.4f} rad from its command, "
                f"allowed {config.tracking_error_max_rad} rad "
                f"(measured {state.q[j]:.4f}, commanded {commanded[j]:.4f}).",
            )
    elif not (np.abs(state.dq) <= config.measured_rest_rad_s).all():
        j = int(np.argmax(np.abs(state.dq)))
        yield Verdict(
            Reason.BAD_STATE,
            f"Nothing is in force, yet {profile.joint_names[j]} moves at {abs(state.dq[j]):.4f} rad/s, "
            f"allowed {config.measured_rest_rad_s} rad/s: "
            "something else commands the arm.",
        )


def _age(what: str, stamp_s: float, age_max_s: float, reason: Reason, config: GuardConfig, now_s: float) -> Iterator[Verdict]:
    age = now_s - stamp_s
    if not age <= age_max_s:
        yield Verdict(reason, f"{what} is {age:.4f} s old, allowed {age_max_s} s.")
    if not age >= -config.future_max_s:
        yield Verdict(
            reason,
            f"{what} is stamped {-age:.4f} s in the future, allowed {config.future_max_s} s: "
            "the clocks of its maker and the guard differ.",
        )


def _ages(candidate: Candidate, config: GuardConfig, now_s: float) -> Iterator[Verdict]:
    yield from _age(
        "Observation", candidate.observation_stamp_s, config.observation_age_max_s, Reason.STALE_OBSERVATION, config, now_s
    )
    yield from _age("Plan", candidate.plan_stamp_s, config.plan_age_max_s, Reason.STALE_PLAN, config, now_s)


def _timing(trajectory: Trajectory, config: GuardConfig, now_s: float) -> Iterator[Verdict]:
    first, last = float(trajectory.times_s[0]), float(trajectory.times_s[-1])
    if last - first > config.duration_max_s:
        yield Verdict(Reason.MALFORMED, f"Trajectory lasts {last - first:.4f} s, allowed {config.duration_max_s} s.")
    if first - now_s > config.start_ahead_max_s:
        yield Verdict(
            Reason.MALFORMED, f"Trajectory begins {first - now_s:.4f} s from now, allowed {config.start_ahead_max_s} s."
        )
    if now_s - first > config.start_behind_max_s:
        yield Verdict(Reason.STALE_PLAN, f"Trajectory began {now_s - first:.4f} s ago, allowed {config.start_behind_max_s} s.")
    if last <= now_s:  # the controller would ignore it and go on with the motion it has
        yield Verdict(Reason.STALE_PLAN, f"Trajectory ended {now_s - last:.4f} s ago, its end must lie ahead.")


def _join(
    trajectory: Trajectory,
    in_force: Trajectory | None,
    state: RobotState | None,
    profile: RobotProfile,
    config: GuardConfig,
    now_s: float,
) -> Iterator[Verdict]:
    """Position and velocity are continuous where the arm changes over: at the start, or now if that is past."""
    join_s = max(float(trajectory.times_s[0]), now_s)
    q, dq = sample(trajectory, join_s)
    if in_force is None:
        assert state is not None  # an earlier check has passed
        before, at_rest, allowed, what = state.q, np.zeros_like(q), config.first_position_rad, "the measured position"
        velocity_allowed = np.full(len(q), config.rest_rad_s)
    else:
        (before, at_rest), allowed, what = sample(in_force, join_s), config.join_position_rad, "the command in force"
        velocity_allowed = profile.acceleration_max * config.join_velocity_s
    step, velocity_step = np.abs(q - before), np.abs(dq - at_rest)
    if not (step <= allowed).all():
        j = int(np.argmax(step))
        yield Verdict(
            Reason.DISCONTINUOUS, f"{profile.joint_names[j]} would step by {step[j]:.5f} rad from {what}, allowed {allowed} rad."
        )
    if not (velocity_step <= velocity_allowed).all():
        j = int(np.argmax(velocity_step / velocity_allowed))
        yield Verdict(
            Reason.DISCONTINUOUS,
            f"{profile.joint_names[j]} would step in velocity by {velocity_step[j]:.5f} rad/s, "
            f"allowed {velocity_allowed[j]:.5f} rad/s.",
        )


def _joint_limits(trajectory: Trajectory, profile: RobotProfile, config: GuardConfig) -> Iterator[Verdict]:
    grid = np.arange(trajectory.times_s[0], trajectory.times_s[-1], 1.0 / profile.controller_rate_hz)
    q, dq, ddq, jerk = derivatives(trajectory, np.union1d(grid, trajectory.times_s))
    names, margin = profile.joint_names, 1 + config.limit_tolerance
    beyond = np.maximum(q - profile.position_max, profile.position_min - q)
    if not (beyond <= 0).all():
        i, j = np.unravel_index(int(np.argmax(beyond)), beyond.shape)
        yield Verdict(
            Reason.POSITION_LIMIT,
            f"{names[j]} would reach {q[i, j]:.4f} rad, allowed {profile.position_min[j]} to {profile.position_max[j]} rad.",
        )
    for reason, value, limit, unit in (
        (Reason.VELOCITY_LIMIT, dq, profile.velocity_max, "rad/s"),
        (Reason.ACCELERATION_LIMIT, ddq, profile.acceleration_max, "rad/s^2"),
        (Reason.JERK_LIMIT, jerk, profile.jerk_max, "rad/s^3"),
    ):
        greatest = np.abs(value).max(0)
        if not (greatest <= limit * margin).all():
            j = int(np.argmax(greatest / limit))
            yield Verdict(reason, f"{names[j]} would reach {greatest[j]:.4f} {unit}, allowed {limit[j]} {unit}.")


def _tip(
    trajectory: Trajectory, profile: RobotProfile, kinematics: Kinematics, config: GuardConfig, now_s: float
) -> Iterator[Verdict]:
    """Speed of the tip, and its place: inside the workspace, or on the way back into it and never further out."""
    first, last = max(float(trajectory.times_s[0]), now_s), float(trajectory.times_s[-1])
    regular = np.linspace(first, last, int(np.ceil((last - first) / config.tip_sample_s)) + 1)
    points = trajectory.times_s[trajectory.times_s >= first]  # the motion bends there, so speed often peaks there
    times = np.union1d(regular, points)
    q, dq = sample(trajectory, times)
    speeds = np.array([np.linalg.norm(kinematics.tip_velocity(a, b)) for a, b in zip(q, dq, strict=True)])
    if not (speeds <= profile.tip_speed_max * (1 + config.limit_tolerance)).all():
        i = int(np.argmax(speeds))
        yield Verdict(
            Reason.TIP_SPEED_LIMIT,
            f"The tip would reach {speeds[i]:.4f} m/s {times[i] - now_s:.3f} s from now, allowed {profile.tip_speed_max} m/s.",
        )
    tips = np.array([kinematics.tip(a) for a in q])
    outside = np.maximum(0.0, np.maximum(profile.workspace_min - tips, tips - profile.workspace_max))
    further = outside - np.minimum.accumulate(outside)  # beyond the nearest it has been to the workspace
    if not (further <= config.workspace_tolerance_m).all():
        i, axis = np.unravel_index(int(np.argmax(further)), further.shape)
        yield Verdict(
            Reason.WORKSPACE,
            f"The tip would go to {'xyz'[axis]} = {tips[i, axis]:.4f} m {times[i] - now_s:.3f} s from now, "
            f"allowed {profile.workspace_min[axis]} to {profile.workspace_max[axis]} m, or back towards it from outside.",
        )


def _rest(trajectory: Trajectory, profile: RobotProfile, config: GuardConfig) -> Iterator[Verdict]:
    speed = np.abs(trajectory.dq[-1])
    if not (speed <= config.rest_rad_s).all():
        j = int(np.argmax(speed))
        yield Verdict(
            Reason.NOT_AT_REST, f"{profile.joint_names[j]} would end at {speed[j]:.5f} rad/s, allowed {config.rest_rad_s} rad/s."
        )
