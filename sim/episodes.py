"""Episodes in one process: the agent in the simulator, time standing still while it thinks, and the judge's word.

    foresight evaluate --task reach --episodes 200 --seed 100 --json reach.json

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
from typing import Any, Protocol

import numpy as np

from foresight.data import RobotState, Trajectory
from foresight.evaluation.config import EvaluateConfig
from foresight.evaluation.results import EpisodeResult, Report, summarise
from foresight.evaluation.video import EpisodeVideo, episode_line, imagined_pictures
from foresight.workers import deaf_to_interrupts

PERIOD_S = 0.1  # [s] between two plans, of simulated time
WATCHES = 5  # looks of the guard at the joint states in that time; through ROS there are more
SETTLE_S = 0.8  # [s] of simulated time for the judge to see the arm at rest after the agent has ended its pursuit


class Acting(Protocol):
    """What an episode needs of `foresight.agent.Agent`."""

    def reset(self) -> None: ...

    def set_goal_images(self, images: dict[str, np.ndarray], now_s: float, object_only: bool = False) -> None: ...

    def step(self, images: dict[str, np.ndarray], state: RobotState, now_s: float) -> Any: ...

    def watch(self, state: RobotState, now_s: float) -> Trajectory | None: ...

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


Build = Callable[[EvaluateConfig, str], tuple[Any, Acting]]


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

    `keep_out`: whether the agent is told of the keep-out that stands on its way; "none" where none does.
    """
    scenario = simulation.reset(task, seed, shift)
    start_s = simulation.time_s
    agent.reset()
    told = {"keep_outs": (scenario.keep_out,)} if keep_out == "told" else {}
    agent.set_goal_images(scenario.goal_images, start_s, object_only=task == "push_object_goal", **told)
    steps, refused, last_refusal, outcome, end_s = 0, 0, "", None, start_s + scenario.time_limit_s
    planning_ms, command_ms, surprise = [], [], []
    with EpisodeVideo(video, scenario.goal_images, round(1 / PERIOD_S)) if video else nullcontext() as recording:
        while True:
            images, state, now_s = simulation.images(), simulation.state(), simulation.time_s
            began = perf_counter()
            step = agent.step(images, state, now_s)
            if step.trajectory is not None:
                command_ms.append(1e3 * (perf_counter() - began))
                simulation.command(step.trajectory)
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
                simulation.advance(PERIOD_S / WATCHES)
                relief = agent.watch(simulation.state(), simulation.time_s)
                if relief is not None:
                    simulation.command(relief)
            steps += 1
        judgement = simulation.judgement()
        elapsed_s = simulation.time_s - start_s
        if recording and judgement.success and not keep_success:
            recording.discard()
    kept = video is not None and (keep_success or not judgement.success)
    reason = (
        "reached" if judgement.success else "timed_out" if outcome is None else f"ended by the planner as {outcome.end.value}"
    )
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
    jobs = list(_jobs(config))
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
        interrupted=interrupted,
    )
    return report, episodes


def random_floor(config: EvaluateConfig, progress: Callable[[EpisodeResult], None] = lambda result: None) -> list[EpisodeResult]:
    """The random policy alone, on the first of the configuration's seeds, without videos."""
    if config.random_floor == 0:
        return []
    floor = replace(config, policy="random", episodes=config.random_floor, report=None)
    return evaluate(floor, progress)[1]


def _jobs(config: EvaluateConfig) -> Iterator[Job]:
    videos = config.report / "videos" if config.report else None
    for task in config.task:
        for index in range(config.episodes):
            video = videos / f"{task}_{index:03d}.mp4" if videos else None
            yield Job(task, config.policy, index, config.episode_seed(index), video, index < config.videos)
        for index in range(config.random_floor):
            yield Job(task, "random", index, config.episode_seed(index), None, False)


def _run(config: EvaluateConfig, jobs: list[Job], build: Build) -> Iterator[tuple[Job, EpisodeResult]]:
    if config.jobs == 1:
        try:
            for job in jobs:
                yield job, _work(config, job, build)
        finally:
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
    return run_episode(
        simulation, agent, job.task, job.seed, config.shift, job.policy, job.video, job.keep_success, config.keep_out
    )


def _build(config: EvaluateConfig, policy: str) -> tuple[Any, Acting]:
    from foresight.agent import Agent
    from foresight.robots.profile import load_profile
    from sim.simulation import Simulation
    from sim.unguarded import UnguardedAgent

    kind = Agent if config.guard else UnguardedAgent
    return Simulation(0, load_profile(config.robot), zone=config.keep_out != "none"), kind.load(
        config.checkpoint, config.robot, policy=policy, seed=0, deadline_s=float("inf")
    )  # simulated time stands still meanwhile: outcomes must not depend on load


def _model_id(config: EvaluateConfig, build: Build) -> str:
    if build is not _build:
        return "none"
    from foresight.world_model.checkpoint import load

    return load(config.checkpoint).model_id


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
