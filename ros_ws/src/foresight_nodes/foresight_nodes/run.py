"""Entry points of the processes: start, spin, and end cleanly on Ctrl-C or SIGTERM at any moment.

The heavy imports come after the signal handlers, so that even an interrupted start ends with one line and exit code 0.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.executors import Executor
    from rclpy.node import Node

    from foresight_nodes.part import Part

ENDING = (signal.SIGINT, signal.SIGTERM)
LOOK_S = 0.1  # [s] between two looks whether to end


def run(name: str, build: Callable[[], list[Node]], finished: Callable[[list[Node]], bool] = lambda nodes: False) -> list[Node]:
    """Builds the nodes, spins them in one thread until a signal comes or they are finished; then stops them in reverse order."""
    interrupted: list[int] = []

    def end_at_once(number: int, _: FrameType | None) -> None:
        print(f"{name}: ended by {signal.Signals(number).name} while starting.", flush=True)
        os._exit(0)

    def end_soon(number: int, _: FrameType | None) -> None:
        interrupted.append(number)

    for number in ENDING:
        signal.signal(number, end_at_once)
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    nodes = build()
    executor = make_executor()
    for node in nodes:
        executor.add_node(node)
    for number in ENDING:
        signal.signal(number, end_soon)
    gc.collect()
    gc.freeze()  # what was imported stays: looking through it again would keep messages waiting
    while rclpy.ok() and not interrupted and not finished(nodes):  # to spin for a while costs less than once for each message
        executor.spin_until_future_complete(executor.create_future(), timeout_sec=LOOK_S)
    for node in reversed(nodes):
        node.stop()
    for _ in range(5):  # results of actions that have just ended go out
        executor.spin_once(timeout_sec=0.0)
    if interrupted:
        print(f"{name}: ended by {signal.Signals(interrupted[0]).name}.", flush=True)
    executor.shutdown(timeout_sec=1.0)
    for node in reversed(nodes):
        node.release()
        node.destroy_node()
    rclpy.try_shutdown()
    return nodes


def share_no_memory() -> None:
    """For processes that carry no camera frames: with Fast DDS and Foresight's profile for it, messages go by UDP only.

    A process killed while it holds a lock in shared memory makes those that write to it wait. A profile of the user's own, and
    another middleware, stay as they are. To be called before the first node.
    """
    range_ = "ROS_AUTOMATIC_DISCOVERY_RANGE"
    localhost = os.environ.get(range_) == "LOCALHOST"
    for variable in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        shared = Path(os.environ.get(variable, ""))
        udp = shared.parent / ("fastdds_udp_localhost.xml" if localhost else "fastdds_udp.xml")
        if shared.name == "fastdds.xml" and udp.exists():
            os.environ[variable] = str(udp)
            if localhost:
                os.environ[range_] = "SYSTEM_DEFAULT"


def leave(code: int) -> None:
    """Ends a process that has done and said everything, without rclpy's shutdown, which has been seen to wait forever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def go_first(node: Part) -> Part:
    """Lets the node's process go before others, as its parameter says, from when it is active: what it loads before may wait."""
    from foresight_nodes import real_time

    priority = node.get_parameter("real_time_priority").value
    if priority:
        node.when_active = lambda: node.get_logger().info(real_time.go_first(priority))
    return node


def make_executor() -> Executor:
    """One thread. The events executor where this ROS 2 has it (Kilted and later): it costs half the processor time of the
    other, which builds its list of what to wait for anew at each message."""
    try:
        from rclpy.experimental import EventsExecutor

        return EventsExecutor()
    except ImportError:
        from rclpy.executors import SingleThreadedExecutor

        return SingleThreadedExecutor()


def perception() -> None:
    def build() -> list[Node]:
        from foresight_nodes.perception_node import PerceptionNode

        return [go_first(PerceptionNode())]

    run("perception", build)


def world_model() -> None:
    share_no_memory()

    def build() -> list[Node]:
        from foresight_nodes.world_model_node import WorldModelNode

        return [go_first(WorldModelNode())]

    run("world_model", build)


def planner() -> None:
    def build() -> list[Node]:
        from foresight_nodes.planner_node import PlannerNode

        return [go_first(PlannerNode())]

    run("planner", build)


def composed() -> None:
    def build() -> list[Node]:
        from foresight_nodes.composed import nodes

        return [go_first(node) for node in nodes()]

    run("composed", build)


def guard() -> None:
    share_no_memory()

    def build() -> list[Node]:
        from foresight_nodes.guard_node import GuardNode
        from foresight_nodes.real_time import take_priority

        node = GuardNode()
        priority = node.get_parameter("real_time_priority").value
        if priority:
            node.get_logger().info(take_priority(priority))
        return [node]

    run("guard", build)


def sim() -> None:
    def build() -> list[Node]:
        from foresight_nodes.sim_node import SimNode

        node = SimNode()
        if node.get_parameter("use_sim_time").value:  # else it must keep time
            os.nice(5)  # who plans goes first, and who starts anew has soon loaded; simulated time runs slower meanwhile
        return [node]

    run("sim", build)


def mock_driver() -> None:
    def build() -> list[Node]:
        from foresight_nodes.mock_driver_node import MockDriverNode

        return [MockDriverNode()]

    run("driver", build)


def recorder() -> None:
    def build() -> list[Node]:
        from foresight_nodes.recorder_node import RecorderNode

        os.nice(10)  # everybody else goes first
        node = RecorderNode()
        node.trigger_configure()  # by itself: nobody waits for it, and where it fails it says why and the graph goes on
        node.trigger_activate()
        return [node]

    run("recorder", build)


def lifecycle_manager() -> None:
    share_no_memory()

    def build() -> list[Node]:
        from foresight_nodes.lifecycle_manager import LifecycleManager
        from foresight_nodes.real_time import go_first

        node = LifecycleManager()
        if node.parameters.real_time_priority:
            node.get_logger().info(go_first(node.parameters.real_time_priority))
        return [node]

    manager = run("lifecycle_manager", build, finished=lambda nodes: nodes[0].exit_code is not None)[0]
    sys.exit(manager.exit_code or 0)
