"""The loop against the clock: is each plan there in time, how does it take over, and what does the arm do without it?

    foresight bench cycles --cycles 10000 --json F

Every 100 ms the agent looks and plans a motion that begins 100 ms later, as the nodes do. The wall clock says how long that took,
rendering aside; a plan that took longer is dropped, and the arm goes on with the motion that it has. Some plans are held back on
purpose, so that there are misses on a machine that has none. Judged is what the controller asks of the joints, at its own rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from os import sched_getaffinity
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from foresight.control.trajectory import derivatives
from foresight.data import Reason, Trajectory
from foresight.evaluation.config import EvaluateConfig, TaskName
from foresight.evaluation.results import git_commit, machine
from foresight.evaluation.statistics import percentile
from foresight.safety.config import GuardConfig
from sim.controller import WATCHES
from sim.episodes import send
from sim.scenes import PHYSICS_STEP_S as TICK_S  # of the controller too

POSITION_RAD = 1e-4  # [rad] that a command may jump by
GRANTED = GuardConfig().limit_tolerance  # share of a limit granted to rounding
REST_RAD_S = GuardConfig().rest_rad_s  # [rad/s] below which a commanded joint is at rest
MOVING_RAD_S = 1e-2  # [rad/s] of a joint above which a hand-over counts as one in motion


@dataclass(frozen=True)
class CyclesConfig:
    """How many cycles, how long each may take, and where to write the figures."""

    cycles: int = 10_000
    """Number of cycles; episodes follow each other until there were so many."""
    period_ms: float = 100.0
    """Length of a cycle, and what a plan may take from frames and joints in hand to the checked command [ms]."""
    limit_ms: float | None = None
    """What a plan may take where that is not the period [ms]; a large one counts hand-overs on a machine that is busy."""
    task: tuple[TaskName, ...] = ("reach", "push")
    """Tasks, in turn."""
    seed: int = 100
    """Held-out scenes start at seed * 100000."""
    held_back: float = 0.02
    """Share of the plans that are held back on purpose, as if they were late; which ones follows from the seed."""
    checkpoint: Path = Path("models/ur5e")
    """Folder of the checkpoint; the default is the one shipped."""
    robot: str = "ur5e"
    """Name of a shipped robot profile, or the path of its YAML file."""
    threads: int = len(sched_getaffinity(0))
    """Threads of torch; by default every core that this process may use."""
    json: Path | None = None
    """Where to write the figures."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("cycles", 1, 10_000_000),
            ("period_ms", 20, 240),
            ("held_back", 0, 0.9),
            ("threads", 1, 256),
            ("seed", 0, 9_999),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"--{name.replace('_', '-')} must lie between {low} and {high}, got {getattr(self, name)}.")
        if self.limit_ms is not None and not self.limit_ms > 0:
            raise ValueError(f"--limit-ms must be above 0, got {self.limit_ms}.")
        if not self.task:
            raise ValueError("--task needs at least one of reach, push, push_object_goal.")


