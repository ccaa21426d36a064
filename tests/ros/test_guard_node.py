"""The guard as a ROS node: forwards what passes, refuses the rest with a reason, stops, and always leaves the arm at rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from foresight_msgs.msg import Belief, GraphState, GuardState, Observation
from foresight_msgs.msg import Plan as PlanMsg
from foresight_nodes import convert, topics
from foresight_nodes.guard_node import SLACK_S, GuardNode, GuardParameters
from foresight_nodes.lifecycle_manager import LifecycleManager
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import Bool, Float64
from std_srvs.srv import Trigger

from foresight.control.motion import joint_trajectory
from foresight.control.trajectory import sample
from foresight.data import RobotState, Start
from foresight.safety.config import GuardConfig
from foresight.safety.grip import JITTER
from foresight.safety.monitor import MonitorConfig
from foresight.safety.obstacles import TABLE, from_text, to_text
from tests.motions import MIDDLE, minimum_jerk, plan_towards
from tests.ros.conftest import Bench, parameters

CONTROLLER = topics.trajectory("joint_trajectory_controller/joint_trajectory")
FORCE_N = 38.0  # that plans squeeze with, where they command the gripper


def commands(bench: Bench) -> tuple[list, list]:
    """What the controller hears from now on: motions, and apart from them what only brings it to where the arm is."""
    motions, adoptions = [], []
    CONTROLLER.subscription(bench.node, lambda message: (adoptions if len(message.points) == 1 else motions).append(message))
    return motions, adoptions


class Guarded:
    """An active guard with the rest of the world around it: a planner, an arm that stands in the middle, a controller."""

    opening: float | None = 0.5  # of the gripper, as measured

    def __init__(
        self, bench: Bench, profile, kinematics, start: np.ndarray, heard=lambda: None, ready: bool = True, **parameters
    ) -> None:
        """`heard` is called when the guard listens; `ready`: comes back when plans may begin."""
        self.repair = lambda: None
        self.bench, self.profile, self.kinematics, self.q = bench, profile, kinematics, start
        self.node = bench.add(GuardNode, robot="ur5e", **parameters)
        self.states, (self.commands, self.adoptions) = bench.listen(topics.GUARD_STATE), commands(bench)
        bench.beat()
        bench.bring_up(self.node)
        self._joint_states, self._plans = bench.publisher(topics.JOINT_STATES), bench.publisher(topics.PLAN)
        bench.until(lambda: self.node._forward.get_subscription_count() > 0, "the controller is connected")
        bench.until(lambda: self.node._monitor.watchdog.known("heartbeat"), "the heartbeat is heard")
        self.live(0.1)
        heard()
        if ready:
            self.ready()

    def ready(self) -> None:
        """Until nothing holds motion any more, and the controller has been brought to where the arm is."""
        begin_s = time.monotonic()
        while not self.states or self.states[-1].action != GuardState.NONE or not self.adopted():
            assert time.monotonic() < begin_s + 20.0, f"still {self.states[-1].cause}: {self.states[-1].why}"
            self.live(0.1)

    def adopted(self) -> bool:
        """Whether the controller has been brought to where the arm is."""
        return self.states[-1].in_force and convert.seconds(self.states[-1].in_force_until) < self.bench.now_s

    def live(self, duration_s: float) -> None:
        """Lets time pass with an arm that follows its commands."""
        end_s = self.bench.now_s + duration_s
        while self.bench.now_s < end_s - 1e-9:
            self.bench.advance(0.02)
            in_force = self.node._guard.in_force
            self.measure(self.q if in_force is None else sample(in_force, self.bench.now_s)[0])

    def wait(self, duration_s: float) -> None:
        """Lets time pass in which nothing is measured, no faster than a simulation's clock may go."""
        for _ in range(round(duration_s / 0.02)):
            self.bench.advance(0.02)
            time.sleep(0.005)

    def measure(self, q: np.ndarray, names: tuple[str, ...] | None = None, turns: int = 10) -> None:
        self.q = q
        state = RobotState(self.bench.now_s, q, np.zeros(len(q)), self.opening)
        gripper = self.profile.gripper
        self._joint_states.publish(convert.robot_state_to_msg(state, names or self.profile.joint_names, gripper=gripper))
        for _ in range(turns):
            self.bench.executor.spin_once(timeout_sec=0.02)

    def plan(self, **changes) -> PlanMsg:
        """A legal plan that moves the tip sideways, as made just now."""
        now_s = self.bench.now_s
        made = plan_towards(MIDDLE + np.array([0.0, 0.2, 0.0]), MIDDLE, Start(np.zeros(3)), now_s - 0.1)
        motion = joint_trajectory(made, None, RobotState(now_s, self.q, np.zeros(6)), now_s + 0.05, self.kinematics, self.profile)
        message = convert.plan_to_msg(made, motion, self.profile.joint_names, now_s - 0.01, 7, "base_link")
        message.grip_force_n = FORCE_N
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    def offer(self, message: PlanMsg) -> GuardState:
        """The guard's answer to a plan."""
        decided = self.states[-1].accepted + self.states[-1].refused if self.states else 0
        self._plans.publish(message)
        self.bench.until(
            lambda: self.states and self.states[-1].accepted + self.states[-1].refused > decided, "the guard decides"
        )
        return self.states[-1]


@pytest.fixture
def guarded(bench: Bench, profile, kinematics, start) -> Guarded:
    return Guarded(bench, profile, kinematics, start)


