"""What all Foresight nodes share: parameters from a dataclass, lifecycle with reasons, diagnostics at 1 Hz, a bond at 10 Hz.

A part that cannot configure or activate says why, in one line of its log and in `/diagnostics`, for the lifecycle manager.
Diagnostics run on the steady clock, so they also tell that a node is alive while simulated time stands still.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from foresight_msgs.srv import Inject
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import Header

from foresight_nodes import topics
from foresight_nodes.bond import Beat
from foresight_nodes.clock import PossibleClock
from foresight_nodes.parameters import declare, read

P = TypeVar("P")
RCLError = rclpy_implementation.RCLError
KEEP_COMPLAINT_S = 2.0  # [s] for which the last complaint stays in the diagnostics


@dataclass(frozen=True)
class Complaint:
    """Something that is wrong, said once and kept for a while."""

    text: str
    at_s: float  # [s] steady clock


class Part(PossibleClock, LifecycleNode, Generic[P]):
    """A lifecycle node with parameters of type P. Subclasses fill in what they need of the first section."""

    def __init__(self, name: str, parameters: type[P], editable: Collection[str] = (), **options) -> None:
        """`editable`: parameters that may be set while the node runs; all others are fixed when it starts."""
        super().__init__(name, **options)
        self._parameters_type = parameters
        declare(self, parameters, editable=editable)
        self.declare_parameter(
            "injectable", False, ParameterDescriptor(description="offer ~/inject; in simulation only", read_only=True)
        )
        self.active = False
        self.when_active: Callable[[], None] = lambda: None  # what whoever runs the node's process does then
        self._built: set = set()  # what configure added to the node
        self._complaint: Complaint | None = None
        self._publish_diagnostics = topics.DIAGNOSTICS.publisher(self).publish
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.every(1.0, self.diagnose, steady=True)
        self._bond = Beat(self)

    # What subclasses fill in.

    def configure(self, parameters: P) -> None:
        """Builds what the node needs; raises ValueError, OSError or RuntimeError with one clear line."""

    def activate(self) -> None:
        """Checks that everything fits; raises ValueError with one clear line when it does not."""

    def deactivate(self) -> None:
        """Stops acting. For the guard: brings the arm to rest."""

    def release(self) -> None:
        """Lets go of what configure built, beyond publishers, subscriptions, services and timers."""

    def report(self) -> dict[str, object]:
        """Figures for the diagnostics."""
        return {}

    # What subclasses use.

    def now_s(self) -> float:
        """The node's clock [s]: wall or simulated, as use_sim_time says."""
        return self.get_clock().now().nanoseconds * 1e-9

    def every(self, period_s: float, callback, steady: bool = False):
        """A timer; on the steady clock it also runs while simulated time stands still."""
        return self.create_timer(period_s, callback, clock=self._steady if steady else None)

    def complain(self, text: str, seldom: bool = False) -> None:
        """Says that something is wrong: in the log (not more than every 2 s, `seldom`: 30 s) and in the diagnostics."""
        self._complaint = Complaint(text, time.monotonic())
        if seldom:
            self.get_logger().warning(text, throttle_duration_sec=30.0)
        else:
            self.get_logger().warning(text, throttle_duration_sec=2.0)

    def diagnose(self) -> None:
        """Publishes the node's diagnostics now."""
        fresh = self._complaint is not None and time.monotonic() - self._complaint.at_s < KEEP_COMPLAINT_S
        level = DiagnosticStatus.WARN if fresh else DiagnosticStatus.OK
        self._send(level, self._complaint.text if fresh else ("active" if self.active else "not active"), self.report())

    def publish(self, publisher, message) -> None:
        """Publishes; a reader that stalls a reliable topic costs a complaint, not the node."""
        try:
            publisher.publish(message)
        except RCLError as error:
            self.complain(f"Could not publish {publisher.topic_name}: {error}")

    def offer_faults(self, faults: Mapping[str, Callable[[float], str]]) -> None:
        """In simulation (parameter `injectable`): a service that sets off one of these, called with a duration [s].

        Each answers with a sentence about what happens now. Call it in `configure`.
        """

        def inject(request: Inject.Request, response: Inject.Response) -> Inject.Response:
            response.ok = request.fault in faults and not request.names
            if request.fault not in faults:
                known = ", ".join(faults)
                response.message = f"Fault '{request.fault}' is unknown to {self.get_name()}. Available: {known}."
            elif request.names:
                response.message = f"{request.fault} has no parameters, got {', '.join(request.names)}; only duration_s counts."
            else:
                response.message = faults[request.fault](request.duration_s)
            return response

        if self.get_parameter("injectable").value:
            topics.INJECT.service(self, inject)

    def destroy_node(self) -> None:
        self._bond.stop()
        super().destroy_node()

    # Lifecycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        before = self._entities()
        result = self._attempt("configure", lambda: self.configure(read(self, self._parameters_type)))
        self._built = self._entities() - before
        if result is not TransitionCallbackReturn.SUCCESS:
            self._let_go()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._attempt("activate", self.activate)
        self.active = result is TransitionCallbackReturn.SUCCESS
        if self.active:
            self.when_active()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        return self._attempt("deactivate", self.deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("clean up", self._let_go)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("shut down", self.stop)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        return self._attempt("recover", self._let_go)

    def stop(self) -> None:
        """Before the process ends: deactivates if active."""
        if self.active:
            self.active = False
            self.deactivate()

    def _entities(self) -> set:
        return {*self.publishers, *self.subscriptions, *self.services, *self.timers}

    def _let_go(self) -> None:
        self.release()
        for entities, destroy in (
            (self.publishers, self.destroy_publisher),
            (self.subscriptions, self.destroy_subscription),
            (self.services, self.destroy_service),
            (self.timers, self.destroy_timer),
        ):
            for entity in [e for e in entities if e in self._built]:
                destroy(entity)
        self._built = set()

    def _attempt(self, verb: str, action) -> TransitionCallbackReturn:
        try:
            action()
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())
            if verb == "activate":  # what it waits for may come: whoever asked asks again
                self.get_logger().warning(f"Cannot {verb}: {reason}")
            else:
                self.get_logger().error(f"Cannot {verb}: {reason}")
            self._complaint = Complaint(f"Cannot {verb}: {reason}", time.monotonic())
            self._send(DiagnosticStatus.ERROR, self._complaint.text, {})
            return TransitionCallbackReturn.FAILURE
        except Exception:  # a defect, not a refusal: rclpy would swallow it
            self.get_logger().error(f"Cannot {verb}:\n{traceback.format_exc()}")
            self._send(DiagnosticStatus.ERROR, f"Cannot {verb}: internal error, see the node's log.", {})
            return TransitionCallbackReturn.ERROR
        self._complaint = None
        return TransitionCallbackReturn.SUCCESS

    def _send(self, level: bytes, message: str, figures: dict[str, object]) -> None:
        status = DiagnosticStatus(
            level=level,
            name=self.get_fully_qualified_name(),
            message=message,
            hardware_id="",
            values=[
                KeyValue(key=key, value=f"{value:.3f}" if isinstance(value, float) else str(value))
                for key, value in figures.items()
            ],
        )
        try:
            self._publish_diagnostics(DiagnosticArray(header=Header(stamp=self.get_clock().now().to_msg()), status=[status]))
        except RCLError:
            pass  # nobody can be told about it here; the next report follows in a second
