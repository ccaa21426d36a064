"""ROS parameters from frozen dataclasses: names, defaults and descriptions are written once, in the core.

A field without default is a required parameter; a nested dataclass gives dotted names (`planner.deadline_s`). The comment
behind a field becomes its descriptor. Knows no node in particular.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

T = TypeVar("T")


def declare(node: Node, config: type, prefix: str = "", editable: Collection[str] = ()) -> None:
    """Declares a parameter for each field of the dataclass; all but the `editable` ones are fixed when the node starts."""
    hints, notes = get_type_hints(config), _comments(config)
    for field in fields(config):
        name = prefix + field.name
        if is_dataclass(hints[field.name]):
            declare(node, hints[field.name], f"{name}.", editable)
            continue
        default = _default(field)
        description = notes.get(field.name, "") + (" (required)" if default is MISSING else "")
        descriptor = ParameterDescriptor(description=description.strip(), dynamic_typing=True, read_only=name not in editable)
        node.declare_parameter(name, None if default is MISSING else _to_ros(default), descriptor)


def read(node: Node, config: type[T], prefix: str = "") -> T:
    """The dataclass as the parameters say. Raises ValueError that names every missing one, or what is wrong with one."""
    missing = _missing(node, config, prefix)
    if missing:
        raise ValueError(
            f"Missing parameter {', '.join(missing)} of node '{node.get_name()}'. "
            f"Set it with `-p {missing[0]}:=...` or in the parameter file."
        )
    hints = get_type_hints(config)
    values = {}
    for field in fields(config):
        name = prefix + field.name
        kind = hints[field.name]
        values[field.name] = (
            read(node, kind, f"{name}.") if is_dataclass(kind) else _from_ros(name, kind, node.get_parameter(name).value)
        )
    return config(**values)


def _missing(node: Node, config: type, prefix: str) -> list[str]:
    names = []
    for field in fields(config):
        kind = get_type_hints(config)[field.name]
        if is_dataclass(kind):
            names += _missing(node, kind, f"{prefix}{field.name}.")
        elif _default(field) is MISSING and node.get_parameter(prefix + field.name).value in (None, ""):
            names.append(prefix + field.name)
    return names


def _default(field: Field) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _comments(config: type) -> dict[str, str]:
    """The comment behind each field, from the dataclass's source."""
    found = re.findall(r"^ {4}(\w+): [^#\n]*#\s*(.+)$", inspect.getsource(config), flags=re.MULTILINE)
    return dict(found)


def _to_ros(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _from_ros(name: str, kind: Any, value: Any) -> Any:
    """A parameter's value as the field's type; whole numbers pass for real ones, nothing else is converted."""
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return tuple(_from_ros(name, item, v) for v in (value or ()))
    if get_origin(kind) is Literal:  # the dataclass says which of them there are
        kind = type(get_args(kind)[0])
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"Parameter '{name}' must be of type {kind.__name__}, got {value!r}.")
    return value
