"""One plan of a run, played again and drawn."""

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from foresight.agent import Agent
from foresight.evaluation.config import EvaluateConfig, ExplainConfig
from foresight.evaluation.results import read_results, summarise, write_results
from foresight.planning.config import PlannerConfig
from foresight.robots.profile import load_profile
from foresight.world_model.model import ModelConfig, WorldModel
from sim import explain as explaining
from sim.episodes import run_episode
from sim.explain import explain
from sim.scenes import contract
from sim.simulation import Simulation


class Ending:
    """An agent that has no goal any more after a second."""

    def __init__(self, agent):
        self.inner, self.steps = agent, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def step(self, *arguments):
        if self.steps == 10:
            self.inner.goal = None
        self.steps += 1
        return self.inner.step(*arguments)


SIZES = ModelConfig(latent=8, encoder_width=4, predictor_width=16, predictor_depth=1, head_width=16, max_blocks=4)


def build(config: EvaluateConfig, policy: str, sizes: ModelConfig = SIZES):
    """As the evaluation's own, with a small untrained model."""
    torch.manual_seed(0)
    simulation = Simulation(0, load_profile("ur5e"), zone=config.keep_out != "none")
    model = WorldModel(contract(simulation.profile), sizes).eval().requires_grad_(False)
    return simulation, Agent(model, "ur5e", PlannerConfig(policy=policy, deadline_s=float("inf")), clock=lambda: 0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One short episode of a reach with a keep-out, reported as `foresight evaluate --report` does."""
    folder = tmp_path_factory.mktemp("run")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    simulation, agent = build(EvaluateConfig(keep_out="told"), "both")
    try:
        result = run_episode(simulation, Ending(agent), "reach", 10_300_000, keep_out="told")
    finally:
        simulation.close()
        torch.set_num_threads(threads)
    report = summarise([result], policy="both", seed=103, shift="none", model_id="unsaved", keep_out="told")
    write_results(folder, report, [result])
    return folder


def test_a_plan_is_explained_by_the_candidates_that_it_was_chosen_from(run, tmp_path, monkeypatch):
    """Played again to the last bit; the plan is one of the candidates, none that may be chosen is cheaper; a picture is drawn."""
    accounts = []
    draw = explaining.draw
    monkeypatch.setattr(explaining, "draw", lambda account, path: accounts.append(account) or draw(account, path))
    path, compared = explain(ExplainConfig(run, 0, 6, tmp_path / "plan.png"), build)
    assert "to the last bit" in compared and compared.startswith("7 beliefs")
    (account,) = accounts
    chosen, row = account.chosen()
    ranks = torch.cat([found.cost for _, found in account.sets])
    assert float(account.sets[chosen][1].cost[row]) <= float(ranks.min()) + PlannerConfig().improvement + 1e-6
    assert account.plan.terms == pytest.approx({n: float(v[row]) for n, v in account.sets[chosen][1].terms.items()})
    along = account.objective.along(account.sets[chosen][0])
    assert set(along) == set(account.plan.terms)
    assert account.imagined.shape[:2] == (PlannerConfig().horizon, 2)
    picture = matplotlib.image.imread(path)
    assert picture.shape[0] > 800 and picture.shape[1] > 1000 and np.ptp(picture[..., :3]) > 0.5


def test_a_sub_goal_that_was_pursued_is_shown(tmp_path, monkeypatch):
    """Decoded beside what was imagined."""
    accounts = []
    draw = explaining.draw
    monkeypatch.setattr(explaining, "draw", lambda account, path: accounts.append(account) or draw(account, path))
    sizes = replace(SIZES, subgoals=2)

    def build_far(config: EvaluateConfig, policy: str):
        simulation, agent = build(config, policy, sizes)
        agent.planner.config = replace(agent.planner.config, subgoals=config.subgoals, subgoals_beyond=1e-6)
        monkeypatch.setattr(agent.model, "apart", lambda latent, proprio, other: torch.zeros(len(latent)))
        return simulation, agent

    for subgoals in (True, False):
        simulation, agent = build_far(EvaluateConfig(subgoals=subgoals), "both")
        try:
            result = run_episode(simulation, Ending(agent), "reach", 10_300_000)
        finally:
            simulation.close()
        report = summarise([result], policy="both", seed=103, shift="none", model_id="unsaved", subgoals=subgoals)
        write_results(tmp_path / str(subgoals), report, [result])
        _, compared = explain(ExplainConfig(tmp_path / str(subgoals), 0, 3, tmp_path / "plan.png"), build_far)
        assert "to the last bit" in compared
    with_them, without = accounts
    assert with_them.subgoal.shape == with_them.imagined.shape[1:] and without.subgoal is None
    assert (with_them.plan.subgoal is None, without.plan.subgoal is None) == (False, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"episode": 1}, "--episode must lie between 0 and 0"),
        ({"step": 1000}, "--step must lie between 0 and"),
        ({"step": 12}, "has no plan"),
        ({"out": "plan.jpg"}, "must end in .png"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_a_sentence(run, change, words):
    """Which episodes and steps there are, and why there is no plan."""
    change = {**change, **({"out": Path(change["out"])} if "out" in change else {})}
    with pytest.raises(ValueError, match=words):
        explain(replace(ExplainConfig(run), **change), lambda config, policy: _gives_up(build(config, policy)))


def _gives_up(built):
    simulation, agent = built
    return simulation, Ending(agent)


def test_a_run_through_ros_or_of_another_model_is_refused(run, tmp_path):
    """Real time cannot be repeated, and another model plans otherwise: both ids are named."""
    report, episodes = read_results(run)
    write_results(tmp_path / "ros", replace(report, through="ros"), episodes)
    with pytest.raises(ValueError, match="through ROS"):
        explain(ExplainConfig(tmp_path / "ros"), build)
    write_results(tmp_path / "other", replace(report, model_id="abc"), episodes)
    with pytest.raises(ValueError, match=r"'abc'.*'unsaved'"):
        explain(ExplainConfig(tmp_path / "other"), build)


def test_a_replay_that_differs_says_from_where(run):
    """The first belief that surprised otherwise, with both numbers."""
    assert "0.50000 at belief 1, here it is 1.00000" in explaining._compared([1.0, 1.0], (1.0, 0.5))
