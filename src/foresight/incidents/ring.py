"""The last seconds of all topics, as serialised messages in bounded memory. Decodes nothing and owns no clock."""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

OVERHEAD_BYTES = 200  # of a message's Python objects, counted beside its content


class Recorded(NamedTuple):
    """One serialised message as it was received."""

    topic: str
    received_ns: int  # [ns] on a clock that never steps back
    data: bytes


class Ring:
    """Keeps `window_s` of every topic, in at most `memory_max` bytes.

    Where that is too little, the topic that holds the most gives up its oldest message, so that images shorten before
    verdicts do. Of a latched topic the message in force at the window's beginning stays too.
    """

    def __init__(self, window_s: float, memory_max: int) -> None:
        if not 0 < window_s < float("inf") or memory_max <= 0:
            raise ValueError(f"A ring needs a finite window and memory above 0, got {window_s} s and {memory_max} bytes.")
        self.window_s, self.memory_max = window_s, memory_max
        self.held = 0  # bytes
        self.dropped: Counter[str] = Counter()  # messages of each topic given up for want of memory, ever
        self._topics: dict[str, deque[Recorded]] = {}
        self._sizes: Counter[str] = Counter()
        self._latched: set[str] = set()

    def add(self, topic: str, received_ns: int, data: bytes, latched: bool = False) -> None:
        """Takes a message in; receive times of a topic must not decrease."""
        held = self._topics.setdefault(topic, deque())
        if latched:
            self._latched.add(topic)
        held.append(Recorded(topic, received_ns, data))
        self._sizes[topic] += len(data) + OVERHEAD_BYTES
        self.held += len(data) + OVERHEAD_BYTES
        self._forget(topic, received_ns)
        while self.held > self.memory_max and (largest := self._largest()) is not None:
            self._pop(largest)
            self.dropped[largest] += 1

    def messages(self, now_ns: int) -> list[Recorded]:
        """What is held of the window that ends now, in the order received; latched ones begin with the window."""
        for topic in self._topics:
            self._forget(topic, now_ns)
        begin_ns = self._begin(now_ns)
        found = [m._replace(received_ns=max(m.received_ns, begin_ns)) for held in self._topics.values() for m in held]
        return sorted(found, key=lambda m: m.received_ns)

    def latest(self, topic: str) -> bytes | None:
        held = self._topics.get(topic)
        return held[-1].data if held else None

    def _begin(self, now_ns: int) -> int:
        return now_ns - round(self.window_s * 1e9)

    def _forget(self, topic: str, now_ns: int) -> None:
        held, begin_ns = self._topics[topic], self._begin(now_ns)
        keep = 1 if topic in self._latched else 0  # a latched message is over when the next one is as old as the window
        while len(held) > keep and held[keep].received_ns < begin_ns:
            self._pop(topic)

    def _largest(self) -> str | None:
        """The topic that holds the most and can spare a message: the last of a latched one stays."""
        able = [t for t, held in self._topics.items() if len(held) > (1 if t in self._latched else 0)]
        return max(able, key=lambda topic: self._sizes[topic], default=None)

    def _pop(self, topic: str) -> None:
        size = len(self._topics[topic].popleft().data) + OVERHEAD_BYTES
        self._sizes[topic] -= size
        self.held -= size
