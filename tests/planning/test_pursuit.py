"""A pursuit ends for one typed reason."""

from dataclasses import replace

import numpy as np
import pytest

from foresight.data import Goal, Leg, Plan
from foresight.planning.constraints import Constraints
from foresight.planning.planner import Planner
from foresight.planning.pursuit import End, Pursuit, PursuitConfig, refusal
from tests.planning.toy import ToyModel, belief_at

TIP = np.array([0.45, 0.0, 0.1])


def plan(distance_s: float, leg: Leg | None = None) -> Plan:
    nothing = np.zeros((4, 3), np.float32)
    return Plan(0.0, "toy", 0.1, np.zeros((12, 3)), 0.0, {}, distance_s, nothing, 1, 0.01, "stay", leg=leg)


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


def test_what_stood_in_the_way_is_told_when_a_pursuit_is_given_up():
    """An arm that stands still because every motion was refused says what the cheapest would have broken."""
    pursuit, standing = Pursuit(0.0, PursuitConfig()), replace(plan(3.0), refused="The hand would come into the post.")
    outcomes = (pursuit.update(standing, belief_at(TIP), 0.1 * i) for i in range(200))
    outcome = next(outcome for outcome in outcomes if outcome is not None)
    assert outcome.end is End.UNREACHABLE and outcome.detail.endswith("; The hand would come into the post.")


def test_an_arm_that_stands_still_before_its_goal_tries_afresh_twice():
    """After 1.5 s without progress, for 6 s or until the object is there; not while it moves, and not once it is there."""
    config, leg = PursuitConfig(time_limit_s=60.0, patience_s=60.0), Leg(Goal(tip=TIP), TIP)
    pursuit, tried = Pursuit(0.0, config), []
    for i in range(400):
        assert pursuit.update(plan(0.5, leg if pursuit.afresh else None), belief_at(TIP), 0.1 * i) is None
        tried.append(pursuit.afresh)
    begins = [0.1 * i for i in range(1, 400) if tried[i] and not tried[i - 1]]
    assert begins == pytest.approx([1.5, 9.0], abs=0.25) and sum(tried) == pytest.approx(2 * 60, abs=2)
    there = Pursuit(0.0, config)
    found = []
    for i in range(60):
        there.update(plan(0.5, leg if there.afresh and i < 30 else None), belief_at(TIP), 0.1 * i)
        found.append(there.afresh)
    assert sum(found[:31]) == 15 and not any(found[31:44]), "it ends when no leg is left"
    for distance, velocity in ((0.5, (0.1, 0.0, 0.0)), (0.1, (0.0, 0.0, 0.0))):
        other = Pursuit(0.0, config)
        for i in range(60):
            other.update(plan(distance), belief_at(TIP, velocity), 0.1 * i)
            assert not other.afresh


@pytest.mark.parametrize(
    ("margin_m", "refused", "told"),
    [(0.004, "", True), (-0.003, "", True), (0.08, "", False), (float("nan"), "", False), (0.004, "Too fast.", False)],
)
def test_what_the_arm_kept_close_to_is_told_when_a_pursuit_is_given_up(margin_m, refused, told):
    """Plans that all stop before a box are allowed ones; the box is named all the same, where nothing was refused."""
    before_it = replace(plan(3.0), margin_m=margin_m, nearest="gripper and post", refused=refused)
    pursuit = Pursuit(0.0, PursuitConfig())
    outcomes = (pursuit.update(before_it, belief_at(TIP), 0.1 * i) for i in range(200))
    outcome = next(outcome for outcome in outcomes if outcome is not None)
    assert outcome.end is End.UNREACHABLE
    assert ("; gripper and post come within 20 mm of the margin between them." in outcome.detail) == told
    assert ("gripper" in outcome.detail) == told


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
        (Goal(object=np.array([0.45, 0.1, 5.0])), "object height 5 m"),
        (Goal(object=np.array([0.45, 0.1, -0.1])), "object height -0.1 m"),
    ],
)
def test_impossible_goals_are_refused_with_the_workspace(profile, goal, words):
    """What lies outside the workspace cannot be reached, and the sentence says so."""
    assert words in refusal(goal, profile)


@pytest.mark.parametrize(
    ("tip", "words"),
    [
        ([0.45, 0.1, 0.1], None),
        ([0.45, 0.2, 0.34], None),  # 4 cm above it, as a readout may err
        ([0.45, 0.0, 0.36], "tip"),
        ([0.45, 0.32, 0.1], "object"),  # which lies 10 cm beside the tip
        ([np.nan, 0.0, 0.1], "tip"),
    ],
)
def test_a_goal_image_that_shows_a_place_outside_the_workspace_is_refused(profile, kinematics, tip, words):
    """By the readout, with what it may err; readout, workspace and what to do are told. Not where it has no weight."""
    planner, constraints = Planner(ToyModel(profile), profile), Constraints(profile, kinematics)
    goal = Goal(latent=np.array(tip, np.float32), tip=TIP)
    told = planner.refusal(goal, constraints)
    assert (told is None) == (words is None)
    assert told is None or (f"In the goal image the {words} at [" in told and "0.36" in told and "Show a goal inside" in told)
    assert planner.refusal(replace(goal, weights=(0.0, 1.0, 1.0)), constraints) is None


def test_an_object_on_the_table_is_no_reason_to_refuse(profile):
    """The object's height is not the tip's: only its place on the table counts."""
    assert refusal(Goal(object=np.array([0.45, 0.1, 0.0])), profile) is None


def test_a_leg_done_on_the_way_round_is_progress():
    """The distance to the goal grows on a way round; patience counts anew with each leg, and only then."""
    pursuit = Pursuit(0.0, PursuitConfig(patience_s=2.0))
    legs = [Leg(Goal(tip=TIP), TIP + 0.05 * i) for i in range(4)]
    for i in range(60):  # a leg every 1.5 s
        assert pursuit.update(plan(3.0 + 0.1 * i, legs[i // 15]), belief_at(TIP, (0.1, 0.0, 0.0)), 0.1 * i) is None
    ends = [pursuit.update(plan(9.0, legs[3]), belief_at(TIP, (0.1, 0.0, 0.0)), 6.0 + 0.1 * i) for i in range(20)]
    assert any(end is not None and end.end is End.UNREACHABLE for end in ends)


def test_without_a_plan_for_long_the_goal_is_infeasible():
    """A plan between ends the count; the reason stands in the sentence, and the time limit holds as well."""
    pursuit = Pursuit(0.0, PursuitConfig(infeasible_s=1.0, time_limit_s=5.0))
    assert all(pursuit.without_plan("A box is in the way.", 0.1 * i) is None for i in range(9))
    assert pursuit.update(plan(3.0), belief_at(TIP), 0.9) is None
    assert all(pursuit.without_plan("A box is in the way.", 1.0 + 0.1 * i) is None for i in range(9))
    outcome = pursuit.without_plan("A box is in the way.", 2.1)
    assert outcome.end is End.INFEASIBLE and "A box is in the way." in outcome.detail and not outcome.success
    assert pursuit.without_plan("A box is in the way.", 5.0).end is End.TIMED_OUT
