"""A joint trajectory controller as ros2_control has it: splines through points, replacement while moving, holding at the end.

Knows joints and time, no physics and no ROS.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from foresight.control.braking import braking
from foresight.control.trajectory import derivatives, ends_at_rest, hold, sample, take_over
from foresight.data import Trajectory
from foresight.robots.profile import RobotProfile

WATCHES = 5  # looks of the guard at the joint states between two plans, in process; through ROS there are more


class TrajectoryController:
    """Follows the last accepted trajectory. A new one replaces what is left of the old one at once, as
    joint_trajectory_controller does: the arm goes from its present command to the first point that still lies ahead."""

    def __init__(self, q: Float[np.ndarray, "J"], now_s: float) -> None:
        self.trajectory = hold(q, now_s)

    def accept(self, trajectory: Trajectory, now_s: float) -> bool:
        """Takes the trajectory over; False, and nothing changes, when it lies wholly in the past or does not end at rest."""
        merged = take_over(self.trajectory, trajectory, now_s) if ends_at_rest(trajectory) else None
        if merged is None:
            return False
        self.trajectory = merged
        return True

    def halt(self, profile: RobotProfile, now_s: float) -> None:
        """Brakes, and holds where that ends."""
        q, dq, ddq, _ = derivatives(self.trajectory, now_s)
        self.trajectory = braking(q, dq, profile, now_s, ddq)

    def setpoints(self, times_s: float | Float[np.ndarray, "M"]) -> tuple[np.ndarray, np.ndarray]:
        """Commanded position [rad] and velocity [rad/s] at absolute times."""
        return sample(self.trajectory, times_s)
