"""Projection of tip motions onto what is allowed."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foresight.planning.around import Blocked
from foresight.planning.limits import Landing, TipLimits

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


def test_over_an_object_a_hand_comes_down_slowly():
    """Downwards alone, and neither away from the object, nor beside it, nor above what the hand could touch."""
    over = Blocked(np.array([[0.4, -0.1, 0.0]]), np.array([[0.5, 0.1, 0.08]]))
    limits = replace(LIMITS, landing=Landing(over, 0.04, 0.03))
    down = torch.tensor([0.05, -0.04, -0.1])
    places = torch.tensor([[0.45, 0.0, 0.06], [0.55, 0.0, 0.06], [0.45, 0.0, 0.035], [0.45, 0.0, 0.09], [0.45, 0.0, 0.06]])
    wishes = torch.stack([down, down, down, down, -down])
    expected = torch.stack([torch.tensor([0.05, -0.04, -0.03]), down, down, down, -down])
    velocity, _ = limits.step(places, torch.zeros(5, 3), wishes, 0.1)
    torch.testing.assert_close(velocity, expected)
