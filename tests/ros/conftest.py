"""Real rclpy nodes in the test's process, on a simulated clock that the test drives, in a domain of their own."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path

import pytest

os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 99)  # apart from other runs on this machine
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
os.environ.setdefault("ROS_LOG_DIR", tempfile.gettempdir())

pytest.importorskip("rclpy", reason="ROS 2 is not here; run `make test`")
pytest.importorskip("foresight_msgs", reason="the ROS workspace is not in the path; run `make test`")

import rclpy
from foresight_nodes import convert, topics
from foresight_nodes.heartbeat import Heartbeat
from foresight_nodes.part import Part
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from foresight.robots.profile import RobotProfile

PATIENCE_S = 90.0  # [s] real time; discovery alone may take 4


def parameters(**values) -> list[Parameter]:
    """Overrides for a node; a dot in a name is written as two underscores."""
    return [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]


class Somebody:
    """Who listens, and waits in real time: beside nodes that keep the time themselves."""

    def __init__(self, name: str) -> None:
        self.node, self.executor = Node(name), SingleThreadedExecutor()

    def listen(self, topic: topics.Topic) -> list:
        heard: list = []
        self.node.create_subscription(topic.type, topic.name, heard.append, topic.publish_qos)
        return heard

    def until(self, holds: Callable[[], object], what: str) -> None:
        begin_s = time.monotonic()
        while not holds():
            assert time.monotonic() - begin_s < PATIENCE_S, f"not within {PATIENCE_S:.0f} s: {what}"
            self.executor.spin_once(timeout_sec=0.02)


class Bench:
    """Nodes on one executor, with a clock that stands still until it is advanced."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.node = Node("bench")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._clock = self.node.create_publisher(Clock, "/clock", 10)
        self._parts: list[Part] = []
        self.heartbeat: Heartbeat | None = None

    def beat(self) -> Heartbeat:
        """From now on a planner's process seems to live."""
        self.heartbeat = Heartbeat(self.node)
        return self.heartbeat

    def add(self, kind: Callable[..., Part], *arguments, **values) -> Part:
        """A node with these parameters, on the bench's clock."""
        return self.adopt(kind(*arguments, parameter_overrides=parameters(use_sim_time=True, **values)))

    def adopt(self, part: Part) -> Part:
        self._parts.append(part)
        self.executor.add_node(part)
        return part

    def configure(self, *parts: Part) -> None:
        for part in parts:
            assert part.trigger_configure() is TransitionCallbackReturn.SUCCESS, f"{part.get_name()} does not configure"
        self.advance(0.01)

    def bring_up(self, *parts: Part) -> None:
        """Configures all, then activates in order, advancing time while one refuses."""
        self.configure(*parts)
        for part in parts:
            self.until(
                lambda part=part: part.trigger_activate() is TransitionCallbackReturn.SUCCESS,
                f"{part.get_name()} activates",
                advance_s=0.02,
            )

    def silence(self, part: Part) -> None:
        """The node no longer serves messages, as if it hung."""
        self.executor.remove_node(part)
        self._parts.remove(part)
        self._silenced = [*getattr(self, "_silenced", []), part]

    def kill(self, part: Part) -> None:
        """The node is gone, as if its process had died."""
        self.executor.remove_node(part)
        self._parts.remove(part)
        part.destroy_node()

    def listen(self, topic: topics.Topic) -> list:
        """All messages of a topic from now on, in a list that grows."""
        heard, qos = [], copy(topic.subscribe_qos)
        qos.depth = max(qos.depth, 50)  # nothing is lost between two spins
        self.node.create_subscription(topic.type, topic.name, heard.append, qos)
        return heard

    def publisher(self, topic: topics.Topic):
        """A publisher that has found its reader."""
        publisher = topic.publisher(self.node)
        self.until(lambda: publisher.get_subscription_count() > 0, f"somebody reads {topic.name}")
        return publisher

    def advance(self, duration_s: float, step_s: float = 0.01) -> None:
        """Lets time pass; after each step every node knows the time and has had its turn."""
        end_s = self.now_s + duration_s
        while self.now_s < end_s - 1e-9:
            self.now_s = min(end_s, self.now_s + step_s)
            self._tell_time()
            for _ in range(2 * len(self._parts) + 2):
                self.executor.spin_once(timeout_sec=0.0)

    def turn_back(self, by_s: float) -> None:
        """The clock goes back, as when a simulation starts again."""
        self.now_s -= by_s
        self.until(
            lambda: (
                self._clock.publish(Clock(clock=convert.stamp(self.now_s)))
                or all(part.now_s() < self.now_s + 1e-6 for part in self._parts)
            ),
            "the nodes hear that the clock went back",
        )

    def _tell_time(self) -> None:
        begin_s, told_s = time.monotonic(), 0.0
        while any(part.now_s() < self.now_s - 1e-6 for part in self._parts):
            if time.monotonic() - told_s > 0.05:  # best effort: a lost tick is told again
                self._clock.publish(Clock(clock=convert.stamp(self.now_s)))
                told_s = time.monotonic()
            self.executor.spin_once(timeout_sec=0.005)
            assert time.monotonic() - begin_s < PATIENCE_S, "the nodes do not hear the clock"

    def until(self, holds: Callable[[], object], what: str, advance_s: float = 0.0) -> None:
        """Spins, and advances time if told to, until something holds."""
        begin_s = time.monotonic()
        while not holds():
            assert time.monotonic() - begin_s < PATIENCE_S, f"not within {PATIENCE_S:.0f} s: {what}"
            if advance_s:
                self.advance(advance_s)
            self.executor.spin_once(timeout_sec=0.01)

    def call(self, service: topics.Service, node: Part, request):
        """The answer of a node's private service."""
        client = self.node.create_client(service.type, f"{node.get_name()}/{service.name.removeprefix('~/')}")
        self.until(client.service_is_ready, f"{service.name} is there")
        answer = client.call_async(request)
        self.until(answer.done, f"{service.name} answers")
        return answer.result()

    def close(self) -> None:
        if self.heartbeat is not None:
            self.heartbeat.stop()
        self.executor.shutdown()
        for node in [*self._parts, *getattr(self, "_silenced", []), self.node]:
            node.destroy_node()
        self._parts.clear()
        gc.collect()  # nodes in reference cycles would stay in the graph, and a new process would hear of all of them first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes talk in real time here, on cores that others may have: what fails is tried twice more, and reported as such."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(scope="module", autouse=True)
