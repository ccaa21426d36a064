"""Collection gives whole datasets, resumes, and its episodes hold what they say."""

import errno
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from foresight import cli
from foresight.contract import Contract
from foresight.robots.profile import load_profile, profile_text
from foresight.training.dataset import DatasetError, load
from sim import cluster
from sim import collect as collection
from sim.collect import CollectConfig, CollectError, collect
from sim.simulation import Simulation
from sim.variation import PLAIN, WIDE


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


@pytest.mark.parametrize("there", ["text", "another_seed", "fewer_episodes", "old_parts"])
def test_what_is_there_is_not_replaced(dataset, tmp_path, there):
    """Somebody's file, and a dataset of another configuration, stay byte for byte; the line says what to do."""
    out = tmp_path / "play.h5"
    config = CollectConfig(out=out, episodes=3, steps=12, seed=1, jobs=1)
    if there == "text":
        out.write_text("years of work")
    elif there == "old_parts":
        (tmp_path / "play.parts").mkdir()
        (tmp_path / "play.parts" / "thesis.txt").write_text("years of work")
    else:
        shutil.copy(dataset, out)
        config = replace(config, **({"seed": 2} if there == "another_seed" else {"episodes": 2}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        ValueError, match="another --out" if there == "old_parts" else "Give another name, or --overwrite"
    ) as told:
        collect(config)
    assert "\n" not in str(told.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_finished_dataset_is_not_collected_again(dataset):
    """The same command once more leaves it as it is, and says that all is done."""
    seen, before = [], dataset.stat()
    assert collect(CollectConfig(out=dataset, episodes=3, steps=12, seed=1), lambda *done: seen.append(done)) == dataset
    assert seen == [(3, 3)] and dataset.stat() == before and len(list(dataset.parent.iterdir())) == 1


def test_overwrite_replaces(tmp_path):
    """On purpose, whatever it was."""
    out = tmp_path / "play.h5"
    out.write_text("no dataset")
    assert len(load(collect(CollectConfig(out=out, episodes=2, steps=4, jobs=1, overwrite=True))).length) == 2


@pytest.mark.parametrize("column", ["pixels_wrist", "q", "ep_len"])
def test_damaged_bytes_are_noticed(dataset, tmp_path, column):
    """One byte of a column that the disk has changed: reading it is an error with one line, in the dataset and in a part."""
    harmed = tmp_path / "play.h5"
    content = bytearray(dataset.read_bytes())
    with h5py.File(dataset) as file:
        content[file[column].id.get_chunk_info(0).byte_offset + 5] ^= 0x40
    harmed.write_bytes(content)
    with pytest.raises(DatasetError, match=r"damaged.*foresight collect --overwrite") as told:
        load(harmed)
    assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match="Delete it and run the same command again"):
        collection._read(harmed)


@pytest.mark.parametrize("robot", ["fr3", "so101", "xarm6", "tea_robot"])
def test_a_robot_that_the_scene_cannot_have_is_named(tmp_path, robot, capsys):
    """One line with those that it can have, from both commands that simulate, before anything is written or started."""
    for command in (["collect", "--out", str(tmp_path / "a.h5")], ["bench", "adversary", "--episodes", "1"]):
        assert cli.main([*command, "--robot", robot]) == 2
        told = capsys.readouterr().err
        assert robot in told and "Available: " in told and "ur5e" in told and len(told.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"episodes": 10**30}, {"steps": -1}, {"jobs": 10**6}, {"seed": 2**64}])
def test_numbers_out_of_range_are_refused_by_name(wrong):
    """Nothing is begun that could never end."""
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"--{name} must lie between .* got {value}"):
        CollectConfig(**wrong)


def test_parts_of_another_collection_are_not_mixed_in(tmp_path):
    """Another seed beside unfinished parts is refused with both settings."""
    config = CollectConfig(out=tmp_path / "a.h5", episodes=1, steps=4, seed=2, jobs=1)
    (tmp_path / "a.parts").mkdir()
    (tmp_path / "a.parts" / "config.json").write_text('{"seed": "9"}')
    with pytest.raises(ValueError, match="another collection"):
        collect(config)


def test_two_collections_do_not_write_into_one_folder(tmp_path):
    """The second is refused with one line while the first is at work; afterwards it may go on."""
    config = CollectConfig(out=tmp_path / "a.h5", episodes=2, steps=4, jobs=1)
    with collection._own_folder(config, tmp_path / "a.parts"):
        with pytest.raises(ValueError, match="in use by another collection"):
            collect(config)
    assert not config.out.exists()
    assert len(load(collect(config)).length) == 2


