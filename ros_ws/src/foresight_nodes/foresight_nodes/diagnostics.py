"""Rates, ages and durations of a node, for `/diagnostics`. Owns no clock: times are passed in."""

from __future__ import annotations

from collections import deque

import numpy as np


class Rate:
    """How often something happened, over the time since the last report."""

    def __init__(self, now_s: float) -> None:
        self.total, self._count, self._since_s = 0, 0, now_s

    def tick(self) -> None:
        self.total += 1
        self._count += 1

    def hz(self, now_s: float) -> float:
        """Events per second since the last call [Hz]."""
        elapsed_s, count = now_s - self._since_s, self._count
        self._count, self._since_s = 0, now_s
        return count / elapsed_s if elapsed_s > 0 else 0.0


class Durations:
    """The last durations of something [s], summed up as percentiles in milliseconds."""

    def __init__(self, keep: int = 1000) -> None:
        self._values: deque[float] = deque(maxlen=keep)

    def add(self, duration_s: float) -> None:
        self._values.append(duration_s)

    def __len__(self) -> int:
        return len(self._values)

    def percentile_ms(self, percent: float) -> float:
        """NaN while there is none."""
        return float(np.percentile(self._values, percent)) * 1000.0 if self._values else float("nan")
