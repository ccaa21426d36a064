"""Starts a situation's processes without `ros2 launch`, shows their output, watches them, and stops them cleanly.

    python -m foresight_bringup.up sim|stack|robot [name:=value ...]      (`--show-args` lists the arguments)

Needs the workspace in the environment (`foresight up` and `source tools/activate` see to that). A process that dies is named in
one line and started anew; one that the lifecycle manager calls frozen is ended first. One that keeps dying, or refuses to start,
ends the graph. Knows nothing of what the nodes do.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from foresight_bringup import record, security
from foresight_bringup.graph import SITUATIONS, Arguments, Graph, Process, enclave, graph
from foresight_bringup.installed import complete
from foresight_bringup.processes import Child, ending_with_parent, stop

COLOURS = (36, 33, 32, 35, 34, 31, 96, 93)  # of the prefixes, on a terminal
LAUNCHER = "launcher"  # enclave of this process
LOOK_S = 1.5  # [s] how long another graph has to show itself; nodes announce themselves every 0.3 s
RESTARTS, RESTARTS_S = 5, 60.0  # times that a process may die within so long [s]
MANAGER = "lifecycle_manager"  # watches the nodes; its silence shows here
MANAGER_SILENT_S = 3.0  # [s]
HUNG_S = 15.0  # [s] for which a process that is not stopped may answer nothing: it may be waiting for a core
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
    file = open(record.path(domain(), graph.namespace, "lock"), "a+")
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
    """What this process sees of the graph: who is already there, and what the lifecycle manager says."""

    def __init__(self, graph: Graph) -> None:
        import rclpy
        from foresight_msgs.msg import GraphState
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile

        self._context = Context()
        place = ["--ros-args", "--enclave", enclave(graph.namespace, LAUNCHER)]
        rclpy.init(args=place, context=self._context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
        self._node = rclpy.create_node(f"foresight_up_{os.getpid()}", context=self._context, namespace=graph.namespace or None)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._node.create_subscription(GraphState, "graph_state", self._on_graph_state, latched)
        self._graph = graph
        self.active = False
        self.frozen: dict[str, int] = {}  # node -> pid, as the manager last said
        self._heard_s, self._looked_s = 0.0, time.monotonic()

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

    def look(self) -> None:
        """Reads what has come; time in which this process did not look is not held against the manager."""
        now_s = time.monotonic()
        if self._heard_s and now_s - self._looked_s > 1.0:
            self._heard_s = now_s
        self._looked_s = now_s
        self._executor.spin_once(timeout_sec=0.0)

    def manager_is_silent(self) -> bool:
        """It was heard of, and no longer is."""
        silent = bool(self._heard_s) and time.monotonic() - self._heard_s > MANAGER_SILENT_S
        self.active = self.active and not silent
        return silent

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _on_graph_state(self, msg) -> None:
        self.active, self._heard_s = msg.active, time.monotonic()
        self.frozen = dict(zip(msg.frozen, msg.frozen_pid, strict=False))


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


class Group:
    """The graph's processes: started, shown, and started anew when they die."""

    def __init__(self, graph: Graph, console: Console) -> None:
        self._graph, self._console = graph, console
        self._commands = {p.executable: [executable(p), *p.ros_arguments()] for p in graph.processes}
        self._optional = {p.executable for p in graph.processes if not p.essential}
        self._record = record.path(domain(), graph.namespace)
        self._selector = selectors.DefaultSelector()
        self._deaths: dict[str, list[float]] = {}
        self._frozen_s: dict[int, float] = {}  # pid -> since when it is called frozen
        self.children: dict[str, Child] = {}
        self.was_active = False

    def start_all(self, stopping: list[int]) -> None:
        for name in self._commands:
            if not stopping:
                self._start(name)

    def _start(self, name: str) -> None:
        child = Child(name, subprocess.Popen(
            ending_with_parent(self._commands[name]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ))  # fmt: skip
        self.children[name] = child
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, (child, list(self._commands).index(name)))
        nodes = {process.executable: process.nodes for process in self._graph.processes}
        record.write(self._record, {n: (nodes[n], c.process.pid) for n, c in self.children.items()})

    def revive(self) -> str | None:
        """Starts anew what has died. Returns why the graph cannot go on, or None."""
        for child in [child for child in self.children.values() if child.process.poll() is not None]:
            self.pump(0.1)
            deaths, now_s = self._deaths.setdefault(child.name, []), time.monotonic()
            deaths[:] = [at_s for at_s in deaths if now_s - at_s < RESTARTS_S] + [now_s]
            often = len(deaths) > RESTARTS
            if often or not self._may_return(child):
                if child.name in self._optional:
                    self._console.line("foresight", f"{child.describe_end()}; the others go on without it.", 31)
                    del self.children[child.name]
                    continue
                return child.describe_end() + (f", for the {len(deaths)}th time within {RESTARTS_S:.0f} s" if often else "")
            how_often = f"{len(deaths)} of {RESTARTS} in {RESTARTS_S:.0f} s"
            self._console.line("foresight", f"{child.describe_end()}; starting it anew ({how_often}).", 31)
            self._start(child.name)
        return None

    def _may_return(self, child: Child) -> bool:
        """An exit code before the graph was ever active, or the manager's, is a refusal that would only be repeated."""
        by_signal = child.process.returncode < 0
        return self._graph.respawn and (by_signal or (self.was_active and child.name != MANAGER))

    def end_frozen(self, frozen: dict[str, int]) -> None:
        """SIGKILL to the processes that are called frozen, while they are still the ones that are meant.

        At once to one that is stopped; to one that hangs, or waits for a core, after HUNG_S.
        """
        now_s, hosts = time.monotonic(), {node: process.executable for process in self._graph.processes for node in process.nodes}
        self._frozen_s = {pid: self._frozen_s.get(pid, now_s) for pid in frozen.values()}
        for node, pid in frozen.items():
            child = self.children.get(hosts.get(node, node))
            if not self._graph.respawn or child is None or child.process.pid != pid or child.process.poll() is not None:
                continue
            if record.stopped(pid) or now_s - self._frozen_s[pid] > HUNG_S:
                self._console.line("foresight", f"{child.name} (pid {pid}) is frozen; ending it with SIGKILL.", 31)
                child.process.kill()
                child.process.wait()

    def pump(self, timeout_s: float) -> None:
        """Prints what the processes have written, waiting for it at most `timeout_s`."""
        if not self._selector.get_map():
            time.sleep(timeout_s)
            return
        for key, _ in self._selector.select(timeout_s):
            child, index = key.data
            data = key.fileobj.read(65536)
            if data:
                self._console.feed(child.name, index, data)
            elif data == b"":  # the other end is closed
                self._selector.unregister(key.fileobj)
                self._console.finish(child.name, index)

    def stop(self, stopping: list[int]) -> None:
        left = stop(list(self.children.values()), pump=lambda: self.pump(0.05), hurry=lambda: len(stopping) > 1)
        self._record.unlink(missing_ok=True)
        record.latch_file(self._graph.namespace).unlink(missing_ok=True)
        if left:
            self._console.line("foresight", f"ended by force: {', '.join(left)}.", 31)
        if self.children:
            self._console.line("foresight", "stopped.")


