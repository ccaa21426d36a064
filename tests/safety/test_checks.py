"""The guard lets legal motion pass and refuses everything else, each with its own reason."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from foresight.control.braking import braking
from foresight.control.trajectory import cut, derivatives, hold, join, sample
from foresight.data import Candidate, Reason, RobotState, Trajectory, Verdict
from foresight.evaluation.guard_judge import Judge
from foresight.evaluation.guard_plans import LegalPlans
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import VelocityLaw, load_profile
from foresight.safety.checks import check
from foresight.safety.config import GuardConfig
from foresight.safety.limits import findings
from tests.motions import at_1khz, candidate, extremes, minimum_jerk, tips_at

CONFIG = GuardConfig()
WAY = np.array([0.06, -0.03, 0.05, -0.02, 0.03, 0.04])  # [rad] a legal motion from home in 0.5 s


@pytest.fixture
def judge(profile, kinematics, start):
    """check() at time 0 with the arm held at home and fresh; any argument can be replaced."""

    def judge(offered: Candidate | Trajectory, **changes) -> Verdict:
        if isinstance(offered, Trajectory):
            offered = candidate(offered, profile)
        known = {"in_force": hold(start, -1.0), "state": RobotState(-0.01, start, np.zeros(6)), "profile": profile, **changes}
        return check(offered, kinematics=kinematics, config=CONFIG, now_s=0.0, **known)

    return judge


@pytest.fixture
def legal(start) -> Trajectory:
    return minimum_jerk(start, WAY)


def corrupted(trajectory: Trajectory, **changes) -> Trajectory:
    """A trajectory as broken as only a foreign process can make it, past the shape checks of the tests."""
    copy = replace(trajectory)
    for name, value in changes.items():
        object.__setattr__(copy, name, value)
    return copy


def changed(array: np.ndarray, index, value: float) -> np.ndarray:
    copy = array.copy()
    copy[index] = value
    return copy


def test_legal_motion_passes(judge, legal):
    """A smooth motion from the command in force to rest is let through."""
    assert judge(legal) == Verdict(Reason.OK)


def test_hold_passes(judge, start):
    """Staying where the arm is held is always allowed."""
    assert judge(hold(start, 0.05)).ok


@pytest.mark.parametrize(
    "changes",
    [
        {"q": np.zeros((12, 5))},
        {"dq": np.zeros((11, 6))},
        {"times_s": np.zeros((12, 1))},
        {"times_s": np.zeros(0), "q": np.zeros((0, 6)), "dq": np.zeros((0, 6))},
        {"q": [[0.0] * 6] * 12},
        {"dq": np.zeros((12, 6), dtype=np.int64)},
        {"times_s": np.linspace(0, 1, 5000), "q": np.zeros((5000, 6)), "dq": np.zeros((5000, 6))},
    ],
    ids=["joint count", "point count", "times 2-d", "empty", "lists", "integers", "endless"],
)
def test_wrong_shapes_are_malformed(judge, legal, changes):
    """Arrays that do not fit together are refused before anything is computed with them."""
    assert judge(corrupted(legal, **changes)).reason is Reason.MALFORMED


def test_times_must_increase(judge, legal):
    """Two points at one time, or going back, are malformed."""
    for value in (legal.times_s[4], legal.times_s[3]):
        verdict = judge(replace(legal, times_s=changed(legal.times_s, 5, value)))
        assert verdict.reason is Reason.MALFORMED and "point 5" in verdict.detail


def test_points_must_lie_apart(judge, legal):
    """Two points nearer than 0.1 ms, or than any number can tell, are malformed; at just that they pass, on any clock."""
    for gap_s, ok in ((1e-70, False), (1e-5, False), (1e-4, True)):
        times = np.array([0.0, gap_s, 0.5])
        verdict = judge(replace(hold(legal.q[0], 0.0), **{n: np.repeat(getattr(legal, n)[:1], 3, 0) for n in ("q", "dq", "ddq")},
                                times_s=times))  # fmt: skip
        assert verdict.ok == ok and (ok or (verdict.reason is Reason.MALFORMED and "0.0001 s apart" in verdict.detail))


def test_what_a_stop_has_to_look_through_is_bounded(judge, start):
    """A plan that leaves more points in force until it begins than a stop has time for is malformed."""
    until_s = 0.24
    for points, ok in ((400, True), (800, False)):
        times = np.linspace(0.0, until_s, points)
        in_force = Trajectory(times, np.tile(start, (points, 1)), *np.zeros((2, points, 6)))
        verdict = judge(minimum_jerk(start, WAY, start_s=until_s), in_force=in_force)
        assert verdict.ok == ok and (ok or (verdict.reason is Reason.MALFORMED and "allowed 700" in verdict.detail))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name, index", [("q", (3, 2)), ("dq", (3, 2)), ("times_s", -1)])
def test_numbers_must_be_finite(judge, legal, name, index, value):
    """One NaN or infinity anywhere in the trajectory refuses it."""
    verdict = judge(replace(legal, **{name: changed(getattr(legal, name), index, value)}))
    assert verdict.reason in (
        (Reason.NOT_FINITE, Reason.MALFORMED) if value == -np.inf and name == "times_s" else (Reason.NOT_FINITE,)
    )


@pytest.mark.parametrize("name", ["observation_stamp_s", "plan_stamp_s"])
def test_stamps_must_be_finite(judge, legal, profile, name):
    """A NaN age is no age: it compares false with every limit, and is refused by name."""
    assert judge(candidate(legal, profile, **{name: float("nan")})).reason is Reason.NOT_FINITE


def test_joint_names_must_match_in_order(judge, legal, profile):
    """A missing, unknown, repeated or reordered joint is refused, and the sentence says which."""
    names = profile.joint_names
    for wrong, word in (
        (names[:5], "missing ['wrist_3_joint']"),
        ((*names, "gripper"), "unknown ['gripper']"),
        ((names[1], names[0], *names[2:]), "another order"),
        ((*names, names[0]), "twice"),
    ):
        verdict = judge(candidate(legal, profile, joint_names=wrong))
        assert verdict.reason is Reason.WRONG_JOINTS and word in verdict.detail


def test_state_must_be_there_and_fresh(judge, legal, start):
    """Without a joint state of the last 0.1 s, or with one from the future, nothing moves."""
    assert judge(legal, state=None).reason is Reason.STALE_STATE
    for stamp_s, number in ((-0.15, "0.1500"), (0.05, "future")):
        verdict = judge(legal, state=RobotState(stamp_s, start, np.zeros(6)))
        assert verdict.reason is Reason.STALE_STATE and number in verdict.detail and "Joint state" in verdict.detail


def test_state_must_be_finite_and_complete(judge, legal, start):
    """NaN in a measured position, velocity or stamp, or a joint too few, is a bad state."""
    nan = float("nan")
    for state in (
        RobotState(-0.01, changed(start, 2, nan), np.zeros(6)),
        RobotState(-0.01, start, changed(np.zeros(6), 5, nan)),
        RobotState(nan, start, np.zeros(6)),
        RobotState(-0.01, start[:5], np.zeros(5)),
    ):
        assert judge(legal, state=state).reason is Reason.BAD_STATE


def test_arm_must_follow(judge, legal, start):
    """An arm that is not where it was told to be gets no further command."""
    state = RobotState(-0.01, changed(start, 1, start[1] + 0.2), np.zeros(6))
    verdict = judge(legal, state=state)
    assert verdict.reason is Reason.BAD_STATE and "shoulder_lift_joint is 0.2000" in verdict.detail and "0.15" in verdict.detail


def test_old_observation_is_refused(judge, legal, profile):
    """What was seen longer than 0.3 s ago, or lies in the future, is no ground for motion."""
    assert judge(candidate(legal, profile, observation_stamp_s=-0.29)).ok
    for stamp_s in (-0.31, 0.03):
        assert judge(candidate(legal, profile, observation_stamp_s=stamp_s)).reason is Reason.STALE_OBSERVATION


def test_old_plan_is_refused(judge, legal, profile):
    """A plan finished longer than 0.1 s ago, or in the future, is not executed."""
    assert judge(candidate(legal, profile, plan_stamp_s=-0.09)).ok
    for stamp_s in (-0.11, 0.03):
        assert judge(candidate(legal, profile, plan_stamp_s=stamp_s)).reason is Reason.STALE_PLAN


def test_trajectory_must_be_of_now(judge, start):
    """Motion that begins late, began long ago, has ended, or never ends is refused."""
    still = np.zeros(6)
    assert judge(minimum_jerk(start, still, start_s=0.24)).ok
    assert judge(minimum_jerk(start, still, start_s=0.26)).reason is Reason.MALFORMED
    assert judge(minimum_jerk(start, still, start_s=-0.11)).reason is Reason.STALE_PLAN
    assert judge(minimum_jerk(start, still, start_s=-0.09, duration_s=0.08)).reason is Reason.STALE_PLAN
    assert judge(minimum_jerk(start, still, start_s=-0.08, duration_s=0.08)).reason is Reason.STALE_PLAN
    assert judge(minimum_jerk(start, still, duration_s=5.1, points=300)).reason is Reason.MALFORMED


def test_position_must_join(judge, legal, start):
    """A start 2 microrad off the command in force is a step, and refused; half of one is rounding.

    A controller that has the trajectory just before it begins has a single period to close that gap.
    """
    assert judge(minimum_jerk(start + 5e-7, WAY)).ok
    assert judge(minimum_jerk(start + 2e-6, WAY)).reason is Reason.DISCONTINUOUS
    verdict = judge(minimum_jerk(start + 2e-4, WAY))
    assert verdict.reason is Reason.DISCONTINUOUS and "0.00020" in verdict.detail


def test_velocity_must_join(judge, start):
    """A motion that begins moving while the arm is held is refused."""
    ramp = Trajectory(
        np.array([0.0, 0.1]), np.stack([start, start + 0.0055]), np.stack([np.full(6, 0.11), np.zeros(6)]), np.zeros((2, 6))
    )
    verdict = judge(ramp)
    assert verdict.reason is Reason.DISCONTINUOUS and "velocity" in verdict.detail


def test_acceleration_must_join(judge, profile, start):
    """A motion that begins with an acceleration the command in force has not is refused, though position and velocity join."""
    jolt = minimum_jerk(start, WAY)
    jolt.ddq[0] = 1.0
    verdict = judge(jolt)
    assert verdict.reason is Reason.DISCONTINUOUS and "acceleration" in verdict.detail and "1.00000" in verdict.detail


def test_lagging_servo_is_no_step(judge, profile, start):
    """A candidate joins the last command: an arm measured 40 ms behind it gets no refusal for that."""
    way = np.array([0.1, -0.05, 0.08, -0.05, 0.06, 0.1])
    moving = minimum_jerk(start, way, start_s=-0.4, duration_s=0.8, points=20)
    q, dq = sample(moving, -0.05)
    assert np.abs(q - sample(moving, -0.01)[0]).max() > 500 * CONFIG.join_position_rad
    after = cut(moving, 0.05)
    assert judge(after, in_force=moving, state=RobotState(-0.01, q, dq)).ok


def test_late_trajectory_must_join_where_the_arm_is_now(judge, start):
    """A trajectory that fitted at its start, but began before now, has left the arm behind."""
    assert judge(minimum_jerk(start, WAY, start_s=-0.005)).ok
    verdict = judge(minimum_jerk(start, 2 * WAY, start_s=-0.09))
    assert verdict.reason is Reason.DISCONTINUOUS


def test_first_motion_starts_at_rest_where_the_arm_is(judge, legal, start):
    """With nothing in force the first trajectory starts at rest near the measured position of a resting arm."""
    assert judge(legal, in_force=None).ok
    assert judge(minimum_jerk(start + 0.06, WAY), in_force=None).reason is Reason.DISCONTINUOUS
    moving = replace(legal, dq=changed(legal.dq, (0, 0), 0.01))
    assert judge(moving, in_force=None).reason is Reason.DISCONTINUOUS
    assert judge(legal, in_force=None, state=RobotState(-0.01, start, np.full(6, 0.2))).reason is Reason.BAD_STATE


def test_the_way_to_a_first_motion_that_begins_elsewhere_is_checked(judge, start):
    """A controller goes straight from where the arm is to the first point; that way keeps the limits or is refused."""
    near, far = (minimum_jerk(start + away, WAY, start_s=0.1) for away in (1e-4, 0.03))
    assert judge(near, in_force=None).ok
    assert judge(far, in_force=None).reason in (Reason.ACCELERATION_LIMIT, Reason.JERK_LIMIT, Reason.VELOCITY_LIMIT)


def test_position_limits_hold_between_points(judge, profile, start):
    """A motion that leaves the joint's range only between its points is refused, with joint and number."""
    times = np.array([0.0, 0.5, 1.0])
    q, dq = np.tile(start, (3, 1)), np.zeros((3, 6))
    q[1:, 5], dq[1, 5] = start[5] + 0.04, 0.1
    over = Trajectory(times, q, dq, np.zeros_like(q))
    top = at_1khz(over)[1][:, 5].max()
    assert top > q[:, 5].max() + 1e-3
    margin = CONFIG.position_margin_rad
    assert judge(over, profile=replace(profile, position_max=changed(profile.position_max, 5, top + margin + 1e-3))).ok
    for room, allowed in ((margin - 1e-3, "less 0.1 rad"), (-1e-4, "rad.")):
        verdict = judge(over, profile=replace(profile, position_max=changed(profile.position_max, 5, top + room)))
        assert verdict.reason is Reason.POSITION_LIMIT and "wrist_3_joint" in verdict.detail and allowed in verdict.detail


