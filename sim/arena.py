"""A simulated arm among keep-out boxes whose masses and friction are not what they should be, and a judge of every touch.

Draws nothing. Masses and friction differ from the model that limits and motions are computed from, as on a real arm. The arm
still carries its own weight, whatever that is: a real arm's controller integrates what it carries amiss; the simulated drive is
a plain position servo, of which such masses would let the tip hang up to 3 mm low (7 mm, were all too great). So wrong masses
are felt in motion only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import numpy as np
from jaxtyping import Float

from foresight.control.trajectory import derivatives
from foresight.data import Box
from foresight.robots.profile import RobotProfile
from sim.simulation import Simulation
from sim.tasks import draw

KEEP_OUTS = 3
CORNER_M = np.array([0.92, 0.55])  # of the table, out of the workspace
FREE_M = 0.06  # [m] between the arm at its start and any keep-out
TOUCHED = ("table", "keep-out", "itself")
# What a drive's own control leaves of its friction, from base to wrist: [Nm] dry, and as much again [Nm s/rad]. With 1.5 times
# that a tip at its cap of speed is 0.8 mm behind its command, and 0.5 mm beside it at rest.
FRICTION = np.array([1.5, 1.5, 1.0, 0.3, 0.3, 0.3])
MASS, FRICTIONS = ("body_mass", "body_inertia"), ("geom_friction", "dof_frictionloss", "dof_damping")


@dataclass(frozen=True)
class Mismatch:
    """How this arm differs from its model."""

    mass: float = 0.3  # share by which the mass of each body may be more or less
    friction: float = 0.5  # share by which the friction of joints and surfaces may be more or less


class Arena(Simulation):
    """Simulation with boxes; its judge looks at every step of the physics, and counts what the arm touches besides the cube."""

    judge_every = 1

    def __init__(self, profile: RobotProfile) -> None:
        super().__init__(0, profile, keep_outs=KEEP_OUTS)
        m = self.model
        m.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)  # its tree is built once, from where the boxes wait
        joints = slice(0, len(profile.joint_names))
        m.dof_frictionloss[joints] = m.dof_damping[joints] = FRICTION
        self._nominal = {name: getattr(m, name).copy() for name in (*MASS, *FRICTIONS)}
        self._boxes = np.array([m.geom(f"keep_out {i}").id for i in range(KEEP_OUTS)])
        bodies = m.body_rootid == m.body_rootid[m.body("base").id]
        gripper = np.array([m.body(b).name.startswith(profile.model.gripper_prefix) for b in range(m.nbody)])
        self._arm = np.flatnonzero(bodies[m.geom_bodyid])
        self._gripper = np.flatnonzero((bodies & gripper)[m.geom_bodyid])
        self.keep_outs: tuple[Box, ...] = ()

    def begin(self, rng: np.random.Generator, mismatch: Mismatch = Mismatch(), cube: bool = True) -> None:
        """A new scene: another start, other boxes, another body. Without `cube` it lies in a corner out of reach."""
        for names, share in ((MASS, mismatch.mass), *(((name,), mismatch.friction) for name in FRICTIONS)):
            factor = rng.uniform(1 - share, 1 + share, len(self._nominal[names[0]]))
            for name in names:
                nominal = self._nominal[name]
                getattr(self.model, name)[:] = nominal * factor.reshape(-1, *[1] * (nominal.ndim - 1))
        self._put(())
        mujoco.mj_setConst(self.model, self.data)
        self.time_offset_s = self.data.time = 0.0  # an episode must not depend on those before it, to the last digit
        setting = draw("reach", rng)
        self.place(setting if cube else replace(setting, cube=CORNER_M))
        self._put(tuple(self._free_box(rng) for _ in range(rng.integers(1, KEEP_OUTS + 1))))
        self.touches, self._touching = dict.fromkeys(TOUCHED, 0), set()
        self.depth_m = dict.fromkeys(TOUCHED, 0.0)  # [m] how deep the worst touch was
        self.fastest = np.zeros(2)  # [rad/s], [m/s] of the true motion

    def commanded(self, times_s: Float[np.ndarray, "M"]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Position, velocity, acceleration and jerk that the controller follows at these times."""
        return derivatives(self._controller.trajectory, times_s)

    def _free_box(self, rng: np.random.Generator) -> Box:
        """A box somewhere in reach that leaves the arm and the cube alone."""
        while True:
            half, middle = rng.uniform(0.02, 0.12, 3), rng.uniform([0.20, -0.45, 0.0], [0.80, 0.45, 0.45])
            box = Box("keep-out", middle - half, middle + half)
            cube = self.data.qpos[self._cube_q : self._cube_q + 3]
            if np.linalg.norm(np.maximum(np.maximum(box.low - cube, cube - box.high), 0)) < 0.06:
                continue
            self._put((box,))
            mujoco.mj_kinematics(self.model, self.data)
            near = (mujoco.mj_geomDistance(self.model, self.data, g, self._boxes[0], 2 * FREE_M, None) for g in self._solid())
            if min(near) > FREE_M:
                return box

    def _solid(self) -> list[int]:
        return [int(g) for g in self._arm if self.model.geom_contype[g] or self.model.geom_conaffinity[g]]

    def _put(self, boxes: tuple[Box, ...]) -> None:
        """Moves the scene's boxes; MuJoCo's own bounds of them must follow."""
        self.keep_outs = boxes
        for i, geom in enumerate(self._boxes):
            half = (boxes[i].high - boxes[i].low) / 2 if i < len(boxes) else np.full(3, 0.05)
            self.model.geom_size[geom] = half
            self.model.geom_rbound[geom], self.model.geom_aabb[geom] = np.linalg.norm(half), [0, 0, 0, *half]
            self.model.geom_pos[geom] = (boxes[i].low + boxes[i].high) / 2 if i < len(boxes) else [0, 0, -9 - i]

    def _judge(self) -> None:
        """The limits as everywhere; each touch is counted where it begins, apart from them."""
        super()._judge()
        if not hasattr(self, "touches"):  # not begun
            return
        dq, tip = self.data.qvel[: self._joints], self.truth().tip_velocity
        self.fastest = np.maximum(self.fastest, [np.abs(dq).max(), np.linalg.norm(tip)])
        touched = self._touches()
        for what, depth_m in touched.items():
            self.depth_m[what] = max(self.depth_m[what], depth_m)
            self.touches[what] += what not in self._touching
        self._touching = set(touched)

    def _touches(self) -> dict[str, float]:
        """What the arm touches now, and how deep [m]."""
        pairs, depth = self.data.contact.geom[: self.data.ncon], -self.data.contact.dist[: self.data.ncon]
        arm, gripper = np.isin(pairs, self._arm), np.isin(pairs, self._gripper)
        moving = np.isin(pairs, self._hand_geoms)
        one = moving.any(axis=1)
        met = {
            "table": one & (pairs == self._table).any(axis=1),
            "keep-out": arm.any(axis=1) & np.isin(pairs, self._boxes).any(axis=1),
            "itself": arm.all(axis=1) & ~gripper.all(axis=1),
        }
        return {what: float(depth[where].max()) for what, where in met.items() if where.any()}

    def _render(self, data: mujoco.MjData) -> dict[str, np.ndarray]:
        return {}
