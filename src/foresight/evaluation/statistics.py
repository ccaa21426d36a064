"""The few statistics a report needs. Knows no episodes, no files."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

import numpy as np

Z95 = 1.959963984540054  # the standard normal's 97.5 % quantile


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a success rate; (0, 1) when nothing was tried.

    Unlike p +- 1.96 sigma it stays inside [0, 1] and says something useful at 0 and at 100 % (Wilson 1927).
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"Successes must lie between 0 and the {trials} trials, got {successes}.")
    if trials == 0:
        return 0.0, 1.0
    rate, spread = successes / trials, Z95**2 / trials
    centre = (rate + spread / 2) / (1 + spread)
    half = Z95 * sqrt(rate * (1 - rate) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def percentile(values: Iterable[float], percent: float | int) -> float | None:
    """The percentile by linear interpolation; None when there are no finite values."""
    finite = [v for v in values if np.isfinite(v)]
    return float(np.percentile(finite, percent)) if finite else None
