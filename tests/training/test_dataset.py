"""Windows stay inside episodes; hindsight goals are what the episode reached."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from foresight.contract import TIP_AND_GRIPPER
from foresight.training.dataset import REACHED_M, DatasetError, hindsight, load, yaw_of


def test_windows_never_cross_an_episode(play):
    """No action of a window is the missing one at an episode's end."""
    data = load(play)
    starts = data.starts(data.training, 9)
    assert np.isfinite(data.block(starts)).all() and np.isfinite(data.block(starts + 6)).all()
    assert ((starts % 24) <= 24 - 10).all()


def test_images_that_are_held_elsewhere_are_the_same(play, monkeypatch):
    """By rows and by windows; held where they take half of the free memory at most, never on the CPU, where they are already."""
    data = load(play)
    copy, rows = replace(data, held=torch.from_numpy(data.images.copy())), np.array([[3, 1], [40, 2]])
    assert torch.equal(copy.frames(rows), data.frames(rows)) and data.frames(rows).shape == (2, 2, *data.images.shape[1:])
    assert data.held_on(torch.device("cpu")) is data
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * data.images.nbytes - 1, 0))
    assert data.held_on(torch.device("cuda")) is data


def test_training_and_held_out_episodes_are_disjoint(play):
    """Split by episode, not by window."""
    data = load(play)
    assert not set(data.training) & set(data.held_out)
    assert len(data.training) + len(data.held_out) == 24


def test_hindsight_goals_are_reached_when_they_say(play):
    """At the stated time the given parts are within tolerance, and not before."""
    data = load(play)
    h = hindsight(data, data.training, 500, 4, np.random.default_rng(0), strangers=0.0)
    assert (h.goal // 24 == h.row // 24).all() and (h.goal >= h.row).all()
    tip_matters = (h.given[:, 0] + h.given[:, 1]) > 0
    at = np.minimum(h.row + 3 * h.to_go, h.goal)
    off = np.linalg.norm(data.tip[at] - data.tip[h.goal], axis=1)
    assert (off[tip_matters] < REACHED_M).all()
    early = tip_matters & (h.to_go > 0)
    assert (np.linalg.norm(data.tip[h.row[early]] - data.tip[h.goal[early]], axis=1) >= REACHED_M).all()


def test_strangers_are_as_far_as_the_critic_can_say(play):
    """Goals of other episodes count as the farthest distance and are not shown to the actor."""
    data = load(play)
    h = hindsight(data, data.training, 400, 4, np.random.default_rng(0), strangers=0.5)
    assert 100 < (~h.same).sum() < 300
    assert (h.to_go[~h.same] == 4).all()


@pytest.mark.parametrize("tilt", [0.0, np.pi / 2, np.pi])
def test_the_yaw_is_that_of_the_axis_that_lies_flattest(tilt):
    """Turned about the vertical by 20 degrees, then looked at on whichever face it lies: the same up to quarter turns."""
    turn, roll = np.radians(20), np.array([np.cos(tilt / 2), np.sin(tilt / 2), 0.0, 0.0])
    w, z = np.cos(turn / 2), np.sin(turn / 2)
    both = np.array([w * roll[0], w * roll[1], z * roll[1], z * roll[0]])  # first rolled, then turned
    yaw = yaw_of(np.stack([both, np.full(4, np.nan), np.zeros(4)]).astype(np.float32))
    assert np.degrees(yaw[0]) % 90 == pytest.approx(20, abs=1e-3) and np.isnan(yaw[1:]).all()


def test_a_dataset_may_lack_the_objects_orientation(play):
    """Positions are read all the same."""
    assert (load(play).yaw == 0).all()
    with h5py.File(play, "a") as file:
        positions = file["object"][:, :3]
        del file["object"]
        file["object"] = positions
    data = load(play)
    assert np.isnan(data.yaw).all() and (data.object == positions).all()


def test_a_missing_or_foreign_file_is_refused(play, tmp_path):
    """One line that says what to do."""
    with pytest.raises(DatasetError, match="foresight collect"):
        load(tmp_path / "nothing.h5")
    with h5py.File(play, "a") as file:
        del file.attrs["contract"]
    with pytest.raises(DatasetError, match="contract"):
        load(play)


def test_actions_that_models_do_not_take_are_refused(play):
    """A dataset of joint velocities is not trained on as if they moved the tip."""
    with h5py.File(play, "a") as file:
        contract = json.loads(file.attrs["contract"])
        file.attrs["contract"] = json.dumps({**contract, "action": "joint velocity, rad/s"})
    with pytest.raises(DatasetError, match=r"'joint velocity, rad/s', models are trained on 'tip displacement"):
        load(play)


@pytest.mark.parametrize("there", [True, False])
def test_the_gripper_is_read_where_actions_move_it(play, there):
    """Its command is the last number of each action, its opening stands before the tip; a dataset that promises both has both."""
    with h5py.File(play, "a") as file:
        contract = json.loads(file.attrs["contract"])
        file.attrs["contract"] = json.dumps({**contract, "action": TIP_AND_GRIPPER})
        rows = len(file["tip"])
        if there:
            file["gripper"], file["opening"] = np.full((rows, 1), 1.0), np.full((rows, 1), 0.25)
    if not there:
        with pytest.raises(DatasetError, match="gripper"):
            load(play)
        return
    data = load(play)
    assert (data.action[:, 3] == 1).all() and (data.proprio[:, 6] == 0.25).all()
    assert (data.proprio[:, 7:10] == data.tip).all() and data.block(np.array([0, 1])).shape == (2, 12)


def test_a_truncated_file_is_refused(play):
    """Half a file is no dataset."""
    play.write_bytes(play.read_bytes()[:2000])
    with pytest.raises(DatasetError, match="damaged"):
        load(play)


@pytest.mark.parametrize("harm", ["shorter", "no_contract", "empty"])
def test_columns_that_do_not_fit_are_refused(play, harm):
    """A column shorter than the episodes, a contract that is no JSON and no episodes at all: one line each."""
    with h5py.File(play, "a") as file:
        if harm == "shorter":
            kept = file["pixels_wrist"][:-5]
            del file["pixels_wrist"]
            file["pixels_wrist"] = kept
        elif harm == "no_contract":
            file.attrs["contract"] = "{"
        else:
            for name in ("ep_len", "ep_offset"):
                del file[name]
                file[name] = np.zeros(0, int)
    with pytest.raises(DatasetError, match=r"damaged or incomplete.*--overwrite") as told:
        load(play)
    assert "\n" not in str(told.value)


def harm(path, how):
    """Damages episode 2 of a dataset, by the end of it for `short`."""
    with h5py.File(path, "a") as file:
        if how == "nan_action":
            file["action"][50] = np.nan
        elif how == "infinite_joint":
            file["q"][50, 3] = np.inf
        elif how == "empty":
            file["ep_len"][2] = 0
        elif how == "too_short":
            file["ep_len"][2] = 3
        else:
            pixels = file["pixels_wrist"][:]
            del file["pixels_wrist"]
            kept = file.create_dataset("pixels_wrist", data=pixels, chunks=(24, 16, 16, 3), fletcher32=True)
            file.flush()
            at = kept.id.get_chunk_info(2).byte_offset
    if how == "bytes":
        content = bytearray(path.read_bytes())
        content[at + 7] ^= 255
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("nan_action", r"action is \[nan, nan, nan\] at row 2"),
        ("infinite_joint", "q is .*inf.* at row 2"),
        ("empty", "has 0 rows"),
        ("too_short", "has 3 rows, an action block needs 4"),
        ("bytes", "pixels_wrist cannot be read"),
    ],
)
def test_a_damaged_episode_is_refused_by_name_or_left_out(play, how, says):
    """Never silently: the first of them and why stands in the refusal, every one of them in `skipped`."""
    whole = load(play)
    harm(play, how)
    with pytest.raises(DatasetError, match=rf"1 of 24 episodes, first episode 2: {says}.*--damaged skip") as told:
        load(play)
    assert "\n" not in str(told.value)
    rest = load(play, damaged="skip")
    assert len(rest.skipped) == 1 and "episode 2" in rest.skipped[0]
    assert list(rest.first) == [f for f in whole.first if f != 48] and len(rest.training) == 22
    starts = rest.starts(rest.training, 9)
    assert not ((starts >= 48) & (starts < 72)).any() and np.isfinite(rest.block(starts)).all()
    np.testing.assert_array_equal(rest.images[:48], whole.images[:48])
    np.testing.assert_array_equal(rest.images[72:], whole.images[72:])


