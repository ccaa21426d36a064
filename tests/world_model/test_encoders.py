"""Encoders: a ViT, frozen pretrained models of a random tiny shape, and cameras that are lost."""

import sys

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel, VJEPA2Config, VJEPA2Model

from foresight.contract import CameraContract, Contract
from foresight.data import Observation
from foresight.perception.prepare import prepare
from foresight.training.config import PRESETS
from foresight.world_model.belief import BeliefFilter
from foresight.world_model.checkpoint import CheckpointError, load, save
from foresight.world_model.encoders import FoundationError
from foresight.world_model.goals import goal_from_images
from foresight.world_model.model import ModelConfig, WorldModel

SIZES = {"latent": 8, "predictor_width": 16, "predictor_depth": 1, "head_width": 16, "max_blocks": 4}


@pytest.fixture
def contract(profile) -> Contract:
    cameras = tuple(CameraContract(n, 32, 32, (0, 0, 32, 32), 16) for n in ("front", "wrist"))
    return Contract(profile.name, profile.joint_names, cameras)


@pytest.fixture(params=["dinov2", "vjepa2"])
def pretrained(request, tmp_path):
    """A folder as the Hugging Face hub holds one: a tiny model's configuration and (random) weights."""
    torch.manual_seed(0)
    if request.param == "dinov2":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
        model = Dinov2Model(Dinov2Config(**sizes))
    else:
        sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "crop_size": 32, "frames_per_clip": 4}
        wide = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
        model = VJEPA2Model(VJEPA2Config(**sizes, **wide))
    model.save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


def frozen(folder) -> ModelConfig:
    return ModelConfig(**SIZES, encoder="foundation", foundation=str(folder), foundation_size=28)


def images(seed=0, n=1):
    return np.random.default_rng(seed).integers(0, 255, (n, 2, 16, 16, 3), np.uint8)


def test_a_frozen_model_is_loaded_and_stays_as_it_is(contract, pretrained):
    """Its weights are those of the folder, gradients pass it by, and training mode does not reach it."""
    model = WorldModel(contract, frozen(pretrained)).train()
    kind = Dinov2Model if pretrained.name == "dinov2" else VJEPA2Model
    original = dict(kind.from_pretrained(pretrained).named_parameters())
    held = dict(model.encoder.frozen.named_parameters())
    assert held and all(torch.equal(value, original[name]) and not value.requires_grad for name, value in held.items())
    assert not any("predictor" in name for name in held)
    assert not any(part.training for part in model.encoder.frozen.modules()) and model.encoder.gather.training
    z = model.encode(torch.from_numpy(images(n=4)))
    z.square().sum().backward()
    assert z.shape == (4, 8) and model.encoder.thin[1].weight.grad.abs().max() > 0


