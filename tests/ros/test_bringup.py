"""The graph that launch files and `foresight up` are made from, and the launcher that starts, watches and stops it.

The launcher is tested with stand-in executables in a package folder of their own, so that a crash, a stubborn process or
a slow end can be arranged; the real nodes are started in test_graph's tests.
"""

from __future__ import annotations

import ast
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from foresight_bringup import record, up
from foresight_bringup.graph import SITUATIONS, Arguments, Graph, Process, graph
from foresight_bringup.installed import complete
from foresight_nodes.guard_node import GuardParameters
from foresight_nodes.run import share_no_memory

from foresight.contract import TIP, TIP_AND_GRIPPER
from foresight.ros_environment import PACKAGES, WHEELS_GUARD, WorkspaceError, environment

ROOT = Path(__file__).resolve().parents[2]
BRINGUP = ROOT / "ros_ws/src/foresight_bringup"
PARTS = ["perception", "world_model", "planner"]


def by_name(built: Graph) -> dict[str, Process]:
    return {process.executable: process for process in built.processes}


def parameters(process: Process) -> dict:
    return dict(process.parameters)


# --- The graph -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("situation", "given", "executables"),
    [
        ("sim", {}, ["guard", "sim", *PARTS, "recorder", "lifecycle_manager"]),
        ("sim", {"use_composition": "true"}, ["guard", "sim", "composed", "recorder", "lifecycle_manager"]),
        ("stack", {"record": "false"}, ["guard", *PARTS, "lifecycle_manager"]),
        ("robot", {}, ["guard", *PARTS, "recorder", "lifecycle_manager"]),
        ("robot", {"use_mock_hardware": "true"}, ["guard", "mock_driver", *PARTS, "recorder", "lifecycle_manager"]),
    ],
)
def test_each_situation_starts_its_processes(situation, given, executables):
    """The simulator runs only in sim, the stand-in driver only when asked for."""
    assert [process.executable for process in graph(situation, Arguments(**given)).processes] == executables


def test_the_guard_never_shares_a_process():
    """In every situation, composed or not, the guard's process holds the guard alone, and composition keeps all nodes."""
    for situation in SITUATIONS:
        apart, composed = (graph(situation, Arguments(use_composition=flag)) for flag in ("false", "true"))
        assert by_name(apart)["guard"].nodes == by_name(composed)["guard"].nodes == ("guard",)
        assert sorted(apart.nodes) == sorted(composed.nodes)


def test_the_guard_loads_neither_torch_nor_the_world_model():
    """Importing all that the guard's process runs leaves torch out, so that it starts quickly and cannot wait for the model."""
    code = "import sys, foresight_nodes.guard_node; print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'sim'}))"
    told = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert told.stdout == "[]\n", told.stderr


def test_every_executable_and_parameter_of_the_graph_exists():
    """foresight_nodes installs each executable; the node behind it declares each parameter it is given."""
    setup = (ROOT / "ros_ws/src/foresight_nodes/setup.py").read_text()
    installed = set(re.findall(r'"(\w+) = foresight_nodes', setup))
    declared = {}
    for path in (ROOT / "ros_ws/src/foresight_nodes/foresight_nodes").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Parameters"):
                declared[node.name] = {line.target.id for line in node.body if isinstance(line, ast.AnnAssign)}
    holder = {"lifecycle_manager": "ManagerParameters", "mock_driver": "MockDriverParameters"}
    given = {"front_camera": "/a", "controller_topic": "/c", "checkpoint": "/m", "use_mock_hardware": "true"}
    given |= {"gripper": "true", "gripper_topic": "/g", "others": "2"}
    given |= {"program_running_topic": "/p", "speed_scaling_topic": "/s", "controller_active_topic": "/a"}
    for situation in SITUATIONS:
        known = Arguments.names(situation)
        for name, process in by_name(graph(situation, Arguments(**{k: v for k, v in given.items() if k in known}))).items():
            assert name in installed
            kind = holder.get(name, "".join(word.title() for word in name.split("_")) + "Parameters")
            assert set(parameters(process)) - {"use_sim_time", "injectable"} <= declared[kind], (
                f"{name} does not declare all it is given"
            )


