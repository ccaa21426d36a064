"""The simulated world behind the interfaces of a real arm: joint states, camera frames, a joint trajectory controller.

Also its judge, which reads true states that the rest of the system never sees. Knows no ROS: time advances only by
`advance`, and the caller decides how fast that is.
"""

from __future__ import annotations

import atexit
import itertools
from dataclasses import dataclass, replace

import mujoco
import numpy as np
from jaxtyping import Float, UInt8

from foresight.data import Box, RobotState, Trajectory
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile
from sim import scenes
from sim.controller import TrajectoryController
from sim.rendering import load_compiler
from sim.tasks import (
    CONTACT_M,
    LIFTED_M,
    PUSH_TOLERANCE_M,
    REACH_TOLERANCE_M,
    REST_S,
    REST_SPEED_M_S,
    TIME_LIMIT_S,
    TIP_PUSHING_M,
    Setting,
    Task,
    box_between,
    draw,
    scene_of,
)
from sim.variation import Body

SERVO_LAG_S = 0.2  # of the package's position servos (damping over stiffness), fed forward as real drives do
JUDGE_EVERY = 5  # physics steps
WORKSPACE_SLACK_M = 0.01
SPEED_SLACK = 1.02
NEAR_SHARE, NEAR_RAD, NEAR_M = 0.95, 0.05, 0.01  # of a speed limit; from a joint's end; from a keep-out: a near-miss
EMBODIED = (
    "geom_size", "geom_rbound", "geom_aabb", "geom_pos", "geom_friction", "body_mass", "body_inertia", "body_subtreemass",
    "body_invweight0", "dof_invweight0", "dof_M0", "dof_length", "bvh_aabb",
)  # fmt: skip
ON_TABLE_M = 0.005  # [m] that a cube may stand higher than it is tall
OPENS_RAD = 0.8  # of the gripper's driver joint, from open to closed
BOX_HALVES_M, BOX_SHARES = (0.03, 0.02, 0.01), (0.5, 0.4, 0.6)  # of keep-outs on the way to a goal: the first that fits
FREE_M = 0.02  # [m] from the arm at its start, and where a goal image shows it, to such a keep-out
DRAWS = 300  # of settings at most, until a keep-out fits
LONGER = 2.0  # times as much time is allowed where there is one


@dataclass(frozen=True)
class Scenario:
    """One episode as its user sees it: what the goal looks like, and the truth about it."""

    task: Task
    seed: int
    goal_images: dict[str, UInt8[np.ndarray, "h w 3"]]  # RGB by camera
    goal_tip: Float[np.ndarray, "3"]  # [m]
    goal_object: Float[np.ndarray, "3"]  # [m]
    time_limit_s: float
    keep_out: Box | None = None  # on the straight way to the goal; nobody sees it
    latency_s: float = 0.0  # [s] from a frame's capture until its command is sent, where time stands still meanwhile
    named: str = "red"  # the object that the goal is about


@dataclass(frozen=True)
class Truth:
    """True states. SI units, base frame."""

    tip: Float[np.ndarray, "3"]
    tip_velocity: Float[np.ndarray, "3"]
    object: Float[np.ndarray, "3"]
    object_quaternion: Float[np.ndarray, "4"]  # w x y z
    object_speed: float


@dataclass(frozen=True)
class Judgement:
    """What the judge saw since the reset."""

    success: bool  # at some time: inside the threshold and at rest, for REST_S without a break
    held_s: float
    distance_m: float
    violations: int  # episodes of breaking a limit, counted when they begin
    violation_detail: str
    entered: int = 0  # times that any part of the arm came into the keep-out
    near_misses: int = 0  # times that a limit was nearly broken: 95 % of a speed, 0.05 rad, the workspace, 1 cm of a keep-out
    path_m: float = 0.0  # way of the tip
    jerk_m_s3: float = 0.0  # root mean square of the tip's jerk
    lifted: bool = False  # the cube was off the table
    object_entered: bool = False  # whether the object came into the keep-out


