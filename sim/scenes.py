"""The scene as MuJoCo sees it: the arm on a table, a cube, others beside it, two cameras, and how each of them may look.

Knows no task and no time. Frames: the world frame is the arm's base frame, z up, table top at z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal

import mujoco
import numpy as np

from foresight.contract import TIP_AND_GRIPPER, CameraContract, Contract
from foresight.robots.model import drop_unused_meshes, only_drawn, robot_spec
from foresight.robots.profile import RobotProfile, available_robots, load_profile

Look = Literal["fast", "full"]

CUBE_HALF, CUBE_KG = 0.025, 0.15  # [m], [kg]
TABLE_FRICTION, CUBE_FRICTION = 0.6, 0.5  # sliding
COLOURS = {"red": (0.85, 0.12, 0.10), "green": (0.12, 0.62, 0.20), "blue": (0.12, 0.25, 0.80)}  # of objects that are named
TEXTURES = ("squares", "plain", "stripes", "speckle", "planks")  # of table and floor
PARKED_M = -0.4  # [m] height at which objects wait that are not in the scene: under the table
SQUARE_M = 0.06  # [m] side of the mat's squares
PHYSICS_STEP_S = 0.002
CAMERAS = ("front", "wrist")
IMAGE_SIZE = 128  # [px] side of a delivered frame
MODEL_SIZE = 64  # [px] side of a prepared frame
FRONT_POSITION, FRONT_TARGET, FRONT_FOV = np.array([1.12, 0.0, 0.84]), np.array([0.43, 0.0, 0.04]), 37.0
WRIST_POSITION, WRIST_TARGET, WRIST_FOV = np.array([0.0, 0.09, 0.02]), np.array([0.0, 0.01, 0.20]), 75.0
UNDRAWN = 5  # geom group of the gripper's meshes, which are not drawn
AS_BUILT = 2  # collision bit of what keep-outs meet
FINGER_COMMAND = 255.0  # closed: the gripper is a pusher


def contract(profile: RobotProfile, gripper: bool = False) -> Contract:
    """What a model trained in this scene is bound to; `gripper`: its actions move that too."""
    camera = [CameraContract(name, IMAGE_SIZE, IMAGE_SIZE, (0, 0, IMAGE_SIZE, IMAGE_SIZE), MODEL_SIZE) for name in CAMERAS]
    bound = Contract(profile.name, profile.joint_names, tuple(camera))
    return replace(bound, action=TIP_AND_GRIPPER) if gripper else bound


@dataclass(frozen=True)
class Appearance:
    """How the scene looks: colours, textures, light, camera offsets and noise. The physics does not depend on it."""

    table: tuple[float, float, float] = (0.62, 0.58, 0.52)
    floor: tuple[float, float, float] = (0.32, 0.36, 0.40)
    cube: tuple[float, float, float] = (0.85, 0.12, 0.10)
    arm: tuple[float, float, float] = (0.75, 0.77, 0.80)
    light: float = 0.75
    ambient: float = 0.35
    light_position: tuple[float, float, float] = (0.6, 0.4, 2.0)
    front_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)  # [m]
    front_turn: tuple[float, float, float] = (0.0, 0.0, 0.0)  # [rad] rotation vector
    wrist_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)  # [m]
    wrist_turn: tuple[float, float, float] = (0.0, 0.0, 0.0)  # [rad]
    table_texture: str = "squares"  # one of TEXTURES
    floor_texture: str = "plain"
    shadow: bool = False  # cast by the lamp; costs several times the frame on a CPU
    noise: float = 0.0  # [grey levels] standard deviation of each pixel of each frame
    others: tuple[tuple[float, float, float], ...] = (COLOURS["green"], COLOURS["blue"])  # of the objects beside the cube

    def numbers(self) -> np.ndarray:
        """All of it as a vector, in the order of `names`; a texture is its place in TEXTURES."""
        values = (getattr(self, field.name) for field in fields(self))
        return np.concatenate([np.ravel(TEXTURES.index(v) if isinstance(v, str) else v) for v in values]).astype(np.float32)

    @staticmethod
    def names() -> list[str]:
        """One name for each number."""
        sizes = {field.name: np.size(getattr(Appearance(), field.name)) for field in fields(Appearance)}
        return [name if size == 1 else f"{name}_{i}" for name, size in sizes.items() for i in range(size)]


def check_robot(profile: RobotProfile) -> None:
    """Raises ValueError where the scene cannot be built: the gripper pushes the cube and carries a camera, and position servos
    follow what the controller commands."""

    def lacking(robot: RobotProfile) -> str:
        if robot.model is None:
            return "no model"
        spec = robot_spec(robot)
        parts = {robot.model.gripper_prefix + name for name in ("base", "left_follower", "right_follower")}
        if not {body.name for body in spec.bodies} >= parts:
            return "not the gripper that pushes the cube and carries the camera"
        driven = {actuator.target: actuator for actuator in spec.actuators}
        servos = all(name in driven and driven[name].biasprm[1] < 0 for name in robot.joint_names)
        return "" if servos else "no position servos: the actuators of its model are torque motors"

    if lacks := lacking(profile):
        there = ", ".join(name for name in available_robots() if not lacking(load_profile(name)))
        raise ValueError(f"Robot '{profile.name}' cannot be simulated in this scene: it has {lacks}. Available: {there}.")


def build(profile: RobotProfile, look: Look = "fast", keep_outs: int = 0, zone: bool = False, others: int = 0) -> mujoco.MjModel:
    """The compiled scene; its looks are changed afterwards by `apply`.

    `keep_outs` boxes named "keep_out 0", ... wait far below the floor for somebody to put them in the arm's way. A
    `zone` is a box of that name that nobody sees and nothing touches, for a judge to watch. `others` are cubes named
    "other 0", ... that wait under the table.
    """
    spec = robot_spec(profile)
    spec.option.timestep = PHYSICS_STEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    for light in list(spec.lights):
        spec.delete(light)
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0  # a real arm's controller carries its own weight
    prefix = profile.model.gripper_prefix
    _simplify_gripper(spec, prefix)
    if look == "fast":
        for geom in list(spec.geoms):
            if geom.group == 2 and geom.parent.name.startswith(prefix):
                geom.group = UNDRAWN  # with keep-outs, the gripper meets them as it is built
            elif geom.group == 2 and only_drawn(geom):
                spec.delete(geom)  # the meshes that show the arm cost ten times the frame, and a second of compiling
            elif geom.group == 2:
                geom.group = UNDRAWN
            elif geom.type == mujoco.mjtGeom.mjGEOM_CAPSULE or geom.type == mujoco.mjtGeom.mjGEOM_CYLINDER:
                geom.material = ""
                geom.rgba = [0.75, 0.77, 0.8, 1]
                geom.group = 1
        drop_unused_meshes(spec)
    world = spec.worldbody
    full = look == "full"
    world.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[3, 3, 0.01],
        pos=[0, 0, -0.75],
        rgba=[*Appearance().floor, 1],
        contype=0,
        conaffinity=0,
    )
    # A mat with 6 cm squares lies on the table: on a bare one the wrist camera could not tell how high it is.
    spec.add_texture(
        name="squares",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        width=128,
        height=128,
        rgb1=[1, 1, 1],
        rgb2=[0.78, 0.78, 0.78],
    )
    mat = spec.add_material(name="mat", texrepeat=[1 / (2 * SQUARE_M), 1 / (2 * SQUARE_M)], texuniform=True)
    mat.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "squares"
    _add_textures(spec)
    world.add_geom(
        name="table",
        material="mat",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.55, 0.60, 0.02],
        pos=[0.42, 0, -0.02],
        rgba=[*Appearance().table, 1],
        friction=[TABLE_FRICTION, 0.005, 0.0001],
    )
    cube = world.add_body(name="cube", pos=[0.5, 0, CUBE_HALF])
    cube.add_freejoint(name="cube_joint")
    cube.add_geom(
        name="cube",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[CUBE_HALF] * 3,
        mass=CUBE_KG,
        rgba=[*Appearance().cube, 1],
        friction=[CUBE_FRICTION, 0.005, 0.0001],
    )
    cube.add_geom(
        name="cube_top",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.009, 0.018, 0.0006],
        pos=[0.010, 0, CUBE_HALF],
        mass=0,
        rgba=[0.95, 0.9, 0.85, 1],
        contype=0,
        conaffinity=0,
    )
    for i in range(others):
        other = world.add_body(name=f"other {i}", pos=[0.3 + 0.1 * i, 0, PARKED_M], gravcomp=1.0)
        other.add_freejoint(name=f"other {i} joint")
        other.add_geom(
            name=f"other {i}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[CUBE_HALF] * 3,
            mass=CUBE_KG,
            rgba=[*Appearance().others[i], 1],
            friction=[CUBE_FRICTION, 0.005, 0.0001],
        )
    for i in range(keep_outs):
        world.add_geom(
            name=f"keep_out {i}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.05] * 3,
            pos=[0, 0, -9 - i],
            rgba=[0.9, 0.5, 0.1, 1],
            contype=0,
            conaffinity=AS_BUILT,
        )
    if keep_outs:
        _show_as_built(spec, prefix)
    if zone:
        world.add_geom(
            name="zone",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.01] * 3,
            pos=[0, 0, -0.5],  # makes the scene no larger: what is near a camera is cut off at a share of the scene's size
            contype=0,
            conaffinity=0,
            group=UNDRAWN,
        )
    world.add_light(
        name="lamp",
        pos=[0.6, 0.4, 2.0],
        dir=[0, 0, -1],
        diffuse=[0.75] * 3,
        specular=[0.1] * 3,
        castshadow=True,  # where the renderer is asked for shadows
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
    )
    world.add_camera(name="front", pos=FRONT_POSITION, fovy=FRONT_FOV, quat=_look_at(FRONT_POSITION, FRONT_TARGET))
    spec.body(prefix + "base").add_camera(
        name="wrist",
        pos=WRIST_POSITION,
        fovy=WRIST_FOV,
        quat=_look_at(WRIST_POSITION, WRIST_TARGET, up=np.array([0.0, -1.0, 0.0])),
    )
    spec.visual.quality.offsamples = 4 if full else 0
    spec.visual.quality.shadowsize = 2048 if full else 1024
    if not full:  # half the time of a picture; of its pixels 1 in 300 changes
        spec.visual.quality.numquads, spec.visual.quality.numslices, spec.visual.quality.numstacks = 1, 12, 6
    spec.visual.headlight.diffuse = [0.0] * 3
    spec.visual.headlight.specular = [0.0] * 3
    spec.visual.headlight.ambient = [Appearance().ambient] * 3
    spec.visual.global_.offwidth = spec.visual.global_.offheight = IMAGE_SIZE  # a larger one is cleared for nothing
    return spec.compile()


def _add_textures(spec: mujoco.MjSpec) -> None:
    """A material for each of TEXTURES but the mat's squares and the plain one; the same in every process."""
    size, rng = 64, np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    speckle = np.where(rng.random((size, size)) < 0.25, rng.uniform(0.35, 0.8, (size, size)), 1.0)
    grain = 0.12 * np.sin(0.9 * y + 2 * np.sin(2 * np.pi * x / size)) * (np.arange(size) % 16 > 0)[:, None]
    grey = {
        "stripes": np.where((x // 8) % 2, 1.0, 0.6),
        "speckle": speckle,
        "planks": np.where(y % 16 == 0, 0.45, 0.85 + grain),
    }
    for name, values in grey.items():
        texture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=size, height=size, nchannel=3)
        texture.data = np.repeat(np.clip(255 * values, 0, 255).astype(np.uint8)[..., None], 3, axis=2).tobytes()
        material = spec.add_material(name=name, texrepeat=[1 / (4 * SQUARE_M), 1 / (4 * SQUARE_M)], texuniform=True)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


def _simplify_gripper(spec: mujoco.MjSpec, prefix: str) -> None:
    """Boxes and capsules collide and are drawn in place of the gripper's meshes; the fingertip pads stay as they are."""
    for geom in spec.geoms:
        if geom.type == mujoco.mjtGeom.mjGEOM_MESH and geom.group == 3:
            geom.contype = geom.conaffinity = 0
            geom.group = UNDRAWN
            geom.mass = 0.0
        elif geom.name.startswith(prefix) and "pad" in geom.name:
            geom.group = 1
            geom.rgba = [0.12, 0.12, 0.13, 1]
    spec.body(prefix + "base").add_geom(
        name="palm",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[0.038, 0.045, 0],
        pos=[0, 0, 0.045],
        rgba=[0.2, 0.2, 0.22, 1],
        mass=0,
        group=1,
    )
    for side in ("left", "right"):
        spec.body(f"{prefix}{side}_follower").add_geom(
            name=f"{side}_finger",
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[0, -0.018, 0.0065, 0, -0.0115, 0.024],
            size=[0.008, 0, 0],
            rgba=[0.2, 0.2, 0.22, 1],
            mass=0,
            group=1,
        )


def as_built(model: mujoco.MjModel, prefix: str) -> list[int]:
    """Geoms of the arm and its gripper as their packages have them, without what is drawn in place of meshes."""
    arm = model.body_rootid == model.body_rootid[model.body("base").id]
    found = []
    for geom in map(int, np.flatnonzero(arm[model.geom_bodyid])):
        name, body = model.geom(geom).name, model.body(model.geom_bodyid[geom]).name
        mesh = body.startswith(prefix) and model.geom_group[geom] == UNDRAWN
        if mesh or (model.geom_contype[geom] and name != "palm" and not name.endswith("_finger")):
            found.append(geom)
    return found


def _show_as_built(spec: mujoco.MjSpec, prefix: str) -> None:
    """Keep-outs and the arm meet the gripper as its package has it: what is drawn in place of its meshes is wider."""
    for geom in spec.geoms:
        gripper, stands_in = geom.parent.name.startswith(prefix), geom.name == "palm" or geom.name.endswith("_finger")
        if (gripper and geom.group == UNDRAWN) or (geom.contype and not stands_in):
            geom.contype |= AS_BUILT
            if not gripper and geom.parent.name not in ("world", "cube"):
                geom.conaffinity |= AS_BUILT


def _look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray = np.array([0.0, 0.0, 1.0])) -> np.ndarray:
    """Quaternion of a MuJoCo camera (x right, y up, looking along -z)."""
    z = (position - target) / np.linalg.norm(position - target)
    x = np.cross(up, z)
    x /= np.linalg.norm(x)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([x, np.cross(z, x), z], axis=1).ravel())
    return quaternion


