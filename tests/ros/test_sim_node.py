"""The simulator as a ROS node looks like a robot with a joint trajectory controller and cameras, and keeps time by itself."""

from __future__ import annotations

import time

import numpy as np
import pytest
from foresight_msgs.srv import Inject, ResetSimulation, Step
from foresight_nodes import convert, topics
from foresight_nodes.sim_node import SimNode
from rclpy.lifecycle import TransitionCallbackReturn
from std_srvs.srv import SetBool

from foresight.data import Trajectory
from foresight.robots.profile import load_profile
from sim.simulation import Simulation
from sim.tasks import TIME_LIMIT_S
from tests.motions import minimum_jerk
from tests.ros.conftest import Somebody, parameters

CONTROLLER = topics.trajectory("joint_trajectory_controller/joint_trajectory")


class Simulated(Somebody):
    """An active simulator in simulated time, and somebody who listens and calls."""

    def __init__(self) -> None:
        self.sim = SimNode(parameter_overrides=parameters(use_sim_time=True, robot="ur5e", seed=3))
        super().__init__("listener")
        for node in (self.sim, self.node):
            self.executor.add_node(node)
        self.states, self.truth, self.clock = (self.listen(t) for t in (topics.JOINT_STATES, topics.SIM_STATE, topics.CLOCK))
        self.images, self.infos = self.listen(topics.image("front")), self.listen(topics.camera_info("wrist"))
        assert self.sim.trigger_configure() is TransitionCallbackReturn.SUCCESS
        assert self.sim.trigger_activate() is TransitionCallbackReturn.SUCCESS
        self.until(lambda: self.states and self.truth and self.clock and self.images and self.infos, "all messages arrive")

    def call(self, service: topics.Service, request):
        client = self.node.create_client(service.type, f"sim/{service.name.removeprefix('~/')}")
        self.until(client.service_is_ready, "the service is there")
        answer = client.call_async(request)
        self.until(answer.done, "the service answers")
        return answer.result()

    def pause(self, paused: bool = True) -> None:
        assert self.call(topics.SIM_PAUSE, SetBool.Request(data=paused)).success


@pytest.fixture(scope="module")
def simulated():
    simulated = Simulated()
    yield simulated
    simulated.sim.stop()
    simulated.sim.trigger_cleanup()
    simulated.executor.shutdown()
    for node in (simulated.sim, simulated.node):
        node.destroy_node()


def test_rates_are_those_of_a_robot(simulated: Simulated):
    """In simulated time: joint states at 125 Hz, frames at 30 Hz, the clock at 100 Hz, all stamped with it."""
    for heard in (simulated.states, simulated.images, simulated.clock):
        heard.clear()
    simulated.until(lambda: len(simulated.images) > 12, "frames arrive")
    periods = [np.diff([convert.seconds(m.header.stamp) for m in heard]) for heard in (simulated.states, simulated.images)]
    periods.append(np.diff([convert.seconds(m.clock) for m in simulated.clock]))
    assert [np.median(p) for p in periods] == pytest.approx([1 / 125, 1 / 30, 1 / 100], abs=1.1e-3)
    assert all((p > 0).all() for p in periods)


def test_frames_and_calibration_are_as_a_driver_sends_them(simulated: Simulated, profile):
    """rgb8 of the camera's size in its optical frame; names and order of the joints are the robot's, then the gripper's."""
    image = simulated.images[-1]
    assert convert.image_from_msg(image).std() > 10 and (image.encoding, image.header.frame_id) == ("rgb8", "front_optical_frame")
    info = simulated.infos[-1]
    assert (info.width, info.height) == (image.width, image.height) and info.k[0] == info.k[4] > 0
    assert tuple(simulated.states[-1].name) == (*profile.joint_names, profile.gripper.joint)


