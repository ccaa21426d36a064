"""`foresight stop`, `reset` and `objective` ask the running nodes, and say in one line what became of it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from foresight_nodes import operate
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import Trigger

PATIENCE_S = 60.0


class Graph:
    """Nodes with the services that are asked for, each with its answer; what was asked stands in `asked`."""

    def __init__(self, **answers: tuple[bool, str]) -> None:
        """Answers by `node_service`."""
        self.asked: list[str] = []
        self.nodes = {name: Node(name) for name in ("guard", "lifecycle_manager", "planner")}
        self.executor = SingleThreadedExecutor()
        for node in self.nodes.values():
            self.executor.add_node(node)
        for name, answer in answers.items():
            node, _, service = name.rpartition("_")
            self.nodes[node].create_service(Trigger, f"~/{service}", lambda _, said, n=name, a=answer: self.answer(n, a, said))
        planner = self.nodes["planner"]
        planner.declare_parameter(operate.OBJECTIVE, "to_go")
        planner.add_on_set_parameters_callback(self.judge)

    def answer(self, name: str, answer: tuple[bool, str], said: Trigger.Response) -> Trigger.Response:
        self.asked.append(name)
        said.success, said.message = answer
        return said

    @staticmethod
    def judge(edits) -> SetParametersResult:
        wrong = any("luck" in edit.value for edit in edits)
        return SetParametersResult(successful=not wrong, reason="Term 'luck' is unknown." if wrong else "")

    def serve(self, *words: str) -> tuple[int, str, str]:
        """Exit code and output of the command, served until it has ended."""
        command = [sys.executable, "-m", "foresight_nodes.operate", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        end_s = time.monotonic() + PATIENCE_S
        while process.poll() is None:
            self.executor.spin_once(timeout_sec=0.05)
            if time.monotonic() > end_s:
                process.kill()
                pytest.fail("the command does not end")
        out, err = process.communicate()
        return process.returncode, out, err

    def close(self) -> None:
        self.executor.shutdown()
        for node in self.nodes.values():
            node.destroy_node()


@pytest.fixture
def graph(request: pytest.FixtureRequest):
    made = Graph(**request.param)
    yield made
    made.close()


RESUMED = {"lifecycle_manager_resume": (True, "Going on.")}


@pytest.mark.parametrize(
    ("graph", "word", "code", "says", "asked"),
    [
        ({"guard_stop": (True, "Stopped; at rest in 0.20 s.")}, "stop", 0, "Stopped; at rest in 0.20 s.", ["guard_stop"]),
        ({"guard_stop": (False, "The guard is not active.")}, "stop", 1, "refused. The guard is not active.", ["guard_stop"]),
        ({"guard_reset": (True, "Reset 2 s after the stop."), **RESUMED}, "reset", 0, "Reset 2 s after", ["guard_reset"]),
        ({"guard_reset": (False, "The cause still stands: x."), **RESUMED}, "reset", 1, "still stands: x", ["guard_reset"]),
        ({"guard_reset": (False, "The guard is not active."), **RESUMED}, "reset", 0, "Going on.", None),
        (RESUMED, "reset", 0, "Going on.", ["lifecycle_manager_resume"]),
    ],
    indirect=["graph"],
)
def test_what_was_asked_is_answered(graph: Graph, word: str, code: int, says: str, asked: list[str] | None):
    """By the guard; by the lifecycle manager where the guard is gone or not active. Code 1 where it is refused."""
    returned, out, err = graph.serve(word)
    assert returned == code and says in (err if code else out) and len((out + err).splitlines()) == 1
    assert graph.asked == (asked or ["guard_reset", "lifecycle_manager_resume"])


@pytest.mark.parametrize("graph", [{}], indirect=True)
def test_the_objective_is_told_and_changed(graph: Graph):
    """A bad edit is refused with the planner's own words, and changes nothing."""
    assert graph.serve("objective")[:2] == (0, "to_go\n")
    returned, _, err = graph.serve("objective", "to_go + luck")
    assert returned == 1 and "refused. Term 'luck' is unknown." in err
    assert graph.serve("objective", "to_go + 0.5*effort")[:2] == (0, "From the next plan on: to_go + 0.5*effort\n")
    assert graph.nodes["planner"].get_parameter(operate.OBJECTIVE).value == "to_go + 0.5*effort"


@pytest.mark.parametrize(
    ("word", "says"),
    [("stop", "No guard answers"), ("objective", "No planner answers"), ("reset", "No guard, nor a lifecycle manager, answers")],
)
def test_without_a_graph_that_is_said(word: str, says: str, monkeypatch: pytest.MonkeyPatch):
    """With what to do."""
    monkeypatch.setattr(operate, "GUARD_S", 0.1)
    kind, do = operate.WORDS[word]
    with pytest.raises(operate.InputError, match=f"{says}.*foresight up sim"):
        do(lambda *asked: None, kind())


def test_bad_input_is_refused_in_one_line(capsys: pytest.CaptureFixture):
    """Before anybody is asked."""
    assert operate.main(["reset", "--namespace", "bad name!"]) == 2
    assert "Namespace 'bad name!' is none" in capsys.readouterr().err
