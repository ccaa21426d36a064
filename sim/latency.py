"""What latency between observation and motion costs, and what planning ahead of it brings back.

    foresight bench latency --task push --episodes 200 --json F

The same held-out scenes with every latency, planned from where the arm will be after it and from where it was seen. Simulated
time stands still while the agent thinks, so the latency is exactly the one injected, whatever the machine does besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from foresight.evaluation.config import EvaluateConfig, TaskName
from foresight.evaluation.results import EpisodeResult, TaskSummary, git_commit, machine
from sim.episodes import Build, evaluate

KEPT_TO_MS, KEPT_POINTS = 100.0, 5.0  # up to that latency success should stay within so many points of none
WITHIN = f"within_{KEPT_POINTS:g}_points_to_{KEPT_TO_MS:g}_ms"


@dataclass(frozen=True)
class LatencyConfig:
    """Which scenes, how late, and where to write it."""

    task: tuple[TaskName, ...] = ("reach", "push")
    """One or more tasks."""
    episodes: int = 200
    """Number of episodes of each task in each cell of the table."""
    seed: int = 100
    """Held-out scenes start at seed * 100000, the same ones in each cell."""
    latencies_ms: tuple[float, ...] = (0.0, 50.0, 100.0, 200.0)
    """Latencies [ms], the first one 0, each below 250."""
    checkpoint: Path = Path("models/ur5e")
    """Folder of the checkpoint; the default is the one shipped."""
    robot: str = "ur5e"
    """Name of a shipped robot profile, or the path of its YAML file."""
    json: Path | None = None
    """Where to write the figures."""
    jobs: int = 2
    """Processes, one thread each."""

    def __post_init__(self) -> None:
        if not self.latencies_ms or self.latencies_ms[0] != 0 or len(set(self.latencies_ms)) < len(self.latencies_ms):
            raise ValueError(f"--latencies-ms must be 0 and then others, each once, got {' '.join(map(str, self.latencies_ms))}.")
        list(self.cells())  # each refuses what it cannot run

    def cells(self) -> Iterator[EvaluateConfig]:
        """One evaluation for each cell: latencies with compensation and without, none of both where there is no latency."""
        one = EvaluateConfig(
            task=self.task,
            episodes=self.episodes,
            seed=self.seed,
            random_episodes=0,
            checkpoint=self.checkpoint,
            robot=self.robot,
            jobs=self.jobs,
        )
        for latency_ms in self.latencies_ms:
            for compensate in (True, False) if latency_ms else (True,):
                yield replace(one, latency_ms=latency_ms, compensate=compensate)


def bench(
    config: LatencyConfig,
    progress: Callable[[EvaluateConfig, EpisodeResult], None] = lambda cell, result: None,
    build: Build | None = None,
) -> dict[str, Any]:
    """The table, a row for each task, latency and way to plan. Raises KeyboardInterrupt when interrupted."""
    rows, model_id = [], ""
    for cell in config.cells():
        report, _ = evaluate(cell, lambda result, cell=cell: progress(cell, result), build)
        if report.interrupted:
            raise KeyboardInterrupt
        rows += [_row(task, cell, summary) for task, summary in report.tasks.items()]
        model_id = report.model_id
    none = {row["task"]: row["rate"] for row in rows if row["latency_ms"] == 0}
    for row in rows:
        row["points_from_none"] = round(100 * (row["rate"] - none[row["task"]]), 2)
    near = [row["points_from_none"] for row in rows if row["compensated"] and row["latency_ms"] <= KEPT_TO_MS]
    return {
        "measured": "Success on the same scenes; latency injected between an observation and the motion that it leads to.",
        "seed": config.seed,
        "model_id": model_id,
        "git": git_commit(),
        "machine": asdict(machine()),
        "rows": rows,
        WITHIN: min(near) >= -KEPT_POINTS,
    }


def summary(found: dict[str, Any]) -> str:
    """The table for people."""
    lines = [
        f"{'task':<18}{'latency':>8}  {'planned from':<14}{'success':>16}  {'95 %':>9}{'points':>8}{'time':>8}{'violations':>12}"
    ]
    for row in found["rows"]:
        where = "-" if not row["latency_ms"] else "then" if row["compensated"] else "when seen"
        low, high = row["ci95"]
        time = "-" if row["time_to_goal_s"] is None else f"{row['time_to_goal_s']:.1f} s"
        lines.append(
            f"{row['task']:<18}{row['latency_ms']:>5g} ms  {where:<14}{100 * row['rate']:>7.1f} % of {row['episodes']:<4}"
            f"  [{100 * low:>3.0f}, {100 * high:>3.0f}]{row['points_from_none']:>+8.1f}{time:>8}{row['violations']:>12}"
        )
    kept = "yes" if found[WITHIN] else "no"
    return "\n".join([*lines, f"Compensated, within {KEPT_POINTS:g} points of no latency up to {KEPT_TO_MS:g} ms: {kept}."])


def _row(task: str, cell: EvaluateConfig, summary: TaskSummary) -> dict[str, Any]:
    return {
        "task": task,
        "latency_ms": cell.latency_ms,
        "compensated": cell.compensate,
        "episodes": summary.episodes,
        "successes": summary.successes,
        "rate": summary.successes / summary.episodes,
        "ci95": list(summary.ci95),
        "time_to_goal_s": summary.time_to_goal_s,
        "violations": summary.violations,
    }
