"""The first stage's loss: a batch of windows in, one number out. Encoder and predictor learn from it, end to end from pixels.

Every draw depends on (seed, step) alone, and is made for the batch of all processes: each then takes its share, so that the same
update is made in one process and in many. Shape letters: B windows, T frames, C cameras, P proprioception, A block, D latent.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from foresight.training.anti_collapse import follow, infonce, vicreg
from foresight.training.config import TrainConfig
from foresight.training.dataset import PlayData, draw_looks, jitter
from foresight.training.precision import autocast
from foresight.world_model.model import ModelConfig, WorldModel
from foresight.world_model.networks import mlp
from foresight.world_model.sigreg import sigreg

WINDOW = ModelConfig.imagined_blocks + 1  # frames, one block apart


class Auxiliary(nn.Module):
    """Heads that help the encoder while it learns and are thrown away afterwards."""

    def __init__(self, latent: int, block: int) -> None:
        super().__init__()
        self.inverse = mlp(2 * latent, 256, block, depth=1)
        self.linear = nn.Linear(latent, 6)


@dataclass(frozen=True)
class Share:
    """Which part of an update's batch this is: the `number`th of `of`, all of one size."""

    number: int = 0
    of: int = 1

    def rows(self, batch: int) -> slice:
        size = batch // self.of
        return slice(self.number * size, (self.number + 1) * size)


def draw_windows(
    data: PlayData, starts: np.ndarray, config: TrainConfig, step: int, share: Share = Share()
) -> tuple[UInt8[Tensor, "B T C h w 3"], tuple[Tensor, Tensor, Tensor], Tensor, Tensor, Tensor | None, torch.Generator]:
    """A share of an update's windows: images and their looks, blocks, proprioception (SI units), which cameras are seen."""
    rng = np.random.default_rng([config.seed, 1, step])
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    cameras, mine = len(data.contract.cameras), share.rows(config.batch)
    rows = rng.choice(starts, config.batch)[:, None] + data.contract.block_steps * np.arange(WINDOW)  # B T
    gain, offset, noise = draw_looks((config.batch, WINDOW, cameras), data.images.shape[2:], generator)
    seen = draw_cameras((config.batch, WINDOW, cameras), config.camera_dropout, rng) if config.model.spare_cameras else None
    rows = rows[mine]
    blocks = torch.from_numpy(data.block(rows[:, :-1].ravel())).view(len(rows), WINDOW - 1, -1)
    return (
        data.frames(rows),
        (gain[mine], offset[mine], noise),
        blocks,
        torch.from_numpy(data.proprio[rows]),
        None if seen is None else torch.from_numpy(seen[mine]),
        generator,
    )


def draw_cameras(shape: tuple[int, int, int], share: float, rng: np.random.Generator) -> Bool[np.ndarray, "B T C"]:
    """Which cameras are seen: in `share` of the frames some are lost, never all; windows of goals and of trouble alike."""
    windows, frames, cameras = shape
    lost = rng.random(shape) < 0.5
    keep = rng.integers(0, cameras, (windows, frames))
    lost[np.arange(windows)[:, None], np.arange(frames), keep] = False
    return ~(lost & (rng.random((windows, frames, 1)) < share))


