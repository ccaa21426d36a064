"""Plans keep a distance from singularities, at every knot and along their stop; it is published with the plan."""

import mujoco
import numpy as np
import pytest
import torch

from foresight.control.motion import start_of
from foresight.control.trajectory import sample
from foresight.data import Goal, Plan, Reason, RobotState
from foresight.planning.config import PlannerConfig
from foresight.planning.constraints import DEXTERITY_MIN, Constraints, Juncture, NoPlan
from foresight.planning.planner import Planner
from foresight.planning.singularity import dexterity
from tests.planning.arm import drive
from tests.planning.toy import ToyModel, belief_at

HERE, FAR = np.array([0.55, 0.1, 0.15]), np.array([0.71, 0.35, 0.29])  # the arm's worst place in its workspace


def moved(kinematics, q, step=1e-6) -> np.ndarray:
    """The tip's Jacobian by differences, with turns at half a metre: worked out without Jacobians."""
    columns = []
    for joint in np.eye(6) * step:
        turn, before, after = np.zeros(3), np.zeros(4), np.zeros(4)
        mujoco.mju_mat2Quat(before, kinematics.rotation(q - joint).ravel())
        mujoco.mju_mat2Quat(after, kinematics.rotation(q + joint).ravel())
        mujoco.mju_subQuat(turn, after, before)
        columns.append(np.concatenate([kinematics.tip(q + joint) - kinematics.tip(q - joint), 0.5 * turn]) / (2 * step))
    return np.array(columns).T


def test_it_is_the_least_way_of_the_tool_for_a_radian_of_the_joints(profile, kinematics):
    """By differences at places at random; and 0 with a straight wrist."""
    q = profile.home + np.random.default_rng(0).uniform(-0.4, 0.4, (5, 6))
    expected = [np.linalg.svd(moved(kinematics, row), compute_uv=False)[-1] for row in q]
    np.testing.assert_allclose(dexterity(kinematics, q), expected, atol=1e-4)
    straight = np.array([*profile.home[:4], 0.0, profile.home[5]])
    assert dexterity(kinematics, straight[None])[0] < 1e-9


def test_plans_keep_the_distance_at_every_knot_and_along_the_stop_and_say_what_is_left(profile, kinematics):
    """With more asked for than the goal has, the arm goes as far as it may; without, it goes there."""
    strict = Constraints(profile, kinematics, dexterity_min=0.09)
    start = kinematics.solve(HERE, profile.home)
    assert dexterity(kinematics, start[None])[0] > 0.1
    least, plans = np.inf, 0
    try:
        for plan, _ in drive(Planner(ToyModel(profile), profile), strict, HERE, Goal(tip=FAR), 25):
            motion = plan.trajectory
            times = np.union1d(np.arange(motion.times_s[0], motion.times_s[-1], 0.01), motion.times_s)
            found = dexterity(kinematics, sample(motion, times)[0]).min()
            least, plans = min(least, found), plans + 1
            assert plan.singular_margin == pytest.approx(found - 0.09, abs=1e-3)
    except NoPlan as none:
        assert none.reason is Reason.SINGULAR
    assert plans > 5 and 0.09 - 1e-4 <= least < 0.105
    *_, (free, motion) = drive(Planner(ToyModel(profile), profile), Constraints(profile, kinematics), HERE, Goal(tip=FAR), 35)
    assert np.linalg.norm(kinematics.tip(motion.q[-1]) - FAR) < 0.03 and 0 < free.singular_margin < 0.06


def test_no_plan_where_all_that_the_arm_can_do_comes_too_near(profile, kinematics):
    """In motion towards less than is asked for; the reason is typed, the sentence has both numbers."""
    free, planner = Constraints(profile, kinematics), Planner(ToyModel(profile), profile, PlannerConfig())
    *_, (_, motion) = drive(planner, free, HERE, Goal(tip=FAR), 6)
    now_s = 10.5
    q, dq = sample(motion, now_s)
    here = float(dexterity(kinematics, q[None])[0])
    strict = Constraints(profile, kinematics, dexterity_min=here)
    juncture, start = Juncture(strict, motion, RobotState(now_s, q, dq), now_s), start_of(motion, now_s, now_s, 0.1, kinematics)
    with pytest.raises(NoPlan, match=r"singularity.*m/rad") as none:
        belief = belief_at(kinematics.tip(q), kinematics.tip_velocity(q, dq), now_s)
        planner.plan(belief, Goal(tip=FAR), start, torch.Generator(), lambda: 0.0, None, juncture)
    assert none.value.reason is Reason.SINGULAR


@pytest.mark.parametrize("least", [float("nan"), float("inf"), -0.1])
def test_a_distance_that_is_none_is_refused(profile, kinematics, least):
    """The name and the value stand in the message."""
    with pytest.raises(ValueError, match=r"dexterity_min.*got"):
        Constraints(profile, kinematics, dexterity_min=least)


def test_a_goal_keeps_it_and_plans_that_nobody_examined_have_none(profile, kinematics):
    """What a goal adds leaves it as it is."""
    assert Constraints(profile, kinematics, dexterity_min=0.07).of(Goal(tip=HERE, tip_speed_max=0.1)).dexterity_min == 0.07
    assert Constraints(profile, kinematics).dexterity_min == DEXTERITY_MIN
    nothing = np.zeros((4, 3), np.float32)
    assert np.isnan(Plan(0.0, "toy", 0.1, np.zeros((12, 3)), 0.0, {}, 1.0, nothing, 1, 0.0, "stay").singular_margin)
