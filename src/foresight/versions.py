"""The versions of what computes, for records that are to be computed again elsewhere."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("foresight", "numpy", "mujoco", "mink", "ruckig", "torch")


def versions() -> dict[str, str]:
    """Name -> version, of Python and of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
