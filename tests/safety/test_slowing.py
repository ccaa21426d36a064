"""Slowed and stopped, a motion keeps to its path, joins what went before, and keeps the limits; whenever it must, it rests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foresight.control.braking import coming_to
from foresight.control.trajectory import cut, derivatives, sample
from foresight.data import Candidate, Reason, RobotState, Trajectory
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import load_profile
from foresight.safety.checks import examine_motion
from foresight.safety.config import GuardConfig
from foresight.safety.guard import Guard
from foresight.safety.slowing import graded_share, slowed, speed_share, stop_along
from tests.motions import at_1khz, candidate, drive, minimum_jerk, tips_at

WAY = np.array([0.3, -0.1, 0.2, -0.1, 0.15, 0.3])


@pytest.fixture
def quick(start) -> Trajectory:
    return minimum_jerk(start, WAY, start_s=5.0, duration_s=1.0, points=20)


def off_path(motion: Trajectory, path: Trajectory) -> float:
    """Greatest distance [rad] of the motion from the path, whatever the time."""
    on = at_1khz(path)[1]
    return max(float(np.abs(on - q).max(1).min()) for q in at_1khz(motion)[1][::7])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_slowed_runs_the_same_path_at_the_share_of_the_speed(quick, share):
    """Same path, same end, joined with equal position, velocity and acceleration, and `share` as fast after the ramp."""
    late = cut(quick, 5.2)
    slow = slowed(late, share)
    for a, b in zip(derivatives(slow, 5.2)[:3], derivatives(late, 5.2)[:3], strict=True):
        assert a == pytest.approx(b, abs=1e-9)
    assert off_path(slow, quick) < 5e-4 and slow.q[-1] == pytest.approx(quick.q[-1], abs=1e-9)
    assert np.abs(slow.dq[-1]).max() < 1e-9 and np.abs(slow.ddq[-1]).max() < 1e-9
    _, q = at_1khz(slow)
    fastest = np.abs(np.diff(q[100:], axis=0)).max() / 1e-3
    assert fastest == pytest.approx(share * np.abs(at_1khz(quick)[1][1:] - at_1khz(quick)[1][:-1]).max() / 1e-3, rel=0.02)


def test_slowed_later_is_unchanged_until_then(quick):
    """Until the delay is over nothing changes; then it is the same path, slower."""
    slow = slowed(quick, 0.5, delay_s=0.25)
    begin_s = quick.times_s[0]
    for t in begin_s + np.array([0.0, 0.1, 0.24]):
        assert sample(slow, t)[0] == pytest.approx(sample(quick, t)[0], abs=1e-9)
    assert off_path(slow, quick) < 5e-4 and slow.q[-1] == pytest.approx(quick.q[-1], abs=1e-9)
    assert slow.times_s[-1] > quick.times_s[-1] + 0.1 and (np.diff(slow.times_s) > 0).all()


@pytest.mark.parametrize(("every_s", "acceleration"), [(0.1, 0.5), (0.1, 0.9), (0.05, 0.9), (0.02, 0.5)])
def test_replanning_near_an_obstacle_does_not_creep(profile, kinematics, start, every_s, acceleration):
    """A planner that gains speed again and again, each plan slowed, keeps about what is allowed there, however often it plans."""
    guard, speeds = Guard(profile, kinematics, clearance=lambda q: np.full(len(q), 0.02)), []
    target, quick = (
        start + np.array([0, 0, 0, 0, 0, 1.5]),
        replace(profile, acceleration_max=acceleration * profile.acceleration_max),
    )
    for now_s in np.arange(0.0, 2.5, every_s).tolist():
        begin_s = now_s + 0.1
        q, dq, ddq, _ = derivatives(guard.in_force, begin_s) if guard.in_force else (start, *np.zeros((3, 6)))
        motion = coming_to(target, q, dq, ddq, quick, 0.75, begin_s)
        state = RobotState(now_s, *(sample(guard.in_force, now_s) if guard.in_force else (start, np.zeros(6))))
        verdict = guard.offer(candidate(motion, profile, now_s), state, now_s)
        assert verdict.ok or (every_s < 0.1 and "faster than what is in force" in verdict.detail)
        speeds.append(float(np.abs(sample(guard.in_force, now_s)[1]).max()))
    allowed = speed_share(0.02, 0.01, 0.05, 0.3) * profile.joint_speed_max
    assert 0.45 * allowed < np.mean(speeds[len(speeds) // 5 :]) and max(speeds) < 1.31 * allowed


def test_slowed_stays_smooth(quick, profile):
    """While the speed changes the acceleration has no steps: its change over a control period stays within the jerk limit."""
    slow = slowed(cut(quick, 5.3), 0.5)
    times = np.arange(slow.times_s[0], slow.times_s[-1], 1 / profile.controller_rate_hz)
    jerk = np.diff(derivatives(slow, times)[2], axis=0) * profile.controller_rate_hz
    assert np.abs(jerk).max() < 200


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_share_must_be_one(quick, share):
    """A share that is none is an error that says so."""
    with pytest.raises(ValueError, match="share"):
        slowed(quick, share)


@pytest.mark.parametrize("now_s", [5.1, 5.3, 5.5, 5.7, 5.95])
def test_stop_along_rests_on_the_path(quick, profile, now_s):
    """The arm comes to rest on the path in force, from what was commanded, soon, within acceleration and jerk limits."""
    stop = stop_along(quick, now_s, profile)
    for a, b in zip(derivatives(stop, now_s)[:3], derivatives(quick, now_s)[:3], strict=True):
        assert a == pytest.approx(b, abs=1e-9)
    assert off_path(stop, quick) < 5e-4 and np.abs(stop.dq[-1]).max() < 1e-9
    _, dq = sample(quick, now_s)
    assert stop.times_s[-1] <= 6.0 + 1e-9
    if now_s <= 5.5:  # before the motion brakes by itself
        assert stop.times_s[-1] - now_s <= 1.6 * float(np.max(np.abs(dq) / profile.acceleration_max)) + 0.06
    times = np.arange(now_s, stop.times_s[-1], 1 / profile.controller_rate_hz)
    ddq = derivatives(stop, times)[2]
    assert (np.abs(ddq) <= profile.acceleration_max).all()
    assert (np.abs(np.diff(ddq, axis=0)) * profile.controller_rate_hz <= profile.jerk_max).all()


def test_a_candidate_a_little_too_fast_is_slowed_and_it_is_said(profile, kinematics, start):
    """Up to the smallest share a candidate is slowed along its path instead of refused; the verdict tells how much and why."""
    guard, still = Guard(profile, kinematics), RobotState(-0.01, start, np.zeros(6))
    fast = minimum_jerk(start, np.array([0, 0, 0, 0, 0, 0.6]), duration_s=1.0, points=30)  # 1.125 rad/s, the cap is 0.8
    verdict = guard.offer(candidate(fast, profile), still, 0.0)
    assert verdict.ok and 0.6 < verdict.slowed < 0.72 and "wrist_3_joint would reach 1.1250" in verdict.detail
    assert guard.forward.q[-1] == pytest.approx(fast.q[-1]) and guard.forward.times_s[-1] > fast.times_s[-1] + 0.3
    _, q = at_1khz(guard.forward)
    assert np.abs(np.diff(q, axis=0)).max() / 1e-3 <= profile.joint_speed_max * 1.001


def test_a_candidate_much_too_fast_is_refused(profile, kinematics, start):
    """What would have to be slowed below the smallest share is refused under the limit it breaks, and nothing is in force."""
    guard, still = Guard(profile, kinematics), RobotState(-0.01, start, np.zeros(6))
    fast = minimum_jerk(start, np.array([0, 0, 0, 0, 0, 2.0]), duration_s=0.6, points=30)
    verdict = guard.offer(candidate(fast, profile), still, 0.0)
    assert not verdict.ok and verdict.slowed == 1.0 and guard.in_force is None and guard.forward is None
    assert verdict.reason in (Reason.ACCELERATION_LIMIT, Reason.VELOCITY_LIMIT)


def test_speed_share_falls_towards_the_smallest():
    """Full speed far away, the smallest share at the stop distance and nearer, linear between; never zero, so no stop."""
    assert [speed_share(d, 0.01, 0.05, 0.3) for d in (-1.0, 0.0, 0.01, 0.03, 0.05, 9.0)] == pytest.approx(
        [0.3, 0.3, 0.3, 0.65, 1.0, 1.0]
    )


def test_speed_falls_towards_an_obstacle(profile, kinematics, start):
    """Near an obstacle a fast candidate is slowed, not refused; the same candidate far from it is not, nor is a slow one."""
    motion = minimum_jerk(start, np.array([0.2, 0, 0, 0, 0, 0.2]), duration_s=1.0)
    config = GuardConfig()

    def share(distance_m, offered=motion):
        tip_speeds = lambda q, dq: np.linalg.norm(kinematics.tip_motion(q, dq)[1], axis=1)  # noqa: E731
        return graded_share(offered, profile, config, tip_speeds, lambda q: distance_m)[0]

    assert share(0.2) == 1.0 and share(0.005) < 0.6 and share(0.005) < share(0.03) < 1.0
    assert share(0.005, minimum_jerk(start, np.array([0.02, 0, 0, 0, 0, 0.02]), duration_s=1.0)) == 1.0
    guard, still = Guard(profile, kinematics, clearance=lambda q: np.full(len(q), 0.005)), RobotState(-0.01, start, np.zeros(6))
    verdict = guard.offer(candidate(motion, profile), still, 0.0)
    assert verdict.ok and verdict.slowed == pytest.approx(share(0.005)) and "near" in verdict.detail


def test_a_pause_at_the_end_does_not_spare_a_motion_its_slowing(profile, kinematics, start):
    """Slowed it lasts longer than a plan may; that is the guard's own doing, and no reason to let it pass at full speed."""
    motion = minimum_jerk(start, np.array([0.2, 0, 0, 0, 0, 0.2]), duration_s=1.0)
    longest_s, still = GuardConfig().duration_max_s, np.zeros((1, 6))
    paused = Trajectory(
        np.r_[motion.times_s, motion.times_s[0] + longest_s - 0.01], np.vstack([motion.q, motion.q[-1:]]),
        np.vstack([motion.dq, still]), np.vstack([motion.ddq, still]),
    )  # fmt: skip
    for offered in (motion, paused):
        guard = Guard(profile, kinematics, clearance=lambda q: np.full(len(q), 0.02))
        verdict = guard.offer(candidate(offered, profile), RobotState(-0.01, start, np.zeros(6)), 0.0)
        fastest, at_full = (np.abs(np.diff(at_1khz(m)[1], axis=0)).max() for m in (guard.in_force, motion))
        assert verdict.ok and verdict.slowed < 0.8 and fastest < 1.02 * verdict.slowed * at_full
    assert guard.in_force.times_s[-1] - guard.in_force.times_s[0] > longest_s


