"""The `foresight` command: collect, train, evaluate, explain, export, up, pursue, inject, bench, report, replay, security, ...

Parses, delegates and reports; decides nothing about robots. What a command needs is imported inside it, so that help
is quick and a missing library hurts only the command that uses it. Flags derive from the frozen dataclass that the
command's work takes. Exit codes: 0 done, 1 the work failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import strftime
from typing import TYPE_CHECKING

from foresight.command_line import InputError, check_file, check_folder, interrupt_on_sigterm, parse
from foresight.ros_environment import mujoco_gl

if TYPE_CHECKING:
    from rich.progress import Progress, Task

    from foresight.evaluation.config import EvaluateConfig
    from foresight.evaluation.results import Report

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] not in COMMANDS:
        return _fail(f"Command '{words[0]}' is unknown. Commands: {', '.join(COMMANDS)}. See `foresight --help`.")
    interrupt_on_sigterm()
    os.environ.setdefault("MUJOCO_GL", mujoco_gl())  # before anything imports MuJoCo, which reads it once
    try:
        return COMMANDS[words[0]](words[1:]) or 0
    except KeyboardInterrupt:
        print(f"\nforesight {words[0]}: interrupted; files that were not finished are not there.", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        return _fail(f"{error}. It is needed for `foresight {words[0]}`; run `make setup`.")
    except (InputError, ValueError) as error:
        return _fail(str(error))
    except OSError as error:  # a missing file, a full disk, a folder that may not be written
        return _fail(_of_the_system(error))
    except RuntimeError as error:  # CheckpointError, WorkspaceError and the like carry a sentence; others keep their trace
        if type(error) is RuntimeError:
            raise
        return _fail(str(error))


def _of_the_system(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"The disk is full: {error.filename or error}. Nothing was half written; free some space and run the command again."
        )
    return f"{error.strerror}: {error.filename}. Nothing was half written." if error.filename else str(error)


def collect(words: list[str]) -> int:
    """Collect play episodes in simulation into one HDF5 file (resumable)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from sim.collect import CollectConfig
    from sim.collect import collect as run

    config = parse(CollectConfig, "collect", collect.__doc__, words)
    check_file("--out", config.out, "play.h5")
    _prepare_rendering()
    columns = ("collecting", BarColumn(), MofNCompleteColumn(), "episodes", TimeElapsedColumn(), "left", TimeRemainingColumn())
    bar = Progress(*columns)
    task = bar.add_task("", total=config.episodes)
    with _shown_once_used(bar) as use:
        path = run(config, lambda done, total: use().update(task, completed=done, total=total))
    print(
        f"{config.episodes} episodes of {config.steps} steps in {path} ({path.stat().st_size / 2**20:.0f} MB). Next: "
        "foresight train --help"
    )
    return 0


def train(words: list[str]) -> int:
    """Train the world model, actor, critic and readouts from a collected file (resumable)."""
    from foresight.training.config import TrainConfig, preset_in

    config = parse(TrainConfig, "train", train.__doc__, words, preset_in(words))
    from foresight.memory import keep_freed_memory
    from foresight.training.train import CollapseError, is_first
    from foresight.training.train import train as run

    _check_replaceable(config.out)
    check_folder("--out", config.out.parent)
    keep_freed_memory()
    with _training_shown() as show:
        try:
            path = run(config, show)
        except CollapseError as error:
            return _fail(str(error), code=1)
    if is_first():
        print(f"Checkpoint in {path}. Next: foresight evaluate --checkpoint {path} --episodes 20")
    return 0


