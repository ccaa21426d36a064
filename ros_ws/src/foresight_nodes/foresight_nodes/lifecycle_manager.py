"""Brings the nodes up in order (configure all, then activate one by one), watches that they live, and takes them down in reverse.

A node that refuses says why in `/diagnostics`; the manager repeats that and gives up, with nothing left half active. Nodes send
diagnostics every second in any state: one that falls silent is taken for dead, and the others are deactivated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client
from rclpy.clock import Clock, ClockType
from std_srvs.srv import Trigger

from foresight_nodes import topics
from foresight_nodes.clock import PossibleClock
from foresight_nodes.parameters import declare, read

RETRY_S = 2.0  # [s] real time without an answer after which a node is asked again


@dataclass(frozen=True)
class ManagerParameters:
    """Parameters of the lifecycle manager."""

    node_names: tuple[str, ...] = ("guard", "sim", "perception", "world_model", "planner")  # in the order of activation
    autostart: bool = True  # bring the nodes up at once
    bond_timeout_s: float = 5.0  # [s] real time without diagnostics after which a node counts as dead
    configure_timeout_s: float = 90.0  # [s] real time for all nodes to appear and configure
    activate_timeout_s: float = 15.0  # [s] real time for a node to activate, since it may wait for the first messages
    exit_on_failure: bool = True  # end the process with code 1 when the graph cannot come up or a node dies


@dataclass
class Managed:
    """One node: its services, what it is to become, and when it was last heard of."""

    name: str
    change: Client
    state: Client
    heard_s: float
    active: bool = False
    refusal: str = ""
    refused_s: float = 0.0  # steady clock


class LifecycleManager(PossibleClock):
    """Works in small steps from a timer, so that the process answers signals and services at any time."""

    def __init__(self, **options) -> None:
        super().__init__("lifecycle_manager", **options)
        declare(self, ManagerParameters)
        self.parameters = read(self, ManagerParameters)
        self.failure, self.up = "", False
        self.exit_code: int | None = None  # set when the process should end
        now_s = time.monotonic()
        self._managed = {
            self._full_name(name): Managed(
                name,
                self.create_client(ChangeState, f"{name}/change_state"),
                self.create_client(GetState, f"{name}/get_state"),
                now_s,
            )
            for name in self.parameters.node_names
        }
        topics.DIAGNOSTICS.subscription(self, self._on_diagnostics)
        topics.IS_ACTIVE.service(self, self._on_is_active)
        self._steps = self._bring_up() if self.parameters.autostart else iter(())
        self.create_timer(0.02, self._step, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _full_name(self, name: str) -> str:
        return f"{self.get_namespace().rstrip('/')}/{name}"

    # -- steps: generators that yield while they wait -----------------------------------------------------------------

    def _step(self) -> None:
        try:
            next(self._steps)
        except StopIteration:
            self._watch()
        except Failure as failure:
            self._fail(str(failure))

    def _bring_up(self):
        deadline_s = time.monotonic() + self.parameters.configure_timeout_s
        managed = list(self._managed.values())
        for node in managed:
            while not (node.change.service_is_ready() and node.state.service_is_ready()):
                if time.monotonic() > deadline_s:
                    raise Failure(
                        f"Node '{node.name}' did not appear within {self.parameters.configure_timeout_s:.0f} s. "
                        "Is its process running?"
                    )
                yield
        yield from self._together([self._configure(node, deadline_s) for node in managed])
        for node in managed:
            yield from self._activate(node)
        self.up = True
        self.get_logger().info(f"Active: {', '.join(node.name for node in managed)}.")

    def _configure(self, node: Managed, deadline_s: float):
        """From any state, since a manager that was restarted finds nodes as they were."""
        state = yield from self._state(node, deadline_s)
        if state == State.PRIMARY_STATE_ACTIVE:
            yield from self._change(node, Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE, deadline_s)
        if state in (State.PRIMARY_STATE_ACTIVE, State.PRIMARY_STATE_INACTIVE):
            yield from self._change(node, Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED, deadline_s)
        done = yield from self._change(node, Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE, deadline_s)
        if not done:
            raise Failure((yield from self._reason(node, "configure")))

    def _activate(self, node: Managed):
        """Tries again while the node refuses, since its first messages may be on their way."""
        deadline_s = time.monotonic() + self.parameters.activate_timeout_s
        while True:
            node.active = yield from self._change(
                node, Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE, deadline_s + RETRY_S
            )
            if node.active:
                return
            if time.monotonic() > deadline_s:
                raise Failure((yield from self._reason(node, "activate")))
            yield from self._pause(0.2)

    def _change(self, node: Managed, transition: int, goal: int, deadline_s: float):
        """Whether the node made the transition. An answer may get lost; then its state tells, or it is asked again."""
        request = ChangeState.Request()
        request.transition.id = transition
        while True:
            call, asked_s = node.change.call_async(request), time.monotonic()
            while not call.done() and time.monotonic() < asked_s + RETRY_S:
                yield
            if not call.done():
                state = yield from self._state(node, deadline_s)
                if state == goal:
                    return True
            if call.done():
                return call.result().success

    def _state(self, node: Managed, deadline_s: float):
        """The node's lifecycle state; waits while the node is busy."""
        while True:
            call, asked_s = node.state.call_async(GetState.Request()), time.monotonic()
            while not call.done() and time.monotonic() < asked_s + RETRY_S:
                if time.monotonic() > deadline_s:
                    raise Failure(f"Node '{node.name}' does not answer. See its log.")
                yield
            if call.done():
                return call.result().current_state.id

    def _together(self, steps: list):
        """Takes turns until all have finished."""
        while steps:
            for step in list(steps):
                try:
                    next(step)
                except StopIteration:
                    steps.remove(step)
            yield

    def _pause(self, duration_s: float):
        until_s = time.monotonic() + duration_s
        while time.monotonic() < until_s:
            yield

    def _reason(self, node: Managed, verb: str):
        """The node's own words, which may arrive after its answer."""
        until_s = time.monotonic() + 1.0
        while time.monotonic() < until_s and time.monotonic() - node.refused_s > 2.0:
            yield
        words = node.refusal if time.monotonic() - node.refused_s < 5.0 else f"Cannot {verb}; see its log."
        return f"Node '{node.name}': {words}"

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        now_s = time.monotonic()
        for node in self._managed.values():
            if node.active and now_s - node.heard_s > self.parameters.bond_timeout_s:
                self._fail(f"Node '{node.name}' has been silent for {now_s - node.heard_s:.1f} s; the graph is taken down.")
                return

    def _fail(self, reason: str) -> None:
        self.failure, self.up = reason, False
        self.get_logger().error(reason)
        self._steps = self._take_down()

    def _take_down(self):
        """Deactivates what is active, last first; a node that does not answer is left alone."""
        for node in reversed(list(self._managed.values())):
            if not node.active:
                continue
            node.active = False
            if not node.change.service_is_ready():
                continue
            try:
                yield from self._change(
                    node, Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE, time.monotonic() + 2.0
                )
            except Failure as failure:
                self.get_logger().info(f"{failure} It may have ended already.")
        if self.failure and self.parameters.exit_on_failure:
            self.exit_code = 1

    def stop(self) -> None:
        """Takes the graph down before the process ends."""
        executor = self.executor
        for _ in self._take_down():
            if executor is None or not rclpy.ok():
                return
            executor.spin_once(timeout_sec=0.02)

    def release(self) -> None:
        """Holds nothing beyond its node."""

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            node = self._managed.get(status.name)
            if node is not None:
                node.heard_s = time.monotonic()
                if status.level == DiagnosticStatus.ERROR:
                    node.refusal, node.refused_s = status.message, time.monotonic()

    def _on_is_active(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self.up
        response.message = "All nodes are active." if self.up else self.failure or "The nodes are not up yet."
        return response


class Failure(RuntimeError):
    """The graph cannot come up; the message says which node and why."""