def test_it_follows_a_trajectory_while_time_goes_on(simulated: Simulated, profile):
    """A command on the controller's topic moves the measured joints; the judge counts it."""
    command = CONTROLLER.publisher(simulated.node)
    simulated.until(lambda: command.get_subscription_count() > 0, "the controller listens")
    begin = np.array(simulated.states[-1].position[:6])
    motion = minimum_jerk(begin, np.array([0.05, 0, 0, 0, 0, 0]), convert.seconds(simulated.states[-1].header.stamp) + 0.5)
    command.publish(convert.trajectory_to_msg(motion, profile.joint_names))
    simulated.until(lambda: convert.seconds(simulated.states[-1].header.stamp) > motion.times_s[-1] + 0.4, "the motion ends")
    assert simulated.states[-1].position[0] - begin[0] == pytest.approx(0.05, abs=5e-3)
    assert simulated.truth[-1].commands == 1 and simulated.truth[-1].violations == 0


def test_a_command_from_before_a_reset_is_not_followed(simulated: Simulated, profile):
    """It waits in the queue while the scene changes; followed, it would throw the arm to where it was before."""
    command = CONTROLLER.publisher(simulated.node)
    simulated.until(lambda: command.get_subscription_count() > 0, "the controller listens")
    begin, now_s = np.array(simulated.states[-1].position[:6]), convert.seconds(simulated.states[-1].header.stamp)
    motion = minimum_jerk(begin, np.array([0.05, 0, 0, 0, 0, 0]), now_s + 0.5)
    command.publish(convert.trajectory_to_msg(motion, profile.joint_names))
    answer = simulated.sim._on_reset(ResetSimulation.Request(task="reach", seed=6), ResetSimulation.Response())
    assert answer.ok
    simulated.until(lambda: convert.seconds(simulated.states[-1].header.stamp) > motion.times_s[-1] + 0.4, "its time passes")
    assert simulated.truth[-1].seed == 6 and simulated.truth[-1].commands == 0 and simulated.truth[-1].violations == 0
    assert np.abs(simulated.states[-1].velocity[:6]).max() < 0.01
    command.publish(convert.trajectory_to_msg(
        minimum_jerk(np.array(simulated.states[-1].position[:6]), np.array([0.02, 0, 0, 0, 0, 0]),
                     convert.seconds(simulated.states[-1].header.stamp) + 0.5),
        profile.joint_names,
    ))  # fmt: skip
    simulated.until(lambda: simulated.truth[-1].commands == 1, "one from after it is")


def test_reset_gives_a_goal_and_the_same_seed_the_same_one(simulated: Simulated):
    """One goal image per camera, where tip and object should be, and the time allowed."""
    first, again = (simulated.call(topics.SIM_RESET, ResetSimulation.Request(task="push", seed=5)) for _ in range(2))
    assert first.ok and [i.header.frame_id for i in first.goal_images] == ["front", "wrist"] and first.time_limit_s == 12.0
    assert len(first.keep_out) == 0
    assert first.goal_object == again.goal_object and first.goal_images[0].data == again.goal_images[0].data
    simulated.until(lambda: simulated.truth[-1].task == "push" and simulated.truth[-1].seed == 5, "the judge knows")
    assert convert.seconds(again.stamp) >= convert.seconds(first.stamp)  # the clock does not go back


def test_scenes_with_a_keep_out_say_where_it_is_and_allow_twice_the_time(monkeypatch):
    """The same box as in process, and the judge's count of the times the arm came into it is published."""
    node = SimNode(parameter_overrides=parameters(use_sim_time=True, robot="ur5e", keep_out=True))
    alone = Simulation(0, load_profile("ur5e"), zone=True)
    try:
        assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
        answer = node._on_reset(ResetSimulation.Request(task="reach", seed=10_300_000), ResetSimulation.Response())
        box = alone.reset("reach", 10_300_000).keep_out
        np.testing.assert_array_equal(np.array(answer.keep_out).reshape(2, 3), [box.low, box.high])
        published = []
        monkeypatch.setattr(node, "publish", lambda publisher, message: published.append(message))
        node._simulation._entered = 3
        node._publish_truth(1.0)
        assert answer.ok and answer.time_limit_s == 2 * TIME_LIMIT_S["reach"] and published[0].entered == 3
    finally:
        alone.close()
        node.stop()
        node.trigger_cleanup()
        node.destroy_node()


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"task": "juggle"}, "Available: reach, push"),
        ({"task": "reach", "shift": "dark"}, "Available: none, colour, camera"),
    ],
)
def test_an_unknown_task_or_shift_is_refused(simulated: Simulated, request_: dict, said: str):
    """With what there is instead."""
    answer = simulated.call(topics.SIM_RESET, ResetSimulation.Request(**request_))
    assert not answer.ok and said in answer.message


