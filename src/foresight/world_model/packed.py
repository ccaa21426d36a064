"""Linear layers as the CPU multiplies them fastest: in bfloat16, with weights packed once. For planning, never for training."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from foresight.world_model.model import WorldModel
from foresight.world_model.rollout import Linear, prepared

# Run for every candidate; encoder and decoder stay as they are.
PARTS = ("predictor", "actor", "critic", "other_critics", "readout", "dreamt")


class Packed(nn.Module):
    """Stands for a linear layer: the same numbers to about three digits, from float32 to float32."""

    def __init__(self, layer: nn.Linear, fast: Linear) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach())
        self.register_buffer("bias", layer.bias.detach())
        self._fast = fast

    def forward(self, x: Float[Tensor, "*n I"]) -> Float[Tensor, "*n O"]:
        if torch.is_grad_enabled():
            return F.linear(x, self.weight, self.bias)
        return self._fast(x.bfloat16()).float()


def pack_linears(model: WorldModel) -> WorldModel:
    """The model itself, its parts that are run for every candidate made faster where this CPU multiplies bfloat16."""
    for part in PARTS:
        module = getattr(model, part)
        for parent in [] if module is None else list(module.modules()):
            for name, layer in list(parent.named_children()):
                fast = prepared(layer, torch.bfloat16) if isinstance(layer, nn.Linear) else None
                if fast is not None and fast.packed is not None:
                    setattr(parent, name, Packed(layer, fast))
    return model
