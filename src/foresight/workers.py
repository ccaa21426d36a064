"""Processes that work for this one and leave Ctrl-C to it. Knows nothing of their work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes that start within never hear Ctrl-C, from their first moment on; this one hears it at the end of the block."""
    resource_tracker.ensure_running()  # its start, which the first worker would bring, lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