def test_way_back_from_a_joint_limit_is_open(judge, profile, start):
    """A joint that stands in the margin before its limit may leave it, and go no further into it."""
    near = replace(profile, position_max=changed(profile.position_max, 5, start[5] + 0.05))
    assert judge(minimum_jerk(start, changed(np.zeros(6), 5, -0.04)), profile=near).ok
    assert judge(minimum_jerk(start, changed(np.zeros(6), 5, 0.04)), profile=near).reason is Reason.POSITION_LIMIT


def test_lower_position_limit_holds(judge, legal, profile, start):
    """The range is checked at both ends."""
    verdict = judge(legal, profile=replace(profile, position_min=changed(profile.position_min, 1, start[1] - 0.01)))
    assert verdict.reason is Reason.POSITION_LIMIT and "shoulder_lift_joint" in verdict.detail


def test_velocity_limit_holds_between_points(judge, profile, start):
    """Two points at rest can hide a fast motion between them; it is refused."""
    q = np.stack([start, changed(start, 5, start[5] + 0.1)])
    rest_to_rest = Trajectory(np.array([0.0, 0.625]), q, *np.zeros((2, 2, 6)))  # peaks at 1.875 * 0.1 / 0.625 = 0.3 rad/s
    assert judge(rest_to_rest, profile=replace(profile, velocity_max=np.full(6, 0.301))).ok
    verdict = judge(rest_to_rest, profile=replace(profile, velocity_max=np.full(6, 0.299)))
    assert verdict.reason is Reason.VELOCITY_LIMIT and "0.3000" in verdict.detail and "0.299" in verdict.detail


