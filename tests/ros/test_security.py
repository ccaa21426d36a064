"""Who may do what: the committed policies against the running nodes, and what is said where there is no security."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
import rclpy
from foresight_bringup import security
from foresight_bringup.graph import PARTS, Arguments, graph
from foresight_msgs import action, msg, srv
from foresight_nodes import policies, topics
from foresight_nodes.access import LAUNCHER, RESET, STOP, Access, table
from foresight_nodes.guard_node import GuardNode
from foresight_nodes.lifecycle_manager import LifecycleManager
from foresight_nodes.mock_driver_node import MockDriverNode
from foresight_nodes.perception_node import PerceptionNode
from foresight_nodes.planner_node import PlannerNode
from foresight_nodes.recorder_node import RecorderNode
from foresight_nodes.run_episodes import Runner
from foresight_nodes.sim_node import SimNode
from foresight_nodes.world_model_node import WorldModelNode
from rclpy.node import Node

from foresight.ros_environment import environment
from tests.ros.conftest import Bench, parameters

POLICIES = Path(__file__).resolve().parents[2] / "ros_ws/src/foresight_bringup/security/policies.xml"
CONTROLLER = "/joint_trajectory_controller/joint_trajectory"
NODES = {"guard", "sim", "driver", "perception", "world_model", "planner", "recorder", "lifecycle_manager"}
FOR_ALL = Access(requests=(f"/{STOP}",))  # granted to every node, whether it uses it or not


@pytest.fixture(scope="module")
def granted() -> dict[str, dict[str, Access]]:
    return policies.parse(POLICIES.read_text())


def used(observer: Node, node: str) -> Access:
    """What the graph says that a node has, actions told apart from the topics and services that they are made of."""
    published, subscribed, served, requested = (
        {name for name, _ in look(node, "/")}
        for look in (
            observer.get_publisher_names_and_types_by_node,
            observer.get_subscriber_names_and_types_by_node,
            observer.get_service_names_and_types_by_node,
            observer.get_client_names_and_types_by_node,
        )
    )
    executed, called = ({n.split("/_action/")[0] for n in names if "/_action/" in n} for names in (served, requested))
    plain = [tuple(sorted(n for n in names if "/_action/" not in n)) for names in (published, subscribed, served, requested)]
    return Access(*plain, tuple(sorted(executed)), tuple(sorted(called)))


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A context and a domain of its own: whoever died in tests before may still be in the old one's memory of the graph."""
    rclpy.shutdown()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(101 + os.getpid() % 99))
    rclpy.init()
    yield
    monkeypatch.undo()
    rclpy.shutdown()
    rclpy.init()


@pytest.fixture
def everybody(afresh: None, bench: Bench, checkpoint: Path) -> Iterator[Bench]:
    """Every node that some situation starts, configured, on one executor."""
    given = {
        name: {key: value for key, value in process.parameters if key != "use_sim_time"}
        for process in graph("sim", Arguments(checkpoint=str(checkpoint))).processes
        for name in process.nodes
    }
    planner = {**given["planner"], "planner__samples": 6, "planner__elites": 2, "planner__policy": "random"}
    kinds = {
        "guard": GuardNode,
        "sim": SimNode,
        "perception": PerceptionNode,
        "world_model": WorldModelNode,
        "recorder": RecorderNode,
    }
    parts = [bench.add(kind, **given[name]) for name, kind in kinds.items()]
    parts += [bench.add(PlannerNode, **planner), bench.add(MockDriverNode, robot="ur5e")]
    names = [part.get_name() for part in parts if part.get_name() != "recorder"]
    manager = LifecycleManager(parameter_overrides=parameters(use_sim_time=True, node_names=names, autostart=False))
    bench.executor.add_node(manager)
    bench.configure(*parts)
    yield bench
    manager.destroy_node()


def test_the_policies_allow_what_the_running_nodes_use_and_nothing_else(everybody: Bench, granted):
    """Topic by topic, service by service, action by action, for every node; the one thing beyond use is to stop the guard."""
    allowed = {node: access for nodes in granted.values() for node, access in nodes.items() if node in NODES}
    everybody.until(lambda: set(everybody.node.get_node_names()) >= NODES, "all nodes are seen")
    try:
        everybody.until(lambda: not any(_differences(used(everybody.node, n), _but_stop(allowed[n])) for n in NODES), "agreement")
    except AssertionError:
        differences = {name: _differences(used(everybody.node, name), _but_stop(allowed[name])) for name in NODES}
        pytest.fail("\n".join(f"{name}: {what}. See access.py." for name, what in differences.items() if what))


