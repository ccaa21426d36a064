"""Messages that nobody should send: random ones of any type, and valid ones with a few things wrong. Seeded.

Built from the message types alone, so a new field or a new topic is fuzzed without a change here. Every message makes the trip
through DDS's serialisation, so a node sees what it would see from another process.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from rosidl_parser.definition import AbstractNestedType, AbstractSequence, AbstractString, Array, BasicType, NamespacedType

LENGTHS = (0, 0, 1, 1, 2, 3, 5, 6, 7, 12, 100)
LONG = 100_000  # elements of the occasional huge array
REALS = (0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e-12, 1e6, math.pi, 2.0**31, 2.0**63)
FLOAT_MAX = 3.4028234e38
TEXTS = (
    "",
    "x",
    "rgb8",
    "bgr8",
    "mono8",
    "32FC1",
    "front",
    "wrist",
    "elbow_joint",
    "ok",
    "\n",
    "\u2603" * 9,
    "%s%n{}",
    "../x",
    "a" * 5000,
)
WHOLE = {"octet": (0, 255)} | {
    f"{sign}int{n}": (0 if sign else -(2 ** (n - 1)), 2 ** (n if sign else n - 1) - 1)
    for sign in ("", "u")
    for n in (8, 16, 32, 64)
}


def random_message(kind: type, rng: np.random.Generator, huge: bool = False) -> Any:
    """A message of this type with anything in it; `huge` lets one array or text be very long."""
    message = kind()
    for name, slot in _slots(kind):
        setattr(message, name, _value(slot, rng, huge and rng.random() < 0.3))
    return message


def mutated(message: Any, rng: np.random.Generator, changes: int = 1) -> Any:
    """A copy with some fields, at any depth, replaced, shortened, doubled, reordered or nudged."""
    message = copy.deepcopy(message)
    for _ in range(changes):
        places = list(_places(message))
        owner, name, slot = places[rng.integers(len(places))]
        _change(owner, name, slot, rng)
    return message


def over_the_wire(message: Any) -> Any:
    """The message as the receiver has it."""
    return deserialize_message(serialize_message(message), type(message))


def messages(kind: type, valid: Callable[[], Any] | None, rng: np.random.Generator, count: int) -> Iterator[Any]:
    """`count` messages: mostly spoiled valid ones where there is a valid one, else random ones."""
    for i in range(count):
        if valid is not None and rng.random() < 0.75:
            message = mutated(valid(), rng, int(rng.integers(1, 4)))
        else:
            message = random_message(kind, rng, huge=i % 50 == 49)
        yield over_the_wire(message)


def _slots(kind: type) -> list[tuple[str, Any]]:
    return list(zip(kind.get_fields_and_field_types(), kind.SLOT_TYPES, strict=True))


def _places(message: Any) -> Iterator[tuple[Any, str, Any]]:
    """Every field of a message and of the messages in it."""
    for name, slot in _slots(type(message)):
        yield message, name, slot
        value = getattr(message, name)
        if isinstance(slot, NamespacedType):
            yield from _places(value)
        elif isinstance(slot, AbstractNestedType) and isinstance(slot.value_type, NamespacedType):
            for item in list(value)[:8]:
                yield from _places(item)


def _change(owner: Any, name: str, slot: Any, rng: np.random.Generator) -> None:
    value, how = getattr(owner, name), rng.choice(["replace", "shorten", "double", "reorder", "nudge"])
    if isinstance(slot, AbstractSequence) and how != "replace" and len(value):
        items = list(value)
        i = int(rng.integers(len(items)))
        if how == "nudge" and isinstance(slot.value_type, (BasicType, AbstractString)):
            items[i] = _nudged(slot.value_type, items[i], rng)
        else:
            turns = {"shorten": items[:i], "double": items + items[i:], "reorder": items[i:] + items[:i], "nudge": items}
            items = turns[str(how)]
        _assign(owner, name, items)
    elif how == "nudge" and isinstance(slot, BasicType):
        setattr(owner, name, _nudged(slot, value, rng))
    else:
        setattr(owner, name, _value(slot, rng, False))


def _assign(owner: Any, name: str, items: list) -> None:
    """A sequence as its field takes it: numbers go into the array type that is there."""
    before = getattr(owner, name)
    setattr(owner, name, type(before)(before.typecode, items) if hasattr(before, "typecode") else items)


def _nudged(slot: Any, value: Any, rng: np.random.Generator) -> Any:
    """Nearly the same: what a limit must decide on."""
    if isinstance(slot, BasicType) and slot.typename in ("float", "double"):
        with np.errstate(over="ignore"):
            return _fits(slot.typename, float(value + rng.normal() * 10 ** rng.uniform(-9, 2)))
    if isinstance(slot, BasicType) and slot.typename in WHOLE:
        low, high = WHOLE[slot.typename]
        number = value if isinstance(value, int) else int.from_bytes(value, "little")
        return _whole(slot.typename, min(high, max(low, number + int(rng.choice([-1, 1, 256, -(10**8), 10**8])))))
    return _value(slot, rng, False)


def _value(slot: Any, rng: np.random.Generator, huge: bool) -> Any:
    if isinstance(slot, BasicType):
        return _basic(slot.typename, rng)
    if isinstance(slot, AbstractString):
        return "z" * LONG if huge else TEXTS[rng.integers(len(TEXTS))]
    if isinstance(slot, NamespacedType):
        return random_message(_type(slot), rng, huge)
    if isinstance(slot, Array):
        return [_value(slot.value_type, rng, False) for _ in range(slot.size)]
    if isinstance(slot, AbstractSequence):
        limit = slot.maximum_size if slot.has_maximum_size() else None
        if huge and isinstance(slot.value_type, BasicType) and limit is None:
            return [_basic(slot.value_type.typename, rng)] * LONG
        length = int(rng.choice(LENGTHS if isinstance(slot.value_type, (BasicType, AbstractString)) else LENGTHS[:-1]))
        return [_value(slot.value_type, rng, False) for _ in range(length if limit is None else min(length, limit))]
    raise TypeError(f"No values are known for fields of {slot}.")


def _basic(name: str, rng: np.random.Generator) -> Any:
    if name == "boolean":
        return bool(rng.random() < 0.5)
    if name in ("float", "double"):
        if rng.random() < 0.4:
            return _fits(name, REALS[rng.integers(len(REALS))])
        return _fits(name, float(rng.normal() * 10 ** rng.uniform(-6, 6)))
    low, high = WHOLE[name]
    special = [low, low + 1, 0, 1, 7, 10**9 - 1, 10**9, high - 1, high]
    number = (
        special[rng.integers(len(special))]
        if rng.random() < 0.6
        else int(rng.integers(low, high, endpoint=True, dtype=np.int64 if low < 0 else np.uint64))
    )
    return _whole(name, min(high, max(low, number)))


def _whole(name: str, number: int) -> Any:
    return bytes([number]) if name == "octet" else number


def _fits(name: str, value: float) -> float:
    return value if name == "double" or not math.isfinite(value) else max(-FLOAT_MAX, min(FLOAT_MAX, value))


def _type(slot: NamespacedType) -> type:
    return getattr(importlib.import_module(".".join(slot.namespaces)), slot.name)
