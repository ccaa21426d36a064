"""An arm that does exactly as it is told, driven by a planner in the toy world: the loop of the agent without images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from foresight.control.motion import start_of
from foresight.control.trajectory import sample, splice
from foresight.data import Goal, Plan, RobotState, Trajectory
from foresight.planning.constraints import Constraints, Juncture
from foresight.planning.planner import Planner
from tests.planning.toy import belief_at

STEP_S = 0.1


def drive(
    planner: Planner, constraints: Constraints, tip, goal: Goal, steps: int, seed: int = 0
) -> Iterator[tuple[Plan, Trajectory]]:
    """Each plan, and the motion in force with it; raises NoPlan where there is none. `constraints` has what the goal adds."""
    kinematics, profile = constraints.kinematics, constraints.profile
    q, in_force, previous = kinematics.solve(np.asarray(tip, float), profile.home), None, None
    generator = torch.Generator().manual_seed(seed)
    for i in range(steps):
        now_s = 10.0 + STEP_S * i
        dq = np.zeros(len(q))
        if in_force is not None:
            q, dq = sample(in_force, now_s)
        belief = belief_at(kinematics.tip(q), kinematics.tip_velocity(q, dq), now_s)
        start = start_of(in_force, now_s, now_s, STEP_S, kinematics)
        juncture = Juncture(constraints, in_force, RobotState(now_s, q, dq), now_s)
        previous = planner.plan(belief, goal, start, generator, lambda: 0.0, previous, juncture)
        in_force = splice(in_force, previous.trajectory, now_s)
        yield previous, in_force
