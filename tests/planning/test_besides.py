"""What a goal wants besides places: how the object lies, how far the gripper is open, whether the hand touches the object."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from foresight.data import Goal, Plan, Start
from foresight.planning.config import PlannerConfig
from foresight.planning.objective import parse
from foresight.planning.planner import Planner
from foresight.planning.pursuit import End, Pursuit, unmet
from foresight.planning.residuals import turned
from tests.planning.toy import ToyModel, belief_at, goal_at

TIP = np.array([0.45, 0.0, 0.10])
SHOWN = np.array([0.45, 0.03, 0.10], np.float32)  # a latent, in this world the tip itself


class Telling(ToyModel):
    """The object turns as the tip goes along y, 10 rad a metre; it is touched where the tip is low; the gripper is 20 % open."""

    reads = frozenset({"yaw", "opening", "contact"})

    def read_yaw(self, latent):
        return turned(10 * latent[..., 1], torch.tensor(0.0))

    def read_opening(self, proprio):
        return proprio[..., 0] + 0.2

    def read_contact(self, latent):
        return torch.sigmoid(400 * (0.06 - latent[..., 2]))


def plan(model, profile, goal: Goal, **config) -> Plan:
    planner = Planner(model, profile, PlannerConfig(policy="search", search_samples=256, search_iterations=6, **config))
    return planner.plan(belief_at(TIP), goal, Start(np.zeros(3)), torch.Generator().manual_seed(0), lambda: 0.0)


def end_of(plan: Plan) -> np.ndarray:
    return TIP + plan.dt_s * (plan.tip_velocity.sum(0) - plan.tip_velocity[-1] / 2)


def test_the_search_turns_the_object_and_touches_it(profile):
    """Each is weighed without being named in the objective, shown as a term, and gone after in imagination."""
    goal = replace(goal_at(TIP), yaw=0.6, contact=True)
    found = plan(Telling(profile), profile, goal)
    y, z = end_of(found)[1:]
    assert y > 0.02, "towards the orientation that is wanted"
    assert z < 0.075, "down to the object"
    assert {"yaw", "contact"} <= set(found.terms) and "opening" not in found.terms
    still = plan(Telling(profile), profile, goal_at(TIP))
    assert np.abs(end_of(still) - TIP).max() < 0.01


def test_orientations_that_look_alike_are_alike():
    """A quarter turn brings a cube onto itself: differences lie within an eighth either way."""
    angles = torch.tensor([0.0, 0.3, np.pi / 2 + 0.3, -np.pi / 2 - 0.2, np.pi])
    torch.testing.assert_close(turned(angles, torch.tensor(0.0)), torch.tensor([0.0, 0.3, 0.3, -0.2, 0.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"yaw": 0.5}, "the object is turned by 29 deg, 10 allowed"),
        ({"opening": 1.0}, "the gripper is 20 % open, wanted 100 +-15"),
        ({"contact": True}, "the hand does not touch the object"),
        ({"yaw": 0.1, "opening": 0.1, "contact": False}, ""),
    ],
)
def test_what_does_not_hold_is_said_with_both_values(profile, part, said):
    """And is in the plan."""
    goal, model = replace(goal_at(TIP), **part), Telling(profile)
    belief = belief_at(TIP)
    assert unmet(goal, torch.from_numpy(belief.latent)[None], torch.from_numpy(belief.proprio)[None], model) == said
    assert plan(model, profile, goal).unmet == said


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        (Goal(object=TIP + np.array([0.03, 0.14, 0.5])), "the object is 5.0 cm from its goal, 2 allowed"),
        (Goal(object=TIP + np.array([0.0, 0.11, 0.5])), ""),
        (Goal(latent=SHOWN), "the object is 3.0 cm from its goal, 2 allowed"),
        (Goal(latent=SHOWN, tip=TIP, weights=(0.0, 1.0, 1.0)), ""),
        (Goal(tip=TIP, object=TIP, weights=(1.0, 1.0, 0.0)), ""),
    ],
)
def test_an_object_that_is_not_at_its_goal_is_said_with_its_distance(profile, goal, said):
    """As the model reads both, on the table; the object lies 10 cm beside the tip. What weighs nothing does not matter."""
    belief = belief_at(TIP)
    latent, proprio = torch.from_numpy(belief.latent)[None], torch.from_numpy(belief.proprio)[None]
    assert unmet(goal, latent, proprio, ToyModel(profile)) == said


def test_a_goal_is_reached_only_when_all_of_it_holds(profile):
    """Near and still is not enough while the object lies otherwise; the end says what is missing."""
    there = plan(Telling(profile), profile, replace(goal_at(TIP), yaw=0.5))
    lies_otherwise, belief = replace(there, distance=0.0), belief_at(TIP)
    holds = replace(lies_otherwise, unmet="")
    outcomes = []
    for found in (lies_otherwise, holds):
        pursuit = Pursuit(0.0)
        ends = (pursuit.update(found, belief, 0.1 * i) for i in range(200))
        outcomes.append(next(end for end in ends if end is not None))
    assert outcomes[0].end is End.UNREACHABLE and "turned by 29 deg" in outcomes[0].detail
    assert outcomes[1].end is End.REACHED


@pytest.mark.parametrize("part", [{"yaw": 0.5}, {"opening": 1.0}, {"contact": False}])
def test_a_model_that_does_not_tell_refuses_such_a_goal(profile, part):
    """In a line that says how to train one that does."""
    with pytest.raises(ValueError, match=rf"Term '{next(iter(part))}' of the objective needs a model with .*trained"):
        plan(ToyModel(profile), profile, replace(goal_at(TIP), **part))


@pytest.mark.parametrize("part", [{"yaw": float("nan")}, {"opening": 1.5}, {"opening": float("nan")}])
def test_values_that_make_no_sense_are_refused(part):
    with pytest.raises(ValueError, match=next(iter(part))):
        replace(goal_at(TIP), **part)


def test_an_objective_that_weighs_them_keeps_its_weights(profile):
    """And one term a part; those of the planner's own terms that a goal has no part for do not count for it."""
    goal = replace(goal_at(TIP), yaw=0.5, opening=0.0)
    assert str(parse("to_go + 0.2*yaw").wanting(goal)) == "to_go + 0.2*yaw + opening"
    assert parse("to_go").wanting(goal_at(TIP)) == parse("to_go")
    assert set(plan(Telling(profile), profile, goal_at(TIP), objective="to_go + yaw").terms) == {"to_go"}
    with pytest.raises(ValueError, match="needs a goal with yaw"):
        plan(Telling(profile), profile, replace(goal_at(TIP), objective="to_go + yaw"))
