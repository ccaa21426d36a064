"""Another package, timed in its own environment: a process that is asked for one thing at a time. Knows no planner."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

SCRIPT = Path(__file__).with_name("peer_stable_worldmodel.py")
MARK = "PEER "


class Took(NamedTuple):
    """How long something took."""

    s: float  # [s] on the wall
    cpu_s: float  # [s] of all threads together


class PeerError(RuntimeError):
    """The peer cannot be run; the message is one line with what it said last."""


class Peer:
    """A peer's process; `loaded` is what it said of itself."""

    def __init__(self, python: Path, threads: int, device: str = "cpu", script: Path | None = None) -> None:
        if not Path(python).is_file():
            raise PeerError(f"--peer-python {python} does not exist. Give the python of an environment with stable-worldmodel.")
        quiet = {"OMP_NUM_THREADS": str(threads), "MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy", "HF_HUB_OFFLINE": "1"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(
            [str(python), str(script or SCRIPT), str(threads), device],
            env=inherited | quiet,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.loaded = self._answer()

    def plan(self, samples: int, iterations: int, horizon: int) -> Took:
        """The time of one plan."""
        answer = self.ask({"samples": samples, "iterations": iterations, "horizon": horizon})
        return Took(float(answer["s"]), float(answer["cpu_s"]))

    def ask(self, wanted: dict) -> dict:
        """What the process answers. Raises PeerError where it ends instead."""
        try:
            self._process.stdin.write(json.dumps(wanted) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said last is read below
        return self._answer()

    def _answer(self) -> dict:
        last: Sequence[str] = ()
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
            last = (*last, line.strip())[-20:]
        code = self._process.wait()
        said = next((line for line in reversed(last) if line), "nothing")
        raise PeerError(f"The peer's process ended with code {code}; it said last: {said}")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
