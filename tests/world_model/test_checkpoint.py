"""Checkpoints are complete or refused in one line."""

import json
import os

import numpy as np
import pytest
import torch

from foresight.world_model import checkpoint
from foresight.world_model.checkpoint import CheckpointError, load, read_contract, save


@pytest.fixture
def saved(tiny, tmp_path):
    save(tiny, tmp_path / "model", "# card\n", {"seed": 1})
    return tmp_path / "model"


def test_what_is_saved_is_loaded(tiny, saved):
    """Same latents to half precision, same contract, an id that the next load repeats."""
    images = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), np.uint8)
    again = load(saved)
    np.testing.assert_allclose(again.encode_images(images), tiny.encode_images(images), atol=2e-2)
    assert again.contract == tiny.contract == read_contract(saved)
    assert again.model_id == load(saved).model_id == checkpoint.fingerprint(saved)


def test_the_id_follows_the_weights(tiny, saved, tmp_path):
    """One changed weight is another model."""
    tiny.readout[0].weight.data[0, 0] += 1
    assert save(tiny, tmp_path / "other", "", {"seed": 1}) != load(saved).model_id


@pytest.mark.parametrize(
    "harm", ["absent", "no_weights", "truncated", "bad_json", "a_list", "no_text", "not_finite", "old_format", "wrong_sizes"]
)
def test_a_damaged_checkpoint_is_refused_in_one_line(saved, harm):
    """Whatever is wrong, the message is one line that names the path and what to do."""
    weights, config = saved / checkpoint.WEIGHTS, saved / checkpoint.CONFIG
    path = saved
    if harm == "absent":
        path = saved.with_name("nothing")
    elif harm == "no_weights":
        weights.unlink()
    elif harm == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif harm == "bad_json":
        config.write_text("{")
    elif harm == "a_list":
        config.write_text("[]")
    elif harm == "no_text":
        config.write_bytes(b"\xab\xcd")
    elif harm == "not_finite":
        weights.write_bytes(weights.read_bytes()[:-400] + b"\xff" * 400)
    else:
        raw = json.loads(config.read_text())
        raw["format" if harm == "old_format" else "model"] = 0 if harm == "old_format" else {**raw["model"], "latent": 16}
        config.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError) as error:
        load(path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message and ("train" in message.lower())


def test_weights_of_another_size_are_named(saved):
    """Which array, its shape, and the shape that config.json makes."""
    config = saved / checkpoint.CONFIG
    raw = json.loads(config.read_text())
    raw["model"]["latent"] *= 2
    config.write_text(json.dumps(raw))
    with pytest.raises(
        CheckpointError, match=r"does not fit config.json: '[\w.]+' is \[.*\], the configuration makes \[.*\], and"
    ):
        load(saved)


@pytest.mark.parametrize("harm", ["bit", "config"])
def test_weights_that_are_not_those_of_the_configuration_are_refused(tiny, saved, tmp_path, harm):
    """One bit of a weight, or the weights of another training of the same sizes: the checksum tells."""
    weights = saved / checkpoint.WEIGHTS
    if harm == "bit":
        content = bytearray(weights.read_bytes())
        content[-9] ^= 1
        weights.write_bytes(content)
    else:
        tiny.readout[0].weight.data[0, 0] += 1
        save(tiny, tmp_path / "other", "", {"seed": 2})
        weights.write_bytes((tmp_path / "other" / checkpoint.WEIGHTS).read_bytes())
    with pytest.raises(CheckpointError, match=r"another checkpoint than config.json") as told:
        load(saved)
    assert "\n" not in str(told.value)


def test_an_interrupted_save_leaves_the_old_checkpoint(tiny, saved, monkeypatch):
    """A disk that fills up while saving costs the new checkpoint, not the old one."""
    before = checkpoint.fingerprint(saved)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    tiny.readout[0].weight.data[0, 0] += 1
    with pytest.raises(OSError):
        save(tiny, saved, "", {})
    assert checkpoint.fingerprint(saved) == before and [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_loading_never_unpickles(saved):
    """A pickle in place of the weights is refused."""
    torch.save({"a": torch.zeros(1)}, saved / checkpoint.WEIGHTS)
    with pytest.raises(CheckpointError, match="damaged"):
        load(saved)
