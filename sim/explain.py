"""Shows how one plan of an evaluated episode came about, by playing the episode again up to it.

    foresight evaluate --task push --episodes 5 --report runs/push
    foresight explain runs/push --episode 3 --step 12

Same seed and inputs, same plan: an episode in process depends on nothing but its seed, and the surprise of every belief on the
way is compared with what the run recorded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foresight.data import Goal
from foresight.evaluation.config import EvaluateConfig, ExplainConfig
from foresight.evaluation.explanation import Account, draw
from foresight.evaluation.results import read_results
from foresight.planning.constraints import Constraints
from foresight.planning.imagination import Imagined
from foresight.planning.objective import Objective
from foresight.planning.residuals import Foreseen
from sim.episodes import Build, _build, run_episode

APART = 1e-5  # of a surprise, by which a replay may differ where its machine computes otherwise


class Seen(Exception):
    """The step that was looked for has been taken."""


@dataclass
class Watched:
    """An agent whose plan at one step is looked at, and that takes no step after it."""

    agent: Any
    step_wanted: int
    surprise: list[float] = field(default_factory=list)
    sets: list[tuple[Foreseen, Imagined]] = field(default_factory=list)
    objective: Objective | None = None
    goal: Goal | None = None
    constraints: Constraints | None = None
    taken: Any = None
    steps: int = 0
    images: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        return self.agent.model

    def reset(self) -> None:
        self.agent.reset()

    def set_goal_images(self, *arguments: Any, **options: Any) -> None:
        self.agent.set_goal_images(*arguments, **options)

    def watch(self, *arguments: Any) -> Any:
        return self.agent.watch(*arguments)

    def step(self, images: dict[str, np.ndarray], state: Any, now_s: float) -> Any:
        wanted = self.steps == self.step_wanted
        if wanted:
            self.goal, self.images, self.constraints = self.agent.goal, images, self.agent.goal_constraints
            self.agent.planner.watch = self._saw
        taken = self.agent.step(images, state, now_s)
        self.agent.planner.watch = None
        self.steps += 1
        if taken.belief is not None:
            self.surprise.append(float(taken.belief.surprise))
        if wanted:
            self.taken = taken
            raise Seen
        return taken

    def _saw(self, objective: Objective, foreseen: Foreseen, imagined: Imagined) -> None:
        self.objective = objective
        self.sets.append((foreseen, imagined.detach()))


def explain(config: ExplainConfig, build: Build = _build) -> tuple[Path, str]:
    """The picture's path, and a line on whether the replay is what was recorded. Raises ValueError where there is no plan."""
    report, episodes = read_results(config.run)
    if report.through != "in-process":
        raise ValueError(f"{config.run} is a run through ROS, in real time, which cannot be repeated. Explain a run in process.")
    if not 0 <= config.episode < len(episodes):
        raise ValueError(f"--episode must lie between 0 and {len(episodes) - 1}, as {config.run} has it, got {config.episode}.")
    episode = episodes[config.episode]
    if episode.policy == "expert":
        raise ValueError(f"{config.run} was run by the scripted expert, which plans nothing. Explain a run of another policy.")
    if episode.policy == "reactive":
        raise ValueError(f"{config.run} was run by policy 'reactive', which imagines nothing. Explain a run of another policy.")
    if not 0 <= config.step <= episode.steps:
        raise ValueError(f"--step must lie between 0 and {episode.steps}, as episode {config.episode} has it, got {config.step}.")
    out = config.out or config.run / f"explain_{config.episode}_{config.step}.png"
    if out.suffix != ".png":
        raise ValueError(f"--out must end in .png, got {out}.")
    again = EvaluateConfig(
        task=("reach", "push") if report.suite else (episode.task,),
        suite=report.suite or None,
        shift="none" if report.suite else episode.shift,
        checkpoint=config.checkpoint,
        robot=config.robot,
        guard=report.guarded,
        keep_out=report.keep_out,
        policy=report.policy,
        latency_ms=report.injected_ms,
        compensate=report.compensated,
        subgoals=report.subgoals,
        **report.searching,
    )
    torch.set_num_threads(1)
    simulation, agent = build(again, episode.policy)
    if agent.model.model_id != report.model_id:
        raise ValueError(
            f"The run was made by model '{report.model_id}', {config.checkpoint} holds '{agent.model.model_id}'. "
            "Give the run's checkpoint with --checkpoint."
        )
    watched = Watched(agent, config.step)
    try:
        run_episode(simulation, watched, episode.task, episode.seed, episode.shift, episode.policy, keep_out=report.keep_out)
    except Seen:
        pass
    finally:
        simulation.close()
    taken = watched.taken
    if taken is None or taken.plan is None or taken.plan.trajectory is None:
        why = taken and (taken.refusal or taken.verdict)
        said = (
            f": {why.detail}" if why else ", for the pursuit had ended by then" if taken else ", for the episode ended before it"
        )
        raise ValueError(f"Step {config.step} of episode {config.episode} has no plan{said}")
    plan = taken.plan
    imagined = agent.model.decode(torch.from_numpy(np.ascontiguousarray(plan.imagined)))
    account = Account(
        title=f"{episode.task}, seed {episode.seed}, step {config.step}",
        plan=plan,
        belief=taken.belief,
        goal=watched.goal,
        objective=watched.objective,
        sets=tuple(watched.sets),
        elites=agent.planner.config.elites,
        constraints=watched.constraints,
        images={camera.name: watched.images[camera.name] for camera in agent.model.contract.cameras},
        imagined=imagined,
        subgoal=None if plan.subgoal is None else agent.model.decode(torch.from_numpy(plan.subgoal)[None])[0],
    )
    return draw(account, out), _compared(watched.surprise, episode.surprise)


def _compared(replayed: list[float], recorded: tuple[float, ...]) -> str:
    """Whether beliefs surprised as they did, to the last bit or nearly."""
    pairs = list(zip(replayed, recorded, strict=False))
    off = [i for i, (a, b) in enumerate(pairs) if not (np.isclose(a, b, rtol=APART, atol=APART) or (np.isnan(a) and np.isnan(b)))]
    if off:
        a, b = pairs[off[0]]
        return f"The replay is not the run: surprise was {b:.5f} at belief {off[0]}, here it is {a:.5f}. Was the code another?"
    same = all(a == b or (np.isnan(a) and np.isnan(b)) for a, b in pairs)
    return f"{len(pairs)} beliefs on the way surprised as they did in the run{', to the last bit' if same else ''}."
