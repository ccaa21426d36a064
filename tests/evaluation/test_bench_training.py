"""The benchmark of training: what it writes, that its updates are real, what it refuses. Tiny sizes, and a stub for a peer."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from foresight.cli import main
from foresight.evaluation import bench_training
from foresight.evaluation.bench_training import BLOCK_STEPS, BenchTrainingConfig, Training, bench, make_data, write
from foresight.training import dataset
from foresight.training.config import PRESETS
from foresight.world_model.transformer import TransformerConfig

TINY = TransformerConfig(
    block=3 * BLOCK_STEPS, latent=24, depth=1, heads=2, head=8, hidden=32, action_hidden=16, image=28, encoder_depth=2,
    encoder_hidden=32,
)  # fmt: skip
STUB = """
import json, sys
print("PEER " + json.dumps({"package": "stub", "told": sys.argv[1:]}), flush=True)
for line in sys.stdin:
    wanted = json.loads(line)
    s = {"bf16-mixed": 30.0 + wanted["workers"], "32-true": 20.0}[wanted["precision"]]
    assert wanted["sizes"]["latent"] == 24 and wanted["sizes"]["image"] == 28
    print("PEER " + json.dumps({"s": [s] * wanted["updates"], "cpu_s": 50.0, "parameters": 7, "loss": 1.5}), flush=True)
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    script = tmp_path / "peer.py"
    script.write_text(STUB)
    monkeypatch.setattr(bench_training, "SCRIPT", script)
    return Path(sys.executable)


def test_the_file_holds_every_kind_with_its_ratios(tmp_path, stub):
    """Ours in each precision and the preset, the peer's as asked; ratios to its fastest of the same precision and of any."""
    config = BenchTrainingConfig(tmp_path / "f.json", stub, batch=2, image=28, updates=2, turns=2, threads=1)
    said = []
    path = write(config.json, bench(config, said.append, TINY))
    figures = json.loads(path.read_text())
    assert {"machine", "commit", "versions", "load_s", "differs", "sizes", "took_s"} <= set(figures)
    assert figures["peer"] == {"package": "stub", "told": ["1", "cpu"]}
    rows = {row["name"]: row for row in figures["rows"]}
    assert len(rows) == len(said) == 6
    for name, dtype, same in (
        ("ours: LeWorldModel's network, bfloat16", "bfloat16", 31),
        ("ours: LeWorldModel's network, float32", "float32", 20),
        ("ours: preset tiny, bfloat16", "bfloat16", 31),
    ):
        row = rows[name]
        assert row["dtype"] == dtype and row["batch"] == 2 and row["image"] == 28 and row["gflop_per_window"] > 0
        assert [len(each) for each in row["all_s"]] == [2, 2] and np.isfinite(row["loss"])
        quickest = min(np.mean(each) for each in row["all_s"])
        assert row["updates_per_s"] == pytest.approx(1 / quickest) and row["frames_per_s"] == pytest.approx(8 / quickest)
        assert row["ratio"] == pytest.approx(same / quickest) and row["ratio_to_fastest"] == pytest.approx(20 / quickest)
        assert row["ratio_of_cpu"] == pytest.approx(25 / row["cpu_s"])
    theirs = rows["peer: bfloat16, as its script has it"]
    assert (theirs["workers"], theirs["ratio"], theirs["parameters"]) == (6, None, 7)
    assert theirs["updates_per_s"] == pytest.approx(1 / 36)


def test_without_a_peer_ours_are_timed_alone(tmp_path, monkeypatch, capsys):
    """Through the command, with no ratio."""
    monkeypatch.setattr(bench_training, "bench", lambda config, say: bench(config, say, TINY))
    words = ["--json", str(tmp_path / "f.json"), "--batch", "2", "--image", "28", "--updates", "1", "--turns", "1"]
    assert main(["bench", "training", *words, "--threads", "1"]) == 0
    assert "updates/s" in capsys.readouterr().out
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert len(rows) == 3 and all(row["ratio"] is row["ratio_to_fastest"] is None for row in rows)


def test_the_trainers_loop_makes_the_network_learn(tmp_path):
    """The loss of LeWorldModel's objective falls over updates on the data that is timed."""
    data = dataset.load(make_data(tmp_path / "windows.h5", 28))
    config = replace(PRESETS["tiny"], batch=16, steps=60, lr=3e-3, threads=1, device="cpu", sigreg_slices=64)
    config = replace(config, model=replace(config.model, patch=14, latent=24, encoder_width=24, encoder_depth=1))
    training = Training(data, config, TINY)
    training.updates(1)
    first = training.loss
    training.updates(59)
    assert training.loss < 0.7 * first


def test_both_read_the_same_frames(tmp_path):
    """The peer's column is ours by another name, a frame to a chunk as its own writer makes them, at the blocks' stride."""
    path = make_data(tmp_path / "windows.h5", 28)
    data = dataset.load(path)
    with h5py.File(path) as file:
        assert file["pixels"] == file["pixels_front"] and file["pixels"].chunks == (1, 28, 28, 3)
        assert np.array_equal(file["pixels"][:], data.images[:, 0]) and len(np.unique(data.images[0])) > 20
        assert file.attrs["frameskip"] == data.contract.block_steps == BLOCK_STEPS


@pytest.mark.parametrize("field, value", [("batch", 1), ("updates", 0), ("turns", 0), ("threads", 0), ("limit_s", 0.0)])
def test_nonsense_settings_are_refused(field, value):
    """The message names the flag."""
    with pytest.raises(ValueError, match="--" + field.replace("_", "-")):
        BenchTrainingConfig(Path("f.json"), **{field: value})


def test_an_image_that_patches_do_not_fill_and_a_gpu_that_is_not_there_are_refused(tmp_path, monkeypatch):
    """Before anything is timed, with what to do."""
    with pytest.raises(ValueError, match=r"image \(30 pixels\) must be a multiple of patch \(14 pixels\)"):
        bench(BenchTrainingConfig(tmp_path / "f.json", image=30))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"--device cuda: no GPU can be seen.*Leave --device out"):
        BenchTrainingConfig(Path("f.json"), device="cuda")
