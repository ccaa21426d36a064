"""A causal transformer that predicts latents from latents and action blocks, at the published sizes of LeWorldModel.

18 M parameters with its encoder: a vision transformer with 14-pixel patches, a predictor of 6 layers of width 192 with 16
heads of 64, each layer scaled, shifted and gated by the action (AdaLN-zero). It knows tensors, not robots, and no planner.
`rollout.py` runs the same network for planning.

It differs from LeWorldModel in three things. Position is a learned bias by head and lag in the attention, not a vector added
by slot: what a frame contributes does not change as the window slides, so keys and values can be kept, exactly. The window
of 3 frames is a band in every layer's attention; LeWorldModel cuts the sequence itself to 3 frames before every step, so that
there nothing older is ever seen, while here older frames act through the layers between. The layers have one normalisation
before each part instead of two in a row.

Shape letters: B batch, T frames, D latent, A action block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from foresight.world_model.networks import mlp


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the networks; the defaults are those published."""

    block: int = 10  # numbers in an action block: 5 steps of 2
    latent: int = 192  # width of everything
    depth: int = 6  # layers of the predictor
    heads: int = 16
    head: int = 64  # numbers in a head
    hidden: int = 2048  # of the feed-forward parts and of the projectors
    action_hidden: int = 768
    window: int = 3  # frames that attention sees, the newest included
    image: int = 224  # [pixels]
    patch: int = 14  # [pixels]
    encoder_depth: int = 12
    encoder_heads: int = 3
    encoder_hidden: int = 768

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if self.image % self.patch:
            raise ValueError(f"image ({self.image} pixels) must be a multiple of patch ({self.patch} pixels).")
        if self.latent % self.encoder_heads:
            raise ValueError(f"latent ({self.latent}) must be a multiple of encoder_heads ({self.encoder_heads}).")


