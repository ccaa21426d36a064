"""Perception as a ROS node: an observation for each new set of frames, and a clear no to what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foresight_nodes import convert, topics
from foresight_nodes.mock_driver_node import test_pattern as picture
from foresight_nodes.perception_node import PerceptionNode
from rclpy.lifecycle import TransitionCallbackReturn

from foresight.data import RobotState
from foresight.world_model.checkpoint import read_contract
from tests.ros.conftest import Bench


class Sensed:
    """A configured perception node, and the cameras and joints that it listens to."""

    def __init__(self, bench: Bench, checkpoint: Path, profile, **parameters) -> None:
        self.bench, self.profile, self.contract = bench, profile, read_contract(checkpoint)
        self.node = bench.add(PerceptionNode, robot="ur5e", checkpoint=str(checkpoint), **parameters)
        self.observations, self.diagnostics = bench.listen(topics.OBSERVATION), bench.listen(topics.DIAGNOSTICS)
        bench.configure(self.node)
        self.images = {name: bench.publisher(topics.image(name)) for name in ("front", "wrist")}
        self.infos = {name: bench.publisher(topics.camera_info(name)) for name in ("front", "wrist")}
        self.joints = bench.publisher(topics.JOINT_STATES)
        self.q, self.opening = np.arange(6) / 10.0, None  # of the gripper; None: the driver does not tell

    def frames(
        self, height: int = 48, width: int = 64, encoding: str = "rgb8", cameras: tuple[str, ...] = ("front", "wrist")
    ) -> None:
        """One frame of each camera and one joint state, captured now."""
        self.state()
        for name in cameras:
            message = convert.image_to_msg(
                picture(height, width, self.bench.now_s), self.bench.now_s, convert.optical_frame(name)
            )
            message.encoding = encoding
            self.images[name].publish(message)
        self.settle()

    def state(self, q: np.ndarray | None = None, names: tuple[str, ...] | None = None) -> None:
        q = self.q if q is None else q
        state = RobotState(self.bench.now_s, q, np.zeros(len(q)), self.opening)
        self.joints.publish(
            convert.robot_state_to_msg(state, names or self.profile.joint_names, gripper=self.profile.gripper)
        )
        self.settle()

    def settle(self) -> None:
        for _ in range(6):
            self.bench.executor.spin_once(timeout_sec=0.01)

    def activate(self) -> bool:
        return self.node.trigger_activate() is TransitionCallbackReturn.SUCCESS

    def refusal(self) -> str:
        """Why activation is refused, in the words of the diagnostics."""
        assert not self.activate()
        self.settle()
        return self.diagnostics[-1].status[0].message


@pytest.fixture
def sensed(bench: Bench, checkpoint: Path, profile) -> Sensed:
    return Sensed(bench, checkpoint, profile)


def test_the_first_set_of_frames_becomes_an_observation(sensed: Sensed):
    """It carries the capture stamp, the prepared pixels, the joints and the contract's fingerprint."""
    sensed.frames()
    assert sensed.activate()
    sensed.bench.advance(0.05)
    sensed.frames()
    sensed.bench.until(lambda: sensed.observations, "an observation arrives")
    message = sensed.observations[0]
    assert convert.seconds(message.header.stamp) == pytest.approx(sensed.bench.now_s, abs=1e-6)
    assert message.header.frame_id == "base_link"
    read = convert.observation_from_msg(message, sensed.contract)
    assert read.images.shape == (2, 32, 32, 3) and read.images.std() > 10
    assert read.q == pytest.approx(sensed.q)


def test_the_rate_is_limited(sensed: Sensed):
    """Of frames at 30 Hz every third set becomes an observation at the default 10 Hz."""
    sensed.frames()
    assert sensed.activate()
    for _ in range(20):
        sensed.bench.advance(1 / 30, step_s=1 / 30)
        sensed.frames()
    stamps = [convert.seconds(m.header.stamp) for m in sensed.observations]
    assert len(stamps) == 7 and np.diff(stamps) == pytest.approx(1 / 10, abs=1e-3)


def test_joints_in_another_order_are_put_right_by_name(sensed: Sensed):
    """The driver's order does not matter, its names do."""
    sensed.frames()
    assert sensed.activate()
    sensed.bench.advance(0.05)
    sensed.state(sensed.q[::-1], sensed.profile.joint_names[::-1])
    for name in ("front", "wrist"):
        sensed.images[name].publish(convert.image_to_msg(picture(48, 64, 0.3), sensed.bench.now_s, name))
    sensed.bench.until(lambda: sensed.observations, "an observation arrives")
    assert list(sensed.observations[0].q) == pytest.approx(sensed.q.tolist())