def test_a_good_plan_reaches_the_controller_unchanged(guarded: Guarded):
    """It is forwarded as it was offered, behind the arm's rest until then; the guard tells which images it came from."""
    message = guarded.plan()
    state = guarded.offer(message)
    guarded.bench.until(lambda: guarded.commands, "the controller hears")
    sent, offered = (
        convert.trajectory_from_msg(m, guarded.profile.joint_names, 0.0) for m in (guarded.commands[0], message.trajectory)
    )
    now_s = guarded.bench.now_s
    assert sent.times_s[0] == pytest.approx(now_s, abs=1e-6)
    assert sent.q[0] == pytest.approx(guarded.q) and (sent.dq[0] == 0).all()
    assert sent.times_s[1:] == pytest.approx(offered.times_s, abs=1e-8)
    assert all((a[1:] == b).all() for a, b in ((sent.q, offered.q), (sent.dq, offered.dq), (sent.ddq, offered.ddq)))
    assert (state.state, state.reason, state.accepted, state.plan_id) == (GuardState.ACTIVE, "ok", 1, 7)
    assert state.observation_stamp == message.header.stamp and state.trajectory_stamp == guarded.commands[0].header.stamp
    assert state.observation_age_s == pytest.approx(0.1, abs=1e-6) and state.plan_age_s == pytest.approx(0.01, abs=1e-6)
    assert convert.seconds(state.in_force_until) > guarded.bench.now_s and state.in_force


def test_before_the_first_plan_the_controller_is_brought_to_where_the_arm_is(bench: Bench, profile, kinematics, start):
    """Once, as soon as motion is allowed, whatever it holds: its one point lies a second ahead. A plan that would cut that short
    is held, which is no fault of the planner's; a plan after it loses no time."""
    guarded = Guarded(bench, profile, kinematics, start, ready=False)
    guarded.bench.until(lambda: guarded.live(0.02) or guarded.adoptions, "the controller is brought to the arm")
    message, begun_s = guarded.adoptions[0], convert.seconds(guarded.adoptions[0].header.stamp)
    pose = convert.trajectory_from_msg(message, profile.joint_names, 0.0)
    assert pose.times_s == pytest.approx([begun_s + GuardConfig.adopt_s]) and (pose.q == start).all() and (pose.dq == 0).all()
    assert message.points[0].time_from_start.sec == 1 and bench.now_s - begun_s < 0.1
    for _ in range(GuardParameters("ur5e").monitor.refusals_max):
        state = guarded.offer(guarded.plan())
        assert state.reason == "held" and "brought to where the arm is" in state.detail
    assert state.action == GuardState.NONE and state.in_force
    assert convert.seconds(state.in_force_until) == pytest.approx(pose.times_s[0], abs=1e-6)
    guarded.ready()
    assert guarded.offer(guarded.plan()).reason == "ok"
    guarded.live(0.2)
    assert len(guarded.adoptions) == 1 and len(guarded.commands) == 1


def _nan(message: PlanMsg) -> None:
    message.trajectory.points[1].positions[2] = float("nan")


def _reordered(message: PlanMsg) -> None:
    message.trajectory.joint_names = message.trajectory.joint_names[::-1]


def _without_velocity(message: PlanMsg) -> None:
    message.trajectory.points[1].velocities = []


def _old(message: PlanMsg) -> None:
    message.header.stamp = convert.stamp(convert.seconds(message.header.stamp) - 1.0)


def _moving_at_the_end(message: PlanMsg) -> None:
    message.trajectory.points = message.trajectory.points[:3]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_nan, "not_finite"),
        (_reordered, "wrong_joints"),
        (_without_velocity, "malformed"),
        (_old, "stale_observation"),
        (_moving_at_the_end, "not_at_rest"),
    ],
)
def test_a_bad_plan_is_refused_with_its_reason(guarded: Guarded, spoil, reason: str):
    """Nothing reaches the controller."""
    message = guarded.plan()
    spoil(message)
    state = guarded.offer(message)
    assert (state.reason, state.refused, state.accepted) == (reason, 1, 0) and state.detail
    assert guarded.commands == []


def test_a_plan_of_another_model_is_refused(bench: Bench, profile, kinematics, start):
    """A guard told which model to trust names both."""
    state = Guarded(bench, profile, kinematics, start, model_id="other").offer(
        Guarded.plan(_stub(bench, profile, kinematics, start))
    )
    assert state.reason == "wrong_model" and "'toy'" in state.detail and "'other'" in state.detail


@pytest.mark.parametrize(("collision", "reason"), [(True, "keep_out"), (False, "ok")])
def test_a_plan_into_a_keep_out_is_refused(bench: Bench, profile, kinematics, start, collision: bool, reason: str):
    """Keep-out boxes are a parameter; with the check switched off, and no boxes, the same plan passes."""
    boxes = {"keep_outs": [0.40, 0.08, 0.0, 0.54, 0.20, 0.30]} if collision else {}
    guarded = Guarded(bench, profile, kinematics, start, collision=collision, **boxes)
    state = guarded.offer(guarded.plan())
    assert state.reason == reason
    assert ("keep-out 1" in state.detail) == collision


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"keep_outs": [0.1] * 5}, "got 5"),
        ({"collision": False, "keep_outs": [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]}, "collision must be true"),
        ({"transport_s": 0.08}, "command_timeout_s must be at least transport_s"),
    ],
)
def test_what_could_not_be_kept_is_refused(wrong: dict, says: str):
    """Half a box, boxes beside a check switched off, a T_cmd too short for transport: one line stops the start-up."""
    with pytest.raises(ValueError, match=says):
        GuardParameters("ur5e", **wrong)


GRIPPER, KNUCKLE = topics.trajectory("gripper_controller/joint_trajectory"), ("robotiq_85_left_knuckle_joint",)


@pytest.fixture
def gripping(bench: Bench, profile, kinematics, start) -> Guarded:
    """A guard that moves the gripper, and what its controller hears."""
    guarded = Guarded(bench, profile, kinematics, start, gripper=True)
    guarded.grips = bench.listen(GRIPPER)
    bench.until(lambda: guarded.node._grip.get_subscription_count() > 0, "the gripper's controller is connected")
    return guarded


