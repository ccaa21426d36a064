"""What is exported is what the model is, or nothing is; and what it takes."""

import json
import shutil

import numpy as np
import pytest
import torch

from foresight import cli
from foresight.contract import CameraContract, Contract
from foresight.data import Belief, Goal, Start
from foresight.evaluation import bench_onnx
from foresight.evaluation.bench_onnx import AS_RUN, FLOAT32, ONNX, BenchOnnxConfig, bench, summary
from foresight.planning.config import PlannerConfig
from foresight.planning.planner import Planner
from foresight.world_model import checkpoint
from foresight.world_model import export as exporting
from foresight.world_model.export import ExportConfig, ExportError, examples, export, parity, session
from foresight.world_model.model import WorldModel
from foresight.world_model.onnx_model import OnnxWorldModel
from foresight.world_model.packed import pack_linears
from tests.world_model.conftest import TINY

HORIZON, FILES = 3, ("encoder.onnx", "rollout.onnx", "dynamics.onnx")


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
    told = json.loads((exported[0] / "export.json").read_text())
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
            (folder / name).write_bytes((exported[0] / name).read_bytes()) for name in FILES
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


def test_the_model_in_onnx_runtime_plans_as_the_one_in_torch_does(model, exported, profile):
    """Encoding and imagination agree to 1e-5, rows that share memory included, and the plan's cost; gradients are torch's."""
    fast = OnnxWorldModel(model, exported[0])
    images, (latent, proprio, blocks) = examples(model, 4, 1, seed=5)
    one = latent[:1].expand(4, -1)
    with torch.no_grad():
        np.testing.assert_allclose(fast.encode_images(images[0].numpy()), model.encode_images(images[0].numpy()), atol=1e-5)
        for ours, theirs in zip(fast.imagine(one, proprio, blocks[:, 0]), model.imagine(one, proprio, blocks[:, 0]), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    leaf = blocks[:, 0].requires_grad_()
    fast.imagine(latent, proprio, leaf)[0].sum().backward()
    assert leaf.grad.abs().sum() > 0
    belief = Belief(0.0, model.model_id, latent[0].numpy(), proprio[0].numpy(), float("nan"))
    plans = [
        Planner(one, profile, PlannerConfig(deadline_s=float("inf"))).plan(
            belief, Goal(latent=latent[1].numpy()), Start(np.zeros(3)), torch.Generator().manual_seed(0), lambda: 0.0
        )
        for one in (fast, model)
    ]
    assert plans[0].cost == pytest.approx(plans[1].cost, abs=1e-4) and plans[0].source == plans[1].source


def test_what_fails_in_onnx_runtime_fails_as_in_torch(model, exported):
    """A RuntimeError in one line, which agent and nodes know how to survive."""
    fast = OnnxWorldModel(model, exported[0])
    with torch.no_grad(), pytest.raises(RuntimeError, match="ONNX Runtime failed: ") as error:
        fast.imagine(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3))
    assert len(str(error.value).splitlines()) == 1


def test_device_onnx_takes_the_files_beside_the_checkpoint_and_no_others(model, exported, tmp_path, monkeypatch):
    """None there, or those of another model: a line that says what to do."""
    path = tmp_path / "arm"
    checkpoint.save(model, path, "card", {})
    with pytest.raises(ExportError, match=r"arm_onnx, which is not there.*foresight export"):
        checkpoint.load(path, "onnx")
    shutil.copytree(exported[0], tmp_path / "arm_onnx")
    with pytest.raises(ExportError, match="exported from model 'unsaved', the checkpoint is"):
        checkpoint.load(path, "onnx")
    told = json.loads((tmp_path / "arm_onnx/export.json").read_text())
    (tmp_path / "arm_onnx/export.json").write_text(json.dumps(told | {"model_id": checkpoint.fingerprint(path)}))
    assert isinstance(checkpoint.load(path, "onnx"), OnnxWorldModel)


def test_nothing_is_replaced(capsys, tmp_path):
    """A folder that exists is left as it is."""
    assert cli.main(["export", "--out", str(tmp_path)]) == 2
    assert f"--out: {tmp_path} exists" in capsys.readouterr().err


def test_every_engine_is_timed_beside_torch(model, exported, monkeypatch):
    """A row for each case and engine; the ratio is that of the medians. What runs in operation takes part but for the encoder,
    which is in float32 there too; plans with the ONNX files have actor and critic as operation has them."""
    monkeypatch.setattr(bench_onnx, "fill", lambda m, folder, h: [
        (folder / file.name).write_bytes(file.read_bytes()) for file in exported[0].iterdir()
    ] and {})  # fmt: skip
    packed = []
    monkeypatch.setattr(bench_onnx, "pack_linears", lambda model: packed.append(type(model)) or pack_linears(model))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = bench(BenchOnnxConfig(repeats=3, horizon=HORIZON), model)
    assert {WorldModel, OnnxWorldModel} == set(packed) and before.keys() == model.state_dict().keys(), "a copy is packed"
    rows = {(row["part"], row["rows"], row["engine"]): row for row in found["rows"]}
    for part, count in bench_onnx.CASES:
        basis, one = rows[part, count, FLOAT32]["median_s"], rows[part, count, ONNX]
        assert one["of_float32"] == pytest.approx(basis / one["median_s"])
        assert (one["of_bfloat16"] is None) == (part == "plan")
        assert ((part, count, AS_RUN) in rows) == (one["of_as_run"] is not None) == (part != "encoder")
    assert {"onnx", "onnxruntime"} <= found["versions"].keys() and "rollout   48 rows  onnxruntime float32" in summary(found)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: ExportConfig(out=path, horizon=0), "--horizon"),
        (lambda path: BenchOnnxConfig(threads=0), "--threads"),
        (lambda path: BenchOnnxConfig(repeats=0), "--repeats"),
    ],
)
def test_nonsense_is_refused(make, words, tmp_path):
    """The flag stands in the message."""
    with pytest.raises(ValueError, match=words):
        make(tmp_path)
