"""Ways of an object round keep-outs, and the slices of the hand that they and candidates are checked with."""

import numpy as np
import pytest
import torch

from foresight.control.trajectory import sample
from foresight.data import Box, Goal, Leg
from foresight.planning.around import Blocked
from foresight.planning.config import PlannerConfig
from foresight.planning.constraints import Constraints
from foresight.planning.legs import LANDING_M_S, LOW_M, landing, next_leg
from foresight.planning.planner import Planner
from foresight.planning.pushes import CONTACT_M, LINED_UP_M, OBJECT_M
from foresight.robots.proximity import Proximity
from tests.planning.arm import drive
from tests.planning.toy import ToyModel

POST = Box("post", np.array([0.44, -0.01, 0.0]), np.array([0.46, 0.01, 0.04]))
CUBE, THERE = np.array([0.395, 0.0, 0.025]), np.array([0.535, 0.0, 0.025])  # the post between them
UP = np.array([0.0, 0.0, 0.005])


class World(ToyModel):
    """Tip and object are where the latent says: its first three numbers and its last three."""

    def read(self, latent):
        return latent[..., :3], latent[..., 3:]


@pytest.fixture(scope="module")
def bare(profile, kinematics) -> Constraints:
    return Constraints(profile, kinematics)


@pytest.fixture(scope="module")
def constraints(bare) -> Constraints:
    return bare.of(Goal(object=THERE, keep_outs=(POST,)))


def leg(profile, constraints, tip, cube, before=None, goal=None, afresh=False) -> Leg | None:
    latent = torch.as_tensor(np.concatenate([tip, cube]), dtype=torch.float32)[None]
    proprio = torch.as_tensor(np.concatenate([np.zeros(6), tip, np.zeros(3)]), dtype=torch.float32)[None]
    return next_leg(goal or Goal(object=THERE, keep_outs=(POST,)), latent, proprio, World(profile), constraints, before, afresh)


def test_what_the_slices_let_through_keeps_the_margin(profile, kinematics, constraints):
    """Against MuJoCo's distances between the whole hand and the box; and what is far inside for the slices is too near indeed."""
    near, rng = Proximity(profile, (POST,)), np.random.default_rng(0)
    pairs = np.flatnonzero((near.obstacle == 0) & near.hand)
    blocked, inside = Blocked.by((POST,), constraints.hand, 0.01), Blocked.by((POST,), constraints.hand, 0.0)
    kept = met = 0
    for tip in rng.uniform([0.40, -0.07, 0.025], [0.50, 0.07, 0.08], (150, 3)):
        q = kinematics.solve(tip, profile.home)
        distance = float(near.distances(q, pairs).min())
        if float(blocked.depth(torch.as_tensor(tip))) == 0:
            kept += 1
            assert distance >= 0.01 - 1e-4
        if float(inside.depth(torch.as_tensor(tip))) > 0:
            met += 1
            assert distance < 0.015
    assert kept > 50 and met > 5


@pytest.mark.parametrize("angle", [0.0, 0.4, -0.6, 3.1, 2.6, -2.6])
def test_an_object_is_pushed_round_a_post_and_tip_and_object_stay_out(constraints, angle):
    """On every push, from where it lines up to where it lets go, the tip is free and the object clear of the post."""
    ahead, middle = np.array([np.cos(angle), np.sin(angle), 0.0]), np.array([0.45, 0.0, 0.03])
    begin, end = middle - 0.062 * ahead, middle + 0.085 * ahead
    way = constraints.pushes.way(begin, end)
    assert way is not None and 2 <= len(way) <= 4
    np.testing.assert_array_equal(way[-1], end)
    for i, (a, b) in enumerate(zip([begin, *way], way, strict=False)):
        u = (b - a) / np.linalg.norm(b - a)
        assert constraints.candidates.free((a - (CONTACT_M + LINED_UP_M) * u)[None], (b - CONTACT_M * u)[None])[0]
        on = a + np.linspace(0, 1, 50)[:, None] * (b - a)
        kept = OBJECT_M if 0 < i < len(way) - 1 else min(OBJECT_M, POST.distance(np.array([begin, end]) - UP).min() * 0.7)
        assert np.maximum(POST.low - on, on - POST.high)[:, :2].max(1).min() >= kept - 1e-3


