"""How hard a gripper may squeeze, and the commands that keep to it. Knows no plan, no model and no arm.

A position-servoed gripper presses the harder the further its command lies beyond where its fingers are blocked: by
`stiffness * (command - (1 - opening))`, up to its maximum. Fingers that are blocked where they are measured now are the worst
case, so the command is kept only so far ahead of them as the force allows, and goes on as they do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foresight.data import Grip, Reason, Verdict
from foresight.robots.profile import RobotProfile

JITTER = 1 / 255  # share of the fingers' way, a count of the 2F-85's position, by which a command must differ to be sent


@dataclass(frozen=True)
class GripLimit:
    """What planner and guard keep a robot's gripper to."""

    stiffness: float  # [N] per whole opening
    cap_n: float  # [N] that it may squeeze with at most

    @classmethod
    def of(cls, profile: RobotProfile) -> GripLimit | None:
        """None where the profile has no gripper, or does not tell its force."""
        gripper = profile.gripper
        if gripper is None or gripper.stiffness is None or gripper.force_cap is None:
            return None
        return cls(gripper.stiffness, gripper.force_cap)

    def command(self, grip: Grip, opening: float | None) -> float | None:
        """How far to close now, 0 to 1, so that fingers blocked at that opening squeeze with the grip's force at most.

        None where it is not known how far the gripper is open and the grip is to close it.
        """
        if grip.closed == 0:
            return 0.0
        if opening is None or not np.isfinite(opening):
            return None
        lead = max(0.0, grip.force_n / self.stiffness - JITTER)  # by what is not sent for its smallness
        return float(min(grip.closed, 1 - opening + lead))


def grip_refusal(grip: Grip, opening: float | None, limit: GripLimit | None) -> Verdict | None:
    """Why the gripper may not be told to do that; None when it may. To open it is always allowed."""
    if not (0 <= grip.closed <= 1):
        return Verdict(
            Reason.MALFORMED,
            f"The plan commands the gripper {grip.closed}; expected a number from 0 (open) to 1 (closed).",
        )
    if grip.closed == 0:
        return None
    if limit is None:
        return Verdict(
            Reason.GRIPPER_FORCE,
            "The plan closes the gripper, and no limit of its force is known (gripper.stiffness and gripper.force_cap in the "
            "robot profile).",
        )
    if not 0 < grip.force_n <= limit.cap_n:
        return Verdict(
            Reason.GRIPPER_FORCE,
            f"The plan squeezes with up to {grip.force_n:g} N; expected more than 0 N and at most {limit.cap_n:g} N.",
        )
    if opening is None or not np.isfinite(opening):
        return Verdict(
            Reason.BAD_STATE,
            f"The plan closes the gripper, and the joint state tells that it is open by {opening}; a number from 0 to 1 is "
            "needed to know its force.",
        )
    return None
