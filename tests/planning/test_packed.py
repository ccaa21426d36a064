"""bfloat16 costs planning nothing that matters: its plans are as good as those of float32, by float32's own judgement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from foresight.agent import Agent
from foresight.data import Start
from foresight.planning.config import PlannerConfig
from foresight.planning.imagination import Imagination
from foresight.world_model import checkpoint
from foresight.world_model.packed import PARTS, Packed, PackedPredictor
from sim.simulation import Simulation

SHIPPED = Path(__file__).parents[2] / "models/ur5e"
WORSE_BLOCKS = 0.1  # that a plan may cost more; the goals are several blocks away
SCENES = (("reach", 11), ("reach", 12), ("push", 13), ("push", 14), ("push", 15))


@pytest.fixture(scope="module")
def exact() -> Agent:
    return Agent(checkpoint.load(SHIPPED), "ur5e", PlannerConfig(deadline_s=1e3))


@pytest.fixture(scope="module")
def fast() -> Agent:
    return Agent(checkpoint.load_for_planning(SHIPPED), "ur5e", PlannerConfig(deadline_s=1e3))


def test_plans_are_as_good_as_those_of_float32(exact, fast):
    """Same scenes, same draws: what bfloat16 chooses costs hardly more than what float32 chooses, judged by float32."""
    simulation, worse = Simulation(0, exact.profile), []
    for task, seed in SCENES:
        scenario = simulation.reset(task, seed)
        costs = {}
        for name, agent in (("exact", exact), ("fast", fast)):
            agent.reset()
            agent.set_goal_images(scenario.goal_images, simulation.time_s)
            step = agent.step(simulation.images(), simulation.state(), simulation.time_s)
            belief, planner, goal = step.belief, exact.planner, agent.goal
            latent, proprio = torch.from_numpy(belief.latent)[None], torch.from_numpy(belief.proprio)[None]
            judge = Imagination(
                exact.model, planner.limits, planner.config, latent, proprio, goal, Start(np.zeros(3)), planner.objective_of(goal)
            )
            costs[name] = float(judge.fixed(torch.from_numpy(step.plan.tip_velocity).float()[None]).cost[0])
        worse.append(costs["fast"] - costs["exact"])
    simulation.close()
    assert max(worse) < WORSE_BLOCKS and np.mean(worse) < WORSE_BLOCKS / 3, worse


def test_layers_give_the_same_to_three_digits_and_gradients_as_before(exact, fast):
    """Each part's outputs agree; where a gradient is asked for, the layer is the float32 one, bit for bit."""
    packed = [m for part in PARTS for m in getattr(fast.model, part).modules() if isinstance(m, Packed)]
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert not packed  # a CPU without bfloat16: the model stays as it was
        return
    linear = [m for part in PARTS for m in getattr(exact.model, part).modules() if isinstance(m, torch.nn.Linear)]
    assert len(packed) == len(linear) > 10
    x = torch.randn(7, linear[0].in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (packed[0](x) - linear[0](x)).abs().max() < 0.02 * linear[0](x).abs().max()
    x.requires_grad_()
    assert torch.equal(packed[0](x), linear[0](x)) and torch.autograd.grad(packed[0](x).sum(), x)[0].abs().sum() > 0


def test_the_predictor_in_fewer_operations_gives_the_same_bits(fast):
    """For one row, for the proposals and for more than the weights are packed for; gradients are the float32 predictor's."""
    predictor = fast.model.predictor
    if not isinstance(predictor, PackedPredictor):
        pytest.skip("on a CPU without bfloat16 the model stays as it was")
    contract, draws = fast.model.contract, torch.Generator().manual_seed(0)
    sizes = (fast.model.config.latent, contract.proprio_size, contract.block_size)
    for rows in (1, 18, 48, 200):
        given = [torch.randn(rows, n, generator=draws) for n in sizes]
        with torch.no_grad():
            fewer, exact = predictor(*given), predictor.exact(*given)
        assert torch.equal(fewer[0], exact[0]) and torch.equal(fewer[1], exact[1])
    given[2].requires_grad_()
    assert torch.equal(predictor(*given)[0], predictor.exact(*given)[0])
