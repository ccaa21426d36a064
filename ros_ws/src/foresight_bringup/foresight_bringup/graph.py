"""The graph, described once: which processes, with which parameters and remappings, for which situation.

The launch files and `foresight up` both read this. Knows names only: imports neither ROS, nor the nodes, nor the core.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from foresight_bringup.record import latch_file

SITUATIONS = {
    "sim": "the nodes and a simulated arm",
    "stack": "the nodes alone; cameras, joint states and controller come from elsewhere",
    "robot": "the nodes on a real arm, or on a stand-in driver with use_mock_hardware:=true",
}
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
PARTS = ("perception", "world_model", "planner")  # what use_composition puts into one process; the guard never joins
# What a node cannot work without. The arm, simulated or not, needs nobody: it goes on whoever dies.
NEEDS = {
    "guard": ("sim", "driver"),
    "perception": ("sim", "driver"),
    "world_model": ("perception",),
    "planner": ("world_model", "guard"),
}
# What a UR's driver says of itself, and under the same names the simulated arm; the last one the simulated arm alone.
PROGRAM_RUNNING = "io_and_status_controller/robot_program_running"
SPEED_SCALING = "speed_scaling_state_broadcaster/speed_scaling"
CONTROLLER_ACTIVE = "controller_active"
UR_SAYS = {"program_running_topic": PROGRAM_RUNNING, "speed_scaling_topic": SPEED_SCALING}
SIM_SAYS = {**UR_SAYS, "controller_active_topic": CONTROLLER_ACTIVE}
DRIVER_SAYS = {"ur5e": UR_SAYS}  # by robot; of the others no driver says such things under known names
AUTO = "auto"


def _argument(default: str, description: str, situations: Iterable[str] = SITUATIONS):
    return field(default=default, metadata={"description": description, "situations": tuple(situations)})


@dataclass(frozen=True)
class Arguments:
    """What `name:=value` sets, as text, for launch files and `foresight up` alike."""

    namespace: str = _argument("", "prefix of all node and topic names")
    use_sim_time: str = _argument("", "time from /clock: true or false; empty means true with a simulated arm only")
    params_file: str = _argument(
        "", "YAML with parameter overrides; empty means config/<robot>.yaml of foresight_bringup, if any"
    )
    autostart: str = _argument("true", "configure and activate all nodes in order; false leaves that to you")
    use_composition: str = _argument("false", "perception, world_model and planner in one process that shares the weights")
    use_respawn: str = _argument("true", "start a process that died anew, and bring the graph back; false ends the graph then")
    bond_timeout_s: str = _argument("0.42", "seconds without a sign of life after which a node counts as dead or frozen")
    log_level: str = _argument("info", "debug, info, warn, error or fatal")
    robot: str = _argument("ur5e", "robot profile: the name of a shipped one, or its YAML file")
    checkpoint: str = _argument("", "folder of the world model; empty means models/<robot> of the checkout")
    gripper: str = _argument("", "the world model moves the gripper: true or false; empty means as the checkpoint says")
    record: str = _argument("true", "keep the last 30 s of all topics and write them to runs/incidents when the guard stops")
    headless: str = _argument("true", "open no window on the simulation", ["sim"])
    task: str = _argument("reach", "the simulation's first task: reach, push, push_object_goal, pick ...", ["sim"])
    others: str = _argument("0", "objects that can lie beside the cube; the tasks push_among and clutter need 2", ["sim"])
    seed: str = _argument("0", "seed of the simulation's first scene", ["sim"])
    keep_out: str = _argument("false", "each scene has a keep-out on the straight way to its goal, for the judge", ["sim"])
    front_camera: str = _argument("front", "namespace of the front camera's image_raw and camera_info", ["stack", "robot"])
    wrist_camera: str = _argument("wrist", "namespace of the wrist camera's image_raw and camera_info", ["stack", "robot"])
    joint_states: str = _argument("joint_states", "topic of the measured joint states", ["stack", "robot"])
    controller_topic: str = _argument(
        "", "topic of the arm's trajectory controller; empty means the robot profile's", ["stack", "robot"]
    )
    controller_node: str = _argument(
        "auto", "controller that is asked where it starts trajectories from; auto: of its topic's name; empty: none", ["robot"]
    )
    gripper_topic: str = _argument(
        "", "topic of the gripper's trajectory controller; empty means the robot profile's", ["stack", "robot"]
    )
    program_running_topic: str = _argument(
        AUTO, "std_msgs/Bool: the robot's program runs; auto: of robot:=ur5e its driver's, else none; empty: not watched",
        ["stack", "robot"],
    )  # fmt: skip
    speed_scaling_topic: str = _argument(
        AUTO, "std_msgs/Float64 [%]: the speed slider; auto: of robot:=ur5e its driver's, else none; empty: not watched",
        ["stack", "robot"],
    )  # fmt: skip
    controller_active_topic: str = _argument(
        AUTO, "std_msgs/Bool: the controller is active, from an adapter of yours; auto and empty: not watched",
        ["stack", "robot"],
    )  # fmt: skip
    use_mock_hardware: str = _argument("false", "start a stand-in driver with the real driver's topics and rates", ["robot"])

    @staticmethod
    def names(situation: str) -> dict[str, tuple[str, str]]:
        """Argument -> (default, description), of those that mean something in this situation."""
        known = [f for f in fields(Arguments) if situation in f.metadata["situations"]]
        return {f.name: (f.default, f.metadata["description"]) for f in known}

    def flag(self, name: str) -> bool:
        """A true/false argument. Raises ValueError for anything else."""
        value = getattr(self, name).lower()
        if value not in ("true", "false"):
            raise ValueError(f"Argument {name} must be true or false, got '{getattr(self, name)}'.")
        return value == "true"


Value = str | bool | int | float | tuple[str, ...]


def namespace_of(text: str) -> str:
    """A namespace without slashes around it. Raises ValueError for what ROS 2 does not take."""
    namespace = text.strip("/")
    if namespace and not re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", namespace, re.ASCII):
        raise ValueError(
            f"Namespace '{text}' is none: expected words of letters, digits and _ that begin with no digit, joined by /. "
            "For example: left_arm."
        )
    return namespace


def enclave(namespace: str, name: str) -> str:
    """Path of an enclave: SROS2's name for a place in the keystore. Means nothing while security is off."""
    return "/".join(["/foresight", *([namespace] if namespace else []), name])