def apply(model: mujoco.MjModel, look: Appearance) -> None:
    """Gives a compiled scene that appearance; shadows and noise are the renderer's to make."""
    model.geom("table").rgba[:3] = look.table
    model.geom("floor").rgba[:3] = look.floor
    model.geom("cube").rgba[:3] = look.cube
    for geom, texture in (("table", look.table_texture), ("floor", look.floor_texture)):
        material = {"plain": -1, "squares": model.material("mat").id}.get(texture)
        model.geom(geom).matid[:] = model.material(texture).id if material is None else material
    named, bare = _geoms(model)
    for geom, colour in zip(named, look.others, strict=False):
        model.geom_rgba[geom, :3] = colour
    model.geom_rgba[bare, :3] = look.arm
    model.vis.headlight.ambient[:] = look.ambient
    light = model.light("lamp").id
    model.light_diffuse[light] = look.light
    position = np.array(look.light_position)
    model.light_pos[light] = position
    direction = np.array([0.47, 0.0, 0.0]) - position
    model.light_dir[light] = direction / np.linalg.norm(direction)
    _place_camera(model, "front", FRONT_POSITION + look.front_offset, FRONT_QUATERNION, look.front_turn)
    _place_camera(model, "wrist", WRIST_POSITION + look.wrist_offset, WRIST_QUATERNION, look.wrist_turn)


