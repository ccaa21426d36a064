"""What the guard insists on. Every limit that belongs to the robot is in its profile, not here."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Margins:
    """Distances that the arm keeps, by what it keeps them from. Real arms follow their command to about 1 mm."""

    fingers_table_m: float = 0.002  # [m] fingers to table: a push at the lowest tip passes 4 mm above it
    table_m: float = 0.010  # [m] the rest of the arm to table
    self_m: float = 0.005  # [m] between links of the arm
    keep_out_m: float = 0.010  # [m] any part of the arm to a keep-out box

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not np.isfinite(value) or value < 0:
                raise ValueError(f"Margins.{f.name} must be finite and at least 0 m, got {value}.")


@dataclass(frozen=True)
class GuardConfig:
    """Ages, tolerances and margins of the guard. All must be finite and greater than zero."""

    state_age_max_s: float = 0.1  # [s] an older joint state is no evidence of where the arm is
    observation_age_max_s: float = 0.3  # [s] since the capture of the image that the plan is based on
    plan_age_max_s: float = 0.1  # [s] since planning finished
    future_max_s: float = 0.02  # [s] that a stamp may lie ahead of now: clock steps, not more
    duration_max_s: float = 5.0  # [s] of one trajectory, its stop included
    points_max: int = 500  # of one trajectory; a check takes the longer the more there are
    spacing_min_s: float = 1e-4  # [s] between two of its points
    points_ahead_max: int = 700  # of it and of what is in force until it begins: a stop takes the longer the more there are
    start_ahead_max_s: float = 0.25  # [s] after now at which a trajectory may begin
    start_behind_max_s: float = 0.1  # [s] before now at which a trajectory may have begun
    join_position_rad: float = 1e-6  # [rad] between the candidate and the command in force where they meet; a clock's digits
    join_velocity_s: float = 2e-3  # [s] of the joint's greatest acceleration: the step in velocity allowed where they meet
    join_acceleration_s: float = 1e-3  # [s] of the joint's greatest jerk: the step in acceleration allowed where they meet
    first_position_rad: float = 0.05  # [rad] between the first command and the measured position, with nothing in force
    measured_position_rad: float = 1e-4  # [rad] between those two that counts as none
    adopt_s: float = 1.0  # [s] in which a controller that holds an unknown command is brought to where the arm is measured
    obstructed_rad: float = 0.01  # [rad] from all it was told within the last lag_s, beyond which something holds the arm
    lag_s: float = 0.1  # [s] that the arm may be behind its command
    relief_rad_s: float = 0.3  # [rad/s] at most of the motion that takes the command back to an arm that is held
    tracking_error_max_rad: float = 0.15  # [rad] between the command in force and the measured position
    limit_tolerance: float = 5e-4  # share of a limit on a rate (velocity to jerk, tip speed, torque) granted to rounding
    tip_speed_share: float = 0.82  # of the tip's cap granted to commands: slipping off a cube the tip was 20 % faster than told
    position_margin_rad: float = 0.1  # [rad] of a joint's range kept free at both ends (at most a twentieth of it)
    position_tolerance_rad: float = 1e-4  # [rad] that a joint on its way back from its margin may go further into it
    share_min: float = 0.3  # of its speed, at least, to which a candidate is slowed; near something, of what limits leave of it
    slow_ramp_s: float = 0.1  # [s] in which a slowed candidate comes to its share of the speed
    slow_distance_rad: float = 0.3  # [rad] from a joint's limit at which slowing towards it begins
    slow_distance_m: float = 0.05  # [m] from an obstacle at which slowing begins
    stop_distance_m: float = 0.01  # [m] from an obstacle at which share_min is all that is left
    graded_sample_s: float = 0.1  # [s] between two looks at joint limits and obstacles for slowing
    rest_rad_s: float = 1e-4  # [rad/s] below which a commanded joint is at rest
    measured_rest_rad_s: float = 0.1  # [rad/s] below which a measured joint is at rest, sensor noise included
    workspace_tolerance_m: float = 1e-4  # [m] that the tip may lie outside the workspace
    margins: Margins = Margins()  # kept from table, keep-outs and itself
    sweep_resolution_m: float = 1e-3  # [m] at most that points move between two looks; up to half of it is kept beyond a margin
    reset_cooldown_s: float = 0.5  # [s] after a stop during which it cannot be reset
    history_s: float = 0.5  # [s] of commands already executed that are remembered, to be compared with measured states

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name != "margins" and (not np.isfinite(value) or value <= 0):
                raise ValueError(f"GuardConfig.{f.name} must be finite and greater than 0, got {value}.")
        for name in ("share_min", "tip_speed_share"):
            if getattr(self, name) > 1:
                raise ValueError(f"GuardConfig.{name} must be at most 1, got {getattr(self, name)}.")
        for slow, stop in (("slow_distance_rad", "position_margin_rad"), ("slow_distance_m", "stop_distance_m")):
            if not getattr(self, slow) > getattr(self, stop):
                raise ValueError(
                    f"GuardConfig.{slow} must be greater than {stop} ({getattr(self, stop)}), got {getattr(self, slow)}."
                )
        if self.history_s < self.state_age_max_s:
            raise ValueError(
                f"GuardConfig.history_s must cover state_age_max_s ({self.state_age_max_s} s), got {self.history_s} s: "
                "the oldest accepted joint state is compared with the command of its time."
            )
