"""The comparison of ways: what is trained and driven, what is not done twice, and the table."""

import dataclasses
import json

import pytest

from foresight import cli
from foresight.training import ways
from foresight.training.config import TrainConfig
from foresight.training.ways import SCENES, WAYS, WaysConfig, column, comparing, markdown, run_of

ROWS = {
    "clean": ["reach", "push"],
    "shift": ["reach", "reach, table", "reach, light", "push", "push, table"],
    "far": ["push_far"],
    "keep-out": ["reach", "push"],
}


def command(play, tmp_path, *more: str) -> list[str]:
    words = f"bench ways --json {tmp_path / 'w' / 'table.json'} --seeds 0 1".split()
    words += f"--train.data {play} --train.steps 3 --train.model.latent 8 --train.model.encoder-width 8 --train.threads 1".split()
    return [*words, *more]


@pytest.fixture
def quick(monkeypatch):
    """Trainings and evaluations that are counted and not carried out; each way reaches another share."""
    trained: list[str] = []
    driven: list[tuple[str, str]] = []

    def train(config, report, data):
        trained.append(config.out.name)
        config.out.mkdir(parents=True, exist_ok=True)
        return config.out

    def evaluated(words, file):
        where = next(name for name, scenes in SCENES.items() if list(scenes) == words[5 : 5 + len(scenes)])
        policy, count = words[words.index("--policy") + 1], int(words[words.index("--episodes") + 1])
        driven.append((policy, where))
        share = {"reactive": 0.5, "dreamt": 0.25, "both": 1.0}.get(policy, 0.75)
        found = {"episodes": count, "successes": int(share * count), "violations": 1 if policy == "search" else 0}
        entered = {"episodes_entered": 3 if policy == "dreamt" else 0} if where == "keep-out" else {}
        return {"manifest": "m", "git": "g", "tasks": {row: found | entered for row in ROWS[where]}}

    made = {"parameters": {"encoder": 4000, "actor": 500}, "metrics": {}, "minutes": 1.0, "machine": "here"}
    monkeypatch.setattr(ways, "train", train)
    monkeypatch.setattr(ways, "evaluated", evaluated)
    monkeypatch.setattr(ways, "read_config", lambda _: {"training": made})
    monkeypatch.setattr(ways, "fingerprint", lambda path: path.name)
    return trained, driven


def test_every_way_is_driven_on_all_scenes_and_nothing_twice(play, tmp_path, quick, capsys):
    """Two models a seed, five ways, four places; a second call repeats nothing, another number of episodes only the driving."""
    trained, driven = quick
    assert cli.main(command(play, tmp_path, "--evaluate", "20")) == 0
    assert trained == ["clone-0", "world-model-0", "clone-1", "world-model-1"]
    policies = ["reactive", "dreamt", "actor", "search", "both"]
    assert driven == 2 * [(policy, where) for policy in policies for where in SCENES]
    told = capsys.readouterr().out
    lines = {line.split("|")[1].strip(): line for line in told.splitlines() if line.startswith("| ")}
    assert "| 50.0 % [35, 65] of 40 |" in lines["behaviour cloning, reactive"]
    assert "| 50.0 % [39, 61] of 80 | 50.0 % [35, 65] of 40 |" in lines["behaviour cloning, reactive"], "two shifts, one"
    assert "of 40, came in 6 |" in lines["actor-critic learned in imagination"]
    assert lines["search alone"].endswith("| 20 |") and lines["planning"].endswith("| 0 |")
    assert "Parameters: clone 4,500 (encoder 4,000, actor 500); world-model 4,500" in told
    table = json.loads((tmp_path / "w" / "table.json").read_text())
    assert len(table["models"]) == 4 and len(table["rows"]) == 2 * 5 * sum(map(len, ROWS.values()))
    assert cli.main(command(play, tmp_path, "--evaluate", "20")) == 0 and (len(trained), len(driven)) == (4, 40)
    assert cli.main(command(play, tmp_path, "--evaluate", "10")) == 0 and (len(trained), len(driven)) == (4, 80)
    assert cli.main(command(play, tmp_path, "--train.lr", "0.01")) == 0 and (len(trained), len(driven)) == (8, 80)


def test_without_episodes_only_the_models_that_the_ways_need_are_trained(play, tmp_path, quick, capsys):
    """And the table says that nothing was driven."""
    trained, driven = quick
    assert cli.main(command(play, tmp_path, "--ways", "clone")) == 0
    assert trained == ["clone-0", "clone-1"] and not driven
    told = capsys.readouterr().out
    assert "not run (--evaluate)" in told and "planning" not in told


def test_a_collapse_ends_the_comparison_with_one_line(play, tmp_path, monkeypatch, capsys):
    """A way whose model is dead is not compared."""
    from foresight.training.health import Health
    from foresight.training.train import CollapseError

    def collapses(*_):
        raise CollapseError("The latents collapsed (rank).", Health(0.0, 1.0, 0.0, 9.0, 9.0))

    monkeypatch.setattr(ways, "train", collapses)
    assert cli.main(command(play, tmp_path)) == 1
    assert capsys.readouterr().err.strip() == "foresight: The latents collapsed (rank)."


def test_both_models_are_trained_alike(tmp_path):
    """They differ in having dynamics, and what comes of having them, and in nothing else."""
    config = WaysConfig(json=tmp_path / "t.json", train=TrainConfig(steps=9))
    clone, world = run_of(config, ways.CLONE, 4), run_of(config, ways.WORLD, 4)
    assert not clone.model.dynamics and world.model.dynamics and world.model.dreamt
    assert dataclasses.replace(clone, out=world.out, model=world.model) == world
    assert comparing(dataclasses.replace(config, json=WaysConfig().json)) == "foresight bench ways --train.steps 9"


def test_shifts_count_together_without_what_they_are_compared_with():
    """The unshifted rows of the shift suite are no shift."""
    row = lambda where, name: column({"where": where, "row": name})  # noqa: E731
    assert [row("shift", "reach"), row("shift", "push, latency"), row("clean", "push"), row("keep-out", "push")] == [
        "", "push, shifted", "push", "push, keep-out",
    ]  # fmt: skip
    assert markdown(WaysConfig(), [], []).count("not run") == len(WAYS) * 7


@pytest.mark.parametrize("wrong", [{"ways": ()}, {"seeds": ()}, {"evaluate": 301}, {"jobs": 0}, {"json": "table.md"}])
def test_settings_that_make_no_sense_are_refused(wrong, tmp_path):
    """By name."""
    wrong = {name: tmp_path / value if name == "json" else value for name, value in wrong.items()}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WaysConfig(**wrong)
