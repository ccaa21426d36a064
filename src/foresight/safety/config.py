"""What the guard insists on. Every limit that belongs to the robot is in its profile, not here."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class GuardConfig:
    """Ages, tolerances and margins of the guard. All must be finite and greater than zero."""

    state_age_max_s: float = 0.1  # [s] an older joint state is no evidence of where the arm is
    observation_age_max_s: float = 0.3  # [s] since the capture of the image that the plan is based on
    plan_age_max_s: float = 0.1  # [s] since planning finished
    future_max_s: float = 0.02  # [s] that a stamp may lie ahead of now: clock steps, not more
    duration_max_s: float = 5.0  # [s] of one trajectory, its stop included
    points_max: int = 1000  # of one trajectory
    start_ahead_max_s: float = 0.25  # [s] after now at which a trajectory may begin
    start_behind_max_s: float = 0.1  # [s] before now at which a trajectory may have begun
    join_position_rad: float = 1e-3  # [rad] between the candidate and the command in force where they meet
    join_velocity_s: float = 0.02  # [s] of the joint's greatest acceleration: the step in velocity allowed where they meet
    first_position_rad: float = 0.05  # [rad] between the first command and the measured position, with nothing in force
    obstructed_rad: float = 0.01  # [rad] between where the arm was told to be within the last lag_s and where it is: something holds it
    lag_s: float = 0.1  # [s] that the arm may be behind its command
    relief_rad_s: float = 0.3  # [rad/s] at most of the motion that takes the command back to an arm that is held
    tracking_error_max_rad: float = 0.15  # [rad] between the command in force and the measured position
    limit_tolerance: float = 1e-3  # share of a velocity, acceleration or tip speed limit granted to rounding
    rest_rad_s: float = 1e-4  # [rad/s] below which a commanded joint is at rest
    measured_rest_rad_s: float = 0.1  # [rad/s] below which a measured joint is at rest, sensor noise included
    tip_sample_s: float = 0.02  # [s] at most between two points at which speed and place of the tip are checked
    workspace_tolerance_m: float = 1e-4  # [m] that the tip may lie outside the workspace
    reset_cooldown_s: float = 0.5  # [s] after a stop during which it cannot be reset
    history_s: float = 0.5  # [s] of commands already executed that are remembered, to be compared with measured states

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not np.isfinite(value) or value <= 0:
                raise ValueError(f"GuardConfig.{f.name} must be finite and greater than 0, got {value}.")
        if self.tip_sample_s > 0.02:
            raise ValueError(
                f"GuardConfig.tip_sample_s must be at most 0.02 s, got {self.tip_sample_s}: between points the tip is not seen."
            )
        if self.history_s < self.state_age_max_s:
            raise ValueError(
                f"GuardConfig.history_s must cover state_age_max_s ({self.state_age_max_s} s), got {self.history_s} s: "
                "the oldest accepted joint state is compared with the command of its time."
            )
