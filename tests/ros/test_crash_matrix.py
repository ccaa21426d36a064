"""The simulated graph through `foresight up`: a planner that dies or freezes in motion leaves an arm at rest, and comes back."""

from __future__ import annotations

import gc
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from foresight_bringup.processes import Child, ending_with_parent, stop
from foresight_msgs.msg import GraphState, GuardState, SimState
from foresight_nodes import topics
from foresight_nodes.crash_matrix import (
    DISPENSABLE,
    NODES,
    NOTICED_LIMIT_S,
    SIGNALS,
    STATES,
    STEPS,
    Crash,
    MatrixError,
    Onlooker,
    Violations,
    cells,
    summary,
    told_matrix,
)
from lifecycle_msgs.msg import State

from foresight.ros_environment import environment
from tests.ros.conftest import Bench

START_S = 110.0  # [s] for the graph to be active


@pytest.fixture
def onlooker(tmp_path) -> Iterator[Onlooker]:
    """Somebody who watches a running graph."""
    gc.collect()  # destroyed nodes of earlier tests are seen by others until then
    with open(tmp_path / "graph.log", "w+") as log:
        command = [sys.executable, "-m", "foresight_bringup.up", "sim"]
        graph = Child("the graph", subprocess.Popen(
            ending_with_parent(command), env=environment(dict(os.environ)), stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        ))  # fmt: skip

        def check() -> None:
            assert graph.process.poll() is None, (tmp_path / "graph.log").read_text()

        watching = Onlooker(check)
        try:
            watching.until(lambda: watching.graph.active, "the graph is active", START_S)
            yield watching
        finally:
            watching.close()
            stop([graph], pump=lambda: None)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_planner_that_dies_or_freezes_in_motion_leaves_an_arm_at_rest_and_comes_back(onlooker: Onlooker):
    """At rest within a second, once by SIGKILL and once by SIGSTOP; the graph is back by itself, and the arm moves again.

    It is noticed in time, by silence: not before the bond's last sign is nearly as old as it may be. No limit is broken.
    """
    for kind in SIGNALS:
        made = onlooker.crash_moving("planner", "active", kind)
        assert made.moving and made.rest_s <= 1.0 and made.violations == 0, made
        assert 0.3 < made.noticed_s <= NOTICED_LIMIT_S, made
    onlooker.move()


def test_the_matrix_is_every_node_in_every_state_by_either_signal():
    """No node is crashed twice in a row; the manager has no states, the recorder is killed only; an unknown node is named."""
    wanted = cells(())
    assert len(set(wanted)) == len(wanted) == len(SIGNALS) * (len(NODES) * len(STATES) + 1) + len(DISPENSABLE) * len(STATES)
    labels = {name.removeprefix(kind).lower() for kind in ("PRIMARY_STATE_", "TRANSITION_STATE_") for name in dir(State)
              if name.startswith(kind)}  # fmt: skip
    assert set(STATES) == set(STEPS) == labels - {"unknown", "errorprocessing"}
    assert all(a[0] != b[0] for a, b in itertools.pairwise(wanted))
    with pytest.raises(MatrixError, match=r"no node 'moon'. There are: guard, sim, "):
        cells(("moon",))


def crash(**changed) -> Crash:
    """A good cell, but for what is changed."""
    good = {"node": "planner", "state": "active", "signal": "kill", "moving": True}
    return Crash(**{**good, "noticed_s": 0.5, "rest_s": 0.4, "back_s": 14.9, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {"rest_s": 1.1},
        {"back_s": 15.1},
        {"noticed_s": 0.51},
        {"noticed_s": 5.0, "state": "configuring", "moving": False},
        {"violations": 1},
        {"moving": False},
        {"node": "recorder", "noticed_s": None, "held_up": True},
    ],
)
def test_a_crash_is_good_within_every_limit(changed: dict):
    """0.5 s to be noticed, 1 s to rest, 15 s to be back, no violation, and in motion where the node was active."""
    assert NOTICED_LIMIT_S == 0.5 and crash().good and not crash(**changed).good
    assert crash(node="recorder", noticed_s=None).good, "which nobody watches"
    assert crash(state="inactive", moving=False).good, "the arm is at rest by then"


