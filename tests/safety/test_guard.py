"""The guard remembers the motion in force, stops it to rest, and stays stopped until it is reset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import make_interp_spline

from foresight.control.braking import coming_to
from foresight.control.trajectory import cut, derivatives, hold, sample
from foresight.data import Box, Reason, RobotState, Trajectory
from foresight.evaluation.guard_judge import Controller, Judge, broken
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import load_profile
from foresight.safety.collision import Scene
from foresight.safety.config import GuardConfig
from foresight.safety.guard import OUTSIDE_M, Guard
from foresight.safety.slowing import stop_along
from tests.motions import MIDDLE, at_1khz, candidate, drive, extremes, minimum_jerk, tips_at

WAY = np.array([0.06, -0.03, 0.05, -0.02, 0.03, 0.04])
REFUSING = (Reason.HELD, Reason.STOPPED)
SEEN_S = np.arange(0.06, 0.8, 0.01)  # [s] at which the arm is measured


@pytest.fixture
def guard(profile, kinematics) -> Guard:
    return Guard(profile, kinematics)


def following(guard: Guard, now_s: float) -> RobotState:
    """The state of an arm that follows exactly."""
    return RobotState(now_s, *sample(guard.in_force, now_s))


@pytest.fixture
def moving(guard, profile, start) -> Guard:
    """A guard whose arm moves from home, from time 0 to 0.5 s."""
    assert guard.offer(candidate(minimum_jerk(start, WAY), profile), RobotState(0.0, start, np.zeros(6)), 0.0).ok
    return guard


def test_fast_legal_plans_pass(profile, kinematics):
    """Of plans at the planner's full speed, replanned at 10 Hz, at least 99 % pass, and the tip really moves fast."""
    verdicts, fastest = [], 0.0
    for seed in range(4):
        guard = Guard(profile, kinematics)
        for made in drive(seed, 40, profile, kinematics):
            verdicts.append(guard.offer(candidate(made.trajectory, profile, made.now_s), made.state, made.now_s))
            if verdicts[-1].ok:
                fastest = max(
                    fastest,
                    *(
                        np.linalg.norm(kinematics.tip_velocity(*qd))
                        for qd in zip(made.trajectory.q, made.trajectory.dq, strict=True)
                    ),
                )
            made.in_force = guard.in_force
    refused = [v for v in verdicts if not v.ok]
    assert len(refused) <= 0.01 * len(verdicts), refused
    assert fastest > 0.21


def test_refused_motion_changes_nothing(moving, profile, start):
    """A refused candidate leaves the motion in force as it was, and is counted under its reason."""
    before = moving.in_force
    verdict = moving.offer(candidate(hold(start + 1.0, 0.3), profile, 0.25), following(moving, 0.25), 0.25)
    assert verdict.reason is Reason.DISCONTINUOUS and moving.last == verdict
    assert moving.in_force is before
    assert moving.counts == {Reason.OK: 1, Reason.DISCONTINUOUS: 1}


def test_motion_in_force_knows_its_past(moving, profile):
    """After a replacement, what was commanded in the last half second can still be compared with late states."""
    old = moving.in_force
    q, dq = sample(old, 0.3)
    rest = moving.stop("test", None, 0.3)
    assert np.array(sample(moving.in_force, 0.25)) == pytest.approx(np.array(sample(old, 0.25)), abs=1e-9)
    assert sample(moving.in_force, 0.3)[0] == pytest.approx(q) and sample(moving.in_force, 0.3)[1] == pytest.approx(dq)
    end_s = rest.times_s[-1]
    assert sample(moving.in_force, end_s)[0] == pytest.approx(rest.q[-1])


@pytest.mark.parametrize("share_max", [1.0, 0.5])
@pytest.mark.parametrize("absurd", ["q", "dq", "ddq"])
def test_the_past_of_a_plan_may_hold_any_numbers(moving, profile, absurd, share_max):
    """A plan that began already passes by what is left of it, at the speed that this asks for; its past decides nothing."""
    plan = cut(moving.in_force, 0.18)
    assert plan.times_s[1] < 0.25
    value = getattr(plan, absurd).copy()
    value[0] = 1e300
    before = moving.situation(None, 0.25)
    found = []
    for trajectory in (plan, replace(plan, **{absurd: value})):
        moving.restore(before)
        moving.share_max = share_max
        found.append((moving.offer(candidate(trajectory, profile, 0.25), following(moving, 0.25), 0.25), moving.in_force))
    (expected, motion), (verdict, other) = found
    assert verdict == expected and verdict.ok and verdict.slowed == share_max
    np.testing.assert_allclose(sample(other, 0.4), sample(motion, 0.4))