def test_velocity_limit_holds_between_samples_of_a_slow_controller():
    """An acceleration that turns round within 4 ms leaves a peak of the speed that no sample sees; its height is exact."""
    so101, q = load_profile("so101"), load_profile("so101").home
    rise_s, rate = 0.3, 2.4  # rad/s^2
    for turn_s in (0.0039, 0.0079):
        for peak, ok in ((1.0002, True), (1.001, False)):
            speed = peak * so101.joint_speed_max - 0.3125 * rate * turn_s  # where the turn begins; it gains 0.3125 of rate * turn
            begin = (q[4] - 0.1, speed - rate * rise_s, rate), (q[4] - 0.1 + (speed - rate * rise_s / 2) * rise_s, speed, rate)
            way = speed * turn_s + 0.2 * rate * turn_s**2
            points = np.array([*begin, (begin[1][0] + way, speed, -rate)])
            points = np.vstack([points, points[2] + [(speed - rate * rise_s / 2) * rise_s, -rate * rise_s, 0.0]])
            times, one = np.cumsum([0.0, rise_s, turn_s, rise_s]), np.eye(5)[4]
            motion = Trajectory(times, q + (points[:, :1] - q[4]) * one, points[:, 1:2] * one, points[:, 2:] * one)
            found = [f.verdict.reason for f in findings(motion, replace(so101, jerk_max=np.full(5, 1e4)), None, CONFIG, 0.0)]
            assert (Reason.VELOCITY_LIMIT not in found) == ok, f"{peak} of the limit, turned in {turn_s} s"


