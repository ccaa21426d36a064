"""Collects scripted episodes into one HDF5 file: one simulator process per core, resumable, complete or absent.

The processes are this machine's, or those of a Ray cluster (`sim/cluster.py`): the episodes are the same, whoever makes them.

Layout: a flat dataset per column, `ep_len` and `ep_offset`, as stable-worldmodel has it, with checksums. Columns:
`pixels_<camera>` uint8 (T, h, w, 3), prepared as in operation; `q`, `dq`, `tip`, `tip_velocity`, `action` (tip displacement of
the step that leaves the row, NaN at an episode's end), `object` (true position and quaternion), `contact` (whether the hand
touches it), `step_idx`; `look` and `body` (what of the family was drawn for the frame and for the episode; names in the
attributes `look_names`, `body_names`). Tasks with the gripper also have `gripper` (command of the step that leaves the row, 0
open, 1 closed), `opening` (measured, 1 open) and `others` (true poses of two more objects, NaN where there is none). Attributes:
contract, seed, robot, task, family.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import h5py
import numpy as np

from foresight.data import Grip
from foresight.files import write_atomically
from foresight.robots.profile import load_profile
from foresight.safety.grip import GripLimit
from foresight.workers import deaf_to_interrupts
from sim import cluster

if TYPE_CHECKING:
    from sim.variation import Family

SHARD_EPISODES = 25
CHUNK_ROWS = 60  # of a column that share a checksum
LAYOUT = ("v110", "v110")  # of HDF5: the first with checksums over its own bookkeeping
SEED_SPACE = 1_000_000_000  # episode seeds of collection start here; evaluation draws below it
SHARDS, MARKER = "??????-??????.h5", "config.json"  # in the folder of an unfinished collection
BODY_NAMES = ("half_m", "mass_kg", "friction", "latency_s")
MIXED = {"play": 0.5, "pick": 0.3, "clutter": 0.2}  # shares of the episodes of `mixed`
NUMBERS = 80  # at most, besides the pictures, in a row
KILLED = (
    "A simulator process was killed, by somebody or for want of memory. The finished parts are kept: run the same command again, "
    "with fewer --jobs if memory was short."
)


class CollectError(RuntimeError):
    """The collection could not go on; the message says why, and what to do."""


@dataclass(frozen=True)
class CollectConfig:
    """What to collect and where to put it."""

    out: Path = Path("data/ur5e_play.h5")  # file to write
    task: Literal["play", "pick", "clutter", "mixed"] = "play"  # reach and push; pick and place; one named of three; all of these
    family: Literal["plain", "wide", "shadows"] = "plain"  # plain: colours, light, cameras; wide: textures, bodies, noise too
    episodes: int = 2400  # episodes to collect
    steps: int = 60  # steps of 0.1 s per episode
    seed: int = 0  # episodes of different seeds differ
    jobs: int = os.cpu_count() or 1  # simulator processes on this machine
    ray: str | None = None  # simulate on a Ray cluster: HOST:PORT of its head, or local: a new one here, of --jobs CPUs
    robot: str = "ur5e"  # robot profile
    overwrite: bool = False  # replace a file at --out that is not this very dataset

    def __post_init__(self) -> None:
        for name, low, high in (("seed", 0, 2**31), ("episodes", 1, 1_000_000), ("steps", 1, 10_000), ("jobs", 1, 256)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"--{name} must lie between {low} and {high}, got {getattr(self, name)}.")
        if self.ray is not None:
            cluster.check_address(self.ray)


def collect(config: CollectConfig, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Writes the dataset; `progress(episodes done, of)` is called as shards finish. Finished shards are kept when interrupted.

    Where this dataset is there already, nothing is done; another file is replaced only where `overwrite` says so.
    """
    from sim.scenes import check_robot

    profile = load_profile(config.robot)
    check_robot(profile)
    if config.task != "play":
        profile.gripper_moved()
    if config.ray:
        cluster.check_reachable(config.ray)
    if not config.overwrite and config.out.exists():
        _check_same(config)
        progress(config.episodes, config.episodes)
        return config.out
    shards = [range(a, min(a + SHARD_EPISODES, config.episodes)) for a in range(0, config.episodes, SHARD_EPISODES)]
    parts = config.out.with_name(config.out.stem + ".parts")
    paths = [parts / f"{s.start:06d}-{s.stop:06d}.h5" for s in shards]
    _check_space(config, sum(len(s) for s, p in zip(shards, paths, strict=True) if p.exists()))
    with _own_folder(config, parts):
        todo = [(config, s, p) for s, p in zip(shards, paths, strict=True) if not p.exists()]
        done = config.episodes - sum(len(s) for _, s, _ in todo)
        progress(done, config.episodes)
        with closing(_work_on_ray(todo, config) if config.ray else _work(todo, config.jobs)) as made:
            for count in made:
                done += count
                progress(done, config.episodes)
        _merge(paths, config.out, config)
        for path in (*parts.glob(SHARDS), parts / MARKER):
            path.unlink()
    parts.rmdir()
    return config.out


