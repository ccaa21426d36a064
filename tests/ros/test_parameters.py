"""ROS parameters come from dataclasses: defaults, descriptions, required ones, wrong ones."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from foresight_nodes.parameters import declare, read
from rclpy.node import Node
from rclpy.parameter import Parameter

from tests.ros.conftest import parameters


@dataclass(frozen=True)
class Inner:
    """A part's configuration."""

    gain: float = 2.0  # [1/s] how hard it pulls

    def __post_init__(self) -> None:
        if self.gain < 0:
            raise ValueError(f"gain must not be negative, got {self.gain}.")


@dataclass(frozen=True)
class Outer:
    """A node's parameters."""

    robot: str  # which robot
    names: tuple[str, ...] = ()  # of cameras
    count: int = 3  # of things
    inner: Inner = Inner()


def outer(**values) -> Outer:
    node = Node("parameters", parameter_overrides=parameters(**values))
    try:
        declare(node, Outer)
        return read(node, Outer)
    finally:
        node.destroy_node()


def test_defaults_are_those_of_the_dataclass():
    """Only what is given differs."""
    assert outer(robot="ur5e") == Outer("ur5e")


def test_nested_fields_have_dotted_names_and_whole_numbers_pass_for_real_ones():
    """`inner.gain: 5` in a parameter file is 5.0."""
    assert outer(robot="ur5e", inner__gain=5, names=["left", "right"]) == Outer("ur5e", ("left", "right"), 3, Inner(5.0))


def test_a_missing_required_parameter_is_named():
    """There is no default for what has no safe one."""
    with pytest.raises(ValueError, match="Missing parameter robot of node 'parameters'"):
        outer()


@pytest.mark.parametrize(("value", "said"), [("many", "'count' must be of type int, got 'many'"), (True, "got True")])
def test_a_value_of_another_type_is_refused(value: object, said: str):
    """Nothing is converted silently."""
    with pytest.raises(ValueError, match=said):
        outer(robot="ur5e", count=value)


def test_the_dataclass_validates():
    """A value the core refuses is refused here in the core's words."""
    with pytest.raises(ValueError, match=r"gain must not be negative, got -1\.0"):
        outer(robot="ur5e", inner__gain=-1.0)


def test_what_is_not_editable_is_fixed_when_the_node_starts():
    """Nobody changes from outside which files a running node reads."""
    node = Node("fixed", parameter_overrides=parameters(robot="ur5e"))
    declare(node, Outer, editable=("count",))
    edits = {"robot": "fr3", "inner.gain": 1.0, "count": 5}
    results = node.set_parameters([Parameter(name, value=value) for name, value in edits.items()])
    found = read(node, Outer)
    node.destroy_node()
    assert [result.successful for result in results] == [False, False, True] and "read-only" in results[0].reason
    assert (found.robot, found.inner.gain, found.count) == ("ur5e", 2.0, 5)


def test_comments_become_descriptions():
    """`ros2 param describe` tells what the core says."""
    node = Node("described")
    declare(node, Outer)
    said = {name: node.describe_parameter(name).description for name in ("robot", "inner.gain")}
    node.destroy_node()
    assert said == {"robot": "which robot (required)", "inner.gain": "[1/s] how hard it pulls"}
