"""Actor and critic learned in imagination: the formulas, and that they learn to reach where the dynamics are known."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from foresight.data import Goal
from foresight.training import dreaming
from foresight.training import train as training
from foresight.training.config import TrainConfig
from foresight.training.dataset import REACHED_M
from foresight.training.dreaming import (
    FAR_M,
    GAMMA,
    LAMBDA,
    Dreamer,
    Limits,
    cost_of,
    distances,
    imagined_success,
    lambda_returns,
    two_hot,
)
from foresight.training.log import Log
from foresight.training.resume import Resume
from foresight.training.train import parameters, prepare, train
from foresight.world_model.checkpoint import CARD, WEIGHTS, load
from foresight.world_model.model import ModelConfig, WorldModel
from tests.training.toy import MIDDLE

SIZES = ModelConfig(latent=8, encoder_width=8, predictor_width=32, predictor_depth=1, head_width=32, max_blocks=4, dreamt=True)


def config(play, out, **changes) -> TrainConfig:
    base = TrainConfig(
        data=(play,), out=out, steps=3, batch=16, head_steps=3, decoder_steps=2, dream_steps=4, sigreg_slices=16, threads=1,
        model=SIZES,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


class Known(nn.Module):
    """In place of predictor and readout: the latent is where the dot and the object are, and blocks add up."""

    def __init__(self, model: WorldModel, reads: bool) -> None:
        super().__init__()
        self.reads, self.step, self.spread = reads, model.action_std.clone(), model.position_std.clone()
        self.proprio = model.proprio_std[-6:].clone()

    def forward(self, latent, proprio=None, block=None):
        if self.reads:
            return latent[..., :6]
        moves = (block * self.step).unflatten(-1, (3, 3))
        moved, latent, proprio = moves.sum(-2), latent.clone(), proprio.clone()
        latent[..., :3] += moved / self.spread
        proprio[..., -6:-3] += moved / self.proprio[:3]
        proprio[..., -3:] = 10 * moves[..., -1, :] / self.proprio[3:]
        return latent, proprio


def known_world(play, tmp_path):
    """Model, data, latents and settings of that world."""
    settings = config(play, tmp_path / "m", model=dataclasses.replace(SIZES, head_width=64, max_blocks=8))
    model, data = prepare(settings)
    model.predictor, model.readout = Known(model, False), Known(model, True)
    model.eval().requires_grad_(False)
    places = [(torch.from_numpy(of) - model.position_mean) / model.position_std for of in (data.tip, data.object)]
    return model, data, nn.functional.pad(torch.cat(places, 1), (0, 2)), settings


@torch.no_grad()
def reached(model: WorldModel, limits: Limits, at_random: bool = False, goals: int = 60, blocks: int = 8) -> float:
    """Share of goals that the actor brings the dot to within 3 cm of, all at once, in the known world."""
    rng = np.random.default_rng(1)
    starts, ends = (torch.from_numpy(MIDDLE + rng.uniform(-0.1, 0.1, (goals, 3))).float() for _ in range(2))
    latent = nn.functional.pad((starts - model.position_mean) / model.position_std, (0, 5))
    proprio = torch.cat([torch.zeros(goals, 6), starts, torch.zeros(goals, 3)], 1)
    noise = torch.Generator().manual_seed(0)
    given = torch.tensor([[0.0, 1.0, 0.0]])
    for _ in range(blocks):
        features = model.features(latent, proprio, torch.zeros(1, 8), ends, torch.zeros(1, 3), given)
        block = model.act(features, model.judge(features).round().clamp_min(1))
        if at_random:
            block = model.action_std * torch.randn(block.shape, generator=noise)
        latent, proprio = model.imagine(latent, proprio, limits.keep(block, 0.1 * proprio[:, -3:], 3))
    return float(((proprio[:, -6:-3] - ends).norm(dim=1) < 0.03).float().mean())


def test_an_actor_learns_in_imagination_to_reach(play, tmp_path, monkeypatch):
    """Where the dynamics are known it reaches most goals after some updates; before them, and at random, few."""
    monkeypatch.setattr(dreaming, "BATCH", 48)
    monkeypatch.setattr(dreaming, "CHECKED", 256)
    model, data, latents, settings = known_world(play, tmp_path)
    limits = Limits.of(data)
    before = reached(model.dreaming(), limits), imagined_success(model.dreaming(), data, latents, 0)
    dreamer, state = Dreamer(model, data, latents, settings), Resume(settings, "")
    training.train_head("dream", dreamer, 180, 3e-3, dreamer.losses, settings, state, Log(None), lambda *_: None, clip=True)
    after = reached(model.dreaming(), limits), imagined_success(model.dreaming(), data, latents, 0)
    assert after[0] > 0.5 > 0.1 > max(before[0], reached(model, limits, at_random=True)), (before, after)
    assert after[1] > 0.8 > 0.2 > before[1]
    beside = torch.from_numpy(MIDDLE + np.array([[0, 0, 0], [0, 0.02, 0], [0, 0.12, 0]])).float()
    proprio = torch.cat([torch.zeros(3, 6), beside, torch.zeros(3, 3)], 1)
    latent = nn.functional.pad((beside - model.position_mean) / model.position_std, (0, 5))
    to_go = model.dreaming().blocks_to_go(latent, proprio, Goal(tip=MIDDLE))
    assert to_go[0] < to_go[1] < to_go[2] - 0.5, "the critic tells near from far"


def test_nothing_but_the_two_heads_learns(play, tmp_path, monkeypatch):
    """The critic's copy and the world model pass the gradient on and keep none."""
    monkeypatch.setattr(dreaming, "BATCH", 16)
    model, data, latents, settings = known_world(play, tmp_path)
    dreamer = Dreamer(model, data, latents, settings)
    dreamer.requires_grad_(True)
    dreamer.losses(0)["actor"].backward()
    assert all(p.grad.abs().max() > 0 for p in dreamer.actor.parameters())
    assert all(p.grad is None for p in [*dreamer.critic.parameters(), *dreamer.slow.parameters(), *model.actor.parameters()])
    sum(dreamer.losses(1).values()).backward()
    assert all(p.grad.abs().max() > 0 for p in dreamer.critic.parameters())


