"""Questions of a command to services of a running graph: asked by an operator's node, answered within a patience or not at all.

Knows no service in particular.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from foresight_bringup.graph import enclave
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

PATIENCE_S = 10.0  # [s] for the service to be found and to answer; discovery may take 4, and longer on a busy machine


class Asker:
    """A node that asks; made by `asker`."""

    def __init__(self, node: Node, executor: SingleThreadedExecutor) -> None:
        self._node, self._executor = node, executor

    def __call__(self, kind: type, name: str, request: Any, patience_s: float = PATIENCE_S) -> Any | None:
        """The answer of the service `name`, relative to the graph's namespace; None where none comes within `patience_s`."""
        client, end_s, answer = self._node.create_client(kind, name), time.monotonic() + patience_s, None
        while (answer is None or not answer.done()) and time.monotonic() < end_s:
            if answer is None and client.service_is_ready():
                answer = client.call_async(request)
            self._executor.spin_once(timeout_sec=0.05)
        return answer.result() if answer is not None and answer.done() else None


@contextmanager
def asker(command: str, namespace: str) -> Iterator[Asker]:
    """A node of the graph in that namespace for as long as the context lasts, in the operator's enclave."""
    rclpy.init(args=["--ros-args", "--enclave", enclave(namespace, "operator")])
    node = rclpy.create_node(f"foresight_{command}_{os.getpid()}", namespace=namespace or None)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        yield Asker(node, executor)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
