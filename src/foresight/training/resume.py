"""What an interrupted training goes on from, and that a folder has one training at a time. Knows no networks."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from foresight.files import write_atomically
from foresight.training import sharding
from foresight.training.config import TrainConfig, command_line


class Resume:
    """The state of an interrupted run, beside the checkpoint to be: of each stage begun its step, weights and optimiser."""

    def __init__(self, config: TrainConfig, data: str) -> None:
        self.path = config.out.with_name(config.out.name + ".training.pt")
        self.settings, self.data = command_line(config), data
        self.step, self._began, self._spent = 0, time.monotonic(), 0.0
        self._stages: dict[str, dict] = {}

    def load(self) -> float:
        """Seconds already spent on this run; 0 for a new one."""
        if self.path.exists():
            try:
                saved = torch.load(self.path, weights_only=True, map_location="cpu")
            except (RuntimeError, UnpicklingError, EOFError, KeyError) as error:
                raise ValueError(f"{self.path}, an interrupted run, is damaged. Add --fresh to forget it.") from error
            if saved["settings"] != self.settings:
                raise ValueError(
                    f"{self.path} holds an interrupted run of `{saved['settings']}`, this one is `{self.settings}`. "
                    "Add --fresh to forget it."
                )
            if saved.get("data") != self.data:
                raise ValueError(
                    f"{self.path} holds an interrupted run on other data ({saved.get('data', 'unnamed')}) than the dataset now "
                    f"is ({self.data}). Put that dataset back, or add --fresh to begin anew on this one."
                )
            self._stages, self._spent = saved["stages"], saved["spent_s"]
        return self._spent

    def restore(self, stage: str, learned: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Puts back what was learned in this stage; the step to go on with."""
        self.step = 0
        saved = self._stages.get(stage)
        if saved is None:
            return 0
        sharding.restore(learned, optimiser, saved["learned"], saved["optimiser"])
        self.step = saved["step"]
        return self.step

    def save(self, stage: str, learned: nn.Module, optimiser: torch.optim.Optimizer, writes: bool = True) -> None:
        """Where weights are divided among processes all of them take part, and one `writes`."""
        weights, state = sharding.whole(learned.state_dict()), sharding.whole(optimiser.state_dict())
        if not writes:
            return
        self._stages[stage] = {"step": self.step, "learned": weights, "optimiser": state}
        spent = self._spent + time.monotonic() - self._began
        state = {"settings": self.settings, "data": self.data, "spent_s": spent, "stages": self._stages}
        write_atomically(self.path, lambda path: torch.save(state, path))

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


@contextmanager
def only_training_of(out: Path) -> Iterator[None]:
    """Holds the folder for this process, however it may end. Raises ValueError where another training holds it."""
    path = out.with_name(out.name + ".training.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise ValueError(
                f"{out} is being trained by another process (number {holder}). Wait for it, stop it, or give another --out."
            ) from None
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            break
        file.close()  # the one before removed it between opening and holding
    try:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM within are heard at its end: an update is made whole or not at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = {number: signal.signal(number, lambda n, _: heard.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])
