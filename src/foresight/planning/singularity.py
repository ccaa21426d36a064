"""How far joint positions are from where the arm loses a direction to move its tool in. Knows no motion and no limits.

The measure is the least singular value of the tip's Jacobian with its angular rows times LEVER_M, so that all rows are lengths
(Klein and Blaho 1987): how far the tool moves at least, in its worst direction, when the joints move by one radian.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from foresight.robots.kinematics import MujocoKinematics

LEVER_M = 0.5  # [m] at which a turn of the tool counts as a way
ORIENTING_JOINTS = 6  # an arm of fewer cannot choose its tool's orientation: its tip's way alone counts


def dexterity(kinematics: MujocoKinematics, q: Float[np.ndarray, "N J"]) -> Float[np.ndarray, "N"]:
    """[m/rad]; 0 where the arm is singular. On the UR5e it is 0.06 to 0.21 all over its workspace."""
    jacobians = np.array([kinematics.jacobian(row) for row in q]).reshape(len(q), 6, -1)
    if jacobians.shape[2] < ORIENTING_JOINTS:
        return np.linalg.svd(jacobians[:, :3], compute_uv=False).min(axis=1)
    jacobians[:, 3:] *= LEVER_M
    return np.linalg.svd(jacobians, compute_uv=False).min(axis=1)
