"""A keep-out on the way to a goal: where it stands, that nobody sees or feels it, and that the judge does."""

from dataclasses import replace

import numpy as np
import pytest

from foresight.control.motion import joint_trajectory
from foresight.data import Plan
from foresight.robots.profile import load_profile
from foresight.robots.proximity import Proximity
from sim.simulation import FREE_M, Simulation

SEED = 10_300_000


@pytest.fixture(scope="module")
def watched():
    simulation = Simulation(0, load_profile("ur5e"), zone=True)
    yield simulation
    simulation.close()


def to_box(simulation: Simulation, box, tip) -> float:
    near = Proximity(simulation.profile, (box,))
    q = simulation.kinematics.solve(tip, simulation._rest)
    return float(near.distances(q, np.flatnonzero(near.obstacle == 0)).min())


@pytest.mark.parametrize("task", ["reach", "push", "push_object_goal"])
def test_the_keep_out_lies_on_the_straight_way_and_leaves_both_ends_free(watched, task):
    """The same seed gives the same box; by the core's own geometry the arm is free of it at the start and at the goal."""
    scenario = watched.reset(task, SEED)
    box, setting = scenario.keep_out, watched.setting
    reach = task == "reach"
    begin, end = (setting.tip, setting.goal_tip) if reach else (np.append(setting.cube, 0.02), np.append(setting.goal_cube, 0.02))
    on = begin + np.linspace(0, 1, 200)[:, None] * (end - begin)
    assert box.distance(on).min() < 0
    for tip in (setting.tip, setting.goal_tip):
        assert to_box(watched, box, tip) > FREE_M - 2e-3  # the simulated gripper's joints give a little
    again = watched.reset(task, SEED).keep_out
    np.testing.assert_array_equal(box.low, again.low)
    np.testing.assert_array_equal(box.high, again.high)


def test_an_arm_that_goes_straight_is_seen_inside_once_and_neither_touches_nor_breaks_anything(watched):
    """Counted where it begins, from true states; the keep-out is no body."""
    scenario = watched.reset("reach", SEED + 1)
    way = scenario.goal_tip - watched.setting.tip
    motion = None
    for _ in range(60):
        tip = watched.truth().tip
        left = scenario.goal_tip - tip
        velocity = left / max(np.linalg.norm(left), 1e-9) * min(0.15, 2 * np.linalg.norm(left))
        plan = Plan(watched.time_s, "", 0.1, np.tile(velocity, (12, 1)), 0.0, {}, 0.0, np.zeros((1, 1), np.float32), 1, 0.0, "")
        motion = joint_trajectory(plan, motion, watched.state(), watched.time_s, watched.kinematics, watched.profile)
        watched.command(motion)
        watched.advance(0.1)
    judgement = watched.judgement()
    assert np.linalg.norm(watched.truth().tip - scenario.goal_tip) < 0.03 < np.linalg.norm(way)
    assert judgement.entered == 1 and judgement.violations == 0


def test_nobody_sees_it(watched):
    """The same scene is rendered alike with the keep-out in it and in a simulation that has none, the cube beside the hand."""
    watched.reset("push", SEED)
    cube = watched.setting.cube
    setting = replace(watched.setting, tip=np.array([cube[0], cube[1] + 0.06, 0.03]))
    plain = Simulation(0, load_profile("ur5e"))
    pictures = []
    for simulation in (watched, plain):
        simulation.place(setting)
        pictures.append(simulation.images())
    plain.close()
    for name, image in pictures[1].items():
        np.testing.assert_array_equal(pictures[0][name], image)


def test_without_one_nothing_is_different():
    """A plain simulation has none, and its judge counts none."""
    plain = Simulation(0, load_profile("ur5e"))
    assert plain.reset("reach", SEED).keep_out is None and plain.judgement().entered == 0
    plain.close()
