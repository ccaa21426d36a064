"""What is wanted: where things start, where they should end, and when that is achieved. Knows no rendering."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from foresight.data import Box
from foresight.evaluation.config import AMONG, GRIPPING
from sim.scenes import COLOURS, CUBE_HALF
from sim.variation import Variation, scatter, vary

Task = Literal["reach", "push", "push_object_goal", "push_far", "push_among", "pick", "clutter"]
TASKS: tuple[str, ...] = get_args(Task)
PUSH_M = {"push_far": (0.16, 0.28)}  # [m] from the cube to its goal; else:
NEAR_M = (0.08, 0.15)
PICK_M = (0.10, 0.25)

REACH_TOLERANCE_M, PUSH_TOLERANCE_M = 0.02, 0.03
REST_SPEED_M_S, REST_S = 0.01, 0.5
TIME_LIMIT_S = {
    "reach": 6.0,
    "push": 12.0,
    "push_object_goal": 12.0,
    "push_far": 18.0,
    "push_among": 12.0,
    "pick": 20.0,
    "clutter": 20.0,
}
LIFTED_M = 0.03  # [m] under a cube that was picked up, at some time
CUBE_MIN, CUBE_MAX = np.array([0.34, -0.22]), np.array([0.60, 0.22])
TIP_MIN, TIP_MAX = np.array([0.30, -0.28, 0.05]), np.array([0.66, 0.28, 0.22])
POST_M = 0.04  # height of a keep-out before a cube: the fingers meet it, the rest of the hand does not
TIP_PUSHING_M = 0.03
GRASP_YAW = np.pi / 6  # [rad] at most, of a cube that is to be picked up, from the way the fingers close
CONTACT_M = CUBE_HALF + 0.013  # between the centres of cube and fingertips when they touch


@dataclass(frozen=True)
class Setting:
    """Start and goal of one episode. Positions [m], yaw [rad], base frame."""

    task: Task
    tip: np.ndarray  # (3,) at the start
    cube: np.ndarray  # (2,) at the start
    cube_yaw: float
    goal_tip: np.ndarray  # (3,) in the goal image
    goal_cube: np.ndarray  # (2,)
    others: tuple[tuple[float, float, float], ...] = ()  # x, y, yaw of other objects, which stay where they are
    named: str = "red"  # which object is the cube of the task, one of COLOURS

    @property
    def gripping(self) -> bool:
        return self.task in GRIPPING

    def distance(self) -> float:
        """[m] from the start to the goal."""
        if self.task == "reach":
            return float(np.linalg.norm(self.goal_tip - self.tip))
        return float(np.linalg.norm(self.goal_cube - self.cube))

    def unsolved(self) -> bool:
        """Whether something is left to do at the start."""
        return self.distance() > (REACH_TOLERANCE_M if self.task == "reach" else PUSH_TOLERANCE_M)


def draw(task: Task, rng: np.random.Generator) -> Setting:
    """A random setting whose start does not already fulfil its goal."""
    if task not in TASKS:
        raise ValueError(f"Task '{task}' is unknown. Available: {', '.join(TASKS)}.")
    cube, yaw = rng.uniform(CUBE_MIN, CUBE_MAX), rng.uniform(-np.pi, np.pi)
    tip = free_tip(rng, cube)
    if task == "reach":
        while True:
            goal_tip = free_tip(rng, cube)
            if np.linalg.norm(goal_tip - tip) > 0.08:
                return Setting(task, tip, cube, yaw, goal_tip, cube)
    near, far = PICK_M if task in GRIPPING else PUSH_M.get(task, NEAR_M)
    while True:
        direction = rng.uniform(-np.pi, np.pi)
        step = np.array([np.cos(direction), np.sin(direction)])
        goal_cube = cube + rng.uniform(near, far) * step
        behind = goal_cube - CONTACT_M * step
        if (goal_cube > CUBE_MIN).all() and (goal_cube < CUBE_MAX).all():
            break
    others = scatter(rng, 2, _way(cube, goal_cube, tip)) if task in AMONG else ()
    if task in ("push", "push_far", "push_among"):
        return Setting(task, tip, cube, yaw, np.array([*behind, TIP_PUSHING_M]), goal_cube, others)
    if task in GRIPPING:
        named = str(rng.choice(list(COLOURS))) if task == "clutter" else "red"
        tip[2], above = max(tip[2], 0.12), np.array([*goal_cube, 0.16])
        return Setting(task, tip, cube, rng.uniform(-GRASP_YAW, GRASP_YAW), above, goal_cube, others, named)
    while True:
        elsewhere = free_tip(rng, goal_cube)
        if np.linalg.norm(elsewhere[:2] - goal_cube) > 0.10:
            return Setting(task, tip, cube, yaw, elsewhere, goal_cube)


def _way(cube: np.ndarray, goal: np.ndarray, tip: np.ndarray) -> tuple[np.ndarray, ...]:
    """Places that other objects keep away from: the straight way of the cube, where the arm begins, and behind the cube."""
    behind = cube - 0.07 * (goal - cube) / np.linalg.norm(goal - cube)
    return (*(cube + share * (goal - cube) for share in (0, 0.5, 1)), tip[:2], behind)


def scene_of(task: str, seed: int, shift: str = "none") -> tuple[Setting, Variation, np.random.Generator]:
    """What a reset with these makes, and the generator that goes on from there. Needs no physics."""
    rng = np.random.default_rng([seed, 7])
    setting = draw(task, rng)
    variation = vary(shift, rng, (setting.cube, setting.goal_cube, (setting.cube + setting.goal_cube) / 2, setting.tip[:2]))
    if setting.named != "red":
        colours = {**COLOURS}
        cube = colours.pop(setting.named)
        variation = replace(variation, appearance=replace(variation.appearance, cube=cube, others=tuple(colours.values())))
    return replace(setting, others=setting.others + variation.others), variation, rng


def box_between(setting: Setting, half_m: float, share: float) -> Box:
    """A keep-out on the straight way that tip (reach) or cube (push) has to go: a post as wide as `2 half_m` at that share of it.

    A post of a reach stands on the table and ends 4 cm above the way, one of a push as high as the cube.
    """
    reach = setting.task == "reach"
    begin, end = (setting.tip, setting.goal_tip) if reach else (np.append(setting.cube, 0), np.append(setting.goal_cube, 0))
    middle = begin + share * (end - begin)
    low, high = middle - half_m, middle + half_m
    low[2], high[2] = 0.0, middle[2] + 0.04 if reach else POST_M
    return Box("keep-out", low, high)


def free_tip(rng: np.random.Generator, cube: np.ndarray) -> np.ndarray:
    """A tip position that does not touch the cube."""
    while True:
        tip = rng.uniform(TIP_MIN, TIP_MAX)
        if np.linalg.norm(tip[:2] - cube) > 0.08 or tip[2] > 0.10:
            return tip
