"""What is exported is what the model is, or nothing is; and what it takes."""

import json

import numpy as np
import pytest
import torch

from foresight import cli
from foresight.contract import CameraContract, Contract
from foresight.evaluation import bench_onnx
from foresight.evaluation.bench_onnx import BASIS, BenchOnnxConfig, bench, summary
from foresight.world_model import export as exporting
from foresight.world_model.export import ExportConfig, ExportError, examples, export, parity, session
from foresight.world_model.model import WorldModel
from tests.world_model.conftest import TINY

HORIZON = 3


@pytest.fixture(scope="module")
def model(profile) -> WorldModel:
    """Small, and with every number drawn at random: an untrained predictor would change nothing."""
    cameras = tuple(CameraContract(n, 32, 32, (0, 0, 32, 32), 16) for n in ("front", "wrist"))
    model = WorldModel(Contract(profile.name, profile.joint_names, cameras), TINY).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(0.5 + noise.abs() if "std" in name or "var" in name else 0.2 * noise)
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "onnx"
    return folder, export(model, folder, HORIZON)


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_the_files_say_what_the_model_says(model, exported, rows):
    """Encoder, and rollout block by block, to 1e-5 in float32, at numbers of rows that were not exported with."""
    images, (latent, proprio, blocks) = examples(model, rows, HORIZON, seed=99)
    (found,) = session(exported[0] / "encoder.onnx").run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, model.encode(images), atol=1e-5)
    inputs = {"latent": latent.numpy(), "proprio": proprio.numpy(), "blocks": blocks.numpy()}
    latents, proprios = session(exported[0] / "rollout.onnx").run(None, inputs)
    begin = latent
    for h in range(HORIZON):
        latent, proprio = model.imagine(latent, proprio, blocks[:, h])
        np.testing.assert_allclose(latents[:, h], latent, atol=1e-5)
        np.testing.assert_allclose(proprios[:, h], proprio, atol=1e-5)
    assert float((latent - begin).abs().max()) > 0.05  # the rollout goes somewhere


def test_the_folder_says_which_model_it_is_of(model, exported):
    """Its id, contract, horizon, and by how much the files differ from it."""
    told = json.loads((exported[0] / "config.json").read_text())
    assert (
        told["model_id"] == model.model_id
        and told["horizon"] == HORIZON
        and Contract.from_json(told["contract"]) == model.contract
    )
    assert told["differences"] == exported[1] and max(exported[1].values()) < 1e-5


def test_files_of_another_model_are_noticed_and_nothing_is_written(model, exported, tmp_path, monkeypatch):
    """The check that guards every export: a weight that is 1 % off is no parity, and leaves no folder."""
    weight = model.predictor.leave.weight
    before = weight.clone()
    try:
        weight.mul_(1.01)
        with pytest.raises(ExportError, match=r"latents by .*allowed 1e-04"):
            parity(model, exported[0], HORIZON)
        monkeypatch.setattr(exporting, "write", lambda m, folder, h: [
            (folder / name).write_bytes((exported[0] / name).read_bytes()) for name in ("encoder.onnx", "rollout.onnx")
        ])  # fmt: skip
        with pytest.raises(ExportError, match="Nothing was written"):
            export(model, tmp_path / "onnx", HORIZON)
    finally:
        weight.copy_(before)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named_with_what_to_do(monkeypatch, capsys, tmp_path):
    """Without the packages: one line, code 2, before anything is loaded; the rest of Foresight does not need them."""
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else object())
    assert cli.main(["export", "--out", str(tmp_path / "onnx")]) == 2
    told = capsys.readouterr().err
    assert "missing: onnxscript." in told and "'.[onnx]'" in told and len(told.splitlines()) == 1


def test_nothing_is_replaced(capsys, tmp_path):
    """A folder that exists is left as it is."""
    assert cli.main(["export", "--out", str(tmp_path)]) == 2
    assert f"--out: {tmp_path} exists" in capsys.readouterr().err


def test_every_engine_is_timed_beside_torch(model, exported, monkeypatch):
    """A row for each case and engine; the ratio is that of the medians, to torch in bfloat16."""
    monkeypatch.setattr(bench_onnx, "write", lambda m, folder, h: [
        (folder / name).write_bytes((exported[0] / name).read_bytes()) for name in ("encoder.onnx", "rollout.onnx")
    ])  # fmt: skip
    found = bench(BenchOnnxConfig(repeats=3, horizon=HORIZON), model)
    rows = {(row["part"], row["rows"], row["engine"]): row for row in found["rows"]}
    for part, count in bench_onnx.CASES:
        basis = rows[part, count, BASIS]["median_s"]
        for engine in ("torch float32", "onnxruntime float32"):
            assert rows[part, count, engine]["ratio"] == pytest.approx(basis / rows[part, count, engine]["median_s"])
    assert {"onnx", "onnxruntime"} <= found["versions"].keys() and "rollout   48 rows  onnxruntime float32" in summary(found)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: ExportConfig(path, horizon=0), "--horizon"),
        (lambda path: BenchOnnxConfig(threads=0), "--threads"),
        (lambda path: BenchOnnxConfig(repeats=0), "--repeats"),
    ],
)
def test_nonsense_is_refused(make, words, tmp_path):
    """The flag stands in the message."""
    with pytest.raises(ValueError, match=words):
        make(tmp_path)