def test_the_straight_way_is_taken_where_it_is_free_and_none_where_there_is_no_way(bare):
    """A post aside changes nothing; a goal walled in on all sides cannot be reached."""
    aside = bare.of(Goal(object=THERE, keep_outs=(Box("aside", np.array([0.44, 0.2, 0.0]), np.array([0.46, 0.22, 0.04])),)))
    here, there = CUBE + UP, THERE + UP
    assert len(aside.pushes.way(here, there)) == 1
    wall = lambda low, high: Box("wall", np.array([*low, 0.0]), np.array([*high, 0.2]))  # noqa: E731
    cage = (wall([0.46, -0.08], [0.47, 0.08]), wall([0.60, -0.08], [0.61, 0.08]))
    cage += (wall([0.46, -0.09], [0.61, -0.08]), wall([0.46, 0.08], [0.61, 0.09]))
    assert bare.of(Goal(object=THERE, keep_outs=cage)).pushes.way(here, there) is None


def test_a_turn_is_kept_against_one_that_is_as_good(constraints):
    """Left and right of the post are of one length here."""
    here, there = CUBE + UP, THERE + UP
    left, right = (min(constraints.pushes.places, key=lambda p: np.linalg.norm(p[:2] - at)) for at in ([0.41, 0.1], [0.41, -0.1]))
    first = constraints.pushes.way(here, there)[0]
    for kept in (np.array([first[0], first[1], first[2]]), np.array([first[0], -first[1], first[2]])):
        kept = min(constraints.pushes.places, key=lambda p: np.linalg.norm(p - kept))
        way = constraints.pushes.way(here, there, kept)
        assert np.sign(way[0][1]) == np.sign(kept[1])
    assert np.sign(left[1]) != np.sign(right[1])


def test_the_tip_lines_up_first_then_pushes_then_lines_up_for_the_next(profile, constraints):
    """The legs of one way in turn: round to behind the object, the object to its turn, then over to its other side."""
    first = leg(profile, constraints, np.array([0.60, 0.0, 0.15]), CUBE)
    assert first.goal.object is None and first.tip_turn is not None and first.object_turn is not None
    here = CUBE + UP
    ahead = (first.object_turn - here) / np.linalg.norm(first.object_turn - here)
    behind = here - (CONTACT_M + 0.005) * ahead
    push = leg(profile, constraints, behind, CUBE, first)
    assert push.tip_turn is None and push.goal.object is not None and push.goal.tip is not None
    assert (push.goal.object - CUBE)[:2] @ ahead[:2] > 0.03 and np.linalg.norm((push.goal.object - CUBE)[:2]) < 0.11
    np.testing.assert_allclose(push.goal.tip[:2], push.goal.object[:2] - CONTACT_M * ahead[:2], atol=1e-9)
    turned = np.array([*first.object_turn[:2], CUBE[2]])
    again = leg(profile, constraints, first.object_turn - CONTACT_M * ahead, turned, push)
    assert again.goal.object is None and again.tip_turn is not None
    assert np.linalg.norm(again.object_turn - first.object_turn) > 0.02


def test_where_nothing_is_in_the_way_the_goal_itself_is_pursued(profile, bare, constraints):
    """No leg: without keep-outs, with the object there, and with keep-outs that lie aside."""
    tip = np.array([0.33, 0.0, 0.03])
    assert leg(profile, bare, tip, CUBE) is None
    assert leg(profile, constraints, np.array([0.60, 0.05, 0.1]), THERE) is None
    away = bare.of(Goal(object=THERE, keep_outs=(Box("aside", np.array([0.30, 0.30, 0.0]), np.array([0.32, 0.32, 0.04])),)))
    assert leg(profile, away, tip, CUBE) is None


