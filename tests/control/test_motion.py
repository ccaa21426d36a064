"""A plan of the tip becomes a joint trajectory that joins the motion in force, follows the plan, and ends at rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foresight.control.motion import KEPT_S, joint_trajectory, start_of
from foresight.control.trajectory import derivatives, hold, sample
from foresight.data import RobotState, Start
from tests.motions import STEP_S, drive, extremes, plan_towards


@pytest.fixture(scope="module")
def rounds(profile, kinematics):
    """Planning rounds of one drive at full speed."""
    return list(drive(1, 32, profile, kinematics))


def test_motion_joins_what_is_in_force(rounds):
    """Position, velocity and acceleration at the joint are those commanded before."""
    for made in rounds:
        q, dq, ddq, _ = derivatives(made.in_force, made.join_s)
        assert made.trajectory.ddq[0] == pytest.approx(ddq, abs=1e-6)
        assert made.trajectory.times_s[0] == made.join_s
        assert made.trajectory.q[0] == pytest.approx(q, abs=1e-9) and made.trajectory.dq[0] == pytest.approx(dq, abs=1e-9)


def test_motion_ends_at_rest_within_limits(rounds, profile):
    """Every trajectory stops by itself and keeps the joint limits at every instant."""
    for made in rounds:
        assert (made.trajectory.dq[-1] == 0).all()
        low, high, speed, acceleration = extremes(made.trajectory)
        assert (low >= profile.position_min).all() and (high <= profile.position_max).all()
        assert (speed <= profile.velocity_max).all() and (acceleration <= 1.001 * profile.acceleration_max).all()


def test_tip_follows_the_plan(profile, kinematics, start):
    """From rest, the tip keeps within 3 mm of the planned path until the plan's kept part ends."""
    for seed in range(6):
        start_s, begin = 0.0, kinematics.tip(start)
        target = np.random.default_rng(seed).uniform(profile.workspace_min + 0.04, profile.workspace_max - 0.04)
        plan = plan_towards(target, begin, Start(np.zeros(3)), start_s)
        motion = joint_trajectory(
            plan, hold(start, start_s), RobotState(start_s, start, np.zeros(6)), start_s, kinematics, profile
        )
        velocity = np.vstack([np.zeros(3), plan.tip_velocity])
        knots = np.vstack([begin, begin + np.cumsum(STEP_S * (velocity[1:] + velocity[:-1]) / 2, axis=0)])
        for time_s in np.linspace(0, KEPT_S, 31):
            i = min(int(time_s / STEP_S + 1e-9), len(plan.tip_velocity) - 1)
            t = time_s - i * STEP_S
            wanted = knots[i] + velocity[i] * t + (velocity[i + 1] - velocity[i]) * t**2 / (2 * STEP_S)
            assert np.linalg.norm(kinematics.tip(sample(motion, start_s + time_s)[0]) - wanted) < 3e-3


def test_motion_without_one_in_force_starts_at_the_measured_position(profile, kinematics, start):
    """The first motion starts at rest where the arm is measured."""
    q = start + np.array([0.1, 0, 0, 0, 0, 0.1])
    plan = plan_towards(kinematics.tip(q) + 0.1, kinematics.tip(q), Start(np.zeros(3)), 0.0)
    motion = joint_trajectory(plan, None, RobotState(0.0, q, np.zeros(6)), 0.05, kinematics, profile)
    assert np.array_equal(motion.q[0], q) and (motion.dq[0] == 0).all()
    assert np.abs(motion.q[-1] - q).max() > 1e-3


def test_plan_out_of_reach_or_too_fast_is_slowed_or_stopped(profile, kinematics, start):
    """A plan that no arm could follow still gives a motion within the limits that ends at rest."""
    plan = plan_towards(np.array([0.5, 0.0, 0.1]), kinematics.tip(start), Start(np.zeros(3)), 0.0)
    for velocity in (np.tile([2.0, 0.0, 0.0], (9, 1)), np.tile([60.0, 0.0, 0.0], (9, 1))):
        wild = replace(plan, tip_velocity=velocity)
        motion = joint_trajectory(wild, hold(start, 0.0), RobotState(0.0, start, np.zeros(6)), 0.05, kinematics, profile)
        _, _, speed, acceleration = extremes(motion)
        assert (
            (motion.dq[-1] == 0).all()
            and (speed <= profile.velocity_max).all()
            and (acceleration <= 1.001 * profile.acceleration_max).all()
        )


def test_start_is_what_is_already_commanded(rounds, kinematics):
    """A plan starts with the tip velocity in force at the observation, and the velocities up to the joint are committed."""
    made = rounds[-1]
    stamp_s = made.plan.stamp_s
    start = start_of(made.in_force, stamp_s, made.join_s, STEP_S, kinematics)
    h = 1e-5
    for velocity, time_s in ((start.velocity, stamp_s), (start.committed[0], stamp_s + STEP_S)):
        tips = [kinematics.tip(sample(made.in_force, time_s + d)[0]) for d in (-h, h)]
        assert velocity == pytest.approx((tips[1] - tips[0]) / (2 * h), abs=1e-4)
    assert start.committed.shape == (1, 3)
    standing = start_of(None, stamp_s, made.join_s, STEP_S, kinematics)  # until the join: nothing else is in force
    assert standing.committed.shape == start.committed.shape
    assert (standing.velocity == 0).all() and (standing.committed == 0).all()


@pytest.mark.parametrize("tilt_rad", [0.003, 0.02, 0.1])
def test_tilted_tool_does_not_keep_the_arm_from_moving(profile, kinematics, start, tilt_rad):
    """An arm whose tool is not quite upright moves all the same, and rights it on the way."""
    q = start + np.array([0, 0, 0, tilt_rad, 0, 0])
    begin = kinematics.tip(q)
    plan = plan_towards(begin + np.array([0.1, 0.0, 0.0]), begin, Start(np.zeros(3)), 0.0)
    motion = joint_trajectory(plan, None, RobotState(0.0, q, np.zeros(6)), 0.05, kinematics, profile)
    assert kinematics.tip(motion.q[-1])[0] - begin[0] > 5e-3
