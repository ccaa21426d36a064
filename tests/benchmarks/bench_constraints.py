"""Plans that the planner returns, against exact kinematics. Run: python -m tests.benchmarks.bench_constraints [--plans N]

Scenes at random in the toy world: start and goal anywhere in the workspace, one to three keep-outs, a speed cap in a third of
them. Each returned joint trajectory, its braking tail included, is judged at 1 kHz by code that shares nothing with the
planner's (`tests/judge.py`), and every pair of geometry at 100 Hz by MuJoCo's own distances. Prints one JSON line; ends with 1
where a limit was broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from foresight.control.trajectory import sample
from foresight.data import Box, Goal
from foresight.planning.config import PlannerConfig
from foresight.planning.constraints import Constraints, NoPlan
from foresight.planning.planner import Planner
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile, load_profile
from tests.judge import faults
from tests.planning.arm import drive
from tests.planning.toy import ToyModel

PLANS_A_SCENE = 20
FREE_M = 0.03  # [m] from every keep-out at the start
GIVEN_M = 1e-6  # [m] of a margin, for the last digits of a distance


def scene(constraints: Constraints, profile: RobotProfile, rng: np.random.Generator) -> tuple[Constraints, np.ndarray, Goal]:
    """Constraints with what the goal adds, a start that is free, and the goal."""
    while True:
        middles = rng.uniform([0.32, -0.28, 0.03], [0.65, 0.28, 0.12], (rng.integers(1, 4), 3))
        halves = rng.uniform(0.01, 0.04, middles.shape)
        boxes = tuple(
            Box(f"box {i}", np.array([*(m[:2] - h[:2]), 0.0]), m + h)
            for i, (m, h) in enumerate(zip(middles, halves, strict=True))
        )
        cap = float(rng.uniform(0.05, 0.2)) if rng.random() < 1 / 3 else None
        tip, end = rng.uniform(profile.workspace_min + 0.005, profile.workspace_max - 0.005, (2, 3))
        goal = Goal(tip=end, keep_outs=boxes, tip_speed_max=cap)
        held = constraints.of(goal)
        q = held.kinematics.solve(tip, profile.home)
        near = held.scene.proximity
        keep_outs = np.flatnonzero(near.obstacle >= 1)
        if q is not None and held.refusal(goal) is None and near.distances(q, keep_outs).min() > FREE_M:
            return held, tip, goal


def broken(held: Constraints, motion, profile: RobotProfile, cap: float | None) -> list[str]:
    """What is wrong with a motion, in words; of distances, those to keep-outs and table and within the arm."""
    wrong = faults(motion, profile if cap is None else replace(profile, tip_speed_max=cap), held.kinematics)
    near, margins = held.scene.proximity, held.scene.margins
    least = np.where(near.obstacle >= 1, margins.keep_out_m, np.where(near.obstacle < 0, margins.self_m, margins.table_m))
    least = np.where((near.obstacle == 0) & near.finger, margins.fingers_table_m, least)
    every = np.arange(len(least))
    for q in sample(motion, np.arange(motion.times_s[0], motion.times_s[-1] + 0.01, 0.01))[0]:
        short = least - near.distances(q, every, least + 1e-3)
        if short.max() > GIVEN_M:
            wrong.append(f"{' and '.join(near.names[int(short.argmax())])} {1000 * short.max():.3f} mm too near")
            break
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plans", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    profile, rng = load_profile("ur5e"), np.random.default_rng(options.seed)
    constraints = Constraints(profile, MujocoKinematics(profile))
    planner = Planner(ToyModel(profile), profile, PlannerConfig())
    plans, scenes, sources, none, wrong, began_s = 0, 0, Counter(), Counter(), [], time.perf_counter()
    while plans < options.plans:
        held, tip, goal = scene(constraints, profile, rng)
        scenes += 1
        try:
            for plan, _ in drive(planner, held, tip, goal, PLANS_A_SCENE, scenes):
                plans, sources[plan.source] = plans + 1, sources[plan.source] + 1
                wrong += [f"scene {scenes}: {what}" for what in broken(held, plan.trajectory, profile, goal.tip_speed_max)]
        except NoPlan as error:
            none[error.reason.value] += 1
    found = {"plans": plans, "scenes": scenes, "violations": len(wrong), "shown": wrong[:20], "sources": dict(sources)}
    print(json.dumps({**found, "scenes_ended_without_plan": dict(none), "took_s": round(time.perf_counter() - began_s, 1)}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