def evaluate(words: list[str]) -> int:
    """Run episodes on held-out scenes, in process or through the ROS graph (--ros), and count successes."""
    from foresight.evaluation.config import EvaluateConfig

    config = parse(EvaluateConfig, "evaluate", evaluate.__doc__, words)
    config = replace(config, checkpoint=find_checkpoint(config.checkpoint))
    _check_before_work(config)
    if config.ros:
        return _run_in_ros(config)
    _prepare_rendering()
    from foresight.evaluation.report import write_report
    from foresight.evaluation.results import comparable
    from foresight.evaluation.table import LiveTable
    from sim.episodes import evaluate as run
    from sim.episodes import planned as count
    from sim.episodes import rows_of

    suite, planned = rows_of(config)[0], count(config)
    beside = comparable(config.beside, config.suite, suite.fingerprint) if suite else []
    title = f"suite {config.suite}" if config.suite else f"seed {config.seed}, shift {config.shift}"
    try:
        with LiveTable(planned, title=title) as table:
            report, episodes = run(config, table.add)
    except KeyboardInterrupt:
        _remove_empty(config.report)
        raise
    if config.report:
        write_report(config.report, report, episodes, config.checkpoint, beside)
    _finish(config, report)
    for row, why in report.not_run.items():
        print(f"Not run: {row}: {why}.")
    if report.interrupted:
        print(f"foresight evaluate: interrupted after {len(episodes)} of {sum(planned.values())} episodes.", file=sys.stderr)
    return 130 if report.interrupted else 0


def demo(words: list[str]) -> int:
    """The ROS graph starts, the simulated arm runs 5 reach and 5 push episodes, and a report appears."""
    from foresight.evaluation.config import EvaluateConfig

    config = parse(Demo, "demo", demo.__doc__, words)
    folder = config.out or Path("runs/demo") / strftime("%Y-%m-%d_%H-%M-%S")
    evaluation = EvaluateConfig(
        task=("reach", "push"),
        episodes=config.episodes,
        seed=config.seed,
        checkpoint=find_checkpoint(config.checkpoint),
        random_episodes=config.episodes,
        report=folder,
        videos=config.episodes,
        ros=True,
    )
    _check_places(evaluation, "--out")
    return _run_in_ros(evaluation)


def report(words: list[str]) -> int:
    """Build report.html again from a folder's report.json, episodes.json and videos."""
    config = parse(ReportCommand, "report", report.__doc__, words)
    from foresight.evaluation.report import write_report
    from foresight.evaluation.results import comparable, read_results

    summary, episodes = read_results(config.folder)
    others = comparable(config.beside, summary.suite, summary.manifest)
    checkpoint = _checkpoint_of(summary.model_id, config.checkpoint)
    if checkpoint is None:
        print(f"No model card on the page: no checkpoint in models/ is {summary.model_id}. Name its folder with --checkpoint.")
    print(write_report(config.folder, summary, episodes, checkpoint, others))
    return 0


def explain(words: list[str]) -> int:
    """Draw how one plan of an evaluated episode came about: candidates, cost by term, imagined frames, margins."""
    from foresight.evaluation.config import ExplainConfig

    config = parse(ExplainConfig, "explain", explain.__doc__, words)
    config = replace(config, checkpoint=find_checkpoint(config.checkpoint))
    check_file("--out", config.out, "plan.png")
    _prepare_rendering()
    from sim.explain import explain as run

    path, compared = run(config)
    print(compared)
    print(f"Written: {path}")
    return 0


def replay(words: list[str]) -> int:
    """Judge a recorded incident's plans once more and compare every verdict bit for bit (1 where one differs)."""
    config = parse(ReplayCommand, "replay", replay.__doc__, words)
    from json import dumps

    from foresight.files import write_atomically
    from foresight.incidents.pack import Pack
    from foresight.incidents.picture import check_name, draw
    from foresight.incidents.replay import replay as run
    from foresight.incidents.table import print_replay

    check_file("--json", config.json, "replay.json")
    if config.picture:
        check_name(config.picture)
        check_file("--picture", config.picture, "replay.png")
    pack = Pack(config.incident)
    result = run(pack)
    print_replay(result, pack.summary)
    if config.picture:
        print(f"Written: {draw(pack, result, config.picture)}")
    if config.json:
        told = dumps({"incident": str(config.incident), **result.to_json()}, indent=2)
        print(f"Written: {write_atomically(config.json, told)}")
    return 0 if result.same else 1


