"""Kinematics of one robot: joints to tool centre point and back, with the tool pointing down.

The only part of the core that imports MuJoCo at module level. Knows no time, no limits but the joints' own.
"""

from __future__ import annotations

import mink
import mujoco
import numpy as np
from jaxtyping import Float

from foresight.robots.chain import Chain
from foresight.robots.model import arm_spec, drop_drawn, model_source
from foresight.robots.profile import RobotProfile

ORIENTING_JOINTS = 6  # an arm of fewer cannot choose its tool's orientation
NEWTON_STEPS = 8
COSTS = np.array([1.0, 1.0, 1.0, 0.3, 0.3, 0.3])  # of being off by 1 m, and by 1 rad, in inverse kinematics
DAMPING = 1e-6  # of the joints' steps


class MujocoKinematics:
    """Forward and inverse kinematics by MuJoCo and mink. Not thread-safe: it owns one scratch state.

    On an arm of fewer than six joints inverse kinematics places the tip and leaves the tool's orientation to the arm.
    """

    def __init__(self, profile: RobotProfile) -> None:
        source = model_source(profile)
        self.profile = profile
        spec = arm_spec(profile)
        drop_drawn(spec)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        tip = source.gripper_prefix + source.tip_site
        self._site = self.model.site(tip).id
        self._turns = self.model.nv >= ORIENTING_JOINTS
        self._chain = Chain(self.model, self._site)
        self._configuration = mink.Configuration(self.model)
        self._task = mink.FrameTask(tip, "site", position_cost=COSTS[0], orientation_cost=COSTS[3] * self._turns)
        self._limits = [mink.ConfigurationLimit(self.model)]
        self._rotation = self.rotation(profile.home)

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
        model, data, place, found = self.model, self.data, self.data.site_xpos[self._site], np.empty((len(q), 3))
        position = data.qpos
        for i in range(len(q)):
            position[:] = q[i]
            mujoco.mj_kinematics(model, data)
            found[i] = place
        return found

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

    def torques(
        self, q: Float[np.ndarray, "N J"], dq: Float[np.ndarray, "N J"], ddq: Float[np.ndarray, "N J"]
    ) -> Float[np.ndarray, "N J"]:
        """Joint torques [Nm] of rigid bodies by MuJoCo's inverse dynamics, without contacts, limits, friction and damping."""
        model, data, found = self.model, self.data, np.empty((len(q), self.model.nv))
        flags = model.opt.disableflags
        model.opt.disableflags = flags | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT | mujoco.mjtDisableBit.mjDSBL_CONTACT
        try:
            for i in range(len(q)):
                data.qpos[:], data.qvel[:], data.qacc[:] = q[i], dq[i], ddq[i]
                mujoco.mj_inverse(model, data)
                found[i] = data.qfrc_inverse + data.qfrc_passive
        finally:
            model.opt.disableflags = flags
        return found

    def rotation(self, q: Float[np.ndarray, "J"]) -> Float[np.ndarray, "3 3"]:
        """Orientation of the tool in the base frame."""
        self._forward(q)
        return self._site_rotation().copy()

    def tilt(self, rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
        """The turn [rad, rotation vector in the base frame] that brings the tool upright, as at home."""
        return self._turn(self._rotation, rotation)

    def turned(self, rotation: Float[np.ndarray, "3 3"], turn: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
        """The orientation after a turn [rad, rotation vector in the base frame]."""
        angle, quaternion, matrix = float(np.linalg.norm(turn)), np.empty(4), np.empty(9)
        mujoco.mju_axisAngle2Quat(quaternion, turn / max(angle, 1e-12), angle)
        mujoco.mju_quat2Mat(matrix, quaternion)
        return matrix.reshape(3, 3) @ rotation

    def joint_velocity(
        self,
        q: Float[np.ndarray, "J"],
        tip_velocity: Float[np.ndarray, "3"],
        angular_velocity: Float[np.ndarray, "3"] = np.zeros(3),
    ) -> Float[np.ndarray, "J"]:
        """Joint velocity [rad/s] that moves [m/s] and turns [rad/s] the tip so (damped least squares)."""
        rows = 6 if self._turns else 3
        jacobian = self.jacobian(q)[:rows]
        twist = np.concatenate([tip_velocity, angular_velocity])[:rows]
        return jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(rows), twist)

    def solve(
        self,
        tip: Float[np.ndarray, "3"],
        near: Float[np.ndarray, "J"],
        tolerance_m: float = 2e-5,
        rotation: Float[np.ndarray, "3 3"] | None = None,
    ) -> Float[np.ndarray, "J"] | None:
        """Joint positions [rad] that put the tip there, tool turned so or as at home, found from `near`; None if out of reach."""
        turned = self._rotation if rotation is None else rotation
        found = self._newton(tip, turned, near, tolerance_m)
        return self._within_joints(tip, turned, near, tolerance_m) if found is None else found

    def _newton(self, tip: np.ndarray, turned: np.ndarray, near: np.ndarray, tolerance_m: float) -> np.ndarray | None:
        """Damped Newton steps; None where they leave the joints' ranges or come to nothing."""
        q, rows = np.array(near, dtype=np.float64), 6 if self._turns else 3
        low, high = self.model.jnt_range.T
        for _ in range(NEWTON_STEPS):
            jacobian = self.jacobian(q)[:rows]
            off = np.concatenate([tip - self.data.site_xpos[self._site], self._turn(turned, self._site_rotation())])[:rows]
            if np.linalg.norm(off[:3]) < tolerance_m and np.linalg.norm(off[3:]) < 10 * tolerance_m:
                return q
            weighted = COSTS[:rows, None] * jacobian
            q = q + weighted.T @ np.linalg.solve(weighted @ weighted.T + DAMPING * np.eye(rows), COSTS[:rows] * off)
            if (q < low).any() or (q > high).any():
                return None
        return None

    def _within_joints(self, tip: np.ndarray, turned: np.ndarray, near: np.ndarray, tolerance_m: float) -> np.ndarray | None:
        """Steps that are each the best within the joints' ranges, by mink; None where even they come to nothing."""
        self._configuration.update(near)
        self._task.set_target(mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(turned), tip))
        for _ in range(20):
            error = self._task.compute_error(self._configuration)
            upright = not self._turns or np.linalg.norm(error[3:]) < 10 * tolerance_m
            if np.linalg.norm(error[:3]) < tolerance_m and upright:
                return self._configuration.q.copy()
            velocity = mink.solve_ik(self._configuration, [self._task], 1.0, "daqp", damping=DAMPING, limits=self._limits)
            self._configuration.integrate_inplace(velocity, 1.0)
        return None

    def _site_rotation(self) -> Float[np.ndarray, "3 3"]:
        return self.data.site_xmat[self._site].reshape(3, 3)

    @staticmethod
    def _turn(wanted: Float[np.ndarray, "3 3"], rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
        """From one orientation to another, as a rotation vector [rad] in the base frame."""
        quaternion, turn = np.empty(4), np.empty(3)
        mujoco.mju_mat2Quat(quaternion, (wanted @ rotation.T).ravel())
        mujoco.mju_quat2Vel(turn, quaternion, 1.0)
        return turn
