"""Linear layers as the CPU multiplies them fastest: in bfloat16, with weights packed once. For planning, never for training."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from foresight.world_model.model import WorldModel
from foresight.world_model.networks import Predictor
from foresight.world_model.rollout import Linear, prepared

# Run for every candidate; encoder and decoder stay as they are.
PARTS = ("predictor", "actor", "critic", "other_critics", "readout", "dreamt")


class Packed(nn.Module):
    """Stands for a linear layer: the same numbers to about three digits, from float32 to float32."""

    def __init__(self, layer: nn.Linear, fast: Linear) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach())
        self.register_buffer("bias", layer.bias.detach())
        self.fast = fast

    def forward(self, x: Float[Tensor, "*n I"]) -> Float[Tensor, "*n O"]:
        if torch.is_grad_enabled():
            return F.linear(x, self.weight, self.bias)
        return self.fast(x.bfloat16()).float()


class PackedPredictor(nn.Module):
    """Stands for a predictor whose layers are packed: the same numbers, bit for bit, in fewer operations.

    Of all layers' modulations one product is made, and numbers stay in bfloat16 where only an activation is between two layers.
    """

    def __init__(self, exact: Predictor) -> None:
        super().__init__()
        self.exact = exact
        of_all = {part: torch.cat([getattr(layer.modulate, part) for layer in exact.blocks]) for part in ("weight", "bias")}
        self._modulate = prepared(SimpleNamespace(**of_all), torch.bfloat16)
        self._modulations = (len(exact.blocks), 3, -1)

    def forward(
        self, latent: Float[Tensor, "*B D"], proprio: Float[Tensor, "*B P"], block: Float[Tensor, "*B A"]
    ) -> tuple[Float[Tensor, "*B D"], Float[Tensor, "*B P"]]:
        """As `Predictor` has it; that itself where a gradient is asked for."""
        exact = self.exact
        if torch.is_grad_enabled():
            return exact(latent, proprio, block)
        smooth, _, widen, _ = exact.condition
        x = exact.enter(torch.cat([latent, proprio], -1))
        condition = F.silu(smooth.fast(torch.cat([block, proprio], -1).bfloat16()), inplace=True)
        condition = F.silu(widen.fast(condition), inplace=True)
        modulations = self._modulate(condition).float().unflatten(-1, self._modulations)
        modulations[..., ::2, :] += 1  # scale and gate
        for layer, modulation in zip(exact.blocks, modulations.unbind(-3), strict=True):
            scale, shift, gate = modulation.unbind(-2)
            y = F.layer_norm(x, x.shape[-1:], eps=layer.norm.eps).mul_(scale).add_(shift)
            hidden = torch.ops.aten.gelu_(layer.mlp[0].fast(y.bfloat16()))
            x = x + gate * layer.mlp[2].fast(hidden)
        change = exact.leave(x)
        return latent + change[..., : exact.latent], proprio + change[..., exact.latent :]


def pack_linears(model: WorldModel) -> WorldModel:
    """The model itself, its parts that are run for every candidate made faster where this CPU multiplies bfloat16."""
    for part in PARTS:
        module = getattr(model, part)
        for parent in [] if module is None else list(module.modules()):
            for name, layer in list(parent.named_children()):
                fast = prepared(layer, torch.bfloat16) if isinstance(layer, nn.Linear) else None
                if fast is not None and fast.packed is not None:
                    setattr(parent, name, Packed(layer, fast))
    if model.predictor is not None and isinstance(model.predictor.leave, Packed):
        model.predictor = PackedPredictor(model.predictor)
    return model