def export(words: list[str]) -> int:
    """Write a checkpoint's encoder and rollout as ONNX files, compared with the model before they appear."""
    from foresight.world_model.checkpoint import load
    from foresight.world_model.export import ExportConfig, require
    from foresight.world_model.export import export as run
    from foresight.world_model.onnx_model import beside

    config = parse(ExportConfig, "export", export.__doc__, words)
    checkpoint = find_checkpoint(config.checkpoint)
    out = config.out or beside(checkpoint)
    if out.exists():
        raise InputError(f"--out: {out} exists. Remove it, or give the name of a new folder.")
    require()
    check_folder("--out", out.parent)
    differences = run(load(checkpoint), out, config.horizon)
    worst = ", ".join(f"{name} {apart:.0e}" for name, apart in differences.items())
    print(f"Written: {out}. Differences from the model, of the largest number: {worst}.")
    return 0


def up(words: list[str]) -> int:
    """Start the ROS graph (sim, stack or robot) where `ros2 launch` is not installed; arguments as in the launch files."""
    return _become([sys.executable, "-m", "foresight_bringup.up", *words])


def security(words: list[str]) -> int:
    """Print the SROS2 policies of the graph: who may publish, subscribe and call what (docs/security.md)."""
    return _become([sys.executable, "-m", "foresight_nodes.policies", *words])


def inject(words: list[str]) -> int:
    """Let something go wrong on purpose in a running simulation: kill, freeze, camera_black, protective_stop ..."""
    return _become([sys.executable, "-m", "foresight_nodes.inject", *words])


def pursue(words: list[str]) -> int:
    """Give a goal to a running graph: a tip position, an object position or pictures; tells how it goes, Ctrl-C cancels."""
    return _become([sys.executable, "-m", "foresight_nodes.pursue", *words])


def stop(words: list[str]) -> int:
    """Bring the arm of a running graph to rest and refuse all motion until `foresight reset`."""
    return _become([sys.executable, "-m", "foresight_nodes.operate", "stop", *words])


def reset(words: list[str]) -> int:
    """Allow motion again after a stop that holds (a latch), once its cause is gone."""
    return _become([sys.executable, "-m", "foresight_nodes.operate", "reset", *words])


def objective(words: list[str]) -> int:
    """Tell or change how a running planner judges motions: foresight objective "to_go(growth=1) + 0.5*effort"."""
    return _become([sys.executable, "-m", "foresight_nodes.operate", "objective", *words])


def bench(words: list[str]) -> int:
    """Measure: the guard against a million plans, dead processes and ill will; memory; time of plans; what latency costs."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: foresight bench NAME [--help]\n")
        print("\n".join(f"  {name:<15}{function.__doc__.splitlines()[0]}" for name, function in BENCHES.items()))
        return 0 if words else 2
    if words[0] not in BENCHES:
        raise InputError(f"Bench '{words[0]}' is unknown. There are: {', '.join(BENCHES)}.")
    return BENCHES[words[0]](words[1:]) or 0


def bench_guard(words: list[str]) -> int:
    """Offer the guard legal, adversarial, mutated and random plans and judge all that passes (1 where a limit was broken)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from foresight.evaluation.bench_guard import BenchGuardConfig, bench, summary

    config = parse(BenchGuardConfig, "bench guard", bench_guard.__doc__, words)
    check_file("--json", config.json)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), "plans", TimeElapsedColumn(), "left",
        TimeRemainingColumn(),
    )  # fmt: skip
    tasks: dict[str, int] = {}
    with _shown_once_used(Progress(*columns)) as use:

        def show(robot: str, done: int, total: int) -> None:
            if robot not in tasks:
                tasks[robot] = use().add_task(robot, total=total)
            use().update(tasks[robot], completed=done)

        found = bench(config, show)
    print(summary(found))
    if config.json:
        print(f"Written: {config.json}")
    return 1 if any(profile["violations"] for profile in found["profiles"].values()) else 0


