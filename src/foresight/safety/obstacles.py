"""What stands around the arm, as data: its table and keep-out boxes, from parameters and to and from text, with whether the
gripper moves among them. Knows no arm."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from foresight.data import Box

TABLE = Box("table", np.array([-0.13, -0.60, -0.50]), np.array([0.97, 0.60, 0.0]))  # [m] the UR5e's, solid down to the floor


def boxes_of(numbers: Sequence[float]) -> tuple[Box, ...]:
    """Keep-out boxes from six numbers each [m]: x, y, z of the lowest corner, then of the highest."""
    if len(numbers) % 6:
        raise ValueError(
            f"Keep-outs need 6 numbers a box (x, y, z of the lowest, then of the highest corner), got {len(numbers)}."
        )
    corners = np.array(numbers, dtype=np.float64).reshape(-1, 2, 3)
    return tuple(Box(f"keep-out {i + 1}", low, high) for i, (low, high) in enumerate(corners))


def to_text(table: Box | None, boxes: Sequence[Box], gripper_moves: bool = False) -> str:
    """JSON that `from_text` reads back to the last bit. `gripper_moves` as `collision.Scene` has it; told where it does."""
    gripper = {"gripper": "moves"} if gripper_moves else {}
    return json.dumps({"table": None if table is None else _plain(table), "boxes": [_plain(box) for box in boxes], **gripper})


def from_text(text: str) -> tuple[Box | None, tuple[Box, ...], bool]:
    """Table, boxes and whether the gripper moves. Raises ValueError where the text says something else.

    A guard that looked with its gripper open only told a number; its gripper moved.
    """
    try:
        raw = json.loads(text)
        table, boxes = raw["table"], raw["boxes"]
        return None if table is None else _box(table), tuple(_box(box) for box in boxes), "gripper" in raw
    except (TypeError, KeyError) as error:
        raise ValueError(f"A scene must be JSON with 'table' and 'boxes', each with name, low and high, got {text!r}.") from error


def _plain(box: Box) -> dict[str, object]:
    return {"name": box.name, "low": box.low.tolist(), "high": box.high.tolist()}


def _box(raw: dict) -> Box:
    return Box(raw["name"], *(np.array(raw[corner], dtype=np.float64) for corner in ("low", "high")))
