"""The hand as slices across the tool's axis as it stands at home: what of it is how wide at which height.

Boxes around whole links would make a closed gripper as wide at its fingertips as at its knuckles. Knows no obstacle, no motion.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float

from foresight.robots.geometry import collision_spec, corners
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.model import model_source
from foresight.robots.profile import RobotProfile

SLICE_M = 0.01  # [m] thickness, along the base frame's z


def hand_slices(
    profile: RobotProfile, kinematics: MujocoKinematics, slice_m: float = SLICE_M
) -> tuple[Float[np.ndarray, "G 3"], Float[np.ndarray, "G 3"]]:
    """Lowest and highest corners [m], seen from the tip, of boxes that together hold the hand, the tool turned as at home."""
    hulls = _hulls(profile, kinematics)
    bottom, top = min(float(hull[:, 2].min()) for hull in hulls), max(float(hull[:, 2].max()) for hull in hulls)
    cuts = np.linspace(bottom, top, int(np.ceil((top - bottom) / slice_m)) + 1)
    boxes = []
    for low, high in pairwise(cuts):
        inside = [part for hull in hulls if len(part := _between(hull, low, high))]
        if inside:
            found = np.concatenate(inside)
            boxes.append((np.array([*found.min(0)[:2], low]), np.array([*found.max(0)[:2], high])))
    return np.array([box[0] for box in boxes]), np.array([box[1] for box in boxes])


def _between(hull: Float[np.ndarray, "V 3"], low: float, high: float) -> Float[np.ndarray, "n 3"]:
    """Places that the part of the convex hull from `low` to `high` is the hull of."""
    z = hull[:, 2]
    parts = [hull[(z >= low) & (z <= high)]]
    for cut in (low, high):
        below, above = hull[z < cut], hull[z > cut]
        if len(below) and len(above):  # where the ways between all of one side and all of the other cross
            share = (cut - below[:, None, 2]) / (above[None, :, 2] - below[:, None, 2])
            parts.append((below[:, None] + share[..., None] * (above[None] - below[:, None])).reshape(-1, 3))
    return np.concatenate(parts)


def _hulls(profile: RobotProfile, kinematics: MujocoKinematics) -> list[Float[np.ndarray, "V 3"]]:
    """Corners [m] of the convex hull of each piece of the hand, seen from the tip; of round ones those of their box."""
    model, source = collision_spec(profile).compile(), model_source(profile)
    site = model.site(source.gripper_prefix + source.tip_site).id
    link = model.body_weldid[model.site_bodyid[site]]

    def from_link(body: int, place: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        while body != link:
            turn = _matrix(model.body_quat[body])
            place, rotation = model.body_pos[body] + turn @ place, turn @ rotation
            body = int(model.body_parentid[body])
        return place, rotation

    tip, tool = from_link(int(model.site_bodyid[site]), model.site_pos[site], _matrix(model.site_quat[site]))
    to_base = kinematics.rotation(profile.home) @ tool.T
    hulls = []
    for geom in np.flatnonzero(model.body_weldid[model.geom_bodyid] == link).tolist():
        place, rotation = from_link(int(model.geom_bodyid[geom]), model.geom_pos[geom], _matrix(model.geom_quat[geom]))
        hulls.append((place - tip + corners(model, geom) @ rotation.T) @ to_base.T)
    return hulls


def _matrix(quaternion: Float[np.ndarray, "4"]) -> Float[np.ndarray, "3 3"]:
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
