"""Says when the machine itself stood still: a process before all others sleeps a little, again and again, and wakes late.

    python -m foresight_nodes.stalls        (a line for each time: begin and end on the steady clock [s])

No thread of a graph can keep it waiting, only the kernel or, under a virtual machine, its host.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

from foresight_bringup.processes import ending_with_parent

from foresight_nodes.real_time import put_first

PRIORITY = 99  # SCHED_FIFO
SLEEP_S = 0.005
LATE_S = 0.015  # [s] after which the machine is said to have stood still
NOT_ALLOWED = "not allowed"


def overlap_s(begin_s: float, end_s: float, stalls: list[tuple[float, float]]) -> float:
    """How long [s] the machine stood still in between."""
    return sum(max(0.0, min(end, end_s) - max(begin, begin_s)) for begin, end in stalls)


class StallWatch:
    """That process, and what it has said; `stalls` is None where the system does not let it go before all others."""

    def __init__(self) -> None:
        command = ending_with_parent([sys.executable, "-u", "-m", "foresight_nodes.stalls"])
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.pid = self._process.pid  # setpriv becomes what it starts
        self.stalls: list[tuple[float, float]] | None = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            if line.strip() == NOT_ALLOWED:
                self.stalls = None
                return
            begin_s, end_s = map(float, line.split())
            self.stalls.append((begin_s, end_s))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not put_first(PRIORITY):
        print(NOT_ALLOWED)
        return
    while True:
        begin_s = time.monotonic()
        time.sleep(SLEEP_S)
        end_s = time.monotonic()
        if end_s - begin_s > SLEEP_S + LATE_S:
            print(f"{begin_s:.6f} {end_s:.6f}")


if __name__ == "__main__":
    main()
