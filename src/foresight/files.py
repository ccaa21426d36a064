"""A saved file is complete or absent: written under a temporary name, forced to disk, then renamed.

Knows no formats. What interrupts the writing (full disk, Ctrl-C) leaves the old file, or none, and no temporary one.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

FULL_BYTES = 2**20  # with less than this left, a library's error is the disk's


def write_atomically(path: str | Path, content: bytes | str | Callable[[Path], object]) -> Path:
    """Writes `content` to `path`, or lets a callable write the temporary file it is given; returns the path.

    The folder is made if it is missing. The temporary file lies beside the target and keeps its suffix, because some
    writers choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        _force_to_disk(temporary)
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C too: clean up, then let it pass
        full = _disk_full(path, error)
        temporary.unlink(missing_ok=True)
        if full is not None:
            raise full from error
        raise
    _force_to_disk(path.parent)  # the new name itself
    return path


def write_folder_atomically(path: str | Path, fill: Callable[[Path], object]) -> Path:
    """Lets `fill` write files into a temporary folder beside `path`, which then gets that name; returns the path.

    The folder must not exist yet. Its files lie flat: what is in folders below is not forced to disk.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.mkdir()
        fill(temporary)
        for file in temporary.iterdir():
            _force_to_disk(file)
        _force_to_disk(temporary)
        os.rename(temporary, path)
    except BaseException as error:  # Ctrl-C too: clean up, then let it pass
        full = _disk_full(path, error)
        shutil.rmtree(temporary, ignore_errors=True)
        if full is not None:
            raise full from error
        raise
    _force_to_disk(path.parent)
    return path


def _disk_full(path: Path, error: BaseException) -> OSError | None:
    """The plain error of a full disk, where a library's own words for it were raised; None when it was something else.

    To be asked before what was written is removed again.
    """
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename:
        return None
    if not isinstance(error, Exception):
        return None
    left = os.statvfs(path.parent)
    if getattr(error, "errno", None) != errno.ENOSPC and left.f_bavail * left.f_frsize >= FULL_BYTES:
        return None
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
