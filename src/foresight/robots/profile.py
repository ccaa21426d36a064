"""A robot as data: joint names, limits and where each is from, frames, controller and where its model comes from.

Reads what the schema (`schema.py`) has let through. Knows no model, no time and no physics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float

from foresight.robots import schema


@dataclass(frozen=True)
class ModelSource:
    """Which files of which installed package hold the robot's MuJoCo model, and what is called what in them."""

    package: str
    arm: str
    gripper: str | None  # a file to attach at `attachment_site`; None where the arm's file has the gripper
    attachment_site: str | None
    tip_site: str
    gripper_prefix: str  # given to the names of the attached gripper; empty where nothing is attached
    joints: tuple[str, ...]  # the arm's joints as the file names them, in the order of the profile's `joint_names`
    gripper_joints: tuple[str, ...]  # the gripper's joints, prefix included: the tip does not depend on them


@dataclass(frozen=True)
class VelocityLaw:
    """Velocity limits that shrink towards the ends of the joints.

    Upwards: v <= max(0, offset + sqrt(max(0, gain * (upper - q)))); downwards the mirrored with `lower`.
    """

    offset: Float[np.ndarray, "J"]  # [rad/s]
    gain: Float[np.ndarray, "J"]  # [rad/s^2]
    upper: Float[np.ndarray, "J"]  # [rad]
    lower: Float[np.ndarray, "J"]  # [rad]

    def __call__(self, room: Float[np.ndarray, "*N J"]) -> Float[np.ndarray, "*N J"]:
        """The speed [rad/s] allowed towards an end that is `room` [rad] away."""
        return np.maximum(0.0, self.offset + np.sqrt(np.maximum(0.0, self.gain * room)))


@dataclass(frozen=True)
class GripperJoint:
    """The gripper as joint states and its controller have it: one joint, whose position tells how far it is open."""

    joint: str  # its name in joint_states
    opened: float  # [rad, m where it slides] its position when open
    closed: float  # the same when closed
    controller_topic: str
    stiffness: float | None  # [N] per whole opening, of blocked fingers whose command goes on closing; None: not known
    force_cap: float | None  # [N] that it may squeeze with at most until its user raises it; None: none is set
    source: str  # where all this is from

    def opening(self, position: float) -> float:
        """How far it is open at that position: 0 closed, 1 open; what is not finite stays so."""
        return float(np.clip((position - self.closed) / (self.opened - self.closed), 0, 1))

    def position(self, opening: float) -> float:
        """Where its joint then is."""
        return self.closed + opening * (self.opened - self.closed)


