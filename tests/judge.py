"""A judge of commands, for tests: what would the arm do if it did as it was told? Shares no code with what it judges."""

from __future__ import annotations

import mujoco
import numpy as np

from foresight.data import Trajectory
from foresight.evaluation.guard_judge import Controller, Judge, broken
from foresight.robots.contacts import Contacts
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile
from tests.motions import at_1khz, tips_at

STEP_RAD = 2e-3  # between what was commanded and what is commanded next, where they meet
FIRST_RAD = 0.06  # between the measured position and the first command
SHARE = 1e-2  # of a limit, granted to differences of a curve sampled at 1 kHz
WALL_M = 1e-3


def faults(motion: Trajectory, profile: RobotProfile, kinematics: MujocoKinematics) -> list[str]:
    """What is wrong with a motion by itself, in words."""
    values = (motion.times_s, motion.q, motion.dq, *(() if motion.ddq is None else (motion.ddq,)))
    if not all(np.isfinite(value).all() for value in values):
        return ["not finite"]
    if (np.diff(motion.times_s) <= 0).any():
        return ["times do not increase"]
    wrong = []
    if np.abs(motion.dq[-1]).max() > 1e-3:
        wrong.append(f"ends at {np.abs(motion.dq[-1]).max():.4f} rad/s")
    if len(motion.times_s) < 2:
        return wrong
    _, q = at_1khz(motion)
    if (q < profile.position_min - 1e-6).any() or (q > profile.position_max + 1e-6).any():
        wrong.append("position")
    if len(q) > 3:
        speed, acceleration = (np.abs(np.diff(q, n, axis=0)).max(0) * 1000**n for n in (1, 2))
        if (speed > profile.velocity_max * (1 + SHARE)).any():
            wrong.append(f"speed {speed.max():.3f} rad/s")
        if (acceleration > profile.acceleration_max * (1 + SHARE) + 1e-3).any():
            wrong.append(f"acceleration {acceleration.max():.3f} rad/s^2")
        tips = tips_at(kinematics, q[::5])
        tip_speed = float((np.linalg.norm(np.diff(tips, axis=0), axis=1) / 5e-3).max()) if len(tips) > 1 else 0.0
        if tip_speed > profile.tip_speed_max * (1 + SHARE):
            wrong.append(f"tip {tip_speed:.3f} m/s")
        outside = np.maximum(profile.workspace_min - tips, tips - profile.workspace_max).max(1)
        if (outside > max(WALL_M, outside[0] + WALL_M)).any():
            wrong.append(f"tip {outside.max():.4f} m outside the workspace")
    return wrong


def limits_broken(motion: Trajectory, judge: Judge) -> list[str]:
    """Limits of the profile's YAML that a motion by itself breaks at the controller's rate, jerk and torque among them.

    A single point is a place to stay at. How the motion is entered is not judged here.
    """
    if len(motion.times_s) == 1:
        still = np.zeros((2, motion.q.shape[1]))
        motion = Trajectory(motion.times_s[0] + np.array([0.0, 0.1]), np.repeat(motion.q, 2, axis=0), still, still)
    if not (np.diff(motion.times_s) > 0).all():
        return ["times do not increase"]
    return broken(judge.use(motion, motion))  # before and after are one: no step between them is judged


class Obeying:
    """A controller that does as it is told, and the judge of what it does.

    `doing`: what it executes before; None: it rests where the first motion begins.
    """

    def __init__(self, judge: Judge, doing: Trajectory | None = None) -> None:
        self._judge, self._controller, self._nearest = judge, None, None
        if doing is not None:
            self._controller = Controller(doing.q[-1], doing.times_s[-1])
            self._controller.points = doing if len(doing.times_s) > 1 else self._controller.points

    def receive(self, motion: Trajectory, now_s: float) -> list[str]:
        """Limits that are broken on the way from what is executed now through this motion, a step between them included."""
        if self._controller is None:
            self._controller = Controller(motion.q[0], now_s)
        before = self._controller.points
        if not self._controller.receive(motion, now_s):
            return ["ignored by the controller"]
        self._nearest = self._judge.nearest(before, now_s, self._nearest)
        return broken(self._judge.use(before, self._controller.points, nearest=self._nearest))


def met(
    motion: Trajectory, profile: RobotProfile, kinematics: MujocoKinematics, contacts: Contacts, dexterity_min: float = 0.0
) -> set[str]:
    """Which of table, self, joint limit and singularity the motion meets, its stop included, at 500 Hz.

    What touches is told by MuJoCo's contacts. A singularity is met where a radian of the joints moves the tool by less than
    `dexterity_min` [m] in some direction, its turns counted at half a metre.
    """
    q = np.vstack([at_1khz(motion)[1][::2], motion.q[-1]])
    found = set()
    depth, what = contacts.deepest(q)
    if depth > 0:
        found.add("table" if "table" in what else "self")
    if ((q < profile.position_min) | (q > profile.position_max)).any():
        found.add("joint limit")
    if dexterity_min and least_singular(kinematics, q) < dexterity_min:
        found.add("singularity")
    return found


def least_singular(kinematics: MujocoKinematics, q: np.ndarray) -> float:
    """[m/rad] of the tip's Jacobians at q (N, J), angular rows at half a metre, by MuJoCo itself."""
    data, jacobian, least = mujoco.MjData(kinematics.model), np.zeros((6, kinematics.model.nv)), np.inf
    site = data.site(kinematics.profile.model.gripper_prefix + kinematics.profile.model.tip_site).id
    for row in q:
        data.qpos[:] = row
        mujoco.mj_fwdPosition(kinematics.model, data)
        mujoco.mj_jacSite(kinematics.model, data, jacobian[:3], jacobian[3:], site)
        jacobian[3:] *= 0.5
        least = min(least, float(np.sqrt(max(0.0, np.linalg.eigvalsh(jacobian @ jacobian.T)[0]))))
    return least


def step(before: Trajectory | None, after: Trajectory, measured: np.ndarray | None) -> list[str]:
    """What is wrong with the change from one commanded motion to the next."""
    if before is None:
        apart = 0.0 if measured is None else float(np.abs(after.q[0] - measured).max())
        return [f"starts {apart:.4f} rad from the measured position"] if apart > FIRST_RAD else []
    times, q = at_1khz(before)
    start_s = float(after.times_s[0])
    last = (
        before.q[-1]
        if start_s >= before.times_s[-1] or not len(q)
        else q[min(len(q) - 1, max(0, round((start_s - times[0]) * 1e3)))]
    )
    apart = float(np.abs(after.q[0] - last).max())
    return [f"steps by {apart:.4f} rad"] if apart > STEP_RAD + 1e-3 * profile_speed(before) else []


def profile_speed(motion: Trajectory) -> float:
    """[rad/s] of the motion's fastest joint: one sample of 1 ms is so much times 1e-3 apart from the next."""
    return float(np.abs(motion.dq).max())
