"""Braking brings any motion to rest within the limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foresight.control.braking import BrakingError, braking, coming_to
from foresight.control.trajectory import sample
from foresight.data import Reason, Trajectory
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import load_profile
from foresight.safety.config import GuardConfig
from foresight.safety.limits import findings
from tests.motions import at_1khz


@settings(deadline=None, max_examples=80, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dq=st.lists(st.floats(-3, 3), min_size=6, max_size=6), start_s=st.floats(0, 1e6))
def test_braking_ends_at_rest_within_limits(profile, dq, start_s):
    """From any velocity the arm is at rest soon, starting as it was, never faster, never harder than the limit."""
    dq = np.array(dq)
    rest = braking(profile.home, dq, profile, start_s)
    assert (np.diff(rest.times_s) > 0).all() and rest.times_s[0] == start_s
    assert rest.q[0] == pytest.approx(profile.home) and (rest.dq[-1] == 0).all()
    if np.abs(dq).max() < 1e-9:
        assert (rest.q == profile.home).all()
        return
    assert rest.dq[0] == pytest.approx(dq, abs=1e-9)
    assert rest.times_s[-1] - start_s <= np.abs(dq).max() / (0.9 * profile.acceleration_max.min()) + 0.25
    shifted = type(rest)(rest.times_s - start_s, rest.q, rest.dq)
    _, q = at_1khz(shifted)
    speed, acceleration = np.abs(np.diff(q, axis=0)) / 1e-3, np.abs(np.diff(q, 2, axis=0)) / 1e-6
    assert (speed <= np.abs(dq) + 1e-3).all()
    assert (acceleration <= profile.acceleration_max * 1.01).all()


def test_braking_a_resting_arm_holds_it(profile):
    """At rest there is nothing to brake: the arm stays."""
    rest = braking(profile.home, np.zeros(6), profile, 3.0)
    assert np.array_equal(sample(rest, 4.0)[0], profile.home)


def test_braking_takes_over_the_acceleration(profile):
    """Told the acceleration, braking starts with it and does not jump."""
    ddq = np.full(6, 2.0)
    rest = braking(profile.home, np.full(6, 0.5), profile, 0.0, ddq)
    assert rest.ddq[0] == pytest.approx(ddq) and sample(rest, 0.004)[1].min() > 0.5 and (rest.dq[-1] == 0).all()


def test_braking_out_of_line_spares_the_torques():
    """Joints whose accelerations do not lie along the motion stop no later, and none needs a torque faster than an FR3 allows."""
    fr3 = load_profile("fr3")
    dq = np.array([0.05, -0.049, 0.013, -0.023, -0.042, -0.021, -0.745])  # of a swing that turns its course
    ddq = np.array([0.8, -0.8, 0.29, -0.8, -0.8, -0.75, -0.47])
    hasty, rest = (braking(fr3.home, dq, p, 0.0, ddq) for p in (replace(fr3, torque_rate_max=None), fr3))
    assert rest.times_s[-1] == pytest.approx(hasty.times_s[-1], abs=1e-6)
    assert rest.ddq[0] == pytest.approx(ddq) and (rest.dq[-1] == 0).all()
    t = np.array([[-0.02], [0.0]])  # what came before
    before = Trajectory(t[:, 0], fr3.home + dq * t + ddq * t**2 / 2, dq + ddq * t, ddq + 0 * t)
    built = fr3, MujocoKinematics(fr3), GuardConfig(), 0.0, before
    found = [[finding.verdict.reason for finding in findings(motion, *built)] for motion in (hasty, rest)]
    assert found == [[Reason.TORQUE_RATE_LIMIT], []]


def test_coming_to_ends_there_and_no_faster_than_asked(profile):
    """From any motion the arm comes to rest at the target, within the speed asked for once it has slowed to it."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        q, dq, target = profile.home, rng.uniform(-0.8, 0.8, 6), profile.home + rng.uniform(-0.05, 0.05, 6)
        motion = coming_to(target, q, dq, rng.uniform(-2, 2, 6), profile, 0.3, 1.0)
        assert motion.q[-1] == pytest.approx(target, abs=1e-7) and (motion.dq[-1] == 0).all()
        _, positions = at_1khz(motion)
        assert (np.abs(np.diff(positions, 2, axis=0)) / 1e-6 <= 1.01 * profile.acceleration_max).all()
        slowed = np.abs(np.diff(positions, axis=0)) / 1e-3
        assert (slowed[400:] <= 0.301).all()


def test_nan_is_refused(profile):
    """A velocity that is not a number has no braking motion, and the error says which velocity."""
    with pytest.raises(BrakingError, match="nan"):
        braking(profile.home, np.full(6, np.nan), profile, 0.0)
