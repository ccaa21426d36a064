"""Projection of tip motions onto what is allowed."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


LANDING = Landing(torch.tensor([[0.4, -0.1, 0.0]]), torch.tensor([[0.5, 0.1, 0.08]]), 0.04, 0.03)


def test_over_an_object_a_hand_comes_down_slowly():
    """Downwards alone, and neither away from the object, nor beside it, nor far above what the hand could touch."""
    limits, down = replace(LIMITS, landing=LANDING), torch.tensor([0.05, -0.04, -0.1])
    places = torch.tensor([[0.45, 0.0, 0.06], [0.55, 0.0, 0.06], [0.45, 0.0, 0.037], [0.45, 0.0, 0.14], [0.45, 0.0, 0.06]])
    wishes = torch.stack([down, down, down, down, -down])
    expected = torch.stack([torch.tensor([0.05, -0.04, -0.03]), down, down, down, -down])
    velocity, _ = limits.step(places, torch.zeros(5, 3), wishes, 0.1)
    torch.testing.assert_close(velocity, expected)


def test_a_hand_that_comes_fast_is_slow_at_the_object():
    """From any height, however fast it wants to come; the way down ends beside the object."""
    limits = replace(LIMITS, landing=LANDING)
    position = torch.tensor([0.45, 0.0, 0.0]) + torch.arange(0.15, 0.29, 0.001)[:, None] * torch.tensor([0.0, 0.0, 1.0])
    velocity, fastest, at_top = torch.zeros_like(position), 0.0, 0.0
    down = torch.tensor([0.0, 0.0, -0.25]).expand_as(position)
    for _ in range(60):
        before, (velocity, position) = position, limits.step(position, velocity, down, 0.1)
        fastest = max(fastest, float(-velocity[:, 2].min()))
        inside = (before[:, 2] <= LANDING.high[0, 2]) & (position[:, 2] > LANDING.beside_m)
        at_top = max(at_top, float((-velocity[inside, 2]).max().clamp_min(0)) if inside.any() else 0.0)
    assert fastest > 0.2 and 0.02 < at_top < 0.031
    assert (position[:, 2] < LANDING.beside_m).all()


def test_over_an_object_limits_have_slopes():
    """A gradient search gets finite ones, wherever it begins."""
    limits = replace(LIMITS, landing=LANDING)
    places = torch.tensor([[0.45, 0.0, z] for z in (0.04, 0.06, 0.08, 0.081, 0.1, 0.2)] + [[0.6, 0.0, 0.1]])
    wishes = torch.full((7, 3), -0.1, requires_grad=True)
    velocity, position = limits.step(places, torch.zeros(7, 3), wishes, 0.1)
    (velocity.sum() + position.sum()).backward()
    assert wishes.grad.isfinite().all() and (wishes.grad[:, :2] != 0).all()
