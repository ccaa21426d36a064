"""Says 100 times a second that its process lives, from a thread of its own: a busy executor lives, a stopped process does not.

Where that is allowed the thread goes before all others but the guard's: a planner that waits for a core is alive.
"""

from __future__ import annotations

import threading

from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from foresight_nodes import topics
from foresight_nodes.real_time import put_first

PERIOD_S = 0.01
PRIORITY = 40  # SCHED_FIFO; the guard asks for 50


class Heartbeat:
    """Beats from its start until `stop`, or until its node is gone."""

    def __init__(self, node: Node) -> None:
        self._ended = threading.Event()
        self._publisher = topics.HEARTBEAT.publisher(node)
        self._thread = threading.Thread(target=self._beat, args=(node, self._publisher), name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self, node: Node, publisher: Publisher) -> None:
        put_first(PRIORITY)
        while not self._ended.wait(PERIOD_S):
            publisher.publish(Header(stamp=node.get_clock().now().to_msg(), frame_id=node.get_name()))

    def stop(self) -> None:
        """Ends the beat and waits for it; a second stop does nothing."""
        self._ended.set()
        self._thread.join()
