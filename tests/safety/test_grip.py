"""How hard a gripper may squeeze: what plans may ask for, and commands that run no further ahead of the fingers than that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foresight.data import Grip, Reason, RobotState
from foresight.safety.grip import JITTER, GripLimit, grip_refusal
from foresight.safety.guard import Guard
from tests.motions import candidate, minimum_jerk

LIMIT = GripLimit(stiffness=1000.0, cap_n=50.0)
STEP_S = 0.02


@pytest.mark.parametrize("opening", [0.0, 0.3, 1.0])
def test_fingers_blocked_where_they_are_squeeze_with_the_grips_force(opening):
    """By the law of the servo, force = stiffness times what the command lies beyond them; no more than closed is asked for."""
    command = LIMIT.command(Grip(1.0, 20.0), opening)
    for pushed in (opening, min(1.0, opening + JITTER)):  # for so little no new command is sent
        assert command == 1.0 if opening == 0 else LIMIT.stiffness * (command - (1 - pushed)) <= 20 + 1e-9
    assert command == 1.0 if opening == 0 else LIMIT.stiffness * (command - (1 - opening)) > 15
    assert LIMIT.command(Grip(1.0, 1.0), opening) == 1 - opening, "a force below that of a count moves nothing"
    assert LIMIT.command(Grip(0.5, 20.0), opening) == min(command, 0.5) and LIMIT.command(Grip(0.0, 20.0), opening) == 0


@pytest.mark.parametrize(
    ("grip", "opening", "limit", "reason", "says"),
    [
        (Grip(1.0, 50.0), 0.0, LIMIT, None, ""),
        (Grip(0.0, 1e9), None, None, None, ""),  # to open is always allowed
        (Grip(0.0, float("nan")), float("nan"), LIMIT, None, ""),
        (Grip(1.0, 50.1), 0.5, LIMIT, Reason.GRIPPER_FORCE, "up to 50.1 N; expected more than 0 N and at most 50 N"),
        (Grip(0.1, float("inf")), 0.5, LIMIT, Reason.GRIPPER_FORCE, "up to inf N"),
        (Grip(1.0, float("nan")), 0.5, LIMIT, Reason.GRIPPER_FORCE, "up to nan N"),
        (Grip(1.0, 0.0), 0.5, LIMIT, Reason.GRIPPER_FORCE, "up to 0 N"),
        (Grip(1.0, 1.0), 0.5, None, Reason.GRIPPER_FORCE, "no limit of its force is known"),
        (Grip(1.0, 50.0), None, LIMIT, Reason.BAD_STATE, "open by None"),
        (Grip(1.0, 50.0), float("nan"), LIMIT, Reason.BAD_STATE, "open by nan"),
        (Grip(1.01, 50.0), 0.5, LIMIT, Reason.MALFORMED, "expected a number from 0 (open) to 1 (closed)"),
        (Grip(float("nan"), 50.0), 0.5, LIMIT, Reason.MALFORMED, "gripper nan"),
    ],
)
def test_what_a_plan_may_ask_of_the_gripper(grip, opening, limit, reason, says):
    verdict = grip_refusal(grip, opening, limit)
    assert (verdict and verdict.reason) is reason and says in (verdict.detail if verdict else "")


class Gripping:
    """A guard that has passed a motion of 1.5 s, begun at 0.1 s, and a gripper whose fingers are where they are put."""

    def __init__(self, profile, kinematics, grip: Grip) -> None:
        self.guard, self.profile, self.limit = Guard(profile, kinematics), profile, GripLimit.of(profile)
        self.q = kinematics.solve(np.array([0.45, 0.0, 0.20]), profile.home)
        self.motion = minimum_jerk(self.q, np.full(6, 0.01), 0.1, 1.5, points=20)
        self.offer(grip)

    def offer(self, grip: Grip | None, opening: float | None = 1.0):
        self.guard.in_force = None
        return self.guard.offer(candidate(self.motion, self.profile, grip=grip), self.state(0.0, opening), 0.0)

    def state(self, now_s: float, opening: float | None) -> RobotState:
        return RobotState(now_s - 0.01, self.q, np.zeros(6), opening)

    def grip(self, now_s: float, opening: float | None) -> float | None:
        return self.guard.grip(self.state(now_s, opening), now_s)


@pytest.fixture
def gripping(profile, kinematics) -> Gripping:
    return Gripping(profile, kinematics, Grip(1.0, 38.0))


def test_the_command_runs_ahead_of_the_fingers_by_its_force_alone(gripping, profile):
    """From the motion's begin on, until they are blocked or closed; blocked fingers that jitter are sent nothing new."""
    ahead = 38.0 / profile.gripper.stiffness - JITTER
    assert gripping.grip(0.05, 1.0) is None and gripping.grip(0.1, 1.0) == pytest.approx(ahead)
    assert gripping.grip(0.12, 0.8) == pytest.approx(0.2 + ahead)
    for now_s, jitter in ((0.14, -0.5), (0.16, 0.9), (0.18, -0.9)):
        assert gripping.grip(now_s, 0.8 + jitter * JITTER) is None
    assert gripping.grip(0.2, 0.85) == pytest.approx(0.15 + ahead), "fingers that are forced open are yielded to"
    assert gripping.grip(0.22, 0.001) == 1.0 and gripping.grip(0.24, 0.0) is None