class Deadly:
    """Work at whose sight a process ends as a killed one does."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_killed_simulator_process_is_told(tmp_path):
    """Instead of waiting for it for ever; what to do is said, and that finished parts are kept."""
    with pytest.raises(CollectError, match=r"process was killed.*parts are kept: run the same command again"):
        list(collection._work([Deadly()], 1))


def same(one: Path, other: Path) -> bool:
    """Whether two datasets hold the same, column by column and bit by bit."""
    with h5py.File(one) as a, h5py.File(other) as b:
        columns = a.keys() == b.keys() and all(a[n][:].tobytes() == b[n][:].tobytes() for n in a)
        return columns and dict(a.attrs) == dict(b.attrs)


def test_a_ray_cluster_collects_the_same(dataset, tmp_path, monkeypatch):
    """Interrupted there after the first part, gone on with there and then in processes: every bit as if made in one go."""
    monkeypatch.setattr(collection, "SHARD_EPISODES", 1)
    config = CollectConfig(out=tmp_path / "a.h5", episodes=3, steps=12, seed=1, jobs=2, ray="local")

    def stop_at(part):
        def stop(done, total):
            if done >= part:
                raise KeyboardInterrupt

        return stop

    with pytest.raises(KeyboardInterrupt):
        collect(config, stop_at(1))
    assert not config.out.exists() and len(list((tmp_path / "a.parts").glob("*.h5"))) == 1
    seen = []
    collect(replace(config, jobs=1, ray=None), lambda done, total: seen.append(done))
    assert seen == [1, 2, 3] and same(config.out, dataset)
    assert same(collect(replace(config, out=tmp_path / "b.h5")), dataset)
    assert {p.name for p in tmp_path.iterdir()} == {"a.h5", "b.h5"}


def test_where_all_parts_are_there_no_cluster_is_begun(dataset, tmp_path, monkeypatch):
    """They are put together, as without Ray."""
    config = CollectConfig(out=tmp_path / "a.h5", episodes=3, steps=12, seed=1, jobs=1)

    def stop(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(config, stop)
    monkeypatch.setattr(cluster, "run", None)
    assert same(collect(replace(config, ray="local")), dataset)


def test_a_killed_ray_worker_is_told(tmp_path, monkeypatch):
    """As a killed process is; what was finished is kept, and the same command makes the rest."""
    monkeypatch.setattr(collection, "SHARD_EPISODES", 1)
    config = CollectConfig(out=tmp_path / "a.h5", episodes=3, steps=100, seed=1, jobs=1, ray="local")

    def kill(done, total):
        if done == 1:  # the next one is long enough for this
            end_s = time.monotonic() + 10
            while not (workers := ray_workers()) and time.monotonic() < end_s:
                time.sleep(0.005)
            os.kill(workers[0], signal.SIGKILL)

    with pytest.raises(CollectError, match=r"process was killed.*parts are kept: run the same command again"):
        collect(config, kill)
    assert not config.out.exists() and len(list((tmp_path / "a.parts").glob("*.h5"))) == 1
    assert same(collect(replace(config, ray=None)), collect(replace(config, ray=None, out=tmp_path / "b.h5")))


def ray_workers() -> list[int]:
    """The processes at work in the cluster that this process has started."""

    def parent(process: Path) -> int:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])

    workers = [p for p in Path("/proc").glob("[0-9]*") if (p / "cmdline").read_bytes().startswith(b"ray::_same_code")]
    return [int(p.name) for p in workers if parent(Path("/proc") / str(parent(p))) == os.getpid()]


def test_a_disk_without_room_is_noticed_before_the_first_episode(tmp_path, monkeypatch):
    """Both sizes are told, and nothing is written."""
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=2**18, f_frsize=4096))
    with pytest.raises(OSError, match=r"need 6.7 GiB, 1.0 are free") as told:
        collect(CollectConfig(out=tmp_path / "deep" / "a.h5"))
    assert told.value.errno == errno.ENOSPC and list(tmp_path.iterdir()) == []


def test_frames_and_episodes_hold_what_was_drawn_for_them(tmp_path):
    """Of a wide family: looks differ from frame to frame, bodies from episode to episode, and both lie in the family's ranges."""
    path = collect(CollectConfig(out=tmp_path / "w.h5", episodes=2, steps=10, seed=3, jobs=1, family="wide"))
    with h5py.File(path) as file:
        look, body, family = file["look"][:], file["body"][:], json.loads(file.attrs["family"])
        names, bodies = json.loads(file.attrs["look_names"]), json.loads(file.attrs["body_names"])
        assert look.shape == (20, len(names)) and len(np.unique(look, axis=0)) > 8 and len(np.unique(body, axis=0)) == 2
        assert np.ptp(look[:, names.index("noise")]) > 0 and look[:, names.index("noise")].max() <= family["noise"]
        low, high = family["mass_kg"]
        assert (body[:, bodies.index("mass_kg")] >= low).all() and (body[:, bodies.index("mass_kg")] <= high).all()
        assert not np.isnan(file["q"][:]).any()
    assert load(path).images.shape[0] == 20


