"""The shipped limits are the published ones, and the limits in force follow from them.

The tables here were written from the makers' figures, in degrees where they give degrees; they share nothing with the YAML.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan, pi, radians, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foresight.robots.profile import available_robots, load_profile

FRANKA = {"torque_max": [87] * 4 + [12] * 3, "torque_rate_max": [1000] * 7, "gripper_force_max": 70}
XARM = {"torque_rate_max": None, "gripper_force_max": 30}
TURN = 2 * pi
TABLE = {
    "ur5e": {
        "position_min": [radians(a) for a in (-360, -360, -180, -360, -360, -360)],
        "position_max": [radians(a) for a in (360, 360, 180, 360, 360, 360)],
        "velocity_max": [radians(180)] * 6,
        "acceleration_max": [5] * 6,
        "jerk_max": [500] * 6,
        "torque_max": [150, 150, 150, 28, 28, 28],
        "torque_rate_max": None,
        "gripper_force_max": 235,
    },
    "fr3": {
        "position_min": [-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159],
        "position_max": [2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159],
        "velocity_max": [2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26],
        "acceleration_max": [10] * 7,
        "jerk_max": [5000] * 7,
        **FRANKA,
    },
    "panda": {
        "position_min": [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973],
        "position_max": [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973],
        "velocity_max": [2.175] * 4 + [2.61] * 3,
        "acceleration_max": [15, 7.5, 10, 12.5, 15, 20, 20],
        "jerk_max": [7500, 3750, 5000, 6250, 7500, 10000, 10000],
        **FRANKA,
    },
    "xarm6": {
        "position_min": [-TURN, -2.059, -3.927, -TURN, -1.69297, -TURN],
        "position_max": [TURN, 2.0944, 0.19198, TURN, pi, TURN],
        "velocity_max": [3.14] * 6,
        "acceleration_max": [20] * 6,
        "jerk_max": [500] * 6,
        "torque_max": [50, 50, 32, 32, 32, 20],
        **XARM,
    },
    "xarm7": {
        "position_min": [-TURN, -2.059, -TURN, -0.19198, -TURN, -1.69297, -TURN],
        "position_max": [TURN, 2.0944, TURN, 3.927, TURN, pi, TURN],
        "velocity_max": [3.14] * 7,
        "acceleration_max": [20] * 7,
        "jerk_max": [500] * 7,
        "torque_max": [50, 50, 30, 30, 30, 20, 20],
        **XARM,
    },
    "so101": {
        "position_min": [-1.91986, -1.74533, -1.69, -1.65806, -2.74385],
        "position_max": [1.91986, 1.74533, 1.5708, 1.65806, 2.74385],
        "velocity_max": [45 * TURN / 60] * 5,
        "acceleration_max": [5] * 5,
        "jerk_max": [500] * 5,
        "torque_max": [19.5 * 9.80665 / 100] * 5,
        "torque_rate_max": None,
        "gripper_force_max": None,
    },
}
CELLS = [(robot, limit) for robot, row in TABLE.items() for limit in row]

FR3 = load_profile("fr3")
# libfranka's rate_limiting.h: one joint a line, as (most, offset, gain, end upwards, end downwards).
FR3_LAW = [
    (2.62, 0.30, 12.00, 2.75010, -2.75010),
    (2.62, 0.20, 5.17, 1.79180, -1.79180),
    (2.62, 0.20, 7.00, 2.90650, -2.90650),
    (2.62, 0.30, 8.00, -0.1458, -3.0481),
    (5.26, 0.35, 34.0, 2.81010, -2.81010),
    (4.18, 0.35, 11.0, 4.52050, 0.54092),
    (5.26, 0.35, 34.0, 3.01960, -3.01960),
]


def fr3_bounds(joint: int, q: float, cap: float) -> tuple[float, float]:
    """One joint at a time, in plain arithmetic."""
    most, offset, gain, up, down = FR3_LAW[joint]
    high = -offset + sqrt(gain * (up - q)) if q < up else 0.0
    low = offset - sqrt(gain * (q - down)) if q > down else 0.0
    return max(-cap, -most, min(0.0, low)), min(cap, most, max(0.0, high))


def test_the_table_covers_every_robot():
    """No robot ships without a row here."""
    assert sorted(TABLE) == available_robots()


@pytest.mark.parametrize(("robot", "limit"), CELLS)
def test_shipped_limits_are_the_published_ones(robot, limit):
    """Every limit equals the maker's figure, to the digits that the file gives."""
    shipped, published = getattr(load_profile(robot), limit), TABLE[robot][limit]
    if published is None:
        assert shipped is None
    else:
        assert np.asarray(shipped) == pytest.approx(np.asarray(published, dtype=float), rel=1.5e-3, abs=6e-5)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.integers(0, 6), st.floats(-4.0, 5.0), st.sampled_from([0.8, 2.0, 10.0]))
