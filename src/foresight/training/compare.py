"""Every way against collapse on the same data with the same budget, over several seeds; writes one table.

`foresight bench anti-collapse`. Each run's figures lie beside the table, so that an interrupted comparison goes on where it was.
With `--evaluate` whole models are trained and driven in closed loop by `foresight evaluate`; without, only encoder and predictor.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from foresight.evaluation.statistics import wilson
from foresight.files import write_atomically
from foresight.training import dataset
from foresight.training.anti_collapse import METHODS, AntiCollapse
from foresight.training.config import TrainConfig, command_line
from foresight.training.dataset import PlayData
from foresight.training.log import Log
from foresight.training.resume import Resume, only_training_of
from foresight.training.train import CollapseError, Report, load_state, make_fabric, prepare, train, train_world_model
from foresight.world_model.checkpoint import read_config

EVALUATION_SEED = 100  # of held-out scenes
FIGURES = ("std", "rank", "skill", "tip_cm", "object_cm")


@dataclass(frozen=True)
class CompareConfig:
    """What to compare, on which data, and for how long each."""

    json: Path = Path("runs/anti_collapse/table.json")  # file for all figures; the table as .md and the runs lie beside it
    methods: tuple[AntiCollapse, ...] = METHODS  # ways against collapse
    seeds: tuple[int, ...] = (0, 1, 2)  # of initial weights and draws
    evaluate: int = 0  # held-out episodes that each model is driven in closed loop; 0: none, and no actor, critic, readouts
    task: Literal["reach", "push", "push_object_goal"] = "push"  # of those episodes
    train: TrainConfig = TrainConfig()  # data, budget and sizes of every run; its out, seed and anti_collapse are set here

    def __post_init__(self) -> None:
        if not self.methods or not self.seeds:
            raise ValueError("methods and seeds must each name at least one.")
        if not 0 <= self.evaluate <= 100_000:
            raise ValueError(f"evaluate must be at least 0 and at most 100000 episodes, got {self.evaluate}.")
        if self.json.suffix == ".md":
            raise ValueError(f"json: {self.json} is the name of the table beside it. Give a name that ends in .json.")


def compare(config: CompareConfig, report: Report = lambda *_: None) -> Path:
    """Runs what has not been run and writes the table after each run; the table's path. `report` hears of each by name."""
    data = dataset.load(*config.train.data, episodes=config.train.episodes, damaged=config.train.damaged)
    runs: list[dict[str, Any]] = []
    for seed in config.seeds:
        for method in config.methods:
            name = f"{method}-{seed}"
            chosen = replace(config.train, anti_collapse=method, seed=seed, out=config.json.parent / name)
            said = lambda stage, step, steps, line, name=name: report(f"{name} {stage}", step, steps, line)  # noqa: E731
            runs.append(_known_or_new(config, chosen, data, said))
            table = write_atomically(config.json.with_suffix(".md"), markdown(config, runs))
            write_atomically(config.json, json.dumps(runs, indent=1))
    return table


def _known_or_new(config: CompareConfig, run: TrainConfig, data: PlayData, report: Report) -> dict[str, Any]:
    """One run's figures: from its file where that is of these settings and this data."""
    wanted = {
        "command": command_line(run),
        "data": data.fingerprint,
        "evaluate": config.evaluate,
        "task": config.task if config.evaluate else "",
    }
    file = run.out.with_name(run.out.name + ".json")
    if file.is_file():
        found = json.loads(file.read_text())
        if {name: found.get(name) for name in wanted} == wanted:
            return found
    try:
        health = _whole_model(run, data, report) if config.evaluate else _eyes_only(run, data, report)
        figures: dict[str, Any] = {"collapsed": False, **health}
    except CollapseError as error:
        figures = {"collapsed": True, **asdict(error.health)}
        run.out.with_name(run.out.name + ".training.pt").unlink(missing_ok=True)
    if config.evaluate:
        figures["successes"] = 0 if figures["collapsed"] else _successes(config, run)
    result = wanted | {"method": run.anti_collapse, "seed": run.seed} | figures
    write_atomically(file, json.dumps(result, indent=1))
    return result


