"""The bare arm does what its controller is told, and its judge sees what is illegal."""

from __future__ import annotations

from dataclasses import replace
from time import process_time

import mujoco
import numpy as np
import pytest

from foresight.control.trajectory import sample
from foresight.data import Trajectory
from foresight.robots.model import NoModelError
from foresight.robots.profile import RobotProfile, load_profile
from sim.arm import REST_RAD_S, STEP_S, ArmSimulation
from tests.motions import minimum_jerk

ROBOTS = ("fr3", "panda", "so101", "ur5e")


@pytest.fixture(scope="module", params=ROBOTS)
def arm(request) -> ArmSimulation:
    return ArmSimulation(load_profile(request.param))


@pytest.fixture(autouse=True)
def at_home(request):
    """Each test begins with the arm at rest at home."""
    if "arm" in request.fixturenames:
        simulation = request.getfixturevalue("arm")
        simulation.reset(simulation.profile.home)


def kinds(arm: ArmSimulation) -> set[str]:
    return {v.kind for v in arm.violations}


def move(arm: ArmSimulation, way: np.ndarray, duration_s: float, start_s: float = 0.1) -> Trajectory:
    """Sends the arm along a minimum-jerk motion and lets it happen."""
    trajectory = minimum_jerk(arm.state().q, way, start_s, duration_s, points=25)
    assert arm.command(trajectory)
    arm.advance(start_s + duration_s + 0.3)
    return trajectory


def gentle(profile: RobotProfile, seed: int = 0) -> np.ndarray:
    """A way [rad] that in a second stays well below the speed limits."""
    return np.random.default_rng(seed).choice([-0.08, 0.08], len(profile.home))


@pytest.mark.parametrize("seed", range(3))
def test_follows_a_minimum_jerk_trajectory(arm, seed):
    """Along a legal motion and after it the true joints are within 0.02 rad of the command, and nothing is broken."""
    trajectory = minimum_jerk(arm.profile.home, gentle(arm.profile, seed), 0.1, 1.0, points=25)
    assert arm.command(trajectory)
    errors = []
    while arm.time_s < 1.5:
        arm.advance(STEP_S)
        errors.append(np.abs(arm.state().q - sample(trajectory, arm.time_s)[0]).max())
    assert max(errors) < 0.02 and errors[-1] < 0.003
    assert arm.violations == []


def test_the_arm_holds_still_when_nothing_is_commanded(arm):
    """Gravity does not move an arm that holds, and the judge has nothing to say about it."""
    arm.advance(1.0)
    assert np.abs(arm.state().q - arm.profile.home).max() < 1e-3
    assert arm.violations == [] and arm.moved_s == 0.0


def test_the_judge_knows_when_the_arm_came_to_rest(arm):
    """The last moment of motion is the end of the trajectory, within 50 ms."""
    move(arm, gentle(arm.profile), 1.0)
    assert 1.0 < arm.moved_s < 1.15 and np.abs(arm.state().dq).max() < REST_RAD_S


def test_a_trajectory_wholly_in_the_past_is_not_taken(arm):
    """The controller ignores what is over, and the arm stays."""
    arm.advance(1.0)
    assert not arm.command(minimum_jerk(arm.profile.home, gentle(arm.profile), 0.0, 0.5))
    arm.advance(0.5)
    assert np.abs(arm.state().q - arm.profile.home).max() < 1e-3


def test_too_fast_a_joint_is_counted_by_name(arm):
    """A joint beyond the cap is a violation that names it, its speed and the limit; it is counted once while it lasts."""
    way = np.zeros(len(arm.profile.home))
    way[-1] = 0.5
    move(arm, way, 0.6)  # 1.56 rad/s at its fastest
    found = [v for v in arm.violations if v.kind == "joint speed"]
    assert [v.what for v in found] == [arm.profile.joint_names[-1]]
    assert found[0].value > found[0].allowed == 0.8 and arm.profile.joint_names[-1] in str(found[0])


def test_too_fast_a_tip_is_counted(arm):
    """Turning the whole arm by its first joint breaks the tip's limit where no joint breaks its own."""
    simulation = ArmSimulation(replace(arm.profile, joint_speed_max=2.0, tip_speed_max=0.1))
    way = np.zeros(len(arm.profile.home))
    way[0] = 0.6
    move(simulation, way, 0.8)
    assert kinds(simulation) == {"tip speed"}


def test_a_joint_beyond_its_limit_is_counted(arm):
    """The mechanical stops lie beyond the profile's limits, so a joint that crosses one is seen to."""
    profile = arm.profile
    begin = profile.home.copy()
    begin[-1] = profile.position_max[-1] - 0.05
    arm.reset(begin)
    way = np.zeros(len(begin))
    way[-1] = 0.1
    move(arm, way, 1.0)
    assert ("joint position", profile.joint_names[-1]) in {(v.kind, v.what) for v in arm.violations}
    assert arm.state().q[-1] > profile.position_max[-1] + 0.02


