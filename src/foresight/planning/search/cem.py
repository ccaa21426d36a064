"""The cross-entropy method: the next candidates follow the mean and standard deviation of the elites."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from foresight.interfaces import Candidates, Draws
from foresight.planning.search import SPREAD_FLOOR
from foresight.planning.search.state import Round, State, about_best, around, elites, require_elites


@dataclass(frozen=True)
class Cem:
    """Rubinstein's method as the world-model literature uses it: no momentum, the mean among the candidates."""

    samples: int
    elites: int
    floor: float = 0.0  # least standard deviation, in units of the controls

    def __post_init__(self) -> None:
        require_elites(self.elites, self.samples)

    def start(self, state: State, known: Candidates | None = None) -> State:
        return about_best(state, known)

    def differentiates(self, state: State) -> bool:
        return False

    def propose(self, state: State, draws: Draws) -> Float[Tensor, "S N U"]:
        return around(state, draws(self.samples))

    def learn(self, state: State, outcome: Round) -> State:
        best = elites(outcome.tried, self.elites)
        return replace(state, mean=best.mean(0), spread=best.std(0).clamp_min(self.floor), round=state.round + 1)


def as_planned(samples: int, elites: int) -> Cem:
    return Cem(samples, elites, SPREAD_FLOOR)
