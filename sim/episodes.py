"""Episodes in one process: the agent in the simulator, time standing still while it thinks, and the judge's word.

    foresight evaluate --task reach --episodes 200 --seed 100 --json reach.json
    foresight evaluate --suite clean --report runs/clean

Many episodes run in several processes of one thread each. Knows no ROS; `foresight_nodes.run_episodes` does the same
through the graph.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from foresight.data import RobotState
from foresight.evaluation.config import AMONG, GRIPPING, NO_GRIPPER, EvaluateConfig, check_gripping
from foresight.evaluation.results import EpisodeResult, Report, summarise
from foresight.evaluation.video import EpisodeVideo, episode_line, imagined_pictures
from foresight.planning.pursuit import End, GoalRefused, Outcome
from foresight.workers import deaf_to_interrupts
from foresight.world_model import checkpoint
from sim.controller import WATCHES

if TYPE_CHECKING:
    from sim.suites import Suite

PERIOD_S = 0.1  # [s] between two plans, of simulated time
CROWDED = ("objects", "shift")  # suites with rows in which two objects lie beside the cube
SEARCHING = {  # by policy: what the planner calls what `--method`, `--samples` and `--iterations` set
    "both": {"method": "refine_method", "samples": "samples", "iterations": "iterations"},
    "search": {"method": "search_method", "samples": "search_samples", "iterations": "search_iterations"},
}
SETTLE_S = 0.8  # [s] of simulated time for the judge to see the arm at rest after the agent has ended its pursuit


class Acting(Protocol):
    """What an episode needs of `foresight.agent.Agent`."""

    def reset(self) -> None: ...

    def set_goal_images(self, images: dict[str, np.ndarray], now_s: float, object_only: bool = False) -> None: ...

    def step(self, images: dict[str, np.ndarray], state: RobotState, now_s: float) -> Any: ...

    def watch(self, state: RobotState, now_s: float) -> Any: ...

    @property
    def model(self) -> Any: ...  # decodes latents into pictures, for videos


@dataclass(frozen=True)
class Job:
    """One episode to run."""

    task: str
    policy: str
    index: int
    seed: int
    video: Path | None  # where to record it
    keep_success: bool  # whether a success's video is kept
    shift: str = "none"
    row: str = ""  # of the suite
    scene: str = ""  # its hash in the manifest


Build = Callable[[EvaluateConfig, str], tuple[Any, Acting]]


def send(simulation: Any, step: Any) -> None:
    """What an agent's turn, or its look between two, came to, to arm and gripper."""
    if step.trajectory is not None:
        simulation.command(step.trajectory)
    if step.closed is not None:
        simulation.grip(step.closed)


def run_episode(
    simulation: Any,
    agent: Acting,
    task: str,
    seed: int,
    shift: str = "none",
    policy: str = "both",
    video: Path | None = None,
    keep_success: bool = True,
    keep_out: str = "none",
) -> EpisodeResult:
    """One episode: reset, show the goal images, then look, plan, command and let 0.1 s pass until success or the limit.

    `keep_out`: whether the agent is told of the keep-out that stands on its way; "none" where none does. The clock begins at
    0, so that the same scene gives the same outcome whatever ran before it.
    """
    simulation.restart_clock()
    scenario = simulation.reset(task, seed, shift)
    start_s = simulation.time_s
    agent.reset()
    told = {"keep_outs": (scenario.keep_out,)} if keep_out == "told" else {}
    steps, refused, last_refusal, outcome, end_s = 0, 0, "", None, start_s + scenario.time_limit_s
    try:
        agent.set_goal_images(scenario.goal_images, start_s, object_only=task == "push_object_goal", **told)
    except GoalRefused as error:  # a model that sees the goal where it is not: an episode that failed, as on a robot
        outcome, end_s = Outcome(End.REFUSED, str(error)), start_s
    planning_ms, command_ms, surprise = [], [], []
    with EpisodeVideo(video, scenario.goal_images, round(1 / PERIOD_S)) if video else nullcontext() as recording:
        while True:
            images, state = simulation.images(), simulation.state()
            if scenario.latency_s:
                simulation.advance(scenario.latency_s)
            now_s = simulation.time_s
            began = perf_counter()
            step = agent.step(images, state, now_s)
            if step.trajectory is not None:
                command_ms.append(1e3 * (perf_counter() - began))
                send(simulation, step)
            refusal = step.refusal or (step.verdict if step.trajectory is None else None)
            if refusal is not None:
                refused, last_refusal = refused + 1, refusal.reason.value
            if step.outcome is not None:
                outcome, end_s = step.outcome, min(end_s, now_s + SETTLE_S)
            if step.plan is not None:
                planning_ms.append(1e3 * step.plan.planning_s)
            if step.belief is not None:
                surprise.append(float(step.belief.surprise))
            judgement = simulation.judgement()
            if recording:
                _record(recording, agent, step, images, judgement, simulation.time_s - start_s, task)
            if judgement.success or simulation.time_s >= end_s - 1e-6:
                break
            for _ in range(WATCHES):
                simulation.advance((PERIOD_S - scenario.latency_s) / WATCHES)
                send(simulation, agent.watch(simulation.state(), simulation.time_s))
            steps += 1
        judgement = simulation.judgement()
        elapsed_s = simulation.time_s - start_s
        if recording and judgement.success and not keep_success:
            recording.discard()
    kept = video is not None and (keep_success or not judgement.success)
    reason = (
        "reached" if judgement.success else "timed_out" if outcome is None else f"ended by the planner as {outcome.end.value}"
    )
    if outcome is not None and outcome.end is End.REFUSED:
        reason += f" ({outcome.detail})"
    if refused:
        reason += f", {refused} of {steps + 1} steps refused, last: {last_refusal}"
    return EpisodeResult(
        task=task,
        seed=seed,
        shift=shift,
        policy=policy,
        success=bool(judgement.success),
        time_to_goal_s=elapsed_s if judgement.success else None,
        final_distance_m=float(judgement.distance_m),
        violations=int(judgement.violations),
        violation_detail=judgement.violation_detail,
        steps=steps,
        duration_s=elapsed_s,
        pursued_s=elapsed_s,
        reason=reason,
        planning_ms=tuple(planning_ms),
        camera_to_command_ms=tuple(command_ms),
        surprise=tuple(surprise),
        video=f"videos/{video.name}" if kept else "",
        keep_outs_entered=None if keep_out == "none" else int(judgement.entered),
        near_misses=int(judgement.near_misses),
        path_m=float(judgement.path_m),
        jerk_m_s3=float(judgement.jerk_m_s3),
        object_entered=None if keep_out == "none" else bool(judgement.object_entered),
    )


