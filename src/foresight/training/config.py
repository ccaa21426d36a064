"""What to train on, for how long and how: one frozen dataclass, and the presets it begins from. Knows no networks' insides."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from foresight.training.anti_collapse import AntiCollapse
from foresight.training.precision import Precision
from foresight.world_model.model import ModelConfig

Preset = Literal["nano", "tiny", "frozen"]
HOW_NOT_WHAT = ("preset", "threads", "fresh", "logs", "device", "strategy", "model")  # leave what is learned as it is


@dataclass(frozen=True)
class TrainConfig:
    """What to train on, for how long, and how hard each loss pulls.

    In several processes: `torchrun --nproc-per-node 2 -m foresight.cli train ...`; an update's batch is then shared by all.
    """

    data: tuple[Path, ...] = (Path("data/ur5e_play.h5"),)  # datasets that `foresight collect` wrote, of one robot
    out: Path = Path("runs/model")  # checkpoint folder to write
    steps: int = 1800  # updates of encoder and predictor
    batch: int = 96  # windows of 4 frames per update, of all processes together
    head_steps: int = 6000  # updates of actor and critic
    decoder_steps: int = 1200  # updates of the picture decoder
    dream_steps: int = 3000  # updates of actor and critic in imagination, for a model with --model.dreamt
    lr: float = 1e-3  # peak learning rate
    weight_decay: float = 1e-3  # of AdamW, per update and learning rate
    sigreg_weight: float = 0.09  # of the loss that keeps the latents from collapsing
    sigreg_slices: int = 256  # random directions per update
    rollout_weight: float = 0.5  # of 2- and 3-block imagination
    proprio_weight: float = 0.5  # of imagined proprioception
    inverse_weight: float = 0.2  # of inverse dynamics
    readout_weight: float = 0.3  # of a linear proprioception readout from the latent
    seed: int = 0  # of initial weights and of every draw
    episodes: int | None = None  # use only the first episodes of the datasets
    threads: int = os.cpu_count() or 1  # CPU threads
    fresh: bool = False  # forget an interrupted run instead of resuming it
    model: ModelConfig = ModelConfig()
    preset: Preset = "nano"  # what all other settings begin from: two CPU cores, LeWorldModel's sizes, a foundation model's eyes
    anti_collapse: AntiCollapse = "sigreg"  # what keeps the latents from collapsing
    vicreg_weight: float = 18.0  # of VICReg, where it is chosen; as tuned for latent world models
    infonce_weight: float = 1.0  # of InfoNCE, where it is chosen
    ema_momentum: float = 0.99  # by which the teacher stays where it is, where `ema` is chosen
    accumulate: int = 1  # parts in which each process works through its batch; SIGReg and batch norm see one part at a time
    camera_dropout: float = 0.3  # share of frames that lack some camera, for a model with --model.spare-cameras
    damaged: Literal["refuse", "skip"] = "refuse"  # a dataset with damaged episodes, or those episodes
    precision: Precision = "auto"  # of the networks' arithmetic; auto: fp32 on a CPU that bf16 takes much longer on, else bf16
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to train; auto: on a GPU where there is one
    strategy: Literal["ddp", "fsdp"] = "ddp"  # of several processes: each has all weights, or they are divided among them
    logs: Path | None = None  # folder for TensorBoard's event files; none are written without it

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data must name at least one dataset, got none.")
        for name, most in (
            ("steps", 10_000_000), ("head_steps", 10_000_000), ("decoder_steps", 10_000_000),
            ("dream_steps", 10_000_000),
            ("batch", 100_000), ("sigreg_slices", 100_000), ("threads", 256), ("accumulate", 10_000),
        ):  # fmt: skip
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be at least 1 and at most {most}, got {getattr(self, name)}.")
        if not 0 < self.lr <= 1:
            raise ValueError(f"lr must be above 0 and at most 1, got {self.lr}.")
        for name in (n for n in self.__dict__ if n.endswith("_weight") or n == "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {getattr(self, name)}.")
        for name in ("ema_momentum", "camera_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be at least 0 and at most 1, got {getattr(self, name)}.")
        if not 0 <= self.seed <= 2**31:
            raise ValueError(f"seed must be at least 0 and at most {2**31}, got {self.seed}.")
        if self.episodes is not None and self.episodes < 2:
            raise ValueError(f"episodes must be at least 2 (one is held out), got {self.episodes}.")


PRESETS: dict[str, TrainConfig] = {
    "nano": TrainConfig(),
    # LeWorldModel (arXiv 2603.19312): ViT-Tiny, latent of 192, AdaLN predictor of 6 layers with dropout. Its predictor attends to
    # 3 frames; the one here sees the newest and proprioception, and has as many weights. At 64 px a patch is 8 px; at 224 use 14.
    "tiny": TrainConfig(
        preset="tiny",
        steps=10_000,
        batch=128,
        lr=5e-5,
        sigreg_slices=1024,
        model=ModelConfig(
            latent=192, encoder="vit", encoder_width=192, predictor_width=448, predictor_depth=6, predictor_dropout=0.1
        ),
    ),
    "frozen": TrainConfig(preset="frozen", model=ModelConfig(encoder="foundation")),
}


def preset_in(words: Sequence[str]) -> TrainConfig:
    """The preset that a command line names; `nano` where it names none, or none that there is."""
    named = [w.removeprefix("--preset=") for w in words if w.startswith("--preset=")]
    named += [after for word, after in pairwise(words) if word == "--preset"]
    return PRESETS.get(named[-1] if named else "nano", PRESETS["nano"])


def command_line(config: TrainConfig) -> str:
    """The command that repeats this run: every field that differs from its preset's."""
    default = PRESETS[config.preset]
    words = ["foresight train"] + ([f"--preset {config.preset}"] if config.preset != "nano" else [])
    words += [_flag(n, v) for n, v in vars(config).items() if n not in HOW_NOT_WHAT and v != getattr(default, n)]
    words += [_flag(f"model.{n}", v) for n, v in asdict(config.model).items() if v != getattr(default.model, n)]
    return " ".join(words)


def _flag(name: str, value: Any) -> str:
    name = name.replace("_", "-")
    if isinstance(value, bool):
        group, _, field = name.rpartition(".")
        return f"--{name}" if value else f"--{group}{'.' * bool(group)}no-{field}"
    return f"--{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
