"""What a bar or table shows on a terminal, as lines of a log now and then: nothing that takes long is silent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from rich.console import Console

EVERY_S = 30.0  # [s] between two lines


class Told:
    """Tells a log, and no terminal, how far something is."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock, self._said_s = console, clock, clock()

    def __call__(self, lines: Callable[[], Iterable[str]]) -> None:
        """Prints the lines where it is time for them."""
        if self._console.is_terminal or self._clock() - self._said_s < EVERY_S:
            return
        self._said_s = self._clock()
        for line in lines():
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