@pytest.mark.parametrize("now_s", [0.05, 0.2, 0.25, 0.3, 0.45])
def test_stop_brakes_from_the_motion_in_force_to_rest(moving, profile, now_s):
    """Whenever it comes, a stop starts where the arm is commanded, ends at rest, and keeps the joint limits."""
    q, dq, ddq, _ = derivatives(moving.in_force, now_s)
    rest = moving.stop("test", following(moving, now_s), now_s)
    assert rest.times_s[0] == now_s and rest.q[0] == pytest.approx(q) and rest.dq[0] == pytest.approx(dq)
    assert rest.ddq[0] == pytest.approx(ddq)
    assert (rest.dq[-1] == 0).all() and rest.times_s[-1] - now_s < 0.5
    _, _, speed, acceleration = extremes(rest)
    still_rising = ddq**2 / profile.jerk_max  # [rad/s] until the acceleration that it had has been taken back
    assert (acceleration <= 1.001 * profile.acceleration_max).all() and (speed <= np.abs(dq).max() + still_rising + 1e-3).all()


def test_stop_at_rest_is_a_hold(moving):
    """An arm that has come to rest is held where its last command left it."""
    rest = moving.stop("test", None, 0.6)
    assert rest.times_s[-1] > 0.6 and rest.q[0] == pytest.approx(moving.in_force.q[-1]) and (rest.dq == 0).all()


def test_stop_without_motion_invents_no_command(guard, profile, start):
    """With nothing in force and the arm at rest, or nothing known of it, stopping sends nothing, and still latches."""
    assert guard.stop("test", RobotState(0.0, start, np.zeros(6)), 0.0) is None
    assert guard.offer(candidate(hold(start, 0.0), profile), RobotState(0.0, start, np.zeros(6)), 0.0).reason is Reason.STOPPED


def test_stop_brakes_an_arm_that_something_else_moves(guard, profile, start):
    """With nothing in force, a measured motion is braked; a state with NaN is no ground to command anything."""
    rest = guard.stop("test", RobotState(0.0, start, np.full(6, 0.4)), 0.0)
    assert rest.q[0] == pytest.approx(start) and rest.dq[0] == pytest.approx(np.full(6, 0.4)) and (rest.dq[-1] == 0).all()
    other = Guard(profile, guard.kinematics)
    assert other.stop("test", RobotState(0.0, start, np.full(6, np.nan)), 0.0) is None and other.stopped


def test_an_arm_that_something_else_moves_is_braked_from_where_it_will_be(profile, kinematics, start):
    """The command is on its way for the transport's time, and the state was measured before."""
    guard = Guard(profile, kinematics, transport_s=0.045)
    rest = guard.stop("test", RobotState(0.99, start, np.full(6, 0.4)), 1.0)
    assert rest.times_s[0] == pytest.approx(1.045) and rest.q[0] == pytest.approx(start + 0.055 * 0.4)


def test_stopped_stays_stopped(moving, profile):
    """While latched every candidate is refused with the cause of the stop; a second stop changes nothing."""
    rest = moving.stop("camera silent", None, 0.25)
    assert moving.stop("another", None, 0.3) is rest
    for now_s in (0.3, 1.0, 100.0):
        verdict = moving.offer(candidate(hold(rest.q[-1], now_s), profile, now_s), following(moving, now_s), now_s)
        assert verdict.reason is Reason.STOPPED and "camera silent" in verdict.detail


def test_a_second_stop_that_is_not_sent_leaves_the_first(moving):
    """Taking back what the second returned, which is the first, does not allow motion again."""
    rest = moving.stop("operator", None, 0.25)
    moving.stop("operator", None, 0.26)
    moving.retract()
    assert moving.stopped == "operator" and moving.in_force.times_s[-1] == rest.times_s[-1]


