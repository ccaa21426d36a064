"""Is the latent alive? Spread, effective rank, skill against persistence, and what a linear probe can read from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

COLLAPSED_STD, COLLAPSED_RANK = 0.1, 1.5


@dataclass(frozen=True)
class Health:
    """Measured on held-out episodes."""

    std: float  # mean standard deviation of a latent number; about 1 when SIGReg holds
    rank: float  # effective rank: exp of the entropy of the covariance's spectrum
    skill: float  # 1 - one-block error / persistence error; 0 is no better than "nothing changes"
    tip_cm: float  # median error of a linear probe for the tip
    object_cm: float  # the same for the object

    @property
    def collapsed(self) -> bool:
        return bool(self.collapse)

    @property
    def collapse(self) -> str:
        """Which figures say that the latents have collapsed; empty while they are alive."""
        limits = (("std", self.std, COLLAPSED_STD), ("rank", self.rank, COLLAPSED_RANK))
        return ", ".join(f"{name} {value:.2f}, alive from {least} on" for name, value, least in limits if not value >= least)

    def __str__(self) -> str:
        text = (
            f"std {self.std:.2f}  rank {self.rank:.1f}  skill {self.skill:.3f}  "
            f"probe tip {self.tip_cm:.2f} cm  object {self.object_cm:.2f} cm"
        )
        return f"COLLAPSE: {text}" if self.collapsed else text


def effective_rank(latents: Float[Tensor, "N D"]) -> float:
    spectrum = torch.linalg.eigvalsh(torch.cov(latents.double().T)).clamp_min(0)
    share = spectrum / spectrum.sum().clamp_min(1e-12)
    return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))


def probe_error(latents: Float[Tensor, "N D"], positions: Float[Tensor, "N 3"]) -> float:
    """Median distance [m] of a ridge-regressed position, fitted on the even rows and measured on the odd ones."""
    x = torch.cat([latents, torch.ones(len(latents), 1)], 1).double()
    y = positions.double()
    fit, test = slice(0, None, 2), slice(1, None, 2)
    weights = torch.linalg.solve(x[fit].T @ x[fit] + 1e-3 * len(x) / 2 * torch.eye(x.shape[1], dtype=x.dtype), x[fit].T @ y[fit])
    return float((x[test] @ weights - y[test]).norm(dim=1).median())


def probe_correlation(
    fit: tuple[Float[Tensor, "N D"], Float[Tensor, "N n"]], test: tuple[Float[Tensor, "M D"], Float[Tensor, "M n"]]
) -> float:
    """Pearson's r between values and what ridge regression on the first pair makes of them in the second; median of the n."""
    x, y, held, wanted = (values.double() for values in (*fit, *test))
    x, held = (torch.cat([values, torch.ones(len(values), 1, dtype=values.dtype)], 1) for values in (x, held))
    weights = torch.linalg.solve(x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    a, b = ((values - values.mean(0)) for values in (held @ weights, wanted))
    return float(((a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp_min(1e-12)).median())


def measure(
    now: Float[Tensor, "N D"],
    later: Float[Tensor, "N D"],
    foreseen: Float[Tensor, "N D"],
    tip: Float[Tensor, "N 3"],
    obj: Float[Tensor, "N 3"],
) -> Health:
    """Health from latents one block apart, what was foreseen for the later ones, and true positions at the earlier."""
    if not now.isfinite().all():
        return Health(np.nan, np.nan, np.nan, np.nan, np.nan)
    persistence = (later - now).square().mean()
    skill = 1 - float((foreseen - later).square().mean() / persistence.clamp_min(1e-12))
    return Health(float(now.std(0).mean()), effective_rank(now), skill, 100 * probe_error(now, tip), 100 * probe_error(now, obj))
