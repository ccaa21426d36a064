"""The guard as a ROS node: its own process, one thread, no torch. What passes the core's guard is forwarded; nothing else is.

Whatever ends it (deactivation, Ctrl-C, a stop request), it first sends the motion that brings the arm to rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from foresight_msgs.msg import GuardState
from foresight_msgs.msg import Plan as PlanMsg
from rclpy.duration import Duration
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from foresight.data import Reason, RobotState, Trajectory, Verdict
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import load_profile
from foresight.safety.config import GuardConfig
from foresight.safety.guard import Guard
from foresight_nodes import convert, topics
from foresight_nodes.diagnostics import Rate
from foresight_nodes.part import Part


@dataclass(frozen=True)
class GuardParameters:
    """Parameters of the guard node."""

    robot: str  # robot profile by name, or path of its YAML file
    controller_topic: str = ""  # where trajectories go; empty: as the profile says
    model_id: str = ""  # the only model whose plans are judged; empty: any
    transport_s: float = 0.045  # [s] to the controller: a trajectory that begins sooner than this from now would be joined late
    guard: GuardConfig = GuardConfig()

    def __post_init__(self) -> None:
        if not 0 <= self.transport_s < self.guard.start_ahead_max_s:
            raise ValueError(
                f"transport_s must lie between 0 and guard.start_ahead_max_s ({self.guard.start_ahead_max_s} s), "
                f"got {self.transport_s}."
            )


class GuardNode(Part[GuardParameters]):
    """Plan -> JointTrajectory, or a refusal with its reason in `guard_state`."""

    def __init__(self, **options) -> None:
        super().__init__("guard", GuardParameters, **options)
        self._publish_state = topics.GUARD_STATE.publisher(self)
        self._guard: Guard | None = None
        self._forget()

    def configure(self, parameters: GuardParameters) -> None:
        self._forget()
        self._transport_s = parameters.transport_s
        self._profile = load_profile(parameters.robot)
        self._guard = Guard(self._profile, MujocoKinematics(self._profile), parameters.guard, parameters.model_id or None)
        self._forward = topics.trajectory(parameters.controller_topic or self._profile.controller_topic).publisher(self)
        topics.JOINT_STATES.subscription(self, self._on_joint_state)
        topics.PLAN.subscription(self, self._on_plan)
        topics.GUARD_STOP.service(self, self._on_stop)
        topics.GUARD_RESET.service(self, self._on_reset)
        self.every(0.1, self._announce, steady=True)

    def activate(self) -> None:
        self._forget()
        self._verdict = Verdict(Reason.OK, "Active; no plan yet.")
        self.active = True
        self._announce()

    def deactivate(self) -> None:
        """Brings the arm to rest, and waits until the controller has the command."""
        self._brake("the guard was deactivated")
        self._verdict = Verdict(Reason.STOPPED, "The guard was deactivated.")
        self._announce()
        self._forward.wait_for_all_acked(Duration(seconds=0.5))

    def release(self) -> None:
        self._guard = None

    def report(self) -> dict[str, object]:
        now_s = self.now_s()
        return {
            "plan_hz": self._plans.hz(now_s),
            "accepted": self._accepted,
            "refused": self._refused,
            "reliefs": self._guard.reliefs if self._guard else 0,
            "last_reason": self._verdict.reason.value,
            "state_age_s": self._state_age_s(now_s),
            "observation_age_s": self._observation_age_s,
            "plan_age_s": self._plan_age_s,
        }

    def _forget(self) -> None:
        """As before the first plan."""
        if self._guard is not None:
            guard = self._guard
            self._guard = Guard(guard.profile, guard.kinematics, guard.config, guard.expected_model_id)
        self._state: RobotState | None = None
        self._verdict = Verdict(Reason.STOPPED, "The guard is not active.")
        self._plans = Rate(self.now_s())
        self._accepted = self._refused = self._decided_id = 0
        self._last_accepted: PlanMsg | None = None
        self._forwarded_s = 0.0
        self._observation_age_s = self._plan_age_s = float("nan")

    def _on_joint_state(self, msg: JointState) -> None:
        try:
            self._state = convert.robot_state_from_msg(msg, self._profile.joint_names)
        except ValueError as error:
            self.complain(str(error))
            return
        motion = self._guard.relieve(self._state, self.now_s()) if self.active else None
        if motion is not None:
            self.publish(self._forward, convert.trajectory_to_msg(motion, self._profile.joint_names))
            self.complain("Something holds the arm; its command goes back to where it is.")

    def _on_plan(self, msg: PlanMsg) -> None:
        if not self.active:
            return
        self._plans.tick()
        now_s = self.now_s()
        self._decided_id, self._plan_age_s = msg.id, now_s - convert.seconds(msg.plan_stamp)
        self._verdict = self._judge(msg, now_s)
        if self._verdict.ok:
            self.publish(self._forward, msg.trajectory)
            self._accepted, self._last_accepted, self._forwarded_s = self._accepted + 1, msg, now_s
            self._observation_age_s = now_s - convert.seconds(msg.header.stamp)
        else:
            self._refused += 1
            self.complain(f"Refused ({self._verdict.reason.value}): {self._verdict.detail}")
        self._announce()

    def _judge(self, msg: PlanMsg, now_s: float) -> Verdict:
        try:
            candidate = convert.candidate_from_msg(msg)
        except ValueError as error:
            return Verdict(Reason.MALFORMED, str(error))
        ahead_s = float(candidate.trajectory.times_s[0]) - now_s
        if ahead_s < self._transport_s:
            return Verdict(
                Reason.STALE_PLAN,
                f"Trajectory begins {ahead_s:.4f} s from now; the controller needs {self._transport_s} s to have it in time.",
            )
        return self._guard.offer(candidate, self._state, now_s)

    def _brake(self, why: str) -> Trajectory | None:
        motion = self._guard.stop(why, self._state, self.now_s())
        if motion is not None:
            self.publish(self._forward, convert.trajectory_to_msg(motion, self._profile.joint_names))
        return motion

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.active:
            response.success, response.message = False, "The guard is not active; nothing is forwarded."
            return response
        motion = self._brake("stop was requested")
        self._verdict = Verdict(Reason.STOPPED, "Stop was requested.")
        self._announce()
        rest_s = 0.0 if motion is None else max(0.0, float(motion.times_s[-1]) - self.now_s())
        response.success, response.message = True, f"Stopped; at rest in {rest_s:.2f} s. Call reset to allow motion again."
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Ends a stop if there is one; the next plan must start where the arm is measured."""
        if not self.active:
            response.success, response.message = False, "The guard is not active."
            return response
        verdict = self._guard.reset(self.now_s(), self._state)
        if verdict.ok:
            verdict = self._guard.start_afresh(self.now_s(), self._state)
        response.success, response.message = verdict.ok, verdict.detail
        if verdict.ok:
            self._verdict = verdict
        self._announce()
        return response

    def _state_age_s(self, now_s: float) -> float:
        return float("nan") if self._state is None else now_s - self._state.stamp_s

    def _announce(self) -> None:
        """Publishes what the guard does and last did."""
        now_s, last, in_force = self.now_s(), self._last_accepted, self._guard and self._guard.in_force
        stopped = self._guard is not None and self._guard.stopped is not None
        message = GuardState(
            header=convert.header(now_s),
            state=GuardState.INACTIVE if not self.active else GuardState.STOPPED if stopped else GuardState.ACTIVE,
            reason=self._verdict.reason.value,
            detail=self._verdict.detail,
            decided_id=self._decided_id,
            accepted=self._accepted,
            refused=self._refused,
            in_force=in_force is not None,
            state_age_s=self._state_age_s(now_s),
            observation_age_s=self._observation_age_s,
            plan_age_s=self._plan_age_s,
        )
        if in_force is not None:
            message.in_force_until = convert.stamp(float(np.max(in_force.times_s)))
        if last is not None:
            message.plan_id, message.observation_stamp = last.id, last.header.stamp
            message.trajectory_stamp, message.forwarded_stamp = last.trajectory.header.stamp, convert.stamp(self._forwarded_s)
        self.publish(self._publish_state, message)