def bench_adversary(words: list[str]) -> int:
    """Episodes under a planner that means ill, guarded, judged from true states; 1 if the arm broke a limit or touched."""
    from time import perf_counter

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from sim.adversary import AdversaryConfig, summarise
    from sim.adversary import run as run_adversary

    config = parse(AdversaryConfig, "bench adversary", bench_adversary.__doc__, words)
    check_file("--json", config.json)
    columns = (BarColumn(), MofNCompleteColumn(), "episodes", TimeElapsedColumn(), "left", TimeRemainingColumn())
    began, bad = perf_counter(), 0
    bar = Progress(*columns, TextColumn("{task.description}"))
    task = bar.add_task("", total=config.episodes)
    with _shown_once_used(bar) as use:

        def show(result) -> None:
            nonlocal bad
            bad += bool(result.violations or any(result.touches.values()) or not result.at_rest)
            use().update(task, advance=1, description=f"{bad} bad" if bad else "none bad")

        results = run_adversary(config, show)
    figures = summarise(config, results, perf_counter() - began)
    _write_figures(config.json, figures)
    print(
        f"{figures['episodes']} episodes, {figures['passed']} of {figures['proposals']} proposals passed: "
        f"{figures['violations']} violations, collisions {figures['collisions']}, {figures['not_at_rest']} not at rest; "
        f"commanded at most {figures['commanded_share_of_limit']['acceleration']:.3f} of the acceleration limit, "
        f"{figures['commanded_share_of_limit']['jerk']:.3f} of the jerk's; "
        f"{figures['episodes_per_minute']:.0f} episodes a minute."
    )
    return 1 if figures["bad"] else 0


def bench_latency(words: list[str]) -> int:
    """Success with latency injected between observation and motion, planned from where the arm will be then, or was."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from sim.latency import LatencyConfig, summary
    from sim.latency import bench as run

    config = parse(LatencyConfig, "bench latency", bench_latency.__doc__, words)
    config = replace(config, checkpoint=find_checkpoint(config.checkpoint))
    check_file("--json", config.json)
    cells = list(config.cells())
    _check_before_work(cells[0])
    _prepare_rendering()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), "episodes", TimeElapsedColumn(), "left")
    bar = Progress(*columns, TimeRemainingColumn())
    task = bar.add_task("", total=len(cells) * len(config.task) * config.episodes)
    with _shown_once_used(bar) as use:
        found = run(config, lambda cell, result: use().update(task, advance=1, description=f"{cell.latency_ms:g} ms"))
    print(summary(found))
    _write_figures(config.json, found)
    return 0


def _measured_in_scenes(config, run: Callable, total: int, unit: str):
    """The config with its checkpoint found, and what `run` measured in the simulator, with a bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from foresight.evaluation.config import EvaluateConfig

    config = replace(config, checkpoint=find_checkpoint(config.checkpoint))
    check_file("--json", config.json)
    _check_before_work(EvaluateConfig(checkpoint=config.checkpoint, robot=config.robot))
    _prepare_rendering()
    bar = Progress(BarColumn(), MofNCompleteColumn(), unit, TimeElapsedColumn(), "left", TimeRemainingColumn())
    task = bar.add_task("", total=total)
    with _shown_once_used(bar) as use:
        return config, run(config, lambda done: use().update(task, completed=done))


def _write_figures(path: Path | None, found: dict) -> None:
    from foresight.files import write_atomically

    if path:
        print(f"Written: {write_atomically(path, json.dumps(found, indent=2) + chr(10))}")