def test_the_manager_is_told_every_node_and_activates_the_guard_first():
    """No node but the recorder is left out, which stops nobody; nothing can move before the guard watches."""
    for situation in SITUATIONS:
        built = graph(situation, Arguments())
        told = parameters(by_name(built)["lifecycle_manager"])["node_names"]
        assert told[0] == "guard" and set(told) == set(built.nodes) - {"lifecycle_manager", "recorder"}


def test_arguments_reach_the_nodes():
    """Namespace, clock, robot, model, topics and log level arrive on the command lines."""
    given = Arguments(
        namespace="/left/", use_sim_time="true", params_file="/p.yaml", checkpoint="/m", log_level="debug", autostart="false",
        front_camera="/cam/color", joint_states="/arm/joint_states", controller_topic="/arm/scaled/joint_trajectory",
    )  # fmt: skip
    built = graph("robot", given)
    assert built.namespace == "left" and not built.autostart
    for process in built.processes:
        words = process.ros_arguments()
        assert words[:3] == ["--ros-args", "--log-level", "debug"]
        assert {"__ns:=/left", "/p.yaml", "use_sim_time:=true", "joint_states:=/arm/joint_states"} <= set(words)
    perception, guard, manager = (by_name(built)[name].ros_arguments() for name in ("perception", "guard", "lifecycle_manager"))
    assert 'camera_topics:=["/cam/color", "wrist"]' in perception and 'checkpoint:="/m"' in perception
    assert 'controller_topic:="/arm/scaled/joint_trajectory"' in guard and not any("checkpoint" in word for word in guard)
    assert "autostart:=false" in manager


def test_a_real_arms_controller_is_asked_where_it_starts_trajectories_from():
    """Unless it was said otherwise; the simulated arm and the stand-in driver have none to ask."""

    def asked(situation: str, **given: str) -> object:
        return parameters(by_name(graph(situation, Arguments(**given)))["guard"]).get("controller_node")

    assert asked("robot") == "auto" and asked("robot", controller_node="/arm/controller") == "/arm/controller"
    assert asked("robot", controller_node="") is asked("robot", use_mock_hardware="true") is None
    assert asked("sim") is asked("stack") is None


@pytest.mark.parametrize(
    ("situation", "given", "watched"),
    [
        ("sim", {}, ("io_and_status_controller/robot_program_running", "speed_scaling_state_broadcaster/speed_scaling", "*")),
        ("robot", {}, ("io_and_status_controller/robot_program_running", "speed_scaling_state_broadcaster/speed_scaling", None)),
        ("robot", {"use_mock_hardware": "true"}, (None, None, None)),
        ("robot", {"robot": "fr3"}, (None, None, None)),
        ("robot", {"program_running_topic": "", "speed_scaling_topic": ""}, (None, None, None)),
        ("robot", {"robot": "fr3", "program_running_topic": "/p", "controller_active_topic": "/c"}, ("/p", None, "/c")),
        ("robot", {"use_mock_hardware": "true", "speed_scaling_topic": "/s"}, (None, "/s", None)),
        ("stack", {}, (None, None, None)),
        ("stack", {"speed_scaling_topic": "/s", "controller_active_topic": "/c"}, (None, "/s", "/c")),
    ],
)
def test_the_guard_watches_what_the_driver_says(situation: str, given: dict[str, str], watched: tuple):
    """Of a UR under its driver's names unless told otherwise; of a stand-in driver, and of other arms, only what is named."""
    told = parameters(by_name(graph(situation, Arguments(**given)))["guard"])
    names = ("program_running_topic", "speed_scaling_topic", "controller_active_topic")
    assert tuple(told.get(name) for name in names) == tuple("controller_active" if t == "*" else t for t in watched)