class VisionTransformer(nn.Module):
    """Patches and a class token through pre-norm layers; the class token comes out."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        patches = (config.image // config.patch) ** 2
        self.embed = nn.Conv2d(3, config.latent, config.patch, config.patch)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, config.latent))
        self.position = nn.Parameter(0.02 * torch.randn(1, patches + 1, config.latent))
        self.layers = nn.ModuleList(
            EncoderLayer(config.latent, config.encoder_heads, config.encoder_hidden) for _ in range(config.encoder_depth)
        )
        self.norm = nn.LayerNorm(config.latent)

    def forward(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        patches = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(images), -1, -1), patches], 1) + self.position
        for layer in self.layers[:-1]:
            x = layer(x)
        return self.norm(self.layers[-1](x, 1)[:, 0])


def attend(q: Float[Tensor, "B H N d"], k: Float[Tensor, "B H T d"], v: Float[Tensor, "B H T d"]) -> Float[Tensor, "B H N d"]:
    """Attention of every query to all keys; where a CPU computes in bfloat16 as plain products.

    There torch's fused kernel, which saves memory that some hundred tokens do not need, takes about twice as long, backwards
    three times. Logits are rounded to bfloat16 here, as queries and keys are before them: that adds up to as much error again.
    """
    reduced = torch.is_autocast_enabled("cpu") or q.dtype == torch.bfloat16
    if q.device.type != "cpu" or not reduced:
        return F.scaled_dot_product_attention(q, k, v)
    return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v


class EncoderLayer(nn.Module):
    """Self-attention over all tokens, then a feed-forward part."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.enter, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "B T D"], wanted: int | None = None) -> Float[Tensor, "B N D"]:
        """What becomes of the first `wanted` tokens, None: of all. Of the others only keys and values are made."""
        y, width = self.attention_norm(x), x.shape[-1]
        if wanted is None:
            q, k, v = self.enter(y).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        else:
            (query, others), (offset, offsets) = (part.split([width, 2 * width]) for part in (self.enter.weight, self.enter.bias))
            q = F.linear(y[:, :wanted], query, offset).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            k, v = F.linear(y, others, offsets).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x[:, :wanted] + self.leave(attend(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm(x))


class ActionEncoder(nn.Module):
    """An action block to the condition of its frame."""

    def __init__(self, block: int, hidden: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(block, block), nn.Linear(block, hidden), nn.SiLU(), nn.Linear(hidden, width))

    def forward(self, block: Float[Tensor, "*n A"]) -> Float[Tensor, "*n D"]:
        return self.layers(block)


class Projector(nn.Module):
    """Two linear layers with batch normalisation between, after which nothing holds SIGReg back."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.enter, self.norm, self.leave = nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
        hidden = self.enter(x)
        return self.leave(F.gelu(self.norm(hidden.flatten(0, -2)).view_as(hidden)))


class PredictorLayer(nn.Module):
    """Attention over the last frames and a feed-forward part, both scaled, shifted and gated by the action."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, inner = config.latent, config.heads * config.head
        self.heads, self.window = config.heads, config.window
        self.modulate = nn.Linear(width, 6 * width)
        self.enter, self.leave = nn.Linear(width, 3 * inner, bias=False), nn.Linear(inner, width)
        self.lag_bias = nn.Parameter(torch.zeros(config.heads, config.window))
        self.mlp = nn.Sequential(nn.Linear(width, config.hidden), nn.GELU(), nn.Linear(config.hidden, width))
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Float[Tensor, "B T D"], condition: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulate(F.silu(condition)).chunk(6, -1)
        y = self.enter(normalise(x) * (1 + scale) + shift).unflatten(-1, (3, self.heads, -1))
        q, k, v = y.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(x.shape[1]))
        x = x + gate * self.leave(attended.transpose(1, 2).flatten(2))
        return x + gate_mlp * self.mlp(normalise(x) * (1 + scale_mlp) + shift_mlp)

    def _bias(self, frames: int) -> Float[Tensor, "heads T T"]:
        """The bias by lag inside the window, and minus infinity outside of it and for the future."""
        at = torch.arange(frames, device=self.lag_bias.device)
        lag = at[:, None] - at
        inside = (lag >= 0) & (lag < self.window)
        return self.lag_bias[:, lag.clamp(0, self.window - 1)].masked_fill(~inside, float("-inf"))


def normalise(x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
    """Layer normalisation without parameters."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class LatentTransformer(nn.Module):
    """Encoder, projectors, action encoder and predictor. `forward` predicts for whole sequences, as training needs it."""

    def __init__(self, config: TransformerConfig = TransformerConfig()) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.projector = VisionTransformer(config), Projector(config.latent, config.hidden)
        self.action_encoder = ActionEncoder(config.block, config.action_hidden, config.latent)
        self.layers = nn.ModuleList(PredictorLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.latent)
        self.prediction_projector = Projector(config.latent, config.hidden)

    def encode(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        """Latents of normalised images."""
        return self.projector(self.encoder(images))

    def forward(self, latents: Float[Tensor, "B T D"], blocks: Float[Tensor, "B T A"]) -> Float[Tensor, "B T D"]:
        """What follows each frame, given the frames up to it and the block that leaves each."""
        x, condition = latents, self.action_encoder(blocks)
        for layer in self.layers:
            x = layer(x, condition)
        return self.prediction_projector(self.norm(x))


class BlockActor(nn.Module):
    """Proposes the block that leads from a latent to another one that is `k` blocks away (goal-conditioned inverse dynamics)."""

    def __init__(self, config: TransformerConfig = TransformerConfig(), hidden: int = 768, blocks_max: int = 16) -> None:
        super().__init__()
        self.blocks_max = blocks_max
        self.layers = mlp(3 * config.latent + 1, hidden, config.block)

    def forward(self, latent: Float[Tensor, "S D"], goal: Float[Tensor, "S D"], k: Float[Tensor, "S"]) -> Float[Tensor, "S A"]:
        return self.layers(torch.cat([latent, goal, goal - latent, k.unsqueeze(-1) / self.blocks_max], -1))