def bench_cycles(words: list[str]) -> int:
    """Plan against the clock: durations, misses and what covers them, jumps between plans (1 where something jumped)."""
    from sim.cycles import CyclesConfig, summary
    from sim.cycles import bench as run

    config = parse(CyclesConfig, "bench cycles", bench_cycles.__doc__, words)
    config, found = _measured_in_scenes(config, run, config.cycles, "cycles")
    print(summary(found))
    _write_figures(config.json, found)
    return 0 if found["ok"] else 1


def bench_onnx(words: list[str]) -> int:
    """Time encoder and rollout of the shipped model in torch, ONNX Runtime and, where it is installed, OpenVINO."""
    from foresight.evaluation.bench_onnx import BenchOnnxConfig, summary
    from foresight.evaluation.bench_onnx import bench as run

    config = parse(BenchOnnxConfig, "bench onnx", bench_onnx.__doc__, words)
    config = replace(config, checkpoint=find_checkpoint(config.checkpoint))
    check_file("--json", config.json)
    found = run(config)
    print(summary(found))
    _write_figures(config.json, found)
    return 0


def bench_search(words: list[str]) -> int:
    """Compare the ways to search on equal draws in held-out scenes: cost of the best motion by round, and time."""
    from sim.searches import SearchesConfig, summary
    from sim.searches import bench as run

    config = parse(SearchesConfig, "bench search", bench_search.__doc__, words)
    config, found = _measured_in_scenes(config, run, config.scenes, "scenes")
    print(summary(found))
    _write_figures(config.json, found)
    return 0


def bench_keep_out(words: list[str]) -> int:
    """Push with a box before the goal: planner and actor, told and untold; 1 if the planner, told, broke a limit or the box."""
    from foresight.files import write_atomically
    from sim.keep_out import KeepOutConfig, summary
    from sim.keep_out import bench as run

    config = parse(KeepOutConfig, "bench keep_out", bench_keep_out.__doc__, words)
    config = replace(config, checkpoint=find_checkpoint(config.checkpoint))
    check_file("--json", config.json)
    _check_before_work(config.run("told"))
    _prepare_rendering()

    def show(name: str, result) -> None:
        end = "reached" if result.success else result.reason
        print(f"{name}, scene {result.seed}: {end} after {result.duration_s:.1f} s", flush=True)

    figures = run(config, show)
    print(summary(figures))
    print(f"Written: {write_atomically(config.json, json.dumps(figures, indent=2))}")
    told = figures["runs"].get("told", {})
    return 130 if figures["interrupted"] else 1 if told.get("violations") or told.get("arm_entered") else 0


def bench_anti_collapse(words: list[str]) -> int:
    """Train with every way against collapse on the same data and budget, three seeds; latent health and success as a table."""
    from foresight.training.compare import CompareConfig, compare
    from foresight.training.config import preset_in

    begun = CompareConfig(train=preset_in([word.replace("--train.preset", "--preset") for word in words]))
    config = parse(CompareConfig, "bench anti-collapse", bench_anti_collapse.__doc__, words, begun)
    check_file("--json", config.json, "table.json")
    with _training_shown() as show:
        path = compare(config, show)
    print(path.read_text())
    print(f"Written: {path}")
    return 0


def bench_ways(words: list[str]) -> int:
    """Compare behaviour cloning, an actor-critic learned in imagination, actor alone, search alone and planning on equal data."""
    from foresight.training.config import preset_in
    from foresight.training.ways import WaysConfig, compare

    begun = WaysConfig(train=preset_in([word.replace("--train.preset", "--preset") for word in words]))
    config = parse(WaysConfig, "bench ways", bench_ways.__doc__, words, begun)
    check_file("--json", config.json, "table.json")
    from foresight.training.train import CollapseError

    with _training_shown() as show:
        try:
            path = compare(config, show)
        except CollapseError as error:
            return _fail(str(error), code=1)
    print(path.read_text())
    print(f"Written: {path}")
    return 0


