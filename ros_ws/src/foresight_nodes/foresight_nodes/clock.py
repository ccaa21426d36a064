"""A node that survives an impossible /clock: rclpy raises on a negative time, which would end the whole process."""

from __future__ import annotations

from rclpy.node import Node
from rosgraph_msgs.msg import Clock


class PossibleClock(Node):
    """Leaves messages on /clock out whose time cannot be; the clock stays as it was. Mixed in before the node's own class."""

    def create_subscription(self, msg_type, topic, callback, *arguments, **options):
        if msg_type is not Clock or options.get("raw"):
            return super().create_subscription(msg_type, topic, callback, *arguments, **options)

        def hear(message: Clock) -> None:
            if message.clock.sec >= 0:
                callback(message)

        return super().create_subscription(msg_type, topic, hear, *arguments, **options)