@dataclass
class Watched:
    """What the cycles came to so far."""

    acceleration_max: Float[np.ndarray, "J"]  # [rad/s^2]
    took_ms: list[float] = field(default_factory=list)
    plans: int = 0
    misses: int = 0
    held_back: int = 0
    uncovered: list[str] = field(default_factory=list)
    hand_overs: int = 0
    moving: int = 0  # hand-overs while a joint moves
    position_jump_rad: float = 0.0
    velocity_jump_share: float = 0.0  # of a_max dt
    tick_position_rad: float = 0.0  # between two ticks, beyond what the velocities explain
    tick_velocity_share: float = 0.0  # of a_max dt

    def take_over(self, before: Trajectory, after: Trajectory, join_s: float) -> None:
        """One plan follows another at `join_s`."""
        (q, dq, _, _), (q_new, dq_new, _, _) = derivatives(before, join_s), derivatives(after, join_s)
        self.hand_overs += 1
        self.moving += bool(np.abs(dq).max() > MOVING_RAD_S)
        self.position_jump_rad = max(self.position_jump_rad, float(np.abs(q_new - q).max()))
        self.velocity_jump_share = max(self.velocity_jump_share, self._share(dq_new - dq))

    def ticks(self, q: Float[np.ndarray, "N J"], dq: Float[np.ndarray, "N J"]) -> bool:
        """What the controller asked for at each tick; whether that was as smooth as the joints can follow."""
        position = float(np.abs(np.diff(q, axis=0) - TICK_S * (dq[1:] + dq[:-1]) / 2).max())
        velocity = self._share(np.diff(dq, axis=0))
        self.tick_position_rad = max(self.tick_position_rad, position)
        self.tick_velocity_share = max(self.tick_velocity_share, velocity)
        return position < POSITION_RAD and velocity <= 1 + GRANTED

    def _share(self, velocities: Float[np.ndarray, "*n J"]) -> float:
        return float((np.abs(velocities) / (self.acceleration_max * TICK_S)).max())

    def figures(self, period_ms: float) -> dict[str, Any]:
        """With `ok`: no miss uncovered, no jump. How long cycles take is the machine's affair and stands for itself."""
        return {
            "cycles": len(self.took_ms),
            "plans": self.plans,
            "cycle_ms": {name: percentile(self.took_ms, p) for name, p in (("p50", 50), ("p95", 95), ("p99", 99), ("max", 100))},
            "p99_within_period": percentile(self.took_ms, 99) <= period_ms,
            "misses": self.misses,
            "held_back": self.held_back,
            "uncovered": len(self.uncovered),
            "uncovered_shown": self.uncovered[:20],
            "hand_overs": self.hand_overs,
            "hand_overs_in_motion": self.moving,
            "position_jump_rad": self.position_jump_rad,
            "velocity_jump_of_a_max_dt": self.velocity_jump_share,
            "tick_position_rad": self.tick_position_rad,
            "tick_velocity_of_a_max_dt": self.tick_velocity_share,
            "ok": not self.uncovered
            and max(self.position_jump_rad, self.tick_position_rad) < POSITION_RAD
            and max(self.velocity_jump_share, self.tick_velocity_share) <= 1 + GRANTED,
        }


Build = Callable[[CyclesConfig], tuple[Any, Any]]  # a simulation, and an agent whose latency is one period


