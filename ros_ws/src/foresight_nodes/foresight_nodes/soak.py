"""The graph for hours: simulated episodes one after another, while memory and signs of life are watched from outside.

    foresight bench soak --hours 1 --json F        (or: python -m foresight_nodes.soak --help)

Memory is each process's resident set in /proc, the recorder's too, whose incidents go to a folder that ends with the soak. Growth
counts from when the recorder's ring of messages is full: what it holds is memory as any other, and from then on it must not grow.
A sign of life is missed when the next comes later than whoever waits for it
allows: the lifecycle manager for bonds, the guard for the planner's heartbeat (by the guard's own word), people for diagnostics.
Those that only the machine's own standing still made too long (`stalls.py`, where it may watch) are counted apart too.
Also how long the planner's cycles take, by its own word, from a belief to a plan that the guard's checks have passed; how many
plans it makes in a second of this process's clock while a goal is pursued; and whether each cycle without a plan in time was
covered: the controller then had a motion that ends at rest, or the arm stood still.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from foresight_bringup import record
from foresight_bringup.graph import enclave
from foresight_bringup.processes import Child, ending_with_parent, stop
from foresight_msgs.msg import Bond, GuardState
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from trajectory_msgs.msg import JointTrajectory

from foresight.command_line import InputError, check_file, parse
from foresight.evaluation.statistics import percentile
from foresight.files import write_atomically
from foresight.safety.monitor import MonitorConfig
from foresight_nodes import convert, topics
from foresight_nodes.access import CONTROLLER
from foresight_nodes.guard_node import TICK_S, GuardParameters
from foresight_nodes.planner_node import CYCLE_S
from foresight_nodes.recorder_node import RecorderParameters
from foresight_nodes.run import leave
from foresight_nodes.run_episodes import GraphError, Runner, _last_words
from foresight_nodes.stalls import StallWatch, overlap_s

SAMPLE_S = 2.0  # [s] between two looks at memory
WARM_UP = 0.2  # share of the run after which memory should stand still
FULL_S = 2 * RecorderParameters.window_s  # [s] after which the recorder's ring is full and it has written, however short the run
ALLOWED_S = {
    "bond": 0.5,
    "diagnostics": 3.0,
    "heartbeat": MonitorConfig.command_timeout_s - GuardParameters.transport_s - TICK_S,
}  # [s] between two signs of life
GROWTH_MAX = 0.01  # share of its resident memory that a process may gain after the warm-up
TASKS = ("reach", "push")
DESCRIBED = 20  # episodes with violations that are named
MOTIONS = 200  # commands to the controller that are remembered until the planner tells, within a second, what it missed
REST_RAD_S = 1e-6  # [rad/s] below which a motion ends at rest


@dataclass(frozen=True)
class SoakConfig:
    """How long the graph runs."""

    hours: float = 1.0
    """Duration [h] from the moment that the graph is active."""
    json: Path | None = None
    """Where to write the figures."""
    checkpoint: str = ""
    """Folder of the world model; by default the shipped one."""
    seed: int = 0
    """First scene."""
    log: Path = Path("runs/soak/graph.log")
    """What the graph writes."""

    def __post_init__(self) -> None:
        if not 0.001 <= self.hours <= 1000:
            raise ValueError(f"--hours must lie between 0.001 and 1000, got {self.hours}.")


@dataclass
class Memory:
    """Resident memory of the graph's processes [byte], by name."""

    samples: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))

    def look(self, processes: dict[str, int], now_s: float) -> None:
        for name, pid in processes.items():
            size = resident(pid)
            if size is not None:
                self.samples[name].append((now_s, size))

    def growth(self, begin_s: float, end_s: float) -> dict[str, float]:
        """Share gained from the first to the last tenth of what lies after the warm-up, by medians."""
        warm_s = begin_s + max(WARM_UP * (end_s - begin_s), FULL_S)
        grown = {}
        for name, samples in self.samples.items():
            sizes = [size for at_s, size in samples if at_s >= warm_s]
            tenth = max(1, len(sizes) // 10)
            if len(sizes) >= 2:
                grown[name] = float(np.median(sizes[-tenth:]) / np.median(sizes[:tenth]) - 1)
        return grown


def resident(pid: int) -> int | None:
    """Resident memory of a process [byte]; None when it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


class SignsOfLife:
    """When each source was last heard, its longest silence, and how often that was too long."""

    def __init__(self) -> None:
        self.longest_s: dict[str, float] = defaultdict(float)
        self.missed: dict[str, int] = defaultdict(int)
        self.silences: list[tuple[str, float, float]] = []  # kind, begin and end [s] of those that were too long
        self.heard: dict[str, int] = defaultdict(int)
        self._last_s: dict[str, float] = {}

    def hear(self, kind: str, who: str, now_s: float) -> None:
        source = f"{kind} {who}"
        self.heard[source] += 1
        self.note(kind, source, now_s - self._last_s.get(source, now_s), now_s)
        self._last_s[source] = now_s

    def note(self, kind: str, source: str, silence_s: float, now_s: float, counted: bool = False) -> None:
        """A silence that somebody measured; `counted` when it is one that has been noted before and goes on."""
        self.longest_s[source] = max(self.longest_s[source], silence_s)
        if silence_s > ALLOWED_S[kind] and not counted:
            self.missed[source] += 1
            self.silences.append((kind, now_s - silence_s, now_s))

    def end(self, now_s: float) -> None:
        """Counts the silence that goes on at the end."""
        for source, last_s in self._last_s.items():
            self.note(source.split()[0], source, now_s - last_s, now_s)

    def missed_within(self, stalls: list[tuple[float, float]]) -> int:
        """How many silences would not have been too long without the time in which the machine stood still."""
        return sum(
            end_s - begin_s - overlap_s(begin_s, end_s, stalls) <= ALLOWED_S[kind] for kind, begin_s, end_s in self.silences
        )


class Cycles:
    """How the planner's cycles went, from what it says of itself, and what the arm had where one brought no plan in time."""

    NAMES = ("cycles", "cycles_too_long", "deadline_misses", "without_plan", "plans")

    def __init__(self) -> None:
        self._before, self._last = dict.fromkeys(self.NAMES, 0), dict.fromkeys(self.NAMES, 0)
        self._pursued_at_s: float | None = None  # when it last said that it pursues a goal
        self._pursued_s, self._pursued_plans = 0.0, 0
        self._motions: deque[tuple[float, float, bool]] = deque(maxlen=MOTIONS)  # begin and end [s]; whether that is at rest
        self.took_ms: list[float] = []
        self.missed = {"in_motion_to_rest": 0, "at_rest": 0, "uncovered": 0}

    def hear(self, status: DiagnosticStatus, now_s: float) -> None:
        """What a node says of itself; `now_s` by the steady clock of whoever hears it."""
        values = {item.key: item.value for item in status.values}
        if not all(name in values for name in self.NAMES):
            return
        now, pursued_at_s = {name: int(values[name]) for name in self.NAMES}, self._pursued_at_s
        self._pursued_at_s = now_s if values.get("pursuing") == "True" else None
        if now["cycles"] < self._last["cycles"]:  # a planner that began anew
            self._before = {name: self._before[name] + self._last[name] for name in self.NAMES}
        elif None not in (pursued_at_s, self._pursued_at_s):
            self._pursued_s += now_s - pursued_at_s
            self._pursued_plans += now["plans"] - self._last["plans"]
        self._last = now
        self.took_ms += map(float, values["cycles_ms"].split())
        for at_s in map(float, values["missed_at_s"].split()):
            self.missed[self._then(at_s)] += 1

    def hear_command(self, msg: JointTrajectory) -> None:
        """What the controller is given."""
        if msg.points:
            stamp_s, last = convert.seconds(msg.header.stamp), msg.points[-1]
            begin_s, end_s = (stamp_s + convert.seconds(point.time_from_start) for point in (msg.points[0], last))
            rests = bool(last.velocities) and max(map(abs, last.velocities)) < REST_RAD_S
            self._motions.append((begin_s, end_s, rests))

    def _then(self, at_s: float) -> str:
        """What was in force at that moment of the graph's clock: the last command that had begun by then."""
        begun = [(end_s, rests) for begin_s, end_s, rests in self._motions if begin_s <= at_s]
        end_s, rests = begun[-1] if begun else (0.0, False)
        return "uncovered" if not rests else "in_motion_to_rest" if end_s > at_s else "at_rest"

    @property
    def counts(self) -> dict[str, int]:
        return {name: self._before[name] + self._last[name] for name in self.NAMES}

    @property
    def plan_hz(self) -> float | None:
        """Plans a second while a goal was pursued [Hz], by the clock of whoever hears; None where none was for long."""
        return self._pursued_plans / self._pursued_s if self._pursued_s > 0 else None


class Ear(Node):
    """Hears what a person or a monitor would hear."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__("soak", namespace=None)
        self.signs, self.cycles, self.listening = SignsOfLife(), Cycles(), False
        self._silent = False
        topics.BOND.subscription(self, self._on_bond)
        topics.DIAGNOSTICS.subscription(self, self._on_diagnostics)
        topics.GUARD_STATE.subscription(self, self._on_guard_state)
        topics.in_force(CONTROLLER).subscription(self, self.cycles.hear_command)
        self.create_timer(SAMPLE_S, look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_bond(self, msg: Bond) -> None:
        if self.listening:
            self.signs.hear("bond", msg.node, time.monotonic())

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status if self.listening else ():
            self.signs.hear("diagnostics", status.name, time.monotonic())
            self.cycles.hear(status, time.monotonic())

    def _on_guard_state(self, msg: GuardState) -> None:
        """One silence counts once, however often the guard speaks of it."""
        if not self.listening:
            return
        self.signs.heard["heartbeat planner"] += 1
        self.signs.note("heartbeat", "heartbeat planner", msg.heartbeat_silence_s, time.monotonic(), counted=self._silent)
        self._silent = msg.heartbeat_silence_s > ALLOWED_S["heartbeat"]


def run(config: SoakConfig, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The figures, after Ctrl-C those until then. Raises GraphError when the graph does not start or ends by itself."""
    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: interrupted.append(received))
    config.log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "foresight_bringup.up", "sim"]
    command += [f"checkpoint:={Path(config.checkpoint).absolute()}"] if config.checkpoint else []
    folder = tempfile.TemporaryDirectory(prefix="foresight-soak-", ignore_cleanup_errors=True)  # of the recorder's incidents
    with open(config.log, "w") as out:
        process = subprocess.Popen(
            ending_with_parent(command), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            cwd=folder.name,
        )  # fmt: skip
    graph, memory, watch = Child("the graph", process), Memory(), StallWatch()

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt
        if process.poll() is not None:
            raise GraphError(f"{_last_words(config.log)} The whole log: {config.log}.")

    def look() -> None:
        if ear.listening:
            pids = {p.executable: p.pid for p in record.read(record.path(os.environ.get("ROS_DOMAIN_ID") or "0", ""))}
            memory.look(pids, time.monotonic())

    rclpy.init(args=["--ros-args", "--enclave", enclave("", "operator")], signal_handler_options=SignalHandlerOptions.NO)
    ear = Ear(look)
    runner = Runner(check, ())  # no films are made, and whoever watches should cost little
    runner._executor.add_node(ear)
    episodes = successes = violations = 0
    described: list[str] = []
    command_ms: list[float] = []
    real_time: list[float] = []
    begin_s = time.monotonic()
    try:
        tell("starting the graph")
        runner.wait_until_active()
        begin_s = time.monotonic()
        end_s = begin_s + 3600 * config.hours
        ear.listening = True
        while time.monotonic() < end_s:
            task = TASKS[episodes % len(TASKS)]
            result, _, _ = runner.episode(task, config.seed + episodes, "none", lambda line: None)
            episodes, successes, violations = episodes + 1, successes + result.success, violations + result.violations
            command_ms += result.camera_to_command_ms
            real_time += [] if result.real_time is None else [result.real_time]
            if result.violations:
                described.append(f"{task}, seed {result.seed}: {result.violation_detail}")
            hours, missed = (time.monotonic() - begin_s) / 3600, sum(ear.signs.missed.values())
            by = ", ".join(f"{source} {count}" for source, count in ear.signs.missed.items() if count)
            tell(f"{hours:.2f} of {config.hours:g} h, {episodes} episodes, {missed} signs of life missed" + f" ({by})" * bool(by))
    except KeyboardInterrupt:
        pass
    finally:
        ended_s = time.monotonic()
        ear.signs.end(ended_s)
        runner.close()
        ear.destroy_node()
        stop([graph], pump=lambda: time.sleep(0.05))
        watch.close()
        incidents = len(list(Path(folder.name).glob("runs/incidents/*")))
        folder.cleanup()
    stalls = watch.stalls and [stall for stall in watch.stalls if overlap_s(begin_s, ended_s, [stall])]
    growth = memory.growth(begin_s, ended_s)
    return {
        "hours": (ended_s - begin_s) / 3600,
        "interrupted": bool(interrupted),
        "episodes": episodes,
        "successes": successes,
        "violations": violations,
        "violations_described": described[:DESCRIBED],
        "incidents_kept": incidents,
        "rss_growth": growth,
        "rss_growth_max": max(growth.values(), default=None),
        "rss_mb": {name: samples[-1][1] / 2**20 for name, samples in memory.samples.items()},
        "missed": dict(ear.signs.missed),
        "missed_total": sum(ear.signs.missed.values()),
        "missed_while_machine_stood": ear.signs.missed_within(stalls or []),
        "machine_stood": None if stalls is None else len(stalls),
        "machine_stood_longest_s": None if stalls is None else max((end - begin for begin, end in stalls), default=0.0),
        "longest_silence_s": dict(ear.signs.longest_s),
        "heard": dict(ear.signs.heard),
        "planner": ear.cycles.counts,
        "plan_hz": ear.cycles.plan_hz,
        "cycle_ms": {name: percentile(ear.cycles.took_ms, of) for name, of in (("p50", 50), ("p99", 99), ("longest", 100))},
        "missed_cycles": ear.cycles.missed,
        "real_time": {"mean": float(np.mean(real_time)), "min": min(real_time)} if real_time else None,
        "camera_to_command_ms": {name: percentile(command_ms, of) for name, of in (("p50", 50), ("p99", 99))},
    }


