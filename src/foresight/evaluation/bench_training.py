"""Times training on this machine: LeWorldModel's network and objective through our trainer's loop, beside a peer's in one run.

    foresight bench training --json F [--peer-python PATH] [--batch 8] [--device cuda]

An update here is all of it: windows drawn from the data and given their looks, forward, backward, gradients clipped, the
optimiser's step. The data is one HDF5 file that both read, made for the run and thrown away. Ours and the peer's updates
alternate in turns, so that both meet the same load. The ratio is that of the fastest turns in one precision; the ratio to the
fastest of the peer's in any, and that of processor times, stand beside it. Weights are random at first: time does not depend on
them, and what is learned is not compared. Besides LeWorldModel's network the model of preset `tiny` is timed, whose predictor
and objective are our own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foresight.contract import CameraContract, Contract
from foresight.evaluation.peer import Peer, Took
from foresight.evaluation.results import git_commit, machine
from foresight.files import write_atomically
from foresight.training import dataset
from foresight.training.config import PRESETS, TrainConfig
from foresight.training.dataset import PlayData
from foresight.training.learner import WINDOW, Learner
from foresight.training.precision import autocast
from foresight.training.train import made_ahead, make_fabric, make_optimiser, parts_of_batch, prepare, set_rate, update
from foresight.world_model.sigreg import sigreg
from foresight.world_model.transformer import LatentTransformer, TransformerConfig

SCRIPT = Path(__file__).with_name("peer_stable_worldmodel_trainer.py")
WARM_UP = 2  # updates of each kind that are not timed
EPISODES, STEPS, BLOCK_STEPS = 8, 60, 5  # of the data; 3 numbers in a step's action
PRECISIONS: dict[str, Literal["bf16", "fp32"]] = {"bfloat16": "bf16", "float32": "fp32"}
PEERS: dict[str, dict[str, Any]] = {  # what the peer is told, by name: its script's settings, and what may be faster here
    "bfloat16, as its script has it": {"precision": "bf16-mixed", "workers": 6, "dropout": 0.1},
    "bfloat16, 1 worker, no dropout": {"precision": "bf16-mixed", "workers": 1, "dropout": 0.0},
    "float32, 1 worker, no dropout": {"precision": "32-true", "workers": 1, "dropout": 0.0},
}
DIFFERS = (
    "Ours: data read into memory once (load_s), looks jittered, no dropout in the predictor, position as a learned bias by lag, "
    "one normalisation before each part of a layer. The peer: windows read from the file by workers, ImageNet normalisation; its "
    "script's settings have dropout 0.1, its other rows none. AdamW both, ours with betas of 0.9 and 0.98. Objective, "
    "clipping and sizes are the same."
)


@dataclass(frozen=True)
class BenchTrainingConfig:
    """What to time, how often and where to write it."""

    json: Path = Path("runs/bench/training.json")
    """File for the figures."""
    peer_python: Path | None = None
    """Python of an environment with stable-worldmodel[train] 0.1.1, whose trainer is then timed in the same run."""
    batch: int = 8
    """Windows of 4 frames in an update; 128 are published, for a GPU."""
    image: int = 224
    """Side of the images [px], a multiple of the patches' 14."""
    updates: int = 3
    """Updates of each kind in a turn, after 2 that are not timed."""
    turns: int = 3
    """How often each kind has its turn; the fastest counts."""
    threads: int = len(os.sched_getaffinity(0))
    """Threads for ours and for the peer's; by default every core that this process may use."""
    limit_s: float = 900.0
    """After this many seconds [s] no turn begins; each kind has at least one."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where ours and the peer's are trained."""

    def __post_init__(self) -> None:
        for name, most in (("batch", 4096), ("image", 2048), ("updates", 10_000), ("turns", 10_000), ("threads", 256),
                           ("limit_s", 86_400)):  # fmt: skip
            if not 0 < getattr(self, name) <= most:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0 and at most {most}, got {getattr(self, name)}.")
        if self.batch < 2:
            raise ValueError(f"--batch must be at least 2, for batch normalisation and SIGReg, got {self.batch}.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: no GPU can be seen by this torch. Leave --device out to time the processor.")


class Updates(NamedTuple):
    """What the updates of one turn took."""

    each_s: list[float]  # [s] on the wall
    cpu_s: float  # [s] of all threads and of all updates together

    @property
    def mean(self) -> Took:
        return Took(sum(self.each_s) / len(self.each_s), self.cpu_s / len(self.each_s))


