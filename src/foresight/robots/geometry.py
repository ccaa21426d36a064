"""What of a robot can hit something: its package model stripped to collision geometry, the gripper frozen as it is used.

Knows no scene, no margins and no motion.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from jaxtyping import Float

from foresight.robots.model import arm_spec, drop_unused_meshes, robot_spec
from foresight.robots.profile import RobotProfile

CLOSED = {"so101": -0.1745}  # command that closes the gripper, where it is not the Robotiq's
ROBOTIQ_CLOSED = 255.0
OPEN = 0.0  # command that opens the Robotiq, as wide as it can be
SETTLE_STEPS = 500  # of 2 ms: fingers are at rest long before
POSTURES = 9  # from open to closed; between two of them no part leaves the hull around all by more than 0.1 mm


def collision_spec(profile: RobotProfile, gripper_moves: bool = False) -> mujoco.MjSpec:
    """The arm's collision geometry as a spec whose only joints are the arm's.

    The gripper is closed, for it pushes with closed fingers. Where it moves, each piece of its fingers is the convex hull of
    everywhere that it comes between open and closed. Every geom has a name. A link that its package draws but gives no
    collision geometry (the UR5e's base) collides as the convex hulls of its meshes.
    """
    closed = CLOSED.get(profile.name, ROBOTIQ_CLOSED)
    postures = _settled(profile, np.linspace(OPEN, closed, POSTURES) if gripper_moves else [closed])
    spec = arm_spec(profile)
    for body in spec.bodies:
        if body.name in postures[-1]:
            body.pos, body.quat = postures[-1][body.name]
            body.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT
    for group in (spec.actuators, spec.excludes, spec.pairs):
        for item in list(group):
            spec.delete(item)
    _keep_collision_geometry(spec)
    for i, geom in enumerate(spec.geoms):
        geom.name = geom.name or f"{geom.parent.name}:{i}"
    if gripper_moves:
        _sweep(spec, postures)
    return spec


def corners(model: mujoco.MjModel, geom: int) -> Float[np.ndarray, "V 3"]:
    """Places [m] in the geom's own frame whose convex hull holds it: a mesh's, or those of the box around another."""
    mesh = int(model.geom_dataid[geom])
    start = -1 if mesh < 0 else int(model.mesh_graphadr[mesh])
    if start >= 0:  # MuJoCo's graph of a hull: numbers of its vertices and faces, their edges' begins, then the vertices
        count = int(model.mesh_graph[start])
        return model.mesh_vert[model.mesh_vertadr[mesh] + model.mesh_graph[start + 2 + count : start + 2 + 2 * count]].astype(
            float
        )
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij"), -1).reshape(-1, 3)
    return model.geom_aabb[geom, :3] + signs * model.geom_aabb[geom, 3:]


_Poses = dict[str, tuple[np.ndarray, np.ndarray]]


def _sweep(spec: mujoco.MjSpec, postures: Sequence[_Poses]) -> None:
    """Makes each piece that the postures move the hull of where they put it, fixed to its body in the last of them."""
    model = spec.compile()
    data = mujoco.MjData(model)
    hulls: dict[str, list[np.ndarray]] = {}
    for poses in postures:
        for name, pose in poses.items():
            model.body(name).pos, model.body(name).quat = pose
        mujoco.mj_kinematics(model, data)
        for geom in np.flatnonzero([_moved(model, body, poses) for body in model.geom_bodyid.tolist()]).tolist():
            places = data.geom_xpos[geom] + corners(model, geom) @ data.geom_xmat[geom].reshape(3, 3).T
            hulls.setdefault(model.geom(geom).name, []).append(places)
    for geom in list(spec.geoms):
        if geom.name in hulls:
            body = data.body(geom.parent.name)
            places = (np.concatenate(hulls[geom.name]) - body.xpos) @ body.xmat.reshape(3, 3)
            spec.add_mesh(name=f"{geom.name} swept", uservert=places.ravel())
            geom.type, geom.meshname = mujoco.mjtGeom.mjGEOM_MESH, f"{geom.name} swept"
            geom.pos, geom.quat = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])


def _moved(model: mujoco.MjModel, body: int, poses: _Poses) -> bool:
    """Whether the body or one that carries it is among the poses."""
    while body and model.body(body).name not in poses:
        body = int(model.body_parentid[body])
    return bool(body)


def _settled(profile: RobotProfile, commands: Sequence[float] | Float[np.ndarray, "n"]) -> list[_Poses]:
    """Position and quaternion in their parent's frame of the bodies that the gripper moves, found by letting physics close it.

    For each command, one after the other. Its meshes overlap by design and would jam it; the pads of its fingers are boxes, and
    they stop each other.
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
        return [{} for _ in commands]
    spec.option.gravity = [0.0, 0.0, 0.0]
    model = spec.compile()
    data = mujoco.MjData(model)
    return [_at_rest(model, data, command) for command in commands]


def _at_rest(model: mujoco.MjModel, data: mujoco.MjData, command: float) -> _Poses:
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
    drop_unused_meshes(spec)


def _link(body: mujoco.MjsBody) -> str:
    """Name of the body whose joint carries this one rigidly."""
    while not list(body.joints) and body.parent is not None and body.parent.name != "world":
        body = body.parent
    return body.name