def run(graph: Graph, console: Console) -> int:
    """Runs the graph until a signal, or until it cannot go on. Returns the exit status: 0 after a signal, 1 otherwise."""
    group, stopping = Group(graph, console), []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: stopping.append(received))
    with claim(graph):
        _require_security(graph, console)
        view = View(graph)
        try:
            others = view.others()
            if others:
                raise UpError(_taken(graph, f"nodes {', '.join(others)} (one that was killed is seen for 3 s more)"))
            group.start_all(stopping)
            since_s, active = time.monotonic(), False
            while not stopping:
                group.pump(0.1)
                view.look()
                silent = {MANAGER: group.children[MANAGER].process.pid} if view.manager_is_silent() else {}
                group.end_frozen(view.frozen | silent)
                ended = group.revive()
                if ended:
                    console.line("foresight", f"{ended}; stopping the others.", 31)
                    return 1
                if view.active and not active:
                    again = " again" if group.was_active else ""
                    what = f"{len(group.children)} processes, domain {domain()}, after {time.monotonic() - since_s:.1f} s"
                    console.line("foresight", f"active{again}: {what}. Ctrl-C stops.")
                    group.was_active = True
                elif active and not view.active:
                    since_s = time.monotonic()
                active = view.active
            console.line("foresight", f"{signal.Signals(stopping[0]).name}: stopping.")
            return 0
        finally:
            view.close()
            group.stop(stopping)


def _require_security(graph: Graph, console: Console) -> None:
    """Raises UpError when security is asked for and some process would run without."""
    try:
        if security.check([*(process.enclave for process in graph.processes), enclave(graph.namespace, LAUNCHER)]):
            console.line("foresight", f"security is on, keys from {os.environ[security.KEYSTORE]}.")
    except security.SecurityError as error:
        raise UpError(str(error)) from error


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
