"""A model that moves the gripper: its command is imagined, chosen and sent with the motion, and is open or closed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from foresight.agent import Agent
from foresight.contract import TIP, TIP_AND_GRIPPER
from foresight.data import Observation, Reason, RobotState, Start
from foresight.planning.config import PlannerConfig
from foresight.planning.constraints import Constraints, Juncture, NoPlan
from foresight.planning.planner import Planner
from foresight.world_model.belief import BeliefFilter
from foresight.world_model.model import ModelConfig, WorldModel, proprio_of
from tests.planning.toy import ToyModel, belief_at, goal_at
from tests.untrained import seeing_the_middle

TIP_AT, GOAL = np.array([0.45, 0.0, 0.10]), np.array([0.45, 0.05, 0.10])
SIZES = ModelConfig(latent=8, encoder_width=4, predictor_width=16, predictor_depth=1, head_width=16, max_blocks=4)


class Grasping(ToyModel):
    """The toy with a gripper: the goal counts as near only while it is closed. The actor leaves it half open."""

    def __init__(self, profile) -> None:
        super().__init__(profile)
        self.contract = replace(self.contract, action=TIP_AND_GRIPPER)
        self.asked: list[torch.Tensor] = []

    def imagine(self, latent, proprio, block):
        steps = block.unflatten(-1, (-1, 4))
        self.asked.append(steps[..., 3])
        latent, proprio = super().imagine(latent, proprio, steps[..., :3].flatten(1))
        proprio = proprio.clone()
        proprio[:, -7] = 1 - steps[:, -1, 3]
        return latent, proprio

    def propose(self, latent, proprio, goal, k):
        tip = super().propose(latent, proprio, goal, k).unflatten(-1, (-1, 3))
        return torch.cat([tip, torch.full_like(tip[..., :1], 0.45)], -1).flatten(1)

    def blocks_to_go(self, latent, proprio, goal):
        return super().blocks_to_go(latent, proprio, goal) + 3 * proprio[:, -7]


def belief(opening: float):
    seen = belief_at(TIP_AT)
    return replace(seen, proprio=np.concatenate([seen.proprio[:6], [opening], seen.proprio[6:]]).astype(np.float32))


def plan_from(model, policy: str, closed: float, committed: int = 0, gripper_noise: float = 0.5):
    planner = Planner(model, model.profile, PlannerConfig(policy=policy, gripper_noise=gripper_noise))
    start = Start(np.zeros(3), np.zeros((committed, 3)), closed)
    return planner, planner.plan(belief(1 - closed), goal_at(GOAL), start, torch.Generator().manual_seed(0), lambda: 0.0)


@pytest.fixture
def grasping(profile) -> Grasping:
    model = Grasping(profile)
    model.profile = profile
    return model


def test_the_contract_counts_the_gripper(grasping):
    """One more number a step, and one more of proprioception."""
    with_it, without = grasping.contract, replace(grasping.contract, action=TIP)
    assert (with_it.step_size, with_it.block_size, with_it.proprio_size) == (4, 12, 13)
    assert (without.step_size, without.block_size, without.proprio_size) == (3, 9, 12)


@pytest.mark.parametrize(("policy", "share"), [("both", 0.2), ("search", 0.6)])
def test_search_closes_the_gripper_that_the_actor_leaves_open(grasping, policy, share):
    """Candidates with a closed gripper are cheaper; commands are 0 or 1 in imagination and in the plan."""
    _, plan = plan_from(grasping, policy, closed=0.0)
    assert plan.tip_velocity.shape == (12, 3) and plan.closed.shape == (12,)
    assert set(np.unique(plan.closed)) <= {0.0, 1.0} and plan.closed.mean() > share
    assert all(set(asked.unique().tolist()) <= {0.0, 1.0} for asked in grasping.asked)


def test_without_noise_of_the_gripper_it_is_as_the_proposals_have_it(grasping):
    """0.45 is open, though a closed one would be cheaper."""
    _, plan = plan_from(grasping, "both", closed=0.0, gripper_noise=0.0)
    assert plan.source in ("search", "actor") and (plan.closed == 0).all()


def test_the_actor_alone_is_rounded_and_what_is_bound_to_happen_stays(grasping):
    """0.45 is open; in steps that are committed the gripper is as it was told before."""
    _, plan = plan_from(grasping, "actor", closed=1.0, committed=2)
    assert plan.closed.tolist() == [1.0, 1.0] + [0.0] * 10


def test_random_motion_and_standing_still_leave_the_gripper_as_it_is(grasping):
    """And the last plan, tried again, goes on with its own commands."""
    for closed in (0.0, 1.0):
        planner, plan = plan_from(grasping, "random", closed)
        assert (plan.closed == closed).all()
        assert (planner._rest(closed)[..., 3] == closed).all() and (planner._rest(closed)[..., :3] == 0).all()
    earlier = replace(plan, closed=np.arange(12.0))
    assert planner._shifted(earlier, plan.stamp_s + 0.3)[0, :, 3].tolist() == [*range(3, 12), 11, 11, 11]


def test_a_model_without_a_gripper_plans_none(profile):
    """As ever."""
    planner = Planner(ToyModel(profile), profile)
    plan = planner.plan(belief_at(TIP_AT), goal_at(GOAL), Start(np.zeros(3)), torch.Generator().manual_seed(0), lambda: 0.0)
    assert plan.closed is None


def test_the_opening_is_part_of_proprioception_and_must_be_told(grasping):
    """Between the joints and the tip, so that the tip is found where it always is."""
    zero = np.zeros(6)
    seen = Observation(1.0, np.zeros((1, 16, 16, 3), np.uint8), zero, zero, TIP_AT, np.zeros(3), opening=0.7)
    assert proprio_of(seen, grasping.contract)[6:10] == pytest.approx([0.7, *TIP_AT])
    with pytest.raises(ValueError, match="does not tell how far it is open"):
        proprio_of(replace(seen, opening=None), grasping.contract)


def test_a_belief_remembers_the_gripper_when_it_is_surprised(grasping):
    """One block after an observation the surprise is known, from a block of actions with the gripper in it."""
    torch.manual_seed(0)
    beliefs, zero = BeliefFilter(WorldModel(grasping.contract, SIZES).eval()), np.zeros(6)
    images = np.zeros((1, 16, 16, 3), np.uint8)
    for stamp_s, opening in ((1.0, 1.0), (1.3, 0.0)):
        found = beliefs.update(Observation(stamp_s, images, zero, zero, TIP_AT, np.zeros(3), opening=opening))
    assert np.isfinite(found.surprise)


def test_the_agent_sends_the_gripper_its_command_in_a_simulated_episode(profile):
    """An untrained model with a gripper runs an episode of pick and place; the command follows plans that the guard passed, as
    far ahead of the fingers as their force allows."""
    from sim.episodes import run_episode
    from sim.scenes import contract
    from sim.simulation import Simulation

    torch.manual_seed(0)
    model = seeing_the_middle(WorldModel(contract(profile, gripper=True), SIZES).eval().requires_grad_(False))
    agent = Agent(model, "ur5e", clock=lambda: 0.0)
    simulation, told, steps = Simulation(0, profile), [], []
    grip, step, gripper = simulation.grip, agent.step, profile.gripper
    ahead = lambda closed: closed - (1 - simulation.opening())  # noqa: E731
    simulation.grip = lambda closed: (told.append((closed, ahead(closed), agent.closed)), grip(closed))
    agent.step = lambda *seen: steps.append(step(*seen)) or steps[-1]
    try:
        result = run_episode(simulation, agent, "pick", 3)
        assert simulation.state().opening is not None
    finally:
        simulation.close()
    assert result.violations == 0 and told
    sent = [s for s in steps if s.trajectory is not None]
    assert {s.plan.grip_force_n for s in sent} == {gripper.force_cap} and {wished for *_, wished in told} <= {0.0, 1.0}
    for closed, ahead_by, wished in told:
        assert closed <= wished and (closed == 0 or ahead_by <= gripper.force_cap / gripper.stiffness + 1e-9)


def test_an_episode_whose_goal_the_model_sees_elsewhere_has_failed(profile):
    """An untrained model reads the goal far outside the workspace: the arm stays, and the reason is kept."""
    from sim.episodes import run_episode
    from sim.scenes import contract
    from sim.simulation import Simulation

    torch.manual_seed(0)
    agent = Agent(WorldModel(contract(profile), SIZES).eval().requires_grad_(False), "ur5e", clock=lambda: 0.0)
    simulation = Simulation(0, profile)
    try:
        result = run_episode(simulation, agent, "reach", 3)
    finally:
        simulation.close()
    assert not result.success and result.steps == 0 and result.path_m == 0
    assert result.reason.startswith("ended by the planner as refused (In the goal image the tip at [")


def test_no_plan_closes_a_gripper_whose_force_is_not_known(grasping, profile, kinematics):
    """Not told how far it is open, or without a limit in the profile: no plan. To open is always allowed, by the same constraint
    that tells how hard a plan may squeeze."""
    home, still = profile.home, np.zeros(6)
    planner = Planner(grasping, profile, PlannerConfig(policy="random"))
    unknown = replace(profile, gripper=replace(profile.gripper, force_cap=None))

    def planned(closed: float, opening: float | None, robot=profile):
        seen = replace(
            belief(1 - closed), proprio=np.concatenate([home, [1 - closed], kinematics.tip(home), np.zeros(3)]).astype("f4")
        )
        juncture = Juncture(Constraints(robot, kinematics), None, RobotState(seen.stamp_s, home, still, opening), seen.stamp_s)
        generator = torch.Generator().manual_seed(0)
        return planner.plan(seen, goal_at(GOAL), Start(np.zeros(3), closed=closed), generator, lambda: 0.0, None, juncture)

    assert planned(1.0, 0.5).grip_force_n == profile.gripper.force_cap
    assert planned(0.0, None).trajectory is not None and planned(0.0, None, unknown).trajectory is not None
    for opening, robot, reason in (
        (None, profile, Reason.BAD_STATE),
        (np.nan, profile, Reason.BAD_STATE),
        (0.5, unknown, Reason.GRIPPER_FORCE),
    ):
        with pytest.raises(NoPlan) as none:
            planned(1.0, opening, robot)
        assert none.value.reason is reason


def test_a_measured_gripper_is_needed(profile):
    """Joint states that do not tell its opening are no observation."""
    from sim.scenes import contract

    torch.manual_seed(0)
    agent = Agent(WorldModel(contract(profile, gripper=True), SIZES).eval(), "ur5e", clock=lambda: 0.0)
    refusal = agent.perception.add_state(RobotState(1.0, profile.home, np.zeros(6)))
    assert refusal is not None and "gripper is open by None" in refusal.detail