def test_acceleration_limit_holds(judge, start):
    """The acceleration between two resting points is seen, and refused above the limit."""
    q = np.stack([start, changed(start, 5, start[5] + 0.1)])
    rest_to_rest = Trajectory(np.array([0.0, 0.4]), q, *np.zeros((2, 2, 6)))  # 5.7735 * 0.1 / 0.4^2 = 3.61 rad/s^2
    assert judge(rest_to_rest).ok
    verdict = judge(replace(rest_to_rest, times_s=np.array([0.0, 0.3])))  # 6.415 rad/s^2
    assert verdict.reason is Reason.ACCELERATION_LIMIT and "6.41" in verdict.detail and "5.0" in verdict.detail


def test_jerk_limit_holds(judge, legal, profile):
    """A step in acceleration smoothed over a short segment is a jerk, and refused above the limit."""
    jerk = np.abs(derivatives(legal, np.arange(0, 0.5, 0.002))[3]).max()
    assert judge(legal, profile=replace(profile, jerk_max=np.full(6, 1.01 * jerk))).ok
    verdict = judge(legal, profile=replace(profile, jerk_max=np.full(6, 0.9 * jerk)))
    assert verdict.reason is Reason.JERK_LIMIT and "rad/s^3" in verdict.detail


def test_accelerations_are_required(judge, legal):
    """A trajectory without accelerations would step in them at every point; it is refused as malformed."""
    verdict = judge(replace(legal, ddq=None))
    assert verdict.reason is Reason.MALFORMED and "ddq" in verdict.detail


