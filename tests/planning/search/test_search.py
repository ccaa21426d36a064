"""Every way to search, on a cost whose minimum is known, with equal draws and a clock made of numbers."""

from dataclasses import replace
from itertools import count
from typing import get_args

import pytest
import torch

from foresight.interfaces import Objective, Rollout, Search
from foresight.planning.search import Method, make
from foresight.planning.search.anytime import Budget, run
from foresight.planning.search.cem import Cem
from foresight.planning.search.draws import blockwise, coloured, white
from foresight.planning.search.gradient import Gradient
from foresight.planning.search.hybrid import Hybrid
from foresight.planning.search.icem import Icem
from foresight.planning.search.mppi import Mppi
from foresight.planning.search.predictive_sampling import PredictiveSampling
from foresight.planning.search.state import Leader, Scored, State
from foresight.planning.shooting import Shooting

N, U, SAMPLES, ELITES = 4, 3, 128, 12
METHODS = {
    "cem": Cem(SAMPLES, ELITES),
    "icem": Icem(SAMPLES, ELITES),
    "mppi": Mppi(SAMPLES, ELITES),
    "predictive_sampling": PredictiveSampling(SAMPLES, decay=0.85),
    "gradient": Gradient(SAMPLES, rate=0.1),
    "hybrid": Hybrid(Cem(SAMPLES, ELITES), Gradient(16, rate=0.05), sample_rounds=4),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


class Sums:
    """The latent is the sum of the controls so far; at best all steps are alike."""

    def rollout(self, controls):
        return controls.cumsum(1)


class Distance:
    def __init__(self, goal):
        self.goal = goal

    def score(self, latents, controls):
        return (latents[:, -1] - self.goal).square().sum(-1) + 0.1 * controls.square().sum((1, 2))


GOAL = torch.tensor([1.0, -2.0, 0.5])
EVALUATE = Shooting(Sums(), Distance(GOAL))
LEAST = float(Distance(GOAL).score((N * GOAL / (N + 0.1))[None, None], (GOAL / (N + 0.1)).expand(1, N, U)))
START = State(torch.zeros(N, U), torch.ones(N, U))


def draws(seed=0):
    return white(N, U, torch.Generator().manual_seed(seed))


def budget(rounds=30, clock=lambda: 0.0, **more):
    return Budget(rounds, clock, 0.0, **more)


@every_method
def test_every_method_comes_near_the_minimum(method):
    """Thirty rounds close at least 90 % of the way from standing still to the best there is."""
    assert isinstance(method, Search) and isinstance(EVALUATE.dynamics, Rollout) and isinstance(EVALUATE.objective, Objective)
    found = run(method, EVALUATE, draws(), START, budget())
    still = float(EVALUATE(torch.zeros(1, N, U)).cost)
    assert LEAST - 1e-5 <= float(found.best.cost.min()) <= LEAST + 0.1 * (still - LEAST)
    assert found.rounds == 30 and found.ended == "rounds" and found.improved


def test_all_methods_begin_with_the_same_candidates():
    """Equal seeds give equal first candidates, bit for bit, the first of them the mean itself."""
    first = [method.propose(method.start(START), draws(7)) for method in METHODS.values()]
    assert all(torch.equal(candidates, first[0]) for candidates in first)
    assert torch.equal(first[0][0], START.mean)


@every_method
def test_same_seed_same_search(method):
    """The same draws find the same, other draws something else."""
    a, b, c = (run(method, EVALUATE, draws(seed), START, budget(6)).best.controls for seed in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)


@every_method
def test_more_rounds_never_cost_more(method):
    """Stopped after any round a search has the best found so far."""
    costs = [float(run(method, EVALUATE, draws(), START, budget(rounds)).best.cost.min()) for rounds in (1, 2, 5, 10)]
    assert costs == sorted(costs, reverse=True)


@every_method
def test_a_round_begins_only_if_it_will_end_in_time(method):
    """With rounds of 1 s and 3.5 s to go, three rounds are made: a fourth would end late."""
    ticks = count()
    found = run(method, EVALUATE, draws(), START, budget(clock=lambda: next(ticks) / 2, deadline_s=3.5))
    assert found.ended == "deadline"
    assert 3 <= found.rounds <= 4 and 0.5 * (2 * found.rounds) <= 3.5 + 0.5


@every_method
def test_known_candidates_are_an_answer_when_there_is_no_time(method):
    """What is known already is returned as it is when even one round would end late."""
    known = Scored(torch.zeros(5, N, U), torch.arange(5.0))
    found = run(method, EVALUATE, draws(), START, budget(deadline_s=1.0, lasted_s=2.0), known)
    assert found.best is known and not found.improved and found.tried == 0


@every_method
def test_a_search_goes_on_from_known_candidates_and_never_gets_worse(method):
    """The best known candidate is beaten or kept."""
    known = run(Cem(SAMPLES, ELITES), EVALUATE, draws(), START, budget(3)).best
    found = run(method, EVALUATE, draws(1), START, budget(3), known)
    assert float(found.best.cost.min()) <= float(known.cost.min())


@pytest.mark.parametrize("name", get_args(Method))
def test_a_search_with_known_candidates_begins_about_the_best_of_them(name: Method):
    """Not about standing still: the planner's own make of every method."""
    near = 0.5 + 0.01 * torch.randn(6, N, U, generator=torch.Generator().manual_seed(0))
    known = Scored(torch.cat([-torch.ones(6, N, U), near]), torch.tensor([9.0] * 6 + [1.0] * 6))
    method = make(name, SAMPLES, 6)
    first = method.propose(method.start(State(torch.zeros(N, U), torch.full((N, U), 0.05)), known), draws())
    torch.testing.assert_close(first[:6].mean(0), near.mean(0), atol=0.1, rtol=0)


def test_a_search_ends_when_its_elites_agree():
    """CEM stops once its elites lie together, well before its rounds are up, at nearly the same cost."""
    method = METHODS["cem"]
    long, short = (run(method, EVALUATE, draws(), START, budget(60, agreement=a)) for a in (0.0, 0.02))
    assert short.ended == "agreed" and short.rounds < 40 and long.rounds == 60
    assert float(short.best.cost.min()) < float(long.best.cost.min()) + 0.01


@pytest.mark.parametrize("name", ["predictive_sampling", "gradient"])
def test_one_elite_agrees_with_nobody(name: str):
    """A search that learns from its best candidate alone goes through all its rounds."""
    found = run(METHODS[name], EVALUATE, draws(), START, budget(6, agreement=1e9))
    assert METHODS[name].elites == 1 and (found.ended, found.rounds) == ("rounds", 6)


def test_small_gains_do_not_count_where_a_gain_is_asked_for():
    """A known candidate stays unless it is beaten by the improvement."""
    known = Scored(START.mean[None], EVALUATE(START.mean[None]).cost)
    found = run(METHODS["cem"], EVALUATE, draws(), START, budget(3, improvement=100.0), known)
    assert found.best is known and not found.improved and found.tried == 3 * SAMPLES


@every_method
def test_candidates_without_a_number_never_win(method):
    """Where half of the candidates cost NaN the other half decides; where all do, there is an error that says so."""

    def half(controls):
        scored = EVALUATE(controls)
        return replace(scored, cost=torch.where(controls[:, 0, 0] > 0, scored.cost, torch.nan))

    found = run(method, half, draws(), START, budget(8))
    assert torch.isfinite(found.best.cost).any()
    with pytest.raises(ValueError, match="finite cost"):
        run(method, lambda c: replace(EVALUATE(c), cost=EVALUATE(c).cost * torch.nan), draws(), START, budget(2))


SOURCES = {"white": white, "coloured": coloured, "blockwise": lambda n, u, g: blockwise(4, n // 4, u, g)}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_draws_have_unit_variance(source):
    """A spread means the same with every kind of noise."""
    noise = source(24, U, torch.Generator().manual_seed(0))(4000)
    assert noise.shape == (4000, 24, U)
    torch.testing.assert_close(noise.std(0).mean(), torch.tensor(1.0), atol=0.03, rtol=0)


def test_coloured_noise_is_smooth():
    """Neighbouring steps go the same way."""
    noise = coloured(24, U, torch.Generator().manual_seed(0))(2000)
    assert float((noise[:, 1:] * noise[:, :-1]).mean()) > 0.8


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: Cem(10, 20), r"elites \(20\).*samples \(10\)"),
        (lambda: Cem(0, 0), "samples must be above 0"),
        (lambda: Mppi(10, 5, temperature=0.0), "temperature"),
        (lambda: Icem(10, 5, momentum=1.0), "momentum"),
        (lambda: Gradient(10, rate=-1.0), "rate"),
        (lambda: Hybrid(Cem(10, 5), Cem(10, 5), 0), "sample_rounds"),
        (lambda: run(Cem(10, 5), EVALUATE, draws(), START, budget(0)), "at least 1 round"),
    ],
)
def test_nonsense_settings_are_refused(build, words):
    """The message names the setting and its value."""
    with pytest.raises(ValueError, match=words):
        build()


