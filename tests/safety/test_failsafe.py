"""The failsafe: every row of the table acts as it says, severity decides, and a latch ends by a reset alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresight.safety.failsafe import (
    RECOVERY,
    TABLE,
    UNSURE,
    Action,
    FailsafeParams,
    FailsafeState,
    Flags,
    failsafe,
    page,
    reset,
    rules_of,
)

PARAMS = FailsafeParams()
CLEAR = Flags()
ROWS = {rule.condition: rule for rule in TABLE}
ROOT = Path(__file__).resolve().parents[2]


def only(condition: str) -> Flags:
    return Flags(**{condition: True})


def run(steps: list[tuple[float, Flags]], params: FailsafeParams = PARAMS) -> list[FailsafeState]:
    """The states after each (time, flags)."""
    states = [FailsafeState()]
    for now_s, flags in steps:
        action, state = failsafe(flags, states[-1], params, now_s)
        assert action is state.action
        states.append(state)
    return states[1:]


def test_every_condition_has_one_row_and_every_action_a_way_back():
    """No flag without a rule, no rule without a flag."""
    assert sorted(rule.condition for rule in TABLE) == sorted(f.name for f in fields(Flags))
    assert set(RECOVERY) == set(Action) and UNSURE < set(ROWS)
    assert [a.name for a in Action] == ["NONE", "SLOW", "HOLD", "RETREAT", "STOP", "LATCH"]
    assert {rule.action for rule in TABLE} == set(Action)


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.condition)
def test_a_condition_leads_to_its_action_and_ends_as_the_table_says(rule):
    """At once, or when it has stood for the debounce time; it ends when it has been clear for its time, a latch never."""
    wait_s = PARAMS.debounce_s if rule.debounced else 0.0
    flags = only(rule.condition)
    if rule.debounced:
        assert run([(10.0, flags), (10.0 + 0.9 * wait_s, flags)])[-1].action is Action.NONE
    states = run([(10.0, flags), (10.0 + 1.01 * wait_s, flags)])
    acted = states[-1]
    assert (acted.action, acted.cause) == (rule.action, rule.condition if rule.action else "")
    began_s = acted.since_s
    clear_s = PARAMS.stop_clear_s if rule.action is Action.STOP else PARAMS.clear_s
    action, easing = failsafe(CLEAR, acted, PARAMS, began_s + 1.0)
    assert action is rule.action and easing.cause == acted.cause
    action, _ = failsafe(CLEAR, easing, PARAMS, began_s + 1.0 + 0.9 * clear_s)
    assert action is rule.action
    action, ended = failsafe(CLEAR, easing, PARAMS, began_s + 1.0 + 1.01 * clear_s)
    assert action is (Action.LATCH if rule.action is Action.LATCH else Action.NONE)
    assert ended.cause == (rule.condition if rule.action is Action.LATCH else "")


@pytest.mark.parametrize("first", TABLE, ids=lambda rule: rule.condition)
@pytest.mark.parametrize("second", TABLE, ids=lambda rule: rule.condition)
def test_of_two_conditions_the_more_severe_wins_from_any_action(first, second):
    """Whatever is on, a second condition raises the action to the more severe of both, and never lowers it."""
    both = Flags(**{first.condition: True, second.condition: True})
    states = run([(0.0, only(first.condition)), (1.0, only(first.condition)), (2.0, both), (3.0, both)])
    worst = max(first.action, second.action)
    assert states[-1].action is worst
    assert states[1].action is first.action
    if second.action > first.action:
        assert states[-1].cause == second.condition
    elif first.action:
        assert states[-1].cause == first.condition


def test_when_the_cause_goes_another_as_severe_is_named():
    """The action goes on under the cause that stands, and its begin is kept."""
    states = run([(0.0, only("heartbeat_lost")), (1.0, only("camera_dark"))])
    assert [(s.action, s.cause, s.since_s) for s in states] == [
        (Action.HOLD, "heartbeat_lost", 0.0),
        (Action.HOLD, "camera_dark", 0.0),
    ]


def test_a_stop_eases_to_what_still_stands():
    """When only something less severe is left, that acts after the time of the stop."""
    held = Flags(state_stale=True)
    states = run([(0.0, only("clock_jumped")), (0.1, held), (0.5, held), (0.61, held)])
    assert [s.action for s in states] == [Action.STOP, Action.STOP, Action.STOP, Action.HOLD]
    assert states[-1].cause == "state_stale" and states[-1].since_s == 0.61


def test_what_returns_before_it_is_clear_begins_the_wait_again():
    """A condition that flickers keeps its action without a gap."""
    lost = only("heartbeat_lost")
    states = run([(0.0, lost), (0.1, CLEAR), (0.35, lost), (0.4, CLEAR), (0.65, CLEAR), (0.71, CLEAR)])
    assert [s.action for s in states] == [Action.HOLD] * 5 + [Action.NONE]


def test_a_debounced_condition_that_goes_in_between_starts_from_the_beginning():
    """Two short appearances are not one long one."""
    bad = only("state_invalid")
    states = run([(0.0, bad), (0.04, CLEAR), (0.06, bad), (0.1, bad)])
    assert {s.action for s in states} == {Action.NONE}


@pytest.mark.parametrize("rule", [rule for rule in TABLE if rule.debounced], ids=lambda rule: rule.condition)
def test_a_debounced_condition_that_comes_and_goes_prolongs_what_it_led_to(rule):
    """Too short each time to begin it, and never clear for long: it goes on, and ends when it has been clear for its time."""
    bad, clear_s = only(rule.condition), PARAMS.stop_clear_s if rule.action is Action.STOP else PARAMS.clear_s
    short_s = 0.9 * PARAMS.debounce_s
    flickers = [(1.0 + 0.05 * i + at_s, flags) for i in range(40) for at_s, flags in ((0.0, bad), (short_s, CLEAR))]
    states = run([(0.0, bad), (PARAMS.debounce_s, bad), *flickers])
    assert {s.action for s in states[1:]} == {rule.action} and states[-1].cause == rule.condition
    ends_s = flickers[-1][0] + clear_s
    assert [s.action for s in run([(0.0, bad), (PARAMS.debounce_s, bad), *flickers, (ends_s + 0.001, CLEAR)])][-1] is Action.NONE


@pytest.mark.parametrize("condition", ["state_invalid", "not_following"])
def test_a_time_that_is_no_number_acts_and_never_ends(condition):
    """Doubt leads to the action, not away from it."""
    nan = float("nan")
    _, state = failsafe(only(condition), FailsafeState(), PARAMS, nan)
    assert state.action is ROWS[condition].action
    for _ in range(3):
        action, state = failsafe(CLEAR, state, PARAMS, nan)
        assert action is ROWS[condition].action


def latched(condition: str = "operator_stop", at_s: float = 10.0) -> FailsafeState:
    return failsafe(only(condition), FailsafeState(), PARAMS, at_s)[1]


def test_a_reset_waits_for_the_cool_down_and_for_the_cause_to_go():
    """Each refusal says why and changes nothing; then the state is as at the beginning."""
    state = latched("state_jumped")
    early = reset(state, CLEAR, PARAMS, 10.4)
    assert not early.ok and early.state is state and "0.400 s ago" in early.detail and "0.5 s" in early.detail
    standing = reset(state, Flags(state_jumped=True, camera_dark=True), PARAMS, 11.0)
    assert not standing.ok and standing.state is state and "state_jumped" in standing.detail
    assert "camera_dark" not in standing.detail
    other = reset(state, only("controller_inactive"), PARAMS, 11.0)
    assert not other.ok and "controller_inactive" in other.detail
    granted = reset(state, only("camera_dark"), PARAMS, 11.0)
    assert granted.ok and granted.state == FailsafeState() and "state_jumped" in granted.detail
    assert not reset(state, CLEAR, PARAMS, float("nan")).ok


def test_a_reset_without_a_latch():
    """It ends a stop whose cause is gone without waiting, leaves less severe actions alone, and does nothing else."""
    assert reset(FailsafeState(), CLEAR, PARAMS, 0.0) == (True, "Not stopped.", FailsafeState())
    hold = failsafe(only("camera_dark"), FailsafeState(), PARAMS, 1.0)[1]
    assert reset(hold, CLEAR, PARAMS, 1.0).state is hold
    stop = failsafe(only("clock_jumped"), FailsafeState(), PARAMS, 1.0)[1]
    assert reset(stop, CLEAR, PARAMS, 1.0).state == FailsafeState()
    assert not reset(stop, only("clock_jumped"), PARAMS, 1.0).ok


def test_rows_can_be_raised_and_not_lowered():
    """A cell that wants a person after every program stop says so; nobody can say that an operator's stop is nothing."""
    raised = FailsafeParams(raised=("program_stopped=latch", "plan_stale=hold"))
    assert run([(0.0, only("program_stopped"))], raised)[-1].latched
    assert run([(0.0, only("plan_stale"))], raised)[-1].action is Action.HOLD
    changed = {a.condition for a, b in zip(TABLE, rules_of(raised), strict=True) if a != b}
    assert changed == {"program_stopped", "plan_stale"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"raised": ("operator_stop=hold",)}, "cannot be lowered to hold"),
        ({"raised": ("nonsense=hold",)}, "'nonsense' is unknown. Conditions: operator_stop"),
        ({"raised": ("plan_stale=jump",)}, "'jump' is unknown. Actions: none, slow"),
        ({"raised": ("heartbeat_lost=retreat",)}, "cannot lead to retreat: it brakes nothing"),
        ({"raised": ("plan_stale",)}, "action '' is unknown"),
        ({"slow_share": 0.0}, "slow_share must lie between 0.1 and 1"),
        ({"slow_share": float("nan")}, "slow_share must lie between 0.1 and 1"),
        ({"clear_s": -1.0}, "clear_s must be above 0"),
        ({"debounce_s": float("nan")}, "debounce_s must be above 0"),
        ({"cooldown_s": float("inf")}, "cooldown_s must be above 0"),
        ({"stop_clear_s": 61.0}, "at most 60 s, got 61.0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(values, said):
    """One line that names the parameter."""
    with pytest.raises(ValueError, match=said):
        FailsafeParams(**values)


NAMES = [f.name for f in fields(Flags)]
FLAGS = st.builds(Flags, **dict.fromkeys(NAMES, st.booleans()))
SPARSE = st.sets(st.sampled_from(NAMES), max_size=3).map(lambda names: Flags(**dict.fromkeys(names, True)))
STEPS = st.lists(st.tuples(st.floats(0.001, 1.0), SPARSE | FLAGS), min_size=1, max_size=30)


@given(STEPS)
def test_any_sequence_keeps_the_rules(steps):
    """Never less than what acts now; never lower without the clear time; a latch stays; the same inputs, the same answer."""
    now_s, timed = 0.0, []
    for gap_s, flags in steps:
        now_s += gap_s
        timed.append((now_s, flags))
    states = run(timed)
    assert states == run(timed)
    before = FailsafeState()
    for (now_s, flags), state in zip(timed, states, strict=True):
        at_once = [r.action for r in TABLE if getattr(flags, r.condition) and not r.debounced]
        assert state.action >= max(at_once, default=Action.NONE)
        possible = [r.action for r in TABLE if getattr(flags, r.condition)]
        assert state.action <= max([before.action, *possible])
        if before.latched:
            assert state.latched and (state.cause, state.since_s) == (before.cause, before.since_s)
        if state.action < before.action:
            assert before.clear_since_s is None or now_s - before.clear_since_s >= PARAMS.clear_s
        assert bool(state.cause) == bool(state.action)
        before = state


@given(SPARSE, SPARSE, st.floats(0.0, 5.0), st.floats(0.0, 5.0))
def test_more_trouble_never_means_less_action(some, more, first_s, then_s):
    """From any state that one set of conditions leads to, adding conditions never lowers the action."""
    state = run([(1.0, some), (1.0 + first_s, some)])[-1]
    union = Flags(**{f.name: getattr(some, f.name) or getattr(more, f.name) for f in fields(Flags)})
    now_s = 1.0 + first_s + then_s
    assert failsafe(union, state, PARAMS, now_s)[0] >= failsafe(more, state, PARAMS, now_s)[0]


def test_the_page_in_the_docs_is_what_the_code_says():
    """docs/failsafe.md is made by this module; after a change of the table it is made again."""
    assert (ROOT / "docs/failsafe.md").read_text() == page(), "run `python -m foresight.safety.failsafe > docs/failsafe.md`"
    printed = subprocess.run(
        [sys.executable, "-m", "foresight.safety.failsafe"], capture_output=True, text=True, check=True, cwd=ROOT / "src"
    ).stdout
    assert printed == page()
