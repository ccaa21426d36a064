"""Imports point one way. This test walks the arrows: every import statement of the repository, wherever it stands."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROS = (
    "rclpy", "launch", "launch_ros", "ament_index_python", "rcl_interfaces", "lifecycle_msgs", "rosgraph_msgs", "action_msgs",
    "builtin_interfaces", "std_msgs", "std_srvs", "sensor_msgs", "geometry_msgs", "trajectory_msgs", "diagnostic_msgs",
    "foresight_msgs", "foresight_nodes", "foresight_bringup",
)  # fmt: skip
NODES = "ros_ws/src/foresight_nodes/foresight_nodes"
BRINGUP = "ros_ws/src/foresight_bringup/foresight_bringup"
SIM_NODE = f"{NODES}/sim_node.py"
EPISODES = f"{NODES}/run_episodes.py"  # no node: judges whole episodes, and measures the random floor in process
INJECT = f"{NODES}/inject.py"  # no node: names the simulation's faults
TRIALS = f"{NODES}/stop_trials.py"  # no node of the graph: an arm and its judge


@dataclass(frozen=True)
class Rule:
    """Files under `where` (but not those under `but`) import none of `never`."""

    says: str
    where: tuple[str, ...]
    never: tuple[str, ...]
    but: tuple[str, ...] = ()

    def covers(self, path: str) -> bool:
        return _under(path, self.where) and not _under(path, self.but)


RULES = (
    Rule("the core imports no ROS", ("src/foresight",), ROS),
    Rule(
        "the core imports no simulation (its command line hands over to it)",
        ("src/foresight",),
        ("sim",),
        but=("src/foresight/cli.py",),
    ),
    Rule(
        "safety and control import neither torch nor the world model",
        ("src/foresight/safety", "src/foresight/control"),
        ("torch", "foresight.world_model", "foresight.planning", "foresight.agent"),
    ),
    Rule("planning does not know the world model", ("src/foresight/planning",), ("foresight.world_model",)),
    Rule("the world model does not know planning", ("src/foresight/world_model",), ("foresight.planning",)),
    Rule(
        "the light parts of the core load no torch",
        (
            "src/foresight/data.py",
            "src/foresight/contract.py",
            "src/foresight/robots",
            "src/foresight/incidents",
            "src/foresight/perception",
            "src/foresight/ros_environment.py",
        ),
        ("torch",),
    ),
    Rule("MuJoCo stays in the robots' kinematics", ("src/foresight",), ("mujoco", "mink"), but=("src/foresight/robots",)),
    Rule("sim imports no ROS", ("sim",), ROS),
    Rule("only the simulator node imports sim", ("ros_ws/src", "launch"), ("sim",), but=(SIM_NODE, EPISODES, INJECT, TRIALS)),
    Rule("nobody imports the agent but sim and the tests", ("src", "ros_ws/src", "launch"), ("foresight.agent",)),
    Rule(
        "launch names nodes and imports neither them nor the core",
        ("launch", BRINGUP),
        ("foresight_nodes", "foresight", "sim", "torch"),
    ),
    Rule(
        "the guard's and the recorder's processes load no torch",
        (f"{NODES}/guard_node.py", f"{NODES}/recorder_node.py", f"{NODES}/part.py", f"{NODES}/topics.py", f"{NODES}/convert.py"),
        ("torch", "foresight.world_model", "foresight.planning"),
    ),
    Rule("what the product runs on imports no tests", ("src", "sim", "ros_ws/src", "launch"), ("tests", "pytest", "hypothesis")),
)


def _under(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def imported(source: str, path: str = "x.py") -> set[tuple[str, int]]:
    """Every module a file imports, with its line: at the top, inside functions, under TYPE_CHECKING, relative ones resolved."""
    found = set()
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            found |= {(alias.name, node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = ""
            if node.level:
                parts = Path(path).with_suffix("").parts[: -node.level]
                parent = ".".join(parts[parts.index("foresight") :] if "foresight" in parts else parts)
            module = ".".join(part for part in (parent, node.module or "") if part)
            found |= {(module, node.lineno), *((f"{module}.{alias.name}", node.lineno) for alias in node.names)}
    return found


def violations(files: dict[str, str], rules: tuple[Rule, ...] = RULES) -> list[str]:
    """A sentence for each import that points the wrong way. `files` maps paths in the repository to source text."""
    wrong = set()
    for path, source in files.items():
        for rule in rules:
            if rule.covers(path):
                wrong |= {
                    f"{path}:{line} imports {banned}: {rule.says}"
                    for module, line in imported(source, path)
                    for banned in rule.never
                    if module == banned or module.startswith(banned + ".")
                }
    return sorted(wrong)


def repository() -> dict[str, str]:
    paths = [path for folder in ("src/foresight", "sim", "launch", "ros_ws/src") for path in (ROOT / folder).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def test_every_import_points_the_right_way():
    """No file of the product imports what lies downstream of it."""
    assert violations(repository()) == []


def test_the_walk_reaches_the_whole_repository():
    """The walk saw every part; each rule covers a file that exists, so no rule is about a folder that has moved."""
    files = repository()
    assert len(files) >= 45, sorted(files)
    assert all(any(rule.covers(path) for path in files) for rule in RULES), [
        r.says for r in RULES if not any(map(r.covers, files))
    ]
    places = {place for rule in RULES for place in (*rule.where, *rule.but)}
    assert {place for place in places if not (ROOT / place).exists()} == set()


@pytest.mark.parametrize(
    ("path", "source", "says"),
    [
        ("src/foresight/safety/x.py", "import torch.nn", "neither torch"),
        ("src/foresight/safety/x.py", "from foresight.world_model import checkpoint", "neither torch"),
        ("src/foresight/control/x.py", "from ..world_model.checkpoint import load", "neither torch"),
        ("src/foresight/planning/x.py", "def f():\n    from foresight import world_model", "planning does not know"),
        ("src/foresight/world_model/x.py", "import foresight.planning.planner as p", "the world model does not know"),
        ("src/foresight/perception/x.py", "from sensor_msgs.msg import Image", "the core imports no ROS"),
        ("src/foresight/perception/x.py", "import sim.tasks", "the core imports no simulation"),
        ("sim/x.py", "import rclpy", "sim imports no ROS"),
        (f"{NODES}/planner_node.py", "from sim.simulation import Simulation", "only the simulator node"),
        (f"{NODES}/planner_node.py", "from foresight.agent import episode", "nobody imports the agent"),
        (f"{BRINGUP}/x.py", "import foresight_nodes.run", "launch names nodes"),
        ("launch/x.launch.py", "from foresight import config", "launch names nodes"),
    ],
)
def test_a_wrong_import_is_seen(path, source, says):
    """Each arrow, turned round in a made-up file, is reported."""
    assert any(says in line for line in violations({path: source}))


def test_right_imports_pass():
    """The arrows as they are meant raise nothing."""
    files = {
        SIM_NODE: "from sim.simulation import Simulation\nimport rclpy",
        "sim/x.py": "from foresight.agent import episode",
        f"{NODES}/guard_node.py": "from foresight.safety.guard import Guard\nfrom foresight_msgs.msg import GuardState",
        "src/foresight/planning/x.py": "from foresight.interfaces import Dynamics\nimport torch",
        "src/foresight/safety/x.py": "import torchlight_is_no_torch\nfrom foresight.control import braking",
    }
    assert violations(files) == []
