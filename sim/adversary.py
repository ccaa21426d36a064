"""A planner that means ill, guarded: does the arm keep its limits, its distance and its peace whatever is proposed?

    foresight bench adversary --episodes 1000 --json F

Every 0.1 s it proposes motion that is random, inverted (towards table, boxes and walls) or as fast as it can, either as a plan
that `control/motion.py` turns into a trajectory, or raw: trajectories that have seen none of our own limits. Commands
arrive late. The judge reads true states. Knows no world model: whatever one imagines, it can ask for nothing worse.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np

from foresight.data import Box, Candidate, RobotState, Trajectory
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile, load_profile
from foresight.safety.collision import Scene
from foresight.safety.guard import Guard
from foresight.workers import deaf_to_interrupts
from sim.arena import TOUCHED, Arena, Mismatch
from sim.proposals import WAYS, Adversary
from sim.scenes import check_robot

TURN_S, PERIOD_S = 0.01, 0.1  # [s] between joint states; between proposals
STILL_S, STILL_RAD_S = 0.5, 0.02  # [s] after the end of what is in force; then each joint is slower than that
COMMANDED = ("velocity", "acceleration", "jerk")


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
    """[s] that the guard allows for it: what begins sooner is refused, and the guard's own motions begin so much later."""
    stop_share: float = 0.2
    """Share of episodes in which the guard is told to stop at a random moment, and reset later."""
    cube: bool = True
    """A cube lies in the arm's way, which it may touch; without it only forbidden things are in reach."""
    json: Path | None = None
    """Where to write the figures."""
    jobs: int = 0
    """Processes, one thread each; 0: one for each core."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("episodes", 1, 1_000_000),
            ("seed", 0, 2**31),
            ("jobs", 0, 256),
            ("duration_s", 0.5, 60.0),
            ("latency_max_s", 0.0, 1.0),
            ("transport_s", 0.0, 0.2),
            ("stop_share", 0.0, 1.0),
        ):
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


class Bout:
    """One episode: proposals, the guard's word, a late controller, and the judge."""

    def __init__(self, arena: Arena, guard: Callable[[tuple[Box, ...]], Guard], config: AdversaryConfig, index: int) -> None:
        self.config, self.arena, self.rng = config, arena, np.random.default_rng([config.seed, index])
        arena.begin(self.rng, Mismatch(), config.cube)
        aim, form = WAYS[index % len(WAYS)]
        self.adversary, self.guard = Adversary(arena, aim, form, self.rng), guard(arena.keep_outs)
        self.result = AdversaryResult(index, f"{aim} {form}")
        self._latency_s = self.rng.uniform(0.0, config.latency_max_s)
        self._under_way: list[tuple[float, Trajectory]] = []  # what the controller has not yet
        self._ddq: np.ndarray | None = None  # [rad/s^2] last commanded

    def run(self) -> AdversaryResult:
        config, result = self.config, self.result
        turns = round(config.duration_s / TURN_S)
        stop_at = int(self.rng.integers(turns)) if self.rng.random() < config.stop_share else -1
        for turn in range(10 * turns):
            now_s, state = self.arena.time_s, self.arena.state()
            if turn > turns and (self.guard.in_force is None or now_s > self.guard.in_force.times_s[-1] + STILL_S):
                break
            self._send(self.guard.adopt(state, now_s) if self.guard.in_force is None else self.guard.relieve(state, now_s), now_s)
            if turn == stop_at:
                self._send(self.guard.stop("stopped by the adversary", state, now_s), now_s)
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
        """The greatest share of each limit that the controller commands until the next turn, one period after the other."""
        profile, period_s = self.arena.profile, 1 / self.arena.profile.controller_rate_hz
        q, dq, ddq, _ = self.arena.commanded(now_s + period_s * np.arange(round(TURN_S / period_s)))
        jerk = np.diff(ddq, axis=0, prepend=ddq[:1] if self._ddq is None else self._ddq[None]) / period_s
        self._ddq = ddq[-1]
        limits = (np.minimum(*np.abs(profile.velocity_bounds(q))), profile.acceleration_max, profile.jerk_max)
        for name, value, limit in zip(COMMANDED, (dq, ddq, jerk), limits, strict=True):
            self.result.commanded[name] = max(self.result.commanded[name], float((np.abs(value) / limit).max()))

    def _offer(self, state: RobotState, now_s: float) -> None:
        motion = self.adversary.propose(self.guard.in_force, state, now_s, self.config.transport_s)
        self.result.offered += 1
        if motion.times_s[0] - now_s < self.config.transport_s:
            self.result.verdicts["too_soon"] += 1
            return
        offered = Candidate(
            motion, self.arena.profile.joint_names, now_s - self.rng.uniform(0, 0.3), now_s - self.rng.uniform(0, 0.1)
        )
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
    check_robot(load_profile(config.robot))
    jobs = config.jobs or os.cpu_count() or 1
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the new processes when they load their libraries
    results: list[AdversaryResult] = []
    pool = ProcessPoolExecutor(min(jobs, config.episodes), get_context("spawn"), _begin_worker, (config,))
    try:
        with deaf_to_interrupts():
            waiting = [pool.submit(_work, index) for index in range(config.episodes)]
        for future in as_completed(waiting):
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
    profile = load_profile(config.robot)
    _own = Arena(profile), MujocoKinematics(profile), config


def _work(index: int) -> AdversaryResult:
    arena, kinematics, config = _own
    return Bout(arena, guarded(arena.profile, kinematics, config.transport_s), config, index).run()


def guarded(profile: RobotProfile, kinematics: MujocoKinematics, transport_s: float) -> Callable[[tuple[Box, ...]], Guard]:
    """Makes the guard of a scene with these boxes."""
    return lambda keep_outs: Guard(profile, kinematics, scene=Scene(profile, keep_outs), transport_s=transport_s)


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
        "cube": config.cube,
        "by_way": {way: of(some) for way, some in ways.items()},
        "bad": [
            {"index": r.index, "way": r.way, "what": r.violation_detail, "touches": r.touches, "at_rest": r.at_rest} for r in bad
        ],
    }
