"""Goals on the way to a goal that is far, in a world whose critic sees only so far."""

import numpy as np
import pytest
import torch

from foresight.data import Goal, Start
from foresight.interfaces import Subgoals
from foresight.planning.config import PlannerConfig
from foresight.planning.planner import Planner
from foresight.planning.subgoals import next_subgoal
from tests.planning.toy import BLOCK_M, ToyModel, belief_at, goal_at

TIP, FAR = np.array([0.45, -0.30, 0.10]), np.array([0.45, 0.30, 0.10])  # 8 blocks apart
SEES = 5.0  # blocks


class ShortSighted(ToyModel):
    """The critic counts to SEES; sub-goals lie three blocks straight ahead, and four blocks aside."""

    subgoal_ways = 2

    def blocks_to_go(self, latent, proprio, goal):
        wanted = goal.tip if goal.tip is not None else goal.latent
        return self.apart(latent, proprio, torch.as_tensor(wanted, dtype=torch.float32))

    def apart(self, latent, proprio, other):
        return ((other - latent).norm(dim=-1) / BLOCK_M).clamp_max(SEES)

    def subgoals(self, latent, proprio, goal, k):
        way = torch.nn.functional.normalize(torch.as_tensor(goal.tip, dtype=torch.float32) - latent, dim=-1)
        aside = torch.tensor([0.0, 0.0, 1.0]).expand_as(way)
        ahead = torch.stack([latent + 4 * BLOCK_M * aside, latent + 3 * BLOCK_M * way], 1)
        return ahead, proprio[:, None].expand(-1, 2, -1)


def plan(profile, model, goal=FAR, **config):
    planner = Planner(model, profile, PlannerConfig(subgoals_beyond=4.0, **config))
    return planner.plan(belief_at(TIP), goal_at(goal), Start(np.zeros(3)), torch.Generator().manual_seed(0), lambda: 0.0)


def towards(plan, goal=FAR) -> float:
    """[m] that a plan goes towards the goal."""
    return float((plan.dt_s * plan.tip_velocity.sum(0)) @ (goal - TIP) / np.linalg.norm(goal - TIP))


def test_a_search_goes_where_its_critic_is_blind(profile):
    """Beyond what the critic counts all motions cost the same, but for effort; with sub-goals the search goes straight ahead."""
    model = ShortSighted(profile)
    with_them, without = (plan(profile, model, policy="search", subgoals=on) for on in (True, False))
    assert towards(with_them) > 0.12 and abs(towards(without)) < 0.03
    np.testing.assert_allclose(with_them.subgoal, TIP + np.array([0, 3 * BLOCK_M, 0]), atol=1e-6)
    assert without.subgoal is None


def test_the_distance_that_is_told_is_the_goals_own(profile):
    """Whoever follows the pursuit hears how far the goal is, not its sub-goal."""
    found = plan(profile, ShortSighted(profile), policy="search")
    assert found.distance == pytest.approx(SEES * 0.3)


@pytest.mark.parametrize("policy", ["actor", "random"])
def test_what_does_not_search_pursues_the_goal_itself(profile, policy):
    """The actor alone and the random floor are what they are called."""
    assert plan(profile, ShortSighted(profile), policy=policy).subgoal is None


def test_near_goals_and_models_without_them_have_none(profile):
    """Three blocks from the goal it is pursued itself; a model that proposes none, or none at all, plans as ever."""
    near = TIP + np.array([0.0, 3 * BLOCK_M, 0.0])
    assert plan(profile, ShortSighted(profile), goal=near, policy="search").subgoal is None
    silent = ShortSighted(profile)
    silent.subgoal_ways = 0
    assert not isinstance(ToyModel(profile), Subgoals)
    for model in (silent, ToyModel(profile)):
        assert plan(profile, model, policy="search").subgoal is None


def test_a_sub_goal_that_leads_away_is_not_pursued(profile):
    """Judged by the critic from where it would be."""
    model = ShortSighted(profile)
    model.subgoals = lambda latent, proprio, goal, k: ((latent - torch.tensor([0, 3 * BLOCK_M, 0]))[:, None], proprio[:, None])
    latent, proprio = torch.as_tensor(TIP, dtype=torch.float32)[None], torch.zeros(1, 12)
    near = Goal(tip=TIP + np.array([0, BLOCK_M, 0]))
    assert next_subgoal(near, latent, proprio, 1.0, model) is None


def test_what_a_goal_demands_besides_holds_for_its_sub_goals(profile):
    """Keep-outs and the cap of the tip's speed are kept; the place itself is the sub-goal's."""
    latent, proprio = torch.as_tensor(TIP, dtype=torch.float32)[None], torch.zeros(1, 12)
    goal = Goal(tip=FAR, tip_speed_max=0.1, objective="to_go")
    found = next_subgoal(goal, latent, proprio, 5.0, ShortSighted(profile))
    assert (found.tip_speed_max, found.objective) == (0.1, "to_go") and found.tip is None and found.object is None
    assert found.latent.dtype == np.float32