def test_the_grippers_command_goes_with_the_motion_as_far_ahead_of_the_fingers_as_their_force_allows(gripping: Guarded):
    """And on as they close. The same again would loosen what it holds: fingers that are blocked are sent nothing new."""
    assert np.isnan(gripping.states[-1].closed)
    gripping.opening = 0.6
    gripping.measure(gripping.q)
    assert gripping.offer(gripping.plan(closed=1.0)).closed == 1.0
    ahead = FORCE_N / gripping.profile.gripper.stiffness - JITTER
    for opening, before in ((0.6, 0.4), (0.5, 0.4 + ahead)):
        gripping.opening = opening
        gripping.live(0.1)
        command = convert.trajectory_from_msg(gripping.grips[-1], KNUCKLE, 0.0)
        assert command.q.ravel() == pytest.approx([0.8 * before, 0.8 * (1 - opening + ahead)])
        assert np.diff(command.times_s)[0] > GuardParameters.transport_s - 1e-6, "it must not be over when it comes"
    gripping.live(1.5)
    assert gripping.offer(gripping.plan(id=8, closed=1.0)).accepted == 2
    gripping.live(1.5)
    assert len(gripping.grips) == 2 and gripping.offer(gripping.plan(id=9, closed=0.0)).closed == 0.0
    gripping.live(0.1)
    opened = convert.trajectory_from_msg(gripping.grips[-1], KNUCKLE, 0.0)
    assert len(gripping.grips) == 3 and opened.q.ravel() == pytest.approx([0.8 * (0.5 + ahead), 0.0])


def test_simulated_time_that_goes_back_makes_the_grippers_last_command_unknown(gripping: Guarded):
    """Another scene, perhaps, in which it is as it was put."""
    gripping.opening = 0.6
    gripping.measure(gripping.q)
    assert gripping.offer(gripping.plan(closed=1.0)).closed == 1.0
    gripping.bench.turn_back(50.0)
    gripping.bench.until(lambda: gripping.states[-1].cause == "simulator_reset", "the step back is seen")
    assert np.isnan(gripping.states[-1].closed) and gripping.node._guard.gripped is None


def test_a_plan_that_is_refused_leaves_the_gripper(gripping: Guarded):
    """A command that is none refuses the plan, and a good one goes with a motion that passes or not at all."""
    for number, closed in enumerate((float("nan"), float("inf"), -0.01, 1.01)):
        state = gripping.offer(gripping.plan(id=number, closed=closed))
        assert state.reason == "malformed" and "expected a number from 0 (open) to 1 (closed)" in state.detail
    too_hard = gripping.offer(gripping.plan(id=5, closed=1.0, grip_force_n=50.1))
    assert too_hard.reason == "gripper_force" and "up to 50.1 N; expected more than 0 N and at most 50 N" in too_hard.detail
    gripping.opening = float("nan")
    gripping.live(0.02)
    assert gripping.offer(gripping.plan(id=6, closed=1.0)).reason == "bad_state"
    spoiled = gripping.plan(closed=1.0)
    _nan(spoiled)
    assert gripping.offer(spoiled).reason == "not_finite"
    gripping.opening = 0.5
    gripping.live(0.1)
    assert gripping.commands == [] and gripping.grips == [] and np.isnan(gripping.states[-1].closed)


def test_a_joint_state_without_the_grippers_joint_is_none_for_a_guard_that_moves_it(gripping: Guarded):
    """Its force could not be known: what is missing is told, and the arm is as without joint states."""
    gripping.opening = None
    gripping.live(0.2)
    assert gripping.states[-1].action == GuardState.HOLD and gripping.node._monitor.state.opening == 0.5
    assert KNUCKLE[0] in gripping.states[-1].why and gripping.states[-1].cause == "state_invalid"


def test_a_stop_drops_nothing_and_an_arm_put_elsewhere_has_its_gripper_as_it_is(gripping: Guarded):
    """Through stop, reset and a change of the node's state the gripper hears nothing and its command is remembered; after a
    leap nobody knows how it was left, and the same command is sent again."""

    def reset() -> None:
        gripping.live(1.0)
        assert gripping.bench.call(topics.GUARD_RESET, gripping.node, Trigger.Request()).success
        gripping.ready()

    gripping.offer(gripping.plan(closed=1.0))
    gripping.live(0.2)
    assert gripping.bench.call(topics.GUARD_STOP, gripping.node, Trigger.Request()).success
    reset()
    gripping.node.trigger_deactivate()
    gripping.node.trigger_activate()
    gripping.live(0.2)
    assert len(gripping.grips) == 1 and gripping.states[-1].closed == 1.0
    gripping.bench.advance(0.02)
    gripping.measure(gripping.q + 0.4)
    gripping.bench.until(lambda: gripping.states[-1].cause == "state_jumped", "the leap is seen")
    assert np.isnan(gripping.states[-1].closed)
    reset()
    gripping.offer(gripping.plan(closed=1.0))
    gripping.live(0.1)
    assert len(gripping.grips) == 2


def test_a_guard_that_does_not_move_the_gripper_says_so(guarded: Guarded):
    """A plan that commands it is refused with what to do; others pass as ever, and the gripper hears nothing."""
    grips = guarded.bench.listen(GRIPPER)
    state = guarded.offer(guarded.plan(closed=0.0))
    assert state.reason == "malformed" and "gripper:=true" in state.detail
    assert guarded.offer(guarded.plan(id=8)).reason == "ok"
    guarded.live(0.1)
    assert grips == []


def test_collisions_are_looked_for_with_a_gripper_that_moves_where_it_is_moved():
    """The setup's scene tells it to planner and replay; else it is what it always was."""
    assert from_text(GuardParameters("ur5e", gripper=True).scene)[2]
    assert GuardParameters("ur5e").scene == to_text(TABLE, ()) and "gripper" not in GuardParameters("ur5e").scene
    assert GuardParameters("ur5e", gripper=True, collision=False).scene == ""


def test_a_robot_without_a_gripper_joint_has_none_moved(bench: Bench):
    """The guard does not configure, and says which robot lacks what."""
    heard = bench.listen(topics.DIAGNOSTICS)
    node = bench.add(GuardNode, robot="fr3", gripper=True)
    bench.until(lambda: heard, "diagnostics arrive")
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    bench.until(lambda: any("'fr3' has no gripper joint" in s.message for m in heard for s in m.status), "the reason is told")


def _stub(bench: Bench, profile, kinematics, start) -> Guarded:
    """Just what `plan` needs."""
    guarded = object.__new__(Guarded)
    guarded.bench, guarded.profile, guarded.kinematics, guarded.q = bench, profile, kinematics, start
    return guarded


