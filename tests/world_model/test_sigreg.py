"""SIGReg against what is known about it."""

import math

import pytest
import torch

from foresight.world_model.sigreg import sigreg


def draw(scale=1.0, t=2, b=256, d=8, seed=0):
    return scale * torch.randn(t, b, d, generator=torch.Generator().manual_seed(seed))


def floor() -> float:
    """Expected value for independent standard normals: the variance of cos and sin of t h, weighted and summed."""
    total = 0.0
    for j in range(17):
        t = 3 * j / 16
        total += 3 / 16 * (1 if j in (0, 16) else 2) * math.exp(-t * t / 2) * (1 - math.exp(-t * t))
    return total


def value(x):
    return float(sigreg(x, 256, torch.Generator().manual_seed(1)))


def test_a_normal_batch_sits_at_the_floor():
    """Independent standard normals give the statistic's expected value."""
    measured = sum(value(draw(seed=s)) for s in range(12)) / 12
    assert measured == pytest.approx(floor(), rel=0.15)


@pytest.mark.parametrize("bad", ["collapsed", "narrow", "wide", "shifted", "one_direction"])
def test_every_other_shape_costs_more(bad):
    """Collapse, wrong scale, wrong mean and a lost direction all cost several times the floor."""
    x = draw()
    bad_x = {"collapsed": 0 * x, "narrow": 0.5 * x, "wide": 2 * x, "shifted": x + 1, "one_direction": x[..., :1].expand_as(x)}[
        bad
    ]
    assert value(bad_x) > 3 * value(x)


def test_it_equals_the_formula_written_out():
    """Recomputed by plain loops for one direction, one time step."""
    x = draw(t=1, b=16, d=1)
    expected, last = 0.0, 16
    for j in range(17):
        t = 3 * j / 16
        real = sum(math.cos(t * abs(float(v))) for v in x[0, :, 0]) / 16
        imaginary = sum(math.sin(t * float(v)) for v in x[0, :, 0]) / 16
        weight = 3 / 16 * (1 if j in (0, last) else 2) * math.exp(-t * t / 2)
        expected += weight * ((real - math.exp(-t * t / 2)) ** 2 + imaginary**2)
    assert value(x) == pytest.approx(16 * expected, rel=1e-4)


def test_its_gradient_spreads_a_collapsed_batch():
    """Following the gradient restores a standard deviation near one."""
    x = (0.05 * draw(t=1, b=128, d=4)).requires_grad_(True)
    optimiser = torch.optim.Adam([x], 0.05)
    for i in range(150):
        optimiser.zero_grad()
        sigreg(x, 64, torch.Generator().manual_seed(i)).backward()
        optimiser.step()
    assert 0.75 < float(x.detach().std()) < 1.25
