"""Every subscription and service of every node gets messages that nobody should send. No node falls, none forgets its work.

make nightly                              ten minutes of it (FORESIGHT_FUZZ_S seconds for all nodes together, else one minute)
"""

from __future__ import annotations

import importlib
import inspect
import io
import os
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import foresight_nodes
import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from foresight_bringup.graph import Arguments
from foresight_bringup.up import Console, Group, View, resolve
from foresight_msgs.msg import Belief as BeliefMsg
from foresight_msgs.msg import Bond, GraphState, GuardState
from foresight_msgs.msg import Observation as ObservationMsg
from foresight_nodes import convert, topics
from foresight_nodes.crash_matrix import Onlooker
from foresight_nodes.full_speed_planner import FullSpeedPlanner
from foresight_nodes.guard_node import GuardNode
from foresight_nodes.lifecycle_manager import LifecycleManager
from foresight_nodes.mock_driver_node import MockDriverNode
from foresight_nodes.mock_driver_node import test_pattern as picture
from foresight_nodes.part import Part
from foresight_nodes.perception_node import PerceptionNode
from foresight_nodes.planner_node import PlannerNode
from foresight_nodes.recorder_node import RecorderNode
from foresight_nodes.run_episodes import Runner
from foresight_nodes.sim_node import DEAF_S, SimNode
from foresight_nodes.soak import Ear
from foresight_nodes.stop_trials import Lane
from foresight_nodes.world_model_node import WorldModelNode
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.serialization import serialize_message
from rclpy.subscription import Subscription
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, Float64, Header
from std_srvs.srv import Trigger

from foresight.control.motion import joint_trajectory, start_of
from foresight.control.trajectory import hold, sample
from foresight.data import Belief, Observation, RobotState
from foresight.evaluation.guard_judge import Judge
from foresight.incidents.pack import Pack
from foresight.robots.profile import profile_text
from foresight.safety.config import GuardConfig
from foresight.safety.decision import Setup
from foresight.safety.failsafe import FailsafeState
from foresight.safety.obstacles import TABLE, to_text
from foresight.world_model.checkpoint import fingerprint, read_contract
from tests.judge import Obeying, faults, limits_broken, step
from tests.motions import MIDDLE, minimum_jerk, plan_towards
from tests.ros.conftest import Bench, parameters
from tests.ros.fuzz import LENGTHS, messages, mutated, over_the_wire, random_message

NODES = {
    "guard": GuardNode,
    "gripping_guard": GuardNode,
    "perception": PerceptionNode,
    "world_model": WorldModelNode,
    "planner": PlannerNode,
    "sim": SimNode,
    "driver": MockDriverNode,
    "recorder": RecorderNode,
    "manager": LifecycleManager,
}
BENCHES = {Onlooker, FullSpeedPlanner, Runner, Ear, Lane}  # part of no graph: they end with an error on what makes no sense
COUNT = 120  # messages for each subscription at least
SECONDS = float(os.environ.get("FORESIGHT_FUZZ_S", "60")) / len(NODES)  # for each node at least
CONTROLLER = topics.trajectory("joint_trajectory_controller/joint_trajectory")
GRIPPER, KNUCKLE = "gripper_controller/joint_trajectory", ("robotiq_85_left_knuckle_joint",)
OPENING = 0.5  # of the gripper, as measured
SEED = int(os.environ.get("FORESIGHT_FUZZ_SEED", "0"))
pytestmark = pytest.mark.timeout(120 + 4 * SECONDS)