def bench_faults(words: list[str]) -> int:
    """Kill and freeze planners at full speed, the guard in motion, or (--matrix) every node in every lifecycle state."""
    return _become([sys.executable, "-m", "foresight_nodes.bench_faults", *words])


def bench_soak(words: list[str]) -> int:
    """Run episodes through the graph for hours; 1 if a process's memory grew by 1 % or a sign of life was missed."""
    return _become([sys.executable, "-m", "foresight_nodes.soak", *words])


def bench_planner(words: list[str]) -> int:
    """Time plans at LeWorldModel's sizes and of the shipped model; with --peer-python beside stable-worldmodel's CEM."""
    from foresight.evaluation.bench_planner import BenchPlannerConfig, write
    from foresight.evaluation.bench_planner import bench as run
    from foresight.memory import keep_freed_memory

    config = parse(BenchPlannerConfig, "bench planner", bench_planner.__doc__, words)
    config = replace(config, checkpoint=find_checkpoint(config.checkpoint))
    check_file("--json", config.json)
    check_file("--json, for the picture beside it", config.json.with_suffix(".png"))
    keep_freed_memory()
    for path in write(config.json, run(config, lambda line: print(line, flush=True))):
        print(f"Written: {path}")
    return 0


def bench_training(words: list[str]) -> int:
    """Time updates of LeWorldModel's network by our trainer; with --peer-python beside stable-worldmodel's trainer."""
    from foresight.evaluation.bench_training import BenchTrainingConfig, write
    from foresight.evaluation.bench_training import bench as run
    from foresight.memory import keep_freed_memory

    config = parse(BenchTrainingConfig, "bench training", bench_training.__doc__, words)
    check_file("--json", config.json)
    keep_freed_memory()
    print(f"Written: {write(config.json, run(config, lambda line: print(line, flush=True)))}")
    return 0


def env(words: list[str]) -> int:
    """Run a command in the ROS environment: foresight env -- python my_node.py."""
    command = words[1:] if words and words[0] == "--" else words
    if not command or command[0] in ("-h", "--help"):
        print(
            "usage: foresight env -- COMMAND [ARGUMENT ...]\n\nRuns the command with ROS 2 and Foresight's workspace in its "
            "environment."
        )
        return 0 if command else 2
    return _become(command)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo, "collect": collect, "train": train, "evaluate": evaluate, "report": report, "replay": replay,
    "explain": explain, "up": up, "pursue": pursue, "objective": objective, "stop": stop, "reset": reset, "inject": inject,
    "bench": bench, "security": security, "env": env, "export": export,
}  # fmt: skip
BENCHES: dict[str, Callable[[list[str]], int]] = {
    "guard": bench_guard, "faults": bench_faults, "adversary": bench_adversary, "soak": bench_soak, "planner": bench_planner,
    "training": bench_training, "latency": bench_latency, "cycles": bench_cycles, "onnx": bench_onnx, "search": bench_search,
    "keep_out": bench_keep_out,
    "anti-collapse": bench_anti_collapse, "ways": bench_ways,
}  # fmt: skip


@dataclass(frozen=True)
class Demo:
    """What the demonstration runs."""

    episodes: int = 5
    """Episodes of each task."""
    seed: int = 100
    """Held-out scenes start at seed * 100000."""
    checkpoint: Path = Path("models/ur5e")
    """Folder of the checkpoint; the default is the one shipped."""
    out: Path | None = None
    """Folder for the report; by default runs/demo/<time>."""


@dataclass(frozen=True)
class ReportCommand:
    """Which folder to report on."""

    folder: Path
    """Folder that holds report.json and episodes.json, as `foresight evaluate --report` writes them."""
    checkpoint: Path | None = None
    """Checkpoint whose model card is quoted, the one that was evaluated; by default the one in models/ that it was."""
    beside: tuple[Path, ...] = ()
    """Folders of other models' reports on the same suite: the page then draws success against training episodes."""


