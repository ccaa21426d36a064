"""Collection gives whole datasets, resumes, and its episodes hold what they say."""

import json

import h5py
import numpy as np
import pytest

from foresight.contract import Contract
from foresight.training.dataset import load
from sim import collect as collection
from sim.collect import CollectConfig, collect


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "play.h5"
    return collect(CollectConfig(out=path, episodes=3, steps=12, seed=1, jobs=1))


def test_the_layout_is_the_one_others_read(dataset, profile):
    """Flat columns, episode lengths and offsets, the contract as an attribute."""
    with h5py.File(dataset) as file:
        assert list(file["ep_len"][:]) == [12, 12, 12] and list(file["ep_offset"][:]) == [0, 12, 24]
        assert file["pixels_front"].shape == (36, 64, 64, 3) and file["pixels_front"].dtype == np.uint8
        assert Contract.from_json(json.loads(file.attrs["contract"])).joint_names == profile.joint_names
        assert list(file["step_idx"][:13]) == [*range(12), 0]


def test_actions_are_measured_displacements(dataset):
    """Each action is the tip's way to the next row, and no longer than the tip can go."""
    data = load(dataset)
    inner = [r for r in range(36) if r % 12 < 11]
    np.testing.assert_allclose(data.action[inner], data.tip[[r + 1 for r in inner]] - data.tip[inner], atol=1e-6)
    assert np.isnan(data.action[11]).all()
    assert np.linalg.norm(data.action[inner], axis=1).max() < 0.03


def test_nothing_is_left_beside_a_finished_dataset(dataset):
    """Parts are gone, and no partial file remains."""
    assert [p.name for p in dataset.parent.iterdir()] == ["play.h5"]


def test_an_interrupted_collection_goes_on(tmp_path, monkeypatch):
    """Shards that were finished are not made again, and the result is the same."""
    monkeypatch.setattr(collection, "SHARD_EPISODES", 1)
    config = CollectConfig(out=tmp_path / "a.h5", episodes=2, steps=4, seed=2, jobs=1)
    collection._collect_shard((config, range(0, 1), tmp_path / "whole.h5"))
    parts = tmp_path / "a.parts"

    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(config, stop)
    assert not config.out.exists() and len(list(parts.glob("*.h5"))) >= 1
    seen = []
    collect(config, lambda done, total: seen.append(done))
    assert seen[0] >= 1 and seen[-1] == 2
    with h5py.File(config.out) as file, h5py.File(tmp_path / "whole.h5") as whole:
        np.testing.assert_array_equal(file["pixels_front"][:4], whole["pixels_front"][:])


def test_parts_of_another_collection_are_not_mixed_in(tmp_path):
    """Another seed beside unfinished parts is refused with both settings."""
    config = CollectConfig(out=tmp_path / "a.h5", episodes=1, steps=4, seed=2, jobs=1)
    (tmp_path / "a.parts").mkdir()
    (tmp_path / "a.parts" / "config.json").write_text('{"seed": "9"}')
    with pytest.raises(ValueError, match="another collection"):
        collect(config)
