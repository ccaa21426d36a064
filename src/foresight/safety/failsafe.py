"""What to do when something is wrong: one table, read by one pure function. Knows no ROS, no clock and no motion.

The most severe action whose condition stands wins, at once or after `debounce_s`. It ends only when everything as severe has
been clear for its time, debounced or not, so nothing flickers. A latch ends by `reset` alone. Time is seconds of a clock that
does not go back.

    python -m foresight.safety.failsafe > docs/failsafe.md    writes the table as a page
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Action(IntEnum):
    """What the guard does, in order of severity."""

    NONE = 0  # plans pass that pass the checks
    SLOW = 1  # the same, slower along their path
    HOLD = 2  # brake to rest, refuse plans; then join that rest
    RETREAT = 3  # take the command back to where the arm is held, refuse plans
    STOP = 4  # brake to rest, refuse plans; then begin where the arm is measured at rest
    LATCH = 5  # brake to rest, refuse plans until an operator resets


@dataclass(frozen=True)
class Flags:
    """The conditions that stand now. What each means and leads to is in `TABLE`."""

    operator_stop: bool = False
    state_jumped: bool = False
    deactivated: bool = False
    clock_jumped: bool = False
    simulator_reset: bool = False
    controller_inactive: bool = False
    program_stopped: bool = False
    speed_slider_zero: bool = False
    speed_scaled: bool = False
    not_following: bool = False
    not_at_rest: bool = False
    obstructed: bool = False
    heartbeat_lost: bool = False
    graph_inactive: bool = False
    state_invalid: bool = False
    state_stamps_frozen: bool = False
    state_stale: bool = False
    camera_stamps_frozen: bool = False
    camera_frozen: bool = False
    camera_dark: bool = False
    observation_stale: bool = False
    belief_stale: bool = False
    plan_refused_repeatedly: bool = False
    near_limit: bool = False
    plan_stale: bool = False


class Rule(NamedTuple):
    """One row of the table."""

    condition: str  # a field of Flags
    action: Action
    debounced: bool  # acts only when the condition has stood for `debounce_s`
    meaning: str


TABLE = (
    Rule("operator_stop", Action.LATCH, False, "an operator called `guard/stop`"),
    Rule("state_jumped", Action.LATCH, False, "the measured position leapt: a new scene, swapped joints"),
    Rule("deactivated", Action.STOP, False, "the guard's node is not active"),
    Rule("clock_jumped", Action.STOP, False, "the ROS clock moved against the steady clock by more than its limit"),
    Rule("simulator_reset", Action.STOP, False, "the simulated clock went back"),
    Rule("controller_inactive", Action.STOP, False, "the trajectory controller is not active, has not said so, or must not be"),
    Rule("program_stopped", Action.STOP, False, "the robot's program does not run, or has not said that it does"),
    Rule("speed_slider_zero", Action.STOP, False, "the robot's speed slider stands at 0 %, or has not been heard of"),
    Rule("speed_scaled", Action.STOP, False, "the robot's speed slider stands below 100 %: the arm is later than taken for"),
    Rule("not_following", Action.STOP, True, "the arm is measured too far from its command, or moves without one"),
    Rule("not_at_rest", Action.STOP, False, "after a stop the arm has not been measured at rest yet"),
    Rule("obstructed", Action.RETREAT, False, "something holds the arm; the guard takes its command back to where the arm is"),
    Rule("heartbeat_lost", Action.HOLD, False, "no heartbeat of the planner's process for T_cmd"),
    Rule("graph_inactive", Action.HOLD, False, "the lifecycle manager no longer says that every node is active, or fell silent"),
    Rule("state_invalid", Action.HOLD, True, "joint states come with NaN, or without a joint"),
    Rule("state_stamps_frozen", Action.HOLD, False, "joint states come with the same stamp again and again"),
    Rule("state_stale", Action.HOLD, False, "no joint state, or only old ones"),
    Rule("camera_stamps_frozen", Action.HOLD, False, "perception: frames come with the same stamp again and again"),
    Rule("camera_frozen", Action.HOLD, False, "perception: a camera shows the same pixels while the arm moves"),
    Rule("camera_dark", Action.HOLD, False, "perception: a camera sees black"),
    Rule("observation_stale", Action.HOLD, False, "observations stopped while the arm is in motion"),
    Rule("belief_stale", Action.HOLD, False, "beliefs stopped while the arm is in motion"),
    Rule("plan_refused_repeatedly", Action.HOLD, False, "plan after plan was refused"),
    Rule("near_limit", Action.SLOW, False, "a joint is measured near the end of its range"),
    Rule("plan_stale", Action.NONE, False, "plans stopped in motion; the arm comes to rest on the last one"),
)
# After these nothing is commanded on trust.
UNSURE = frozenset({"state_jumped", "clock_jumped", "simulator_reset", "speed_scaled"})
RECOVERY = {
    Action.NONE: "nothing to recover from",
    Action.SLOW: "by itself, after `clear_s`",
    Action.HOLD: "by itself, after `clear_s`; the next plan joins the rest",
    Action.RETREAT: "by itself, after `clear_s`; the next plan joins where the command went back to",
    Action.STOP: "by itself, after `stop_clear_s`; the next plan begins where the arm is measured",
    Action.LATCH: "by `guard/reset`, after `cooldown_s` and when the cause is gone",
}


@dataclass(frozen=True)
class FailsafeParams:
    """Times of the failsafe, and what is to be more severe than in the table."""

    debounce_s: float = 0.05  # [s] for which a debounced condition must stand before it acts
    clear_s: float = 0.3  # [s] without cause after which slow, hold and retreat end
    stop_clear_s: float = 0.5  # [s] without cause after which a stop ends
    cooldown_s: float = 0.5  # [s] after a latch within which a reset is refused
    slow_share: float = 0.5  # share of the speed asked for that plans keep while slow
    raised: tuple[str, ...] = ()  # conditions with a more severe action than in the table, as "program_stopped=latch"

    def __post_init__(self) -> None:
        for name in ("debounce_s", "clear_s", "stop_clear_s", "cooldown_s"):
            value = getattr(self, name)
            if not (np.isfinite(value) and 0 < value <= 60):
                raise ValueError(f"FailsafeParams.{name} must be above 0 and at most 60 s, got {value}.")
        if not 0.1 <= self.slow_share <= 1:  # less would take ages, to move and to check
            raise ValueError(f"FailsafeParams.slow_share must lie between 0.1 and 1, got {self.slow_share}.")
        rules_of(self)


@lru_cache(maxsize=16)
def rules_of(params: FailsafeParams) -> tuple[Rule, ...]:
    """The table with what `params.raised` changes. Raises ValueError where that names nothing, or lowers an action."""
    rules = {rule.condition: rule for rule in TABLE}
    for change in params.raised:
        condition, _, name = change.partition("=")
        if condition not in rules:
            raise ValueError(f"Failsafe condition '{condition}' is unknown. Conditions: {', '.join(rules)}.")
        if name.upper() not in Action.__members__:
            raise ValueError(f"Failsafe action '{name}' is unknown. Actions: {', '.join(a.name.lower() for a in Action)}.")
        wanted, present = Action[name.upper()], rules[condition].action
        if wanted is Action.RETREAT and present is not wanted:
            raise ValueError(f"Failsafe condition '{condition}' cannot lead to retreat: it brakes nothing. Give stop or latch.")
        if wanted < present:
            raise ValueError(f"Failsafe condition '{condition}' leads to {present.name.lower()}; it cannot be lowered to {name}.")
        rules[condition] = rules[condition]._replace(action=wanted)
    return tuple(rules.values())


@dataclass(frozen=True)
class FailsafeState:
    """What the failsafe remembers from one call to the next."""

    action: Action = Action.NONE
    cause: str = ""  # the condition that led to the action
    since_s: float = 0.0  # when the action began
    clear_since_s: float | None = None  # since when nothing as severe has stood
    standing: tuple[tuple[str, float], ...] = ()  # conditions, each with the time since which it stands

    @property
    def latched(self) -> bool:
        return self.action is Action.LATCH


class Decision(NamedTuple):
    """Whether a reset was granted, and why not."""

    ok: bool
    detail: str
    state: FailsafeState


def failsafe(flags: Flags, state: FailsafeState, params: FailsafeParams, now_s: float) -> tuple[Action, FailsafeState]:
    """The action for now. The same inputs give the same answer; a time that is not a number counts as long enough to act."""
    began = dict(state.standing)
    standing = {f.name: began.get(f.name, now_s) for f in fields(flags) if getattr(flags, f.name)}
    worst, cause = Action.NONE, ""
    for condition, action, debounced, _ in rules_of(params):
        new = debounced and action != state.action  # one that comes and goes prolongs what it led to, however short it is
        acts = condition in standing and not (new and now_s - standing[condition] < params.debounce_s)
        if acts and action > worst:
            worst, cause = action, condition
    kept = tuple(standing.items())
    if worst > state.action:
        return worst, FailsafeState(worst, cause, now_s, None, kept)
    if state.latched:
        return state.action, FailsafeState(state.action, state.cause, state.since_s, None, kept)
    if worst == state.action:
        cause = state.cause if state.cause in standing else cause
        return worst, FailsafeState(worst, cause, state.since_s, None, kept)
    clear_since_s = now_s if state.clear_since_s is None else state.clear_since_s
    needed_s = params.stop_clear_s if state.action is Action.STOP else params.clear_s
    if now_s - clear_since_s >= needed_s:
        return worst, FailsafeState(worst, cause, now_s, None, kept)
    return state.action, FailsafeState(state.action, state.cause, state.since_s, clear_since_s, kept)


def reset(state: FailsafeState, flags: Flags, params: FailsafeParams, now_s: float) -> Decision:
    """An operator allows motion again: not within the cool-down of a latch, and not while something that stops still stands."""
    since_s = now_s - state.since_s
    if state.latched and not since_s >= params.cooldown_s:
        return Decision(False, f"Stopped {since_s:.3f} s ago, a reset is possible after {params.cooldown_s} s.", state)
    stopping = [r.condition for r in rules_of(params) if r.action >= Action.STOP and getattr(flags, r.condition)]
    if stopping:
        return Decision(False, f"The cause still stands: {', '.join(stopping)}; a reset needs it gone.", state)
    if state.action < Action.STOP:
        return Decision(True, "Not stopped.", state)
    return Decision(True, f"Reset {since_s:.2f} s after the stop ({state.cause}).", FailsafeState())


def page() -> str:
    """The table as a page of the documentation."""
    params = FailsafeParams()
    lines = [
        "# The failsafe",
        "",
        "Made by `python -m foresight.safety.failsafe` from `src/foresight/safety/failsafe.py`; do not edit.",
        "",
        "The guard looks at every condition 200 times a second. The most severe action whose condition stands wins; among",
        "equals the first row. `failsafe.raised` (a parameter of the guard) makes a row more severe, never less.",
        "",
        "| condition | it means | action | acts | ends |",
        "|---|---|---|---|---|",
    ]
    for rule in TABLE:
        acts = f"after {params.debounce_s} s" if rule.debounced else "at once"
        lines.append(
            f"| `{rule.condition}` | {rule.meaning} | {rule.action.name.lower()} | "
            f"{acts if rule.action else 'reported only'} | {RECOVERY[rule.action]} |"
        )
    lines += ["", "| time | default |", "|---|---|"]
    lines += [f"| `{name}` | {getattr(params, name)} s |" for name in ("debounce_s", "clear_s", "stop_clear_s", "cooldown_s")]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":  # pragma: no cover
    print(page(), end="")