def test_without_a_fresh_joint_state_nothing_passes(guarded: Guarded):
    """A joint state that lacks a joint is none, so the last one grows old, and the arm is held."""
    guarded.wait(0.3)
    q = guarded.q
    guarded.measure(q[:5], guarded.profile.joint_names[:5])
    guarded.q = q
    state = guarded.offer(guarded.plan())
    assert (state.reason, state.action, state.cause) == ("held", GuardState.HOLD, "state_stale") and "old" in state.detail


def test_stop_brakes_and_refuses_until_reset(guarded: Guarded):
    """The stop's trajectory ends at rest; plans are refused until the arm rests and reset is called."""
    guarded.offer(guarded.plan())
    guarded.live(0.2)
    answer = guarded.bench.call(topics.GUARD_STOP, guarded.node, Trigger.Request())
    assert answer.success and "at rest in" in answer.message
    guarded.bench.until(lambda: len(guarded.commands) == 2, "the braking motion is sent")
    assert max(abs(v) for v in guarded.commands[1].points[-1].velocities) < 1e-6
    assert guarded.offer(guarded.plan()).reason == "stopped"
    assert (guarded.states[-1].state, guarded.states[-1].cause) == (GuardState.STOPPED, "operator_stop")
    assert guarded.states[-1].latched and guarded.states[-1].action == GuardState.LATCH

    soon = guarded.bench.call(topics.GUARD_RESET, guarded.node, Trigger.Request())
    assert not soon.success and "possible after 0.5 s" in soon.message
    guarded.live(1.0)
    assert guarded.states[-1].latched and len(guarded.commands) == 2
    assert guarded.bench.call(topics.GUARD_RESET, guarded.node, Trigger.Request()).success
    guarded.ready()
    assert guarded.offer(guarded.plan()).reason == "ok"


def test_a_latch_outlives_deactivation_and_cleanup(guarded: Guarded):
    """Only an operator ends it: the guard comes up again stopped, and says why."""
    guarded.bench.call(topics.GUARD_STOP, guarded.node, Trigger.Request())
    for change in ("deactivate", "cleanup", "configure", "activate"):
        getattr(guarded.node, f"trigger_{change}")()
    guarded.bench.until(lambda: guarded.states[-1].state == GuardState.STOPPED, "the latch is told")
    guarded.bench.until(lambda: guarded.node._forward.get_subscription_count() > 0, "the controller is connected")
    guarded.live(0.6)
    assert guarded.states[-1].latched and guarded.states[-1].cause == "operator_stop"
    assert guarded.offer(guarded.plan()).reason == "stopped"
    assert guarded.bench.call(topics.GUARD_RESET, guarded.node, Trigger.Request()).success
    guarded.ready()
    assert guarded.offer(guarded.plan()).reason == "ok"


def test_after_a_reset_the_next_plan_starts_where_the_arm_is_measured(guarded: Guarded):
    """An arm that was put elsewhere (a new scene) latches the guard without any command; a reset begins where it is now, to
    which the controller is brought first."""
    guarded.offer(guarded.plan())
    guarded.live(0.02)
    refused = guarded.bench.call(topics.GUARD_RESET, guarded.node, Trigger.Request())
    assert not refused.success and "in force for another" in refused.message
    guarded.live(1.5)
    sent = len(guarded.commands)
    guarded.bench.advance(0.02)
    guarded.measure(guarded.q + 0.4)
    guarded.bench.until(lambda: guarded.states[-1].cause == "state_jumped", "the leap is seen")
    assert guarded.states[-1].latched and guarded.offer(guarded.plan()).reason == "stopped"
    for _ in range(30):
        guarded.bench.advance(0.02)
        guarded.measure(guarded.q)
    assert guarded.bench.call(topics.GUARD_RESET, guarded.node, Trigger.Request()).success
    guarded.bench.until(lambda: len(guarded.adoptions) == 2, "the controller is brought to the arm")
    assert len(guarded.commands) == sent and list(guarded.adoptions[1].points[0].positions) == guarded.q.tolist()
    lasts = guarded.adoptions[1].points[0].time_from_start
    assert lasts.sec + 1e-9 * lasts.nanosec == pytest.approx(GuardConfig.adopt_s), "a new scene takes its controller along"
    guarded.ready()
    assert guarded.offer(guarded.plan()).reason == "ok"


def test_a_held_arm_is_relieved(guarded: Guarded):
    """When something keeps the arm from following, the guard sends its command back to where the arm is, without being asked."""
    guarded.offer(guarded.plan())
    guarded.bench.until(lambda: guarded.commands, "the controller hears")
    for _ in range(30):
        guarded.bench.advance(0.02)
        guarded.measure(guarded.q)
        if len(guarded.commands) > 1:
            break
    last = guarded.commands[-1].points[-1]
    assert len(guarded.commands) == 2
    assert np.allclose(last.positions, guarded.q, atol=1e-6) and max(map(abs, last.velocities)) == 0.0
    assert (guarded.states[-1].action, guarded.states[-1].cause) == (GuardState.RETREAT, "obstructed")
    guarded.ready()
    assert len(guarded.commands) == 2 and guarded.offer(guarded.plan()).reason == "ok"


def kept_waiting(monkeypatch, guarded: Guarded, method: str) -> None:
    """The guard's process stands still for 0.1 s, once, while it works; the arm's clock is the wall's."""
    guard, waits = guarded.node._guard, [0.1]
    work = getattr(guard, method)
    monkeypatch.setattr(guard, method, lambda *a, **k: (time.sleep(waits.pop() if waits else 0.0), work(*a, **k))[1])
    monkeypatch.setattr(guarded.node, "_simulated", False)


def test_a_plan_that_took_too_long_to_judge_is_not_sent(guarded: Guarded, monkeypatch):
    """It would reach the controller when it has begun; nothing has changed for the next one, which passes."""
    kept_waiting(monkeypatch, guarded, "offer")
    state = guarded.offer(guarded.plan())
    assert state.reason == "stale_plan" and "needs 0.045 s to have it in time" in state.detail
    assert convert.seconds(state.in_force_until) < guarded.bench.now_s, "it is not in force"
    assert guarded.commands == []
    monkeypatch.setattr(guarded.node, "_simulated", True)
    assert guarded.offer(guarded.plan()).reason == "ok"


