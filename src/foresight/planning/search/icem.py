"""Improved CEM (Pinneri 2020): elites stay in the population, moments move slowly, the population shrinks.

Its coloured noise is a matter of the draws (`draws.coloured`, which the planner takes where a method says `coloured`), so that
methods can be compared on equal ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from foresight.interfaces import Candidates, Draws
from foresight.planning.search import SPREAD_FLOOR
from foresight.planning.search.state import Round, State, about_best, around, elites, require, require_elites


@dataclass(frozen=True)
class Icem:
    """CEM with memory."""

    coloured: ClassVar[bool] = True

    samples: int
    elites: int
    keep: float = 0.3  # share of the elites that is tried again
    momentum: float = 0.1  # of mean and spread
    decay: float = 1.25  # by which the population shrinks each round, to no less than twice the elites
    floor: float = 0.0  # least standard deviation, in units of the controls

    def __post_init__(self) -> None:
        require_elites(self.elites, self.samples)
        require(decay=self.decay)
        if not (0 <= self.keep <= 1 and 0 <= self.momentum < 1):
            raise ValueError(f"keep must be in 0 to 1 and momentum in 0 to below 1, got {self.keep} and {self.momentum}.")

    def start(self, state: State, known: Candidates | None = None) -> State:
        return about_best(state, known)

    def differentiates(self, state: State) -> bool:
        return False

    def propose(self, state: State, draws: Draws) -> Float[Tensor, "S N U"]:
        count = min(self.samples, max(2 * self.elites, round(self.samples / self.decay**state.round)))
        candidates = around(state, draws(count))
        if state.kept is not None:
            candidates[1 : 1 + len(state.kept)] = state.kept[: count - 1]
        return candidates

    def learn(self, state: State, outcome: Round) -> State:
        best = elites(outcome.tried, self.elites)
        spread = best.std(0).lerp(state.spread, self.momentum).clamp_min(self.floor)
        kept = best[: round(self.keep * len(best))]
        return replace(state, mean=best.mean(0).lerp(state.mean, self.momentum), spread=spread, round=state.round + 1, kept=kept)


def as_planned(samples: int, elites: int) -> Icem:
    return Icem(samples, elites, floor=SPREAD_FLOOR)
