"""Breaks the line on purpose and measures what the arm does: planners killed at full speed, the guard killed in motion, crashes.

    foresight bench faults --json F        (or: python -m foresight_nodes.bench_faults --help)

Each robot has a lane of its own (stop_trials.py) in a ROS domain of its own. Judges nothing itself: the lanes do.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from foresight_bringup.processes import Child, ending_with_parent, stop
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from foresight.command_line import InputError, check_file, parse
from foresight.files import write_atomically
from foresight.robots.profile import load_profile
from foresight_nodes.run import leave

COLUMNS = (
    TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn(),
    TextColumn("{task.fields[line]}"),
)  # fmt: skip
FIRST_DOMAIN = 110  # of the lanes; 100 and on are free where nobody chose otherwise
SILENT_S = 300.0  # [s] without a trial after which a lane is given up
TOLD = 20  # failures and violations that are written out; trials after which a log is told


@dataclass(frozen=True)
class FaultsConfig:
    """What is broken, how often, and where the figures go."""

    json: Path | None = None
    """File for the figures."""
    trials: int = 300
    """Planner deaths by SIGKILL for each robot, and as many by SIGSTOP."""
    guard_trials: int = 20
    """Guard deaths in motion for each robot."""
    round_trip_s: float = 60.0
    """[s] of undisturbed planning for each robot in which round trips through the guard are measured."""
    round_trip_hz: float = 10.0
    """Plans a second meanwhile."""
    profiles: tuple[str, ...] = ("ur5e", "fr3", "so101")
    """Robots."""
    parallel: int = 1
    """Robots at a time; each needs two cores for itself while it is measured."""
    seed: int = 0
    """Of the swings and of the moments of death."""
    matrix: bool = False
    """Instead: crash every node in every lifecycle state of the simulated graph."""
    nodes: tuple[str, ...] = ()
    """Nodes of the matrix; empty: all."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("trials", 0, 10**6), ("guard_trials", 0, 10**6), ("round_trip_s", 0, 86_400),
            ("round_trip_hz", 1, 100), ("parallel", 1, 90), ("seed", 0, 2**31)
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"--{name.replace('_', '-')} must lie between {low} and {high}, got {getattr(self, name)}.")
        if len(set(self.profiles)) < len(self.profiles):
            raise ValueError(f"--profiles names a robot twice: {' '.join(self.profiles)}. Name each once.")
        for robot in self.profiles:
            load_profile(robot)


class LaneError(RuntimeError):
    """A lane could not go on; the message is one line."""