class Way:
    """Length and jerk of the way through positions that come in one by one."""

    def __init__(self, period_s: float) -> None:
        self.path_m = 0.0
        self._period_s, self._last, self._squares, self._count = period_s, [], 0.0, 0

    def add(self, position: Float[np.ndarray, "3"]) -> None:
        self._last = [*self._last[-3:], position]
        if len(self._last) > 1:
            self.path_m += float(np.linalg.norm(position - self._last[-2]))
        if len(self._last) == 4:
            a, b, c, d = self._last
            jerk = (d - 3 * c + 3 * b - a) / self._period_s**3
            self._squares, self._count = self._squares + float(jerk @ jerk), self._count + 1

    @property
    def jerk_m_s3(self) -> float:
        """Root mean square; 0 of less than four positions."""
        return float(np.sqrt(self._squares / self._count)) if self._count else 0.0


class Simulation:
    """UR5e with a closed 2F-85 gripper, a table, a cube and two cameras. Deterministic for a seed."""

    cameras = scenes.CAMERAS
    judge_every = JUDGE_EVERY
    judging = True  # False: nobody counts, which saves an eighth of the time of collecting

    def __init__(
        self,
        seed: int,
        profile: RobotProfile,
        look: scenes.Look = "fast",
        keep_outs: int = 0,
        zone: bool = False,
        others: int = 0,
    ) -> None:
        """`zone`: a reset puts a keep-out on the way to the goal, which the judge watches. `others`: objects beside the cube."""
        self.profile, self.look = profile, look
        self.kinematics = MujocoKinematics(profile)
        self.model = scenes.build(profile, look, keep_outs, zone, others)
        self._zone = self.model.geom("zone").id if zone else None
        self.data = mujoco.MjData(self.model)
        self.appearance, self.body = scenes.Appearance(), Body()
        self.seed_noise(seed)
        self._nominal = {name: getattr(self.model, name).copy() for name in EMBODIED}
        self._goal_data = mujoco.MjData(self.model)
        self._renderer: mujoco.Renderer | None = None
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = [1, 1, 1, 0, 0, 0]
        self._joints = len(profile.joint_names)
        self._tip_site = self.model.site(profile.model.gripper_prefix + profile.model.tip_site).id
        self._cube_q = self.model.joint("cube_joint").qposadr[0]
        self._cube_v = self.model.joint("cube_joint").dofadr[0]
        self._other_q = [self.model.joint(f"other {i} joint").qposadr[0] for i in range(others)]
        self._other_v = [self.model.joint(f"other {i} joint").dofadr[0] for i in range(others)]
        self._hand_geoms = self._robot_geoms()
        self._as_built = scenes.as_built(self.model, profile.model.gripper_prefix)
        self._table, self._cube = self.model.geom("table").id, self.model.geom("cube").id
        self._driver_q = self.model.joint(profile.model.gripper_prefix + "right_driver_joint").qposadr[0]
        self._rest = self.kinematics.solve(np.array([0.47, 0.0, 0.15]), profile.home)
        self._closed, self._opened = self._move_gripper(scenes.FINGER_COMMAND), self._move_gripper(0.0)
        self.time_offset_s = 0.0
        self.reset("reach", seed)

    # -- what a real arm offers ------------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        return self.time_offset_s + self.data.time

    def command(self, trajectory: Trajectory) -> bool:
        """Offers a trajectory to the arm's controller; False when it lies wholly in the past."""
        return self._controller.accept(trajectory, self.time_s)

    def setpoints(self, times_s: Float[np.ndarray, "N"]) -> tuple[Float[np.ndarray, "N J"], Float[np.ndarray, "N J"]]:
        """Position [rad] and velocity [rad/s] that the controller asks of the joints then, if no other command comes before."""
        return self._controller.setpoints(times_s)

    def halt(self) -> None:
        """The arm's own driver brakes it, whatever was commanded."""
        self._controller.halt(self.profile, self.time_s)

    def state(self) -> RobotState:
        """Measured joints now."""
        joints = slice(0, self._joints)
        return RobotState(self.time_s, self.data.qpos[joints].copy(), self.data.qvel[joints].copy(), self.opening())

    def images(self) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """A frame of every camera, RGB, captured now."""
        return self._render(self.data)

    def grip(self, closed: float) -> None:
        """Commands the gripper: 0 open, 1 closed. A reset closes it, or opens it where the task needs that."""
        self.data.ctrl[self._joints] = closed * scenes.FINGER_COMMAND

    def others(self) -> Float[np.ndarray, "2 7"]:
        """True position and quaternion of the objects beside the cube; NaN where there is none."""
        poses = np.full((2, 7), np.nan)
        for i, at in enumerate(self._other_q[: len(self.setting.others)]):
            poses[i] = self.data.qpos[at : at + 7]
        return poses

    def opening(self) -> float:
        """How far the gripper is open, measured: 0 closed, 1 open."""
        return float(np.clip(1 - self.data.qpos[self._driver_q] / OPENS_RAD, 0, 1))

    def camera_info(self, camera: str) -> tuple[Float[np.ndarray, "3 3"], int, int]:
        """Intrinsic matrix, width and height [px] of an ideal pinhole."""
        size = scenes.IMAGE_SIZE
        focal = size / 2 / np.tan(np.radians(self.model.camera(camera).fovy[0]) / 2)
        return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]), size, size

    # -- what a simulation offers beyond ----------------------------------------------------------------------

    def reset(self, task: Task, seed: int, shift: str = "none") -> Scenario:
        """A new episode; time goes on from where it was. Same seed, same episode."""
        setting, variation, rng = scene_of(task, seed, shift)
        self.look_like(variation.appearance)
        self.embody(variation.body)
        keep_out = None
        for _ in range(DRAWS if self._zone is not None else 0):
            keep_out = self._box_between(setting)
            if keep_out is not None:
                break
            setting = draw(task, rng)
        if self._zone is not None and keep_out is None:
            raise ValueError(f"No keep-out fits on the way to the goal in {DRAWS} scenes of '{task}' from seed {seed} on.")
        self.seed_noise(seed)
        self.place(setting)
        self._place_on(self._goal_data, setting, goal=True)
        return Scenario(
            task,
            seed,
            self._render(self._goal_data),
            setting.goal_tip.copy(),
            np.array([*setting.goal_cube, self.body.half_m]),
            TIME_LIMIT_S[task] * (1 if keep_out is None else LONGER),
            keep_out,
            variation.latency_s,
            setting.named,
        )

    def seed_noise(self, seed: int) -> None:
        """The noise of the pictures from here on; a reset does the same with its own seed."""
        self._sensor = np.random.default_rng([seed, 11])

    def restart_clock(self) -> None:
        """The next reset begins at 0 s: an episode must not depend on those before it, to the last digit."""
        self.time_offset_s = self.data.time = 0.0

    def place(self, setting: Setting) -> None:
        """Puts arm, cube and other objects at the start of a setting, at rest, and lets the judge begin anew."""
        if len(setting.others) > len(self._other_q):
            raise ValueError(
                f"The setting has {len(setting.others)} objects beside the cube, this simulation was built with "
                f"{len(self._other_q)}. Build it with others={len(setting.others)}."
            )
        self.time_offset_s = self.time_s
        mujoco.mj_resetData(self.model, self.data)
        q = self._place_on(self.data, setting)
        self._controller = TrajectoryController(q, self.time_s)
        self.setting = setting
        self._held_since: float | None = None
        self._success, self._violations, self._detail, self._near, self._lifted = False, 0, "", 0, False
        self._entered, self._inside, self._object_entered = 0, False, False
        self._broken: set[str] = set()
        self._nearly: set[str] = set()
        self._ticks = 0  # of the physics, so that the judge looks at even times
        self._way = Way(self.judge_every * scenes.PHYSICS_STEP_S)

    def look_like(self, appearance: scenes.Appearance) -> None:
        """Changes colours, light and cameras; the physics stays as it is."""
        if appearance is not self.appearance:
            self.appearance = appearance
            scenes.apply(self.model, appearance)

    def embody(self, body: Body) -> None:
        """Changes the cube's size and mass, and the friction of cube and table. To be followed by a reset or `place`."""
        if body == self.body:
            return
        m, cube, top = self.model, self.model.geom("cube").id, self.model.geom("cube_top").id
        for name, nominal in self._nominal.items():  # first as it was built, so that what was before leaves no trace
            getattr(m, name)[:] = nominal
        m.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
        self.body = body
        if body == Body():
            return
        half = body.half_m
        m.geom_size[cube], m.geom_rbound[cube], m.geom_aabb[cube] = half, half * np.sqrt(3), [0, 0, 0, half, half, half]
        m.geom_size[top, :2] *= half / scenes.CUBE_HALF
        m.geom_pos[top] *= half / scenes.CUBE_HALF
        m.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)  # its tree is built once, from the first size
        m.geom_friction[[cube, self._table], 0] *= body.friction
        m.body("cube").mass[:], m.body("cube").inertia[:] = body.mass_kg, body.mass_kg * (2 * half) ** 2 / 6
        mujoco.mj_setConst(m, mujoco.MjData(m))

    def advance(self, duration_s: float) -> None:
        """Physics at 500 Hz for that long; the controller runs at the same rate."""
        steps = round(duration_s / scenes.PHYSICS_STEP_S)
        q, dq = self._controller.setpoints(self.time_s + scenes.PHYSICS_STEP_S * np.arange(1, steps + 1))
        model, data, servos = self.model, self.data, self.data.ctrl[: self._joints]
        for servos[:] in q + SERVO_LAG_S * dq:
            mujoco.mj_step(model, data)
            if self.judging and self._ticks % self.judge_every == 0:
                self._judge()
            self._ticks += 1

    def truth(self) -> Truth:
        d = self.data
        jacobian = np.zeros((3, self.model.nv))
        mujoco.mj_jacSite(self.model, d, jacobian, None, self._tip_site)
        cube = d.qpos[self._cube_q : self._cube_q + 7]
        speed = float(np.linalg.norm(d.qvel[self._cube_v : self._cube_v + 3]))
        return Truth(d.site_xpos[self._tip_site].copy(), jacobian @ d.qvel, cube[:3].copy(), cube[3:].copy(), speed)

    def touches_object(self) -> bool:
        """Whether the arm or its gripper touches the cube."""
        return self._touched_by_arm(self._cube)

    def judgement(self) -> Judgement:
        held = 0.0 if self._held_since is None else self.time_s - self._held_since
        return Judgement(
            self._success, held, self._distance(), self._violations, self._detail, self._entered,
            self._near, self._way.path_m, self._way.jerk_m_s3, self._lifted, self._object_entered,
        )  # fmt: skip

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
            atexit.unregister(self.close)

    # -- inside -----------------------------------------------------------------------------------------------

    def _distance(self) -> float:
        if self.setting.task == "reach":
            return float(np.linalg.norm(self.data.site_xpos[self._tip_site] - self.setting.goal_tip))
        return float(np.linalg.norm(self.data.qpos[self._cube_q : self._cube_q + 2] - self.setting.goal_cube))

    def _judge(self) -> None:
        """Success by holding still at the goal, and limits as the true states keep or break them."""
        truth, profile = self.truth(), self.profile
        tip_speed = float(np.linalg.norm(truth.tip_velocity))
        tolerance = REACH_TOLERANCE_M if self.setting.task == "reach" else PUSH_TOLERANCE_M
        still = tip_speed < REST_SPEED_M_S and truth.object_speed < REST_SPEED_M_S
        under_m = truth.object[2] - self.body.half_m
        self._lifted |= bool(under_m > LIFTED_M)
        there = self._distance() < tolerance and (not self.setting.gripping or (self._lifted and under_m < ON_TABLE_M))
        self._way.add(truth.tip)
        if not (still and there):
            self._held_since = None
        elif self._held_since is None:
            self._held_since = self.time_s
        elif self.time_s - self._held_since >= REST_S - 1e-9:
            self._success = True
        q, dq = self.data.qpos[: self._joints], self.data.qvel[: self._joints]
        low, high = profile.workspace_min - WORKSPACE_SLACK_M, profile.workspace_max + WORKSPACE_SLACK_M
        broken = {
            "joint position": bool((q < profile.position_min).any() or (q > profile.position_max).any()),
            "joint velocity": bool((np.abs(dq) > SPEED_SLACK * np.minimum(profile.velocity_max, profile.joint_speed_max)).any()),
            "tip speed": tip_speed > SPEED_SLACK * profile.tip_speed_max,
            "workspace": bool((truth.tip < low).any() or (truth.tip > high).any()),
            "arm on table": self._touched_by_arm(self._table),
        }
        for name in (n for n, b in broken.items() if b and n not in self._broken):
            self._violations += 1
            self._detail = self._detail or f"{name} at {self.time_s:.2f} s"  # the first: what follows is often its consequence
        self._broken = {n for n, b in broken.items() if b}
        clearance = self._from_zone(self.data, NEAR_M) if self._zone is not None else np.inf
        near = {
            "joint position": bool((q < profile.position_min + NEAR_RAD).any() or (q > profile.position_max - NEAR_RAD).any()),
            "joint velocity": bool((np.abs(dq) > NEAR_SHARE * np.minimum(profile.velocity_max, profile.joint_speed_max)).any()),
            "tip speed": tip_speed > NEAR_SHARE * profile.tip_speed_max,
            "workspace": bool((truth.tip < profile.workspace_min).any() or (truth.tip > profile.workspace_max).any()),
            "keep-out": clearance < NEAR_M,
        }
        self._near += sum(b and n not in self._nearly for n, b in near.items())
        self._nearly = {n for n, b in near.items() if b}
        if self._zone is not None:
            inside = clearance < 0
            self._entered, self._inside = self._entered + (inside and not self._inside), inside
            self._object_entered |= mujoco.mj_geomDistance(self.model, self.data, self._cube, self._zone, 1e-3, None) < 0

    def _box_between(self, setting: Setting) -> Box | None:
        """A keep-out on the way that leaves the arm free at the start and where the goal images show it; None: there is none."""
        for half_m, share in itertools.product(BOX_HALVES_M, BOX_SHARES):
            box = box_between(setting, half_m, share)
            self.model.geom_pos[self._zone], self.model.geom_size[self._zone] = (box.low + box.high) / 2, (box.high - box.low) / 2
            self.model.geom_rbound[self._zone] = np.linalg.norm(box.high - box.low) / 2
            ends = [setting, replace(setting, tip=setting.goal_tip, cube=setting.goal_cube)]
            if setting.task != "reach":  # the cube can be brought to its goal by the straight way's end, if not by its middle
                step = (setting.goal_cube - setting.cube) / np.linalg.norm(setting.goal_cube - setting.cube)
                pushed = np.append(setting.goal_cube - CONTACT_M * step, TIP_PUSHING_M)
                ends.append(replace(setting, tip=pushed, cube=setting.goal_cube))
            if all(self._free_at(end) for end in ends):
                return box
        return None

    def _free_at(self, setting: Setting) -> bool:
        self._place_on(self._goal_data, setting)
        return self._from_zone(self._goal_data, 2 * FREE_M) > FREE_M

    def _from_zone(self, data: mujoco.MjData, up_to_m: float) -> float:
        """How far [m] the arm is from the keep-out, exact below `up_to_m`; below 0 inside."""
        pairs = ((geom, self._zone) for geom in self._as_built)
        return min(mujoco.mj_geomDistance(self.model, data, *pair, up_to_m + 1e-3, None) for pair in pairs)

    def _touched_by_arm(self, geom: int) -> bool:
        contacts = self.data.contact.geom[: self.data.ncon]
        other = np.where(contacts[:, 0] == geom, contacts[:, 1], np.where(contacts[:, 1] == geom, contacts[:, 0], -1))
        return bool(np.isin(other, self._hand_geoms).any())

    def _robot_geoms(self) -> np.ndarray:
        """Geoms of every body that hangs on the arm, without its base, which stands on the table."""
        base = self.model.body("base").id
        moving = [b for b in range(self.model.nbody) if b != base and self.model.body_rootid[b] == self.model.body_rootid[base]]
        return np.flatnonzero(np.isin(self.model.geom_bodyid, moving))

    def _move_gripper(self, command: float) -> np.ndarray:
        """Joint positions of the gripper under a command, found by letting the physics move it once."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[: self._joints] = self._rest
        self.data.ctrl[: self._joints] = self._rest
        self.data.qpos[self._cube_q : self._cube_q + 3] = [0.6, 0.4, scenes.CUBE_HALF]
        self.data.ctrl[self._joints] = command
        mujoco.mj_step(self.model, self.data, 500)
        return self.data.qpos[self._joints : self._cube_q].copy()

    def _place_on(self, data: mujoco.MjData, setting: Setting, goal: bool = False) -> np.ndarray:
        """Puts the start of a setting, or its goal, into `data`; the joints of the arm."""
        tip, cube = (setting.goal_tip, setting.goal_cube) if goal else (setting.tip, setting.cube)
        q = self.kinematics.solve(tip, self._rest)
        if q is None:
            raise ValueError(f"The arm cannot put its tip at {np.round(tip, 3).tolist()} m.")
        data.qpos[: self._joints] = q
        data.qpos[self._joints : self._cube_q] = self._opened if setting.gripping else self._closed
        data.qpos[self._cube_q : self._cube_q + 7] = _standing(*cube, setting.cube_yaw, self.body.half_m)
        for i, at in enumerate(self._other_q):
            there = i < len(setting.others)
            place = _standing(*setting.others[i], scenes.CUBE_HALF) if there else _standing(0.3 + 0.1 * i, 0, 0, scenes.PARKED_M)
            data.qpos[at : at + 7] = place
            self.model.body_gravcomp[self.model.body(f"other {i}").id] = 0.0 if there else 1.0
            self.model.geom_group[self.model.geom(f"other {i}").id] = 0 if there else scenes.UNDRAWN
        data.qvel[:] = 0
        data.ctrl[: self._joints], data.ctrl[self._joints] = q, 0.0 if setting.gripping else scenes.FINGER_COMMAND
        mujoco.mj_forward(self.model, data)
        return q

    def _render(self, data: mujoco.MjData) -> dict[str, np.ndarray]:
        if self._renderer is None:
            load_compiler()
            self._renderer = mujoco.Renderer(self.model, scenes.IMAGE_SIZE, scenes.IMAGE_SIZE)
            atexit.register(self.close)  # freed later, when EGL has gone, it would complain
            flags = self._renderer.scene.flags
            flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = self.look == "full"
            flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False
            scenes.apply(self.model, self.appearance)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self.look == "full" or self.appearance.shadow
        if data is self.data:
            mujoco.mj_camlight(self.model, data)  # cameras and lights as they stand now, without touching the physics
        else:
            mujoco.mj_forward(self.model, data)
        frames = {}
        for camera in self.cameras:
            self._renderer.update_scene(data, camera, self._options)
            frames[camera] = self._renderer.render().copy()
            if self.appearance.noise:
                noise = self._sensor.normal(0, self.appearance.noise, frames[camera].shape)
                frames[camera] = np.clip(frames[camera] + noise, 0, 255).astype(np.uint8)
        return frames


def _standing(x: float, y: float, yaw: float, z: float) -> list[float]:
    """Position and quaternion of an object on the table."""
    return [x, y, z, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