def test_reset_waits_for_cooldown_and_rest(moving, profile):
    """A stop cannot be reset within half a second, nor while the arm moves; then motion is judged again."""
    moving.stop("test", None, 0.25)
    assert moving.reset(0.7).reason is Reason.STOPPED and moving.stopped
    assert moving.reset(0.9, RobotState(0.9, moving.in_force.q[-1], np.full(6, 0.3))).reason is Reason.STOPPED and moving.stopped
    assert moving.reset(0.9, RobotState(0.5, moving.in_force.q[-1], np.zeros(6))).reason is Reason.STALE_STATE and moving.stopped
    assert moving.reset(0.9, following(moving, 0.9)).ok and moving.stopped is None
    assert moving.offer(
        candidate(minimum_jerk(moving.in_force.q[-1], -WAY, start_s=1.0), profile, 1.0), following(moving, 1.0), 1.0
    ).ok


def test_reset_is_refused_while_braking(profile, kinematics, start):
    """A motion that outlasts the cool-down, no stop being sooner, must end before motion is allowed again."""
    guard = Guard(profile, kinematics)
    guard.in_force = Trajectory(np.array([0.0, 2.0]), np.stack([start, start + 4.0]), np.zeros((2, 6)), np.zeros((2, 6)))
    assert guard.stop("test", None, 1.0) is None and guard.unbraked(1.6)  # from 3.75 rad/s
    verdict = guard.reset(1.6)
    assert verdict.reason is Reason.STOPPED and "braking" in verdict.detail
    assert guard.reset(2.01).ok


def test_arm_moved_by_hand_while_stopped_starts_from_where_it_is(moving, profile, start):
    """After a reset far from the last command, the next motion starts at the measured position, not at the old command."""
    moving.stop("test", None, 0.6)
    here = start + 0.3 * np.array([0, 0, 0, 0, 0, 1.0])
    assert moving.reset(1.2, RobotState(1.2, here, np.zeros(6))).ok
    assert moving.offer(
        candidate(minimum_jerk(here, 0 * WAY, start_s=1.25), profile, 1.25), RobotState(1.25, here, np.zeros(6)), 1.25
    ).ok


def test_wrong_model_is_refused(profile, kinematics, start):
    """When a model is pinned, plans of any other are refused, naming both."""
    guard, state = Guard(profile, kinematics, expected_model_id="aaa"), RobotState(0.0, start, np.zeros(6))
    verdict = guard.offer(candidate(hold(start, 0.0), profile, model_id="bbb"), state, 0.0)
    assert verdict.reason is Reason.WRONG_MODEL and "aaa" in verdict.detail and "bbb" in verdict.detail
    assert guard.offer(candidate(hold(start, 0.0), profile, model_id="aaa"), state, 0.0).ok


def test_stop_in_full_drive_keeps_joint_limits(profile, kinematics):
    """Stopped in the middle of fast replanned motion, the arm's whole commanded history keeps its limits."""
    guard = Guard(profile, kinematics)
    for made in drive(7, 15, profile, kinematics):
        assert guard.offer(candidate(made.trajectory, profile, made.now_s), made.state, made.now_s).ok
        made.in_force = guard.in_force
    guard.stop("test", None, made.now_s + 0.08)
    _, q = at_1khz(guard.in_force)
    assert (np.abs(np.diff(q, 2, axis=0)).max(0) / 1e-6 <= 2.5 * profile.acceleration_max).all()
    assert (np.abs(np.diff(q, axis=0)).max(0) / 1e-3 <= profile.velocity_max).all()


def test_stop_at_the_instant_of_setting_off_still_stops(guard, profile, start):
    """Commanded speed is zero when a motion begins, yet the stop must replace it: it reaches beyond now."""
    assert guard.offer(candidate(minimum_jerk(start, WAY), profile), RobotState(0.0, start, np.zeros(6)), 0.0).ok
    rest = guard.stop("test", None, 0.0)
    assert rest.times_s[-1] > 0.05
    assert sample(guard.in_force, 0.5)[0] == pytest.approx(start)


