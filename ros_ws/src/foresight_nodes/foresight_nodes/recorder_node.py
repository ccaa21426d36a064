"""The recorder as a ROS node: keeps the last seconds of every topic, and writes them as one folder when the guard stops.

Every stop is in a folder: those within `interval_s` after one was written share the next. A guard that falls silent while a
motion is in force counts as a stop: the arm comes to rest, and nobody says so.

Listens only. It reads best effort, so that even a frozen recorder holds up nobody, and no node waits for it: it brings
itself up, and what it cannot write it says in `/diagnostics`.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from foresight_msgs.msg import GuardState
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from foresight.evaluation.results import git_commit
from foresight.incidents.pack import Definition, remove_oldest, write_pack
from foresight.incidents.ring import Ring
from foresight.incidents.summary import Stop, folder_name, summary
from foresight.robots.profile import load_profile
from foresight.safety.failsafe import Action
from foresight.versions import versions
from foresight_nodes import convert, topics
from foresight_nodes.definitions import definition, qos_as_bag, type_name
from foresight_nodes.part import Part

SILENT_NS = topics.GUARD_STATE.publish_qos.deadline.nanoseconds  # a guard that says nothing for longer is gone
STEP_S = 0.1  # [s] between two looks at what is due
ALL = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)  # fits every publisher, and never holds one up


@dataclass(frozen=True)
class RecorderParameters:
    """Parameters of the recorder node."""

    robot: str  # robot profile by name, or path of its YAML file
    controller_topic: str = ""  # where trajectories go; empty: as the profile says
    gripper_topic: str = ""  # where the gripper's go; empty: as the profile says
    camera_topics: tuple[str, ...] = ("front", "wrist")  # namespaces of image_raw and camera_info
    folder: str = "runs/incidents"  # where incidents are written
    window_s: float = 30.0  # [s] before the stop that are kept
    aftermath_s: float = 0.5  # [s] after the stop that are kept
    interval_s: float = 10.0  # [s] at least between two incidents that stops cause; what stops meanwhile waits for the second
    keep_packs: int = 50  # incidents that stay in the folder; the oldest go when there are more
    memory_max_mb: int = 128  # [MB] of messages at most; images are the first to be shortened
    images_hz: float = 5.0  # of each camera that are kept
    clock_hz: float = 10.0  # of /clock that are kept

    def __post_init__(self) -> None:
        for name in ("window_s", "memory_max_mb", "images_hz", "clock_hz", "keep_packs"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and greater than 0, got {getattr(self, name)}.")
        for name in ("aftermath_s", "interval_s"):
            if not 0 <= getattr(self, name) < self.window_s:
                raise ValueError(
                    f"{name} must lie between 0 and window_s ({self.window_s} s), so that a stop is still held when it is "
                    f"written, got {getattr(self, name)}."
                )


class RecorderNode(Part[RecorderParameters]):
    """Every topic of `topics.py` -> runs/incidents/<time>_<reason>/."""

    def __init__(self, **options) -> None:
        super().__init__("recorder", RecorderParameters, **options)
        self._ring: Ring | None = None
        self._forget()

    def configure(self, parameters: RecorderParameters) -> None:
        self._forget()
        self._chosen, self._profile = parameters, load_profile(parameters.robot)
        self._ring = Ring(parameters.window_s, parameters.memory_max_mb * 2**20)
        self._git = git_commit()
        self._writer = ThreadPoolExecutor(1, "incident")
        gripper = self._profile.gripper
        controllers = [parameters.controller_topic or self._profile.controller_topic]
        controllers += [] if gripper is None else [parameters.gripper_topic or gripper.controller_topic]
        heard = recorded_topics(tuple(controllers), parameters.camera_topics)
        self._definitions, self._kinds = {}, {}
        for topic in heard:
            name = self.resolve_topic_name(topic.name)
            self._kinds[name] = topic.type
            self._definitions[name] = Definition(type_name(topic.type), definition(topic.type), qos_as_bag(topic.publish_qos))
            latched = topic is topics.GUARD_SETUP  # small and rare: read surely, also what was said before
            qos = topic.subscribe_qos if latched else ALL
            self.create_subscription(topic.type, topic.name, partial(self._on_message, name, latched), qos, raw=True)
        rates = {Image: parameters.images_hz, Clock: parameters.clock_hz}
        self._period_ns = {name: round(1e9 / rates[kind]) for name, kind in self._kinds.items() if kind in rates}
        self._guard_topic = self.resolve_topic_name(topics.GUARD_STATE.name)
        topics.RECORDER_SNAPSHOT.service(self, self._on_snapshot)
        self.every(STEP_S, self._step, steady=True)

    def activate(self) -> None:
        self._was, self._stops = None, []

    def deactivate(self) -> None:
        """Writes the stops that wait for their aftermath, if any."""
        self._finish()
        if self._stops:
            self._write_stops()
            self._finish()

    def release(self) -> None:
        if self._ring is not None:
            self._writer.shutdown()
        self._ring = None

    def report(self) -> dict[str, object]:
        ring = self._ring
        return {
            "held_mb": ring.held / 2**20 if ring else 0.0,
            "dropped": sum(ring.dropped.values()) if ring else 0,
            "incidents": self._written,
            "last_incident": self._last,
            "last_error": self._error,
        }

    def _forget(self) -> None:
        self._was: GuardState | None = None  # the guard's last word
        self._heard_ns, self._silent = 0, False  # when it came, and whether none has come for long
        self._stops: list[Stop] = []  # that wait to be written
        self._writing: Future | None = None
        self._written = 0
        self._last = self._error = ""
        self._last_ns = 0  # when stops were last written
        self._kept_ns: dict[str, int] = {}
        self._ahead_ns = time.time_ns() - time.monotonic_ns()  # receive stamps are wall time that never steps
        self._looked_ns = self._now_ns()

    # -- listening ----------------------------------------------------------------------------------------------------

    def _on_message(self, topic: str, latched: bool, data: bytes) -> None:
        if not (self.active or latched):
            return
        now_ns = self._now_ns()
        period_ns = self._period_ns.get(topic)
        if period_ns and now_ns - self._kept_ns.get(topic, 0) < period_ns:
            return
        self._kept_ns[topic] = now_ns
        self._ring.add(topic, now_ns, data, latched)
        if topic == self._guard_topic and (state := _read(data, GuardState)) is not None:
            self._on_guard_state(state)

    def _now_ns(self) -> int:
        return time.monotonic_ns() + self._ahead_ns

    def _on_guard_state(self, msg: GuardState) -> None:
        before, self._was = self._was, msg
        self._heard_ns, self._silent = self._now_ns(), False
        if before is not None and stops(before, msg):
            action = Action(msg.action).name.lower() if msg.action in set(Action) else str(msg.action)
            self._stopped(action, msg.cause or msg.reason, msg.why or msg.detail, convert.seconds(msg.header.stamp))

    def _listen_for_silence(self) -> None:
        """Time in which this node itself was kept waiting is not held against the guard, whose words were waiting too."""
        now_ns = self._now_ns()
        kept_ns, self._looked_ns = now_ns - self._looked_ns, now_ns
        if kept_ns > 2 * STEP_S * 1e9:
            self._heard_ns = min(now_ns, self._heard_ns + kept_ns)
        silence_ns = now_ns - self._heard_ns
        if self._was is None or self._silent or silence_ns <= SILENT_NS:
            return
        self._silent = True
        if self._was.state != GuardState.INACTIVE and moving(self._was):
            left_s = convert.seconds(self._was.in_force_until) - convert.seconds(self._was.header.stamp)
            why = f"No guard_state for {silence_ns * 1e-9:.2f} s; by the last one the arm would move for {left_s:.2f} s more."
            self._stopped("unknown", "guard silent", why, self.now_s())
        self._was.action = max(self._was.action, GuardState.STOP)  # what a new guard begins with is no further stop

    def _stopped(self, action: str, reason: str, detail: str, time_s: float) -> None:
        self._stops.append(Stop(action, reason, detail, time_s, self._now_ns()))

    # -- writing ------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        if self.active:
            self._listen_for_silence()
        if self._writing is not None and self._writing.done():
            self._finish()
        if self._stops and self._writing is None and self._now_ns() >= self._due_ns():
            self._write_stops()

    def _due_ns(self) -> float:
        """When the last stop has its aftermath; none waits for longer than the interval, in which nothing else is written."""
        aftermath_ns, interval_ns = self._chosen.aftermath_s * 1e9, self._chosen.interval_s * 1e9
        first_ns, last_ns = self._stops[0].received_ns, self._stops[-1].received_ns
        settled_ns = min(last_ns + aftermath_ns, first_ns + max(aftermath_ns, interval_ns))
        return max(settled_ns, self._last_ns + interval_ns)

    def _write_stops(self) -> None:
        stops, self._stops, self._last_ns = self._stops, [], self._now_ns()
        self._write(stops)

    def _write(self, stops: list[Stop]) -> None:
        """Hands the window to the writing thread, so that listening goes on meanwhile."""
        messages = self._ring.messages(self._now_ns())
        about = summary(stops, messages, self._definitions, self._chosen.window_s, self._ring.dropped, self._facts())
        folder = folder_name(Path(self._chosen.folder), datetime.fromtimestamp(stops[0].received_ns * 1e-9), stops[0].reason)
        self._writing = self._writer.submit(self._write_and_tidy, folder, messages, self._definitions, about)

    def _finish(self) -> None:
        """Waits for what is being written, if anything, and says how it went."""
        if self._writing is not None:
            self._writing.exception()  # waits
            self._tell(self._writing)
            self._writing = None

    def _write_and_tidy(self, folder: Path, *content) -> Path:
        """In the writing thread, which writes one incident after the other: none that it removes is being written."""
        written = write_pack(folder, *content)
        remove_oldest(folder.parent, self._chosen.keep_packs)
        return written

    def _facts(self) -> dict[str, object]:
        """What only decoded messages tell."""
        plan, sim, setup = (self._latest(topic) for topic in (topics.PLAN, topics.SIM_STATE, topics.GUARD_SETUP))
        return {
            "robot": self._profile.name,
            "model_id": plan and plan.model_id,
            "real_time_factor": sim and sim.real_time_factor,
            "use_sim_time": self.get_parameter("use_sim_time").value,
            "git": self._git,
            "versions": versions(),
            "guard_setup": setup
            and {"fingerprint": setup.fingerprint, "profile": setup.profile, "config": _config(setup.config)},
        }

    def _latest(self, topic: topics.Topic):
        data = self._ring.latest(self.resolve_topic_name(topic.name))
        return data and _read(data, topic.type)

    def _tell(self, writing: Future) -> None:
        error = writing.exception()
        if error is None:
            self._written, self._last, self._error = self._written + 1, str(writing.result()), ""
            self.get_logger().info(f"Incident written: {self._last}")
            return
        self._error = f"Cannot write an incident in {self._chosen.folder}: {_said(error)}. Nothing was half written."
        self.complain(self._error)

    def _on_snapshot(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Writes what is held now; takes no path, so that nobody can choose where."""
        if not self.active:
            response.success, response.message = False, "The recorder is not active."
            return response
        self._finish()
        self._write([Stop("none", "snapshot", "A snapshot was requested.", self.now_s(), self._now_ns())])
        self._finish()
        response.success, response.message = not self._error, self._error or self._last
        return response


