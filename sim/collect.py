"""Collects play episodes into one HDF5 file: one simulator process per core, resumable, complete or absent.

Layout: a flat dataset per column, `ep_len` and `ep_offset`, as stable-worldmodel has it, with checksums. Columns:
`pixels_<camera>` uint8 (T, h, w, 3), prepared as in operation; `q`, `dq`, `tip`, `tip_velocity`, `action` (tip displacement of
the step that leaves the row, NaN at an episode's end), `object` (true position and quaternion), `step_idx`. Attributes:
contract, seed, robot.
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
from foresight.workers import deaf_to_interrupts

SHARD_EPISODES = 25
CHUNK_ROWS = 60  # of a column that share a checksum
LAYOUT = ("v110", "v110")  # of HDF5: the first with checksums over its own bookkeeping
SEED_SPACE = 1_000_000_000  # episode seeds of collection start here; evaluation draws below it
SHARDS, MARKER = "??????-??????.h5", "config.json"  # in the folder of an unfinished collection


@dataclass(frozen=True)
class CollectConfig:
    """What to collect and where to put it."""

    out: Path = Path("data/ur5e_play.h5")  # file to write
    episodes: int = 2400  # episodes of play
    steps: int = 60  # steps of 0.1 s per episode
    seed: int = 0  # episodes of different seeds differ
    jobs: int = os.cpu_count() or 1  # simulator processes
    robot: str = "ur5e"  # robot profile
    overwrite: bool = False  # replace a file at --out that is not this very dataset

    def __post_init__(self) -> None:
        for name, low, high in (("seed", 0, 2**31), ("episodes", 1, 1_000_000), ("steps", 1, 10_000), ("jobs", 1, 256)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"--{name} must lie between {low} and {high}, got {getattr(self, name)}.")


def collect(config: CollectConfig, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Writes the dataset; `progress(episodes done, of)` is called as shards finish. Finished shards are kept when interrupted.

    Where this dataset is there already, nothing is done; another file is replaced only where `overwrite` says so.
    """
    from sim.scenes import check_robot

    check_robot(load_profile(config.robot))
    if not config.overwrite and config.out.exists():
        _check_same(config)
        progress(config.episodes, config.episodes)
        return config.out
    shards = [range(a, min(a + SHARD_EPISODES, config.episodes)) for a in range(0, config.episodes, SHARD_EPISODES)]
    folder = _own_folder(config)
    paths = [folder / f"{s.start:06d}-{s.stop:06d}.h5" for s in shards]
    todo = [(config, s, p) for s, p in zip(shards, paths, strict=True) if not p.exists()]
    done = config.episodes - sum(len(s) for _, s, _ in todo)
    progress(done, config.episodes)
    if todo:
        with deaf_to_interrupts():
            workers = multiprocessing.get_context("spawn").Pool(min(config.jobs, len(todo)))
        with workers as pool:
            for count in pool.imap_unordered(_collect_shard, todo):
                done += count
                progress(done, config.episodes)
    _merge(paths, config.out, config)
    for path in (*folder.glob(SHARDS), folder / MARKER):
        path.unlink()
    folder.rmdir()
    return config.out


def _check_same(config: CollectConfig) -> None:
    """Raises ValueError when the file at `out` is not the dataset that this configuration makes."""
    wanted = {"robot": config.robot, "seed": config.seed, "episodes": config.episodes, "steps": config.steps}
    try:
        with h5py.File(config.out) as file:
            lengths = file["ep_len"][:]
            found = {"robot": file.attrs["robot"], "seed": int(file.attrs["seed"]), "episodes": len(lengths)}
            found["steps"] = int(lengths[0]) if len(set(lengths)) == 1 else "of several lengths"
    except (OSError, KeyError, ValueError, TypeError) as error:
        found = f"no readable dataset of Foresight ({' '.join(str(error).split())})"
    if found != wanted:
        there, here = (
            ", ".join(f"{name} {value}" for name, value in of.items()) if isinstance(of, dict) else of for of in (found, wanted)
        )
        raise ValueError(
            f"--out: {config.out} exists: {there}. This would be: {here}. Give another name, or --overwrite to replace it."
        )


def _own_folder(config: CollectConfig) -> Path:
    """The folder for the parts, with the settings in it. Raises ValueError where it holds something else."""
    folder = config.out.with_name(config.out.stem + ".parts")
    settings = {k: str(v) for k, v in asdict(config).items() if k not in ("out", "jobs", "episodes", "overwrite")}
    marker, what = folder / MARKER, ""
    if folder == config.out or (folder.exists() and not folder.is_dir()):
        what = "is no folder for the parts"
    elif marker.is_file() and marker.read_text() != json.dumps(settings):
        what = f"holds parts of another collection {marker.read_text()}, this one is {json.dumps(settings)}"
    elif folder.is_dir() and (others := {p.name for p in folder.iterdir()} - {p.name for p in folder.glob(SHARDS)} - {MARKER}):
        what = f"holds what is no part of a collection ({', '.join(sorted(others)[:3])})"
    if what:
        raise ValueError(f"{folder} {what}. Delete it or choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(settings))
    return folder


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
    from sim.scenes import contract
    from sim.tasks import draw
    from sim.variation import PLAIN

    profile, kinematics = simulation.profile, simulation.kinematics
    cameras = contract(profile).cameras
    simulation.place(draw("reach", rng))
    player = Player(rng)
    columns: dict[str, list] = {
        k: [] for k in ("q", "dq", "tip", "tip_velocity", "object", *(f"pixels_{c.name}" for c in cameras))
    }
    in_force = None
    for _ in range(steps):
        simulation.look_like(PLAIN.frame(rng))
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
        with h5py.File(partial, "w", libver=LAYOUT) as file:
            for name, value in (*columns.items(), *_episodes(lengths)):
                _column(file, name, value.shape, value.dtype)[:] = value

    write_atomically(path, fill)


def _merge(paths: list[Path], out: Path, config: CollectConfig) -> None:
    """Streams the shards into one file."""
    from sim.scenes import contract

    def fill(partial: Path) -> None:
        with h5py.File(partial, "w", libver=LAYOUT) as merged:
            lengths = np.concatenate([_read(path, ("ep_len",))["ep_len"] for path in paths])
            for name, value in _episodes(lengths):
                _column(merged, name, value.shape, value.dtype)[:] = value
            merged.attrs["contract"] = json.dumps(contract(load_profile(config.robot)).to_json())
            merged.attrs["seed"], merged.attrs["robot"] = config.seed, config.robot
            offset = 0
            for path in paths:
                shard = _read(path)
                for name, value in ((n, v) for n, v in shard.items() if not n.startswith("ep_")):
                    if name not in merged:
                        _column(merged, name, (int(lengths.sum()), *value.shape[1:]), value.dtype)
                    merged[name][offset : offset + len(value)] = value
                offset += int(shard["ep_len"].sum())

    write_atomically(out, fill)


def _episodes(lengths: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [("ep_len", lengths), ("ep_offset", np.concatenate([[0], np.cumsum(lengths)[:-1]]))]


def _column(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype) -> h5py.Dataset:
    return file.create_dataset(name, shape, dtype, chunks=(min(CHUNK_ROWS, shape[0]), *shape[1:]), fletcher32=True)


def _read(path: Path, names: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The columns of a part; ValueError with what to do where its bytes are damaged."""
    try:
        with h5py.File(path) as file:
            return {name: file[name][:] for name in names or file}
    except (OSError, KeyError) as error:
        raise ValueError(f"Part {path} is damaged ({error}). Delete it and run the same command again.") from error