def test_a_held_arm_is_no_longer_pressed(moving, profile):
    """When something keeps the arm from following, its command goes back to where it is, smoothly, and rests there."""
    for now_s in np.arange(0.02, 0.3, 0.02):
        q, dq, ddq, _ = derivatives(moving.in_force, now_s)
        motion = moving.relieve(RobotState(now_s, moving.in_force.q[0], np.zeros(6)), now_s)
        if motion is not None:
            break
    assert 0.008 < np.abs(q - moving.in_force.q[0]).max() < 0.05 and moving.reliefs == 1
    assert motion.q[0] == pytest.approx(q) and motion.dq[0] == pytest.approx(dq) and motion.ddq[0] == pytest.approx(ddq)
    assert motion.q[-1] == pytest.approx(moving.in_force.q[-1]) and (motion.dq[-1] == 0).all()
    _, _, _speed, acceleration = extremes(motion)
    assert (acceleration <= 1.001 * profile.acceleration_max).all()
    assert sample(moving.in_force, now_s + 1.0)[0] == pytest.approx(motion.q[-1])


def test_a_relief_that_would_be_too_fast_for_the_tip_is_slower(profile, kinematics, start):
    """Pushed aside at three joints, of which a fast relief would move the tip too fast: its command follows, within the cap."""
    for speed in (0.1, 0.6):
        guard = Guard(profile, kinematics, GuardConfig(relief_rad_s=speed))
        guard.in_force, aside = hold(start, 0.0), np.array([0.0, -0.04, -0.04, -0.04, 0.0, 0.0])
        assert guard.relieve(RobotState(0.0, start, np.zeros(6)), 0.0) is None
        motion = guard.relieve(RobotState(0.05, start + aside, np.zeros(6)), 0.05)
        assert guard.reliefs == 1 and motion.q[-1] == pytest.approx(start + aside)
        _, _, fastest, _ = extremes(motion)
        tip_m_s = max(np.linalg.norm(kinematics.tip_velocity(*qd)) for qd in zip(motion.q, motion.dq, strict=True))
        assert fastest.max() <= min(speed, 0.5 * 0.6) + 1e-6 and tip_m_s <= profile.tip_speed_max


def test_an_arm_that_lags_is_not_held(moving):
    """An arm that does all that it is told, 40 ms late, is left alone at any speed."""
    for now_s in np.arange(0.02, 0.6, 0.01):
        q, dq = sample(moving.in_force, now_s - 0.04)
        assert moving.relieve(RobotState(now_s, q, dq), now_s) is None
    assert moving.relieve(RobotState(0.0, q + 1.0, dq), 0.6) is None  # an old state says nothing


def test_an_arm_that_was_put_elsewhere_is_not_relieved(moving):
    """A leap of the measured position is no resistance, however small: the command stays, also when it is seen again."""
    for now_s in np.arange(0.02, 0.2, 0.01):
        q, dq = sample(moving.in_force, now_s)
        assert moving.relieve(RobotState(now_s, q, dq), now_s) is None
    for now_s in (0.208, 0.216, 0.224):
        q, dq = sample(moving.in_force, now_s)
        assert moving.relieve(RobotState(now_s, q + 0.08, dq), now_s) is None
    assert moving.reliefs == 0


def creep(guard: Guard, profile, step, times: int) -> int:
    """Of so many plans, each from where the arm was last told to rest to `step` of that, how many pass."""
    passed = 0
    for _ in range(times):
        now_s, q = float(guard.in_force.times_s[-1]) + 0.05, guard.in_force.q[-1]
        plan = minimum_jerk(q, step(q) - q, now_s + 0.001, 0.05, 3)
        passed += guard.offer(candidate(plan, profile, now_s), RobotState(now_s, q, np.zeros(6)), now_s).ok
    return passed


def resting(guard: Guard, profile, q: np.ndarray) -> Guard:
    assert guard.offer(candidate(minimum_jerk(q, np.zeros(6)), profile), RobotState(0.0, q, np.zeros(6)), 0.0).ok
    return guard