def _differences(found: Access, allowed: Access) -> str:
    """Empty when there are none; else what is used and not allowed, and what is allowed and not used."""
    words = []
    for f in fields(Access):
        have, may = set(getattr(found, f.name)), set(getattr(allowed, f.name))
        words += [f"{f.name} {name} without permission" for name in sorted(have - may)]
        words += [f"may {f.name} {name} and does not" for name in sorted(may - have)]
    return "; ".join(words)


def _but_stop(allowed: Access) -> Access:
    return replace(allowed, requests=tuple(name for name in allowed.requests if name not in FOR_ALL.requests))


def test_a_permission_too_many_and_one_too_few_are_both_seen():
    """The comparison reports either direction."""
    has, may = Access(publishes=("/a", "/b")), Access(publishes=("/b", "/c"))
    assert (
        _differences(has, may) == "publishes /a without permission; may publishes /c and does not"
        and _differences(has, has) == ""
    )


def test_the_committed_policies_are_what_the_generator_makes(granted):
    """Run `foresight security --out ros_ws/src/foresight_bringup/security/policies.xml` after a change of the graph."""
    assert POLICIES.read_text() == policies.policies()
    assert granted == {p: {n.lstrip("/"): a for n, a in nodes.items()} for p, nodes in policies.grants().items()}


def test_composition_grants_each_part_what_it_has_alone(granted):
    """The process that holds three nodes may do what the three may do, node by node."""
    assert granted["/foresight/composed"] == {name: granted[f"/foresight/{name}"][name] for name in PARTS}


@pytest.mark.parametrize("controller", [CONTROLLER, "/gripper_controller/joint_trajectory"])
def test_only_the_guard_may_publish_to_the_controller(granted, controller: str):
    """No other enclave, the operator's included, can send the arm or the gripper a trajectory."""
    senders = {path for path, nodes in granted.items() for access in nodes.values() if controller in access.publishes}
    assert senders == {"/foresight/guard"}


def test_only_an_operator_may_reset_and_everybody_may_stop(granted):
    """Reset is the operator's; a stop can come from any process of the graph."""
    asking = lambda name: {p for p, nodes in granted.items() for access in nodes.values() if name in access.requests}  # noqa: E731
    assert asking(f"/{RESET}") == {"/foresight/operator"} and asking(f"/{STOP}") == set(granted)


def test_nobody_may_set_parameters_or_answer_for_another(granted):
    """Requests to set parameters are granted to no enclave; a name `node/...` is served by that node alone."""
    for nodes in granted.values():
        for node, access in nodes.items():
            assert not [name for name in access.requests if "set_parameters" in name]
            assert all(name.startswith(f"/{node}/") for name in access.serves)


def test_plans_beliefs_and_observations_have_one_source_each(granted):
    """Apart from composition, which puts the three parts into one process, each link of the line has one sender."""
    for topic, sender in (
        ("/plan", "planner"),
        ("/belief", "world_model"),
        ("/observation", "perception"),
        ("/guard_state", "guard"),
    ):
        nodes = {node for nodes in granted.values() for node, access in nodes.items() if topic in access.publishes}
        assert nodes == {sender}


def test_every_process_has_its_enclave_and_is_told_of_it(granted):
    """In all situations the command line of each process names an enclave that the policies know."""
    for situation, given in (("sim", {}), ("robot", {"use_mock_hardware": "true"}), ("stack", {"use_composition": "true"})):
        for process in graph(situation, Arguments(**given)).processes:
            words = process.ros_arguments()
            assert words[words.index("--enclave") + 1] == process.enclave
            assert set(granted[process.enclave]) == set(process.nodes)


def test_the_episode_runner_and_the_launcher_do_nothing_they_may_not(afresh: None, bench: Bench, granted):
    """Both stand outside the graph, with permissions of their own. In a domain where nobody else was an episode runner."""
    runner = Runner(lambda: None, ("front", "wrist"))
    try:
        bench.until(lambda: used(bench.node, "episode_runner").requests, "the runner's clients are seen")
        bench.until(lambda: used(bench.node, "episode_runner").calls, "the runner's action client is seen")
        allowed = granted["/foresight/operator"]["episode_runner"]
        assert "without permission" not in _differences(used(bench.node, "episode_runner"), allowed)
    finally:
        runner.close()
    assert granted["/foresight/launcher"][LAUNCHER].requests == ("/guard/stop",)


