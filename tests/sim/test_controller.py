"""The simulated joint trajectory controller behaves like the one on a robot."""

import numpy as np

from foresight.data import Trajectory
from sim.controller import TrajectoryController

Q = np.array([0.1, -0.2])


def move(start_s: float, by: float, over_s: float = 0.4) -> Trajectory:
    return Trajectory(np.array([start_s, start_s + over_s]), np.array([Q, Q + by]), np.zeros((2, 2)))


def test_it_holds_before_any_trajectory_and_after_the_last_point():
    """At rest where it was put; at rest where the motion ended."""
    controller = TrajectoryController(Q, 0.0)
    np.testing.assert_array_equal(controller.setpoints(3.0)[0], Q)
    controller.accept(move(3.0, 0.2), 3.0)
    q, dq = controller.setpoints(10.0)
    np.testing.assert_allclose(q, Q + 0.2)
    np.testing.assert_array_equal(dq, 0)


def test_a_new_trajectory_replaces_a_running_one_without_a_jump():
    """At the moment of replacement position and velocity of the command are continuous."""
    controller = TrajectoryController(Q, 0.0)
    controller.accept(move(0.0, 0.2), 0.0)
    before = controller.setpoints(0.2)
    controller.accept(Trajectory(np.array([0.25, 0.6]), np.array([Q + 0.12, Q]), np.zeros((2, 2))), 0.2)
    after = controller.setpoints(0.2 + 1e-7)
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)
    np.testing.assert_allclose(after[1], before[1], atol=1e-3)
    np.testing.assert_allclose(controller.setpoints(1.0)[0], Q)


def test_points_that_have_passed_are_left_out():
    """A late trajectory is joined at its next point ahead."""
    controller = TrajectoryController(Q, 0.0)
    late = Trajectory(np.array([0.0, 0.1, 0.4]), np.array([Q + 5, Q + 6, Q + 0.2]), np.zeros((3, 2)))
    assert controller.accept(late, 0.2)
    times = np.linspace(0.2, 0.4, 50)
    assert np.abs(controller.setpoints(times)[0] - Q).max() < 0.21


def test_a_trajectory_in_the_past_or_that_does_not_end_at_rest_changes_nothing():
    """It is refused, and the arm stays."""
    controller, going_on = TrajectoryController(Q, 0.0), move(5.0, 0.2)
    assert not controller.accept(move(0.0, 0.2), 5.0)
    going_on.dq[-1] = 1e-6
    assert not controller.accept(going_on, 5.0)
    np.testing.assert_array_equal(controller.setpoints(6.0)[0], Q)
