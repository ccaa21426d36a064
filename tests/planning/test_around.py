"""Where the tip may not be, and ways round that."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foresight.data import Box
from foresight.planning.around import Blocked, grid, way_of_tip

LOW, HIGH = np.array([0.25, -0.36, 0.022]), np.array([0.72, 0.36, 0.30])
HAND = np.array([[-0.04, -0.07, 0.02], [-0.01, -0.03, -0.02]]), np.array([[0.04, 0.07, 0.18], [0.01, 0.03, 0.05]])
POST = Box("post", np.array([0.43, -0.03, 0.0]), np.array([0.49, 0.03, 0.10]))
PLACES = grid(LOW, HIGH, 0.05)


def test_a_keep_out_forbids_the_tip_wherever_the_hand_would_come_within_the_margin():
    """Compared with the distance between the hand's boxes and the keep-out, worked out place by place."""
    blocked = Blocked.by((POST,), HAND, 0.01)
    tips = np.random.default_rng(0).uniform(LOW - 0.1, HIGH + 0.1, (4000, 3))
    depth = blocked.depth(torch.as_tensor(tips)).numpy()
    for tip, found in zip(tips, depth, strict=True):
        gaps = [np.maximum(POST.low - tip - high, tip + low - POST.high).max() for low, high in zip(*HAND, strict=True)]
        np.testing.assert_allclose(found, max(0.0, 0.01 - min(gaps)), atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_a_free_way_has_no_place_inside_and_one_that_is_not_has(seed):
    """Each straight way against a thousand places on it."""
    rng = np.random.default_rng(seed)
    blocked = Blocked.by((POST,), HAND, 0.01)
    begin, end = rng.uniform(LOW, HIGH, (2, 20, 3))
    end[:5, :2] = begin[:5, :2]  # straight up, along two axes at once
    on = begin[:, None] + np.linspace(0, 1, 1000)[:, None] * (end - begin)[:, None]
    deepest = blocked.depth(torch.as_tensor(on)).numpy().max(1)
    free = blocked.free(begin, end)
    assert (deepest[free] <= 1e-9).all() and (deepest[~free] > -1e-12).all()
    assert not free[deepest > 1e-6].any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_the_tips_way_round_is_free_and_ends_where_it_should(seed):
    """Whatever start and end: every part of the way misses the boxes, but for a start that lies inside already."""
    rng = np.random.default_rng(seed)
    blocked = Blocked.by((POST,), HAND, 0.025)
    begin, end = (blocked.outside(place) for place in rng.uniform(LOW, HIGH, (2, 3)))
    way = way_of_tip(blocked, begin, end, PLACES)
    assert way is not None and len(way) <= 3
    np.testing.assert_array_equal(way[-1], end)
    corners = np.array([begin, *way])
    assert blocked.free(corners[:-1], corners[1:]).all()


def test_there_is_no_way_into_a_cage():
    """A goal walled in on all sides has none."""
    wall = lambda low, high: Box("wall", np.array(low), np.array(high))  # noqa: E731
    cage = [wall([0.5, -0.1, 0.0], [0.51, 0.1, 0.4]), wall([0.6, -0.1, 0.0], [0.61, 0.1, 0.4])]
    cage += [wall([0.5, -0.11, 0.0], [0.61, -0.1, 0.4]), wall([0.5, 0.1, 0.0], [0.61, 0.11, 0.4])]
    cage += [wall([0.5, -0.11, 0.3], [0.61, 0.11, 0.4])]
    tip = np.zeros((1, 3)), np.zeros((1, 3))
    assert way_of_tip(Blocked.by(cage, tip, 0.01), np.array([0.4, 0.0, 0.1]), np.array([0.555, 0.0, 0.1]), PLACES) is None


def test_without_keep_outs_everything_is_free():
    """No boxes, no depth, no turns."""
    blocked = Blocked.by((), HAND, 0.01)
    begin, end = np.array([0.3, 0.0, 0.1]), np.array([0.6, 0.0, 0.1])
    assert blocked.free(begin[None], end[None]).all() and len(way_of_tip(blocked, begin, end, PLACES)) == 1
