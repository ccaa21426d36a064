"""The latent transformer's rollout with layers whose weights and inputs are of eight bits, by oneDNN: faster on CPUs.

Weights have a scale per output, inputs one range for the whole tensor, seen in a rollout of examples in float32 (Jacob et al.
2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference"). Attention stays in
bfloat16, and so does the projection that ends each step: what it makes is the next latent as it is, while the layers, which
add to what passes by them, hardly add to the error. Planning only: there are no gradients.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.world_model.rollout import TYPICAL_ROWS, FastRollout, Linear
from foresight.world_model.transformer import LatentTransformer

LARGE = ("modulate", "enter", "keep", "widen", "narrow")  # of a layer's linear parts, those that are worth it


class Watched:
    """A linear layer that notes the range of its inputs."""

    def __init__(self, linear: Linear) -> None:
        self.linear, self.low, self.high = linear, 0.0, 0.0

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        return self.linear(x, activation)


@dataclass(frozen=True)
class EightBits:
    """One linear layer in integers. Inputs are real numbers or, from a layer whose `next` this is, eight bits already."""

    scale: float  # of inputs: real = scale * (number - zero)
    zero: int
    packed: Tensor
    weight_scale: Float[Tensor, "out"]
    weight_zero: Tensor
    bias: Float[Tensor, "out"] | None
    next: EightBits | None = None  # whose inputs the outputs are

    @classmethod
    def of(cls, watched: Watched) -> EightBits:
        weight, bias = watched.linear.weight, watched.linear.bias
        scale = max(watched.high - watched.low, 1e-6) / 255
        by_output = weight.abs().amax(1).clamp_min(1e-8) / 127
        whole = (weight / by_output[:, None]).round().clamp(-127, 127).to(torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(whole, [TYPICAL_ROWS, weight.shape[1]])
        return cls(scale, round(-watched.low / scale), packed, by_output, torch.zeros(len(weight), dtype=torch.int64), bias)

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        if x.dtype != torch.uint8:
            x = x.float().mul_(1 / self.scale).add_(self.zero + 0.5).clamp_(0, 255).to(torch.uint8)
        scale, zero, dtype = (1.0, 0, torch.bfloat16) if self.next is None else (self.next.scale, self.next.zero, torch.uint8)
        weight = (self.packed, self.weight_scale, self.weight_zero, self.bias)
        return torch.ops.onednn.qlinear_pointwise.default(
            x, self.scale, self.zero, *weight, scale, zero, dtype, activation, [], "none"
        )


@torch.no_grad()
def in_eight_bits(
    model: LatentTransformer,
    latents: Float[Tensor, "R C D"],
    blocks: Float[Tensor, "S H A"],
    executor: Executor | None = None,
    shards: int = 1,
) -> FastRollout:
    """The model's rollout with layers of eight bits. Examples tell the ranges: frames of R robots, and blocks from the last on.

    The examples should be as far from each other as what is planned later: what lies outside their range is cut off.
    """
    exact, fast = FastRollout(model), FastRollout(model, torch.bfloat16, executor, shards)
    exact.layers = tuple(layer._replace(**{name: Watched(getattr(layer, name)) for name in LARGE}) for layer in exact.layers)
    exact.rollout(exact.context(latents, blocks.new_zeros(len(latents), latents.shape[1] - 1, blocks.shape[-1])), blocks)
    fast.layers = tuple(
        layer._replace(**_quantised({name: getattr(watched, name) for name in LARGE}))
        for layer, watched in zip(fast.layers, exact.layers, strict=True)
    )
    return fast


def _quantised(watched: dict[str, Watched]) -> dict[str, EightBits]:
    """The hidden numbers of a feed-forward part are never anything but eight bits."""
    found = {name: EightBits.of(linear) for name, linear in watched.items()}
    return found | {"widen": replace(found["widen"], next=found["narrow"])}
