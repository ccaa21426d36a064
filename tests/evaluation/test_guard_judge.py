"""The judge of the guard's bench sees every kind of violation, by its own means, and none where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foresight.control.trajectory import derivatives, hold
from foresight.data import Trajectory
from foresight.evaluation.guard_judge import Controller, Judge, broken, read
from foresight.robots.profile import load_profile
from tests.motions import minimum_jerk

WAY = np.array([0.06, -0.03, 0.05, -0.02, 0.03, 0.04])


@pytest.fixture(scope="module")
def judge(kinematics) -> Judge:
    return Judge("ur5e", kinematics)


@pytest.fixture
def legal(start) -> Trajectory:
    return minimum_jerk(start, WAY, start_s=1.0)


def judged(judge: Judge, start: np.ndarray, motion: Trajectory) -> dict[str, float]:
    return judge.use(hold(start, 0.0), motion)


def one(size: float, joint: int = 5) -> np.ndarray:
    return size * (np.arange(6) == joint)


def test_legal_motion_breaks_nothing(judge, legal, start):
    """Of a legal motion each limit is taken in part, none wholly, whatever the controller's phase."""
    for phase_s in (0.0, 0.0003, 0.0019):
        used = judge.use(hold(start, 0.0), legal, phase_s)
        assert broken(used) == [] and {"tip_speed", "torque", "jerk"} <= used.keys()
        assert 0.1 < used["acceleration"] < 1 and 0.05 < used["tip_speed"] < 1


@pytest.mark.parametrize(
    ("limit", "way", "duration_s"),
    [
        ("velocity", one(0.45), 1.0),  # 0.84 rad/s, the cap is 0.8
        ("acceleration", one(0.14), 0.4),  # 5.05 rad/s^2
        ("tip_speed", one(0.35, 0), 1.0),
        ("workspace", one(0.9, 0), 4.0),
        ("jerk", one(0.02), 0.13),  # 546 rad/s^3
    ],
)
def test_each_limit_is_seen(judge, start, limit, way, duration_s):
    """A motion that breaks one limit by little is reported under that limit."""
    motion = minimum_jerk(start, way, start_s=1.0, duration_s=duration_s, points=40)
    assert any(line.startswith(limit) for line in broken(judged(judge, start, motion)))


def test_a_stop_may_leave_the_workspace_by_little(judge, start):
    """By millimetres, which are a violation of a plan; not by a centimetre."""
    tip = judge.kinematics.tip(start)
    for room_m, stops in ((-3e-3, True), (-1e-2, False)):
        boxed = Judge("ur5e", judge.kinematics)
        turn = minimum_jerk(start, one(0.05, 0), start_s=1.0, duration_s=1.0)
        furthest = judge.kinematics.tip(turn.q[-1])[1]
        boxed.limits = {**boxed.limits, "workspace_max": np.array([9.0, furthest + room_m, 9.0])}
        assert tip[1] < furthest + room_m
        assert broken(boxed.use(hold(start, 0.0), turn)) and (broken(boxed.use(hold(start, 0.0), turn, stop=True)) == []) == stops


def test_steps_at_the_joint_are_seen(judge, legal, start):
    """A step in position, velocity or acceleration from what was executed before breaks a limit, however small the motion."""
    for changes in ({"q": legal.q + 0.005}, {"dq": legal.dq + 0.02}, {"ddq": legal.ddq + 1.5}):
        assert broken(judged(judge, start, replace(legal, **changes)))


def test_joint_ends_and_torques_are_seen(judge, start, legal):
    """What goes beyond a joint's range, or asks a motor for more than it has, is reported."""
    far = minimum_jerk(start, one(0.2), start_s=1.0, duration_s=1.0)
    near = Judge("ur5e", judge.kinematics)
    near.limits = {**near.limits, "position_max": np.append(near.limits["position_max"][:5], start[5] + 0.19)}
    assert any(line.startswith("position") for line in broken(near.use(hold(start, 0.0), far)))
    weak = Judge("ur5e", judge.kinematics)
    weak.torque, weak.torque_rate = np.full(6, 20.0), np.full(6, 5.0)
    lines = " ".join(broken(weak.use(hold(start, 0.0), legal)))
    assert "torque " in lines and "torque_rate" in lines


def test_what_does_not_rest_or_is_no_number_is_seen(judge, legal, start):
    """A motion cut off before its stop, and one with a NaN, are violations, never passes."""
    cut = Trajectory(legal.times_s[:6], legal.q[:6], legal.dq[:6], legal.ddq[:6])
    assert any(line.startswith("rest") for line in broken(judged(judge, start, cut)))
    sick = legal.q.copy()
    sick[4, 2] = np.nan
    assert broken(judged(judge, start, replace(legal, q=sick)))


def test_position_dependent_velocity_is_judged_by_the_law():
    """On the FR3 the limit towards a joint's end is the law's, not the greatest."""
    judge, profile = Judge("fr3", None), load_profile("fr3")
    begin = profile.home.copy()
    begin[0] = profile.position_max[0] - 0.06  # upwards the law leaves less than 0.6 rad/s here
    way = np.append(0.05, np.zeros(6))
    before = hold(begin, 0.0)
    assert broken(judge.use(before, minimum_jerk(begin, way, start_s=1.0, duration_s=2.0, points=30))) == []
    lines = broken(judge.use(before, minimum_jerk(begin, way, start_s=1.0, duration_s=0.22, points=30)))
    assert any(line.startswith("velocity") for line in lines)
    assert not any(line.startswith("velocity") for line in broken(judge.use(hold(begin - 1, 0.0), minimum_jerk(
        begin - 1, way, start_s=1.0, duration_s=0.22, points=30))))  # fmt: skip


def test_the_judge_reads_points_as_the_core_does():
    """Two independent readings of quintic points agree to rounding."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.1, 12))
    points = Trajectory(times, *rng.normal(size=(3, 12, 6)))
    at = rng.uniform(times[0], times[-1], 200)
    for ours, theirs, size in zip(read(points, at), derivatives(points, at)[:3], (1e-9, 1e-7, 1e-4), strict=True):
        assert np.abs(ours - theirs).max() < size


def test_the_controller_goes_straight_to_the_first_point_ahead(start):
    """Of a message that begins in the past only the points that lie ahead count; one wholly past changes nothing."""
    controller, motion = Controller(start, 0.0), minimum_jerk(start, WAY, start_s=0.0, duration_s=1.0, points=11)
    controller.receive(motion, 0.25)
    assert controller.points.times_s[:2] == pytest.approx([0.25, 0.3]) and controller.points.q[0] == pytest.approx(start)
    kept = controller.points
    controller.receive(motion, 2.0)
    assert controller.points is kept