def test_pressing_on_the_table_is_counted(arm):
    """Bending down onto the table is a contact with it, in the judge's words with the body that touches."""
    down = {"fr3": (1, 0.5), "panda": (1, 0.5), "so101": (1, 1.4), "ur5e": (1, 0.6)}
    joint, angle = down[arm.profile.name]
    way = np.zeros(len(arm.profile.home))
    way[joint] = angle
    move(arm, way, 1.5)
    assert "contact" in kinds(arm)
    assert any("world" in v.what for v in arm.violations if v.kind == "contact")


def test_without_a_table_there_is_none_to_touch():
    """The same motion in free air touches nothing."""
    arm = ArmSimulation(load_profile("fr3"), table=False)
    way = np.zeros(7)
    way[1] = 0.5
    move(arm, way, 1.5)
    assert "contact" not in kinds(arm)


def test_the_arm_touching_itself_is_counted():
    """The SO-101 folded back upon its own base is a contact between two of its bodies."""
    profile = load_profile("so101")
    arm = ArmSimulation(profile, table=False)
    move(arm, np.array([0.0, -1.0, 1.0, 0.7, 0.0]), 2.0)
    touching = [v.what for v in arm.violations if v.kind == "contact"]
    assert touching and not any("world" in w for w in touching), arm.state().q


def test_near_an_end_the_fr3_is_judged_by_its_own_law():
    """A speed that is legal in mid-range is a violation near the joint's end, although far below velocity_max."""
    profile = load_profile("fr3")
    for end, counted in ((profile.position_max[6] - 0.002, True), (1.0, False)):
        begin = profile.home.copy()
        begin[6] = end - 0.05
        arm = ArmSimulation(profile, begin)
        way = np.zeros(7)
        way[6] = 0.05
        move(arm, way, 0.15)  # 0.63 rad/s at its fastest
        assert [(v.kind, v.what) for v in arm.violations] == ([("joint speed", "fr3_joint7")] if counted else [])
        assert not counted or arm.violations[0].allowed < 0.6


def test_the_judge_agrees_with_an_independent_reading(arm):
    """The tip's true speed is that of its place in MuJoCo's own kinematics, differenced."""
    arm.command(minimum_jerk(arm.profile.home, gentle(arm.profile), 0.0, 1.0, points=25))
    arm.advance(0.5)
    site = arm.model.site(arm.profile.model.gripper_prefix + arm.profile.model.tip_site).id
    data = mujoco.MjData(arm.model)
    places = []
    for sign in (-1, 1):
        data.qpos[:] = arm.state().q + sign * 1e-6 * arm.state().dq
        mujoco.mj_forward(arm.model, data)
        places.append(data.site_xpos[site].copy())
    assert arm.tip_speed() == pytest.approx(np.linalg.norm(places[1] - places[0]) / 2e-6, rel=1e-4)


def test_same_commands_same_motion(arm):
    """The arm is deterministic: told the same, it does the same to the last bit."""
    ends = []
    for _ in range(2):
        arm.reset(arm.profile.home)
        move(arm, gentle(arm.profile), 0.5)
        ends.append((arm.state().q, arm.state().dq, len(arm.violations)))
    assert all(np.array_equal(a, b) for a, b in zip(*ends, strict=True))


def test_time_may_begin_anywhere():
    """Started at a wall clock's time, the arm follows trajectories of that time."""
    profile, start_s = load_profile("ur5e"), 1.7e9
    arm = ArmSimulation(profile, start_s=start_s)
    assert arm.command(minimum_jerk(profile.home, gentle(profile), start_s + 0.1, 1.0, points=25))
    arm.advance(1.5)
    assert arm.time_s == pytest.approx(start_s + 1.5, abs=1e-3)
    assert np.abs(arm.state().q - profile.home - gentle(profile)).max() < 0.003


def test_a_robot_without_a_model_is_refused():
    """There is nothing to simulate for a profile with limits only, and that is said."""
    with pytest.raises(NoModelError, match="'xarm7' has no model"):
        ArmSimulation(load_profile("xarm7"))


def test_runs_at_five_times_real_time(arm):
    """A moving arm, judge included, takes of one core at most a fifth of the time it simulates (the best of five tries)."""
    best = np.inf
    for _ in range(5):
        arm.reset(arm.profile.home)
        arm.command(minimum_jerk(arm.profile.home, gentle(arm.profile), 0.0, 1.0, points=25))
        began = process_time()
        arm.advance(0.5)
        best = min(best, process_time() - began)
    assert best < 0.1