def test_fr3_law_is_the_published_formula(joint, angle, cap):
    """Each joint's bounds are libfranka's, cut at the cap, anywhere within its limits and beyond."""
    profile = replace(FR3, joint_speed_max=cap)
    q = profile.home.copy()
    q[joint] = angle
    low, high = profile.velocity_bounds(q)
    assert (low[joint], high[joint]) == pytest.approx(fr3_bounds(joint, angle, cap), abs=1e-12)


@pytest.mark.parametrize("name", available_robots())
@pytest.mark.parametrize("cap", [0.8, 100.0])
def test_bounds_lie_within_the_cap_and_the_robots_own_limits(name, cap):
    """No velocity in force exceeds the cap or velocity_max, and none has the wrong sign."""
    profile = replace(load_profile(name), joint_speed_max=cap)
    spread = profile.position_max - profile.position_min
    low, high = profile.position_min - spread / 4, profile.position_max + spread / 4
    q = np.random.default_rng(0).uniform(low, high, (2000, len(spread)))
    low, high = profile.velocity_bounds(q)
    assert low.shape == high.shape == q.shape
    assert (high <= np.minimum(profile.velocity_max, cap)).all() and (high >= 0).all()
    assert (low >= -np.minimum(profile.velocity_max, cap)).all() and (low <= 0).all()


@pytest.mark.parametrize("name", [n for n in available_robots() if n != "fr3"])
def test_bounds_are_constant_where_the_robot_has_no_law(name):
    """The cap, or the robot's own limit where that is lower, whatever the position."""
    profile = load_profile(name)
    assert np.array_equal(profile.velocity_bounds(profile.home)[1], np.minimum(profile.velocity_max, 0.8))
    fast = replace(profile, joint_speed_max=100.0)
    assert np.array_equal(fast.velocity_bounds(fast.position_max)[0], -fast.velocity_max)


@pytest.mark.parametrize("joint", range(7))
def test_fr3_bounds_shrink_continuously_to_zero_at_the_ends(joint):
    """Towards either end the allowed speed never grows, never jumps, is a crawl at the position limit and 0 at the end."""
    profile = replace(FR3, joint_speed_max=100.0)
    law = profile.velocity_law
    angles = np.linspace(law.lower[joint], law.upper[joint], 200_001)
    q = np.tile(profile.home, (len(angles), 1))
    q[:, joint] = angles
    low, high = (bound[:, joint] for bound in profile.velocity_bounds(q))
    assert (np.diff(high) <= 1e-12).all() and (np.diff(low) <= 1e-12).all()
    steepest = law.gain[joint] / (2 * -law.offset[joint])  # where the root equals the offset
    for bound in (low, high):
        assert np.abs(np.diff(bound)).max() <= 1.01 * steepest * (angles[1] - angles[0])
    assert high[-1] == 0.0 and low[0] == 0.0 and high[0] == -low[-1] == profile.velocity_max[joint]
    assert profile.velocity_bounds(profile.position_max)[1][joint] < 0.005
    assert profile.velocity_bounds(profile.position_min)[0][joint] > -0.005


def test_one_position_gives_what_many_give():
    """Bounds of one position are the row that it has among many."""
    profile = FR3
    q = np.random.default_rng(1).uniform(profile.position_min, profile.position_max, (50, 7))
    many = np.stack(profile.velocity_bounds(q))
    assert np.array_equal(many, np.stack([np.stack(profile.velocity_bounds(row)) for row in q], axis=1))
    assert profile.velocity_bounds(np.zeros((0, 7)))[0].shape == (0, 7)


@pytest.mark.parametrize("name", available_robots())
@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_no_velocity_is_allowed_at_a_position_that_is_not_finite(name, bad):
    """At NaN or infinity no velocity passes a comparison with both bounds."""
    profile = load_profile(name)
    q = profile.home.copy()
    q[0] = bad
    low, high = profile.velocity_bounds(q)
    assert not (low[0] <= 0.01 <= high[0] and low[0] <= -0.01 <= high[0])
