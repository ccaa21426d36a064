"""Who is alive, from the signs that nodes give of themselves; on times that the test makes up."""

from __future__ import annotations

import math

from foresight_nodes.bond import Bonds


def heard(pid: int = 7, busy_s: float = 0.0, at_s: float = 10.0) -> Bonds:
    """Bonds of half a second that heard one node once."""
    bonds = Bonds(silent_s=0.5, busy_s=2.0, now_s=at_s)
    bonds.heard("/planner", pid, busy_s, at_s)
    return bonds


def test_half_a_second_of_silence_breaks_a_bond():
    """Not before; a node that changes its state may be late by more; one that was never heard of has no bond to break."""
    bonds = heard()
    assert bonds.alive("/planner", 10.5) and bonds.broken("/planner", 10.49) is None
    assert "silent for 0.51 s" in bonds.broken("/planner", 10.51) and not bonds.alive("/planner", 10.51)
    assert bonds.broken("/planner", 10.51, patience_s=2.0) is None
    assert bonds.broken("/guard", 99.0) is None and not bonds.alive("/guard", 10.0) and bonds.pid("/guard") == 0


def test_a_new_process_breaks_the_bond_once():
    """However soon it comes."""
    bonds = heard(pid=7)
    bonds.heard("/planner", 8, 0.0, 10.1)
    assert bonds.broken("/planner", 10.1) == "started anew as pid 8"
    assert bonds.broken("/planner", 10.1) is None and bonds.pid("/planner") == 8


def test_a_node_that_serves_nothing_breaks_its_bond_only_from_when_it_should_serve():
    """What it was busy with before it was active (its model) is not held against it."""
    bonds = heard(busy_s=4.5)
    assert "serving nothing for 4.5 s" in bonds.broken("/planner", 10.0)
    assert bonds.broken("/planner", 10.0, serving_since_s=9.9) is None
    assert bonds.broken("/planner", 10.0, serving_since_s=math.inf) is None
    assert "serving nothing" in bonds.broken("/planner", 10.0, serving_since_s=7.0)


def test_time_in_which_nobody_looked_is_not_held_against_the_nodes():
    """A manager that was kept waiting for 3 s hears what waited for it before it judges."""
    bonds = heard()
    bonds.look(10.02)
    bonds.look(13.02)
    assert bonds.broken("/planner", 13.02) is None
    for step in range(1, 30):
        bonds.look(13.02 + 0.02 * step)
    assert "silent" in bonds.broken("/planner", 13.6)
