"""The safety catalogue is honest: each of its forty rows is there, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def rows(text: str) -> dict[int, tuple[str, str]]:
    """Number -> (where it is answered, state)."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    return {int(number): (where, state) for number, _, where, state in cells}


def missing(where: str) -> list[str]:
    """The tests named there that do not exist."""
    found = []
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", where):
        file = ROOT / path
        defined = (
            {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
            if file.exists()
            else set()
        )
        found += [] if name in defined else [f"{path}::{name}"]
    return found


def test_all_forty_are_answered():
    """By a test, by a figure or by a reason; no row is empty."""
    found = rows((ROOT / "docs/safety_catalogue.md").read_text())
    assert sorted(found) == list(range(1, 41))
    assert [
        number
        for number, (where, state) in found.items()
        if not state or not (where or "not here" in state or "pending" in state)
    ] == []


def test_every_test_that_is_named_exists():
    """A test that is renamed or removed is missed here."""
    found = rows((ROOT / "docs/safety_catalogue.md").read_text())
    assert [name for where, _ in found.values() for name in missing(where)] == []
    assert sum(len(re.findall(r"`tests/", where)) for where, _ in found.values()) > 50


def test_a_name_that_is_not_there_is_seen():
    """The check can fail."""
    assert missing("`tests/test_files.py::test_no_such`, `tests/no.py::test_x`") == [
        "tests/test_files.py::test_no_such",
        "tests/no.py::test_x",
    ]
