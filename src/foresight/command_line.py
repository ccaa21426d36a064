"""A frozen dataclass filled from the command line, and places for output looked at before the work. Knows no command.

Bad input becomes one line.
"""

from __future__ import annotations

import re
import signal
from contextlib import redirect_stderr, redirect_stdout
from inspect import cleandoc
from io import StringIO
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType
from typing import TypeVar

Config = TypeVar("Config")
PLAINLY = {  # what Python says of a word that is no number
    r"invalid literal for int\(\) with base 10: ('[^']*')": r"expected a whole number, got \1",
    r"could not convert string to float: ('[^']*')": r"expected a number, got \1",
}


class InputError(Exception):
    """What the user gave cannot be used; the message is one line: what is wrong, expected, available, what to do."""


def parse(kind: type[Config], name: str, about: str, words: list[str], default: Config | None = None) -> Config:
    """The dataclass filled from the command line, the rest from `default` where there is one. Bad input becomes one line.

    --help prints and leaves with 0.
    """
    import tyro

    out, err = StringIO(), StringIO()
    told = f"{cleandoc(about)}\n\n{cleandoc(kind.__doc__ or '')}"
    try:
        with redirect_stdout(out), redirect_stderr(err):
            return tyro.cli(
                kind,
                prog=f"foresight {name}",
                description=told,
                args=words,
                config=(tyro.conf.PositionalRequiredArgs,),
                **({} if default is None else {"default": default}),
            )
    except SystemExit as leaving:
        if not leaving.code:
            print(out.getvalue(), end="")
            raise
        raise InputError(f"{_one_line(err.getvalue() + out.getvalue())} See `foresight {name} --help`.") from None


def interrupt_on_sigterm() -> None:
    """Lets SIGTERM interrupt as Ctrl-C does, once: `timeout` and supervisors send it twice, to the process and to its group."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def check_folder(flag: str, folder: Path | None) -> None:
    """Raises InputError where no file can be made in the folder, which is made where it is missing. None: not wanted."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as trial:
            trial.write(b"0" * 4096)
    except OSError as error:
        raise InputError(
            f"{flag}: cannot write in {folder} ({error.strerror}). Choose a folder that you may write to, with space left."
        ) from error


def check_file(flag: str, file: Path | None, example: str = "report.json") -> None:
    """Raises InputError where the file cannot be made or replaced. None: not wanted."""
    if file is None:
        return
    if file.is_dir():
        raise InputError(f"{flag}: {file} is a folder; give the name of a file, for example {file / example}.")
    check_folder(flag, file.parent)


def _one_line(box: str) -> str:
    """The words inside the frame that tyro draws around an error: those between the first two rules."""
    lines = [line.strip(" │|") for line in box.splitlines()]
    rules = [i for i, line in enumerate(lines) if line and not line.strip("-─╭╮╰╯├┤")]
    kept = lines[rules[0] + 1 : rules[1]] if len(rules) > 1 else lines
    said = " ".join(" ".join(kept).removeprefix("Error parsing ").split()).removesuffix(".") + "."
    for python, plain in PLAINLY.items():
        said = re.sub(python, plain, said)
    return said
