"""Starts a situation's processes without `ros2 launch`, shows their output, watches them, and stops them cleanly.

    python -m foresight_bringup.up sim|stack|robot [name:=value ...]      (`--show-args` lists the arguments)

Needs the workspace in the environment (`foresight up` and `source tools/activate` see to that). A process that dies is
named in one line and the others are stopped. Knows nothing of what the nodes do.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from foresight_bringup import security
from foresight_bringup.graph import SITUATIONS, Arguments, Graph, Process, enclave, graph
from foresight_bringup.installed import complete
from foresight_bringup.processes import Child, ending_with_parent, stop

COLOURS = (36, 33, 32, 35, 34, 31, 96, 93)  # of the prefixes, on a terminal
LAUNCHER = "launcher"  # enclave of this process
LOOK_S = 1.5  # [s] how long another graph has to show itself; nodes announce themselves every 0.3 s
USAGE = "usage: foresight up {" + "|".join(SITUATIONS) + "} [name:=value ...] [--show-args]"


class UpError(RuntimeError):
    """The graph cannot be started; the message is one line for the person who asked."""


def parse(words: list[str]) -> tuple[str, Arguments]:
    """The situation and its arguments. Raises UpError that names what is known."""
    if not words or words[0] not in SITUATIONS:
        raise UpError(f"What should run? {', '.join(SITUATIONS)}; got {words[0] if words else 'nothing'}. {USAGE}")
    situation, known, given = words[0], Arguments.names(words[0]), {}
    for word in words[1:]:
        name, separator, value = word.partition(":=")
        if not separator or name not in known:
            raise UpError(f"Unknown argument '{word}' for {situation}. Known, as name:=value: {', '.join(known)}.")
        given[name] = value
    return situation, Arguments(**given)


def show_arguments(situation: str) -> str:
    """A line for each argument: name, default, meaning."""
    lines = [f"foresight up {situation}: {SITUATIONS[situation]}"]
    lines += ["  " + f"{name}:={default}".ljust(28) + text for name, (default, text) in Arguments.names(situation).items()]
    return "\n".join(lines)


def resolve(situation: str, arguments: Arguments) -> Graph:
    """The graph with its files found. Raises UpError when a file is missing or an argument makes no sense."""
    from ament_index_python.packages import get_package_prefix, get_package_share_directory

    package = "foresight_bringup"
    try:
        return graph(
            situation, complete(arguments, Path(get_package_prefix(package)), Path(get_package_share_directory(package)))
        )
    except ValueError as error:
        raise UpError(str(error)) from error


def executable(process: Process) -> str:
    """Path of the process's executable. Raises UpError when the package or the executable is not installed."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        path = Path(get_package_prefix(process.package)) / "lib" / process.package / process.executable
    except PackageNotFoundError as error:
        raise UpError(
            f"ROS package {process.package} is not in AMENT_PREFIX_PATH. Run `make setup`, then `foresight up`."
        ) from error
    if not path.exists():
        there = ", ".join(sorted(p.name for p in path.parent.glob("*")))
        raise UpError(f"{process.package} has no executable '{process.executable}'. It has: {there}. Run `make setup`.")
    return str(path)


def domain() -> str:
    return os.environ.get("ROS_DOMAIN_ID") or "0"


