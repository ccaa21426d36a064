"""One plan of a run, played again and drawn."""

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from foresight.agent import Agent
from foresight.evaluation.config import EvaluateConfig, ExplainConfig
from foresight.evaluation.explanation import BARS, CHOSEN, ELITE, FAINT, compose
from foresight.evaluation.results import read_results, summarise, write_results
from foresight.planning.config import PlannerConfig
from foresight.robots.profile import load_profile
from foresight.world_model.model import ModelConfig, WorldModel
from sim import explain as explaining
from sim.episodes import run_episode
from sim.explain import explain
from sim.scenes import contract
from sim.simulation import Simulation
from tests.untrained import seeing_the_middle

SINGULARITY = "singularity: least distance over distance"


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
    model = seeing_the_middle(WorldModel(contract(simulation.profile), sizes).eval().requires_grad_(False))
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


@pytest.fixture(scope="module")
def explained(run, tmp_path_factory):
    """The account of one of its plans, the picture's path, and what the replay says of itself."""
    accounts, draw = [], explaining.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explaining, "draw", lambda account, path: accounts.append(account) or draw(account, path))
        path, compared = explain(ExplainConfig(run, 0, 6, tmp_path_factory.mktemp("explained") / "plan.png"), build)
    return accounts[0], path, compared


def test_a_plan_is_explained_by_the_candidates_that_it_was_chosen_from(explained):
    """Played again to the last bit; the plan is one of the candidates, none that may be chosen is cheaper; a picture is drawn."""
    account, path, compared = explained
    assert "to the last bit" in compared and compared.startswith("7 beliefs")
    chosen, row = account.chosen()
    ranks = torch.cat([found.cost for _, found in account.sets])
    assert float(account.sets[chosen][1].cost[row]) <= float(ranks.min()) + PlannerConfig().improvement + 1e-6
    assert account.plan.terms == pytest.approx({n: float(v[row]) for n, v in account.sets[chosen][1].terms.items()})
    along = account.objective.along(account.sets[chosen][0])
    assert set(along) == set(account.plan.terms)
    assert account.imagined.shape[:2] == (PlannerConfig().horizon, 2)
    picture = matplotlib.image.imread(path)
    assert picture.shape[0] > 800 and picture.shape[1] > 1000 and np.ptp(picture[..., :3]) > 0.5


@pytest.fixture(scope="module")
def panels(explained):
    """The picture's charts and frames by their titles."""
    return {axis.get_title(): axis for axis in compose(explained[0]).axes}


def told(axis) -> list[str]:
    """What stands in the chart's legend."""
    return [text.get_text() for text in axis.get_legend().get_texts()]


@pytest.mark.parametrize(("title", "seen"), [("tip, from above", [0, 1]), ("tip, from the side", [1, 2])])
def test_every_candidate_is_drawn_the_elites_and_the_plan_marked(explained, panels, title, seen):
    """From the tip to where each of them ends; the keep-out and what is wanted are there, and the legend tells which is which."""
    account, axis = explained[0], panels[title]
    ways = {colour: [line.get_xydata() for line in axis.lines if line.get_color() == colour and len(line.get_xydata()) > 1]
            for colour in (FAINT, ELITE, CHOSEN)}  # fmt: skip
    candidates = [way for foreseen, _ in account.sets for way in foreseen.positions.double().numpy()]
    assert len(candidates) == account.plan.candidates == len(ways[FAINT]) + len(ways[ELITE])
    best = account.sets[-1][1].cost.argsort()[: account.elites]
    elites = account.sets[-1][0].positions.double().numpy()[best]
    (plan,), (set_, row) = ways[CHOSEN], account.chosen()
    plotted = lambda ways: sorted(np.round(way[-1], 5).tolist() for way in ways)  # noqa: E731
    assert plotted(ways[FAINT] + ways[ELITE]) == plotted(way[:, seen] for way in candidates)
    assert plotted(ways[ELITE]) == plotted(elites[..., seen]) and len(elites) == PlannerConfig().elites
    np.testing.assert_allclose(plan[1:], account.sets[set_][0].positions[row][:, seen], atol=1e-6)
    assert all(np.allclose(way[0], account.belief.tip[seen], atol=1e-6) for way in (*ways[FAINT], *ways[ELITE], plan))
    (box,), (drawn,) = account.constraints.keep_outs, axis.patches
    np.testing.assert_allclose(
        [drawn.get_xy(), (drawn.get_width(), drawn.get_height())], [box.low[seen], (box.high - box.low)[seen]]
    )
    assert {"the plan", "elites", "other candidates", "keep-out", "tip wanted"} <= set(told(axis))
    assert any(line.get_marker() == "*" for line in axis.lines)