def bench(
    config: CyclesConfig,
    progress: Callable[[int], None] = lambda cycles: None,
    build: Build | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """The figures. `progress` hears how many cycles are done."""
    torch.set_num_threads(config.threads)
    simulation, agent = (build or _build)(config)
    rng, watched = np.random.default_rng(config.seed), Watched(simulation.profile.acceleration_max)
    scenes = EvaluateConfig(task=config.task, seed=config.seed)
    episodes, successes = 0, 0
    began_s = clock()
    try:
        while len(watched.took_ms) < config.cycles:
            task = config.task[episodes % len(config.task)]
            scenario = simulation.reset(task, scenes.episode_seed(episodes))
            agent.reset()
            agent.set_goal_images(scenario.goal_images, simulation.time_s, object_only=task == "push_object_goal")
            successes += _episode(config, simulation, agent, scenario.time_limit_s, watched, rng, progress, clock)
            episodes += 1
    finally:
        simulation.close()
    return {
        "measured": "Frames and joints in hand to the checked command, one process, rendering aside; dropped where that is late.",
        "model_id": agent.model.model_id,
        "git": git_commit(),
        "machine": asdict(machine()),
        "threads": config.threads,
        "period_ms": config.period_ms,
        "limit_ms": config.limit_ms or config.period_ms,
        "tick_s": TICK_S,
        "episodes": episodes,
        "successes": successes,
        **watched.figures(config.period_ms),
        "took_s": clock() - began_s,
    }


def _episode(
    config: CyclesConfig,
    simulation: Any,
    agent: Any,
    limit_s: float,
    watched: Watched,
    rng: np.random.Generator,
    progress: Callable[[int], None],
    clock: Callable[[], float],
) -> bool:
    """Cycles until success, the end of the pursuit, the time limit, or all cycles are done; whether there was success."""
    period_s, end_s = config.period_ms / 1e3, simulation.time_s + limit_s
    last: tuple[np.ndarray, np.ndarray] | None = None  # the last tick of the cycle before
    while simulation.time_s < end_s - 1e-6 and len(watched.took_ms) < config.cycles:
        images, state, now_s = simulation.images(), simulation.state(), simulation.time_s
        before, plan_before = agent.guard.in_force, agent.last_plan
        began_s = clock()
        step = agent.step(images, state, now_s)
        took_s = clock() - began_s
        watched.took_ms.append(1e3 * took_s)
        watched.plans += step.plan is not None
        no_time = step.plan is None and step.verdict is not None and step.verdict.reason is Reason.NO_TIME
        missed = no_time or took_s > (config.limit_ms or config.period_ms) / 1e3
        held_back = bool(rng.random() < config.held_back)
        watched.misses += missed
        dropped = step.trajectory is not None and (missed or held_back)
        if dropped:
            watched.held_back += not missed
            agent.guard.retract()
            agent.last_plan = plan_before
        elif step.trajectory is not None:
            if before is not None:
                watched.take_over(before, step.trajectory, now_s + period_s)
            simulation.command(step.trajectory)
        smooth, last = _advance(simulation, agent, period_s, watched, last)
        if (dropped or missed) and not (smooth and _ends_at_rest(agent.guard.in_force)):
            watched.uncovered.append(f"cycle {len(watched.took_ms)}, {now_s:.2f} s")
        progress(len(watched.took_ms))
        if simulation.judgement().success:
            return True
        if step.outcome is not None:
            break
    return False


def _ends_at_rest(motion: Trajectory | None) -> bool:
    """Whether what the arm is left with brings it to rest; with nothing in force it is."""
    return motion is None or bool((np.abs(motion.dq[-1]) <= REST_RAD_S).all())


def _advance(simulation, agent, period_s: float, watched: Watched, last) -> tuple[bool, tuple[np.ndarray, np.ndarray]]:
    """One cycle of simulated time: whether its setpoints are smooth from the last one before, and their last."""
    smooth = True
    for _ in range(WATCHES):
        ticks = round(period_s / WATCHES / TICK_S)
        q, dq = simulation.setpoints(simulation.time_s + TICK_S * np.arange(1, ticks + 1))
        if last is not None:
            q, dq = np.vstack([last[0], q]), np.vstack([last[1], dq])
        smooth, last = watched.ticks(q, dq) and smooth, (q[-1], dq[-1])
        simulation.advance(ticks * TICK_S)
        send(simulation, agent.watch(simulation.state(), simulation.time_s))
    return smooth, last


def summary(found: dict[str, Any]) -> str:
    """The figures for people."""
    ms, of = found["cycle_ms"], found
    return "\n".join([
        f"{of['cycles']} cycles of {of['period_ms']:g} ms, {of['plans']} plans: p50 {ms['p50']:.0f}, p95 {ms['p95']:.0f}, "
        f"p99 {ms['p99']:.0f}, longest {ms['max']:.0f} ms.",
        f"{of['misses']} misses, {of['held_back']} plans held back on purpose: {of['uncovered']} without a motion to rest.",
        f"{of['hand_overs']} hand-overs, {of['hand_overs_in_motion']} in motion: the position jumps by at most "
        f"{of['position_jump_rad']:.1e} rad, the velocity by {of['velocity_jump_of_a_max_dt']:.1e} of a_max dt.",
        f"From tick to tick ({1e3 * of['tick_s']:g} ms) at most {of['tick_position_rad']:.1e} rad that the velocity does not "
        f"explain, and {of['tick_velocity_of_a_max_dt']:.3f} of a_max dt.",
    ])  # fmt: skip


def _build(config: CyclesConfig) -> tuple[Any, Any]:
    from foresight.agent import Agent
    from foresight.robots.profile import load_profile
    from sim.simulation import Simulation

    agent = Agent.load(config.checkpoint, config.robot, latency_s=config.period_ms / 1e3)
    return Simulation(0, load_profile(config.robot)), agent
