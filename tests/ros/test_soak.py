"""The soak's own measures, and a minute of it on the real graph (`make nightly` runs an hour)."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from foresight_nodes import convert, soak
from foresight_nodes.real_time import put_first
from foresight_nodes.soak import ALLOWED_S, Memory, SignsOfLife, resident
from foresight_nodes.stalls import PRIORITY, StallWatch, overlap_s
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from tests.waiting import until


def test_memory_that_stands_still_has_not_grown_and_a_leak_has():
    """The warm-up does not count; a leak of 2 % over the run is seen, noise of 0.2 % is not."""
    rng, memory = np.random.default_rng(0), Memory()
    for i in range(1000):
        noise = 1 + 0.002 * rng.normal()
        memory.samples["still"].append((i, int(10**8 * noise * (0.5 if i < 100 else 1.0))))
        memory.samples["leaking"].append((i, int(10**8 * noise * (1 + 0.02 * i / 1000))))
    grown = memory.growth(0.0, 1000.0)
    assert abs(grown["still"]) < 0.002 and grown["leaking"] == pytest.approx(0.0144, abs=0.003)


def test_growth_begins_when_the_recorders_ring_is_full():
    """However short the run; of one too short for that nothing is told, and it is not good."""
    memory = Memory()
    for i in range(0, 120, 2):
        memory.samples["recorder"].append((i, 10**8 + 2 * 10**6 * min(i, 30)))
    assert soak.FULL_S > 30 and memory.growth(0.0, 120.0) == {"recorder": 0.0}
    assert memory.growth(60.0, 120.0) == {}


class Ended:
    """A process that has ended by itself."""

    pid, returncode = 2**22 + 1, 0

    def __init__(self, command: list[str], stdout, cwd: str, **_) -> None:
        self.command, self.cwd = command, cwd
        stdout.write("ended\n")

    def poll(self) -> int:
        return 0


def test_the_whole_graph_runs_with_its_recorder_whose_incidents_go_nowhere_else(tmp_path, monkeypatch):
    """In a folder of its own, which is gone afterwards; a relative checkpoint is still found from there."""
    started = []
    monkeypatch.setattr(soak.subprocess, "Popen", lambda *args, **kw: started.append(Ended(*args, **kw)) or started[-1])
    monkeypatch.setattr(soak, "StallWatch", lambda: SimpleNamespace(stalls=[], close=lambda: None))
    monkeypatch.setattr(soak.signal, "signal", lambda *_: None)
    monkeypatch.setattr(soak.rclpy, "init", lambda **_: None)
    with pytest.raises(soak.GraphError):
        soak.run(soak.SoakConfig(hours=0.001, checkpoint="models/ur5e", log=tmp_path / "graph.log"))
    (graph,) = started
    assert "sim" in graph.command and not any("record" in word for word in graph.command)
    assert f"checkpoint:={Path('models/ur5e').absolute()}" in graph.command
    assert Path(graph.cwd).parent == Path(tempfile.gettempdir()) and not Path(graph.cwd).exists()


def test_resident_memory_is_what_the_process_holds():
    """More megabytes that are written to are counted; a process that has ended has none."""
    before = resident(os.getpid())
    size = 64 * 2**20
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:  # an array may lie where memory was held before
        held.write(b"1" * size)
        assert resident(os.getpid()) - before > 0.9 * size
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert resident(ended.pid) is None


def test_a_missed_sign_of_life_is_counted_once_and_so_is_silence_at_the_end():
    """On time, late, and never again."""
    signs, late_s = SignsOfLife(), ALLOWED_S["bond"] + 0.1
    for at_s in (0.0, 0.1, 0.2, 0.2 + late_s, 0.3 + late_s):
        signs.hear("bond", "/guard", at_s)
    assert signs.missed["bond /guard"] == 1 and signs.longest_s["bond /guard"] == pytest.approx(late_s)
    signs.end(0.35 + late_s)
    assert signs.missed["bond /guard"] == 1
    signs.end(10.0)
    assert signs.missed["bond /guard"] == 2


def test_what_is_missed_while_the_machine_stands_still_is_told_apart():
    """A silence counts as the machine's only where it would not have been too long without; stalls elsewhere explain nothing."""
    signs, late_s = SignsOfLife(), ALLOWED_S["bond"] + 0.1
    for at_s in (0.0, late_s, 5.0, 5.0 + late_s):
        signs.hear("bond", "/guard", at_s)
    signs.note("heartbeat", "heartbeat planner", ALLOWED_S["heartbeat"] + 0.01, 20.0)
    signs.note("heartbeat", "heartbeat planner", ALLOWED_S["heartbeat"] + 0.02, 20.01, counted=True)
    assert sum(signs.missed.values()) == 4  # the long wait between the bonds too
    assert signs.missed_within([(0.2, 0.32), (30.0, 31.0)]) == 1
    assert signs.missed_within([(0.2, 0.24)]) == 0, "too long without it too"
    assert signs.missed_within([(19.96, 19.99)]) == 1
    assert signs.missed_within([]) == 0


