"""Behaviour cloning: the same networks without dynamics learn to reach, from as many frames, resumably."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foresight import cli
from foresight.planning.config import PlannerConfig
from foresight.planning.planner import Planner
from foresight.training import train as training
from foresight.training.cloning import PAIRS, Cloner, share_of_pairs
from foresight.training.config import TrainConfig, command_line
from foresight.training.health import Health
from foresight.training.learner import WINDOW, Share
from foresight.training.train import CollapseError, parameters, prepare, train
from foresight.world_model.checkpoint import CARD, WEIGHTS, load
from foresight.world_model.model import ModelConfig
from tests.training.toy import reached

SIZES = ModelConfig(latent=8, encoder_width=8, predictor_width=32, predictor_depth=1, head_width=32, max_blocks=4, dynamics=False)


def config(play, out, **changes) -> TrainConfig:
    base = TrainConfig(data=(play,), out=out, steps=12, batch=16, head_steps=6, decoder_steps=3, threads=1, model=SIZES)
    return dataclasses.replace(base, **changes)


@pytest.mark.usefixtures("any_health")
def test_a_clone_learns_to_reach_and_says_that_it_imagines_nothing(play, profile, tmp_path):
    """From images alone it brings the dot to most goals, chance to few; planners that imagine refuse it in one line."""
    stages = []
    out = train(config(play, tmp_path / "m", steps=80, batch=32, head_steps=200), lambda stage, *_: stages.append(stage))
    model, card = load(out), (out / CARD).read_text()
    assert reached(model) > 0.4 > 0.15 > reached(model, at_random=True)
    assert stages[0] == "clone" and "world model" not in stages
    assert card.startswith("# Clone") and "no dynamics" in card and "predictor 0." not in card
    assert "`foresight train --out" not in card and "--model.no-dynamics" in card
    for policy in ("both", "search", "actor"):
        with pytest.raises(ValueError, match=rf"'{policy}' imagines, .* no trained dynamics: .*'reactive'") as told:
            Planner(model, profile, PlannerConfig(policy=policy))
        assert "\n" not in str(told.value)
    Planner(model, profile, PlannerConfig(policy="reactive"))
    assert cli.main(["evaluate", "--checkpoint", str(out), "--episodes", "1"]) == 2, "refused before any episode"


def test_a_clone_is_of_equal_size(play, tmp_path):
    """Encoder, actor, critic and readouts have the same parameters as the world model's, number by number."""
    clone, _ = prepare(config(play, tmp_path / "m"))
    world, _ = prepare(config(play, tmp_path / "m", model=dataclasses.replace(SIZES, dynamics=True)))
    shapes = lambda model: {n: p.shape for n, p in model.named_parameters() if not n.startswith("predictor.")}  # noqa: E731
    assert shapes(clone) == shapes(world)
    assert clone.predictor is None and parameters(world) - parameters(clone) == parameters(world.predictor) > 0


def test_as_many_frames_pass_the_encoder_as_for_a_world_model(play, tmp_path):
    """Each pair is a row and a goal ahead in its episode, or one of another; and shares of a batch make the whole."""
    settings = config(play, tmp_path / "m", model=dataclasses.replace(SIZES, critics=3, spare_cameras=True))
    model, data = prepare(settings)
    whole, *halves = (share_of_pairs(model, data, settings, 5, s, model.device) for s in (Share(), Share(0, 2), Share(1, 2)))
    assert whole.images.shape[:2] == (PAIRS * settings.batch, 2) and PAIRS * 2 == WINDOW
    for name, of_all in whole._asdict().items():
        axis = 1 if name == "learns" else 0
        assert torch.equal(torch.cat([getattr(half, name) for half in halves], axis), of_all), name
    assert whole.own.mean() == pytest.approx(1, abs=1e-5) and (whole.own == 0).any()
    assert whole.learns.mean(1).numpy() == pytest.approx(np.ones(3), abs=1e-5) and (whole.learns == 0).any(1).all()
    assert whole.seen is not None and not whole.seen.all()
    assert (whole.block.view(-1, 3, 3)[whole.to_go == 0] == 0).all()


def test_labels_do_not_reach_the_encoder(play, tmp_path, monkeypatch):
    """Where neither actor nor critic nor the linear helper pulls, true positions move the readouts and nothing before them."""
    settings = config(play, tmp_path / "m", readout_weight=0.0, precision="fp32")
    model, data = prepare(settings)
    pairs = share_of_pairs(model, data, settings, 0, Share(), model.device)
    cloner = Cloner(model, settings)
    still = pairs._replace(own=0 * pairs.own, learns=0 * pairs.learns)
    cloner(*still)[0].backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in model.encoder.parameters())
    assert max(p.grad.abs().max() for p in model.readout.parameters()) > 0
    cloner(*pairs)[0].backward()
    assert max(p.grad.abs().max() for p in model.encoder.parameters()) > 0
    assert all(p.grad is None for p in model.decoder.parameters())


@pytest.mark.usefixtures("any_health")
def test_an_interrupted_clone_resumes_to_the_same_weights(play, tmp_path):
    """Ctrl-C in the first stage costs nothing, bit for bit."""
    whole = load_file(train(config(play, tmp_path / "whole")) / WEIGHTS)

    def interrupt(name, done, *_):
        if name == Cloner.stage and done == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "broken"), interrupt)
    begun: dict[str, int] = {}
    again = train(config(play, tmp_path / "broken"), lambda name, done, *_: begun.setdefault(name, done))
    assert begun[Cloner.stage] > 1
    resumed = load_file(again / WEIGHTS)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_collapsed_clone_ends_training(play, tmp_path, monkeypatch):
    """The alarm is the world model's; its advice is not, for nothing is held apart here."""
    monkeypatch.setattr(training, "measure_health", lambda *_: Health(0.01, 1.2, 0.0, 10.0, 10.0))
    with pytest.raises(CollapseError, match=r"std 0\.01.*Look at the data") as told:
        train(config(play, tmp_path / "m", steps=2))
    assert "sigreg" not in str(told.value)


def test_the_command_says_that_it_is_a_clone():
    """And a model that imagines nothing cannot learn in imagination."""
    assert command_line(TrainConfig(model=ModelConfig(dynamics=False))) == "foresight train --model.no-dynamics"
    with pytest.raises(ValueError, match="imagines nothing"):
        ModelConfig(dynamics=False, dreamt=True)