def test_activation_waits_for_every_camera(sensed: Sensed):
    """Without a frame of the wrist camera the node refuses and names it."""
    sensed.frames(cameras=("front",))
    assert "No frame yet from camera wrist" in sensed.refusal()


def test_a_wrong_size_is_refused_with_both_sizes(sensed: Sensed):
    """The message says what came, what is expected, and what to do."""
    sensed.frames(height=24, width=32)
    said = sensed.refusal()
    assert "(24, 32, 3)" in said and "(48, 64, 3)" in said and "Set the camera to 64x48 px" in said


def test_a_wrong_encoding_is_refused(sensed: Sensed):
    """Only rgb8 and bgr8 are known."""
    sensed.frames(encoding="yuv422")
    assert "Image of 'front' has encoding 'yuv422'; expected rgb8 or bgr8" in sensed.refusal()


def test_a_calibration_of_another_size_is_refused(sensed: Sensed):
    """camera_info is compared with the contract as well."""
    sensed.frames()
    sensed.infos["front"].publish(convert.camera_info_to_msg(np.eye(3), 640, 480, sensed.bench.now_s, "front"))
    sensed.settle()
    assert "calibrated for 640x480 px; the model expects 64x48 px" in sensed.refusal()


def test_a_missing_joint_stops_observations_with_its_name(sensed: Sensed):
    """While the last joint states lack a joint nothing is observed; when they are whole again it goes on."""
    sensed.frames()
    assert sensed.activate()
    sensed.bench.advance(0.1)
    for name in ("front", "wrist"):
        sensed.images[name].publish(convert.image_to_msg(picture(48, 64, 0.3), sensed.bench.now_s, name))
    sensed.bench.advance(0.3, step_s=0.1)
    sensed.state(sensed.q[:5], sensed.profile.joint_names[:5])
    sensed.node.diagnose()
    sensed.settle()
    assert sensed.observations == [] and "lacks wrist_3_joint" in sensed.diagnostics[-1].status[0].message
    sensed.bench.advance(0.05)
    sensed.frames()
    sensed.bench.until(lambda: sensed.observations, "observations go on")


def test_nan_in_a_joint_state_is_refused(sensed: Sensed):
    """The joint is named; nothing is observed."""
    sensed.frames()
    sensed.bench.advance(0.02)
    sensed.state(np.array([0, 0, np.nan, 0, 0, 0]))
    assert "'elbow_joint' are not finite" in sensed.refusal()


def test_a_camera_that_stops_ends_the_observations(sensed: Sensed):
    """Frames of the other camera alone give no observation, and the diagnostics say which one is silent."""
    sensed.frames()
    assert sensed.activate()
    for _ in range(12):
        sensed.bench.advance(1 / 30, step_s=1 / 30)
        sensed.frames(cameras=("front",))
    sensed.bench.advance(0.3, step_s=0.1)
    sensed.node.diagnose()
    sensed.settle()
    assert sensed.observations == [] and "camera 'wrist'" in sensed.diagnostics[-1].status[0].message


def test_a_missing_checkpoint_is_named(bench: Bench):
    """Configure fails; the diagnostics say which folder and what to do."""
    heard = bench.listen(topics.DIAGNOSTICS)
    node = bench.add(PerceptionNode, robot="ur5e", checkpoint="/nowhere/model")
    bench.until(lambda: heard, "diagnostics arrive")
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    bench.until(
        lambda: any("No checkpoint folder at /nowhere/model" in s.message for m in heard for s in m.status), "the reason is told"
    )


def test_what_is_wrong_with_a_camera_is_told_at_once_and_by_its_type(sensed: Sensed):
    """A covered camera is `dark_camera` in the diagnostics without waiting for the next second, and gone when it sees again."""

    def refusals() -> list[str]:
        mine = [s for m in sensed.diagnostics for s in m.status if s.name == "/perception"]
        return [pair.value for s in mine for pair in s.values if pair.key == "refusal"]

    sensed.frames()
    assert sensed.activate()
    sensed.bench.advance(0.1)
    sensed.state()
    for name in ("front", "wrist"):
        black = convert.image_to_msg(np.zeros((48, 64, 3), np.uint8), sensed.bench.now_s, convert.optical_frame(name))
        sensed.images[name].publish(black)
    told = len(refusals())
    sensed.bench.until(lambda: "dark_camera" in refusals()[told:], "the guard can read what is wrong")
    sensed.bench.advance(0.1)
    sensed.frames()
    sensed.bench.until(lambda: refusals()[-1] == "", "it is gone")


