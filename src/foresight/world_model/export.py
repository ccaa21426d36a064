"""A checkpoint's encoder and rollout as ONNX files, each compared with the model that it was made of. Knows no planner.

    foresight export --checkpoint models/ur5e          (into models/ur5e_onnx)

`encoder.onnx`: prepared `images` (B, C, h, w, 3) uint8 to `latent` (B, D). `rollout.onnx`: `latent` (S, D), `proprio` (S, P) and
`blocks` (S, H, A), in physical units as `WorldModel.imagine` takes them, to `latents` (S, H, D) and `proprios` (S, H, P). B and S
are free, H is fixed; `dynamics.onnx` is the same for H = 1. Needs the packages of the extra `onnx`, which nothing else does.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from foresight.files import write_folder_atomically
from foresight.world_model.model import WorldModel

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ENCODER, ROLLOUT, DYNAMICS, CONFIG = "encoder.onnx", "rollout.onnx", "dynamics.onnx", "export.json"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of the largest number of an output, by which a file may differ from its model


class ExportError(RuntimeError):
    """The export cannot be made, or is not what the model is; the message is one line."""


@dataclass(frozen=True)
class ExportConfig:
    """What to export and where to."""

    checkpoint: Path = Path("models/ur5e")
    """Folder of the checkpoint; the default is the one shipped."""
    out: Path | None = None
    """New folder for the files; by default beside the checkpoint, its name with _onnx, where device onnx looks for it."""
    horizon: int = 4
    """Blocks of the rollout, as many as the planner looks ahead."""

    def __post_init__(self) -> None:
        if not 1 <= self.horizon <= 64:
            raise ValueError(f"--horizon must lie between 1 and 64 blocks, got {self.horizon}.")


class Encode(nn.Module):
    """The encoder as it is exported."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.encode(images)


class Rollout(nn.Module):
    """The dynamics over a fixed number of blocks, as they are exported."""

    def __init__(self, model: WorldModel, horizon: int) -> None:
        super().__init__()
        self.model, self.horizon = model, horizon

    def forward(self, latent: Tensor, proprio: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
        latents, proprios = [], []
        for h in range(self.horizon):
            latent, proprio = self.model.imagine(latent, proprio, blocks[:, h])
            latents.append(latent)
            proprios.append(proprio)
        return torch.stack(latents, 1), torch.stack(proprios, 1)


def export(model: WorldModel, out: Path, horizon: int) -> dict[str, float]:
    """Writes the folder, complete or not at all, once its files agree with the model; by how much they differ [of the largest].

    Raises ExportError where a package is missing or a file does not agree, FileExistsError where `out` exists.
    """
    require()
    if not model.foresees:
        raise ExportError("The model has no dynamics to export: it learned by behaviour cloning (--model.no-dynamics).")
    differences: dict[str, float] = {}
    write_folder_atomically(out, lambda folder: differences.update(fill(model, folder, horizon)))
    return differences


def fill(model: WorldModel, folder: Path, horizon: int) -> dict[str, float]:
    """The same into a folder that is there."""
    write(model, folder, horizon)
    differences = parity(model, folder, horizon)
    told = {"model_id": model.model_id, "horizon": horizon, "contract": model.contract.to_json(), "differences": differences}
    (folder / CONFIG).write_text(json.dumps(told, indent=1) + "\n")
    return differences


def require() -> None:
    """Raises ExportError where one of the packages is missing, with the command that installs them."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"Export needs {', '.join(NEEDED)}; missing: {', '.join(missing)}. "
            "Run: .venv/bin/pip install -c requirements/constraints.txt -e '.[onnx]'"
        )


def write(model: WorldModel, folder: Path, horizon: int) -> None:
    """The three files."""
    rows = torch.export.Dim("S", min=1, max=4096)
    images = examples(model, 2, horizon)[0]
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            Encode(model).eval(), (images,), folder / ENCODER, dynamo=True, external_data=False, verbose=False,
            input_names=["images"], output_names=["latent"], dynamic_shapes=({0: rows},),
        )  # fmt: skip
        for name, blocks in ((ROLLOUT, horizon), (DYNAMICS, 1)):
            torch.onnx.export(
                Rollout(model, blocks).eval(), examples(model, 2, blocks)[1], folder / name, dynamo=True, external_data=False,
                verbose=False, input_names=["latent", "proprio", "blocks"], output_names=["latents", "proprios"],
                dynamic_shapes=({0: rows}, {0: rows}, {0: rows}),
            )  # fmt: skip


def parity(model: WorldModel, folder: Path, horizon: int) -> dict[str, float]:
    """By how much the files' outputs differ from the model's, at several batch sizes; raises ExportError where too much."""
    encoder = session(folder / ENCODER)
    worst = {"latent": 0.0, "latents": 0.0, "proprios": 0.0}

    def compare(name: str, ours: Tensor, theirs: np.ndarray) -> None:
        apart = float(np.abs(theirs - ours.numpy()).max()) / max(float(ours.abs().max()), 1e-9)
        worst[name] = max(worst[name], apart) if np.isfinite(apart) else float("inf")

    for rows in (1, 3, 17):
        images = examples(model, rows, horizon, seed=rows)[0]
        with torch.no_grad():
            compare("latent", model.encode(images), encoder.run(None, {"images": images.numpy()})[0])
    for file, blocks in ((ROLLOUT, horizon), (DYNAMICS, 1)):
        one = session(folder / file)
        for rows in (1, 3, 17):
            arguments = examples(model, rows, blocks, seed=rows)[1]
            with torch.no_grad():
                expected = Rollout(model, blocks)(*arguments)
            named = dict(zip(("latent", "proprio", "blocks"), (x.numpy() for x in arguments), strict=True))
            for name, ours, theirs in zip(("latents", "proprios"), expected, one.run(None, named), strict=True):
                compare(name, ours, theirs)
    wrong = [f"{name} by {apart:.1e}" for name, apart in worst.items() if not apart <= TOLERANCE]
    if wrong:
        raise ExportError(
            f"The exported files differ from the model, {', '.join(wrong)} of the largest number, allowed {TOLERANCE:.0e}. "
            "Nothing was written; use the package versions of requirements/constraints.txt."
        )
    return worst


def examples(model: WorldModel, rows: int, horizon: int, seed: int = 0) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Images, and latent, proprioception and blocks of a rollout, of the sizes and in about the range that the model sees."""
    generator, contract = torch.Generator().manual_seed(seed), model.contract
    size = contract.cameras[0].size
    images = torch.randint(0, 256, (rows, len(contract.cameras), size, size, 3), dtype=torch.uint8, generator=generator)
    noise = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    proprio = model.proprio_mean.cpu() + model.proprio_std.cpu() * noise(rows, contract.proprio_size)
    blocks = model.action_std.cpu() * noise(rows, horizon, contract.block_size)
    return images, (noise(rows, model.config.latent), proprio, blocks)


def session(file: Path, threads: int = 1) -> InferenceSession:
    """ONNX Runtime on the CPU with so many threads."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's talk about its own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