def _eyes_only(run: TrainConfig, data: PlayData, report: Report) -> dict[str, float]:
    """Trains encoder and predictor; nothing of them is kept but the health of their latents."""
    with only_training_of(run.out), Log(run.logs) as log:
        fabric = make_fabric(run)
        model, _ = prepare(run, data)
        state = Resume(run, data.fingerprint)
        load_state(state, run, fabric)
        health = train_world_model(model, data, run, fabric, state, log, report)
        state.clear()
    return asdict(health)


def _whole_model(run: TrainConfig, data: PlayData, report: Report) -> dict[str, float]:
    """Trains everything, unless a checkpoint of the same command is there."""
    if run.out.is_dir() and read_config(run.out)["training"]["command"] == command_line(run):
        return read_config(run.out)["training"]["metrics"]["health"]
    return read_config(train(run, report, data))["training"]["metrics"]["health"]


def _successes(config: CompareConfig, run: TrainConfig) -> int:
    """Of the run's model in closed loop. Raises RuntimeError's kind where `foresight evaluate` fails."""
    file = run.out.with_name(run.out.name + ".evaluation.json")
    words = ["evaluate", "--checkpoint", run.out, "--task", config.task, "--episodes", config.evaluate]
    words += ["--seed", EVALUATION_SEED, "--random-episodes", 0, "--json", file]
    return evaluated([str(word) for word in words], file)["tasks"][config.task]["successes"]


def evaluated(words: list[str], file: Path) -> dict[str, Any]:
    """What `foresight evaluate`, told these words, writes to the file. Raises EvaluationError where it fails."""
    done = subprocess.run([sys.executable, "-m", "foresight.cli", *words], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise EvaluationError(f"`foresight {' '.join(words)}` ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return json.loads(file.read_text())


class EvaluationError(RuntimeError):
    """A trained model could not be evaluated; the message quotes the command."""


def markdown(config: CompareConfig, runs: list[dict[str, Any]]) -> str:
    """One row a method: mean +- standard deviation over the seeds run so far, successes of all seeds with a Wilson interval."""
    lines = [
        f"Same data, same budget ({config.train.steps} updates of {config.train.batch} windows), seeds "
        f"{', '.join(map(str, config.seeds))}; held-out latents, mean +- standard deviation over seeds.",
        "",
        "| against collapse | collapsed | std | effective rank | skill | tip probe, cm | object probe, cm | "
        f"{config.task}, closed loop |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in config.methods:
        of = [run for run in runs if run["method"] == method]
        if not of:
            continue
        cells = [f"{sum(run['collapsed'] for run in of)} of {len(of)}", *(_spread([run[name] for run in of]) for name in FIGURES)]
        lines.append(f"| {method} | {' | '.join(cells)} | {_success(config, of)} |")
    return "\n".join([*lines, "", f"Made by `{comparing(config)}`.", ""])


def comparing(config: CompareConfig) -> str:
    """The command that repeats the comparison."""
    default, words = CompareConfig(), ["foresight bench anti-collapse"]
    for name in ("json", "methods", "seeds", "evaluate", "task"):
        value = getattr(config, name)
        if value != getattr(default, name):
            words.append(f"--{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
    flags = command_line(replace(config.train, out=TrainConfig().out)).split(" --")[1:]
    return " ".join(words + [f"--train.{flag}" for flag in flags])


def _spread(values: list[float]) -> str:
    return f"{mean(values):.3g}" + (f" +- {stdev(values):.2g}" if len(values) > 1 else "")


def _success(config: CompareConfig, runs: list[dict[str, Any]]) -> str:
    if not config.evaluate:
        return "not run (--evaluate)"
    successes, trials = sum(run["successes"] for run in runs), config.evaluate * len(runs)
    low, high = wilson(successes, trials)
    return f"{100 * successes / trials:.1f} % [{100 * low:.0f}, {100 * high:.0f}] of {trials}"