def test_a_stop_that_took_too_long_to_make_is_made_anew(guarded: Guarded, monkeypatch):
    """The first, which would have come late, is not sent; the one that is sent begins when it can be there."""
    assert guarded.offer(guarded.plan()).reason == "ok"
    guarded.live(0.3)
    kept_waiting(monkeypatch, guarded, "stopping")
    made = []
    stopping = guarded.node._guard.stopping
    monkeypatch.setattr(guarded.node._guard, "stopping", lambda now_s: made.append(now_s) or stopping(now_s))
    before = len(guarded.commands)
    assert guarded.bench.call(topics.GUARD_STOP, guarded.node, Trigger.Request()).success
    guarded.bench.until(lambda: len(guarded.commands) > before, "the stop is sent")
    assert len(made) == 2 and len(guarded.commands) == before + 1 and guarded.node._remade == 1
    assert made[1] > made[0] + SLACK_S, "it begins as much later as making it took"
    assert guarded.node._guard.stopped and guarded.node._guard.in_force.times_s[-1] < guarded.bench.now_s + 0.4


def test_a_stop_that_always_takes_too_long_to_make_is_never_sent_late(guarded: Guarded, monkeypatch):
    """What is in force goes on, plans are refused, and it is sought at each look until one can be there in time."""
    assert guarded.offer(guarded.plan()).reason == "ok"
    guarded.live(0.2)
    busy, took_s = [0.03], guarded.node._took_s

    def longer(began_s: float) -> float:  # each time
        if busy:
            busy.append(3 * busy[-1])
        return busy[-1] if busy else took_s(began_s)

    monkeypatch.setattr(guarded.node, "_took_s", longer)
    before, in_force = len(guarded.commands), guarded.node._guard.in_force
    assert guarded.bench.call(topics.GUARD_STOP, guarded.node, Trigger.Request()).success
    assert guarded.node._remade >= 4 and len(guarded.commands) == before and guarded.node._guard.in_force is in_force
    assert guarded.states[-1].latched and guarded.offer(guarded.plan()).reason in ("stopped", "held")
    busy.clear()
    guarded.bench.until(lambda: len(guarded.commands) > before, "the stop is sent")
    assert guarded.node._guard.stopped and guarded.node._guard.in_force.times_s[-1] < in_force.times_s[-1]


def test_a_guard_that_is_activated_again_in_motion_knows_what_is_in_force(guarded: Guarded):
    """A stop then brakes from there, and what the controller was told in the meantime is not forgotten."""
    guarded.offer(guarded.plan())
    guarded.live(0.2)
    guarded.node.trigger_deactivate()
    in_force = guarded.node._guard.in_force
    assert in_force.times_s[-1] > guarded.bench.now_s
    guarded.node.trigger_activate()
    assert guarded.node._guard.in_force is in_force


def test_deactivation_brakes(guarded: Guarded):
    """A guard that is switched off while the arm moves first sends it to rest."""
    guarded.offer(guarded.plan())
    guarded.live(0.2)
    guarded.node.trigger_deactivate()
    guarded.bench.until(lambda: len(guarded.commands) == 2, "the braking motion is sent")
    assert max(abs(v) for v in guarded.commands[1].points[-1].velocities) < 1e-6
    guarded.bench.until(lambda: guarded.states[-1].state == GuardState.INACTIVE, "it says that it is inactive")


@pytest.mark.parametrize("word", [None, GraphState(active=False)])
def test_a_graph_that_is_no_longer_active_brakes_and_its_return_lets_go(guarded: Guarded, word: GraphState | None):
    """The manager is silent (nobody would notice a node that dies), or back and not done: the arm is braked and held until all
    is active. A manager that never was done, as without autostart, holds nothing."""
    manager = guarded.bench.publisher(topics.GRAPH_STATE)
    manager.publish(GraphState(active=False))
    guarded.live(0.6)
    assert guarded.states[-1].action == GuardState.NONE
    sent_s = time.monotonic()
    manager.publish(GraphState(active=True))
    guarded.bench.until(lambda: guarded.node._monitor.watchdog.known("graph"), "the guard hears the manager")
    assert guarded.offer(guarded.plan()).reason == "ok"
    guarded.bench.until(lambda: guarded.live(0.01) or len(guarded.commands) == 2, "the arm is braked")
    assert time.monotonic() - sent_s >= MonitorConfig.graph_age_s, "in real time, whatever this bench's clock does"
    assert max(abs(v) for v in guarded.commands[1].points[-1].velocities) < 1e-6
    assert guarded.states[-1].cause == "graph_inactive" and guarded.states[-1].action == GuardState.HOLD
    if word is not None:
        manager.publish(word)
    guarded.live(1.0)
    assert guarded.offer(guarded.plan()).reason == "held"

    def allowed() -> bool:
        manager.publish(GraphState(active=True))
        guarded.live(0.01)
        return guarded.states[-1].action == GuardState.NONE

    guarded.bench.until(allowed, "motion is allowed again")


def test_silence_of_the_heartbeat_brakes_within_its_limit_and_a_tick(guarded: Guarded):
    """A planner whose process no longer beats: the arm is braked, held, and moves again when the beat is back."""
    guarded.offer(guarded.plan())
    guarded.live(0.2)
    guarded.bench.heartbeat.stop()
    silent_s = guarded.bench.now_s
    guarded.bench.until(lambda: guarded.live(0.01) or len(guarded.commands) == 2, "the arm is braked")
    decided_s = convert.seconds(guarded.commands[1].header.stamp)
    over_s = convert.trajectory_from_msg(guarded.commands[0], guarded.profile.joint_names, 0.0).times_s[-1]
    assert min(decided_s + GuardParameters.transport_s, over_s) - silent_s <= 0.1 + 0.03 + 1e-6, (
        "T_cmd, a tick, and steps of this bench's clock"
    )
    assert max(abs(v) for v in guarded.commands[1].points[-1].velocities) < 1e-6
    assert guarded.states[-1].cause == "heartbeat_lost" and guarded.states[-1].heartbeat_silence_s > 0.05
    assert guarded.offer(guarded.plan()).reason == "held"
    guarded.live(1.0)
    assert guarded.states[-1].action == GuardState.HOLD and len(guarded.commands) == 2
    guarded.bench.beat()
    guarded.ready()
    assert guarded.offer(guarded.plan()).reason == "ok"