@dataclass(frozen=True)
class Process:
    """One process: an executable of a package, and what it is told. `nodes` are the names it brings into the graph."""

    package: str
    executable: str
    nodes: tuple[str, ...]
    namespace: str
    params_file: str  # empty: none
    parameters: tuple[tuple[str, Value], ...]  # they win over the file
    remappings: tuple[tuple[str, str], ...]
    log_level: str
    essential: bool = True  # false: the graph goes on without it, and the lifecycle manager does not know it

    @property
    def enclave(self) -> str:
        """Where its keys and permissions lie in a keystore; one process is one enclave."""
        return enclave(self.namespace, self.executable)

    def ros_arguments(self) -> list[str]:
        """The command line behind the executable."""
        arguments = ["--ros-args", "--log-level", self.log_level, "--enclave", self.enclave]
        if self.namespace:
            arguments += ["-r", f"__ns:=/{self.namespace}"]
        if self.params_file:
            arguments += ["--params-file", self.params_file]
        for name, value in self.parameters:
            arguments += ["-p", f"{name}:={json.dumps(value)}"]  # JSON is YAML, and quotes what looks like something else
        for source, target in self.remappings:
            arguments += ["-r", f"{source}:={target}"]
        return arguments


@dataclass(frozen=True)
class Graph:
    """All processes of a situation, in the order in which they start."""

    situation: str
    namespace: str
    autostart: bool
    respawn: bool
    processes: tuple[Process, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(name for process in self.processes for name in process.nodes)


def graph(situation: str, arguments: Arguments) -> Graph:
    """The processes of a situation. Raises ValueError with one line where an argument makes no sense."""
    if situation not in SITUATIONS:
        raise ValueError(f"No situation '{situation}'. There are: {', '.join(SITUATIONS)}.")
    if arguments.log_level not in LOG_LEVELS:
        raise ValueError(f"Argument log_level must be one of {', '.join(LOG_LEVELS)}, got '{arguments.log_level}'.")
    if situation == "sim" and not arguments.seed.isdecimal():
        raise ValueError(f"Argument seed must be a whole number >= 0, got '{arguments.seed}'.")
    if situation == "sim" and arguments.others not in ("0", "1", "2"):
        raise ValueError(f"Argument others must be 0, 1 or 2, got '{arguments.others}'.")
    namespace, autostart = namespace_of(arguments.namespace), arguments.flag("autostart")
    manager = {"autostart": autostart, "respawn": arguments.flag("use_respawn"), "bond_timeout_s": _seconds(arguments)}
    # On a machine too slow for real time the simulated arm stands still at times; its clock must then stand still for all.
    common = {"use_sim_time": arguments.flag("use_sim_time") if arguments.use_sim_time else situation == "sim"}
    robot = {"robot": arguments.robot}
    model = {**robot, "checkpoint": arguments.checkpoint}
    controller = {**robot, "controller_topic": arguments.controller_topic} if arguments.controller_topic else robot
    gripper = {"gripper_topic": arguments.gripper_topic} if arguments.gripper_topic else {}
    moved = {"gripper": True} if arguments.gripper and arguments.flag("gripper") else {}
    cameras = (arguments.front_camera, arguments.wrist_camera)
    seen = {} if cameras == ("front", "wrist") else {"camera_topics": cameras}
    remappings = (("joint_states", arguments.joint_states),) if arguments.joint_states != "joint_states" else ()

    def process(executable: str, parameters: dict[str, Value], nodes: tuple[str, ...] = (), essential: bool = True) -> Process:
        every, names, level = tuple({**common, **parameters}.items()), nodes or (executable,), arguments.log_level
        return Process(
            "foresight_nodes", executable, names, namespace, arguments.params_file, every, remappings, level, essential
        )

    simulated = situation == "sim"
    if simulated:
        common["injectable"] = True
    arm = situation == "robot" and not arguments.flag("use_mock_hardware") and arguments.controller_node
    asked = {"controller_node": arguments.controller_node} if arm else {}
    processes = [process("guard", {**controller, **asked, **gripper, **moved, **driver_says(situation, arguments)})]
    if simulated:
        scene = {"task": arguments.task, "seed": int(arguments.seed), "headless": arguments.flag("headless")}
        scene |= {"keep_out": True} if arguments.flag("keep_out") else {}
        scene |= {"others": int(arguments.others)} if arguments.others != "0" else {}
        processes.append(process("sim", {**robot, **scene}))
    if situation == "robot" and arguments.flag("use_mock_hardware"):
        processes.append(process("mock_driver", {**controller, **gripper, **seen}, ("driver",)))
    if arguments.flag("use_composition"):
        processes.append(process("composed", {**model, **controller, **seen}, PARTS))
    else:
        processes += [
            process("perception", {**model, **seen}),
            process("world_model", model),
            process("planner", {**model, **controller}),
        ]
    managed = tuple(name for started in processes for name in started.nodes)  # in the order of activation
    manager |= {"node_names": managed, "dependencies": _dependencies(managed), "latch_file": str(latch_file(namespace))}
    if simulated:
        manager["origins"] = ("sim",)
    common.pop("injectable", None)
    if arguments.flag("record"):
        processes.append(process("recorder", {**controller, **gripper, **seen}, essential=False))
    processes.append(process("lifecycle_manager", manager))
    return Graph(situation, namespace, autostart, arguments.flag("use_respawn"), tuple(processes))


def driver_says(situation: str, arguments: Arguments) -> dict[str, str]:
    """The guard's parameter -> topic of what it watches of the driver; none that nobody is known to publish, as mock hardware."""
    if situation == "sim":
        return SIM_SAYS
    real = situation == "robot" and not arguments.flag("use_mock_hardware")
    known = DRIVER_SAYS.get(arguments.robot, {}) if real else {}
    given = {name: getattr(arguments, name) for name in SIM_SAYS}
    chosen = {name: known.get(name, "") if topic == AUTO else topic for name, topic in given.items()}
    return {name: topic for name, topic in chosen.items() if topic}


def _dependencies(nodes: tuple[str, ...]) -> tuple[str, ...]:
    """Pairs "node:what it needs" among these nodes."""
    return tuple(f"{node}:{needed}" for node in nodes for needed in NEEDS.get(node, ()) if needed in nodes)


def _seconds(arguments: Arguments) -> float:
    try:
        value = float(arguments.bond_timeout_s)
    except ValueError:
        value = 0.0
    if not 0.2 <= value <= 60:
        raise ValueError(f"Argument bond_timeout_s must be a number of seconds from 0.2 to 60, got '{arguments.bond_timeout_s}'.")
    return value