@dataclass(frozen=True)
class ReplayCommand:
    """Which incident to replay; works without ROS."""

    incident: Path
    """A folder of runs/incidents, or its incident.mcap."""
    json: Path | None = None
    """File for all verdicts as JSON."""
    picture: Path | None = None
    """File (.png, .svg or .pdf) for joints, limits, verdicts and the stop over time."""


def find_checkpoint(path: Path) -> Path:
    """The checkpoint's folder, looked for from here and from the checkout; says what exists when it is missing."""
    for candidate in (path, ROOT / path):
        if (candidate / "config.json").is_file():
            return candidate
    there = sorted(p.parent.name for p in (ROOT / "models").glob("*/config.json"))
    available = f"Available: {', '.join('models/' + name for name in there)}" if there else "None is shipped in models/"
    raise InputError(f"Checkpoint {path} does not exist or has no config.json. {available}. Make one with `foresight train`.")


@contextmanager
def _training_shown() -> Iterator[Callable[[str, int, int, str], None]]:
    """A bar for each stage of a training, and lines with the latents' health that stay on the screen."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "left",
        TimeRemainingColumn(),
        TextColumn("{task.fields[line]}"),
    )
    stages: dict[str, int] = {}
    with _shown_once_used(Progress(*columns)) as use:

        def show(stage: str, step: int, steps: int, line: str) -> None:
            bar = use()
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=steps, line="")
            figures, separator, health = line.partition("|")
            bar.update(stages[stage], completed=step, total=steps, line=figures.strip())
            if separator:
                bar.console.print(f"{stage} {step}/{steps}: {health.strip()}", highlight=False)

        yield show


@contextmanager
def _shown_once_used(bar: "Progress") -> Iterator[Callable[[], "Progress"]]:
    """A bar that appears with the first progress, so that an error before it stands alone on its line; or a log's lines."""
    from foresight.told import Told

    tell = Told(bar.console)

    def use() -> "Progress":
        bar.start()
        tell(lambda: [_so_far(task) for task in bar.tasks if task.started and not task.finished])
        return bar

    try:
        yield use
    finally:
        if bar.live.is_started:
            bar.stop()


def _so_far(task: "Task") -> str:
    left = "" if task.time_remaining is None else f", about {task.time_remaining / 60:.0f} min left"
    return f"{task.description or 'done'}: {task.completed:.0f} of {task.total:.0f}{left}"


def _run_in_ros(config: "EvaluateConfig") -> int:
    """The same evaluation by the ROS runner, in the ROS environment; Ctrl-C and SIGTERM are the runner's to answer."""
    folder = config.report or Path("runs/evaluate") / strftime("%Y-%m-%d_%H-%M-%S")
    absolute = replace(
        config, checkpoint=config.checkpoint.resolve(), report=folder.resolve(), json=config.json and config.json.resolve()
    )
    runner = subprocess.Popen(
        [sys.executable, "-m", "foresight_nodes.run_episodes", *absolute.to_arguments()], env=_ros_environment()
    )
    signal.signal(signal.SIGTERM, lambda number, frame: runner.terminate())
    while True:
        try:
            code = runner.wait()
            return 130 if code in (-signal.SIGINT, -signal.SIGTERM) else code  # before it could answer
        except KeyboardInterrupt:  # the terminal sent it to the runner too, which stops the arm and the graph
            continue


def _become(command: list[str]) -> int:
    """Replaces this process by the command in the ROS environment, so that signals reach it directly."""
    environment = _ros_environment()
    try:
        os.execvpe(command[0], command, environment)
    except (FileNotFoundError, PermissionError):
        raise InputError(f"Command '{command[0]}' is not installed, not on the PATH, or no program.") from None


def _ros_environment() -> dict[str, str]:
    from foresight.ros_environment import environment

    return environment()


def _prepare_rendering() -> None:
    from sim.rendering import prepare_rendering

    prepare_rendering()


