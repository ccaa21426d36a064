"""Scripted experts: reactive policies that move the tip to points, push the cube about, wander near it, or pick and place it.

They see true states; what they did is data and a ceiling for evaluations, never a controller of the product. Knows no
rendering and no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.control.motion import joint_trajectory
from foresight.data import Plan, RobotState, Trajectory
from sim.scenes import CUBE_HALF
from sim.tasks import CONTACT_M, CUBE_MAX, CUBE_MIN, TIP_MAX, TIP_MIN, Setting
from sim.variation import CLEAR_M

TRAVEL_Z, PUSH_Z = 0.095, 0.030  # [m] tip heights: above the cube, and beside it
BEHIND_M = CONTACT_M + 0.014  # distance to the cube's centre at which a push is lined up
MAX_SPEED, MAX_ACCELERATION = 0.25, 1.5  # [m/s], [m/s^2]
CARRY_Z, GRASP_Z = 0.14, 0.030  # [m] tip heights with a cube in the hand, and to take it
CLOSING_STEPS, OPENING_STEPS = 9, 4  # of 0.1 s that the fingers need
PLACED_M, LOST_M = 0.012, 0.03  # [m] from goal to a cube that is placed; from the fingers to one that is not held
DROP_SHARE = 0.1  # chance of letting go of a carried cube, in each step, times the noise
STEP_S = 0.1
EXPERT_SPEED = 0.21  # [m/s] of a tip that the judge counts


def approach(tip: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"], speed: float) -> Float[np.ndarray, "3"]:
    """Velocity [m/s] towards a point, slowing so as to stop there."""
    offset = target - tip
    distance = float(np.linalg.norm(offset))
    if distance < 1e-4:
        return np.zeros(3)
    return offset / distance * min(speed, np.sqrt(2 * 0.6 * MAX_ACCELERATION * distance) * 0.7, distance / 0.18)


@dataclass
class Push:
    """Go round the cube, line up behind it, push it to `goal` [m], back off."""

    goal: Float[np.ndarray, "2"]
    speed: float
    done: bool = False

    def velocity(self, tip: np.ndarray, cube: np.ndarray) -> np.ndarray:
        to_goal = self.goal - cube[:2]
        distance = float(np.linalg.norm(to_goal))
        if distance < 0.008:
            self.done = True
            return np.zeros(3)
        u = to_goal / distance
        offset = tip[:2] - cube[:2]
        along = float(offset @ u)
        lateral = offset - along * u
        low = tip[2] < PUSH_Z + 0.018
        lined_up = along < -CUBE_HALF and np.linalg.norm(lateral) < 0.014 + 0.25 * max(0.0, -along - BEHIND_M)
        if low and lined_up and along > -0.12:
            target = cube[:2] - u * CONTACT_M + u * min(distance, 0.10) - 1.2 * lateral
            return approach(tip, np.array([*target, PUSH_Z]), self.speed)
        behind = cube[:2] - u * (BEHIND_M + 0.012)
        gap = float(np.linalg.norm(tip[:2] - behind))
        if gap < 0.012 or (low and gap < 0.03 and along < -CONTACT_M):
            return approach(tip, np.array([*behind, PUSH_Z]), MAX_SPEED)
        clear = np.linalg.norm(offset) > 0.075 or tip[2] > TRAVEL_Z - 0.02
        if (low and not clear) or (
            tip[2] < TRAVEL_Z - 0.02 and gap > 0.03 and not (low and self._free_path(tip[:2], behind, cube[:2]))
        ):
            rise = np.array([*(tip[:2] + 0.02 * offset / (np.linalg.norm(offset) + 1e-6)), TRAVEL_Z])
            return approach(tip, rise, MAX_SPEED)
        height = PUSH_Z if low and clear else TRAVEL_Z - max(0.0, 0.03 - gap)
        return approach(tip, np.array([*behind, height]), MAX_SPEED)

    @staticmethod
    def _free_path(a: np.ndarray, b: np.ndarray, cube: np.ndarray) -> bool:
        t = np.clip((cube - a) @ (b - a) / max((b - a) @ (b - a), 1e-9), 0, 1)
        return bool(np.linalg.norm(a + t * (b - a) - cube) > 0.06)


@dataclass
class GoTo:
    """Move the tip to a point and rest there a moment."""

    target: Float[np.ndarray, "3"]
    speed: float
    rest_steps: int
    done: bool = False

    def velocity(self, tip: np.ndarray, cube: np.ndarray) -> np.ndarray:
        near = np.linalg.norm(self.target - tip) < 0.006
        if near:
            self.rest_steps -= 1
            self.done = self.rest_steps < 0
        target = self.target.copy()
        if np.linalg.norm(tip[:2] - cube[:2]) < 0.075 and np.linalg.norm(target[:2] - tip[:2]) > 0.03:
            target[2] = max(target[2], TRAVEL_Z)  # over the cube, not through it
        return approach(tip, target, self.speed)


@dataclass
class PickPlace:
    """Open above the cube, go down, close, lift, carry to `goal` [m], put down, open, rise. What slips is picked up again."""

    goal: Float[np.ndarray, "2"]
    speed: float
    done: bool = False
    closed: float = 0.0  # the gripper's command: 0 open, 1 closed
    phase: str = "above"
    wait: int = 0
    fumbles: int = 0  # times that a cube was not held when it should have been

    def velocity(self, tip: np.ndarray, cube: np.ndarray) -> np.ndarray:
        held = np.linalg.norm(cube[:2] - tip[:2]) < LOST_M and abs(cube[2] - tip[2]) < LOST_M
        if self.phase in ("lift", "carry", "lower") and not held:
            self.phase, self.fumbles = "rise", self.fumbles + 1
        if self.phase == "above":
            self.closed = 0.0
            gap = float(np.linalg.norm(tip[:2] - cube[:2]))
            if gap < 0.006:
                self.phase = "down"
            height = CARRY_Z if gap > 0.02 else max(GRASP_Z + 0.04, tip[2] - 0.03)
            if gap > 0.04 and tip[2] < CARRY_Z - 0.03:
                return approach(tip, np.array([*tip[:2], CARRY_Z]), self.speed)
            return approach(tip, np.array([*cube[:2], height]), self.speed)
        if self.phase == "down":
            if tip[2] < GRASP_Z + 0.004:
                self.phase, self.wait, self.closed = "close", CLOSING_STEPS, 1.0
            return approach(tip, np.array([*cube[:2], GRASP_Z]), 0.12)
        if self.phase in ("close", "open"):
            self.wait -= 1
            if self.wait <= 0:
                self.phase = "lift" if self.phase == "close" else "rise"
            return np.zeros(3)
        if self.phase == "lift":
            if tip[2] > CARRY_Z - 0.01:
                self.phase = "carry"
            return approach(tip, np.array([*tip[:2], CARRY_Z]), 0.6 * self.speed)
        over = self.goal + tip[:2] - cube[:2]  # the cube hangs where the fingers took it
        if self.phase == "carry":
            if np.linalg.norm(over - tip[:2]) < 0.005:
                self.phase = "lower"
            return approach(tip, np.array([*over, CARRY_Z]), self.speed)
        if self.phase == "lower":
            if cube[2] < CUBE_HALF + 0.003 or tip[2] < GRASP_Z:
                self.phase, self.wait, self.closed = "open", OPENING_STEPS, 0.0
            return approach(tip, np.array([*over, GRASP_Z - 0.004]), 0.12)
        self.closed = 0.0  # rise, from a cube that was placed or lost
        if tip[2] > CARRY_Z - 0.02:
            self.done = bool(np.linalg.norm(cube[:2] - self.goal) < PLACED_M)
            self.phase = "done" if self.done else "above"
        return approach(tip, np.array([*tip[:2], CARRY_Z]), self.speed)


class Player:
    """Strings random pushes, moves and wanderings together, with noise that differs from episode to episode."""

    def __init__(self, rng: np.random.Generator, gripping: bool = False, clear_of: tuple[np.ndarray, ...] = ()) -> None:
        """`gripping`: pick the cube up and place it, again and again, away from the places (x, y) given."""
        self.rng, self.clear_of = rng, clear_of
        self.kind = "pick" if gripping else rng.choice(["push", "reach", "wander"], p=[0.64, 0.26, 0.10])
        self.noise = rng.choice([0.02, 0.10, 0.25], p=[0.55, 0.3, 0.15])
        self.speed = rng.uniform(0.14, MAX_SPEED)
        self.burst, self.burst_steps = np.zeros(3), 0
        self.previous = np.zeros(3)
        self.skill: Push | GoTo | PickPlace | None = None
        self.rests = 0

    @property
    def closed(self) -> float:
        """The gripper's command: 0 open, 1 closed."""
        return self.skill.closed if isinstance(self.skill, PickPlace) else float(self.kind != "pick")

    def velocity(self, tip: np.ndarray, cube: np.ndarray) -> Float[np.ndarray, "3"]:
        """Tip velocity [m/s] wanted at the end of the next step."""
        rng = self.rng
        if self.rests > 0:
            self.rests -= 1
            wanted = np.zeros(3)
        else:
            if self.skill is None or self.skill.done:
                if self.skill is not None and rng.random() < 0.6:
                    self.rests = int(rng.integers(3, 10))
                self.skill = self._next(cube)
            wanted = self.skill.velocity(tip, cube)
        if isinstance(self.skill, PickPlace) and self.skill.phase == "carry" and rng.random() < DROP_SHARE * self.noise:
            self.skill.phase, self.skill.wait, self.skill.closed = "open", OPENING_STEPS, 0.0  # lets go, and must try again
        if self.burst_steps == 0 and self.noise > 0.05 and rng.random() < 0.03:
            self.burst, self.burst_steps = rng.normal(0, 0.15, 3), int(rng.integers(2, 6))
        if self.burst_steps > 0:
            self.burst_steps -= 1
            wanted = wanted + self.burst
        elif np.linalg.norm(wanted) > 0.01:
            wanted = wanted + rng.normal(0, self.noise * MAX_SPEED, 3) * min(1.0, np.linalg.norm(wanted) / 0.1)
        wanted = self._keep_inside(tip, wanted)
        change = wanted - self.previous
        wanted = self.previous + change * min(1.0, MAX_ACCELERATION * 0.1 / (np.linalg.norm(change) + 1e-9))
        wanted *= min(1.0, MAX_SPEED / (np.linalg.norm(wanted) + 1e-9))
        self.previous = wanted
        return wanted

    def _next(self, cube: np.ndarray) -> Push | GoTo | PickPlace:
        rng = self.rng
        if self.kind == "pick":
            goals = (rng.uniform(CUBE_MIN, CUBE_MAX) for _ in range(50))
            clear = (g for g in goals if all(np.linalg.norm(g - other) > CLEAR_M for other in self.clear_of))
            return PickPlace(next(clear, cube[:2].copy()), self.speed)
        reachable = (cube[:2] > CUBE_MIN - 0.05).all() and (cube[:2] < CUBE_MAX + 0.05).all() and cube[2] < 0.04
        if self.kind == "push" and reachable and not (isinstance(self.skill, Push) and rng.random() < 0.35):
            for _ in range(50):
                angle, length = rng.uniform(-np.pi, np.pi), rng.uniform(0.04, 0.20)
                goal = cube[:2] + length * np.array([np.cos(angle), np.sin(angle)])
                if (goal > CUBE_MIN - 0.01).all() and (goal < CUBE_MAX + 0.01).all():
                    return Push(goal, self.speed)
            return Push(rng.uniform(CUBE_MIN, CUBE_MAX), self.speed)
        if self.kind == "wander":
            near = np.array([*(cube[:2] + rng.uniform(-0.10, 0.10, 2)), rng.uniform(PUSH_Z, 0.12)])
            return GoTo(np.clip(near, [0.27, -0.33, PUSH_Z], [0.70, 0.33, 0.25]), self.speed, 0)
        target = rng.uniform(TIP_MIN, TIP_MAX)
        if np.linalg.norm(target[:2] - cube[:2]) < 0.08:
            target[2] = max(target[2], 0.10)
        return GoTo(target, self.speed, int(rng.integers(0, 8)))

    @staticmethod
    def _keep_inside(tip: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """No faster towards a wall of the workspace than can be stopped before it."""
        low, high = np.array([0.262, -0.348, 0.027]), np.array([0.708, 0.348, 0.288])
        ahead = 0.6 * np.sqrt(2 * MAX_ACCELERATION * np.maximum(high - tip - 0.002, 0))
        behind = 0.6 * np.sqrt(2 * MAX_ACCELERATION * np.maximum(tip - low - 0.002, 0))
        return np.clip(velocity, -behind, ahead)


class Expert:
    """Does a task of `sim.tasks` as well as a script can that sees true states; stands in an episode where an agent would.

    Sends its motion without a guard; the judge counts as always.
    """

    model = None

    def __init__(self, simulation: Any) -> None:
        self.simulation = simulation
        self.reset()

    def reset(self) -> None:
        self.in_force: Trajectory | None = None
        self.skill: Push | GoTo | PickPlace | None = None
        self.previous = np.zeros(3)

    def set_goal_images(self, images: dict[str, np.ndarray], now_s: float, object_only: bool = False) -> None:
        """The pictures are not looked at: the goal is the simulation's own."""
        self.skill = skill_for(self.simulation.setting)

    def step(self, images: dict[str, np.ndarray], state: RobotState, now_s: float) -> Any:
        """One motion of the skill, through the same control as in operation."""
        truth = self.simulation.truth()
        wanted = np.zeros(3) if self.skill.done else self.skill.velocity(truth.tip, truth.object)
        change = Player._keep_inside(truth.tip, wanted) - self.previous
        wanted = self.previous + change * min(1.0, MAX_ACCELERATION * STEP_S / (np.linalg.norm(change) + 1e-9))
        self.previous = wanted * min(1.0, EXPERT_SPEED / (np.linalg.norm(wanted) + 1e-9))
        closed = self.skill.closed if isinstance(self.skill, PickPlace) else None
        self.in_force = towards(self.previous, STEP_S, self.in_force, state, now_s, self.simulation)
        nothing = dict.fromkeys(("refusal", "verdict", "outcome", "plan", "belief"))
        return SimpleNamespace(trajectory=self.in_force, closed=closed, **nothing)

    def watch(self, state: RobotState, now_s: float) -> Any:
        return SimpleNamespace(trajectory=None, closed=None)


def towards(
    velocity: Float[np.ndarray, "3"], step_s: float, in_force: Trajectory | None, state: RobotState, now_s: float, simulation: Any
) -> Trajectory:
    """The joint trajectory on which the tip comes to the velocity [m/s] in a step, then to rest: a script's plan, sent as any."""
    nothing = np.zeros((1, 1), np.float32)
    plan = Plan(now_s, "", step_s, velocity[None], 0.0, {}, 0.0, nothing, 1, 0.0, "script")
    return joint_trajectory(plan, in_force, state, now_s, simulation.kinematics, simulation.profile)


def skill_for(setting: Setting) -> Push | GoTo | PickPlace:
    """What brings the start of a setting to its goal."""
    if setting.task == "reach":
        return GoTo(setting.goal_tip, EXPERT_SPEED, 10**9)
    return PickPlace(setting.goal_cube, EXPERT_SPEED) if setting.gripping else Push(setting.goal_cube, 0.18)
