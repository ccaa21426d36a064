"""Collects play episodes into one HDF5 file: one simulator process per core, resumable, complete or absent.

Layout: a flat dataset per column, `ep_len` and `ep_offset`, as stable-worldmodel has it. Columns: `pixels_<camera>`
uint8 (T, h, w, 3), prepared as in operation; `q`, `dq`, `tip`, `tip_velocity`, `action` (tip displacement of the step that
leaves the row, NaN at an episode's end), `object` (true position and quaternion), `step_idx`. Attributes: contract, seed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

from foresight.files import write_atomically
from foresight.robots.profile import load_profile

SHARD_EPISODES = 25
SEED_SPACE = 1_000_000_000  # episode seeds of collection start here; evaluation draws below it
NOMINAL_SHARE = 0.4  # of the frames; the others are drawn from the randomised family, frame by frame


@dataclass(frozen=True)
class CollectConfig:
    """What to collect and where to put it."""

    out: Path = Path("data/ur5e_play.h5")  # file to write
    episodes: int = 2400  # episodes of play
    steps: int = 60  # steps of 0.1 s per episode
    seed: int = 0  # episodes of different seeds differ
    jobs: int = os.cpu_count() or 1  # simulator processes
    robot: str = "ur5e"  # robot profile

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}.")
        for name in ("episodes", "steps", "jobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")


def collect(config: CollectConfig, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Writes the dataset; `progress(episodes done, of)` is called as shards finish. Finished shards are kept when interrupted."""
    shards = [range(a, min(a + SHARD_EPISODES, config.episodes)) for a in range(0, config.episodes, SHARD_EPISODES)]
    load_profile(config.robot)  # a wrong name is told before anything is written
    folder = config.out.with_suffix(".parts")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {k: str(v) for k, v in asdict(config).items() if k not in ("out", "jobs", "episodes")}
    marker = folder / "config.json"
    if marker.exists() and json.loads(marker.read_text()) != settings:
        raise ValueError(
            f"{folder} holds parts of another collection {marker.read_text()}, this one is {json.dumps(settings)}. "
            "Delete the folder or choose another --out."
        )
    marker.write_text(json.dumps(settings))
    paths = [folder / f"{s.start:06d}-{s.stop:06d}.h5" for s in shards]
    todo = [(config, s, p) for s, p in zip(shards, paths, strict=True) if not p.exists()]
    done = config.episodes - sum(len(s) for _, s, _ in todo)
    progress(done, config.episodes)
    if todo:
        with multiprocessing.get_context("spawn").Pool(min(config.jobs, len(todo)), initializer=_quiet) as pool:
            for count in pool.imap_unordered(_collect_shard, todo):
                done += count
                progress(done, config.episodes)
    _merge(paths, config.out, config)
    for path in paths:
        path.unlink()
    marker.unlink()
    folder.rmdir()
    return config.out


def _quiet() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool


_worker = None  # one simulation per process: building it takes a second


def _collect_shard(work: tuple[CollectConfig, range, Path]) -> int:
    global _worker
    config, episodes, path = work
    from sim.simulation import Simulation

    if _worker is None:
        _worker = Simulation(0, load_profile(config.robot))
    rows = [collect_episode(_worker, np.random.default_rng([SEED_SPACE + config.seed, e]), config.steps) for e in episodes]
    _write(path, {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}, np.array([config.steps] * len(rows)))
    return len(rows)


def collect_episode(simulation, rng: np.random.Generator, steps: int) -> dict[str, np.ndarray]:
    """One episode as columns of `steps` rows."""
    from foresight.control.motion import joint_trajectory
    from foresight.data import Plan
    from foresight.perception.prepare import prepare
    from sim.experts import Player
    from sim.scenes import Appearance, contract, random_appearance
    from sim.tasks import draw

    profile, kinematics = simulation.profile, simulation.kinematics
    cameras = contract(profile).cameras
    simulation.place(draw("reach", rng))
    player = Player(rng)
    columns: dict[str, list] = {
        k: [] for k in ("q", "dq", "tip", "tip_velocity", "object", *(f"pixels_{c.name}" for c in cameras))
    }
    in_force = None
    for _ in range(steps):
        simulation.look_like(Appearance() if rng.random() < NOMINAL_SHARE else random_appearance(rng))
        images, state, truth = simulation.images(), simulation.state(), simulation.truth()
        for camera in cameras:
            columns[f"pixels_{camera.name}"].append(prepare(images[camera.name], camera))
        columns["q"].append(state.q)
        columns["dq"].append(state.dq)
        columns["tip"].append(kinematics.tip(state.q))
        columns["tip_velocity"].append(kinematics.tip_velocity(state.q, state.dq))
        columns["object"].append(np.concatenate([truth.object, truth.object_quaternion]))
        now, step = simulation.time_s, contract(profile).step_s
        knot = player.velocity(truth.tip, truth.object)[None]
        plan = Plan(now, "", step, knot, 0.0, {}, 0.0, np.zeros((1, 1), np.float32), 1, 0.0, "script")
        in_force = joint_trajectory(plan, in_force, state, now, kinematics, profile)
        simulation.command(in_force)
        simulation.advance(step)
    out = {k: np.stack(v) if k.startswith("pixels") else np.stack(v).astype(np.float32) for k, v in columns.items()}
    out["action"] = np.concatenate([np.diff(out["tip"], axis=0), np.full((1, 3), np.nan, np.float32)])
    out["step_idx"] = np.arange(steps)
    return out


def _write(path: Path, columns: dict[str, np.ndarray], lengths: np.ndarray) -> None:
    def fill(partial: Path) -> None:
        with h5py.File(partial, "w") as file:
            for name, value in columns.items():
                file.create_dataset(name, data=value)
            file["ep_len"], file["ep_offset"] = lengths, np.concatenate([[0], np.cumsum(lengths)[:-1]])

    write_atomically(path, fill)


def _merge(paths: list[Path], out: Path, config: CollectConfig) -> None:
    """Streams the shards into one file."""
    from sim.scenes import contract

    def fill(partial: Path) -> None:
        with h5py.File(partial, "w") as merged:
            lengths = np.concatenate([h5py.File(p)["ep_len"][:] for p in paths])
            merged["ep_len"], merged["ep_offset"] = lengths, np.concatenate([[0], np.cumsum(lengths)[:-1]])
            merged.attrs["contract"] = json.dumps(contract(load_profile(config.robot)).to_json())
            merged.attrs["seed"], merged.attrs["robot"] = config.seed, config.robot
            offset = 0
            for path in paths:
                with h5py.File(path) as shard:
                    for name in (n for n in shard if not n.startswith("ep_")):
                        value = shard[name][:]
                        if name not in merged:
                            merged.create_dataset(name, (int(lengths.sum()), *value.shape[1:]), value.dtype)
                        merged[name][offset : offset + len(value)] = value
                    offset += int(shard["ep_len"][:].sum())

    write_atomically(out, fill)
