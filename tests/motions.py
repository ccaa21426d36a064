"""Motions for tests: legal fast plans of the tip, and an independent way to read a trajectory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

import mujoco
import numpy as np

from foresight.control.motion import joint_trajectory, start_of
from foresight.control.trajectory import hold, sample
from foresight.data import Candidate, Plan, RobotState, Start, Trajectory
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile

STEP_S = 0.1
MIDDLE = np.array([0.47, 0.0, 0.15])  # [m] of the workspace


def minimum_jerk(
    begin: np.ndarray, way: np.ndarray, start_s: float = 0.0, duration_s: float = 0.5, points: int = 12
) -> Trajectory:
    """From rest at `begin` [rad] to rest at `begin + way`."""
    s = np.linspace(0.0, 1.0, points)[:, None]
    q = begin + way * (10 * s**3 - 15 * s**4 + 6 * s**5)
    dq = way * (30 * s**2 - 60 * s**3 + 30 * s**4) / duration_s
    ddq = way * (60 * s - 180 * s**2 + 120 * s**3) / duration_s**2
    return Trajectory(start_s + duration_s * s[:, 0], q, dq, ddq)


def candidate(trajectory: Trajectory, profile: RobotProfile, now_s: float = 0.0, **changes) -> Candidate:
    """A candidate as a punctual planner would offer it at `now_s`."""
    fields = {"joint_names": profile.joint_names, "observation_stamp_s": now_s - 0.1, "plan_stamp_s": now_s - 0.01, **changes}
    return Candidate(trajectory=trajectory, **fields)


def at_1khz(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Times [s] and positions [rad] at 1 kHz by Bezier curves, sharing no code with what is tested."""
    times = np.arange(trajectory.times_s[0], trajectory.times_s[-1], 1e-3)
    i = np.clip(np.searchsorted(trajectory.times_s, times, side="right") - 1, 0, len(trajectory.times_s) - 2)
    h = np.diff(trajectory.times_s)[i][:, None]
    s = (times - trajectory.times_s[i])[:, None] / h
    n = 3 if trajectory.ddq is None else 5  # degree; the control points at an end follow from its derivatives
    first, last = (trajectory.q[i], trajectory.dq[i]), (trajectory.q[i + 1], trajectory.dq[i + 1])
    begin = [first[0], first[0] + h * first[1] / n]
    end = [last[0], last[0] - h * last[1] / n]
    if trajectory.ddq is not None:
        begin.append(2 * begin[1] - begin[0] + h**2 * trajectory.ddq[i] / (n * (n - 1)))
        end.append(2 * end[1] - end[0] + h**2 * trajectory.ddq[i + 1] / (n * (n - 1)))
    control = begin + end[::-1]
    return times, sum(comb(n, k) * s**k * (1 - s) ** (n - k) * point for k, point in enumerate(control))


def extremes(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest position, greatest speed and acceleration of each joint, from differences of those curves."""
    _, q = at_1khz(trajectory)
    if len(q) < 3:
        return trajectory.q.min(0), trajectory.q.max(0), np.zeros(q.shape[1]), np.zeros(q.shape[1])
    speed, acceleration = (np.abs(np.diff(q, order, axis=0)).max(0) / 1e-3**order for order in (1, 2))
    return q.min(0), q.max(0), speed, acceleration


def tips_at(kinematics: MujocoKinematics, q: np.ndarray) -> np.ndarray:
    """Tips [m] of many joint positions, by MuJoCo itself."""
    data, tips = mujoco.MjData(kinematics.model), np.empty((len(q), 3))
    site = data.site(kinematics.profile.model.gripper_prefix + kinematics.profile.model.tip_site)
    for i, row in enumerate(q):
        data.qpos[:] = row
        mujoco.mj_kinematics(kinematics.model, data)
        tips[i] = site.xpos
    return tips


def plan_towards(
    target: np.ndarray, tip: np.ndarray, start: Start, stamp_s: float, speed: float = 0.22, acceleration: float = 1.2
) -> Plan:
    """As fast as is legal towards the target [m], slowing before it; the first knots are what is committed."""
    velocity, knots = np.array(start.velocity), []
    for i in range(9):
        if i < len(start.committed):
            wanted = start.committed[i]
        else:
            way = target - tip
            distance = float(np.linalg.norm(way))
            wanted = way / max(distance, 1e-9) * min(speed, 1.5 * distance)
            change = wanted - velocity
            wanted = velocity + change * min(1.0, acceleration * STEP_S / max(float(np.linalg.norm(change)), 1e-9))
        tip = tip + STEP_S * (velocity + wanted) / 2
        velocity = wanted
        knots.append(velocity)
    return Plan(stamp_s, "toy", STEP_S, np.array(knots), 0.0, {}, 0.0, np.zeros((3, 4), np.float32), 1, 0.05, "actor")


@dataclass
class Round:
    """One planning round: what was known, what came out."""

    plan: Plan
    in_force: Trajectory
    state: RobotState
    now_s: float
    join_s: float
    trajectory: Trajectory


def drive(seed: int, rounds: int, profile: RobotProfile, kinematics: MujocoKinematics) -> Iterator[Round]:
    """Replans at 10 Hz towards random targets, planning 0.1 s behind the camera; the arm follows exactly.

    Set `round.in_force` to what the guard made of it before asking for the next; unset, every trajectory is executed.
    """
    rng = np.random.default_rng(seed)
    low, high = profile.workspace_min + 0.04, profile.workspace_max - 0.04
    in_force, now_s = hold(kinematics.solve(MIDDLE, profile.home), 0.0), 1.0
    target = rng.uniform(low, high)
    for i in range(rounds):
        if i % 8 == 7:
            target = rng.uniform(low, high)
        stamp_s, join_s = now_s - 0.1, now_s + 0.06
        start = start_of(in_force, stamp_s, join_s, STEP_S, kinematics)
        plan = plan_towards(target, kinematics.tip(sample(in_force, stamp_s)[0]), start, stamp_s)
        state = RobotState(now_s - 0.01, *sample(in_force, now_s - 0.01))
        made = Round(plan, in_force, state, now_s, join_s, joint_trajectory(plan, in_force, state, join_s, kinematics, profile))
        yield made
        in_force = made.in_force if made.in_force is not in_force else made.trajectory
        now_s += 0.1
