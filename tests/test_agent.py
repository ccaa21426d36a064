"""The whole loop in one process: what it refuses, and that its arm always has a way to rest."""

import numpy as np
import pytest
import torch

from foresight.agent import Agent
from foresight.data import Goal, Reason, RobotState, Verdict
from foresight.perception.perception import Refusal
from foresight.planning.config import PlannerConfig
from foresight.planning.constraints import NoPlan
from foresight.planning.pursuit import End, PursuitConfig
from foresight.world_model.model import ModelConfig, WorldModel
from sim.scenes import contract
from sim.simulation import Simulation
from tests.untrained import seeing_the_middle


@pytest.fixture(scope="module")
def simulation():
    from foresight.robots.profile import load_profile

    simulation = Simulation(0, load_profile("ur5e"))
    yield simulation
    simulation.close()


@pytest.fixture(scope="module")
def model(simulation) -> WorldModel:
    torch.manual_seed(0)
    config = ModelConfig(latent=8, encoder_width=4, predictor_width=16, predictor_depth=1, head_width=16, max_blocks=4)
    return seeing_the_middle(WorldModel(contract(simulation.profile), config).eval().requires_grad_(False))


@pytest.fixture
def agent(model) -> Agent:
    return Agent(model, "ur5e", PlannerConfig(policy="random"), clock=lambda: 0.0)


def turn(agent, simulation):
    step = agent.step(simulation.images(), simulation.state(), simulation.time_s)
    if step.trajectory is not None:
        simulation.command(step.trajectory)
    simulation.advance(0.1)
    return step


def test_without_a_goal_it_only_watches(agent, simulation):
    """It believes, but plans nothing and sends nothing."""
    simulation.reset("reach", 1)
    step = turn(agent, simulation)
    assert step.belief is not None and step.plan is None and step.trajectory is None


def test_every_command_ends_at_rest_and_passes_the_guard(agent, simulation):
    """Whatever an untrained model wants: what is sent was checked, and its last point is still."""
    scenario = simulation.reset("push", 2)
    agent.set_goal_images(scenario.goal_images, simulation.time_s)
    sent = 0
    for _ in range(15):
        step = turn(agent, simulation)
        if step.trajectory is not None:
            sent += 1
            assert step.verdict.ok
            np.testing.assert_array_equal(step.trajectory.dq[-1], 0)
    assert sent >= 12
    assert simulation.judgement().violations == 0


def test_when_it_falls_silent_the_arm_comes_to_rest(agent, simulation):
    """After the last command the arm stops on the motion it has, with nobody's help."""
    scenario = simulation.reset("push", 3)
    agent.set_goal_images(scenario.goal_images, simulation.time_s)
    for _ in range(6):
        turn(agent, simulation)
    simulation.advance(1.0)
    assert np.linalg.norm(simulation.truth().tip_velocity) < 1e-3


def test_a_joint_state_with_nan_moves_nothing(agent, simulation):
    """Refused with a reason; no plan is made of it."""
    scenario = simulation.reset("reach", 4)
    agent.set_goal_images(scenario.goal_images, simulation.time_s)
    state = simulation.state()
    broken = RobotState(state.stamp_s, np.full(6, np.nan), state.dq)
    step = agent.step(simulation.images(), broken, simulation.time_s)
    assert isinstance(step.refusal, Refusal) and step.plan is None and step.trajectory is None


def test_same_seed_same_episode(agent, simulation):
    """Two runs of an episode send the same commands."""
    runs = []
    for _ in range(2):
        scenario = simulation.reset("push", 5)
        agent.reset()
        agent.set_goal_images(scenario.goal_images, simulation.time_s)
        runs.append([turn(agent, simulation).plan.tip_velocity for _ in range(5)])
    np.testing.assert_array_equal(runs[0], runs[1])


def test_a_goal_that_comes_no_nearer_is_given_up(agent, simulation):
    """The pursuit ends with a typed reason and nothing more is sent."""
    simulation.reset("reach", 6)
    agent.set_goal(Goal(tip=np.array([0.5, 0.0, 0.2])), simulation.time_s, PursuitConfig(patience_s=0.5, near_s=1e-6))
    ends = [turn(agent, simulation).outcome for _ in range(12)]
    outcome = next(e for e in ends if e is not None)
    assert outcome.end is End.UNREACHABLE
    assert turn(agent, simulation).plan is None


