"""Compiles `native.cpp` for one network's sizes on this machine, and calls it: what stands between layers of eight bits, fast.

A C++ compiler is needed when a model is made ready (the set-up has one); without it planning goes on in torch's operations.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import torch
from jaxtyping import BFloat16, Float, UInt8
from torch import Tensor

from foresight.world_model.transformer import TransformerConfig

FLAGS = ("-O3", "-march=native", "-ffast-math", "-fPIC")
POINTER, WHOLE, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
ARGUMENTS = {
    "attend": (POINTER, WHOLE, POINTER, POINTER, POINTER, ctypes.c_int, POINTER, WHOLE, REAL, REAL, POINTER),
    "modulate": (POINTER, WHOLE, POINTER, POINTER, POINTER, POINTER, WHOLE, WHOLE, REAL, REAL, POINTER, POINTER),
}


class Native:
    """The compiled functions of one network's sizes. Inputs are bfloat16 on the CPU, rows of them any distance apart."""

    def __init__(self, library: ctypes.CDLL, config: TransformerConfig) -> None:
        self.config = config
        for name, kinds in ARGUMENTS.items():
            getattr(library, name).argtypes, getattr(library, name).restype = kinds, None
        self._attend, self._modulate = library.attend, library.modulate

    def attend(
        self,
        q: BFloat16[Tensor, "S I"],
        frames: Sequence[tuple[Tensor, Tensor]],
        bias: Float[Tensor, "F 1 heads"],
        per_real: float,
        zero: float,
    ) -> UInt8[Tensor, "S I"]:
        """One query against the keys and values of some frames, as eight bits: per_real * value + zero."""
        count, out = len(frames), torch.empty(q.shape, dtype=torch.uint8)
        pointers = ctypes.c_void_p * count
        keys, values = (pointers(*[frame[i].data_ptr() for frame in frames]) for i in (0, 1))
        strides = (ctypes.c_int64 * count)(*[_stride(key) for key, _ in frames])
        self._attend(
            q.data_ptr(), _stride(q), keys, values, strides, count, bias.data_ptr(), len(q), per_real, zero, out.data_ptr()
        )  # fmt: skip
        return out

    def modulate(
        self,
        x: BFloat16[Tensor, "#S D"],
        shift: BFloat16[Tensor, "S D"],
        scale: BFloat16[Tensor, "S D"],
        per_real: float,
        zero: float,
        gate: BFloat16[Tensor, "S D"] | None = None,
        added: BFloat16[Tensor, "S D"] | None = None,
    ) -> tuple[BFloat16[Tensor, "#S D"], UInt8[Tensor, "S D"]]:
        """x, with `gate * added` where they are given, and its normalisation, scaled and shifted, as eight bits."""
        out = torch.empty(shift.shape, dtype=torch.uint8)
        total = x if added is None else torch.empty(shift.shape, dtype=x.dtype)
        self._modulate(
            x.data_ptr(), _stride(x), *(None if part is None else part.data_ptr() for part in (gate, added)),
            scale.data_ptr(), shift.data_ptr(), shift.stride(0), len(shift), per_real, zero, total.data_ptr(), out.data_ptr(),
        )  # fmt: skip
        return total, out


def _stride(rows: Tensor) -> int:
    """Numbers from one row to the next; none where one row stands for all."""
    return rows.stride(0) if len(rows) > 1 else 0


@cache
def compiled_for(config: TransformerConfig) -> Native | None:
    """None, with a RuntimeWarning that says why, where it cannot be compiled."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    sizes = {"HEADS": config.heads, "HEAD": config.head, "WINDOW": config.window, "WIDTH": config.latent}
    defined = [f"-D{name}={size}" for name, size in sizes.items()]
    try:
        if compiler is None:
            raise OSError("there is no C++ compiler: install g++")
        with tempfile.TemporaryDirectory() as folder, as_file(files(__package__) / "native.cpp") as source:
            parts = (Path(folder) / "native.o", Path(folder) / "native.so")  # linked apart, or -ffast-math reaches all of torch
            for arguments in ([*FLAGS, *defined, "-c", source, "-o", parts[0]], ["-shared", parts[0], "-o", parts[1], "-lm"]):
                subprocess.run([compiler, *arguments], check=True, capture_output=True, text=True, timeout=120)
            return Native(ctypes.CDLL(str(parts[1])), config)
    except (OSError, subprocess.SubprocessError) as error:
        why = " ".join((getattr(error, "stderr", None) or str(error)).split())[:200]
        warnings.warn(f"native.cpp was not compiled ({why}); planning runs in torch's operations.", RuntimeWarning, stacklevel=2)
        return None
