"""Every node of the simulated graph is killed and frozen in every lifecycle state, through `foresight up`, while the arm moves.

Measures when the crash is noticed, how long the arm still moves and when the graph is back, and counts the limits that the
simulator saw broken meanwhile. Sees the graph as any user does, and takes the judge's word from `sim_state`.

In a transition the signal comes as soon as its begin is heard of; a short one (deactivating, cleaningup, shuttingdown: mostly a
few ms) may be over by then. Not here: errorprocessing, which only a defect in a node leads to; states of the lifecycle manager,
which has none; a frozen recorder, which the graph does without and nobody ends.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from foresight_bringup.processes import Child, ending_with_parent, stop
from foresight_bringup.up import MANAGER, RESTARTS, RESTARTS_S
from foresight_msgs.action import Pursue
from foresight_msgs.msg import GraphState, GuardState, SimState
from geometry_msgs.msg import Point, Pose
from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sensor_msgs.msg import JointState

from foresight_nodes import topics
from foresight_nodes.inject import InjectError, find
from foresight_nodes.run import make_executor
from foresight_nodes.transitions import Managed

NODES = ("guard", "sim", "perception", "world_model", "planner")
DISPENSABLE = ("recorder",)  # the graph goes on without
STATES = (
    "active", "inactive", "unconfigured", "finalized",
    "configuring", "activating", "deactivating", "cleaningup", "shuttingdown",
)  # fmt: skip
FROM_MOTION = ("active", "deactivating", "shuttingdown")  # the arm moves until then
SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
NOTICED_LIMIT_S = 0.5  # [s] killed or frozen: a process is missed by its silence
REST_LIMIT_S, BACK_LIMIT_S = 1.0, 15.0
REST_RAD_S, MOVING_RAD_S = 0.02, 0.1
FRESH_S = 0.1  # [s] for which a measured speed tells whether the arm moves
ATTEMPTS = 3  # at a cell, until the arm moves when it should
GIVE_UP_S = 90.0  # [s] for the graph to be back
PATIENCE_S = 20.0  # [s] for anything else
TARGETS = ((0.42, -0.15, 0.15), (0.52, 0.15, 0.15))  # [m] of the tip, in turn
# What a node is asked, starting active, before it is crashed in a state; the last is under way when it crashes.
STEPS = {
    "active": (),
    "inactive": (Transition.TRANSITION_DEACTIVATE,),
    "unconfigured": (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP),
    "finalized": (Transition.TRANSITION_ACTIVE_SHUTDOWN,),
    "configuring": (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP, Transition.TRANSITION_CONFIGURE),
    "activating": (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE),
    "deactivating": (Transition.TRANSITION_DEACTIVATE,),
    "cleaningup": (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP),
    "shuttingdown": (Transition.TRANSITION_ACTIVE_SHUTDOWN,),
}


class MatrixError(RuntimeError):
    """The matrix cannot be run; the message is one line."""


@dataclass(frozen=True)
class Crash:
    """One cell of the matrix."""

    node: str
    state: str
    signal: str
    moving: bool  # whether the arm moved when the signal came
    noticed_s: float | None  # [s] until the manager said that the node is gone, of the manager the guard; None: nobody watches it
    rest_s: float  # [s] for which it still moved; 0 where it may move on, since the graph does without the node
    back_s: float  # [s] until the graph was active again; of a node that it does without: until that node was
    held_up: bool = False  # the graph stopped for a node that it does without
    violations: int = 0  # limits that true states broke, from the motion before the signal until the graph was back
    violation_detail: str = ""  # the first of them since the scene began
    late_rad_s: float = 0.0  # [rad/s] of the fastest joint later than REST_LIMIT_S after the signal

    @property
    def tested(self) -> bool:
        """An active node that dies while the arm is at rest proves nothing."""
        return self.moving or self.state != "active"

    @property
    def good(self) -> bool:
        in_time = self.rest_s <= REST_LIMIT_S and self.back_s <= BACK_LIMIT_S
        noticed = self.noticed_s is None or self.noticed_s <= NOTICED_LIMIT_S
        return self.tested and in_time and noticed and not self.held_up and not self.violations


class Violations:
    """Those that a simulator counts since its last reset, summed over resets and over simulators that started anew."""

    def __init__(self) -> None:
        self.count, self.detail, self.heard = 0, "", 0
        self._before, self._elapsed_s = 0, 0.0

    def hear(self, msg: SimState) -> None:
        self.heard += 1
        before = self._before if msg.elapsed_s >= self._elapsed_s else 0
        if msg.violations > before:
            self.count, self.detail = self.count + msg.violations - before, msg.violation_detail
        self._before, self._elapsed_s = msg.violations, msg.elapsed_s


class Onlooker(Node):
    """Wants motion, asks for transitions, and watches."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__("crash_matrix")
        self._check = check
        self._executor = make_executor()
        self._executor.add_node(self)
        self.graph, self.moved_s, self.speed, self._target = GraphState(), -math.inf, 0.0, 0
        self._measured_s = -math.inf  # when the speed was
        self._late_s, self._late_rad_s = math.inf, 0.0  # from when on it counts as late, and the fastest since
        self._violations = Violations()
        self._crashing, self._noticed_s = "", math.inf  # the node, and when somebody said that it is gone
        self._events: list[tuple[str, str]] = []
        self._ends_s: dict[str, list[float]] = {}  # of each node's crashes: when it was back
        self._held_up = False  # the graph was not active at some time since this was reset
        topics.GRAPH_STATE.subscription(self, self._on_graph)
        topics.GUARD_STATE.subscription(self, self._on_guard)
        topics.JOINT_STATES.subscription(self, self._on_states)
        topics.SIM_STATE.subscription(self, self._violations.hear)
        self._pursue = ActionClient(self, Pursue, "pursue")
        self._change = {name: self.create_client(ChangeState, f"{name}/change_state") for name in (*NODES, *DISPENSABLE)}
        for name in self._change:
            self.create_subscription(
                TransitionEvent, f"{name}/transition_event",
                lambda msg, name=name: self._events.append((name, msg.goal_state.label)), 10,
            )  # fmt: skip

    def until(self, holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        end_s = time.monotonic() + patience_s
        while not holds():
            self._check()
            if time.monotonic() > end_s:
                raise MatrixError(f"Not within {patience_s:.0f} s: {what}.")
            self._executor.spin_once(timeout_sec=0.01)

    def move(self) -> None:
        """Until the arm moves towards the next target; asks again when a goal is answered before that."""
        self.until(self._pursue.server_is_ready, "the planner offers pursue")
        asked_s = -math.inf

        def moving() -> bool:
            nonlocal asked_s
            if time.monotonic() - asked_s > 4.0:
                asked_s, self._target = time.monotonic(), 1 - self._target
                x, y, z = TARGETS[self._target]
                self._pursue.send_goal_async(
                    Pursue.Goal(use_tip=True, tip=Pose(position=Point(x=x, y=y, z=z)), time_limit_s=20.0)
                )
            return self.speed > MOVING_RAD_S

        self.until(moving, "the arm moves", 40.0)

    def lead(self, node: str, state: str) -> None:
        """The node from active to this state; a state that is a transition is under way on return."""
        *before, last = STEPS[state] or (None,)
        for transition in before:
            self._ask(node, transition)
        if last is None:
            return
        if state in ("inactive", "unconfigured", "finalized"):
            self._ask(node, last)
            return
        self._events.clear()
        self._change[node].call_async(_request(last))
        self.until(lambda: (node, state) in self._events, f"{node} is {state}")

    def _ask(self, node: str, transition: int) -> None:
        self.until(self._change[node].service_is_ready, f"{node}/change_state is there")
        call = self._change[node].call_async(_request(transition))
        self.until(call.done, f"{node} changes its state")

    def crash(self, node: str, state: str, kind: str) -> Crash:
        """One cell; the graph is active before and after."""
        ends_s = self._ends_s.setdefault(node, [])
        self.until(
            lambda: sum(time.monotonic() - end_s < RESTARTS_S for end_s in ends_s) < RESTARTS,
            f"{node} may die again", RESTARTS_S + PATIENCE_S,
        )  # fmt: skip
        counted = self._violations.count
        if state in FROM_MOTION or node in DISPENSABLE:
            self.move()
        self._held_up, self._crashing, self._noticed_s = False, node, math.inf
        self.lead(node, state)
        process = find(node)  # looks through all processes, which takes some time
        signal_s, self.moved_s = time.monotonic(), -math.inf
        self._late_s, self._late_rad_s = signal_s + REST_LIMIT_S, 0.0
        moving = self.speed > REST_RAD_S and signal_s - self._measured_s < FRESH_S
        process.send(SIGNALS[kind])
        if node in DISPENSABLE:
            self.until(lambda: _pid(node) not in (None, process.pid), f"{node} is started anew", GIVE_UP_S)
            self._await_active(node)
        else:
            self.until(lambda: self._noticed_s < math.inf, f"somebody notices that {node} is gone ({state}, {kind})", 30.0)
            self.until(lambda: not self.graph.active, f"the graph is down without {node} ({state}, {kind})", 30.0)
            self.until(lambda: self.graph.active, f"the graph is back after {node} ({state}, {kind})", GIVE_UP_S)
        self._late_s = math.inf
        ends_s.append(time.monotonic())
        heard = self._violations.heard
        self.until(lambda: self._violations.heard > heard, "the simulator's judge is heard")
        dispensable = node in DISPENSABLE
        rest_s = 0.0 if dispensable or not math.isfinite(self.moved_s) else max(0.0, self.moved_s - signal_s)
        noticed_s = None if dispensable else max(0.0, self._noticed_s - signal_s)
        violations = self._violations.count - counted
        return Crash(
            node, state, kind, moving, noticed_s, rest_s, ends_s[-1] - signal_s, dispensable and self._held_up,
            violations, self._violations.detail if violations else "", 0.0 if dispensable else self._late_rad_s,
        )  # fmt: skip

    def crash_moving(self, node: str, state: str, kind: str) -> Crash:
        """One cell, again while the arm did not move when it should have; after ATTEMPTS it counts as not tested."""
        for _ in range(ATTEMPTS):
            made = self.crash(node, state, kind)
            if made.tested:
                break
        return made

    def _await_active(self, node: str) -> None:
        """Of a node that activates itself."""
        there = Managed.of(self, node)
        asking = there.state(math.inf)

        def active() -> bool:
            nonlocal asking
            try:
                next(asking)
            except StopIteration as answer:
                asking = there.state(math.inf)
                return answer.value == State.PRIMARY_STATE_ACTIVE
            return False

        self.until(active, f"{node} is active", GIVE_UP_S)
        for client in (there.change_client, there.state_client):
            self.destroy_client(client)

    def close(self) -> None:
        self._executor.shutdown()
        self.destroy_node()

    def _on_graph(self, msg: GraphState) -> None:
        self.graph, self._held_up = msg, self._held_up or not msg.active
        if not msg.active and f"'{self._crashing}'" in msg.detail:
            self._notice()

    def _on_guard(self, msg: GuardState) -> None:
        if self._crashing == MANAGER and msg.cause == "graph_inactive":
            self._notice()

    def _notice(self) -> None:
        self._noticed_s = min(self._noticed_s, time.monotonic())

    def _on_states(self, msg: JointState) -> None:
        self.speed, self._measured_s = max((abs(v) for v in msg.velocity), default=0.0), time.monotonic()
        if self.speed >= REST_RAD_S:
            self.moved_s = self._measured_s
        if self._measured_s > self._late_s:
            self._late_rad_s = max(self._late_rad_s, self.speed)


def _pid(node: str) -> int | None:
    """None while there is no such process."""
    try:
        return find(node).pid
    except InjectError:
        return None


def _request(transition: int) -> ChangeState.Request:
    request = ChangeState.Request()
    request.transition.id = transition
    return request


def cells(nodes: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Node, state, signal; a node's own crashes far apart, since one that keeps dying is given up. The manager has no states."""
    known = (*NODES, *DISPENSABLE, MANAGER)
    unknown = sorted(set(nodes) - set(known))
    if unknown:
        raise MatrixError(f"--nodes: no node '{unknown[0]}'. There are: {', '.join(known)}.")
    return [
        (node, state, kind)
        for kind in SIGNALS for state in STATES for node in nodes or known
        if (node != MANAGER or state == "active") and (node not in DISPENSABLE or kind == "kill")
    ]  # fmt: skip


def run_matrix(nodes: tuple[str, ...], seed: int) -> dict[str, Any]:
    """All cells, in a graph of its own. Raises MatrixError."""
    import rclpy

    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    wanted, crashes = cells(nodes), []
    with (
        tempfile.NamedTemporaryFile("w+", prefix="foresight-matrix-", suffix=".log", delete=False) as log,
        tempfile.TemporaryDirectory(prefix="foresight-matrix-") as folder,  # of the incidents that the recorder writes
    ):
        graph = Child("the graph", subprocess.Popen(
            ending_with_parent([sys.executable, "-m", "foresight_bringup.up", "sim", f"seed:={seed}"]),
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=folder,
        ))  # fmt: skip

        def check() -> None:
            if graph.process.poll() is not None:
                raise MatrixError(f"{graph.describe_end()}; its log: {log.name}")

        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        onlooker = Onlooker(check)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "left",
            TimeRemainingColumn(),
        )  # fmt: skip
        try:
            with Progress(*columns) as bar:
                task = bar.add_task("starting the graph", total=len(wanted))
                onlooker.until(lambda: onlooker.graph.active, "the graph is active", 120.0)
                for node, state, kind in wanted:
                    bar.update(task, description=f"{kind} {node}, {state}")
                    crashes.append(onlooker.crash_moving(node, state, kind))
                    bar.advance(task)
        except InjectError as error:
            raise MatrixError(str(error)) from error
        except MatrixError as error:
            where = f"after {len(crashes)} of {len(wanted)} crashes; log: {log.name}"
            raise MatrixError(f"{str(error).rstrip('.')} ({where}).") from error
        finally:
            onlooker.close()
            stop([graph], pump=lambda: time.sleep(0.05))
    os.unlink(log.name)
    return summary(crashes)


def summary(crashes: list[Crash]) -> dict[str, Any]:
    """The figures of these cells."""
    return {
        "matrix": {
            "crashes": len(crashes), "good": sum(crash.good for crash in crashes),
            "tested": sum(crash.tested for crash in crashes), "violations": sum(crash.violations for crash in crashes),
            "noticed_max_s": max((crash.noticed_s for crash in crashes if crash.noticed_s is not None), default=None),
            "noticed_limit_s": NOTICED_LIMIT_S,
            "rest_max_s": max(crash.rest_s for crash in crashes), "rest_limit_s": REST_LIMIT_S,
            "back_max_s": max(crash.back_s for crash in crashes), "back_limit_s": BACK_LIMIT_S,
            "cells": [asdict(crash) | {"tested": crash.tested, "good": crash.good} for crash in crashes],
        }
    }  # fmt: skip


def told_matrix(figures: dict[str, Any]) -> str:
    """A line for each cell, and the sum."""
    found = figures["matrix"]
    lines = [
        f"{c['node']:<18}{c['state']:<14}{c['signal']:<8}"
        f"{_told_notice(c):<24}{_told_rest(c):<26}back after {c['back_s']:.1f} s{_told_fault(c)}"
        for c in found["cells"]
    ]
    total = f"{found['good']} of {found['crashes']} noticed within {NOTICED_LIMIT_S:.1f} s, at rest within {REST_LIMIT_S} s and "
    total += f"back within {BACK_LIMIT_S} s; {found['violations']} violations, {found['crashes'] - found['tested']} not tested"
    return "\n".join([*lines, total])


def _told_notice(cell: dict[str, Any]) -> str:
    return "watched by nobody" if cell["noticed_s"] is None else f"noticed after {cell['noticed_s']:.2f} s"


def _told_fault(cell: dict[str, Any]) -> str:
    if cell["violations"]:
        return f"; {cell['violations']} violations: {cell['violation_detail']}"
    return "" if cell["tested"] else "; not tested"


def _told_rest(cell: dict[str, Any]) -> str:
    if cell["node"] in DISPENSABLE:
        return "the graph stopped" if cell["held_up"] else "the graph went on"
    late = f", at {cell['late_rad_s']:.3f} rad/s" if cell["rest_s"] > REST_LIMIT_S else ""
    return f"still moved for {cell['rest_s']:.2f} s{late}" if cell["moving"] or late else "was at rest"