def test_its_patches_are_where_they_are_in_the_image(contract, pretrained):
    """Changing a corner of the image changes the features of that corner's patch more than those of the opposite one."""
    encoder = WorldModel(contract, frozen(pretrained)).eval().encoder
    plain = torch.zeros(1, 3, encoder.size, encoder.size)
    marked = plain.clone()
    marked[..., : encoder.size // encoder.side, : encoder.size // encoder.side] = 1.0
    change = (encoder.tokens(marked) - encoder.tokens(plain)).norm(dim=-1)[0]
    assert len(change) == encoder.side**2 and change[0] == change.max() and change[0] > 1.5 * change[-1]


def test_a_checkpoint_holds_the_frozen_model_too(contract, pretrained, tmp_path):
    """Loaded again without the folder, on a robot without a network; the same latents to half precision."""
    torch.manual_seed(1)
    model = WorldModel(contract, frozen(pretrained)).eval()
    save(model, tmp_path / "model", "", {})
    for file in pretrained.iterdir():
        file.unlink()
    pretrained.rmdir()
    again = load(tmp_path / "model")
    np.testing.assert_allclose(again.encode_images(images()[0]), model.encode_images(images()[0]), atol=2e-2)


def test_a_model_that_is_not_there_or_of_another_kind_is_refused(contract, tmp_path):
    """One line with what may be given instead."""
    with pytest.raises(FoundationError, match=r"could not be loaded .*--model.foundation") as told:
        WorldModel(contract, frozen(tmp_path / "nothing"))
    assert "\n" not in str(told.value)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    ViTModel(ViTConfig(**sizes, intermediate_size=16)).save_pretrained(tmp_path / "vit")
    with pytest.raises(FoundationError, match=r"of kind vit. There are dinov2, vjepa2"):
        WorldModel(contract, frozen(tmp_path / "vit"))


def test_without_transformers_the_way_to_it_is_told(contract, pretrained, tmp_path, monkeypatch):
    """In training, and where a checkpoint with a frozen model is loaded."""
    save(WorldModel(contract, frozen(pretrained)), tmp_path / "model", "", {})
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(FoundationError, match=r"needs the package transformers .*pip install"):
        WorldModel(contract, frozen(pretrained))
    with pytest.raises(CheckpointError, match=r"model: A frozen .* needs the package transformers .*pip install"):
        load(tmp_path / "model")


def test_the_tiny_preset_has_the_published_sizes(profile):
    """ViT-Tiny of 5.5 M weights, a predictor of 10.8 M, a latent of 192; a latent for each image."""
    cameras = (CameraContract("front", 128, 128, (0, 0, 128, 128), 64),)
    model = WorldModel(Contract(profile.name, profile.joint_names, cameras), PRESETS["tiny"].model)
    millions = lambda part: sum(p.numel() for p in part.parameters()) / 1e6  # noqa: E731
    assert millions(model.encoder.transformer) == pytest.approx(5.5, abs=0.2)
    assert millions(model.predictor) == pytest.approx(10.8, abs=0.5)
    assert model.eval().encode_images(np.zeros((1, 64, 64, 3), np.uint8)).shape == (192,)


def test_a_patch_that_does_not_divide_the_image_is_refused(contract):
    """With both sizes."""
    with pytest.raises(ValueError, match=r"16 pixels.*7 pixels"):
        WorldModel(contract, ModelConfig(**SIZES, encoder="vit", encoder_width=12, patch=7))


@pytest.mark.parametrize("encoder", ["residual", "vit"])
def test_a_lost_camera_degrades_where_the_model_was_made_for_it(contract, encoder):
    """What a lost camera would show does not matter; the other camera still does. All lost is refused."""
    sizes = ModelConfig(**SIZES, encoder=encoder, encoder_width=12, encoder_depth=1, patch=8, spare_cameras=True)
    model = WorldModel(contract, sizes).eval()
    seen, other = images(0)[0], images(1)[0]
    swapped = np.stack([seen[0], other[1]])
    assert not np.array_equal(model.encode_images(seen), model.encode_images(swapped))
    np.testing.assert_array_equal(model.encode_images(seen, (True, False)), model.encode_images(swapped, (True, False)))
    swapped = np.stack([other[0], seen[1]])
    assert not np.array_equal(model.encode_images(seen, (True, False)), model.encode_images(swapped, (True, False)))
    with pytest.raises(ValueError, match=r"front, wrist are lost. This model needs at least one"):
        model.encode_images(seen, (False, False))


def test_a_lost_camera_is_refused_where_the_model_was_not_made_for_it(contract):
    """By name, with what would help."""
    model = WorldModel(contract, ModelConfig(**SIZES, encoder_width=4)).eval()
    with pytest.raises(ValueError, match=r"wrist are lost. This model needs all; .*--model.spare-cameras"):
        model.encode_images(images()[0], (True, False))
    assert "encoder.absent" not in model.state_dict()


def test_beliefs_and_goals_are_made_of_what_is_seen(contract):
    """A lost camera's view is left out of a belief, and a goal may be shown by one camera."""
    model = WorldModel(contract, ModelConfig(**SIZES, encoder_width=4, spare_cameras=True)).eval()
    shown = images()[0]
    at = np.zeros(6), np.zeros(6), np.array([0.4, 0.0, 0.1]), np.zeros(3)
    belief = BeliefFilter(model).update(Observation(0.0, shown, *at, (True, False)))
    np.testing.assert_array_equal(belief.latent, model.encode_images(shown, (True, False)))
    frame = np.random.default_rng(3).integers(0, 255, (32, 32, 3), np.uint8)
    goal = goal_from_images(model, {"wrist": frame}, object_only=False)
    black = np.stack([np.zeros((16, 16, 3), np.uint8), prepare(frame, contract.cameras[1])])
    np.testing.assert_array_equal(goal.latent, model.encode_images(black, (False, True)))
    with pytest.raises(ValueError, match="missing"):
        goal_from_images(model, {}, object_only=False)
