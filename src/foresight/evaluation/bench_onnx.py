"""Times the shipped model on this CPU, encoder, rollout and whole plans: in torch, against its ONNX files in other engines.

    foresight bench onnx --json F

Engines take turns, so that all meet the same load. OpenVINO takes part where it is installed (`pip install openvino`); nothing
depends on it. Every engine has the same number of threads.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from foresight.data import Belief, Goal, Start
from foresight.evaluation.results import git_commit, machine
from foresight.planning.config import PlannerConfig
from foresight.planning.planner import Planner
from foresight.robots.profile import load_profile
from foresight.world_model import checkpoint
from foresight.world_model.export import ENCODER, ROLLOUT, Rollout, examples, fill, require, session
from foresight.world_model.model import WorldModel
from foresight.world_model.networks import normalise_images
from foresight.world_model.onnx_model import OnnxWorldModel
from foresight.world_model.packed import pack_linears

FLOAT32, BFLOAT16, AS_RUN, ONNX = "torch float32", "torch bfloat16", "torch as it runs", "onnxruntime float32"
# One observation; the planner's proposals; a round of its search; a whole plan of the planner as shipped, but for the deadline.
CASES = (("encoder", 1), ("rollout", 17), ("rollout", 48), ("plan", 1))
Run = Callable[[], object]


@dataclass(frozen=True)
class BenchOnnxConfig:
    """What to time, how often and where to write it."""

    json: Path | None = None
    """Where to write the figures."""
    checkpoint: Path = Path("models/ur5e")
    """Folder of the checkpoint; the default is the one shipped."""
    threads: int = 1
    """Threads of every engine; one is what each node of the graph has to itself on two cores."""
    repeats: int = 200
    """Runs of each engine in each case; the median counts."""
    horizon: int = 4
    """Blocks of the rollout, as many as the planner looks ahead."""

    def __post_init__(self) -> None:
        for name, most in (("threads", 256), ("repeats", 100_000), ("horizon", 64)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"--{name} must lie between 1 and {most}, got {getattr(self, name)}.")


def bench(config: BenchOnnxConfig, model: WorldModel | None = None) -> dict[str, Any]:
    """A row for each case and engine, with its median time and how many times as fast as torch it is.

    As it runs is what `checkpoint.load_for_planning` loads: the encoder in float32, what is run for every candidate packed in
    bfloat16 where the CPU multiplies that. A plan in ONNX Runtime is that of device onnx: actor, critic and readouts are as in
    torch.
    """
    require()
    model = model or checkpoint.load(config.checkpoint)
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with TemporaryDirectory() as folder:
            differences = fill(model, Path(folder), config.horizon)
            rows = [row for case in CASES for row in _case(config, model, Path(folder), *case)]
    finally:
        torch.set_num_threads(before)
    return {
        "measured": "Median wall time of one run, engines in turn, inputs in memory.",
        "machine": asdict(machine()),
        "versions": {name: version(name) for name in ("onnx", "onnxruntime", "openvino") if find_spec(name)},
        "git": git_commit(),
        "model_id": model.model_id,
        "threads": config.threads,
        "horizon": config.horizon,
        "differences": differences,
        "rows": rows,
    }


def _case(config: BenchOnnxConfig, model: WorldModel, folder: Path, part: str, rows: int) -> list[dict[str, Any]]:
    engines = _engines(config, model, folder, part, rows)
    took_s: dict[str, list[float]] = {name: [] for name in engines}
    for run in engines.values():
        for _ in range(3):  # the first ones are slower
            run()
    for _ in range(config.repeats):
        for name, run in engines.items():
            began_s = time.perf_counter()
            run()
            took_s[name].append(time.perf_counter() - began_s)
    middle = {name: median(times) for name, times in took_s.items()}
    beside = lambda basis, name: middle[basis] / middle[name] if basis in middle else None  # noqa: E731
    return [
        {
            "part": part,
            "rows": rows,
            "engine": name,
            "median_s": middle[name],
            "least_s": min(times),
            "of_float32": beside(FLOAT32, name),
            "of_bfloat16": beside(BFLOAT16, name),
            "of_as_run": beside(AS_RUN, name),
        }
        for name, times in took_s.items()
    ]


def _engines(config: BenchOnnxConfig, model: WorldModel, folder: Path, part: str, rows: int) -> dict[str, Run]:
    """Of each engine, one run of this part of the model on the same inputs."""
    packed = pack_linears(copy.deepcopy(model))
    if part == "plan":
        onnx = pack_linears(OnnxWorldModel(model, folder, config.threads))
        return {FLOAT32: _plan(model), AS_RUN: _plan(packed), ONNX: _plan(onnx)}
    images, arguments = examples(model, rows, config.horizon)
    half, rollout = copy.deepcopy(model).bfloat16(), Rollout(model, config.horizon)
    half_rollout, half_arguments = Rollout(half, config.horizon), tuple(x.bfloat16() for x in arguments)
    encoding = part == "encoder"
    engines: dict[str, Run] = {
        FLOAT32: _of_torch(lambda: model.encode(images) if encoding else rollout(*arguments)),
        BFLOAT16: _of_torch(
            lambda: half.encoder(normalise_images(images).bfloat16()) if encoding else half_rollout(*half_arguments)
        ),
    }
    if not encoding:
        as_run = Rollout(packed, config.horizon)
        engines[AS_RUN] = _of_torch(lambda: as_run(*arguments))
    file, inputs = folder / (ENCODER if encoding else ROLLOUT), [images.numpy()] if encoding else [x.numpy() for x in arguments]
    one = session(file, config.threads)
    named = dict(zip((i.name for i in one.get_inputs()), inputs, strict=True))
    engines[ONNX] = lambda: one.run(None, named)
    if find_spec("openvino"):
        engines |= {f"openvino {kind}": _of_openvino(file, kind, config.threads, inputs) for kind in ("float32", "bfloat16")}
    return engines


def _of_torch(run: Run) -> Run:
    def call() -> object:
        with torch.inference_mode():
            return run()

    return call


def _plan(model: WorldModel) -> Run:
    """One plan towards a place, as `bench planner` times it."""
    profile = load_profile(model.contract.robot)
    planner = Planner(model, profile, PlannerConfig(deadline_s=float("inf")))
    middle = (profile.workspace_min + profile.workspace_max) / 2
    proprio = np.concatenate([profile.home, middle, np.zeros(3)]).astype(np.float32)
    belief = Belief(0.0, model.model_id, np.zeros(model.config.latent, np.float32), proprio, float("nan"))
    generator, goal, start = torch.Generator().manual_seed(0), Goal(tip=middle + 0.1), Start(np.zeros(3))
    return lambda: planner.plan(belief, goal, start, generator, time.perf_counter)


def _of_openvino(file: Path, kind: str, threads: int, inputs: list) -> Run:
    import openvino

    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    precision = {"float32": "f32", "bfloat16": "bf16"}[kind]
    compiled = openvino.Core().compile_model(str(file), "CPU", {**hints, "INFERENCE_PRECISION_HINT": precision})
    return lambda: compiled(inputs)


def summary(found: dict[str, Any]) -> str:
    """The figures for people: times, and the speed as a share of torch's."""
    times = lambda ratio, what: "" if ratio is None else f"{ratio:>8.2f} of {what}"  # noqa: E731
    return "\n".join(
        f"{row['part']:<8} {row['rows']:>3} rows  {row['engine']:<20}{1e3 * row['median_s']:>8.2f} ms"
        f"{times(row['of_float32'], FLOAT32)}{times(row['of_bfloat16'], BFLOAT16)}{times(row['of_as_run'], AS_RUN)}"
        for row in found["rows"]
    )
