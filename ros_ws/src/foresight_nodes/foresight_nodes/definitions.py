"""Message definitions as text, as MCAP files carry them: a type's .msg file, then those of all types within.

Read from where the packages are installed; knows no topics and starts no node.
"""

from __future__ import annotations

import re
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from rclpy.qos import QoSProfile

LINE = "=" * 80
FIELD = re.compile(r"^\s*([A-Za-z]\w*(?:/\w+){0,2})(?:<=\d+)?(?:\[[^\]]*\])?\s+\w+")
PRIMITIVES = frozenset("bool byte char float32 float64 int8 uint8 int16 uint16 int32 uint32 int64 uint64 string wstring".split())


def type_name(kind: type) -> str:
    """`foresight_msgs/msg/Plan` of the class."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def definition(kind: type) -> str:
    """The whole definition. Raises OSError when a package does not install its .msg files."""
    first, *within = _closure(type_name(kind))
    return "\n".join([_text(first), *(f"{LINE}\nMSG: {_short(name)}\n{_text(name)}" for name in within)])


def _closure(name: str) -> list[str]:
    """The type, then every type within, each once."""
    found, waiting = [], [name]
    while waiting:
        current = waiting.pop(0)
        if current not in found:
            found.append(current)
            waiting += _within(current)
    return found


def _within(name: str) -> list[str]:
    package = name.split("/")[0]
    kinds = [match.group(1) for line in _text(name).splitlines() if (match := FIELD.match(line.split("#")[0]))]
    parts = [kind.split("/") for kind in kinds if kind not in PRIMITIVES]
    return [f"{part[0] if len(part) > 1 else package}/msg/{part[-1]}" for part in parts]


def _text(name: str) -> str:
    package, _, kind = name.split("/")
    return (Path(get_package_share_directory(package)) / "msg" / f"{kind}.msg").read_text()


def _short(name: str) -> str:
    package, _, kind = name.split("/")
    return f"{package}/{kind}"


def qos_as_bag(qos: QoSProfile) -> str:
    """The profile as rosbag2 writes it since Humble: a YAML list of one, with rmw's numbers."""
    return (
        f"- history: {int(qos.history)}\n  depth: {qos.depth}\n  reliability: {int(qos.reliability)}\n"
        f"  durability: {int(qos.durability)}\n"
        + "".join(f"  {name}:\n    sec: 9223372036\n    nsec: 854775807\n" for name in ("deadline", "lifespan"))
        + "  liveliness: 1\n  liveliness_lease_duration:\n    sec: 9223372036\n    nsec: 854775807\n"
        "  avoid_ros_namespace_conventions: false"
    )
