"""The next leg of a goal that keep-outs lie before: where the tip goes, or where the object is pushed, first.

Model, actor and critic were trained without keep-outs, and for goals that a person shows or tells; so a way round is a few such
goals, one after the other, and the search stays what it is. Knows a model only as a readout.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foresight.data import Goal
from foresight.interfaces import Readout
from foresight.planning.around import CONTACT_M, way_of_object, way_of_tip
from foresight.planning.constraints import Constraints

PASSED_M = 0.05  # [m] from a turn within which the tip goes on to the next, where that is free
BEYOND_M = 0.02  # [m] beyond a turn to which an object is pushed: pushes end a little short
THERE_M = 0.03  # [m] from its goal within which the object is where it is wanted


def next_leg(
    goal: Goal, latent: Float[Tensor, "1 D"], proprio: Float[Tensor, "1 P"], model: Readout, constraints: Constraints
) -> Goal:
    """The goal itself where nothing is in the way or no way round is known, else a goal on the way to it."""
    if not constraints.keep_outs:
        return goal
    tip, thing = proprio[0, -6:-3].double().numpy(), model.read(latent)[1][0].double().numpy()
    tip_goal, thing_goal = _wanted(goal, model)
    if thing_goal is not None and np.linalg.norm((thing_goal - thing)[:2]) > THERE_M:
        flat = constraints.places_on_table
        height = float(flat[0, 2])
        here, there = np.array([*thing[:2], height]), np.array([*thing_goal[:2], height])
        way = way_of_object(constraints.candidates, here, there, flat)
        if way is None:
            return goal
        ahead = (way[0] - here) / max(float(np.linalg.norm(way[0] - here)), 1e-9)
        turn = _turn(constraints, tip, here - CONTACT_M * ahead)
        if turn is not None:
            return _leg(goal, tip=turn)
        return goal if len(way) == 1 else _leg(goal, object=np.array([*(way[0] + BEYOND_M * ahead)[:2], thing[2]]))
    turn = None if tip_goal is None else _turn(constraints, tip, tip_goal)
    return goal if turn is None else _leg(goal, tip=turn)


def _turn(constraints: Constraints, tip: Float[np.ndarray, "3"], end: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"] | None:
    """Where the tip goes first on its way to the end; None where it may go straight, or knows no way."""
    way = way_of_tip(constraints.round, tip, end, constraints.places)
    if way is None:
        return None
    while len(way) > 1 and np.linalg.norm(way[0] - tip) < PASSED_M and constraints.candidates.free(tip[None], way[1][None])[0]:
        way = way[1:]
    return way[0] if len(way) > 1 else None


def _leg(goal: Goal, **place: Float[np.ndarray, "3"]) -> Goal:
    return replace(goal, **{"latent": None, "tip": None, "object": None, "weights": (1.0, 1.0, 1.0), **place})


def _wanted(goal: Goal, model: Readout) -> tuple[Float[np.ndarray, "3"] | None, Float[np.ndarray, "3"] | None]:
    """Tip and object as told, or as the goal images show them; None where they do not matter."""
    seen: tuple = (None, None)
    if goal.latent is not None:
        seen = tuple(place[0].double().numpy() for place in model.read(torch.as_tensor(goal.latent)[None]))
    return goal.tip if goal.tip is not None else seen[0], goal.object if goal.object is not None else seen[1]
