"""The guard's bench: what it offers, what it counts, and that it would see a guard that fails."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foresight import cli
from foresight.control.trajectory import hold
from foresight.data import Box, Candidate, Reason, Trajectory, Verdict
from foresight.evaluation import bench_guard
from foresight.evaluation.bench_guard import (
    BenchGuardConfig,
    Obstacles,
    Sequence,
    Tally,
    bench,
    check_times,
    judged,
    legal_check_times,
    summary,
)
from foresight.evaluation.guard_judge import Controller, Judge, broken, touch
from foresight.evaluation.guard_plans import MUTATIONS, LegalPlans, mutated
from foresight.robots.contacts import Contacts
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import available_robots, load_profile
from foresight.safety.guard import Guard
from foresight.safety.obstacles import TABLE
from tests.motions import minimum_jerk


class Careless(Guard):
    """A guard that lets pass whatever can be executed at all."""

    def _judge(self, candidate, state, now_s):
        trajectory = candidate.trajectory
        sound = all(np.isfinite(getattr(trajectory, name)).all() for name in ("times_s", "q", "dq", "ddq"))
        if (
            sound
            and len(trajectory.times_s) > 1
            and (np.diff(trajectory.times_s) > 1e-6).all()
            and trajectory.times_s[-1] > now_s
        ):
            return Verdict(Reason.OK), trajectory
        return Verdict(Reason.MALFORMED, "Cannot be executed."), None


def offered(profile, kinematics, make_guard, plans: int, obstacles: Obstacles | None = None) -> Tally:
    judge, tally = Judge("ur5e", kinematics), Tally()
    legal, rng = LegalPlans(profile, kinematics, judge), np.random.default_rng(5)
    with np.errstate(all="ignore"):
        while tally.plans < plans:
            Sequence(profile, kinematics, judge, legal, rng, tally, make_guard, obstacles).run(plans)
    return tally


def test_the_guard_passes_no_violation_and_the_legal_plans(profile, kinematics):
    """Of three hundred plans nothing illegal passes, nearly all that is legal does, and most kinds of refusal occur."""
    tally = offered(profile, kinematics, Guard, 400)
    assert tally.violations == 0, tally.shown
    assert tally.legal >= 8 and tally.legal_passed >= 0.9 * tally.legal
    assert len(tally.reasons) >= 6 and tally.stops >= 3


def test_a_guard_that_fails_is_found_out(profile, kinematics):
    """The bench can fail: a careless guard has violations, described with the limit and how much of it was taken."""
    tally = offered(profile, kinematics, Careless, 60)
    assert tally.violations >= 8
    assert all(any(what in line for line in tally.shown) for what in ("acceleration", "ignored"))


def test_what_adds_up_over_the_motions_of_a_sequence_is_found_out(profile, kinematics):
    """Outside the workspace an arm that goes a micrometre further with each plan breaks nothing in any one of them."""
    judge, tally = Judge("ur5e", kinematics), Tally()
    sequence = Sequence(
        profile, kinematics, judge, LegalPlans(profile, kinematics, judge), np.random.default_rng(5), tally, Careless
    )
    outside = np.array([profile.workspace_max[0] + 1e-3, 0.0, 0.2])
    q = kinematics.solve(outside, profile.home, 1e-9)
    step = 9e-7 * np.linalg.pinv(kinematics.jacobian(q))[:, 0]
    sequence.controller, sequence.nearest = Controller(q, sequence.now_s), None
    for i in range(4):
        begin_s = sequence.now_s + 0.05
        sequence.guard.in_force = minimum_jerk(q + i * step, step, begin_s, 0.2)
        sequence._execute(sequence.guard.in_force, "creeping", begin_s)
        sequence.now_s = begin_s + 0.3
        assert (tally.violations > 0) == (i > 0)


def test_among_obstacles_nothing_is_touched_and_a_guard_that_fails_is_found_out(profile, kinematics):
    """Some plans are refused for what they would touch, some pass; a guard that looks at nothing touches table, box or itself."""
    obstacles = Obstacles.drawn(profile, np.random.default_rng(1))
    tally = offered(profile, kinematics, Guard, 240, obstacles)
    assert tally.violations == 0, tally.shown
    assert tally.among == tally.plans and tally.among_passed == tally.passed > 20 and tally.legal == 0
    assert tally.reasons[Reason.COLLISION.value] + tally.reasons[Reason.KEEP_OUT.value] > 0
    careless = offered(profile, kinematics, Careless, 150, obstacles)
    assert any("touch of" in line for line in careless.shown)


@pytest.mark.parametrize("robot", ["ur5e", "fr3", "panda", "so101"])
def test_the_judge_sees_what_each_arm_touches(robot: str):
    """Nothing at home; a box where its tip is, a table pushed up into it, and itself when it is folded up."""
    profile = load_profile(robot)
    home, tip = profile.home[None], MujocoKinematics(profile).tip(profile.home)
    assert Contacts(profile, TABLE).deepest(home) == (0.0, "")
    box, elsewhere = Box("a box", tip - 0.02, tip + 0.02), Box("another", tip + 1.0, tip + 1.1)
    far = profile.home + np.eye(len(profile.home))[0] * 0.6
    contacts = Contacts(profile, TABLE, (elsewhere, box))
    depth, what = contacts.deepest(np.stack([far, profile.home]))
    assert 0.0 < depth < 0.1 and "a box" in what
    assert contacts.deepest(far[None]) == (0.0, "")
    still = np.zeros((2, len(profile.home)))
    motion = Trajectory(np.array([0.0, 1.0]), np.stack([far, profile.home]), still, still)
    assert any("touch of" in line and "a box" in line for line in broken(touch(contacts, motion)))
    folded = np.random.default_rng(0).uniform(profile.position_min, profile.position_max, (200, len(profile.home)))
    depth, what = Contacts(profile, Box("table", np.array([-0.1, -0.1, -9.0]), np.array([0.1, 0.1, -8.0]))).deepest(folded)
    assert depth > 0.01 and "box" not in what and "table" not in what


def test_legal_plans_are_legal_and_near_the_limits(profile, kinematics, start):
    """Legal plans keep every limit at any phase, and most take more than four fifths of one."""
    judge, rng = Judge("ur5e", kinematics), np.random.default_rng(1)
    legal = LegalPlans(profile, kinematics, judge)
    still, taken = minimum_jerk(start, np.zeros(6), start_s=-1.0), []
    for _ in range(20):
        plan = legal.make(still, 0.1, rng)
        if plan is not None:
            used = judge.use(still, plan, float(rng.uniform(0, 0.002)))
            assert broken(used) == []
            taken.append(max(used[name] for name in ("velocity", "acceleration", "jerk", "tip_speed")))
    assert len(taken) >= 8 and np.median(taken) > 0.8


def test_every_mutation_does_something(profile, start):
    """Each mutation changes the candidate sooner or later, and leaves the one it was given alone."""
    plan = minimum_jerk(start, np.full(6, 0.05), start_s=1.0)
    other = minimum_jerk(start, np.full(6, -0.05), start_s=0.5)
    candidate = Candidate(plan, profile.joint_names, 0.9, 0.95)
    kept = {name: getattr(plan, name).copy() for name in ("times_s", "q", "dq", "ddq")}

    def same(a: Candidate, b: Candidate) -> bool:
        arrays = all(np.array_equal(getattr(a.trajectory, n), getattr(b.trajectory, n), equal_nan=True) for n in kept)
        return arrays and a.joint_names == b.joint_names and a.plan_stamp_s == b.plan_stamp_s

    for name, mutation in MUTATIONS.items():
        rng = np.random.default_rng(2)
        assert not all(same(mutation(candidate, other, rng), candidate) for _ in range(20)), name
        assert all(np.array_equal(getattr(plan, n), value) for n, value in kept.items()), name
    assert not same(mutated(candidate, other, np.random.default_rng(0)), candidate)


def test_the_bench_is_reproducible_and_written(tmp_path, capsys):
    """The same seed gives the same counts; the command writes them, with the time of a check, and says them."""
    path = tmp_path / "guard.json"
    flags = ["--plans", "150", "--profiles", "xarm6", "--jobs", "1", "--timed", "5"]
    assert cli.main(["bench", "guard", *flags, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    again = bench(BenchGuardConfig(plans=150, profiles=("xarm6",), jobs=1, timed=5))
    figures = found["profiles"]["xarm6"]
    assert figures["plans"] >= 150 and figures["violations"] == 0
    assert figures["reasons"] == json.loads(json.dumps(again["profiles"]["xarm6"]["reasons"]))
    assert found["check_ms"]["p50"] > 0 and found["check_ms"]["points"] == 50
    assert min(found["check_ms"][name]["p50"] for name in ("legal", "legal_with_collision")) > 0
    assert figures["judged"] == ["joints"] and 0 <= figures["legal_unslowed_rate"] <= figures["legal_pass_rate"] <= 1
    assert "0 violations" in capsys.readouterr().out and "0 violations" in summary(again)


def test_stops_of_the_faults_bench_are_put_beside(tmp_path):
    """One file then holds plans, stops and times of checks; a file of something else is refused in one line."""
    faults, other = tmp_path / "faults.json", tmp_path / "other.json"
    stop = {"kill": {"trials": 3, "stopped": 3, "max_s": 0.2, "bound_s": 0.28}, "freeze": {"trials": 2, "stopped": 2}}
    faults.write_text(json.dumps({"stop": stop, "violations": 0}))
    other.write_text('{"stop": {}}')
    found = bench(BenchGuardConfig(plans=30, profiles=("xarm6",), jobs=1, timed=1, faults=faults))
    assert found["stop"] == stop and found["profiles"]["xarm6"]["violations"] == 0 and {"p50", "p999"} <= found["check_ms"].keys()
    for path in (other, tmp_path / "absent.json"):
        with pytest.raises(ValueError, match="is no file of `foresight bench faults --json`"):
            BenchGuardConfig(faults=path)


def test_stops_that_are_there_are_taken_by_default(tmp_path, monkeypatch):
    """Those that `make faults` left in the folder where the bench runs, and it says where they are from; else there are none."""
    monkeypatch.chdir(tmp_path)
    config = BenchGuardConfig(plans=1, profiles=("xarm6",), jobs=1, timed=1)
    assert "stop" not in bench(config)
    stop = {"kill": {"trials": 3}, "freeze": {"trials": 3}}
    bench_guard.FAULTS.parent.mkdir(parents=True)
    bench_guard.FAULTS.write_text(json.dumps({"stop": stop}))
    found = bench(config)
    assert found["stop"] == stop and "runs/faults/stop.json" in summary(found)


def test_what_was_judged_is_what_the_judge_sees():
    """A limit that a robot has not, or that takes a model it has not, is not among it."""
    for robot in available_robots():
        profile = load_profile(robot)
        judge = Judge(robot, None if profile.model is None else MujocoKinematics(profile))
        used = judge.use(hold(profile.home, -1.0), minimum_jerk(profile.home, np.full(len(profile.home), 1e-3)))
        names = {"tip_speed": "tip", "workspace": "workspace", "torque": "torque", "torque_rate": "torque_rate"}
        assert set(judged(robot)) - {"joints", "scene"} == {told for name, told in names.items() if name in used}, robot
        assert ("scene" in judged(robot)) == (profile.model is not None)


def test_robots_that_are_finished_do_not_run_again(tmp_path, monkeypatch):
    """After an interruption the same bench goes on; another seed, other code, and code that is not committed begin anew."""
    path, ran = tmp_path / "guard.json", []

    def run(git: str, seed: int = 0) -> dict:
        monkeypatch.setattr("foresight.evaluation.bench_guard.git_commit", lambda: git)
        ran.clear()
        config = BenchGuardConfig(plans=20, profiles=("xarm6",), seed=seed, jobs=1, timed=1, json=path)
        return bench(config, lambda robot, *_: ran.append(robot))

    first = run("abc")
    assert ran == ["xarm6"] and json.loads(path.read_text())["profiles"] == first["profiles"]
    assert run("abc")["profiles"] == first["profiles"] and not ran
    for other in ({"git": "abd"}, {"git": "abd", "seed": 1}, {"git": "abd+"}, {"git": "abd+"}):
        run(**other)
        assert ran, other
    path.write_text("[]")
    run("abc")
    assert ran


def test_an_interrupted_robot_goes_on_with_the_chunks_that_are_left(tmp_path, monkeypatch):
    """After Ctrl-C in the middle the figures are those of a run that nobody interrupted, and no chunk is made twice."""
    monkeypatch.setattr("foresight.evaluation.bench_guard.git_commit", lambda: "abc")
    monkeypatch.setattr("foresight.evaluation.bench_guard.CHUNK", 20)
    path, told = tmp_path / "guard.json", []

    def run(json_path, progress) -> dict:
        return bench(BenchGuardConfig(plans=60, profiles=("xarm6",), jobs=1, timed=1, json=json_path), progress)

    def interrupt(robot: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(path, interrupt)
    begun = json.loads(path.read_text())["begun"]["xarm6"]
    assert len(begun["chunks"]) == 1 and begun["tally"]["plans"] == 20
    resumed = run(path, lambda robot, done, total: told.append(done))["profiles"]["xarm6"]
    whole = run(None, lambda *_: None)["profiles"]["xarm6"]
    assert told == [40, 60] and "begun" not in json.loads(path.read_text())
    assert {k: v for k, v in resumed.items() if "_ms_" not in k} == {k: v for k, v in whole.items() if "_ms_" not in k}


def test_nothing_more_is_done_to_an_empty_plan():
    """A mutation that leaves no point is the last one, whatever chance says."""
    nothing = Trajectory(np.zeros(0), *(np.zeros((0, 6)) for _ in range(3)))
    for seed in range(200):
        assert not len(mutated(Candidate(nothing, ("a",) * 6, 0.0, 0.0), None, np.random.default_rng(seed)).trajectory.times_s)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--plans", "0"), "--plans must lie between 1 and"),
        (("--plans", "9" * 30), "--plans must lie between 1 and"),
        (("--profiles", "ur5e", "ur5e"), "--profiles names a robot twice"),
        (("--profiles", "puma"), "'puma'"),
    ],
)
def test_bad_flags_give_one_line(capsys, flags, said):
    """A robot without a profile or no plans at all is an error of one line."""
    assert cli.main(["bench", "guard", *flags]) == 2
    assert said in capsys.readouterr().err


def test_the_timed_plan_passes():
    """What is timed is a whole check: its plan passes."""
    times = check_times("ur5e", repeats=3)
    assert 0 < times["p50"] <= times["p999"]


def test_legal_plans_that_are_timed_are_fast_plans_of_fifty_points(monkeypatch):
    """Filled up with points on the same way, of several starts, and among keep-outs where collisions are looked at."""
    timed = []
    monkeypatch.setattr(
        bench_guard, "_timed", lambda plan, kinematics, scene, repeats: timed.append((plan, scene)) or np.ones(repeats)
    )
    for collision in (False, True):
        timed.clear()
        assert legal_check_times("fr3", collision, repeats=6)["plans"] == 6
        assert {len(plan.times_s) for plan, _ in timed} == {50} and len({plan.q[0, 0] for plan, _ in timed}) == 6
        assert np.median([np.abs(plan.dq).max() for plan, _ in timed]) > 0.2
        assert all((scene is not None) == collision for _, scene in timed)
    monkeypatch.undo()
    assert 0 < legal_check_times("fr3", repeats=2)["p50"]