class Lane:
    """A lane's process and what it has told."""

    def __init__(self, robot: str, config: FaultsConfig, domain: int) -> None:
        self.robot, self.trials, self.round_trips_ms, self.heard_s = robot, [], [], time.monotonic()
        told = {
            "robot": robot,
            "kill": config.trials,
            "freeze": config.trials,
            "guard": config.guard_trials,
            "seed": config.seed,
            "round_trip_s": config.round_trip_s,
            "round_trip_hz": config.round_trip_hz,
        }
        self.process = subprocess.Popen(
            ending_with_parent([sys.executable, "-m", "foresight_nodes.stop_trials", json.dumps(told)]),
            env={**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip
        self.child = Child(f"lane of {robot}", self.process)

    def read(self) -> dict[str, Any] | None:
        """The next trial, empty where the lane told something else; None at the end. Raises LaneError."""
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            if self.process.returncode:
                raise LaneError(f"{self.child.describe_end()}.")
            return None
        trial = json.loads(line)
        if "error" in trial:
            raise LaneError(trial["error"])
        self.heard_s = time.monotonic()
        if "round_trips_ms" in trial:
            self.round_trips_ms = trial["round_trips_ms"]
            return {}
        self.trials.append(trial)
        return trial


def run_lanes(config: FaultsConfig, trials: list[dict[str, Any]], round_trips_ms: dict[str, list[float]]) -> None:
    """All trials of all robots, some robots at a time; what they tell comes into the last two arguments. Raises LaneError."""
    waiting, running = list(enumerate(config.profiles)), []
    total = 2 * config.trials + config.guard_trials
    with Progress(*COLUMNS) as bar, selectors.DefaultSelector() as selector:
        tasks = {robot: bar.add_task(robot, total=total, line="") for robot in config.profiles}
        try:
            while waiting or running:
                while waiting and len(running) < config.parallel:
                    number, robot = waiting.pop(0)
                    lane = Lane(robot, config, FIRST_DOMAIN + number)
                    running.append(lane)
                    selector.register(lane.process.stdout, selectors.EVENT_READ, lane)
                patience_s = SILENT_S + config.round_trip_s
                silent = [lane.robot for lane in running if time.monotonic() - lane.heard_s > patience_s]
                if silent:
                    raise LaneError(f"No trial on {silent[0]} for {patience_s:.0f} s. Free the machine's cores.")
                for key, _ in selector.select(0.5):
                    lane, trial = key.data, key.data.read()
                    if trial is None:
                        selector.unregister(lane.process.stdout)
                        running.remove(lane)
                        continue
                    if not trial:
                        round_trips_ms[lane.robot] = lane.round_trips_ms
                        continue
                    trials.append(trial)
                    bar.update(tasks[lane.robot], advance=1, line=_line(lane.trials))
                    if not bar.console.is_terminal and len(lane.trials) % TOLD == 0:  # a log shows no bar
                        print(f"{lane.robot}: {len(lane.trials)} of {total} trials, {_line(lane.trials)}", flush=True)
        finally:
            stop([lane.child for lane in running], pump=lambda: time.sleep(0.05))


def _line(trials: list[dict[str, Any]]) -> str:
    bad = sum(not _stopped(trial) or bool(trial["violations"]) for trial in trials)
    planners = [t for t in trials if t["signal"] != "guard"]
    longest = f"at rest within {max(t['rest_s'] for t in planners):.3f} of {planners[0]['bound_s']:.3f} s, " if planners else ""
    return f"{longest}{bad} bad"


def _stopped(trial: dict[str, Any]) -> bool:
    return trial["rest_s"] <= trial["bound_s"]


def summarise(trials: list[dict[str, Any]], round_trips_ms: dict[str, list[float]]) -> dict[str, Any]:
    """Figures for each signal, of all robots together and of each."""
    stops: dict[str, dict[str, Any]] = {}
    for number in ("kill", "freeze", "guard"):
        some = [trial for trial in trials if trial["signal"] == number]
        if some:
            robots = dict.fromkeys(trial["robot"] for trial in some)
            stops[number] = _figures(some)
            stops[number]["robots"] = {robot: _figures([t for t in some if t["robot"] == robot]) for robot in robots}
    late = [trial for trial in trials if not _stopped(trial)]
    broken = [f"{t['robot']} {t['signal']}: {v}" for t in trials for v in t["violations"]]
    trips = {
        robot: {"plans": len(ms), "p50": float(np.median(ms)), "p99": float(np.quantile(ms, 0.99)), "max": max(ms)}
        for robot, ms in round_trips_ms.items()
        if ms
    }
    return {
        "stop": stops, "violations": len(broken), "violation_details": broken[:TOLD], "late": late[:TOLD], "round_trip_ms": trips,
    }  # fmt: skip


def _figures(trials: list[dict[str, Any]]) -> dict[str, Any]:
    rest = np.array([trial["rest_s"] for trial in trials])
    return {
        "trials": len(trials), "stopped": sum(map(_stopped, trials)), "max_s": float(rest.max()),
        "bound_s": max(trial["bound_s"] for trial in trials), "p50_s": float(np.median(rest)),
        "speed_min": min(trial["speed"] for trial in trials), "runs_thrown_away": sum(t["stalls"] for t in trials),
        "planners_not_matched": sum(t["unmatched"] for t in trials),
    }  # fmt: skip


def told(figures: dict[str, Any]) -> str:
    """A line for each robot and signal."""
    lines = [
        f"{robot:<6} {number:<7}{f['stopped']} of {f['trials']} at rest within the bound ({f['bound_s']:.3f} s"
        f"{' at most' if number == 'guard' else ''}); median {f['p50_s']:.3f}, longest {f['max_s']:.3f} s"
        for number, signal in figures["stop"].items()
        for robot, f in signal["robots"].items()
    ]
    lines += [
        f"{robot:<6} round trip of {f['plans']} plans: p50 {f['p50']:.1f}, p99 {f['p99']:.1f}, longest {f['max']:.1f} ms"
        for robot, f in figures["round_trip_ms"].items()
    ]
    return "\n".join([*lines, f"{figures['violations']} violations"])


def main(words: list[str] | None = None) -> int:
    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        config = parse(FaultsConfig, "bench faults", __doc__, sys.argv[1:] if words is None else words)
        check_file("--json", config.json)
        if config.matrix:
            from foresight_nodes.crash_matrix import run_matrix, told_matrix

            figures = run_matrix(config.nodes, config.seed)
            print(told_matrix(figures))
            good = figures["matrix"]["crashes"] == figures["matrix"]["good"]
        else:
            trials: list[dict[str, Any]] = []
            round_trips_ms: dict[str, list[float]] = {}
            ended = ""
            try:
                run_lanes(config, trials, round_trips_ms)
            except (KeyboardInterrupt, LaneError) as error:
                if not trials:
                    raise
                ended = str(error) or "interrupted"
            figures = {**summarise(trials, round_trips_ms), "ended_early": ended}
            print(told(figures))
            good = not (figures["violations"] or figures["late"] or ended)
            if ended:
                print(f"foresight bench faults: ended early, after {len(trials)} trials: {ended}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nforesight bench faults: interrupted; what was started has ended, nothing was written.", file=sys.stderr)
        return 130
    except (InputError, ValueError, RuntimeError, OSError) as error:
        print(f"foresight bench faults: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if config.json:
        write_atomically(config.json, json.dumps(figures, indent=2) + "\n")
        print(f"Written: {config.json}")
    return 0 if good else 1


if __name__ == "__main__":
    leave(main())
