"""Predictive sampling (Howell 2022): look around the best found so far, keep what is better."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.interfaces import Candidates, Draws
from foresight.planning.search.state import Round, State, around, elites, require, require_elites


@dataclass(frozen=True)
class PredictiveSampling:
    """With one elite the method as published; with more, the neighbourhoods of several good motions are looked at in turn."""

    samples: int
    elites: int = 1
    decay: float = 1.0  # by which the spread is multiplied each round

    def __post_init__(self) -> None:
        require_elites(self.elites, self.samples)
        require(decay=self.decay)

    def start(self, state: State, known: Candidates | None = None) -> State:
        return state if known is None else self._around_best(state, known)

    def differentiates(self, state: State) -> bool:
        return False

    def propose(self, state: State, draws: Draws) -> Float[Tensor, "S N U"]:
        noise = draws(self.samples)
        if state.kept is None:
            return around(state, noise)
        return state.kept[torch.arange(self.samples) % len(state.kept)] + state.spread * noise

    def learn(self, state: State, outcome: Round) -> State:
        return self._around_best(replace(state, spread=state.spread * self.decay, round=state.round + 1), outcome.leader.best())

    def _around_best(self, state: State, best: Candidates) -> State:
        kept = elites(best, self.elites)
        return replace(state, mean=kept[0], kept=kept)


def as_planned(samples: int, elites: int) -> PredictiveSampling:
    return PredictiveSampling(samples, elites, decay=0.5)