class Fuzzed:
    """A node under fire: what it publishes is kept, `valid` is what it should be sent, `works` whether it still does its work."""

    def __init__(self, bench: Bench, node: Part | LifecycleManager) -> None:
        self.bench, self.node, self.published = bench, node, []
        if isinstance(node, Part):
            send = node.publish
            node.publish = lambda publisher, message: (
                self.published.append((publisher.topic_name, message)),
                send(publisher, message),
            )
        self.valid: dict[str, Callable[[], Any]] = {}
        self.works: Callable[[], bool] = lambda: True
        self.before: Callable[[], None] = lambda: None  # each message
        self.after: Callable[[str, Any], None] = lambda topic, message: None

    def fire(self, rng: np.random.Generator) -> int:
        """All subscriptions in turn, until each had its share; the number of messages. Each has a valid message to spoil."""
        sent, began_s = 0, time.monotonic()
        while True:
            for subscription in [s for s in self.node.subscriptions if not _sets_the_clock(s)]:
                valid = next(make for name, make in self.valid.items() if subscription.topic_name.endswith(name))
                for message in messages(subscription.msg_type, valid, rng, COUNT):
                    self.before()
                    subscription.callback(_raw(message, rng) if subscription.raw else message)
                    self.after(subscription.topic_name, message)
                    sent += 1
                assert self.works(), f"{self.node.get_name()} no longer works after fuzzing {subscription.topic_name}"
            if time.monotonic() - began_s >= SECONDS:
                return sent

    def jump(self, rng: np.random.Generator) -> None:
        """Clocks that go anywhere, and then right again: the node must do its work as before."""
        for subscription in filter(_sets_the_clock, self.node.subscriptions):
            for message in messages(Clock, lambda: Clock(clock=convert.stamp(self.bench.now_s)), rng, COUNT // 4):
                subscription.callback(message)
            subscription.callback(Clock(clock=convert.stamp(self.bench.now_s)))

    def ask(self, rng: np.random.Generator) -> None:
        """Services with anything in their requests; those that change the lifecycle or parameters are rclpy's own."""
        own = [
            s
            for s in self.node.services
            if not any(word in s.srv_name for word in ("parameter", "state", "transition", "type_desc", "_action"))
        ]
        for service in own:
            for _ in range(20):
                request = over_the_wire(random_message(service.srv_type.Request, rng))
                answer = service.callback(request, service.srv_type.Response())
                over_the_wire(answer)


def _raw(message: Any, rng: np.random.Generator) -> bytes:
    """The message's bytes, now and then not all of them."""
    data = serialize_message(message)
    return data[: rng.integers(len(data))] if rng.random() < 0.1 else data


def _sets_the_clock(subscription: Subscription) -> bool:
    return subscription.topic_name == "/clock" and not subscription.raw


@pytest.fixture
def guard(bench: Bench, profile, kinematics, start: np.ndarray) -> Fuzzed:
    """An active guard; all that it forwards is judged, whatever was sent to it."""
    return fuzzed_guard(bench, profile, kinematics, start)


@pytest.fixture
def gripping_guard(bench: Bench, profile, kinematics, start: np.ndarray) -> Fuzzed:
    """The same, moving the gripper."""
    return fuzzed_guard(bench, profile, kinematics, start, gripper=True)


def fuzzed_guard(bench: Bench, profile, kinematics, start: np.ndarray, **given) -> Fuzzed:
    driver = {f"{name}_topic": f"driver/{name}" for name in ("controller_active", "program_running", "speed_scaling")}
    node = bench.add(GuardNode, robot="ur5e", guard__adopt_s=1e-3, **driver, **given)  # the clock hardly goes on here
    bench.bring_up(node)
    fuzzed, q = Fuzzed(bench, node), [start]
    made: list = []

    def state() -> Any:
        state = RobotState(bench.now_s, q[0], np.zeros(6), OPENING)
        return convert.robot_state_to_msg(state, profile.joint_names, gripper=profile.gripper)

    def plan() -> Any:
        """A legal plan that joins what is in force; made anew now and then, since that takes time."""
        key = id(node._guard.in_force), bench.now_s
        if not made or made[0] != key:
            now_s, in_force = bench.now_s, node._guard.in_force
            tip = kinematics.tip(q[0] if in_force is None else sample(in_force, now_s - 0.1)[0])
            begin = start_of(in_force, now_s - 0.1, now_s + 0.06, 0.1, kinematics)
            planned = plan_towards(MIDDLE + np.array([0.0, 0.2, 0.0]), tip, begin, now_s - 0.1)
            motion = joint_trajectory(planned, in_force, RobotState(now_s, q[0], np.zeros(6)), now_s + 0.06, kinematics, profile)
            if given:
                closed = np.full(len(planned.tip_velocity), float(len(fuzzed.published) % 2))
                planned = replace(planned, closed=closed, grip_force_n=profile.gripper.force_cap)
            made[:] = [key, convert.plan_to_msg(planned, motion, profile.joint_names, now_s - 0.01, 7, "base_link")]
        return made[1]

    def fresh() -> None:
        """The arm is where it was told to be, nothing is stopped or in force."""
        node._failsafe = FailsafeState()  # a latch outlives _forget, and so does a motion
        node._forget()
        node._guard.in_force = None
        node._guard.forget_command()
        node._hear_driver(controller_active=True, program_running=True, speed_scaling=100.0)
        node._on_joint_state(state())
        node._on_heartbeat(stamped())

    def stamped() -> Header:
        return convert.header(bench.now_s)

    def works() -> bool:
        fresh()
        accepted = node._accepted
        node._on_plan(over_the_wire(plan()))
        return node._accepted == accepted + 1

    def before() -> None:
        if node._guard.in_force is not None and len(fuzzed.published) % 3 == 0:
            fresh()
        node._on_joint_state(state())
        doing[0] = node._guard.in_force

    judge, doing = Judge(profile.name, kinematics), [None]  # what the controller executes when the message comes
    judged, ahead = [0], profile.gripper.force_cap / profile.gripper.stiffness

    def after(topic: str, message: Any) -> None:
        if given and topic.endswith("/plan"):  # its motion begins, and with it the gripper's
            node._on_heartbeat(stamped())
            bench.advance(0.02)
            node._on_joint_state(state())
        new = [(name, m) for name, m in fuzzed.published[judged[0] :] if name.endswith("joint_trajectory")]
        commands, grips = ([m for name, m in new if ("gripper" in name) is gripper] for gripper in (False, True))
        judged[0] = len(fuzzed.published)
        for grip in grips:
            ends = convert.trajectory_from_msg(grip, (profile.gripper.joint,), bench.now_s)
            opening = min(OPENING, node._monitor.state.opening)  # measured when it was sent, which a message may have changed
            assert given and (ends.q >= 0).all() and ends.q[-1, 0] <= 0.8 * (1 - opening + ahead) + 1e-9
        for i, command in enumerate(commands):
            motion = convert.trajectory_from_msg(command, profile.joint_names, bench.now_s)
            wrong = limits_broken(motion, judge)
            if i == 0 and doing[0] is not None and len(motion.times_s) > 1:
                wrong += Obeying(judge, doing[0]).receive(motion, bench.now_s)
            assert wrong == [], f"forwarded {wrong} after a message on {topic}: {message}"

    fuzzed.valid = {
        "joint_states": state,
        "plan": plan,
        "heartbeat": stamped,
        "observation": lambda: ObservationMsg(header=stamped()),
        "belief": lambda: BeliefMsg(header=stamped()),
        "diagnostics": lambda: DiagnosticArray(status=[DiagnosticStatus(name="/perception", level=DiagnosticStatus.OK)]),
        "graph_state": lambda: GraphState(active=True),
        "controller_active": lambda: Bool(data=True),
        "program_running": lambda: Bool(data=True),
        "speed_scaling": lambda: Float64(data=100.0),
    }
    fuzzed.works, fuzzed.before, fuzzed.after = works, before, after
    return fuzzed


@pytest.fixture
def perception(bench: Bench, checkpoint: Path, profile) -> Fuzzed:
    node = bench.add(PerceptionNode, robot="ur5e", checkpoint=str(checkpoint))
    bench.configure(node)
    fuzzed, stamp_s = Fuzzed(bench, node), [bench.now_s]

    def state() -> Any:
        return convert.robot_state_to_msg(RobotState(stamp_s[0], np.arange(6) / 10, np.zeros(6)), profile.joint_names)

    def image() -> Any:
        return convert.image_to_msg(picture(48, 64, stamp_s[0]), stamp_s[0], "front_optical_frame")

    def info() -> Any:
        return convert.camera_info_to_msg(np.eye(3), 64, 48, stamp_s[0], "front_optical_frame")

    def frames() -> None:
        for name, message in (("joint_states", state()), ("camera_info", info()), ("image_raw", image())):
            for subscription in node.subscriptions:
                if subscription.topic_name.endswith(name):
                    subscription.callback(message)

    def works() -> bool:
        """After at most three good sets of frames there is an observation of the last."""
        for _ in range(3):
            bench.advance(0.2, step_s=0.02)
            stamp_s[0] = bench.now_s
            frames()
        return any(
            name.endswith("/observation") and convert.seconds(m.header.stamp) == pytest.approx(bench.now_s)
            for name, m in fuzzed.published[-40:]
        )

    frames()
    assert node.trigger_activate().name == "SUCCESS"
    fuzzed.valid, fuzzed.works = {"joint_states": state, "image_raw": image, "camera_info": info}, works
    return fuzzed


@pytest.fixture
def world_model(bench: Bench, checkpoint: Path) -> Fuzzed:
    node, contract = bench.add(WorldModelNode, robot="ur5e", checkpoint=str(checkpoint)), read_contract(checkpoint)
    bench.bring_up(node)
    fuzzed, count = Fuzzed(bench, node), [0]

    def observation() -> Any:
        count[0] += 1
        images = np.random.default_rng(count[0]).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        seen = Observation(bench.now_s, images, np.arange(6.0), np.zeros(6), np.array([0.4, 0.0, 0.2]), np.zeros(3))
        return convert.observation_to_msg(seen, contract, "base_link")

    def works() -> bool:
        before = len(fuzzed.published)
        bench.now_s += 0.1
        node._on_observation(over_the_wire(observation()))
        beliefs = [m for name, m in fuzzed.published[before:] if name.endswith("/belief")]
        return bool(beliefs) and bool(np.isfinite(beliefs[-1].latent).all())

    fuzzed.valid, fuzzed.works = {"observation": observation}, works
    return fuzzed


@pytest.fixture
def planner(bench: Bench, checkpoint: Path, profile, kinematics, start: np.ndarray) -> Fuzzed:
    """A planner that pursues a goal, so that beliefs become plans."""
    quick = {"planner__samples": 6, "planner__elites": 2, "planner__noisy_per_aim": 0, "planner__deadline_s": 60.0}
    node = bench.add(PlannerNode, robot="ur5e", checkpoint=str(checkpoint), **quick)
    bench.bring_up(node)
    fuzzed, client = Fuzzed(bench, node), ActionClient(bench.node, topics.PURSUE[1], topics.PURSUE[0])
    bench.until(client.server_is_ready, "the planner offers pursue")
    latent = np.random.default_rng(0).normal(size=16).astype(np.float32)
    proprio = np.concatenate([start, kinematics.tip(start), np.zeros(3)]).astype(np.float32)

    def belief() -> Any:
        return convert.belief_to_msg(Belief(bench.now_s - 0.05, fingerprint(checkpoint), latent, proprio, 1.0), "base_link")

    def state() -> Any:
        return GuardState(header=convert.header(bench.now_s), state=GuardState.ACTIVE, in_force=False)

    def command() -> Any:
        return convert.trajectory_to_msg(minimum_jerk(start, np.full(6, 0.02), bench.now_s + 0.05), profile.joint_names)

    def setup() -> Any:
        told = Setup(profile_text("ur5e"), GuardConfig(), "", 0.045, to_text(TABLE, ()))
        return convert.setup_to_msg(told, profile.name, {}, bench.now_s)

    def pursuing() -> None:
        if node._chase is None:
            goal = topics.PURSUE[1].Goal(use_tip=True, time_limit_s=1e6)
            goal.tip.position.x, goal.tip.position.y, goal.tip.position.z = 0.5, 0.2, 0.2
            call = client.send_goal_async(goal)
            bench.until(call.done, "the goal is answered")
            assert call.result().accepted
            bench.until(lambda: node._chase is not None, "the goal is pursued")

    def works() -> bool:
        node._forget()
        node._on_guard_setup(setup())
        pursuing()
        before = len(fuzzed.published)
        node._on_belief(over_the_wire(belief()))
        return any(name.endswith("/plan") for name, _ in fuzzed.published[before:])

    fuzzed.valid, fuzzed.works, fuzzed.before = (
        {"belief": belief, "guard_state": state, "guard_setup": setup, "joint_trajectory": command},
        works,
        pursuing,
    )
    return fuzzed


@pytest.fixture
def sim(bench: Bench, profile) -> Fuzzed:
    node = bench.add(SimNode, robot="ur5e")
    bench.bring_up(node)
    fuzzed = Fuzzed(bench, node)

    def command() -> Any:
        q = node._simulation.state().q
        return convert.trajectory_to_msg(minimum_jerk(q, np.full(6, 0.02), node._clock_s() + 0.05), profile.joint_names)

    def works() -> bool:
        node._reset("reach", 0, "none")
        node._run_until(node._simulation.time_s + DEAF_S + 0.01)  # times are whole periods to a rounding error
        node._on_trajectory(over_the_wire(command()))
        before = node._simulation.time_s
        node._run_until(before + 0.02)
        return node._commands == 1 and node._simulation.time_s > before and bool(np.isfinite(node._simulation.state().q).all())

    def grip() -> Any:
        return convert.trajectory_to_msg(minimum_jerk(np.zeros(1), np.full(1, 0.8), node._clock_s() + 0.05), KNUCKLE)

    fuzzed.valid = {GRIPPER: grip, "joint_trajectory": command, "guard_state": GuardState}
    fuzzed.works = works
    return fuzzed


@pytest.fixture
def driver(bench: Bench, profile) -> Fuzzed:
    node = bench.add(MockDriverNode, robot="ur5e", image_width=64, image_height=48)
    bench.bring_up(node)
    fuzzed = Fuzzed(bench, node)

    def command() -> Any:
        return convert.trajectory_to_msg(minimum_jerk(profile.home, np.full(6, 0.02), bench.now_s + 0.05), profile.joint_names)

    def works() -> bool:
        before = node.report()["accepted"]
        node._on_trajectory(over_the_wire(command()))
        bench.advance(0.02)
        return node.report()["accepted"] == before + 1

    def grip() -> Any:
        return convert.trajectory_to_msg(minimum_jerk(np.full(1, 0.8), np.full(1, -0.8), bench.now_s + 0.05), KNUCKLE)

    fuzzed.valid, fuzzed.works = {GRIPPER: grip, "joint_trajectory": command}, works
    return fuzzed


@pytest.fixture
def recorder(bench: Bench, profile, tmp_path: Path) -> Fuzzed:
    """A recorder in little memory, which writes an incident whenever it hears of a stop."""
    limits = {"memory_max_mb": 1, "keep_packs": 3, "aftermath_s": 0.001, "interval_s": 0.0, "images_hz": 1e3}
    node = bench.add(RecorderNode, robot="ur5e", folder=str(tmp_path), **limits)
    bench.bring_up(node)
    fuzzed = Fuzzed(bench, node)

    def works() -> bool:
        """What it holds, it writes, and that can be read."""
        answer = node._on_snapshot(Trigger.Request(), Trigger.Response())
        assert answer.success, answer.message
        told = Pack(Path(answer.message)).summary["messages"]
        return set(told) == set(node._kinds) and len(list(tmp_path.iterdir())) <= limits["keep_packs"]

    fuzzed.valid, fuzzed.works = dict(node._kinds), works
    fuzzed.after = lambda topic, message: node._step()
    return fuzzed


@pytest.fixture
def manager(bench: Bench) -> Iterator[Fuzzed]:
    """It hears every node's bond and diagnostics, and anybody's; it still answers and knows who lives."""
    node = LifecycleManager(parameter_overrides=parameters(node_names=["guard"]))
    bench.executor.add_node(node)
    fuzzed = Fuzzed(bench, node)

    def bond() -> Bond:
        return Bond(node="/guard", pid=7)

    def works() -> bool:
        node._on_bond(over_the_wire(bond()))
        known = node._bonds.alive("/guard", time.monotonic()) and node._bonds.pid("/guard") == 7
        answer = node._on_is_active(Trigger.Request(), Trigger.Response())
        return known and not answer.success and node.exit_code is None

    fuzzed.valid = {
        "bond": bond,
        "guard_state": GuardState,
        "diagnostics": lambda: DiagnosticArray(status=[DiagnosticStatus(name="/guard", level=DiagnosticStatus.OK)]),
    }
    fuzzed.works = works
    fuzzed.after = lambda topic, message: (node._step(), node._announce())
    yield fuzzed
    node.destroy_node()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A tiny model is quicker on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", NODES)
def test_no_message_ends_a_node_or_gets_past_the_guard(name: str, request: pytest.FixtureRequest, one_thread: None):
    """After each barrage the node still answers and does its work; what the guard forwarded meanwhile keeps every limit."""
    fuzzed: Fuzzed = request.getfixturevalue(name)
    assert type(fuzzed.node) is NODES[name]
    rng = np.random.default_rng([SEED, sum(map(ord, name))])
    assert fuzzed.works()
    sent = fuzzed.fire(rng)
    fuzzed.ask(rng)
    fuzzed.jump(rng)
    fuzzed.bench.advance(1.2, step_s=0.02)  # timers run, and diagnostics are made of what has come
    assert fuzzed.works() and sent >= COUNT
    print(f"{name}: {sent} messages, {len(fuzzed.published)} published")
    if name in ("guard", "gripping_guard"):  # else nothing would have been judged
        assert sum(topic.endswith("joint_trajectory") for topic, _ in fuzzed.published) > 5
        assert any(topic.endswith(GRIPPER) for topic, _ in fuzzed.published) == (name == "gripping_guard")
        told = {message.reason for topic, message in fuzzed.published if topic.endswith("guard_state")}
        assert len(told - {"ok"}) > 3, told


def test_no_message_ends_who_watches_the_processes():
    """`foresight up` hears the manager name frozen processes, and ends none that it did not start."""
    graph, rng = resolve("sim", Arguments()), np.random.default_rng(SEED)
    view, group = View(graph), Group(graph, Console(io.StringIO(), False))
    for message in messages(GraphState, lambda: GraphState(active=True, frozen=["guard"], frozen_pid=[os.getpid()]), rng, COUNT):
        view._on_graph_state(message)
        group.end_frozen(view.frozen)
    view._on_graph_state(over_the_wire(GraphState(active=True)))
    assert view.active and not view.frozen
    view.close()


def test_every_subscription_of_every_node_is_fired_at():
    """Whoever subscribes to something, in any module of the nodes, is in the table of what is fuzzed, or a bench."""
    modules = [importlib.import_module(f"foresight_nodes.{m.name}") for m in pkgutil.iter_modules(foresight_nodes.__path__)]
    kinds = {kind for module in modules for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, Node)}
    own = [kind for kind in kinds if kind.__module__.startswith("foresight_nodes.")]
    subscribes = re.compile(r"\.subscription\(self|self\.create_subscription\(")
    hearing = {kind for kind in own if subscribes.search(inspect.getsource(kind))}
    assert hearing == {*NODES.values(), *BENCHES}