def test_tolerances_do_not_add_up_from_plan_to_plan(guard, profile, kinematics):
    """However many plans go a little less than the tolerance further out, the arm is never out by more than it once."""
    config = guard.config
    wall = kinematics.solve(np.array([profile.workspace_max[0] - 1e-5, 0.0, 0.2]), profile.home, 1e-9)
    onward = lambda q: kinematics.solve(kinematics.tip(q) + np.array([9e-5, 0, 0]), q, 1e-9)  # noqa: E731
    assert creep(resting(guard, profile, wall), profile, onward, 20) <= 2
    assert kinematics.tip(guard.in_force.q[-1])[0] <= profile.workspace_max[0] + config.workspace_tolerance_m + 1e-6
    near = kinematics.solve(MIDDLE, profile.home)
    near[5] = profile.position_max[5] - config.position_margin_rad - 1e-5
    guard = resting(Guard(profile, kinematics), profile, near)
    assert creep(guard, profile, lambda q: q + np.eye(6)[5] * 9e-5, 20) <= 2
    assert guard.in_force.q[-1][5] <= near[5] + 1e-5 + config.position_tolerance_rad + 1e-6


def test_what_is_granted_to_rounding_does_not_add_up_from_plan_to_plan(profile, kinematics):
    """Beyond a wall or a margin, of plans that each go 0.9 micrometres or microradians further, none pass."""
    config = GuardConfig()
    beyond = np.array([profile.workspace_max[0] + 2 * config.workspace_tolerance_m, 0.0, 0.2])
    near = kinematics.solve(MIDDLE, profile.home)
    near[5] = profile.position_max[5] - config.position_margin_rad + 2 * config.position_tolerance_rad
    inverse = np.linalg.pinv(kinematics.jacobian(kinematics.solve(beyond, profile.home, 1e-9)))[:, 0]
    for q, onward in ((kinematics.solve(beyond, profile.home, 1e-9), 9e-7 * inverse), (near, 9e-7 * np.eye(6)[5])):
        guard = resting(Guard(profile, kinematics), profile, q)
        assert creep(guard, profile, lambda q, onward=onward: q + onward, 10) == 0
        assert creep(guard, profile, lambda q, onward=onward: q - onward, 3) == 3


@pytest.fixture
def along_a_wall(profile, kinematics) -> tuple[Guard, Trajectory]:
    """The tip goes along the near wall of its workspace, within its tolerance, which only the path itself does."""
    n, duration_s = 60, 4.0
    wall_m = profile.workspace_min[0] - 0.9 * GuardConfig.workspace_tolerance_m
    s = np.linspace(0.0, 1.0, n)
    ways, q = -0.2 + 0.4 * (10 * s**3 - 15 * s**4 + 6 * s**5), [profile.home]
    for y in ways:
        q.append(kinematics.solve(np.array([wall_m, y, 0.2]), q[-1], 1e-9))
    path = make_interp_spline(duration_s * s, np.array(q[1:]), k=5)
    times = duration_s * s
    motion = Trajectory(times, path(times), path(times, 1), path(times, 2))
    motion.dq[[0, -1]] = motion.ddq[[0, -1]] = 0.0
    guard = Guard(profile, kinematics)
    verdict = guard.offer(candidate(motion, profile), RobotState(0.0, motion.q[0], np.zeros(6)), 0.0)
    assert verdict.ok, verdict
    return guard, motion


def slower_along(in_force, now_s, profile, jerk_share):
    """A stop along the path with an eighth of the acceleration."""
    return stop_along(in_force, now_s, replace(profile, acceleration_max=profile.acceleration_max / 8), jerk_share)


def test_a_wall_of_the_workspace_does_not_outrank_a_stop(along_a_wall, monkeypatch, kinematics, profile):
    """Where none keeps to the workspace, or only one that rests late, a stop leaves it by little, keeping all else."""
    guard, motion = along_a_wall
    out_m = lambda stop: (profile.workspace_min - tips_at(kinematics, at_1khz(stop)[1]))[:, 0].max()  # noqa: E731
    assert out_m(guard.stopping(2.0)) < guard.config.workspace_tolerance_m
    for along in (lambda *_: None, slower_along):
        monkeypatch.setattr("foresight.safety.guard.stop_along", along)
        stop = guard.stopping(2.0)
        assert stop.times_s[-1] < 2.2 and guard.config.workspace_tolerance_m < out_m(stop) < OUTSIDE_M
        assert not broken(Judge("ur5e", kinematics).use(motion, stop, stop=True))
    monkeypatch.setattr("foresight.safety.guard.stop_along", lambda *_: None)
    monkeypatch.setattr("foresight.safety.guard.OUTSIDE_M", guard.config.workspace_tolerance_m)
    assert guard.stopping(2.0).times_s[-1] == motion.times_s[-1]


