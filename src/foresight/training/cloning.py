"""Behaviour cloning: the first stage's loss of a model without dynamics. Encoder, readouts, actor and critics learn end to end.

The actor imitates the block that left a row towards what the same episode reached later, or showed (goals in hindsight, as the
other way's heads learn them: GCSL, arXiv 1912.06088; on play data, arXiv 1903.01973). Nothing is predicted, so nothing needs to
be kept from collapsing. In an update as many frames pass the encoder as in the other way: two pairs of a row and its goal for a
window of four. Draws depend on (seed, step) alone. Shape letters: B pairs, F = 2 frames (row, goal), C cameras, P, A, D as ever.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from foresight.training.config import TrainConfig
from foresight.training.dataset import PlayData, draw_looks, hindsight, imitated, jitter
from foresight.training.imitation import imitation_error
from foresight.training.learner import WINDOW, Share, draw_cameras
from foresight.training.precision import autocast
from foresight.world_model.model import WorldModel

PAIRS = WINDOW // 2  # for each window of the batch


class Pairs(NamedTuple):
    """Rows and their goals. SI units."""

    images: Float[Tensor, "B F C 3 h w"]  # each with its own look, in [-1, 1]
    seen: Bool[Tensor, "B F C"] | None  # which cameras; None: all
    proprio: Float[Tensor, "B F P"]
    object: Float[Tensor, "B F 3"]  # [m] true position
    read: Bool[Tensor, "B 1"]  # whether an object goal is told as the model reads it from the goal's images
    given: Float[Tensor, "B 3"]  # which parts of the goal matter: image, tip, object
    k: Float[Tensor, "B"]  # blocks from row to goal
    block: Float[Tensor, "B A"]  # to be imitated
    to_go: Int[Tensor, "B"]  # blocks
    own: Float[Tensor, "B"]  # weight of the imitation, of mean 1 over all processes: 0 where the goal is of another episode
    learns: Float[Tensor, "M B"]  # the same for each critic: 0 in its share of the episodes


class Cloner(nn.Module):
    """What learns by imitation. Called with pairs, it gives the loss and its parts."""

    stage, names = "clone", ("encoder", "readout", "actor", "critic", "other_critics")  # what of the model learns

    def __init__(self, model: WorldModel, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.linear = nn.Linear(config.model.latent, 6)  # helps as in the other way, and is thrown away
        for name, part in model.named_children():
            if name not in self.names:
                part.requires_grad_(False)

    def parts(self) -> list[nn.Module]:
        """All that is called: what may be divided among processes."""
        model = self.model
        return [model.encoder, model.readout, model.actor, model.critic, *model.other_critics, self.linear]

    def forward(self, *batch: Tensor | None) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Imitation (in units of the actions' spread), the critics' and the readouts' losses.

        The critics' gradient passes into the encoder: how far a goal is tells how it differs, which the actor needs too, and a
        clone that saw less would say less of the other way. Labels reach the readouts alone, as there: their gradient ends at
        the latents.
        """
        pairs, model = Pairs(*batch), self.model
        seen = None if pairs.seen is None else pairs.seen.flatten(0, 1)
        with autocast(pairs.images.device, self.config.precision):
            z = model.encoder(pairs.images.flatten(0, 1), seen).float().unflatten(0, pairs.images.shape[:2])
            read = model.readout(z.detach()).float()
            place = self.linear(z).float()
            with torch.no_grad():
                told = torch.where(pairs.read, model.read(z[:, 1])[1], pairs.object[:, 1])
            features = model.features(z[:, 0], pairs.proprio[:, 0], z[:, 1], pairs.proprio[:, 1, -6:-3], told, pairs.given)
            missed, logits = imitation_error(model, features, pairs.k, pairs.block), model.logits(features).float()
        actor = (missed * pairs.own).mean()
        misses = F.cross_entropy(logits.flatten(0, 1), pairs.to_go.repeat(len(logits)), reduction="none").view_as(pairs.learns)
        critic = (misses * pairs.learns).mean(1).sum()
        truth = torch.cat([pairs.proprio[..., -6:-3], pairs.object], -1)
        truth = (truth - model.position_mean.repeat(2)) / model.position_std.repeat(2)
        readouts = F.smooth_l1_loss(read, truth, beta=0.1)
        linear = F.mse_loss(place, model.scale_proprio(pairs.proprio)[..., -6:])
        loss = actor + critic + readouts + self.config.readout_weight * linear
        figures = {"loss": loss, "actor": actor, "critic": critic, "readouts": readouts}
        return loss, {name: value.detach() for name, value in figures.items()}

    def after_update(self) -> None:
        """Nothing follows."""


def share_of_pairs(
    model: WorldModel, data: PlayData, config: TrainConfig, step: int, share: Share, device: torch.device
) -> Pairs:
    """A share of an update's pairs, on the device."""
    rng = np.random.default_rng([config.seed, 1, step])
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    count, cameras = PAIRS * config.batch, len(data.contract.cameras)
    drawn = hindsight(data, data.training, count, model.config.max_blocks, rng)
    read = rng.random((count, 1)) < 0.5
    gain, offset, noise = draw_looks((count, 2, cameras), data.images.shape[2:], generator)
    seen = draw_cameras((count, 2, cameras), config.camera_dropout, rng) if config.model.spare_cameras else None
    mine, critics = share.rows(count), np.arange(model.critics)[:, None]
    learns = (model.critics == 1) | (drawn.episode % model.critics != critics)
    evenly = lambda counts: counts.astype(np.float32) / np.maximum(counts.mean(-1, keepdims=True), 1e-6)  # noqa: E731
    frames = np.stack([drawn.row, drawn.goal], 1)[mine]
    put = lambda array: torch.as_tensor(array).to(device)  # noqa: E731
    return Pairs(
        jitter(put(data.frames(frames)), put(gain[mine]), put(offset[mine]), put(noise)),
        None if seen is None else put(seen[mine]),
        put(data.proprio[frames]),
        put(data.object[frames]),
        put(read[mine]),
        put(drawn.given[mine]),
        put(drawn.k[mine]),
        put(imitated(data, drawn)[mine]),
        put(drawn.to_go[mine]),
        put(evenly(drawn.same)[mine].astype(np.float32)),
        put(evenly(learns)[:, mine].astype(np.float32)),
    )