def test_jerk_is_judged_over_a_control_period(judge, profile, start):
    """The acceleration may change by no more than the jerk limit allows in a control period, wherever the period begins."""
    q = np.stack([start, changed(start, 5, start[5] + 0.05)])
    quick = Trajectory(np.array([0.0, 0.4]), q, *np.zeros((2, 2, 6)))  # 60 * 0.05 / 0.4^3 = 46.9 rad/s^3 at its ends
    assert judge(quick, profile=replace(profile, jerk_max=np.full(6, 47.0))).ok
    verdict = judge(quick, profile=replace(profile, jerk_max=np.full(6, 46.0)))
    assert verdict.reason is Reason.JERK_LIMIT and "allowed 46.0 rad/s^3" in verdict.detail


def test_jerk_counts_what_was_executed_in_the_period_in_which_the_arm_changes_over(judge, profile, start):
    """The control period that ends on the new motion began on the motion in force: together they keep the limit."""
    slow = replace(profile, controller_rate_hz=100.0, jerk_max=np.full(6, 60.0))
    in_force = by_jerks(start, -0.105, [(0.1, 0.0), (0.005, 100.0), (0.1, 0.0)])  # 100 rad/s^3 for half a period until now

    def then(jerk: float) -> Verdict:
        head = by_jerks(start, -0.105, [(0.1, 0.0), (0.005, 100.0), (0.005, jerk)])
        tail = braking(head.q[-1], head.dq[-1], replace(slow, jerk_max=np.full(6, 59.0)), float(head.times_s[-1]), head.ddq[-1])
        return judge(cut(join(head, tail), 0.0), in_force=in_force, profile=slow)

    assert then(10.0).ok  # 55 rad/s^3 over the period
    verdict = then(50.0)
    assert verdict.reason is Reason.JERK_LIMIT and "would reach 75.0" in verdict.detail