PLANNER = """
import time, rclpy
from rclpy.node import Node
from foresight_nodes.heartbeat import Heartbeat
rclpy.init(); heartbeat = Heartbeat(Node("planner")); print("beats", flush=True)
while True: time.sleep(1)
"""


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_planner_that_is_killed_or_stopped_in_motion_brakes_the_arm(bench: Bench, spawn, profile, kinematics, start, fault):
    """On the wall clock, with a real process: the braking motion begins T_cmd after its last beat, whatever way it ended."""
    planner = spawn(PLANNER)
    assert planner.stdout.readline().strip() == "beats"
    ages = {"guard__future_max_s": 0.5, "guard__start_ahead_max_s": 0.6}
    guard = bench.adopt(GuardNode(parameter_overrides=parameters(robot="ur5e", **ages)))
    guarded = _stub(bench, profile, kinematics, start)
    guarded.node, guarded.states, (guarded.commands, _) = guard, bench.listen(topics.GUARD_STATE), commands(bench)
    bench.now_s = time.time()
    bench.bring_up(guard)
    guarded._joint_states, guarded._plans = bench.publisher(topics.JOINT_STATES), bench.publisher(topics.PLAN)

    def follows(seconds_s: float, until) -> None:
        end_s = time.time() + seconds_s
        while time.time() < end_s and not until():
            bench.now_s, in_force = time.time(), guard._guard.in_force
            guarded.measure(start if in_force is None else sample(in_force, bench.now_s)[0], turns=3)

    follows(20.0, lambda: guarded.states and guarded.states[-1].action == GuardState.NONE and guarded.adopted())
    bench.now_s = time.time() + 0.4  # time to make the plan and to show the arm again before it begins
    message = guarded.plan()
    bench.now_s = time.time()
    follows(0.05, lambda: False)
    state = guarded.offer(message)
    assert state.reason == "ok", state.detail
    begins_s = convert.seconds(guarded.states[-1].trajectory_stamp)
    follows(20.0, lambda: guarded.commands and time.time() > begins_s + 0.02)
    assert len(guarded.commands) == 1, guarded.states[-1].why
    ended_s = time.time()
    planner.send_signal(fault)
    follows(2.0, lambda: len(guarded.commands) == 2)
    braked_s = convert.seconds(guarded.commands[1].header.stamp)
    assert braked_s - ended_s <= 0.1 + 0.01 + 0.1, "T_cmd, a tick, and a tenth for a machine that does other things"
    assert guarded.states[-1].cause == "heartbeat_lost"
    assert max(abs(v) for v in guarded.commands[1].points[-1].velocities) < 1e-6


def test_while_simulated_time_stands_still_nothing_trips(guarded: Guarded):
    """A paused simulator sends nothing, for any length of real time; when it goes on, so does the arm."""
    guarded.offer(guarded.plan())
    guarded.live(0.2)
    guarded.bench.heartbeat.stop()
    until_s = time.monotonic() + 0.5
    guarded.bench.until(lambda: time.monotonic() > until_s, "half a second of real time passes")
    assert guarded.states[-1].action == GuardState.NONE and len(guarded.commands) == 1
    guarded.bench.beat()
    guarded.bench.until(lambda: guarded.node._monitor.watchdog.age_s("heartbeat", guarded.node._now()) < 0.02, "it beats")
    guarded.live(0.2)
    assert guarded.states[-1].action == GuardState.NONE and len(guarded.commands) == 1


def test_plans_at_10_hz_with_jitter_trip_nothing(guarded: Guarded):
    """Plans, beliefs and observations that come 60 to 140 ms apart leave the failsafe at rest."""
    observations, beliefs = guarded.bench.publisher(topics.OBSERVATION), guarded.bench.publisher(topics.BELIEF)
    begun = len(guarded.states)
    for gap_s in (0.1, 0.06, 0.14, 0.06, 0.14, 0.1, 0.14):
        for publisher, kind in ((observations, Observation), (beliefs, Belief)):
            publisher.publish(kind(header=convert.header(guarded.bench.now_s)))
        guarded.offer(guarded.plan())
        guarded.live(gap_s)
    assert {state.cause for state in guarded.states[begun:]} == {""}


def _freeze_stamps(guarded: Guarded) -> None:
    stamp_s = guarded.bench.now_s
    for _ in range(8):
        guarded.bench.advance(0.02)
        now_s, guarded.bench.now_s = guarded.bench.now_s, stamp_s
        guarded.measure(guarded.q)
        guarded.bench.now_s = now_s


def _nan_states(guarded: Guarded) -> None:
    q = guarded.q
    for _ in range(4):
        guarded.bench.advance(0.02)
        guarded.measure(np.full(6, np.nan))
    guarded.q = q


def _silent(topic: topics.Topic, kind):
    def fall_silent(guarded: Guarded) -> None:
        guarded.bench.publisher(topic).publish(kind(header=convert.header(guarded.bench.now_s)))
        guarded.live(0.24)

    return fall_silent


