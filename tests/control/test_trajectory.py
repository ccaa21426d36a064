"""Reading a trajectory gives a smooth motion through its points that holds its ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foresight.control.braking import braking
from foresight.control.trajectory import Rates, cut, derivatives, hold, join, sample, splice, take_over
from foresight.data import Trajectory
from tests.motions import at_1khz, minimum_jerk


@pytest.fixture(params=["quintic", "cubic"])
def wild(request) -> Trajectory:
    rng = np.random.default_rng(0)
    q, dq, ddq = rng.normal(size=(3, 8, 6))
    return Trajectory(np.cumsum(rng.uniform(0.05, 0.2, 8)), q, dq, ddq if request.param == "quintic" else None)


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


def test_derivatives_follow_from_each_other(wild):
    """Velocity, acceleration and jerk are what differences of the quantity before them say, at any time inside."""
    times, h = np.linspace(wild.times_s[0] + 0.001, wild.times_s[-1] - 0.001, 997), 1e-6
    times = times[np.abs(times[:, None] - wild.times_s).min(1) > 2 * h]
    before, after, here = (derivatives(wild, times + d) for d in (-h, h, 0.0))
    for order in range(3):
        slope = (after[order] - before[order]) / (2 * h)
        assert slope == pytest.approx(here[order + 1], rel=1e-4, abs=1e-3 * max(1.0, np.abs(here[order + 1]).max()))


def test_rates_are_the_derivatives(wild):
    """Asked for together, from the first point to just before the last, points themselves included."""
    begin_s = wild.times_s[0]
    since_s = np.r_[0.0, wild.times_s[1:-1] - begin_s, np.linspace(0.0, 0.999, 200) * (wild.times_s[-1] - begin_s)]
    for found, known in zip(Rates(wild)(since_s), derivatives(wild, begin_s + since_s)[1:], strict=True):
        assert found == pytest.approx(known, rel=1e-9, abs=1e-9)


def test_accelerations_are_kept(wild):
    """With accelerations given, a trajectory has them at its points, from both sides: no step where segments meet."""
    if wild.ddq is None:
        return
    for side in (0.0, -1e-9):
        assert derivatives(wild, wild.times_s[1:] + side)[2] == pytest.approx(wild.ddq[1:], abs=5e-3)


def test_what_is_left_moves_as_before(wild):
    """Cut or spliced in the middle of a segment, the motion goes on exactly as it was."""
    from_s = float(wild.times_s[2]) + 0.03
    later = np.linspace(from_s, wild.times_s[-1], 50)
    if wild.ddq is not None:
        assert sample(cut(wild, from_s), later)[0] == pytest.approx(sample(wild, later)[0], abs=1e-9)
    after = cut(wild, float(wild.times_s[5]))
    assert sample(splice(wild, after, float(wild.times_s[1])), later)[0] == pytest.approx(sample(wild, later)[0], abs=1e-9)


def test_splice_keeps_until_the_join_and_forgets_the_old(profile):
    """Spliced, a motion is the old one before the join and the new one after, and no longer than its memory."""
    old = minimum_jerk(profile.home, np.full(6, 0.1), start_s=0.0, duration_s=2.0, points=40)
    new = braking(*sample(old, 1.0), profile, 1.0)
    both = splice(old, new, 0.5)
    for t in np.linspace(0.5, 0.9999, 37):
        assert sample(both, t)[0] == pytest.approx(sample(old, t)[0], abs=1e-9)
    assert both.times_s[0] == 0.5 and sample(both, 1.2)[0] == pytest.approx(sample(new, 1.2)[0])
    assert splice(None, new, 0.5) is new and splice(old, new, 1.5) is new


def test_mixed_kinds_do_not_join(wild):
    """A motion with accelerations and one without are not put together: one of them would be read wrongly."""
    other = Trajectory(wild.times_s + 9, wild.q, wild.dq, None if wild.ddq is not None else np.zeros_like(wild.q))
    with pytest.raises(ValueError, match="accelerations"):
        join(wild, other)


def test_taking_over_goes_to_what_lies_ahead(profile):
    """A controller goes from its present command to the new trajectory's first point ahead, and ignores one that is over."""
    old = minimum_jerk(profile.home, np.full(6, 0.1))
    new = minimum_jerk(profile.home, np.full(6, 0.2), start_s=0.1)
    merged = take_over(old, new, 0.25)
    assert merged.times_s[0] == 0.25 and merged.q[0] == pytest.approx(sample(old, 0.25)[0])
    assert merged.ddq[0] == pytest.approx(derivatives(old, 0.25)[2]) and (merged.times_s[1:] > 0.25).all()
    assert sample(merged, 0.5)[0] == pytest.approx(sample(new, 0.5)[0]) and take_over(old, new, 0.7) is None


def test_hold_stays(profile):
    """A hold is at rest at once and stays where it is at any time."""
    still = hold(profile.home, 5.0)
    for time_s in (0.0, 5.0, 50.0):
        q, dq = sample(still, time_s)
        assert np.array_equal(q, profile.home) and (dq == 0).all()
    assert still.times_s[-1] > 5.0


def test_join_is_head_then_tail(wild, profile):
    """Joined, two trajectories are read as the first until the joint and as the second from there."""
    tail = minimum_jerk(wild.q[-1], np.full(6, 0.1), start_s=float(wild.times_s[-1]))
    tail = tail if wild.ddq is not None else replace(tail, ddq=None)
    both = join(wild, tail)
    assert (np.diff(both.times_s) > 0).all()
    assert sample(both, wild.times_s[3] + 0.01)[0] == pytest.approx(sample(wild, wild.times_s[3] + 0.01)[0])
    assert sample(both, tail.times_s[5])[0] == pytest.approx(tail.q[5])
