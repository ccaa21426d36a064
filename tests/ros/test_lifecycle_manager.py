"""The lifecycle manager brings nodes up in order, repeats a refusal's reason, and takes the graph down when a node dies."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from foresight_msgs.msg import Bond, GuardState
from foresight_nodes import topics
from foresight_nodes.bond import Beat
from foresight_nodes.latch_note import LatchNote
from foresight_nodes.lifecycle_manager import LifecycleManager, ManagerParameters
from foresight_nodes.part import Part
from rclpy.publisher import Publisher
from std_srvs.srv import Trigger

from foresight.safety.failsafe import FailsafeParams
from tests.ros.conftest import Bench, parameters

SLACK_S = 0.1  # [s] for the step in which the manager looks, on a busy machine


def latched(bench: Bench, manager: LifecycleManager) -> Publisher:
    """The graph is up and its guard says that it has latched; what the guard says is published there."""
    bench.until(lambda: manager.up, "the graph is up")
    states = bench.publisher(topics.GUARD_STATE)
    states.publish(latched_state())
    bench.until(lambda: manager._latched, "the latch is heard")
    return states


def latched_state(state: int = GuardState.STOPPED) -> GuardState:
    """What a guard says that only a person can reset."""
    return GuardState(
        state=state, latched=True, action=GuardState.LATCH, cause="state_jumped", why="Joint 'elbow' leapt by 0.5 rad."
    )


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


@pytest.mark.parametrize("ends", ["before it was asked", "while it was asked"])
def test_a_node_that_has_ended_is_not_waited_for_at_the_end(bench: Bench, story: list[str], ends: str, monkeypatch):
    """Ctrl-C ends every process at once: a node that is gone is at rest, and nobody says that it does not answer."""
    manager = managed(bench, Toy("first", story), gone := Toy("gone", story))
    bench.until(lambda: manager.up, "the graph is up")
    said, client = [], manager._managed["gone"].change_client
    monkeypatch.setattr(type(manager.get_logger()), "info", lambda self, text, **_: said.append(text))
    if ends == "before it was asked":
        bench.kill(gone)
        until_s = time.monotonic() + 1.0
        manager._ended = True  # the end of all has begun: nobody is brought back
        bench.until(lambda: time.monotonic() > until_s, "its last sign of life is a while ago")
    else:
        call = client.call_async
        monkeypatch.setattr(client, "call_async", lambda request: (bench.kill(gone), call(request))[1])
    begin_s = time.monotonic()
    manager.stop()
    assert said == [] and story[-1] == "first deactivate" and time.monotonic() - begin_s < 1.5


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


def test_without_respawn_a_node_that_dies_takes_the_graph_down(bench: Bench, story: list[str]):
    """The others are deactivated, and the manager ends with the reason."""
    first, second = Toy("first", story), Toy("second", story)
    manager = managed(bench, first, second, respawn=False)
    bench.until(lambda: manager.up, "the graph is up")
    bench.kill(first)
    bench.until(lambda: manager.exit_code == 1, "the manager gives up")
    assert "Node 'first' is silent" in manager.failure and story[-1] == "second deactivate"


def test_a_dead_node_is_noticed_within_half_a_second(bench: Bench, story: list[str]):
    """From its last sign of life to the manager's word; the graph is no longer up, and what needs the node is deactivated."""
    first, second = Toy("first", story), Toy("second", story)
    manager = managed(bench, first, second)
    bench.until(lambda: manager.up, "the graph is up")
    bench.kill(first)
    begin_s = time.monotonic()
    bench.until(lambda: not manager.up, "the death is noticed")
    assert time.monotonic() - begin_s < 0.5 + SLACK_S
    bench.until(lambda: story[-1] == "second deactivate", "what needs it is deactivated")
    assert "first deactivate" not in story and manager.exit_code is None


def test_a_node_that_hangs_is_noticed_though_its_process_lives(bench: Bench, story: list[str]):
    """Its thread still beats, but says that no message has been served; the manager names it for ending."""
    first = Toy("first", story)
    manager = managed(bench, first, Toy("second", story), busy_timeout_s=0.6, frozen_after_s=0.8)
    told = bench.listen(topics.GRAPH_STATE)
    bench.until(lambda: manager.up, "the graph is up")
    bench.silence(first)
    bench.until(lambda: told and list(told[-1].frozen) == ["first"], "the manager names it")
    assert list(told[-1].frozen_pid) == [os.getpid()] and "serving nothing" in told[-1].detail


