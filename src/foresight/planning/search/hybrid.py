"""Sample first, then refine: one search hands its best candidates to another after some rounds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from foresight.interfaces import Candidates, Draws, Search
from foresight.planning.search import cem, gradient
from foresight.planning.search.state import Round, State, require


@dataclass(frozen=True)
class Hybrid:
    """Any two methods; usually one that samples, then `Gradient`."""

    sample: Search
    refine: Search
    sample_rounds: int

    def __post_init__(self) -> None:
        require(sample_rounds=self.sample_rounds)

    @property
    def elites(self) -> int:
        return self.refine.elites

    def start(self, state: State, known: Candidates | None = None) -> State:
        return self.sample.start(state, known)

    def differentiates(self, state: State) -> bool:
        return self._part(state).differentiates(state)

    def propose(self, state: State, draws: Draws) -> Float[Tensor, "S N U"]:
        return self._part(state).propose(state, draws)

    def learn(self, state: State, outcome: Round) -> State:
        after = self._part(state).learn(state, outcome)
        if after.round == self.sample_rounds:
            after = self.refine.start(replace(after, kept=None, memory=()), outcome.leader.best())
        return after

    def _part(self, state: State) -> Search:
        return self.sample if state.round < self.sample_rounds else self.refine


def as_planned(samples: int, elites: int) -> Hybrid:
    return Hybrid(cem.as_planned(samples, elites), gradient.as_planned(elites, elites), sample_rounds=2)
