"""Pursues goals: each belief becomes a plan and its joint trajectory, until the goal is reached or given up.

Without a goal there is no plan, and after the end of one the arm rests on the trajectory that it has. Goals are answered by the
action `pursue`, always with a typed reason.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from foresight_msgs.action import Pursue
from foresight_msgs.msg import Belief as BeliefMsg
from foresight_msgs.msg import GuardSetup, GuardState
from rcl_interfaces.msg import SetParametersResult
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.parameter import Parameter
from trajectory_msgs.msg import JointTrajectory

from foresight.control.motion import start_of
from foresight.control.trajectory import splice
from foresight.data import Belief, Goal, Plan, Reason, RobotState, Trajectory
from foresight.planning.config import PlannerConfig
from foresight.planning.constraints import Constraints, Juncture, NoPlan
from foresight.planning.objective import parse
from foresight.planning.planner import Planner
from foresight.planning.pursuit import Outcome, Pursuit, PursuitConfig
from foresight.robots.kinematics import MujocoKinematics
from foresight.safety.obstacles import boxes_of
from foresight.world_model import checkpoint
from foresight.world_model.belief import BeliefFilter
from foresight.world_model.goals import goal_from_images
from foresight_nodes import convert, topics
from foresight_nodes.diagnostics import Durations, Rate
from foresight_nodes.heartbeat import Heartbeat
from foresight_nodes.models import LoadModel, blank_observation, load_for
from foresight_nodes.part import Part
from foresight_nodes.real_time import check_priority
from foresight_nodes.topics import HOW_TO_RESET, OBJECTIVE

HISTORY_S = 1.0  # [s] of commands already executed that are remembered, to know the motion at a belief's stamp

CYCLE_S = 0.1  # [s] from one observation to the next: how long a plan may take
UNDECIDED_S = 0.2  # [s] after its begin for which a plan without an answer counts as offered
CLOCKS_APART_S = 0.05  # [s] by which the guard's clock may run ahead of this node's, /clock being coarse


@dataclass(frozen=True)
class PlannerParameters:
    """Parameters of the planner node."""

    checkpoint: str  # folder of the model
    robot: str  # robot profile by name, or path of its YAML file
    controller_topic: str = ""  # where the guard sends trajectories; empty: as the profile says
    device: str = "cpu"  # where the model runs: cpu, cuda, cuda:1 ... or onnx (ONNX Runtime, after `foresight export`)
    threads: int = 0  # torch threads; 0: as torch decides
    margin_s: float = 0.065  # [s] from the guard's receipt of a plan until its motion begins, more than the guard's transport_s
    first_margin_s: float = 0.1  # [s] more where nothing is in force: the arm may be a little off where it was seen
    lead_max_s: float = 0.22  # [s] at most between a belief's arrival and the motion that it leads to; the guard allows 0.25
    stale_after_s: float = 1.0  # [s] without a belief after which a goal is given up
    real_time_priority: int = 20  # SCHED_FIFO priority of the process once it is active, where allowed; 0: do not ask
    planner: PlannerConfig = PlannerConfig()
    pursuit: PursuitConfig = PursuitConfig()

    def __post_init__(self) -> None:
        check_priority(self.real_time_priority)
        for name in ("margin_s", "first_margin_s", "lead_max_s", "stale_after_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 s, got {getattr(self, name)}.")


@dataclass
class Chase:
    """The goal being pursued, and what has been done for it."""

    handle: ServerGoalHandle
    goal: Goal
    pursuit: Pursuit
    constraints: Constraints  # what always holds, and what the goal adds
    generator: torch.Generator
    heard_s: float  # when the last belief came
    plans: int = 0
    last: Plan | None = None


class PlannerNode(Part[PlannerParameters]):
    """Belief + goal -> Plan."""

    def __init__(self, load: LoadModel = checkpoint.load_for_planning, **options) -> None:
        super().__init__("planner", PlannerParameters, editable=(OBJECTIVE,), **options)
        self._load = load
        self._model = self._planner = self._server = None
        self._chase: Chase | None = None
        self._heartbeat: Heartbeat | None = None
        # Counted on from the time of the start: the guard must not take this planner's plans for those of one that died.
        self._plan_id = time.time_ns() // 1_000_000
        self._forget()
        self.add_on_set_parameters_callback(self._judge_edit)
        self.add_post_set_parameters_callback(self._edit)

    def configure(self, parameters: PlannerParameters) -> None:
        self._settings = parameters
        self._model, self._profile = load_for(
            parameters.robot, parameters.checkpoint, parameters.device, parameters.threads, self._load
        )
        self._kinematics = MujocoKinematics(self._profile)
        self._planner = Planner(self._model, self._profile, parameters.planner)
        self._gripper_moves = self._model.contract.moves_gripper
        # Until the guard has said what it insists on.
        self._constraints = Constraints(self._profile, self._kinematics, gripper_moves=self._gripper_moves)
        self._forget()
        self._warm_up()
        self._output = topics.PLAN.publisher(self)
        topics.BELIEF.subscription(self, self._on_belief)
        topics.GUARD_STATE.subscription(self, self._on_guard_state)
        topics.GUARD_SETUP.subscription(self, self._on_guard_setup)
        topics.in_force(parameters.controller_topic or self._profile.controller_topic).subscription(self, self._on_command)
        self.every(0.1, self._watch)
        self._heartbeat = Heartbeat(self)
        self._server = ActionServer(
            self,
            topics.PURSUE[1],
            topics.PURSUE[0],
            lambda handle: Pursue.Result(),
            handle_accepted_callback=self._on_goal,
            goal_callback=lambda goal: GoalResponse.ACCEPT if self.active else GoalResponse.REJECT,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
        )

    def deactivate(self) -> None:
        self._finish(Pursue.Result.DEACTIVATED, "The planner was deactivated; the arm comes to rest.")

    def release(self) -> None:
        self._stop_heartbeat()
        if self._server is not None:
            self._server.destroy()
        self._model = self._planner = self._server = None

    def destroy_node(self) -> None:
        self._stop_heartbeat()
        super().destroy_node()

    def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._heartbeat = None

    def report(self) -> dict[str, object]:
        new_s, self._new_s = self._new_s, []
        missed_at_s, self._missed_at_s = self._missed_at_s, []
        return {
            "model_id": self._model.model_id if self._model else "",
            "plan_hz": self._plans.hz(self.now_s()),
            "plans": self._plans.total,
            "planning_ms_p50": self._durations.percentile_ms(50),
            "planning_ms_p99": self._durations.percentile_ms(99),
            "search_ms_p50": self._searches.percentile_ms(50),
            "belief_age_ms_p50": self._ages.percentile_ms(50),
            "cycles": self._cycles,
            "cycles_too_long": self._too_long,
            "deadline_misses": self._misses,
            "deadline_overruns": self._overruns,
            "without_plan": self._without_plan,
            "cycles_ms": " ".join(f"{1e3 * cycle_s:.1f}" for cycle_s in new_s),
            "missed_at_s": " ".join(f"{at_s:.3f}" for at_s in missed_at_s),
            "margin_m": self._margin_m,
            "pursuing": self._chase is not None,
        }

    def _forget(self) -> None:
        self._in_force: Trajectory | None = None  # what the controller executes, with the last second of it
        self._in_force_s = 0.0  # when the last command of it came
        self._offered: dict[int, Trajectory] = {}  # by plan id, what the guard has not yet decided on
        self._accepted_id = 0
        self._closed = self._offered_closed = float("nan")  # the gripper's last command, by the guard's word and as last offered
        self._plans, self._margin_m = Rate(self.now_s()), float("nan")
        self._durations, self._searches, self._ages = Durations(), Durations(), Durations()
        self._cycles = self._too_long = self._without_plan = 0
        self._misses = self._overruns = 0  # plans too late for their motion or for want of time not made; past planner.deadline_s
        # Since the last report: how long each cycle took, and on the node's clock when one took too long, or had no plan in time.
        self._new_s: list[float] = []
        self._missed_at_s: list[float] = []
        # planning, and the way from there to the guard, on the node's clock
        self._recent, self._ways = Durations(30), Durations(30)

    def _warm_up(self) -> None:
        """The first inference is slower than the others, and constraints prepare themselves once; let no goal wait for it."""
        belief = BeliefFilter(self._model).update(blank_observation(self._model, self._profile))
        nothing = np.zeros(self._model.config.latent, np.float32)
        goal, generator = Goal(nothing, np.zeros(3), np.zeros(3)), torch.Generator()  # all that an objective may look at
        state = RobotState(0.0, self._profile.home, np.zeros_like(self._profile.home), opening=0.0)
        self._constraints.of(goal)
        for _ in range(3):
            plan = self._planner.plan(belief, goal, start_of(None, 0.0, 0.0, 0.1, self._kinematics), generator, lambda: 0.0)
            Juncture(self._constraints, None, state, 0.1).examine(plan)

    # -- the objective, edited while running --------------------------------------------------------------------------

    def _judge_edit(self, edits: list[Parameter]) -> SetParametersResult:
        """Refuses an objective that makes no sense, or by which the model or the goal being pursued cannot be judged."""
        try:
            for edit in (e for e in edits if e.name == OBJECTIVE):
                if not isinstance(edit.value, str):
                    raise ValueError(f"Parameter '{OBJECTIVE}' must be of type str, got {edit.value!r}.")
                objective, chase = parse(edit.value), self._chase
                goal = chase.goal if chase is not None and not chase.goal.objective else None
                objective = objective if goal is None else objective.fitting(goal, objective)
                if self._model is not None and (wrong := objective.refusal(self._model, goal)):
                    raise ValueError(wrong)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _edit(self, edits: list[Parameter]) -> None:
        for edit in (e for e in edits if e.name == OBJECTIVE and self._planner is not None):
            self._planner.objective = parse(edit.value)
            self.get_logger().info(f"Objective from the next plan on: {self._planner.objective}")

    # -- goals --------------------------------------------------------------------------------------------------------

    def _on_goal(self, handle: ServerGoalHandle) -> None:
        self._finish(Pursue.Result.REPLACED, "Another goal took over.")
        request = handle.request
        try:
            if not request.time_limit_s > 0:
                raise ValueError(f"time_limit_s must be above 0 s, got {request.time_limit_s}.")
            goal = self._goal(request)
            constraints = self._constraints.of(goal)
            if wrong := self._planner.refusal(goal, constraints):
                raise ValueError(wrong)
        except (ValueError, RuntimeError) as error:  # the model that looks at goal images may have lost its device
            why = f"The model failed: {error}" if isinstance(error, RuntimeError) else str(error)
            self.complain(f"Goal refused: {why}")
            conclude(handle, Pursue.Result(reason=Pursue.Result.REFUSED, detail=why))
            return
        now_s = self.now_s()  # what was prepared until here takes nothing from the goal's time
        pursuit = Pursuit(now_s, replace(self._settings.pursuit, time_limit_s=request.time_limit_s))
        generator = torch.Generator().manual_seed(self._settings.planner.seed)
        self._chase = Chase(handle, goal, pursuit, constraints, generator, now_s)

    def _goal(self, request: Pursue.Goal) -> Goal:
        """The goal of a request; raises ValueError where it contradicts itself or the model."""
        images = {image.header.frame_id: convert.image_from_msg(image) for image in request.goal_images}
        if request.object_only and (not images or request.use_object):
            raise ValueError("object_only needs goal images, and no object position beside them.")
        weights = (request.weight_latent, request.weight_tip, request.weight_object)
        seen = goal_from_images(self._model, images, request.object_only) if images else None
        return Goal(
            latent=seen.latent if seen else None,
            tip=convert.xyz(request.tip.position) if request.use_tip else None,
            object=convert.xyz(request.object) if request.use_object else seen.object if seen else None,
            weights=weights if any(weights) else (1.0, 1.0, 1.0),
            objective=request.objective,
            keep_outs=tuple(replace(box, name=f"the goal's {box.name}") for box in boxes_of(request.keep_outs)),
            tip_speed_max=request.tip_speed_max or None,
            yaw=request.yaw if request.use_yaw else None,
            opening=request.opening if request.use_opening else None,
            contact=request.contact if request.use_contact else None,
        )

    def _finish(self, reason: int, detail: str) -> None:
        """Ends the pursuit, if there is one, with its result."""
        chase, self._chase = self._chase, None
        if chase is not None:
            elapsed_s = self.now_s() - chase.pursuit.start_s
            self.get_logger().info(detail)
            conclude(
                chase.handle,
                Pursue.Result(
                    success=reason == Pursue.Result.REACHED, reason=reason, detail=detail, plans=chase.plans, elapsed_s=elapsed_s
                ),
            )

    def _end(self, outcome: Outcome | None) -> bool:
        """Ends the pursuit if it has come to an end; whether it has."""
        if outcome is not None:
            self._finish(getattr(Pursue.Result, outcome.end.name), outcome.detail)
        return outcome is not None

    def _watch(self) -> None:
        """What ends a pursuit without a belief: the client, or silence."""
        chase = self._chase
        if chase is None:
            return
        now_s = self.now_s()
        if chase.handle.is_cancel_requested:
            self._finish(Pursue.Result.CANCELLED, "Cancelled by the client; the arm comes to rest.")
        elif now_s - chase.heard_s > self._settings.stale_after_s:
            self._finish(
                Pursue.Result.STALE,
                f"No belief for {now_s - chase.heard_s:.1f} s: check perception and world_model in /diagnostics.",
            )

    # -- plans --------------------------------------------------------------------------------------------------------

    def _on_belief(self, msg: BeliefMsg) -> None:
        self._watch()
        if not self.active or self._chase is None:
            return
        sizes, expected = (len(msg.latent), len(msg.proprio)), (self._model.config.latent, self._model.contract.proprio_size)
        if sizes != expected:
            self.complain(
                f"Belief has {sizes[0]} and {sizes[1]} numbers (latent, proprio), "
                f"the model makes {expected[0]} and {expected[1]}."
            )
            return
        chase, now_s, begin_s = self._chase, self.now_s(), time.perf_counter()
        belief = convert.belief_from_msg(msg)
        chase.heard_s = now_s
        in_force = self._expected()
        join_s = now_s + self._lead_s(first=in_force is None)
        if in_force is not None:  # which may not have begun: the controller is on its way to where the arm is
            join_s = max(join_s, float(in_force.times_s[0]))
        if join_s > now_s + self._settings.lead_max_s:
            self._end(chase.pursuit.without_plan("the controller is being brought to where the arm is", now_s))
            return
        start = start_of(in_force, belief.stamp_s, join_s, self._model.contract.step_s, self._kinematics)
        previous = chase.last if self._plan_id in (self._accepted_id, *self._offered) else None
        if self._gripper_moves:
            start = replace(start, closed=self._closed_by_then(belief))
        q = belief.proprio[: len(self._profile.joint_names)].astype(np.float64)
        measured = RobotState(belief.stamp_s, q, np.zeros_like(q), float(belief.proprio[-7]) if self._gripper_moves else None)
        juncture = Juncture(chase.constraints, in_force, measured, join_s)
        try:
            plan = self._planner.plan(
                belief, chase.goal, start, chase.generator, time.perf_counter, previous, juncture, chase.pursuit.afresh
            )
        except (NoPlan, RuntimeError) as error:  # no motion passes, or no time; or the device has no memory left, or is gone
            self._without_plan += 1
            self._misses += isinstance(error, NoPlan) and error.reason is Reason.NO_TIME
            self._took(time.perf_counter() - begin_s, in_time=False)
            why = str(error) if isinstance(error, NoPlan) else f"The model failed: {error}"
            self.complain(why)
            self._end(chase.pursuit.without_plan(why, now_s))
            return
        except ValueError as error:
            self.complain(str(error))
            self._finish(Pursue.Result.REFUSED, str(error))
            return
        chase.plans, chase.last = chase.plans + 1, plan
        outcome = chase.pursuit.update(plan, belief, now_s)
        if outcome is None:
            self._offer(plan, belief, now_s, begin_s, join_s)
        self._feed_back(chase, plan, belief, now_s)
        self._end(outcome)

    def _offer(self, plan: Plan, belief: Belief, now_s: float, begin_s: float, join_s: float) -> None:
        """To the guard, unless it comes too late; `begin_s` is when its making began, by the processor's clock."""
        trajectory, self._margin_m = plan.trajectory, plan.margin_m
        taken_s = time.perf_counter() - begin_s
        self._searches.add(plan.planning_s)
        self._overruns += plan.planning_s > self._settings.planner.deadline_s
        self._ages.add(now_s - belief.stamp_s)
        ready_s = self.now_s()
        self._recent.add(ready_s - now_s)
        self._took(taken_s, in_time=ready_s <= join_s)
        if ready_s > join_s:
            self._misses += 1
            self.complain(
                f"Planning took {taken_s * 1000:.0f} ms, {(ready_s - join_s) * 1000:.0f} ms too long; this plan is dropped."
            )
            return
        self._plan_id += 1
        self._offered[self._plan_id] = trajectory
        names, frame = self._profile.joint_names, self._profile.base_frame
        message = convert.plan_to_msg(plan, trajectory, names, ready_s, self._plan_id, frame)
        self._offered_closed = message.closed
        self.publish(self._output, message)
        self._plans.tick()

    def _took(self, cycle_s: float, in_time: bool) -> None:
        """A cycle has ended just now; `in_time`: with a plan, before its motion is to begin."""
        self._durations.add(cycle_s)
        self._new_s.append(cycle_s)
        self._cycles += 1
        self._too_long += cycle_s > CYCLE_S
        if cycle_s > CYCLE_S or not in_time:
            self._missed_at_s.append(self.now_s())

    def _lead_s(self, first: bool) -> float:
        """How far ahead the next motion begins: what planning and the way to the guard have recently taken on this clock [s]."""
        settings, planning_ms, way_ms = self._settings, self._recent.percentile_ms(95), self._ways.percentile_ms(95)
        planning_s = settings.planner.deadline_s + 0.03 if np.isnan(planning_ms) else planning_ms / 1000.0
        way_s = 0.02 if np.isnan(way_ms) else way_ms / 1000.0
        margin_s = settings.margin_s + settings.first_margin_s * first
        return min(planning_s + way_s + margin_s, settings.lead_max_s)

    def _expected(self) -> Trajectory | None:
        """The motion in force, as it will be if the guard accepts what it has not yet decided on.

        The next planning begins before the guard's answer is back. Should the guard refuse, it refuses the next plan as well.
        """
        expected, now_s = self._in_force, self.now_s()
        self._offered = {plan_id: t for plan_id, t in self._offered.items() if t.times_s[0] > now_s - UNDECIDED_S}
        for trajectory in self._offered.values():
            expected = splice(expected, trajectory, now_s - HISTORY_S)
        return expected

    def _closed_by_then(self, belief: Belief) -> float:
        """The gripper's command when the next plan begins; as it is measured where the guard knows of none."""
        closed = self._offered_closed if self._offered else self._closed
        return float(belief.proprio[-7] < 0.5) if np.isnan(closed) else closed

    def _feed_back(self, chase: Chase, plan: Plan, belief: Belief, now_s: float) -> None:
        chase.handle.publish_feedback(
            Pursue.Feedback(
                cost_names=list(plan.terms),
                costs=[float(v) for v in plan.terms.values()],
                distance_s=plan.distance,
                surprise=belief.surprise,
                planning_s=plan.planning_s,
                source=plan.source,
                margin_m=plan.margin_m,
                elapsed_s=now_s - chase.pursuit.start_s,
            )
        )

    # -- what the guard does ------------------------------------------------------------------------------------------

    def _on_command(self, msg: JointTrajectory) -> None:
        now_s = self.now_s()
        try:
            trajectory = convert.trajectory_from_msg(msg, self._profile.joint_names, now_s)
        except ValueError as error:
            self.complain(str(error))
            return
        self._in_force, self._in_force_s = splice(self._in_force, trajectory, now_s - HISTORY_S), now_s

    def _on_guard_setup(self, msg: GuardSetup) -> None:
        """From now on plans keep to what the guard insists on: its margins, its table and its keep-outs."""
        try:
            config, collision, table, boxes = convert.guard_from_msg(msg)
        except ValueError as error:
            self.complain(str(error))
            return
        hand = self._constraints.hand
        self._constraints = Constraints(
            self._profile, self._kinematics, config, boxes, table, collision, hand=hand, gripper_moves=self._gripper_moves
        )
        if self._chase is not None:
            self._chase.constraints = self._constraints.of(self._chase.goal)

    def _on_guard_state(self, msg: GuardState) -> None:
        self._accepted_id, self._closed, stamp_s = msg.plan_id, msg.closed, convert.seconds(msg.header.stamp)
        if msg.decided_id in self._offered:
            self._ways.add(msg.plan_age_s)
            for plan_id, trajectory in self._offered.items():  # their commands may come after this message, or be overtaken
                if plan_id <= msg.plan_id:
                    self._in_force, self._in_force_s = splice(self._in_force, trajectory, stamp_s - HISTORY_S), stamp_s
            self._offered = {plan_id: t for plan_id, t in self._offered.items() if plan_id > msg.decided_id}
        if not msg.in_force and stamp_s > self._in_force_s + CLOCKS_APART_S:
            self._in_force = None
        if msg.state == GuardState.STOPPED and self._chase is not None and stamp_s >= self._chase.pursuit.start_s:
            self._finish(Pursue.Result.STOPPED, f"The guard was stopped: {msg.detail.rstrip('.')}. {HOW_TO_RESET}")


def conclude(handle: ServerGoalHandle, result: Pursue.Result) -> None:
    """Ends a goal with this result; the server sends it in the executor's next turn."""

    def end(handle: ServerGoalHandle) -> Pursue.Result:
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.success:
            handle.succeed()
        else:
            handle.abort()
        return result

    handle.execute(end)
