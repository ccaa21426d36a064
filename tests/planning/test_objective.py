"""What a motion costs: the terms by their formulas, the text that people edit, and the shipped objective bit for bit."""

import numpy as np
import pytest
import torch

from foresight.data import Box, Goal, Start
from foresight.planning.config import PlannerConfig
from foresight.planning.objective import DEFAULT, NORMS, Objective, parse
from foresight.planning.planner import Planner
from foresight.planning.residuals import KEPT_M, KINDS, Foreseen, Scales
from tests.planning.toy import ToyModel, belief_at, goal_at

S, H, K = 5, 4, 3
GOAL, BESIDE = np.array([0.43, 0.16, 0.09]), np.array([0.0, 0.1, 0.0])  # BESIDE: from the toy's tip to its object
WALL = Box("wall", np.array([0.40, 0.05, 0.0]), np.array([0.50, 0.08, 0.2]))


class Doubtful(ToyModel):
    """Three critics that differ the more the further the tip is along y, and readouts of a number each."""

    critics = 3
    reads = frozenset({"yaw", "opening", "contact"})

    def read_yaw(self, latent):
        return 0.1 * latent[..., 0]

    def read_opening(self, proprio):
        return proprio[..., 0]

    def read_contact(self, latent):
        return latent[..., 2].sigmoid()

    def spread(self, latent, proprio, goal):
        return latent[:, 1].abs()


@pytest.fixture
def foreseen(profile) -> Foreseen:
    draw = lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))  # noqa: E731
    tips, velocities = 0.45 + 0.1 * draw(S, H * K, 3), 0.1 * draw(S, H * K, 3)
    goal = Goal(latent=GOAL.astype(np.float32), tip=GOAL, object=GOAL + 0.1, yaw=0.1, opening=0.5, contact=True)
    start = torch.tensor([0.01, 0.0, 0.02])
    return Foreseen(
        draw(S, H).abs() * 2, draw(S, H, 3), draw(S, H, 12), tips, velocities, start, goal, Doubtful(profile),
        Scales(0.1, K, 0.2, 1.2), (WALL,),
    )  # fmt: skip


def as_it_was(to_go, velocities, start_velocity, step_s) -> dict[str, torch.Tensor]:
    """The cost before it was an objective that can be edited: what a goal without an object is judged by, as shipped."""
    weight = 1 + 1.0 * torch.arange(to_go.shape[1], dtype=to_go.dtype, device=to_go.device)
    changes = torch.diff(torch.cat([start_velocity.expand(len(velocities), 1, 3), velocities], 1), dim=1)
    return {
        "to_go": (to_go * weight).sum(1) / weight.sum(),
        "effort": 0.08 * velocities.norm(dim=-1).mean(1) / 0.20,
        "smooth": 0.08 * changes.norm(dim=-1).mean(1) / (1.2 * step_s),
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_the_default_objective_costs_what_it_always_did_bit_for_bit(foreseen):
    """Same terms, same order, same bits, of a goal that wants no object anywhere."""
    own = parse(PlannerConfig().objective)
    found = own.fitting(goal_at(GOAL), own).score(foreseen)
    assert same(found, as_it_was(foreseen.to_go, foreseen.velocities, foreseen.start_velocity, 0.1))


@pytest.mark.parametrize("policy", ["both", "search", "actor"])
def test_default_plans_are_those_of_the_old_formula_bit_for_bit(profile, policy, monkeypatch):
    """The whole planner with the formula written out above in place of the objective gives the same plans."""

    def plans():
        planner = Planner(ToyModel(profile, (0.012, 0.0, 0.0)), profile, PlannerConfig(policy=policy))
        previous = None
        for i in range(4):
            tip = np.array([0.45, 0.02 * i, 0.10])
            belief, start = belief_at(tip, (0.02, 0.0, 0.0), 0.1 * i), Start(np.array([0.02, 0.0, 0.0]))
            previous = planner.plan(
                belief, goal_at(GOAL), start, torch.Generator().manual_seed(i), lambda: 0.0, previous if i % 2 else None
            )
            yield previous

    now = list(plans())
    monkeypatch.setattr(Objective, "score", lambda self, f: as_it_was(f.to_go, f.velocities, f.start_velocity, f.scales.step_s))
    for new, old in zip(now, plans(), strict=True):
        np.testing.assert_array_equal(new.tip_velocity, old.tip_velocity)
        assert (new.cost, new.terms) == (old.cost, old.terms)


def test_terms_are_norms_of_residuals_over_their_scales(foreseen):
    """Each formula worked out a second time, in numpy."""
    f, block_m = foreseen, 0.2 * 0.1 * K
    ends = f.positions[:, K - 1 :: K].numpy()
    expected = {
        "time": f.to_go.clamp(0, 1).mean(1).numpy(),
        "latent": (np.linalg.norm(f.latents.numpy() - GOAL, axis=-1) / np.sqrt(3)).mean(1),
        "tip": (np.linalg.norm(ends - GOAL, axis=-1) / block_m).mean(1),
        "object": (np.maximum(np.linalg.norm(f.latents.numpy() + BESIDE - GOAL - 0.1, axis=-1) - 0.01, 0) / block_m).mean(1),
        "keep_out": np.mean(
            [np.maximum(0.0, KEPT_M - WALL.distance(way.numpy().astype(float))) / KEPT_M for way in f.positions], axis=1
        ),
    }
    found = parse(" + ".join(expected)).score(f)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("off_m", "counts_m"), [(0.0, 0.0), (0.009, 0.0), (0.03, 0.02)])
