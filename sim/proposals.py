"""What a planner that means ill proposes: motion that is random, inverted, or as fast as it can.

Inverted is: towards table, boxes and walls. Either as plans, which `control/motion.py` turns into trajectories, or raw:
trajectories that have seen none of our own limits, and now and then have been spoiled. Judges nothing.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from ruckig import InputParameter, Ruckig, RuckigError
from ruckig import Trajectory as RuckigTrajectory

from foresight.control.motion import joint_trajectory
from foresight.control.trajectory import derivatives
from foresight.data import Plan, RobotState, Trajectory
from sim.arena import Arena

WAYS = tuple((aim, form) for aim in ("random", "inverted", "fastest") for form in ("plan", "raw"))
KNOT_S, KNOTS, POINT_S = 0.1, 9, 0.02


class Adversary:
    """Proposes motion. `aim` says where to, `form` how."""

    def __init__(self, arena: Arena, aim: str, form: str, rng: np.random.Generator) -> None:
        self.arena, self.aim, self.form, self.rng = arena, aim, form, rng
        self.profile, self.kinematics = arena.profile, arena.kinematics
        self._target, self._turns = None, 0

    def propose(self, in_force: Trajectory | None, state: RobotState, now_s: float, transport_s: float) -> Trajectory:
        """A motion that begins a little later than the controller can have it; now and then sooner."""
        join_s = now_s + transport_s * self.rng.choice([1.02, 1.02, 1.3, 2.0, 0.5])
        if self.form == "plan":
            return joint_trajectory(self._plan(state, now_s), in_force, state, join_s, self.kinematics, self.profile)
        return self._spoiled(self._raw(in_force, state, join_s))

    def _plan(self, state: RobotState, now_s: float) -> Plan:
        if self.aim == "random":
            velocities = self.rng.normal(size=(KNOTS, 3)) * self.rng.uniform(0.05, 1.0)
        else:
            way = self._bad_place() - self.kinematics.tip(state.q)
            speed = self.profile.tip_speed_max * (
                self.rng.uniform(0.5, 1.0) if self.aim == "inverted" else self.rng.uniform(1.0, 4.0)
            )
            velocities = np.tile(way / max(float(np.linalg.norm(way)), 1e-9) * speed, (KNOTS, 1))
        return Plan(now_s, "adversary", KNOT_S, velocities, 0.0, {}, 0.0, np.zeros((1, 1), np.float32), 1, 0.0, self.aim)

    def _bad_place(self) -> Float[np.ndarray, "3"]:
        """For some turns the same: where the arm must not go, or, to be fast, any place far away."""
        self._turns -= 1
        if self._target is None or self._turns <= 0:
            self._turns, low, high = int(self.rng.integers(3, 15)), self.profile.workspace_min, self.profile.workspace_max
            anywhere = self.rng.uniform(low, high)
            boxes = [(box.low + box.high) / 2 for box in self.arena.keep_outs]
            under, outside = np.array([*anywhere[:2], -0.1]), anywhere + self.rng.choice([-1, 1], 3) * (high - low)
            places = [under, outside, *boxes] if self.aim == "inverted" else [anywhere, anywhere, *boxes]
            self._target = places[self.rng.integers(len(places))]
        return self._target

    def _raw(self, in_force: Trajectory | None, state: RobotState, join_s: float) -> Trajectory:
        """To a place or a pose, as fast as limits allow that are our own times some factor, about 1."""
        zero = np.zeros(len(state.q))
        q, dq, ddq = (state.q, zero, zero) if in_force is None else derivatives(in_force, join_s)[:3]
        goal = None if self.aim == "random" else self.kinematics.solve(self._bad_place(), q)
        if goal is None or self.rng.random() < 0.2:
            goal = q + self.rng.normal(size=len(q)) * self.rng.uniform(0.05, 1.0) * (self.rng.random(len(q)) < 0.6)
        share = self.rng.choice([0.3, 0.6, 0.9, 0.99, 1.1])
        way = (goal - q) / max(float(np.abs(goal - q).max()), 1e-9)
        tip = self.profile.tip_speed_max / max(float(np.linalg.norm(self.kinematics.tip_velocity(q, way))), 1e-3)
        rate = min(float(self.profile.velocity_bounds(q)[1].min()), tip) * self.rng.uniform(
            *((0.9, 1.2) if self.aim == "fastest" else (0.2, 1.1))
        )
        speed = np.maximum(np.abs(way) * rate, 1e-3)
        motion = quickest(
            q, dq, ddq, goal, speed, share * self.profile.acceleration_max, 0.5 * share * self.profile.jerk_max, join_s
        )
        if motion is None:  # the joints already move faster than that
            motion = Trajectory(join_s + np.array([0.0, 0.5]), np.array([q, q]), np.array([dq, zero]), np.array([ddq, zero]))
        return motion

    def _spoiled(self, motion: Trajectory) -> Trajectory:
        """Most often as it is; else cut off, bent, stretched or moved."""
        times, q, dq, ddq = motion.times_s, motion.q.copy(), motion.dq.copy(), motion.ddq.copy()
        kind, i = self.rng.choice(["none", "none", "none", "cut", "bend", "hurry", "step"]), int(self.rng.integers(len(times)))
        if kind == "cut":
            return Trajectory(times[: i + 1], q[: i + 1], dq[: i + 1], ddq[: i + 1])
        if kind == "bend":
            q[i, self.rng.integers(q.shape[1])] += self.rng.normal() * 10 ** self.rng.uniform(-6, -1)
        elif kind == "hurry":
            rate = self.rng.uniform(0.9, 1.3)
            times, dq, ddq = times[0] + (times - times[0]) / rate, dq * rate, ddq * rate**2
        elif kind == "step":
            q += self.rng.normal(size=q.shape[1]) * 10 ** self.rng.uniform(-5, -1)
        return Trajectory(times, q, dq, ddq)


def quickest(
    q: np.ndarray,
    dq: np.ndarray,
    ddq: np.ndarray,
    goal: np.ndarray,
    speed: np.ndarray,
    acceleration: np.ndarray,
    jerk: np.ndarray,
    start_s: float,
) -> Trajectory | None:
    """The quickest motion to rest at `goal` within these limits, by ruckig; None where there is none."""
    problem = InputParameter(len(q))
    problem.current_position, problem.current_velocity, problem.current_acceleration = q.tolist(), dq.tolist(), ddq.tolist()
    problem.target_position = goal.tolist()
    problem.max_velocity, problem.max_acceleration, problem.max_jerk = speed.tolist(), acceleration.tolist(), jerk.tolist()
    found = RuckigTrajectory(len(q))
    try:
        Ruckig(len(q)).calculate(problem, found)
    except RuckigError:
        return None
    times = np.linspace(0.0, found.duration, max(2, int(np.ceil(found.duration / POINT_S)) + 1))
    points = [np.array(v) for v in zip(*(found.at_time(float(t))[:3] for t in times), strict=True)]
    return Trajectory(start_s + times, *points) if found.duration > 1e-3 else None
