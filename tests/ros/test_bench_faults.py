"""Stop trials: the bound, the sums, what is refused, and one real death of a planner at full speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from foresight_nodes import bench_faults
from foresight_nodes.bench_faults import summarise, told
from foresight_nodes.full_speed_planner import RoundTrips, Swing, swinging
from foresight_nodes.stop_trials import bound_s, find_swing

from foresight.control.trajectory import derivatives
from foresight.ros_environment import environment

TRIAL = {
    "robot": "ur5e", "signal": "kill", "rest_s": 0.2, "bound_s": 0.28, "speed": 0.77, "violations": [], "stalls": 1,
    "unmatched": 0,
}  # fmt: skip


def test_the_bound_is_the_timeout_the_braking_and_twenty_milliseconds(profile):
    """0.1 s + 0.8 rad/s / 5 rad/s^2 + 0.02 s on a UR5e."""
    assert bound_s(profile, 0.1) == pytest.approx(0.1 + 0.16 + 0.02)


def test_a_swing_is_as_fast_as_the_cap_nearly_allows_and_comes_to_rest(profile):
    """Its last joint reaches the speed at which trials begin; it survives the way to another process."""
    swing = Swing.from_json(find_swing(profile, 0).to_json())
    still = np.zeros(6)
    motion = swinging(swing.ends[1], swing.ends[0], still, still, profile, swing.speed, 0.0)
    _, dq, _, _ = derivatives(motion, np.arange(0.0, motion.times_s[-1], 0.002))
    assert 0.95 * 0.8 < np.abs(dq).max() <= 0.8 and np.abs(motion.dq[-1]).max() == 0.0


def test_the_sum_counts_what_is_late_and_what_broke_a_limit():
    """For each signal, of all robots and of each, with the longest and the median."""
    late = {**TRIAL, "rest_s": 0.3, "violations": ["joint speed of elbow"], "stalls": 0}
    figures = summarise([TRIAL, TRIAL, late, {**TRIAL, "signal": "freeze"}], {"ur5e": [1.0, 2.0, 9.0], "fr3": []})
    kill = figures["stop"]["kill"]["robots"]["ur5e"]
    assert {**figures["stop"]["kill"], "robots": 0} == {**kill, "robots": 0}, "there is one robot"
    assert (kill["trials"], kill["stopped"], kill["max_s"], kill["p50_s"], kill["bound_s"]) == (3, 2, 0.3, 0.2, 0.28)
    assert kill["runs_thrown_away"] == 2 and figures["violations"] == 1 and figures["late"] == [late]
    assert figures["stop"]["freeze"]["stopped"] == 1 and "guard" not in figures["stop"]
    assert figures["round_trip_ms"]["ur5e"]["p50"] == 2.0 and figures["round_trip_ms"].keys() == {"ur5e"}
    assert "round trip of 3 plans: p50 2.0" in told(figures)
    assert "2 of 3 at rest within the bound (0.280 s)" in told(figures) and "1 violations" in told(figures)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--trials", "-1"], "--trials must lie between 0 and 1000000, got -1"),
        (["--profiles", "r2d2"], "Robot 'r2d2' has no profile. Available:"),
        (["--matrix", "--nodes", "moon"], "no node 'moon'. There are: guard"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(words, says, capsys):
    """Before anything is started."""
    assert bench_faults.main(words) == 2
    told = capsys.readouterr().err
    assert says in told and len(told.splitlines()) == 1


def test_a_round_trip_is_of_the_plan_that_the_command_answers():
    trips = RoundTrips()
    for end_s, at_s in ((5.0, 1.00), (6.0, 1.02), (6.0, 1.04), (7.0, 1.06)):
        trips.sent(end_s, at_s)
    trips.answered(6.0, 1.05)  # the first was refused; the next had been sent before the answer came
    trips.answered(5.0, 1.06)  # too late: what came after it was answered
    trips.answered(6.0, 1.07)
    trips.answered(8.0, 1.08)  # a stop that nobody proposed
    np.testing.assert_allclose(trips.ms, [30.0, 30.0])


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_planner_killed_at_full_speed_leaves_an_arm_at_rest_within_limits():
    """One SIGKILL, one SIGSTOP and one death of the guard itself, over real processes; no limit is broken by the true states."""
    config = {"robot": "ur5e", "kill": 1, "freeze": 1, "guard": 1, "seed": 1, "round_trip_s": 3.0, "round_trip_hz": 20.0}
    done = subprocess.run(
        [sys.executable, "-m", "foresight_nodes.stop_trials", json.dumps(config)],
        env=environment(dict(os.environ)), capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    *trials, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [trial.get("signal") for trial in trials] == ["kill", "freeze", "guard"], done.stdout + done.stderr
    assert len(last["round_trips_ms"]) > 10 and 0 < min(last["round_trips_ms"]) < 50
    assert all(trial["violations"] == [] and trial["speed"] > 0.7 for trial in trials)
    assert all(trial["rest_s"] <= trial["bound_s"] + 0.1 for trial in trials)  # the machine may be busy with other tests
