"""What a motion costs: weighted norms of residuals, written as a sum that a person can read and change while the planner runs.

    to_go(growth=1) + 0.08*effort + 0.08*smooth + 2*keep_out(norm=square)

A term is `weight*name(norm=..., growth=...)`; its cost is the weight times the mean over the horizon of the residual's norm, over
the residual's scale. `growth` lets later looks count more: look t has the weight 1 + growth t. The pattern is MuJoCo MPC's
(Howell 2022). What a goal wants beside places (yaw, opening, contact) is weighed in any case. `risk` needs a model with several
critics, which the shipped one has not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.data import Goal
from foresight.planning.residuals import BESIDES, KINDS, TOWARDS, Foreseen, lacking, unknown

# In blocks. Growing weights reach goals sooner than the last block alone; the critic counts too coarsely for the last centimetre.
DEFAULT = "to_go(growth=1) + 0.5*object(growth=1) + 0.08*effort + 0.08*smooth"
HEAVIEST, LIGHTEST = 1e6, 1e-6  # weight or growth: beyond what anybody means, and far from where float32 ends
LONGEST = 1000  # characters of an objective
TERM = re.compile(r"\s*(?:(?P<weight>[^\s*()]+)\s*\*\s*)?(?P<name>\w+)\s*(?:\((?P<options>[^()]*)\))?\s*(?P<more>\+|$)")


class Norm(NamedTuple):
    """From a residual (S, T, n) to a number at each look, and the power of its scale that this number has."""

    of: Callable[[Tensor], Tensor]
    degree: int


NORMS = {
    "sum": Norm(lambda r: r.sum(-1), 1),
    "l1": Norm(lambda r: r.abs().sum(-1), 1),
    "l2": Norm(lambda r: r.norm(dim=-1), 1),
    "square": Norm(lambda r: r.square().sum(-1), 2),
}


@dataclass(frozen=True)
class Term:
    """One weighted norm of one residual."""

    name: str
    weight: float
    norm: str
    growth: float = 0.0  # by which each look counts more than the one before, in weights of the first

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise ValueError(f"Term '{self.name}' of the objective is unknown. Available: {', '.join(KINDS)}.")
        if self.norm not in NORMS:
            raise ValueError(f"Norm '{self.norm}' of term '{self.name}' is unknown. Available: {', '.join(NORMS)}.")
        for what, value in (("weight", self.weight), ("growth", self.growth)):
            if value != 0 and not LIGHTEST <= value <= HEAVIEST:
                expected = f"0 or a finite number from {LIGHTEST:g} to {HEAVIEST:g}"
                raise ValueError(f"The {what} of term '{self.name}' must be {expected}, got {value}.")

    def along(self, foreseen: Foreseen) -> Float[Tensor, "S T"]:
        """The cost at each look, before the mean over the horizon."""
        values, scale = KINDS[self.name].residual(foreseen)
        return self.weight * NORMS[self.norm].of(values) / scale ** NORMS[self.norm].degree

    def cost(self, foreseen: Foreseen) -> Float[Tensor, "S"]:
        values, scale = KINDS[self.name].residual(foreseen)
        norms = NORMS[self.norm].of(values)
        if self.growth:
            share = 1 + self.growth * torch.arange(norms.shape[1], dtype=norms.dtype, device=norms.device)
            mean = (norms * share).sum(1) / share.sum()
        else:
            mean = norms.mean(1)
        return self.weight * mean / scale ** NORMS[self.norm].degree

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"{self.weight:g}*"
        options = [f"norm={self.norm}"] * (self.norm != KINDS[self.name].norm) + [f"growth={self.growth:g}"] * (self.growth > 0)
        return weight + self.name + (f"({', '.join(options)})" if options else "")


@dataclass(frozen=True)
class Objective:
    """A sum of terms, each of its own name."""

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        if not any(term.weight > 0 for term in self.terms):
            raise ValueError(f"An objective needs at least one term with a weight above 0, got {names or 'no terms'}.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Term '{twice[0]}' stands twice in the objective. Give it once, with one weight.")

    def score(self, foreseen: Foreseen) -> dict[str, Float[Tensor, "S"]]:
        """Cost by term; the motion's cost is their sum."""
        return {term.name: term.cost(foreseen) for term in self.terms}

    def wanting(self, goal: Goal) -> Objective:
        """With a term of weight 1 for each of the goal's yaw, opening and contact that has none."""
        missing = (n for n in BESIDES if getattr(goal, n) is not None and n not in (term.name for term in self.terms))
        return Objective((*self.terms, *(Term(name, 1.0, KINDS[name].norm) for name in missing)))

    def along(self, foreseen: Foreseen) -> dict[str, Float[Tensor, "S T"]]:
        """Cost by term at each look of the horizon: blocks or steps, as the residual has it."""
        return {term.name: term.along(foreseen) for term in self.terms}

    def refusal(self, model: object, goal: Goal | None = None) -> str | None:
        """Why motions cannot be judged by this objective with this model, towards this goal where there is one; or None."""
        for term in self.terms:
            if needed := unknown(term.name, model):
                return f"Term '{term.name}' of the objective needs a model with {needed}. Leave it out, or give such a model."
            if goal is not None and (needed := lacking(term.name, goal)):
                return f"Term '{term.name}' of the objective needs a goal with {needed}. Leave it out, or give the goal that."
        if not _about_the_goal(self.terms):
            return f"No term of the objective '{self}' is about the goal, so it leads nowhere. Add one of {', '.join(TOWARDS)}."
        return None

    def fitting(self, goal: Goal, otherwise: Objective) -> Objective:
        """Those of the terms that the goal can be judged by; `otherwise` where none of them is about the goal."""
        terms = tuple(term for term in self.terms if not lacking(term.name, goal))
        return self if terms == self.terms else Objective(terms) if _about_the_goal(terms) else otherwise

    def __str__(self) -> str:
        return " + ".join(str(term) for term in self.terms)


def _about_the_goal(terms: Iterable[Term]) -> bool:
    return any(term.weight > 0 and term.name in TOWARDS for term in terms)


@lru_cache(maxsize=64)
def parse(text: str) -> Objective:
    """The objective that a text tells of. Raises ValueError with one line for one that makes no sense."""
    if len(text) > LONGEST:
        raise ValueError(f"An objective may have {LONGEST} characters, got {len(text)}.")
    terms, at = [], 0
    while text.strip():
        found = TERM.match(text, at)
        if found is None:
            raise ValueError(
                f"The objective cannot be read from '{text[at:].strip()}' on. "
                f"Expected weight*name(norm=..., growth=...) with + between terms, such as '{DEFAULT}'."
            )
        terms.append(_term(found["name"], found["weight"], found["options"] or ""))
        at = found.end()
        if not found["more"]:
            break
    return Objective(tuple(terms))


def _term(name: str, weight: str | None, options: str) -> Term:
    known, given = {"norm": KINDS[name].norm if name in KINDS else "sum", "growth": "0"}, set()
    for option in filter(None, (word.strip() for word in options.split(","))):
        key, _, value = (part.strip() for part in option.partition("="))
        if key not in known or not value:
            raise ValueError(f"Option '{option}' of term '{name}' is unknown. Available: norm=..., growth=....")
        if key in given:
            raise ValueError(f"Option '{key}' of term '{name}' stands twice. Give it once.")
        known[key] = value
        given.add(key)
    number = lambda what, word: _number(f"The {what} of term '{name}'", word)  # noqa: E731
    return Term(name, number("weight", weight or "1"), known["norm"], number("growth", known["growth"]))


def _number(what: str, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{what} must be a finite number of at least 0, got '{word}'.") from None
