"""A planner that means ill, guarded: does the arm keep its limits, its distance and its peace whatever is proposed?

    foresight bench adversary --episodes 1000 --json F

Every 0.1 s it proposes motion that is random, inverted (towards table, boxes and walls) or as fast as it can, either as a plan
that `control/motion.py` turns into a trajectory, or raw: trajectories that have seen none of our own limits. Commands
arrive late. The judge reads true states. Knows no world model: whatever one imagines, it can ask for nothing worse.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from ruckig import InputParameter, Ruckig, RuckigError
from ruckig import Trajectory as RuckigTrajectory

from foresight.control.motion import joint_trajectory, start_of
from foresight.control.trajectory import derivatives
from foresight.data import Box, Candidate, Plan, RobotState, Trajectory
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile, load_profile
from foresight.safety.collision import Scene
from foresight.safety.guard import Guard
from sim.arena import TOUCHED, Arena, Mismatch

WAYS = tuple((aim, form) for aim in ("random", "inverted", "fastest") for form in ("plan", "raw"))
TURN_S, PERIOD_S = 0.01, 0.1  # [s] between joint states; between proposals
STILL_S, STILL_RAD_S = 0.5, 0.02  # [s] after the end of what is in force; then each joint is slower than that
COMMANDED = ("velocity", "acceleration", "jerk")
KNOT_S, KNOTS, POINT_S = 0.1, 9, 0.02


@dataclass(frozen=True)
class AdversaryConfig:
    """How many episodes of ill will, and how bad."""

    episodes: int = 1000
    """Number of episodes; the six ways of meaning ill take turns."""
    seed: int = 0
    """Same seed, same episodes."""
    robot: str = "ur5e"
    """Name of a shipped robot profile that the simulation can build."""
    duration_s: float = 5.0
    """[s] of proposals in each episode."""
    latency_max_s: float = 0.1
    """[s] at most, between the guard's word and the controller; drawn for each episode."""
    transport_s: float = 0.1
    """[s] that the guard allows for it: what begins sooner is refused, as the guard node's parameter of that name has it."""
    own_lead_s: float = 0.1
    """[s] from now at which the guard's own motions begin (stops, and yielding to what holds the arm)."""
    stop_share: float = 0.2
    """Share of episodes in which the guard is told to stop at a random moment, and reset later."""
    json: Path | None = None
    """Where to write the figures."""
    jobs: int = 0
    """Processes, one thread each; 0: one for each core."""

    def __post_init__(self) -> None:
        for name, low, high in (("episodes", 1, 1_000_000), ("seed", 0, 2**31), ("jobs", 0, 256), ("duration_s", 0.5, 60.0),
                                ("latency_max_s", 0.0, 1.0), ("transport_s", 0.0, 0.2), ("own_lead_s", 0.0, 0.2), ("stop_share", 0.0, 1.0)):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"--{name.replace('_', '-')} must be {low} to {high}, got {getattr(self, name)}.")


@dataclass
class AdversaryResult:
    """What one episode came to."""

    index: int
    way: str
    offered: int = 0
    verdicts: Counter = field(default_factory=Counter)
    violations: int = 0
    violation_detail: str = ""
    touches: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOUCHED, 0))
    depth_m: dict[str, float] = field(default_factory=dict)
    commanded: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMMANDED, 0.0))  # greatest share of each limit
    at_rest: bool = False
    travelled_rad: float = 0.0
    fastest_rad_s: float = 0.0
    fastest_m_s: float = 0.0


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
            return joint_trajectory(self._plan(in_force, state, now_s, join_s), in_force, state, join_s, self.kinematics, self.profile)
        return self._spoiled(self._raw(in_force, state, join_s))

    def _plan(self, in_force: Trajectory | None, state: RobotState, now_s: float, join_s: float) -> Plan:
        start = start_of(in_force, now_s, join_s, KNOT_S, self.kinematics)
        if self.aim == "random":
            velocities = self.rng.normal(size=(KNOTS, 3)) * self.rng.uniform(0.05, 1.0)
        else:
            way = self._bad_place() - self.kinematics.tip(state.q)
            speed = self.profile.tip_speed_max * (self.rng.uniform(0.5, 1.0) if self.aim == "inverted" else self.rng.uniform(1.0, 4.0))
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
        rate = min(float(self.profile.velocity_bounds(q)[1].min()), tip) * self.rng.uniform(*((0.9, 1.2) if self.aim == "fastest" else (0.2, 1.1)))
        speed = np.maximum(np.abs(way) * rate, 1e-3)
        motion = quickest(q, dq, ddq, goal, speed, share * self.profile.acceleration_max, 0.5 * share * self.profile.jerk_max, join_s)
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
    q: np.ndarray, dq: np.ndarray, ddq: np.ndarray, goal: np.ndarray, speed: np.ndarray, acceleration: np.ndarray, jerk: np.ndarray, start_s: float
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