def test_a_truncated_column_costs_the_episodes_that_reach_beyond_it(play):
    """With --damaged skip the whole ones are kept."""
    with h5py.File(play, "a") as file:
        kept = file["pixels_wrist"][:-30]
        del file["pixels_wrist"]
        file["pixels_wrist"] = kept
    rest = load(play, damaged="skip")
    assert len(rest.first) == 22 and [s.split(":")[0][-10:] for s in rest.skipped] == ["episode 22", "episode 23"]


def test_a_dataset_without_two_whole_episodes_is_refused(play):
    """Skipping has an end."""
    with h5py.File(play, "a") as file:
        file["q"][24:] = np.nan
    with pytest.raises(DatasetError, match="holds 1 whole episode and 23 damaged"):
        load(play, damaged="skip")


def test_several_files_are_one_dataset(play, write_play, tmp_path):
    """Each holds out its own last episodes; episodes count over all files."""
    other = write_play(tmp_path / "other.h5")
    both = load(play, other)
    assert len(both.first) == 48 and list(both.held_out) == [23, 47] and not set(both.training) & {23, 47}
    assert list(both.first[24:]) == [24 * 24 + 24 * e for e in range(24)]
    np.testing.assert_array_equal(both.tip[: 24 * 24], both.tip[24 * 24 :])
    assert len(load(play, other, episodes=30).first) == 30


def test_robots_are_not_mixed(play, write_play, tmp_path):
    """Two contracts in one training are refused with both values."""
    other = write_play(tmp_path / "other.h5")
    with h5py.File(other, "a") as file:
        raw = json.loads(file.attrs["contract"])
        file.attrs["contract"] = json.dumps({**raw, "robot": "fr3"})
    with pytest.raises(DatasetError, match="cannot be mixed: robot: expected ur5e, got fr3") as told:
        load(play, other)
    assert "\n" not in str(told.value)