def by_jerks(start: np.ndarray, begin_s: float, phases: list[tuple[float, float]]) -> Trajectory:
    """The last joint from rest, by how long which jerk lasts."""
    state, times, points = np.zeros(3), [begin_s], [np.zeros(3)]
    for h, jerk in phases:
        position, velocity, acceleration = state
        state = np.array(
            [
                position + velocity * h + acceleration * h**2 / 2 + jerk * h**3 / 6,
                velocity + acceleration * h + jerk * h**2 / 2,
                acceleration + jerk * h,
            ]
        )
        times.append(times[-1] + h)
        points.append(state)
    last = np.array(points)[:, :, None] * (np.arange(6) == 5)
    return Trajectory(np.array(times), start + last[:, 0], last[:, 1], last[:, 2])


def test_position_dependent_velocity_limit_holds(judge, profile, start):
    """Where the profile has a velocity law, the limit at the joint's position counts, not only the greatest."""
    here = np.array([start[5]] * 6)
    law = VelocityLaw(np.full(6, -0.3), np.full(6, 4.0), here + 0.12, here - 9.0)  # upwards 0.25 rad/s halfway, 0 at +0.0975
    lawful = replace(profile, velocity_law=law, joint_speed_max=0.8)
    slow, fast = (minimum_jerk(start, changed(np.zeros(6), 5, 0.09), duration_s=d) for d in (1.5, 0.5))
    assert judge(fast).ok and judge(slow, profile=lawful).ok
    verdict = judge(fast, profile=lawful)
    assert verdict.reason is Reason.VELOCITY_LIMIT and "wrist_3_joint" in verdict.detail


def test_joint_speed_cap_holds(judge, profile, start):
    """No joint passes at more than the cap, however much faster the robot could."""
    turn = minimum_jerk(start, changed(np.zeros(6), 5, 0.45), duration_s=1.0)  # 0.84 rad/s
    assert judge(turn, profile=replace(profile, joint_speed_max=0.9)).ok
    verdict = judge(turn)
    assert verdict.reason is Reason.VELOCITY_LIMIT and "allowed 0.8000" in verdict.detail


def test_torque_limit_holds(judge, legal, profile):
    """What inverse dynamics asks of a motor stays within the profile's torque; without a limit nothing is asked."""
    weak = replace(profile, torque_max=changed(np.full(6, 150.0), 1, 5.0))  # the shoulder holds the arm up
    verdict = judge(legal, profile=weak)
    assert (
        verdict.reason is Reason.TORQUE_LIMIT and "shoulder_lift_joint" in verdict.detail and "allowed 4.95 Nm" in verdict.detail
    )
    assert judge(legal, profile=replace(profile, torque_max=None)).ok


def test_torque_rate_limit_holds(judge, legal, profile, kinematics):
    """The rate of the torque is what differences of MuJoCo's own inverse dynamics over a control period say."""
    period_s, data = 1 / profile.controller_rate_hz, mujoco.MjData(kinematics.model)
    q, dq, ddq, _ = derivatives(legal, np.arange(1e-9, 0.499, period_s))
    torque = np.empty_like(q)
    for i in range(len(q)):
        data.qpos[:], data.qvel[:], data.qacc[:] = q[i], dq[i], ddq[i]
        kinematics.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
        mujoco.mj_inverse(kinematics.model, data)
        torque[i] = data.qfrc_inverse + data.qfrc_passive
    greatest = (np.abs(np.diff(torque, axis=0)) / period_s).max(0)
    assert judge(legal, profile=replace(profile, torque_rate_max=1.05 * greatest)).ok
    verdict = judge(legal, profile=replace(profile, torque_rate_max=0.95 * greatest))
    assert verdict.reason is Reason.TORQUE_RATE_LIMIT and "Nm/s" in verdict.detail


