"""Ways to search, one a file. A new one is a file with `as_planned`, which makes it as the planner sets it, and its name here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # names are read where torch is not needed
    from foresight.interfaces import Search

Method = Literal["cem", "icem", "mppi", "predictive_sampling", "gradient", "hybrid"]

SPREAD_FLOOR = 0.02  # [m/s] least standard deviation of those that learn one
RATE = 0.02  # [m/s] of a gradient's step


def make(method: Method, samples: int, elites: int) -> Search:
    """A search for the planner, from the candidates of a round and the elites among them."""
    return import_module(f"{__name__}.{method}").as_planned(samples, elites)
