"""Models that have learned nothing."""

from __future__ import annotations

import torch

from foresight.world_model.model import WorldModel


def seeing_the_middle(model: WorldModel) -> WorldModel:
    """The model, which reads every place within a few centimetres of the workspace's middle, as a trained one might."""
    model.position_mean.copy_(torch.tensor([0.48, 0.0, 0.12]))
    model.position_std.fill_(0.02)
    return model