def _check_before_work(config: "EvaluateConfig") -> None:
    """What would only be found out after hours of episodes: a bad checkpoint, another robot's, a place that cannot be written."""
    from foresight.planning.config import fitting
    from foresight.robots.profile import load_profile
    from foresight.world_model.checkpoint import load

    model = load(config.checkpoint)
    robot, trained = load_profile(config.robot).name, model.contract.robot
    if robot != trained:
        raise InputError(
            f"Checkpoint {config.checkpoint} was trained on robot '{trained}', --robot is '{robot}'. "
            f"Give the checkpoint of '{robot}' or train one."
        )
    if config.policy != "expert":
        fitting(model, config.policy)
    _check_places(config)


def _check_places(config: "EvaluateConfig", folder: str = "--report") -> None:
    """That the results can be written, and replace nothing but results. `folder` is the flag that names the report's."""
    check_file("--json", config.json)
    check_folder(folder, config.report)
    if config.json and config.json.exists() and not _is_report(config.json):
        raise InputError(f"--json: {config.json} is no report of Foresight and would be replaced. Give another name.")
    if config.report:
        there = [name for name in ("report.json", "report.html", "episodes.json") if (config.report / name).exists()]
        if there and not _is_report(config.report / "report.json"):
            raise InputError(
                f"{folder}: {config.report} holds {', '.join(there)} that Foresight did not write and would replace. "
                "Give another folder."
            )


def _is_report(file: Path) -> bool:
    """Whether the file is a summary as `foresight evaluate` writes it, of this version or another."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):  # of JSON and of UTF-8 too
        return False
    return isinstance(content, dict) and {"tasks", "latency_ms", "model_id", "seed"} <= content.keys()


def _checkpoint_of(model_id: str, given: Path | None) -> Path | None:
    """The checkpoint with this id, which `given` must be; None where none was given and none in models/ is it."""
    from foresight.world_model.checkpoint import fingerprint

    if given is not None:
        folder = find_checkpoint(given)
        if fingerprint(folder) != model_id:
            raise InputError(
                f"--checkpoint: {given} is model {fingerprint(folder)}, the report is of {model_id}. "
                "Give the checkpoint that was evaluated, or leave it out."
            )
        return folder
    shipped = sorted(
        path.parent for path in (ROOT / "models").glob("*/model.safetensors") if (path.parent / "config.json").is_file()
    )
    return next((folder for folder in shipped if fingerprint(folder) == model_id), None)


def _check_replaceable(out: Path) -> None:
    """That a checkpoint written to `out` replaces nothing but a checkpoint."""
    from foresight.world_model.checkpoint import CARD, CONFIG, WEIGHTS

    files = (CARD, CONFIG, WEIGHTS)
    if not out.name or out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"--out: {out} is no folder that can be replaced by a checkpoint. Give the name of a new folder.")
    others = sorted(p.name for p in out.iterdir() if p.name not in files) if out.is_dir() else []
    if others:
        raise InputError(
            f"--out: {out} holds what is no checkpoint ({', '.join(others[:3])}), and would be replaced. Give a new folder, or a "
            f"checkpoint's, which holds {', '.join(files)}."
        )


def _remove_empty(folder: Path | None) -> None:
    """A report's folder in which nothing came to stand."""
    for place in (folder and folder / "videos", folder):
        if place and place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def _finish(config: "EvaluateConfig", report: "Report") -> None:
    from foresight.files import write_atomically

    if config.json:
        write_atomically(config.json, json.dumps(report.to_json(), indent=2) + "\n")
    for place in (config.json, config.report and config.report / "report.html"):
        if place:
            print(f"Written: {place}")


def _overview() -> str:
    lines = [f"  {name:<10}{function.__doc__.splitlines()[0]}" for name, function in COMMANDS.items()]
    return "\n".join(["usage: foresight COMMAND [--help]", "", "Robot arms that imagine before they move.", "", *lines])


def _fail(message: str, code: int = 2) -> int:
    print(f"foresight: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