def test_lambda_returns_equal_their_formula_written_out():
    """Cost now, and of what follows: what the critic sees a block later, or the return from there, by lambda."""
    costs, values = torch.tensor([[1.0], [0.5], [0.0]]), torch.tensor([[4.0], [3.0], [2.0]])
    last = 0.0 + GAMMA * 2.0
    middle = 0.5 + GAMMA * ((1 - LAMBDA) * 3.0 + LAMBDA * last)
    first = 1.0 + GAMMA * ((1 - LAMBDA) * 4.0 + LAMBDA * middle)
    torch.testing.assert_close(lambda_returns(costs, values), torch.tensor([[first], [middle], [last]]))


def test_two_hot_distributions_have_the_mean_that_they_stand_for():
    """Two neighbours share it; beyond the ends it is the end."""
    scale = torch.tensor([0.0, 1.0, 1.9, 2.7])
    values = torch.tensor([[0.0, 0.25, 1.0], [2.3, 2.7, 9.0]])
    found = two_hot(values, scale)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 3))
    torch.testing.assert_close(found @ scale, values.clamp_max(2.7))
    assert ((found > 0).sum(-1) <= 2).all() and found[1, 2, 3] == 1


def test_a_block_costs_one_far_from_the_goal_and_nothing_at_it(play, tmp_path):
    """By the logarithm between; distances count as their discounted costs."""
    cost = cost_of(torch.tensor([0.0, REACHED_M, (REACHED_M * FAR_M) ** 0.5, FAR_M, 1.0]))
    torch.testing.assert_close(cost, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    model, _ = prepare(config(play, tmp_path / "m", model=dataclasses.replace(SIZES, max_blocks=3)))
    scale = distances(model)
    torch.testing.assert_close(scale, torch.tensor([0.0, 1.0, 1 + GAMMA, 1 + GAMMA + GAMMA**2]))


@pytest.fixture
def small_draws(any_health, monkeypatch):
    """Of rollouts in imagination; and latents that would count as collapsed are good enough."""
    monkeypatch.setattr(dreaming, "BATCH", 16)


@pytest.mark.usefixtures("small_draws")
def test_both_pairs_of_heads_lie_in_the_checkpoint(play, tmp_path):
    """Of equal size; a model trained without them has none; the card tells what each reaches."""
    out = train(config(play, tmp_path / "m"))
    model, card = load(out), (out / CARD).read_text()
    assert [parameters(head) for head in model.dreamt] == [parameters(model.actor), parameters(model.critic)]
    assert "| learned in imagination | actor and critic, 4 updates; held-out goals reached in imagination " in card
    dreaming_model = model.dreaming()
    assert dreaming_model.actor is model.dreamt[0] and model.actor is not model.dreamt[0]
    assert dreaming_model.encoder is model.encoder and dreaming_model.model_id == model.model_id
    plain = config(play, tmp_path / "plain", model=dataclasses.replace(SIZES, dreamt=False))
    others = load_file(train(plain) / WEIGHTS)
    assert not [name for name in others if name.startswith("dreamt")]
    with pytest.raises(ValueError, match=r"--model\.dreamt"):
        load(plain.out).dreaming()


@pytest.mark.usefixtures("small_draws")
def test_an_interrupted_dream_resumes_to_the_same_weights(play, tmp_path):
    """The critic's slow copy is part of what is gone on from."""
    few = {"dream_steps": 55}
    whole = load_file(train(config(play, tmp_path / "whole", **few)) / WEIGHTS)

    def interrupt(name, done, *_):
        if name == training.DREAM and done == 51:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "broken", **few), interrupt)
    begun: dict[str, int] = {}
    again = train(config(play, tmp_path / "broken", **few), lambda name, done, *_: begun.setdefault(name, done))
    assert begun[training.DREAM] > 51
    resumed = load_file(again / WEIGHTS)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_imagined_steps_keep_to_what_the_episodes_show(play, tmp_path):
    """However far a block would go: its steps, and how much each differs from the one before, are within the data's."""
    _, data = prepare(config(play, tmp_path / "m"))
    limits = Limits.of(data)
    assert 0.015 < limits.step_m < 0.035 and 0 < limits.change_m < 0.06, limits
    before = torch.tensor([[0.0, 0.01, 0.0], [0.0, 0.0, 0.0]])
    wild = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    steps = limits.keep(wild, before, 3).view(2, 3, 3)
    assert steps.norm(dim=-1).max() <= limits.step_m * (1 + 1e-5)
    changes = torch.diff(torch.cat([before[:, None], steps], 1), dim=1).norm(dim=-1)
    assert changes.max() <= limits.change_m * (1 + 1e-5)
    calm = before.repeat(1, 3)
    torch.testing.assert_close(limits.keep(calm, before, 3), calm)
