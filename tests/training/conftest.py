import json

import h5py
import numpy as np
import pytest

from foresight.contract import CameraContract, Contract
from foresight.training import health

EPISODES, STEPS = 24, 24


@pytest.fixture(scope="session")
def write_play(profile):
    """Writes a small dataset of a dot that follows the tip, learnable in seconds, to a path."""
    return lambda path: _write(path, profile)


@pytest.fixture
def play(write_play, tmp_path):
    """Such a dataset."""
    return write_play(tmp_path / "play.h5")


@pytest.fixture
def any_health(monkeypatch):
    """A few updates of a tiny model leave latents that would count as collapsed; here they are good enough."""
    monkeypatch.setattr(health, "COLLAPSED_STD", 0.0)
    monkeypatch.setattr(health, "COLLAPSED_RANK", 0.0)


def _write(path, profile):
    rng = np.random.default_rng(0)
    cameras = tuple(CameraContract(n, 32, 32, (0, 0, 32, 32), 16) for n in ("front", "wrist"))
    rows = EPISODES * STEPS
    velocity = np.repeat(rng.uniform(-0.02, 0.02, (rows // 6, 3)), 6, axis=0).astype(np.float32)
    tip = np.concatenate([np.cumsum(velocity[e * STEPS : (e + 1) * STEPS], 0) for e in range(EPISODES)]).astype(np.float32)
    tip = np.clip(tip, -0.15, 0.15) + np.array([0.45, 0, 0.15], np.float32)
    pixels = np.zeros((rows, 16, 16, 3), np.uint8)
    y, x = np.mgrid[:16, :16]
    for i in range(rows):
        spot = (tip[i, :2] - [0.3, -0.15]) / 0.3 * 15
        pixels[i] = (255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 6))[..., None]
    with h5py.File(path, "w") as file:
        for camera in cameras:
            file[f"pixels_{camera.name}"] = pixels
        file["tip"], file["q"], file["tip_velocity"] = tip, np.zeros((rows, 6), np.float32), 10 * velocity
        file["object"] = np.tile(np.array([0.5, 0, 0.025, 1, 0, 0, 0], np.float32), (rows, 1))
        action = np.concatenate([np.diff(tip, axis=0), np.zeros((1, 3), np.float32)])
        action[STEPS - 1 :: STEPS] = np.nan
        file["action"] = action
        file["ep_len"], file["ep_offset"] = np.full(EPISODES, STEPS), np.arange(EPISODES) * STEPS
        file.attrs["contract"] = json.dumps(Contract(profile.name, profile.joint_names, cameras).to_json())
        file.attrs["seed"] = 0
    return path