def test_goal_images_of_a_missing_camera_are_refused(agent, simulation):
    """The message names the camera that is missing and those that came."""
    scenario = simulation.reset("reach", 7)
    with pytest.raises(ValueError, match=r"\['wrist'\] are missing.*\['front'\]"):
        agent.set_goal_images({"front": scenario.goal_images["front"]}, simulation.time_s)


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        (dict(tip=np.array([2.0, 0.0, 0.1])), "outside the workspace"),
        (dict(tip=np.array([0.45, np.nan, 0.1])), "not finite"),
        (dict(tip=np.array([0.45, 0.0, 0.1]), objective="object"), "needs a goal with"),
        (dict(tip=np.array([0.45, 0.0, 0.1]), objective="nan*to_go"), "finite"),
    ],
)
def test_a_goal_that_makes_no_sense_is_refused_and_the_one_before_goes_on(agent, simulation, goal, words):
    """Nothing of it takes effect."""
    simulation.reset("reach", 8)
    before = Goal(tip=np.array([0.5, 0.0, 0.2]))
    agent.set_goal(before, simulation.time_s)
    with pytest.raises(ValueError, match=words):
        agent.set_goal(Goal(**goal), simulation.time_s)
    assert agent.goal is before and turn(agent, simulation).trajectory is not None


@pytest.mark.parametrize(
    ("error", "end", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), End.INFEASIBLE, "out of memory"),
        (RuntimeError("CUDA error: device-side assert, or no device"), End.INFEASIBLE, "no device"),
        (ValueError("None of the 18 candidates has a finite cost"), End.REFUSED, "finite cost"),
    ],
)
def test_when_the_model_fails_in_motion_the_arm_comes_to_rest_and_the_goal_ends(
    agent, simulation, monkeypatch, error, end, words
):
    """A device without memory is tried again for a while, and then the goal is given up; what cannot be judged is at once."""
    scenario = simulation.reset("push", 9)
    agent.set_goal_images(scenario.goal_images, simulation.time_s, config=PursuitConfig(infeasible_s=0.5))
    for _ in range(5):
        assert turn(agent, simulation).trajectory is not None

    def fail(*arguments):
        raise error

    monkeypatch.setattr(agent.planner.model, "blocks_to_go", fail)
    steps = [turn(agent, simulation) for _ in range(12)]
    assert all(step.trajectory is None and step.belief is not None for step in steps)
    outcome = next(step.outcome for step in steps if step.outcome is not None)
    assert outcome.end is end and words in outcome.detail
    assert np.linalg.norm(simulation.truth().tip_velocity) < 1e-3


@pytest.mark.parametrize(("reason", "examined"), [(Reason.KEEP_OUT, 8), (Reason.NO_TIME, 0)])
def test_where_no_motion_passes_the_arm_comes_to_rest_and_the_goal_ends_as_infeasible(
    agent, simulation, monkeypatch, reason, examined
):
    """What the cheapest motion would break, or that time was short, is told each time; the goal is given up after a while."""
    scenario = simulation.reset("push", 9)
    agent.set_goal_images(scenario.goal_images, simulation.time_s, config=PursuitConfig(infeasible_s=0.5))
    for _ in range(5):
        assert turn(agent, simulation).trajectory is not None
    none = NoPlan(Verdict(reason, "In the way."), examined)
    monkeypatch.setattr(agent.planner, "plan", lambda *arguments: (_ for _ in ()).throw(none))
    steps = [turn(agent, simulation) for _ in range(12)]
    ended = next(i for i, step in enumerate(steps) if step.outcome is not None)
    assert ended == 5 and all(step.trajectory is None and step.plan is None for step in steps)
    assert all(step.verdict.reason is reason and "In the way." in step.verdict.detail for step in steps[: ended + 1])
    outcome = steps[ended].outcome
    assert outcome.end is End.INFEASIBLE and "In the way." in outcome.detail and agent.goal is None
    assert np.linalg.norm(simulation.truth().tip_velocity) < 1e-3


def test_a_device_that_is_gone_before_anything_is_believed_ends_the_goal_too(agent, simulation, monkeypatch):
    """Encoding fails: no belief, no plan, no error; the arm rests, and the goal is given up after a while."""
    scenario = simulation.reset("push", 9)
    agent.set_goal_images(scenario.goal_images, simulation.time_s, config=PursuitConfig(infeasible_s=0.5))
    for _ in range(5):
        assert turn(agent, simulation).trajectory is not None
    monkeypatch.setattr(agent.filter, "update", lambda _: (_ for _ in ()).throw(RuntimeError("CUDA error: no device")))
    steps = [turn(agent, simulation) for _ in range(12)]
    assert all(step.trajectory is None and step.belief is None for step in steps)
    outcome = next(step.outcome for step in steps if step.outcome is not None)
    assert outcome.end is End.INFEASIBLE and "no device" in outcome.detail and agent.goal is None
    assert np.linalg.norm(simulation.truth().tip_velocity) < 1e-3


def test_a_device_that_comes_back_in_time_is_used_again(agent, simulation, monkeypatch):
    """One plan is missed; the pursuit goes on."""
    scenario = simulation.reset("push", 10)
    agent.set_goal_images(scenario.goal_images, simulation.time_s)
    turn(agent, simulation)
    with monkeypatch.context() as patch:
        patch.setattr(
            agent.planner, "plan", lambda *arguments: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
        )
        missed = turn(agent, simulation)
    assert missed.plan is None and missed.outcome is None
    assert turn(agent, simulation).trajectory is not None
