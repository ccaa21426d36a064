"""The simulated graph through `foresight up`: a planner that dies or freezes in motion leaves an arm at rest, and comes back."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from foresight_bringup.processes import Child, ending_with_parent, stop
from foresight_nodes.crash_matrix import (
    DISPENSABLE,
    NODES,
    SIGNALS,
    STATES,
    STEPS,
    Crash,
    MatrixError,
    Onlooker,
    cells,
    told_matrix,
)
from lifecycle_msgs.msg import State

from foresight.ros_environment import environment

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
    """At rest within a second, once by SIGKILL and once by SIGSTOP; the graph is back by itself, and the arm moves again."""
    for kind in SIGNALS:
        crash = onlooker.crash("planner", "active", kind)
        assert crash.moving and crash.rest_s <= 1.0, crash
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


def test_a_crash_is_good_within_both_limits():
    """1 s to rest, 15 s to be back; the table says both."""
    good = Crash("planner", "active", "kill", True, 0.4, 14.9)
    assert good.good and not Crash("planner", "active", "kill", True, 1.1, 5.0).good
    assert not Crash("planner", "active", "kill", False, 0.0, 15.1).good
    assert not Crash("recorder", "active", "kill", True, 0.0, 3.0, held_up=True).good
    from dataclasses import asdict

    figures = {"matrix": {"crashes": 1, "good": 1, "cells": [asdict(good)]}}
    assert "planner" in told_matrix(figures) and "still moved for 0.40 s" in told_matrix(figures)
