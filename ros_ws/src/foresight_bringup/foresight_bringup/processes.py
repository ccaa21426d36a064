"""Child processes: how they end with their parent, how they are stopped, and how their end is told. Knows no ROS."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

# How long [s] the children have after each signal before the next, stronger one.
ESCALATION = ((signal.SIGINT, 10.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0))


@dataclass(frozen=True)
class Child:
    """A process that was started here, and its name for people."""

    name: str
    process: subprocess.Popen

    def describe_end(self) -> str:
        """One sentence on how it ended; only after it has."""
        code = self.process.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"{self.name} (pid {self.process.pid}) {how}"


def ending_with_parent(command: list[str]) -> list[str]:
    """The command, arranged so that the kernel sends it SIGINT when this process dies, however it dies (where setpriv is)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "INT", "--", *command] if setpriv else command


def stop(children: list[Child], pump: Callable[[], None], hurry: Callable[[], bool] = lambda: False) -> list[str]:
    """Ends the children: SIGINT to all, then SIGTERM, then SIGKILL to those left. Returns the names that needed SIGKILL.

    `pump` is called while waiting (it must take a little time: it empties the children's pipes); when `hurry` turns
    true the present wait is cut short.
    """
    killed: list[str] = []
    for number, patience_s in ESCALATION:
        left = [child for child in children if child.process.poll() is None]
        if not left:
            break
        for child in left:
            child.process.send_signal(number)
        if number == signal.SIGKILL:
            killed = [child.name for child in left]
        end_s, hurried = time.monotonic() + patience_s, hurry()
        while any(child.process.poll() is None for child in left) and time.monotonic() < end_s:
            pump()
            if hurry() and not hurried:
                break
    pump()
    return killed
