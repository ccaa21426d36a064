"""The episode loop with a simulation and an agent of known behaviour."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from foresight.agent import Step
from foresight.data import Belief, Candidate, Plan, Reason, RobotState, Trajectory, Verdict
from foresight.evaluation.config import EvaluateConfig
from foresight.planning.config import PlannerConfig
from foresight.planning.pursuit import End, Outcome
from foresight.safety.guard import Guard
from sim.episodes import _build, evaluate, run_episode
from sim.simulation import Judgement
from sim.unguarded import Unguarded

PICTURES = {"front": np.zeros((16, 16, 3), np.uint8)}


@dataclass
class Line:
    """A world of one number that moves to what was last commanded; held at 1 for half a second, it is solved."""

    time_s: float = 100.0
    x: float = 0.0
    held_s: float = 0.0
    shifts: list = field(default_factory=list)

    def reset(self, task, seed, shift="none"):
        self.x, self.held_s = 0.0, 0.0
        self.shifts.append((task, seed, shift))
        return SimpleNamespace(goal_images=PICTURES, time_limit_s=2.0, latency_s=0.0)

    def restart_clock(self):
        self.time_s = 0.0

    def images(self):
        return PICTURES

    def state(self):
        return RobotState(self.time_s, np.full(1, self.x), np.zeros(1))

    def command(self, trajectory):
        self.x = float(trajectory.q[-1, 0])

    def advance(self, duration_s):
        self.time_s += duration_s
        self.held_s = self.held_s + duration_s if self.x >= 0.99 else 0.0

    def close(self):
        pass

    def judgement(self):
        return Judgement(self.held_s >= 0.5 - 1e-9, self.held_s, abs(1 - self.x), 0, "", path_m=self.x)


@dataclass
class Walker:
    """Walks a fixed way each step, or is refused by its guard."""

    stride: float
    refused: bool = False
    gives_up_after: int = 0  # steps
    goals: list = field(default_factory=list)
    times: list = field(default_factory=list)

    def reset(self):
        self.times.clear()

    def set_goal_images(self, images, now_s, object_only=False):
        self.goals.append(object_only)

    def step(self, images, state, now_s):
        self.times.append(now_s)
        plan = Plan(now_s, "toy", 0.1, np.zeros((3, 3)), 1.0, {}, 1.0, np.zeros((1, 2), np.float32), 1, 0.02, "actor")
        belief = Belief(now_s, "toy", np.zeros(2, np.float32), np.zeros(7, np.float32), 1.5)
        if self.refused:
            return Step(belief=belief, plan=plan, verdict=Verdict(Reason.WORKSPACE, "no"))
        way = Trajectory(np.array([now_s]), np.array([[min(1.0, state.q[0] + self.stride)]]), np.zeros((1, 1)))
        outcome = Outcome(End.UNREACHABLE, "enough") if len(self.times) == self.gives_up_after else None
        return Step(way, belief=belief, plan=plan, verdict=Verdict(Reason.OK), outcome=outcome)

    def watch(self, state, now_s):
        return Step()

    model = SimpleNamespace(decode=lambda latents: np.zeros((len(latents), 1, 8, 8, 3), np.uint8))


def build(config, policy):
    """Ours reaches the goal, the random one does not."""
    return Line(), Walker(0.25 if policy == "both" else 0.0)


def test_an_episode_ends_when_the_goal_has_been_held():
    """Four steps of 0.25 reach the goal at 0.3 s; it is held for 0.5 s by 0.8 s, and then the episode is over."""
    result = run_episode(Line(), Walker(0.25), "reach", seed=5)
    assert result.success and result.reason == "reached" and result.time_to_goal_s == pytest.approx(0.8)
    assert result.final_distance_m == 0 and set(result.planning_ms) == {20.0} and set(result.surprise) == {1.5}


def test_the_agent_is_asked_every_tenth_of_a_second():
    """Between two looks exactly 0.1 s of simulated time passes."""
    agent = Walker(0.25)
    run_episode(Line(), agent, "reach", seed=5)
    np.testing.assert_allclose(np.diff(agent.times), 0.1)


def test_an_episode_without_success_ends_at_its_limit():
    """An agent that stays away runs into the time limit of 2 s and has no time to goal."""
    result = run_episode(Line(), Walker(0.0), "push", seed=5)
    assert not result.success and result.reason == "timed_out" and result.time_to_goal_s is None
    assert result.duration_s == pytest.approx(2.0) and result.final_distance_m == 1.0


def test_refused_commands_are_counted_and_named():
    """When the guard refuses, nothing moves and the result says so."""
    result = run_episode(Line(), Walker(1.0, refused=True), "reach", seed=5)
    assert not result.success and "21 of 21 steps refused, last: workspace" in result.reason


def test_an_agent_that_gives_up_ends_the_episode():
    """When the planner ends its pursuit, the judge looks on for 0.8 s and the result tells the planner's reason."""
    result = run_episode(Line(), Walker(0.0, gives_up_after=3), "push", seed=5)
    assert (
        not result.success and result.reason == "ended by the planner as unreachable" and result.duration_s == pytest.approx(1.0)
    )


def test_only_the_object_counts_when_the_goal_image_shows_the_arm_elsewhere():
    """push_object_goal asks the agent to ignore the arm in the goal image; the other tasks do not."""
    agent = Walker(1.0)
    for task in ("reach", "push", "push_object_goal"):
        run_episode(Line(), agent, task, seed=5)
    assert agent.goals == [False, False, True]


