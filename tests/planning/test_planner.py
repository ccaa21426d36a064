"""The planner in a world whose best plan is known."""

from itertools import product
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from foresight.data import Plan, Start
from foresight.planning.config import PlannerConfig
from foresight.planning.planner import Planner
from foresight.planning.search import Method
from tests.planning.toy import BLOCK_M, ToyModel, belief_at, goal_at

TIP, AHEAD = np.array([0.45, 0.0, 0.10]), np.array([0.45, 0.15, 0.10])


def run(
    profile, tip=TIP, goal=AHEAD, start=None, seed=0, clock=lambda: 0.0, bias=(0.0, 0.0, 0.0), previous=None, **config
) -> Plan:
    planner = Planner(ToyModel(profile, bias), profile, PlannerConfig(**config))
    start = start or Start(np.zeros(3))
    return planner.plan(
        belief_at(tip, start.velocity), goal_at(goal), start, torch.Generator().manual_seed(seed), clock, previous
    )


def positions(plan: Plan, tip=TIP, velocity=np.zeros(3)) -> np.ndarray:
    v = np.vstack([velocity, plan.tip_velocity])
    return tip + np.cumsum(plan.dt_s * (v[:-1] + v[1:]) / 2, axis=0)


@pytest.mark.parametrize("policy", ["both", "actor", "search"])
def test_every_policy_moves_towards_the_goal_in_a_straight_line(profile, policy):
    """In the toy world the best motion is the straight one; each way of choosing finds nearly that."""
    path = positions(run(profile, policy=policy))
    assert np.linalg.norm(path[-1] - AHEAD) < 0.35 * np.linalg.norm(TIP - AHEAD)
    assert np.abs(path[:, [0, 2]] - TIP[[0, 2]]).max() < (0.05 if policy == "search" else 0.02)


@pytest.mark.parametrize("method", get_args(Method))
def test_any_way_to_search_can_refine_and_search(profile, method):
    """With an actor that drifts aside each brings the plan nearer to the best; without one each gets nearer."""
    drifting = {"bias": (0.05, 0.0, 0.0), "improvement": 0.0, "iterations": 4}
    proposed = run(profile, **{**drifting, "iterations": 0})
    refined = run(profile, refine_method=method, **drifting)
    assert refined.source == "search" and refined.cost < proposed.cost - 1e-4
    searched = run(profile, policy="search", search_method=method, search_iterations=8)
    left = np.linalg.norm(positions(searched)[-1] - AHEAD)
    assert left < 0.8 * np.linalg.norm(TIP - AHEAD)


def test_icem_draws_coloured_noise_the_others_blockwise(profile):
    """Hardly anything of it changes from step to step, in refinements as in searches; else a fifth of the variance does."""
    shares = {}
    for method, policy in product(("icem", "cem"), ("both", "search")):
        noisy = {"refine_method": method, "search_method": method, "refine_noise": 0.01, "search_noise": 0.01}
        planner, seen = Planner(ToyModel(profile), profile, PlannerConfig(policy=policy, search_iterations=1, **noisy)), []
        planner.watch = lambda objective, foreseen, imagined, seen=seen: seen.append(foreseen.velocities)
        planner.plan(belief_at(TIP), goal_at(TIP), Start(np.zeros(3)), torch.Generator().manual_seed(0), lambda: 0.0)
        power = torch.fft.rfft(seen[-1], dim=1).abs().square().mean((0, 2))
        shares[method, policy] = float(power[-3:].sum() / power.sum())
    assert max(shares["icem", p] for p in ("both", "search")) < 0.02 < 0.1 < min(shares["cem", p] for p in ("both", "search"))


def test_random_motion_ignores_the_goal(profile):
    """The random floor moves the same whatever the goal is."""
    there, elsewhere = (run(profile, goal=g, policy="random").tip_velocity for g in (AHEAD, TIP - [0, 0.15, 0]))
    np.testing.assert_array_equal(there, elsewhere)


def test_same_seed_same_plan(profile):
    """The same seed and the same inputs give the same plan; another seed gives another."""
    a, b, c = (run(profile, seed=seed, policy="search") for seed in (3, 3, 4))
    np.testing.assert_array_equal(a.tip_velocity, b.tip_velocity)
    assert a.terms == b.terms
    assert not np.array_equal(a.tip_velocity, c.tip_velocity)


