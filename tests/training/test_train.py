"""Training learns, resumes to the same weights, and calls a collapse a collapse."""

import dataclasses

import h5py
import pytest
import torch
from safetensors.torch import load_file

from foresight import cli
from foresight.training import health
from foresight.training import train as training
from foresight.training.health import Health, effective_rank, measure, probe_error
from foresight.training.train import CollapseError, TrainConfig, command_line, train
from foresight.world_model.checkpoint import CARD, WEIGHTS, load
from foresight.world_model.model import ModelConfig

SIZES = ModelConfig(latent=8, encoder_width=8, predictor_width=32, predictor_depth=1, head_width=32, max_blocks=4)


def config(play, out, **changes) -> TrainConfig:
    base = TrainConfig(
        data=play, out=out, steps=12, batch=16, head_steps=6, decoder_steps=3, sigreg_slices=16, threads=1, model=SIZES
    )
    return dataclasses.replace(base, **changes)


@pytest.fixture
def any_health(monkeypatch):
    """A few updates of a tiny model leave latents that would count as collapsed; here they are good enough."""
    monkeypatch.setattr(health, "COLLAPSED_STD", 0.0)
    monkeypatch.setattr(health, "COLLAPSED_RANK", 0.0)


@pytest.mark.usefixtures("any_health")
def test_the_checkpoint_says_what_made_it(play, tmp_path):
    """All stages run and the card repeats the command, the data and the measures."""
    stages = set()
    out = train(config(play, tmp_path / "model"), lambda stage, *_: stages.add(stage))
    assert set(training.STAGES) <= stages
    card = (out / CARD).read_text()
    assert "--steps 12" in card and "23 episodes" in card and "skill" in card
    assert load(out).surprise_scale > 0
    assert not list(tmp_path.glob("*.training.pt")) and not list(tmp_path.glob("*.partial"))


@pytest.mark.usefixtures("any_health")
@pytest.mark.parametrize(("stage", "step"), [(0, 11), (1, 51), (2, 101), (3, 51)])
def test_an_interrupted_run_resumes_to_the_same_weights(play, tmp_path, stage, step):
    """Ctrl-C in any stage costs nothing: the resumed run ends bit for bit where an unbroken one does, and repeats no stage."""
    sizes = {"head_steps": 156, "decoder_steps": 60}
    whole = load_file(train(config(play, tmp_path / "whole", **sizes)) / WEIGHTS)

    def interrupt(name, done, *_):
        if name == training.STAGES[stage] and done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "broken", **sizes), interrupt)
    assert not (tmp_path / "broken").exists()
    begun: dict[str, int] = {}
    again = train(config(play, tmp_path / "broken", **sizes), lambda name, done, *_: begun.setdefault(name, done))
    assert all(begun.get(name, 99) > 1 for name in training.STAGES[: stage + 1])
    resumed = load_file(again / WEIGHTS)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.usefixtures("any_health")
def test_another_run_is_not_resumed_by_mistake(play, tmp_path):
    """Different settings beside an interrupted run are refused, unless it is forgotten on purpose."""

    def interrupt(stage, step, *_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "m"), interrupt)
    with pytest.raises(ValueError, match="--fresh"):
        train(config(play, tmp_path / "m", lr=5e-4))
    assert train(config(play, tmp_path / "m", lr=5e-4, fresh=True)).exists()


@pytest.mark.parametrize("changed", ["tip", "pixels_front", "fewer"])
def test_a_run_is_not_resumed_on_other_data(play, tmp_path, changed):
    """A dataset that was changed or collected anew under the same name is refused in one line, with a way out."""

    def interrupt(stage, step, *_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "m"), interrupt)
    with h5py.File(play, "a") as file:
        if changed == "fewer":
            for name in ("ep_len", "ep_offset"):
                kept = file[name][:-1]
                del file[name]
                file[name] = kept
        else:
            file[changed][17] = file[changed][18]
    with pytest.raises(ValueError, match=r"on other data .* --fresh") as told:
        train(config(play, tmp_path / "m"))
    assert "\n" not in str(told.value)
    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "m", fresh=True), interrupt)