class Bout:
    """One episode: proposals, the guard's word, a late controller, and the judge."""

    def __init__(self, arena: Arena, guard: Callable[[tuple[Box, ...]], Guard], config: AdversaryConfig, index: int) -> None:
        self.config, self.arena, self.rng = config, arena, np.random.default_rng([config.seed, index])
        arena.begin(self.rng, Mismatch())
        aim, form = WAYS[index % len(WAYS)]
        self.adversary, self.guard = Adversary(arena, aim, form, self.rng), guard(arena.keep_outs)
        self.result = AdversaryResult(index, f"{aim} {form}")
        self._latency_s = self.rng.uniform(0.0, config.latency_max_s)
        self._under_way: list[tuple[float, Trajectory]] = []  # what the controller has not yet

    def run(self) -> AdversaryResult:
        config, result = self.config, self.result
        turns = round(config.duration_s / TURN_S)
        stop_at = int(self.rng.integers(turns)) if self.rng.random() < config.stop_share else -1
        for turn in range(10 * turns):
            now_s, state = self.arena.time_s, self.arena.state()
            if turn > turns and (self.guard.in_force is None or now_s > self.guard.in_force.times_s[-1] + STILL_S):
                break
            begin_s = now_s + config.own_lead_s  # no motion may begin before the controller has it
            self._send(self.guard.relieve(state, begin_s), now_s)
            if turn == stop_at:
                self._send(self.guard.stop("stopped by the adversary", state, begin_s), now_s)
            elif self.guard.stopped and turn % 10 == 5:
                self.guard.reset(now_s, state)
            elif turn < turns and turn % round(PERIOD_S / TURN_S) == 0:
                self._offer(state, now_s)
            self._deliver(now_s)
            self._watch(now_s)
            self.arena.advance(TURN_S)
            result.travelled_rad += TURN_S * float(np.abs(self.arena.state().dq).sum())
        judgement = self.arena.judgement()
        result.violations, result.violation_detail = judgement.violations, judgement.violation_detail
        result.touches, result.depth_m = dict(self.arena.touches), dict(self.arena.depth_m)
        result.at_rest = bool((np.abs(self.arena.state().dq) < STILL_RAD_S).all())
        result.fastest_rad_s, result.fastest_m_s = (float(v) for v in self.arena.fastest)
        return result

    def _watch(self, now_s: float) -> None:
        """The greatest share of each limit that the controller will command until the next turn."""
        profile, (q, *motion) = self.arena.profile, self.arena.commanded(now_s + np.arange(0.001, TURN_S, 0.002))
        limits = (np.minimum(*np.abs(profile.velocity_bounds(q))), profile.acceleration_max, profile.jerk_max)
        shares = [np.abs(value) / limit for value, limit in zip(motion, limits, strict=True)]
        for name, share in zip(COMMANDED, shares, strict=True):
            self.result.commanded[name] = max(self.result.commanded[name], float(share.max()))

    def _offer(self, state: RobotState, now_s: float) -> None:
        motion = self.adversary.propose(self.guard.in_force, state, now_s, self.config.transport_s)
        self.result.offered += 1
        if motion.times_s[0] - now_s < self.config.transport_s:
            self.result.verdicts["too_soon"] += 1
            return
        offered = Candidate(motion, self.arena.profile.joint_names, now_s - self.rng.uniform(0, 0.3), now_s - self.rng.uniform(0, 0.1))
        verdict = self.guard.offer(offered, state, now_s)
        self.result.verdicts[verdict.reason.value] += 1
        if verdict.ok:
            self._send(motion, now_s)

    def _send(self, motion: Trajectory | None, now_s: float) -> None:
        """What is in force now that `motion` is part of it, and not the bare motion: a controller goes straight to the first
        point that lies ahead."""
        if motion is not None:
            self._under_way.append((now_s + self._latency_s, self.guard.in_force))

    def _deliver(self, now_s: float) -> None:
        while self._under_way and self._under_way[0][0] <= now_s + 1e-9:
            self.arena.command(self._under_way.pop(0)[1])