def test_the_graph_comes_back_when_the_node_is_there_again(bench: Bench, story: list[str]):
    """The new process is configured and activated, what needs it is activated again, and the others are left alone."""
    first, second, third = (Toy(name, story) for name in ("first", "second", "third"))
    manager = managed(bench, first, second, third)
    bench.until(lambda: manager.up, "the graph is up")
    bench.kill(second)
    bench.until(lambda: not manager.up, "the death is noticed")
    story.clear()
    bench.adopt(Toy("second", story))
    bench.until(lambda: manager.up, "the graph is up again")
    assert [line for line in story if "deactivate" not in line] == ["second configure", "second activate", "third activate"]


def test_a_node_restarted_between_two_signs_is_noticed(bench: Bench, story: list[str]):
    """Another process under the same name is a node that knows nothing, however quickly it came."""
    first = Toy("first", story)
    manager = managed(bench, first, Toy("second", story))
    bench.until(lambda: manager.up, "the graph is up")
    story.clear()
    manager._on_bond(Bond(node="/first", pid=1))
    bench.until(lambda: "second activate" in story and manager.up, "the graph is up again")
    assert story[0] == "second deactivate" and "first configure" in story


def test_what_needs_the_clock_is_configured_anew_when_the_clock_starts_anew(bench: Bench, story: list[str]):
    """Stamps that nodes remember are from another time then."""
    clock = Toy("clock", story)
    manager = managed(bench, clock, Toy("user", story), Toy("other", story), origins=["clock"], dependencies=["user:clock"])
    bench.until(lambda: manager.up, "the graph is up")
    bench.kill(clock)
    bench.until(lambda: not manager.up, "the death is noticed")
    bench.adopt(Toy("clock", story))
    bench.until(lambda: manager.up, "the graph is up again")
    assert story.count("user configure") == 2 and story.count("other configure") == 1 and "other deactivate" not in story


def test_after_a_latch_nothing_is_brought_back_until_a_person_says_so(bench: Bench, story: list[str]):
    """Neither while the guard says that it has latched, nor after that guard died; then `resume` is the word."""
    guard = Toy("guard", story)
    manager = managed(bench, guard, Toy("second", story))
    states = latched(bench, manager)
    refused = bench.call(topics.RESUME, manager, Trigger.Request())
    assert not refused.success and "state_jumped: Joint 'elbow' leapt by 0.5 rad; call guard/reset" in refused.message
    bench.kill(guard)
    bench.until(lambda: not manager.up, "the death is noticed")
    story.clear()
    bench.adopt(Toy("guard", story))
    bench.until(lambda: "latched" in manager._detail, "the manager waits")
    states.publish(GuardState(state=GuardState.INACTIVE))
    end_s = time.monotonic() + 1.0
    bench.until(lambda: time.monotonic() > end_s, "a second passes")
    assert not manager.up and "guard configure" not in story
    assert bench.call(topics.RESUME, manager, Trigger.Request()).success
    bench.until(lambda: manager.up, "the graph is up again")


def test_a_latch_outlives_guard_and_manager_both(bench: Bench, story: list[str], tmp_path: Path):
    """A manager that is started anew waits for a person as the last one did, and after that word the next one no longer does."""
    note = tmp_path / "latch"
    guard, second = Toy("guard", story), Toy("second", story)
    manager = managed(bench, guard, second, latch_file=str(note))
    said = latched(bench, manager)
    assert LatchNote(str(note)).read() == os.getpid()
    for node in (guard, manager):
        bench.kill(node)
    bench.node.destroy_publisher(said)  # a guard's last word dies with it
    story.clear()
    manager = managed(bench, Toy("guard", story), latch_file=str(note), cooldown_s=0.2)
    assert manager._latched
    bench.until(lambda: "latched" in manager._detail, "the new manager waits")
    end_s = time.monotonic() + 1.0
    bench.until(lambda: time.monotonic() > end_s, "a second passes")
    assert not manager.up and story == []
    bench.until(lambda: bench.call(topics.RESUME, manager, Trigger.Request()).success, "going on is granted")
    bench.until(lambda: manager.up, "the graph is up again")
    assert not note.exists() and not LifecycleManager(parameter_overrides=parameters(latch_file=str(note)))._latched


def test_a_latch_is_noted_until_its_guard_is_reset(bench: Bench, story: list[str], tmp_path: Path, monkeypatch):
    """Where it cannot be, that is said once, and the manager itself still remembers."""
    note, said = tmp_path / "latch", []
    manager = managed(bench, Toy("guard", story), latch_file=str(note))
    states = latched(bench, manager)
    assert note.exists()
    states.publish(GuardState(state=GuardState.ACTIVE))
    bench.until(lambda: not manager._latched, "the reset is heard")
    assert not note.exists()
    note.mkdir()
    (note / "full").touch()
    monkeypatch.setattr(type(manager.get_logger()), "error", lambda self, text, **_: said.append(text))
    for _ in range(2):
        manager._on_guard_state(latched_state())
    assert manager._latched and len(said) == 1 and str(note) in said[0]


