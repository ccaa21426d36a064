"""What cannot be planned has a defined end: refused before anything moves, or no plan, and the arm rests on the motion it has."""

from dataclasses import dataclass
from itertools import count

import numpy as np
import pytest
import torch

from foresight.data import KEEP_OUTS_MAX, Box, Goal, Reason, RobotState, Start
from foresight.planning.config import HORIZON_MAX, PlannerConfig
from foresight.planning.constraints import Constraints, Juncture, NoPlan
from foresight.planning.objective import Objective
from foresight.planning.planner import Planner
from foresight.planning.pursuit import refusal
from foresight.planning.search.state import comparable
from tests.judge import faults
from tests.planning.arm import drive
from tests.planning.toy import ToyModel, belief_at, goal_at

HERE, THERE = np.array([0.45, -0.1, 0.10]), np.array([0.45, 0.1, 0.10])


def plan(planner: Planner, goal: Goal | None = None, clock=lambda: 0.0):
    return planner.plan(belief_at(HERE), goal or goal_at(THERE), Start(np.zeros(3)), torch.Generator().manual_seed(0), clock)


def rest(profile, kinematics) -> RobotState:
    return RobotState(0.0, kinematics.solve(HERE, profile.home), np.zeros(len(profile.home)))


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


@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (1.0, 0.0, 1.0)])
def test_a_goal_of_which_nothing_counts_is_refused(weights):
    """All weigh nothing, or just the part that there is."""
    with pytest.raises(ValueError, match="must weigh more than 0"):
        Goal(tip=THERE, weights=weights)


def test_more_keep_outs_than_plans_have_time_for_are_refused():
    """With their number, how many there may be, and what to do."""
    box = Box("post", np.array([0.5, -0.2, 0.0]), np.array([0.52, -0.18, 0.2]))
    assert len(Goal(tip=THERE, keep_outs=KEEP_OUTS_MAX * (box,)).keep_outs) == KEEP_OUTS_MAX
    with pytest.raises(ValueError, match=r"at most 16 keep-outs, got 17.*one box"):
        Goal(tip=THERE, keep_outs=(KEEP_OUTS_MAX + 1) * (box,))


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


@pytest.mark.parametrize("policy", ["both", "actor", "search"])
def test_a_deadline_that_is_over_before_anything_is_imagined_gives_no_plan(profile, policy):
    """None at all, with a reason of its own and the time in the sentence."""
    ticks = count(0.0, 0.5)
    with pytest.raises(NoPlan, match=r"No time.*planner\.deadline_s") as none:
        plan(Planner(ToyModel(profile), profile, PlannerConfig(policy=policy, deadline_s=1e-6)), clock=lambda: next(ticks))
    assert none.value.reason is Reason.NO_TIME


class Timed(ToyModel):
    """Each block of a candidate takes a millisecond, by a clock that this model moves."""

    now_s, block_s = 0.0, 1e-3

    def imagine(self, latent, proprio, block):
        self.now_s += self.block_s * len(latent)
        return super().imagine(latent, proprio, block)


@dataclass(frozen=True)
class Examining(Juncture):
    """Takes 0.01 s."""

    model: Timed
    looks: list[str]

    def examine(self, plan):
        self.looks.append(plan.source)
        self.model.now_s += 0.01
        return super().examine(plan)


@pytest.mark.parametrize(
    ("policy", "deadline_s", "candidates"),
    [
        ("both", 0.5, 17 + 48),
        ("both", 0.1, 17),
        ("both", 0.05, 1),
        ("both", 0.008, None),
        ("actor", 0.05, 1),
        ("actor", 0.008, None),
        ("search", 1.2, 2 * 128),
        ("search", 0.6, 128),
        ("search", 0.4, None),
    ],
)
def test_what_there_is_time_for_is_planned_and_no_more(profile, kinematics, policy, deadline_s, candidates):
    """Proposals take 68 ms, refining them 192, one motion 4, a round of the search 512, an examination 10.

    Each part may be late twice, the second time soon, until what it takes is known; then the time decides between all of it, the
    proposals, the actor alone and no plan, of which nothing is examined.
    """
    model, looks = Timed(profile), []
    planner = Planner(model, profile, PlannerConfig(policy=policy, deadline_s=deadline_s))
    juncture = Examining(Constraints(profile, kinematics), None, rest(profile, kinematics), 0.1, model, looks)
    late = 0
    for turn in range(12):
        began_s, made = model.now_s, None
        looks.clear()
        try:
            start, generator = Start(np.zeros(3)), torch.Generator().manual_seed(0)
            made = planner.plan(belief_at(HERE), goal_at(THERE), start, generator, lambda: model.now_s, None, juncture)
        except NoPlan as none:
            assert none.reason is Reason.NO_TIME and looks == []
        late += model.now_s - began_s > deadline_s
        assert turn < 7 or (None if made is None else made.candidates) == candidates
        assert made is None or (len(looks) == 1 and np.abs(made.trajectory.dq[-1]).max() == 0)
    assert late <= 2


