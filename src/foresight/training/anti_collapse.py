"""What keeps the latents from collapsing, each a penalty on a batch of latents. One is chosen by `TrainConfig.anti_collapse`.

`sigreg`   every projection is a standard normal (LeJEPA, arXiv 2511.08544); in `world_model/sigreg.py`
`vicreg`   each number varies, and no two vary together (VICReg, arXiv 2105.04906)
`infonce`  what was foreseen resembles what came more than what came to others (CPC, arXiv 1807.03748)
`ema`      what is foreseen are the latents of a slowly following teacher, which gradients do not reach (BYOL, arXiv 2006.07733)
`none`     nothing: what collapses then shows what the others are for

Batches that are spread over processes count as one. All in float32. Shape letters: T frames, B windows, D latent.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from foresight.world_model.processes import mean_over_processes, of_all_processes, processes

AntiCollapse = Literal["sigreg", "vicreg", "infonce", "ema", "none"]
METHODS: tuple[str, ...] = get_args(AntiCollapse)

COVARIANCE_SHARE = 2 / 3  # of VICReg's covariance term in its variance term, as tuned for latent world models (PLDM: 12 to 18)
TEMPERATURE = 0.1  # of InfoNCE, on squared distances averaged over the latent's numbers


def vicreg(latents: Float[Tensor, "T B D"]) -> Float[Tensor, ""]:
    """Mean over time of the hinge on each number's standard deviation (target 1), plus the squared covariances' share."""
    latents = latents.float()
    windows = latents.shape[1] * processes()
    centred = latents - mean_over_processes(latents.mean(1, keepdim=True))
    covariance = mean_over_processes(centred.mT @ centred / latents.shape[1]) * (windows / (windows - 1))  # T D D
    variance = covariance.diagonal(dim1=1, dim2=2)
    spread = F.relu(1 - torch.sqrt(variance + 1e-4)).mean()
    together = (covariance.square().sum((1, 2)) - variance.square().sum(1)).mean() / latents.shape[-1]
    return spread + COVARIANCE_SHARE * together


def infonce(foreseen: Float[Tensor, "T B D"], seen: Float[Tensor, "T B D"]) -> Float[Tensor, ""]:
    """Cross-entropy of picking, among the frames that came at the same time in all windows, the one that was foreseen."""
    foreseen, seen = foreseen.float(), seen.float()
    candidates = of_all_processes(seen.transpose(0, 1).contiguous()).transpose(0, 1)  # T W*B D
    squares = foreseen.square().mean(-1).unsqueeze(2) + candidates.square().mean(-1).unsqueeze(1)
    logits = (2 * foreseen @ candidates.mT / foreseen.shape[-1] - squares) / TEMPERATURE  # T B W*B, minus the squared distances
    own = torch.arange(seen.shape[1], device=seen.device)
    own = own + (distributed.get_rank() * seen.shape[1] if processes() > 1 else 0)
    return F.cross_entropy(logits.flatten(0, 1), own.repeat(len(seen)))


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Moves the teacher's weights towards the student's: momentum 1 stands still, 0 copies. Buffers are copied."""
    for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.lerp_(theirs, 1 - momentum)
    for mine, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        mine.copy_(theirs)
