"""Ways to search, compared on equal draws: what the best motion found costs after each round, and how long that took.

    foresight bench search --scenes 50 --json F

Every method begins with the same candidates (iCEM too, for which the planner draws coloured noise), from rest and without the
actor, in the same held-out scenes with their goal images, and is judged by the planner's own objective through the same
imagination. Beside them: standing still, the planner as shipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.data import Belief, Goal, Start
from foresight.evaluation.config import EvaluateConfig, TaskName
from foresight.evaluation.results import git_commit, machine
from foresight.interfaces import Search
from foresight.planning.imagination import Imagination, Imagined
from foresight.planning.planner import Planner
from foresight.planning.search import Method, make
from foresight.planning.search.anytime import Budget, run
from foresight.planning.search.draws import blockwise
from foresight.planning.search.state import State, least
from foresight.world_model.goals import goal_from_images


@dataclass(frozen=True)
class SearchesConfig:
    """Which scenes, how much is searched, and where to write it."""

    scenes: int = 50
    """Number of scenes; the tasks take turns."""
    task: tuple[TaskName, ...] = ("reach", "push")
    """One or more tasks."""
    seed: int = 100
    """Held-out scenes start at seed * 100000."""
    samples: int = 128
    """Candidates of a round."""
    rounds: int = 6
    """Rounds of each search."""
    checkpoint: Path = Path("models/ur5e")
    """Folder of the checkpoint; the default is the one shipped."""
    robot: str = "ur5e"
    """Name of a shipped robot profile, or the path of its YAML file."""
    threads: int = 1
    """Threads of torch."""
    json: Path | None = None
    """Where to write the figures."""

    def __post_init__(self) -> None:
        for name, low, high in (("scenes", 1, 10_000), ("samples", 16, 10_000), ("rounds", 1, 100), ("threads", 1, 256)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"--{name} must lie between {low} and {high}, got {getattr(self, name)}.")
        EvaluateConfig(task=self.task, seed=self.seed)  # refuses what makes no scenes


def methods(samples: int) -> dict[str, Search]:
    """Each with as many candidates in the first round."""
    return {name: make(name, samples, max(4, samples // 10)) for name in get_args(Method)}


Build = Callable[[SearchesConfig], tuple[Any, Any]]  # a simulation and an agent


def bench(
    config: SearchesConfig, progress: Callable[[int], None] = lambda scenes: None, build: Build | None = None
) -> dict[str, Any]:
    """The figures. `progress` hears how many scenes are done."""
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    scenes = EvaluateConfig(task=config.task, seed=config.seed)
    costs: dict[str, list[list[float]]] = {name: [] for name in methods(config.samples)}
    took_s: dict[str, list[list[float]]] = {name: [] for name in costs}
    still, shipped, shipped_s = [], [], []
    simulation, agent = (build or _build)(config)
    try:
        for index in range(config.scenes):
            task = config.task[index % len(config.task)]
            belief, goal = _scene(simulation, agent, task, scenes.episode_seed(index))
            imagination = _imagination(agent.planner, belief, goal)
            for name, method in methods(config.samples).items():
                cost, times = search(method, imagination, config.rounds, torch.Generator().manual_seed(index))
                costs[name].append(cost)
                took_s[name].append(times)
            with torch.no_grad():
                still.append(least(imagination.fixed(torch.zeros(1, agent.planner.steps, 3))))
            start, generator = Start(belief.tip_velocity.astype(float)), torch.Generator().manual_seed(index)
            plan = agent.planner.plan(belief, goal, start, generator, time.perf_counter)
            shipped.append(plan.cost)
            shipped_s.append(plan.planning_s)
            progress(index + 1)
    finally:
        simulation.close()
        torch.set_num_threads(before)
    by_round = lambda values, of, scale: [scale * of(column) for column in zip(*values, strict=True)]  # noqa: E731
    return {
        "measured": "Mean cost [blocks to go and more, by the objective] of the best motion found, median time since the begin.",
        "objective": str(agent.planner.objective),
        "model_id": agent.model.model_id,
        "git": git_commit(),
        "machine": asdict(machine()),
        "threads": config.threads,
        "scenes": config.scenes,
        "samples": config.samples,
        "still": mean(still),
        "shipped": {"cost": mean(shipped), "ms": 1e3 * median(shipped_s)},
        "rows": [
            {"method": name, "cost": by_round(costs[name], mean, 1.0), "ms": by_round(took_s[name], median, 1e3)}
            for name in costs
        ],
    }


def search(method: Search, imagination: Imagination, rounds: int, generator: torch.Generator) -> tuple[list[float], list[float]]:
    """The least cost known after each round, and the time since the begin [s]."""
    config, contract = imagination.config, imagination.model.contract
    steps = config.horizon * contract.block_steps
    cost, times, began_s = [], [], time.perf_counter()

    def evaluate(controls: Float[Tensor, "S N 3"]) -> Imagined:
        found = imagination.fixed(controls)
        cost.append(min([least(found.detach()), *cost[-1:]]))
        times.append(time.perf_counter() - began_s)
        return found

    start = State(torch.zeros(steps, 3), torch.full((steps, 3), config.search_noise))
    with torch.no_grad():
        run(
            method,
            evaluate,
            blockwise(config.horizon, contract.block_steps, 3, generator),
            start,
            Budget(rounds, time.perf_counter, began_s),
        )
    return cost, times


def _scene(simulation: Any, agent: Any, task: str, seed: int) -> tuple[Belief, Goal]:
    """What is believed at the start of a scene, and its goal."""
    scenario = simulation.reset(task, seed)
    agent.reset()
    belief = agent.filter.update(agent.observe(simulation.images(), simulation.state(), simulation.time_s))
    return belief, goal_from_images(agent.model, scenario.goal_images, task == "push_object_goal")


def _imagination(planner: Planner, belief: Belief, goal: Goal) -> Imagination:
    latent, proprio = torch.from_numpy(belief.latent)[None], torch.from_numpy(belief.proprio)[None]
    start = Start(belief.tip_velocity.astype(float))
    objective = planner.objective_of(goal)
    return Imagination(planner.model, planner.limits, planner.config, latent, proprio, goal, start, objective)


def summary(found: dict[str, Any]) -> str:
    """The figures for people."""
    rounds = len(found["rows"][0]["cost"])
    shown = sorted({1, 2, rounds // 2 or 1, rounds})
    heads = "".join(f"{f'round {r}':>10}" for r in shown)
    lines = [
        f"{found['scenes']} scenes, {found['samples']} candidates a round; cost of the best motion, mean",
        f"{'':<22}{heads}{'time':>12}",
    ]
    for row in found["rows"]:
        lines.append(
            f"{row['method']:<22}" + "".join(f"{row['cost'][r - 1]:>10.3f}" for r in shown) + f"{row['ms'][-1]:>9.1f} ms"
        )
    shipped = found["shipped"]
    lines.append(f"{'standing still':<22}{found['still']:>10.3f}")
    lines.append(f"{'planner as shipped':<22}{shipped['cost']:>10.3f}{'':>{10 * (len(shown) - 1)}}{shipped['ms']:>9.1f} ms")
    return "\n".join(lines)


def _build(config: SearchesConfig) -> tuple[Any, Any]:
    from foresight.agent import Agent
    from foresight.robots.profile import load_profile
    from sim.simulation import Simulation

    agent = Agent.load(config.checkpoint, config.robot, deadline_s=float("inf"))
    return Simulation(0, load_profile(config.robot)), agent