def evaluate(
    config: EvaluateConfig, progress: Callable[[EpisodeResult], None] = lambda result: None, build: Build | None = None
) -> tuple[Report, list[EpisodeResult]]:
    """All episodes of the configuration and the random floor's; results in order of task, policy and seed.

    `build` makes the simulation and the agent of a policy, once in every process. Ctrl-C ends the processes; what was done until
    then is reported as interrupted, or KeyboardInterrupt raised where nothing was.
    """
    build = build or _build
    suite, not_run = rows_of(config)
    jobs = list(_jobs(config, suite))
    results: dict[Job, EpisodeResult] = {}
    interrupted = False
    try:
        for job, result in _run(config, jobs, build):
            results[job] = result
            progress(result)
    except KeyboardInterrupt:
        interrupted = True
        if not any(job.policy == config.policy for job in results):
            raise
    episodes = [results[job] for job in jobs if job in results]
    report = summarise(
        episodes,
        policy=config.policy,
        seed=config.seed,
        shift=config.shift,
        keep_out=config.keep_out,
        model_id=_model_id(config, build),
        guarded=config.guard,
        injected_ms=config.latency_ms,
        compensated=config.compensate,
        subgoals=config.subgoals,
        searching=config.searching,
        interrupted=interrupted,
        suite=config.suite or "",
        manifest=suite.fingerprint if suite else "",
        not_run=not_run,
        training=_training(config, build),
    )
    return report, episodes


def rows_of(config: EvaluateConfig) -> tuple["Suite | None", dict[str, str]]:
    """The configuration's suite with the rows to run, and why others cannot be; (None, {}) without a suite.

    Raises ManifestError where the manifest and the code differ, ValueError where `rows` names none or nothing is left to run.
    """
    if config.suite is None:
        check_gripping(config.task, lambda: moves_gripper(config))
        return None, {}
    from sim.suites import load

    suite = load(config.suite)
    wrong = [row for row in config.rows if row not in suite.rows]
    if wrong:
        raise ValueError(f"--rows: suite '{suite.name}' has no row '{wrong[0]}'. Available: {'; '.join(suite.rows)}.")
    rows = {name: suite.rows[name] for name in config.rows or suite.rows}
    gripping = {name for name, entries in rows.items() if entries[0].task in GRIPPING}
    cannot = gripping if gripping and not moves_gripper(config) else set()
    if cannot == rows.keys():
        raise ValueError(f"None of the rows ({'; '.join(rows)}) can be run: {NO_GRIPPER}. Only --policy expert can.")
    return replace(suite, rows={n: e[: config.episodes] for n, e in rows.items() if n not in cannot}), dict.fromkeys(
        (name for name in rows if name in cannot), NO_GRIPPER
    )


def moves_gripper(config: EvaluateConfig) -> bool:
    """Whether the policy does. Raises CheckpointError where the model cannot be asked."""
    return config.policy == "expert" or checkpoint.read_contract(config.checkpoint).moves_gripper


def planned(config: EvaluateConfig) -> dict[tuple[str, str], int]:
    """Number of episodes by row or task, and policy."""
    counted: dict[tuple[str, str], int] = {}
    for job in _jobs(config, rows_of(config)[0]):
        counted[job.row or job.task, job.policy] = counted.get((job.row or job.task, job.policy), 0) + 1
    return counted


