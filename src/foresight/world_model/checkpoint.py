"""Checkpoints: a folder with `model.safetensors`, `config.json` and `MODEL_CARD.md`. Loading never unpickles.

Saved whole or not at all. The fingerprint of weights and configuration is the model's id.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from foresight.contract import Contract
from foresight.files import write_folder_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from foresight.world_model.elsewhere import Elsewhere
    from foresight.world_model.model import WorldModel

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "MODEL_CARD.md"
FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or of another kind; the message says which and what to do."""


def save(model: WorldModel, path: Path, card: str, training: dict) -> str:
    """Writes the checkpoint and returns its model id. Matrices are stored as float16, the rest as float32."""
    import torch
    from safetensors.torch import save_file

    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    state = {k: v.half() if v.dtype == torch.float32 and v.ndim >= 2 else v for k, v in state.items()}
    config = {"format": FORMAT, "model": asdict(model.config), "contract": model.contract.to_json(), "training": training}
    if model.foundation is not None:  # what makes the frozen part anew; its weights are with the others
        config["foundation"] = model.foundation

    def fill(folder: Path) -> None:
        save_file(state, folder / WEIGHTS)
        checksum = {"weights_sha256": _sha256(folder / WEIGHTS)}
        (folder / CONFIG).write_text(json.dumps(config | checksum, indent=1))
        (folder / CARD).write_text(card)

    new, old = path.with_name(path.name + ".new"), path.with_name(path.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    write_folder_atomically(new, fill)
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)
    return fingerprint(path)


def fingerprint(path: Path) -> str:
    """Twelve hexadecimal digits that name these weights with this configuration."""
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        digest.update((path / name).read_bytes())
    return digest.hexdigest()[:12]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def read_config(path: Path) -> dict:
    """The checkpoint's configuration, without loading weights."""
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(
            f"No checkpoint folder at {path}. Train one with `foresight train`, "
            f"or name a folder that holds {WEIGHTS} and {CONFIG}."
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # of JSON and of UTF-8 too
        raise CheckpointError(
            f"Checkpoint {path}: {CONFIG} cannot be read ({type(error).__name__}: {error}). Fetch or train it again."
        ) from error
    return config


def read_contract(path: Path) -> Contract:
    """What the model is bound to, without loading weights or torch."""
    return Contract.from_json(read_config(path)["contract"])


def read_spares_cameras(path: Path) -> bool:
    """Whether the model was trained with cameras missing (`--model.spare-cameras`), without loading weights or torch."""
    return read_config(path)["model"].get("spare_cameras", False)


def load(path: Path | str, device: str = "cpu") -> WorldModel:
    """The model, in evaluation mode. Raises CheckpointError with one line on anything amiss.

    `device`: cpu, cuda, cuda:1 ..., or onnx: on the CPU in ONNX Runtime, from the files that `foresight export` wrote beside it.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from foresight.world_model.encoders import FoundationError
    from foresight.world_model.model import ModelConfig, WorldModel

    path = Path(path)
    config = read_config(path)
    try:
        model = WorldModel(Contract.from_json(config["contract"]), ModelConfig(**config["model"]), config.get("foundation"))
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path / WEIGHTS).items()}
        misfit = _misfit(model, state)
        if misfit:
            raise CheckpointError(f"Checkpoint {path}: {WEIGHTS} does not fit {CONFIG}: {misfit}. Fetch or train it again.")
        if config.get("weights_sha256", _sha256(path / WEIGHTS)) != _sha256(path / WEIGHTS):  # older checkpoints have none
            raise CheckpointError(
                f"Checkpoint {path}: {WEIGHTS} is damaged or of another checkpoint than {CONFIG} (checksum). "
                "Fetch or train it again."
            )
        model.load_state_dict(state)
    except CheckpointError:
        raise
    except FoundationError as error:
        raise CheckpointError(f"Checkpoint {path}: {error}") from error
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        summary = str(error).splitlines()[0]
        raise CheckpointError(
            f"Checkpoint {path}: {WEIGHTS} is damaged or does not fit {CONFIG} ({summary}). Fetch or train it again."
        ) from error
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"Checkpoint {path}: {WEIGHTS} holds numbers that are not finite, first in '{broken[0]}'. Fetch or train it again."
        )
    model.model_id = fingerprint(path)
    if device == "onnx":
        from foresight.world_model.onnx_model import OnnxWorldModel, beside

        return OnnxWorldModel(model.eval().requires_grad_(False), beside(path), torch.get_num_threads())
    return model.to(device).eval().requires_grad_(False)


def load_for_planning(path: Path | str, device: str = "cpu") -> WorldModel | Elsewhere:
    """As `load`, with the parts that planning runs for every candidate in bfloat16 where this CPU multiplies it faster.

    Whoever plans has tensors on the CPU, wherever the model is (`elsewhere.py`).
    """
    from foresight.world_model.elsewhere import Elsewhere
    from foresight.world_model.packed import pack_linears

    model = load(path, device)
    return pack_linears(model) if model.device.type == "cpu" else Elsewhere(model)


def _misfit(model: WorldModel, state: dict[str, Tensor]) -> str:
    """What of the weights has another shape than the configuration makes, is missing or is too much; empty when all fit."""
    made, found = ({name: list(value.shape) for name, value in of.items()} for of in (model.state_dict(), state))
    words = [
        f"'{name}' is {found.get(name, 'missing')}, the configuration makes {made.get(name, 'none')}"
        for name in sorted(made.keys() | found.keys())
        if made.get(name) != found.get(name)
    ]
    return words[0] + (f", and {len(words) - 1} more" if len(words) > 1 else "") if words else ""