def test_a_keep_out_is_not_crept_into(profile, kinematics):
    """An arm at the margin goes a micrometre nearer once at most, and away from it freely."""
    box = Box("keep-out", MIDDLE + np.array([-0.02, 0.12, -0.1]), MIDDLE + np.array([0.02, 0.2, 0.25]))
    scene, home = Scene(profile, (box,)), kinematics.solve(MIDDLE, profile.home)
    low, high = 0.0, 0.12
    for _ in range(40):
        middle = (low + high) / 2
        clear = scene.clearance(kinematics.solve(MIDDLE + np.array([0, middle, 0]), home, 1e-9)).distance_m > 5e-6
        low, high = (middle, high) if clear else (low, middle)
    at = kinematics.solve(MIDDLE + np.array([0, low, 0]), home, 1e-9)
    guard = resting(Guard(profile, kinematics, scene=scene), profile, at)
    before = scene.clearance(at).distance_m
    slope = np.array([scene.clearance(at + 1e-4 * row).distance_m - before for row in np.eye(6)]) / 1e-4
    nearer = -slope / (slope @ slope)
    creep(guard, profile, lambda q: q + 1.9e-6 * nearer, 30)
    assert scene.clearance(guard.in_force.q[-1]).distance_m > -5e-6
    assert creep(guard, profile, lambda q: q - 1e-4 * nearer, 3) == 3


def test_a_stop_out_of_sight_brakes_as_soon_as_the_arm_is_seen(moving, start):
    """Once; until then it goes on to the end of what is in force."""
    elsewhere = RobotState(0.1, start + 1.0, np.zeros(6))
    assert moving.stop("a leap", elsewhere, 0.1, on_sight=True) is None and moving.unbraked(0.1)
    rest = moving.stop("a leap", following(moving, 0.12), 0.12, on_sight=True)
    assert rest is not None and rest.times_s[-1] < 0.45 and not moving.unbraked(0.12)
    assert moving.stop("again", following(moving, 0.14), 0.14, on_sight=True) is rest


def test_a_latch_can_be_reset_after_the_clock_began_anew(guard, start):
    """The cool-down goes on on the new clock."""
    at_rest = RobotState(3600.0, start, np.zeros(6))
    guard.stop("operator", at_rest, 3600.0)
    guard.clock_moved(-3599.0)
    assert not guard.reset(1.1, replace(at_rest, stamp_s=1.1)).ok
    assert guard.reset(1.6, replace(at_rest, stamp_s=1.6)).ok


@pytest.mark.parametrize("by_s", [-30.0, -0.05, 0.05, 3600.0])
def test_a_stop_goes_on_on_a_clock_that_jumps(moving, by_s):
    """Asked again it is the same motion, on the clock of now; and what was before the jump is not brought back."""
    motion = moving.stop("operator", following(moving, 0.1), 0.1)
    at_s = np.linspace(0.11, 0.5, 20)
    expected = sample(motion, at_s)[0]
    moving.clock_moved(by_s)
    again = moving.stop("again", following(moving, 0.12 + by_s), 0.12 + by_s)
    for moved in (again, moving.forward, moving.in_force):
        np.testing.assert_allclose(sample(moved, at_s + by_s)[0], expected, atol=1e-6)
    moving.clock_moved(by_s)
    moving.retract()
    np.testing.assert_allclose(sample(moving.in_force, at_s + 2 * by_s)[0], expected, atol=1e-6)


@pytest.mark.parametrize("speed", [0.15, 1.0, 3.0])
def test_an_arm_that_something_drives_to_its_limit_is_not_commanded_beyond_it(guard, profile, speed):
    """Where it can no longer be braked before, nothing is commanded."""
    q, dq = profile.home.copy(), np.zeros(6)
    q[2], dq[2] = profile.position_max[2] - 0.02, speed
    motion = guard.stop("operator", RobotState(10.0, q, dq), 10.0)
    assert (motion is None) == (speed > 0.5)
    assert motion is None or (motion.q <= profile.position_max).all()


