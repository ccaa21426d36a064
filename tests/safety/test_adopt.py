"""With nothing in force the controller's own command is unknown: it is brought to the arm before anything moves from there."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.data import Reason, RobotState
from foresight.evaluation.guard_judge import Controller, Judge, broken
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import load_profile
from foresight.safety.config import GuardConfig
from foresight.safety.guard import Guard
from tests.motions import candidate, minimum_jerk

ADOPT_S, TRANSPORT_S, NOW_S = GuardConfig.adopt_s, 0.045, 1.0
FURTHEST = GuardConfig.tracking_error_max_rad


def at(q: np.ndarray, now_s: float) -> RobotState:
    return RobotState(now_s, q, np.zeros(len(q)))


@pytest.fixture
def guard(profile, kinematics) -> Guard:
    return Guard(profile, kinematics, transport_s=TRANSPORT_S)


@pytest.fixture
def stopped(guard, profile, start) -> Guard:
    """A guard whose stop has ended: nothing is in force, and the controller stands at `start`."""
    verdict = guard.offer(candidate(minimum_jerk(start, np.zeros(6), 0.05, 0.1), profile), at(start, 0.0), 0.0)
    assert verdict.ok, verdict
    guard.brake("a test", at(start, 0.5), 0.5)
    return guard


@pytest.mark.parametrize("robot", ["ur5e", "fr3", "panda", "so101"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.0633, 1.0])
def test_wherever_the_controller_stands_it_comes_to_the_arm_and_goes_on_within_every_limit(robot: str, share: float):
    """Judged by one who saw the commands alone: each joint in turn, as far off as an arm may be from its command, either way;
    commands that come at once, and late. A plan made meanwhile that begins after it does not cut it short."""
    profile = load_profile(robot)
    kinematics, joints = MujocoKinematics(profile), len(profile.joint_names)
    judge, arm = Judge(robot, kinematics), profile.home
    for apart in share * FURTHEST * np.vstack([np.eye(joints), -np.eye(joints)]):
        for late_s in (0.0, 0.02, TRANSPORT_S):
            guard, controller = Guard(profile, kinematics, transport_s=TRANSPORT_S), Controller(arm + apart, 0.0)
            way, ready_s = np.full(joints, 0.005), NOW_S + ADOPT_S - 0.1
            motion = minimum_jerk(arm, way, NOW_S + ADOPT_S + 0.05, 0.8)
            sent = [(NOW_S, guard.adopt(at(arm, NOW_S), NOW_S))]
            verdict = guard.offer(candidate(motion, profile, ready_s), at(arm, ready_s), ready_s)
            assert verdict.ok, verdict
            for sent_s, message in (*sent, (ready_s, guard.forward)):
                before = controller.points
                controller.receive(message, sent_s + late_s)
                assert not broken(judge.use(before, controller.points)), f"{robot}: {apart} off, {late_s} s late"
            assert controller.points.q[-1] == pytest.approx(arm + way)


def test_until_the_controller_is_there_no_plan_begins(guard, profile, start):
    """It is held, with both times; as soon as it begins later it passes, and what is in force begins with the arm's pose."""
    adopted = guard.adopt(at(start, NOW_S), NOW_S)
    end_s = NOW_S + ADOPT_S
    assert adopted.times_s.tolist() == [end_s] and (adopted.q == start).all() and guard.in_force is adopted
    way = np.full(6, 0.01)
    held, passes = Reason.HELD, Reason.OK
    for now_s, begin_s, reason in ((1.1, 1.2, held), (1.9, 1.96, held), (1.9, 2.0, passes), (1.95, 1.99, held)):
        verdict = guard.offer(candidate(minimum_jerk(start, way, begin_s), profile, now_s), at(start, now_s), now_s)
        assert verdict.reason is reason, verdict
    assert guard.counts[Reason.HELD] == 3 and guard.in_force.times_s[0] == end_s and guard.in_force.times_s[-1] > end_s
    assert "for another 0.050 s; the trajectory begins in 0.040 s" in guard.last.detail


@pytest.mark.parametrize("how", ["stop", "brake"])
def test_a_stop_meanwhile_lets_the_command_come_to_the_arm(guard, profile, start, how: str):
    """And takes back a motion that was to follow: the controller ends where the arm stands, when it would have been there."""
    controller = Controller(start + 0.02, 0.0)
    controller.receive(guard.adopt(at(start, NOW_S), NOW_S), NOW_S)
    wanted = controller.points
    follow = minimum_jerk(start, np.full(6, 0.01), NOW_S + ADOPT_S + 0.01)
    assert guard.offer(candidate(follow, profile, 1.9), at(start, 1.9), 1.9).ok
    controller.receive(guard.forward, 1.9)
    controller.receive(getattr(guard, how)("a test", at(start, 1.92), 1.92), 1.94)
    assert controller.points.times_s[1] == wanted.times_s[1]
    assert (controller.points.q[1:] == start).all() and (controller.points.dq[1:] == 0).all()
    assert not guard.settle(at(start, 1.95), 1.95) and guard.settle(at(start, 2.2), 2.2)


