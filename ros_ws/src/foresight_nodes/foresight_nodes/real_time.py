"""Asks the system to put this process first and to keep its memory in place; one sentence tells what was granted.

The guard goes before everything (50), then the planner's heartbeat (40), the lifecycle manager, which would take a node that it
did not hear for silent (30), and what leads from a camera to a plan (20): on few cores other programs, a simulator's pictures
among them, would else keep plans waiting for longer than they take.
"""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

CAP_IPC_LOCK = 14
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4  # on fault: what is never used takes no memory


def take_priority(priority: int) -> str:
    """SCHED_FIFO at this priority (1 to 99) for all threads of the process, and its memory locked, where allowed."""
    return f"{_schedule(priority)}; {_lock()}."


def go_first(priority: int) -> str:
    """SCHED_FIFO at this priority for those threads of the process that have none yet, where allowed; no memory is locked."""
    return f"{_schedule(priority)}."


def check_priority(priority: int) -> None:
    """Raises ValueError where the parameter real_time_priority is none that Linux has."""
    if not 0 <= priority <= 99:
        raise ValueError(f"real_time_priority must lie between 0 and 99, got {priority}.")


def put_first(priority: int) -> bool:
    """SCHED_FIFO at this priority for the calling thread alone; whether that was allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (OSError, ValueError):
        return False
    return True


def _schedule(priority: int) -> str:
    try:
        for thread in map(int, os.listdir("/proc/self/task")):
            if os.sched_getscheduler(thread) != os.SCHED_FIFO:
                os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
    except (OSError, ValueError) as error:
        return f"Real-time priority {priority} was not allowed ({error})"
    return f"Real-time priority {priority} (SCHED_FIFO) is set"


def _lock() -> str:
    """Only where the whole memory may be locked: under a limit, a later allocation would fail."""
    if not _may_lock():
        return "memory locking was not allowed (it needs CAP_IPC_LOCK or an unlimited memlock)"
    if ctypes.CDLL(None, use_errno=True).mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0:
        return f"memory locking was not allowed ({os.strerror(ctypes.get_errno())})"
    return "memory is locked"


def _may_lock() -> bool:
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    status = Path("/proc/self/status").read_text().splitlines()
    capabilities = next((line.split()[1] for line in status if line.startswith("CapEff:")), "0")
    return bool(int(capabilities, 16) >> CAP_IPC_LOCK & 1)