def test_afresh_the_hand_lets_go_of_the_object_and_lines_up_behind_it(profile, bare):
    """Though nothing is in the way: up and round it, down behind it, a push to its goal, and no more once it is there."""
    goal, off, before = Goal(object=THERE), THERE + np.array([-0.035, 0.0, 0.0]), None
    tip, turns = np.array([THERE[0] + 0.01, 0.03, 0.03]), []  # low beside the object, where it cannot push it to its goal
    assert leg(profile, bare, tip, off, goal=goal) is None
    for _ in range(6):
        before = leg(profile, bare, tip, off, before, goal, afresh=True)
        if before.tip_turn is None:
            break
        assert before.goal.object is None and (before.goal.tip == before.tip_turn).all()
        turns.append(before.tip_turn)
        tip = before.tip_turn
    assert max(turn[2] for turn in turns) > 0.05, "over the object"
    np.testing.assert_allclose(turns[-1], [off[0] - CONTACT_M - LINED_UP_M, 0.0, 0.03], atol=1e-9)
    np.testing.assert_allclose(before.goal.object, THERE, atol=1e-9)
    np.testing.assert_allclose(before.goal.tip[:2], [THERE[0] - CONTACT_M, 0.0], atol=1e-9)
    assert leg(profile, bare, tip, THERE + np.array([-0.01, 0.0, 0.0]), before, goal, afresh=True) is None


def test_at_its_goal_the_object_is_left_alone_though_it_is_read_a_little_off(profile, constraints):
    """Before a push starts 3 cm are near enough, while one goes on 1.5 cm."""
    tip, off = np.array([0.45, 0.12, 0.1]), THERE + np.array([-0.02, 0.0, 0.0])
    assert leg(profile, constraints, tip, off) is None
    pushing = Leg(Goal(object=THERE), None, THERE)
    assert leg(profile, constraints, tip, off, pushing) is not None


def test_the_tip_goes_past_the_object_to_its_own_goal(profile, constraints):
    """Post and object stand in its way: the turn is free of both."""
    goal = Goal(object=THERE, tip=np.array([0.39, 0.0, 0.03]), keep_outs=(POST,))
    found = leg(profile, constraints, np.array([0.51, 0.0, 0.03]) + 0.08 * np.array([1, 0, 0]), THERE, goal=goal)
    assert found.tip_turn is not None and found.object_turn is None
    assert float(constraints.round.depth(torch.as_tensor(found.tip_turn))) == 0


@pytest.mark.parametrize("above_m", [0.08, 0.1, 0.105, 0.11, 0.115, 0.12])
def test_where_a_keep_out_is_told_the_hand_comes_down_slowly_on_the_object(profile, bare, above_m):
    """An edge that it comes down on turns it aside, the farther the faster it came. Without a keep-out it comes down fast."""

    class Beside(ToyModel):
        def read(self, latent):
            return latent, torch.as_tensor(CUBE, dtype=torch.float32).expand_as(latent)

    end, fastest = CUBE + np.array([0.0, 0.035, 0.005]), {}
    thing = Box("object", CUBE - 0.025, CUBE + 0.025)
    touching = Blocked.by((thing,), bare.hand, 0.0)  # tips whose hand is where the object is
    for told in (True, False):
        keep_outs = (Box("aside", np.array([0.5, 0.15, 0.0]), np.array([0.52, 0.17, 0.04])),) if told else ()
        goal = Goal(tip=end, keep_outs=keep_outs)
        constraints, down = bare.of(goal), []
        planner = Planner(Beside(profile), profile, PlannerConfig())
        for plan, _ in drive(planner, constraints, end + np.array([0.0, 0.0, above_m]), goal, 40):
            motion = plan.trajectory
            q, dq = sample(motion, np.arange(motion.times_s[0], motion.times_s[0] + 0.1, 0.01))
            tips = np.array([constraints.kinematics.tip(one) for one in q])
            over = (touching.depth(torch.as_tensor(tips)) > 0).numpy() & (tips[:, 2] > end[2] + LOW_M)
            down += [-constraints.kinematics.tip_velocity(a, b)[2] for a, b in zip(q[over], dq[over], strict=True)]
        fastest[told] = max(down)
        assert np.linalg.norm(constraints.kinematics.tip(q[-1]) - end) < 0.02
    assert fastest[True] < 1.2 * LANDING_M_S and fastest[False] > 2 * LANDING_M_S


def test_nobody_lands_where_nothing_is_looked_for_or_the_object_is_nowhere(profile, kinematics, constraints):
    """Without collision checks, and with a readout that is not finite."""
    latent = torch.as_tensor(np.concatenate([THERE, CUBE]), dtype=torch.float32)[None]
    assert landing(latent, World(profile), constraints) is not None
    assert landing(latent * torch.nan, World(profile), constraints) is None
    assert landing(latent, World(profile), Constraints(profile, kinematics, keep_outs=(POST,), collision=False)) is None