def test_only_an_arm_that_is_seen_at_rest_with_nothing_in_force_and_motion_allowed_is_adopted(stopped, start):
    """Else there is nothing to send, and nothing changes."""
    assert stopped.adopt(at(start, 0.51), 0.51) is None, "the stop is in force"
    assert stopped.settle(at(start, 0.8), 0.8)
    assert stopped.adopt(at(start, 0.8), 0.8) is None, "held"
    stopped.resume()
    assert stopped.adopt(None, 0.8) is None and stopped.adopt(at(start, 0.6), 0.8) is None, "not seen"
    assert stopped.adopt(RobotState(0.8, start, np.full(6, 0.2)), 0.8) is None, "it moves"
    assert stopped.in_force is None
    assert stopped.adopt(at(start, 0.8), 0.8) is not None and stopped.adopt(at(start, 0.8), 0.8) is None, "once"
    stopped.stop("a test", at(start, 0.9), 0.9)
    assert stopped.adopt(at(start, 0.9), 0.9) is None, "stopped"


@pytest.mark.parametrize("far", [[0.0, 0.0, 0.45, 0.0, 0.0, 0.0], [1.2, 0.1, -0.1, 0.1, 0.0, 0.0], [0.15] * 6])
@pytest.mark.parametrize("by", ["settled", "reset", "started afresh"])
def test_a_command_known_to_be_further_off_is_given_longer(stopped, kinematics, profile, start, far, by):
    """An arm that was pushed away through a stop: on its way to it the command keeps to the limits of joints and tip."""
    pushed = start + np.array(far)
    if by == "settled":
        assert stopped.settle(at(pushed, 0.8), 0.8) and stopped.settle(at(pushed, 0.9), 0.9)
    stopped.resume()
    if by == "reset":
        stopped.stop("a test", at(pushed, 0.8), 0.8)
        assert stopped.reset(0.8 + GuardConfig.reset_cooldown_s, at(pushed, 0.8 + GuardConfig.reset_cooldown_s)).ok
    now_s = 2.0
    assert by != "started afresh" or stopped.start_afresh(now_s, at(pushed, now_s)).ok
    if by == "reset":
        assert stopped.start_afresh(now_s, at(pushed, now_s)).ok
    left, adopted = Controller(start, 0.0), stopped.adopt(at(pushed, now_s), now_s)
    assert adopted.times_s[-1] > now_s + ADOPT_S
    before = left.points
    left.receive(adopted, now_s)
    used = Judge("ur5e", kinematics).use(before, left.points)
    assert broken({name: value for name, value in used.items() if name != "workspace"}) == [], "the arm was put where it is"
    stopped.settle(at(pushed, 90.0), 90.0)
    assert stopped.adopt(at(pushed, 91.0), 91.0).times_s[-1] == pytest.approx(91.0 + ADOPT_S), "it is there by now"


def test_a_stop_sends_nothing_where_the_controller_is_known_to_rest(stopped, start):
    """An arm that was held off its command and is let go moves; a command from where it is measured would be a leap."""
    pushed = start + 0.2 * np.eye(6)[0]
    assert stopped.settle(at(pushed, 0.8), 0.8)
    moving = RobotState(0.9, pushed, -0.15 * np.eye(6)[0])
    assert stopped.stop("operator", moving, 0.9) is None and stopped.stopped and stopped.in_force is None


def test_who_puts_arm_and_controller_elsewhere_is_believed(stopped, start):
    """A new simulated scene has its controller where its arm is."""
    pushed = start + np.array([0.0, 0.0, 0.9, 0.0, 0.0, 0.0])
    stopped.resume()
    assert stopped.start_afresh(0.8, at(pushed, 0.8)).ok
    stopped.forget_command()
    assert stopped.adopt(at(pushed, 0.9), 0.9).times_s[-1] == pytest.approx(0.9 + ADOPT_S)


def test_an_arm_that_gives_way_is_followed_once_the_command_is_there(guard, start):
    """Until then its command is on the way to it anyway."""
    guard.adopt(at(start, NOW_S), NOW_S)
    sagged = start + 2 * GuardConfig.obstructed_rad
    for now_s, reliefs in ((1.2, 0), (1.9, 0), (2.01, 1)):
        guard.relieve(at(sagged, now_s), now_s)
        assert guard.reliefs == reliefs, f"at {now_s} s"
    assert guard.in_force.q[-1] == pytest.approx(sagged)