def test_the_gripper_follows_its_topic_and_a_reset_leaves_it_as_the_task_has_it(simulated: Simulated, profile):
    """Open at the begin of a pick, it closes when its command begins, and not on one from before the scene."""
    command = topics.trajectory(profile.gripper.controller_topic).publisher(simulated.node)
    simulated.until(lambda: command.get_subscription_count() > 0, "the gripper's controller listens")

    def now_s() -> float:
        return convert.seconds(simulated.states[-1].header.stamp)

    def close(begin_s: float) -> None:
        motion = Trajectory(begin_s + np.array([0.0, 0.1]), np.array([[0.0], [0.8]]), np.zeros((2, 1)))
        command.publish(convert.trajectory_to_msg(motion, (profile.gripper.joint,)))

    def until(time_s: float) -> None:
        simulated.until(lambda: now_s() > time_s, "time goes on")

    simulated.until(lambda: simulated.states, "joint states arrive")
    close(now_s() + 0.2)
    answer = simulated.sim._on_reset(ResetSimulation.Request(task="pick", seed=3), ResetSimulation.Response())
    assert answer.ok and answer.time_limit_s == TIME_LIMIT_S["pick"]
    until(convert.seconds(answer.stamp) + 0.6)
    assert simulated.states[-1].position[6] < 0.02 and simulated.truth[-1].task == "pick"
    begin_s = now_s() + 0.4
    close(begin_s)
    until(begin_s - 0.1)
    before = [m.position[6] for m in simulated.states if convert.seconds(m.header.stamp) < begin_s]
    assert max(before[-10:]) < 0.02
    until(begin_s + 0.8)
    assert simulated.states[-1].position[6] > 0.7
    assert simulated.truth[-1].commands == 0 and simulated.truth[-1].violations == 0


def test_objects_beside_the_cube_are_there_only_where_asked_for(simulated: Simulated):
    """Without them a scene among others is refused in words, and the scene stays as it was."""
    scene = simulated.sim._scenario
    answer = simulated.call(topics.SIM_RESET, ResetSimulation.Request(task="clutter", seed=1))
    assert not answer.ok and "needs 2 objects beside the cube, this simulation has 0. Start it with others:=2" in answer.message
    assert simulated.sim._scenario is scene
    node = SimNode(parameter_overrides=parameters(use_sim_time=True, robot="ur5e", others=2))
    try:
        assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
        for task in ("reach", "clutter"):
            assert node._on_reset(ResetSimulation.Request(task=task, seed=1), ResetSimulation.Response()).ok
    finally:
        node.stop()
        node.trigger_cleanup()
        node.destroy_node()


def test_pause_stops_time_and_step_lets_some_pass(simulated: Simulated):
    """While paused nothing is published; a step of 0.2 s is 0.2 s; stepping a running simulation is refused."""
    assert not simulated.call(topics.SIM_STEP, Step.Request(duration_s=0.1)).ok
    simulated.pause()
    at_s = convert.seconds(simulated.truth[-1].header.stamp)
    simulated.until(lambda: simulated.truth[-1].paused, "the pause is told")
    at_s = convert.seconds(simulated.truth[-1].header.stamp)
    answer = simulated.call(topics.SIM_STEP, Step.Request(duration_s=0.2))
    assert answer.ok and convert.seconds(answer.stamp) - at_s == pytest.approx(0.2, abs=2.1e-3)
    assert not simulated.call(topics.SIM_STEP, Step.Request(duration_s=-1.0)).ok
    simulated.pause(False)
    simulated.until(lambda: convert.seconds(simulated.truth[-1].header.stamp) > at_s + 0.25, "time goes on")


