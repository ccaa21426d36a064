"""The latent transformer's rollout on a GPU with two kernels a layer and one for the end of a step: few launches, little memory.

A launch costs more than the arithmetic of some hundred candidates, so what lies between two matrix products is done where the
second begins (`fused_kernels.py`), and what is known of all steps, the modulations, is one product for all. The residual
stream stays in float32. Meant to be captured in a CUDA graph; planning only, so where gradients are asked for, and for the
context, `FastRollout` does the work.

Shape letters: S candidates, H blocks ahead, L layers, D latent, A action block, I all heads together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.world_model.rollout import Context, FastRollout, Layer, Linear
from foresight.world_model.transformer import LatentTransformer, TransformerConfig

EPS = 1e-6  # of `normalise`
WINDOW_MAX = 3  # frames that the kernels tell apart


def _is_power_of_two(number: int, least: int) -> bool:
    return number >= least and number & (number - 1) == 0


@dataclass(frozen=True)
class Tiling:
    """How a kernel's work is cut into programs. The defaults were the fastest of ten for 300 and 128 candidates on an H200."""

    rows: int = 16  # candidates of a program
    splits: int = 8  # of the heads, and of the hidden units: each adds a part to every sum
    warps: int = 4  # of a program
    chunk: int = 64  # hidden units that a program has in hand at a time
    heads_ahead: int = 1  # whose weights are loaded while others are used; two would be more than a Hopper's shared memory
    chunks_ahead: int = 2  # likewise, of hidden units

    def __post_init__(self) -> None:
        for name, least in (("rows", 16), ("chunk", 16), ("warps", 1)):
            if not _is_power_of_two(value := getattr(self, name), least):
                raise ValueError(f"{name} must be a power of two and at least {least}, got {value}.")
        for name, least in (("splits", 1), ("heads_ahead", 0), ("chunks_ahead", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")


class Token(NamedTuple):
    """What the next kernel begins with: x + gate * (sum of parts + bias). Without a gate the sum alone, without parts x."""

    x: Float[Tensor, "#S D"]  # in float32
    parts: Float[Tensor, "splits S D"] | None = None
    bias: Float[Tensor, "D"] | None = None
    gate: Float[Tensor, "S D"] | None = None


class Spare(NamedTuple):
    """Where a kernel writes: the token that it began with, once finished, and its own parts."""

    x: Float[Tensor, "S D"]
    parts: Float[Tensor, "splits S D"]


class FusedRollout(FastRollout):
    """One model's predictor prepared for planning on the model's GPU. `options` are those of `FastRollout`.

    In bfloat16 by default; float32 is for tests. On a CPU it needs Triton's interpreter, which is slow and also for tests.
    """

    def __init__(
        self, model: LatentTransformer, dtype: torch.dtype = torch.bfloat16, tiling: Tiling = Tiling(), **options
    ) -> None:
        self.halves = _halves(model.config, tiling)
        self.tiling, self.kernels = tiling, _kernels(model.norm.weight.device)
        super().__init__(model, dtype, **options)
        together = [layer.modulate for layer in self.layers]
        self.modulate = Linear(torch.cat([part.weight for part in together]), torch.cat([part.bias for part in together]))

    def _steps(self, context: Context, blocks: Float[Tensor, "S H A"]) -> Float[Tensor, "S H D"]:
        if torch.is_grad_enabled() and blocks.requires_grad:
            return super()._steps(context, blocks)
        return self._imagine(context, *blocks.shape[:2], self._all_modulations(blocks).unbind(1))

    def follow(
        self, context: Context, count: int, horizon: int, source: Callable[[int, Tensor], Tensor]
    ) -> tuple[Float[Tensor, "S H A"], Float[Tensor, "S H D"]]:
        if torch.is_grad_enabled():
            return super().follow(context, count, horizon, source)
        blocks: list[Tensor] = []

        def decided(h: int, latent: Float[Tensor, "#S D"]) -> Float[Tensor, "S L 6 D"]:
            blocks.append(source(h, latent.expand(count, -1)))
            return self._all_modulations(blocks[-1][:, None])[:, 0]

        latents = self._imagine(context, count, horizon, decided)
        return torch.stack(blocks, 1), latents

    def _imagine(
        self,
        context: Context,
        samples: int,
        horizon: int,
        modulate: Sequence[Tensor] | Callable[[int, Tensor], Tensor],  # (S, L, 6, D) by step, or what tells it from the latent
    ) -> Float[Tensor, "S H D"]:
        config, depth, device = self.config, len(self.layers), context.latent.device
        empty = lambda dtype, *shape: torch.empty(shape, dtype=dtype, device=device)  # noqa: E731
        spares = cycle(  # what one kernel writes, the next one reads
            Spare(
                empty(torch.float32, samples, config.latent),
                empty(self.dtype, self.tiling.splits, samples, config.latent),
            )
            for _ in range(2)
        )
        latents = empty(torch.float32, samples, horizon, config.latent)
        kept = [list(layer) for layer in context.kept]
        keys_values = empty(self.dtype, horizon, depth, 2, samples, config.heads * config.head)
        token = Token(context.latent.float())
        for h in range(horizon):
            if callable(modulate):  # which has to see the latent that the first layer would otherwise finish
                if h > 0:
                    token = Token(_finished(token, latents[:, h - 1]))
                modulations = modulate(h, token.x)
            else:
                modulations = modulate[h]
            for i, layer in enumerate(self.layers):
                spare = next(spares)
                if i == 0 and h > 0:  # the token that is finished here is the latent after the last block
                    spare = spare._replace(x=latents[:, h - 1])
                modulation, frame = modulations[:, i], tuple(keys_values[h, i])
                token = self._after_attention(token, layer, modulation, kept[i], frame, spare)
                kept[i].append(frame)
                token = self._after_feeding(token, layer, modulation, next(spares))
            token = self._projected(token, next(spares))
        _finished(token, latents[:, -1])
        return latents

    def _all_modulations(self, blocks: Float[Tensor, "S H A"]) -> Float[Tensor, "S H L 6 D"]:
        smooth, widen, leave = self.actions
        condition = leave(widen(smooth(blocks.to(self.dtype).flatten(0, 1)), "swish"), "swish")
        return self.modulate(condition).view(*blocks.shape[:2], len(self.layers), 6, -1)

    def _after_attention(
        self,
        token: Token,
        layer: Layer,
        modulation: Float[Tensor, "S 6 D"],
        frames: list[tuple[Tensor, Tensor]],  # before this one, oldest first: (#S, I) each
        own: tuple[Tensor, Tensor],  # written here
        spare: Spare,
    ) -> Token:
        config = self.config
        seen = frames[max(0, len(frames) + 1 - config.window) :][::-1]
        (k1, v1), (k2, v2) = [*seen, own, own][:2]  # where none is seen, any will do
        self.kernels.attend[self._grid(own[0])](
            *self._begin_with(token, spare, modulation[:, 0]),
            layer.enter.weight, layer.leave.weight, layer.bias_by_lag, *own,
            k1, v1, _row(k1), k2, v2, _row(k2),
            spare.parts, len(own[0]), EPS,
            HEADS=config.heads, HEAD=config.head, WINDOW=config.window, FRAMES=len(seen), RESIDUAL=token.gate is not None,
            **self._cut(token), num_stages=self.tiling.heads_ahead + 1,
        )  # fmt: skip
        return Token(spare.x if token.parts is not None else token.x, spare.parts, layer.leave.bias, modulation[:, 2])

    def _after_feeding(self, token: Token, layer: Layer, modulation: Float[Tensor, "S 6 D"], spare: Spare) -> Token:
        self._feed(token, spare, modulation[:, 3], layer.widen, layer.narrow, EPS, True)
        return Token(spare.x, spare.parts, layer.narrow.bias, modulation[:, 5])

    def _projected(self, token: Token, spare: Spare) -> Token:
        self._feed(token, spare, token.gate, self.widen, self.narrow, self.norm_eps, False)
        return Token(spare.x, spare.parts, self.narrow.bias)

    def _feed(
        self, token: Token, spare: Spare, shift: Float[Tensor, "S D"], widen: Linear, narrow: Linear, eps: float, modulated: bool
    ) -> None:
        self.kernels.feed[self._grid(shift)](
            *self._begin_with(token, spare, shift),
            widen.weight, widen.bias, narrow.weight,
            spare.parts, len(shift), eps,
            HIDDEN=self.config.hidden, CHUNK=self.tiling.chunk, MODULATED=modulated,
            **self._cut(token), num_stages=self.tiling.chunks_ahead + 1,
        )  # fmt: skip

    def _grid(self, by_candidate: Tensor) -> tuple[int, int]:
        return -(-len(by_candidate) // self.tiling.rows), self.tiling.splits

    def _begin_with(self, token: Token, spare: Spare, shift: Float[Tensor, "S D"]) -> tuple:
        added = [token.x if part is None else part for part in (token.parts, token.bias, token.gate)]  # None is not read
        return token.x, _row(token.x), *added, spare.x, _row(spare.x), shift, shift.stride(0)

    def _cut(self, token: Token) -> dict[str, int | bool]:
        """What all kernels are compiled for."""
        low, high = self.halves
        tiling = self.tiling
        return {
            **{"B": tiling.rows, "LOW": low, "HIGH": high, "SPLITS": tiling.splits},
            "PARTS": 0 if token.parts is None else tiling.splits,
            "num_warps": tiling.warps,
        }


def _finished(token: Token, out: Float[Tensor, "S D"]) -> Float[Tensor, "S D"]:
    """A latent whose parts are added up, in `out`."""
    return torch.add(token.parts.sum(0, dtype=torch.float32), token.bias, out=out)


def _row(x: Tensor) -> int:
    """The stride from one candidate to the next."""
    return 0 if len(x) == 1 else x.stride(0)


def _halves(config: TransformerConfig, tiling: Tiling) -> tuple[int, int]:
    """The powers of two whose sum is the width of a latent; or a ValueError, if the kernels cannot run such a predictor."""
    low = 1 << max(0, (config.latent - 1).bit_length() - 1)
    high = config.latent - low
    if not _is_power_of_two(high, 16):
        raise ValueError(
            f"latent must be a sum of two powers of two, each at least 16, for fused kernels, such as 48, 64 or 192; "
            f"got {config.latent}."
        )
    if not _is_power_of_two(config.head, 16):
        raise ValueError(f"head must be a power of two of at least 16 for fused kernels, got {config.head}.")
    if config.heads % tiling.splits:
        raise ValueError(f"heads ({config.heads}) must be a multiple of splits ({tiling.splits}).")
    if config.hidden % (tiling.splits * tiling.chunk):
        raise ValueError(
            f"hidden ({config.hidden}) must be a multiple of splits ({tiling.splits}) times chunk ({tiling.chunk})."
        )
    if config.window > WINDOW_MAX:
        raise ValueError(f"window must be at most {WINDOW_MAX} for fused kernels, got {config.window}.")
    return low, high


def _kernels(device: torch.device):
    """The module of kernels, which needs Triton; or a ValueError that says what is missing."""
    try:
        from foresight.world_model import fused_kernels
    except ImportError as error:
        raise ValueError(f"Fused rollouts need Triton ({error}): `pip install triton`, or plan with FastRollout.") from error
    if device.type != "cuda" and not fused_kernels.INTERPRETED:
        raise ValueError(
            f"Fused rollouts need a model on a GPU, this one is on {device}: move it with `model.cuda()`, or plan with "
            "FastRollout. (For tests, TRITON_INTERPRET=1 runs the kernels on a CPU.)"
        )
    return fused_kernels
