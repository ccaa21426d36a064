"""What keeps latents from collapsing: the formulas, and what each does to a world that is easy to learn."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from foresight import cli
from foresight.training import compare as comparing
from foresight.training.anti_collapse import COVARIANCE_SHARE, METHODS, TEMPERATURE, follow, infonce, vicreg
from foresight.training.config import TrainConfig
from foresight.training.health import Health
from foresight.training.log import Log
from foresight.training.resume import Resume
from foresight.training.train import CollapseError, make_fabric, prepare, train_world_model
from foresight.world_model.model import ModelConfig

SIZES = ModelConfig(latent=8, encoder_width=8, predictor_width=32, predictor_depth=1, head_width=32, max_blocks=4)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_vicreg_equals_its_formula_written_out():
    """Recomputed by plain loops: hinge on the standard deviation, squared covariances over the number of dimensions."""
    x, total = 0.7 * draw(2, 6, 3), 0.0
    for frame in x.double():
        mean = [sum(float(row[d]) for row in frame) / 6 for d in range(3)]
        for a in range(3):
            for b in range(3):
                covariance = sum((float(row[a]) - mean[a]) * (float(row[b]) - mean[b]) for row in frame) / 5
                if a == b:
                    total += max(0.0, 1 - math.sqrt(covariance + 1e-4)) / 3 / 2
                else:
                    total += COVARIANCE_SHARE * covariance**2 / 3 / 2
    assert float(vicreg(x)) == pytest.approx(total, rel=1e-4)


def test_vicreg_costs_nothing_where_numbers_vary_apart():
    """Wide and uncorrelated is free; constant costs its whole hinge, correlated its covariances."""
    wide = 2 * draw(1, 4000, 4)
    assert float(vicreg(wide)) < 0.01
    assert float(vicreg(0 * wide)) == pytest.approx(0.99, abs=0.001)
    assert float(vicreg(wide[..., :1].expand(-1, -1, 4))) > 1


def test_infonce_equals_its_formula_written_out():
    """The mean negative log share of the frame that came, among all windows' frames of that time."""
    foreseen, seen, total = draw(2, 4, 3), draw(2, 4, 3, seed=1), 0.0
    for t in range(2):
        for i in range(4):
            near = [-float((foreseen[t, i] - seen[t, j]).square().mean()) / TEMPERATURE for j in range(4)]
            total += math.log(sum(math.exp(n) for n in near)) - near[i]
    assert float(infonce(foreseen, seen)) == pytest.approx(total / 8, rel=1e-4)


def test_infonce_is_highest_where_all_is_one():
    """Constant latents tell no window from another; spread ones that were foreseen tell them all apart."""
    seen = 3 * draw(3, 16, 8)
    assert float(infonce(0 * seen, 0 * seen)) == pytest.approx(math.log(16), rel=1e-4)
    assert float(infonce(seen, seen)) < 0.01


def test_a_teacher_follows_slowly():
    """Weights by the momentum, statistics at once."""
    teacher, student = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    student.weight.data.fill_(3.0)
    student.running_mean.fill_(5.0)
    follow(teacher, student, 0.75)
    assert teacher.weight.tolist() == [1.5, 1.5] and teacher.running_mean.tolist() == [5.0, 5.0]


def learned(play, tmp_path, method: str) -> Health:
    """Latent health after 60 updates in which nothing but the chosen way holds the latents apart."""
    config = TrainConfig(
        data=(play,), out=tmp_path / method, steps=60, batch=16, lr=3e-3, sigreg_slices=32, threads=1, model=SIZES,
        anti_collapse=method, sigreg_weight=0.5, inverse_weight=0.0, readout_weight=0.0, proprio_weight=0.0, device="cpu",
    )  # fmt: skip
    model, data = prepare(config)
    state = Resume(config, data.fingerprint)
    try:
        return train_world_model(model, data, config, make_fabric(config), state, Log(None), lambda *_: None)
    except CollapseError as error:
        return error.health


