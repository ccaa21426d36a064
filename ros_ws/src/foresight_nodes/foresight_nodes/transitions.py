"""Asks lifecycle nodes for their state and for transitions, in steps that never block. Decides nothing about the graph.

Each question is a generator that yields while it waits, so that one timer can serve many of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client
from rclpy.node import Node

RETRY_S = 1.0  # [s] real time without an answer to a transition after which the node's state is looked at
ASK_AGAIN_S = 0.5  # [s] real time without an answer about its state after which a node is asked again

Steps = Generator[None, None, None]


class Failure(RuntimeError):
    """The graph cannot come up; the message says which node and why."""


@dataclass
class Managed:
    """One node: its services, what the manager believes of it, and the node's own last words."""

    name: str
    full_name: str
    change_client: Client
    state_client: Client
    stale: bool = True  # to be configured anew, whatever state it is in
    engaged: bool = False  # the manager talks with it, or relies on it; false from a break until it is prepared again
    prepared: bool = False  # configured, since it last started or became stale
    active: bool = False  # active, or on the way there
    active_s: float = math.inf  # since when it is [s, steady clock]; from then on it is expected to serve messages
    refusal: str = ""
    refused_s: float = 0.0  # steady clock

    @staticmethod
    def of(node: Node, name: str) -> Managed:
        full_name = f"{node.get_namespace().rstrip('/')}/{name}"
        change = node.create_client(ChangeState, f"{name}/change_state")
        return Managed(name, full_name, change, node.create_client(GetState, f"{name}/get_state"))

    def lose(self) -> None:
        """Its process died, froze or started anew."""
        self.engaged = self.active = self.prepared = False
        self.stale = True

    def adopt(self) -> None:
        """It was found active, as it should be."""
        self.engaged = self.active = self.prepared = True
        self.stale, self.active_s = False, time.monotonic()

    def is_there(self) -> bool:
        return self.change_client.service_is_ready() and self.state_client.service_is_ready()

    def prepare(self, deadline_s: float) -> Steps:
        """Inactive, configured and not stale, from any state. Raises Failure with the node's reason when it refuses."""
        self.engaged = True
        state = yield from self.state(deadline_s)
        if state == State.PRIMARY_STATE_ACTIVE:
            yield from self.change(Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE, deadline_s)
            state = State.PRIMARY_STATE_INACTIVE
        if state == State.PRIMARY_STATE_INACTIVE and self.stale:
            yield from self.change(Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED, deadline_s)
            state = State.PRIMARY_STATE_UNCONFIGURED
        if state == State.PRIMARY_STATE_UNCONFIGURED:
            done = yield from self.change(Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE, deadline_s)
            if not done:
                raise Failure((yield from self.reason("configure")))
        self.prepared, self.stale = True, False

    def activate(self, timeout_s: float) -> Steps:
        """Tries again while the node refuses, since its first messages may be on their way. Raises Failure in the end."""
        deadline_s, self.active, self.active_s = time.monotonic() + timeout_s, True, math.inf
        while True:
            done = yield from self.change(Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE, deadline_s + 2.0)
            if done:
                self.active_s = time.monotonic()
                return
            if time.monotonic() > deadline_s:
                self.active = False
                raise Failure((yield from self.reason("activate")))
            yield from pause(0.2)

    def deactivate(self, deadline_s: float, there: Callable[[], bool]) -> Steps:
        """Asks a node for as long as it is there: one that has ended is at rest. Returns what was wrong, if anything."""
        self.active = False
        asking = self.change(Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE, deadline_s)
        while there():
            try:
                yield next(asking)
            except StopIteration:
                break
            except Failure as failure:
                return str(failure)
        return ""

    def change(self, transition: int, goal: int, deadline_s: float):
        """Whether the node made the transition. An answer may get lost; then its state tells, or it is asked again."""
        request = ChangeState.Request()
        request.transition.id = transition
        while True:
            call, asked_s = self.change_client.call_async(request), time.monotonic()
            while not call.done() and time.monotonic() < asked_s + RETRY_S:
                yield
            if not call.done() and (yield from self.state(deadline_s)) == goal:
                return True
            if call.done():
                return call.result().success

    def state(self, deadline_s: float):
        """The node's lifecycle state; waits while the node is busy. Raises Failure at the deadline."""
        while True:
            call, asked_s = self.state_client.call_async(GetState.Request()), time.monotonic()
            while not call.done() and time.monotonic() < asked_s + ASK_AGAIN_S:
                if time.monotonic() > deadline_s:
                    raise Failure(f"Node '{self.name}' does not answer. See its log.")
                yield
            if call.done():
                return call.result().current_state.id

    def reason(self, verb: str):
        """The node's own words, which may arrive after its answer."""
        until_s = time.monotonic() + 1.0
        while time.monotonic() < until_s and time.monotonic() - self.refused_s > 2.0:
            yield
        words = self.refusal if time.monotonic() - self.refused_s < 5.0 else f"Cannot {verb}; see its log."
        return f"Node '{self.name}': {words}"


def together(steps: Iterable[Steps]) -> Steps:
    """Takes turns until all have finished."""
    steps = list(steps)
    while steps:
        for step in list(steps):
            try:
                next(step)
            except StopIteration:
                steps.remove(step)
        yield


def pause(duration_s: float) -> Steps:
    until_s = time.monotonic() + duration_s
    while time.monotonic() < until_s:
        yield
