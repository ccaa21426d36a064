"""Checkpoints: a folder with `model.safetensors`, `config.json` and `MODEL_CARD.md`. Loading never unpickles.

Saved whole or not at all. The fingerprint of weights and configuration is the model's id.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from foresight.contract import Contract

if TYPE_CHECKING:
    from foresight.world_model.model import WorldModel

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "MODEL_CARD.md"
FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or of another kind; the message says which and what to do."""


def save(model: WorldModel, path: Path, card: str, training: dict) -> str:
    """Writes the checkpoint and returns its model id. Matrices are stored as float16, the rest as float32."""
    import torch
    from safetensors.torch import save_file

    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    state = {k: v.half() if v.dtype == torch.float32 and v.ndim >= 2 else v for k, v in state.items()}
    save_file(state, partial / WEIGHTS)
    config = {"format": FORMAT, "model": asdict(model.config), "contract": model.contract.to_json(), "training": training}
    (partial / CONFIG).write_text(json.dumps(config, indent=1))
    (partial / CARD).write_text(card)
    for name in (WEIGHTS, CONFIG, CARD):
        with open(partial / name, "rb") as file:
            os.fsync(file.fileno())
    if path.exists():
        old = path.with_name(path.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        partial.rename(path)
        shutil.rmtree(old)
    else:
        partial.rename(path)
    return fingerprint(path)


def fingerprint(path: Path) -> str:
    """Twelve hexadecimal digits that name these weights with this configuration."""
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        digest.update((path / name).read_bytes())
    return digest.hexdigest()[:12]


def read_config(path: Path) -> dict:
    """The checkpoint's configuration, without loading weights."""
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(
            f"No checkpoint folder at {path}. Train one with `foresight train`, "
            f"or give --checkpoint a folder that holds {WEIGHTS} and {CONFIG}."
        )
    missing = [n for n in (WEIGHTS, CONFIG) if not (path / n).is_file()]
    if missing:
        raise CheckpointError(
            f"Checkpoint {path} lacks {', '.join(missing)}; it holds {sorted(p.name for p in path.iterdir())}. "
            "Fetch or train it again."
        )
    try:
        config = json.loads((path / CONFIG).read_text())
        if config["format"] != FORMAT:
            raise CheckpointError(
                f"Checkpoint {path} has format {config['format']}, this Foresight reads format {FORMAT}. "
                "Train it again with this version."
            )
        Contract.from_json(config["contract"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"Checkpoint {path}: {CONFIG} cannot be read ({type(error).__name__}: {error}). Fetch or train it again."
        ) from error
    return config


def read_contract(path: Path) -> Contract:
    """What the model is bound to, without loading weights or torch."""
    return Contract.from_json(read_config(path)["contract"])


def load(path: Path | str, device: str = "cpu") -> WorldModel:
    """The model, in evaluation mode. Raises CheckpointError with one line on anything amiss."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from foresight.world_model.model import ModelConfig, WorldModel

    path = Path(path)
    config = read_config(path)
    try:
        model = WorldModel(Contract.from_json(config["contract"]), ModelConfig(**config["model"]))
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path / WEIGHTS).items()}
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        summary = str(error).splitlines()[0]
        raise CheckpointError(
            f"Checkpoint {path}: {WEIGHTS} is damaged or does not fit {CONFIG} ({summary}). Fetch or train it again."
        ) from error
    model.model_id = fingerprint(path)
    return model.to(device).eval().requires_grad_(False)
