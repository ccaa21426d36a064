"""Priority and locked memory are asked for in a process of its own, and one sentence says what was granted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from foresight_nodes import heartbeat, real_time, run, topics
from foresight_nodes.world_model_node import WorldModelNode
from rclpy.lifecycle import TransitionCallbackReturn

from tests.ros.conftest import Bench

SAID = re.compile(
    r"(Real-time priority 7 \(SCHED_FIFO\) is set|Real-time priority 7 was not allowed \(.+\)); "
    r"(memory is locked|memory locking was not allowed \(.+\))\.\n(\d) (\d+)\n"
)


def test_the_sentence_is_true():
    """What it claims is what the system then says of the process; a refusal is no error."""
    code = (
        "import os, resource\n"
        "from foresight_nodes.real_time import take_priority\n"
        "print(take_priority(7))\n"
        "locked = [l.split()[1] for l in open('/proc/self/status') if l.startswith('VmLck')][0]\n"
        "print(os.sched_getscheduler(0), locked)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    said = SAID.fullmatch(done.stdout)
    assert said, done.stdout
    assert (int(said[3]) == os.SCHED_FIFO) == ("is set" in said[1]) and (int(said[4]) > 0) == ("is locked" in said[2])


def test_a_priority_that_does_not_exist_is_said():
    """The system's own words are in the sentence."""
    from foresight_nodes.real_time import _schedule

    assert "was not allowed" in _schedule(1000)


def test_a_process_goes_first_but_for_threads_that_go_before_it():
    """All of its threads have the priority then, one with another keeps that; where nothing is allowed it says so."""
    code = (
        "import os, threading\n"
        "from foresight_nodes.real_time import go_first, put_first\n"
        "go, told = threading.Event(), {}\n"
        "def wait(name, priority):\n"
        "    put_first(priority) if priority else None\n"
        "    ready.wait(); go.wait()\n"
        "    told[name] = os.sched_getparam(0).sched_priority\n"
        "ready = threading.Barrier(3)\n"
        "threads = [threading.Thread(target=wait, args=a) for a in (('beat', 9), ('other', 0))]\n"
        "[thread.start() for thread in threads]; ready.wait()\n"
        "said = go_first(7); go.set(); [thread.join() for thread in threads]\n"
        "print(said); print(told['beat'], told['other'], os.sched_getparam(0).sched_priority)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    said, priorities = done.stdout.splitlines()
    assert (said, priorities) == ("Real-time priority 7 (SCHED_FIFO) is set.", "9 7 7") or (
        said.startswith("Real-time priority 7 was not allowed") and priorities == "0 0 0"
    )


def test_a_nodes_process_goes_first_from_when_it_is_active(bench: Bench, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    """Not while it loads its model, and not where its parameter is 0."""
    asked: list[int] = []
    monkeypatch.setattr(real_time, "go_first", lambda priority: asked.append(priority) or "Set.")
    for priority, expected in ((20, [20]), (0, [20])):
        node = run.go_first(bench.add(WorldModelNode, robot="ur5e", checkpoint=str(checkpoint), real_time_priority=priority))
        before = list(asked)
        bench.configure(node)
        assert asked == before
        assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS and asked == expected
        bench.kill(node)


def test_a_heartbeat_beats_on_its_own_thread_and_stops(bench: Bench):
    """While the executor does nothing beats go out; after a stop there are none."""
    heard = bench.listen(topics.HEARTBEAT)
    beat = bench.beat()
    bench.until(lambda: len(heard) >= 5, "it beats")
    assert heard[0].frame_id == "bench" and heartbeat.PERIOD_S == 0.01
    beat.stop()
    beat.stop()
    assert not beat._thread.is_alive()


def test_one_thread_is_put_first_and_no_other():
    """Its scheduling policy is as the answer says; the thread that started it keeps its own."""
    code = (
        "import os, threading\n"
        "from foresight_nodes.real_time import put_first\n"
        "told = []\n"
        "thread = threading.Thread(target=lambda: told.append((put_first(3), os.sched_getscheduler(0))))\n"
        "before = os.sched_getscheduler(0); thread.start(); thread.join()\n"
        "print(*told[0], os.sched_getscheduler(0) == before, put_first(1000))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    allowed, policy, same, impossible = done.stdout.split()
    assert (allowed == "True") == (int(policy) == os.SCHED_FIFO) and (same, impossible) == ("True", "False")