def test_a_damaged_interrupted_run_is_told_in_one_line(play, tmp_path):
    """Half a state beside the checkpoint is not resumed, and --fresh forgets it."""
    (tmp_path / "m.training.pt").write_bytes(b"PK half of a")
    with pytest.raises(ValueError, match=r"is damaged. Add --fresh"):
        train(config(play, tmp_path / "m"))


@pytest.mark.usefixtures("any_health")
def test_prediction_beats_persistence_on_a_learnable_world(play, tmp_path):
    """In a world of one moving dot a minute model foresees better than "nothing changes"."""
    seen = []
    train(
        config(play, tmp_path / "m", steps=300, batch=48, head_steps=3, sigreg_weight=0.5, sigreg_slices=64),
        lambda stage, step, steps, line: seen.append(line),
    )
    final = [line for line in seen if "skill" in line][-1]
    assert float(final.split("skill")[1].split()[0]) > 0.3, final


def test_a_collapse_ends_training(play, tmp_path, monkeypatch):
    """Latents that lost their spread for three checks end the run with a remedy in the message."""
    monkeypatch.setattr(training, "measure_health", lambda *_: Health(0.01, 1.2, 0.0, 10.0, 10.0))
    with pytest.raises(CollapseError, match="--sigreg-weight"):
        train(config(play, tmp_path / "m", steps=1000, batch=4, sigreg_slices=2))


def test_a_collapse_at_the_end_of_a_short_training_makes_no_checkpoint(play, tmp_path, capsys):
    """However few the steps: the command ends with 1 and a line that names the figure and the way out."""
    words = ["--data", play, "--out", tmp_path / "m", "--steps", "3", "--batch", "4", "--sigreg-slices", "4", "--threads", "1"]
    sizes = ["--model.latent", "8", "--model.encoder-width", "8", "--model.predictor-width", "32", "--model.head-width", "32"]
    assert cli.main(["train", *map(str, words), *sizes]) == 1
    told = capsys.readouterr().err
    assert "std 0.0" in told and "--sigreg-weight" in told and "--fresh" in told and len(told.splitlines()) == 1
    assert not (tmp_path / "m").exists()


def test_latents_that_are_no_numbers_are_a_collapse():
    """A diverged training is told as such, not as an error of linear algebra."""
    bad, place = torch.full((500, 16), float("nan")), torch.randn(500, 3)
    assert "std nan" in measure(bad, bad, bad, place, place).collapse


def test_collapse_is_seen_by_spread_and_by_rank():
    """Constant latents and latents on a line are both called collapsed; normal ones are not."""
    normal = torch.randn(500, 16)
    line = torch.randn(500, 1) * torch.ones(16)
    place = normal[:, :3] + 0
    assert not measure(normal, normal + 0.1, normal + 0.1, place, place).collapsed
    assert measure(line, line, line, place, place).collapsed
    assert measure(0 * normal, 0 * normal, 0 * normal, place, place).collapsed


def test_effective_rank_and_probe():
    """Rank of isotropic noise is nearly full; a probe finds what is linearly there and misses what is not."""
    z = torch.randn(2000, 8)
    assert effective_rank(z) == pytest.approx(8, abs=0.2)
    assert probe_error(z, z[:, :3]) < 0.02
    assert probe_error(z, torch.randn(2000, 3)) > 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 10**30},
        {"seed": 2**64},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"sigreg_weight": -1.0},
        {"weight_decay": float("inf")},
        {"seed": -1},
        {"episodes": 1},
    ],
)
def test_numbers_out_of_range_are_refused_by_name(wrong):
    """A flag that cannot work is refused before any work, with its name and the value."""
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be .* got {value}"):
        TrainConfig(**wrong)


def test_the_command_names_what_differs_from_the_defaults():
    """The card's command is short and whole."""
    assert command_line(TrainConfig()) == "foresight train"
    assert command_line(TrainConfig(lr=5e-4, model=ModelConfig(latent=64))) == "foresight train --lr 0.0005 --model.latent 64"
