"""What an evaluation found: one record per episode, one summary, and their JSON.

Knows no simulator and no ROS: `sim.episodes` and the ROS runner both fill these. Names no host and no path.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from foresight.evaluation.statistics import percentile, wilson
from foresight.files import write_atomically


@dataclass(frozen=True)
class EpisodeResult:
    """One episode as the judge saw it. Times are on the simulation's clock, latencies on the wall's."""

    task: str
    seed: int
    shift: str
    policy: str
    success: bool
    time_to_goal_s: float | None  # [s] until the goal had held long enough; None without success
    final_distance_m: float  # [m] from tip or object to its goal at the end
    violations: int  # limit violations counted from true states
    violation_detail: str
    steps: int  # control steps taken (in-process), or plans received (ROS)
    duration_s: float  # [s] of simulated time
    reason: str  # how it ended: "reached", "timed_out" ...
    planning_ms: tuple[float, ...] = ()  # of each plan
    camera_to_command_ms: tuple[float, ...] = ()  # of each command: from the image's capture until it was sent
    surprise: tuple[float, ...] = ()  # of each belief; 1 is ordinary
    pursued_s: float = 0.0  # [s] of simulated time for which the goal was pursued; plans per second are over this
    video: str = ""  # path relative to the report's folder
    keep_outs_entered: int | None = None  # times that the arm came into the keep-out; None where there was none
    object_entered: bool | None = None  # whether the object came into it
    real_time: float | None = None  # seconds simulated in a second; None where time stands still meanwhile
    row: str = ""  # of the suite
    scene: str = ""  # hash of the scene in the suite's manifest, which the scene that ran has too
    near_misses: int | None = None  # times that a limit was nearly broken, from true states; None where nobody counted
    path_m: float | None = None  # [m] way of the tip
    jerk_m_s3: float | None = None  # [m/s^3] root mean square of the tip's jerk, from true states

    @property
    def group(self) -> str:
        """The row of the suite, or the task: what success is counted by."""
        return self.row or self.task


@dataclass(frozen=True)
class Quantiles:
    p50: float | None  # [ms]
    p99: float | None  # [ms]


@dataclass(frozen=True)
class Latency:
    camera_to_command: Quantiles
    plan: Quantiles


@dataclass(frozen=True)
class TaskSummary:
    episodes: int
    successes: int
    ci95: tuple[float, float]  # of the success rate
    random_successes: int | None  # of the random policy, in `random_episodes`; None when it was not run
    violations: int
    time_to_goal_s: float | None  # [s] median over the successes
    random_episodes: int  # on the first seeds of the same list
    keep_outs_entered: int | None = None  # as of an episode, summed
    episodes_entered: int | None = None  # in which that was at least once
    near_misses: int | None = None  # as of an episode, summed
    path_m: float | None = None  # [m] median over the successes
    jerk_m_s3: float | None = None  # [m/s^3] median over all
    of_base: float | None = None  # success rate over that of the same scenes without the shift


@dataclass(frozen=True)
class Machine:
    cpu: str
    cores: int  # that this process may use
    memory_gb: float
    python: str
    torch: str


@dataclass(frozen=True)
class Report:
    """The content of report.json."""

    tasks: dict[str, TaskSummary]
    latency_ms: Latency
    plan_hz: float | None  # plans per second of the clock the arm moves by
    model_id: str
    git: str
    seed: int
    machine: Machine
    policy: str = "both"
    shift: str = "none"
    keep_out: str = "none"  # "told" or "untold" to the planner, where one was in the way
    through: str = "in-process"  # or "ros"
    guarded: bool = True  # False: whatever was planned was sent, to measure what the guard costs
    injected_ms: float = 0.0  # [ms] of latency injected between observation and motion
    compensated: bool = True  # whether plans begin where the arm will be after it
    subgoals: bool = True  # whether those that the model proposed were pursued
    searching: dict[str, str | int] = field(default_factory=dict)  # method, samples, iterations, where not as shipped
    interrupted: bool = False  # before all episodes that were asked for were done
    suite: str = ""
    manifest: str = ""  # twelve hexadecimal digits that name the suite's manifest
    not_run: dict[str, str] = field(default_factory=dict)  # rows of the suite that this policy cannot do, and why
    training_episodes: int | None = None  # that the model was trained on, as its checkpoint says
    training_seed: int | None = None

    def to_json(self) -> dict:
        return json.loads(json.dumps(asdict(self), allow_nan=False))

    @staticmethod
    def from_json(raw: dict) -> "Report":
        tasks = {name: TaskSummary(**{**task, "ci95": tuple(task["ci95"])}) for name, task in raw["tasks"].items()}
        latency = Latency(**{name: Quantiles(**value) for name, value in raw["latency_ms"].items()})
        return Report(**{**raw, "tasks": tasks, "latency_ms": latency, "machine": Machine(**raw["machine"])})


def summarise(
    episodes: Sequence[EpisodeResult],
    *,
    policy: str,
    seed: int,
    shift: str,
    model_id: str,
    keep_out: str = "none",
    through: str = "in-process",
    guarded: bool = True,
    injected_ms: float = 0.0,
    compensated: bool = True,
    subgoals: bool = True,
    searching: dict[str, str | int] | None = None,
    interrupted: bool = False,
    suite: str = "",
    manifest: str = "",
    not_run: dict[str, str] | None = None,
    training: dict | None = None,
) -> Report:
    """The report of the episodes of `policy`; those of policy "random" are the floor they are compared with.

    `training`: what the checkpoint says of how it was made, for its number of episodes and its seed.
    """
    training = training or {}
    own = [e for e in episodes if e.policy == policy]
    tasks = {}
    for task in dict.fromkeys(e.group for e in own):
        ours = [e for e in own if e.group == task]
        floor = [e for e in episodes if e.group == task and e.policy == "random"]
        successes = sum(e.success for e in ours)
        watched = [e for e in ours if e.keep_outs_entered is not None]
        tasks[task] = TaskSummary(
            episodes=len(ours),
            successes=successes,
            ci95=tuple(round(bound, 4) for bound in wilson(successes, len(ours))),
            random_successes=sum(e.success for e in floor) if floor else None,
            violations=sum(e.violations for e in ours),
            time_to_goal_s=_rounded(percentile([e.time_to_goal_s for e in ours if e.time_to_goal_s is not None], 50)),
            random_episodes=len(floor),
            keep_outs_entered=sum(e.keep_outs_entered for e in watched) if watched else None,
            episodes_entered=sum(e.keep_outs_entered > 0 for e in watched) if watched else None,
            near_misses=_sum([e.near_misses for e in ours]),
            path_m=_rounded(percentile([e.path_m for e in ours if e.path_m is not None and e.success], 50)),
            jerk_m_s3=_rounded(percentile([e.jerk_m_s3 for e in ours if e.jerk_m_s3 is not None], 50)),
        )
    for name, base in ((e.row, e.task) for e in own if e.row != e.task and e.row in tasks and e.task in tasks):
        tasks[name] = replace(tasks[name], of_base=_of_base(own, name, base))
    planning = [ms for e in own for ms in e.planning_ms]
    command = [ms for e in own for ms in e.camera_to_command_ms]
    pursued_s = sum(e.pursued_s for e in own)
    return Report(
        tasks=tasks,
        latency_ms=Latency(
            camera_to_command=Quantiles(percentile(command, 50), percentile(command, 99)),
            plan=Quantiles(percentile(planning, 50), percentile(planning, 99)),
        ),
        plan_hz=len(planning) / pursued_s if pursued_s > 0 else None,
        model_id=model_id,
        git=git_commit(),
        seed=seed,
        machine=machine(),
        policy=policy,
        shift=shift,
        keep_out=keep_out,
        through=through,
        guarded=guarded,
        injected_ms=injected_ms,
        compensated=compensated,
        subgoals=subgoals,
        searching=searching or {},
        interrupted=interrupted,
        suite=suite,
        manifest=manifest,
        not_run=not_run or {},
        training_episodes=training.get("episodes"),
        training_seed=training.get("seed"),
    )


def _of_base(own: Sequence[EpisodeResult], row: str, base: str) -> float | None:
    """Success of a row over that of its base, on the seeds that both have run; None where the base has none."""
    of = {name: {e.seed: e.success for e in own if e.group == name} for name in (row, base)}
    both = of[row].keys() & of[base].keys()
    reached = sum(of[base][seed] for seed in both)
    return round(sum(of[row][seed] for seed in both) / reached, 4) if reached else None


def _sum(values: Sequence[int | None]) -> int | None:
    counted = [v for v in values if v is not None]
    return sum(counted) if counted else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def write_results(directory: Path, report: Report, episodes: Sequence[EpisodeResult]) -> None:
    """report.json (the summary) and episodes.json (everything), each complete or absent."""
    write_atomically(directory / "report.json", json.dumps(report.to_json(), indent=2) + "\n")
    write_atomically(directory / "episodes.json", json.dumps([_without_nan(asdict(e)) for e in episodes]) + "\n")


def read_results(directory: Path) -> tuple[Report, list[EpisodeResult]]:
    """What `write_results` wrote; a FileNotFoundError or ValueError names the file and what to do."""
    for name in ("report.json", "episodes.json"):
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory / name} does not exist. Make it with `foresight evaluate --report {directory}`.")
    try:
        report = Report.from_json(json.loads((directory / "report.json").read_text()))
        episodes = [_episode(raw) for raw in json.loads((directory / "episodes.json").read_text())]
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(
            f"{directory} holds no readable results ({error}). Make them again with `foresight evaluate --report {directory}`."
        ) from error
    return report, episodes


def comparable(folders: Sequence[Path], suite: str, manifest: str) -> list[Report]:
    """The reports in these folders. Raises ValueError where one counts on other scenes, or does not tell its training."""
    others = [read_results(Path(folder))[0] for folder in folders]
    for folder, other in zip(folders, others, strict=True):
        if other.manifest != manifest or not suite:
            here, there = (f"'{s}' {m}" if s else "of no suite" for s, m in ((suite, manifest), (other.suite, other.manifest)))
            raise ValueError(f"--beside: {folder} is {there}, this is {here}; rates on other scenes do not compare.")
        if other.training_episodes is None:
            raise ValueError(f"--beside: {folder} does not tell how many episodes its model was trained on. Leave it out.")
    return others


def machine() -> Machine:
    """What the figures were measured on; no host name, no path."""
    cpu = platform.processor() or platform.machine()
    try:
        cpu = next(
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        pass  # not Linux, or a CPU that does not tell
    try:
        torch_version = version("torch")
    except PackageNotFoundError:
        torch_version = "not installed"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Machine(cpu, len(os.sched_getaffinity(0)), round(memory, 1), platform.python_version(), torch_version)


def git_commit() -> str:
    """The commit of the code that runs, with "+" when files differ from it; "unknown" outside a checkout."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]

    def ask(*words: str) -> str:
        return subprocess.run([*git, *words], capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return ask("rev-parse", "--short=12", "HEAD") + ("+" if ask("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _without_nan(raw: dict) -> dict:
    """JSON has no NaN: a surprise not yet known is written as null."""
    raw["surprise"] = [s if np.isfinite(s) else None for s in raw["surprise"]]
    return raw


def _episode(raw: dict) -> EpisodeResult:
    surprise = tuple(float("nan") if s is None else s for s in raw["surprise"])
    latencies = {name: tuple(raw[name]) for name in ("planning_ms", "camera_to_command_ms")}
    return EpisodeResult(**{**raw, **latencies, "surprise": surprise})
