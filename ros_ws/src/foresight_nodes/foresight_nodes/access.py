"""Who may do what in the graph: the topics, services and actions of every node, and of the people beside it, in one table.

The security policies are written from this (`policies.py`), and a test compares it with the running nodes, in both
directions. Names are as in `topics.py`: relative to the namespace, `~` for the node's own, `/` for the whole graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from foresight_bringup.graph import SIM_SAYS
from sensor_msgs.msg import JointState

from foresight_nodes import topics

STOP = "guard/stop"  # anybody in the graph may stop the arm
RESET = "guard/reset"  # only an operator lets it move again
# A person's tools: the `ros2` command's nodes, `foresight evaluate --ros`, `inject`, `pursue`, `stop`, `reset`, `objective`.
OPERATORS = ("/_ros2cli_*", "episode_runner", "foresight_inject_*", "foresight_operate_*", "foresight_pursue_*")
LAUNCHER = "foresight_up_*"  # `foresight up`, which hears whether the graph is active
CAMERAS = ("front", "wrist")
CONTROLLER = "joint_trajectory_controller/joint_trajectory"
GRIPPER = "gripper_controller/joint_trajectory"

# What rclpy gives every node, lifecycle or not.
LOGS = ("/rosout", "/parameter_events")
READ_PARAMETERS = ("describe_parameters", "get_parameter_types", "get_parameters", "list_parameters")
PARAMETERS = (*READ_PARAMETERS, "set_parameters", "set_parameters_atomically", "get_type_description")
LIFECYCLE = ("change_state", "get_state", "get_available_states", "get_available_transitions", "get_transition_graph")


@dataclass(frozen=True)
class Access:
    """What one node may do; all names that are not here are denied."""

    publishes: tuple[str, ...] = ()
    subscribes: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()  # services
    requests: tuple[str, ...] = ()  # services
    executes: tuple[str, ...] = ()  # actions
    calls: tuple[str, ...] = ()  # actions

    def __or__(self, other: Access) -> Access:
        return Access(*((*getattr(self, f.name), *getattr(other, f.name)) for f in fields(Access)))

    def resolved(self, namespace: str, node: str) -> Access:
        """The same with full names, sorted, each once."""
        return Access(*(tuple(sorted({full_name(n, namespace, node) for n in getattr(self, f.name)})) for f in fields(Access)))


def full_name(name: str, namespace: str, node: str) -> str:
    """A name of the graph as a node in that namespace means it; a node with a leading `/` is in no namespace itself."""
    space = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"
    if name.startswith("~"):
        name = node + name[1:]
    return name if name.startswith("/") else space + name


def table(
    nodes: Iterable[str],
    cameras: tuple[str, ...] = CAMERAS,
    controller: str = CONTROLLER,
    joint_states: str | None = None,
    gripper: str = GRIPPER,
    driver_says: tuple[str, ...] = (),
) -> dict[str, Access]:
    """Each node's access, and that of the operator's and the launcher's nodes, in a graph of these nodes with these topics.

    `gripper`: where the gripper's commands go; empty: the robot has none that is moved. `driver_says`: what the guard reads of a
    real arm's driver.
    """
    grips = (gripper,) if gripper else ()
    graph = tuple(nodes)
    simulated = tuple(SIM_SAYS.values())
    joints = joint_states or topics.JOINT_STATES.name
    frames = tuple(topic(camera).name for camera in cameras for topic in (topics.image, topics.camera_info))
    told = (topics.DIAGNOSTICS.name,)
    node = Access(
        publishes=LOGS, subscribes=(topics.CLOCK.name,), serves=tuple(f"~/{name}" for name in PARAMETERS), requests=(STOP,)
    )
    part = node | Access(
        publishes=(*told, topics.BOND.name, "~/transition_event"), serves=tuple(f"~/{name}" for name in LIFECYCLE)
    )
    managed = tuple(name for name in graph if name not in ("recorder", "lifecycle_manager"))
    states = tuple(f"{name}/{service}" for name in managed for service in ("change_state", "get_state"))
    line = (topics.OBSERVATION.name, topics.BELIEF.name, topics.PLAN.name, topics.HEARTBEAT.name)
    known = {
        "guard": part
        | Access(
            publishes=(topics.GUARD_STATE.name, topics.GUARD_SETUP.name, topics.GUARD_VERDICT.name, controller, *grips),
            subscribes=(joints, *line, *told, topics.GRAPH_STATE.name, *driver_says, *(simulated if "sim" in graph else ())),
            serves=(topics.GUARD_STOP.name, topics.GUARD_RESET.name),
            requests=() if {"sim", "driver"} & set(graph) else (f"{controller.rpartition('/')[0]}/get_parameters",),
        ),
        "sim": part
        | Access(
            publishes=(joints, *frames, *simulated, topics.SIM_STATE.name, topics.CLOCK.name),
            subscribes=(controller, *grips, topics.GUARD_STATE.name),
            serves=(topics.SIM_RESET.name, topics.SIM_PAUSE.name, topics.SIM_STEP.name, topics.INJECT.name),
        ),
        "driver": part | Access(publishes=(joints, *frames), subscribes=(controller, *grips)),
        "perception": part | Access(publishes=(topics.OBSERVATION.name,), subscribes=(joints, *frames)),
        "world_model": part
        | Access(
            publishes=(topics.BELIEF.name,),
            subscribes=(topics.OBSERVATION.name,),
            serves=(topics.INJECT.name,) if "sim" in graph else (),
        ),
        "planner": part
        | Access(
            publishes=(topics.PLAN.name, topics.HEARTBEAT.name),
            subscribes=(topics.BELIEF.name, topics.GUARD_STATE.name, topics.GUARD_SETUP.name, controller),
            executes=(topics.PURSUE[0],),
        ),
        "recorder": part
        | Access(
            subscribes=(*_topics_but_joints(), joints, *frames, controller, *grips),
            serves=(topics.RECORDER_SNAPSHOT.name,),
        ),
        "lifecycle_manager": node
        | Access(
            publishes=(topics.GRAPH_STATE.name,),
            subscribes=(*told, topics.BOND.name, topics.GUARD_STATE.name),
            serves=(topics.IS_ACTIVE.name, topics.RESUME.name),
            requests=states,
        ),
    }
    unknown = [name for name in graph if name not in known]
    if unknown:
        raise ValueError(f"No access is declared for {', '.join(unknown)}. Declared: {', '.join(known)}. Add it to access.py.")
    access = {name: known[name] for name in graph}
    person = node | Access(
        subscribes=tuple(_seen_from_outside(n, name) for name in graph for n in access[name].publishes),
        requests=(
            *(_seen_from_outside(n, name) for name in graph for n in access[name].serves if n[2:] not in PARAMETERS + LIFECYCLE),
            *states,
            *(f"{name}/{service}" for name in graph for service in READ_PARAMETERS),
        ),
        calls=tuple(n for name in graph for n in access[name].executes),
    )
    return {**access, **dict.fromkeys(OPERATORS, person), LAUNCHER: node | Access(subscribes=(topics.GRAPH_STATE.name,))}


def _topics_but_joints() -> list[str]:
    """Every topic of `topics.py` that has one name; joint states may be found under another."""
    return [topic.name for topic in vars(topics).values() if isinstance(topic, topics.Topic) and topic.type is not JointState]


def _seen_from_outside(name: str, node: str) -> str:
    """A node's own name (`~/stop`) as the others call it (`guard/stop`)."""
    return node + name[1:] if name.startswith("~") else name
