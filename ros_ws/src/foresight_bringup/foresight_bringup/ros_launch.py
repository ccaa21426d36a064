"""The graph as a launch description, for `ros2 launch`. The only module here that imports launch and launch_ros."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler, Shutdown
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from foresight_bringup.graph import Arguments, Process, graph
from foresight_bringup.installed import complete
from launch import LaunchContext, LaunchDescription

MANAGER = "lifecycle_manager"
RESPAWN_DELAY_S = 0.5  # [s]


def description(situation: str) -> LaunchDescription:
    """Declares the situation's arguments and starts its processes. One that dies is started anew (use_respawn); the lifecycle
    manager, whose end means that it has given up, takes the launch down with it. Frozen processes are left to you."""
    names = Arguments.names(situation)
    declared = [DeclareLaunchArgument(name, default_value=default, description=text) for name, (default, text) in names.items()]

    def start(context: LaunchContext) -> list:
        given = Arguments(**{name: LaunchConfiguration(name).perform(context) for name in names})
        package = "foresight_bringup"
        arguments = complete(given, Path(get_package_prefix(package)), Path(get_package_share_directory(package)))
        wanted = graph(situation, arguments)
        nodes = [_node(process, wanted.respawn and process.executable != MANAGER) for process in wanted.processes]
        ending = [
            node
            for node, process in zip(nodes, wanted.processes, strict=True)
            if process.essential and (not wanted.respawn or process.executable == MANAGER)
        ]
        return [*nodes, *(_watch(node, node.node_executable) for node in ending)]

    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def _node(process: Process, respawn: bool) -> Node:
    return Node(
        package=process.package,
        executable=process.executable,
        namespace=process.namespace or None,
        parameters=[*([process.params_file] if process.params_file else []), dict(process.parameters)],
        remappings=list(process.remappings),
        ros_arguments=["--log-level", process.log_level],
        output="screen",
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_S,
    )


def _watch(node: Node, name: str) -> RegisterEventHandler:
    """A process that ends by itself ends the launch."""

    def ended(event: ProcessExited, context: LaunchContext) -> list[Shutdown]:
        return [] if context.is_shutdown else [Shutdown(reason=f"{name} ended with exit code {event.returncode}")]

    return RegisterEventHandler(OnProcessExit(target_action=node, on_exit=ended))