# -- the fuzzer itself ---------------------------------------------------------------------------------------------


def kinds() -> Iterator[type]:
    from foresight_msgs import msg

    yield from (kind for kind in vars(msg).values() if hasattr(kind, "SLOT_TYPES"))


def test_the_fuzzer_makes_every_message_type_and_reaches_every_field():
    """Of each type, 60 random messages survive the wire, and each field takes more than one value."""
    rng = np.random.default_rng(1)
    for kind in kinds():
        made = [over_the_wire(random_message(kind, rng)) for _ in range(60)]
        for name in kind.get_fields_and_field_types():
            assert len({str(getattr(message, name)) for message in made}) > 1, f"{kind.__name__}.{name}"


def test_a_mutation_changes_something_and_leaves_the_original(profile):
    """And it is the same for the same seed."""
    original = convert.robot_state_to_msg(RobotState(1.0, profile.home, np.zeros(6)), profile.joint_names)
    kept, changed = str(original), 0
    for seed in range(50):
        twins = [str(mutated(original, np.random.default_rng(seed), 2)) for _ in range(2)]
        assert twins[0] == twins[1]
        changed += twins[0] != kept
    assert str(original) == kept and changed > 40 and max(LENGTHS) == 100


def test_the_judges_see_each_fault(profile, kinematics, start: np.ndarray):
    """A legal motion has none; a faster, a shorter, an unfinished, a displaced and a broken one are each named by both judges.

    Jerk only by the one that the guard's commands are given to.
    """
    judge, legal = Judge(profile.name, kinematics), minimum_jerk(start, np.full(6, 0.05), 0.0, 0.8)
    assert faults(legal, profile, kinematics) == [] and step(legal, minimum_jerk(start, np.zeros(6), 0.0), None) == []
    assert limits_broken(legal, judge) == [] and limits_broken(hold(start, 0.0), judge) == []
    spoiled = {
        ("acceleration", "acceleration"): minimum_jerk(start, np.full(6, 0.2), 0.0, 0.2),
        ("tip", "tip_speed"): minimum_jerk(start, np.array([0.5, 0, 0, 0, 0, 0]), 0.0, 1.0),
        ("ends at", "rest"): replace(legal, times_s=legal.times_s[:6], q=legal.q[:6], dq=legal.dq[:6], ddq=legal.ddq[:6]),
        ("position", "position"): minimum_jerk(np.r_[6.2, start[1:]], np.r_[0.2, np.zeros(5)], 0.0, 2.0),
        ("not finite", "inf"): replace(legal, q=legal.q * np.nan),
        ("times", "times"): replace(legal, times_s=legal.times_s[::-1].copy()),
    }
    for (word, limit), motion in spoiled.items():
        assert any(word in fault for fault in faults(motion, profile, kinematics)), word
        assert any(limit in fault for fault in limits_broken(motion, judge)), limit
    jerky = minimum_jerk(start, np.r_[np.zeros(5), 0.005], 0.0, 0.08)
    assert faults(jerky, profile, kinematics) == [] and [fault.split()[0] for fault in limits_broken(jerky, judge)] == ["jerk"]
    assert step(legal, minimum_jerk(start + 0.01, np.zeros(6), 0.0), None) and step(None, legal, start + 0.1)
    there, beside = (Obeying(judge, hold(at, 0.0)).receive(legal, 0.0) for at in (start, start + 0.01))
    assert there == [] and beside
