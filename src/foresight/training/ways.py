"""The ways to act on a learned model, compared on the same data with the same budget and the same scenes; writes one table.

`foresight bench ways`. Per seed it trains a world model, with actor and critic learned in imagination too, and a clone with the
same encoder and heads, and drives each way by `foresight evaluate` where `--evaluate` asks for it. What each training and
evaluation came to lies beside the table, so that an interrupted comparison goes on where it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from foresight.evaluation.statistics import wilson
from foresight.files import write_atomically
from foresight.training import dataset
from foresight.training.compare import evaluated
from foresight.training.config import TrainConfig, command_line
from foresight.training.dataset import PlayData
from foresight.training.learner import WINDOW
from foresight.training.train import Report, train
from foresight.world_model.checkpoint import fingerprint, read_config

Way = Literal["clone", "dreamt", "actor", "search", "both"]
WAYS: tuple[Way, ...] = get_args(Way)
CLONE, WORLD = "clone", "world-model"
SAYS = {
    "clone": "behaviour cloning, reactive",
    "dreamt": "actor-critic learned in imagination",
    "actor": "actor alone",
    "search": "search alone",
    "both": "planning",
}
SCENES: dict[str, tuple[str, ...]] = {  # what `foresight evaluate` is told, by where the ways are compared
    "clean": ("--suite", "clean", "--rows", "reach", "push"),
    "shift": ("--suite", "shift"),
    "far": ("--suite", "far"),
    "keep-out": ("--task", "reach", "push", "--keep-out", "told", "--seed", "400"),  # the seed of `bench keep_out`
}
COLUMNS = ("reach", "push", "reach, shifted", "push, shifted", "push_far", "reach, keep-out", "push, keep-out")


@dataclass(frozen=True)
class WaysConfig:
    """Which ways to compare, on which data, and for how long each trains."""

    json: Path = Path("runs/ways/table.json")  # file for all figures; the table as .md and the models lie beside it
    ways: tuple[Way, ...] = WAYS  # clone, dreamt (actor-critic in imagination), actor and search alone, both (planning)
    seeds: tuple[int, ...] = (0, 1, 2)  # of initial weights and draws
    evaluate: int = 0  # held-out episodes of each row (of a shift at most 100); 0: none, only trainings
    jobs: int = 2  # processes of an evaluation, one thread each
    train: TrainConfig = TrainConfig()  # data, budget and sizes of every run; its out, seed, dynamics and dreamt are set here

    def __post_init__(self) -> None:
        if not self.ways or not self.seeds:
            raise ValueError("ways and seeds must each name at least one.")
        if not 0 <= self.evaluate <= 300:
            raise ValueError(f"evaluate must be at least 0 and at most 300 episodes, as the suites hold, got {self.evaluate}.")
        if not 1 <= self.jobs <= 256:
            raise ValueError(f"jobs must lie between 1 and 256, got {self.jobs}.")
        if self.json.suffix == ".md":
            raise ValueError(f"json: {self.json} is the name of the table beside it. Give a name that ends in .json.")


def compare(config: WaysConfig, report: Report = lambda *_: None) -> Path:
    """Trains and evaluates what has not been, and writes the table after each; the table's path. `report` hears of each by name.

    Raises CollapseError, EvaluationError and what `train` raises.
    """
    data = dataset.load(*config.train.data, episodes=config.train.episodes, damaged=config.train.damaged)
    models: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for seed in config.seeds:
        for kind in dict.fromkeys(CLONE if way == "clone" else WORLD for way in config.ways):
            run = run_of(config, kind, seed)
            said = lambda stage, step, steps, line, name=run.out.name: report(f"{name} {stage}", step, steps, line)  # noqa: E731
            models.append({"model": kind, "seed": seed} | _trained(run, data, said))
            table = _write(config, models, rows)
        for way in config.ways if config.evaluate else ():
            for done, where in enumerate(SCENES):
                report(f"evaluating {way}-{seed}", done, len(SCENES), where)
                rows += _driven(config, way, seed, where)
                table = _write(config, models, rows)
            report(f"evaluating {way}-{seed}", len(SCENES), len(SCENES), "")
    return table


def run_of(config: WaysConfig, kind: str, seed: int) -> TrainConfig:
    """The training of one model: the same in all but whether it has dynamics."""
    world = kind == WORLD
    model = replace(config.train.model, dynamics=world, dreamt=world)
    return replace(config.train, model=model, seed=seed, out=config.json.parent / f"{kind}-{seed}")


def _trained(run: TrainConfig, data: PlayData, report: Report) -> dict[str, Any]:
    """What the checkpoint says of its training, which is done where there is none of these settings and this data."""
    wanted = {"command": command_line(run), "data": data.fingerprint}
    file = run.out.with_name(run.out.name + ".json")
    if file.is_file() and run.out.is_dir():
        found = json.loads(file.read_text())
        if {name: found.get(name) for name in wanted} == wanted and found.get("model_id") == fingerprint(run.out):
            return found
    train(run, report, data)
    told = read_config(run.out)["training"]
    made = {name: told[name] for name in ("parameters", "metrics", "minutes", "machine")}
    result = wanted | {"model_id": fingerprint(run.out)} | made
    write_atomically(file, json.dumps(result, indent=1))
    return result


def _driven(config: WaysConfig, way: Way, seed: int, where: str) -> list[dict[str, Any]]:
    """The rows of one way in one place: from their file where that is of this model and these scenes."""
    checkpoint = run_of(config, CLONE if way == "clone" else WORLD, seed).out
    file = config.json.parent / f"{way}-{seed}-{where}.json"
    policy = "reactive" if way == "clone" else way
    words = ["evaluate", "--checkpoint", str(checkpoint), "--policy", policy, *SCENES[where], "--episodes", str(config.evaluate)]
    wanted = {"words": words, "model_id": fingerprint(checkpoint)}
    if file.is_file():
        found = json.loads(file.read_text())
        if {name: found.get(name) for name in wanted} == wanted:
            return found["rows"]
    raw = file.with_suffix(".report.json")
    told = evaluated([*words, "--random-episodes", "0", "--jobs", str(config.jobs), "--json", str(raw)], raw)
    counted = ("episodes", "successes", "violations", "episodes_entered")
    rows = [
        {"way": way, "seed": seed, "where": where, "row": row, **{name: found.get(name) for name in counted}}
        for row, found in told["tasks"].items()
    ]
    write_atomically(file, json.dumps(wanted | {"manifest": told["manifest"], "git": told["git"], "rows": rows}, indent=1))
    return rows


def _write(config: WaysConfig, models: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Path:
    write_atomically(config.json, json.dumps({"command": comparing(config), "models": models, "rows": rows}, indent=1))
    return write_atomically(config.json.with_suffix(".md"), markdown(config, models, rows))


def column(row: dict[str, Any]) -> str:
    """Where a row counts: all shifts of a task together, without the scenes that they are compared with."""
    task, _, shift = row["row"].partition(", ")
    match row["where"]:
        case "shift":
            return f"{task}, shifted" if shift else ""
        case "keep-out":
            return f"{task}, keep-out"
        case _:
            return task


def markdown(config: WaysConfig, models: list[dict[str, Any]], rows: list[dict[str, Any]]) -> str:
    """One line a way: successes of all seeds with a Wilson interval; with keep-outs, in how many episodes the arm came in."""
    sizes = {model["model"]: model["parameters"] for model in models}
    told = [f"{kind} {sum(of.values()):,} ({', '.join(f'{n} {c:,}' for n, c in of.items())})" for kind, of in sizes.items()]
    run = config.train
    lines = [
        f"Same data, same budget ({run.steps} updates of {WINDOW * run.batch} frames, {run.head_steps} of the heads"
        f"{f', {run.dream_steps} in imagination' * ('dreamt' in config.ways)}), seeds {', '.join(map(str, config.seeds))}. "
        "Successes with Wilson 95 % intervals, the episodes of all seeds together; keep-outs are told to every way, and the "
        "judge counts in how many episodes the arm came into one.",
        "",
        f"| way | {' | '.join(COLUMNS)} | limits broken |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for way in config.ways:
        own = [row for row in rows if row["way"] == way]
        cells = [_cell(config, [row for row in own if column(row) == name]) for name in COLUMNS]
        lines.append(f"| {SAYS[way]} | {' | '.join(cells)} | {sum(row['violations'] for row in own) if own else '-'} |")
    return "\n".join([*lines, "", f"Parameters: {'; '.join(told)}.", "", f"Made by `{comparing(config)}`.", ""])


def _cell(config: WaysConfig, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "-" if config.evaluate else "not run (--evaluate)"
    successes, episodes = (sum(row[name] for row in rows) for name in ("successes", "episodes"))
    low, high = wilson(successes, episodes)
    cell = f"{100 * successes / episodes:.1f} % [{100 * low:.0f}, {100 * high:.0f}] of {episodes}"
    entered = [row["episodes_entered"] for row in rows if row["episodes_entered"] is not None]
    return cell + (f", came in {sum(entered)}" if entered else "")


def comparing(config: WaysConfig) -> str:
    """The command that repeats the comparison."""
    default, words = WaysConfig(), ["foresight bench ways"]
    for name in ("json", "ways", "seeds", "evaluate"):
        value = getattr(config, name)
        if value != getattr(default, name):
            words.append(f"--{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
    flags = command_line(replace(config.train, out=TrainConfig().out)).split(" --")[1:]
    return " ".join(words + [f"--train.{flag}" for flag in flags])