def stops(before: GuardState, now: GuardState) -> bool:
    """Whether the guard has just begun to bring the arm to rest, or more severely than before.

    By its failsafe's word or because it was deactivated. A hold of an arm at rest stops nothing. A guard that was not active let
    nothing move, so it has nothing to stop.
    """
    if before.state == GuardState.INACTIVE:
        return False
    if now.state == GuardState.INACTIVE:
        return moving(now) and _severity(before) < GuardState.STOP
    if _severity(now) >= GuardState.STOP:
        return _severity(now) > _severity(before)
    return moving(now) and _severity(now) >= GuardState.HOLD > _severity(before)


def moving(msg: GuardState) -> bool:
    """Whether a motion was in force when the guard said this."""
    return convert.seconds(msg.in_force_until) > convert.seconds(msg.header.stamp)


def _severity(msg: GuardState) -> int:
    return GuardState.LATCH if msg.state == GuardState.STOPPED else msg.action


def recorded_topics(controller_topics: tuple[str, ...], camera_topics: tuple[str, ...]) -> list[topics.Topic]:
    """Every topic of the graph, each once."""
    named = [topic for topic in vars(topics).values() if isinstance(topic, topics.Topic)]
    cameras = [make(camera) for camera in camera_topics for make in (topics.image, topics.camera_info)]
    return list({topic.name: topic for topic in [*named, *cameras, *map(topics.trajectory, controller_topics)]}.values())


def _read(data: bytes, kind: type):
    """The message, or None: whoever is in the domain can send bytes that are none."""
    try:
        return deserialize_message(data, kind)
    except RuntimeError:
        return None


def _config(text: str) -> object:
    """As the guard said it; anybody can say what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
