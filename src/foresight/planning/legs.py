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

from foresight.data import Goal, Leg
from foresight.interfaces import Readout
from foresight.planning.around import CONTACT_M, way_of_object, way_of_tip
from foresight.planning.constraints import Constraints

PASSED_M = 0.04  # [m] from a turn within which the tip goes on to the next, where that is free
BEYOND_M = 0.02  # [m] beyond a turn to which an object is pushed: pushes end a little short
THERE_M = 0.03  # [m] from its goal within which the object is where it is wanted


def next_leg(
    goal: Goal,
    latent: Float[Tensor, "1 D"],
    proprio: Float[Tensor, "1 P"],
    model: Readout,
    constraints: Constraints,
    before: Leg | None = None,
) -> Leg | None:
    """A goal on the way to the goal; None where nothing is in the way of it, or no way round is known.

    The turns of the leg `before` are kept until they are reached or lost, for ways of nearly one length would else take turns.
    """
    if not constraints.keep_outs:
        return None
    tip, thing = proprio[0, -6:-3].double().numpy(), model.read(latent)[1][0].double().numpy()
    tip_goal, thing_goal = _wanted(goal, model)
    kept_tip = None if before is None else before.tip_turn
    if thing_goal is None or np.linalg.norm((thing_goal - thing)[:2]) <= THERE_M:
        turn = None if tip_goal is None else _turn(constraints, tip, tip_goal, kept_tip)
        return None if turn is None else Leg(_goal(goal, tip=turn), turn)
    places = constraints.places_on_table
    here, there = np.array([*thing[:2], places[0, 2]]), np.array([*thing_goal[:2], places[0, 2]])
    way = _push(constraints, here, there, None if before is None else before.object_turn)
    if way is None:
        return None
    ahead = (way[0] - here) / max(float(np.linalg.norm(way[0] - here)), 1e-9)
    object_turn = way[0] if len(way) > 1 else None
    turn = _turn(constraints, tip, here - CONTACT_M * ahead, kept_tip)
    if turn is not None:
        return Leg(_goal(goal, tip=turn), turn, object_turn)
    if object_turn is None:
        return None
    beyond = object_turn + BEYOND_M * ahead
    return Leg(_goal(goal, object=np.array([*beyond[:2], thing[2]])), None, object_turn)


def _turn(
    constraints: Constraints,
    tip: Float[np.ndarray, "3"],
    end: Float[np.ndarray, "3"],
    kept: Float[np.ndarray, "3"] | None,
) -> Float[np.ndarray, "3"] | None:
    """Where the tip goes first on its way to the end; None where it may go straight, or knows no way."""
    free = constraints.candidates.free
    way = way_of_tip(constraints.round, tip, end, constraints.places)
    if way is None or len(way) == 1:
        return None
    if kept is not None and np.linalg.norm(kept - tip) > PASSED_M and free(tip[None], kept[None])[0]:
        return kept
    while len(way) > 1 and np.linalg.norm(way[0] - tip) < PASSED_M and free(tip[None], way[1][None])[0]:
        way = way[1:]
    return way[0] if len(way) > 1 else None


def _push(
    constraints: Constraints,
    here: Float[np.ndarray, "3"],
    there: Float[np.ndarray, "3"],
    kept: Float[np.ndarray, "3"] | None,
) -> list[Float[np.ndarray, "3"]] | None:
    """The object's way, by the turn that was kept where it can still be pushed there and is not there yet."""
    blocked, places = constraints.candidates, constraints.places_on_table
    if kept is not None and np.linalg.norm(kept - here) > THERE_M:
        straight = way_of_object(blocked, here, there, places[:0])
        if straight is None and way_of_object(blocked, here, kept, places[:0]) is not None:
            return [kept, there]
    return way_of_object(blocked, here, there, places)


def _goal(goal: Goal, **place: Float[np.ndarray, "3"]) -> Goal:
    return replace(goal, **{"latent": None, "tip": None, "object": None, "weights": (1.0, 1.0, 1.0), **place})


def _wanted(goal: Goal, model: Readout) -> tuple[Float[np.ndarray, "3"] | None, Float[np.ndarray, "3"] | None]:
    """Tip and object as told, or as the goal images show them; None where they do not matter."""
    seen: tuple = (None, None)
    if goal.latent is not None:
        seen = tuple(place[0].double().numpy() for place in model.read(torch.as_tensor(goal.latent)[None]))
    return goal.tip if goal.tip is not None else seen[0], goal.object if goal.object is not None else seen[1]
