"""What an incident's `incident.json` says: why and when the arm was stopped, and what was recorded by which version."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from foresight.incidents.pack import Definition
from foresight.incidents.ring import Recorded

FORMAT = 1  # of incident.json; readers refuse a greater one


@dataclass(frozen=True)
class Stop:
    """Why and when the arm was stopped."""

    action: str  # of the failsafe: hold, retreat, stop or latch; none for a snapshot, unknown of a guard that is silent
    reason: str
    detail: str
    time_s: float  # [s] the guard's clock, simulated or not
    received_ns: int  # [ns] wall time at which the recorder heard of it

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "wall": _iso(self.received_ns)}


def folder_name(parent: Path, when: datetime, reason: str) -> Path:
    """`<time>_<reason>` below `parent`, with a number where that exists."""
    word = re.sub(r"[^a-z0-9]+", "_", reason.lower()).strip("_")[:40] or "stop"
    name = f"{when:%Y-%m-%d_%H-%M-%S}_{word}"
    names = [name, *(f"{name}_{i}" for i in range(2, 1000))]
    return next((parent / n for n in names if not (parent / n).exists()), parent / name)


def summary(
    stops: Sequence[Stop],
    messages: Sequence[Recorded],
    definitions: Mapping[str, Definition],
    window_s: float,
    dropped: Mapping[str, int],
    facts: Mapping[str, object],
) -> dict[str, object]:
    """The content of incident.json, named after the first of its stops.

    `facts` are what the recorder knows of the graph; they stand at the top level.
    """
    stop = stops[0]
    first, last = (messages[0].received_ns, messages[-1].received_ns) if messages else (stop.received_ns, stop.received_ns)
    return {
        "format": FORMAT,
        "reason": stop.reason,
        "detail": stop.detail,
        "stop": {"time_s": stop.time_s, "wall": _iso(stop.received_ns), "received_ns": stop.received_ns},
        "stops": [each.to_json() for each in stops],
        "recorded": {"from": _iso(first), "until": _iso(last), "seconds": (last - first) * 1e-9, "window_s": window_s},
        **facts,
        "messages": counts(messages, definitions),
        "dropped_for_memory": {topic: count for topic, count in dropped.items() if count},
    }


def counts(messages: Sequence[Recorded], definitions: Mapping[str, Definition]) -> dict[str, dict[str, object]]:
    """Of every topic that was listened to, also of those on which nothing came."""
    number: Counter[str] = Counter(message.topic for message in messages)
    return {topic: {"type": known.type, "count": number[topic]} for topic, known in sorted(definitions.items())}


def _iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns * 1e-9, UTC).isoformat(timespec="milliseconds")
