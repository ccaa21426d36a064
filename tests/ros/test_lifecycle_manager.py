"""The lifecycle manager brings nodes up in order, repeats a refusal's reason, and takes the graph down when a node dies."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from foresight_nodes import topics
from foresight_nodes.lifecycle_manager import LifecycleManager
from foresight_nodes.part import Part
from std_srvs.srv import Trigger

from tests.ros.conftest import Bench, parameters


@dataclass(frozen=True)
class NoParameters:
    """None."""


class Toy(Part[NoParameters]):
    """A node that writes down what happens to it."""

    def __init__(self, name: str, story: list[str], refuses: str = "", times: int = 10**6) -> None:
        super().__init__(name, NoParameters)
        self.story, self.refuses, self.times = story, refuses, times

    def configure(self, parameters: NoParameters) -> None:
        self._tell("configure")

    def activate(self) -> None:
        self._tell("activate")

    def deactivate(self) -> None:
        self._tell("deactivate")

    def _tell(self, what: str) -> None:
        if what == self.refuses and self.times > 0:
            self.times -= 1
            raise ValueError("The gripper is missing. Mount it.")
        self.story.append(f"{self.get_name()} {what}")


def managed(bench: Bench, *toys: Toy, **values) -> LifecycleManager:
    """A manager of these nodes; the bench spins all of them."""
    for toy in toys:
        bench.adopt(toy)
    manager = LifecycleManager(
        parameter_overrides=parameters(node_names=[t.get_name() for t in toys], activate_timeout_s=0.5, **values)
    )
    bench.adopt(manager)
    return manager


@pytest.fixture
def story() -> list[str]:
    return []


def test_nodes_come_up_in_order_and_go_down_in_reverse(bench: Bench, story: list[str]):
    """All are configured before the first is activated; activation follows the list, the end reverses it."""
    manager = managed(bench, Toy("first", story), Toy("second", story))
    bench.until(lambda: manager.up, "the graph is up")
    assert sorted(story[:2]) == ["first configure", "second configure"] and story[2:] == ["first activate", "second activate"]
    manager.stop()
    assert story[4:] == ["second deactivate", "first deactivate"] and manager.exit_code is None


def test_it_says_whether_the_graph_is_active(bench: Bench, story: list[str]):
    """No, with autostart off, and nothing happens to the nodes; yes once they are up."""
    idle = managed(bench, Toy("alone", story), autostart=False)
    assert not bench.call(topics.IS_ACTIVE, idle, Trigger.Request()).success and story == []


def test_it_says_that_the_graph_is_active(bench: Bench, story: list[str]):
    """Whoever waits for the graph can ask."""
    manager = managed(bench, Toy("alone", story))
    bench.until(lambda: manager.up, "the graph is up")
    assert bench.call(topics.IS_ACTIVE, manager, Trigger.Request()).success


@pytest.mark.parametrize("refuses", ["configure", "activate"])
def test_a_refusal_is_repeated_with_its_reason_and_nothing_stays_active(bench: Bench, story: list[str], refuses: str):
    """The node's own sentence reaches the person who started the graph; what was active is deactivated."""
    manager = managed(bench, Toy("first", story), Toy("second", story, refuses))
    bench.until(lambda: manager.exit_code == 1, "the manager gives up")
    assert manager.failure == f"Node 'second': Cannot {refuses}: The gripper is missing. Mount it."
    assert story.count("first activate") == story.count("first deactivate")


def test_a_node_that_refuses_at_first_is_asked_again(bench: Bench, story: list[str]):
    """A node may wait for its first messages."""
    manager = managed(bench, Toy("late", story, "activate", times=2))
    bench.until(lambda: manager.up, "the graph is up")
    assert manager.failure == ""


def test_when_a_node_dies_the_others_are_deactivated(bench: Bench, story: list[str]):
    """A node without diagnostics counts as dead."""
    first, second = Toy("first", story), Toy("second", story)
    manager = managed(bench, first, second, bond_timeout_s=1.5)
    bench.until(lambda: manager.up, "the graph is up")
    bench.silence(first)
    bench.until(lambda: manager.exit_code == 1, "the manager gives up")
    assert "Node 'first' has been silent" in manager.failure and story[-1] == "second deactivate"


def test_a_node_that_never_appears_is_named(bench: Bench):
    """The manager does not wait for ever."""
    manager = bench.adopt(LifecycleManager(parameter_overrides=parameters(node_names=["ghost"], configure_timeout_s=0.3)))
    bench.until(lambda: manager.exit_code == 1, "the manager gives up")
    assert "Node 'ghost' did not appear" in manager.failure