def ros() -> Iterator[None]:
    """Each file has its own participant: what one of a hundred tests before has left need not be discovered by a new process."""
    gc.collect()
    gc.freeze()
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, profile: RobotProfile) -> Path:
    """A tiny untrained model for two cameras of 32 by 32 px."""
    return _untrained(tmp_path_factory.mktemp("checkpoint") / "tiny", profile)


@pytest.fixture(scope="session")
def sparing_checkpoint(tmp_path_factory: pytest.TempPathFactory, profile: RobotProfile) -> Path:
    """The same, of a kind that can do without a camera."""
    return _untrained(tmp_path_factory.mktemp("checkpoint") / "sparing", profile, spare_cameras=True)


@pytest.fixture(scope="session")
def gripping_checkpoint(tmp_path_factory: pytest.TempPathFactory, profile: RobotProfile) -> Path:
    """The same, of a kind that moves the gripper."""
    return _untrained(tmp_path_factory.mktemp("checkpoint") / "gripping", profile, gripper=True)


@pytest.fixture(scope="session")
def simulated_checkpoint(tmp_path_factory: pytest.TempPathFactory, profile: RobotProfile) -> Path:
    """The same, for the cameras of the simulation."""
    from sim.scenes import contract

    return _untrained(tmp_path_factory.mktemp("checkpoint") / "simulated", profile, contract=contract(profile))


def _untrained(path: Path, profile: RobotProfile, gripper: bool = False, contract: Contract | None = None, **config) -> Path:
    import torch

    from foresight.contract import TIP, TIP_AND_GRIPPER, CameraContract, Contract
    from foresight.world_model.checkpoint import save
    from foresight.world_model.model import ModelConfig, WorldModel
    from tests.untrained import seeing_the_middle

    torch.manual_seed(0)
    cameras = tuple(CameraContract(name, 64, 48, (8, 0, 48, 48), 32) for name in ("front", "wrist"))
    action = TIP_AND_GRIPPER if gripper else TIP
    contract = contract or Contract(profile.name, profile.joint_names, cameras, action=action)
    model = seeing_the_middle(WorldModel(contract, ModelConfig(16, 8, 16, 1, 16, 8, **config)))
    save(model, path, "# Untrained\n", {})
    return path