def test_what_cannot_be_slowed_for_want_of_jerk_passes_and_says_so(profile, kinematics, start):
    """Slowing takes jerk. Where that is missing a motion within every limit passes as it is, unless the failsafe says slow."""
    motion, room = minimum_jerk(start, np.array([0.2, 0, 0, 0, 0, 0.2]), duration_s=1.0), [1.0]
    guard = Guard(profile, kinematics, GuardConfig(slow_ramp_s=0.002), clearance=lambda q: np.full(len(q), room[0]))
    assert guard.offer(candidate(motion, profile), RobotState(-0.01, start, np.zeros(6)), 0.0).detail == ""
    room[0] = 0.02
    offered, state = candidate(cut(motion, 0.5), profile, 0.45), RobotState(0.44, *sample(motion, 0.44))
    before, verdict = guard.in_force, guard.offer(offered, state, 0.45)
    assert verdict.ok and verdict.slowed == 1.0 and verdict.detail.startswith("Not slowed. Slowed to 0.")
    guard.in_force, guard.share_max = before, 0.5
    assert guard.offer(offered, state, 0.45).reason in (Reason.JERK_LIMIT, Reason.ACCELERATION_LIMIT)


@pytest.mark.parametrize("speed", [0.2, 0.5, 0.8])
def test_arm_stops_a_tenth_before_a_joint_limit(profile, kinematics, start, speed):
    """However fast a joint legally runs towards its limit, whenever it is stopped it rests 0.1 rad before it."""
    duration_s = 1.875 * 0.4 / speed
    near = replace(profile, position_max=np.append(profile.position_max[:5], start[5] + 0.4 + 0.1001))
    guard, still = Guard(near, kinematics), RobotState(-0.01, start, np.zeros(6))
    motion = minimum_jerk(start, np.array([0, 0, 0, 0, 0, 0.4]), duration_s=duration_s, points=30)
    assert guard.offer(candidate(motion, near), still, 0.0).ok
    for now_s in np.linspace(0.05, float(guard.in_force.times_s[-1]), 40):
        assert at_1khz(guard.stopping(float(now_s)))[1][:, 5].max() <= near.position_max[5] - 0.1
    closer = minimum_jerk(start, np.array([0, 0, 0, 0, 0, 0.41]), duration_s=duration_s, points=30)
    assert Guard(near, kinematics).offer(candidate(closer, near), still, 0.0).reason is Reason.POSITION_LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("epoch_s", [0.0, 1.76e9])
