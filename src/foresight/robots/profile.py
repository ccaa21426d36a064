"""A robot as data: joint names, limits, frames, controller and where its model comes from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float


@dataclass(frozen=True)
class ModelSource:
    """Which files of which installed package hold the robot's MuJoCo model."""

    package: str
    arm: str
    gripper: str
    attachment_site: str
    tip_site: str
    gripper_prefix: str


@dataclass(frozen=True)
class RobotProfile:
    """One robot. SI units and radians; arrays are in the order of `joint_names`."""

    name: str
    joint_names: tuple[str, ...]
    position_min: Float[np.ndarray, "J"]  # [rad]
    position_max: Float[np.ndarray, "J"]  # [rad]
    velocity_max: Float[np.ndarray, "J"]  # [rad/s]
    acceleration_max: Float[np.ndarray, "J"]  # [rad/s^2]
    jerk_max: Float[np.ndarray, "J"]  # [rad/s^3], of the braking tail
    tip_speed_max: float  # [m/s]
    tip_acceleration_max: float  # [m/s^2]
    workspace_min: Float[np.ndarray, "3"]  # [m]
    workspace_max: Float[np.ndarray, "3"]  # [m]
    home: Float[np.ndarray, "J"]  # [rad]
    controller_topic: str
    controller_rate_hz: float
    base_frame: str
    tip_frame: str
    model: ModelSource

    def __post_init__(self) -> None:
        joints = len(self.joint_names)
        if len(set(self.joint_names)) != joints:
            raise ValueError(f"Robot '{self.name}' names a joint twice: {self.joint_names}.")
        for name in ("position_min", "position_max", "velocity_max", "acceleration_max", "jerk_max", "home"):
            value = getattr(self, name)
            if value.shape != (joints,) or not np.isfinite(value).all():
                raise ValueError(f"Robot '{self.name}': {name} needs {joints} finite numbers, got {value.tolist()}.")
        for name in (
            "velocity_max",
            "acceleration_max",
            "jerk_max",
            "tip_speed_max",
            "tip_acceleration_max",
            "controller_rate_hz",
        ):
            if not (np.asarray(getattr(self, name)) > 0).all():
                raise ValueError(f"Robot '{self.name}': {name} must be above 0, got {np.asarray(getattr(self, name)).tolist()}.")
        if self.workspace_min.shape != (3,) or self.workspace_max.shape != (3,):
            raise ValueError(
                f"Robot '{self.name}': workspace_min and workspace_max need 3 numbers (x, y, z), "
                f"got {self.workspace_min.shape} and {self.workspace_max.shape}."
            )
        if not (self.position_min < self.position_max).all() or not (self.workspace_min < self.workspace_max).all():
            raise ValueError(f"Robot '{self.name}': every minimum must lie below its maximum.")


def available_robots() -> list[str]:
    """Names of the profiles that ship with Foresight."""
    return sorted(
        p.name.removesuffix(".yaml") for p in files("foresight.robots").joinpath("profiles").iterdir() if p.name.endswith(".yaml")
    )


def load_profile(name_or_path: str) -> RobotProfile:
    """A shipped profile by name, or any profile by the path of its YAML file."""
    return parse_profile(yaml.safe_load(profile_text(name_or_path)), name_or_path)


def profile_text(name_or_path: str) -> str:
    """The profile's YAML as it stands in its file."""
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
    return path.read_text()


def parse_profile(raw: dict, origin: str) -> RobotProfile:
    """A profile from its YAML mapping; a missing or unknown key is named."""
    if not isinstance(raw, dict):
        raise ValueError(f"{origin}: expected a mapping of names to values, got {type(raw).__name__}.")
    wanted = {f.name: f for f in fields(RobotProfile)}
    missing, unknown = sorted(wanted.keys() - raw.keys()), sorted(raw.keys() - wanted.keys())
    if missing or unknown:
        raise ValueError(f"{origin}: missing keys {missing}, unknown keys {unknown}; expected {sorted(wanted)}.")
    values = dict(raw)
    for key in (
        "position_min",
        "position_max",
        "velocity_max",
        "acceleration_max",
        "jerk_max",
        "workspace_min",
        "workspace_max",
        "home",
    ):
        values[key] = np.asarray(raw[key], dtype=np.float64)
    values["joint_names"] = tuple(raw["joint_names"])
    try:
        values["model"] = ModelSource(**raw["model"])
    except TypeError as error:
        raise ValueError(
            f"{origin}: key 'model' must hold {[f.name for f in fields(ModelSource)]}, got {raw['model']}."
        ) from error
    return RobotProfile(**values)
