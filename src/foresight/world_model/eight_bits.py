"""The latent transformer's rollout with layers whose weights and inputs are of eight bits, by oneDNN: faster on CPUs.

Weights have a scale per output, inputs one range for the whole tensor, seen in a rollout of examples in float32 (Jacob et al.
2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference"). What stands between the
layers is reckoned in real numbers (`native.cpp`), and so is the projection that ends each step: what it makes is the next latent
as it is, while the layers, which add to what passes by them, hardly add to the error. Planning only: there are no gradients.
For CPUs with instructions for eight bits (`multiplies_eight_bits`): on others oneDNN takes a hundred times as long as in float32.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.world_model.native import Native, compiled_for
from foresight.world_model.rollout import TYPICAL_ROWS, FastRollout, Frames, Layer, Linear, Modulation
from foresight.world_model.transformer import LatentTransformer

LARGE = ("modulate", "enter", "keep", "leave", "widen", "narrow")  # of a layer's linear parts, those that are worth it


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

    @property
    def range(self) -> tuple[float, float]:
        """Numbers for each 1.0 of the input, and which number is 0."""
        return 1 / self.scale, float(self.zero)

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        if x.dtype != torch.uint8:
            per_real, zero = self.range
            x = x.float().mul_(per_real).add_(zero + 0.5).clamp_(0, 255).to(torch.uint8)
        scale, zero, dtype = (1.0, 0, torch.bfloat16) if self.next is None else (self.next.scale, self.next.zero, torch.uint8)
        weight = (self.packed, self.weight_scale, self.weight_zero, self.bias)
        return torch.ops.onednn.qlinear_pointwise.default(
            x, self.scale, self.zero, *weight, scale, zero, dtype, activation, [], "none"
        )


class EightBitRollout(FastRollout):
    """What stands between the layers is done in one pass each where `native.cpp` could be compiled."""

    native: Native | None = None

    def _layer(self, layer: Layer, x: Float[Tensor, "#S D"], modulation: Modulation, frames: Frames) -> tuple[Tensor, Frames]:
        native = self.native
        if native is None:
            return super()._layer(layer, x, modulation, frames)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = modulation
        first, inner = not frames or self.config.window == 1, self.config.heads * self.config.head
        _, y = native.modulate(x, shift, scale, *(layer.keep if first else layer.enter).range)
        if first:  # a lone frame is attended to whatever is asked
            k, v = layer.keep(y).split(inner, -1)
            q, frames = k, ((k, v),)
        else:
            q, k, v = layer.enter(y).split(inner, -1)
            frames = (*frames, (k, v))[-self.config.window :]
        attended = native.attend(q, frames, layer.bias_by_lag[-len(frames) :], *layer.leave.range)
        x, y = native.modulate(x, shift_mlp, scale_mlp, *layer.widen.range, gate, layer.leave(attended))
        return torch.addcmul(x, gate_mlp, layer.narrow(layer.widen(y, "gelu"))), frames


def multiplies_eight_bits() -> bool:
    """Whether this CPU multiplies eight bits faster than real numbers (AVX-512 VNNI, AMX). torch has no public name for that."""
    return torch.cpu._is_vnni_supported()


@torch.no_grad()
def in_eight_bits(
    model: LatentTransformer,
    latents: Float[Tensor, "R C D"],
    blocks: Float[Tensor, "S H A"],
    executor: Executor | None = None,
    shards: int = 1,
) -> FastRollout:
    """The model's rollout with layers of eight bits. Examples tell the ranges: frames of R robots, and blocks from the last on.

    The examples should be as far from each other as what is planned later: what lies outside their range is cut off. Raises
    RuntimeError on a CPU without such instructions, where oneDNN's sums overflow besides.
    """
    if not multiplies_eight_bits():
        raise RuntimeError("This CPU has no instructions for eight bits (AVX-512 VNNI). Plan in float32: `FastRollout(model)`.")
    exact, fast = FastRollout(model), EightBitRollout(model, torch.bfloat16, executor, shards)
    exact.layers = tuple(layer._replace(**{name: Watched(getattr(layer, name)) for name in LARGE}) for layer in exact.layers)
    exact.rollout(exact.context(latents, blocks.new_zeros(len(latents), latents.shape[1] - 1, blocks.shape[-1])), blocks)
    fast.layers = tuple(
        layer._replace(**_quantised({name: getattr(watched, name) for name in LARGE}))
        for layer, watched in zip(fast.layers, exact.layers, strict=True)
    )
    fast.native = compiled_for(model.config)
    return fast


def _quantised(watched: dict[str, Watched]) -> dict[str, EightBits]:
    """The hidden numbers of a feed-forward part are never anything but eight bits."""
    found = {name: EightBits.of(linear) for name, linear in watched.items()}
    return found | {"widen": replace(found["widen"], next=found["narrow"])}
