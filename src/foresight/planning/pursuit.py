"""Follows one goal to its end: reached, timed out, without progress, or ended from outside. Owns no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foresight.data import Belief, Goal, Plan
from foresight.interfaces import Readout
from foresight.planning.residuals import place, turned
from foresight.robots.profile import RobotProfile

HEIGHT_OFF_M = 0.05  # [m] above or below the workspace that an object's height may be said to be
READOUT_OFF_M = 0.05  # [m] outside the workspace that a goal image may seem to be: readouts err by about 1 cm
CLOSE_M = 0.02  # [m] beyond its margin within which what is near an arm that makes no progress is named
YAW_OFF_DEG, OPENING_OFF = 10.0, 0.15  # [deg] and share of its way by which object and gripper may be off where a goal holds
OBJECT_OFF_M = 0.02  # [m] on the table by which the object may be off there: more than readouts err by but for few


class GoalRefused(ValueError):
    """A goal that cannot be pursued: outside the workspace, in a keep-out, or not to be judged."""


class End(StrEnum):
    """Why a pursuit ended."""

    REACHED = "reached"
    TIMED_OUT = "timed_out"
    UNREACHABLE = "unreachable"  # the distance stopped falling
    CANCELLED = "cancelled"
    STALE = "stale"  # no fresh belief
    STOPPED = "stopped"  # by the guard
    REFUSED = "refused"  # the goal itself
    INFEASIBLE = "infeasible"  # no motion keeps to the constraints, or there was no time to find one


@dataclass(frozen=True)
class Outcome:
    """How a pursuit ended, with a sentence for the person at the robot."""

    end: End
    detail: str

    @property
    def success(self) -> bool:
        return self.end is End.REACHED


@dataclass(frozen=True)
class PursuitConfig:
    """When a goal counts as reached or given up."""

    near_s: float = 0.30  # [s] of motion still to go below which the goal counts as reached
    still_m_s: float = 0.015  # [m/s] tip speed below which the arm counts as still
    hold_s: float = 1.2  # [s] near and still without a break
    time_limit_s: float = 60.0  # [s]
    patience_s: float = 8.0  # [s] without progress before the goal counts as unreachable
    progress_s: float = 0.15  # [s] of distance that counts as progress
    infeasible_s: float = 3.0  # [s] without a plan that keeps to the constraints before the goal is given up
    stuck_s: float = 1.5  # [s] without progress, the arm still, before the hand lets go of an object and pushes it afresh
    afresh_s: float = 6.0  # [s] for which it tries that
    afresh_tries: int = 2  # of that for one goal


SAME_M = 0.03  # [m] between two turns that count as one: where the tip lines up is read anew from each image
Turns = tuple[np.ndarray | None, np.ndarray | None] | None  # of tip and object on the way round keep-outs; None: on no such way


def _hindrances(plan: Plan) -> tuple[str, str, str]:
    """What may have kept the arm from its goal, each a clause or empty."""
    close = f"{plan.nearest} come within {1e3 * CLOSE_M:.0f} mm of the margin between them"
    return plan.unmet, plan.refused.rstrip("."), close if plan.nearest and plan.margin_m < CLOSE_M and not plan.refused else ""


def _same(a: Turns, b: Turns) -> bool:
    if a is None or b is None:
        return a is b
    return all((x is None) == (y is None) and (x is None or _near(x, y)) for x, y in zip(a, b, strict=True))


def _near(x: np.ndarray, y: np.ndarray) -> bool:
    return bool(np.linalg.norm(x - y) <= SAME_M)


class Pursuit:
    """One goal being pursued since `start_s`."""

    def __init__(self, start_s: float, config: PursuitConfig = PursuitConfig()) -> None:
        self.config, self.start_s = config, start_s
        self._near_since: float | None = None
        self._least, self._least_at_s = float("inf"), start_s
        self._without_since: float | None = None
        self._turns: Turns = None
        self._afresh_since: float | None = None
        self._tries = 0

    @property
    def afresh(self) -> bool:
        """What the next plan is to be told: the hand is stuck with its object, lets go of it and pushes it afresh."""
        return self._afresh_since is not None

    def update(self, plan: Plan, belief: Belief, now_s: float) -> Outcome | None:
        """The outcome, once there is one; None while the pursuit goes on."""
        config, self._without_since = self.config, None
        speed = float(np.linalg.norm(belief.tip_velocity))
        if plan.distance <= config.near_s and speed <= config.still_m_s and not plan.unmet:
            self._near_since = now_s if self._near_since is None else self._near_since
            if now_s - self._near_since >= config.hold_s:
                return Outcome(
                    End.REACHED,
                    f"Reached after {now_s - self.start_s:.1f} s; the model sees {plan.distance:.2f} s of motion still to go.",
                )
        else:
            self._near_since = None
        turns = None if plan.leg is None else (plan.leg.tip_turn, plan.leg.object_turn)
        if not _same(turns, self._turns):  # a leg done is progress, though the way round leads away from the goal
            self._turns, self._least = turns, float("inf")
        if plan.distance < self._least - config.progress_s or self._near_since is not None:
            self._least, self._least_at_s = min(self._least, plan.distance), now_s
        self._try_afresh(plan, speed, now_s)
        if now_s - self.start_s >= config.time_limit_s:
            return self._timed_out(f"the model sees {plan.distance:.2f} s of motion still to go")
        if now_s - self._least_at_s >= config.patience_s:
            return Outcome(
                End.UNREACHABLE,
                f"No progress for {config.patience_s:.1f} s: the model sees {plan.distance:.2f} s still to go, "
                f"{self._least:.2f} s at best{''.join(f'; {why}' for why in _hindrances(plan) if why)}.",
            )
        return None

    def _try_afresh(self, plan: Plan, speed: float, now_s: float) -> None:
        """Where an arm stands still short of its goal, until no leg is left, the object being there, or the time is over."""
        config = self.config
        if self._afresh_since is not None:
            if plan.leg is None or now_s - self._afresh_since >= config.afresh_s:
                self._afresh_since = None
        elif now_s - self._least_at_s >= config.stuck_s and speed <= config.still_m_s and self._tries < config.afresh_tries:
            self._afresh_since, self._tries = now_s, self._tries + 1

    def without_plan(self, why: str, now_s: float) -> Outcome | None:
        """As `update`, where no motion keeps to the constraints; the arm comes to rest on the motion that it has."""
        self._near_since = None
        self._without_since = now_s if self._without_since is None else self._without_since
        if now_s - self.start_s >= self.config.time_limit_s:
            return self._timed_out(why)
        if now_s - self._without_since >= self.config.infeasible_s:
            return Outcome(End.INFEASIBLE, f"No plan for {self.config.infeasible_s:.1f} s. {why}")
        return None

    def _timed_out(self, why: str) -> Outcome:
        return Outcome(End.TIMED_OUT, f"Not reached within {self.config.time_limit_s:.1f} s; {why}.")


def unmet(goal: Goal, latent: Float[Tensor, "1 D"], proprio: Float[Tensor, "1 P"], model: object) -> str:
    """What of the goal's object, yaw, opening and contact does not hold, with both values; empty where all of them do."""
    found = []
    if (wanted := place(goal, model, "object")) is not None:
        off = float((model.read(latent)[1][0] - wanted)[:2].norm())
        found += [f"the object is {100 * off:.1f} cm from its goal, {100 * OBJECT_OFF_M:.0f} allowed"] * (off > OBJECT_OFF_M)
    if goal.yaw is not None:
        off = math.degrees(abs(float(turned(model.read_yaw(latent), torch.tensor(goal.yaw)))))
        found += [f"the object is turned by {off:.0f} deg, {YAW_OFF_DEG:.0f} allowed"] * (off > YAW_OFF_DEG)
    if goal.opening is not None:
        opening = float(model.read_opening(proprio))
        off = abs(opening - goal.opening) > OPENING_OFF
        found += [f"the gripper is {100 * opening:.0f} % open, wanted {100 * goal.opening:.0f} +-{100 * OPENING_OFF:.0f}"] * off
    if goal.contact is not None and (float(model.read_contact(latent)) > 0.5) != goal.contact:
        found.append("the hand touches the object" if not goal.contact else "the hand does not touch the object")
    return "; ".join(found)