@pytest.mark.parametrize("family", [PLAIN, WIDE], ids=lambda family: family.name)
def test_an_episode_does_not_depend_on_those_before_it(family):
    """Noise included: made after others it is the same, bit for bit, and so is a collection that was resumed."""
    simulation = Simulation(0, load_profile("ur5e"), others=2)
    fresh, later = (np.random.default_rng(8) for _ in range(2))
    first = collection.collect_episode(simulation, fresh, 40, "play", family)
    collection.collect_episode(simulation, np.random.default_rng(9), 33, "clutter", family)
    again = collection.collect_episode(simulation, later, 40, "play", family)
    simulation.close()
    for name, column in first.items():
        np.testing.assert_array_equal(column, again[name], name)


def test_a_mixed_dataset_has_every_kind_of_episode_with_the_same_columns(tmp_path):
    """Pushes with the gripper closed, and picks; a model with a gripper can be trained on it."""
    path = collect(CollectConfig(out=tmp_path / "m.h5", task="mixed", episodes=6, steps=8, seed=1, jobs=1))
    data = load(path)
    assert data.contract.moves_gripper and data.action.shape == (48, 4) and data.proprio.shape == (48, 13)
    with h5py.File(path) as file:
        assert (data.action[:, 3:] == file["gripper"][:]).all() and (data.proprio[:, 6:7] == file["opening"][:]).all()
        closed = file["gripper"][:].reshape(6, 8)
    assert 1 <= (closed == 1).all(1).sum() <= 5, "some episodes push, some do not"


def test_without_a_known_force_nothing_is_collected_with_the_gripper(tmp_path):
    """As such a model is refused; pushing and reaching need none."""
    profile = tmp_path / "weak.yaml"
    profile.write_text(profile_text("ur5e").replace("  force_cap: 50.0", "  force_cap: null"))
    with pytest.raises(ValueError, match="no limit of its force is known"):
        collect(CollectConfig(out=tmp_path / "a.h5", robot=str(profile), episodes=1, steps=4, task="pick"))
    assert not (tmp_path / "a.h5").exists() and not (tmp_path / "a.parts").exists()


def test_pick_and_place_is_collected_with_the_gripper(tmp_path):
    """Commands open and close it, the fingers follow, the named cube leaves the table; the contract says what an action is."""
    path = collect(CollectConfig(out=tmp_path / "c.h5", task="clutter", episodes=1, steps=80, seed=5, jobs=1))
    with h5py.File(path) as file:
        gripper, opening, cube, others = (file[name][:] for name in ("gripper", "opening", "object", "others"))
        touching, held = file["contact"][:, 0], cube[:, 2] > 0.06
        assert set(np.unique(touching)) == {0.0, 1.0} and held.any() and touching[held].all(), "what is held is touched"
        assert set(np.unique(gripper)) == {0.0, 1.0} and opening.max() > 0.9 and opening[gripper == 1].min() < 0.6
        assert cube[:, 2].max() > 0.08 and others.shape == (80, 2, 7) and not np.isnan(others).any()
        action = Contract.from_json(json.loads(file.attrs["contract"])).action
        assert action.endswith("gripper, 0 open, 1 closed") and file.attrs["task"] == "clutter"


def test_a_finished_collection_of_another_task_is_not_taken_for_this_one(dataset):
    """Task and family belong to what a dataset is."""
    with pytest.raises(ValueError, match=r"task play, family plain. This would be: .* task pick"):
        collect(CollectConfig(out=dataset, episodes=3, steps=12, seed=1, task="pick"))