def test_an_object_is_blamed_for_what_readouts_can_tell_alone(foreseen, off_m, counts_m):
    """A hand at rest does not fidget for less than a centimetre, which is mostly noise."""
    at = torch.tensor(GOAL + 0.1 - BESIDE + np.array([off_m, 0.0, 0.0]), dtype=torch.float32).expand(S, H, 3)
    cost = parse("object").score(Foreseen(**{**foreseen.__dict__, "latents": at}))["object"]
    np.testing.assert_allclose(cost, counts_m / (0.2 * 0.1 * K), atol=1e-5)


def test_norms_weights_and_growth_do_what_they_say(foreseen):
    """l1 and square of the same residual, a weight in front, and later looks that count more."""
    v = foreseen.velocities.numpy() / 0.2
    cost = lambda text: parse(text).score(foreseen)["effort"]  # noqa: E731
    np.testing.assert_allclose(cost("3*effort(norm=l1)"), 3 * np.abs(v).sum(-1).mean(1), rtol=1e-5)
    np.testing.assert_allclose(cost("effort(norm=square)"), np.square(v).sum(-1).mean(1), rtol=1e-5)
    share = 1 + 0.5 * np.arange(H * K)
    np.testing.assert_allclose(cost("effort(growth=0.5)"), (np.linalg.norm(v, axis=-1) * share).sum(1) / share.sum(), rtol=1e-5)


def test_goal_images_tell_tip_and_object_where_they_are_not_told(foreseen):
    """The readout of the goal's latent stands in for a position that was not given."""
    seen = Foreseen(**{**foreseen.__dict__, "goal": Goal(latent=GOAL.astype(np.float32))})
    told = Foreseen(**{**foreseen.__dict__, "goal": Goal(tip=GOAL, object=GOAL + BESIDE)})
    for name in ("tip", "object"):
        torch.testing.assert_close(parse(name).score(seen)[name], parse(name).score(told)[name])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("norm", NORMS)
