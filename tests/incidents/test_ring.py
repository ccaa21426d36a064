"""The ring holds the window, stays within its memory, and keeps what is latched."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.incidents.ring import OVERHEAD_BYTES, Ring

S = 10**9


def test_it_holds_the_window_and_forgets_the_rest():
    """Of 100 s at 1 Hz the last 30 s remain, in the order received, also of a topic that fell silent."""
    ring = Ring(30.0, 10**6)
    ring.add("silent", 0, b"x")
    for i in range(101):
        ring.add("a", i * S, bytes([i]))
        ring.add("b", i * S + 1, bytes([i]))
    found = ring.messages(100 * S)
    assert [m.data[0] for m in found if m.topic == "a"] == list(range(70, 101))
    assert [m.received_ns for m in found] == sorted(m.received_ns for m in found)
    assert {m.topic for m in found} == {"a", "b"} and not ring.dropped


def test_what_is_latched_stays_and_begins_with_the_window():
    """The setup in force when the window began is there however old it is; the one before it is not."""
    ring = Ring(30.0, 10**6)
    for at_s, data in ((1, b"old"), (5, b"in force"), (90, b"new")):
        ring.add("setup", at_s * S, data, latched=True)
    found = ring.messages(100 * S)
    assert [(m.data, m.received_ns) for m in found] == [(b"in force", 70 * S), (b"new", 90 * S)]
    assert [m.data for m in ring.messages(200 * S)] == [b"new"]


@pytest.mark.parametrize("seed", range(5))
def test_memory_is_never_exceeded_and_the_largest_topic_gives_way(seed):
    """Random traffic of images and words: the bound holds after every message, and only images are given up."""
    rng, limit = np.random.default_rng(seed), 200_000
    ring = Ring(30.0, limit)
    for i in range(2000):
        small = rng.random() < 0.7
        ring.add("words" if small else "images", i * S // 100, b"w" * int(rng.integers(1, 20)) if small else bytes(20_000))
        assert ring.held <= limit
        assert ring.held == sum(len(m.data) + OVERHEAD_BYTES for m in ring.messages(i * S // 100))
    assert set(ring.dropped) <= {"images", "words"} and ring.dropped["images"] > 400
    assert sum(m.topic == "words" for m in ring.messages(20 * S)) > 3 * sum(m.topic == "images" for m in ring.messages(20 * S))


def test_a_message_larger_than_all_memory_does_not_stay():
    """It is dropped and counted; nothing else is lost for it once it is gone."""
    ring = Ring(30.0, 1000)
    ring.add("huge", 0, bytes(5000))
    ring.add("small", 1, b"s")
    assert [m.topic for m in ring.messages(2)] == ["small"] and ring.dropped == {"huge": 1}


@pytest.mark.parametrize(("window_s", "memory"), [(0.0, 10), (float("nan"), 10), (float("inf"), 10), (1.0, 0)])
def test_senseless_bounds_are_refused(window_s, memory):
    """A window must be finite and above 0, and so must the memory."""
    with pytest.raises(ValueError, match="finite window and memory above 0"):
        Ring(window_s, memory)
