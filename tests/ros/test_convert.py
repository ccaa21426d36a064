"""Messages and the core's values turn into each other without loss, and what does not fit is refused."""

from __future__ import annotations

import array
from dataclasses import replace

import numpy as np
import pytest
from foresight_nodes import convert
from sensor_msgs.msg import Image
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from foresight.contract import CameraContract, Contract
from foresight.data import Belief, Grip, Observation, Plan, RobotState, Trajectory
from foresight.robots.profile import GripperJoint

NAMES = ("a", "b")
NOW_S = 1_795_312_000.123456  # a wall clock: as large as stamps get
TRAJECTORY = Trajectory(
    NOW_S + np.array([0.1, 0.2, 0.45]), np.arange(6.0).reshape(3, 2), np.array([[0.1, 0.2], [0.3, 0.4], [0.0, 0.0]])
)
CONTRACT = Contract("toy", NAMES, (CameraContract("front", 4, 4, (0, 0, 4, 4), 4),))
PLAN = Plan(
    NOW_S,
    "m1",
    0.1,
    np.arange(9.0).reshape(3, 3),
    1.5,
    {"latent": 1.0, "tip": 0.5},
    2.0,
    np.arange(8, dtype=np.float32).reshape(2, 4),
    64,
    0.07,
    "actor",
    0.02,
    "wrist and table",
)


def test_a_stamp_survives_to_the_microsecond():
    """A float of wall-clock seconds becomes a stamp and the same float again."""
    assert convert.seconds(convert.stamp(NOW_S)) == pytest.approx(NOW_S, abs=1e-6)


def test_an_image_survives_in_both_colour_orders():
    """rgb8 comes back as it went; the same bytes called bgr8 come back with red and blue exchanged."""
    rgb = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    message = convert.image_to_msg(rgb, 1.0, "front_optical_frame")
    assert (convert.image_from_msg(message) == rgb).all()
    message.encoding = "bgr8"
    assert (convert.image_from_msg(message) == rgb[..., ::-1]).all()


def test_rows_may_be_padded():
    """A step longer than a row is honoured."""
    rgb = np.random.default_rng(0).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    padded = np.zeros((2, 8), np.uint8)
    padded[:, :6] = rgb.reshape(2, 6)
    message = Image(height=2, width=2, encoding="rgb8", step=8, data=array.array("B", padded.tobytes()))
    assert (convert.image_from_msg(message) == rgb).all()


@pytest.mark.parametrize(("encoding", "count", "said"), [("mono8", 12, "mono8"), ("rgb8", 11, "11 bytes")])
def test_other_images_are_refused(encoding: str, count: int, said: str):
    """An unknown encoding or a wrong number of bytes is named."""
    message = Image(height=2, width=2, encoding=encoding, step=6, data=array.array("B", bytes(count)))
    with pytest.raises(ValueError, match=said):
        convert.image_from_msg(message)


@pytest.mark.parametrize(
    ("frame", "camera", "called"), [("", "wrist", "wrist"), ("lens", "", "lens"), ("", "", "a camera without frame_id")]
)
def test_a_bad_image_is_named_by_its_camera(frame: str, camera: str, called: str):
    """By the camera that it came from, else by its frame; a driver may leave the frame empty."""
    for message in (Image(encoding="mono8"), Image(encoding="rgb8", height=2, width=2)):
        message.header.frame_id = frame
        with pytest.raises(ValueError, match=f"Image of '{called}'"):
            convert.image_from_msg(message, camera)


def test_joint_states_come_in_any_order():
    """Joints are found by name; others are left out."""
    state = RobotState(2.0, np.array([1.0, 2.0, 9.0]), np.array([3.0, 4.0, 9.0]))
    message = convert.robot_state_to_msg(state, ("b", "a", "finger"))
    read = convert.robot_state_from_msg(message, NAMES)
    assert (read.stamp_s, read.q.tolist(), read.dq.tolist()) == (2.0, [2.0, 1.0], [4.0, 3.0])


def test_a_missing_joint_is_named():
    """A joint state without one of the joints is refused with its name and those there are."""
    message = convert.robot_state_to_msg(RobotState(2.0, np.zeros(1), np.zeros(1)), ("b",))
    with pytest.raises(ValueError, match=r"lacks a\. Joints in the message: b"):
        convert.robot_state_from_msg(message, NAMES)


