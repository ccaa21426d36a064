"""A judge of commands, for tests: what would the arm do if it did as it was told? Shares no code with what it judges."""

from __future__ import annotations

import numpy as np

from foresight.data import Trajectory
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
