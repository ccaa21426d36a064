"""A frozen dataclass filled from the command line; bad input becomes one line. Knows no command."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from inspect import cleandoc
from io import StringIO
from typing import TypeVar

Config = TypeVar("Config")


class InputError(Exception):
    """What the user gave cannot be used; the message is one line: what is wrong, expected, available, what to do."""


def parse(kind: type[Config], name: str, about: str, words: list[str]) -> Config:
    """The dataclass filled from the command line. Bad input becomes one line; --help prints and leaves with 0."""
    import tyro

    out, err = StringIO(), StringIO()
    told = f"{cleandoc(about)}\n\n{cleandoc(kind.__doc__ or '')}"
    try:
        with redirect_stdout(out), redirect_stderr(err):
            return tyro.cli(
                kind, prog=f"foresight {name}", description=told, args=words, config=(tyro.conf.PositionalRequiredArgs,)
            )
    except SystemExit as leaving:
        if not leaving.code:
            print(out.getvalue(), end="")
            raise
        raise InputError(f"{_one_line(err.getvalue() + out.getvalue())} See `foresight {name} --help`.") from None


def _one_line(box: str) -> str:
    """The words inside the frame that tyro draws around an error: those between the first two rules."""
    lines = [line.strip(" │|") for line in box.splitlines()]
    rules = [i for i, line in enumerate(lines) if line and not line.strip("-─╭╮╰╯├┤")]
    kept = lines[rules[0] + 1 : rules[1]] if len(rules) > 1 else lines
    return " ".join(" ".join(kept).removeprefix("Error parsing ").split()).removesuffix(".") + "."