def test_evaluation_counts_ours_and_the_random_floor(tmp_path):
    """Every task gets its episodes, the floor runs on the same first scenes, and progress hears of each."""
    heard = []
    config = EvaluateConfig(task=("reach", "push"), episodes=3, random_episodes=2, seed=7, jobs=1)
    report, episodes = evaluate(config, heard.append, build)
    assert len(heard) == len(episodes) == 10
    assert (report.tasks["push"].episodes, report.tasks["push"].successes) == (3, 3)
    assert (report.tasks["push"].random_episodes, report.tasks["push"].random_successes) == (2, 0)
    assert [e.seed for e in episodes if e.task == "reach"] == [700_000, 700_001, 700_002, 700_000, 700_001]


def test_what_was_done_before_ctrl_c_is_reported(tmp_path):
    """As interrupted, without the episodes that were not; with none of ours there is nothing to report."""

    def interrupt_after(count):
        seen = []

        def progress(result):
            seen.append(result)
            if len(seen) == count:
                raise KeyboardInterrupt

        return progress

    config = EvaluateConfig(task=("reach",), episodes=5, random_episodes=2, seed=0, jobs=1)
    report, episodes = evaluate(config, interrupt_after(3), build)
    assert report.interrupted and report.to_json()["interrupted"] and len(episodes) == 3
    assert report.tasks["reach"].episodes == 3 and report.tasks["reach"].random_successes is None

    def interrupted(config, policy):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(config, build=interrupted)


def test_failures_keep_their_videos_and_successes_only_the_first(tmp_path):
    """With a report folder every failure is kept as mp4, and as many successes as asked for."""
    evaluate(EvaluateConfig(task=("reach",), episodes=2, random_episodes=0, videos=1, jobs=1, report=tmp_path), build=build)
    assert [p.name for p in (tmp_path / "videos").iterdir()] == ["reach_000.mp4"]
    evaluate(EvaluateConfig(task=("push",), episodes=1, policy="actor", videos=0, jobs=1, report=tmp_path), build=build)
    assert (tmp_path / "videos/push_000.mp4").is_file()


@pytest.mark.timeout(60)
def test_several_processes_give_what_one_gives():
    """The number of processes changes neither order nor outcome."""
    results = [
        evaluate(EvaluateConfig(task=("reach",), episodes=3, random_episodes=1, jobs=jobs), build=build)[1] for jobs in (1, 2)
    ]
    facts = [[(e.seed, e.policy, e.success, e.time_to_goal_s) for e in episodes] for episodes in results]
    assert facts[0] == facts[1]


def test_one_process_calculates_in_one_thread_as_each_of_several_does():
    """torch's sums over two threads could come out otherwise; afterwards the caller has the threads that it had."""
    seen, before = [], torch.get_num_threads()

    def counting(config, policy):
        seen.append(torch.get_num_threads())
        return build(config, policy)

    torch.set_num_threads(2)
    try:
        evaluate(EvaluateConfig(task=("reach",), episodes=1, random_episodes=0, jobs=1), build=counting)
        assert seen == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_without_a_guard_everything_is_sent(profile, kinematics, start):
    """What the guard refuses passes, joins what was in force, and nothing is relieved."""
    guard = Unguarded(profile, kinematics)
    leap = Trajectory(np.array([0.1, 0.2]), np.stack([start, start + 2.0]), np.zeros((2, 6)), np.zeros((2, 6)))
    state = RobotState(0.0, start, np.zeros(6))
    candidate = Candidate(leap, profile.joint_names, 0.0, 0.0)
    assert not Guard(profile, kinematics).offer(candidate, state, 0.0).ok
    assert guard.offer(candidate, state, 0.0).ok and (guard.forward.q[-1] == start + 2.0).all()
    assert guard.relieve(RobotState(0.3, start - 1.0, np.zeros(6)), 0.3) is None


def test_a_run_without_a_guard_says_so_in_its_arguments():
    """And is refused through ROS, where the guard is always there."""
    config = EvaluateConfig(guard=False)
    assert "--no-guard" in config.to_arguments() and "--no-guard" not in EvaluateConfig().to_arguments()
    with pytest.raises(ValueError, match="--no-guard is for runs in process"):
        EvaluateConfig(guard=False, ros=True)


def test_how_much_is_searched_reaches_the_planner_and_the_report():
    """By the policy that searches; the random floor is as it was."""
    chosen = {"method": "cem", "samples": 64, "iterations": 3}
    config = EvaluateConfig(task=("reach",), episodes=1, random_episodes=0, policy="both", **chosen)
    (simulation, agent), (other, floor) = _build(config, "both"), _build(config, "random")
    simulation.close(), other.close()
    made = agent.planner.config
    assert (made.refine_method, made.samples, made.iterations) == ("cem", 64, 3)
    assert floor.planner.config == PlannerConfig(policy="random", deadline_s=float("inf"))
    assert "--method cem --samples 64 --iterations 3" in " ".join(config.to_arguments())
    assert evaluate(config, lambda result: None, build)[0].searching == chosen
    other, alone = _build(EvaluateConfig(policy="search", method="mppi", samples=32, iterations=2), "search")
    other.close()
    made = alone.planner.config
    assert (made.search_method, made.search_samples, made.search_iterations) == ("mppi", 32, 2)