def scored(*costs):
    return Scored(torch.zeros(len(costs), N, U), torch.tensor(costs))


def test_the_leader_is_the_first_set_that_is_cheaper_by_the_improvement():
    """However many were added before anybody asks; a cost that is no number never leads."""
    sets = scored(5.0, 4.0), scored(3.95), scored(float("nan"), 3.0), scored(2.95)
    eager, late = Leader(sets[0], 0.1), Leader(sets[0], 0.1)
    for found, leads in zip(sets[1:], (sets[0], sets[2], sets[2]), strict=True):
        eager.add(found)
        late.add(found)
        assert eager.best() is leads
    assert late.best() is sets[2] and late.cost == eager.cost == 3.0
    assert Leader().best() is None


@pytest.mark.parametrize("limits, reads", [({}, 1), ({"deadline_s": 1e9}, 5)], ids=["no deadline", "deadline"])
def test_costs_are_read_once_unless_a_deadline_asks_for_each_rounds_time(monkeypatch, limits, reads):
    """Each reading waits for a GPU."""
    read, best = [], Leader.best
    monkeypatch.setattr(Leader, "best", lambda self: read.append(len(self._unread)) or best(self))
    run(METHODS["cem"], EVALUATE, draws(), START, budget(4, **limits))
    assert len(read) == reads and sum(read) == 4