def test_every_term_has_a_finite_cost_and_gradient_and_a_course_over_the_horizon(foreseen, name, norm):
    """A gradient search can go through each; the cost is the mean of its course."""
    velocities = foreseen.velocities.clone().requires_grad_()
    moved = Foreseen(**{**foreseen.__dict__, "velocities": velocities, "positions": foreseen.positions + velocities})
    objective = parse(f"0.5*{name}(norm={norm})")
    cost = objective.score(moved)[name]
    assert cost.shape == (S,) and torch.isfinite(cost).all()
    torch.testing.assert_close(objective.along(moved)[name].mean(1), cost)
    if cost.requires_grad:
        (gradient,) = torch.autograd.grad(cost.sum(), velocities, allow_unused=True)
        assert gradient is None or torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    "text", [DEFAULT, "tip", "2*tip(norm=square) + 1e-3*effort+0.5 * time ( growth=2 )", "1e+2*keep_out + to_go"]
)
def test_an_objective_can_be_written_and_read_again(text):
    """What `str` writes, `parse` reads to the same."""
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "at least one term"),
        ("0*to_go", "at least one term"),
        ("to_go + luck", "'luck'.*unknown.*to_go"),
        ("nan*to_go", "weight of term 'to_go' must be 0 or a finite number.*nan"),
        ("inf*to_go", "finite"),
        ("-1*to_go", r"0 or a finite number from 1e-06 to 1e\+06, got -1"),
        ("1e-300*effort + 0*to_go", "weight of term 'effort'.*got 1e-300"),
        ("to_go(growth=1, growth=2)", "Option 'growth' of term 'to_go' stands twice"),
        ("1e39*to_go", r"weight of term 'to_go'.*to 1e\+06, got 1e\+39"),
        ("much*to_go", "must be a finite number.*'much'"),
        ("to_go(growth=nan)", "growth of term 'to_go'"),
        ("to_go(norm=l9)", "Norm 'l9'.*l2"),
        ("to_go(depth=1)", "Option 'depth=1'.*norm"),
        ("to_go + to_go", "twice"),
        ("to_go +", "cannot be read"),
        ("to_go effort", "cannot be read"),
        ("__import__('os')", "unknown"),
        ("/etc/passwd", "cannot be read"),
        ("x" * 100_000, "1000 characters, got 100000"),
    ],
)
def test_a_bad_edit_is_refused_with_one_line(text, words):
    """What is wrong, what is expected, what there is."""
    with pytest.raises(ValueError, match=words) as error:
        PlannerConfig(objective=text)
    assert "\n" not in str(error.value)


def test_the_plan_shows_the_terms_of_the_objective_in_force(profile):
    """The planner's own, an edit of it between two plans, and a goal's own before both."""
    planner = Planner(ToyModel(profile), profile, PlannerConfig(objective="to_go + 0.5*time"))
    terms = lambda goal: list(  # noqa: E731
        planner.plan(belief_at(GOAL - 0.1), goal, Start(np.zeros(3)), torch.Generator(), lambda: 0.0).terms
    )
    assert terms(goal_at(GOAL)) == ["to_go", "time"]
    planner.objective = parse("tip")
    assert terms(goal_at(GOAL)) == ["tip"]
    assert terms(Goal(tip=GOAL, objective="tip + smooth")) == ["tip", "smooth"]


def test_the_planners_own_terms_count_where_the_goal_has_what_they_look_at(profile):
    """The object is weighed where one is wanted and weighs something, told or shown; a goal's own terms must all fit it."""
    planner = Planner(ToyModel(profile), profile, PlannerConfig())
    terms = lambda goal: [term.name for term in planner.objective_of(goal).terms]  # noqa: E731
    assert terms(goal_at(GOAL)) == ["to_go", "effort", "smooth"]
    assert "object" in terms(Goal(object=GOAL)) and "object" in terms(Goal(latent=GOAL.astype(np.float32)))
    assert "object" not in terms(Goal(latent=GOAL.astype(np.float32), object=GOAL, tip=GOAL, weights=(0.0, 1.0, 0.0)))
    with pytest.raises(ValueError, match=r"'object'.*needs a goal with object or latent"):
        goal = Goal(tip=GOAL, objective="to_go + object")
        planner.plan(belief_at(GOAL), goal, Start(np.zeros(3)), torch.Generator(), lambda: 0.0)


