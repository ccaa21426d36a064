"""An actor that knows several ways: what it learns where episodes went either, and what the planner makes of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from foresight.data import Goal, Start
from foresight.interfaces import Modes
from foresight.planning.config import PlannerConfig
from foresight.planning.planner import Planner
from foresight.training.imitation import imitation_error, modes_apart, nearest
from foresight.world_model.model import ModelConfig, WorldModel
from tests.planning.toy import ToyModel, belief_at

SIZES = ModelConfig(latent=8, encoder_width=4, predictor_width=16, predictor_depth=1, head_width=32, max_blocks=4)


def made(profile, modes: int) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(ToyModel(profile).contract, replace(SIZES, modes=modes))


def taught(model: WorldModel, steps: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """From one state the tip went left as often as right; the features and the model's errors at the end."""
    generator = torch.Generator().manual_seed(1)
    features = torch.zeros(64, model.critic[0].in_features)
    side = torch.tensor([1.0, -1.0]).repeat(32)
    optimiser = torch.optim.Adam(model.actor.parameters(), 3e-3)
    for _ in range(steps):
        block = side[:, None] * torch.tensor([0.0, 1.0, 0.0]).repeat(3) + 0.05 * torch.randn(64, 9, generator=generator)
        errors = imitation_error(model, features, torch.ones(64), block)
        optimiser.zero_grad()
        errors.mean().backward()
        optimiser.step()
    return features, errors.detach()


def test_one_motion_is_the_mean_of_two_ways_and_two_are_the_ways(profile):
    """With one the actor goes straight ahead, where nobody went; with two it goes left or right."""
    one, two = made(profile, 1), made(profile, 2)
    features, _ = taught(one)
    assert one.act(features[:1], torch.ones(1)).abs().max() < 0.2 and modes_apart(one, features, torch.ones(64)) == 0
    features, errors = taught(two)
    motions, odds = two.act_each(features[:1], torch.ones(1))
    assert sorted(motions[0, :, 1].tolist()) == pytest.approx([-1.0, 1.0], abs=0.15)
    assert odds.shape == (1, 2) and float(odds.softmax(-1).min()) > 0.3, "either is as likely"
    assert modes_apart(two, features, torch.ones(64)) > 0.5 and errors.mean() < 0.4
    assert two.act(features[:1], torch.ones(1))[0, 1].abs() > 0.8, "alone it takes one of them"


def test_one_mode_is_what_it_was(profile):
    """The error of an actor with one motion is the squared error, and its proposals are those that it always made."""
    model = made(profile, 1)
    features, k, block = torch.randn(5, model.critic[0].in_features), torch.ones(5), torch.randn(5, 9)
    with torch.no_grad():
        expected = (model.act(features, k) - block).square().mean(-1)
        torch.testing.assert_close(imitation_error(model, features, k, block), expected)
        z, p, goal = torch.randn(3, 8), torch.randn(3, 12), Goal(tip=np.array([0.4, 0.0, 0.1]))
        assert torch.equal(model.propose_each(z, p, goal, torch.ones(3))[:, 0], model.propose(z, p, goal, torch.ones(3)))
    errors = torch.rand(4, 1)
    assert torch.equal(nearest(errors), errors[:, 0])


class Forked(ToyModel):
    """Knows two ways: straight through a wall that makes the critic despair, and round it; the straight one is likelier."""

    modes = 2

    def propose_each(self, latent, proprio, goal, k):
        straight = super().propose(latent, proprio, goal, k)
        aside = straight + torch.tensor([0.0, 0.0, 0.02]).repeat(3)
        return torch.stack([straight, aside], 1)

    def blocks_to_go(self, latent, proprio, goal):
        way = super().blocks_to_go(latent, proprio, goal)
        return way + 5.0 * ((latent[:, 2] < 0.13) & (latent[:, 1] > 0.0))


def test_the_planner_compares_the_ways_that_an_actor_knows(profile):
    """It takes the one that the critic prefers in imagination; of a likelier actor alone it would be the other."""
    tip, goal = np.array([0.45, -0.10, 0.10]), Goal(tip=np.array([0.45, 0.15, 0.10]))
    model = Forked(profile)
    assert isinstance(model, Modes)
    config = PlannerConfig(iterations=0, noisy_per_aim=0)
    found = []
    for known in (model, ToyModel(profile)):
        known.blocks_to_go = lambda z, p, g: Forked.blocks_to_go(model, z, p, g)
        plan = Planner(known, profile, config).plan(
            belief_at(tip), goal, Start(np.zeros(3)), torch.Generator().manual_seed(0), lambda: 0.0
        )
        found.append(plan)
    aside, straight = found
    assert aside.candidates == straight.candidates + len(config.aims)
    assert aside.tip_velocity[:, 2].max() > 0.02 and aside.source == "actor"
    assert np.abs(straight.tip_velocity[:, 2]).max() < 0.01 and aside.cost < straight.cost - 0.5
