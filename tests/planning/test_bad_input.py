"""What cannot be planned has a defined end: refused before anything moves, or no plan, and the arm rests on the motion it has."""

import numpy as np
import pytest
import torch

from foresight.data import Box, Goal, Start
from foresight.planning.config import HORIZON_MAX, PlannerConfig
from foresight.planning.constraints import Constraints, NoPlan
from foresight.planning.objective import Objective
from foresight.planning.planner import Planner
from foresight.planning.pursuit import refusal
from tests.judge import faults
from tests.planning.arm import drive
from tests.planning.toy import ToyModel, belief_at, goal_at

HERE, THERE = np.array([0.45, -0.1, 0.10]), np.array([0.45, 0.1, 0.10])


def plan(planner: Planner, goal: Goal | None = None, clock=lambda: 0.0):
    return planner.plan(belief_at(HERE), goal or goal_at(THERE), Start(np.zeros(3)), torch.Generator().manual_seed(0), clock)


def without(part: str):
    """A class of model that lacks one part."""
    return type("Lacking", (ToyModel,), {part: "absent"})


def test_an_objective_without_terms_is_none():
    """Neither written nor built."""
    for make in (lambda: PlannerConfig(objective=""), lambda: Objective(())):
        with pytest.raises(ValueError, match="at least one term"):
            make()


@pytest.mark.parametrize("weights", [(1.0, float("nan"), 1.0), (1.0, float("inf"), 1.0), (1.0, -1.0, 1.0)])
def test_a_goal_with_weights_that_are_none_is_refused(weights):
    """NaN, infinite or below 0: the sentence shows them."""
    with pytest.raises(ValueError, match="three finite numbers"):
        Goal(tip=THERE, weights=weights)


@pytest.mark.parametrize("text", ["nan*to_go", "to_go + nan*effort", "inf*smooth"])
def test_an_objective_with_a_weight_that_is_none_is_refused_in_a_goal_as_in_a_parameter(profile, text):
    """No plan is made of it."""
    with pytest.raises(ValueError, match="finite"):
        PlannerConfig(objective=text)
    with pytest.raises(ValueError, match="finite"):
        plan(Planner(ToyModel(profile), profile), Goal(tip=THERE, objective=text))


def test_boxed_in_there_is_no_way_and_the_arm_comes_to_rest_where_it_may(profile, kinematics):
    """The goal lies in a closed cage: every plan keeps out of it, and the last motion ends at rest before it."""
    wall = lambda name, low, high: Box(name, np.array(low), np.array(high))  # noqa: E731
    cage = (wall("one", [0.36, 0.02, 0.0], [0.54, 0.03, 0.3]), wall("two", [0.36, 0.17, 0.0], [0.54, 0.18, 0.3]))
    cage += (wall("three", [0.35, 0.02, 0.0], [0.36, 0.18, 0.3]), wall("four", [0.54, 0.02, 0.0], [0.55, 0.18, 0.3]))
    goal = Goal(tip=THERE, keep_outs=cage)
    held = Constraints(profile, kinematics).of(goal)
    motions = []
    try:
        for made, motion in drive(Planner(ToyModel(profile), profile), held, HERE, goal, 20):
            assert made.margin_m >= -1e-6 and faults(made.trajectory, profile, kinematics) == []
            motions.append(motion)
    except NoPlan as none:
        assert "keeps to the constraints" in str(none)
    assert motions and np.abs(motions[-1].dq[-1]).max() == 0
    assert kinematics.tip(motions[-1].q[-1])[1] < 0.02


@pytest.mark.parametrize("place", [[0.1, 0.0, 0.1], [0.45, 0.5, 0.1], [0.45, 0.0, 0.5], [0.45, 0.0, -0.1]])
def test_a_goal_outside_the_workspace_is_refused_by_name(profile, place):
    """The sentence has place and workspace."""
    assert "outside the workspace" in refusal(goal_at(np.array(place)), profile)


def test_a_horizon_beyond_what_critics_count_is_refused_and_the_longest_keeps_the_limits(profile, kinematics):
    """Longer than training imagines is allowed, up to 16 blocks; what is sent of it keeps all limits and ends at rest."""
    with pytest.raises(ValueError, match=f"at most {HORIZON_MAX} blocks.*{HORIZON_MAX + 1}"):
        PlannerConfig(horizon=HORIZON_MAX + 1)
    planner = Planner(ToyModel(profile), profile, PlannerConfig(horizon=HORIZON_MAX))
    for made, motion in drive(planner, Constraints(profile, kinematics), HERE, goal_at(THERE), 4):
        assert len(made.tip_velocity) == HORIZON_MAX * 3
        assert faults(made.trajectory, profile, kinematics) == [] and np.abs(motion.dq[-1]).max() == 0


@pytest.mark.parametrize("policy", ["both", "search"])
def test_a_deadline_shorter_than_one_iteration_gives_the_plan_that_there_is(profile, policy):
    """Proposals without refinement, or one round of a search that has no proposals; never more."""
    ticks = iter(np.arange(0, 1000, 0.5))
    made = plan(Planner(ToyModel(profile), profile, PlannerConfig(policy=policy, deadline_s=1e-6)), clock=lambda: next(ticks))
    config = PlannerConfig()
    expected = len(config.aims) * (1 + config.noisy_per_aim) + 1 if policy == "both" else config.search_samples
    assert made.candidates == expected and np.isfinite(made.tip_velocity).all()


@pytest.mark.parametrize(
    ("part", "policy", "words"),
    [
        ("propose", "both", "'both' needs a model with an actor"),
        ("propose", "actor", "'actor' needs a model with an actor"),
        ("blocks_to_go", "both", "a critic"),
        ("blocks_to_go", "search", "a critic"),
        ("imagine", "search", "dynamics"),
        ("read", "both", "readouts"),
    ],
)
def test_a_model_that_lacks_a_part_the_policy_needs_is_refused_before_anything_moves(profile, part, policy, words):
    """The message names the part and what to do."""
    with pytest.raises(ValueError, match=words + ".*foresight train"):
        Planner(without(part)(profile), profile, PlannerConfig(policy=policy))


def test_a_model_without_an_actor_can_be_searched(profile):
    """The search needs none."""
    assert np.isfinite(plan(Planner(without("propose")(profile), profile, PlannerConfig(policy="search"))).cost)
