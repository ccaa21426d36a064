"""Model-predictive path integral control, in the form of TD-MPC2: elites weighted by how cheap they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from foresight.interfaces import Candidates, Draws
from foresight.planning.search import SPREAD_FLOOR
from foresight.planning.search.state import Round, State, about_best, around, require, require_elites


@dataclass(frozen=True)
class Mppi:
    """The temperature is a share of the elites' range of cost: a fixed one suits no two objectives."""

    samples: int
    elites: int
    temperature: float = 0.2
    floor: float = 0.0  # least standard deviation, in units of the controls

    def __post_init__(self) -> None:
        require_elites(self.elites, self.samples)
        require(temperature=self.temperature)

    def start(self, state: State, known: Candidates | None = None) -> State:
        return about_best(state, known)

    def differentiates(self, state: State) -> bool:
        return False

    def propose(self, state: State, draws: Draws) -> Float[Tensor, "S N U"]:
        return around(state, draws(self.samples))

    def learn(self, state: State, outcome: Round) -> State:
        cost, indices = outcome.tried.cost.topk(min(self.elites, len(outcome.tried.cost)), largest=False)
        best = outcome.tried.controls[indices]
        range_ = (cost[-1] - cost[0]).clamp_min(1e-9)
        weight = ((cost[0] - cost) / (self.temperature * range_)).softmax(0)[:, None, None]
        mean = (weight * best).sum(0)
        spread = (weight * (best - mean).square()).sum(0).sqrt().clamp_min(self.floor)
        return replace(state, mean=mean, spread=spread, round=state.round + 1)


def as_planned(samples: int, elites: int) -> Mppi:
    return Mppi(samples, elites, floor=SPREAD_FLOOR)
