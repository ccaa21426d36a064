"""What the table of topics promises, DDS watches; the guard tells of late messages and of planners that are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from foresight_nodes import topics
from foresight_nodes.guard_node import GuardNode
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks

from tests.ros.conftest import Bench

PROMISED = (topics.HEARTBEAT, topics.PLAN, topics.GUARD_STATE)
WRITER = """
import time, rclpy
from foresight_nodes import topics
from foresight_nodes.heartbeat import Heartbeat
from rclpy.node import Node
rclpy.init()
node = Node("writer")
others = [topic.publisher(node) for topic in (topics.PLAN, topics.GUARD_STATE)]
heartbeat = Heartbeat(node)
while True:
    for publisher in others:
        publisher.publish(publisher.msg_type())
    time.sleep(0.05)
"""


class Reader:
    """Asks of a topic all that is promised, and counts what DDS tells of it."""

    def __init__(self, bench: Bench, topic: topics.Topic) -> None:
        self.heard = self.missed = self.lost = 0
        events = SubscriptionEventCallbacks(deadline=self._on_missed, liveliness=self._on_liveliness)
        bench.node.create_subscription(topic.type, topic.name, self._on_message, topic.publish_qos, event_callbacks=events)

    def _on_message(self, _) -> None:
        self.heard += 1

    def _on_missed(self, missed) -> None:
        self.missed += missed.total_count_change

    def _on_liveliness(self, changed) -> None:
        self.lost += max(0, changed.not_alive_count_change)


@pytest.fixture
def guard(bench: Bench) -> GuardNode:
    node = bench.add(GuardNode, robot="ur5e")
    bench.configure(node)
    return node


def told(bench: Bench, node: GuardNode, figure: str) -> int:
    """As people read it in the diagnostics."""
    heard = bench.listen(topics.DIAGNOSTICS)
    bench.until(lambda: node.diagnose() or any(s.name == "/guard" for m in heard for s in m.status), "the guard reports")
    values = {pair.key: pair.value for m in heard for s in m.status if s.name == "/guard" for pair in s.values}
    return int(values[figure])


def test_a_heartbeat_that_pauses_misses_its_deadlines(bench: Bench, guard: GuardNode):
    """Each tenth of a second without a beat is one more in the guard's diagnostics."""
    bench.beat()
    bench.until(lambda: guard._monitor.watchdog.known("heartbeat"), "the heartbeat is heard")
    bench.heartbeat.stop()
    before = told(bench, guard, "missed_deadlines")
    bench.until(lambda: guard.report()["missed_deadlines"] >= before + 3, "three deadlines are missed")
    assert told(bench, guard, "missed_deadlines") >= before + 3


def test_plans_that_stop_coming_miss_their_deadline(bench: Bench, guard: GuardNode):
    """Where there was never a plan there is none to miss."""
    publisher = bench.publisher(topics.PLAN)
    assert guard.report()["missed_deadlines"] == 0
    publisher.publish(topics.PLAN.type())
    bench.until(lambda: guard.report()["missed_deadlines"] >= 1, "the deadline is missed")


def test_a_guard_that_hangs_misses_the_deadline_of_its_state(bench: Bench, guard: GuardNode):
    """Whoever asks for what `guard_state` promises is told by DDS."""
    reader = Reader(bench, topics.GUARD_STATE)
    bench.until(lambda: reader.heard, "the guard's state is heard")
    bench.silence(guard)
    missed = reader.missed
    bench.until(lambda: reader.missed > missed, "the deadline is missed")


def test_a_process_that_stops_or_dies_loses_its_liveliness(bench: Bench, guard: GuardNode):
    """On every promised topic, each time once, and the guard tells of a lost planner; one that goes on is heard again."""
    readers = [Reader(bench, topic) for topic in PROMISED]
    process = subprocess.Popen([sys.executable, "-c", WRITER], env=os.environ)

    def lose(fault: signal.Signals) -> None:
        heard = [reader.heard for reader in readers]
        bench.until(lambda: all(r.heard > n for r, n in zip(readers, heard, strict=True)), "the writer is heard on all topics")
        lost = [reader.lost for reader in readers]
        process.send_signal(fault)
        bench.until(lambda: all(r.lost > n for r, n in zip(readers, lost, strict=True)), "each reader sees it go")

    try:
        lose(signal.SIGSTOP)
        bench.until(lambda: guard.report()["lost_planners"] == 1, "the guard sees it go")
        process.send_signal(signal.SIGCONT)
        lose(signal.SIGKILL)
        bench.until(lambda: guard.report()["lost_planners"] == 2, "the guard sees it go again")
        assert [reader.lost for reader in readers] == [2, 2, 2]
        assert told(bench, guard, "lost_planners") == 2 and told(bench, guard, "missed_deadlines") >= 2
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("topic", [topics.HEARTBEAT, topics.PLAN])
def test_who_promises_less_is_not_heard(bench: Bench, guard: GuardNode, topic: topics.Topic):
    """A writer without the deadline and the liveliness of the table is told by DDS that the guard does not take it."""
    refused = []
    events = PublisherEventCallbacks(incompatible_qos=refused.append)
    publisher = bench.node.create_publisher(topic.type, topic.name, topics.LATEST, event_callbacks=events)
    bench.until(lambda: refused, "the qualities do not fit")
    assert publisher.get_subscription_count() == 0
