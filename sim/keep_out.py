"""Tasks with a keep-out box on the straight way to the goal, on the same scenes: told of it and untold, planner and actor alone.

    foresight bench keep_out --episodes 200 --seed 402 --json F

Nobody sees or feels the box: true states tell whether any part of the arm came into it, and the object. The ways round were
developed on seeds 103 and 300, how the hand comes down beside the object on 400 and 401; every other seed is held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from foresight.data import Box
from foresight.evaluation.config import EvaluateConfig, KeepOutName, PolicyName, TaskName
from foresight.evaluation.results import EpisodeResult, git_commit, machine
from foresight.evaluation.statistics import percentile, wilson
from sim.episodes import Build, evaluate

RUNS: dict[str, tuple[PolicyName, KeepOutName]] = {
    "told": ("both", "told"),
    "actor alone, told": ("actor", "told"),
    "actor alone, untold": ("actor", "untold"),
    "untold": ("both", "untold"),
}


@dataclass(frozen=True)
class KeepOutConfig:
    """Which scenes to run, and by whom."""

    episodes: int = 200
    """Number of scenes; each is run by the planner and by the actor alone, told of the box and untold."""
    actor_episodes: int | None = None
    """Scenes, the first of them, for all but the planner told of the box; by default all."""
    seed: int = 402
    """Held-out scenes start at seed * 100000. 103, 300, 400 and 401 are those that this was developed on."""
    task: TaskName = "push"
    """push, push_object_goal or reach."""
    checkpoint: Path = Path("models/ur5e")
    """Folder of the checkpoint; the default is the one shipped."""
    robot: str = "ur5e"
    """Name of a shipped robot profile, or the path of its YAML file."""
    jobs: int = 2
    """Processes, one thread each."""
    json: Path = Path("runs/bench/keep_out.json")
    """File for the figures."""

    def __post_init__(self) -> None:
        self.run("told")
        if self.actor_episodes is not None and not 0 <= self.actor_episodes <= self.episodes:
            raise ValueError(f"--actor-episodes must lie between 0 and --episodes ({self.episodes}), got {self.actor_episodes}.")

    def run(self, name: str) -> EvaluateConfig:
        """What one of the runs evaluates."""
        policy, keep_out = RUNS[name]
        few = self.episodes if self.actor_episodes is None else self.actor_episodes
        return EvaluateConfig(
            task=(self.task,),
            episodes=self.episodes if name == "told" else max(few, 1),
            seed=self.seed,
            policy=policy,
            keep_out=keep_out,
            random_episodes=0,
            checkpoint=self.checkpoint,
            robot=self.robot,
            jobs=self.jobs,
        )


def bench(config: KeepOutConfig, show: Callable[[str, EpisodeResult], None], build: Build | None = None) -> dict:
    """All figures. Ctrl-C leaves what was done until then, marked as interrupted."""
    rows, interrupted = {}, False
    for name in RUNS if config.actor_episodes != 0 else ("told",):
        try:
            report, episodes = evaluate(config.run(name), lambda result, name=name: show(name, result), build)
        except KeyboardInterrupt:
            interrupted = True
            break
        rows[name] = row(episodes)
        interrupted = report.interrupted
        if interrupted:
            break
    return {
        "task": config.task,
        "seed": config.seed,
        "runs": rows,
        "scenes": None if interrupted or build else scenes(config),
        "interrupted": interrupted,
        "commit": git_commit(),
        "machine": asdict(machine()),
    }


def row(episodes: list[EpisodeResult]) -> dict:
    """Success with its Wilson 95 % interval, limits broken, and in how many episodes arm and object came into the box."""
    successes, many = sum(e.success for e in episodes), len(episodes)
    return {
        "episodes": many,
        "successes": successes,
        "ci95": [round(bound, 4) for bound in wilson(successes, many)],
        "violations": sum(e.violations for e in episodes),
        "arm_entered": sum(bool(e.keep_outs_entered) for e in episodes),
        "object_entered": sum(bool(e.object_entered) for e in episodes),
        "arm_entered_in": [e.seed for e in episodes if e.keep_outs_entered],
        "time_to_goal_s": percentile([e.time_to_goal_s for e in episodes if e.time_to_goal_s is not None], 50),
        "failures": {str(e.seed): f"{e.reason}, {100 * e.final_distance_m:.1f} cm" for e in episodes if not e.success},
    }


def scenes(config: KeepOutConfig) -> dict:
    """In how many scenes the box lies on the straight way, of the object's centre (or the tip) and of the tip that pushes it."""
    from foresight.robots.profile import load_profile
    from sim.simulation import Simulation
    from sim.tasks import CONTACT_M, TIP_PUSHING_M

    simulation = Simulation(0, load_profile(config.robot), zone=True)
    try:
        on_way = of_tip = 0
        for index in range(config.episodes):
            box = simulation.reset(config.task, config.run("told").episode_seed(index)).keep_out
            setting = simulation.setting
            if config.task == "reach":
                begin, end, behind = setting.tip, setting.goal_tip, np.zeros(3)
            else:
                begin, end = (np.append(place, TIP_PUSHING_M) for place in (setting.cube, setting.goal_cube))
                behind = CONTACT_M * (end - begin) / np.linalg.norm(end - begin)
            on_way += crosses(box, begin, end)
            of_tip += crosses(box, begin - behind, end - behind)
    finally:
        simulation.close()
    return {"count": config.episodes, "box_on_straight_way": on_way, "box_on_straight_way_of_pushing_tip": of_tip}


def crosses(box: Box, begin: np.ndarray, end: np.ndarray) -> bool:
    """Whether the straight way leads through the box."""
    step = np.where(np.abs(end - begin) < 1e-12, 1e-12, end - begin)
    one, other = (box.low - begin) / step, (box.high - begin) / step
    return bool(max(np.minimum(one, other).max(), 0.0) < min(np.maximum(one, other).min(), 1.0))


def summary(figures: dict) -> str:
    """A few lines for people."""
    lines = []
    for name, found in figures["runs"].items():
        low, high = (100 * bound for bound in found["ci95"])
        rate, time_s = 100 * found["successes"] / max(1, found["episodes"]), found["time_to_goal_s"]
        took = "" if time_s is None else f", median {time_s:.1f} s"
        lines.append(
            f"{name}: {rate:.1f} % [{low:.0f}, {high:.0f}] of {found['episodes']}{took}; {found['violations']} limits broken; "
            f"came into the box: arm in {found['arm_entered']}, object in {found['object_entered']} episodes"
        )
    if figures["scenes"]:
        there = figures["scenes"]
        lines.append(
            f"The box lies on the straight way in {there['box_on_straight_way']} of {there['count']} scenes, "
            f"of the tip that pushes in {there['box_on_straight_way_of_pushing_tip']}."
        )
    return "\n".join(lines)
