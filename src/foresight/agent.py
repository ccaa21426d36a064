"""The whole loop of Foresight in one place: observe, believe, plan, move, check. Read this first.

The ROS nodes do the same steps in separate processes; simulated episodes and tests do them here. Time comes in with every
call, chance from a seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from foresight.control.motion import start_of
from foresight.data import Belief, Box, Candidate, Goal, Grip, Plan, RobotState, Trajectory, Verdict
from foresight.perception.perception import Perception, Refusal
from foresight.planning.config import PlannerConfig, Policy
from foresight.planning.constraints import Constraints, Juncture, NoPlan
from foresight.planning.planner import Planner
from foresight.planning.pursuit import End, GoalRefused, Outcome, Pursuit, PursuitConfig
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import load_profile
from foresight.safety.collision import Scene
from foresight.safety.config import GuardConfig
from foresight.safety.guard import Guard
from foresight.world_model import checkpoint
from foresight.world_model.belief import BeliefFilter
from foresight.world_model.goals import goal_from_images
from foresight.world_model.model import WorldModel

LATENCY_MAX_S = GuardConfig().start_ahead_max_s  # [s] at which a motion may begin after it is offered


@dataclass(frozen=True)
class Step:
    """What one turn of the loop came to; the parts after the one that refused are None."""

    trajectory: Trajectory | None = None  # to send to the arm
    closed: float | None = None  # to send to the gripper, 0 open, 1 closed; None: it stays as it is
    refusal: Refusal | None = None  # by perception
    belief: Belief | None = None
    plan: Plan | None = None
    verdict: Verdict | None = None  # by the guard; without a plan, what the cheapest candidate would break
    outcome: Outcome | None = None  # once the goal is reached or given up


class Agent:
    """One robot, one model, one goal at a time."""

    def __init__(
        self,
        model: WorldModel,
        profile_name: str,
        config: PlannerConfig = PlannerConfig(),
        clock: Callable[[], float] = time.monotonic,
        latency_s: float = 0.0,
        compensates: bool = True,
    ) -> None:
        """`latency_s` passes between an observation and the motion that it leads to.

        An agent that compensates plans from where the motion in force will have brought the arm by then; one that does not takes
        what it sees for how things stand then.
        """
        if not 0 <= latency_s < LATENCY_MAX_S:
            raise ValueError(f"latency_s must be at least 0 and below {LATENCY_MAX_S} s, as the guard has it, got {latency_s}.")
        self.model, self.clock, self.latency_s, self.compensates = model, clock, latency_s, compensates
        self.profile = load_profile(profile_name)
        self.kinematics = MujocoKinematics(self.profile)
        if model.contract.moves_gripper:
            self.profile.gripper_moved()
        self.scene = Scene(self.profile, gripper_moves=model.contract.moves_gripper)
        spare = tuple(camera.name for camera in model.contract.cameras) if model.config.spare_cameras else ()
        self.perception = Perception(model.contract, self.profile, self.kinematics, spare_cameras=spare)
        self.filter = BeliefFilter(model)
        self.planner = Planner(model, self.profile, config)
        self.constraints = Constraints(self.profile, self.kinematics, gripper_moves=model.contract.moves_gripper)
        self.reset()

    @classmethod
    def load(
        cls,
        path: Path | str,
        profile_name: str = "ur5e",
        policy: Policy = "both",
        seed: int = 0,
        latency_s: float = 0.0,
        compensates: bool = True,
        device: str = "cpu",
        **search,
    ) -> "Agent":
        """An agent from a checkpoint; `device` as `checkpoint.load` has it, `search` overrides fields of PlannerConfig."""
        config = PlannerConfig(policy=policy, seed=seed, **search)
        return cls(checkpoint.load_for_planning(path, device), profile_name, config, latency_s=latency_s, compensates=compensates)

    def reset(self) -> None:
        """Forgets everything but the model: a new episode, or an arm that was moved by hand."""
        self.perception.reset()
        self.filter.reset()
        self.guard = self._new_guard()
        self.generator = torch.Generator().manual_seed(self.planner.config.seed)
        self.goal: Goal | None = None
        self.pursuit: Pursuit | None = None
        self.last_plan: Plan | None = None
        self.closed: float | None = None  # what the gripper was last told to become; None: nothing, it is as it is measured

    def _new_guard(self) -> Guard:
        return Guard(self.profile, self.kinematics, scene=self.scene)

    def set_goal(self, goal: Goal, now_s: float, config: PursuitConfig = PursuitConfig()) -> None:
        """Raises GoalRefused for a goal outside the workspace, one that a keep-out covers, and one that cannot be judged."""
        constraints = self.constraints.of(goal)
        if wrong := self.planner.refusal(goal, constraints):
            raise GoalRefused(wrong)
        self.goal_constraints = constraints
        self.goal, self.last_plan, self.pursuit = goal, None, Pursuit(now_s, config)

    def set_goal_images(
        self,
        images: dict[str, np.ndarray],
        now_s: float,
        object_only: bool = False,
        config: PursuitConfig = PursuitConfig(),
        keep_outs: tuple[Box, ...] = (),
    ) -> None:
        """A goal seen in images (RGB by camera); `object_only` when the arm may end anywhere."""
        self.set_goal(replace(goal_from_images(self.model, images, object_only), keep_outs=keep_outs), now_s, config)

    def step(self, images: dict[str, np.ndarray], state: RobotState, now_s: float) -> Step:
        """One turn: frames and joints captured at `state.stamp_s` become a checked trajectory, or a reason why not."""
        observation = self.observe(images, state, now_s)
        if isinstance(observation, Refusal):
            return Step(refusal=observation)
        try:
            belief = self.filter.update(observation)
        except RuntimeError as error:  # as below
            return Step(outcome=self._conclude(self._failed(error, now_s)))
        if self.goal is None or self.pursuit is None:
            return Step(belief=belief)
        join_s = now_s + self.latency_s
        believed = belief if self.compensates else replace(belief, stamp_s=belief.stamp_s + self.latency_s)
        start = start_of(self.guard.in_force, believed.stamp_s, join_s, self.model.contract.step_s, self.kinematics)
        if self.model.contract.moves_gripper:
            start = replace(start, closed=float(state.opening < 0.5) if self.closed is None else self.closed)
        juncture = Juncture(self.goal_constraints, self.guard.in_force, state, join_s)
        plan, verdict = None, None
        try:
            plan = self.planner.plan(
                believed, self.goal, start, self.generator, self.clock, self.last_plan, juncture, self.pursuit.afresh
            )
            outcome = self.pursuit.update(plan, belief, now_s)
        except NoPlan as error:
            verdict = Verdict(error.reason, str(error))
            outcome = self.pursuit.without_plan(str(error), now_s)
        except ValueError as error:
            outcome = Outcome(End.REFUSED, str(error))
        except RuntimeError as error:  # the device has no memory left, or is gone: it may come back
            outcome = self._failed(error, now_s)
        if self._conclude(outcome) is not None or plan is None:
            return Step(belief=belief, plan=plan, verdict=verdict, outcome=outcome)
        closed = plan.closed_at(join_s)
        grip = None if closed is None else Grip(closed, plan.grip_force_n)
        candidate = Candidate(plan.trajectory, self.profile.joint_names, belief.stamp_s, now_s, belief.model_id, grip)
        verdict = self.guard.offer(candidate, state, now_s)
        self.last_plan = plan if verdict.ok else None
        if not verdict.ok:
            return Step(belief=belief, plan=plan, verdict=verdict)
        self.closed = closed
        return Step(self.guard.forward, self.guard.grip(state, now_s), belief=belief, plan=plan, verdict=verdict)

    def _failed(self, error: RuntimeError, now_s: float) -> Outcome | None:
        return None if self.pursuit is None else self.pursuit.without_plan(f"The model failed: {error}", now_s)

    def _conclude(self, outcome: Outcome | None) -> Outcome | None:
        """Gives the goal up where the pursuit has come to an end; the arm comes to rest on the trajectory that it has."""
        if outcome is not None:
            self.goal = self.pursuit = None
        return outcome

    def watch(self, state: RobotState, now_s: float) -> Step:
        """Between turns, as often as joint states come: a motion when something holds the arm, and how the gripper goes on."""
        return Step(self.guard.relieve(state, now_s), self.guard.grip(state, now_s))

    def observe(self, images: dict[str, np.ndarray], state: RobotState, now_s: float):
        self.perception.add_state(state)
        for camera, image in images.items():
            self.perception.add_image(camera, state.stamp_s, image)
        return self.perception.observe(now_s)
