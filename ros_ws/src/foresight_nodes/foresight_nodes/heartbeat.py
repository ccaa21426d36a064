"""Says 100 times a second that its process lives, from a thread of its own: a busy executor lives, a stopped process does not."""

from __future__ import annotations

import threading

from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from foresight_nodes import topics

PERIOD_S = 0.01


class Heartbeat:
    """Beats from its start until `stop`, or until its node is gone."""

    def __init__(self, node: Node) -> None:
        self._ended = threading.Event()
        self._publisher = topics.HEARTBEAT.publisher(node)
        self._thread = threading.Thread(target=self._beat, args=(node, self._publisher), name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self, node: Node, publisher: Publisher) -> None:
        while not self._ended.wait(PERIOD_S):
            publisher.publish(Header(stamp=node.get_clock().now().to_msg(), frame_id=node.get_name()))

    def stop(self) -> None:
        """Ends the beat and waits for it; a second stop does nothing."""
        self._ended.set()
        self._thread.join()
