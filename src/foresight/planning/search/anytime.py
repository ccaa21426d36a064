"""The loop that runs any search: rounds until they are done, the time is short or the elites agree.

It can be stopped after any round and then has the best found so far. Time comes in as a clock, chance with the draws.
What a round cost is read only where somebody asks: reading waits for a GPU, which meanwhile could be given the next round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.interfaces import Candidates, Draws, Search
from foresight.planning.search.state import Leader, Round, State, elites

Found_ = TypeVar("Found_", bound=Candidates)
Ended = Literal["rounds", "deadline", "agreed"]


@dataclass(frozen=True)
class Budget:
    """How long a search may take and when it has found enough."""

    rounds: int
    clock: Callable[[], float]  # [s]
    began_s: float  # on that clock
    deadline_s: float = float("inf")  # after `began_s`; no round begins that would end later, judged by the one before
    lasted_s: float = 0.0  # how long evaluating the known candidates took: the first guess of a round's time
    improvement: float = 0.0  # by which a round must beat the best, in units of the cost
    agreement: float = 0.0  # largest standard deviation among the elites at which the search ends; 0 never


@dataclass(frozen=True)
class Found(Generic[Found_]):
    """The best that was found and how the search went."""

    best: Found_  # the set that holds the cheapest candidate
    improved: bool  # whether it is not the known one
    tried: int  # candidates in all rounds
    rounds: int
    ended: Ended


def run(
    method: Search,
    evaluate: Callable[[Float[Tensor, "S N U"]], Found_],
    draws: Draws,
    start: State,
    budget: Budget,
    known: Found_ | None = None,
) -> Found[Found_]:
    """Searches from `start`, or from candidates that are known already. Without known ones the first round always runs.

    Raises ValueError when nothing that was tried has a finite cost.
    """
    leader, tried, lasted_s = Leader(known, budget.improvement), 0, budget.lasted_s
    state, ended, done = method.start(start, known), "rounds", 0
    for _ in range(budget.rounds):
        round_began_s = budget.clock()
        if (done or known is not None) and round_began_s - budget.began_s + lasted_s > budget.deadline_s:
            ended = "deadline"
            break
        proposed = method.propose(state, draws)
        found, gradient = _evaluate(evaluate, proposed, method.differentiates(state))
        tried, done = tried + len(proposed), done + 1
        leader.add(found)
        state = method.learn(state, Round(proposed, found, leader, gradient))
        if budget.agreement > 0 and _agree(elites(found, method.elites), budget.agreement):
            ended = "agreed"
            break
        if budget.deadline_s < math.inf:
            leader.best()  # so that the round's whole time counts
        lasted_s = budget.clock() - round_began_s
    best = leader.best()
    if best is None:
        raise ValueError(f"A search needs known candidates or at least 1 round, got {budget.rounds} rounds.")
    if not math.isfinite(leader.cost):
        raise ValueError(f"None of the {max(tried, len(best.cost))} candidates has a finite cost; no plan can be made.")
    return Found(best, best is not known, tried, done, ended)


def _agree(chosen: Float[Tensor, "E N U"], within: float) -> bool:
    """One alone agrees with nobody."""
    return len(chosen) > 1 and float(chosen.std(0, correction=0).max()) <= within


def _evaluate(evaluate, proposed: Float[Tensor, "S N U"], differentiate: bool):
    """The candidates' cost, and its gradient where asked for."""
    if not differentiate:
        return evaluate(proposed), None
    with torch.enable_grad():
        leaf = proposed.detach().requires_grad_()
        found = evaluate(leaf)
        (gradient,) = torch.autograd.grad(found.cost.sum(), leaf)
    return found.detach(), gradient
