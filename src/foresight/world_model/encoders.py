"""Larger eyes than `networks.Encoder`: a vision transformer learned end to end, or a frozen pretrained image or video model.

The frozen model comes through the package transformers, which is imported only where it is used. Its weights lie in the
checkpoint with all others, so that operation needs no network. They know tensors, not robots. Shape letters as in `networks.py`,
and F features of a camera.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from foresight.world_model.networks import CameraEncoder
from foresight.world_model.processes import BatchNorm
from foresight.world_model.transformer import TransformerConfig, VisionTransformer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, as these models were trained with
NO_PATCH = {"dinov2": 1, "vjepa2": 0}  # first tokens that are of no patch, by kind of model
GRID, CHANNELS = 8, 32  # what is kept of a frozen model's tokens: at most 8x8 places, 32 numbers each


class FoundationError(RuntimeError):
    """The frozen pretrained model cannot be used; the message says why and what to do."""


class VisionEncoder(CameraEncoder):
    """One vision transformer that looks at every camera in turn, and LeWorldModel's projector (arXiv 2603.19312)."""

    def __init__(self, cameras: int, sizes: TransformerConfig, latent: int, spare: bool = False) -> None:
        super().__init__(cameras, sizes.latent, spare)
        self.transformer = VisionTransformer(sizes)
        self.project = nn.Sequential(nn.Linear(cameras * sizes.latent, 2048), BatchNorm(2048), nn.GELU(), nn.Linear(2048, latent))

    def look(self, images: Float[Tensor, "B C 3 h w"]) -> Float[Tensor, "B C F"]:
        return self.transformer(images.flatten(0, 1)).unflatten(0, images.shape[:2])


class FoundationEncoder(CameraEncoder):
    """A frozen model's patch tokens, thinned out to a small map that keeps places, and a learned way from there to a latent."""

    def __init__(self, cameras: int, frozen: PreTrainedModel, size: int, latent: int, spare: bool = False) -> None:
        super().__init__(cameras, 256, spare)
        config = frozen.config
        self.kind, self.size = config.model_type, config.crop_size if config.model_type == "vjepa2" else size
        if self.size % config.patch_size:
            raise FoundationError(
                f"foundation_size ({self.size} px) must be a multiple of the model's patches ({config.patch_size} px), for "
                f"example {16 * config.patch_size}."
            )
        self.side = self.size // config.patch_size
        self.frozen = frozen.requires_grad_(False).eval()
        grid = min(GRID, self.side)
        self.thin = nn.Sequential(nn.LayerNorm(config.hidden_size), nn.Linear(config.hidden_size, CHANNELS))
        self.gather = nn.Sequential(
            nn.AdaptiveAvgPool2d(grid),
            nn.Flatten(),
            nn.Linear(CHANNELS * grid**2, 256, bias=False),
            BatchNorm(256),
            nn.ReLU(),
        )
        self.project = nn.Sequential(nn.Linear(256 * cameras, 512, bias=False), BatchNorm(512), nn.GELU(), nn.Linear(512, latent))
        for name, value in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> FoundationEncoder:
        super().train(mode)
        self.frozen.eval()
        return self

    def look(self, images: Float[Tensor, "B C 3 h w"]) -> Float[Tensor, "B C 256"]:
        tokens = self.tokens(images.flatten(0, 1))
        places = self.thin(tokens).mT.unflatten(-1, (self.side, self.side))
        return self.gather(places).unflatten(0, images.shape[:2])

    @torch.no_grad()
    def tokens(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B N W"]:
        """The frozen model's last layer at every patch of images in [-1, 1]."""
        shown = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        shown = ((shown + 1) / 2 - self.mean) / self.std
        if self.kind == "vjepa2":  # a still: the frame twice, as its authors show images
            shown = shown.unsqueeze(1).expand(-1, self.frozen.config.tubelet_size, -1, -1, -1)
            return self.frozen.get_vision_features(shown)
        return self.frozen(shown).last_hidden_state[:, NO_PATCH[self.kind] :]


def load_foundation(name: str, described: dict | None = None) -> PreTrainedModel:
    """The pretrained model of that name or folder; with a description, one of its shape whose weights come from a checkpoint.

    Raises FoundationError where transformers is not installed, or the model is not there or of another kind.
    """
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise FoundationError(
            f"A frozen foundation encoder needs the package transformers ({error}). Install it with "
            "`.venv/bin/pip install -c requirements/constraints.txt transformers`."
        ) from error
    try:
        config = AutoConfig.for_model(**described) if described else AutoConfig.from_pretrained(name)
        if config.model_type not in NO_PATCH:
            raise FoundationError(
                f"Foundation model '{name}' is of kind {config.model_type}. There are {', '.join(NO_PATCH)}: name one of those, "
                "for example facebook/dinov2-small or facebook/vjepa2-vitl-fpc64-256."
            )
        model = AutoModel.from_config(config) if described else AutoModel.from_pretrained(name, config=config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FoundationError(
            f"Foundation model '{name}' could not be loaded ({' '.join(str(error).split())[:200]}). Give --model.foundation a "
            "folder that holds its config.json and weights, or a name on the Hugging Face hub, which must be "
            "reachable the first time."
        ) from error
    if config.model_type == "vjepa2":
        model.predictor = nn.Identity()  # foresees masked patches: not needed here
    return model.float()