def test_torque_rate_of_fast_motions_is_found_however_near_the_limit():
    """Whatever inertia does between two looks at it: a rate that reaches the limit is never taken to be below it."""
    fr3 = load_profile("fr3")
    kinematics, rng = MujocoKinematics(fr3), np.random.default_rng(3)
    legal = LegalPlans(fr3, kinematics, Judge("fr3", kinematics))
    period_s, offered = 1 / fr3.controller_rate_hz, 0
    for _ in range(60):
        plan = legal.make(hold(legal.start(rng), -1.0), 0.05, rng)
        if plan is None or np.ptp(plan.q, axis=0).max() < 0.2:
            continue
        times_s = np.arange(plan.times_s[0], plan.times_s[-1], period_s)
        torques = kinematics.torques(*derivatives(plan, times_s)[:3])
        greatest = (np.abs(np.diff(torques, axis=0)) / period_s).max(0)
        for joint in np.flatnonzero(greatest > 0.1 * fr3.torque_rate_max):  # one alone: not found for another's sake
            limit = changed(np.full(7, 1e6), joint, greatest[joint])
            reasons = [f.verdict.reason for f in findings(plan, replace(fr3, torque_rate_max=limit), kinematics, CONFIG, 0.0)]
            assert reasons[:1] == [Reason.TORQUE_RATE_LIMIT]
            offered += 1
    assert offered > 50


def test_without_a_model_tip_and_torque_are_skipped_and_it_is_said(judge, legal, profile):
    """A robot without a model gets its joint limits checked, and the verdict says what was not."""
    verdict = check(
        candidate(legal, profile), hold(legal.q[0], -1.0), RobotState(-0.01, legal.q[0], np.zeros(6)), profile, None, CONFIG, 0.0
    )
    assert verdict.ok and "Tip and torque are not checked" in verdict.detail


def test_tip_speed_limit_holds(judge, profile, start):
    """Joints well within their limits can still move the tip too fast."""
    turn = minimum_jerk(start, changed(np.zeros(6), 0, 0.4), duration_s=1.0)
    assert extremes(turn)[2].max() < 0.8 < profile.velocity_max[0]
    verdict = judge(turn)
    assert verdict.reason is Reason.TIP_SPEED_LIMIT and str(profile.tip_speed_max) in verdict.detail


def test_tip_stays_in_its_workspace(judge, legal, profile, kinematics, start):
    """A motion that leaves the box and comes back is refused although both its ends are inside."""
    there, back = minimum_jerk(start, WAY), minimum_jerk(start + WAY, -WAY, start_s=0.5)
    both = Trajectory(*(np.concatenate([getattr(there, n), getattr(back, n)[1:]]) for n in ("times_s", "q", "dq", "ddq")))
    tips = np.array([kinematics.tip(q) for q in both.q])
    axis = int(np.argmax(np.abs(tips[11] - tips[0])))
    assert judge(both).ok
    half = (tips[0, axis] + tips[11, axis]) / 2
    name = "workspace_max" if tips[11, axis] > half else "workspace_min"
    verdict = judge(both, profile=replace(profile, **{name: changed(getattr(profile, name), axis, half)}))
    assert verdict.reason is Reason.WORKSPACE and "xyz"[axis] in verdict.detail


def test_way_back_into_the_workspace_is_open(judge, legal, profile, kinematics, start):
    """From outside the box the arm may move back towards it, and no further out."""
    begin, end = kinematics.tip(legal.q[0]), kinematics.tip(legal.q[-1])
    axis = int(np.argmax(np.abs(end - begin)))
    way = end[axis] - begin[axis]
    ahead = end[axis] - 0.1 * way  # the box begins near the end of the motion
    name = "workspace_min" if way > 0 else "workspace_max"
    boxed = replace(profile, **{name: changed(getattr(profile, name), axis, ahead)})
    assert judge(legal, profile=boxed).ok
    assert judge(minimum_jerk(start, -WAY), profile=boxed).reason is Reason.WORKSPACE
    assert judge(hold(start, 0.0), profile=boxed).ok


