"""Builds the MuJoCo model of a robot from the package that ships it. Copies no model into this repository."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import mujoco

from foresight.robots.profile import RobotProfile


def package_file(package: str, relative: str) -> Path:
    """The path of a file inside an installed package, found without importing the package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"Package '{package}', which ships the robot model, is not installed. Run `make setup`.")
    path = Path(next(iter(spec.submodule_search_locations))) / relative
    if not path.is_file():
        raise FileNotFoundError(f"Package '{package}' has no file '{relative}' (looked at {path}).")
    return path


def robot_spec(profile: RobotProfile) -> mujoco.MjSpec:
    """The arm with its gripper attached, on nothing: bodies, joints, actuators as the packages define them."""
    arm = mujoco.MjSpec.from_file(str(package_file(profile.model.package, profile.model.arm)))
    gripper = mujoco.MjSpec.from_file(str(package_file(profile.model.package, profile.model.gripper)))
    arm.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC  # the gripper's model asks its parent for both
    arm.option.impratio = 10
    arm.attach(gripper, prefix=profile.model.gripper_prefix, site=arm.site(profile.model.attachment_site))
    for key in list(arm.keys):
        arm.delete(key)
    return arm