@pytest.mark.parametrize("method", METHODS)
def test_what_each_way_does_to_a_learnable_world(play, tmp_path, method):
    """Without any, prediction alone makes all latents one point that tells nothing; with any other they stay apart."""
    health = learned(play, tmp_path, method)
    if method == "none":
        assert health.std < 0.05 and health.tip_cm > 1.8, health
    else:
        assert health.std > 0.05 and health.tip_cm < 1.8, health


@pytest.fixture
def quick(monkeypatch):
    """A comparison whose trainings are counted and not carried out: `none` collapses, the rest end with a rank of 5."""
    calls: list[str] = []

    def trained(model, data, config, *_):
        calls.append(f"{config.anti_collapse}-{config.seed}")
        if config.anti_collapse == "none":
            raise CollapseError("collapsed", Health(0.01, 1.0, -1.0, 9.0, 9.0))
        return Health(1.0, 5.0 + config.seed, 0.5, 1.0, 2.0)

    monkeypatch.setattr(comparing, "train_world_model", trained)
    return calls


def command(play, tmp_path, *more: str) -> list[str]:
    words = f"bench anti-collapse --json {tmp_path / 'c' / 'table.json'} --methods sigreg none --seeds 0 1".split()
    words += f"--train.data {play} --train.steps 3 --train.model.latent 8 --train.model.encoder-width 8 --train.threads 1".split()
    return [*words, *more]


def test_the_comparison_is_a_table_that_is_resumed(play, tmp_path, quick, capsys):
    """Every way and seed once; a second call runs nothing anew, another budget runs everything."""
    assert cli.main(command(play, tmp_path)) == 0
    assert quick == ["sigreg-0", "none-0", "sigreg-1", "none-1"]
    told = capsys.readouterr().out
    assert "| sigreg | 0 of 2 | 1 +- 0 | 5.5 +- 0.71 |" in told and "| none | 2 of 2 | 0.01" in told and "not run" in told
    assert (tmp_path / "c" / "table.md").read_text().strip() in told
    assert [run["rank"] for run in json.loads((tmp_path / "c" / "table.json").read_text())] == [5.0, 1.0, 6.0, 1.0]
    assert cli.main(command(play, tmp_path)) == 0 and len(quick) == 4
    assert cli.main(command(play, tmp_path, "--train.lr", "0.01")) == 0 and len(quick) == 8
    assert {p.suffix for p in (tmp_path / "c").iterdir()} == {".md", ".json"}


def test_the_comparison_names_the_command_that_repeats_it(tmp_path):
    """Its own flags and those of the trainings."""
    config = comparing.CompareConfig(seeds=(4,), train=dataclasses.replace(TrainConfig(), steps=9))
    assert comparing.comparing(config) == "foresight bench anti-collapse --seeds 4 --train.steps 9"


def test_success_in_closed_loop_is_filled_in_when_asked(play, tmp_path, monkeypatch, capsys):
    """By `foresight evaluate` on each model that did not collapse; one that did reaches nothing."""

    def trained(config, report, data):
        if config.anti_collapse == "none":
            raise CollapseError("collapsed", Health(0.01, 1.0, -1.0, 9.0, 9.0))
        return config.out

    health = dataclasses.asdict(Health(1.0, 5.0, 0.5, 1.0, 2.0))
    asked = []

    def run(words, **_):
        asked.append(words[3:])
        file = words[words.index("--json") + 1]
        open(file, "w").write(json.dumps({"tasks": {"push": {"successes": 15}}}))
        return comparing.subprocess.CompletedProcess(words, 0, stderr="")

    monkeypatch.setattr(comparing, "train", trained)
    monkeypatch.setattr(comparing, "read_config", lambda _: {"training": {"command": "", "metrics": {"health": health}}})
    monkeypatch.setattr(comparing.subprocess, "run", run)
    assert cli.main(command(play, tmp_path, "--evaluate", "20")) == 0
    told = capsys.readouterr().out
    assert "75.0 % [60, 86] of 40 |" in told and "0.0 % [0, 9] of 40 |" in told
    assert [words[0] for words in asked] == ["evaluate", "evaluate"] and "20" in asked[0]