def test_there_is_always_a_way_to_rest(profile, kinematics, epoch_s):
    """At any of thousands of instants of fast replanned motion there is a stop: continuous, within limits, ending at rest."""
    rng, period_s, looked = np.random.default_rng(3), 1 / profile.controller_rate_hz, 0
    for seed in range(4):
        guard = Guard(profile, kinematics)
        for made in drive(seed, 24, profile, kinematics):
            shift = lambda t: Trajectory(t.times_s + epoch_s, t.q, t.dq, t.ddq)  # noqa: E731
            offered = Candidate(
                shift(made.trajectory), profile.joint_names, epoch_s + made.now_s - 0.1, epoch_s + made.now_s - 0.01
            )
            state = RobotState(epoch_s + made.state.stamp_s, made.state.q, made.state.dq)
            guard.offer(offered, state, epoch_s + made.now_s)
            made.in_force = Trajectory(guard.in_force.times_s - epoch_s, guard.in_force.q, guard.in_force.dq, guard.in_force.ddq)
            for now_s in epoch_s + made.now_s + rng.uniform(0, 0.1, 12):
                stop = guard.stopping(float(now_s))
                before = derivatives(guard.in_force, float(now_s))
                times = np.arange(now_s, stop.times_s[-1] + 3 * period_s, period_s)
                q, dq, ddq, _ = derivatives(stop, times)
                change = np.diff(ddq, axis=0) / period_s
                assert stop.times_s[0] == pytest.approx(now_s, abs=1e-6)
                assert q[0] == pytest.approx(before[0], abs=1e-9) and dq[0] == pytest.approx(before[1], abs=1e-6)
                assert ddq[0] == pytest.approx(before[2], abs=1e-3)
                assert (dq[-1] == 0).all() and times[-1] - now_s < 1.5
                assert (np.abs(dq) <= profile.velocity_bounds(q)[1] * 1.001).all()
                assert (np.abs(ddq) <= profile.acceleration_max * 1.001).all()
                assert (np.abs(change) <= profile.jerk_max * 1.001).all()
                tips = tips_at(kinematics, q[::5])
                assert np.linalg.norm(np.diff(tips, axis=0), axis=1).max() / (5 * period_s) <= profile.tip_speed_max * 1.001
                looked += 1
    assert looked >= 1000


