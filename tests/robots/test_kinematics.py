"""Kinematics agree with the robot's full MuJoCo model and with themselves."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.model import robot_spec

SEEDS = range(5)


def near_home(profile, seed: int) -> np.ndarray:
    return profile.home + np.random.default_rng(seed).uniform(-0.4, 0.4, len(profile.home))


@pytest.fixture(scope="module")
def full_model(profile) -> mujoco.MjModel:
    return robot_spec(profile).compile()


@pytest.mark.parametrize("seed", SEEDS)
def test_tip_is_the_site_of_the_full_model(profile, kinematics, full_model, seed):
    """The tip equals the tool centre point of the unreduced model, gripper fingers and all."""
    q, data = near_home(profile, seed), mujoco.MjData(full_model)
    for name, value in zip(profile.joint_names, q, strict=True):
        data.joint(name).qpos[0] = value
    mujoco.mj_kinematics(full_model, data)
    assert kinematics.tip(q) == pytest.approx(data.site(profile.model.gripper_prefix + profile.model.tip_site).xpos, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_jacobian_is_the_derivative_of_the_tip(profile, kinematics, seed):
    """Each column of the Jacobian is what a small turn of that joint does to the tip."""
    q, step = near_home(profile, seed), 1e-6
    differences = np.stack(
        [(kinematics.tip(q + step * e) - kinematics.tip(q - step * e)) / (2 * step) for e in np.eye(6)], axis=1
    )
    assert kinematics.jacobian(q)[:3] == pytest.approx(differences, abs=1e-7)
    dq = np.random.default_rng(seed).normal(size=6)
    assert kinematics.tip_velocity(q, dq) == pytest.approx(differences @ dq, abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_joint_velocity_inverts_tip_velocity(profile, kinematics, seed):
    """The joint velocity found for a tip velocity produces it, and does not turn the tool."""
    q, wanted = near_home(profile, seed), np.random.default_rng(seed).uniform(-0.2, 0.2, 3)
    twist = kinematics.jacobian(q) @ kinematics.joint_velocity(q, wanted)
    assert twist[:3] == pytest.approx(wanted, abs=2e-3) and twist[3:] == pytest.approx(np.zeros(3), abs=2e-3)


def test_tips_of_many_are_the_tips_of_each(profile, kinematics):
    """Many at once give what each gives alone, and none give none."""
    q = np.stack([near_home(profile, s) for s in SEEDS])
    assert np.array_equal(kinematics.tips(q), np.stack([kinematics.tip(row) for row in q]))
    assert kinematics.tips(np.zeros((0, 6))).shape == (0, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_solve_reaches_the_tip_with_the_tool_upright(profile, kinematics, seed):
    """Inverse kinematics puts the tip within a fifth of a millimetre of any point of the workspace near the start."""
    rng = np.random.default_rng(seed)
    target = kinematics.tip(profile.home) + rng.uniform(-0.05, 0.05, 3)
    q = kinematics.solve(target, profile.home)
    assert q is not None and np.linalg.norm(kinematics.tip(q) - target) <= 2.1e-4
    assert (q >= profile.position_min).all() and (q <= profile.position_max).all()


def test_solve_says_when_a_point_is_out_of_reach(profile, kinematics):
    """A point beyond the arm's length has no solution, and none is invented."""
    assert kinematics.solve(np.array([3.0, 0.0, 0.2]), profile.home) is None


def test_home_is_over_the_workspace(profile, kinematics):
    """At home the tip is in the workspace or a hand's breadth above it, from where the guard lets it down."""
    tip = kinematics.tip(profile.home)
    assert (
        (tip > profile.workspace_min).all()
        and (tip[:2] < profile.workspace_max[:2]).all()
        and tip[2] < profile.workspace_max[2] + 0.05
    )


def test_profile_of_other_joints_is_refused(profile):
    """A profile whose joint order is not the model's is refused, naming both."""
    names = profile.joint_names
    with pytest.raises(ValueError, match=r"profile lists joints .* its model has"):
        MujocoKinematics(replace(profile, joint_names=(names[1], names[0], *names[2:])))
