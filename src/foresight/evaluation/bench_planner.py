"""Times planning on this machine: at LeWorldModel's sizes, beside a peer in the same run, and with the model shipped.

    foresight bench planner --json F [--peer-python PATH] [--device cuda]

A plan here is all of it: both images encoded, the context, every round of the search. Weights are random: time does not
depend on them, and no success is measured. Ours and the peer's plans alternate, so that both meet the same load; the ratio is
that of the fastest plans; those of the medians and of the processor time stand beside it. On a busy machine threads that wait
for each other lose most, which the peer's do at every layer: one thread (--threads 1) and processor time tell the least
doubtful ratio there. On a GPU ours are recorded as CUDA graphs before they are timed, and the processor time says little.
On a CPU ours run in each kind of number that it has instructions for, which for eight bits and bfloat16 is AVX-512; the peer's
is float32. Curves of one rollout's time are drawn beside F.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch

from foresight.data import Belief, Goal, Start
from foresight.evaluation.latent_planning import LatentPlanning, Search
from foresight.evaluation.peer import Peer, Took
from foresight.evaluation.results import git_commit, machine
from foresight.files import write_atomically
from foresight.planning.config import PlannerConfig
from foresight.planning.planner import Planner
from foresight.robots.profile import load_profile
from foresight.world_model import checkpoint
from foresight.world_model.eight_bits import multiplies_eight_bits
from foresight.world_model.fused import FusedRollout
from foresight.world_model.rollout import compiled, multiplies_bfloat16
from foresight.world_model.transformer import TransformerConfig

CASES = (
    # name, what we search, what the peer searches
    ("cem 300x30", Search(300, 30), (300, 30)),
    ("cem 300x10", Search(300, 10), (300, 10)),
    ("cem 128x3 + actor, peer 300x30", Search(128, 3, actor=True), (300, 30)),
)
KINDS: dict[str, dict[str, dict[str, Any]]] = {  # of ours, by device: what `LatentPlanning` is made with
    "cpu": {name: {"dtype": getattr(torch, name)} for name in ("int8", "bfloat16", "float32")},
    "cuda": {
        "bfloat16, fused": {"dtype": torch.bfloat16, "rollouts": FusedRollout},
        "bfloat16, compiled": {"dtype": torch.bfloat16, "compile": compiled},
        "bfloat16": {"dtype": torch.bfloat16},
        "float32": {"dtype": torch.float32},
    },
}
INSTRUCTIONS: dict[str, Callable[[], bool]] = {"int8": multiplies_eight_bits, "bfloat16": multiplies_bfloat16}  # of a CPU
QUALITY_SEARCH, QUALITY_SEEDS = Search(300, 10), 3  # in which the kinds' plans are compared
ARM_PLANS = 20
CURVE_REPEATS = 5
CURVES: dict[str, tuple[int, ...]] = {
    "samples": (32, 64, 128, 256, 512),
    "horizon": (1, 2, 3, 5, 8, 10),
    "history": (1, 2, 3, 4, 6),
    "robots": (1, 2, 4, 8),
}
CURVE_AT = {"samples": 128, "horizon": 5, "history": 1, "robots": 1}  # what the other three are in each curve


@dataclass(frozen=True)
class BenchPlannerConfig:
    """What to time, how often and where to write it."""

    json: Path = Path("runs/bench/planner.json")
    """File for the figures; curves are drawn beside it, with the ending .png."""
    peer_python: Path | None = None
    """Python of an environment with stable-worldmodel 0.1.1, whose CEM is then timed in the same run."""
    threads: int = len(os.sched_getaffinity(0))
    """Threads for ours and for the peer's; by default every core that this process may use."""
    repeats: int = 3
    """Plans of each kind; the fastest and the median count."""
    limit_s: float = 480.0
    """After this many seconds [s] no plan is repeated; each kind is timed at least once."""
    checkpoint: Path = Path("models/ur5e")
    """Model of an arm whose planning is timed too."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where ours and the peer's plans are made."""

    def __post_init__(self) -> None:
        for name, most in (("threads", 256), ("repeats", 10_000), ("limit_s", 86_400)):
            if not 0 < getattr(self, name) <= most:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0 and at most {most}, got {getattr(self, name)}.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: no GPU can be seen by this torch. Leave --device out to time the processor.")
        if self.json.suffix == ".png":
            raise ValueError(f"--json: {self.json} is the name of the picture beside it. Give a name that ends in .json.")