@pytest.mark.parametrize("now_s", [0.0, 1.76e9])
def test_a_stop_that_would_change_torque_too_fast_is_gentler_and_nearly_as_quick(now_s):
    """Where the stop at full jerk breaks the torque rate, one within the allowance of the bound does not, and is taken."""
    fr3 = load_profile("fr3")
    fr3 = replace(fr3, torque_rate_max=0.22 * fr3.torque_rate_max)
    kinematics, guard, still = MujocoKinematics(fr3), Guard(fr3, MujocoKinematics(fr3)), np.zeros(7)
    way = np.array([0.08, -0.14, -0.28, -0.29, 0.19, 0.25, -1.8])
    gentle = replace(fr3, acceleration_max=0.5 * fr3.acceleration_max, jerk_max=0.01 * fr3.jerk_max)
    motion = coming_to(fr3.home + way, fr3.home, still, still, gentle, 0.776, now_s + 0.1, straight=True)
    state = RobotState(now_s, fr3.home, still)
    assert guard.offer(candidate(motion, fr3, now_s + 0.05), state, now_s + 0.05).ok
    stop_s = now_s + 0.9
    assert np.abs(derivatives(guard.in_force, stop_s)[1]).max() > 0.75
    quickest = stop_along(guard.in_force, stop_s, fr3)
    verdict = examine_motion(quickest, fr3, kinematics, guard.config, stop_s).verdict
    assert verdict.reason is Reason.TORQUE_RATE_LIMIT
    stop = guard.stop("test", None, stop_s)
    assert stop.times_s[-1] - stop_s < 0.8 / 10 + 0.02
    assert examine_motion(stop, fr3, kinematics, guard.config, stop_s).verdict.ok