@pytest.mark.parametrize(("text", "pid"), [("123", 123), ("", 0), ("x", 0)])
def test_a_note_that_cannot_be_read_stands(tmp_path: Path, text: str, pid: int):
    """Whatever is in it; without a file there is no latch."""
    note = LatchNote(str(tmp_path / "latch"))
    assert note.read() is None and LatchNote("").read() is None
    (tmp_path / "latch").write_text(text)
    assert note.read() == pid
    note.forget()
    note.forget()
    assert note.read() is None


def test_resume_waits_for_the_cool_down_and_for_every_node(bench: Bench, story: list[str]):
    """As a reset of the guard does; each refusal says for how long, or what is missing, and nothing is brought back."""
    guard = Toy("guard", story)
    manager = managed(bench, guard, Toy("second", story), cooldown_s=3.0)
    assert ManagerParameters().cooldown_s == FailsafeParams().cooldown_s

    def resume() -> Trigger.Response:
        return bench.call(topics.RESUME, manager, Trigger.Request())

    states = latched(bench, manager)
    bench.kill(guard)
    bench.until(lambda: not manager.up, "the death is noticed")
    soon = resume()
    assert not soon.success and soon.message.startswith("Latched ") and "possible after 3.0 s" in soon.message
    bench.until(lambda: time.monotonic() - manager._latched_s > 3.0, "the cool-down is over")
    missing = resume()
    assert not missing.success and missing.message.startswith("Not there: guard.") and manager._latched
    bench.adopt(Toy("guard", story))
    bench.until(lambda: "latched" in manager._detail, "the manager waits")
    states.publish(GuardState(state=GuardState.INACTIVE))
    bench.until(lambda: resume().success, "going on is granted")
    bench.until(lambda: manager.up, "the graph is up again")


def test_a_guard_that_was_only_frozen_is_reset_itself(bench: Bench, story: list[str]):
    """It was given up, and is alive again with its latch: whoever asks the manager is told its cause, and to ask the guard."""
    guard = Toy("guard", story)
    manager = managed(bench, guard, Toy("second", story))
    states = latched(bench, manager)
    guard._bond.stop()
    bench.until(lambda: not manager.up, "the silence is noticed")
    guard._bond = Beat(guard)
    bench.until(lambda: "latched" in manager._detail and time.monotonic() - manager._latched_s > 0.6, "the manager waits")
    refused = bench.call(topics.RESUME, manager, Trigger.Request())
    assert not refused.success and "reports state_jumped" in refused.message and "call guard/reset" in refused.message
    states.publish(GuardState(state=GuardState.ACTIVE))
    bench.until(lambda: manager.up, "the graph is up again after the guard's own reset")


def test_a_guard_that_latched_and_is_inactive_is_brought_back_with_its_latch(bench: Bench, story: list[str]):
    """Inactive it cannot be reset. A person's word brings it back although it goes on saying that it has latched."""
    second = Toy("second", story)
    manager = managed(bench, second, Toy("guard", story))
    states = latched(bench, manager)
    bench.kill(second)
    bench.until(lambda: story[-1] == "guard deactivate", "the guard is deactivated")
    states.publish(latched_state(GuardState.INACTIVE))
    bench.adopt(Toy("second", story))
    bench.until(lambda: "latched" in manager._detail and time.monotonic() - manager._latched_s > 0.6, "the manager waits")
    assert bench.call(topics.RESUME, manager, Trigger.Request()).success
    manager._on_guard_state(latched_state(GuardState.INACTIVE))
    assert not manager._latched, "what it still says takes the word back"
    bench.until(lambda: manager.up, "the graph is up again")
    manager._on_guard_state(latched_state())
    assert manager._latched, "active, it holds its latch"


def test_a_dependency_on_a_node_that_is_not_there_is_refused():
    """With the nodes there are."""
    with pytest.raises(ValueError, match=r"name 'sun', which is no node. Nodes: guard, sim"):
        ManagerParameters(dependencies=("planner:sun",))


def test_a_node_that_never_appears_is_named(bench: Bench):
    """The manager does not wait for ever."""
    manager = bench.adopt(LifecycleManager(parameter_overrides=parameters(node_names=["ghost"], configure_timeout_s=0.3)))
    bench.until(lambda: manager.exit_code == 1, "the manager gives up")
    assert "Node 'ghost' did not appear" in manager.failure