class Learner(nn.Module):
    """Encoder, predictor and what helps them learn. Called with a batch, it gives the loss and its parts."""

    stage, names = "world model", ("encoder", "predictor")  # what of the model learns

    def __init__(self, model: WorldModel, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.predictor = model.encoder, model.predictor
        self.auxiliary = Auxiliary(config.model.latent, model.contract.block_size)
        self.teacher = copy.deepcopy(model.encoder).requires_grad_(False) if config.anti_collapse == "ema" else None

    def parts(self) -> list[nn.Module]:
        """All that is called, each once by itself: what may be divided among processes."""
        teacher = [] if self.teacher is None else [self.teacher]
        return [self.encoder, self.predictor, self.auxiliary.inverse, self.auxiliary.linear, *teacher]

    def forward(
        self,
        images: Float[Tensor, "B T C 3 h w"],
        blocks: Float[Tensor, "B T-1 A"],
        proprio: Float[Tensor, "B T P"],
        seen: Bool[Tensor, "B T C"] | None,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Prediction over 1, 2 and 3 blocks, the helpers, and what keeps the latents from collapsing.

        Blocks and proprioception are normalised. Precision is chosen here and not by Fabric, which would round the inputs, and
        with them what is to be predicted, to bfloat16.
        """
        weights, seen = self.config, None if seen is None else seen.flatten(0, 1)
        with autocast(images.device, self.config.precision):
            z = self.encoder(images.flatten(0, 1), seen).float().unflatten(0, images.shape[:2])
            foreseen, joints = z[:, :-1], proprio[:, :-1]
            target, first = self.targets(z, images), None
            errors, proprio_errors = [], []
            for ahead in range(1, WINDOW):  # imagine from every frame at once, each time one block further
                n = WINDOW - ahead
                foreseen, joints = self.predictor(foreseen[:, :n], joints[:, :n], blocks[:, ahead - 1 :])
                errors.append((foreseen.float() - target[:, ahead:]).square().mean())
                proprio_errors.append((joints.float() - proprio[:, ahead:]).square().mean())
                first = foreseen if first is None else first
            inverse = F.mse_loss(self.auxiliary.inverse(torch.cat([z[:, :-1], z[:, 1:]], -1)).float(), blocks)
            place = F.mse_loss(self.auxiliary.linear(z).float(), proprio[..., -6:])
        apart = self.penalty(z, first, generator)
        loss = (
            errors[0]
            + weights.rollout_weight * (errors[1] + errors[2])
            + weights.proprio_weight * sum(proprio_errors) / 3
            + weights.inverse_weight * inverse
            + weights.readout_weight * place
        )
        figures = {"predict": errors[0], "rollout": errors[2]}
        if apart is not None:
            weight = getattr(weights, f"{weights.anti_collapse}_weight")
            loss = loss + weight * apart
            figures[weights.anti_collapse] = apart
        figures = {"loss": loss, **figures, "inverse": inverse}
        return loss, {name: value.detach() for name, value in figures.items()}

    def targets(self, z: Float[Tensor, "B T D"], images: Float[Tensor, "B T C 3 h w"]) -> Float[Tensor, "B T D"]:
        """What is to be foreseen: the latents themselves, or the teacher's of the same images."""
        if self.teacher is None:
            return z
        with torch.no_grad():
            return self.teacher(images.flatten(0, 1)).float().unflatten(0, images.shape[:2])

    def penalty(self, z: Float[Tensor, "B T D"], foreseen: Float[Tensor, "B T-1 D"], generator: torch.Generator) -> Tensor | None:
        z, foreseen = z.transpose(0, 1), foreseen.transpose(0, 1)
        match self.config.anti_collapse:
            case "sigreg":
                return sigreg(z, self.config.sigreg_slices, generator)
            case "vicreg":
                return vicreg(z)
            case "infonce":
                return infonce(foreseen, z[1:])
            case _:
                return None

    def after_update(self) -> None:
        if self.teacher is not None:
            follow(self.teacher, self.encoder, self.config.ema_momentum)


def share_of_batch(
    model: WorldModel, data: PlayData, starts: np.ndarray, config: TrainConfig, step: int, share: Share, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, torch.Generator]:
    """What `Learner` is called with, on the device, normalised."""
    images, looks, blocks, proprio, seen, generator = draw_windows(data, starts, config, step, share)
    return (
        jitter(images.to(device), *(look.to(device) for look in looks)),
        blocks.to(device) / model.action_std,
        model.scale_proprio(proprio.to(device)),
        None if seen is None else seen.to(device),
        generator,
    )
