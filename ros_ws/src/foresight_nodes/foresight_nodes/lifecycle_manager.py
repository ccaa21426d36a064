"""Brings the nodes up in order (configure all, then activate one by one), and again after one of them died or froze.

A node that refuses says why in `/diagnostics`; the manager repeats that and gives up, with nothing left half active. A node whose
bond breaks is noticed within `bond_timeout_s`: what needs it is deactivated, so that the arm comes to rest, and once it is there
again the graph is brought back. Not after a latch of the guard: then a person decides first, and is refused within the cool-down,
while a node is missing, and where a guard is active that has its own reset. Starts and ends no process itself.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from foresight_msgs.msg import Bond, GraphState, GuardState
from lifecycle_msgs.msg import State
from rclpy.clock import Clock, ClockType
from std_srvs.srv import Trigger

from foresight.safety.failsafe import FailsafeParams
from foresight_nodes import topics
from foresight_nodes.bond import Bonds
from foresight_nodes.clock import PossibleClock
from foresight_nodes.latch_note import LatchNote
from foresight_nodes.parameters import declare, read
from foresight_nodes.real_time import check_priority
from foresight_nodes.transitions import Failure, Managed, pause, together

STEP_S = 0.02  # [s] between two steps
ANNOUNCE_S = 0.1  # [s] between two words on the graph, beside those on every change
DEACTIVATE_S = 2.0  # [s] for a node to deactivate
ATTEMPTS = 3  # to bring the graph back before the manager gives up


@dataclass(frozen=True)
class ManagerParameters:
    """Parameters of the lifecycle manager."""

    node_names: tuple[str, ...] = ("guard", "sim", "perception", "world_model", "planner")  # in the order of activation
    dependencies: tuple[str, ...] = ()  # pairs "node:what it needs"; empty: each node needs all that come before it
    origins: tuple[str, ...] = ()  # nodes that carry the clock; what needs one that started anew is configured anew
    autostart: bool = True  # bring the nodes up at once, and watch them
    respawn: bool = True  # dead processes are started anew by whoever started them; false: one that dies takes the graph down
    bond_timeout_s: float = 0.42  # [s] real time without a sign of life after which a node counts as dead or frozen
    busy_timeout_s: float = 2.0  # [s] real time for which an active node may serve nothing
    transition_patience_s: float = 5.0  # [s] by which a sign may be later while a node configures: its threads may wait
    frozen_after_s: float = 2.0  # [s] real time without a sign after which the process should be ended
    configure_timeout_s: float = 90.0  # [s] real time for all nodes to appear and configure
    cooldown_s: float = FailsafeParams.cooldown_s  # [s] real time after a latch within which resume is refused; as guard/reset's
    activate_timeout_s: float = 15.0  # [s] real time for a node to activate, since it may wait for the first messages
    real_time_priority: int = 30  # SCHED_FIFO priority of the process where allowed; 0: do not ask
    latch_file: str = ""  # keeps a latch while this process and the guard's are both gone; empty: nobody does
    exit_on_failure: bool = True  # end the process with code 1 when the graph cannot come up or come back

    def __post_init__(self) -> None:
        check_priority(self.real_time_priority)
        times = ("bond_timeout_s", "busy_timeout_s", "frozen_after_s", "configure_timeout_s", "activate_timeout_s", "cooldown_s")
        for name in times:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 s, got {getattr(self, name)}.")
        for name in {word for pair in self.dependencies for word in pair.split(":")} | set(self.origins):
            if name not in self.node_names:
                raise ValueError(f"dependencies or origins name '{name}', which is no node. Nodes: {', '.join(self.node_names)}.")

    def needing(self, name: str) -> set[str]:
        """The nodes that cannot work without this one."""
        if not self.dependencies:
            return set(self.node_names[self.node_names.index(name) + 1 :])
        direct = {node for node, needed in (pair.split(":") for pair in self.dependencies) if needed == name}
        return direct.union(*(self.needing(node) for node in direct))


class LifecycleManager(PossibleClock):
    """Works in small steps from a timer, so that the process answers signals and services at any time."""

    def __init__(self, **options) -> None:
        super().__init__("lifecycle_manager", **options)
        declare(self, ManagerParameters)
        self.parameters = read(self, ManagerParameters)
        self.failure, self.up = "", False
        self.exit_code: int | None = None  # set when the process should end
        self._managed = {name: Managed.of(self, name) for name in self.parameters.node_names}
        self._by_full_name = {node.full_name: node for node in self._managed.values()}
        self._bonds = Bonds(self.parameters.bond_timeout_s, self.parameters.busy_timeout_s, time.monotonic())
        self._detail, self._attempts = "The nodes are not up yet.", 0
        self._broken: set[str] = set()  # since the graph was last up
        self._broken_s = 0.0  # when the first of them broke; 0: none
        self._guard_state, self._guard_pid = GuardState(), 0  # the guard's last word, and its process then
        self._note = LatchNote(self.parameters.latch_file)
        noted = self._note.read()  # by a manager before this one
        self._latched, self._latched_pid = noted is not None, noted or 0
        self._latched_s = time.monotonic()  # since when, steady clock
        self._resumed_pid = 0  # of a guard that latched and is not active: brought back with its latch, at a person's word
        self._ended = False
        topics.DIAGNOSTICS.subscription(self, self._on_diagnostics)
        topics.BOND.subscription(self, self._on_bond)
        topics.GUARD_STATE.subscription(self, self._on_guard_state)
        topics.IS_ACTIVE.service(self, self._on_is_active)
        topics.RESUME.service(self, self._on_resume)
        self._graph_state = topics.GRAPH_STATE.publisher(self)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._steps = self._start() if self.parameters.autostart else iter(())
        self.create_timer(STEP_S, self._step, clock=steady)
        self.create_timer(ANNOUNCE_S, self._announce, clock=steady)

    # -- steps: generators that yield while they wait -----------------------------------------------------------------

    def _step(self) -> None:
        self._bonds.look(time.monotonic())
        try:
            if self.parameters.autostart and not self._ended:
                self._watch()
            next(self._steps)
        except StopIteration:
            pass
        except Failure as failure:
            self._failed(str(failure))

    def _start(self):
        """The first time; a manager that was restarted and finds all nodes active leaves them so."""
        yield from self._appear()
        deadline_s = time.monotonic() + self.parameters.configure_timeout_s
        states: list[int] = []
        for node in self._managed.values():
            states.append((yield from node.state(deadline_s)))
        if all(state == State.PRIMARY_STATE_ACTIVE for state in states):
            for node in self._managed.values():
                node.adopt()
        yield from self._bring_up()

    def _recover(self):
        """Deactivates what needs the broken nodes, waits for these, and brings all up again."""
        needing = set().union(*(self.parameters.needing(name) for name in self._broken)) - self._broken
        yield from self._take_down([node for node in self._managed.values() if node.name in needing])
        yield from self._appear()
        yield from self._bring_up()

    def _appear(self):
        """Until every node is there, and no latch forbids what comes next."""
        deadline_s = time.monotonic() + self.parameters.configure_timeout_s
        while missing := [node for node in self._managed.values() if not self._there(node)]:
            if time.monotonic() > deadline_s:
                raise Failure(
                    f"Node '{missing[0].name}' did not appear within {self.parameters.configure_timeout_s:.0f} s. "
                    "Is its process running?"
                )
            yield
        if self._latched:
            self._say("The guard has latched: nothing is brought back until a person calls guard/reset, "
                      "or lifecycle_manager/resume where that guard is no longer active.")  # fmt: skip
        while self._latched:
            yield

    def _there(self, node: Managed) -> bool:
        return self._bonds.alive(node.full_name, time.monotonic()) and node.is_there()

    def _bring_up(self):
        deadline_s = time.monotonic() + self.parameters.configure_timeout_s
        managed = list(self._managed.values())
        yield from together([node.prepare(deadline_s) for node in managed if not node.prepared])
        for node in managed:
            if not node.active:
                yield from node.activate(self.parameters.activate_timeout_s)
        took = f", {time.monotonic() - self._broken_s:.1f} s after the break" if self._broken_s else ""
        self.up, self.failure, self._broken, self._broken_s, self._attempts = True, "", set(), 0.0, 0
        self._say(f"Active: {', '.join(node.name for node in managed)}{took}.")

    def _take_down(self, nodes: list[Managed]):
        """Deactivates what is active of these, last first."""
        for node in reversed(nodes):
            if node.active:
                trouble = yield from node.deactivate(time.monotonic() + DEACTIVATE_S, lambda node=node: self._there(node))
                if trouble:
                    self.get_logger().info(trouble)

    # -- when something goes wrong ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Looks at the bonds; a broken one interrupts whatever the manager is doing."""
        now_s, broken = time.monotonic(), {}
        for node in self._managed.values():
            patience_s = 0.0 if node.active else self.parameters.transition_patience_s
            why = self._bonds.broken(node.full_name, now_s, patience_s, node.active_s if node.active else math.inf)
            if why and node.engaged:
                broken[node.name] = why
        if not broken:
            return
        self.up, self._broken_s, self._broken = False, self._broken_s or now_s, self._broken | set(broken)
        for name in broken:
            self._managed[name].lose()
            for needing in self.parameters.needing(name) if name in self.parameters.origins else ():
                self._managed[needing].stale, self._managed[needing].prepared = True, False
        reason = " ".join(f"Node '{name}' is {why}." for name, why in broken.items())
        if not self.parameters.respawn:
            self._end(f"{reason} The graph is taken down.")
            return
        self._say(f"{reason} What needs it is deactivated until it is back.", error=True)
        self._steps = self._recover()

    def _failed(self, reason: str) -> None:
        """A graph that was up once is tried again, a few times; one that never came up is not."""
        self._attempts += 1
        if not self._broken_s or self._attempts >= ATTEMPTS:
            self._end(reason)
            return
        self._say(f"{reason} Trying again ({self._attempts + 1} of {ATTEMPTS}).", error=True)
        self._steps = self._try_again()

    def _try_again(self):
        yield from pause(1.0)
        yield from self._appear()
        yield from self._bring_up()

    def _end(self, reason: str) -> None:
        self.failure, self.up, self._ended = reason, False, True
        self._say(reason, error=True)
        self._steps = self._give_up()

    def _give_up(self):
        yield from self._take_down(list(self._managed.values()))
        if self.parameters.exit_on_failure:
            self.exit_code = 1

    def stop(self) -> None:
        """Takes the graph down before the process ends."""
        executor = self.executor
        self._steps, self._ended = iter(()), True
        for _ in self._take_down(list(self._managed.values())):
            if executor is None or not rclpy.ok():
                return
            executor.spin_once(timeout_sec=STEP_S)

    def release(self) -> None:
        """Holds nothing beyond its node."""

    # -- what it hears and says ---------------------------------------------------------------------------------------

    def _on_bond(self, msg: Bond) -> None:
        if msg.node in self._by_full_name:
            self._bonds.heard(msg.node, msg.pid, msg.busy_s, time.monotonic())

    def _on_guard_state(self, msg: GuardState) -> None:
        """A latch outlives its guard's process: only the guard that latched, reset by a person, ends it."""
        pid = self._bonds.pid(self._guard_name())
        self._guard_state, self._guard_pid = msg, pid
        if msg.latched and not (msg.state == GuardState.INACTIVE and pid == self._resumed_pid):
            if not self._latched or pid != self._latched_pid:
                self._latched, self._latched_pid, self._latched_s = True, pid, time.monotonic()
                if trouble := self._note.write(pid):
                    self.get_logger().error(f"The latch is lost where guard and manager both end: {trouble}.")
        elif self._latched and pid == self._latched_pid and msg.state == GuardState.ACTIVE:
            self._latched = False
            self._note.forget()

    def _guard_name(self) -> str:
        return self._managed["guard"].full_name if "guard" in self._managed else ""

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            node = self._by_full_name.get(status.name)
            if node is not None and status.level == DiagnosticStatus.ERROR:
                node.refusal, node.refused_s = status.message, time.monotonic()

    def _on_is_active(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self.up
        response.message = "All nodes are active." if self.up else self.failure or self._detail
        return response

    def _on_resume(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Ends a latch whose guard is gone, or not active: that one still holds it when it is active again."""
        standing = self._standing() if self._latched else ""
        response.success, response.message = not standing, standing or "No latch stands in the way."
        if self._latched and not standing:
            response.message, self._latched, self._resumed_pid = "Going on.", False, self._latched_pid
            self._note.forget()
        return response

    def _standing(self) -> str:
        """Why nothing goes on after this latch; empty: nothing that is known here stands in the way."""
        now_s, guard, said = time.monotonic(), self._managed.get("guard"), self._guard_state
        since_s, cooldown_s = now_s - self._latched_s, self.parameters.cooldown_s
        stopping = said.state != GuardState.INACTIVE and (said.latched or said.action >= GuardState.STOP)
        speaks = self._bonds.alive(self._guard_name(), now_s) and self._bonds.pid(self._guard_name()) == self._guard_pid
        if guard is not None and (guard.active or (speaks and stopping)):
            cause = f" and reports {said.cause}: {said.why.rstrip('.')}" if said.cause else ""
            return f"The guard is active{cause}; call guard/reset."
        if since_s < cooldown_s:
            return f"Latched {since_s:.3f} s ago, going on is possible after {cooldown_s} s."
        missing = [node.name for node in self._managed.values() if not self._there(node)]
        if missing:
            return f"Not there: {', '.join(missing)}. What is missing must be running; then call resume again."
        return ""

    def _say(self, text: str, error: bool = False) -> None:
        self._detail = text
        if error:
            self.get_logger().error(text)
        else:
            self.get_logger().info(text)
        self._announce()

    def _announce(self) -> None:
        now_s, limit_s = time.monotonic(), self.parameters.frozen_after_s
        lost = [self._managed[name] for name in sorted(self._broken) if not self._managed[name].engaged]
        frozen = [node for node in lost if self._bonds.quiet_s(node.full_name, now_s) > limit_s]
        self._graph_state.publish(GraphState(
            active=self.up, detail=self._detail, frozen=[node.name for node in frozen],
            frozen_pid=[self._bonds.pid(node.full_name) for node in frozen],
        ))  # fmt: skip
