"""A training's figures as TensorBoard's event files. Knows no networks."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType


class Log:
    """Writes figures under `<stage>/<name>`; does nothing where no folder is given. `tensorboard --logdir FOLDER` shows them."""

    def __init__(self, folder: Path | None) -> None:
        self._writer = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # loads slowly

            self._writer = SummaryWriter(str(folder), flush_secs=10)

    def write(self, stage: str, step: int, figures: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"{stage.replace(' ', '_')}/{name}", value, step)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()