def test_a_protective_stop_halts_the_arm_and_is_told_as_a_driver_tells_it(simulated: Simulated, profile):
    """robot_program_running turns false at once and true when it is over; no command is followed meanwhile."""
    running = simulated.listen(topics.program_running("io_and_status_controller/robot_program_running"))
    simulated.until(lambda: running and running[-1].data, "the program runs")
    answer = simulated.call(topics.INJECT, Inject.Request(fault="protective_stop", duration_s=0.5))
    assert answer.ok and "protective_stop for 0.5 s" in answer.message
    simulated.until(lambda: not running[-1].data, "the program is told to have stopped")
    commands = simulated.truth[-1].commands
    publisher = CONTROLLER.publisher(simulated.node)
    simulated.until(lambda: publisher.get_subscription_count() > 0, "the simulator listens")
    q = np.array(simulated.states[-1].position[:6])
    motion = minimum_jerk(q, np.full(6, 0.05), convert.seconds(simulated.clock[-1].clock) + 0.2)
    publisher.publish(convert.trajectory_to_msg(motion, profile.joint_names))
    simulated.until(lambda: running[-1].data, "the program runs again")
    assert simulated.truth[-1].commands == commands
    assert np.abs(np.array(simulated.states[-1].position[:6]) - q).max() < 0.01


def test_black_cameras_and_a_missing_joint_arrive_as_such(simulated: Simulated):
    """What was injected is what is delivered."""
    for name, values in (("camera_black", {}), ("joint_nan", {"joint": 3.0})):
        request = Inject.Request(fault=name, duration_s=0.6, names=list(values), values=list(values.values()))
        assert simulated.call(topics.INJECT, request).ok
    simulated.until(lambda: not any(simulated.images[-1].data), "a black picture arrives")
    simulated.until(lambda: np.isnan(simulated.states[-1].position[3]), "joint 3 is not a number")
    simulated.until(lambda: any(simulated.images[-1].data) and not np.isnan(simulated.states[-1].position[3]), "it is over")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"fault": "tea_break"}, "Available: camera_freeze"),
        ({"fault": "joint_nan", "names": ["joint"], "values": [6.0]}, "from 0 to 5, got 6"),
    ],
)
def test_a_fault_that_is_not_there_is_refused(simulated: Simulated, request_: dict, said: str):
    """With what there is instead."""
    answer = simulated.call(topics.INJECT, Inject.Request(**request_))
    assert not answer.ok and said in answer.message


def test_a_real_time_factor_needs_simulated_time():
    """With the wall clock the world cannot run faster than the clock."""
    node = SimNode(parameter_overrides=parameters(robot="ur5e", real_time_factor=2.0))
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    node.destroy_node()


@pytest.mark.parametrize(
    "behind_s, wall, given_up", [(0.1, False, False), (0.2, False, True), (0.1, True, True), (0.04, True, False)]
)
def test_a_moment_is_caught_up_and_more_is_given_up(
    simulated: Simulated, monkeypatch, behind_s: float, wall: bool, given_up: bool
):
    """The world stands still then; sooner where it stamps with the wall clock, lest what it says seems old."""
    sim = simulated.sim
    real_s = sim._anchor_real_s + sim._simulation.time_s - sim._anchor_sim_s
    monkeypatch.setattr(sim, "_offset_s", sim._offset_s)
    monkeypatch.setattr(sim, "_sim_time", not wall)
    stalls, begin_s = sim._stalls, sim._simulation.time_s
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: real_s + behind_s)
        sim._turn()
    assert sim._simulation.time_s == pytest.approx(begin_s + 0.01, abs=2e-3)
    assert sim._stalls - stalls == given_up
