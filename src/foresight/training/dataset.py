"""Play data in memory: windows of frames for the world model, hindsight goals for actor and critic.

Reads the HDF5 layout that `sim.collect` writes; knows no networks.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy.spatial.transform import Rotation
from torch import Tensor

from foresight.contract import TIP, TIP_AND_GRIPPER, Contract

HELD_OUT_SHARE = 0.05  # of the episodes, the last ones: never trained on
HASHED_ROWS = 2000  # whose images a fingerprint looks at
REACHED_M = 0.010  # a part of a goal counts as reached within this distance


class DatasetError(RuntimeError):
    """The dataset is missing, damaged or of another kind; the message says which and what to do."""


@dataclass(frozen=True)
class PlayData:
    """All episodes as flat columns. E episodes, N rows, C cameras."""

    contract: Contract
    images: UInt8[np.ndarray, "N C h w 3"]
    proprio: Float[np.ndarray, "N P"]
    action: Float[np.ndarray, "N U"]  # of the step that leaves the row: tip displacement [m], the gripper's command if it moves
    tip: Float[np.ndarray, "N 3"]  # [m]
    object: Float[np.ndarray, "N 3"]  # [m] true position, for readouts and health only
    yaw: Float[np.ndarray, "N"]  # [rad] about the vertical, of whichever of its axes lies flattest; NaN: the data does not tell
    first: Int[np.ndarray, "E"]  # first row of each episode
    length: Int[np.ndarray, "E"]
    seed: int
    held_out: Int[np.ndarray, "H"]  # episodes that are only evaluated on: the last ones of each file
    contact: Float[np.ndarray, "N"]  # whether the hand touches the object, for its readout only; NaN: the data does not tell
    dq: Float[np.ndarray, "N J"]  # [rad/s] measured, for a probe only; NaN: the data does not tell
    skipped: tuple[str, ...] = ()  # damaged episodes that were left out, and why
    held: UInt8[Tensor, "N C h w 3"] | None = None  # the images once more, on a GPU; None: from `images`

    @property
    def training(self) -> Int[np.ndarray, "M"]:
        return np.setdiff1d(np.arange(len(self.first)), self.held_out)

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name this data: every number, and the images of some rows all over it."""
        digest = hashlib.sha256(f"{self.contract.fingerprint} {self.seed} {self.images.shape}".encode())
        images = self.images[:: max(1, len(self.images) // HASHED_ROWS)]
        for column in (images, self.proprio, self.action, self.tip, self.object, self.first, self.length):
            digest.update(np.ascontiguousarray(column))
        return digest.hexdigest()[:12]

    def held_on(self, device: torch.device) -> PlayData:
        """With the images in that GPU's memory where they take no more than half of what is free; on the CPU as it is."""
        if device.type == "cpu" or 2 * self.images.nbytes > torch.cuda.mem_get_info(device)[0]:
            return self
        return replace(self, held=torch.from_numpy(self.images).to(device))

    def frames(self, rows: Int[np.ndarray, "*B"]) -> UInt8[Tensor, "*B C h w 3"]:
        """The images of these rows, where they are held."""
        if self.held is None:
            return torch.from_numpy(self.images[rows])
        return self.held[torch.from_numpy(rows).to(self.held.device)]

    def starts(self, episodes: Int[np.ndarray, "M"], steps: int) -> Int[np.ndarray, "W"]:
        """Rows from which `steps` further rows lie in the same episode."""
        return np.concatenate([self.first[e] + np.arange(max(0, self.length[e] - steps)) for e in episodes])

    def block(self, rows: Int[np.ndarray, "B"]) -> Float[np.ndarray, "B A"]:
        """The action block that leaves each row."""
        return self.action[rows[:, None] + np.arange(self.contract.block_steps)].reshape(len(rows), -1)


def load(*paths: Path, episodes: int | None = None, damaged: Literal["refuse", "skip"] = "refuse") -> PlayData:
    """Reads the files into memory, at most `episodes` of them. Raises DatasetError with one line on anything amiss.

    Files must have one contract: one robot, the same cameras, rates and action. An episode is damaged where its bytes cannot be
    read, its rows are not there, it is too short for an action block, or one of its numbers is not finite: then the file is
    refused, or with `skip` the episode is left out and named in `skipped`.
    """
    files = [_File(Path(path)) for path in paths]
    for file in files[1:]:
        if different := files[0].contract.compare(file.contract):
            raise DatasetError(
                f"Datasets {files[0].path} and {file.path} cannot be mixed: {'; '.join(different)}. Train on those of one robot "
                "with the same cameras and rates."
            )
    wanted = sum(len(file.length) for file in files) if episodes is None else episodes
    for file in files:
        file.keep(wanted)
        wanted -= len(file.length)
    files = [file for file in files if len(file.length)]
    contract, rows = files[0].contract, np.cumsum([0] + [file.rows for file in files])
    images = np.empty((rows[-1], len(contract.cameras), *files[0].image_shape), np.uint8)
    columns = {name: np.empty((rows[-1], width), np.float32) for name, width in _widths(contract).items()}
    quaternions = np.full((rows[-1], 4), np.nan, np.float32)
    extra = {"dq": len(contract.joint_names), "contact": 1}
    told = {name: np.full((rows[-1], width), np.nan, np.float32) for name, width in extra.items()}
    first, length, held_out, skipped = [], [], [], []
    for file, start in zip(files, rows, strict=False):
        part = slice(start, start + file.rows)
        needed, besides = ({name: column[part] for name, column in of.items()} for of in (columns, told))
        reasons = file.read(images[part], needed, quaternions[part], besides)
        if reasons and damaged == "refuse":
            raise DatasetError(
                f"Dataset {file.path} is damaged or incomplete ({len(reasons)} of {len(file.length)} episodes, "
                f"{_first(reasons)}). Collect it again with `foresight collect --overwrite`, or leave those episodes out with "
                "--damaged skip."
            )
        good = np.array([e not in reasons for e in range(len(file.length))], bool)
        number = sum(map(len, first)) + np.arange(good.sum())
        first.append(start + file.first[good])
        length.append(file.length[good])
        held_out.append(number[-max(1, round(HELD_OUT_SHARE * len(number))) :] if len(number) > 1 else number[:0])
        skipped += [f"{file.path} episode {e}: {why}" for e, why in reasons.items()]
    first, length, held_out = (np.concatenate(x) for x in (first, length, held_out))
    if len(first) < 2 or not len(held_out):
        raise DatasetError(
            f"Dataset {', '.join(str(p) for p in paths)} holds {len(first)} whole episode{'s' * (len(first) != 1)}"
            f"{f' and {len(skipped)} damaged ({skipped[0]})' if skipped else ''}; at least 2 are needed, one of them held out. "
            "Collect more with `foresight collect`."
        )
    gripper, opening = ([columns[name]] if contract.moves_gripper else [] for name in ("gripper", "opening"))
    proprio = np.concatenate([columns["q"], *opening, columns["tip"], columns["tip_velocity"]], axis=1)
    action = np.concatenate([columns["action"], *gripper], axis=1)
    return PlayData(
        contract, images, proprio, action, columns["tip"], columns["object"], yaw_of(quaternions), first, length,
        files[0].seed, held_out, told["contact"][:, 0], told["dq"], tuple(skipped),
    )  # fmt: skip


def yaw_of(quaternions: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N"]:
    """Angle about the vertical [rad] of the body axis that lies flattest, from quaternions w x y z; NaN where there are none."""
    told = np.isfinite(quaternions).all(1) & (np.abs(quaternions).max(1) > 0)
    yaw = np.full(len(quaternions), np.nan, np.float32)
    if told.any():
        axes = Rotation.from_quat(quaternions[told], scalar_first=True).as_matrix()  # columns are the body's axes
        flattest = np.abs(axes[:, 2]).argmin(1)
        x, y = (axes[np.arange(len(axes)), row, flattest] for row in (0, 1))
        yaw[told] = np.arctan2(y, x)
    return yaw


def _widths(contract: Contract) -> dict[str, int]:
    widths = {"q": len(contract.joint_names), "tip": 3, "tip_velocity": 3, "action": 3, "object": 3}
    return widths | ({"gripper": 1, "opening": 1} if contract.moves_gripper else {})


def _first(reasons: dict[int, str]) -> str:
    episode, why = next(iter(reasons.items()))
    return f"first episode {episode}: {why}"


class _File:
    """One dataset file: what it says of itself, then its columns. Raises DatasetError where that much cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DatasetError(f"No dataset at {path}. Make one with `foresight collect --out {path}`.")
        try:
            with h5py.File(path) as file:
                if "contract" not in file.attrs:
                    raise DatasetError(
                        f"Dataset {path} has no contract (cameras, rates, robot). Collect it with `foresight collect`."
                    )
                self.contract = Contract.from_json(json.loads(file.attrs["contract"]))
                if self.contract.action not in (TIP, TIP_AND_GRIPPER):
                    raise DatasetError(
                        f"Dataset {path} has actions '{self.contract.action}', models are trained on '{TIP}' or "
                        f"'{TIP_AND_GRIPPER}'. Collect it with this version of `foresight collect`."
                    )
                self.length, self.first = file["ep_len"][:].astype(np.int64), file["ep_offset"][:].astype(np.int64)
                self.seed = int(file.attrs["seed"])
                names = [f"pixels_{camera.name}" for camera in self.contract.cameras]
                self.image_shape = file[names[0]].shape[1:]
                shapes = {n: self.image_shape for n in names} | {n: (w,) for n, w in _widths(self.contract).items()}
                for name, shape in shapes.items():
                    found = file[name].shape[1:]
                    if found != shape and not (name == "object" and found[0] >= 3):  # its orientation may follow
                        raise ValueError(f"column {name} has rows of shape {found}, expected {shape}")
                if len(self.first) != len(self.length) or not len(self.length):
                    raise ValueError(f"{len(self.length)} lengths and {len(self.first)} offsets of episodes")
                if min(self.first.min(), self.length.min()) < 0:
                    raise ValueError("an episode's length or offset is below 0")
                self.rows_there = max(len(file[name]) for name in shapes)
        except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:  # of HDF5, JSON, odd columns
            told = " ".join(str(error).split())
            raise DatasetError(
                f"Dataset {path} is damaged or incomplete ({told}). Collect it again with `foresight collect --overwrite`."
            ) from error

    def keep(self, episodes: int) -> None:
        """Only the first `episodes`."""
        self.length, self.first = self.length[: max(0, episodes)], self.first[: max(0, episodes)]

    @property
    def rows(self) -> int:
        return min(int((self.first + self.length).max(initial=0)), self.rows_there)

    def read(
        self,
        images: UInt8[np.ndarray, "N C h w 3"],
        columns: dict[str, Float[np.ndarray, "N n"]],
        quaternions: Float[np.ndarray, "N 4"],
        told: dict[str, Float[np.ndarray, "N n"]],
    ) -> dict[int, str]:
        """Fills the arrays, those of `told` where the file has them; which episodes are damaged, and why."""
        reasons: dict[int, str] = {}
        with h5py.File(self.path) as file:
            sources = [(f"pixels_{c.name}", images[:, i]) for i, c in enumerate(self.contract.cameras)]
            for name, target in (*sources, *columns.items()):
                self._fill(file[name], target, reasons)
            if file["object"].shape[1] >= 7:
                self._fill(file["object"], quaternions, reasons, 3)
            for name, target in ((n, t) for n, t in told.items() if n in file and file[n].shape[1:] == t.shape[1:]):
                self._fill(file[name], target, reasons)
        for episode, (first, length) in enumerate(zip(self.first, self.length, strict=True)):
            if length <= self.contract.block_steps:
                reasons.setdefault(episode, f"has {length} rows, an action block needs {self.contract.block_steps + 1}")
            for name, column in columns.items():
                rows = column[first : first + length - (name == "action")]  # no action leaves the last row
                if episode not in reasons and not np.isfinite(rows).all():
                    at = int(np.argmin(np.isfinite(rows).all(1)))
                    reasons[episode] = f"{name} is {rows[at].tolist()} at row {at}"
        return dict(sorted(reasons.items()))

    def _fill(self, source: h5py.Dataset, target: np.ndarray, reasons: dict[int, str], begin: int = 0) -> None:
        """The column from its number `begin` on: at once, or by episodes where that fails, to learn which cannot be read."""
        there, width = len(source), slice(begin, begin + target.shape[1] if target.ndim == 2 else None)
        try:
            target[: min(there, len(target))] = source[: len(target), width]
        except OSError as error:
            target[:] = 0
            for episode, (first, length) in enumerate(zip(self.first, self.length, strict=True)):
                try:
                    target[first : first + length] = source[first : first + length, width]
                except (OSError, ValueError):
                    reasons.setdefault(episode, f"{source.name[1:]} cannot be read ({' '.join(str(error).split())})")
        target[there:] = 0
        for episode in np.flatnonzero(self.first + self.length > there):
            last = int(self.first[episode] + self.length[episode])
            reasons.setdefault(int(episode), f"{source.name[1:]} ends at row {there}, the episode at row {last}")


@dataclass(frozen=True)
class Hindsight:
    """Rows with goals that the same episode reached later (or, for a share, that another episode holds)."""

    row: Int[np.ndarray, "B"]
    episode: Int[np.ndarray, "B"]  # that the row lies in
    goal: Int[np.ndarray, "B"]  # row that shows the goal
    given: Float[np.ndarray, "B 3"]  # which parts of the goal matter: image, tip, object
    k: Float[np.ndarray, "B"]  # blocks from row to goal
    to_go: Int[np.ndarray, "B"]  # blocks until the given parts are reached, at most `max_blocks`
    same: np.ndarray  # (B,) bool: the goal lies in the row's own episode


GIVEN = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 1]], np.float32)
GIVEN_SHARE = np.array([0.45, 0.30, 0.12, 0.08, 0.05])


def hindsight(
    data: PlayData,
    episodes: Int[np.ndarray, "M"],
    batch: int,
    max_blocks: int,
    rng: np.random.Generator,
    strangers: float = 0.12,
) -> Hindsight:
    """Draws rows, goals ahead of them, and the time in which the given parts of each goal were first reached."""
    step = data.contract.block_steps
    episode = rng.choice(episodes, batch)
    row = (rng.random(batch) * (data.length[episode] - step)).astype(np.int64)
    farthest = np.minimum((data.length[episode] - 1 - row) // step, max_blocks)
    k = np.where(rng.random(batch) < 0.06, 0, 1 + np.floor(rng.random(batch) * farthest)).astype(np.int64)
    goal = data.first[episode] + row + step * k
    row = data.first[episode] + row
    given = GIVEN[rng.choice(len(GIVEN), batch, p=GIVEN_SHARE)]
    reached = np.full(batch, max_blocks)
    axes = 3 if data.contract.moves_gripper else 2  # an object that is pushed stays on the table
    for ahead in range(max_blocks, -1, -1):
        at = np.minimum(row + step * ahead, goal)
        near_tip = np.linalg.norm(data.tip[at] - data.tip[goal], axis=1) < REACHED_M
        near_object = np.linalg.norm(data.object[at, :axes] - data.object[goal, :axes], axis=1) < REACHED_M
        both = (near_tip | ((given[:, 0] == 0) & (given[:, 1] == 0))) & (near_object | ((given[:, 0] == 0) & (given[:, 2] == 0)))
        reached = np.where(both, ahead, reached)
    stranger = rng.random(batch) < strangers
    goal = np.where(stranger, data.first[rng.choice(episodes, batch)] + rng.integers(0, data.length.min(), batch), goal)
    return Hindsight(row, episode, goal, given, k.astype(np.float32), np.where(stranger, max_blocks, reached), ~stranger)


def imitated(data: PlayData, drawn: Hindsight) -> Float[np.ndarray, "B A"]:
    """The blocks that an actor learns: those that leave the rows; at its goal it stays, the gripper as it is."""
    block = data.block(drawn.row).reshape(len(drawn.row), -1, data.contract.step_size)
    block[drawn.to_go == 0, :, :3] = 0.0
    return block.reshape(len(block), -1)


def draw_looks(
    lead: tuple[int, int, int], shape: tuple[int, int, int], generator: torch.Generator
) -> tuple[Float[Tensor, "B T C 1 1 3"], Float[Tensor, "B T C 1 1 1"], Float[Tensor, "T C h w 3"]]:
    """Colour gain and offset of each of `lead` (B, T, C) images, and pixel noise of `shape` (h, w, 3) that windows share."""
    gain = (
        1
        + 0.24 * (torch.rand(*lead, 1, 1, 3, generator=generator) - 0.5)
        + 0.24 * (torch.rand(*lead, 1, 1, 1, generator=generator) - 0.5)
    )
    offset = 0.24 * (torch.rand(*lead, 1, 1, 1, generator=generator) - 0.5)
    return gain, offset, torch.randn(*lead[1:], *shape, generator=generator).mul_(0.03)


def jitter(
    images: UInt8[Tensor, "B T C h w 3"],
    gain: Float[Tensor, "B T C 1 1 3"],
    offset: Float[Tensor, "B T C 1 1 1"],
    noise: Float[Tensor, "T C h w 3"],
) -> Float[Tensor, "B T C 3 h w"]:
    """Images in [-1, 1], channels first, each with its own look."""
    floats = images.float().mul_(1 / 127.5).sub_(1).mul_(gain).add_(offset)
    return floats.add_(noise).clamp_(-1.2, 1.2).movedim(-1, -3)