def test_a_velocity_that_no_arm_has_moves_nothing(guard, profile):
    """With nothing in force it is no ground to command anything; one that it may have is braked."""
    for speed, turns in ((28.6, False), (1e9, False), (0.5, True)):
        guard = Guard(profile, guard.kinematics)
        motion = guard.stop("operator", RobotState(0.0, profile.home, np.r_[speed, np.zeros(5)]), 0.0)
        assert (motion is not None) == turns and (motion is None or 1e-3 < np.abs(motion.q - profile.home).max() < 0.2)


@pytest.mark.parametrize("robot", ["fr3", "panda"])
def test_stops_and_reliefs_keep_the_rate_of_torques(robot):
    """Of motions of all joints: each stop brakes instead of going on to the end, and an arm that is held is relieved."""
    profile = load_profile(robot)
    kinematics, rng = MujocoKinematics(profile), np.random.default_rng(2)
    q = np.clip(profile.home, profile.position_min + 0.15, profile.position_max - 0.15)
    stops = reliefs = 0
    for _ in range(12):
        guard, still = Guard(profile, kinematics, transport_s=0.045), np.zeros(7)
        gentle = replace(profile, jerk_max=0.06 * profile.jerk_max)
        motion = coming_to(q + 0.3 * rng.normal(size=7), q, still, still, gentle, 0.5 * profile.joint_speed_max, 0.05, True)
        if not guard.offer(candidate(motion, profile), RobotState(0.0, q, still), 0.0).ok:
            continue
        for now_s in rng.uniform(0.1, motion.times_s[-1] - 0.5, 3):
            stops += 1
            assert guard.stopping(now_s).times_s[-1] - now_s < 0.4
        held = sample(guard.in_force, 0.4)[0]
        given = [guard.relieve(RobotState(s, held if s > 0.4 else sample(guard.in_force, s)[0], still), s) for s in SEEN_S]
        reliefs += any(motion is not None for motion in given)
    assert stops >= 15 and reliefs == stops // 3


def test_an_arm_that_hangs_below_its_command_does_not_sink_with_its_reliefs(profile, kinematics, start):
    """A servo that gives way 12 mrad to gravity looks held; without a plan its command follows it 0.05 rad at most."""
    guard, droop = resting(Guard(profile, kinematics), profile, start), np.array([0.0, 0.012, 0.0, 0.0, 0.0, 0.0])
    q = start
    for now_s in np.arange(0.6, 8.0, 0.01):
        q = q + (sample(guard.in_force, now_s)[0] + min(1.0, now_s - 0.6) * droop - q) * 0.3
        guard.relieve(RobotState(now_s, q, np.zeros(6)), now_s)
    assert guard.reliefs > 1 and np.abs(guard.in_force.q[-1] - start).max() <= 0.05
    there = minimum_jerk(guard.in_force.q[-1], np.zeros(6), 8.001, 0.05)
    assert guard.offer(candidate(there, profile, 8.0), RobotState(8.0, q, np.zeros(6)), 8.0).ok
    assert guard.relieve(RobotState(8.02, q, np.zeros(6)), 8.02) is not None


@pytest.mark.parametrize("robot", ["ur5e", "fr3", "so101"])
def test_a_plan_that_joins_as_far_off_as_it_may_breaks_nothing_however_late_it_arrives(robot):
    """What a join tolerates is no step that a controller has to make up for in the little time that is left."""
    profile = load_profile(robot)
    kinematics, begin, transport_s, config = MujocoKinematics(profile), profile.home, 0.045, GuardConfig()
    judge, joints = Judge(robot, kinematics), len(profile.joint_names)
    passed = 0
    for late_s in (0.0, 0.02, 0.04, 0.044):
        for step in 0.95 * np.vstack([np.eye(joints), -np.eye(joints)]):
            guard, controller = Guard(profile, kinematics, transport_s=transport_s), Controller(begin, 0.0)
            guard.in_force = hold(begin, 0.5)
            plan = minimum_jerk(begin, np.full(joints, 0.01), 1.0451)
            plan.q[0] += step * config.join_position_rad
            plan.dq[0] += step * config.join_velocity_s * profile.acceleration_max
            if not guard.offer(candidate(plan, profile, 1.0), RobotState(1.0, begin, np.zeros(joints)), 1.0).ok:
                continue
            before, passed = controller.points, passed + 1
            controller.receive(guard.forward, 1.0 + late_s)
            assert not broken(judge.use(before, controller.points)), f"{late_s} s late, {step}"
    assert passed >= 4