def _perception_says(refusal: str):
    def say(guarded: Guarded) -> None:
        status = DiagnosticStatus(name="/perception", message="As said.", values=[KeyValue(key="refusal", value=refusal)])
        publisher = guarded.bench.publisher(topics.DIAGNOSTICS)
        publisher.publish(DiagnosticArray(status=[status]))
        guarded.repair = lambda: publisher.publish(
            DiagnosticArray(status=[DiagnosticStatus(name="/perception", values=[KeyValue(key="refusal", value="")])])
        )

    return say


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (lambda guarded: guarded.wait(0.14), "state_stale"),
        (_nan_states, "state_invalid"),
        (_freeze_stamps, "state_stamps_frozen"),
        (_silent(topics.OBSERVATION, Observation), "observation_stale"),
        (_silent(topics.BELIEF, Belief), "belief_stale"),
        (_perception_says("frozen_stamp"), "camera_stamps_frozen"),
        (_perception_says("frozen_camera"), "camera_frozen"),
        (_perception_says("dark_camera"), "camera_dark"),
    ],
)
def test_what_cannot_be_trusted_brakes_the_arm_until_it_can(bench: Bench, profile, kinematics, start, trouble, cause: str):
    """Each watchdog trips under its own name, the arm is commanded to rest, plans are held; it goes on by itself afterwards."""
    ages = {"monitor__observation_age_s": 0.2, "monitor__belief_age_s": 0.2}  # shorter than the motion
    guarded = Guarded(bench, profile, kinematics, start, **ages)
    guarded.offer(guarded.plan())
    guarded.live(0.1)
    trouble(guarded)
    guarded.bench.until(lambda: any(s.cause == cause for s in guarded.states), f"{cause} is seen", advance_s=0.01)
    guarded.bench.until(lambda: len(guarded.commands) == 2, "the braking motion is sent")
    assert max(abs(v) for v in guarded.commands[1].points[-1].velocities) < 1e-6
    assert guarded.offer(guarded.plan()).reason == "held"
    guarded.repair()
    guarded.live(1.0)
    guarded.ready()
    assert len(guarded.commands) == 2 and guarded.offer(guarded.plan()).reason == "ok"


def test_a_latch_out_of_sight_brakes_the_arm_when_it_is_seen_again(guarded: Guarded):
    """One joint state that leaps latches in the midst of a long motion; the next good one lets the arm be braked."""
    plan, way = guarded.plan(), np.array([0.6, 0, 0, 0, 0, 0])
    long = minimum_jerk(guarded.q, way, start_s=guarded.bench.now_s + 0.05, duration_s=4.0, points=40)
    plan.trajectory = convert.trajectory_to_msg(long, guarded.profile.joint_names)
    assert guarded.offer(plan).reason == "ok"
    guarded.live(1.5)
    seen, sent = guarded.q, len(guarded.commands)
    guarded.bench.advance(0.01)
    guarded.measure(seen + np.eye(6)[5])
    guarded.bench.until(lambda: guarded.states[-1].latched, "the leap latches")
    guarded.q = seen
    guarded.live(0.3)
    assert len(guarded.commands) == sent + 1
    guarded.live(0.3)
    assert np.abs(sample(guarded.node._guard.in_force, guarded.bench.now_s)[1]).max() == 0.0


def test_a_reset_is_refused_within_the_cool_down_and_while_its_cause_stands(bench: Bench, profile, kinematics, start):
    """It says which of the two it is, and nothing changes; once the camera sees again a reset is granted."""
    guarded = Guarded(bench, profile, kinematics, start, failsafe__raised=["camera_dark=latch"])

    def reset() -> Trigger.Response:
        return bench.call(topics.GUARD_RESET, guarded.node, Trigger.Request())

    guarded.offer(guarded.plan())
    guarded.live(0.1)
    _perception_says("dark_camera")(guarded)
    bench.until(lambda: guarded.states[-1].latched, "the dark camera latches")
    soon = reset()
    assert not soon.success and "possible after 0.5 s" in soon.message
    guarded.live(1.0)
    standing = reset()
    assert not standing.success and "The cause still stands: camera_dark" in standing.message
    assert guarded.states[-1].latched and guarded.offer(guarded.plan()).reason == "stopped"
    guarded.repair()
    bench.until(lambda: reset().success, "a reset is granted")
    guarded.ready()
    assert guarded.offer(guarded.plan()).reason == "ok"


@pytest.mark.parametrize(
    ("parameter", "topic", "good", "bad", "unheard", "cause"),
    [
        ("controller_active_topic", topics.controller_active, Bool(data=True), Bool(data=False), *("controller_inactive",) * 2),
        ("program_running_topic", topics.program_running, Bool(data=True), Bool(data=False), *("program_stopped",) * 2),
        ("speed_scaling_topic", topics.speed_scaling, Float64(data=100.0), Float64(data=0.0), *("speed_slider_zero",) * 2),
        ("speed_scaling_topic", topics.speed_scaling, Float64(data=100.0), Float64(data=50.0), "speed_slider_zero",
         "speed_scaled"),
    ],
)
def test_a_fault_of_the_driver_stops_and_the_next_plan_starts_where_the_arm_is(
    bench: Bench, profile, kinematics, start, parameter: str, topic, good, bad, unheard: str, cause: str
):
    """No word yet counts as a fault. In motion the arm is braked; afterwards nothing is in force, so nothing old goes on."""
    driver = topic("driver_says").publisher(bench.node)
    guarded = Guarded(bench, profile, kinematics, start, lambda: driver.publish(good), **{parameter: "driver_says"})
    assert unheard in {state.cause for state in guarded.states}
    guarded.offer(guarded.plan())
    guarded.live(0.1)
    driver.publish(bad)
    guarded.bench.until(lambda: guarded.states[-1].cause == cause, "the fault is seen")
    guarded.bench.until(lambda: len(guarded.commands) == 2, "the braking motion is sent")
    assert guarded.states[-1].action == GuardState.STOP
    assert guarded.offer(guarded.plan()).reason == "held"
    guarded.live(1.0)
    assert guarded.states[-1].action == GuardState.STOP and not guarded.states[-1].in_force
    driver.publish(good)
    guarded.ready()
    assert len(guarded.commands) == 2 and guarded.offer(guarded.plan()).reason == "ok"


@pytest.mark.parametrize(("waits", "read"), [(0, 1), (1, 2), (9, 3)])
def test_a_wait_between_reading_two_clocks_is_no_jump(guarded: Guarded, monkeypatch, waits: int, read: int):
    """They are read again; a process that is kept waiting each time takes the last pair."""
    asked = []

    def now_s() -> float:
        asked.append(time.monotonic())
        time.sleep(0.02 if len(asked) <= waits else 0.0)
        return 7.0

    monkeypatch.setattr(guarded.node, "now_s", now_s)
    steady_s, clock_s = guarded.node._clocks()
    assert len(asked) == read and clock_s == 7.0 and 0 <= asked[-1] - steady_s < 0.02
    monkeypatch.undo()


