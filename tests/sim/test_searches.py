"""The comparison of ways to search: equal beginnings, costs that only fall, and figures for each method."""

import pytest
import torch

from foresight.agent import Agent
from foresight.data import Start
from foresight.planning.config import PlannerConfig
from foresight.planning.imagination import Imagination
from foresight.planning.planner import Planner
from foresight.planning.search.cem import Cem
from foresight.robots.profile import load_profile
from foresight.world_model.model import ModelConfig, WorldModel
from sim.scenes import contract
from sim.searches import SearchesConfig, bench, methods, search, summary
from sim.simulation import Simulation
from tests.planning.toy import ToyModel, belief_at, goal_at

ROUNDS = 6


@pytest.fixture
def imagination(profile) -> Imagination:
    planner, belief = Planner(ToyModel(profile), profile), belief_at((0.45, 0.0, 0.10))
    latent, proprio = torch.from_numpy(belief.latent)[None], torch.from_numpy(belief.proprio)[None]
    start, goal = Start(belief.tip_velocity.astype(float)), goal_at((0.43, 0.16, 0.09))
    return Imagination(
        planner.model, planner.limits, planner.config, latent, proprio, goal, start, planner.objective_of(goal)
    )


def test_every_method_finds_more_in_later_rounds_from_the_same_beginning(imagination):
    """All know the same after the first round; each is cheaper in the end, and never dearer on the way."""
    found = {name: search(m, imagination, ROUNDS, torch.Generator().manual_seed(1))[0] for name, m in methods(64).items()}
    assert len({cost[0] for cost in found.values()}) == 1
    for name, cost in found.items():
        assert len(cost) == ROUNDS and cost == sorted(cost, reverse=True) and cost[-1] < cost[0], name


def test_other_draws_other_beginnings(imagination):
    """What is equal is equal for the seed's sake."""
    one, other = (search(Cem(64, 6), imagination, 1, torch.Generator().manual_seed(seed))[0] for seed in (1, 2))
    assert one != other


def build(config: SearchesConfig):
    """As the bench's own, with a small untrained model."""
    torch.manual_seed(0)
    sizes = ModelConfig(latent=8, encoder_width=4, predictor_width=16, predictor_depth=1, head_width=16, max_blocks=4)
    simulation = Simulation(0, load_profile("ur5e"))
    model = WorldModel(contract(simulation.profile), sizes).eval().requires_grad_(False)
    return simulation, Agent(model, "ur5e", PlannerConfig(deadline_s=float("inf")))


def test_the_figures_have_every_method_in_every_round():
    """Costs and times by round, standing still and the shipped planner beside them; the same seeds, the same costs."""
    config, threads = SearchesConfig(scenes=1, samples=16, rounds=3), torch.get_num_threads()
    built = build(config)
    found, again = (bench(config, build=lambda config: built) for _ in range(2))
    assert torch.get_num_threads() == threads
    assert [row["method"] for row in found["rows"]] == list(methods(16))
    for row, repeated in zip(found["rows"], again["rows"], strict=True):
        assert row["cost"] == repeated["cost"] and len(row["cost"]) == len(row["ms"]) == 3
        assert row["ms"] == sorted(row["ms"]) and row["cost"][-1] <= found["still"]  # the first candidate stands still
    assert all(name in summary(found) for name in (*methods(16), "standing still", "planner as shipped"))


@pytest.mark.parametrize("change", [{"scenes": 0}, {"samples": 1}, {"rounds": 0}, {"task": ()}, {"seed": 10_000}])
def test_nonsense_is_refused(change):
    """The flag stands in the message."""
    with pytest.raises(ValueError, match="--" + next(iter(change))):
        SearchesConfig(**change)
