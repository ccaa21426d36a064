"""Where the tip is and how fast at many instants at once: the model's chain of joints as constants, multiplied in numpy.

Reads a MuJoCo model once and then knows nothing but numbers. Only for chains of hinges, each with a body of its own.
"""

from __future__ import annotations

import mujoco
import numpy as np
from jaxtyping import Float


class Chain:
    """From the motion of joints to that of a site of the model, N at a time; 250 of seven joints take about 0.1 ms."""

    def __init__(self, model: mujoco.MjModel, site: int) -> None:
        """Raises ValueError where the way from the base to the site has another joint than hinges."""
        self._links: list[tuple[np.ndarray, np.ndarray, int, float]] = []  # fixed turn, fixed step, joint, its zero
        rotation, step = np.eye(3), np.zeros(3)
        for body in _way_to(model, int(model.site_bodyid[site])):
            step = step + rotation @ model.body_pos[body]
            rotation = rotation @ _matrix(model.body_quat[body])
            first = int(model.body_jntadr[body])
            for joint in range(first, first + int(model.body_jntnum[body])):
                if model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_HINGE:
                    raise ValueError(f"Joint '{model.joint(joint).name}' on the way to the tip is no hinge.")
                to_axis = _with_z_along(model.jnt_axis[joint])
                step = step + rotation @ model.jnt_pos[joint]
                self._links.append((rotation @ to_axis, step, int(model.jnt_qposadr[joint]), float(model.qpos0[joint])))
                rotation = to_axis.T
                step = -rotation @ model.jnt_pos[joint]
        self._last = step + rotation @ model.site_pos[site]

    def motion(
        self, q: Float[np.ndarray, "N J"], dq: Float[np.ndarray, "N J"]
    ) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
        """Positions [m] and velocities [m/s] of the site in the base frame: from the site back, one joint after the other."""
        place = np.zeros((3, 2, len(q)))  # and beside it its velocity, both as the link sees them that was reached
        place[:, 0] = self._last[:, None]
        for turn, step, joint, zero in reversed(self._links):
            angle, rate = q[:, joint] - zero, dq[:, joint]
            cosine, sine = np.cos(angle), np.sin(angle)
            x, y = place[0], place[1]
            place[0], place[1] = cosine * x - sine * y, sine * x + cosine * y
            place[0, 1] -= rate * place[1, 0]
            place[1, 1] += rate * place[0, 0]
            place = (turn @ place.reshape(3, -1)).reshape(place.shape)
            place[:, 0] += step[:, None]
        return place[:, 0].T, place[:, 1].T


def _way_to(model: mujoco.MjModel, body: int) -> list[int]:
    """The bodies from the first after the world to this one."""
    way = []
    while body > 0:
        way.append(body)
        body = int(model.body_parentid[body])
    return way[::-1]


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def _with_z_along(axis: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """A rotation whose third column is the axis."""
    z = axis / np.linalg.norm(axis)
    x = np.cross(z, np.eye(3)[int(np.argmin(np.abs(z)))])
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)