def bench(
    config: BenchPlannerConfig, say: Callable[[str], None] = lambda line: None, sizes: TransformerConfig = TransformerConfig()
) -> dict:
    """Every figure, as F holds it. `sizes` other than the published ones are for tests."""
    began_s, load = time.perf_counter(), os.getloadavg()[0]
    # Candidates are split over threads, with one thread of torch in each: none waits for another at every layer.
    with _threads_of_torch(1), ThreadPoolExecutor(config.threads) as executor:
        shards = config.threads if config.device == "cpu" else 1
        plannings = {
            name: LatentPlanning(sizes, executor=executor, shards=shards, device=config.device, **kind)
            for name, kind in _kinds(config.device, say).items()
        }
        with Peer(config.peer_python, config.threads, config.device) if config.peer_python else nullcontext() as peer:
            rows = _rows(config, plannings, peer, began_s, say)
            loaded = peer.loaded if peer else None
        quality = _quality(plannings, say)
        curves = _curves(plannings.get("bfloat16, fused", plannings.get("bfloat16", plannings["float32"])), say)
    arm_rows = _arm_rows(config)
    for row in arm_rows:
        say(f"{row['name']}: {1e3 * row['ours_median_s']:.1f} ms (median)")
    return {
        "machine": asdict(machine()),
        "threads": config.threads,
        "device": "cpu" if config.device == "cpu" else torch.cuda.get_device_name(),
        "commit": git_commit(),
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "parameters": plannings["float32"].parameters,
        "peer": loaded,
        "measured": "Wall time of a whole plan, both images encoded. ours_s, peer_s: fastest of the repeats, alternating.",
        "rows": rows + arm_rows,
        "quality": quality,
        "curves": curves,
        "took_s": time.perf_counter() - began_s,
    }


