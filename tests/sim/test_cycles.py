"""Cycles against a clock of known behaviour, on an arm that does as it is told: misses, what covers them, and jumps."""

from dataclasses import replace
from itertools import count, cycle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foresight.data import Reason, RobotState, Trajectory, Verdict
from foresight.planning.constraints import NoPlan
from sim.controller import TrajectoryController
from sim.cycles import TICK_S, CyclesConfig, bench, summary
from tests.planning.toy import goal_at
from tests.sim.test_latency import BEGIN, GOAL, agent_of

CONFIG = CyclesConfig(cycles=24, held_back=0.0, threads=1, task=("reach",))


class Arm:
    """A controller and a clock; each episode lasts 1.5 s."""

    def __init__(self, agent) -> None:
        self.profile, self.time_s, self.commands = agent.profile, 10.0, 0
        self._begin, self._rng = agent.kinematics.solve(BEGIN, agent.profile.home), np.random.default_rng(0)

    def reset(self, task, seed):
        self._controller = TrajectoryController(self._begin, self.time_s)
        return SimpleNamespace(goal_images={}, time_limit_s=1.5)

    def images(self):
        return {"front": self._rng.integers(50, 200, (8, 8, 3), np.uint8)}

    def state(self):
        return RobotState(self.time_s, *self._controller.setpoints(self.time_s))

    def command(self, trajectory):
        self.commands += 1
        return self._controller.accept(trajectory, self.time_s)

    def setpoints(self, times_s):
        return self._controller.setpoints(times_s)

    def advance(self, duration_s):
        self.time_s += duration_s

    def judgement(self):
        return SimpleNamespace(success=False)

    def close(self):
        pass


@pytest.fixture
def built(profile):
    agent = agent_of(profile, latency_s=0.1)
    agent.set_goal_images = lambda images, now_s, object_only: agent.set_goal(goal_at(GOAL), now_s)
    threads = torch.get_num_threads()
    yield Arm(agent), agent
    torch.set_num_threads(threads)


def clock(*took_s: float):
    """Cycles take so long, in turn. It is read once before them and then at the begin and the end of each."""
    now_s, taken, reads = 0.0, cycle(took_s), count()

    def read() -> float:
        nonlocal now_s
        n = next(reads)
        now_s += next(taken) if n > 0 and n % 2 == 0 else 0.0
        return now_s

    return read


def test_plans_in_time_take_over_without_a_jump(built):
    """None is missed; position and velocity go on where one plan follows another, and from tick to tick."""
    found = bench(CONFIG, build=lambda config: built, clock=clock(0.06))
    assert found["ok"] and found["p99_within_period"] and found["misses"] == found["held_back"] == found["uncovered"] == 0
    assert found["cycles"] == found["plans"] == built[0].commands == 24 and found["episodes"] == 2
    assert found["hand_overs"] == 24 - 2 and found["hand_overs_in_motion"] > 10
    assert found["position_jump_rad"] < 1e-9 and found["velocity_jump_of_a_max_dt"] < 1e-6
    assert 0.01 < found["tick_velocity_of_a_max_dt"] <= 1  # it moves
    assert "p50 60, p95 60, p99 60, longest 60 ms" in summary(found)


def test_a_plan_that_comes_late_is_dropped_and_the_arm_goes_on(built):
    """Every fourth cycle takes 0.15 s: its plan is not sent, the motion in force covers it, and the next joins that."""
    found = bench(CONFIG, build=lambda config: built, clock=clock(0.05, 0.05, 0.05, 0.15))
    assert found["misses"] == 6 and built[0].commands == 18 and found["uncovered"] == 0 and found["ok"]
    assert not found["p99_within_period"] and found["cycle_ms"]["max"] == pytest.approx(150)