def test_simulated_time_that_goes_back_stops(guarded: Guarded):
    """The motion in force goes on in the new time until the arm is measured there and braked; then the line starts afresh."""
    guarded.offer(guarded.plan())
    guarded.live(0.1)
    guarded.bench.turn_back(50.0)
    guarded.bench.until(lambda: "simulator_reset" in [state.cause for state in guarded.states], "the step back is seen")
    assert guarded.states[-1].action == GuardState.STOP and len(guarded.commands) == 1
    guarded.live(0.06)
    guarded.bench.until(lambda: len(guarded.commands) == 2, "the braking motion is sent")
    assert convert.seconds(guarded.commands[1].header.stamp) == pytest.approx(guarded.bench.now_s, abs=0.1)
    guarded.live(1.5)
    guarded.ready()
    assert len(guarded.commands) == 2 and guarded.offer(guarded.plan()).reason == "ok"


def test_configure_names_the_missing_robot(bench: Bench):
    """A guard without a robot refuses, and says in the diagnostics what is missing."""
    heard = bench.listen(topics.DIAGNOSTICS)
    node = bench.add(GuardNode)
    bench.until(lambda: heard, "diagnostics arrive")
    assert node.trigger_configure().name == "FAILURE"
    bench.until(lambda: any("Missing parameter robot" in s.message for m in heard for s in m.status), "the reason is told")


@pytest.fixture
def spawn():
    """Starts python code in a process that does not outlive the test."""
    processes: list[subprocess.Popen] = []

    def start_process(code: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-c", code, *arguments]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ))
        return processes[-1]

    yield start_process
    for process in processes:
        process.kill()
        process.communicate()


def test_the_guards_process_has_no_torch_and_ends_cleanly(spawn):
    """torch is not loaded in the guard's process; Ctrl-C ends it with one line and exit code 0."""
    code = (
        "import sys, threading, time\n"
        "from foresight_nodes import run\n"
        "def tell():\n"
        "    while 'foresight_nodes.guard_node' not in sys.modules or not __import__('rclpy').ok(): time.sleep(0.05)\n"
        "    time.sleep(0.5); print('torch' in sys.modules, flush=True)\n"
        "threading.Thread(target=tell, daemon=True).start()\n"
        "run.guard()\n"
    )
    process = spawn(code)
    assert process.stdout.readline().strip() == "False"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and "ended by SIGINT" in output and "Traceback" not in errors


def test_a_guard_that_is_told_to_end_first_brings_the_arm_to_rest(bench: Bench, spawn, profile, kinematics, start):
    """SIGTERM while the arm moves: the braking motion is sent, then the process ends with code 0. On the wall clock."""
    generous = {
        "state_age_max_s": 9.0,
        "history_s": 9.5,
        "plan_age_max_s": 9.0,
        "observation_age_max_s": 9.0,
        "start_ahead_max_s": 9.0,
        "future_max_s": 9.0,
    }
    arguments = [
        "--ros-args",
        "-p",
        "robot:=ur5e",
        *(word for name, value in generous.items() for word in ("-p", f"guard.{name}:={value}")),
    ]
    process = spawn("from foresight_nodes import run; run.guard()", *arguments)
    manager = bench.adopt(LifecycleManager(parameter_overrides=parameters(node_names=["guard"])))
    bench.until(lambda: manager.up, "the guard is active")
    bench.beat()
    guarded = _stub(bench, profile, kinematics, start)
    guarded.states, (guarded.commands, _) = bench.listen(topics.GUARD_STATE), commands(bench)
    guarded._joint_states, guarded._plans = bench.publisher(topics.JOINT_STATES), bench.publisher(topics.PLAN)
    bench.until(lambda: guarded.states, "the guard's state arrives")
    bench.now_s = time.time()
    guarded.measure(start)
    bench.until(lambda: guarded.states[-1].action == GuardState.NONE, "nothing holds motion")
    bench.until(lambda: guarded.states[-1].in_force, "the controller is brought to the arm")
    bench.now_s = convert.seconds(guarded.states[-1].in_force_until) + 1.0  # time for the guard to decide
    state = guarded.offer(guarded.plan())
    assert state.reason == "ok", state.detail
    bench.until(
        lambda: guarded.commands and time.time() > convert.seconds(guarded.commands[0].header.stamp) + 0.15, "the arm moves"
    )
    process.send_signal(signal.SIGTERM)
    bench.until(lambda: len(guarded.commands) == 2, "the braking motion is sent")
    assert max(abs(v) for v in guarded.commands[1].points[-1].velocities) < 1e-6
    assert "ended by SIGTERM" in process.communicate(timeout=20)[0] and process.returncode == 0


def test_a_guard_that_was_cleaned_up_hears_nothing(bench: Bench):
    """Diagnostics and a clock that jumps, while there is no guard, end nothing."""
    node = bench.add(GuardNode, robot="ur5e")
    node._on_diagnostics(DiagnosticArray(status=[DiagnosticStatus(name="/perception", level=DiagnosticStatus.WARN)]))
    bench.bring_up(node)
    node.trigger_deactivate()
    node.trigger_cleanup()
    bench.advance(-5.0)
    node._now()
    node._on_diagnostics(DiagnosticArray(status=[DiagnosticStatus(name="/perception", level=DiagnosticStatus.WARN)]))
    assert node._guard is None and node._clock_watch is not None


@pytest.mark.parametrize("simulated", [False, True])
def test_what_is_not_watched_of_a_real_arms_driver_is_a_warning(bench: Bench, monkeypatch, simulated: bool):
    """Once, by name of what is missing; in simulated time there is no driver to miss."""
    given = parameters(robot="ur5e", program_running_topic="/p", use_sim_time=simulated)
    node, said = bench.adopt(GuardNode(parameter_overrides=given)), []
    monkeypatch.setattr(type(node.get_logger()), "warning", lambda self, text, **options: said.append((text, options)))
    bench.configure(node)
    told = "Not watched, for want of a topic: its speed slider (speed_scaling_topic), that its controller is active"
    found = [options for text, options in said if text.startswith(told)]
    assert found == ([] if simulated else [{"once": True}])