def test_a_goal_without_what_the_objective_looks_at_makes_no_plan(profile):
    """The sentence names the term and what the goal lacks."""
    planner = Planner(ToyModel(profile), profile, PlannerConfig(objective="object + effort"))
    with pytest.raises(ValueError, match=r"'object'.*needs a goal with object or latent"):
        planner.plan(belief_at(GOAL), goal_at(GOAL), Start(np.zeros(3)), torch.Generator(), lambda: 0.0)


@pytest.mark.parametrize(("text", "leads"), [("effort", False), ("0*to_go + smooth + keep_out", False), ("effort + tip", True)])
def test_an_objective_that_is_not_about_the_goal_is_refused(profile, text, leads):
    """By the planner at once, by an edit and by a goal that brings it; the sentence names the terms that would do."""
    said = parse(text).refusal(ToyModel(profile), goal_at(GOAL))
    assert (said is None) == leads and (leads or "Add one of to_go, time, latent, tip, object" in said)
    planner = Planner(ToyModel(profile), profile, PlannerConfig())
    plan = lambda: planner.plan(  # noqa: E731
        belief_at(GOAL), Goal(tip=GOAL, objective=text), Start(np.zeros(3)), torch.Generator(), lambda: 0.0
    )
    if leads:
        assert "tip" in plan().terms
    else:
        with pytest.raises(ValueError, match="is about the goal"):
            plan()


def test_risk_is_how_far_the_critics_differ(foreseen, profile):
    """By its formula, and in the plan: motions that lead where less is known are shunned."""
    assert torch.equal(parse("2*risk").score(foreseen)["risk"], 2 * foreseen.latents[..., 1].abs().mean(1))
    tip, ways = np.array([0.45, 0.0, 0.10]), []
    for objective in ("to_go(growth=1)", "to_go(growth=1) + 100*risk"):
        planner = Planner(Doubtful(profile), profile, PlannerConfig(objective=objective))
        plan = planner.plan(belief_at(tip), goal_at(GOAL), Start(np.zeros(3)), torch.Generator().manual_seed(0), lambda: 0.0)
        ways.append(np.abs(plan.tip_velocity[:, 1]).sum())
    assert ways[1] < 0.3 * ways[0]


def test_risk_needs_several_critics(profile):
    """A model with one is refused by the planner at once, and by an edit while it runs."""
    with pytest.raises(ValueError, match=r"'risk'.*needs a model with several critics"):
        Planner(ToyModel(profile), profile, PlannerConfig(objective="to_go + risk"))
    assert parse("to_go + risk").refusal(Doubtful(profile), goal_at(GOAL)) is None
    planner = Planner(ToyModel(profile), profile)
    with pytest.raises(ValueError, match="several critics"):
        planner.plan(
            belief_at(GOAL), Goal(tip=GOAL, objective="risk"), Start(np.zeros(3)), torch.Generator(), lambda: 0.0
        )


def test_an_objective_of_the_tip_alone_finds_the_goal_without_a_critic(profile):
    """Where the critic says nothing, the readable distance leads as well."""

    class Blind(ToyModel):
        def blocks_to_go(self, latent, proprio, goal):
            return torch.ones(len(latent))

    tip = np.array([0.45, 0.0, 0.10])
    planner = Planner(Blind(profile, (0.0, -0.05, 0.0)), profile, PlannerConfig(policy="search", objective="tip(growth=1)"))
    plan = planner.plan(belief_at(tip), goal_at(GOAL), Start(np.zeros(3)), torch.Generator().manual_seed(0), lambda: 0.0)
    v = np.vstack([np.zeros(3), plan.tip_velocity])
    end = tip + (0.1 * (v[:-1] + v[1:]) / 2).sum(0)
    assert np.linalg.norm(end - GOAL) < 0.35 * np.linalg.norm(tip - GOAL)
