"""The guard holds motion without latching: it brakes once, waits, forgets what has ended, and goes on."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.control.trajectory import derivatives, sample, take_over
from foresight.data import Reason, RobotState
from foresight.safety.guard import Guard
from tests.motions import candidate, minimum_jerk

WAY = np.array([0.06, -0.03, 0.05, -0.02, 0.03, 0.04])


@pytest.fixture
def moving(profile, kinematics, start) -> Guard:
    """A guard whose arm moves, from time 0 on."""
    guard = Guard(profile, kinematics)
    verdict = guard.offer(candidate(minimum_jerk(start, WAY, duration_s=0.8), profile), RobotState(0.0, start, np.zeros(6)), 0.0)
    assert verdict.ok, verdict
    return guard


def following(guard: Guard, now_s: float) -> RobotState:
    return RobotState(now_s, *sample(guard.in_force, now_s))


def test_braking_joins_what_is_in_force_and_ends_at_rest(moving):
    """Position, velocity and acceleration go on where they are; a second call has nothing to add."""
    before = moving.in_force
    rest = moving.brake("heartbeat lost", following(moving, 0.3), 0.3)
    for a, b in zip(derivatives(rest, 0.3)[:3], derivatives(before, 0.3)[:3], strict=True):
        assert a == pytest.approx(b, abs=1e-6)
    assert (rest.dq[-1] == 0).all() and moving.brake("again", following(moving, 0.31), 0.31) is None


@pytest.mark.parametrize("how", ["brake", "stop", "relieve"])
def test_a_controller_that_has_the_guards_own_motion_only_later_executes_it_without_a_step(moving, profile, how: str):
    """Whatever comes within transport_s is joined where it agrees with what the controller executes meanwhile."""
    moving.transport_s = transport_s = 0.045
    before, now_s, own = moving.in_force, 0.3, None
    if how == "relieve":  # something holds the arm where it is
        for now_s in np.arange(0.02, 0.7, 0.02):
            own = own or moving.relieve(RobotState(now_s, before.q[0], np.zeros(6)), now_s)
            if own is not None:
                break
    else:
        own = getattr(moving, how)("a test", following(moving, now_s), now_s)
    for late_s in (0.0, 0.01, 0.03, 0.0449):
        executed = take_over(before, own, now_s + late_s)
        times = np.arange(now_s + late_s, executed.times_s[-1], 0.001)
        _, dq, ddq, _ = derivatives(executed, times)
        assert (np.abs(ddq) <= 1.01 * profile.acceleration_max).all(), f"{late_s} s late"
        assert dq == pytest.approx(derivatives(moving.in_force, times)[1], abs=1e-3)
    assert derivatives(own, now_s + transport_s)[1] == pytest.approx(derivatives(before, now_s + transport_s)[1], abs=1e-6)
    assert (own.dq[-1] == 0).all()


def test_held_motion_is_refused_until_it_is_resumed(moving, profile):
    """The refusal names the cause; afterwards a plan joins the rest that the brake led to."""
    rest = moving.brake("heartbeat lost", following(moving, 0.3), 0.3)
    now_s = float(rest.times_s[-1]) + 0.1
    onward = candidate(minimum_jerk(rest.q[-1], -WAY, start_s=now_s + 0.05, duration_s=0.8), profile, now_s)
    verdict = moving.offer(onward, following(moving, now_s), now_s)
    assert verdict.reason is Reason.HELD and "heartbeat lost" in verdict.detail
    moving.resume()
    assert moving.offer(onward, following(moving, now_s), now_s).ok
    assert moving.brake("again", following(moving, now_s + 0.2), now_s + 0.2) is not None


def test_nothing_is_sent_to_an_arm_at_rest(profile, kinematics, start, moving):
    """With nothing in force, or at its end, motion is refused and no command is invented."""
    still = Guard(profile, kinematics)
    assert still.brake("no heartbeat yet", None, 0.0) is None and still.held
    assert moving.brake("late", following(moving, 2.0), 2.0) is None and moving.held


def test_a_stopped_guard_does_not_brake(moving):
    """The latch has had its motion."""
    moving.stop("operator", following(moving, 0.2), 0.2)
    assert moving.brake("camera", following(moving, 0.3), 0.3) is None and moving.held is None


@pytest.mark.parametrize("how", ["brake", "stop"])
@pytest.mark.parametrize("leap_rad", [1.0, 0.1])
def test_on_sight_nothing_is_commanded_to_an_arm_that_is_elsewhere(moving, how: str, leap_rad: float, start):
    """Put elsewhere, be it not far, it is left to the end of what is in force."""
    before = moving.in_force
    assert getattr(moving, how)("a leap", RobotState(0.3, start + leap_rad, np.zeros(6)), 0.3, on_sight=True) is None
    assert moving.in_force is before and (moving.held or moving.stopped) == "a leap"


def test_on_sight_the_brake_comes_when_the_arm_is_seen(moving):
    """After a jump of the clock the first joint state in the new time decides."""
    assert moving.brake("a jump", None, 0.3, on_sight=True) is None
    assert moving.brake("a jump", following(moving, 0.32), 0.32, on_sight=True) is not None


def test_waiting_leaves_the_motion_to_its_end(moving, profile, start):
    """Plans are refused, nothing else changes."""
    before = moving.in_force
    moving.wait("held by something")
    assert moving.in_force is before
    assert moving.offer(candidate(before, profile, 0.1), following(moving, 0.1), 0.1).reason is Reason.HELD


def test_settling_forgets_what_has_ended(moving, start):
    """Not in motion, not without a fresh measurement, not while the arm moves; then nothing is in force."""
    end_s = float(moving.in_force.times_s[-1])
    assert not moving.settle(following(moving, 0.3), 0.3)
    assert not moving.settle(None, end_s + 0.1)
    assert not moving.settle(RobotState(end_s + 0.1, start, np.full(6, 0.3)), end_s + 0.1)
    assert moving.in_force is not None
    assert moving.settle(RobotState(end_s + 0.1, start, np.zeros(6)), end_s + 0.1) and moving.in_force is None
    assert moving.settle(RobotState(end_s + 0.1, start, np.zeros(6)), end_s + 0.1)


def test_a_clock_that_moves_takes_the_motion_with_it(moving, profile, kinematics):
    """What is commanded now, before and after the jump, is the same."""
    before = sample(moving.in_force, 0.3)
    moving.clock_moved(-90.0)
    assert np.array(sample(moving.in_force, 0.3 - 90.0)) == pytest.approx(np.array(before))
    nothing = Guard(profile, kinematics)
    nothing.clock_moved(5.0)
    assert nothing.in_force is None