def _work(todo: list[tuple[CollectConfig, range, Path]], jobs: int) -> Iterator[int]:
    """Makes the parts in processes; how many episodes each part has, as it is finished. CollectError: a process died."""
    if not todo:
        return
    pool = ProcessPoolExecutor(min(jobs, len(todo)), get_context("spawn"))
    try:
        with deaf_to_interrupts():
            waiting = [pool.submit(_collect_shard, work) for work in todo]
        for future in as_completed(waiting):
            yield future.result()
    except BaseException as error:  # Ctrl-C too: the parts still being made are worth nothing
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in active_children():
            worker.terminate()
        if isinstance(error, BrokenProcessPool):
            raise CollectError(KILLED) from error
        raise
    pool.shutdown()


def _work_on_ray(todo: list[tuple[CollectConfig, range, Path]], config: CollectConfig) -> Iterator[int]:
    """As `_work`, on the machines of a Ray cluster: they send columns, and this process alone writes the parts."""
    if not todo:
        return
    paths = {episodes: path for _, episodes, path in todo}
    calls = [(config, episodes) for _, episodes, _ in todo]
    try:
        with closing(cluster.run(config.ray, config.jobs, _columns_drawn_here, calls)) as made:
            for (_, episodes), columns in made:
                _write(paths[episodes], columns, _lengths(config, episodes))
                yield len(episodes)
    except cluster.LostWorkerError as error:
        raise CollectError(KILLED) from error


def _check_space(config: CollectConfig, done: int) -> None:
    """Raises OSError (ENOSPC) where the disk has no room for the parts still to come and the file made of all."""
    from sim.scenes import CAMERAS, MODEL_SIZE

    row = len(CAMERAS) * 3 * MODEL_SIZE**2 + 4 * NUMBERS
    needed, left = row * config.steps * (2 * config.episodes - done), os.statvfs(_existing(config.out.parent))
    if left.f_bavail * left.f_frsize < needed:
        raise OSError(
            errno.ENOSPC,
            os.strerror(errno.ENOSPC),
            f"{config.out} and its parts need {needed / 2**30:.1f} GiB, {left.f_bavail * left.f_frsize / 2**30:.1f} are free",
        )


def _check_same(config: CollectConfig) -> None:
    """Raises ValueError when the file at `out` is not the dataset that this configuration makes."""
    wanted = {name: getattr(config, name) for name in ("robot", "seed", "episodes", "steps", "task", "family")}
    try:
        with h5py.File(config.out) as file:
            lengths = file["ep_len"][:]
            found = {"robot": file.attrs["robot"], "seed": int(file.attrs["seed"]), "episodes": len(lengths)}
            found["steps"] = int(lengths[0]) if len(set(lengths)) == 1 else "of several lengths"
            found |= {"task": file.attrs.get("task", "play"), "family": json.loads(file.attrs.get("family", PLAIN_NAME))["name"]}
    except (OSError, KeyError, ValueError, TypeError) as error:
        found = f"no readable dataset of Foresight ({' '.join(str(error).split())})"
    if found != wanted:
        there, here = (
            ", ".join(f"{name} {value}" for name, value in of.items()) if isinstance(of, dict) else of for of in (found, wanted)
        )
        raise ValueError(
            f"--out: {config.out} exists: {there}. This would be: {here}. Give another name, or --overwrite to replace it."
        )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return folder if folder.exists() or folder == folder.parent else _existing(folder.parent)


