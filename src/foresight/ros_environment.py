"""Where ROS 2 and Foresight's workspace are, as environment variables for the processes that need them.

Knows folders and variables only: imports no ROS, starts no node. Serves both a sourced ROS 2 and ROS 2 from PyPI wheels.

    python -m foresight.ros_environment                prints `export` lines (tools/activate sources them)
    python -m foresight.ros_environment COMMAND ...    runs COMMAND there
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("foresight_msgs", "foresight_nodes", "foresight_bringup")
WHEELS_GUARD = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"  # set: the wheels do not start python a second time to find their libraries


class WorkspaceError(RuntimeError):
    """The ROS 2 workspace, or ROS 2 itself, is not there; the message says what to run."""


def environment(base: Mapping[str, str] | None = None, root: Path = ROOT, prefix: Path | None = None) -> dict[str, str]:
    """The variables a ROS 2 process of Foresight needs, on top of `base` (default: those of this process).

    What the caller has set himself is kept (domain, discovery range, log folder, GL, DDS profile). `prefix` is the
    Python environment that may hold ROS 2 wheels (default: the running one).
    """
    variables = dict(os.environ if base is None else base)
    prefix = Path(sys.prefix) if prefix is None else prefix
    if (prefix / "share/ament_index/resource_index/packages/rclpy").exists():
        _prepend(variables, "AMENT_PREFIX_PATH", prefix)
        for libraries in (*sorted(prefix.glob("lib/python3*/site-packages/ros_*.libs")), prefix / "lib"):
            _prepend(variables, "LD_LIBRARY_PATH", libraries)
        variables[WHEELS_GUARD] = "1"
    elif not variables.get("AMENT_PREFIX_PATH"):
        raise WorkspaceError(f"ROS 2 is neither sourced nor installed in {prefix}. Run `make setup` in {root}.")

    install = root / "ros_ws" / "install"
    missing = [name for name in PACKAGES if _prefix_of(install, name) is None]
    if missing:
        raise WorkspaceError(
            f"The ROS 2 workspace is not built: {', '.join(missing)} not in {install}. Run `make setup` in {root}."
        )
    for name in PACKAGES:
        _apply_hooks(variables, _prefix_of(install, name), name)
    _prepend(variables, "PATH", prefix / "bin")

    fast_dds = "FASTRTPS" if variables.get("ROS_DISTRO") in ("humble", "jazzy") else "FASTDDS"  # renamed with Fast DDS 3
    defaults = {
        f"{fast_dds}_DEFAULT_PROFILES_FILE": str(root / "ros_ws/src/foresight_bringup/config/fastdds.xml"),
        "ROS_LOG_DIR": str(root / "runs" / "ros_log"),
        "MUJOCO_GL": mujoco_gl(variables, prefix),
        "LP_NUM_THREADS": "0",  # the software renderer draws on the thread that asks
        "OMP_NUM_THREADS": "1",  # each node is one of several processes on few cores
    }
    return {**defaults, **variables}


def mujoco_gl(base: Mapping[str, str] | None = None, prefix: Path | None = None) -> str:
    """How MuJoCo draws without a display: the caller's MUJOCO_GL, else what set-up found to work, else "egl"."""
    chosen = (os.environ if base is None else base).get("MUJOCO_GL")
    note = (Path(sys.prefix) if prefix is None else prefix) / "mujoco_gl"
    return chosen or (note.read_text().strip() if note.exists() else "egl")


def _prefix_of(install: Path, package: str) -> Path | None:
    """The package's install folder in either of colcon's layouts (one folder a package, or one for all)."""
    for candidate in (install / package, install):
        if (candidate / "share/ament_index/resource_index/packages" / package).exists():
            return candidate
    return None


def _apply_hooks(variables: dict[str, str], prefix: Path, package: str) -> None:
    """What sourcing the package's setup file does, from the .dsv files that say the same as data."""
    _prepend(variables, "AMENT_PREFIX_PATH", prefix)
    waiting, seen = [prefix / "share" / package / "package.dsv"], set()
    while waiting:
        hook = waiting.pop(0).with_suffix(".dsv")  # a sourced script has its .dsv beside it
        if hook in seen or not hook.is_file():
            continue
        seen.add(hook)
        for line in filter(None, hook.read_text().splitlines()):
            kind, name, *value = line.split(";")
            if kind == "source":
                waiting.append(prefix / name)
            elif kind.startswith("prepend-non-duplicate"):
                folder = Path(os.path.normpath(prefix / (value[0] if value else "")))
                if not kind.endswith("-if-exists") or folder.exists():
                    _prepend(variables, name, folder)


def _prepend(variables: dict[str, str], name: str, folder: Path) -> None:
    present = [part for part in variables.get(name, "").split(os.pathsep) if part and part != str(folder)]
    variables[name] = os.pathsep.join([str(folder), *present])


def main(arguments: list[str]) -> int:
    """Print the variables that differ from the present ones, or replace this process with a command among them."""
    try:
        variables = environment()
    except WorkspaceError as error:
        print(error, file=sys.stderr)
        return 1
    Path(variables["ROS_LOG_DIR"]).mkdir(parents=True, exist_ok=True)
    if arguments:
        try:
            os.execvpe(arguments[0], arguments, variables)
        except FileNotFoundError:
            print(f"No such command: {arguments[0]}.", file=sys.stderr)
            return 127
    for name, value in sorted(variables.items()):
        if os.environ.get(name) != value or name in (WHEELS_GUARD, "LD_LIBRARY_PATH"):
            print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