def test_a_plan_for_which_there_is_no_time_is_a_miss_that_is_covered(built, monkeypatch):
    """Every fourth is never made: the arm goes on along the motion that it has."""
    _, agent = built
    plan, turns = agent.planner.plan, count(1)

    def hurried(*arguments):
        if next(turns) % 4 == 0:
            raise NoPlan(Verdict(Reason.NO_TIME, "No time for a plan."), 0)
        return plan(*arguments)

    monkeypatch.setattr(agent.planner, "plan", hurried)
    found = bench(CONFIG, build=lambda config: built, clock=clock(0.05))
    assert found["misses"] == 6 and built[0].commands == found["plans"] == 18 and found["uncovered"] == 0 and found["ok"]


def test_hand_overs_can_be_counted_on_a_slow_machine(built):
    """With a longer limit no plan is dropped, and that cycles take longer than their period is still told."""
    found = bench(replace(CONFIG, limit_ms=500.0), build=lambda config: built, clock=clock(0.3))
    assert found["misses"] == 0 and found["hand_overs"] == 22 and found["ok"] and not found["p99_within_period"]


def test_plans_held_back_on_purpose_are_covered_too(built):
    """Half of them, and at times several in a row: the arm comes to rest and sets out again, without a jump."""
    found = bench(replace(CONFIG, held_back=0.6), build=lambda config: built, clock=clock(0.01))
    assert found["held_back"] > 9 and built[0].commands == 24 - found["held_back"] and found["misses"] == 0
    assert found["uncovered"] == 0 and found["ok"]


def test_a_motion_without_a_stop_covers_nothing(built):
    """Where what is in force ends in motion, each plan that is missing is counted as not covered."""
    _, agent = built
    step = agent.step

    def without_tail(images, state, now_s):
        taken, whole = step(images, state, now_s), agent.guard.in_force
        if taken.trajectory is not None:
            kept = whole.times_s < now_s + 0.35
            agent.guard.in_force = Trajectory(*(v[kept] for v in (whole.times_s, whole.q, whole.dq, whole.ddq)))
        return taken

    agent.step = without_tail
    found = bench(replace(CONFIG, cycles=8), build=lambda config: built, clock=clock(0.05, 0.05, 0.05, 0.05, 0.05, 0.15))
    assert found["misses"] == 1 and found["uncovered"] == 1 and not found["ok"]


@pytest.mark.parametrize("jump_rad", [3e-4, 0.02])
def test_a_controller_that_jumps_is_noticed(built, jump_rad):
    """Between two ticks the position leaps by more than the velocity explains."""
    arm, _ = built
    setpoints = arm.setpoints
    arm.setpoints = lambda t: (setpoints(t)[0] + jump_rad * (np.asarray(t) > 10.7)[:, None], setpoints(t)[1])
    found = bench(replace(CONFIG, cycles=10), build=lambda config: built, clock=clock(0.01))
    assert found["tick_position_rad"] == pytest.approx(jump_rad, rel=0.05) and not found["ok"]


def test_a_plan_that_does_not_join_the_motion_in_force_is_noticed(built):
    """What is sent begins 1 mrad and 20 mrad/s beside the motion that it follows."""
    _, agent = built
    step = agent.step

    def beside(images, state, now_s):
        taken = step(images, state, now_s)
        if taken.trajectory is None:
            return taken
        sent = taken.trajectory
        return replace(taken, trajectory=Trajectory(sent.times_s, sent.q + 1e-3, sent.dq + 0.02, sent.ddq))

    agent.step = beside
    found = bench(replace(CONFIG, cycles=5), build=lambda config: built, clock=clock(0.01))
    assert found["position_jump_rad"] == pytest.approx(1e-3, rel=1e-6) and not found["ok"]
    assert found["velocity_jump_of_a_max_dt"] == pytest.approx(0.02 / (agent.profile.acceleration_max.min() * TICK_S), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cycles": 0}, "--cycles"),
        ({"period_ms": 250.0}, "--period-ms"),
        ({"held_back": 1.0}, "--held-back"),
        ({"limit_ms": 0.0}, "--limit-ms"),
        ({"task": ()}, "--task"),
    ],
)
def test_nonsense_is_refused(change, words):
    """The flag stands in the message."""
    with pytest.raises(ValueError, match=words):
        CyclesConfig(**change)
