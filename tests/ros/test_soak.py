"""The soak's own measures, and a minute of it on the real graph (`make nightly` runs an hour)."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from foresight_nodes import soak
from foresight_nodes.real_time import put_first
from foresight_nodes.soak import ALLOWED_S, Memory, SignsOfLife, resident
from foresight_nodes.stalls import PRIORITY, StallWatch, overlap_s

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


def test_the_planners_cycles_are_counted_by_its_own_word():
    """The last word counts; one that begins anew is added to; other nodes say nothing of it."""
    cycles = soak.Cycles()

    def say(**values: object) -> None:
        cycles.hear(DiagnosticStatus(values=[KeyValue(key=name, value=str(value)) for name, value in values.items()]))

    say(plans=7)
    for plans in (3, 5, 2):
        counts = {"cycles": plans + 2, "cycles_too_long": 1, "deadline_misses": 1, "without_plan": 1, "plans": plans}
        say(**counts, plan_hz=plans, pursuing=plans > 2)
    assert cycles.plan_hz == [3.0, 5.0]
    assert cycles.counts == {"cycles": 11, "cycles_too_long": 2, "deadline_misses": 2, "without_plan": 2, "plans": 7}


def test_what_ctrl_c_interrupts_is_written_and_said(tmp_path, monkeypatch, capsys):
    """Figures until then, code 130; whole and good ones end with 0."""
    figures = {"hours": 0.1, "interrupted": True, "episodes": 3, "successes": 3, "violations": 0, "missed_total": 2}
    figures |= {"rss_growth": {"guard": 0.001}, "rss_growth_max": 0.001, "missed_while_machine_stood": 2}
    figures |= {"planner": soak.Cycles().counts, "camera_to_command_ms": {"p50": None, "p99": None}}
    for interrupted, code in ((True, 130), (False, 0)):
        monkeypatch.setattr(soak, "run", lambda config, tell, i=interrupted: figures | {"interrupted": i})
        assert soak.main(["--json", str(tmp_path / "f.json"), "--log", str(tmp_path / "graph.log")]) == code
        assert json.loads((tmp_path / "f.json").read_text())["interrupted"] is interrupted
        assert ("interrupted; the graph has ended" in capsys.readouterr().err) == interrupted