def test_the_machines_own_stalls_are_seen():
    """A process that goes before all others is stopped for a while: it then says so. Where it may not go first, that is told."""
    watch = StallWatch()
    try:
        until(lambda: watch.stalls is None or os.sched_getscheduler(watch.pid) == os.SCHED_FIFO, "it goes first, or may not")
        if watch.stalls is None:
            assert not put_first(PRIORITY)
            return
        begin_s = time.monotonic()
        os.kill(watch.pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(watch.pid, signal.SIGCONT)
        until(lambda: overlap_s(begin_s, begin_s + 0.1, watch.stalls) > 0, "the stall is told")
    finally:
        watch.close()
    assert max(end - begin for begin, end in watch.stalls) > 0.09


def say(cycles: soak.Cycles, now_s: float = 0.0, /, **values: object) -> None:
    """What the planner tells of itself, heard at that moment."""
    values = {"cycles_ms": "", "missed_at_s": "", **values}
    cycles.hear(DiagnosticStatus(values=[KeyValue(key=name, value=str(value)) for name, value in values.items()]), now_s)


def count(cycles: int, plans: int, **others: int) -> dict[str, int]:
    return {**dict.fromkeys(soak.Cycles.NAMES, 0), "cycles": cycles, "plans": plans, **others}


def test_the_planners_cycles_are_counted_by_its_own_word():
    """The last word counts; one that begins anew is added to; other nodes say nothing of it."""
    cycles = soak.Cycles()
    say(cycles, plans=7)
    for plans in (3, 5, 2):
        say(cycles, **count(plans + 2, plans, cycles_too_long=1, deadline_misses=1, without_plan=1))
    assert cycles.counts == {"cycles": 11, "cycles_too_long": 2, "deadline_misses": 2, "without_plan": 2, "plans": 7}


def test_plans_a_second_are_counted_by_the_clock_of_who_listens_while_a_goal_is_pursued():
    """Whatever the planner's own clock says of its rate; seconds in which it began, ended or started anew do not count."""
    cycles = soak.Cycles()
    assert cycles.plan_hz is None
    told = [(10.0, 0, False), (11.0, 5, True), (12.0, 15, True), (13.0, 24, True), (14.0, 30, False), (20.0, 33, True)]
    for now_s, plans, pursuing in [*told, (21.0, 1, True), (22.5, 16, True)]:
        say(cycles, now_s, **count(plans, plans), plan_hz=10.3, pursuing=pursuing)
    assert cycles.plan_hz == pytest.approx((10 + 9 + 15) / 3.5)


def test_how_long_each_cycle_took_is_kept():
    """Not only what the planner makes of its last thousand."""
    cycles = soak.Cycles()
    for words in ("40.1 90.0", "", "130.5"):
        say(cycles, **count(1, 1), cycles_ms=words)
    assert cycles.took_ms == [40.1, 90.0, 130.5]


def command(sent_s: float, begin_s: float, end_s: float, end_rad_s: float = 0.0) -> JointTrajectory:
    """As the guard sends it to the controller: a stamp, and points some time after it."""
    points = [
        JointTrajectoryPoint(velocities=[speed] * 6, time_from_start=Duration(nanosec=round(1e9 * (at_s - sent_s))))
        for at_s, speed in ((begin_s, 0.1), (end_s, end_rad_s))
    ]
    return JointTrajectory(header=Header(stamp=convert.stamp(sent_s)), points=points)


@pytest.mark.parametrize(
    ("commands", "missed_at_s", "found"),
    [
        ([(10.0, 10.05, 10.6)], "10.2", "in_motion_to_rest"),
        ([(10.0, 10.05, 10.6)], "10.7", "at_rest"),
        ([(10.0, 10.05, 10.6, 0.2)], "10.2", "uncovered"),
        ([(10.0, 10.05, 10.6, 0.2)], "10.7", "uncovered"),
        ([], "10.2", "uncovered"),
        ([(10.0, 10.05, 10.6)], "10.02", "uncovered"),
        ([(10.0, 10.05, 10.6), (10.15, 10.25, 10.8, 0.2)], "10.2", "in_motion_to_rest"),
        ([(10.0, 10.05, 10.6), (10.15, 10.25, 10.8, 0.2)], "10.3", "uncovered"),
        ([(10.0, 10.05, 10.6, 0.2), (10.15, 10.25, 10.8)], "10.3", "in_motion_to_rest"),
    ],
    ids=["moving", "ended", "no_end", "ran_out", "nothing", "not_begun", "next_not_begun", "next_without_end", "next_to_rest"],
)
def test_what_the_arm_had_where_a_cycle_brought_no_plan(commands: list, missed_at_s: str, found: str):
    """The last command that had begun counts: whether it ends at rest, and whether the arm was still on its way there."""
    cycles = soak.Cycles()
    for given in commands:
        cycles.hear_command(command(*given))
    say(cycles, **count(1, 0, without_plan=1), missed_at_s=missed_at_s)
    assert cycles.missed == {"in_motion_to_rest": 0, "at_rest": 0, "uncovered": 0, found: 1}


def test_what_ctrl_c_interrupts_is_written_and_said(tmp_path, monkeypatch, capsys):
    """Figures until then, code 130; whole and good ones end with 0, those with a violation or an uncovered cycle with 1."""
    figures = {"hours": 0.1, "interrupted": True, "episodes": 3, "successes": 3, "missed_total": 2}
    figures |= {"rss_growth": {"guard": 0.001}, "rss_growth_max": 0.001, "missed_while_machine_stood": 2}
    figures |= {"planner": count(90, 80, cycles_too_long=9), "camera_to_command_ms": {"p50": 40.0, "p99": 66.0}}
    figures |= {"cycle_ms": {"p50": 44.0, "p99": 73.0, "longest": 130.0}, "plan_hz": 9.84}
    figures |= {"real_time": {"mean": 0.984, "min": 0.9}}
    for interrupted, uncovered, violations, code in ((True, 0, 0, 130), (False, 0, 0, 0), (False, 1, 0, 1), (False, 0, 1, 1)):
        missed = {"in_motion_to_rest": 7, "at_rest": 2, "uncovered": uncovered}
        now = {"interrupted": interrupted, "missed_cycles": missed, "violations": violations}
        monkeypatch.setattr(soak, "run", lambda config, tell, now=now: figures | now)
        assert soak.main(["--json", str(tmp_path / "f.json"), "--log", str(tmp_path / "graph.log")]) == code
        assert json.loads((tmp_path / "f.json").read_text())["interrupted"] is interrupted
        said = capsys.readouterr()
        assert ("interrupted; the graph has ended" in said.err) == interrupted
        assert "p50 44, p99 73, longest 130 ms, 9.84 plans a second" in said.out and f"neither in {uncovered}" in said.out