def random_floor(config: EvaluateConfig, progress: Callable[[EpisodeResult], None] = lambda result: None) -> list[EpisodeResult]:
    """The random policy alone, on the first of the configuration's seeds, without videos."""
    if config.random_floor == 0:
        return []
    floor = replace(config, policy="random", episodes=config.random_floor, report=None)
    return evaluate(floor, progress)[1]


def _jobs(config: EvaluateConfig, suite: "Suite | None") -> Iterator[Job]:
    videos = config.report / "videos" if config.report else None
    for row, entries in (suite.rows if suite else dict.fromkeys(config.task)).items():
        if entries is None:
            scenes = [(row, config.shift, config.episode_seed(index), "", "") for index in range(config.episodes)]
        else:
            scenes = [(e.task, e.shift, e.seed, e.row, e.hash) for e in entries]
        for index, (task, shift, seed, name, scene) in enumerate(scenes):
            video = videos / f"{row.replace(', ', '_')}_{index:03d}.mp4" if videos else None
            yield Job(task, config.policy, index, seed, video, index < config.videos, shift, name, scene)
        floor = config.random_floor if entries is None or entries[0].shift == "none" else 0
        for index, (task, shift, seed, name, scene) in enumerate(scenes[:floor]):
            if task not in GRIPPING or config.policy != "expert":
                yield Job(task, "random", index, seed, None, False, shift, name, scene)


def _run(config: EvaluateConfig, jobs: list[Job], build: Build) -> Iterator[tuple[Job, EpisodeResult]]:
    if config.jobs == 1:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)  # as each of several: sums over two threads would come out otherwise
        try:
            for job in jobs:
                yield job, _work(config, job, build)
        finally:
            torch.set_num_threads(before)
            while _built:
                _built.popitem()[1][0].close()
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the new processes when they load their libraries
    pool = ProcessPoolExecutor(min(config.jobs, len(jobs)), get_context("spawn"), _begin_worker)
    try:
        with deaf_to_interrupts():
            waiting = {pool.submit(_work, config, job, build): job for job in jobs}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BaseException:  # an error or Ctrl-C: the episodes still running are worth nothing
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in active_children():
            worker.terminate()
        raise
    pool.shutdown()


def _begin_worker() -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)


_built: dict[tuple[str, str], tuple[Any, Acting]] = {}  # of this process, by checkpoint and policy


def _work(config: EvaluateConfig, job: Job, build: Build) -> EpisodeResult:
    key = (f"{build.__module__}.{build.__qualname__}", f"{config.checkpoint}:{job.policy}")
    if key not in _built:
        _built[key] = build(config, job.policy)
    simulation, agent = _built[key]
    result = run_episode(
        simulation, agent, job.task, job.seed, job.shift, job.policy, job.video, job.keep_success, config.keep_out
    )
    return replace(result, row=job.row, scene=job.scene)


def _build(config: EvaluateConfig, policy: str) -> tuple[Any, Acting]:
    from foresight.agent import Agent
    from foresight.robots.profile import load_profile
    from sim.experts import Expert
    from sim.simulation import Simulation
    from sim.unguarded import UnguardedAgent

    crowded = config.suite in CROWDED or config.shift == "distractors" or {*config.task} & {*AMONG}
    simulation = Simulation(0, load_profile(config.robot), zone=config.keep_out != "none", others=2 if crowded else 0)
    if policy == "expert":
        return simulation, Expert(simulation)
    kind = Agent if config.guard else UnguardedAgent
    agent = kind.load(
        config.checkpoint,
        config.robot,
        policy=policy,
        seed=0,
        latency_s=config.latency_ms / 1e3,
        compensates=config.compensate,
        device=config.device,
        subgoals=config.subgoals,
        **{SEARCHING[policy][name]: value for name, value in config.searching.items() if policy in SEARCHING},
        deadline_s=float("inf"),  # simulated time stands still meanwhile: outcomes must not depend on load
    )
    return simulation, agent


def _model_id(config: EvaluateConfig, build: Build) -> str:
    if build is not _build or config.policy == "expert":
        return "none"
    return checkpoint.load(config.checkpoint).model_id


def _training(config: EvaluateConfig, build: Build) -> dict:
    """What the checkpoint says of how it was made; nothing where another agent acted."""
    if build is not _build or config.policy == "expert":
        return {}
    return checkpoint.read_config(config.checkpoint).get("training", {})


def _record(
    recording: EpisodeVideo, agent: Acting, step: Any, images: dict[str, np.ndarray], judgement: Any, elapsed_s: float, task: str
) -> None:
    imagined = imagined_pictures(agent.model, step.plan) if step.plan is not None else None
    ahead_s = len(step.plan.tip_velocity) * step.plan.dt_s if step.plan is not None else 0.0
    recording.add(
        images,
        imagined,
        episode_line(task, elapsed_s, judgement.distance_m, step.plan, judgement.success),
        ahead_s,
        judgement.success,
    )
