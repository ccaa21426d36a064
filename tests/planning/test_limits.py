"""Projection of tip motions onto what is allowed."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foresight.planning.limits import TipLimits

OVERSHOOT_M = 0.010  # in the wildest tremor, when several walls claim the acceleration at once; the guard refuses the rest
LIMITS = TipLimits(0.25, 1.5, torch.tensor([0.25, -0.36, 0.02]), torch.tensor([0.72, 0.36, 0.30]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_wild_wishes_keep_speed_acceleration_and_nearly_the_walls(seed):
    """Starting at rest inside, any sequence of wishes keeps speed and acceleration, and the walls within a centimetre."""
    generator = torch.Generator().manual_seed(seed)
    position = LIMITS.low + torch.rand(64, 3, generator=generator) * (LIMITS.high - LIMITS.low)
    velocity = torch.zeros(64, 3)
    for _ in range(40):
        new, position = LIMITS.step(position, velocity, torch.randn(64, 3, generator=generator), 0.1)
        assert (new.norm(dim=1) <= 0.25 + 1e-5).all()
        assert ((new - velocity).norm(dim=1) <= 0.15 + 1e-5).all()
        assert (position >= LIMITS.low - OVERSHOOT_M).all() and (position <= LIMITS.high + OVERSHOOT_M).all()
        velocity = new


def test_a_modest_wish_is_granted():
    """Inside all limits nothing is changed."""
    wish = torch.tensor([[0.05, -0.04, 0.03]])
    velocity, position = LIMITS.step(torch.tensor([[0.5, 0.0, 0.15]]), torch.zeros(1, 3), wish, 0.1)
    torch.testing.assert_close(velocity, wish)
    torch.testing.assert_close(position, torch.tensor([[0.5, 0.0, 0.15]]) + 0.05 * wish)
