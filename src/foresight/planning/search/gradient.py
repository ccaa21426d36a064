"""Adam on the controls of every candidate, through the imagined latents. Needs an evaluation that can be differentiated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.interfaces import Candidates, Draws
from foresight.planning.search import RATE
from foresight.planning.search.state import Round, State, around, elites, require, require_elites


@dataclass(frozen=True)
class Gradient:
    """Many descents at once: each candidate goes its own way, the cheapest counts."""

    samples: int
    rate: float  # of Adam, in units of the controls a round
    elites: int = 1  # that must agree for an early end
    decay: tuple[float, float] = (0.9, 0.999)  # of Adam's moments

    def __post_init__(self) -> None:
        require_elites(self.elites, self.samples)
        require(rate=self.rate)

    def start(self, state: State, known: Candidates | None = None) -> State:
        """Descends from the cheapest of the known candidates, where there are any."""
        return replace(state, kept=None if known is None else elites(known, self.samples), memory=())

    def differentiates(self, state: State) -> bool:
        return True

    def propose(self, state: State, draws: Draws) -> Float[Tensor, "S N U"]:
        return around(state, draws(self.samples)) if state.kept is None else state.kept

    def learn(self, state: State, outcome: Round) -> State:
        assert outcome.gradient is not None
        first, second = self.decay
        *moments, steps = state.memory or (torch.zeros(()), torch.zeros(()), torch.zeros(()))
        steps = steps + 1
        gradient = outcome.gradient.nan_to_num(0.0, 0.0, 0.0)  # a descent that fell off the model's world stays where it is
        mean = first * moments[0] + (1 - first) * gradient
        square = second * moments[1] + (1 - second) * gradient.square()
        step = (mean / (1 - first**steps)) / ((square / (1 - second**steps)).sqrt() + 1e-8)
        return replace(state, kept=outcome.proposed - self.rate * step, round=state.round + 1, memory=(mean, square, steps))


def as_planned(samples: int, elites: int) -> Gradient:
    return Gradient(samples, RATE, elites)
