"""The figures of tasks with a keep-out: who runs which scenes, what is counted, and that the box is where it should be."""

from types import SimpleNamespace

import numpy as np
import pytest

from foresight.data import Box
from foresight.evaluation.results import EpisodeResult
from sim.keep_out import RUNS, KeepOutConfig, bench, crosses, row, summary
from tests.sim.test_episodes import PICTURES, Line, Walker

POST = Box("post", np.array([0.44, -0.01, 0.0]), np.array([0.46, 0.01, 0.04]))


class World(Line):
    """Its arm comes into the box where it walks without having been told, its object always."""

    told = False

    def reset(self, task, seed, shift="none"):
        super().reset(task, seed, shift)
        return SimpleNamespace(goal_images=PICTURES, time_limit_s=2.0, latency_s=0.0, keep_out=POST)

    def judgement(self):
        entered = int(self.x > 0.5 and not self.told)
        return SimpleNamespace(**{**vars(super().judgement()), "entered": entered, "object_entered": self.x > 0.5})


def build(config, policy):
    """They walk to the goal; the actor alone, told of boxes, stands still. Who is told says so to its world."""
    world = World()

    class Told(Walker):
        def set_goal_images(self, images, now_s, object_only=False, keep_outs=()):
            world.told = keep_outs == (POST,)
            if world.told and policy == "actor":
                self.stride = 0.0

    return world, Told(0.25)


def test_planner_and_actor_alone_told_and_untold_run_the_same_scenes():
    """Each row has its successes with their interval, and in how many episodes arm and object came into the box: the actor
    alone goes through it where it is not told, and nowhere where it is."""
    shown = []
    config = KeepOutConfig(episodes=4, actor_episodes=3, seed=7, jobs=1)
    figures = bench(config, lambda name, result: shown.append((name, result.seed)), build)
    told, actor, actor_untold, untold = (
        figures["runs"][name] for name in ("told", "actor alone, told", "actor alone, untold", "untold")
    )
    assert (told["episodes"], told["successes"], told["arm_entered"], told["object_entered"]) == (4, 4, 0, 4)
    assert (actor["episodes"], actor["successes"], actor["arm_entered"]) == (3, 0, 0)
    assert (actor_untold["episodes"], actor_untold["successes"], actor_untold["arm_entered"]) == (3, 3, 3)
    assert (untold["episodes"], untold["successes"], untold["arm_entered"]) == (3, 3, 3)
    assert told["ci95"] == [pytest.approx(0.5101, abs=1e-4), 1.0] and len(actor["failures"]) == 3
    assert [seed for name, seed in shown if name == "told"] == [700_000, 700_001, 700_002, 700_003]
    lines = summary(figures).splitlines()
    assert len(lines) == 4 and lines[0].startswith("told: 100.0 % [51, 100] of 4")


@pytest.mark.parametrize(("actor_episodes", "others"), [(None, 2), (2, 2), (0, None)])
def test_the_others_run_as_many_scenes_as_asked_for(actor_episodes, others):
    """All by default, all where that is asked for, or none."""
    figures = bench(KeepOutConfig(episodes=2, actor_episodes=actor_episodes, jobs=1), lambda name, result: None, build)
    counts = {name: found["episodes"] for name, found in figures["runs"].items()}
    assert counts == {name: 2 if name == "told" else others for name in (RUNS if others else ("told",))}


def test_only_episodes_that_were_run_are_counted():
    """A row of none has no rate above 0 and an interval that says nothing."""
    assert row([]) | {"failures": {}} == {
        "episodes": 0, "successes": 0, "ci95": [0.0, 1.0], "violations": 0, "arm_entered": 0, "object_entered": 0,
        "arm_entered_in": [], "time_to_goal_s": None, "failures": {},
    }  # fmt: skip
    lost = EpisodeResult("push", 3, "none", "both", False, None, 0.052, 2, "tip", 10, 1.0, "timed_out", keep_outs_entered=2)
    found = row([lost])
    assert found["violations"] == 2 and found["arm_entered_in"] == [3] and found["failures"] == {"3": "timed_out, 5.2 cm"}


def test_a_straight_way_leads_through_a_box_or_not():
    """Through it, past it, over it, and up to just before it."""
    here, there = np.array([0.40, 0.0, 0.03]), np.array([0.50, 0.0, 0.03])
    aside, above = np.array([0.0, 0.02, 0.0]), np.array([0.0, 0.0, 0.02])
    assert crosses(POST, here, there) and crosses(POST, there, here)
    assert not crosses(POST, here + aside, there + aside) and not crosses(POST, here + above, there + above)
    assert not crosses(POST, here, np.array([0.43, 0.0, 0.03])) and crosses(POST, here + aside, there - aside)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"episodes": 0}, "--episodes"),
        ({"seed": -1}, "--seed"),
        ({"actor_episodes": 9, "episodes": 4}, "--actor-episodes"),
        ({"jobs": 0}, "--jobs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, words):
    """The flag and what it may be stand in the message."""
    with pytest.raises(ValueError, match=words):
        KeepOutConfig(**wrong)