def test_motion_must_end_at_rest(judge, legal):
    """A trajectory whose stop is cut off is refused: whatever dies next, the arm must come to rest."""
    cut = Trajectory(legal.times_s[:6], legal.q[:6], legal.dq[:6], legal.ddq[:6])
    assert judge(cut).reason is Reason.NOT_AT_REST


def test_motion_must_end_without_acceleration(judge, legal):
    """What begins a little later would take it up, and dip, where a controller that hears of it late holds still."""
    for value, ok in ((5e-5, True), (0.04, False)):
        verdict = judge(replace(legal, ddq=changed(legal.ddq, (-1, 2), value)))
        assert verdict.ok == ok and (ok or (verdict.reason is Reason.NOT_AT_REST and "0.04 rad/s^2" in verdict.detail))


def test_first_failure_is_the_one_reported(judge, legal, profile):
    """Among many faults the reason is the most basic one, so that numbers are only computed from sound input."""
    broken = corrupted(replace(legal, dq=changed(legal.dq, (2, 2), np.nan)), q=np.zeros((3, 2)))
    assert judge(candidate(broken, profile, joint_names=("a",), plan_stamp_s=-9.0), state=None).reason is Reason.MALFORMED


def test_what_passes_keeps_every_limit_at_1khz(judge, profile, kinematics, start):
    """However a trajectory is mutated, if it passes, then sampled at 1 kHz by other code it breaks no limit."""
    outcomes: list[Reason] = []

    @settings(deadline=None, max_examples=250, derandomize=True, phases=[Phase.explicit, Phase.generate])
    @given(
        way=st.lists(st.floats(-0.15, 0.15), min_size=6, max_size=6),
        duration_s=st.floats(0.2, 1.5),
        points=st.integers(2, 20),
        spot=st.tuples(st.integers(0, 19), st.integers(0, 5)),
        push=st.floats(-1, 1),
        size=st.sampled_from([0.0, 0.003, 0.03, 1.0]),
        on_velocity=st.booleans(),
    )
    def mutate(way, duration_s, points, spot, push, size, on_velocity):
        trajectory = minimum_jerk(start, np.array(way), duration_s=duration_s, points=points)
        array = trajectory.dq if on_velocity else trajectory.q
        array[spot[0] % points, spot[1]] += push * size
        verdict = judge(trajectory)
        outcomes.append(verdict.reason)
        if not verdict.ok:
            return
        _, q = at_1khz(trajectory)
        speed, acceleration = np.abs(np.diff(q, axis=0)) / 1e-3, np.abs(np.diff(q, 2, axis=0)) / 1e-6
        tips = tips_at(kinematics, q)
        assert (q <= profile.position_max).all() and (q >= profile.position_min).all()
        assert (speed <= profile.velocity_max * 1.001).all()
        assert (acceleration <= profile.acceleration_max * 1.001 + 1e-6).all()
        assert np.linalg.norm(np.diff(tips, axis=0), axis=1).max() / 1e-3 <= profile.tip_speed_max * 1.0011
        assert (tips <= profile.workspace_max + 2e-4).all() and (tips >= profile.workspace_min - 2e-4).all()
        assert np.abs(q[0] - start).max() <= 1e-3 and np.abs(trajectory.dq[-1]).max() <= 1e-4

    mutate()
    assert outcomes.count(Reason.OK) >= 30 and len(set(outcomes)) >= 4, f"the mutations test too little: {outcomes}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"state_age_max_s": 0.0},
        {"share_min": 1.5},
        {"slow_distance_rad": 0.05},
        {"duration_max_s": float("nan")},
        {"history_s": 0.05},
    ],
)
def test_config_refuses_what_would_switch_a_check_off(wrong):
    """Zero, NaN, a coarse sampling and a short memory are refused, naming the field and the value."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GuardConfig(**wrong)