@lru_cache(maxsize=4)
def _geoms(model: mujoco.MjModel) -> tuple[list[int], list[int]]:
    """Geoms of the objects beside the cube, and those of the arm that take its colour."""
    names = [model.geom(i).name for i in range(model.ngeom)]
    others = [i for i, name in enumerate(names) if name.startswith("other ")]
    return others, [i for i, name in enumerate(names) if model.geom_group[i] == 1 and model.geom_matid[i] < 0 and not name]


def _place_camera(
    model: mujoco.MjModel, name: str, position: np.ndarray, quaternion: np.ndarray, turn: tuple[float, float, float]
) -> None:
    rotated, extra = np.zeros(4), np.zeros(4)
    angle = float(np.linalg.norm(turn))
    axis = np.array(turn) / angle if angle > 0 else np.array([1.0, 0.0, 0.0])
    mujoco.mju_axisAngle2Quat(extra, axis, angle)
    mujoco.mju_mulQuat(rotated, quaternion, extra)
    camera = model.camera(name).id
    model.cam_pos[camera], model.cam_quat[camera] = position, rotated


FRONT_QUATERNION = _look_at(FRONT_POSITION, FRONT_TARGET)
WRIST_QUATERNION = _look_at(WRIST_POSITION, WRIST_TARGET, np.array([0.0, -1.0, 0.0]))
