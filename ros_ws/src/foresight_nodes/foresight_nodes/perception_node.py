"""Camera frames and joint states in, `observation` out: one per new set of frames, or a reason in the diagnostics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sensor_msgs.msg import CameraInfo, Image, JointState

from foresight.contract import CameraContract
from foresight.data import Observation
from foresight.perception import Perception, PerceptionConfig, Refusal
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import load_profile
from foresight.world_model.checkpoint import read_contract, read_spares_cameras
from foresight_nodes import convert, topics
from foresight_nodes.diagnostics import Durations, Rate
from foresight_nodes.part import Part
from foresight_nodes.real_time import check_priority

EARLY_S = 0.005  # [s] by which a frame may come before its time and still count, since cameras jitter


@dataclass(frozen=True)
class PerceptionParameters:
    """Parameters of the perception node."""

    checkpoint: str  # folder of the model, whose contract says which cameras, sizes and joints it needs
    robot: str  # robot profile by name, or path of its YAML file
    camera_topics: tuple[str, ...] = ()  # namespace of each camera, in the contract's order; empty: the cameras' names
    spare_cameras: tuple[str, ...] = ()  # cameras that may be missing; only of a model trained with --model.spare-cameras
    rate_hz: float = 10.0  # [Hz] observations at most
    real_time_priority: int = 20  # SCHED_FIFO priority of the process once it is active, where allowed; 0: do not ask
    perception: PerceptionConfig = PerceptionConfig()

    def __post_init__(self) -> None:
        check_priority(self.real_time_priority)
        if not self.rate_hz > 0:
            raise ValueError(f"rate_hz must be above 0 Hz, got {self.rate_hz}.")


class PerceptionNode(Part[PerceptionParameters]):
    """Image, CameraInfo, JointState -> Observation."""

    def __init__(self, **options) -> None:
        super().__init__("perception", PerceptionParameters, **options)
        self._observations, self._ages = Rate(self.now_s()), Durations()
        self._refusal = ""  # why nothing can be observed now, as the guard reads it in the diagnostics
        self._lost: list[str] = []  # cameras without which it is observed

    def configure(self, parameters: PerceptionParameters) -> None:
        self._contract, self._spare = read_contract(Path(parameters.checkpoint)), parameters.spare_cameras
        if self._spare and not read_spares_cameras(Path(parameters.checkpoint)):
            raise ValueError(
                f"spare_cameras names {', '.join(self._spare)}, but {parameters.checkpoint} was trained with all of its cameras "
                f"and needs them: {', '.join(c.name for c in self._contract.cameras)}. Leave spare_cameras empty, or train one "
                "with --model.spare-cameras."
            )
        self._profile = load_profile(parameters.robot)
        self._gripper = self._profile.gripper_moved() if self._contract.moves_gripper else None
        kinematics = MujocoKinematics(self._profile)
        self._perception = Perception(self._contract, self._profile, kinematics, parameters.perception, self._spare)
        self._period_s, self._last_s = 1.0 / parameters.rate_hz, float("-inf")
        self._newest_s = {camera.name: float("-inf") for camera in self._contract.cameras}
        self._misfits: dict[str, str] = {}  # what a source last delivered that does not fit, by source
        self._output = topics.OBSERVATION.publisher(self)
        cameras = self._contract.cameras
        camera_topics = parameters.camera_topics or tuple(c.name for c in cameras)
        if len(camera_topics) != len(cameras):
            raise ValueError(
                f"camera_topics names {len(camera_topics)} cameras, the model has {len(cameras)}: "
                f"{', '.join(c.name for c in cameras)}."
            )
        topics.JOINT_HISTORY.subscription(self, self._on_joint_state)  # first, so that a frame finds the joint states before it
        for camera, topic in zip(cameras, camera_topics, strict=True):
            topics.image(topic).subscription(self, partial(self._on_image, camera))
            topics.camera_info(topic).subscription(self, partial(self._on_camera_info, camera))
        self.every(0.25, self._watch)

    def activate(self) -> None:
        """Refused while a camera that cannot be spared or the joint states are missing, or something does not fit the model."""
        spared = {f"image {name}" for name in self._spare}
        if misfits := [told for source, told in self._misfits.items() if source not in spared]:
            raise ValueError(" ".join(misfits))
        seen = self._perception.observe(self.now_s())
        if isinstance(seen, Refusal):
            raise ValueError(seen.detail)
        self._observations = Rate(self.now_s())

    def report(self) -> dict[str, object]:
        return {
            "refusal": self._refusal,
            "lost_cameras": ", ".join(self._lost),
            "observation_hz": self._observations.hz(self.now_s()),
            "image_age_ms_p50": self._ages.percentile_ms(50),
            "image_age_ms_p99": self._ages.percentile_ms(99),
        }

    def _on_image(self, camera: CameraContract, msg: Image) -> None:
        stamp_s = convert.seconds(msg.header.stamp)
        if not self._judge(f"image {camera.name}", partial(self._take_image, camera, stamp_s, msg)) or not self.active:
            return
        self._newest_s[camera.name] = stamp_s
        limits = self._perception.config
        awaited = [
            newest_s
            for name, newest_s in self._newest_s.items()
            if name not in self._spare or stamp_s - newest_s <= limits.max_image_age_s
        ]
        others_to_come = stamp_s - min(awaited) > limits.max_skew_s
        if not others_to_come and abs(stamp_s - self._last_s) > self._period_s - EARLY_S:
            self._observe()

    def _observe(self) -> None:
        now_s = self.now_s()
        observation = self._perception.observe(now_s)
        if self._refused(observation):
            return
        self._last_s = observation.stamp_s
        self.publish(self._output, convert.observation_to_msg(observation, self._contract, self._profile.base_frame))
        self._observations.tick()
        self._ages.add(now_s - observation.stamp_s)

    def _watch(self) -> None:
        """Says why when nothing new can be observed, also when no message comes that would say it."""
        if self.active:
            self._refused(self._perception.observe(self.now_s()))

    def _refused(self, seen: Observation | Refusal) -> bool:
        """Whether there is no observation; says why, or what it lacks, and at once when that is another than before."""
        refusal, lost = (seen.reason.value, []) if isinstance(seen, Refusal) else ("", list(self._perception.lost))
        if isinstance(seen, Refusal):
            self.complain(" ".join(self._misfits.values()) or seen.detail)
        elif lost:
            why = " ".join(reason.detail for reason in self._perception.lost.values())
            self.complain(f"Observing without {', '.join(lost)}: {why}")
        if (refusal, lost) != (self._refusal, self._lost):
            self._refusal, self._lost = refusal, lost
            self.diagnose()
        return bool(refusal)

    def _on_camera_info(self, camera: CameraContract, msg: CameraInfo) -> None:
        self._judge(f"camera_info {camera.name}", partial(_check_size, camera, msg))

    def _on_joint_state(self, msg: JointState) -> None:
        self._judge("joint_states", partial(self._take_joint_state, msg))

    def _take_image(self, camera: CameraContract, stamp_s: float, msg: Image) -> None:
        _raise(self._perception.add_image(camera.name, stamp_s, convert.image_from_msg(msg, camera.name)))

    def _take_joint_state(self, msg: JointState) -> None:
        _raise(self._perception.add_state(convert.robot_state_from_msg(msg, self._profile.joint_names, self._gripper)))

    def _judge(self, source: str, take) -> bool:
        """Takes a delivery; remembers and tells what is wrong with it until the source delivers a good one."""
        try:
            take()
        except ValueError as error:
            self._misfits[source] = str(error)
            self.complain(str(error))
            return False
        self._misfits.pop(source, None)
        return True


def _raise(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise ValueError(refusal.detail)


def _check_size(camera: CameraContract, msg: CameraInfo) -> None:
    if (msg.width, msg.height) != (camera.width, camera.height):
        raise ValueError(
            f"Camera '{camera.name}' is calibrated for {msg.width}x{msg.height} px; "
            f"the model expects {camera.width}x{camera.height} px. "
            "Set the camera to that size."
        )
