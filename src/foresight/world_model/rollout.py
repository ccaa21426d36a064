"""Runs the latent transformer for planning: many candidates from one belief, one new token a step, keys and values kept.

What does not depend on the candidates is done once: frames before the last through all layers (per plan), batch
normalisation and affine parts folded into the linear layers beside them (per model). The results are those of
`LatentTransformer.forward` on the whole sequence. Each step makes new tensors on the CPU, for which next to nothing is asked
of the system after the first plans where the process keeps what it frees (`memory.py`). Knows no objective and no search.

Shape letters: S candidates, R robots, C frames of context, H blocks ahead, D latent, A action block, I all heads together.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from foresight.world_model.transformer import LatentTransformer, PredictorLayer, normalise

SHAPES_MAX = 64  # that a function is compiled for; three sizes of a search pass torch's own limit
TYPICAL_ROWS = 150  # that the packing of weights is chosen for; other numbers work too
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # by oneDNN's names
    "none": lambda x: x,
    "gelu": lambda x: F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x),  # in place where no gradient needs it
    "swish": F.silu,
}


@dataclass(frozen=True)
class Linear:
    """Weight and bias of one linear layer, as it is run."""

    weight: Tensor
    bias: Tensor | None
    packed: Tensor | None = None  # the weight in oneDNN's own order, where it has one; it then packs nothing per call

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """`activation` is a key of ACTIVATIONS; applied while the product is still in the cache, where the weight is packed."""
        if self.packed is None or torch.is_grad_enabled():
            return ACTIVATIONS[activation](F.linear(x, self.weight, self.bias))
        return torch.ops.mkldnn._linear_pointwise.default(x, self.packed, self.bias, activation, [], "none")


Modulation = Sequence[Tensor]  # shift, scale + 1, gate, and the same for the feed-forward part: (S, D) each
Frames = tuple[tuple[Tensor, Tensor], ...]  # one layer's keys and values by frame, oldest first: (S, I) each


class Layer(NamedTuple):
    """One layer of the predictor, as it is run."""

    modulate: Linear  # to its Modulation
    enter: Linear  # to queries, scaled, keys and values
    keep: Linear  # to keys and values alone
    leave: Linear
    bias_by_lag: Float[Tensor, "window 1 heads"]
    widen: Linear
    narrow: Linear


class Context(NamedTuple):
    """Of each robot: keys and values of the frames before the last one by layer, and the last frame's latent."""

    kept: tuple[Frames, ...]  # by layer
    latent: Float[Tensor, "R D"]

    def repeat(self, times: int) -> "Context":
        """The same for `times` candidates of each robot."""
        again = lambda x: x.repeat_interleave(times, 0)  # noqa: E731
        return Context(tuple(tuple((again(k), again(v)) for k, v in layer) for layer in self.kept), again(self.latent))

    def split(self, parts: int) -> list["Context"]:
        """Row by row into so many parts; what one row holds is shared by all parts."""
        if len(self.latent) == 1:
            return [self] * parts
        pick = lambda x, i: x.tensor_split(parts)[i]  # noqa: E731
        return [
            Context(tuple(tuple((pick(k, i), pick(v, i)) for k, v in layer) for layer in self.kept), pick(self.latent, i))
            for i in range(parts)
        ]


