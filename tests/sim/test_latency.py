"""Latency between observation and motion: when the motion begins, what a plan begins with, and what that is worth."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from foresight.agent import Agent
from foresight.control.trajectory import sample
from foresight.data import RobotState
from foresight.evaluation.config import EvaluateConfig
from foresight.planning.planner import Planner
from foresight.world_model.model import ModelConfig, WorldModel
from sim.latency import WITHIN, LatencyConfig, bench, summary
from tests.planning.toy import ToyModel, belief_at, goal_at
from tests.sim.test_episodes import Line, Walker

BEGIN, GOAL, PERIOD_S = np.array([0.40, -0.12, 0.10]), np.array([0.50, 0.08, 0.10]), 0.1


def agent_of(profile, **late) -> Agent:
    """An agent in the toy world, where an exact model tells where the tip is."""
    toy = ToyModel(profile)
    sizes = ModelConfig(latent=8, encoder_width=4, predictor_width=16, predictor_depth=1, head_width=16, max_blocks=4)
    agent = Agent(WorldModel(toy.contract, sizes).eval(), "ur5e", clock=lambda: 0.0, **late)
    agent.model, agent.planner = toy, Planner(toy, profile)
    agent.filter = SimpleNamespace(update=lambda seen: belief_at(seen.tip, seen.tip_velocity, seen.stamp_s), reset=lambda: None)
    return agent


def drive(agent: Agent, steps: int, watch=lambda agent, now_s: None) -> tuple[np.ndarray, list]:
    """An arm that does as it is told, seen every 0.1 s: the tip's way [m] every 20 ms, and what the agent did."""
    rng, q = np.random.default_rng(0), agent.kinematics.solve(BEGIN, agent.profile.home)
    agent.set_goal(goal_at(GOAL), 10.0)
    way, taken, dq = [], [], np.zeros_like(q)
    for i in range(steps):
        now_s = 10.0 + PERIOD_S * i
        watch(agent, now_s)
        images = {"front": rng.integers(50, 200, (8, 8, 3), np.uint8)}
        taken.append(agent.step(images, RobotState(now_s, q, dq), now_s))
        for t in now_s + 0.02 * np.arange(1, 6):
            q, dq = (q, dq) if agent.guard.in_force is None else sample(agent.guard.in_force, float(t))
            way.append(agent.kinematics.tip(q))
    return np.array(way), taken


@pytest.mark.parametrize("compensates", [True, False])
@pytest.mark.parametrize("latency_s", [0.0, 0.05, 0.1, 0.2])
def test_motion_begins_when_the_latency_is_over(profile, latency_s, compensates):
    """What is seen at some time changes nothing before the latency has passed, and the guard passes what comes then."""
    agent = agent_of(profile, latency_s=latency_s, compensates=compensates)
    _, taken = drive(agent, 6)
    for i, step in enumerate(taken):
        assert step.verdict.ok and step.plan.trajectory.times_s[0] == pytest.approx(10.0 + PERIOD_S * i + latency_s)


def test_a_plan_begins_with_what_the_arm_will_do_meanwhile(profile):
    """Compensated, with the velocities that are in force until the motion begins; else with what is seen, as if it were then."""
    for compensates, committed, seen_s in ((True, 2, 10.5), (False, 0, 10.7)):
        agent, asked = agent_of(profile, latency_s=0.2, compensates=compensates), []
        plan = agent.planner.plan

        def spy(belief, goal, start, *rest, plan=plan, asked=asked):
            asked.append((belief, start))
            return plan(belief, goal, start, *rest)

        agent.planner.plan = spy
        before = []
        drive(agent, 6, lambda agent, now_s, before=before: before.append(agent.guard.in_force))
        belief, start = asked[-1]
        expected = [agent.kinematics.tip_velocity(*sample(before[-1], t)) for t in seen_s + PERIOD_S * np.arange(committed + 1)]
        assert belief.stamp_s == pytest.approx(seen_s)
        np.testing.assert_allclose(np.vstack([start.velocity, start.committed]), expected, atol=1e-9)


def test_without_latency_compensation_changes_nothing(profile):
    """The same way to the last bit."""
    (one, _), (other, _) = (drive(agent_of(profile, compensates=c), 12) for c in (True, False))
    np.testing.assert_array_equal(one, other)


def test_planning_ahead_keeps_a_late_arm_from_overshooting(profile):
    """200 ms late, an arm whose plans begin where it will be stays by its goal as one without latency does; else it passes it."""
    direction = (GOAL - BEGIN) / np.linalg.norm(GOAL - BEGIN)
    beyond = {}
    for name, late in {"none": {}, "then": {"latency_s": 0.2}, "seen": {"latency_s": 0.2, "compensates": False}}.items():
        way, _ = drive(agent_of(profile, **late), 26)
        beyond[name] = float(((way - GOAL) @ direction).max())
    assert beyond["then"] < beyond["none"] + 0.002 < beyond["seen"] - 0.005, beyond


def build(config: EvaluateConfig, policy: str):
    """Stands still from 100 ms on where the latency is not compensated, from 200 ms on in any case."""
    return Line(), Walker(0.25 if config.latency_ms < (200 if config.compensate else 100) else 0.0)


def test_the_table_has_a_row_for_each_cell_and_says_whether_success_is_kept():
    """Rates, Wilson intervals and points away from no latency; kept up to 100 ms here, and not where 100 ms fail as well."""
    config = LatencyConfig(task=("reach",), episodes=4, seed=3, jobs=1)
    found = bench(config, build=build)
    rows = {(row["latency_ms"], row["compensated"]): row for row in found["rows"]}
    assert list(rows) == [(0, True), (50, True), (50, False), (100, True), (100, False), (200, True), (200, False)]
    assert rows[100, True]["rate"] == 1 and rows[100, True]["points_from_none"] == 0
    assert rows[100, False]["successes"] == 0 and rows[100, False]["points_from_none"] == -100
    assert rows[100, False]["ci95"] == [0.0, 0.4899] and found[WITHIN]
    assert "100 ms  when seen" in summary(found) and "up to 100 ms: yes" in summary(found)
    failing = bench(
        replace(config, latencies_ms=(0.0, 100.0)), build=lambda c, p: (Line(), Walker(0.25 if not c.latency_ms else 0))
    )
    assert not failing[WITHIN] and "up to 100 ms: no" in summary(failing)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EvaluateConfig(latency_ms=250.0), "--latency-ms.*below 250.*got 250"),
        (lambda: EvaluateConfig(latency_ms=float("nan")), "--latency-ms.*got nan"),
        (lambda: EvaluateConfig(latency_ms=50.0, ros=True), "--latency-ms and --no-compensate are for runs in process"),
        (lambda: EvaluateConfig(compensate=False, ros=True), "--latency-ms and --no-compensate are for runs in process"),
        (lambda: LatencyConfig(latencies_ms=(50.0, 100.0)), "--latencies-ms must be 0 and then others"),
        (lambda: LatencyConfig(latencies_ms=(0.0, 50.0, 50.0)), "each once"),
        (lambda: LatencyConfig(episodes=0), "--episodes"),
    ],
)
def test_nonsense_is_refused(make, words):
    """The flag and the value stand in the message."""
    with pytest.raises(ValueError, match=words):
        make()
