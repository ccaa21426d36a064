"""A stand-in for a robot driver with cameras: its topics and rates, an arm that follows trajectories perfectly, test pictures.

Kinematic: no physics, no contact. For trying the real robot's graph where there is no robot, and for tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from trajectory_msgs.msg import JointTrajectory

from foresight.control.trajectory import ends_at_rest, hold, sample, take_over
from foresight.data import RobotState, Trajectory
from foresight.robots.profile import load_profile
from foresight_nodes import convert, topics
from foresight_nodes.diagnostics import Rate
from foresight_nodes.part import Part


@dataclass(frozen=True)
class MockDriverParameters:
    """Parameters of the mock driver."""

    robot: str  # robot profile by name, or path of its YAML file
    controller_topic: str = ""  # where trajectories come from; empty: as the profile says
    gripper_topic: str = ""  # where the gripper's come from; empty: as the profile says
    joint_states_hz: float = 500.0  # [Hz] as a UR's driver publishes
    camera_topics: tuple[str, ...] = ("front", "wrist")  # namespace of each camera
    image_width: int = 128  # [px]
    image_height: int = 128  # [px]
    images_hz: float = 30.0  # [Hz]
    start: tuple[float, ...] = ()  # [rad] joint positions; empty: the profile's home

    def __post_init__(self) -> None:
        for name in ("joint_states_hz", "images_hz", "image_width", "image_height"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")


class MockDriverNode(Part[MockDriverParameters]):
    """JointTrajectory, of the arm and of the gripper -> JointState; Image and CameraInfo of a moving test pattern."""

    def __init__(self, **options) -> None:
        super().__init__("driver", MockDriverParameters, **options)
        self._states, self._accepted, self._rejected = Rate(self.now_s()), 0, 0

    def configure(self, parameters: MockDriverParameters) -> None:
        self._profile = load_profile(parameters.robot)
        start = np.array(parameters.start) if parameters.start else self._profile.home
        if start.shape != self._profile.home.shape:
            raise ValueError(f"start needs {len(self._profile.home)} joint positions, got {len(start)}.")
        self._size = parameters.image_height, parameters.image_width
        self._in_force = hold(start, self.now_s())
        self._gripper = self._profile.gripper
        if self._gripper is not None:
            self._grip = hold(np.array([self._gripper.closed]), self.now_s())
            topics.trajectory(parameters.gripper_topic or self._gripper.controller_topic).subscription(self, self._on_grip)
        self._last_s = 0.0  # of the last joint state: stamps must grow, also where the clock is coarse
        self._joint_states = topics.JOINT_STATES.publisher(self)
        self._cameras = [
            (topic.strip("/").split("/")[-1], topics.image(topic).publisher(self), topics.camera_info(topic).publisher(self))
            for topic in parameters.camera_topics
        ]
        topics.trajectory(parameters.controller_topic or self._profile.controller_topic).subscription(self, self._on_trajectory)
        self.every(1.0 / parameters.joint_states_hz, self._publish_state)
        self.every(1.0 / parameters.images_hz, self._publish_images)

    def report(self) -> dict[str, object]:
        return {"joint_states_hz": self._states.hz(self.now_s()), "accepted": self._accepted, "rejected": self._rejected}

    def _on_trajectory(self, msg: JointTrajectory) -> None:
        self._in_force = self._follow(msg, self._profile.joint_names, self._in_force)

    def _on_grip(self, msg: JointTrajectory) -> None:
        self._grip = self._follow(msg, (self._gripper.joint,), self._grip)

    def _follow(self, msg: JointTrajectory, joint_names: tuple[str, ...], before: Trajectory) -> Trajectory:
        """As joint_trajectory_controller: from the present command to the points that still lie ahead; else on as before, so too
        where they do not end at rest."""
        if not self.active:
            return before
        now_s = self.now_s()
        try:
            new = convert.trajectory_from_msg(msg, joint_names, now_s)
            merged = take_over(before, new, now_s)
            if merged is None:
                raise ValueError(f"Trajectory ended {now_s - new.times_s[-1]:.3f} s ago.")
            if not ends_at_rest(new):
                raise ValueError(f"Trajectory ends at {np.abs(new.dq[-1]).max():.3g} rad/s, not at rest.")
        except ValueError as error:
            self._rejected += 1
            self.complain(str(error))
            return before
        self._accepted += 1
        return merged

    def _publish_state(self) -> None:
        now_s = self.now_s()
        if not self.active or now_s <= self._last_s:
            return
        self._last_s = now_s
        q, dq = sample(self._in_force, now_s)
        opening = None if self._gripper is None else self._gripper.opening(float(sample(self._grip, now_s)[0][0]))
        state = RobotState(now_s, q, dq, opening)
        self.publish(self._joint_states, convert.robot_state_to_msg(state, self._profile.joint_names, gripper=self._gripper))
        self._states.tick()

    def _publish_images(self) -> None:
        if not self.active:
            return
        now_s = self.now_s()
        for name, images, infos in self._cameras:
            frame = convert.optical_frame(name)
            self.publish(images, convert.image_to_msg(test_pattern(*self._size, now_s), now_s, frame))
            self.publish(infos, convert.camera_info_to_msg(_intrinsics(*self._size), self._size[1], self._size[0], now_s, frame))


def test_pattern(height: int, width: int, time_s: float) -> np.ndarray:
    """RGB uint8 (height, width, 3): colour ramps with a bar that crosses once in two seconds."""
    rows, columns = np.mgrid[0:height, 0:width]
    bar = np.abs(columns / width - time_s % 2.0 / 2.0) < 0.05
    return np.stack([rows * 255 // height, columns * 255 // width, np.where(bar, 255, 64)], axis=-1).astype(np.uint8)


def _intrinsics(height: int, width: int) -> np.ndarray:
    return np.array([[float(width), 0, width / 2], [0, float(width), height / 2], [0, 0, 1]])