def main(words: list[str] | None = None) -> int:
    """0 when no limit was broken, memory stood still, no sign of life was missed while the machine ran and every missed cycle of
    the planner was covered, 1 otherwise, 2 when it could not run, 130 after Ctrl-C."""
    try:
        config = parse(SoakConfig, "bench soak", __doc__, sys.argv[1:] if words is None else words)
        check_file("--json", config.json)
        check_file("--log", config.log, "graph.log")
        figures = run(config, lambda line: print(line, flush=True))
    except (InputError, GraphError, ValueError, OSError) as error:
        print(f"foresight bench soak: {error}", file=sys.stderr)
        return 2
    if config.json:
        write_atomically(config.json, json.dumps(figures, indent=2) + "\n")
        print(f"Written: {config.json}")
    if figures["interrupted"]:
        print("foresight bench soak: interrupted; the graph has ended.", file=sys.stderr)
    grown = {name: f"{100 * share:.2f} %" for name, share in figures["rss_growth"].items()}
    print(
        f"{figures['hours']:.2f} h, {figures['episodes']} episodes ({figures['successes']} successes, "
        f"{figures['violations']} violations); {figures['missed_total']} signs of life missed, "
        f"{figures['missed_while_machine_stood']} of them only because the machine itself stood still; "
        f"resident memory grew by {grown} after the warm-up."
    )
    planner, command, missed = figures["planner"], figures["camera_to_command_ms"], figures["missed_cycles"]
    if planner["cycles"] and command["p50"] is not None:
        share, took = 100 * planner["cycles_too_long"] / planner["cycles"], figures["cycle_ms"]
        print(
            f"{planner['cycles']} cycles of the planner, p50 {took['p50']:.0f}, p99 {took['p99']:.0f}, "
            f"longest {took['longest']:.0f} ms, {figures['plan_hz'] or 0:.2f} plans a second: "
            f"{planner['cycles_too_long']} ({share:.2f} %) took more than {1e3 * CYCLE_S:.0f} ms, "
            f"{planner['deadline_misses']} plans were dropped as late, {planner['without_plan']} cycles had none; "
            f"of the {sum(missed.values())} cycles that one of these befell the arm was on a motion to rest in "
            f"{missed['in_motion_to_rest']}, at rest in {missed['at_rest']}, neither in {missed['uncovered']}; "
            f"camera to command p50 {command['p50']:.0f}, p99 {command['p99']:.0f} ms; simulated time went at "
            f"{figures['real_time']['mean']:.3f} of real time (in the slowest episode at {figures['real_time']['min']:.3f})."
        )
    if figures["interrupted"]:
        return 130
    silent = figures["missed_total"] - figures["missed_while_machine_stood"]
    still = figures["rss_growth"] and figures["rss_growth_max"] < GROWTH_MAX
    return 0 if still and figures["violations"] == silent == missed["uncovered"] == 0 else 1


if __name__ == "__main__":
    leave(main())