def test_the_same_grip_in_plan_after_plan_goes_on_and_another_waits_for_its_motion(gripping):
    """Each plan begins later than the one before: what it asks for again must not wait for that."""
    later = replace(gripping.motion, times_s=gripping.motion.times_s + 0.1)
    gripping.motion = later
    assert gripping.offer(Grip(1.0, 38.0)).ok and gripping.grip(0.1, 1.0) is not None
    assert gripping.offer(Grip(0.0, 38.0)).ok and gripping.grip(0.15, 0.5) is None and gripping.grip(0.2, 0.5) == 0.0
    assert gripping.offer(None).ok and gripping.grip(0.3, 0.5) is None


def test_a_plan_that_squeezes_too_hard_is_refused_and_changes_nothing(gripping, profile):
    """With its own reason; nor may one close a gripper of which it is not told how far it is open, or has no limit."""
    too_hard = profile.gripper.force_cap + 0.1
    assert gripping.offer(Grip(1.0, too_hard)).reason is Reason.GRIPPER_FORCE and gripping.guard.in_force is None
    assert gripping.offer(Grip(0.5, 38.0), opening=None).reason is Reason.BAD_STATE
    assert gripping.guard.gripping == (Grip(1.0, 38.0), 0.1)
    gripping.guard.profile = replace(profile, gripper=None)
    assert gripping.offer(Grip(1.0, 1.0)).reason is Reason.GRIPPER_FORCE and gripping.offer(Grip(0.0, 1.0)).ok


@pytest.mark.parametrize("end", ["stop", "brake", "wait", "forget_grip"])
def test_a_stop_leaves_the_gripper_its_last_command(gripping, end):
    """No finger goes on closing, and none lets go; after it the next plan decides."""
    gripping.grip(0.1, 1.0)
    if end == "forget_grip":
        gripping.guard.forget_grip()
    elif end == "wait":
        gripping.guard.wait("a test")
    else:
        getattr(gripping.guard, end)("a test", gripping.state(0.12, 0.9), 0.12)
    gripping.guard.resume()
    assert gripping.grip(0.14, 0.8) is None and gripping.guard.gripping is None
    assert (gripping.guard.gripped is None) == (end == "forget_grip")


def test_what_came_too_late_to_be_sent_is_not_done_to_the_gripper(gripping):
    """As the motion that it came with."""
    assert gripping.offer(Grip(0.0, 38.0)).ok
    gripping.guard.retract()
    assert gripping.grip(0.1, 0.9) == pytest.approx(0.1 + 38.0 / gripping.limit.stiffness - JITTER)


def test_without_a_fresh_measurement_the_gripper_keeps_its_command(gripping):
    """Old joint states, or ones that do not tell the opening, say nothing about the force."""
    gripping.grip(0.1, 1.0)
    assert gripping.guard.grip(gripping.state(0.1, 0.8), 0.3) is None
    assert gripping.grip(0.3, None) is None and gripping.grip(0.3, float("nan")) is None
    gripping.guard.clock_moved(5.0)
    assert gripping.grip(5.0, 0.8) is None and gripping.grip(5.1, 0.8) is not None
