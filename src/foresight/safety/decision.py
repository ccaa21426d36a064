"""One decision of the guard with all that it depended on, to the last bit, so that it can be made again later.

A verdict is a pure function of a `Setup`, a `Situation` and a candidate. Digests cover every number by its bits, so a
changed last digit is seen. Knows no files, no ROS, no clock.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

import numpy as np

from foresight.data import Candidate, RobotState, Trajectory, Verdict
from foresight.safety.config import GuardConfig


@dataclass(frozen=True)
class Setup:
    """What a guard was built with."""

    profile: str  # text of the robot profile's YAML file
    config: GuardConfig = GuardConfig()
    model_id: str = ""  # the only model whose plans are judged; empty: any
    transport_s: float = 0.0  # [s] to the controller; a trajectory that begins sooner is refused
    scene: str = ""  # JSON of what the arm may collide with besides itself; empty: nothing

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digits that name just this content."""
        return digest(self)


@dataclass(frozen=True)
class Situation:
    """What the guard knew when it judged."""

    now_s: float
    state: RobotState | None  # measured
    in_force: Trajectory | None  # the commands it judged against
    stopped: str | None = None  # why motion was refused until a reset; None while it was allowed
    stopped_at_s: float = 0.0
    held: str | None = None  # why motion was refused for the time being; None while it was allowed
    share_max: float = 1.0  # share of its speed that a candidate was to keep at most


@dataclass(frozen=True)
class Decision:
    """A candidate, what was known, and what came of it.

    `outcome` is the digest of the verdict and the motion in force after it.
    """

    number: int  # counts the decisions of a guard from 1: a gap is a lost record
    plan_id: int
    setup: str  # Setup.fingerprint
    situation: Situation
    candidate: Candidate | None  # None: the message held no trajectory that could be read
    verdict: Verdict
    outcome: str

    @property
    def fingerprint(self) -> str:
        """Covers every number of the record."""
        return digest(self)


def outcome(verdict: Verdict, in_force: Trajectory | None) -> str:
    """The digest that a repeated decision must give again."""
    return digest((verdict, in_force))


def digest(value: object) -> str:
    """SHA-256 of a value by its bits: dataclasses, tuples, arrays of floats, numbers, text, None."""
    sha = hashlib.sha256()
    for part in _bits(value):
        sha.update(part)
    return sha.hexdigest()


def _bits(value: object) -> Iterator[bytes]:
    """Each part carries its kind and length, so that no two values give the same bytes.

    A field that a dataclass has got `since` incidents are recorded counts only where it says something, so that older digests
    stay as they are.
    """
    if is_dataclass(value):
        present = [f for f in fields(value) if not ("since" in f.metadata and getattr(value, f.name) is None)]
        yield b"d" + struct.pack("<q", len(present))
        for field in present:
            yield from _bits(getattr(value, field.name))
    elif isinstance(value, tuple):
        yield b"t" + struct.pack("<q", len(value))
        for item in value:
            yield from _bits(item)
    elif isinstance(value, np.ndarray):
        yield b"a" + struct.pack(f"<q{value.ndim}q", value.ndim, *value.shape)
        yield np.ascontiguousarray(value, "<f8").tobytes()
    elif isinstance(value, str):  # Reason too
        text = str(value).encode()
        yield b"s" + struct.pack("<q", len(text)) + text
    elif value is None:
        yield b"n"
    elif isinstance(value, int):  # bool too
        yield b"i" + str(int(value)).encode() + b";"  # of any size: a plan's number is whatever its sender made it
    elif isinstance(value, float):
        yield b"f" + struct.pack("<d", value)
    else:
        raise TypeError(f"No digest of a {type(value).__name__}; expected dataclass, tuple, array, text, number or None.")
