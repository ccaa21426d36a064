"""Reading a trajectory gives a smooth motion through its points that holds its ends."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.control.trajectory import accelerations, hold, is_at_rest, join, sample
from foresight.data import Trajectory
from tests.motions import at_1khz, minimum_jerk


@pytest.fixture
def wild() -> Trajectory:
    rng = np.random.default_rng(0)
    return Trajectory(np.cumsum(rng.uniform(0.05, 0.2, 8)), rng.normal(size=(8, 6)), rng.normal(size=(8, 6)))


def test_sample_passes_through_every_point(wild):
    """At its points a trajectory has the positions and velocities it was given, also approached from before."""
    q, dq = sample(wild, wild.times_s)
    assert q == pytest.approx(wild.q) and dq == pytest.approx(wild.dq)
    q, dq = sample(wild, wild.times_s[1:] - 1e-9)
    assert q == pytest.approx(wild.q[1:], abs=1e-6) and dq == pytest.approx(wild.dq[1:], abs=1e-5)


def test_sample_agrees_with_bezier_curves(wild):
    """Positions equal those of independent code at 1 kHz, and velocities are their derivative."""
    times, expected = at_1khz(wild)
    q, _ = sample(wild, times)
    assert q == pytest.approx(expected, abs=1e-9)
    middle, h = times[:-1] + 0.0005, 1e-6
    assert sample(wild, middle)[1] == pytest.approx(
        (sample(wild, middle + h)[0] - sample(wild, middle - h)[0]) / (2 * h), abs=1e-2
    )


def test_ends_are_held(wild):
    """Before its first point and after its last the arm stands still there."""
    for time_s, i in ((wild.times_s[0] - 1, 0), (wild.times_s[-1] + 1, -1)):
        q, dq = sample(wild, time_s)
        assert q.shape == (6,) and np.array_equal(q, wild.q[i]) and (dq == 0).all()


def test_accelerations_are_second_derivatives(wild):
    """At the ends of each cubic the acceleration is what second differences of the motion say."""
    ends = accelerations(wild)
    h = 1e-4
    for i, (begin, end) in enumerate(zip(wild.times_s[:-1], wild.times_s[1:], strict=True)):
        for j, time_s in enumerate((begin + h, end - h)):
            q = sample(wild, time_s + h * np.array([-0.999, 0.0, 0.999]))[0]
            assert (q[0] - 2 * q[1] + q[2]) / (0.999 * h) ** 2 == pytest.approx(ends[i, j], rel=0.02, abs=3.0)


def test_hold_stays(profile):
    """A hold is at rest at once and stays where it is at any time."""
    still = hold(profile.home, 5.0)
    for time_s in (0.0, 5.0, 50.0):
        q, dq = sample(still, time_s)
        assert np.array_equal(q, profile.home) and (dq == 0).all()
    assert still.times_s[-1] > 5.0 and is_at_rest(still, still.times_s[-1])


def test_at_rest_after_the_last_point(profile):
    """A motion is at rest from its last point on, and not before."""
    motion = minimum_jerk(profile.home, np.full(6, 0.1), start_s=1.0, duration_s=0.5)
    assert not is_at_rest(motion, 1.49) and is_at_rest(motion, 1.5)


def test_join_is_head_then_tail(wild, profile):
    """Joined, two trajectories are read as the first until the joint and as the second from there."""
    tail = minimum_jerk(wild.q[-1], np.full(6, 0.1), start_s=float(wild.times_s[-1]))
    both = join(wild, tail)
    assert (np.diff(both.times_s) > 0).all()
    assert sample(both, wild.times_s[3] + 0.01)[0] == pytest.approx(sample(wild, wild.times_s[3] + 0.01)[0])
    assert sample(both, tail.times_s[5])[0] == pytest.approx(tail.q[5])