def claim(graph: Graph) -> TextIO:
    """Holds this domain and namespace on this machine while open. Raises UpError when another `up` holds it."""
    name = f"foresight-up-{os.getuid()}-{domain()}-{graph.namespace.replace('/', '.')}.lock"
    file = open(Path(tempfile.gettempdir()) / name, "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise UpError(_taken(graph, f"`foresight up` with pid {file.read().strip() or 'unknown'}")) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _taken(graph: Graph, by: str) -> str:
    where = f"domain {domain()}" + (f", namespace /{graph.namespace}" if graph.namespace else "")
    return f"Another Foresight runs already on {where}: {by}. Stop it, or set another ROS_DOMAIN_ID, or namespace:=NAME."


class View:
    """What this process sees of the graph: who is already there, and whether the nodes are active."""

    def __init__(self, graph: Graph) -> None:
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from std_srvs.srv import Trigger

        self._context = Context()
        place = ["--ros-args", "--enclave", enclave(graph.namespace, LAUNCHER)]
        rclpy.init(args=place, context=self._context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
        self._node = rclpy.create_node(f"foresight_up_{os.getpid()}", context=self._context, namespace=graph.namespace or None)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._request, self._answer = Trigger.Request(), None
        self._client = self._node.create_client(Trigger, "lifecycle_manager/is_active")
        self._graph = graph

    def others(self, look_s: float = LOOK_S) -> list[str]:
        """Nodes of the graph that run already, seen within `look_s`."""
        namespace, end_s = f"/{self._graph.namespace}", time.monotonic() + look_s
        while time.monotonic() < end_s:
            seen = self._node.get_node_names_and_namespaces()
            found = sorted(name for name, space in seen if space == namespace and name in self._graph.nodes)
            if found:
                return found
            self._executor.spin_once(timeout_sec=0.1)
        return []

    def active(self) -> bool:
        """Whether the lifecycle manager has said that all nodes are active; asks again with each call."""
        if self._answer is None and self._client.service_is_ready():
            self._answer = self._client.call_async(self._request)
        self._executor.spin_once(timeout_sec=0.0)
        if self._answer is None or not self._answer.done():
            return False
        answer, self._answer = self._answer.result(), None
        return answer.success

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()


@dataclass
class Console:
    """Lines of several processes on one terminal."""

    out: TextIO
    colour: bool
    width: int = 0
    _unfinished: dict[str, bytes] = field(default_factory=dict)

    def feed(self, name: str, index: int, data: bytes) -> None:
        """Prints the whole lines in `data`, each with its process's name; keeps the rest."""
        *lines, self._unfinished[name] = (self._unfinished.get(name, b"") + data).split(b"\n")
        for line in lines:
            self.line(name, line.decode(errors="replace"), COLOURS[index % len(COLOURS)])

    def finish(self, name: str, index: int) -> None:
        if self._unfinished.get(name):
            self.feed(name, index, b"\n")

    def line(self, name: str, text: str, colour: int = 1) -> None:
        prefix = f"[{name}]".ljust(self.width + 3)
        print(f"\x1b[{colour}m{prefix}\x1b[0m{text}" if self.colour else prefix + text, file=self.out, flush=True)


def run(graph: Graph, console: Console) -> int:
    """Runs the graph until a signal or the death of a process. Returns the exit status: 0 after a signal, 1 after a death."""
    commands = {p.executable: [executable(p), *p.ros_arguments()] for p in graph.processes}
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: stopping.append(received))
    children: list[Child] = []
    selector = selectors.DefaultSelector()
    with claim(graph):
        _require_security(graph, console)
        view: View | None = View(graph)
        try:
            others = view.others()
            if others:
                raise UpError(_taken(graph, f"nodes {', '.join(others)} (one that was killed is seen for 3 s more)"))
            for name, command in commands.items():
                if stopping:
                    break
                child = Child(name, subprocess.Popen(
                    ending_with_parent(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
                ))  # fmt: skip
                children.append(child)
                os.set_blocking(child.process.stdout.fileno(), False)
                selector.register(child.process.stdout, selectors.EVENT_READ, (child, len(children) - 1))
            started_s = time.monotonic()
            while not stopping:
                pump(selector, console, 0.1)
                dead = [child for child in children if child.process.poll() is not None]
                if dead:
                    pump(selector, console, 0.1)
                    console.line("foresight", f"{dead[0].describe_end()}; stopping the others.", 31)
                    return 1
                if view is not None and graph.autostart and view.active():
                    took = f"{time.monotonic() - started_s:.1f} s"
                    console.line(
                        "foresight", f"active: {len(children)} processes, domain {domain()}, after {took}. Ctrl-C stops."
                    )
                    view = view.close()
            console.line("foresight", f"{signal.Signals(stopping[0]).name}: stopping.")
            return 0
        finally:
            if view is not None:
                view.close()
            left = stop(children, pump=lambda: pump(selector, console, 0.05), hurry=lambda: len(stopping) > 1)
            if left:
                console.line("foresight", f"ended by force: {', '.join(left)}.", 31)
            if children:
                console.line("foresight", "stopped.")


def _require_security(graph: Graph, console: Console) -> None:
    """Raises UpError when security is asked for and some process would run without."""
    try:
        if security.check([*(process.enclave for process in graph.processes), enclave(graph.namespace, LAUNCHER)]):
            console.line("foresight", f"security is on, keys from {os.environ[security.KEYSTORE]}.")
    except security.SecurityError as error:
        raise UpError(str(error)) from error


def pump(selector: selectors.BaseSelector, console: Console, timeout_s: float) -> None:
    """Prints what the processes have written, waiting for it at most `timeout_s`."""
    if not selector.get_map():
        time.sleep(timeout_s)
        return
    for key, _ in selector.select(timeout_s):
        child, index = key.data
        data = key.fileobj.read(65536)
        if data:
            console.feed(child.name, index, data)
        elif data == b"":  # the other end is closed
            selector.unregister(key.fileobj)
            console.finish(child.name, index)


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    if not words or words[0] in ("-h", "--help"):
        print(USAGE + "\n\n" + "\n\n".join(show_arguments(situation) for situation in SITUATIONS))
        return 0 if words else 2
    try:
        if "--show-args" in words[1:] or "--help" in words[1:]:
            print(show_arguments(parse(words[:1])[0]))
            return 0
        wanted = resolve(*parse(words))
    except UpError as error:
        return _fail(error, 2)
    try:
        if wanted.situation == "sim":  # nothing of it concerns other machines
            os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        width = max(len(name) for name in ("foresight", *(p.executable for p in wanted.processes)))
        return run(wanted, Console(sys.stdout, sys.stdout.isatty(), width))
    except UpError as error:
        return _fail(error, 1)


def _fail(error: UpError, code: int) -> int:
    """One line; 2 for bad input, 1 for a graph that could not run."""
    print(f"foresight up: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