def test_the_grippers_opening_is_observed_for_a_model_that_moves_it(bench: Bench, gripping_checkpoint: Path, profile):
    """Without its joint in the joint states nothing is observed, and the message says which is missing and what to do."""
    sensed = Sensed(bench, gripping_checkpoint, profile)
    sensed.frames()
    said = sensed.refusal()
    assert "lacks robotiq_85_left_knuckle_joint, the gripper's joint" in said and "Publish it with them" in said
    for opening in (0.3, 1.0):
        sensed.opening = opening
        bench.advance(0.1)
        sensed.frames()
        assert sensed.node.active or sensed.activate()
    bench.until(lambda: sensed.observations, "an observation arrives")
    assert sensed.observations[-1].opening == pytest.approx(1.0)
    assert convert.observation_from_msg(sensed.observations[-1], sensed.contract).opening == pytest.approx(1.0)


def test_a_gripper_that_is_not_moved_is_not_observed(sensed: Sensed):
    """Its joint may come with the arm's; the observation of a model that moves the tip alone is as ever."""
    sensed.opening = 0.3
    sensed.frames()
    assert sensed.activate()
    sensed.bench.advance(0.1)
    sensed.frames()
    sensed.bench.until(lambda: sensed.observations, "an observation arrives")
    assert np.isnan(sensed.observations[-1].opening)


@pytest.fixture
def sparing(bench: Bench, sparing_checkpoint: Path, profile) -> Sensed:
    """Of a model that can do without the wrist's camera."""
    return Sensed(bench, sparing_checkpoint, profile, spare_cameras=["wrist"])


def test_a_spare_camera_that_stops_costs_its_view_alone(sparing: Sensed):
    """Observations go on without it, say so, and hold nothing of it; the guard reads no refusal. It is seen again when back."""

    def go_on(cameras: tuple[str, ...]) -> list[list[bool]]:
        heard = len(sparing.observations)
        for _ in range(15):
            sparing.bench.advance(1 / 30, step_s=1 / 30)
            sparing.frames(cameras=cameras)
        return [list(m.seen) for m in sparing.observations[heard:]]

    sparing.frames()
    assert sparing.activate()
    assert go_on(("front", "wrist"))[-1] == [True, True]
    alone = go_on(("front",))
    assert len(alone) >= 3 and alone[-1] == [True, False]
    assert not convert.observation_from_msg(sparing.observations[-1], sparing.contract).images[1].any()
    sparing.node.diagnose()
    sparing.settle()
    told = next(s for s in reversed(sparing.diagnostics[-1].status) if s.name == "/perception")
    assert told.message.startswith("Observing without wrist: The newest of camera 'wrist' is ")
    figures = {v.key: v.value for v in told.values}
    assert (figures["refusal"], figures["lost_cameras"]) == ("", "wrist")
    assert go_on(("front", "wrist"))[-1] == [True, True]


def test_a_camera_that_cannot_be_spared_is_needed_still(sparing: Sensed):
    """The wrist's may be missing from the start; without the front's, which was not named, nothing is observed."""
    sparing.frames(cameras=("front",))
    assert sparing.activate()
    sparing.bench.advance(0.1)
    sparing.frames(cameras=("front",))
    sparing.bench.until(lambda: sparing.observations, "an observation arrives")
    for _ in range(12):
        sparing.bench.advance(1 / 30, step_s=1 / 30)
        sparing.frames(cameras=("wrist",))
    heard = len(sparing.observations)
    for _ in range(6):
        sparing.bench.advance(1 / 30, step_s=1 / 30)
        sparing.frames(cameras=("wrist",))
    sparing.node.diagnose()
    sparing.settle()
    assert len(sparing.observations) == heard and "camera 'front'" in sparing.diagnostics[-1].status[0].message


@pytest.mark.parametrize(
    ("trained", "camera", "said"),
    [
        ("checkpoint", "wrist", "was trained with all of its cameras and needs them: front, wrist"),
        ("sparing_checkpoint", "elbow", "Cameras elbow, which may be missing, are not in the model. Cameras: front, wrist"),
    ],
)
def test_cameras_that_the_model_cannot_spare_are_refused(bench: Bench, request, trained: str, camera: str, said: str):
    """At configure: a model that was not trained to do without, and a name that it does not know."""
    heard = bench.listen(topics.DIAGNOSTICS)
    checkpoint = request.getfixturevalue(trained)
    node = bench.add(PerceptionNode, robot="ur5e", checkpoint=str(checkpoint), spare_cameras=[camera])
    bench.until(lambda: heard, "diagnostics arrive")
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    bench.until(lambda: any(said in s.message for m in heard for s in m.status), "the reason is told")
