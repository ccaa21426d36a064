"""A node's sign of life for the lifecycle manager, from a thread of its own; and what the manager makes of such signs.

A thread, because a node that loads its model serves no messages for seconds and is alive all the same; it also says since when
the node has served none, so that one that hangs is told from one that works. Knows nothing of what the node does.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

from foresight_msgs.msg import Bond
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

from foresight_nodes import topics

PERIOD_S = 0.1  # [s] between two signs; the manager waits for several before it believes that one is missing


class Beat:
    """Beats from construction until `stop`, which must come before the node is destroyed."""

    def __init__(self, node: Node) -> None:
        self._message = Bond(node=node.get_fully_qualified_name(), pid=os.getpid())
        self._publisher = topics.BOND.publisher(node)
        self._turn_s = time.monotonic()
        node.create_timer(PERIOD_S / 2, self._turn, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="bond", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _turn(self) -> None:
        self._turn_s = time.monotonic()

    def _beat(self) -> None:
        while not self._stopped.is_set():
            self._message.busy_s = time.monotonic() - self._turn_s
            try:
                self._publisher.publish(self._message)
            except rclpy_implementation.RCLError:  # the context has been shut down under it
                return
            self._stopped.wait(PERIOD_S)


@dataclass
class Sign:
    """The last sign of life of a node."""

    pid: int
    heard_s: float  # steady clock
    busy_s: float  # [s]


class Bonds:
    """Who is alive? Works on the steady times it is given; knows no ROS."""

    def __init__(self, silent_s: float, busy_s: float, now_s: float) -> None:
        self.silent_s, self.busy_s, self._looked_s = silent_s, busy_s, now_s
        self._signs: dict[str, Sign] = {}
        self._restarted: set[str] = set()

    def heard(self, node: str, pid: int, busy_s: float, now_s: float) -> None:
        if node in self._signs and self._signs[node].pid != pid:
            self._restarted.add(node)
        self._signs[node] = Sign(pid, now_s, busy_s)

    def look(self, now_s: float) -> None:
        """To be called often: time in which nobody looked is not held against the nodes, whose signs were waiting."""
        gap_s = now_s - self._looked_s
        if gap_s > PERIOD_S:
            for sign in self._signs.values():
                sign.heard_s += gap_s
        self._looked_s = now_s

    def pid(self, node: str) -> int:
        """Of the process last heard of; 0 before the first sign."""
        return self._signs[node].pid if node in self._signs else 0

    def alive(self, node: str, now_s: float) -> bool:
        """Heard of just now, and serving messages."""
        sign = self._signs.get(node)
        return sign is not None and now_s - sign.heard_s <= self.silent_s and sign.busy_s <= self.busy_s

    def quiet_s(self, node: str, now_s: float) -> float:
        """For how long the node has given no sign, or has served nothing [s]; 0 before its first sign."""
        sign = self._signs.get(node)
        return 0.0 if sign is None else max(now_s - sign.heard_s, sign.busy_s)

    def broken(self, node: str, now_s: float, patience_s: float = 0.0, serving_since_s: float = 0.0) -> str | None:
        """Why the bond with a node that was heard of is broken, or None. A restart is told once.

        While a node changes its state it may be late by `patience_s` more; before `serving_since_s` it may be busy.
        """
        sign = self._signs.get(node)
        if sign is None:
            return None
        if node in self._restarted:
            self._restarted.discard(node)
            return f"started anew as pid {sign.pid}"
        silence_s = now_s - sign.heard_s
        if silence_s > self.silent_s + patience_s:
            return f"silent for {silence_s:.2f} s"
        if min(sign.busy_s, sign.heard_s - serving_since_s) > self.busy_s:
            return f"alive and serving nothing for {sign.busy_s:.1f} s"
        return None