@contextmanager
def _own_folder(config: CollectConfig, folder: Path) -> Iterator[None]:
    """The folder for the parts, with the settings in it, and nobody else's meanwhile.

    Raises ValueError where it holds something else, or where another collection is at work there.
    """
    settings = {k: str(v) for k, v in asdict(config).items() if k not in ("out", "jobs", "ray", "episodes", "overwrite")}
    for name, plain in (("task", "play"), ("family", "plain")):  # which older collections do not tell
        if settings[name] == plain:
            del settings[name]
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
    with open(marker, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder} is in use by another collection. Wait for it, or choose another --out.") from None
        if not lock.tell():
            lock.write(json.dumps(settings))
            lock.flush()
        yield


PLAIN_NAME = '{"name": "plain"}'  # of files from before families were told
_worker = None  # one simulation per process: building it takes a second


def _collect_shard(work: tuple[CollectConfig, range, Path]) -> int:
    config, episodes, path = work
    _write(path, _columns(config, episodes), _lengths(config, episodes))
    return len(episodes)


def _columns_drawn_here(config: CollectConfig, episodes: range) -> dict[str, np.ndarray]:
    """`_columns` in a process that this one has not prepared for drawing."""
    from sim.rendering import prepare_rendering

    if _worker is None:
        prepare_rendering()
    return _columns(config, episodes)


def _columns(config: CollectConfig, episodes: range) -> dict[str, np.ndarray]:
    """The episodes of a part, one after the other."""
    global _worker
    from sim.simulation import Simulation
    from sim.variation import FAMILIES

    family = FAMILIES[config.family]
    if _worker is None:
        others = 2 if family.others or config.task in ("clutter", "mixed") else 0
        _worker = Simulation(0, load_profile(config.robot), others=others)
        _worker.judging = False
    rows = [
        collect_episode(_worker, np.random.default_rng([SEED_SPACE + config.seed, episode]), config.steps, config.task, family)
        for episode in episodes
    ]
    return {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}


def _lengths(config: CollectConfig, episodes: range) -> np.ndarray:
    return np.array([config.steps] * len(episodes))


def collect_episode(
    simulation, rng: np.random.Generator, steps: int, task: str = "play", family: "Family | None" = None
) -> dict[str, np.ndarray]:
    """One episode as columns of `steps` rows; the family is the plain one by default."""
    from foresight.perception.prepare import prepare
    from sim.experts import Player, towards
    from sim.scenes import contract
    from sim.variation import PLAIN

    family = family or PLAIN
    profile, kinematics = simulation.profile, simulation.kinematics
    cameras, step = contract(profile).cameras, contract(profile).step_s
    gripping = task != "play"  # the gripper is recorded: all episodes of a dataset have the same columns
    if task == "mixed":
        task = str(rng.choice(list(MIXED), p=list(MIXED.values())))
    setting, latency_s, cube_colour = _begin(simulation, rng, task, family)
    player = Player(rng, task != "play", tuple(np.array(other[:2]) for other in setting.others))
    names = ["q", "dq", "tip", "tip_velocity", "object", "contact", "look", "body", *(f"pixels_{c.name}" for c in cameras)]
    columns: dict[str, list] = {name: [] for name in names + ["gripper", "opening", "others"] * gripping}
    body = np.array([simulation.body.half_m, simulation.body.mass_kg, simulation.body.friction, latency_s])
    in_force = None
    for _ in range(steps):
        look = cube_colour(family.frame(rng))
        simulation.look_like(look)
        images, state, truth = simulation.images(), simulation.state(), simulation.truth()
        for camera in cameras:
            columns[f"pixels_{camera.name}"].append(prepare(images[camera.name], camera))
        columns["q"].append(state.q)
        columns["dq"].append(state.dq)
        columns["tip"].append(kinematics.tip(state.q))
        columns["tip_velocity"].append(kinematics.tip_velocity(state.q, state.dq))
        columns["object"].append(np.concatenate([truth.object, truth.object_quaternion]))
        columns["contact"].append([simulation.touches_object()])
        columns["look"].append(look.numbers())
        columns["body"].append(body)
        wanted = player.velocity(truth.tip, truth.object)
        if latency_s:
            simulation.advance(latency_s)
        if gripping:
            columns["opening"].append([simulation.opening()])
            columns["gripper"].append([player.closed])
            columns["others"].append(simulation.others())
        in_force = towards(wanted, step, in_force, simulation.state(), simulation.time_s, simulation)
        simulation.command(in_force)
        if gripping:
            _advance_gripping(simulation, step - latency_s, player.closed)
        else:
            simulation.advance(step - latency_s)
    out = {k: np.stack(v) if k.startswith("pixels") else np.stack(v).astype(np.float32) for k, v in columns.items()}
    out["action"] = np.concatenate([np.diff(out["tip"], axis=0), np.full((1, 3), np.nan, np.float32)])
    out["step_idx"] = np.arange(steps)
    return out