class FastRollout:
    """One model's predictor prepared for planning, on the model's device.

    `dtype` is that of weights and activations (float32, or bfloat16 where the machine multiplies it faster). `shards` splits
    the candidates over that many threads of `executor`; torch itself should then run with one thread. Faster functions may be
    made of functions: `compile` of one layer (`compiled`), `capture` of the whole rollout (`graphs.Graphed`, on a GPU).
    """

    def __init__(
        self,
        model: LatentTransformer,
        dtype: torch.dtype = torch.float32,
        executor: Executor | None = None,
        shards: int = 1,
        compile: Callable[[Callable], Callable] | None = None,
        capture: Callable[[Callable], Callable] | None = None,
    ) -> None:
        if model.training:
            raise ValueError("The model is in training mode; planning needs `model.eval()`.")
        if shards < 1 or (shards > 1 and executor is None):
            raise ValueError(f"shards must be 1 without an executor, and at least 1 with one; got {shards}.")
        self.config, self.dtype, self.executor, self.shards = model.config, dtype, executor, shards
        with torch.no_grad():
            self.actions = tuple(prepared(layer, dtype) for layer in model.action_encoder.layers if hasattr(layer, "weight"))
            self.layers = tuple(_prepare(layer, dtype) for layer in model.layers)
            project = model.prediction_projector
            widen = _folded_after(model.norm.weight, model.norm.bias, project.enter.weight, project.enter.bias)
            scale = project.norm.weight * (project.norm.running_var + project.norm.eps).rsqrt()
            shift = project.norm.bias - project.norm.running_mean * scale
            self.widen = _cast(widen[0] * scale[:, None], widen[1] * scale + shift, dtype)
            self.narrow = prepared(project.leave, dtype)
            self.norm_eps = model.norm.eps
        self.layer = self._layer if compile is None else compile(self._layer)
        self.steps = self._steps if capture is None else capture(self._steps)

    @torch.no_grad()
    def context(self, latents: Float[Tensor, "R C D"], blocks: Float[Tensor, "R Cless1 A"]) -> Context:
        """What the frames seen so far contribute, given the executed blocks between them. Once per plan, for R robots."""
        if latents.shape[1] != blocks.shape[1] + 1:
            raise ValueError(f"{latents.shape[1]} frames have {latents.shape[1] - 1} blocks between them, got {blocks.shape[1]}.")
        kept: list[Frames] = [()] * len(self.layers)
        for c in range(blocks.shape[1]):
            self._step(latents[:, c].to(self.dtype), self._modulations(blocks[None, :, c])[0], kept)
        return Context(tuple(kept), latents[:, -1].to(self.dtype))

    def rollout(self, context: Context, blocks: Float[Tensor, "S H A"]) -> Float[Tensor, "S H D"]:
        """The latents after each block, in float32. With a context of R robots, S / R candidates of each, robot by robot."""
        robots = len(context.latent)
        if len(blocks) % robots:
            raise ValueError(f"{len(blocks)} candidates cannot be shared equally by {robots} robots.")
        if robots > 1:
            context = context.repeat(len(blocks) // robots)
        shards = min(self.shards, len(blocks))
        if shards <= 1 or torch.is_grad_enabled():  # the gradient's graph belongs to one thread
            return self.steps(context, blocks)
        parts = zip(context.split(shards), blocks.tensor_split(shards), strict=True)
        return torch.cat(list(self.executor.map(lambda part: self._in_thread(*part), parts)))

    def follow(
        self, context: Context, count: int, horizon: int, source: Callable[[int, Tensor], Tensor]
    ) -> tuple[Float[Tensor, "S H A"], Float[Tensor, "S H D"]]:
        """Candidates whose next block is decided in the latent imagined so far: `source(h, latents)`, such as an actor."""
        kept, blocks, found = list(context.kept), [], []
        x = context.latent.expand(count, -1)
        for h in range(horizon):
            blocks.append(source(h, x.float()))
            x = self._step(x, self._modulations(blocks[-1][None])[0], kept)
            found.append(x)
        return torch.stack(blocks, 1), torch.stack(found, 1).float()

    def begin(self, latents: Float[Tensor, "C D"], blocks: Float[Tensor, "Cless1 A"]) -> "Beginning":
        """A rollout from one robot's frames, as a search evaluates it."""
        return Beginning(self, self.context(latents[None], blocks[None]))

    def _in_thread(self, context: Context, blocks: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.steps(context, blocks)

    def _steps(self, context: Context, blocks: Float[Tensor, "S H A"]) -> Float[Tensor, "S H D"]:
        modulations = self._modulations(blocks.transpose(0, 1))
        kept = list(context.kept)
        x, found = context.latent, []  # one row for all candidates, where all begin at one
        for modulation in modulations:
            x = self._step(x, modulation, kept)
            found.append(x)
        return torch.stack(found, 1).float()

    def _modulations(self, blocks: Float[Tensor, "H S A"]) -> list[tuple[Modulation, ...]]:
        """By step and layer, what the actions make of the normalised token: known for all steps before the first."""
        smooth, widen, leave = self.actions
        condition = leave(widen(smooth(blocks.to(self.dtype).flatten(0, 1)), "swish"), "swish")
        shape = (*blocks.shape[:2], 6, -1)
        by_layer = [[step.unbind(1) for step in layer.modulate(condition).view(shape)] for layer in self.layers]
        return list(zip(*by_layer, strict=True))

    def _step(self, x: Float[Tensor, "#S D"], modulations: Sequence[Modulation], kept: list[Frames]) -> Float[Tensor, "S D"]:
        """The next latent; the frame's keys and values are added to what each layer keeps."""
        for i, (layer, modulation) in enumerate(zip(self.layers, modulations, strict=True)):
            x, kept[i] = self.layer(layer, x, modulation, kept[i])
        x = torch.layer_norm(x, x.shape[-1:], eps=self.norm_eps)
        return self.narrow(self.widen(x, "gelu"))

    def _layer(self, layer: Layer, x: Float[Tensor, "#S D"], modulation: Modulation, frames: Frames) -> tuple[Tensor, Frames]:
        """One layer's output (S, D), and its keys and values with this frame's."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = modulation
        attended, frames = self._attend(layer, torch.addcmul(shift, normalise(x), scale), frames)
        x = torch.addcmul(x, gate, layer.leave(attended))
        hidden = layer.widen(torch.addcmul(shift_mlp, normalise(x), scale_mlp), "gelu")
        return torch.addcmul(x, gate_mlp, layer.narrow(hidden)), frames

    def _attend(self, layer: Layer, y: Float[Tensor, "S D"], frames: Frames) -> tuple[Float[Tensor, "S I"], Frames]:
        """One query against the window's few keys: cheaper as elementwise products than as thousands of tiny matrices."""
        inner, heads = self.config.heads * self.config.head, (-1, self.config.heads, self.config.head)
        if not frames or self.config.window == 1:  # a lone frame is attended to whatever is asked
            k, v = layer.keep(y).split(inner, -1)
            return v, ((k, v),)
        q, k, v = layer.enter(y).split(inner, -1)
        frames = (*frames, (k, v))[-self.config.window :]
        scores = torch.stack([(q * k).view(heads).sum(-1) for k, _ in frames])
        weights = (scores + layer.bias_by_lag[-len(frames) :]).softmax(0).to(q.dtype).unsqueeze(-1)
        attended = weights[0] * frames[0][1].view(heads)
        for weight, (_, v) in zip(weights[1:], frames[1:], strict=True):
            attended = torch.addcmul(attended, weight, v.view(heads))
        return attended.flatten(1), frames


@dataclass(frozen=True)
class Beginning:
    """Satisfies `interfaces.Rollout`: a prepared model and what was seen."""

    model: FastRollout
    context: Context

    def rollout(self, controls: Float[Tensor, "S H A"]) -> Float[Tensor, "S H D"]:
        return self.model.rollout(self.context, controls)


def compiled(function: Callable, **options) -> Callable:
    """The function through `torch.compile`, anew for each set of shapes, of which there may be SHAPES_MAX.

    Where that fails, the function itself, with a RuntimeWarning that says why.
    """
    fast = torch.compile(function, dynamic=False, **options)

    def call(*arguments):
        nonlocal fast
        if fast is not function:
            try:
                with torch._dynamo.config.patch(recompile_limit=SHAPES_MAX):
                    return fast(*arguments)
            except Exception as error:  # of a compiler: whatever it is, planning goes on
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                warnings.warn(f"torch.compile failed ({reason}); planning runs uncompiled.", RuntimeWarning, stacklevel=2)
                fast = function
        return function(*arguments)

    return call


def _prepare(layer: PredictorLayer, dtype: torch.dtype) -> Layer:
    width, inner = layer.leave.weight.shape
    scale_bias = layer.modulate.bias.unflatten(0, (6, width)).clone()
    scale_bias[[1, 4]] += 1
    enter = layer.enter.weight.clone()
    enter[:inner] *= (inner // layer.heads) ** -0.5
    return Layer(
        _cast(layer.modulate.weight, scale_bias.flatten(), dtype),
        _cast(enter, None, dtype),
        _cast(enter[inner:], None, dtype),
        prepared(layer.leave, dtype),
        layer.lag_bias.flip(1).t().unsqueeze(1).float().contiguous(),  # the oldest frame first
        prepared(layer.mlp[0], dtype),
        prepared(layer.mlp[2], dtype),
    )


def _folded_after(scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer that takes over the scale and shift applied before it."""
    return weight * scale, bias + weight @ shift


def prepared(layer, dtype: torch.dtype) -> Linear:
    """A torch linear layer as it is run."""
    return _cast(layer.weight, layer.bias, dtype)


def _cast(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Linear:
    as_run = lambda x: x.detach().to(dtype).contiguous()  # noqa: E731
    return Linear(as_run(weight), None if bias is None else as_run(bias), _pack(as_run(weight)))


def _pack(weight: Tensor) -> Tensor | None:
    """What torch's own compiler does with frozen weights; None where this build or device has no such thing."""
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not multiplies_bfloat16():
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS)


def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 as fast as float32 or faster (AVX-512, AMX); others take many times as long."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
