"""What every search shares: what it has learned so far, one round's outcome, and the first candidates.

Knows tensors of controls and their cost, no model, no limits, no units: a control is whatever the caller's evaluation takes.
Shape letters: S candidates, E elites, N steps, U numbers of one control.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from jaxtyping import Float
from torch import Tensor

from foresight.interfaces import Candidates

Set_ = TypeVar("Set_", bound=Candidates)


@dataclass(frozen=True)
class Scored:
    """Candidates and their cost, for evaluations that have nothing more to say."""

    controls: Float[Tensor, "S N U"]
    cost: Float[Tensor, "S"]

    def detach(self) -> Scored:
        return Scored(self.controls.detach(), self.cost.detach())


@dataclass(frozen=True)
class State:
    """What a search knows before its next round."""

    mean: Float[Tensor, "N U"]  # what the next candidates lie around
    spread: Float[Tensor, "N U"]  # their standard deviation, in units of the controls
    round: int = 0
    kept: Float[Tensor, "E N U"] | None = None  # controls that the method carries over
    memory: tuple[Tensor, ...] = ()  # what else it remembers, such as Adam's moments


class Leader(Generic[Set_]):
    """Which set of candidates holds the cheapest one so far. Costs are read when it is asked, not when a set is added."""

    def __init__(self, known: Set_ | None = None, improvement: float = 0.0) -> None:
        """`improvement`: by which a set must be cheaper than the best one to take its place, in units of the cost."""
        self.improvement, self.cost = improvement, float("inf")  # the best set's lowest cost, as of the last `best`
        self._best = known
        self._unread = [] if known is None else [(known, _least(known))]

    def add(self, candidates: Set_) -> None:
        self._unread.append((candidates, _least(candidates)))

    def best(self) -> Set_ | None:
        """None where no set was ever added."""
        for candidates, least in self._unread:
            cost = float(least)
            if self._best is None or self._best is candidates or cost < self.cost - self.improvement:
                self._best, self.cost = candidates, cost
        self._unread.clear()
        return self._best


def least(candidates: Candidates) -> float:
    """The lowest cost."""
    return float(_least(candidates))


def _least(candidates: Candidates) -> Float[Tensor, ""]:
    return comparable(candidates.cost).min()


def comparable(cost: Float[Tensor, "S"]) -> Float[Tensor, "S"]:
    """What is no finite number costs infinitely much, so that it never wins."""
    inf = float("inf")
    return cost.nan_to_num(inf, inf, inf)


@dataclass(frozen=True)
class Round:
    """What one round came to."""

    proposed: Float[Tensor, "S N U"]
    tried: Candidates  # the proposed, as they would be carried out, and their cost
    leader: Leader  # who knows the set that holds the cheapest candidate so far
    gradient: Float[Tensor, "S N U"] | None = None  # of the cost by the proposed, where the search asked for it


def around(state: State, noise: Float[Tensor, "S N U"]) -> Float[Tensor, "S N U"]:
    """Candidates about the mean, the first one the mean itself. Every method begins with these, so that equal draws compare."""
    candidates = state.mean + state.spread * noise
    candidates[0] = state.mean
    return candidates


def about_best(state: State, known: Candidates | None) -> State:
    """About the cheapest of the known candidates, as widely as before; as it was where none are known."""
    return state if known is None else replace(state, mean=elites(known, 1)[0])


def elites(candidates: Candidates, count: int) -> Float[Tensor, "E N U"]:
    """The controls of the cheapest candidates, cheapest first; all of them where there are fewer than `count`."""
    return candidates.controls[candidates.cost.topk(min(count, len(candidates.cost)), largest=False).indices]


def require(**above_zero: float | int) -> None:
    """Raises ValueError for the first setting that is not above 0."""
    for name, value in above_zero.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}.")


def require_elites(elites: int, samples: int) -> None:
    """Raises ValueError where there would be fewer samples than elites."""
    require(samples=samples, elites=elites)
    if elites > samples:
        raise ValueError(f"elites ({elites}) must not exceed samples ({samples}).")
