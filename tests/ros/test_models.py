"""What loading a model does to the process of a node."""

import os
import subprocess
import sys
from pathlib import Path


def test_after_some_plans_the_system_is_asked_for_no_more_memory():
    """Of the shipped model, as its nodes load it: beliefs and plans live on memory freed before (glibc only)."""
    script = """
import resource, time
import numpy as np
import torch
from foresight.control.motion import start_of
from foresight.data import Goal, RobotState
from foresight.planning.config import PlannerConfig
from foresight.planning.constraints import Constraints, Juncture
from foresight.planning.planner import Planner
from foresight.robots.kinematics import MujocoKinematics
from foresight.world_model import checkpoint
from foresight.world_model.belief import BeliefFilter
from foresight_nodes.models import blank_observation, load_for

model, profile = load_for("ur5e", "models/ur5e", "cpu", 1, checkpoint.load_for_planning)
planner, kinematics = Planner(model, profile, PlannerConfig(deadline_s=float("inf"))), MujocoKinematics(profile)
goal = Goal(tip=np.array([0.45, 0.1, 0.15]))
state = RobotState(0.0, profile.home, np.zeros_like(profile.home))
juncture = Juncture(Constraints(profile, kinematics), None, state, 0.1)
start, generator = start_of(None, 0.0, 0.1, 0.1, kinematics), torch.Generator()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(30):
    if turn == 10:
        before = faults()
    belief = BeliefFilter(model).update(blank_observation(model, profile))
    planner.plan(belief, goal, start, generator, time.perf_counter, None, juncture)
print(faults() - before)
"""
    as_at_first = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}  # glibc's own at a start
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | as_at_first,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=True,
    )
    assert int(run.stdout) < 2000, "minor page faults of 20 plans; 90,000 where freed memory is given back"
