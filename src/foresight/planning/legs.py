"""The next leg of a goal that keep-outs lie before, or that is tried afresh: where the tip goes, or the object is pushed, first.

Model, actor and critic were trained without keep-outs, and for goals that a person shows or tells; so a way round is a few such
goals, one after the other, and the search stays what it is. An object is pushed in straight legs that keep it and the tip behind
it clear of the keep-outs; between two of them the tip goes round keep-outs and object to where it lines up for the next.
Knows a model only as a readout.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foresight.data import Box, Goal, Leg
from foresight.interfaces import Readout
from foresight.planning.around import Blocked, way_of_tip
from foresight.planning.constraints import Constraints
from foresight.planning.limits import Landing
from foresight.planning.pushes import CONTACT_M, HIGH_M, LINED_UP_M
from foresight.planning.residuals import place

PASSED_M = 0.04  # [m] from a turn within which the tip goes on to the next, where that is free
BEYOND_M = 0.02  # [m] beyond a turn to which an object is pushed: pushes end a little short
SHOWN_M = 0.10  # [m] at most from an object to where it is to be pushed next: what model and critic know well
THERE_M, NEAR_M = 0.015, 0.03  # [m] from its goal within which the object is pushed no farther, and is not pushed again
HALF_M, PAST_M = 0.025, 0.005  # [m] the object for a tip that passes by: half its width, and room beside it
OVER_M = 0.03  # [m] beside where it lines up from where the tip goes straight down
LOW_M = 0.012  # [m] above the height at which the tip pushes, within which it can
LANDING_M_S, AROUND_M = 0.03, 0.01  # [m/s] at which a hand comes down that may touch the object, and room beside it
BEHIND_M, ASIDE_M, SPREADING = 0.015, 0.02, 0.25  # [m] behind the object's centre, and aside, from where the tip can push it


def next_leg(
    goal: Goal,
    latent: Float[Tensor, "1 D"],
    proprio: Float[Tensor, "1 P"],
    model: Readout,
    constraints: Constraints,
    before: Leg | None = None,
    afresh: bool = False,
) -> Leg | None:
    """A goal on the way to the goal; None where nothing is in the way of it, or no way round is known.

    The turns of the leg `before` are kept until they are reached or lost, for ways of nearly one length would else take turns.
    `afresh`, the hand lets go of an object that is not at its goal and lines up behind it, whatever is in the way.
    """
    if constraints.scene is None or not (constraints.keep_outs or afresh):
        return None
    tip, thing = proprio[0, -6:-3].double().numpy(), model.read(latent)[1][0].double().numpy()
    tip_goal, thing_goal = _wanted(goal, model)
    tip_turn, object_turn = (None, None) if before is None else (before.tip_turn, before.object_turn)
    near_m = THERE_M if object_turn is not None or afresh else NEAR_M
    if thing_goal is None or np.linalg.norm((thing_goal - thing)[:2]) <= near_m:
        beside = None if thing_goal is None else thing
        return None if tip_goal is None else _to_tip(goal, constraints, tip, tip_goal, beside, tip_turn)
    here, there = (np.array([*at[:2], constraints.pushing_m]) for at in (thing, thing_goal))
    way = constraints.pushes.way(here, there, object_turn) if constraints.keep_outs else [there]
    if way is None:
        return None
    left = float(np.linalg.norm(way[0] - here))
    ahead = (way[0] - here) / max(left, 1e-9)
    lines_up = here - (CONTACT_M + LINED_UP_M) * ahead
    if before is None and not afresh and len(way) == 1 and constraints.round.free(tip[None], lines_up[None])[0]:
        return None
    if not _can_push(tip, here, ahead):
        turn = _line_up(constraints, tip, here, lines_up, tip_turn)
        if turn is not None:
            return Leg(_goal(goal, tip=turn), turn, way[0])
    end = here + min(left + BEYOND_M * (len(way) > 1), SHOWN_M) * ahead
    return Leg(_goal(goal, object=np.array([*end[:2], thing[2]]), tip=end - CONTACT_M * ahead), None, way[0])


def landing(latent: Float[Tensor, "1 D"], model: Readout, constraints: Constraints) -> Landing | None:
    """Where and how fast the hand comes down on the object, which could turn it aside, and into a keep-out.

    None where there is no keep-out, or nobody can say where the object is.
    """
    if not constraints.keep_outs or constraints.scene is None:
        return None
    place = model.read(latent)[1][0].double().numpy()
    if not np.isfinite(place).all():
        return None
    near = _object(constraints, place, AROUND_M)
    low, high = (torch.as_tensor(corners, dtype=torch.float32) for corners in (near.low, near.high))
    return Landing(low, high, constraints.pushing_m + LOW_M, LANDING_M_S)


def _to_tip(
    goal: Goal,
    constraints: Constraints,
    tip: Float[np.ndarray, "3"],
    end: Float[np.ndarray, "3"],
    thing: Float[np.ndarray, "3"] | None,
    kept: Float[np.ndarray, "3"] | None,
) -> Leg | None:
    """Where the tip goes first, past the object if there is one; None where it may go straight."""
    roomy = constraints.round if (constraints.round.outside(end) == end).all() else constraints.candidates
    if roomy.free(tip[None], end[None])[0]:
        return None
    blocked = roomy if thing is None else roomy.and_(_object(constraints, thing))
    turn = _turn(constraints, blocked, tip, end, kept)
    return None if turn is None else Leg(_goal(goal, tip=turn), turn)


def _can_push(tip: Float[np.ndarray, "3"], here: Float[np.ndarray, "3"], ahead: Float[np.ndarray, "3"]) -> bool:
    """Whether the tip is low behind the object, seen the way that the object is to go."""
    offset = tip - here
    along = float(offset @ ahead)
    aside = float(np.linalg.norm((offset - along * ahead)[:2]))
    far = max(0.0, -along - CONTACT_M)
    return bool(
        offset[2] < LOW_M and -along > BEHIND_M and far < 2 * LINED_UP_M + CONTACT_M and aside < ASIDE_M + SPREADING * far
    )


def _line_up(
    constraints: Constraints,
    tip: Float[np.ndarray, "3"],
    here: Float[np.ndarray, "3"],
    end: Float[np.ndarray, "3"],
    kept: Float[np.ndarray, "3"] | None,
) -> Float[np.ndarray, "3"] | None:
    """Where the tip goes next on its way round keep-outs and object to where it lines up; None where no way is known."""
    if np.linalg.norm((tip - end)[:2]) < OVER_M and constraints.candidates.free(tip[None], end[None])[0]:
        return end  # down, beside the object
    thing = _object(constraints, here)
    for keep_outs in (constraints.round, constraints.candidates):
        turn = _turn(constraints, keep_outs.and_(thing), tip, end, kept, arrive=True)
        if turn is not None:
            return turn
    return None


def _object(constraints: Constraints, place: Float[np.ndarray, "3"], room_m: float = PAST_M) -> Blocked:
    """Where the tip would touch the object, grown by the room."""
    body = Box("object", np.array([*(place[:2] - HALF_M), 0.0]), np.array([*(place[:2] + HALF_M), HIGH_M]))
    return Blocked.by((body,), constraints.hand, room_m)


def _turn(
    constraints: Constraints,
    blocked: Blocked,
    tip: Float[np.ndarray, "3"],
    end: Float[np.ndarray, "3"],
    kept: Float[np.ndarray, "3"] | None,
    arrive: bool = False,
) -> Float[np.ndarray, "3"] | None:
    """Where the tip goes first on its way to the end; None where it knows no way, or may go straight and need not `arrive`."""
    way = way_of_tip(blocked, tip, end, constraints.places)
    if way is None:
        return None
    straight = way[0] if arrive else None
    if len(way) == 1:
        return straight
    if kept is not None and np.linalg.norm(kept - tip) > PASSED_M and blocked.free(tip[None], kept[None])[0]:
        return kept
    while len(way) > 1 and np.linalg.norm(way[0] - tip) < PASSED_M and blocked.free(tip[None], way[1][None])[0]:
        way = way[1:]
    return way[0] if len(way) > 1 else straight


def _goal(goal: Goal, **place: Float[np.ndarray, "3"]) -> Goal:
    nothing = dict.fromkeys(("latent", "tip", "object", "yaw", "opening", "contact"))
    return replace(goal, **{**nothing, "weights": (1.0, 1.0, 1.0), **place})


def _wanted(goal: Goal, model: Readout) -> tuple[Float[np.ndarray, "3"] | None, Float[np.ndarray, "3"] | None]:
    """Tip and object as told, or as the goal images show them; None where they do not matter."""
    tip, thing = (place(goal, model, name) for name in ("tip", "object"))
    return tuple(None if where is None else where.double().numpy() for where in (tip, thing))
