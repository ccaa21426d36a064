"""What an arm touches, by the contacts that MuJoCo would simulate: no margins, no sweep. The guard has `proximity.py` instead."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from jaxtyping import Float

from foresight.data import Box
from foresight.robots.geometry import collision_spec
from foresight.robots.profile import RobotProfile


class Contacts:
    """An arm, its gripper closed, with a table and keep-outs. Not thread-safe: it owns one scratch state."""

    def __init__(self, profile: RobotProfile, table: Box, keep_outs: Sequence[Box] = ()) -> None:
        spec = collision_spec(profile)
        for box in (table, *keep_outs):
            spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX, pos=(box.low + box.high) / 2, size=(box.high - box.low) / 2, name=box.name
            )
        for geom in spec.geoms:
            geom.contype = geom.conaffinity = 1
            geom.margin = geom.gap = 0.0
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._by_design: frozenset[tuple[int, int]] = frozenset()
        out = {self._model.geom(box.name).id for box in keep_outs}
        self._by_design = frozenset(pair for pair in self._at(profile.home) if not out & {*pair})  # a link on its foot

    def deepest(self, q: Float[np.ndarray, "M J"]) -> tuple[float, str]:
        """The greatest overlap [m] at any of the positions, and of what with what; 0 without one.

        Those that overlap at home do so by design, and do not count.
        """
        depth, what = 0.0, ""
        for row in q:
            for (a, b), here in self._at(row).items():
                if here > depth:
                    depth, what = here, f"{self._name(a)} in {self._name(b)}"
        return depth, what

    def _at(self, q: Float[np.ndarray, "J"]) -> dict[tuple[int, int], float]:
        model, data = self._model, self._data
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        pairs, depths = data.contact.geom[: data.ncon].tolist(), (-data.contact.dist[: data.ncon]).tolist()
        found = zip(map(tuple, map(sorted, pairs)), depths, strict=True)
        return {pair: depth for pair, depth in found if depth > 0 and pair not in self._by_design}

    def _name(self, geom: int) -> str:
        return self._model.geom(geom).name or self._model.body(self._model.geom_bodyid[geom]).name
