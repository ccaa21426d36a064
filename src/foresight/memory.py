"""Memory of this process that stays its own. Knows nothing of what lies in it."""

from __future__ import annotations

import ctypes

GLIBC_KEEPS = {-1: 1 << 30, -3: 1 << 25, -2: 1 << 26}  # malloc.h's M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_TOP_PAD [byte]


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for good; where that is not glibc's, nothing happens and False is told.

    glibc hands large tensors' pages back when they are freed and asks for them again, zeroed, for the next.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) for name, value in GLIBC_KEEPS.items())
