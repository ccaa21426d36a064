"""The watchdog names what has fallen silent."""

from __future__ import annotations

import pytest

from foresight.safety.watchdog import Silence, Watchdog


def test_seen_in_time_is_not_silent():
    """A source within its limit is not reported; one beyond it is, with age and limit."""
    watchdog = Watchdog({"observation": 0.5, "joint_state": 0.1})
    watchdog.seen("observation", 10.0)
    watchdog.seen("joint_state", 10.0)
    assert watchdog.silent(10.0625) == []
    assert watchdog.silent(10.25) == [Silence("joint_state", 0.25, 0.1)]
    watchdog.seen("joint_state", 10.25)
    assert watchdog.silent(10.25) == []


def test_never_seen_is_silent():
    """Before its first message a source is silent for ever, so nothing starts without it."""
    assert Watchdog({"plan": 0.5}).silent(3.0) == [Silence("plan", float("inf"), 0.5)]


def test_unknown_source_and_bad_limit_are_refused():
    """A misspelt source, or a limit that could never be exceeded, is an error that names it."""
    with pytest.raises(KeyError, match=r"'plans' is not watched. Watched: plan"):
        Watchdog({"plan": 0.5}).seen("plans", 0.0)
    for limit in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="plan"):
            Watchdog({"plan": limit})
