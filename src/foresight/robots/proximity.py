"""Distances between the links of a robot and what stands around it, with bounds on how fast they can change.

Knows no margins, no time and no motion. Distances are those of convex geometry by MuJoCo's `mj_geomDistance`; its contact
pipeline is not used, since with margins it overestimates some distances by centimetres and misses some pairs of boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int

from foresight.data import Box
from foresight.robots.geometry import collision_spec, corners
from foresight.robots.model import model_source
from foresight.robots.profile import RobotProfile

FINGER_M = 0.03  # [m] from the tool centre point: what is no farther than this from it is a fingertip
FAR_M = 10.0  # [m] beyond any arm


class Proximity:
    """Pairs of geometry that could meet: link and link, link and obstacle. Not thread-safe: it owns one scratch state.

    Pair i is of `names[i]`, obstacle `obstacle[i]` (its place in `obstacles`, -1: none), and its first belongs to
    the hand (the last link, gripper included) where `hand[i]` and is a fingertip where `finger[i]`. `ignored` lists the pairs
    that are never compared, each with its reason.
    """

    def __init__(
        self,
        profile: RobotProfile,
        obstacles: Sequence[Box] = (),
        mounted_on: int = -1,  # the obstacle that the robot stands on
        touching_m: float = 0.005,  # [m] links nearer than this at home are taken to touch by design
        gripper_moves: bool = False,
    ) -> None:
        self.profile, self.obstacles, self._mounted_on = profile, tuple(obstacles), mounted_on
        spec = collision_spec(profile, gripper_moves)
        for i, box in enumerate(self.obstacles):
            centre, half = (box.low + box.high) / 2, (box.high - box.low) / 2
            spec.worldbody.add_geom(name=f"obstacle {i}", type=mujoco.mjtGeom.mjGEOM_BOX, pos=centre, size=half)
        spec.option.ccd_iterations = 100
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        names = tuple(self._model.joint(i).name for i in range(self._model.njnt))
        if names != profile.joint_names:
            raise ValueError(f"Robot '{profile.name}': profile lists joints {profile.joint_names}, its model has {names}.")
        self._body = [self._model.body(i).name for i in self._model.geom_bodyid]
        self._obstacle = np.full(self._model.ngeom, -1)
        for i in range(len(self.obstacles)):
            self._obstacle[self._model.geom(f"obstacle {i}").id] = i
        self._carried = _carried(self._model)
        self._sliding = self._model.jnt_type == mujoco.mjtJoint.mjJNT_SLIDE
        compared, self.ignored = self._compared(touching_m)
        self._a, self._b = np.array(compared).reshape(-1, 2).T
        self._geoms = compared
        carried_a, carried_b = self._carried[self._a], self._carried[self._b]
        self._only = carried_a & ~carried_b, carried_b & ~carried_a  # joints that move one of a pair and not the other
        self.obstacle = self._obstacle[self._b]
        self.names = tuple((self._name(a), self._name(b)) for a, b in compared)
        hand, finger = self._hand()
        self.hand, self.finger = hand[self._a], finger[self._a]

    def distances(
        self, q: Float[np.ndarray, "J"], pairs: Int[np.ndarray, "n"], up_to_m: Float[np.ndarray, "n"] | None = None
    ) -> Float[np.ndarray, "n"]:
        """Distance [m] of each pair at q, exact below `up_to_m` (10 m); below 0 where they overlap."""
        self._place(q)
        model, data, geoms, distance = self._model, self._data, self._geoms, mujoco.mj_geomDistance
        cut = [FAR_M] * len(pairs) if up_to_m is None else up_to_m.tolist()
        return np.array([distance(model, data, *geoms[i], most, None) for i, most in zip(pairs.tolist(), cut, strict=True)])

    def lower_bounds(self, q: Float[np.ndarray, "K J"]) -> Float[np.ndarray, "K P"]:
        """What no pair's distance [m] is below: the distance of the boxes around the two, along the base frame's axes."""
        low, high = self._boxes(q)
        a, b = self._a, self._b
        apart = np.maximum(low[:, b] - high[:, a], low[:, a] - high[:, b])
        return np.sqrt(np.square(np.maximum(apart, 0.0)).sum(axis=2))

    def motion(self, q: Float[np.ndarray, "K J"], turn: Float[np.ndarray, "K J"]) -> Float[np.ndarray, "K P"]:
        """How far the two of each pair can move against each other [m] while no joint leaves q by more than `turn` [rad].

        A joint moves a point by at most its turn times the point's distance from its axis; that distance is known at q
        and changes by no more than the joints beyond move the point.
        """
        joints, radius = len(self.profile.joint_names), self._model.geom_rbound
        at = self._frames(q)
        offset = at.place[:, :, None] - at.anchor[:, None]
        lever = np.square(offset).sum(axis=3) - np.square(np.einsum("kgji,kji->kgj", offset, at.axis))
        lever = np.sqrt(np.maximum(lever, 0.0)) + radius[:, None]
        moved, by_joint = np.zeros(lever.shape[:2]), np.empty_like(lever)
        for j in reversed(range(joints)):
            reach = np.ones_like(moved) if self._sliding[j] else lever[:, :, j] + moved
            by_joint[:, :, j] = reach * turn[:, None, j] * self._carried[:, j]
            moved = moved + by_joint[:, :, j]
        only_a, only_b = self._only
        return np.einsum("kpj,pj->kp", by_joint[:, self._a], only_a) + np.einsum("kpj,pj->kp", by_joint[:, self._b], only_b)

    def _place(self, q: Float[np.ndarray, "J"]) -> None:
        self._data.qpos[:] = q
        mujoco.mj_kinematics(self._model, self._data)

    def _boxes(self, q: Float[np.ndarray, "K J"]) -> tuple[Float[np.ndarray, "K G 3"], Float[np.ndarray, "K G 3"]]:
        """The smallest boxes along the base frame's axes around each geom's own box."""
        model, at = self._model, self._frames(q)
        middle = at.place + np.einsum("kgij,gj->kgi", at.rotation, model.geom_aabb[:, :3])
        half = np.einsum("kgij,gj->kgi", np.abs(at.rotation), model.geom_aabb[:, 3:])
        return middle - half, middle + half

    def _frames(self, q: Float[np.ndarray, "K J"]) -> "_Frames":
        model, data, n = self._model, self._data, len(q)
        place, rotation = np.empty((n, model.ngeom, 3)), np.empty((n, model.ngeom, 9))
        anchor, axis = np.empty((n, model.njnt, 3)), np.empty((n, model.njnt, 3))
        for k, row in enumerate(q):
            self._place(row)
            place[k], rotation[k], anchor[k], axis[k] = data.geom_xpos, data.geom_xmat, data.xanchor, data.xaxis
        return _Frames(place, rotation.reshape(n, -1, 3, 3), anchor, axis)

    def _compared(self, touching_m: float) -> tuple[list[tuple[int, int]], tuple[tuple[str, str, str], ...]]:
        """Pairs of geoms to compare, obstacles second, and those left out, with the reason."""
        model, compared, ignored = self._model, [], []
        link = model.body_weldid[model.geom_bodyid]
        self._place(self.profile.home)
        for a, b in zip(*(i.tolist() for i in np.triu_indices(model.ngeom, 1)), strict=True):
            if link[a] == link[b]:
                continue  # rigid to each other
            if self._obstacle[a] >= 0:
                a, b = b, a
            reason = self._needless(a, b, touching_m)
            if reason:
                ignored.append((model.geom(a).name, self._name(b) if self._obstacle[b] >= 0 else model.geom(b).name, reason))
            else:
                compared.append((a, b))
        return compared, tuple(ignored)

    def _needless(self, a: int, b: int, touching_m: float) -> str:
        """Why two geoms are not compared; empty when they are."""
        model = self._model
        touching = mujoco.mj_geomDistance(model, self._data, a, b, 1.0, None) <= touching_m
        if self._obstacle[b] >= 0:
            still = self._obstacle[b] == self._mounted_on and self._carried[a].sum() <= 1
            return "the arm stands there" if still and touching else ""
        links = model.body_weldid[model.geom_bodyid[[a, b]]]
        parents = model.body_weldid[model.body_parentid[links]]
        if parents[0] == links[1] or parents[1] == links[0]:
            return "neighbours in the chain"
        return "touch at home" if touching else ""

    def _hand(self) -> tuple[Bool[np.ndarray, "G"], Bool[np.ndarray, "G"]]:
        """Geometry of the link that carries the tool centre point, and what of it reaches within FINGER_M of that point."""
        source, model = model_source(self.profile), self._model
        site = model.site(source.gripper_prefix + source.tip_site).id
        self._place(self.profile.home)
        tip, place, rotation = self._data.site_xpos[site], self._data.geom_xpos, self._data.geom_xmat.reshape(-1, 3, 3)
        hand = model.body_weldid[model.geom_bodyid] == model.body_weldid[model.site_bodyid[site]]
        finger = np.zeros_like(hand)
        for geom in np.flatnonzero(hand).tolist():
            at = place[geom] + corners(model, geom) @ rotation[geom].T
            finger[geom] = np.linalg.norm(np.maximum(0.0, np.maximum(at.min(0) - tip, tip - at.max(0)))) <= FINGER_M
        return hand, finger

    def _name(self, geom: int) -> str:
        return self.obstacles[self._obstacle[geom]].name if self._obstacle[geom] >= 0 else self._body[geom]


class _Frames(NamedTuple):
    """Where geoms and joints are, in the base frame, at each q."""

    place: Float[np.ndarray, "K G 3"]  # [m]
    rotation: Float[np.ndarray, "K G 3 3"]
    anchor: Float[np.ndarray, "K J 3"]  # [m] on the joint's axis
    axis: Float[np.ndarray, "K J 3"]


def _carried(model: mujoco.MjModel) -> Bool[np.ndarray, "G J"]:
    """Which geoms each joint carries."""
    carried = np.zeros((model.ngeom, model.njnt), dtype=bool)
    for geom, body in enumerate(model.geom_bodyid.tolist()):
        while body:
            carried[geom] |= model.jnt_bodyid == body
            body = int(model.body_parentid[body])
    return carried