class LatentLearner(nn.Module):
    """LeWorldModel's objective on its network, called by the trainer's loop as `Learner` is."""

    def __init__(self, model: LatentTransformer, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(
        self,
        images: Float[Tensor, "B T 1 3 h w"],
        blocks: Float[Tensor, "B T-1 A"],
        proprio: Float[Tensor, "B T P"],
        seen: Bool[Tensor, "B T 1"] | None,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The next latent from those before, and SIGReg; proprioception is not used."""
        with autocast(images.device, self.config.precision):
            z = self.model.encode(images.flatten(0, 2)).float().unflatten(0, images.shape[:2])
            foreseen = self.model(z[:, :-1], blocks).float()
        error, apart = (foreseen - z[:, 1:]).square().mean(), sigreg(z.transpose(0, 1), self.config.sigreg_slices, generator)
        loss = error + self.config.sigreg_weight * apart
        return loss, {"loss": loss.detach(), "predict": error.detach(), "sigreg": apart.detach()}

    def after_update(self) -> None:
        """Nothing follows."""


class Training:
    """One kind of ours, updated as `foresight train` does it. `updates` goes on from where it was."""

    def __init__(self, data: PlayData, config: TrainConfig, sizes: TransformerConfig | None) -> None:
        """With `sizes` LeWorldModel's network, without the one of `config`."""
        self.config, self.fabric = config, make_fabric(config)
        self.normal, self.data = prepare(config, data)
        self.learner = Learner(self.normal, config) if sizes is None else LatentLearner(LatentTransformer(sizes), config)
        self.parameters = sum(p.numel() for p in self.learner.parameters())
        self.module = self.fabric.setup_module(self.learner)
        self.optimiser = self.fabric.setup_optimizers(make_optimiser(self.learner, config))
        self.normal.to(self.fabric.device)
        self.loss, self._batches = float("nan"), self._drawn()

    def _drawn(self) -> Iterator:
        starts = self.data.starts(self.data.training, (WINDOW - 1) * self.data.contract.block_steps)
        make = lambda step: parts_of_batch(self.normal, self.data, starts, self.config, step, self.fabric)  # noqa: E731
        return enumerate(made_ahead(make, range(self.config.steps), self.fabric.device))

    def updates(self, number: int) -> Updates:
        each_s, began_cpu_s = [], time.process_time()
        for _ in range(number):
            began_s = time.perf_counter()
            step, batch = next(self._batches)
            set_rate(self.optimiser, self.config.lr, step, self.config.steps)
            self.loss = update(self.module, self.learner, self.optimiser, batch, self.config, step, self.fabric)["loss"]
            each_s.append(time.perf_counter() - began_s)
        return Updates(each_s, time.process_time() - began_cpu_s)

    def gflop_per_window(self) -> float:
        """Of products, forwards and backwards; those of attention only where it is not fused."""
        batch = next(iter(parts_of_batch(self.normal, self.data, np.zeros(1, int), self.config, 0, self.fabric)))
        with FlopCounterMode(display=False) as counter:
            self.module(*batch)[0].backward()
        self.optimiser.zero_grad(set_to_none=True)
        return counter.get_total_flops() / self.config.batch / 1e9


def bench(
    config: BenchTrainingConfig, say: Callable[[str], None] = lambda line: None, sizes: TransformerConfig = TransformerConfig()
) -> dict:
    """Every figure, as F holds it. `sizes` other than the published ones are for tests."""
    began_s, load, before = time.perf_counter(), os.getloadavg()[0], torch.get_num_threads()
    sizes = replace(sizes, image=config.image, block=3 * BLOCK_STEPS)
    try:
        with TemporaryDirectory() as folder:
            file = make_data(Path(folder) / "windows.h5", config.image)
            loading_s = time.perf_counter()
            data = dataset.load(file)
            load_s = time.perf_counter() - loading_s
            ours = {name: Training(data, *settings) for name, settings in _ours(config, sizes).items()}
            peering = Peer(config.peer_python, config.threads, config.device, SCRIPT) if config.peer_python else nullcontext()
            with peering as peer:
                rows = _rows(config, ours, peer, _asked(config, sizes, file), began_s)
                loaded = peer.loaded if peer else None
    finally:
        torch.set_num_threads(before)
    for row in rows:
        beside = f", {row['ratio']:.2f} times the peer's" if row["ratio"] else ""
        say(
            f"{row['name']}: {row['updates_per_s']:.3f} updates/s, {row['frames_per_s']:.1f} frames/s, "
            f"{row['cpu_s']:.2f} s of processor time an update{beside}"
        )
    return {
        "machine": asdict(machine()),
        "threads": config.threads,
        "device": "cpu" if config.device == "cpu" else torch.cuda.get_device_name(),
        "commit": git_commit(),
        "versions": {"torch": torch.__version__, "lightning-fabric": version("lightning-fabric")},
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "peer": loaded,
        "sizes": asdict(sizes),
        "load_s": load_s,
        "measured": "Wall time of whole updates, data included: the mean of the fastest turn, in alternation. ratio: to the "
        "peer's fastest of the same precision; ratio_to_fastest: of any.",
        "differs": DIFFERS,
        "rows": rows,
        "took_s": time.perf_counter() - began_s,
    }


def _ours(config: BenchTrainingConfig, sizes: TransformerConfig) -> dict[str, tuple[TrainConfig, TransformerConfig | None]]:
    """By name."""
    tiny = PRESETS["tiny"]
    model = replace(
        tiny.model, patch=sizes.patch, latent=sizes.latent, encoder_width=sizes.latent, encoder_depth=sizes.encoder_depth
    )
    model = replace(model, encoder_heads=sizes.encoder_heads)
    trained = replace(tiny, steps=1_000_000, model=model, batch=config.batch, threads=config.threads, device=config.device)
    kinds = {f"LeWorldModel's network, {name}": (replace(trained, precision=of), sizes) for name, of in PRECISIONS.items()}
    return {**kinds, "preset tiny, bfloat16": (replace(trained, precision="bf16"), None)}


def _asked(config: BenchTrainingConfig, sizes: TransformerConfig, data: Path) -> dict[str, dict[str, Any]]:
    """What the peer is asked, by name."""
    shared = {"data": str(data), "batch": config.batch, "updates": config.updates, "sizes": asdict(sizes)}
    return {name: settings | shared for name, settings in PEERS.items()}


def _rows(
    config: BenchTrainingConfig, ours: dict[str, Training], peer: Peer | None, asked: dict[str, dict[str, Any]], began_s: float
) -> list[dict]:
    """Ours and the peer's in turn."""
    took: dict[str, list[Updates]] = {}
    theirs: dict[str, dict] = {}
    gflop = {name: training.gflop_per_window() for name, training in ours.items()}
    for turn in range(config.turns):
        if turn and time.perf_counter() - began_s > config.limit_s:
            break
        for name, training in ours.items():
            training.updates(WARM_UP)
            took.setdefault(name, []).append(training.updates(config.updates))
        for name, wanted in asked.items() if peer else ():
            theirs[name] = peer.ask(wanted)
            took.setdefault(name, []).append(Updates(theirs[name]["s"], theirs[name]["cpu_s"]))
    shared = {"batch": config.batch, "frames": WINDOW, "image": config.image}
    rows = []
    for name, training in ours.items():
        told = {"parameters": training.parameters, "loss": training.loss, "gflop_per_window": gflop[name], "workers": None}
        precision = next(long for long, short in PRECISIONS.items() if short == training.config.precision)
        same = {other: took[other] for other in theirs if other.startswith(precision)}
        rows.append(_row(f"ours: {name}", precision, took[name], same, {n: took[n] for n in theirs}) | shared | told)
    for name, answer in theirs.items():
        told = {
            "parameters": answer["parameters"],
            "loss": answer["loss"],
            "gflop_per_window": None,
            "workers": asked[name]["workers"],
        }
        rows.append(_row(f"peer: {name}", name.partition(",")[0], took[name], {}, {}) | shared | told)
    for row in rows:
        row["frames_per_s"] = row["updates_per_s"] * row["batch"] * row["frames"]
    return rows


def _row(
    name: str, dtype: str, turns: list[Updates], same: dict[str, list[Updates]], others: dict[str, list[Updates]]
) -> dict[str, Any]:
    """One kind's figures, and its ratios to the fastest of those in the same precision and of all."""
    quick, cpu = _quickest(turns)
    beside, anything = ([_quickest(of) for of in kinds.values()] for kinds in (same, others))
    return {
        "name": name,
        "dtype": dtype,
        "updates_per_s": 1 / quick,
        "ratio": min(s for s, _ in beside) / quick if beside else None,
        "ratio_of_cpu": min(used for _, used in beside) / cpu if beside else None,
        "ratio_to_fastest": min(s for s, _ in anything) / quick if anything else None,
        "median_s": median(s for turn in turns for s in turn.each_s),
        "cpu_s": cpu,
        "all_s": [turn.each_s for turn in turns],
    }


def _quickest(turns: list[Updates]) -> Took:
    """The mean of an update in the fastest turn, on the wall and of the processor."""
    return Took(min(turn.mean.s for turn in turns), min(turn.mean.cpu_s for turn in turns))


def make_data(path: Path, image: int) -> Path:
    """A file that `dataset.load` and the peer's reader both take: smooth random pictures, one camera, one frame to a chunk."""
    rng, rows = np.random.default_rng(0), EPISODES * STEPS
    camera = CameraContract("front", image, image, (0, 0, image, image), image)
    joints = tuple(f"joint_{i}" for i in range(6))
    numbers = lambda width: rng.normal(size=(rows, width)).astype(np.float32)  # noqa: E731
    columns = {"q": 6, "tip": 3, "tip_velocity": 3, "action": 3, "object": 3}
    with h5py.File(path, "w", libver="latest") as file:
        pixels = file.create_dataset("pixels_front", (rows, image, image, 3), np.uint8, chunks=(1, image, image, 3))
        for row in range(rows):
            coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
            pixels[row] = np.kron(coarse, np.ones((-(-image // 8),) * 2 + (1,), np.uint8))[:image, :image]
        file["pixels"] = pixels  # the same data by the peer's name for it
        for name, width in columns.items():
            file[name] = numbers(width)
        file["ep_len"], file["ep_offset"] = np.full(EPISODES, STEPS), np.arange(EPISODES) * STEPS
        file.attrs["contract"] = json.dumps(Contract("random", joints, (camera,), block_steps=BLOCK_STEPS).to_json())
        file.attrs["seed"], file.attrs["frameskip"] = 0, BLOCK_STEPS
    return path


def write(path: Path, figures: dict) -> Path:
    """F."""
    return write_atomically(path, json.dumps(figures, indent=1, allow_nan=False) + "\n")
