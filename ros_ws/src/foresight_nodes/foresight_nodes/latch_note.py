"""That a guard has latched, remembered beyond every process but the launcher's: a small file, there for as long as the latch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from foresight.files import write_atomically


class LatchNote:
    """The file at `path` holds the number of the guard's process; an empty path remembers nothing."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def read(self) -> int | None:
        """Process of the guard whose latch stands, 0 where the file does not tell; None: there is no latch."""
        if self._path is None or not self._path.exists():
            return None
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):
            return 0

    def write(self, pid: int) -> str:
        """Returns why the latch could not be written down; empty: it is."""
        if self._path is not None:
            try:
                write_atomically(self._path, str(pid))
            except OSError as error:
                return f"{self._path}: {error.strerror}"
        return ""

    def forget(self) -> None:
        """The latch has ended. What cannot be removed stands: then a person is asked once more."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
