"""The guard as a ROS node: forwards what passes, refuses the rest with a reason, stops, and always leaves the arm at rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from foresight_msgs.msg import GuardState
from foresight_msgs.msg import Plan as PlanMsg
from foresight_nodes import convert, topics
from foresight_nodes.guard_node import GuardNode
from foresight_nodes.lifecycle_manager import LifecycleManager
from std_srvs.srv import Trigger

from foresight.control.motion import joint_trajectory
from foresight.data import RobotState, Start
from tests.motions import MIDDLE, plan_towards
from tests.ros.conftest import Bench, parameters

CONTROLLER = topics.trajectory("joint_trajectory_controller/joint_trajectory")


class Guarded:
    """An active guard with the rest of the world around it: a planner, an arm that stands in the middle, a controller."""

    def __init__(self, bench: Bench, profile, kinematics, start: np.ndarray, **parameters) -> None:
        self.bench, self.profile, self.kinematics, self.q = bench, profile, kinematics, start
        self.node = bench.add(GuardNode, robot="ur5e", **parameters)
        self.states, self.commands = bench.listen(topics.GUARD_STATE), bench.listen(CONTROLLER)
        bench.bring_up(self.node)
        self._joint_states, self._plans = bench.publisher(topics.JOINT_STATES), bench.publisher(topics.PLAN)
        bench.until(lambda: self.node._forward.get_subscription_count() > 0, "the controller is connected")
        self.measure(self.q)

    def measure(self, q: np.ndarray, names: tuple[str, ...] | None = None) -> None:
        state = RobotState(self.bench.now_s, q, np.zeros(len(q)))
        self._joint_states.publish(convert.robot_state_to_msg(state, names or self.profile.joint_names))
        for _ in range(10):
            self.bench.executor.spin_once(timeout_sec=0.02)

    def plan(self, **changes) -> PlanMsg:
        """A legal plan that moves the tip sideways, as made just now."""
        now_s = self.bench.now_s
        made = plan_towards(MIDDLE + np.array([0.0, 0.2, 0.0]), MIDDLE, Start(np.zeros(3)), now_s - 0.1)
        motion = joint_trajectory(made, None, RobotState(now_s, self.q, np.zeros(6)), now_s + 0.05, self.kinematics, self.profile)
        message = convert.plan_to_msg(made, motion, self.profile.joint_names, now_s - 0.01, 7, "base_link")
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
    """The trajectory is forwarded as it was offered, and the guard's state tells which images it came from."""
    message = guarded.plan()
    state = guarded.offer(message)
    guarded.bench.until(lambda: guarded.commands, "the controller hears")
    assert guarded.commands[0] == message.trajectory
    assert (state.state, state.reason, state.accepted, state.plan_id) == (GuardState.ACTIVE, "ok", 1, 7)
    assert state.observation_stamp == message.header.stamp and state.trajectory_stamp == message.trajectory.header.stamp
    assert state.observation_age_s == pytest.approx(0.1, abs=1e-6) and state.plan_age_s == pytest.approx(0.01, abs=1e-6)
    assert convert.seconds(state.in_force_until) > guarded.bench.now_s and state.in_force


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


def _stub(bench: Bench, profile, kinematics, start) -> Guarded:
    """Just what `plan` needs."""
    guarded = object.__new__(Guarded)
    guarded.bench, guarded.profile, guarded.kinematics, guarded.q = bench, profile, kinematics, start
    return guarded


def test_without_a_fresh_joint_state_nothing_passes(guarded: Guarded):
    """A joint state that lacks a joint is none, so the last one grows old."""
    guarded.bench.advance(0.3, step_s=0.1)
    guarded.measure(guarded.q[:5], guarded.profile.joint_names[:5])
    assert guarded.offer(guarded.plan()).reason == "stale_state"


def test_stop_brakes_and_refuses_until_reset(guarded: Guarded):
    """The stop's trajectory ends at rest; plans are refused until the arm rests and reset is called."""
    guarded.offer(guarded.plan())
    guarded.bench.advance(0.2, step_s=0.1)
    answer = guarded.bench.call(topics.GUARD_STOP, guarded.node, Trigger.Request())
    assert answer.success and "at rest in" in answer.message
    guarded.bench.until(lambda: len(guarded.commands) == 2, "the braking motion is sent")
    assert max(abs(v) for v in guarded.commands[1].points[-1].velocities) < 1e-6
    assert guarded.offer(guarded.plan()).reason == "stopped"
    assert guarded.states[-1].state == GuardState.STOPPED

    guarded.bench.advance(1.5, step_s=0.1)
    rest = np.array(guarded.commands[1].points[-1].positions)
    guarded.measure(rest)
    assert guarded.bench.call(topics.GUARD_RESET, guarded.node, Trigger.Request()).success
    guarded.q = rest
    guarded.measure(rest)
    assert guarded.offer(guarded.plan()).reason == "ok"


def test_after_a_reset_the_next_plan_starts_where_the_arm_is_measured(guarded: Guarded):
    """Also without a stop: an arm that was put elsewhere (a new scene) is not held to its last command, once that has ended."""
    guarded.offer(guarded.plan())
    guarded.measure(guarded.q)
    refused = guarded.bench.call(topics.GUARD_RESET, guarded.node, Trigger.Request())
    assert not refused.success and "in force for another" in refused.message
    guarded.bench.advance(1.5, step_s=0.1)
    guarded.q = guarded.q + 0.3
    guarded.measure(guarded.q)
    assert guarded.offer(guarded.plan()).reason == "bad_state"
    assert guarded.bench.call(topics.GUARD_RESET, guarded.node, Trigger.Request()).success
    guarded.bench.until(lambda: not guarded.states[-1].in_force, "the guard says that nothing is in force")
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


def test_deactivation_brakes(guarded: Guarded):
    """A guard that is switched off while the arm moves first sends it to rest."""
    guarded.offer(guarded.plan())
    guarded.bench.advance(0.2, step_s=0.1)
    guarded.node.trigger_deactivate()
    guarded.bench.until(lambda: len(guarded.commands) == 2, "the braking motion is sent")
    assert max(abs(v) for v in guarded.commands[1].points[-1].velocities) < 1e-6
    guarded.bench.until(lambda: guarded.states[-1].state == GuardState.INACTIVE, "it says that it is inactive")


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
    guarded = _stub(bench, profile, kinematics, start)
    guarded.states, guarded.commands = bench.listen(topics.GUARD_STATE), bench.listen(CONTROLLER)
    guarded._joint_states, guarded._plans = bench.publisher(topics.JOINT_STATES), bench.publisher(topics.PLAN)
    bench.until(lambda: guarded.states, "the guard's state arrives")
    bench.now_s = time.time()
    guarded.measure(start)
    bench.now_s = time.time() + 1.0  # time for the guard to decide before the motion begins
    state = guarded.offer(guarded.plan())
    assert state.reason == "ok", state.detail
    bench.until(
        lambda: guarded.commands and time.time() > convert.seconds(guarded.commands[0].header.stamp) + 0.15, "the arm moves"
    )
    process.send_signal(signal.SIGTERM)
    bench.until(lambda: len(guarded.commands) == 2, "the braking motion is sent")
    assert max(abs(v) for v in guarded.commands[1].points[-1].velocities) < 1e-6
    assert "ended by SIGTERM" in process.communicate(timeout=20)[0] and process.returncode == 0
