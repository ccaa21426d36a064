"""The statistics of a report."""

import numpy as np
import pytest

from foresight.evaluation.statistics import percentile, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.27753),
        (5, 10, 0.23659, 0.76341),
        (10, 10, 0.72247, 1.0),
        (196, 200, 0.94973, 0.99220),
        (1, 4, 0.04559, 0.69936),
    ],
)
def test_wilson_agrees_with_published_values(successes, trials, low, high):
    """The interval equals the values that standard tables and calculators give."""
    np.testing.assert_allclose(wilson(successes, trials), (low, high), atol=2e-5)


def test_wilson_solves_the_score_equation():
    """Each bound p satisfies |x/n - p| = z sqrt(p (1 - p) / n), which defines the interval."""
    for successes, trials in [(1, 7), (13, 20), (150, 200)]:
        for p in wilson(successes, trials):
            assert abs(abs(successes / trials - p) - 1.959964 * np.sqrt(p * (1 - p) / trials)) < 1e-6


def test_nothing_tried_says_nothing():
    """Without trials the rate may be anything."""
    assert wilson(0, 0) == (0.0, 1.0)


def test_more_successes_than_trials_is_an_error():
    """A miscount is not turned into a rate."""
    with pytest.raises(ValueError, match="between 0 and the 3 trials, got 4"):
        wilson(4, 3)


def test_percentile_leaves_out_what_is_not_known():
    """NaN does not count, and nothing gives None."""
    assert percentile([1.0, float("nan"), 3.0], 50) == 2.0
    assert percentile([], 99) is None
