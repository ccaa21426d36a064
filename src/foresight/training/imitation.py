"""How far an actor's motions are from those that were made. Knows no data.

Of an actor with several motions only the nearest learns from a row, but for a little, so that they come apart where episodes went
several ways (multiple choice learning, Guzman-Rivera 2012); log odds learn which that was.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from foresight.world_model.model import WorldModel

STRAY = 0.05  # share of its error that what is proposed learns from where another proposal is nearer
ODDS_WEIGHT = 0.1  # of the log odds' loss


def imitation_error(
    model: WorldModel, features: Float[Tensor, "B G"], k: Float[Tensor, "B"], block: Float[Tensor, "B A"]
) -> Float[Tensor, "B"]:
    """In units of the actions' spread, squared; of the nearest motion where there are several, with what the odds miss."""
    motions, odds = model.act_each(features, k)
    errors = ((motions.float() - block[:, None]) / model.action_std).square().mean(-1)
    missed = nearest(errors)
    if model.modes == 1:
        return missed
    return missed + ODDS_WEIGHT * F.cross_entropy(odds.float(), errors.detach().argmin(1), reduction="none")


def nearest(errors: Float[Tensor, "B M"]) -> Float[Tensor, "B"]:
    """What M proposals learn from: the least of their errors, and a little of all."""
    return errors.amin(1) + STRAY * errors.mean(1) if errors.shape[1] > 1 else errors[:, 0]


@torch.no_grad()
def modes_apart(model: WorldModel, features: Float[Tensor, "B G"], k: Float[Tensor, "B"]) -> float:
    """How far an actor's motions differ: root mean square about their mean, in the actions' spread; 0 with one."""
    motions = model.act_each(features, k)[0] / model.action_std
    return float((motions - motions.mean(1, keepdim=True)).square().mean().sqrt())
