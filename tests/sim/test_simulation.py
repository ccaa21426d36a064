"""The simulated arm offers what a real one does; its judge tells the truth."""

import numpy as np
import pytest

from foresight.control.motion import joint_trajectory
from foresight.data import Plan, Trajectory
from sim import scenes
from sim.simulation import Simulation
from sim.tasks import CUBE_MAX, CUBE_MIN, Setting, draw


@pytest.fixture(scope="module")
def simulation():
    from foresight.robots.profile import load_profile

    simulation = Simulation(0, load_profile("ur5e"))
    yield simulation
    simulation.close()


def still(tip=(0.45, 0.0, 0.15), cube=(0.5, 0.15), task="reach", goal_tip=(0.45, 0.1, 0.15), goal_cube=(0.5, 0.15)) -> Setting:
    return Setting(task, np.array(tip), np.array(cube), 0.0, np.array(goal_tip), np.array(goal_cube))


def drive(simulation, velocity, steps):
    """Follows a tip velocity [m/s] for some steps of 0.1 s, through the same control as in operation."""
    in_force = None
    for _ in range(steps):
        now = simulation.time_s
        plan = Plan(now, "", 0.1, np.tile(velocity, (3, 1)).astype(float), 0.0, {}, 0.0, np.zeros((1, 1), np.float32), 1, 0.0, "")
        in_force = joint_trajectory(plan, in_force, simulation.state(), now, simulation.kinematics, simulation.profile)
        simulation.command(in_force)
        simulation.advance(0.1)


@pytest.mark.parametrize("task", ["reach", "push", "push_object_goal"])
def test_the_same_seed_gives_the_same_episode(simulation, task):
    """Scene, goal and pictures repeat; another seed gives another scene."""
    first = simulation.reset(task, 5)
    images, q = simulation.images(), simulation.state().q
    other = simulation.reset(task, 6)
    again = simulation.reset(task, 5)
    np.testing.assert_array_equal(again.goal_images["front"], first.goal_images["front"])
    np.testing.assert_array_equal(simulation.images()["wrist"], images["wrist"])
    np.testing.assert_array_equal(simulation.state().q, q)
    assert not np.array_equal(other.goal_images["front"], first.goal_images["front"])


def test_time_goes_on_through_a_reset(simulation):
    """A reset starts a new episode, not a new clock."""
    simulation.advance(0.2)
    before = simulation.time_s
    simulation.reset("reach", 1)
    assert simulation.time_s == pytest.approx(before)


def test_goal_images_show_the_goal(simulation):
    """Putting arm and cube at the goal gives the goal's picture."""
    scenario = simulation.reset("push", 3)
    setting = simulation.setting
    simulation.place(Setting("push", setting.goal_tip, setting.goal_cube, setting.cube_yaw, setting.goal_tip, setting.goal_cube))
    difference = np.abs(simulation.images()["front"].astype(int) - scenario.goal_images["front"])
    assert (difference > 8).mean() < 0.01


@pytest.mark.parametrize("shift", ["colour", "camera"])
def test_shifts_change_the_picture_and_nothing_else(simulation, shift):
    """Same joints and cube, other pixels."""
    simulation.reset("push", 4)
    plain, q, cube = simulation.images()["front"], simulation.state().q, simulation.truth().object
    simulation.reset("push", 4, shift)
    assert (np.abs(simulation.images()["front"].astype(int) - plain) > 8).mean() > 0.02
    np.testing.assert_array_equal(simulation.state().q, q)
    np.testing.assert_array_equal(simulation.truth().object, cube)
    if shift == "camera":
        assert np.linalg.norm(simulation.appearance.front_offset) == pytest.approx(0.03)


def test_the_arm_follows_its_trajectory(simulation):
    """After 0.6 s at 0.1 m/s and a brake the tip is where the command is, within 2 mm."""
    simulation.place(still())
    start = simulation.truth().tip
    drive(simulation, [0.0, 0.1, 0.0], 6)
    simulation.advance(0.8)
    commanded = simulation.kinematics.tip(simulation._controller.setpoints(simulation.time_s)[0])
    assert np.linalg.norm(simulation.truth().tip - commanded) < 2e-3
    assert simulation.truth().tip[1] - start[1] > 0.05
    assert np.linalg.norm(simulation.truth().tip_velocity) < 1e-3
    assert simulation.judgement().violations == 0


def test_pushing_moves_the_cube(simulation):
    """Contact is physics: the cube is where the fingers pushed it."""
    simulation.place(still(tip=(0.45, 0.0, 0.03), cube=(0.45, 0.06), task="push", goal_cube=(0.45, 0.16)))
    drive(simulation, [0.0, 0.1, 0.0], 10)
    assert simulation.truth().object[1] > 0.09


def test_success_needs_rest_for_half_a_second(simulation):
    """Starting at the goal counts only after 0.5 s of stillness; passing through does not count."""
    simulation.place(still(goal_tip=(0.45, 0.0, 0.15)))
    simulation.advance(0.4)
    assert not simulation.judgement().success
    simulation.advance(0.3)
    assert simulation.judgement().success
    simulation.place(still(goal_tip=(0.45, 0.05, 0.15)))
    drive(simulation, [0.0, 0.2, 0.0], 8)
    assert not simulation.judgement().success


def test_violations_are_counted_from_true_states(simulation):
    """A command that nobody checked, down into the table and too fast, is seen by the judge."""
    simulation.place(still(tip=(0.45, 0.0, 0.08)))
    q = simulation.state().q
    down = simulation.kinematics.solve(np.array([0.45, 0.0, -0.02]), q)
    now = simulation.time_s
    simulation.command(Trajectory(np.array([now, now + 0.15]), np.array([q, down]), np.zeros((2, 6))))
    simulation.advance(0.6)
    assert simulation.judgement().violations >= 2
    assert simulation.judgement().violation_detail


def test_starts_are_unsolved_and_inside_the_workspace(profile):
    """Every drawn setting has its goal ahead of it and on the table."""
    for seed in range(200):
        for task in ("reach", "push", "push_object_goal"):
            s = draw(task, np.random.default_rng(seed))
            if task == "reach":
                assert np.linalg.norm(s.goal_tip - s.tip) > 0.08
            else:
                assert 0.08 <= np.linalg.norm(s.goal_cube - s.cube) <= 0.15
            for cube in (s.cube, s.goal_cube):
                assert (cube >= CUBE_MIN).all() and (cube <= CUBE_MAX).all()
            assert (s.goal_tip >= profile.workspace_min).all() and (s.goal_tip <= profile.workspace_max).all()


def test_intrinsics_agree_with_the_picture(simulation):
    """Projecting the cube with camera_info hits its red pixels."""
    simulation.place(still(tip=(0.35, -0.2, 0.2), cube=(0.5, 0.1)))
    k, width, height = simulation.camera_info("front")
    camera = simulation.model.camera("front").id
    rotation = simulation.data.cam_xmat[camera].reshape(3, 3)
    at = rotation.T @ (simulation.truth().object - simulation.data.cam_xpos[camera])
    x, y, z = k @ np.array([at[0], -at[1], -at[2]])  # MuJoCo cameras look along -z with y up, optical frames along z with y down
    pixel = simulation.images()["front"][int(y / z), int(x / z)].astype(int)
    assert (width, height) == (scenes.IMAGE_SIZE, scenes.IMAGE_SIZE)
    assert pixel[0] > 2 * pixel[2]
