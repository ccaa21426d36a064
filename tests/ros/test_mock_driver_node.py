"""The stand-in driver behaves as a driver with a joint trajectory controller does."""

from __future__ import annotations

import numpy as np
import pytest
from foresight_nodes import convert, topics
from foresight_nodes.mock_driver_node import MockDriverNode

from foresight.control.trajectory import hold
from foresight.data import Trajectory
from tests.motions import minimum_jerk
from tests.ros.conftest import Bench

CONTROLLER = topics.trajectory("joint_trajectory_controller/joint_trajectory")


@pytest.fixture
def driven(bench: Bench, profile):
    """An active driver, its joint states, and its controller's input."""
    driver = bench.add(MockDriverNode, robot="ur5e", image_width=64, image_height=48)
    states = bench.listen(topics.JOINT_STATES)
    bench.bring_up(driver)
    return driver, states, bench.publisher(CONTROLLER)


def test_it_follows_a_trajectory_and_holds_its_end(bench: Bench, profile, driven):
    """Positions on the way are the trajectory's; after its end they stay."""
    driver, states, command = driven
    motion = minimum_jerk(profile.home, np.full(6, 0.1), bench.now_s + 0.05)
    command.publish(convert.trajectory_to_msg(motion, profile.joint_names))
    bench.until(lambda: driver.report()["accepted"] == 1, "the trajectory is accepted")
    bench.advance(0.3)
    assert max(abs(v) for v in states[-1].velocity[:6]) > 0.1
    bench.advance(0.5)
    bench.until(lambda: states[-1].position[0] == pytest.approx(profile.home[0] + 0.1), "the arm arrives")
    assert max(abs(v) for v in states[-1].velocity[:6]) == 0.0


def test_a_trajectory_in_the_past_or_that_does_not_end_at_rest_is_refused(bench: Bench, profile, driven):
    """The arm does not jump to where it should have been."""
    driver, states, command = driven
    command.publish(convert.trajectory_to_msg(hold(profile.home + 1.0, bench.now_s - 1.0), profile.joint_names))
    bench.until(lambda: driver.report()["rejected"] == 1, "the trajectory is refused")
    motion = minimum_jerk(profile.home, np.full(6, 0.1), bench.now_s + 0.05)
    motion.dq[-1] = 1e-6
    command.publish(convert.trajectory_to_msg(motion, profile.joint_names))
    bench.until(lambda: driver.report()["rejected"] == 2, "the one that does not end at rest is refused")
    bench.advance(0.6)
    assert list(states[-1].position[:6]) == pytest.approx(profile.home.tolist())


def test_its_gripper_follows_its_own_topic(bench: Bench, driven):
    """Closed at first; the joint comes with the arm's, and the arm stays where it is."""
    driver, states, _ = driven
    command = bench.publisher(topics.trajectory("gripper_controller/joint_trajectory"))
    bench.until(lambda: states, "joint states arrive", advance_s=0.01)
    assert states[-1].name[-1] == "robotiq_85_left_knuckle_joint" and states[-1].position[-1] == pytest.approx(0.8)
    ends = np.array([[0.8], [0.2]])
    motion = Trajectory(bench.now_s + np.array([0.05, 0.15]), ends, np.zeros((2, 1)))
    command.publish(convert.trajectory_to_msg(motion, ("robotiq_85_left_knuckle_joint",)))
    bench.until(lambda: driver.report()["accepted"] == 1, "the command is accepted")
    bench.advance(0.3)
    bench.until(lambda: states[-1].position[-1] == pytest.approx(0.2), "the gripper opens")
    assert max(abs(v) for v in states[-1].velocity[:6]) == 0.0


def test_its_cameras_deliver_pictures_and_calibration_with_capture_stamps(bench: Bench, driven):
    """Both carry the optical frame and the clock's time."""
    images, infos = bench.listen(topics.image("front")), bench.listen(topics.camera_info("front"))
    bench.until(lambda: images and infos, "frames arrive", advance_s=0.02)
    assert convert.image_from_msg(images[0]).shape == (48, 64, 3) and images[0].header.frame_id == "front_optical_frame"
    assert (infos[0].width, infos[0].height) == (64, 48) and convert.seconds(images[0].header.stamp) <= bench.now_s