def write(path: Path, figures: dict) -> tuple[Path, Path]:
    """F and the picture of the curves beside it."""
    picture = path.with_suffix(".png")
    write_atomically(path, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    write_atomically(picture, lambda file: _draw(figures["curves"], file))
    return path, picture


def _kinds(device: str, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Those of KINDS that this machine multiplies in reasonable time; what is left out is said."""
    slow = [name for name, fast in INSTRUCTIONS.items() if device == "cpu" and not fast()]
    if slow:
        say(f"without {' and '.join(slow)}: this CPU has no instructions for {'them' if len(slow) > 1 else 'it'}")
    return {name: kind for name, kind in KINDS[device].items() if name not in slow}


def _rows(config: BenchPlannerConfig, plannings, peer: Peer | None, began_s: float, say) -> list[dict]:
    """Ours and the peer's plans in turn. The peer's time of a search is measured once a turn and used by every row with it."""
    ours: dict[tuple[str, str], list[Took]] = {}
    theirs: dict[tuple[int, int], list[Took]] = {}
    if peer:
        peer.plan(16, 2, CURVE_AT["horizon"])  # the first plan of a process is slower
    for planning in plannings.values():  # the first plan of its shapes is slower, where graphs are recorded much slower
        for search in [search for _, search, _ in CASES] if config.device != "cpu" else [Search(16, 2, actor=True)]:
            planning.plan(search)
    for turn in range(config.repeats):
        for name, search, peer_search in CASES:
            if turn and time.perf_counter() - began_s > config.limit_s:
                break
            if peer and len(theirs.get(peer_search, ())) <= turn:
                theirs.setdefault(peer_search, []).append(peer.plan(*peer_search, CURVE_AT["horizon"]))
            for kind, planning in plannings.items():
                ours.setdefault((name, kind), []).append(planning.plan(search))
    rows = [
        _row(f"{name}, {kind}", ours[name, kind], theirs.get(peer_search), search, kind.split(",")[0], peer_search, config.device)
        for name, search, peer_search in CASES
        for kind in plannings
    ]
    for row in rows:
        beside = f", peer {row['peer_s']:.2f} s, {row['ratio']:.1f} times" if row["ratio"] else ""
        say(f"{row['name']}: {row['ours_s']:.3f} s{beside}")
    return rows


def _quality(plannings: dict[str, LatentPlanning], say) -> dict[str, float]:
    """How much of what float32's plans gain over standing still each kind's gain, all as float32 foresees them; the mean."""
    judge = plannings["float32"]
    found = {name: torch.stack([p.found(QUALITY_SEARCH, seed) for seed in range(QUALITY_SEEDS)]) for name, p in plannings.items()}
    still = judge.costs(torch.zeros_like(found["float32"][:1]))
    gained = {name: float((still - judge.costs(plans)).mean()) for name, plans in found.items()}
    shares = {name: gain / gained["float32"] for name, gain in gained.items()}
    for name, share in shares.items():
        say(f"plans of {name} gain {share:.3f} of what those of float32 gain, as float32 foresees it")
    return shares


def _row(
    name: str, ours: list[Took], theirs: list[Took] | None, search: Search, dtype: str, peer_search: tuple[int, int], device: str
) -> dict:
    quick, middle, cpu = ((_of(kind, ours), theirs and _of(kind, theirs)) for kind in ("quick", "middle", "cpu"))
    ratio = lambda pair: pair[1] / pair[0] if theirs else None  # noqa: E731
    return {
        "name": name,
        "ours_s": quick[0],
        "peer_s": quick[1],
        "ratio": ratio(quick),
        "samples": search.samples,
        "iterations": search.iterations,
        "horizon": search.horizon,
        "dtype": dtype,
        "device": device,
        "ours_median_s": middle[0],
        "peer_median_s": middle[1],
        "ratio_of_medians": ratio(middle),
        "ours_cpu_s": cpu[0],
        "peer_cpu_s": cpu[1],
        "ratio_of_cpu": ratio(cpu),
        "ours_all_s": [took.s for took in ours],
        "peer_all_s": theirs and [took.s for took in theirs],
        "peer_samples": peer_search[0] if theirs else None,
        "peer_iterations": peer_search[1] if theirs else None,
    }


def _of(kind: str, times: list[Took]) -> float:
    """Of several plans: the quickest, the one in the middle, or the least processor time [s]."""
    if kind == "cpu":
        return min(took.cpu_s for took in times)
    return min(took.s for took in times) if kind == "quick" else median(took.s for took in times)


def _arm_rows(config: BenchPlannerConfig) -> list[dict]:
    """Plans of the shipped arm model, as the planner node makes them but without a deadline."""
    model = checkpoint.load_for_planning(config.checkpoint, config.device)
    profile = load_profile(model.contract.robot)
    wanted = [("both", threads) for threads in sorted({1, config.threads})] + [("search", 1), ("actor", 1)]
    return [_arm_row(model, profile, policy, threads, config.device) for policy, threads in wanted]


def _arm_row(model, profile, policy, threads: int, device: str) -> dict:
    search = PlannerConfig(policy=policy, deadline_s=float("inf"))
    planner, middle = Planner(model, profile, search), (profile.workspace_min + profile.workspace_max) / 2
    proprio = np.concatenate([profile.home, middle, np.zeros(3)]).astype(np.float32)
    belief = Belief(0.0, model.model_id, np.zeros(model.config.latent, np.float32), proprio, float("nan"))
    generator, times = torch.Generator().manual_seed(0), []
    with _threads_of_torch(threads):
        for _ in range(ARM_PLANS + 3):
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            plan = planner.plan(belief, Goal(tip=middle + 0.1), Start(np.zeros(3)), generator, time.perf_counter)
            times.append(Took(time.perf_counter() - began_s, time.process_time() - began_cpu_s))
    rounds = {"both": search.iterations, "search": search.search_iterations, "actor": 0}[policy]
    name = f"shipped arm model, {policy}, {threads} {'thread' if threads == 1 else 'threads'} of torch"
    return _row(name, times[3:], None, Search(plan.candidates, rounds, search.horizon), "float32", (0, 0), device)


def _curves(planning: LatentPlanning, say) -> dict[str, dict]:
    """Time of one rollout against each of samples, horizon, history and robots, and how well a line fits."""
    curves = {}
    for name, values in CURVES.items():
        took_s = [min(planning.rollout_s(**{**CURVE_AT, name: value}) for _ in range(CURVE_REPEATS)) for value in values]
        slope, offset = np.polyfit(values, took_s, 1)
        residual = np.square(np.polyval((slope, offset), values) - took_s).sum()
        r2 = 1 - residual / max(np.square(took_s - np.mean(took_s)).sum(), 1e-30)
        curves[name] = {"x": list(values), "s": took_s, "slope_s": float(slope), "offset_s": float(offset), "r2": float(r2)}
        say(f"one rollout against {name}: {1e3 * offset:.1f} ms + {1e3 * slope:.2f} ms each, r2 {r2:.3f}")
    return curves


def _draw(curves: dict[str, dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3), layout="constrained")
    for axes, (name, curve) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        x = np.array(curve["x"])
        axes.plot(x, 1e3 * np.array(curve["s"]), "o")
        axes.plot(x, 1e3 * (curve["offset_s"] + curve["slope_s"] * x), "-", linewidth=1)
        others = ", ".join(f"{key} {value}" for key, value in CURVE_AT.items() if key != name)
        axes.set(xlabel=name, ylabel="one rollout [ms]", ylim=(0, None))
        axes.set_title(f"{others}\nr2 of the line {curve['r2']:.3f}", fontsize=8)
    figure.savefig(path, dpi=110)


@contextmanager
def _threads_of_torch(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