def test_names_follow_the_arguments():
    """A namespace, other cameras and another controller appear in the policies, and the old names do not."""
    given = Arguments(namespace="left", front_camera="/cam/color", controller_topic="/arm/scaled/joint_trajectory")
    made = policies.grants(given)
    guard, perception = made["/foresight/left/guard"]["guard"], made["/foresight/left/perception"]["perception"]
    assert "/arm/scaled/joint_trajectory" in guard.publishes and "/left/plan" in guard.subscribes
    assert {"/cam/color/image_raw", "/left/wrist/image_raw"} <= set(perception.subscribes)
    assert "/left/front/image_raw" not in perception.subscribes
    assert "/left/gripper_controller/joint_trajectory" in guard.publishes
    other = policies.grants(Arguments(gripper_topic="/grip/joint_trajectory"))
    assert "/grip/joint_trajectory" in other["/foresight/guard"]["guard"].publishes
    assert "/gripper_controller/joint_trajectory" in other["/foresight/sim"]["sim"].subscribes
    none = policies.grants(Arguments(robot="fr3"))
    told = policies.grants(Arguments(robot="fr3", program_running_topic="/p", controller_active_topic="/c"))
    assert {"/p", "/c"} <= set(told["/foresight/guard"]["guard"].subscribes)
    assert "/c" not in none["/foresight/guard"]["guard"].subscribes
    assert not [n for nodes in none.values() for a in nodes.values() for n in (*a.publishes, *a.subscribes) if "gripper" in n]
    assert "/left/guard/reset" in made["/foresight/left/operator"]["/_ros2cli_*"].requests


