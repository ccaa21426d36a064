"""Waiting for what other processes do."""

import time
from collections.abc import Callable


def until(holds: Callable[[], object], what: str, patience_s: float = 60.0) -> None:
    """Returns once it holds; fails, saying what was waited for."""
    end_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end_s, what
        time.sleep(0.05)