def test_a_model_that_moves_the_gripper_is_told_to_the_guard_and_its_topic_to_whom_it_concerns():
    """The guard must look for collisions with a gripper that moves; nothing else changes, and without it nothing at all."""
    given = {"gripper": "true", "gripper_topic": "/grip/joint_trajectory", "use_mock_hardware": "true"}
    built, before = (by_name(graph("robot", Arguments(**g))) for g in (given, {"use_mock_hardware": "true"}))
    told = {name: dict(p.parameters).keys() - dict(before[name].parameters).keys() for name, p in built.items()}
    assert told.pop("guard") == {"gripper", "gripper_topic"}
    assert {name for name, more in told.items() if more} == {"mock_driver", "recorder"}
    assert graph("robot", Arguments(gripper="false")) == graph("robot", Arguments())
    assert parameters(by_name(graph("sim", Arguments(others="2")))["sim"])["others"] == 2


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"contract": {"action": "tip displacement, base frame, m; gripper, 0 open, 1 closed"}}, "true"),
        ({"contract": {"action": "tip displacement, base frame, m"}}, "false"),
        ({}, "false"),
        ([], "false"),
        (None, "false"),
    ],
)
def test_whether_the_gripper_is_moved_is_read_from_the_checkpoint(tmp_path, config, expected: str):
    """Its contract says so; an argument wins, and what cannot be read is for the nodes to refuse."""
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    prefix = tmp_path / "ros_ws/install/foresight_bringup"
    assert complete(Arguments(checkpoint=str(tmp_path)), prefix, BRINGUP).gripper == expected
    assert complete(Arguments(checkpoint=str(tmp_path), gripper="true"), prefix, BRINGUP).gripper == "true"


def test_the_contracts_word_for_the_gripper_is_the_one_that_is_looked_for():
    """Launch knows the core's word without importing it."""
    assert "gripper" in TIP_AND_GRIPPER and "gripper" not in TIP


def test_text_that_looks_like_a_number_stays_text():
    """A robot called 12 or a folder called true reaches the node as a string parameter."""
    words = by_name(graph("stack", Arguments(robot="12", checkpoint="true")))["world_model"].ros_arguments()
    values = dict(word.split(":=", 1) for word in words if ":=" in word)
    assert (yaml.safe_load(values["robot"]), yaml.safe_load(values["checkpoint"])) == ("12", "true")


