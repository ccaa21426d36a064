"""The guard commands no controller that starts each trajectory where the arm is measured."""

from __future__ import annotations

import numpy as np
import pytest
from foresight_nodes.controller_check import FROM_COMMAND, PATIENCE_S
from foresight_nodes.guard_node import GuardNode
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node

from tests.ros.conftest import Bench, parameters
from tests.ros.test_guard_node import Guarded

NAME = "joint_trajectory_controller"
NEW, OLD = FROM_COMMAND


def controller(bench: Bench, **values: bool) -> Node:
    """A controller's node with just these parameters."""
    node = bench.adopt(Node(NAME, parameter_overrides=parameters(use_sim_time=True)))
    node.now_s = lambda: node.get_clock().now().nanoseconds * 1e-9
    for name, value in values.items():
        node.declare_parameter(name, value)
    return node


def activate(bench: Bench, node: GuardNode) -> TransitionCallbackReturn:
    """As the lifecycle manager: again while it waits for the controller's answer."""
    result = []
    bench.until(
        lambda: result.append(node.trigger_activate()) or "not answered yet" not in str(node._complaint and node._complaint.text),
        "the guard has decided",
        advance_s=0.02,
    )
    return result[-1]


@pytest.mark.parametrize("said", [{NEW: True}, {OLD: True}, {NEW: True, OLD: False}, {NEW: False, OLD: True}])
def test_a_controller_that_starts_from_its_own_command_is_commanded(bench: Bench, said: dict[str, bool]):
    """By either name, and whether or not it knows the other; the diagnostics say so."""
    controller(bench, **said)
    node = bench.add(GuardNode, robot="ur5e", controller_node="auto")
    bench.configure(node)
    assert activate(bench, node) is TransitionCallbackReturn.SUCCESS
    assert node.report()["controller"] == f"{NAME} starts trajectories from its own command"


@pytest.mark.parametrize("said", [{NEW: False}, {OLD: False}, {NEW: False, OLD: False}, {}])
def test_a_controller_that_starts_from_the_measured_state_is_refused(bench: Bench, said: dict[str, bool]):
    """With what was found, what is expected and what to do. Started again with the parameter, it is taken."""
    node = bench.add(GuardNode, robot="ur5e", controller_topic=f"/{NAME}/joint_trajectory", controller_node="auto")
    wrong = controller(bench, **said)
    bench.configure(node)
    assert activate(bench, node) is TransitionCallbackReturn.FAILURE
    told = node._complaint.text
    assert f"'/{NAME}' starts each trajectory where the arm is measured" in told and f"Set {NEW} to true" in told
    assert all(f"{name} is {str(said[name]).lower() if name in said else 'unknown'}" in told for name in FROM_COMMAND)
    bench.kill(wrong)
    controller(bench, **{NEW: True})
    bench.until(lambda: not node._controller.wrong, "the controller is asked again", advance_s=0.02)
    assert activate(bench, node) is TransitionCallbackReturn.SUCCESS


def test_where_no_controller_answers_the_guard_says_so_and_goes_on(bench: Bench, capfd):
    """After a moment in which one that is there would have answered: in simulation there is none."""
    node = bench.add(GuardNode, robot="ur5e", controller_node="somebody")
    bench.configure(node)
    assert node.trigger_activate() is TransitionCallbackReturn.FAILURE and PATIENCE_S > 0.5
    assert activate(bench, node) is TransitionCallbackReturn.SUCCESS
    assert "Nobody answers for controller 'somebody'" in capfd.readouterr().err
    assert node.report()["controller"] == "somebody has not answered"
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert list(node.clients) == []


def test_one_that_answers_late_stops_the_arm(bench: Bench, profile, kinematics, start: np.ndarray):
    """A controller that is started after the guard: nothing passes any more, and the reason is told."""
    guarded = Guarded(bench, profile, kinematics, start, controller_node=NAME)
    assert guarded.states[-1].cause == ""
    controller(bench, **{NEW: False})
    bench.until(lambda: guarded.live(0.02) or guarded.states[-1].cause == "controller_inactive", "the answer is heard")
    assert "starts each trajectory where the arm is measured" in guarded.states[-1].why
    assert guarded.offer(guarded.plan()).reason == "held"


def test_a_guard_that_asks_nobody_says_so(bench: Bench):
    """As where the launch file was told so."""
    node = bench.add(GuardNode, robot="ur5e")
    bench.configure(node)
    assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
    assert node.report()["controller"] == "not asked where it starts trajectories from"