@pytest.mark.parametrize("out", ["{}", "{}/file/policies.xml"])
def test_policies_that_cannot_be_written_get_one_line(tmp_path: Path, capsys: pytest.CaptureFixture, out: str):
    """A folder, or a name below a file; the same for a namespace that ROS 2 does not take."""
    (tmp_path / "file").touch()
    assert policies.main(["--out", out.format(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert policies.main(["namespace:=bad name!"]) == 2
    told = capsys.readouterr().err
    assert "Namespace 'bad name!' is none" in told and len(told.splitlines()) == 1


def test_a_node_without_declared_access_is_named():
    """Whoever adds a node is told where its permissions belong."""
    with pytest.raises(ValueError, match=r"No access is declared for heater\. .*access\.py"):
        table(["guard", "heater"])


# -- where security is asked for and cannot be had -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"ROS_SECURITY_ENABLE": "1"}, "is '1', which ROS 2 takes for off"),
        ({}, "ROS_SECURITY_KEYSTORE is not set"),
        ({"ROS_SECURITY_KEYSTORE": "{empty}"}, "holds no folder enclaves"),
        ({"ROS_SECURITY_KEYSTORE": "{keys}"}, "No keys for /foresight/planner"),
        ({"ROS_SECURITY_KEYSTORE": "{keys}", "ROS_SECURITY_ENCLAVE_OVERRIDE": "/x"}, "each process has its own"),
        ({"ROS_SECURITY_KEYSTORE": "{all}"}, "only Enforce refuses"),
    ],
)
def test_half_a_set_up_of_security_gets_one_line(tmp_path: Path, monkeypatch, variables: dict, says: str):
    """Where DDS has security: each thing that would leave a process unprotected is named."""
    monkeypatch.setattr(security, "supported", lambda environ: True)
    for name, enclaves in (("keys", ["guard"]), ("all", ["guard", "planner"])):
        for enclave in enclaves:
            folder = tmp_path / name / "enclaves/foresight" / enclave
            folder.mkdir(parents=True)
            (folder / "permissions.p7s").touch()
    (tmp_path / "empty").mkdir()
    given = {k: v.format(**{n: tmp_path / n for n in ("empty", "keys", "all")}) for k, v in variables.items()}
    with pytest.raises(security.SecurityError) as told:
        security.check(["/foresight/guard", "/foresight/planner"], {"ROS_SECURITY_ENABLE": "true", **given})
    assert says in str(told.value) and "\n" not in str(told.value)


def test_a_whole_set_up_of_security_passes(tmp_path: Path, monkeypatch):
    """Keys for each enclave and Enforce: nothing to say. Without a wish for security the answer is no, not an error."""
    monkeypatch.setattr(security, "supported", lambda environ: True)
    (tmp_path / "enclaves/a").mkdir(parents=True)
    (tmp_path / "enclaves/a/permissions.p7s").touch()
    wish = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_KEYSTORE": str(tmp_path)}
    assert security.check(["/a"], wish) is True and security.check(["/a"], {}) is False


def test_up_says_in_one_line_that_this_dds_has_no_security():
    """On the PyPI wheels `up` refuses at once; on a ROS 2 that has security it asks for the keystore instead."""
    variables = {**environment(), "ROS_SECURITY_ENABLE": "true", "ROS_DOMAIN_ID": str(100 + os.getpid() % 100)}
    variables.pop("ROS_SECURITY_KEYSTORE", None)
    command = [sys.executable, "-m", "foresight_bringup.up", "stack"]
    told = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    expected = "ROS_SECURITY_KEYSTORE is not set" if security.supported(environment()) else "was built without security"
    assert told.returncode == 1 and expected in told.stderr and len(told.stderr.splitlines()) == 1 and told.stdout == ""


# -- what services take --------------------------------------------------------------------------------------------

SAFE_TEXT = {  # each text that a service or an action takes in, and why it can be neither a path nor code
    "ResetSimulation.task": "one of the names in sim.tasks; others are refused",
    "ResetSimulation.shift": "none, colour or camera; others are refused",
    "Inject.fault": "one of the faults that the node offers; others are refused",
    "Inject.names": "parameters of that fault; others are refused",
    "Pursue.goal_images.header.frame_id": "a camera of the model's contract; others are refused",
    "Pursue.goal_images.encoding": "rgb8 or bgr8; others are refused",
    "Pursue.objective": "a sum of terms and norms by name, read by a parser of its own; others are refused",
}


def texts(kind: type, path: str) -> list[str]:
    """Every text field of a message type, nested ones with dots."""
    from rosidl_parser.definition import AbstractGenericString, AbstractNestedType, NamespacedType

    found = []
    for name, slot in zip(kind.get_fields_and_field_types(), kind.SLOT_TYPES, strict=True):
        inner = slot.value_type if isinstance(slot, AbstractNestedType) else slot
        if isinstance(inner, AbstractGenericString):
            found.append(f"{path}.{name}")
        elif isinstance(inner, NamespacedType):
            module = __import__(".".join(inner.namespaces), fromlist=[inner.name])
            found += texts(getattr(module, inner.name), f"{path}.{name}")
    return found


def test_no_service_or_action_takes_a_path_or_code():
    """Every text field of every request is in the list above, with the reason why it is harmless."""
    requests = {name: kind.Request for name, kind in vars(srv).items() if hasattr(kind, "Request")}
    requests |= {name: kind.Goal for name, kind in vars(action).items() if hasattr(kind, "Goal")}
    assert {"ResetSimulation", "Step", "Pursue"} <= requests.keys()
    assert sorted(text for name, kind in requests.items() for text in texts(kind, name)) == sorted(SAFE_TEXT)


NASTY = ("../../etc/passwd", "/etc/passwd", "$(reboot)", "; rm -rf /", "__import__('os')", "none\n", "x" * 100_000)


@pytest.mark.parametrize("text", NASTY, ids=[text[:12] for text in NASTY])
def test_the_simulator_takes_only_names_that_it_knows(simulator: tuple[Bench, SimNode], text: str):
    """A task or shift that is no known name is refused in words, and the scene stays as it was."""
    bench, node = simulator
    scene = node._scenario
    for given in ({"task": text, "shift": "none"}, {"task": "reach", "shift": text}):
        answer = bench.call(topics.SIM_RESET, node, srv.ResetSimulation.Request(seed=1, **given))
        assert not answer.ok and answer.message and node._scenario is scene


@pytest.fixture
def simulator(bench: Bench) -> tuple[Bench, SimNode]:
    node = bench.add(SimNode, robot="ur5e")
    bench.configure(node)
    node.trigger_activate()
    return bench, node


def test_messages_that_carry_text_are_all_known():
    """The walk over text fields sees nested ones, so that a new one in any message type cannot hide."""
    assert "Plan.trajectory.joint_names" in texts(msg.Plan, "Plan") and "Plan.header.frame_id" in texts(msg.Plan, "Plan")
