"""Play data in memory: windows of frames for the world model, hindsight goals for actor and critic.

Reads the HDF5 layout that `sim.collect` writes; knows no networks.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from foresight.contract import Contract

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
    action: Float[np.ndarray, "N 3"]  # [m] tip displacement of the step that leaves the row
    tip: Float[np.ndarray, "N 3"]  # [m]
    object: Float[np.ndarray, "N 3"]  # [m] true position, for readouts and health only
    first: Int[np.ndarray, "E"]  # first row of each episode
    length: Int[np.ndarray, "E"]
    seed: int

    @property
    def held_out(self) -> Int[np.ndarray, "H"]:
        """Episodes that are only evaluated on."""
        return np.arange(len(self.first))[-max(1, round(HELD_OUT_SHARE * len(self.first))) :]

    @property
    def training(self) -> Int[np.ndarray, "M"]:
        return np.arange(len(self.first))[: -len(self.held_out)]

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name this data: every number, and the images of some rows all over it."""
        digest = hashlib.sha256(f"{self.contract.fingerprint} {self.seed} {self.images.shape}".encode())
        images = self.images[:: max(1, len(self.images) // HASHED_ROWS)]
        for column in (images, self.proprio, self.action, self.tip, self.object, self.first, self.length):
            digest.update(np.ascontiguousarray(column))
        return digest.hexdigest()[:12]

    def starts(self, episodes: Int[np.ndarray, "M"], steps: int) -> Int[np.ndarray, "W"]:
        """Rows from which `steps` further rows lie in the same episode."""
        return np.concatenate([self.first[e] + np.arange(max(0, self.length[e] - steps)) for e in episodes])

    def block(self, rows: Int[np.ndarray, "B"]) -> Float[np.ndarray, "B A"]:
        """The action block that leaves each row."""
        return self.action[rows[:, None] + np.arange(self.contract.block_steps)].reshape(len(rows), -1)


def load(path: Path, episodes: int | None = None) -> PlayData:
    """Reads the file into memory, at most `episodes` of it. Raises DatasetError with one line on anything amiss."""
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"No dataset at {path}. Make one with `foresight collect --out {path}`.")
    try:
        with h5py.File(path) as file:
            if "contract" not in file.attrs:
                raise DatasetError(
                    f"Dataset {path} has no contract (cameras, rates, robot). Collect it with `foresight collect`."
                )
            contract = Contract.from_json(json.loads(file.attrs["contract"]))
            length, first = file["ep_len"][:], file["ep_offset"][:]
            length, first = (length, first) if episodes is None else (length[:episodes], first[:episodes])
            rows = int(first[-1] + length[-1])
            images = np.empty((rows, len(contract.cameras), *file[f"pixels_{contract.cameras[0].name}"].shape[1:]), np.uint8)
            for i, camera in enumerate(contract.cameras):
                images[:, i] = file[f"pixels_{camera.name}"][:rows]
            tip = file["tip"][:rows]
            proprio = np.concatenate([file["q"][:rows], tip, file["tip_velocity"][:rows]], axis=1).astype(np.float32)
            return PlayData(
                contract,
                images,
                proprio,
                file["action"][:rows],
                tip,
                file["object"][:rows, :3],
                first,
                length,
                int(file.attrs["seed"]),
            )
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:  # of HDF5, of JSON, and of columns that do not fit
        told = " ".join(str(error).split())
        raise DatasetError(
            f"Dataset {path} is damaged or incomplete ({told}). Collect it again with `foresight collect --overwrite`."
        ) from error


@dataclass(frozen=True)
class Hindsight:
    """Rows with goals that the same episode reached later (or, for a share, that another episode holds)."""

    row: Int[np.ndarray, "B"]
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
    for ahead in range(max_blocks, -1, -1):
        at = np.minimum(row + step * ahead, goal)
        near_tip = np.linalg.norm(data.tip[at] - data.tip[goal], axis=1) < REACHED_M
        near_object = np.linalg.norm(data.object[at, :2] - data.object[goal, :2], axis=1) < REACHED_M
        both = (near_tip | ((given[:, 0] == 0) & (given[:, 1] == 0))) & (near_object | ((given[:, 0] == 0) & (given[:, 2] == 0)))
        reached = np.where(both, ahead, reached)
    stranger = rng.random(batch) < strangers
    goal = np.where(stranger, data.first[rng.choice(episodes, batch)] + rng.integers(0, data.length.min(), batch), goal)
    return Hindsight(row, goal, given, k.astype(np.float32), np.where(stranger, max_blocks, reached), ~stranger)


def jitter(images: UInt8[Tensor, "B T C h w 3"], generator: torch.Generator) -> Float[Tensor, "B T C 3 h w"]:
    """Images in [-1, 1], channels first, each with its own colour gain, offset and pixel noise."""
    lead = images.shape[:3]
    gain = (
        1
        + 0.24 * (torch.rand(*lead, 1, 1, 3, generator=generator) - 0.5)
        + 0.24 * (torch.rand(*lead, 1, 1, 1, generator=generator) - 0.5)
    )
    offset = 0.24 * (torch.rand(*lead, 1, 1, 1, generator=generator) - 0.5)
    floats = images.float().mul_(1 / 127.5).sub_(1).mul_(gain).add_(offset)
    noise = torch.randn(floats.shape[1:], generator=generator).mul_(0.03)
    return floats.add_(noise).clamp_(-1.2, 1.2).movedim(-1, -3)
