"""The planner as shipped searches exactly as it did when its figures were measured: its loop is written out here once more."""

import numpy as np
import pytest
import torch

from foresight.data import Plan, Start
from foresight.planning.config import PlannerConfig
from foresight.planning.imagination import Imagination
from foresight.planning.planner import Planner
from tests.planning.toy import ToyModel, belief_at, goal_at

TIP, GOAL = np.array([0.45, 0.0, 0.10]), np.array([0.43, 0.16, 0.09])
BLOCKS, STEPS = 4, 3  # of 3 steps


def imagination(planner, belief) -> Imagination:
    latent, proprio = torch.from_numpy(belief.latent)[None], torch.from_numpy(belief.proprio)[None]
    return Imagination(
        planner.model,
        planner.limits,
        planner.config,
        latent,
        proprio,
        goal_at(GOAL),
        Start(belief.tip_velocity.astype(float)),
        planner.objective_of(goal_at(GOAL)),
    )


def noise(generator, count):
    per_block = torch.randn(count, BLOCKS, 1, 3, generator=generator)
    per_step = torch.randn(count, BLOCKS, STEPS, 3, generator=generator)
    return (0.9 * per_block + 0.44 * per_step).reshape(count, BLOCKS * STEPS, 3)


def refined(planner, belief, previous, generator, rounds) -> tuple[torch.Tensor, float]:
    config, imagined = planner.config, imagination(planner, belief)
    aims = torch.tensor(config.aims, dtype=torch.float32).repeat(2)
    push = torch.randn(len(aims), BLOCKS, 1, 3, generator=generator).expand(-1, -1, STEPS, -1)
    push = (config.proposal_noise * push).reshape(len(aims), BLOCKS * STEPS, 3)
    push[: len(config.aims)] = 0.0
    others = torch.zeros(1 if previous is None else 2, BLOCKS * STEPS, 3)
    if previous is not None:  # one step has passed since
        others[1, :-1] = torch.as_tensor(previous.tip_velocity[1:], dtype=torch.float32)

    def source(h, z, p, goal, velocity):
        n, steps = len(aims), slice(h * STEPS, (h + 1) * STEPS)
        proposal = planner.model.propose(z[:n], p[:n], goal, (aims - h).clamp_min(1))
        return torch.cat([proposal.unflatten(-1, (-1, 3)) / 0.1 + push[:, steps], others[:, steps]])

    best, spread = imagined.imagine(len(aims) + len(others), source), config.refine_noise
    for _ in range(rounds):
        centre = best.controls[best.cost.topk(config.elites, largest=False).indices]
        samples = centre[torch.arange(config.samples) % len(centre)] + spread * noise(generator, config.samples)
        found, spread = imagined.fixed(samples), spread / 2
        if float(found.cost.min()) < float(best.cost.min()) - config.improvement:
            best = found
    i = best.best()
    return best.controls[i], float(best.cost[i])


@pytest.mark.parametrize("rounds", [0, 1, 3])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("with_previous", [False, True])
def test_the_shipped_planner_refines_as_written_here(profile, rounds, seed, with_previous):
    """Bit for bit: proposals, sampling around the elites, halving spread, and the gain that a refinement must bring."""
    planner = Planner(ToyModel(profile, (0.012, 0.0, 0.0)), profile, PlannerConfig(iterations=rounds))
    belief = belief_at(TIP, (0.02, 0.0, -0.01), stamp_s=0.1)
    previous = None
    if with_previous:
        rising = np.linspace(0, 0.15, BLOCKS * STEPS)[:, None] * np.array([0.0, 1.0, 0.0])
        previous = Plan(0.0, "toy", 0.1, rising, 0.0, {}, 1.0, np.zeros((4, 3), np.float32), 1, 0.0, "search")
    expected, cost = refined(planner, belief, previous, torch.Generator().manual_seed(seed), rounds)
    start, generator = Start(belief.tip_velocity.astype(float)), torch.Generator().manual_seed(seed)
    plan = planner.plan(belief, goal_at(GOAL), start, generator, lambda: 0.0, previous)
    np.testing.assert_array_equal(plan.tip_velocity.astype(np.float32), expected.numpy())
    assert plan.cost == cost


def test_search_alone_is_the_cross_entropy_method_as_written_here(profile):
    """Mean and deviation of the elites, no less than 2 cm/s, the mean among the candidates."""
    planner = Planner(ToyModel(profile), profile, PlannerConfig(policy="search"))
    config, belief = planner.config, belief_at(TIP)
    imagined, generator = imagination(planner, belief), torch.Generator().manual_seed(2)
    mean, spread, best = torch.zeros(BLOCKS * STEPS, 3), torch.full((BLOCKS * STEPS, 3), config.search_noise), None
    for _ in range(config.search_iterations):
        samples = mean + spread * noise(generator, config.search_samples)
        samples[0] = mean
        found = imagined.fixed(samples)
        elites = found.controls[found.cost.topk(config.elites, largest=False).indices]
        mean, spread = elites.mean(0), elites.std(0).clamp_min(0.02)
        best = found if best is None or float(found.cost.min()) < float(best.cost.min()) else best
    plan = planner.plan(belief, goal_at(GOAL), Start(np.zeros(3)), torch.Generator().manual_seed(2), lambda: 0.0)
    np.testing.assert_array_equal(plan.tip_velocity.astype(np.float32), best.controls[best.best()].numpy())