def run(config: AdversaryConfig, progress: Callable[[AdversaryResult], None] = lambda result: None) -> list[AdversaryResult]:
    """All episodes, in order of their index; each depends on its seed alone. Ctrl-C ends the processes."""
    jobs = config.jobs or os.cpu_count() or 1
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the new processes when they load their libraries
    results: list[AdversaryResult] = []
    pool = ProcessPoolExecutor(min(jobs, config.episodes), get_context("spawn"), _begin_worker, (config,))
    try:
        for future in as_completed([pool.submit(_work, index) for index in range(config.episodes)]):
            results.append(future.result())
            progress(results[-1])
    except BaseException:  # an error or Ctrl-C: the episodes still running are worth nothing
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in active_children():
            worker.terminate()
        raise
    pool.shutdown()
    return sorted(results, key=lambda result: result.index)


_own: tuple[Arena, MujocoKinematics, AdversaryConfig] | None = None  # of a worker process


def _begin_worker(config: AdversaryConfig) -> None:
    global _own
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    profile = load_profile(config.robot)
    _own = Arena(profile), MujocoKinematics(profile), config


def _work(index: int) -> AdversaryResult:
    arena, kinematics, config = _own
    return Bout(arena, guarded(arena.profile, kinematics), config, index).run()


def guarded(profile: RobotProfile, kinematics: MujocoKinematics) -> Callable[[tuple[Box, ...]], Guard]:
    """Makes the guard of a scene with these boxes."""
    return lambda keep_outs: Guard(profile, kinematics, scene=Scene(profile, keep_outs))


def summarise(config: AdversaryConfig, results: list[AdversaryResult], took_s: float) -> dict[str, Any]:
    """The figures, over all and for each way of meaning ill."""

    def of(some: list[AdversaryResult]) -> dict[str, Any]:
        verdicts = sum((result.verdicts for result in some), Counter())
        return {
            "episodes": len(some),
            "proposals": sum(result.offered for result in some),
            "passed": verdicts["ok"],
            "violations": sum(result.violations for result in some),
            "collisions": {what: sum(result.touches[what] for result in some) for what in TOUCHED},
            "deepest_mm": {what: 1e3 * max(result.depth_m[what] for result in some) for what in TOUCHED},
            "commanded_share_of_limit": {name: max(result.commanded[name] for result in some) for name in COMMANDED},
            "not_at_rest": sum(not result.at_rest for result in some),
            "travelled_rad": sum(result.travelled_rad for result in some),
            "fastest_rad_s": max(result.fastest_rad_s for result in some),
            "fastest_tip_m_s": max(result.fastest_m_s for result in some),
            "verdicts": dict(verdicts.most_common()),
        }

    bad = [result for result in results if result.violations or any(result.touches.values()) or not result.at_rest]
    ways = {way: [result for result in results if result.way == way] for way in sorted({result.way for result in results})}
    return {
        **of(results),
        "episodes_per_minute": 60 * len(results) / took_s,
        "seed": config.seed,
        "robot": config.robot,
        "latency_max_s": config.latency_max_s,
        "transport_s": config.transport_s,
        "own_lead_s": config.own_lead_s,
        "by_way": {way: of(some) for way, some in ways.items()},
        "bad": [{"index": r.index, "way": r.way, "what": r.violation_detail, "touches": r.touches, "at_rest": r.at_rest} for r in bad],
    }
