"""Frozen scenes: what the manifests hold, what is refused, and that the same manifest gives the same outcome."""

import json
import shutil

import numpy as np
import pytest

from foresight.evaluation.config import EvaluateConfig
from foresight.evaluation.results import summarise
from foresight.robots.profile import load_profile
from sim import suites, tasks
from sim.collect import SEED_SPACE
from sim.episodes import _build, evaluate, rows_of, run_episode
from sim.simulation import Simulation
from sim.suites import SUITES, ManifestError, load
from sim.tasks import scene_of


@pytest.mark.parametrize("name", SUITES)
def test_every_scene_is_the_one_of_its_manifest_and_was_never_trained_on(name):
    """Made from their seeds again all scenes have their hashes; no seed is in collection's space or given by --seed's default."""
    suite = load(name)
    counts = {suites.row_name(task, shift): count for task, shift, count in SUITES[name]}
    assert {row: len(entries) for row, entries in suite.rows.items()} == counts
    for entries in suite.rows.values():
        seeds = [e.seed for e in entries]
        assert len(set(seeds)) == len(seeds) and max(seeds) < SEED_SPACE and min(seeds) > EvaluateConfig().episode_seed(99_999)
        assert len({e.hash for e in entries}) == len(entries)


def test_far_is_far_and_every_start_is_unsolved():
    """Pushes of 16 to 28 cm; what is to be picked up goes 10 to 25 cm; other objects leave the cube's way free."""
    far = [scene_of(e.task, e.seed)[0].distance() for e in load("far").rows["push_far"]]
    assert 0.16 <= min(far) and max(far) <= 0.28 and max(far) > 0.25
    for row, entries in load("objects").rows.items():
        for setting in (scene_of(e.task, e.seed)[0] for e in entries):
            assert setting.unsolved() and len(setting.others) == (0 if row == "pick" else 2)
            for other in setting.others:
                assert min(np.linalg.norm(other[:2] - at) for at in (setting.cube, setting.goal_cube)) > 0.07
    assert {scene_of(e.task, e.seed)[0].named for e in load("objects").rows["clutter"]} == {"red", "green", "blue"}


def test_the_arm_can_be_at_each_start_and_goal():
    """Of every tenth scene, by the robot's kinematics."""
    simulation = Simulation(0, load_profile("ur5e"))
    for name in ("clean", "far", "objects"):
        for entries in load(name).rows.values():
            for setting in (scene_of(e.task, e.seed)[0] for e in entries[::10]):
                for tip in (setting.tip, setting.goal_tip):
                    assert simulation.kinematics.solve(tip, simulation._rest) is not None


@pytest.mark.parametrize("harm", ["seed", "hash", "start", "rule", "row too long", "truncated", "missing"])
def test_a_manifest_that_is_not_what_the_code_makes_is_refused(tmp_path, harm):
    """With the entry, both hashes and what to do; before anything runs."""
    path = tmp_path / "far.json"
    if harm == "missing":
        shutil.copy(suites.FOLDER / "clean.json", tmp_path)
        with pytest.raises(ManifestError, match=r"no manifest far.json. Available: clean"):
            load("far", tmp_path)
        return
    raw = json.loads((suites.FOLDER / "far.json").read_text())
    scenes, row = raw["scenes"]["push_far"], raw["rows"][0]
    if harm == "seed":
        scenes[3][0] += 1
    elif harm == "hash":
        row["hashes"][3] = "0" * 10
    elif harm == "start":
        scenes[3][1][0] += 0.05
    elif harm == "rule":
        raw["rules"]["push_tolerance_m"] = 0.05
    elif harm == "row too long":
        row["hashes"].append("0" * 10)
    path.write_text(json.dumps(raw)[: -40 if harm == "truncated" else None])
    said = {"rule": r"other rules \(push_tolerance_m: 0.05 in the manifest, 0.03 in the code\)"}
    said |= dict.fromkeys(("row too long", "truncated"), "far.json is damaged")
    with pytest.raises(ManifestError, match=said.get(harm, r"entry 3 \(push_far, seed 99030000[34]\)")) as told:
        load("far", tmp_path)
    assert "python -m sim.suites" in str(told.value) and "\n" not in str(told.value)


def test_a_changed_generator_is_noticed(monkeypatch):
    """Pushes that are a millimetre shorter are other scenes."""
    monkeypatch.setitem(tasks.PUSH_M, "push_far", (0.159, 0.28))
    with pytest.raises(ManifestError, match="entry 0"):
        load("far")


@pytest.mark.slow
def test_the_same_manifest_gives_the_same_outcome():
    """The shipped model's reach and push, and the second of them alone in a new simulation: alike to the last digit."""
    config = EvaluateConfig(suite="clean", rows=("reach", "push"), episodes=1, random_episodes=0, jobs=1)
    report, episodes = evaluate(config)
    simulation, agent = _build(EvaluateConfig(task=("push",)), "both")
    again = run_episode(simulation, agent, "push", episodes[1].seed)
    simulation.close()
    for name in ("success", "time_to_goal_s", "final_distance_m", "steps", "path_m", "jerk_m_s3", "near_misses", "reason"):
        assert getattr(again, name) == getattr(episodes[1], name), name
    np.testing.assert_array_equal(again.surprise, episodes[1].surprise)
    assert [(e.row, e.scene) for e in episodes] == [(row, load("clean").rows[row][0].hash) for row in ("reach", "push")]
    assert (report.suite, report.manifest) == ("clean", load("clean").fingerprint)
    assert report.tasks["push"].path_m > 0.05 and report.tasks["push"].near_misses is not None


def test_the_expert_picks_and_places_the_named_object():
    """The first scenes of both rows: done, lifted on the way, no limit broken."""
    config = EvaluateConfig(suite="objects", rows=("pick", "clutter"), episodes=2, policy="expert", random_episodes=0, jobs=1)
    report, episodes = evaluate(config)
    assert [(e.row, e.success, e.violations) for e in episodes] == [(row, True, 0) for row in ("pick",) * 2 + ("clutter",) * 2]
    assert report.model_id == "none" and not report.not_run


def test_rows_that_need_a_gripper_are_named_where_the_policy_has_none():
    """They are not counted as failures, and not forgotten."""
    suite, not_run = rows_of(EvaluateConfig(suite="objects", episodes=5))
    assert {row: len(entries) for row, entries in suite.rows.items()} == {"push_among": 5}
    assert list(not_run) == ["pick", "clutter"] and "gripper" in not_run["pick"]


def test_what_a_shift_keeps_is_counted_on_the_same_scenes():
    """Of three scenes with one failure without the shift, one is reached with it: 50 %."""
    from tests.evaluation.test_report import episode

    runs = [episode("push", seed=i, success=i > 0, row="push") for i in range(3)]
    runs += [episode("push", seed=i, success=i == 1, row="push, noise", shift="noise") for i in range(3)]
    report = summarise(runs, policy="both", seed=0, shift="none", model_id="m", suite="shift", manifest="abc")
    assert report.tasks["push, noise"].of_base == 0.5 and report.tasks["push"].of_base is None