@pytest.mark.parametrize("policy", ["both", "actor", "search", "reactive", "random"])
def test_plans_respect_speed_acceleration_and_workspace(profile, policy):
    """Physical limits hold at every knot, also when the goal lies behind a wall of the workspace."""
    tip, goal = np.array([0.45, 0.33, 0.03]), np.array([0.45, 0.9, -0.4])
    plan = run(profile, tip=tip, goal=goal, policy=policy)
    speeds = np.linalg.norm(plan.tip_velocity, axis=1)
    changes = np.linalg.norm(np.diff(np.vstack([np.zeros(3), plan.tip_velocity]), axis=0), axis=1)
    path = positions(plan, tip)
    assert speeds.max() <= 0.25 + 1e-6
    assert changes.max() <= 1.5 * plan.dt_s + 1e-6
    assert (path >= profile.workspace_min).all() and (path <= profile.workspace_max).all()


def test_at_the_goal_the_arm_stays(profile):
    """Where nothing is to be gained the cheapest motion is none."""
    plan = run(profile, goal=TIP)
    assert np.abs(plan.tip_velocity).max() < 0.02


def test_committed_motion_is_kept(profile):
    """Steps that the arm is already bound to are part of every candidate, not searched over."""
    committed = np.array([[-0.1, 0.0, 0.0], [-0.05, 0.0, 0.0]])
    plan = run(profile, start=Start(np.array([-0.12, 0.0, 0.0]), committed))
    np.testing.assert_allclose(plan.tip_velocity[:2], committed, atol=1e-6)


def test_refinement_repairs_a_wrong_actor(profile):
    """Sampling in imagination finds a cheaper motion than an actor that drifts; it never returns a dearer one."""
    drift = (0.012, 0.0, 0.0)
    alone, both = run(profile, bias=drift, iterations=0), run(profile, bias=drift, iterations=3, samples=128)
    assert both.source == "search"
    assert both.cost < alone.cost - 0.1


def test_the_last_plan_is_tried_again(profile):
    """A good plan is kept as time goes on: with a useless actor the shifted last plan wins."""
    good = run(profile, iterations=0)
    away = (0.0, -0.05, 0.0)
    velocity = good.tip_velocity[0]
    later = Planner(ToyModel(profile, away), profile, PlannerConfig(iterations=0)).plan(
        belief_at(positions(good)[0], velocity, stamp_s=0.1),
        goal_at(AHEAD),
        Start(velocity),
        torch.Generator().manual_seed(0),
        lambda: 0.0,
        good,
    )
    assert later.source == "last"


def test_a_search_without_an_actor_goes_on_from_the_last_plan(profile):
    """The motion that is left of it is the first candidate, about which the others lie; without one that is standing still."""
    good, velocity = run(profile, iterations=0), np.zeros(3)
    planner, seen = Planner(ToyModel(profile), profile, PlannerConfig(policy="search", search_iterations=1)), []
    planner.watch = lambda objective, foreseen, imagined: seen.append(imagined.controls.numpy())
    for previous in (good, None):
        belief = belief_at(positions(good)[0], velocity := good.tip_velocity[0], stamp_s=0.1)
        planner.plan(belief, goal_at(AHEAD), Start(velocity), torch.Generator().manual_seed(0), lambda: 0.0, previous)
    left = np.concatenate([good.tip_velocity[1:], np.zeros((1, 3))])
    np.testing.assert_allclose(seen[0][0], left, atol=1e-6)
    assert np.linalg.norm(seen[0].mean(0) - left) < 0.5 * np.linalg.norm(seen[1].mean(0) - left)


def test_no_refinement_begins_after_the_deadline(profile):
    """The deadline leaves the proposals' best plan: late is never an option."""
    ticks = iter(np.arange(0, 100, 0.05))
    in_time = run(profile, iterations=5, samples=32, deadline_s=10.0)
    late = run(profile, iterations=5, samples=32, deadline_s=0.06, clock=lambda: float(next(ticks)))
    assert in_time.candidates - late.candidates == 5 * 32
    assert np.isfinite(late.cost)


@pytest.mark.parametrize("policy", ["both", "search"])
def test_a_search_whose_elites_agree_tries_fewer_candidates(profile, policy):
    """`agreement` ends refinements as it ends searches; at 0 all rounds are made."""
    rounds = {"policy": policy, "refine_method": "cem", "iterations": 5, "search_iterations": 5}
    all_of_them, fewer = (run(profile, agreement=agreement, **rounds).candidates for agreement in (0.0, 10.0))
    assert all_of_them - fewer == 4 * (PlannerConfig.samples if policy == "both" else PlannerConfig.search_samples)


def test_distance_is_seconds_to_go(profile):
    """The critic's blocks come out in seconds."""
    assert run(profile).distance == pytest.approx(0.15 / BLOCK_M * 0.3, rel=1e-4)