def test_costs_are_drawn_by_term(explained, panels):
    """A stack for each of the cheapest candidates, the plan's in red; a line over the horizon; legends name the terms."""
    account = explained[0]
    bars, lines = panels["cost by term; red: the plan, hatched: enters a keep-out"], panels["cost of the plan over the horizon"]
    terms = list(account.plan.terms)
    assert len(terms) > 2 and told(bars) == told(lines) == terms == [line.get_label() for line in lines.lines]
    heights = np.array([[bar.get_height() for bar in stack] for stack in bars.containers])
    red = np.array([[bar.get_edgecolor()[3] > 0 for bar in stack] for stack in bars.containers])
    costs = torch.cat([found.cost for _, found in account.sets]).numpy()
    assert heights.shape == (len(terms), min(BARS, np.isfinite(costs).sum()))
    assert red.all(0).sum() == 1 and not (red.any(0) & ~red.all(0)).any()
    np.testing.assert_allclose(heights[:, red.all(0)][:, 0], list(account.plan.terms.values()), rtol=1e-5, atol=1e-9)
    set_, row = account.chosen()
    for line in lines.lines:
        along = account.objective.along(account.sets[set_][0])[line.get_label()][row]
        np.testing.assert_allclose(line.get_ydata(), along, rtol=1e-5)


def test_margins_are_drawn_along_the_plan_and_its_stop(explained, panels):
    """Distances and the share that is used of each limit, the singularity's too; they are those that the plan tells of."""
    account = explained[0]
    plan, constraints = account.plan, account.constraints
    distances, shares = panels["margins: distances"], panels["margins: limits, the joint that is nearest to its own"]
    ends = plan.trajectory.times_s[[0, -1]] - plan.stamp_s
    found = {}
    for axis, limit in ((distances, 0.0), (shares, 1.0)):
        *drawn, line = axis.lines
        assert list(line.get_ydata()) == [limit, limit] and told(axis) == [line.get_label() for line in drawn]
        found |= {line.get_label(): line.get_ydata() for line in drawn}
        for line in drawn:
            np.testing.assert_allclose(line.get_xdata()[[0, -1]], ends)
    assert found["table, keep-outs, itself (at most 0.1 m is looked for)"].min() == pytest.approx(plan.margin_m, abs=2e-3)
    assert found["tip to the workspace's nearest wall"].min() > 0
    assert set(told(shares)) == {
        *(f"joint {n}" for n in ("position", "velocity", "acceleration", "jerk")),
        "tip speed",
        SINGULARITY,
    }
    assert all(0 < found[name].max() <= 1 for name in told(shares))
    least = constraints.dexterity_min / found[SINGULARITY].max() - constraints.dexterity_min
    assert least == pytest.approx(plan.singular_margin, abs=2e-3)


def test_a_plan_that_moves_the_gripper_shows_its_force(explained):
    """As a share of what it may squeeze with."""
    account = explained[0]
    gripping = replace(account, plan=replace(account.plan, grip_force_n=account.constraints.grip_limit.cap_n / 2))
    (shares,) = (axis for axis in compose(gripping).axes if axis.get_title().startswith("margins: limits"))
    (force,) = (line for line in shares.lines if line.get_label() == "gripper force")
    assert "gripper force" in told(shares) and set(force.get_ydata()) == {0.5}


def test_frames_are_what_was_seen_and_what_is_imagined(explained, panels):
    """A row a camera, an image each."""
    account = explained[0]
    blocks = len(account.imagined)
    for c, (name, image) in enumerate(account.images.items()):
        row = [axis for title, axis in panels.items() if title.startswith(name)]
        assert len(row) == blocks + 1
        for axis, expected in zip(row, [image, *account.imagined[:, c]], strict=True):
            (drawn,) = axis.images
            np.testing.assert_array_equal(drawn.get_array(), expected)


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
    drawn = [axis for axis in compose(with_them).axes if axis.get_title().endswith("sub-goal")]
    for axis, expected in zip(drawn, with_them.subgoal, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), expected)


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
