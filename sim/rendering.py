"""Whether pictures can be drawn on this machine, asked before anything is built on it. Draws nothing itself."""

from __future__ import annotations

import os
from contextlib import suppress

from foresight.ros_environment import mujoco_gl

HELP = "Run `make setup`, or install libegl1 (MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa); neither needs a display or a GPU."


class RenderingError(RuntimeError):
    """No GL library draws offscreen here; the message is one line that says which was tried and what to install."""


def prepare_rendering() -> None:
    """Offscreen rendering unless the user chose otherwise, and whether it works; must come before MuJoCo is imported."""
    os.environ.setdefault("MUJOCO_GL", mujoco_gl())
    os.environ.setdefault("LP_NUM_THREADS", "0")  # a software renderer on one thread a process
    check_rendering()


def check_rendering() -> None:
    """Makes and frees a tiny GL context the way MUJOCO_GL says. Raises RenderingError when that fails."""
    wanted = os.environ.get("MUJOCO_GL") or "(not set)"
    try:
        import mujoco

        load_compiler()
        context = mujoco.GLContext(8, 8)
        context.make_current()
        mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100.value).free()
        context.free()
    except Exception as error:  # whatever a GL library, its loader or MuJoCo throws means the same here
        raise RenderingError(
            f"Pictures cannot be drawn with MUJOCO_GL={wanted} ({' '.join(str(error).split()).rstrip('.')}). {HELP}"
        ) from error


def load_compiler() -> None:
    """Triton, where it is installed, before any GL context: a process dies when its LLVM comes after that of Mesa."""
    with suppress(ImportError):
        import triton  # noqa: F401