def test_a_belief_of_another_model_is_refused(profile):
    """Both ids stand in the message."""
    planner = Planner(ToyModel(profile), profile)
    stranger = belief_at(TIP)
    object.__setattr__(stranger, "model_id", "abc")
    with pytest.raises(ValueError, match=r"'abc'.*'toy'"):
        planner.plan(stranger, goal_at(AHEAD), Start(np.zeros(3)), torch.Generator(), lambda: 0.0)


def test_a_belief_with_nan_is_refused(profile):
    """A belief that is not finite makes no plan."""
    with pytest.raises(ValueError, match="not finite"):
        run(profile, tip=np.array([np.nan, 0.0, 0.1]))


@pytest.mark.parametrize("field, value", [("horizon", 0), ("deadline_s", 0.0), ("aims", ()), ("elites", 1000), ("elites", 1)])
def test_nonsense_configuration_is_refused(field, value):
    """The message names the field."""
    with pytest.raises(ValueError, match="(?i)" + field):
        PlannerConfig(**{field: value})


def test_a_horizon_longer_than_the_models_critic_counts_is_refused(profile):
    """Both numbers stand in the message; as long as that is allowed."""
    model = ToyModel(profile)
    model.config = SimpleNamespace(max_blocks=3)
    with pytest.raises(ValueError, match=r"at most 3 blocks.*got 4"):
        Planner(model, profile, PlannerConfig(horizon=4))
    assert Planner(model, profile, PlannerConfig(horizon=3)).steps == 9


def test_a_horizon_far_beyond_what_training_imagined_brings_a_warning(profile, recwarn):
    """With both numbers and what to do; one block more, as shipped, brings none, and a model that tells nothing neither."""
    model = ToyModel(profile)
    model.config = SimpleNamespace(max_blocks=16, imagined_blocks=3)
    Planner(model, profile), Planner(ToyModel(profile), profile, PlannerConfig(horizon=16))
    assert not recwarn
    with pytest.warns(RuntimeWarning, match=r"horizon is 5 blocks; training imagined 3.*Set horizon to 4"):
        assert Planner(model, profile, PlannerConfig(horizon=5)).steps == 15


class Blind(ToyModel):
    """Has no dynamics, as a model that learned by behaviour cloning."""

    foresees = False

    def imagine(self, latent, proprio, block):
        raise AssertionError("nothing is to be imagined")


def test_reactive_control_is_the_actors_first_block(profile):
    """The same motion as the actor's first block, under the same limits; nothing is imagined."""
    alone = run(profile, policy="actor")
    planner = Planner(Blind(profile), profile, PlannerConfig(policy="reactive"))
    plan = planner.plan(belief_at(TIP), goal_at(AHEAD), Start(np.zeros(3)), torch.Generator(), lambda: 0.0)
    steps = planner.contract.block_steps
    np.testing.assert_array_equal(plan.tip_velocity, alone.tip_velocity[:steps])
    assert plan.imagined.shape[0] == 0 and plan.source == "actor" and plan.distance == alone.distance


def test_without_dynamics_only_reactive_and_random_motion_are_left(profile):
    """The others are refused in one line that names the way out."""
    for policy in ("both", "actor", "search"):
        with pytest.raises(ValueError, match=r"no trained dynamics.*'reactive'") as told:
            Planner(Blind(profile), profile, PlannerConfig(policy=policy))
        assert "\n" not in str(told.value)
    plan = Planner(Blind(profile), profile, PlannerConfig(policy="random")).plan(
        belief_at(TIP), goal_at(AHEAD), Start(np.zeros(3)), torch.Generator(), lambda: 0.0
    )
    assert np.abs(plan.tip_velocity).max() > 0


def test_an_actor_that_learned_in_imagination_is_needed_for_its_policy(profile):
    """A model without one is refused; one that has it plans with that actor and critic in the others' places."""
    with pytest.raises(ValueError, match=r"--model\.dreamt"):
        Planner(ToyModel(profile), profile, PlannerConfig(policy="dreamt"))

    class Dreamer(ToyModel):
        def dreaming(self):
            return ToyModel(self.profile, (0.005, 0.0, 0.0))

    Dreamer.profile = profile
    plan = Planner(Dreamer(profile), profile, PlannerConfig(policy="dreamt")).plan(
        belief_at(TIP), goal_at(AHEAD), Start(np.zeros(3)), torch.Generator(), lambda: 0.0
    )
    np.testing.assert_array_equal(plan.tip_velocity, run(profile, policy="actor", bias=(0.005, 0.0, 0.0)).tip_velocity)
