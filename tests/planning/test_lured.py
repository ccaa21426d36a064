"""A goal whose straight way leads the arm into something: a toy world that imagines nothing in its way, and exact judges.

Keep-outs are lured into in `test_constraints.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from foresight.data import Goal
from foresight.planning.config import PlannerConfig
from foresight.planning.constraints import Constraints
from foresight.planning.planner import Planner
from foresight.robots.contacts import Contacts
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile
from foresight.safety.obstacles import TABLE
from tests.judge import met
from tests.planning.arm import drive
from tests.planning.toy import ToyModel

DEXTERITY_MIN = 0.09  # [m/rad], which the arm has at the start and not at the goal
PAN_MAX = -1.75  # [rad] of the shoulder, which the way to the goal takes to -1.49


class Lure(NamedTuple):
    """From where to where the tip is lured [m], and what the arm would meet on the way."""

    into: str
    begin: tuple[float, float, float]
    end: tuple[float, float, float]


LURES = (
    Lure("table", (0.45, 0.0, 0.06), (0.45, 0.1, -0.05)),
    Lure("self", (0.40, 0.0, 0.2), (0.05, 0.0, 0.15)),
    Lure("joint limit", (0.45, -0.17, 0.10), (0.45, 0.17, 0.10)),
    Lure("singularity", (0.55, 0.1, 0.15), (0.71, 0.35, 0.29)),
)


@pytest.fixture(scope="module")
def roomy(profile) -> RobotProfile:
    """The robot with a workspace that holds what the arm could meet, so that no wall keeps it from that."""
    return replace(profile, workspace_min=np.array([-0.5, -0.6, -0.1]), workspace_max=np.array([0.9, 0.6, 0.6]))


def constrained(roomy: RobotProfile, into: str, held: bool) -> Constraints:
    """With that constraint alone, or with none of the four."""
    if held and into == "joint limit":
        roomy = replace(roomy, position_max=np.array([PAN_MAX, *roomy.position_max[1:]]))
    return Constraints(
        roomy,
        MujocoKinematics(roomy),
        table=TABLE if held and into == "table" else None,
        collision=held and into in ("table", "self"),
        dexterity_min=DEXTERITY_MIN if held and into == "singularity" else 0.0,
    )


@pytest.mark.parametrize("policy", ["both", "search"])
@pytest.mark.parametrize("lure", LURES, ids=lambda lure: lure.into)
def test_what_the_goal_lures_the_arm_into_is_avoided(roomy, lure, policy):
    """Every plan and its stop keep clear of it, at 500 Hz; the arm goes as far as it may. Without the constraint the same planner
    with the same draws goes into it."""
    contacts, goal = Contacts(roomy, TABLE), Goal(tip=np.array(lure.end))
    limits, least = constrained(roomy, lure.into, held=True).profile, DEXTERITY_MIN if lure.into == "singularity" else 0.0
    found, refused = {}, {}
    for held in (True, False):
        constraints = constrained(roomy, lure.into, held)
        planner = Planner(ToyModel(roomy), constraints.profile, PlannerConfig(policy=policy))
        plans = [plan for plan, _ in drive(planner, constraints, lure.begin, goal, 30)]
        hit = set().union(*(met(plan.trajectory, limits, constraints.kinematics, contacts, least) for plan in plans))
        found[held], refused[held] = lure.into in hit, any(plan.refused for plan in plans)
        end = constraints.kinematics.tip(plans[-1].trajectory.q[-1])
        assert np.linalg.norm(end - lure.begin) > 0.04
    assert found == {True: False, False: True} and not refused[False]