def refusal(goal: Goal, profile: RobotProfile) -> str | None:
    """Why this goal cannot be pursued by this robot, or None."""
    for name, value in (("tip", goal.tip), ("object", goal.object)):
        if value is None:
            continue
        if not np.isfinite(value).all():
            return f"The goal's {name} position {np.asarray(value).tolist()} is not finite."
        if (beyond := _beyond(name, value, profile, 0.0)) is not None:
            return f"The goal's {name} position {beyond}."
    low, high = profile.workspace_min[2] - HEIGHT_OFF_M, profile.workspace_max[2] + HEIGHT_OFF_M
    if goal.object is not None and not low <= goal.object[2] <= high:
        return f"The goal's object height {goal.object[2]:.3g} m is none of the workspace; give that of its middle on the table."
    return None


def shown_refusal(goal: Goal, model: Readout, profile: RobotProfile) -> str | None:
    """Why what a goal image shows cannot be pursued by this robot, by the model's readout of it, or None."""
    if goal.latent is None or goal.weights[0] == 0:
        return None
    for name, value in zip(("tip", "object"), model.read(torch.from_numpy(goal.latent)[None]), strict=True):
        if (beyond := _beyond(name, value[0].double().numpy(), profile, READOUT_OFF_M)) is not None:
            return (
                f"In the goal image the {name} at {beyond}, by more than the {100 * READOUT_OFF_M:.0f} cm that the model may "
                "misread. Show a goal inside, or give images of this robot's own cameras."
            )
    return None


def _beyond(name: str, value: Float[np.ndarray, "3"], profile: RobotProfile, by_m: float) -> str | None:
    """The place and the workspace, where it lies outside by more than so much, or is no place; else None."""
    low, high = profile.workspace_min, profile.workspace_max
    if name == "object":  # it is pushed on the table: its height is not chosen
        low, high, value = low[:2], high[:2], value[:2]
    if ((value >= low - by_m) & (value <= high + by_m)).all():
        return None
    return f"{np.round(value, 3).tolist()} m lies outside the workspace {low.tolist()} to {high.tolist()} m"
