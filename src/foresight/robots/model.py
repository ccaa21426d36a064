"""Builds the MuJoCo model of a robot from the package that ships it. Copies no model into this repository."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import mujoco

from foresight.robots.profile import ModelSource, RobotProfile


class NoModelError(ValueError):
    """The profile has no model, and what was asked needs one."""


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
    """The arm with its gripper, on nothing: bodies, joints, actuators as the packages define them.

    The arm's joints bear the profile's names. Joint ranges are the package's, not the profile's.
    """
    source = model_source(profile)
    arm = mujoco.MjSpec.from_file(str(package_file(source.package, source.arm)))
    if source.gripper is not None:
        gripper = mujoco.MjSpec.from_file(str(package_file(source.package, source.gripper)))
        arm.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC  # the gripper's model asks its parent for both
        arm.option.impratio = 10
        arm.attach(gripper, prefix=source.gripper_prefix, site=arm.site(source.attachment_site))
    for key in list(arm.keys):
        arm.delete(key)
    _check_joints(arm, profile, source)
    _rename(arm, dict(zip(source.joints, profile.joint_names, strict=True)))
    return arm


def arm_spec(profile: RobotProfile) -> mujoco.MjSpec:
    """The robot with its gripper frozen: the arm's joints are its only ones, and their ranges are the profile's.

    Its base can be touched even where the package lets nothing touch it: the hulls of its meshes then stand for it.
    """
    spec = robot_spec(profile)
    for group in (spec.equalities, spec.tendons, spec.sensors):
        for item in list(group):
            spec.delete(item)
    for actuator in list(spec.actuators):
        if actuator.target not in profile.joint_names:
            spec.delete(actuator)
    for joint in list(spec.joints):
        if joint.name not in profile.joint_names:
            spec.delete(joint)
    for name, low, high in zip(profile.joint_names, profile.position_min, profile.position_max, strict=True):
        spec.joint(name).range = [low, high]
    for base in spec.worldbody.bodies:
        if not any(geom.contype or geom.conaffinity for geom in base.geoms):
            _make_solid(spec, base)
    return spec


def drop_drawn(spec: mujoco.MjSpec) -> None:
    """Deletes what is only drawn, where it gives its body no mass, and the meshes that only it used.

    Nearly all of the second that an arm takes to compile goes into them.
    """
    for geom in list(spec.geoms):
        if only_drawn(geom):
            spec.delete(geom)
    drop_unused_meshes(spec)


def only_drawn(geom: mujoco.MjsGeom) -> bool:
    """Whether nothing touches it and its body's mass does not come from it."""
    return bool(geom.parent.explicitinertial) and not (geom.contype or geom.conaffinity)


def drop_unused_meshes(spec: mujoco.MjSpec) -> None:
    """Deletes the meshes that no geom uses."""
    used = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in used:
            spec.delete(mesh)


def model_source(profile: RobotProfile) -> ModelSource:
    """Where the robot's model is; NoModelError where the profile has none."""
    if profile.model is None:
        raise NoModelError(
            f"Robot '{profile.name}' has no model (model: null in its profile), so no kinematics, collision check or "
            "simulation; its limits are checked all the same. Give a profile with a model to have them."
        )
    return profile.model


def _check_joints(spec: mujoco.MjSpec, profile: RobotProfile, source: ModelSource) -> None:
    names = tuple(joint.name for joint in spec.joints)
    arm, gripper = (tuple(n for n in names if (n in source.gripper_joints) is held) for held in (False, True))
    if arm != source.joints or set(gripper) != set(source.gripper_joints):
        raise ValueError(
            f"Robot '{profile.name}': profile lists joints {source.joints} and of the gripper {source.gripper_joints}, "
            f"its model has {arm} and {gripper}."
        )


def _make_solid(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    """Lets the body's meshes collide, though not with the links that turn in it."""
    for geom in body.geoms:
        geom.contype = geom.conaffinity = 1
    for link in body.bodies:
        spec.add_exclude(bodyname1=body.name, bodyname2=link.name)


def _rename(spec: mujoco.MjSpec, names: dict[str, str]) -> None:
    for actuator in spec.actuators:
        actuator.target = names.get(actuator.target, actuator.target)
    for sensor in spec.sensors:
        if sensor.objtype == mujoco.mjtObj.mjOBJ_JOINT:
            sensor.objname = names.get(sensor.objname, sensor.objname)
    for old, new in names.items():
        spec.joint(old).name = new