def test_the_figures_and_the_table_tell_what_was_found():
    """The worst of each, how many were tested, and each cell by name."""
    cells = [
        crash(), crash(node="guard", noticed_s=0.7), crash(node="sim", violations=2, violation_detail="tip speed at 7.10 s"),
        crash(node="recorder", moving=False, noticed_s=None), crash(rest_s=2.17, late_rad_s=0.031),
    ]  # fmt: skip
    figures = summary(cells)
    found, lines = figures["matrix"], told_matrix(figures).splitlines()
    assert (found["crashes"], found["good"], found["tested"], found["violations"]) == (5, 1, 4, 2)
    assert (found["noticed_max_s"], found["noticed_limit_s"]) == (0.7, NOTICED_LIMIT_S)
    assert [cell["good"] for cell in found["cells"]] == [True, False, False, False, False]
    assert "noticed after 0.50 s" in lines[0] and "still moved for 0.40 s" in lines[0]
    assert lines[2].endswith("2 violations: tip speed at 7.10 s") and lines[3].endswith("not tested")
    assert "still moved for 2.17 s, at 0.031 rad/s" in lines[4]
    assert lines[5].startswith("1 of 5 noticed within 0.5 s") and lines[5].endswith("2 violations, 1 not tested")


def test_violations_are_summed_over_scenes_and_simulators():
    """A count that falls back with the scene's time began anew; one that stays is counted once."""
    violations = Violations()
    for elapsed_s, count in ((3.0, 0), (3.1, 2), (3.2, 2), (3.3, 3), (0.1, 0), (0.2, 1), (0.1, 1)):
        violations.hear(SimState(elapsed_s=elapsed_s, violations=count, violation_detail=f"the first of {count}"))
    assert violations.count == 5 and violations.detail == "the first of 1"


@pytest.mark.parametrize(
    ("node", "message", "noticed"),
    [
        ("planner", GraphState(detail="Node 'planner' is silent for 0.52 s."), True),
        ("planner", GraphState(detail="Node 'sim' is silent for 0.52 s."), False),
        ("planner", GraphState(active=True, detail="Active: guard, planner."), False),
        ("planner", GuardState(cause="graph_inactive"), False),
        ("lifecycle_manager", GuardState(cause="graph_inactive"), True),
        ("lifecycle_manager", GuardState(cause="heartbeat_lost"), False),
    ],
)
def test_a_crash_is_noticed_by_who_watches_the_node(bench: Bench, node: str, message: GraphState | GuardState, noticed: bool):
    """The manager by the node's name, the manager itself by the guard. The judge's violations are heard beside."""
    watching = Onlooker(lambda: None)
    try:
        watching._crashing = node
        bench.publisher(topics.GRAPH_STATE if isinstance(message, GraphState) else topics.GUARD_STATE).publish(message)
        bench.publisher(topics.SIM_STATE).publish(SimState(elapsed_s=1.0, violations=2, violation_detail="tip speed at 1.00 s"))
        watching.until(lambda: watching._violations.count == 2, "the judge is heard")
        for _ in range(20):
            watching._executor.spin_once(timeout_sec=0.01)
        assert math.isfinite(watching._noticed_s) == noticed
    finally:
        watching.close()


def test_a_cell_in_which_the_arm_should_have_moved_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    """Until it did; after three times it is told as not tested."""
    moved = iter([False, True, False, False, False])
    monkeypatch.setattr(Onlooker, "crash", lambda self, node, state, kind: crash(node=node, moving=next(moved)))
    assert Onlooker.crash_moving(object.__new__(Onlooker), "planner", "active", "kill").tested
    assert not Onlooker.crash_moving(object.__new__(Onlooker), "planner", "active", "kill").tested
    assert not list(moved)