@pytest.mark.parametrize(
    ("situation", "given", "says"),
    [
        ("moon", {}, "sim, stack, robot"),
        ("sim", {"use_composition": "maybe"}, "use_composition must be true or false, got 'maybe'"),
        ("sim", {"log_level": "loud"}, "got 'loud'"),
        ("sim", {"bond_timeout_s": "soon"}, "bond_timeout_s must be a number of seconds from 0.2 to 60, got 'soon'"),
        ("sim", {"others": "3"}, "others must be 0, 1 or 2, got '3'"),
        ("stack", {"gripper": "yes"}, "gripper must be true or false, got 'yes'"),
        ("sim", {"seed": "-1"}, "seed must be a whole number >= 0, got '-1'"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_in_one_line(situation, given, says):
    """The message repeats what was given and names what is possible."""
    with pytest.raises(ValueError, match=re.escape(says)):
        graph(situation, Arguments(**given))


def test_arguments_users_know_are_there():
    """The names from other ROS projects work in every launch file; headless belongs to the simulation."""
    usual = {"namespace", "use_sim_time", "params_file", "autostart", "use_composition", "log_level", "robot"}
    assert all(usual <= set(Arguments.names(situation)) for situation in SITUATIONS)
    assert "headless" in Arguments.names("sim") and "use_mock_hardware" in Arguments.names("robot")


# --- Files ---------------------------------------------------------------------------------------------------------


def test_each_situation_has_a_launch_file_and_it_is_installed():
    """launch/ and the installed package hold the same three files, each about its own situation."""
    prefix = ROOT / "ros_ws/install/foresight_bringup/share/foresight_bringup/launch"
    names = sorted(f"{situation}.launch.py" for situation in SITUATIONS)
    assert sorted(path.name for path in (ROOT / "launch").glob("*.launch.py")) == names
    assert sorted(path.name for path in prefix.glob("*.launch.py")) == names
    for situation in SITUATIONS:
        tree = ast.parse((ROOT / f"launch/{situation}.launch.py").read_text())
        calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert calls == [f"description('{situation}')"]


def test_files_that_belong_to_a_robot_are_found(tmp_path):
    """The robot's parameter file and the checkout's model are filled in, absolute; a robot without is left to the nodes."""
    prefix = tmp_path / "ros_ws/install/foresight_bringup"
    (tmp_path / "models/ur5e").mkdir(parents=True)
    found = complete(Arguments(), prefix, BRINGUP)
    assert found.params_file == str(BRINGUP / "config/ur5e.yaml") and found.checkpoint == str(tmp_path / "models/ur5e")
    assert complete(Arguments(robot="other"), prefix, BRINGUP).params_file == ""
    with pytest.raises(ValueError, match=r"No parameter file nowhere.yaml. Shipped: .*ur5e.yaml"):
        complete(Arguments(params_file="nowhere.yaml"), prefix, BRINGUP)


def test_parameter_files_hold_overrides_for_all_nodes():
    """Every YAML has the one `/**` entry, so that it works in any namespace."""
    files = list((BRINGUP / "config").glob("*.yaml"))
    assert files
    for path in files:
        content = yaml.safe_load(path.read_text())
        assert list(content) == ["/**"] and list(content["/**"]) == ["ros__parameters"], path.name


def test_the_dds_profile_makes_room_for_images_and_forgets_the_dead_soon():
    """16 MB of shared memory, a lease of 3 s announced every 0.3 s, and no wait for a new reader beyond the guard's allowance."""
    space = {"d": "http://www.eprosima.com"}
    profile = ElementTree.parse(BRINGUP / "config/fastdds.xml")
    assert profile.findtext(".//d:segment_size", namespaces=space) == str(16 * 2**20)
    wait_s = int(profile.findtext(".//d:healthy_check_timeout_ms", namespaces=space)) / 3 / 1000
    assert wait_s < GuardParameters.transport_s
    assert profile.findtext(".//d:leaseDuration/d:sec", namespaces=space) == "3"
    assert profile.findtext(".//d:leaseAnnouncement/d:nanosec", namespaces=space) == "300000000"
    assert profile.findtext(".//d:property/d:name", namespaces=space) == "fastdds.type_propagation"
    assert profile.findtext(".//d:property/d:value", namespaces=space) == "disabled"


def test_profiles_without_shared_memory_are_otherwise_the_same():
    """UDP alone, the same lease; for LOCALHOST with what that range means, since rmw_fastrtps would add shared memory to it."""
    space = {"d": "http://www.eprosima.com"}

    def found(name: str, tag: str) -> list[str]:
        return [e.text for e in ElementTree.parse(BRINGUP / "config" / name).iterfind(f".//d:{tag}", namespaces=space)]

    for name in ("fastdds_udp.xml", "fastdds_udp_localhost.xml"):
        assert found(name, "type") == ["UDPv4"] and found(name, "userTransports/d:transport_id") == ["udp"], name
        assert found(name, "useBuiltinTransports") == ["false"]
        for tag in (
            "leaseDuration/d:sec", "leaseAnnouncement/d:sec", "leaseAnnouncement/d:nanosec",
            "property/d:name", "property/d:value",
        ):  # fmt: skip
            assert found(name, tag) == found("fastdds.xml", tag), (name, tag)
    assert found("fastdds_udp_localhost.xml", "initialPeersList//d:address") == ["127.0.0.1"]
    assert found("fastdds_udp.xml", "initialPeersList") == []


@pytest.mark.parametrize("variable", ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"])
@pytest.mark.parametrize(
    ("profile", "range_", "taken", "range_taken"),
    [
        (BRINGUP / "config/fastdds.xml", "LOCALHOST", BRINGUP / "config/fastdds_udp_localhost.xml", "SYSTEM_DEFAULT"),
        (BRINGUP / "config/fastdds.xml", "SUBNET", BRINGUP / "config/fastdds_udp.xml", "SUBNET"),
        (BRINGUP / "config/fastdds.xml", None, BRINGUP / "config/fastdds_udp.xml", None),
        ("/mine/fastdds.xml", "LOCALHOST", "/mine/fastdds.xml", "LOCALHOST"),
        ("/mine/own.xml", "LOCALHOST", "/mine/own.xml", "LOCALHOST"),
        (None, "LOCALHOST", None, "LOCALHOST"),
    ],
)
def test_a_process_without_camera_frames_takes_udp_where_the_profile_is_ours(
    monkeypatch, variable, profile, range_, taken, range_taken
):
    """A profile of the user's own, and none at all, stay as they are."""
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ((variable, profile), ("ROS_AUTOMATIC_DISCOVERY_RANGE", range_)):
        if value is not None:
            monkeypatch.setenv(name, str(value))
    share_no_memory()
    expected = None if taken is None else str(taken)
    assert (os.environ.get(variable), os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE")) == (expected, range_taken)


# --- The environment -----------------------------------------------------------------------------------------------


def test_the_environment_finds_the_built_workspace():
    """A fresh interpreter with these variables and nothing else imports ROS, the messages and the nodes."""
    bare = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/tmp")}
    if "ROS_DISTRO" in os.environ:  # a sourced ROS 2 is part of what is given
        bare |= {name: os.environ[name] for name in ("ROS_DISTRO", "AMENT_PREFIX_PATH", "LD_LIBRARY_PATH", "PYTHONPATH")}
    code = "import rclpy, foresight_msgs.msg, foresight_nodes, foresight_bringup; print('found')"
    told = subprocess.run([sys.executable, "-c", code], env=environment(bare), capture_output=True, text=True, timeout=60)
    assert told.stdout == "found\n", told.stderr


def test_the_environment_keeps_what_the_caller_has_set():
    """Domain, log folder and GL chosen outside win over the defaults."""
    mine = {**os.environ, "ROS_DOMAIN_ID": "9", "ROS_LOG_DIR": "/elsewhere", "MUJOCO_GL": "osmesa"}
    made = environment(mine)
    assert (made["ROS_DOMAIN_ID"], made["ROS_LOG_DIR"], made["MUJOCO_GL"]) == ("9", "/elsewhere", "osmesa")


@pytest.mark.parametrize(("distribution", "variable"), [("jazzy", "FASTRTPS"), ("kilted", "FASTDDS"), ("", "FASTDDS")])
def test_the_dds_profile_goes_by_the_name_that_the_distribution_reads(distribution, variable):
    """Fast DDS 3 renamed the variable and warns of the old one."""
    made = environment({**os.environ, "ROS_DISTRO": distribution})
    assert Path(made[f"{variable}_DEFAULT_PROFILES_FILE"]) == BRINGUP / "config/fastdds.xml"


def test_a_workspace_that_is_not_built_is_named_with_the_remedy(tmp_path):
    """Without install/ the message says which packages are missing and to run make setup."""
    with pytest.raises(WorkspaceError, match=rf"{PACKAGES[0]}.*make setup"):
        environment(root=tmp_path)
    with pytest.raises(WorkspaceError, match=r"neither sourced nor installed.*make setup"):
        environment({"PATH": ""}, root=tmp_path, prefix=tmp_path)


def test_wheels_do_not_start_python_twice(tmp_path):
    """Where ROS 2 comes from wheels, the guard variable and their libraries are set beforehand."""
    (tmp_path / "share/ament_index/resource_index/packages").mkdir(parents=True)
    (tmp_path / "share/ament_index/resource_index/packages/rclpy").touch()
    (tmp_path / "lib/python3.11/site-packages/ros_rcl.libs").mkdir(parents=True)
    made = environment({"LD_LIBRARY_PATH": "/mine"}, prefix=tmp_path)
    assert made[WHEELS_GUARD] == "1"
    assert {str(tmp_path / "lib"), str(tmp_path / "lib/python3.11/site-packages/ros_rcl.libs"), "/mine"} <= set(
        made["LD_LIBRARY_PATH"].split(":")
    )


# --- The launcher, with stand-in executables -----------------------------------------------------------------------

WAITS = """
import signal
ENDING = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
print("ready", flush=True)
signal.sigwait(ENDING)
print("leaving", flush=True)
"""
CRASHES = """
import sys
print("a last word")
sys.exit(3)
"""
STUBBORN = """
import signal
for ignored in (signal.SIGINT, signal.SIGTERM):
    signal.signal(ignored, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""
ANSWERS_ACTIVE = """
import signal, rclpy
from foresight_msgs.msg import GraphState
from rclpy.qos import DurabilityPolicy, QoSProfile
rclpy.init(args=[], signal_handler_options=rclpy.SignalHandlerOptions.NO)
node = rclpy.create_node("lifecycle_manager")
latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
states = node.create_publisher(GraphState, "graph_state", latched)
tell = lambda: states.publish(GraphState(active=True))
timer = node.create_timer(0.2, tell)
print("ready", flush=True)
stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
while not stopped:
    rclpy.spin_once(node, timeout_sec=0.1)
"""

SAYS_FROZEN = ANSWERS_ACTIVE.replace(
    "tell = lambda: states.publish(GraphState(active=True))",
    """import pathlib
word = pathlib.Path(__file__).with_name("frozen")
def tell():
    pids = [int(word.read_text() or 0)] if word.exists() else []
    states.publish(GraphState(frozen=["planner"] * len(pids), frozen_pid=pids))""",
)


class StandIns:
    """A foresight_nodes package of scripts, in a domain of its own. Calling it starts `up stack` on them."""

    def __init__(self, folder: Path) -> None:
        self.bin, index = folder / "lib/foresight_nodes", folder / "share/ament_index/resource_index/packages"
        self.bin.mkdir(parents=True)
        index.mkdir(parents=True)
        (index / "foresight_nodes").touch()
        self.variables = {**environment(), "ROS_DOMAIN_ID": str(100 + os.getpid() % 100), "TMPDIR": str(folder)}
        self.variables["AMENT_PREFIX_PATH"] = f"{folder}:{self.variables['AMENT_PREFIX_PATH']}"
        self._running: list[subprocess.Popen] = []

    def __call__(self, scripts: dict[str, str], *words: str) -> subprocess.Popen:
        """`scripts` replaces what some executables do; the others wait for a signal."""
        for name in ("guard", *PARTS, "recorder", "lifecycle_manager"):
            script = self.bin / name
            script.write_text(f"#!{sys.executable}\n{scripts.get(name, WAITS)}")
            script.chmod(0o755)
        return self.launch([sys.executable, "-m", "foresight_bringup.up", "stack", *words])

    def launch(self, command: list[str]) -> subprocess.Popen:
        process = subprocess.Popen(
            command, env=self.variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        self._running.append(process)
        return process

    def pid_of(self, node: str) -> int:
        """As the record of the running graph says."""
        file = Path(self.variables["TMPDIR"]) / record.path(self.variables["ROS_DOMAIN_ID"], "").name
        return next(process.pid for process in record.read(file) if node in process.nodes)

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                for pid in (*children_of(process.pid), process.pid):  # also those that ignore every gentler signal
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()


@pytest.fixture
def stand_ins(tmp_path):
    made = StandIns(tmp_path / "nodes")
    yield made
    made.close()


def read_until(process: subprocess.Popen, says: str, count: int = 1, patience_s: float = 90.0) -> str:
    """What the process has written up to the line with the `count`-th appearance of a text."""
    written, text, end_s = b"", "", time.monotonic() + patience_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while text.count(says) < count:
            assert time.monotonic() < end_s, f"no '{says}' in:\n{text}"
            if selector.select(1.0):
                # Byte by byte: what a buffered reader took beyond the line would be hidden from select and communicate.
                byte = os.read(process.stdout.fileno(), 1)
                assert byte, f"ended before '{says}':\n{text}"
                written += byte
                text = written.decode() if byte == b"\n" else text
    return text


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ctrl_c_stops_every_process_and_leaves_with_zero(stand_ins):
    """SIGINT reaches each process once, each line carries its process's name, nothing stays behind."""
    launcher = stand_ins({})
    shown = read_until(launcher, "ready", count=6)
    pids = children_of(launcher.pid)
    assert len(pids) == 6 and all(f"[{name}]" in shown for name in ("guard", *PARTS))
    launcher.send_signal(signal.SIGINT)
    rest = launcher.communicate(timeout=30)[0]
    assert launcher.returncode == 0 and rest.count("leaving") == 6 and rest.rstrip().endswith("stopped.")
    assert not any(alive(pid) for pid in pids)


def test_the_launcher_says_when_the_graph_is_active(stand_ins):
    """The line comes when the lifecycle manager answers so, and names the number of processes."""
    launcher = stand_ins({"lifecycle_manager": ANSWERS_ACTIVE})
    assert "6 processes" in read_until(launcher, "active:")


def test_a_process_that_dies_is_named_and_takes_the_graph_down(stand_ins):
    """Its last words are shown, then one line with name and exit code; the others are stopped and the exit code is 1."""
    launcher = stand_ins({"planner": CRASHES})
    shown = launcher.communicate(timeout=60)[0]
    assert launcher.returncode == 1 and "[planner]           a last word" in shown
    assert len(re.findall(r"planner \(pid \d+\) ended with exit code 3; stopping the others", shown)) == 1


def test_a_recorder_that_dies_is_named_and_the_graph_goes_on(stand_ins):
    """Nobody needs it: its end is told once, the others run until Ctrl-C, and the exit code is 0."""
    launcher = stand_ins({"recorder": CRASHES})
    shown = read_until(launcher, "the others go on without it")
    assert re.search(r"recorder \(pid \d+\) ended with exit code 3; the others go on without it", shown)
    if shown.count("ready") < 5:
        shown += read_until(launcher, "ready", count=5 - shown.count("ready"))
    launcher.send_signal(signal.SIGINT)
    shown += launcher.communicate(timeout=60)[0]
    assert launcher.returncode == 0 and shown.count("go on without it") == 1


def test_a_process_that_was_killed_is_started_anew(stand_ins):
    """One line tells it; the record of the running graph then names the new process."""
    launcher = stand_ins({})
    read_until(launcher, "ready", count=6)
    os.kill(stand_ins.pid_of("planner"), signal.SIGKILL)
    shown = read_until(launcher, "ready")
    assert re.search(r"planner \(pid \d+\) was ended by SIGKILL; starting it anew \(1 of 5 in 60 s\)", shown)
    assert alive(stand_ins.pid_of("planner")) and launcher.poll() is None


def test_a_process_that_keeps_dying_ends_the_graph(stand_ins):
    """After five deaths within a minute the sixth is final."""
    launcher = stand_ins({"planner": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"})
    shown = launcher.communicate(timeout=60)[0]
    assert launcher.returncode == 1 and shown.count("starting it anew") == 5 and "for the 6th time within 60 s" in shown


def test_without_respawn_a_killed_process_takes_the_graph_down(stand_ins):
    """use_respawn:=false."""
    launcher = stand_ins({}, "use_respawn:=false")
    read_until(launcher, "ready", count=6)
    os.kill(stand_ins.pid_of("planner"), signal.SIGKILL)
    shown = launcher.communicate(timeout=60)[0]
    assert launcher.returncode == 1 and "was ended by SIGKILL; stopping the others" in shown


def test_a_frozen_process_is_ended_on_the_managers_word(stand_ins):
    """SIGKILL ends even a stopped process; then it is started anew. Another pid than the one that was meant is left alone."""
    launcher = stand_ins({"lifecycle_manager": SAYS_FROZEN})
    read_until(launcher, "ready", count=6)
    pid = stand_ins.pid_of("planner")
    os.kill(pid, signal.SIGSTOP)
    (stand_ins.bin / "frozen").write_text(str(pid))
    shown = read_until(launcher, "starting it anew")
    assert f"planner (pid {pid}) is frozen; ending it with SIGKILL" in shown
    assert "ready" in read_until(launcher, "ready")


def test_a_process_that_will_not_end_is_ended_by_force_and_named(stand_ins):
    """A hung node ignores SIGINT and SIGTERM; SIGKILL follows, and the launcher says whom it hit."""
    launcher = stand_ins({"world_model": STUBBORN})
    read_until(launcher, "ready", count=6)
    pids = children_of(launcher.pid)
    launcher.send_signal(signal.SIGTERM)
    launcher.send_signal(signal.SIGINT)  # a second signal cuts the patience short
    shown = launcher.communicate(timeout=60)[0]
    assert "ended by force: world_model." in shown and not any(alive(pid) for pid in pids)


def test_no_process_outlives_a_launcher_that_was_killed(stand_ins):
    """Even after SIGKILL of the launcher, the kernel tells the processes to leave."""
    launcher = stand_ins({})
    read_until(launcher, "ready", count=6)
    pids = children_of(launcher.pid)
    launcher.kill()
    end_s = time.monotonic() + 20.0
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < end_s, [Path(f"/proc/{pid}/status").read_text() for pid in left]
        os.sched_yield()


def test_a_second_graph_on_the_same_domain_is_refused_in_one_line(stand_ins):
    """The first keeps running; the second names it, and another namespace is free."""
    first = stand_ins({})
    read_until(first, "ready", count=6)
    second = stand_ins({})
    told = second.communicate(timeout=60)[0]
    assert second.returncode == 1 and len(told.splitlines()) == 1
    assert f"pid {first.pid}" in told and "ROS_DOMAIN_ID" in told
    read_until(stand_ins({}, "namespace:=right"), "ready", count=6)
    assert first.poll() is None


def test_a_graph_that_was_started_otherwise_is_seen_too(stand_ins):
    """A node called guard in the same namespace of the domain, whoever started it, refuses a second graph."""
    other = stand_ins.launch([sys.executable, "-c", ANSWERS_ACTIVE.replace('"lifecycle_manager"', '"guard"')])
    read_until(other, "ready")
    second = stand_ins({})
    told = second.communicate(timeout=60)[0]
    assert second.returncode == 1 and len(told.splitlines()) == 1 and "nodes guard" in told


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sky"], "sim, stack, robot; got sky"),
        (["sim", "sed:=3"], "Unknown argument 'sed:=3' for sim. Known"),
        (["stack", "headless:=true"], "Unknown argument 'headless:=true' for stack"),
        (["sim", "params_file:=/no/such.yaml"], "No parameter file /no/such.yaml"),
    ],
)
def test_bad_arguments_get_one_line(words, says, capsys):
    """Nothing is started; the line names what is known."""
    assert up.main(words) == 2
    told = capsys.readouterr().err
    assert says in told and len(told.splitlines()) == 1


def test_an_executable_that_is_not_installed_is_named():
    """The message lists what the package has."""
    process = replace(graph("stack", Arguments()).processes[0], executable="gaurd")
    with pytest.raises(up.UpError, match=r"no executable 'gaurd'. It has: .*guard.*make setup"):
        up.executable(process)