def test_the_grippers_joint_travels_with_the_arms():
    """Its position becomes the opening and back; not asked for, it is not told; missing, it is named with what to do."""
    gripper = GripperJoint("finger", 0.0, 0.8, "gripper/joint_trajectory", None, None, "a test")
    message = convert.robot_state_to_msg(RobotState(2.0, np.zeros(2), np.ones(2), 0.25), NAMES, gripper=gripper)
    assert list(message.name) == ["a", "b", "finger"] and message.position[2] == pytest.approx(0.6)
    read = convert.robot_state_from_msg(message, NAMES, gripper)
    assert read.opening == pytest.approx(0.25) and (read.q.tolist(), read.dq.tolist()) == ([0, 0], [1, 1])
    assert convert.robot_state_from_msg(message, NAMES).opening is None
    message = convert.robot_state_to_msg(RobotState(2.0, np.zeros(2), np.ones(2)), NAMES, gripper=gripper)
    with pytest.raises(ValueError, match=r"lacks finger, the gripper's joint.*Joints in the message: a, b\. Publish it"):
        convert.robot_state_from_msg(message, NAMES, gripper)


def test_a_trajectory_survives():
    """Times, positions and velocities come back; times within a microsecond."""
    message = convert.trajectory_to_msg(TRAJECTORY, NAMES)
    read = convert.trajectory_from_msg(message, NAMES, now_s=0.0)
    assert read.times_s == pytest.approx(TRAJECTORY.times_s, abs=1e-6)
    assert (read.q == TRAJECTORY.q).all() and (read.dq == TRAJECTORY.dq).all()
    assert message.points[0].time_from_start.sec == message.points[0].time_from_start.nanosec == 0
    early = convert.trajectory_to_msg(TRAJECTORY, NAMES, now_s=TRAJECTORY.times_s[0] - 1.5)
    assert early.points[0].time_from_start.sec == 1 and early.points[0].time_from_start.nanosec == 500_000_000
    assert convert.trajectory_from_msg(early, NAMES, now_s=0.0).times_s == pytest.approx(TRAJECTORY.times_s, abs=1e-6)


def test_a_zero_stamp_means_now_and_joints_may_be_reordered():
    """A trajectory is read as joint_trajectory_controller reads it."""
    message = convert.trajectory_to_msg(
        Trajectory(np.array([0.0, 1.0]), np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((2, 2))), ("b", "a")
    )
    read = convert.trajectory_from_msg(message, NAMES, now_s=50.0)
    assert read.times_s.tolist() == [50.0, 51.0] and read.q.tolist() == [[2.0, 1.0], [4.0, 3.0]]


@pytest.mark.parametrize(
    "points",
    [[], [JointTrajectoryPoint(positions=[1.0, 2.0])], [JointTrajectoryPoint(positions=[np.nan] * 2, velocities=[0.0] * 2)]],
)
def test_incomplete_trajectories_are_refused(points: list[JointTrajectoryPoint]):
    """No points, no velocities, or NaN."""
    with pytest.raises(ValueError):
        convert.trajectory_from_msg(JointTrajectory(joint_names=list(NAMES), points=points), NAMES, now_s=0.0)


def test_an_observation_survives():
    """Pixels, joints and tip come back."""
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    observation = Observation(NOW_S, images, np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.arange(3.0), np.arange(3.0) + 1)
    read = convert.observation_from_msg(convert.observation_to_msg(observation, CONTRACT, "base_link"), CONTRACT)
    assert read.stamp_s == pytest.approx(NOW_S, abs=1e-6) and (read.images == images).all()
    assert (read.q.tolist(), read.dq.tolist()) == ([1, 2], [3, 4])
    assert (read.tip.tolist(), read.tip_velocity.tolist()) == ([0, 1, 2], [1, 2, 3])


@pytest.mark.parametrize("opening", [None, 0.0, 0.4])
def test_the_opening_survives(opening: float | None):
    """Told or not told."""
    observation = Observation(
        1.0, np.zeros((1, 4, 4, 3), np.uint8), np.zeros(2), np.zeros(2), np.zeros(3), np.zeros(3), opening=opening
    )
    message = convert.observation_to_msg(observation, CONTRACT, "base_link")
    assert convert.observation_from_msg(message, CONTRACT).opening == opening