@pytest.mark.parametrize("first_s", [0.15, 1.0])
def test_one_slow_first_examination_does_not_end_a_goal(profile, kinematics, first_s):
    """It takes 10 ms from then on: there are plans again within 1.5 s, half of what a goal is given, and soon all of them."""
    model, looks, made = Timed(profile), [], []
    planner = Planner(model, profile, PlannerConfig(deadline_s=0.3))
    juncture = Examining(Constraints(profile, kinematics), None, rest(profile, kinematics), 0.1, model, looks)
    for turn in range(100):
        begin_s = model.now_s
        clock = lambda turn=turn: model.now_s + (first_s if not turn and looks else 0.0)  # noqa: E731
        try:
            start, generator = Start(np.zeros(3)), torch.Generator().manual_seed(0)
            made.append(planner.plan(belief_at(HERE), goal_at(THERE), start, generator, clock, None, juncture).candidates)
        except NoPlan:
            made.append(0)
        assert turn < 1 or model.now_s - begin_s <= 0.3
    assert 0 not in made[15:] and made[-1] == 17 + 48


def test_a_machine_that_is_fast_again_plans_all_again(profile):
    """One slow plan changes nothing; ten do, for a while."""
    model = Timed(profile)
    planner = Planner(model, profile, PlannerConfig(deadline_s=0.3))
    candidates = []
    for factor in [1.0, 20.0, 1.0] + [20.0] * 10 + [1.0] * 100:
        model.block_s = factor * 1e-3
        candidates.append(plan(planner, clock=lambda: model.now_s).candidates)
    assert candidates[0] == candidates[2] == candidates[-1] == 17 + 48 and 1 in candidates[3:-1]


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


@pytest.mark.parametrize("policy", ["both", "actor", "search", "random"])
@pytest.mark.parametrize(
    ("part", "broken", "words"),
    [
        ("blocks_to_go", lambda latent, proprio, goal: torch.full((len(latent),), float("nan")), "critic counts nan blocks"),
        ("imagine", lambda latent, proprio, block: (latent * float("nan"), proprio), "candidates has a finite cost"),
    ],
    ids=["critic", "dynamics"],
)
def test_no_plan_is_made_of_candidates_without_a_finite_cost(profile, policy, part, broken, words):
    """NaN from the critic, or from the dynamics alone, whatever chooses."""
    model = ToyModel(profile)
    setattr(model, part, broken)
    with pytest.raises(ValueError, match=words):
        plan(Planner(model, profile, PlannerConfig(policy=policy)))


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_finite_number_never_wins(cost):
    """Nor counts as a number that is merely large."""
    assert comparable(torch.tensor([cost, 3.0, 2.0])).tolist() == [float("inf"), 3.0, 2.0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"refine_noise": float("nan")}, "refine_noise must be a finite number of at least 0, got nan"),
        ({"search_noise": -1.0}, "search_noise must be .* got -1"),
        ({"improvement": float("inf")}, "improvement must be a finite number"),
        ({"speed_max": float("inf")}, "speed_max must be a finite number above 0"),
        ({"iterations": -3}, "iterations must be .* at least 0, got -3"),
        ({"wall_margin": 10.0}, "wall_margin must leave some of the workspace.*got 10"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_moves(profile, changed, words):
    """By name and value."""
    with pytest.raises(ValueError, match=words):
        Planner(ToyModel(profile), profile, PlannerConfig(**changed))
