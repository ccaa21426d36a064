"""SIGReg: keeps latents an isotropic Gaussian, so that they cannot collapse (LeJEPA, arXiv 2511.08544).

Every one-dimensional projection of the batch is compared with a standard normal by the Epps-Pulley statistic. A batch that is
spread over processes counts as one: the characteristic function is averaged over all of them before it is compared.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.world_model.processes import mean_over_processes, processes

KNOTS, LAST_KNOT = 17, 3.0


def sigreg(latents: Float[Tensor, "T B D"], slices: int, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
    """Mean over time steps and random directions of B * integral |phi_batch(t) - exp(-t^2/2)|^2 exp(-t^2/2) dt.

    Each time step is compared by itself: pooling time into the batch would forbid temporal structure. In float32. Every process
    must bring a generator in the same state, so that all look along the same directions; B is the batch of all of them.
    """
    latents = latents.float()
    batch = latents.shape[1] * processes()
    drawn_on = latents.device if generator is None else generator.device
    directions = torch.randn(latents.shape[-1], slices, generator=generator, device=drawn_on).to(latents.device)
    projected = latents @ (directions / directions.norm(dim=0, keepdim=True))  # T B S
    t = torch.linspace(0.0, LAST_KNOT, KNOTS, device=latents.device)
    normal = torch.exp(-t.square() / 2)
    weights = torch.full_like(t, 2 * LAST_KNOT / (KNOTS - 1)) * normal
    weights[[0, -1]] /= 2
    angles = projected.unsqueeze(-1) * t  # T B S knots
    real, imaginary = mean_over_processes(torch.stack([angles.cos().mean(1), angles.sin().mean(1)]))
    error = (real - normal).square() + imaginary.square()
    return batch * (error * weights).sum(-1).mean()
