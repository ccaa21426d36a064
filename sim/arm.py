"""A bare simulated arm of any robot whose profile has a model: physics, drives, a trajectory controller, and a judge.

The judge reads true states at 500 Hz, which the rest of the system never sees, and reads the profile's limits by itself.
Knows no ROS, no camera and no task: time advances only by `advance`.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Float

from foresight.data import RobotState, Trajectory
from foresight.robots.model import arm_spec, drop_drawn, model_source
from foresight.robots.profile import RobotProfile
from sim.controller import TrajectoryController

STEP_S = 0.002  # of physics, controller and judge
DRIVE_RATE = 50.0  # [1/s] at which a critically damped drive takes back an error
STOP_MARGIN = 0.2  # [rad] from the profile's position limits to the mechanical stops, so that crossing a limit can be seen
POSITION_SLACK = 1e-3  # [rad]
SPEED_SLACK = 0.01  # share of the limit, for joints and tip
REST_RAD_S = 0.005  # [rad/s] a joint at rest is slower


@dataclass(frozen=True)
class Violation:
    """One limit broken, from the moment it began."""

    kind: str  # "joint position", "joint speed", "tip speed" or "contact"
    what: str  # the joint, the tip or the two bodies
    at_s: float
    value: float  # the true value when it began: [rad], [rad/s], [m/s], or depth [m] of a contact
    allowed: float  # the limit it broke, same unit

    def __str__(self) -> str:
        return f"{self.kind} of {self.what} at {self.at_s:.3f} s: {self.value:.4f}, allowed {self.allowed:.4f}"


class ArmSimulation:
    """The arm with its gripper frozen, on a table at z = 0 (or none). Deterministic.

    The drives know its masses and follow by inverse dynamics with feedback, within the profile's torques where it has any;
    what they do not know is the friction in the joints. So the judge sees the command's faults, not those of a bad drive.
    """

    def __init__(
        self, profile: RobotProfile, q: Float[np.ndarray, "J"] | None = None, table: bool = True, start_s: float = 0.0
    ) -> None:
        source = model_source(profile)
        self.profile = profile
        self.model = _build(profile, table)
        self.data = mujoco.MjData(self.model)
        self._tip = self.model.site(source.gripper_prefix + source.tip_site).id
        self._torque = np.full(len(profile.joint_names), np.inf) if profile.torque_max is None else profile.torque_max
        self.reset(profile.home if q is None else q, start_s)

    def reset(self, q: Float[np.ndarray, "J"], start_s: float = 0.0) -> None:
        """Puts the arm at rest at q [rad] and lets the judge begin anew."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.time, self.data.qpos[:] = start_s, q
        mujoco.mj_forward(self.model, self.data)
        self._commanded = np.array(q, dtype=np.float64)  # of the step before
        self._controller = TrajectoryController(self._commanded, start_s)
        self.violations: list[Violation] = []
        self.moved_s = start_s  # when a joint last moved
        self._broken: set[tuple[str, str]] = set()

    @property
    def time_s(self) -> float:
        return float(self.data.time)

    def state(self) -> RobotState:
        """Measured joints now: the true ones."""
        return RobotState(self.time_s, self.data.qpos.copy(), self.data.qvel.copy())

    def command(self, trajectory: Trajectory) -> bool:
        """Offers a trajectory to the arm's controller; False when it lies wholly in the past."""
        return self._controller.accept(trajectory, self.time_s)

    def advance(self, duration_s: float) -> None:
        """Physics, controller and judge at 500 Hz for that long, to the nearest step."""
        steps = round(duration_s / STEP_S)
        q, _ = self._controller.setpoints(self.time_s + STEP_S * np.arange(steps + 1))
        dq = np.diff(q, axis=0, prepend=self._commanded[None]) / STEP_S  # as the physics integrates: q follows from dq
        for i, ddq in enumerate(np.diff(dq, axis=0) / STEP_S):
            mujoco.mj_step1(self.model, self.data)
            self._judge()
            self._drive(q[i], dq[i], ddq)
            self._commanded = q[i]
            mujoco.mj_step2(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)

    def tip_speed(self) -> float:
        """True speed [m/s] of the tool centre point."""
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(self.model, self.data, mujoco.mjtObj.mjOBJ_SITE, self._tip, velocity, 0)
        return float(np.linalg.norm(velocity[3:]))

    def _drive(self, q: np.ndarray, dq: np.ndarray, ddq: np.ndarray) -> None:
        d, torque = self.data, np.empty(self.model.nv)
        wanted = ddq + DRIVE_RATE * (2 * (dq - d.qvel) + DRIVE_RATE * (q - d.qpos))
        mujoco.mj_mulM(self.model, d, torque, wanted)
        torque += d.qfrc_bias - d.qfrc_passive
        d.qfrc_applied[:] = np.clip(torque, -self._torque, self._torque)

    def _judge(self) -> None:
        d, profile = self.data, self.profile
        q, speed = d.qpos, np.abs(d.qvel)
        if speed.max() > REST_RAD_S:
            self.moved_s = self.time_s
        broken: dict[tuple[str, str], tuple[float, float]] = {}
        nearest = np.clip(q, profile.position_min, profile.position_max)
        for j in np.flatnonzero(np.abs(q - nearest) > POSITION_SLACK):
            broken["joint position", profile.joint_names[j]] = float(q[j]), float(nearest[j])
        allowed = np.minimum(profile.velocity_max, profile.joint_speed_max)
        if profile.velocity_law is not None:
            law = profile.velocity_law
            room = np.where(d.qvel > 0, law.upper - q, q - law.lower)
            allowed = np.minimum(allowed, np.fmax(np.sqrt(law.gain * np.fmax(room, 0.0)) + law.offset, 0.0))
        for j in np.flatnonzero(speed > (1 + SPEED_SLACK) * allowed + REST_RAD_S):
            broken["joint speed", profile.joint_names[j]] = float(speed[j]), float(allowed[j])
        if (tip_speed := self.tip_speed()) > (1 + SPEED_SLACK) * profile.tip_speed_max:
            broken["tip speed", "the tip"] = tip_speed, profile.tip_speed_max
        for i in range(d.ncon):
            pair = sorted(self.model.body(self.model.geom_bodyid[g]).name for g in d.contact.geom[i])
            broken.setdefault(("contact", " and ".join(pair)), (-float(d.contact.dist[i]), 0.0))
        for key in broken.keys() - self._broken:
            self.violations.append(Violation(*key, self.time_s, *broken[key]))
        self._broken = set(broken)


def _build(profile: RobotProfile, table: bool) -> mujoco.MjModel:
    spec = arm_spec(profile)
    drop_drawn(spec)  # nobody looks at it
    for actuator in list(spec.actuators):
        spec.delete(actuator)  # the drives act on the joints directly
    spec.option.timestep, spec.option.integrator = STEP_S, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    for name, low, high in zip(profile.joint_names, profile.position_min, profile.position_max, strict=True):
        spec.joint(name).range = [low - STOP_MARGIN, high + STOP_MARGIN]
    if table:
        spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[2, 2, 0.1])
    return spec.compile()
