"""The world model: images and proprioception in, latents out; imagines, proposes, judges. Knows no planner and no robot.

It is trained by `foresight.training` and satisfies `Dynamics`, `Actor` and `Critic` of `interfaces.py`. All arguments
are in physical units (m, rad, m/s); normalisation happens inside, with the statistics that lie in the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from foresight.contract import Contract
from foresight.data import Goal, Observation
from foresight.world_model.networks import Decoder, Encoder, Predictor, mlp, normalise_images


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks."""

    latent: int = 128  # numbers in a latent
    encoder_width: int = 64  # channels of the first convolution
    predictor_width: int = 256
    predictor_depth: int = 3
    head_width: int = 384  # of actor and critic
    max_blocks: int = 16  # the critic's farthest distance [blocks]

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not 1 <= value <= 10_000:
                raise ValueError(f"{name} must be at least 1 and at most 10000, got {value}.")


class WorldModel(nn.Module):
    """Encoder, predictor, actor, critic, readouts and a decoder for people, with everything needed to run them."""

    model_id: str = "unsaved"

    def __init__(self, contract: Contract, config: ModelConfig = ModelConfig()) -> None:
        super().__init__()
        self.contract, self.config = contract, config
        cameras, size = len(contract.cameras), contract.cameras[0].size
        if any(c.size != size for c in contract.cameras):
            raise ValueError(f"All cameras must be prepared to one size, got {[c.size for c in contract.cameras]}.")
        latent, proprio, block = config.latent, contract.proprio_size, contract.block_size
        self.encoder = Encoder(cameras, size, config.encoder_width, latent)
        self.predictor = Predictor(latent, proprio, block, config.predictor_width, config.predictor_depth)
        self.readout = mlp(latent, 256, 6, depth=2)  # tip and object position
        features = 2 * latent + 6 + proprio + (latent + 6) + 3 + 3 + 3
        self.actor = mlp(features + 1, config.head_width, block)
        self.critic = mlp(features, config.head_width, config.max_blocks + 1)
        self.decoder = Decoder(latent, cameras, size)
        self.register_buffer("proprio_mean", torch.zeros(proprio))
        self.register_buffer("proprio_std", torch.ones(proprio))
        self.register_buffer("action_std", torch.ones(block))
        self.register_buffer("position_mean", torch.zeros(3))
        self.register_buffer("position_std", torch.ones(3))
        self.register_buffer("surprise_scale", torch.ones(()))  # mean one-block error on held-out episodes

    # -- encoding ---------------------------------------------------------------------------------------------

    def encode(self, images: UInt8[Tensor, "B C h w 3"]) -> Float[Tensor, "B D"]:
        return self.encoder(normalise_images(images))

    @torch.no_grad()
    def encode_images(self, images: UInt8[np.ndarray, "C h w 3"]) -> Float[np.ndarray, "D"]:
        """One latent from one set of prepared images."""
        expected = (len(self.contract.cameras), self.contract.cameras[0].size, self.contract.cameras[0].size, 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise ValueError(f"Prepared images must be uint8 of shape {expected}, got {images.dtype} of shape {images.shape}.")
        return self.encode(torch.from_numpy(images)[None].to(self.device))[0].float().cpu().numpy()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "N D"]) -> UInt8[np.ndarray, "N C h w 3"]:
        """Rough pictures of latents, for people."""
        pictures = (self.decoder(torch.as_tensor(latents, dtype=torch.float32, device=self.device)) + 1) * 127.5
        return pictures.clamp(0, 255).byte().movedim(2, -1).cpu().numpy()

    @property
    def device(self) -> torch.device:
        return self.proprio_mean.device

    # -- Dynamics ---------------------------------------------------------------------------------------------

    def imagine(
        self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], block: Float[Tensor, "S A"]
    ) -> tuple[Float[Tensor, "S D"], Float[Tensor, "S P"]]:
        latent, scaled = self.predictor(latent, self.scale_proprio(proprio), block / self.action_std)
        return latent, scaled * self.proprio_std + self.proprio_mean

    def scale_proprio(self, proprio: Float[Tensor, "*n P"]) -> Float[Tensor, "*n P"]:
        return (proprio - self.proprio_mean) / self.proprio_std

    # -- Actor, Critic, readouts --------------------------------------------------------------------------------

    def propose(
        self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], goal: Goal, k: Float[Tensor, "S"]
    ) -> Float[Tensor, "S A"]:
        features = self.features(latent, proprio, *self.goal_tensors(goal))
        return self.act(features, k)

    def act(self, features: Float[Tensor, "S G"], k: Float[Tensor, "S"]) -> Float[Tensor, "S A"]:
        """The actor on features that `features` made; `k` in blocks."""
        return self.actor(torch.cat([features, k.unsqueeze(-1) / self.config.max_blocks], -1)) * self.action_std

    def blocks_to_go(self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], goal: Goal) -> Float[Tensor, "S"]:
        return self.judge(self.features(latent, proprio, *self.goal_tensors(goal)))

    def judge(self, features: Float[Tensor, "S G"]) -> Float[Tensor, "S"]:
        """Expected distance [blocks] of the critic's categorical distribution."""
        probability = self.critic(features).float().softmax(-1)
        return probability @ torch.arange(self.config.max_blocks + 1, dtype=torch.float32, device=probability.device)

    def read(self, latent: Float[Tensor, "*n D"]) -> tuple[Float[Tensor, "*n 3"], Float[Tensor, "*n 3"]]:
        """Tip and object position [m] as the latent shows them."""
        both = self.readout(latent).unflatten(-1, (2, 3)) * self.position_std + self.position_mean
        return both[..., 0, :], both[..., 1, :]

    def goal_tensors(self, goal: Goal) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latent, tip, object (zeros where they do not matter) and which of them do, as batches of one."""
        parts = (goal.latent, goal.tip, goal.object)
        sizes = (self.config.latent, 3, 3)
        tensors = [
            torch.zeros(1, n, device=self.device)
            if p is None
            else torch.as_tensor(np.asarray(p), dtype=torch.float32, device=self.device)[None]
            for p, n in zip(parts, sizes, strict=True)
        ]
        given = torch.tensor(
            [[float(p is not None and w > 0) for p, w in zip(parts, goal.weights, strict=True)]], device=self.device
        )
        return *tensors, given

    def features(
        self,
        latent: Float[Tensor, "S D"],
        proprio: Float[Tensor, "S P"],
        goal_latent: Float[Tensor, "#S D"],
        goal_tip: Float[Tensor, "#S 3"],
        goal_object: Float[Tensor, "#S 3"],
        given: Float[Tensor, "#S 3"],
    ) -> Float[Tensor, "S G"]:
        """What actor and critic see: the latent, its readouts, proprioception, and the way to each given part of the goal."""
        n, scale = len(latent), self.position_std / 4  # a quarter of the workspace's spread is about a push
        tip, obj = self.read(latent)
        goal_reads = torch.cat(self.read(goal_latent), -1)  # one goal is read once
        goal_latent, goal_tip, goal_object, given = (x.expand(n, -1) for x in (goal_latent, goal_tip, goal_object, given))
        image, point, thing = given.split(1, -1)
        here = torch.cat([tip, obj], -1)
        return torch.cat(
            [
                latent,
                image * goal_latent,
                (here - self.position_mean.repeat(2)) / self.position_std.repeat(2),
                self.scale_proprio(proprio),
                image * (goal_latent - latent),
                image * (goal_reads - here) / scale.repeat(2),
                point * (goal_tip - proprio[..., -6:-3]) / scale,
                thing * (goal_object - obj) / scale,
                given,
            ],
            -1,
        )


def proprio_of(observation: Observation) -> Float[np.ndarray, "P"]:
    """The proprioception vector [q, tip, tip velocity] of an observation, SI units."""
    return np.concatenate([observation.q, observation.tip, observation.tip_velocity]).astype(np.float32)