def test_which_cameras_are_seen_survives():
    """Of two, one lost; all seen is the same as nothing told. Whoever tells of another number of cameras is refused."""
    two = Contract("toy", NAMES, tuple(CameraContract(name, 4, 4, (0, 0, 4, 4), 4) for name in ("front", "wrist")))
    for seen, expected in ((None, None), ((True, True), None), ((True, False), (True, False))):
        observation = Observation(1.0, np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2), np.zeros(2), np.zeros(3), np.zeros(3), seen)
        message = convert.observation_to_msg(observation, two, "base_link")
        assert len(message.seen) == 2 and convert.observation_from_msg(message, two).seen == expected
    message.seen = [True]
    with pytest.raises(ValueError, match="tells of 1 cameras whether they are seen; expected 2"):
        convert.observation_from_msg(message, two)


def test_an_observation_for_another_contract_is_refused():
    """Both fingerprints are named."""
    observation = Observation(1.0, np.zeros((1, 4, 4, 3), np.uint8), np.zeros(2), np.zeros(2), np.zeros(3), np.zeros(3))
    other = Contract("other", NAMES, CONTRACT.cameras)
    with pytest.raises(ValueError, match=f"{CONTRACT.fingerprint}.*{other.fingerprint}"):
        convert.observation_from_msg(convert.observation_to_msg(observation, CONTRACT, "base_link"), other)


def test_a_belief_survives():
    """Latent and proprioception come back exactly; an unknown surprise stays unknown."""
    belief = Belief(2.5, "m1", np.arange(4, dtype=np.float32) / 3, np.arange(8, dtype=np.float32) / 7, float("nan"))
    read = convert.belief_from_msg(convert.belief_to_msg(belief, "base_link"))
    assert (read.stamp_s, read.model_id) == (2.5, "m1") and np.isnan(read.surprise)
    assert (read.latent == belief.latent).all() and (read.proprio == belief.proprio).all()


def test_a_plan_survives_and_carries_its_trajectory():
    """Plan and candidate both come back from one message."""
    message = convert.plan_to_msg(PLAN, TRAJECTORY, NAMES, plan_stamp_s=NOW_S + 0.08, plan_id=3, frame="base_link")
    read, offered = convert.plan_from_msg(message), convert.candidate_from_msg(message)
    assert (read.model_id, read.dt_s, read.cost, read.terms) == ("m1", 0.1, 1.5, PLAN.terms)
    assert (read.distance, read.candidates, read.source) == (2.0, 64, "actor")
    assert (read.tip_velocity == PLAN.tip_velocity).all() and (read.imagined == PLAN.imagined).all()
    assert offered.trajectory.times_s == pytest.approx(TRAJECTORY.times_s, abs=1e-6)
    assert (offered.trajectory.q == TRAJECTORY.q).all()
    assert offered.joint_names == NAMES and offered.model_id == "m1"
    assert offered.observation_stamp_s == pytest.approx(NOW_S, abs=1e-6)
    assert offered.plan_stamp_s == pytest.approx(NOW_S + 0.08, abs=1e-6)
    assert np.isnan(message.closed) and offered.grip is None


@pytest.mark.parametrize(("begin_s", "closed"), [(0.05, 1.0), (0.1, 0.0), (0.15, 0.0), (0.25, 1.0), (0.9, 1.0)])
def test_a_plan_carries_the_grippers_command_of_the_step_that_its_motion_begins_in(begin_s: float, closed: float):
    """Of three steps of 0.1 s; after the last one the last."""
    plan = replace(PLAN, closed=np.array([1.0, 0.0, 1.0]), grip_force_n=20.0)
    begun = replace(TRAJECTORY, times_s=TRAJECTORY.times_s - TRAJECTORY.times_s[0] + NOW_S + begin_s)
    message = convert.plan_to_msg(plan, begun, NAMES, NOW_S + 0.08, 3, "base_link")
    assert convert.candidate_from_msg(message).grip == Grip(closed, 20.0)