def test_a_trajectory_that_a_controller_would_ignore_is_refused(guard, profile, start):
    """ros2_controllers ignore, silently, what does not end at rest to 1.2e-7 rad/s: what is sent next would begin elsewhere."""
    plan = minimum_jerk(start, WAY)
    plan.dq[-1] = 5e-7
    verdict = guard.offer(candidate(plan, profile), RobotState(0.0, start, np.zeros(6)), 0.0)
    assert verdict.reason is Reason.NOT_AT_REST and "5e-07" in verdict.detail


@pytest.mark.parametrize("how", ["stop", "brake"])
def test_where_no_stop_is_found_it_is_sought_again(moving, monkeypatch, how):
    """What is in force goes on meanwhile, and nothing is sent; a moment later there is one."""
    ways = moving._ways_to_rest
    monkeypatch.setattr(moving, "_ways_to_rest", lambda *_: [])
    ask, in_force = getattr(moving, how), moving.in_force
    assert ask("test", None, 0.1) is None and moving.in_force is in_force
    monkeypatch.setattr(moving, "_ways_to_rest", ways)
    assert ask("test", None, 0.11) is None, "not at once, for each search takes time"
    assert moving.offer(candidate(in_force, moving.profile, 0.11), following(moving, 0.11), 0.11).reason in REFUSING
    motion = ask("test", None, 0.125)
    assert motion is not None and motion.times_s[-1] < 0.45 and moving.in_force.times_s[-1] == motion.times_s[-1]
    assert ask("test", None, 0.15) is (motion if how == "stop" else None)


def test_slow_means_slow_for_plans_that_ask_for_too_much_too(guard, profile, start):
    """A plan above a limit is slowed twice: to the limit, and to the share that the failsafe asks for."""
    guard.share_max = 0.5
    speeds = {}
    for too_much in (1.0, 1.03):
        guard.in_force = hold(start, -1.0)
        way = np.zeros(6)
        way[5] = 0.99 * too_much * profile.joint_speed_max / 1.875 * 0.9
        plan = minimum_jerk(start, way, 0.05, 0.9, 40)
        verdict = guard.offer(candidate(plan, profile), RobotState(0.0, start, np.zeros(6)), 0.0)
        assert verdict.ok and verdict.slowed < 0.52, verdict
        speeds[too_much] = np.abs(sample(guard.in_force, np.arange(0.0, 3.0, 0.001))[1]).max()
    assert speeds[1.03] == pytest.approx(speeds[1.0], rel=0.05) and speeds[1.03] < 0.55 * profile.joint_speed_max


def test_a_second_stop_after_a_relief_returns_the_relief(moving):
    """What is in force, not the motion of the first stop: that one is over."""
    held = sample(moving.in_force, 0.2)[0]
    moving.stop("test", None, 0.3)
    for now_s in np.arange(0.3, 0.6, 0.01):
        motion = moving.relieve(RobotState(now_s, held, np.zeros(6)), now_s)
        if motion is not None:
            break
    assert motion is not None and moving.stop("again", None, now_s) is motion


def test_a_guard_that_succeeds_another_brakes_from_what_is_in_force(moving, profile, kinematics, start):
    """Not from the measured arm, which lags; once the motion is over it knows where the controller was left, and no more."""
    heir = Guard(profile, kinematics)
    heir.succeed(moving, 0.2)
    lagging = RobotState(0.2, *sample(moving.in_force, 0.17))
    motion = heir.stop("test", lagging, 0.2)
    assert motion.q[0] == pytest.approx(sample(moving.in_force, 0.2)[0], abs=1e-9)
    late = Guard(profile, kinematics)
    late.succeed(moving, 0.6)
    pushed = start + WAY + np.array([0.0, 0.0, 0.5, 0.0, 0.0, 0.0])
    assert late.in_force is None and late.adopt(RobotState(0.6, pushed, np.zeros(6)), 0.6).times_s[-1] > 1.7
