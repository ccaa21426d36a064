"""Which process runs which nodes: written by `foresight up`, read by `foresight inject`. Complete or absent; knows no ROS.

A process is named by its pid and by when it began, so that a number that the system has given to another is never taken for it.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Running:
    """One process of the graph."""

    executable: str
    nodes: tuple[str, ...]
    pid: int
    began: int  # clock ticks since the machine started

    def alive(self) -> bool:
        return began(self.pid) == self.began

    def send(self, number: signal.Signals) -> bool:
        """Sends the signal; False when the process has ended."""
        if not self.alive():
            return False
        os.kill(self.pid, number)
        return True


def began(pid: int) -> int | None:
    """When a process began [clock ticks since the machine started]; None when there is none, or only its remains."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(rest[18])


def stopped(pid: int) -> bool:
    """Whether a signal has stopped the process (SIGSTOP, a debugger)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "Tt"
    except (FileNotFoundError, ProcessLookupError):
        return False


def path(domain: str, namespace: str, ending: str = "json") -> Path:
    return _temporary("up", domain, namespace, f".{ending}")


def _temporary(what: str, whose: str, namespace: str, ending: str = "") -> Path:
    """A file of this user's, for one graph."""
    place = namespace.strip("/").replace("/", ".")
    return Path(tempfile.gettempdir()) / f"foresight-{what}-{os.getuid()}-{whose}-{place}{ending}"


def latch_file(namespace: str) -> Path:
    """Where a latch of this launcher's graph is kept: its own, so that a graph that a person starts anew begins without."""
    return _temporary("latch", f"{os.getpid()}-{began(os.getpid())}", namespace)


def write(file: Path, processes: Mapping[str, tuple[tuple[str, ...], int]]) -> None:
    """`processes`: executable -> (nodes, pid). Those that have ended already are left out."""
    running = [Running(name, nodes, pid, began(pid) or 0) for name, (nodes, pid) in processes.items()]
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps([asdict(process) for process in running if process.began]))
    os.replace(temporary, file)


def read(file: Path) -> list[Running]:
    """The processes of the graph that runs; empty when none does."""
    try:
        entries = json.loads(file.read_text())
    except FileNotFoundError:
        return []
    found = [Running(entry["executable"], tuple(entry["nodes"]), entry["pid"], entry["began"]) for entry in entries]
    return [process for process in found if process.alive()]
