"""Windows stay inside episodes; hindsight goals are what the episode reached."""

import h5py
import numpy as np
import pytest

from foresight.training.dataset import REACHED_M, DatasetError, hindsight, load


def test_windows_never_cross_an_episode(play):
    """No action of a window is the missing one at an episode's end."""
    data = load(play)
    starts = data.starts(data.training, 9)
    assert np.isfinite(data.block(starts)).all() and np.isfinite(data.block(starts + 6)).all()
    assert ((starts % 24) <= 24 - 10).all()


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


def test_a_missing_or_foreign_file_is_refused(play, tmp_path):
    """One line that says what to do."""
    with pytest.raises(DatasetError, match="foresight collect"):
        load(tmp_path / "nothing.h5")
    with h5py.File(play, "a") as file:
        del file.attrs["contract"]
    with pytest.raises(DatasetError, match="contract"):
        load(play)


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
