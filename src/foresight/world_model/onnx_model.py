"""The world model with encoder and dynamics in ONNX Runtime, for a CPU on which that is faster. Knows no planner.

    foresight export && foresight evaluate --device onnx          (nodes: the parameter `device` of world_model and planner)

Actor, critic and readouts stay in torch, and so does whatever needs a gradient.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from foresight.world_model.export import CONFIG, DYNAMICS, ENCODER, ExportError, require, session
from foresight.world_model.model import WorldModel


class OnnxWorldModel(WorldModel):
    """As `WorldModel`, to about six digits."""

    def __init__(self, model: WorldModel, folder: Path, threads: int = 1) -> None:
        """`folder` as `foresight export` writes it. Raises ExportError where it is missing or of another model."""
        super().__init__(model.contract, model.config)
        require()
        if not (folder / CONFIG).is_file():
            raise ExportError(f"Device onnx needs {folder}, which is not there. Make it with `foresight export --out {folder}`.")
        made_of = json.loads((folder / CONFIG).read_text())["model_id"]
        if made_of != model.model_id:
            raise ExportError(
                f"{folder} was exported from model '{made_of}', the checkpoint is '{model.model_id}'. Remove it and export again."
            )
        self.load_state_dict(model.state_dict())
        self.model_id = model.model_id
        self._encoder, self._dynamics = session(folder / ENCODER, threads), session(folder / DYNAMICS, threads)
        self.eval().requires_grad_(False)

    def encode(self, images: UInt8[Tensor, "B C h w 3"], seen: Bool[Tensor, "B C"] | None = None) -> Float[Tensor, "B D"]:
        if torch.is_grad_enabled() or seen is not None:  # the exported encoder sees every camera
            return super().encode(images, seen)
        return torch.from_numpy(_run(self._encoder, images=images)[0])

    def imagine(
        self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], block: Float[Tensor, "S A"]
    ) -> tuple[Float[Tensor, "S D"], Float[Tensor, "S P"]]:
        if torch.is_grad_enabled():
            return super().imagine(latent, proprio, block)
        latents, proprios = _run(self._dynamics, latent=latent, proprio=proprio, blocks=block[:, None])
        return torch.from_numpy(latents[:, 0]), torch.from_numpy(proprios[:, 0])


def _run(session, **given: Tensor) -> list[np.ndarray]:
    """Raises RuntimeError, as torch does, where ONNX Runtime fails: its own errors are of no common kind."""
    try:
        return session.run(None, {name: np.ascontiguousarray(x.numpy()) for name, x in given.items()})
    except Exception as error:
        raise RuntimeError(f"ONNX Runtime failed: {' '.join(str(error).split())[:300]}") from error


def beside(checkpoint: Path) -> Path:
    """Where the export of a checkpoint lies if nobody says otherwise."""
    return checkpoint.with_name(checkpoint.name + "_onnx")
