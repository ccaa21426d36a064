"""A pursuit ends for one typed reason."""

import numpy as np
import pytest

from foresight.data import Goal, Plan
from foresight.planning.pursuit import End, Pursuit, PursuitConfig, refusal
from tests.planning.toy import belief_at

TIP = np.array([0.45, 0.0, 0.1])


def plan(distance_s: float) -> Plan:
    return Plan(0.0, "toy", 0.1, np.zeros((12, 3)), 0.0, {}, distance_s, np.zeros((4, 3), np.float32), 1, 0.01, "stay")


def follow(distances, velocity=(0.0, 0.0, 0.0), **config):
    pursuit = Pursuit(0.0, PursuitConfig(**config))
    for i, distance in enumerate(distances):
        outcome = pursuit.update(plan(distance), belief_at(TIP, velocity), 0.1 * i)
        if outcome is not None:
            return outcome, 0.1 * i
    return None, 0.1 * len(distances)


def test_near_and_still_for_long_enough_is_reached():
    """Reached only after the hold time, without a break."""
    outcome, at_s = follow([1.0] * 5 + [0.1] * 30)
    assert outcome.end is End.REACHED and outcome.success
    assert at_s == pytest.approx(0.5 + PursuitConfig().hold_s, abs=0.11)


def test_a_moving_arm_has_not_reached():
    """Passing by is not arriving."""
    assert follow([0.1] * 40, velocity=(0.1, 0.0, 0.0))[0] is None


def test_no_progress_ends_as_unreachable():
    """A goal that never comes nearer is given up with both distances in the message."""
    outcome, at_s = follow([3.0] * 200)
    assert outcome.end is End.UNREACHABLE and "3.00 s" in outcome.detail
    assert at_s == pytest.approx(PursuitConfig().patience_s, abs=0.11)


def test_progress_keeps_a_pursuit_alive_until_its_time_limit():
    """Slow progress is progress; the time limit still holds."""
    outcome, at_s = follow(np.linspace(40, 4, 200), time_limit_s=15.0)
    assert outcome.end is End.TIMED_OUT and at_s == pytest.approx(15.0, abs=0.11)


@pytest.mark.parametrize(
    "goal, words",
    [
        (Goal(tip=np.array([2.0, 0.0, 0.1])), "outside the workspace"),
        (Goal(object=np.array([np.nan, 0, 0])), "not finite"),
        (Goal(object=np.array([0.1, 0.0, 0.02])), "object"),
    ],
)
def test_impossible_goals_are_refused_with_the_workspace(profile, goal, words):
    """What lies outside the workspace cannot be reached, and the sentence says so."""
    assert words in refusal(goal, profile)


def test_an_object_on_the_table_is_no_reason_to_refuse(profile):
    """The object's height is not the tip's: only its place on the table counts."""
    assert refusal(Goal(object=np.array([0.45, 0.1, 0.0])), profile) is None
