"""The recorder as a ROS node: keeps the last seconds of every topic, and writes them as one folder when the guard stops.

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
from foresight.versions import versions
from foresight_nodes import convert, topics
from foresight_nodes.definitions import definition, qos_as_bag, type_name
from foresight_nodes.part import Part

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
    interval_s: float = 10.0  # [s] at least between two incidents that stops cause
    keep_packs: int = 50  # incidents that stay in the folder; the oldest go when there are more
    memory_max_mb: int = 128  # [MB] of messages at most; images are the first to be shortened
    images_hz: float = 5.0  # of each camera that are kept
    clock_hz: float = 10.0  # of /clock that are kept

    def __post_init__(self) -> None:
        for name in ("window_s", "memory_max_mb", "images_hz", "clock_hz", "keep_packs"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and greater than 0, got {getattr(self, name)}.")
        if not 0 <= self.aftermath_s < self.window_s or self.interval_s < 0:
            raise ValueError(
                f"aftermath_s must lie between 0 and window_s ({self.window_s} s), got {self.aftermath_s}; "
                f"interval_s must be at least 0, got {self.interval_s}."
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
        self.every(0.1, self._step, steady=True)

    def activate(self) -> None:
        self._was, self._stop = None, None

    def deactivate(self) -> None:
        """Writes the incident that waits for its aftermath, if any."""
        if self._stop is not None:
            self._write(self._stop)
        if self._writing is not None:
            self._writing.exception()  # waits
            self._step()

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
            "not_recorded": self._passed_over,
            "last_error": self._error,
        }

    def _forget(self) -> None:
        self._was: GuardState | None = None  # the guard's last word
        self._stop: Stop | None = None  # a stop whose aftermath is awaited
        self._writing: Future | None = None
        self._written = self._passed_over = 0
        self._last = self._error = ""
        self._last_ns = -(10**18)  # steady time of the last incident
        self._kept_ns: dict[str, int] = {}
        self._ahead_ns = time.time_ns() - time.monotonic_ns()  # receive stamps are wall time that never steps

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
        if before is None or not stops(before, msg) or self._stop is not None:
            return
        since_s = (time.monotonic_ns() - self._last_ns) * 1e-9
        if since_s < self._chosen.interval_s:
            self._passed_over += 1
            self.complain(
                f"A stop {since_s:.1f} s after the last incident is not recorded, one is in {self._chosen.interval_s} s."
            )
            return
        self._last_ns = time.monotonic_ns()
        self._stop = Stop(msg.cause or msg.reason, msg.why or msg.detail, convert.seconds(msg.header.stamp), self._now_ns())

    # -- writing ------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        if self._stop is not None and self._now_ns() - self._stop.received_ns >= self._chosen.aftermath_s * 1e9:
            self._write(self._stop)
        if self._writing is not None and self._writing.done():
            self._tell(self._writing)
            self._writing = None

    def _write(self, stop: Stop) -> Future:
        """Hands the window to the writing thread, so that listening goes on meanwhile."""
        self._stop, now_ns = None, self._now_ns()
        messages = self._ring.messages(now_ns)
        about = summary(stop, messages, self._definitions, self._chosen.window_s, self._ring.dropped, self._facts())
        folder = folder_name(Path(self._chosen.folder), datetime.fromtimestamp(stop.received_ns * 1e-9), stop.reason)
        self._writing = self._writer.submit(self._write_and_tidy, folder, messages, self._definitions, about)
        return self._writing

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
        writing = self._write(Stop("snapshot", "A snapshot was requested.", self.now_s(), self._now_ns()))
        error = writing.exception()  # waits
        self._step()
        response.success, response.message = error is None, self._error or self._last
        return response


def stops(before: GuardState, now: GuardState) -> bool:
    """Whether the guard has just begun to bring the arm to rest, by its failsafe's word or because it was deactivated.

    A hold of an arm at rest stops nothing. A guard that was not active let nothing move, so it has nothing to stop; a simulator
    that is reset is no incident.
    """
    if before.state == GuardState.INACTIVE or _stopped(before) or now.cause == "simulator_reset":
        return False
    moving = convert.seconds(now.in_force_until) > convert.seconds(now.header.stamp)
    if now.state == GuardState.INACTIVE:
        return moving
    return _stopped(now) or (moving and _held(now) and not _held(before))


def _stopped(msg: GuardState) -> bool:
    return msg.state == GuardState.STOPPED or msg.action in (GuardState.STOP, GuardState.LATCH)


def _held(msg: GuardState) -> bool:
    return msg.action in (GuardState.HOLD, GuardState.RETREAT)


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
