"""Is this trajectory safe to send? A pure function of what is known now; the answer is no until every check has passed.

Shape, names, ages and continuity are judged here, limits in `limits.py`, both on what the controller would execute: the motion
in force up to where the candidate begins, then the candidate. Knows no clock, no ROS, no torch, no model: it trusts none of
those who made the trajectory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from foresight.control.trajectory import derivatives, hold, sample, splice, take_over
from foresight.data import Candidate, Reason, RobotState, Trajectory, Verdict
from foresight.interfaces import MotionKinematics
from foresight.robots.profile import RobotProfile
from foresight.safety.collision import Scene
from foresight.safety.config import GuardConfig
from foresight.safety.grip import GripLimit, grip_refusal
from foresight.safety.limits import Finding, findings

SAME_S = 1e-6  # [s] between two times that are the same, in messages and as joined


def check(
    candidate: Candidate,
    in_force: Trajectory | None,
    state: RobotState | None,
    profile: RobotProfile,
    kinematics: MotionKinematics | None,
    config: GuardConfig,
    now_s: float,
    scene: Scene | None = None,
) -> Verdict:
    """The first thing wrong with the candidate, or OK.

    `in_force` is what the controller executes now, or is on its way to; with None the arm is expected to be at rest where it
    was measured.
    Without a scene collisions are not looked for.
    """
    return examine(candidate, in_force, state, profile, kinematics, config, now_s, scene).verdict


def examine(
    candidate: Candidate,
    in_force: Trajectory | None,
    state: RobotState | None,
    profile: RobotProfile,
    kinematics: MotionKinematics | None,
    config: GuardConfig,
    now_s: float,
    scene: Scene | None = None,
    transport_s: float = 0.0,
) -> Finding:
    """As `check`, with the share of its speed at which the candidate would be within the limit that it breaks."""
    trajectory = candidate.trajectory
    refusals = (
        _shape(trajectory, profile, config),
        _finite(candidate, now_s),
        _joints(candidate.joint_names, profile),
        _state(state, profile, config, now_s),
        _following(state, in_force, profile, config),
        _grip(candidate, state, profile),
        _ages(candidate, config, now_s),
        _timing(trajectory, config, now_s),
        _join(trajectory, in_force, state, profile, config, now_s),
    )
    for part in refusals:  # generators: a check runs only when those before it have passed
        for verdict in part:
            return Finding(verdict)
    motion = commanded(in_force, trajectory, state, config, now_s, transport_s)
    if len(motion.times_s) > config.points_ahead_max:
        detail = f"With what is in force until it begins it would have {len(motion.times_s)} points"
        return Finding(Verdict(Reason.MALFORMED, f"{detail}, allowed {config.points_ahead_max}."))
    return examine_motion(motion, profile, kinematics, config, now_s, scene, in_force)


def examine_motion(
    motion: Trajectory,
    profile: RobotProfile,
    kinematics: MotionKinematics | None,
    config: GuardConfig,
    now_s: float,
    scene: Scene | None = None,
    before: Trajectory | None = None,
) -> Finding:
    """The first limit that a well-formed motion breaks, or OK: what holds for a candidate and for a stop alike.

    `before` is what the controller executes until the motion begins.
    """
    for finding in findings(motion, profile, kinematics, config, now_s, before):
        return finding
    for verdict in _collision(motion, scene, now_s):
        return Finding(verdict)
    unseen = f"Tip and torque are not checked: robot '{profile.name}' has no model." if kinematics is None else ""
    return Finding(Verdict(Reason.OK, unseen), 1.0, motion)


def commanded(
    in_force: Trajectory | None,
    trajectory: Trajectory,
    state: RobotState,
    config: GuardConfig,
    now_s: float,
    transport_s: float = 0.0,
) -> Trajectory:
    """What the controller executes from now on once it has the trajectory, which must end after now.

    It keeps to the motion in force until the trajectory begins. Where that is past it goes straight from its present command
    to the first point that lies ahead. With nothing in force it is told to stay where the arm is measured for `transport_s`,
    so that it goes the same way to the first point whenever within that it gets the trajectory; where the trajectory begins as
    near to that as a motion must join another, it is told to stay at its beginning.
    """
    if in_force is not None and trajectory.times_s[0] > now_s:
        return splice(in_force, _joined(trajectory, in_force), now_s)
    begin_s = now_s + transport_s
    if in_force is not None or trajectory.times_s[-1] <= begin_s:
        begin_s = now_s
    before = in_force
    if before is None:
        first = sample(trajectory, begin_s)[0]
        before = hold(first if (np.abs(first - state.q) <= config.measured_position_rad).all() else state.q, begin_s)
    motion = take_over(before, trajectory, begin_s)
    assert motion is not None  # the end lies ahead
    return motion if begin_s == now_s else splice(hold(before.q[0], now_s), motion, now_s)


def _joined(trajectory: Trajectory, in_force: Trajectory) -> Trajectory:
    """The trajectory from exactly what is commanded at its begin: what a join tolerates is taken up by its first segment."""
    parts = {"q": trajectory.q, "dq": trajectory.dq, "ddq": trajectory.ddq}
    here = derivatives(in_force, float(trajectory.times_s[0]))[:3]
    joined = {name: np.vstack([now, part[1:]]) for (name, part), now in zip(parts.items(), here, strict=True)}
    return replace(trajectory, **joined)


def state_refusal(state: RobotState | None, profile: RobotProfile, config: GuardConfig, now_s: float) -> Verdict | None:
    """Why the measured state says nothing about where the arm is now; None when it does."""
    return next(_state(state, profile, config, now_s), None)


def following_refusal(
    state: RobotState, in_force: Trajectory | None, profile: RobotProfile, config: GuardConfig
) -> Verdict | None:
    """Why the arm is not doing what it was told; None when it is."""
    return next(_following(state, in_force, profile, config), None)


def late_refusal(candidate: Candidate, transport_s: float, now_s: float) -> Verdict | None:
    """Why the trajectory cannot be with the controller before it begins; None when it can."""
    ahead_s = float(candidate.trajectory.times_s[0]) - now_s
    if not ahead_s < transport_s:  # NaN is reported by its own name
        return None
    return Verdict(
        Reason.STALE_PLAN,
        f"Trajectory begins {ahead_s:.4f} s from now; the controller needs {transport_s} s to have it in time.",
    )


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
    if not 2 <= points <= config.points_max:
        yield Verdict(
            Reason.MALFORMED, f"Trajectory times_s must be 2 to {config.points_max} times, got shape {trajectory.times_s.shape}."
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
    if (steps < config.spacing_min_s - SAME_S).any():
        i = int(np.argmax(steps < config.spacing_min_s - SAME_S))
        yield Verdict(
            Reason.MALFORMED,
            f"Trajectory points must lie {config.spacing_min_s} s apart: point {i + 1} comes {steps[i]:.3g} s after point {i}.",
        )


def _finite(candidate: Candidate, now_s: float) -> Iterator[Verdict]:
    trajectory = candidate.trajectory
    stamps = np.array([candidate.observation_stamp_s, candidate.plan_stamp_s, now_s], dtype=np.float64)
    arrays = [(name, getattr(trajectory, name)) for name in ("times_s", "q", "dq", "ddq")]
    for name, value in (*arrays, ("stamps", stamps)):
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


def _grip(candidate: Candidate, state: RobotState | None, profile: RobotProfile) -> Iterator[Verdict]:
    assert state is not None  # an earlier check has passed
    if candidate.grip is not None and (wrong := grip_refusal(candidate.grip, state.opening, GripLimit.of(profile))):
        yield wrong


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
    """Position, velocity and acceleration are continuous where the arm changes over: at the start, or now if that is past.

    They are compared with the command in force, never with the measurement: a servo that lags is no step. Only the first
    command, with nothing in force, is compared with where the arm was measured.
    """
    join_s = max(float(trajectory.times_s[0]), now_s)
    if in_force is not None and join_s < in_force.times_s[0] - SAME_S:
        yield Verdict(
            Reason.HELD,
            f"The controller is brought to where the arm is, for another {in_force.times_s[0] - now_s:.3f} s; "
            f"the trajectory begins in {join_s - now_s:.3f} s.",
        )
        return
    candidate = derivatives(trajectory, join_s)[:3]
    if in_force is None:
        assert state is not None  # an earlier check has passed
        still = np.zeros_like(state.q)
        before, what = (state.q, still, still), "the measured position"
        position_allowed, velocity_allowed = config.first_position_rad, config.rest_rad_s
    else:
        before, what = derivatives(in_force, join_s)[:3], "the command in force"
        position_allowed, velocity_allowed = config.join_position_rad, profile.acceleration_max * config.join_velocity_s
    kinds = (
        ("step by", "rad", position_allowed),
        ("step in velocity by", "rad/s", velocity_allowed),
        ("step in acceleration by", "rad/s^2", profile.jerk_max * config.join_acceleration_s),
    )
    for (how, unit, allowed), after, reference in zip(kinds, candidate, before, strict=True):
        step = np.abs(after - reference)
        if not (step <= allowed).all():
            j = int(np.argmax(step / allowed))
            yield Verdict(
                Reason.DISCONTINUOUS,
                f"{profile.joint_names[j]} would {how} {step[j]:.5f} {unit} from {what}, "
                f"allowed {np.broadcast_to(allowed, step.shape)[j]:.5g} {unit}.",
            )


def _collision(motion: Trajectory, scene: Scene | None, now_s: float) -> Iterator[Verdict]:
    """Nothing too near along the whole motion; what is too near at its beginning may only move apart."""
    contact = None if scene is None else scene.first_contact(motion, max(float(motion.times_s[0]), now_s))
    if contact is not None:
        yield Verdict(
            Reason.KEEP_OUT if contact.keep_out else Reason.COLLISION,
            f"{contact.names[0]} would come within {contact.distance_m:.4f} m of {contact.names[1]} "
            f"{contact.time_s - now_s:.3f} s from now, allowed {contact.margin_m} m, or away from it when it is nearer already.",
        )
