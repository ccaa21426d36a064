"""Kinematics of one robot: joints to tool centre point and back, with the tool pointing down.

The only part of the core that imports MuJoCo at module level. Knows no time, no limits but the joints' own.
"""

from __future__ import annotations

import mink
import mujoco
import numpy as np
from jaxtyping import Float

from foresight.robots.chain import Chain
from foresight.robots.model import robot_spec
from foresight.robots.profile import RobotProfile


class MujocoKinematics:
    """Forward and inverse kinematics by MuJoCo and mink. Not thread-safe: it owns one scratch state."""

    def __init__(self, profile: RobotProfile) -> None:
        spec = robot_spec(profile)
        _freeze_gripper(spec, profile.model.gripper_prefix)
        self.profile = profile
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        names = tuple(self.model.joint(i).name for i in range(self.model.njnt))
        if names != profile.joint_names:
            raise ValueError(f"Robot '{profile.name}': profile lists joints {profile.joint_names}, its model has {names}.")
        self._site = self.model.site(profile.model.gripper_prefix + profile.model.tip_site).id
        self._chain = Chain(self.model, self._site)
        self._configuration = mink.Configuration(self.model)
        self._task = mink.FrameTask(
            profile.model.gripper_prefix + profile.model.tip_site, "site", position_cost=1.0, orientation_cost=0.3
        )
        self._limits = [mink.ConfigurationLimit(self.model)]
        self._rotation = self._forward(profile.home).site_xmat[self._site].reshape(3, 3).copy()

    def _forward(self, q: Float[np.ndarray, "J"]) -> mujoco.MjData:
        self.data.qpos[:] = q
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        return self.data

    def tip(self, q: Float[np.ndarray, "J"]) -> Float[np.ndarray, "3"]:
        """Tool centre point [m] in the base frame."""
        return self._forward(q).site_xpos[self._site].copy()

    def tips(self, q: Float[np.ndarray, "N J"]) -> Float[np.ndarray, "N 3"]:
        """Tool centre points [m] of many joint positions."""
        return np.array([self.tip(row) for row in q]).reshape(-1, 3)

    def jacobian(self, q: Float[np.ndarray, "J"]) -> Float[np.ndarray, "6 J"]:
        """Linear [m/rad] over angular [rad/rad] velocity of the tip per joint velocity."""
        jacobian = np.zeros((6, self.model.nv))
        mujoco.mj_jacSite(self.model, self._forward(q), jacobian[:3], jacobian[3:], self._site)
        return jacobian

    def tip_velocity(self, q: Float[np.ndarray, "J"], dq: Float[np.ndarray, "J"]) -> Float[np.ndarray, "3"]:
        """Velocity [m/s] of the tool centre point."""
        return self.jacobian(q)[:3] @ dq

    def tip_motion(
        self, q: Float[np.ndarray, "N J"], dq: Float[np.ndarray, "N J"]
    ) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
        """Positions [m] and velocities [m/s] of the tool centre point at many instants, quickly."""
        return self._chain.motion(q, dq)

    def dynamics(
        self, q: Float[np.ndarray, "N J"], dq: Float[np.ndarray, "N J"]
    ) -> tuple[Float[np.ndarray, "N J J"], Float[np.ndarray, "N J"]]:
        """Joint-space inertia [kg m^2] and the torque [Nm] of gravity and velocity: torque = inertia @ ddq + that."""
        joints = self.model.nv
        inertia, bias = np.zeros((len(q), joints, joints)), np.zeros((len(q), joints))
        for i in range(len(q)):
            self.data.qpos[:], self.data.qvel[:] = q[i], dq[i]
            self._forward(q[i])
            mujoco.mj_crb(self.model, self.data)
            mujoco.mj_fullM(self.model, self.data, inertia[i])
            mujoco.mj_comVel(self.model, self.data)
            mujoco.mj_rne(self.model, self.data, 0, bias[i])
        return inertia, bias

    def rotation(self, q: Float[np.ndarray, "J"]) -> Float[np.ndarray, "3 3"]:
        """Orientation of the tool in the base frame."""
        return self._forward(q).site_xmat[self._site].reshape(3, 3).copy()

    def tilt(self, rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
        """The turn [rad, rotation vector in the base frame] that brings the tool upright, as at home."""
        return mink.SO3.from_matrix(self._rotation @ rotation.T).log()

    def turned(self, rotation: Float[np.ndarray, "3 3"], turn: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
        """The orientation after a turn [rad, rotation vector in the base frame]."""
        return mink.SO3.exp(turn).as_matrix() @ rotation

    def joint_velocity(
        self,
        q: Float[np.ndarray, "J"],
        tip_velocity: Float[np.ndarray, "3"],
        angular_velocity: Float[np.ndarray, "3"] = np.zeros(3),
    ) -> Float[np.ndarray, "J"]:
        """Joint velocity [rad/s] that moves [m/s] and turns [rad/s] the tip so (damped least squares)."""
        jacobian = self.jacobian(q)
        twist = np.concatenate([tip_velocity, angular_velocity])
        return jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(6), twist)

    def solve(
        self,
        tip: Float[np.ndarray, "3"],
        near: Float[np.ndarray, "J"],
        tolerance_m: float = 2e-5,
        rotation: Float[np.ndarray, "3 3"] | None = None,
    ) -> Float[np.ndarray, "J"] | None:
        """Joint positions [rad] that put the tip there, tool turned so or as at home, found from `near`; None if out of reach."""
        self._configuration.update(near)
        target = mink.SO3.from_matrix(self._rotation if rotation is None else rotation)
        self._task.set_target(mink.SE3.from_rotation_and_translation(target, tip))
        for _ in range(20):
            error = self._task.compute_error(self._configuration)
            if np.linalg.norm(error[:3]) < tolerance_m and np.linalg.norm(error[3:]) < 10 * tolerance_m:
                return self._configuration.q.copy()
            velocity = mink.solve_ik(self._configuration, [self._task], 1.0, "daqp", damping=1e-6, limits=self._limits)
            self._configuration.integrate_inplace(velocity, 1.0)
        return None


def _freeze_gripper(spec: mujoco.MjSpec, prefix: str) -> None:
    """Removes the gripper's joints and what hangs on them: the tip does not depend on its fingers."""
    for group in (spec.equalities, spec.tendons):
        for item in list(group):
            spec.delete(item)
    for actuator in list(spec.actuators):
        if actuator.name.startswith(prefix):
            spec.delete(actuator)
    for joint in list(spec.joints):
        if joint.name.startswith(prefix):
            spec.delete(joint)