def _advance_gripping(simulation, duration_s: float, closed: float) -> None:
    """The fingers go as gently as the guard lets a plan move them: what a model learns here is what it will meet."""
    from sim.controller import WATCHES
    from sim.scenes import PHYSICS_STEP_S

    limit = GripLimit.of(simulation.profile)
    for ticks in np.array_split(np.arange(round(duration_s / PHYSICS_STEP_S)), WATCHES):
        simulation.grip(limit.command(Grip(closed, limit.cap_n), simulation.opening()))
        simulation.advance(len(ticks) * PHYSICS_STEP_S)


def _begin(simulation, rng: np.random.Generator, task: str, family: "Family") -> tuple:
    """Puts a scene of the task into the simulation: its setting, its latency [s], and what gives a look its objects' colours."""
    from sim.scenes import COLOURS
    from sim.tasks import draw
    from sim.variation import scatter

    setting = draw("reach" if task == "play" else task, rng)
    body, latency_s, others = family.bodies(rng)
    missing = max(0, others - len(setting.others))
    if missing:
        near = (setting.cube, setting.tip[:2], *(np.array(other[:2]) for other in setting.others))
        setting = replace(setting, others=setting.others + scatter(rng, missing, near))
    if family.noise:  # an episode's noise must not depend on those before it
        simulation.seed_noise(int(rng.integers(2**31)))
    simulation.embody(body)
    simulation.restart_clock()
    simulation.place(setting)
    rest = tuple(colour for name, colour in COLOURS.items() if name != setting.named)
    shift = np.array(COLOURS[setting.named]) - np.array(COLOURS["red"])

    def coloured(look):
        if task != "clutter":
            return look
        return replace(look, cube=tuple(np.clip(np.array(look.cube) + shift, 0, 1)), others=rest)

    return setting, 0.002 * round(latency_s / 0.002), coloured


def _write(path: Path, columns: dict[str, np.ndarray], lengths: np.ndarray) -> None:
    def fill(partial: Path) -> None:
        with h5py.File(partial, "w", libver=LAYOUT) as file:
            for name, value in (*columns.items(), *_episodes(lengths)):
                _column(file, name, value.shape, value.dtype)[:] = value

    write_atomically(path, fill)


def _merge(paths: list[Path], out: Path, config: CollectConfig) -> None:
    """Streams the shards into one file."""
    from sim.scenes import Appearance, contract
    from sim.variation import FAMILIES

    def fill(partial: Path) -> None:
        with h5py.File(partial, "w", libver=LAYOUT) as merged:
            lengths = np.concatenate([_read(path, ("ep_len",))["ep_len"] for path in paths])
            for name, value in _episodes(lengths):
                _column(merged, name, value.shape, value.dtype)[:] = value
            bound = contract(load_profile(config.robot), gripper=config.task != "play")
            merged.attrs["contract"] = json.dumps(bound.to_json())
            merged.attrs["seed"], merged.attrs["robot"], merged.attrs["task"] = config.seed, config.robot, config.task
            merged.attrs["family"] = json.dumps(FAMILIES[config.family].to_json())
            merged.attrs["look_names"], merged.attrs["body_names"] = json.dumps(Appearance.names()), json.dumps(BODY_NAMES)
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
