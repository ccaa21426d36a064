"""The ways to search by name, as the planner sets them. A new one is a file beside this, a line here and a name in `Method`."""

from __future__ import annotations

from collections.abc import Callable

from foresight.interfaces import Search
from foresight.planning.search import Method
from foresight.planning.search.cem import Cem
from foresight.planning.search.gradient import Gradient
from foresight.planning.search.hybrid import Hybrid
from foresight.planning.search.icem import Icem
from foresight.planning.search.mppi import Mppi
from foresight.planning.search.predictive_sampling import PredictiveSampling

SPREAD_FLOOR = 0.02  # [m/s] least standard deviation of those that learn one
RATE = 0.02  # [m/s] of a gradient's step

METHODS: dict[Method, Callable[[int, int], Search]] = {  # from the candidates of a round and the elites among them
    "cem": lambda samples, elites: Cem(samples, elites, SPREAD_FLOOR),
    "icem": lambda samples, elites: Icem(samples, elites, floor=SPREAD_FLOOR),
    "mppi": lambda samples, elites: Mppi(samples, elites, floor=SPREAD_FLOOR),
    "predictive_sampling": lambda samples, elites: PredictiveSampling(samples, elites, decay=0.5),
    "gradient": lambda samples, elites: Gradient(samples, RATE, elites),
    "hybrid": lambda samples, elites: Hybrid(Cem(samples, elites, SPREAD_FLOOR), Gradient(elites, RATE), sample_rounds=2),
}
