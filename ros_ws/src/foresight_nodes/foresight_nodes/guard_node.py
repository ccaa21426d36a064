"""The guard as a ROS node: its own process, one thread, no torch. What passes the core's guard is forwarded; nothing else is.

Two hundred times a second, on the steady clock, it asks the core's failsafe what to do about what was heard and what was not.
Whatever ends it (deactivation, Ctrl-C, a stop request), it first sends the motion that brings the arm to rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from foresight_msgs.msg import Belief as BeliefMsg
from foresight_msgs.msg import GraphState, GuardState
from foresight_msgs.msg import Observation as ObservationMsg
from foresight_msgs.msg import Plan as PlanMsg
from rclpy.duration import Duration
from rclpy.event_handler import QoSLivelinessChangedInfo, QoSRequestedDeadlineMissedInfo, SubscriptionEventCallbacks
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, Header
from std_srvs.srv import Trigger

from foresight.data import Candidate, Reason, Trajectory, Verdict
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import load_profile, profile_text
from foresight.safety.checks import late_refusal
from foresight.safety.collision import scene_from
from foresight.safety.config import GuardConfig
from foresight.safety.decision import Decision, Setup, Situation, outcome
from foresight.safety.failsafe import UNSURE, Action, FailsafeParams, FailsafeState, failsafe, reset
from foresight.safety.guard import Guard
from foresight.safety.monitor import BEATS_S, Driver, Monitor, MonitorConfig
from foresight.safety.obstacles import TABLE, boxes_of, to_text
from foresight.safety.watchdog import ClockWatch, Moment
from foresight.versions import versions
from foresight_nodes import convert, topics
from foresight_nodes.controller_check import ControllerCheck
from foresight_nodes.diagnostics import Rate
from foresight_nodes.part import Complaint, Part
from foresight_nodes.real_time import check_priority

TICK_S = 0.005  # [s] between two looks at the failsafe
SLACK_S = 0.02  # [s] of transport_s that deciding may take; what took longer would reach the controller late
AGAIN = 3  # times that a stop is made anew when making it took longer
MORE = 1.5  # times what making it took, which the next attempt may take
AUTO = "auto"  # as controller_node: the controller topic's name without its last part
ASK_S = 0.1  # [s] between two looks for the controller's answer
GRIP_S = 0.1  # [s] in which the gripper's command goes from open to closed; its fingers go as they can
CLOCK_READINGS, TOGETHER_S = 3, 0.005  # of two clocks at most, until no more than so much [s] has passed meanwhile
LATE_S = 0.03  # [s] without a look after which the node itself was kept waiting, and first reads what came meanwhile


@dataclass(frozen=True)
class GuardParameters:
    """Parameters of the guard node."""

    robot: str  # robot profile by name, or path of its YAML file
    controller_topic: str = ""  # where trajectories go; empty: as the profile says
    controller_node: str = ""  # asked where it starts trajectories from; auto: of the topic's name; empty: nobody is asked
    gripper: bool = False  # plans command the gripper; collisions are then looked for with all its openings
    gripper_topic: str = ""  # where its commands go; empty: as the profile says
    model_id: str = ""  # the only model whose plans are judged; empty: any
    transport_s: float = 0.045  # [s] to the controller: motion that begins sooner than this from now, a stop too, is joined late
    perception_node: str = "perception"  # whose diagnostics tell what is wrong with the cameras
    program_running_topic: str = ""  # std_msgs/Bool, on a UR io_and_status_controller/robot_program_running; empty: not watched
    speed_scaling_topic: str = ""  # std_msgs/Float64 [%], on a UR speed_scaling_state_broadcaster/speed_scaling; empty: unwatched
    controller_active_topic: str = ""  # std_msgs/Bool from an adapter of the controller manager; empty: not watched
    real_time_priority: int = 50  # SCHED_FIFO priority of the process where the system allows it; 0: do not ask
    collision: bool = True  # look for collisions of the arm with itself, its table and the keep-outs
    keep_outs: tuple[float, ...] = ()  # [m] boxes to stay out of, base frame: x, y, z of the lowest corner, then of the highest
    guard: GuardConfig = GuardConfig()
    monitor: MonitorConfig = MonitorConfig()
    failsafe: FailsafeParams = FailsafeParams()

    def __post_init__(self) -> None:
        boxes_of(self.keep_outs)
        if self.keep_outs and not self.collision:
            raise ValueError(f"collision must be true for {len(self.keep_outs) // 6} keep-outs to be kept, got false.")
        if not 0 <= self.transport_s < self.guard.start_ahead_max_s:
            raise ValueError(
                f"transport_s must lie between 0 and guard.start_ahead_max_s ({self.guard.start_ahead_max_s} s), "
                f"got {self.transport_s}."
            )
        if not self.monitor.command_timeout_s - self.transport_s >= BEATS_S:
            raise ValueError(
                f"monitor.command_timeout_s must be at least transport_s ({self.transport_s} s) and {BEATS_S} s for the "
                f"planner's heartbeat, got {self.monitor.command_timeout_s}."
            )
        check_priority(self.real_time_priority)

    @property
    def scene(self) -> str:
        """What the arm may collide with besides itself, as text; empty: collisions are not looked for."""
        return to_text(TABLE, boxes_of(self.keep_outs), self.gripper) if self.collision else ""


class GuardNode(Part[GuardParameters]):
    """Plan -> JointTrajectory, and one for the gripper where plans command it, or a refusal with its reason in `guard_state`."""

    def __init__(self, **options) -> None:
        super().__init__("guard", GuardParameters, **options)
        self._publish_state = topics.GUARD_STATE.publisher(self)
        self._publish_setup, self._publish_verdict = topics.GUARD_SETUP.publisher(self), topics.GUARD_VERDICT.publisher(self)
        self._decisions = 0
        self._guard: Guard | None = None
        self._failsafe, self._why = FailsafeState(), ""
        self._missed_ticks = self._missed_deadlines = self._lost_planners = self._remade = 0
        self._controller: ControllerCheck | None = None
        self._closed = float("nan")  # the gripper's last command in a plan: no stop and no change of the node's state drops it
        self._forget()

    def configure(self, parameters: GuardParameters) -> None:
        self._settings = parameters
        self._profile = load_profile(parameters.robot)
        self._gripper = self._profile.gripper_moved() if parameters.gripper else self._profile.gripper
        self._guard = Guard(
            self._profile,
            MujocoKinematics(self._profile),
            parameters.guard,
            parameters.model_id or None,
            scene=scene_from(parameters.scene, self._profile, parameters.guard),
            transport_s=parameters.transport_s,
        )
        self._setup = Setup(
            profile_text(parameters.robot), parameters.guard, parameters.model_id, parameters.transport_s, parameters.scene
        )
        setup = convert.setup_to_msg(self._setup, self._profile.name, versions(), self.now_s())
        self.publish(self._publish_setup, setup)
        self._simulated = self.get_parameter("use_sim_time").value
        self._perception = f"{self.get_namespace().rstrip('/')}/{parameters.perception_node}"
        self._driver = Driver(
            None if parameters.controller_active_topic else True,
            None if parameters.program_running_topic else True,
            None if parameters.speed_scaling_topic else 100.0,
        )
        if not self._simulated and (unwatched := _unwatched(parameters)):
            self.get_logger().warning(f"Not watched, for want of a topic: {unwatched}.", once=True)
        self._forget()
        topic = parameters.controller_topic or self._profile.controller_topic
        self._forward = topics.trajectory(topic).publisher(self)
        asked = topic.rpartition("/")[0] if parameters.controller_node == AUTO else parameters.controller_node
        if asked:
            self._controller = ControllerCheck(self, asked, self._on_controller)
            self.every(ASK_S, self._controller.ask, steady=True)
        if self._gripper is not None:
            self._grip = topics.trajectory(parameters.gripper_topic or self._gripper.controller_topic).publisher(self)
        events = SubscriptionEventCallbacks(deadline=self._on_missed_deadline)
        beats = SubscriptionEventCallbacks(deadline=self._on_missed_deadline, liveliness=self._on_liveliness)
        topics.JOINT_STATES.subscription(self, self._on_joint_state)
        topics.HEARTBEAT.subscription(self, self._on_heartbeat, beats)
        topics.OBSERVATION.subscription(self, self._on_observation)
        topics.BELIEF.subscription(self, self._on_belief)
        topics.PLAN.subscription(self, self._on_plan, events)
        topics.GRAPH_STATE.subscription(self, self._on_graph_state)
        topics.DIAGNOSTICS.subscription(self, self._on_diagnostics)
        for name, topic, said in (
            (parameters.controller_active_topic, topics.controller_active, self._on_controller_active),
            (parameters.program_running_topic, topics.program_running, self._on_program_running),
            (parameters.speed_scaling_topic, topics.speed_scaling, self._on_speed_scaling),
        ):
            if name:
                topic(name).subscription(self, said)
        topics.GUARD_STOP.service(self, self._on_stop)
        topics.GUARD_RESET.service(self, self._on_reset)
        self.every(TICK_S, self._tick, steady=True)
        self.every(0.1, self._announce, steady=True)

    def activate(self) -> None:
        """A latch holds through every change of the node's state; whatever else was before is forgotten.

        Waits a moment for the controller's answer and refuses one that starts trajectories anywhere but at its own command.
        """
        if self._controller is not None:
            if self._controller.waiting:
                raise ValueError(f"Controller '{self._controller.name}' has not answered yet where it starts trajectories from.")
            if self._controller.wrong:
                raise ValueError(self._controller.wrong)
        self._forget()
        if not self._failsafe.latched:
            self._verdict = Verdict(Reason.OK, "Active; no plan yet.")
        self.active = True
        self._evaluate()
        self._announce()
        if self._controller is not None and not self._controller.known:
            self.get_logger().warning(
                f"Nobody answers for controller '{self._controller.name}': whether it starts each trajectory from its own last "
                "command, as it must, is not known."
            )

    def deactivate(self) -> None:
        """Brings the arm to rest, and waits until the controller has the command."""
        self._evaluate(deactivated=True)
        self._verdict = Verdict(Reason.STOPPED, "The guard was deactivated.")
        self._announce()
        self._forward.wait_for_all_acked(Duration(seconds=0.5))

    def release(self) -> None:
        self._guard = None
        if self._controller is not None:
            self.destroy_client(self._controller.client)
            self._controller = None

    def report(self) -> dict[str, object]:
        now_s = self.now_s()
        return {
            "plan_hz": self._plans.hz(now_s),
            "accepted": self._accepted,
            "refused": self._refused,
            "reliefs": self._guard.reliefs if self._guard else 0,
            "last_reason": self._verdict.reason.value,
            "action": self._failsafe.action.name.lower(),
            "cause": self._failsafe.cause,
            "state_age_s": self._state_age_s(now_s),
            "observation_age_s": self._observation_age_s,
            "plan_age_s": self._plan_age_s,
            "missed_ticks": self._missed_ticks,
            "missed_deadlines": self._missed_deadlines,
            "lost_planners": self._lost_planners,
            "stops_made_anew": self._remade,
            "controller": self._controller.summary if self._controller else "not asked where it starts trajectories from",
        }

    def _forget(self) -> None:
        """As before the first plan, but for a latch."""
        if self._guard is not None:
            old = self._guard
            self._guard = Guard(
                old.profile, old.kinematics, old.config, old.expected_model_id, scene=old.scene, transport_s=old.transport_s
            )
            self._guard.succeed(old, self.now_s())  # whatever holds holds on, and the arm may still be on its way
            settings = self._settings
            self._monitor = Monitor(
                self._profile, settings.monitor, settings.guard.state_age_max_s, self._driver, settings.transport_s + TICK_S
            )
            self._clock_watch = ClockWatch(self._simulated, settings.monitor.clock_jump_s)
            self._unsure, self._ticked_s, self._late = False, time.monotonic(), False
            if self._failsafe.latched:
                self._guard.stop(self._why, None, self.now_s(), on_sight=True)
            else:
                self._failsafe, self._why = FailsafeState(), ""
        self._verdict = Verdict(Reason.STOPPED, self._why or "The guard is not active.")
        self._plans = Rate(self.now_s())
        self._accepted = self._refused = self._decided_id = 0
        self._last_accepted: PlanMsg | None = None
        self._forwarded_s, self._forwarded_stamp = 0.0, Time()
        self._observation_age_s = self._plan_age_s = float("nan")

    # -- what is heard ------------------------------------------------------------------------------------------------

    def _on_joint_state(self, msg: JointState) -> None:
        now = self._now()
        try:
            gripper = self._gripper if self._settings.gripper else None
            self._monitor.heard_state(convert.robot_state_from_msg(msg, self._profile.joint_names, gripper), now)
        except ValueError as error:
            self._monitor.heard_bad_state(str(error))
            self.complain(str(error))
            return
        if self._monitor.leapt:  # who put the arm elsewhere may have moved the gripper
            self._closed = float("nan")
            self._guard.forget_grip()
        if self.active and not self._unsure and not self._monitor.leapt and self._monitor.state is not None:
            self._yield(now)
            self._grip_on()

    def _yield(self, now: Moment) -> None:
        """Takes the command back to an arm that something holds; at each joint state, since it presses meanwhile."""
        began_s = time.monotonic()
        motion = self._guard.relieve(self._monitor.state, self.now_s())
        if motion is not None and self._took_s(began_s) > SLACK_S:
            self._guard.retract()
        elif motion is not None:
            self._command(motion)
            self._monitor.relieved(now)
            self._evaluate()

    def _grip_on(self) -> None:
        """Sends the gripper a new command, as far ahead of its fingers as their force allows; at each joint state, as they go on.

        The same command is not sent again: the controller would begin anew where the fingers are measured, and loosen its grip.
        """
        state, before, now_s = self._monitor.state, self._guard.gripped, self.now_s()
        closed = self._guard.grip(state, now_s)
        if closed is None:
            return
        if before is None:
            before = closed if state.opening is None else 1 - state.opening
        ends = np.array([[self._gripper.position(1 - before)], [self._gripper.position(1 - closed)]])
        end_s = self._settings.transport_s + GRIP_S * abs(closed - before)
        motion = Trajectory(now_s + np.array([0.0, end_s]), ends, np.zeros((2, 1)))
        self.publish(self._grip, convert.trajectory_to_msg(motion, (self._gripper.joint,)))

    def _on_heartbeat(self, msg: Header) -> None:
        clock_s = None if self._simulated else self.now_s()
        self._monitor.heard_heartbeat(convert.seconds(msg.stamp), clock_s, self._now())

    def _on_observation(self, msg: ObservationMsg) -> None:
        self._monitor.watchdog.seen("observation", self._now(), convert.seconds(msg.header.stamp))

    def _on_belief(self, msg: BeliefMsg) -> None:
        self._monitor.watchdog.seen("belief", self._now(), convert.seconds(msg.header.stamp))

    def _on_graph_state(self, msg: GraphState) -> None:
        if msg.active:
            self._monitor.watchdog.seen("graph", self._now())

    def _on_controller_active(self, msg: Bool) -> None:
        self._hear_driver(controller_active=msg.data)

    def _on_program_running(self, msg: Bool) -> None:
        self._hear_driver(program_running=msg.data)

    def _on_speed_scaling(self, msg: Float64) -> None:
        self._hear_driver(speed_scaling=msg.data)

    def _on_controller(self, wrong: str) -> None:
        """One that answers only while the guard is active, and is wrong, stops the arm."""
        self._hear_driver(controller_wrong=wrong)

    def _hear_driver(self, **said) -> None:
        self._driver = self._monitor.driver = replace(self._driver, **said)

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        if self._guard is None:
            return
        for status in msg.status:
            if status.name == self._perception:
                refusal = next((pair.value for pair in status.values if pair.key == "refusal"), "")
                self._monitor.heard_camera(refusal, status.message, self._now())

    def _on_missed_deadline(self, missed: QoSRequestedDeadlineMissedInfo) -> None:
        """Counted for people, as lost planners are; what is done about silence follows from ages on the steady clock."""
        self._missed_deadlines += missed.total_count_change

    def _on_liveliness(self, changed: QoSLivelinessChangedInfo) -> None:
        self._lost_planners += max(0, changed.not_alive_count_change)

    # -- what is done about it ----------------------------------------------------------------------------------------

    def _now(self) -> Moment:
        """The present moment; a jump of the ROS clock is noticed here, before anything is judged by it."""
        moment, jump_s = self._clock_watch.read(*self._clocks())
        if jump_s and self._guard is not None:
            self._guard.clock_moved(jump_s)
            self._monitor.clock_jumped(jump_s)
            if self._simulated:  # perhaps another scene, in which the gripper is as it was put
                self._guard.forget_grip()
                self._closed = float("nan")
        return moment

    def _clocks(self) -> tuple[float, float]:
        """The steady clock and ROS's, read together: again where this process was kept waiting in between."""
        for _ in range(CLOCK_READINGS):
            steady_s, clock_s = time.monotonic(), self.now_s()
            if time.monotonic() - steady_s < TOGETHER_S:
                break
        return steady_s, clock_s

    def _tick(self) -> None:
        """After a wait of its own it first reads, once, what came meanwhile: that was no silence of the others."""
        now_s = time.monotonic()
        self._late, before_s, self._ticked_s = now_s - self._ticked_s > LATE_S and not self._late, self._ticked_s, now_s
        self._missed_ticks += round((now_s - before_s) / TICK_S) - 1 if self._late else 0
        if self.active and not self._late:
            self._evaluate()

    def _evaluate(self, **conditions: bool) -> None:
        """Asks the failsafe, and acts. `conditions` stand for this once, beside those that the monitor sees."""
        now, before = self._now(), self._failsafe
        stopping = before.action is Action.STOP
        flags, said = self._monitor.flags(self._guard, now, self.now_s(), stopping, self._simulated)
        flags = replace(flags, **conditions) if conditions else flags  # 200 times a second there are none
        action, self._failsafe = failsafe(flags, before, self._settings.failsafe, now.time_s)
        cause = self._failsafe.cause
        if (action, cause) != (before.action, before.cause):
            self._why = said.get(cause, cause.replace("_", " "))
        self._act(action)
        if (action, cause) != (before.action, before.cause):
            self._tell(action, cause)
            self._announce()

    def _tell(self, action: Action, cause: str) -> None:
        """Every change of action is one line of the log."""
        if action is Action.NONE:
            self.get_logger().info("Motion is allowed.")
            return
        text = f"{action.name.capitalize()} ({cause}): {self._why}"
        text = f"{text.rstrip('.')}. {topics.HOW_TO_RESET}" if action is Action.LATCH else text
        self.get_logger().warning(text)
        self._complaint = Complaint(text, time.monotonic())

    def _act(self, action: Action) -> None:
        guard, state, now_s = self._guard, self._monitor.state, self.now_s()
        self._unsure = action >= Action.STOP and (self._unsure or self._failsafe.cause in UNSURE)
        motion: Trajectory | None = None
        guard.share_max = self._settings.failsafe.slow_share if action is Action.SLOW else 1.0
        if action is Action.LATCH and (guard.stopped is None or guard.unbraked(now_s)):
            motion = self._in_time(guard.stop)
            self._verdict = Verdict(Reason.STOPPED, self._why)
        elif action is Action.RETREAT:
            guard.wait(self._why)  # the motion that yields is in force already
        elif action in (Action.HOLD, Action.STOP):
            motion = self._in_time(guard.brake)
        elif action <= Action.SLOW:
            guard.resume()
            motion = guard.adopt(state, now_s)
        if motion is not None:
            self._command(motion)
        if action is Action.STOP:
            guard.settle(state, now_s)

    def _command(self, motion: Trajectory) -> Time:
        """To the controller; returns the message's stamp."""
        message = convert.trajectory_to_msg(motion, self._profile.joint_names, now_s=self.now_s())
        self.publish(self._forward, message)
        return message.header.stamp

    def _in_time(self, way: Callable[..., Trajectory | None]) -> Trajectory | None:
        """The guard's own motion, made anew and to begin later where making it took so long that it would come late.

        None where it still would after some attempts: what is in force goes on until the next look.
        """
        ahead_s = transport_s = self._settings.transport_s
        for _ in range(1 + AGAIN):
            began_s = time.monotonic()
            motion = way(self._why, self._monitor.state, self.now_s(), on_sight=self._unsure, ahead_s=ahead_s)
            took_s = self._took_s(began_s)
            if motion is None or ahead_s - took_s >= transport_s - SLACK_S:
                return motion
            self._remade += 1
            self._guard.retract()
            ahead_s = transport_s - SLACK_S + MORE * took_s
        self._guard.wait(self._why)
        return None

    def _took_s(self, began_s: float) -> float:
        """Time [s] that has passed for the arm; simulated time stands still while this process decides, as far as it knows."""
        return 0.0 if self._simulated else time.monotonic() - began_s

    # -- plans --------------------------------------------------------------------------------------------------------

    def _on_plan(self, msg: PlanMsg) -> None:
        if not self.active:
            return
        self._plans.tick()
        self._monitor.watchdog.seen("plan", self._now())
        self._evaluate()
        now_s = self.now_s()
        self._decided_id, self._plan_age_s = msg.id, now_s - convert.seconds(msg.plan_stamp)
        known, began_s = self._guard.situation(self._monitor.state, now_s), time.monotonic()
        candidate, self._verdict = self._judge(msg, now_s)
        decided_s = now_s + self._took_s(began_s)
        if self._verdict.ok and late_refusal(candidate, self._setup.transport_s - SLACK_S, decided_s):
            self._guard.retract()
            known, self._verdict = replace(known, now_s=decided_s), late_refusal(candidate, self._setup.transport_s, decided_s)
        self._monitor.decided(self._verdict, self._now())
        if self._verdict.ok:
            self._forwarded_s, self._forwarded_stamp = now_s, self._command(self._guard.forward)
            self._closed = msg.closed
            self._accepted, self._last_accepted = self._accepted + 1, msg
            self._observation_age_s = now_s - convert.seconds(msg.header.stamp)
        else:
            self._refused += 1
            self.complain(f"Refused ({self._verdict.reason.value}): {self._verdict.detail}")
        self._announce()
        self._record(msg.id, known, candidate)

    def _judge(self, msg: PlanMsg, now_s: float) -> tuple[Candidate | None, Verdict]:
        try:
            candidate = convert.candidate_from_msg(msg)
        except ValueError as error:
            return None, Verdict(Reason.MALFORMED, str(error))
        if self._settings.gripper != (candidate.grip is not None):
            return None, Verdict(Reason.MALFORMED, self._wrong_command(msg.closed))
        late = late_refusal(candidate, self._setup.transport_s, now_s)
        return candidate, late or self._guard.offer(candidate, self._monitor.state, now_s)

    def _wrong_command(self, closed: float) -> str:
        """Why a plan commands the gripper and the guard does not move it, or the other way round."""
        if self._settings.gripper:
            return f"The plan commands the gripper {closed}; expected a number from 0 (open) to 1 (closed)."
        return (
            f"The plan commands the gripper {closed}, and this guard does not move it (expected nan). Give a model that "
            "moves the tip alone, or the guard gripper:=true, so that it looks for collisions with the gripper open to closed."
        )

    def _record(self, plan_id: int, known: Situation, candidate: Candidate | None) -> None:
        """Publishes the decision with all that it depended on, after it has been acted on."""
        self._decisions += 1
        result = outcome(self._verdict, self._guard.in_force)
        decision = Decision(self._decisions, plan_id, self._setup.fingerprint, known, candidate, self._verdict, result)
        self.publish(self._publish_verdict, convert.decision_to_msg(decision, self._profile.joint_names))

    # -- operators ----------------------------------------------------------------------------------------------------

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.active:
            response.success, response.message = False, "The guard is not active; nothing is forwarded."
            return response
        self._evaluate(operator_stop=True)
        in_force = self._guard.in_force
        rest_s = 0.0 if in_force is None else max(0.0, float(in_force.times_s[-1]) - self.now_s())
        response.success, response.message = True, f"Stopped; at rest in {rest_s:.2f} s. Call reset to allow motion again."
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Ends a latch or a stop if there is one; the controller is brought to where the arm is measured, for the next plan."""
        if not self.active:
            response.success, response.message = False, "The guard is not active."
            return response
        verdict = self._reset()
        response.success, response.message = verdict.ok, verdict.detail
        if verdict.ok:
            self._verdict = verdict
        self._announce()
        return response

    def _reset(self) -> Verdict:
        self._evaluate()
        guard, now, state, now_s = self._guard, self._now(), self._monitor.state, self.now_s()
        flags, _ = self._monitor.flags(guard, now, now_s, False, self._simulated)
        latched = self._failsafe.latched
        decision = reset(self._failsafe, replace(flags, not_following=False), self._settings.failsafe, now.time_s)
        if not decision.ok:
            return Verdict(Reason.STOPPED, decision.detail)
        verdict = guard.reset(now_s, state)
        leapt = self._failsafe.cause == "state_jumped"
        if verdict.ok:
            afresh = guard.start_afresh(now_s, state)
            if self._simulated and leapt:
                guard.forget_command()
            verdict = Verdict(Reason.OK, decision.detail) if afresh.ok and latched else afresh
        if verdict.ok:
            self._failsafe, self._unsure = decision.state, False
            self._evaluate()
        elif latched and guard.stopped is None:
            guard.stop(self._why, None, now_s, on_sight=True)
        return verdict

    # -- what is told -------------------------------------------------------------------------------------------------

    def _state_age_s(self, now_s: float) -> float:
        state = self._monitor.state if self._guard is not None else None
        return float("nan") if state is None else now_s - state.stamp_s

    def _announce(self) -> None:
        """Publishes what the guard does and last did."""
        now_s, last, in_force = self.now_s(), self._last_accepted, self._guard and self._guard.in_force
        action = self._failsafe.action
        message = GuardState(
            header=convert.header(now_s),
            state=GuardState.INACTIVE if not self.active else GuardState.STOPPED if action is Action.LATCH else GuardState.ACTIVE,
            action=int(action),
            cause=self._failsafe.cause,
            why=self._why,
            latched=self._failsafe.latched,
            slowed=self._verdict.slowed,
            reason=self._verdict.reason.value,
            detail=self._verdict.detail,
            decided_id=self._decided_id,
            accepted=self._accepted,
            refused=self._refused,
            in_force=in_force is not None,
            closed=self._closed,
            state_age_s=self._state_age_s(now_s),
            observation_age_s=self._observation_age_s,
            plan_age_s=self._plan_age_s,
        )
        if self._guard is not None:
            now = self._now()
            for name in ("heartbeat", "state", "observation", "belief", "plan"):
                age_s = self._monitor.watchdog.age_s(name, now)
                setattr(message, f"{name}_silence_s", age_s if np.isfinite(age_s) else float("nan"))
        if in_force is not None:
            message.in_force_until = convert.stamp(float(np.max(in_force.times_s)))
        if last is not None:
            message.plan_id, message.observation_stamp = last.id, last.header.stamp
            message.trajectory_stamp, message.forwarded_stamp = self._forwarded_stamp, convert.stamp(self._forwarded_s)
        self.publish(self._publish_state, message)


def _unwatched(parameters: GuardParameters) -> str:
    """What of the driver the guard is told no topic of, each with the parameter that would name it."""
    said = {
        "that the robot's program runs": "program_running_topic",
        "its speed slider": "speed_scaling_topic",
        "that its controller is active": "controller_active_topic",
    }
    return ", ".join(f"{what} ({name})" for what, name in said.items() if not getattr(parameters, name))
