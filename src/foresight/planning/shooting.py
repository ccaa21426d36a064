"""Joins a rollout and an objective into what a search evaluates. Knows neither models nor searches."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from foresight.interfaces import Objective, Rollout
from foresight.planning.search.state import Scored


@dataclass(frozen=True)
class Shooting:
    """Candidates as they are, foreseen from one belief and scored."""

    dynamics: Rollout
    objective: Objective

    def __call__(self, controls: Float[Tensor, "S N U"]) -> Scored:
        return Scored(controls, self.objective.score(self.dynamics.rollout(controls), controls))
