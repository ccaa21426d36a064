"""What of a robot can hit something: its package model stripped to collision geometry, the gripper frozen as it is used.

Knows no scene, no margins and no motion.
"""

from __future__ import annotations

import mujoco
import numpy as np

from foresight.robots.model import arm_spec, robot_spec
from foresight.robots.profile import RobotProfile

CLOSED = {"so101": -0.1745}  # command that closes the gripper, where it is not the Robotiq's
ROBOTIQ_CLOSED = 255.0
OPEN = 0.0  # command that opens the Robotiq, as wide as it can be
SETTLE_STEPS = 500  # of 2 ms: fingers are at rest long before


def collision_spec(profile: RobotProfile, gripper_command: float | None = None) -> mujoco.MjSpec:
    """The arm's collision geometry as a spec whose only joints are the arm's.

    The gripper is closed, for it pushes with closed fingers, or stands where `gripper_command` (of its actuator) puts it.
    Every geom has a name. A link that its package draws but gives no collision geometry (the UR5e's base) collides as the
    convex hulls of its meshes.
    """
    poses = _settled(profile, CLOSED.get(profile.name, ROBOTIQ_CLOSED) if gripper_command is None else gripper_command)
    spec = arm_spec(profile)
    for body in spec.bodies:
        if body.name in poses:
            body.pos, body.quat = poses[body.name]
            body.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT
    for group in (spec.actuators, spec.excludes, spec.pairs):
        for item in list(group):
            spec.delete(item)
    _keep_collision_geometry(spec)
    for i, geom in enumerate(spec.geoms):
        geom.name = geom.name or f"{geom.parent.name}:{i}"
    return spec


def _settled(profile: RobotProfile, command: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Position and quaternion in their parent's frame of the bodies that the gripper moves, found by letting physics close it.

    Its meshes overlap by design and would jam it; the pads of its fingers are boxes, and they stop each other.
    """
    spec = robot_spec(profile)
    _keep_collision_geometry(spec)
    for geom in spec.geoms:
        if geom.type == mujoco.mjtGeom.mjGEOM_MESH:
            geom.contype = geom.conaffinity = 0
    for sensor in list(spec.sensors):
        spec.delete(sensor)
    for actuator in list(spec.actuators):
        if actuator.target in profile.joint_names:
            spec.delete(actuator)
    for joint in list(spec.joints):
        if joint.name in profile.joint_names:
            spec.delete(joint)
    if not list(spec.joints):
        return {}
    spec.option.gravity = [0.0, 0.0, 0.0]
    model = spec.compile()
    data = mujoco.MjData(model)
    data.ctrl[:] = command
    mujoco.mj_step(model, data, SETTLE_STEPS)
    mujoco.mj_kinematics(model, data)
    poses = {}
    for i in map(int, np.unique(model.jnt_bodyid)):
        parent = model.body_parentid[i]
        inverse, relative, position = np.empty(4), np.empty(4), np.empty(3)
        mujoco.mju_negQuat(inverse, data.xquat[parent])
        mujoco.mju_mulQuat(relative, inverse, data.xquat[i])
        mujoco.mju_rotVecQuat(position, data.xpos[i] - data.xpos[parent], inverse)
        poses[model.body(i).name] = (position, relative)
    return poses


def _keep_collision_geometry(spec: mujoco.MjSpec) -> None:
    """Deletes what is only drawn; a link without collision geometry keeps its meshes, which then collide as their hulls."""
    solid = {_link(geom.parent) for geom in spec.geoms if geom.contype or geom.conaffinity}
    for geom in list(spec.geoms):
        if geom.contype or geom.conaffinity:
            continue
        if _link(geom.parent) in solid or geom.type != mujoco.mjtGeom.mjGEOM_MESH:
            spec.delete(geom)
        else:
            geom.contype = geom.conaffinity = 1
    used = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in used:
            spec.delete(mesh)


def _link(body: mujoco.MjsBody) -> str:
    """Name of the body whose joint carries this one rigidly."""
    while not list(body.joints) and body.parent is not None and body.parent.name != "world":
        body = body.parent
    return body.name