@dataclass(frozen=True)
class RobotProfile:
    """One robot. SI units and radians; arrays are in the order of `joint_names`.

    `joint_speed_max` and `tip_speed_max` are what the arm is allowed until its user raises them; the others are its own.
    """

    name: str
    joint_names: tuple[str, ...]
    position_min: Float[np.ndarray, "J"]  # [rad]
    position_max: Float[np.ndarray, "J"]  # [rad]
    velocity_max: Float[np.ndarray, "J"]  # [rad/s]
    velocity_law: VelocityLaw | None  # None where velocity limits do not depend on position
    acceleration_max: Float[np.ndarray, "J"]  # [rad/s^2]
    jerk_max: Float[np.ndarray, "J"]  # [rad/s^3]
    torque_max: Float[np.ndarray, "J"] | None  # [Nm], None where the maker publishes none
    torque_rate_max: Float[np.ndarray, "J"] | None  # [Nm/s], None where the maker publishes none
    gripper_force_max: float | None  # [N], None where the maker publishes none
    joint_speed_max: float  # [rad/s] cap of every joint
    tip_speed_max: float  # [m/s]
    tip_acceleration_max: float  # [m/s^2]
    workspace_min: Float[np.ndarray, "3"]  # [m]
    workspace_max: Float[np.ndarray, "3"]  # [m]
    home: Float[np.ndarray, "J"]  # [rad]
    controller_topic: str
    controller_rate_hz: float
    base_frame: str
    tip_frame: str
    gripper: GripperJoint | None  # None: no gripper that a model may move
    model: ModelSource | None  # None where no package that ships the model is used: limits hold, kinematics are refused
    sources: Mapping[str, str]  # where each limit is from

    def __post_init__(self) -> None:
        schema.check_consistency(self)

    def gripper_moved(self) -> GripperJoint:
        """The gripper, for a model that moves it; ValueError where the robot has none."""
        if self.gripper is None:
            there = ", ".join(name for name in available_robots() if load_profile(name).gripper is not None)
            raise ValueError(
                f"The model moves the gripper, and robot '{self.name}' has no gripper joint (gripper: null in its profile). "
                f"Robots that have one: {there}. Give its joint, positions and controller in the profile, or a model that "
                "moves the tip alone."
            )
        if self.gripper.stiffness is None or self.gripper.force_cap is None:
            raise ValueError(
                f"The model moves the gripper, and no limit of its force is known for robot '{self.name}': gripper.stiffness is "
                f"{self.gripper.stiffness} N, gripper.force_cap {self.gripper.force_cap} N. Give both in the profile."
            )
        return self.gripper

    def velocity_bounds(self, q: Float[np.ndarray, "*N J"]) -> tuple[Float[np.ndarray, "*N J"], Float[np.ndarray, "*N J"]]:
        """Lowest and highest joint velocity [rad/s] in force at each q: the robot's own limits, within the cap.

        A q that is not finite has bounds that are not finite either, so no velocity lies within them.
        """
        cap = np.minimum(self.velocity_max, self.joint_speed_max)
        if self.velocity_law is None:
            high = np.where(np.isfinite(q), cap, np.nan)
            return -high, high
        law = self.velocity_law
        return -np.minimum(cap, law(q - law.lower)), np.minimum(cap, law(law.upper - q))


def available_robots() -> list[str]:
    """Names of the profiles that ship with Foresight."""
    return sorted(
        p.name.removesuffix(".yaml") for p in files("foresight.robots").joinpath("profiles").iterdir() if p.name.endswith(".yaml")
    )


def load_profile(name_or_path: str) -> RobotProfile:
    """A shipped profile by name, or any profile by the path of its YAML file."""
    path = _path(name_or_path)
    return read_profile(path.read_text(), str(path))


def profile_text(name_or_path: str) -> str:
    """The profile's YAML as it stands in its file."""
    return _path(name_or_path).read_text()


def read_profile(text: str, origin: str, absent: Mapping[str, object] = {}) -> RobotProfile:
    """A profile from its YAML; `origin` is how errors call it, `absent` are values of keys that it may not have yet, as
    "key" or, in a part that it has, "part.key".
    """
    try:
        raw = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{origin}: not readable as YAML: {' '.join(str(error).split())}.") from error
    for name, value in absent.items() if isinstance(raw, dict) else ():
        part, _, key = name.rpartition(".")
        within = raw.get(part) if part else raw
        if isinstance(within, dict):
            within.setdefault(key, value)
    return parse_profile(raw, origin)


def _path(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if name_or_path not in available_robots():
            raise ValueError(
                f"Robot '{name_or_path}' has no profile. Available: {', '.join(available_robots())}; "
                "or give a path to a .yaml file."
            )
        path = Path(str(files("foresight.robots").joinpath("profiles", f"{name_or_path}.yaml")))
    if not path.is_file():
        raise FileNotFoundError(f"Robot profile {path} does not exist. Available by name: {', '.join(available_robots())}.")
    return path


def parse_profile(raw: object, origin: str) -> RobotProfile:
    """A profile from its YAML mapping; what does not fit the schema is named with key, expected and got."""
    values = schema.parse(raw, origin)
    if values["velocity_law"] is not None:
        values["velocity_law"] = VelocityLaw(**values["velocity_law"])
    if values["gripper"] is not None:
        values["gripper"] = GripperJoint(**values["gripper"])
    if values["model"] is not None:
        values["model"] = ModelSource(**values["model"])
    return RobotProfile(**values)


class _Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, not the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [k for i, k in enumerate(keys) if k in keys[:i]]:
            raise yaml.YAMLError(f"key {twice[0]!r} is given twice, line {node.start_mark.line + 1} and after")
        return super().construct_mapping(node, deep)
