"""What is returned keeps to the constraints, judged by exact kinematics at the controller's rate; else there is no plan."""

from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import pytest
import torch

from foresight.control.motion import start_of
from foresight.control.trajectory import sample
from foresight.data import Box, Candidate, Goal, Plan, Reason, RobotState, Start, Verdict
from foresight.planning.config import PlannerConfig
from foresight.planning.constraints import Constraints, Examined, Juncture, NoPlan
from foresight.planning.planner import Planner
from foresight.robots.proximity import Proximity
from foresight.safety.config import GuardConfig
from foresight.safety.guard import Guard
from tests.judge import faults
from tests.planning.arm import drive
from tests.planning.toy import ToyModel, belief_at, goal_at

POST = Box("post", np.array([0.42, -0.03, 0.0]), np.array([0.48, 0.03, 0.16]))
SIZE = np.array([0.1, 0.05, 0.3])
HERE, THERE, ASIDE = np.array([0.45, -0.17, 0.10]), np.array([0.45, 0.17, 0.10]), np.array([0.0, 0.03, 0.1])


@pytest.fixture(scope="module")
def constraints(profile, kinematics) -> Constraints:
    return Constraints(profile, kinematics)


@pytest.fixture(scope="module")
def near_post(profile) -> Proximity:
    return Proximity(profile, (POST,))


def planner_of(profile, **config) -> Planner:
    return Planner(ToyModel(profile), profile, PlannerConfig(**config))


def to_box(near: Proximity, q: np.ndarray) -> float:
    """Distance [m] of the arm from the keep-out."""
    return float(near.distances(q, np.flatnonzero(near.obstacle == 0)).min())


def to_post(near_post: Proximity, motion) -> float:
    """Least distance [m] of any part of the arm from the post, at 100 Hz."""
    times = np.arange(motion.times_s[0], motion.times_s[-1] + 0.01, 0.01)
    return min(to_box(near_post, q) for q in sample(motion, times)[0])


def test_told_of_a_post_the_planner_goes_round_it_and_arrives(profile, constraints, near_post):
    """The straight way leads through the post; the arm reaches the goal and keeps the margin all along."""
    goal = Goal(tip=THERE, keep_outs=(POST,))
    plans = list(drive(planner_of(profile), constraints.of(goal), HERE, goal, 45))
    assert min(to_post(near_post, plan.trajectory) for plan, _ in plans) >= GuardConfig().margins.keep_out_m - 1e-6
    last = plans[-1][1]
    assert np.linalg.norm(constraints.kinematics.tip(last.q[-1]) - THERE) < 0.02


@pytest.mark.parametrize("policy", ["both", "actor"])
def test_untold_the_arm_goes_through(profile, constraints, near_post, policy):
    """What the test before shows is due to being told: by search and actor as by the actor alone."""
    plans = drive(planner_of(profile, policy=policy), constraints, HERE, goal_at(THERE), 25)
    assert min(to_post(near_post, plan.trajectory) for plan, _ in plans) < 0


def test_told_the_actor_alone_stops_before_the_post(profile, constraints, near_post):
    """It knows no way round: that is due to the search."""
    goal = Goal(tip=THERE, keep_outs=(POST,))
    plans = list(drive(planner_of(profile, policy="actor"), constraints.of(goal), HERE, goal, 25))
    assert min(to_post(near_post, plan.trajectory) for plan, _ in plans) > 0
    plan, motion = plans[-1]
    assert plan.source == "stay" and np.linalg.norm(constraints.kinematics.tip(motion.q[-1]) - THERE) > 0.15
    assert "goal's" in plan.refused or "post" in plan.refused, "what was in the way of the cheapest motion"
    assert all(plan.refused == "" for plan, _ in plans if plan.source != "stay")


def test_told_of_a_low_wall_the_planner_goes_over_it_and_arrives(profile, constraints):
    """As wide as the workspace, so that there is no way round; untold the arm goes through it."""
    (left, _, _), (right, _, _) = profile.workspace_min, profile.workspace_max
    wall = Box("wall", np.array([left, -0.02, 0.0]), np.array([right, 0.02, 0.12]))
    near_wall, goal = Proximity(profile, (wall,)), Goal(tip=THERE, keep_outs=(wall,))
    untold = drive(planner_of(profile), constraints, HERE, goal_at(THERE), 25)
    assert min(to_post(near_wall, plan.trajectory) for plan, _ in untold) < 0
    plans = list(drive(planner_of(profile), constraints.of(goal), HERE, goal, 50))
    assert min(to_post(near_wall, plan.trajectory) for plan, _ in plans) >= GuardConfig().margins.keep_out_m - 1e-6
    over, end = max(constraints.kinematics.tips(motion.q)[:, 2].max() for _, motion in plans), plans[-1][1].q[-1]
    assert over > 0.15 and np.linalg.norm(constraints.kinematics.tip(end) - THERE) < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_returned_plans_break_no_limit_by_exact_kinematics(profile, constraints, seed):
    """Scenes at random, walls, table and keep-outs near: joints, tip, workspace and distances at the controller's rate."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform([0.35, -0.2, 0.03], [0.6, 0.2, 0.12])
    box = Box("box", np.array([*(middle[:2] - 0.02), 0.0]), middle + 0.02)
    goal = Goal(tip=rng.uniform(profile.workspace_min, profile.workspace_max), keep_outs=(box,))
    held, near = constraints.of(goal), Proximity(profile, (box,))
    tip = next(
        place
        for place in rng.uniform(profile.workspace_min + 0.01, profile.workspace_max - 0.01, (100, 3))
        if to_box(near, held.kinematics.solve(place, profile.home)) > 0.03
    )
    try:
        for plan, _ in drive(planner_of(profile), held, tip, goal, 12, seed):
            assert faults(plan.trajectory, profile, held.kinematics) == []
            assert to_post(near, plan.trajectory) >= 0.01 - 1e-6
            assert plan.margin_m >= -1e-6
    except NoPlan as none:
        assert none.reason in (Reason.KEEP_OUT, Reason.COLLISION, Reason.WORKSPACE)


def test_the_margin_is_published_with_what_it_is_to(profile, constraints):
    """Beside the post it is the distance to it beyond what must be kept; far from everything it is its range."""
    goal = Goal(tip=HERE, keep_outs=(POST,))
    beside = next(
        drive(
            planner_of(profile),
            constraints.of(goal),
            [0.45, -0.13, 0.10],
            Goal(tip=np.array([0.45, -0.13, 0.10]), keep_outs=(POST,)),
            1,
        )
    )[0]
    assert 0 < beside.margin_m < 0.05 and "post" in beside.nearest
    assert beside.trajectory is not None


def test_a_guard_with_the_same_keep_outs_passes_what_the_planner_returns(profile, constraints):
    """The same objects judge on both sides, so nothing is refused."""
    goal = Goal(tip=THERE, keep_outs=(POST,))
    held = constraints.of(goal)
    guard = Guard(profile, held.kinematics, scene=held.scene)
    for i, (plan, motion) in enumerate(drive(planner_of(profile), held, HERE, goal, 15)):
        now_s = 10.0 + 0.1 * i
        q, dq = sample(motion, now_s)
        verdict = guard.offer(Candidate(plan.trajectory, profile.joint_names, now_s, now_s), RobotState(now_s, q, dq), now_s)
        assert verdict.ok, verdict.detail
        guard.in_force = motion  # whether or not it was slowed near the post


def test_a_speed_cap_holds_for_every_plan(profile, constraints):
    """At half the speed of the robot's profile, by exact kinematics, and the goal is still reached."""
    goal = Goal(tip=THERE, tip_speed_max=0.10)
    held = constraints.of(goal)
    for _, motion in drive(planner_of(profile), held, HERE, goal, 45):
        times = np.arange(motion.times_s[0], motion.times_s[-1], 0.002)
        tips = held.kinematics.tips(sample(motion, times)[0])
        assert (np.linalg.norm(np.diff(tips, axis=0), axis=1) / 0.002).max(initial=0.0) <= 0.10
    assert np.linalg.norm(tips[-1] - THERE) < 0.02


def test_no_plan_where_even_braking_comes_nearer_to_a_keep_out(profile, constraints):
    """A box that is put right before a moving hand: nothing in the arm's power keeps away from it. The reason is told."""
    goal, planner = goal_at(THERE), planner_of(profile)
    *_, (_, motion) = drive(planner, constraints, HERE, goal, 6)
    now_s = 10.5
    q, dq = sample(motion, now_s)
    tip, velocity = constraints.kinematics.tip(q), constraints.kinematics.tip_velocity(q, dq)
    assert velocity[1] > 0.1
    before_hand = np.array([tip[0] - 0.05, tip[1] + 0.076, 0.0])
    goal = Goal(tip=THERE + ASIDE, keep_outs=(Box("sudden", before_hand, before_hand + SIZE),))
    juncture = Juncture(constraints.of(goal), motion, RobotState(now_s, q, dq), now_s)
    start = start_of(motion, now_s, now_s, 0.1, constraints.kinematics)
    with pytest.raises(NoPlan, match="sudden") as none:
        planner.plan(belief_at(tip, velocity, now_s), goal, start, torch.Generator(), lambda: 0.0, None, juncture)
    assert none.value.reason is Reason.KEEP_OUT


def test_a_goal_inside_a_keep_out_is_refused(constraints):
    """The sentence has the place and the box."""
    goal = Goal(tip=np.array([0.45, 0.0, 0.1]), keep_outs=(POST,))
    assert "lies in post" in constraints.of(goal).refusal(goal)
    assert constraints.of(Goal(tip=THERE)).refusal(Goal(tip=THERE)) is None


@pytest.mark.parametrize("speed", [0.0, -0.1, 1e-9, float("nan"), float("inf")])
def test_a_speed_cap_that_makes_no_sense_is_refused(speed):
    """Only a finite speed at which the arm still moves is one."""
    with pytest.raises(ValueError, match="tip_speed_max"):
        Goal(tip=THERE, tip_speed_max=speed)


def test_what_is_examined_changes_no_plan_that_passes(profile, constraints):
    """With nothing in the way the plan is the same, bit for bit, as without constraints."""
    planner, q = planner_of(profile), constraints.kinematics.solve(HERE, profile.home)
    plan = lambda juncture: planner.plan(  # noqa: E731
        belief_at(HERE), goal_at(THERE), Start(np.zeros(3)), torch.Generator().manual_seed(1), lambda: 0.0, None, juncture
    )
    bare, examined = plan(None), plan(Juncture(constraints, None, RobotState(0.0, q, np.zeros(6)), 0.1))
    np.testing.assert_array_equal(bare.tip_velocity, examined.tip_velocity)
    assert (bare.terms, bare.cost, bare.source) == (examined.terms, examined.cost, examined.source)


def test_no_refinement_begins_that_leaves_no_time_to_examine_what_is_found(profile, constraints):
    """The proposals are there after 0.15 s: a refinement would end at 0.35 s, in time only if nothing is examined then."""
    planner, q = planner_of(profile, deadline_s=0.40), constraints.kinematics.solve(HERE, profile.home)
    tried = {}
    for juncture in (None, Juncture(constraints, None, RobotState(0.0, q, np.zeros(6)), 0.1)):
        ticks, generator = count(), torch.Generator().manual_seed(1)
        clock = lambda: next(ticks) / 20  # noqa: B023, E731
        made = planner.plan(belief_at(HERE), goal_at(THERE), Start(np.zeros(3)), generator, clock, None, juncture)
        tried[juncture is None] = made.candidates
    assert tried[True] - tried[False] == PlannerConfig.samples


@dataclass(frozen=True)
class Hindered(Juncture):
    """Refuses all but coming to rest."""

    looks: list[str]

    def examine(self, plan: Plan) -> Examined:
        self.looks.append(plan.source)
        found = super().examine(plan)
        return found if plan.source == "stay" else replace(found, verdict=Verdict(Reason.KEEP_OUT, "Hindered."))


@pytest.mark.parametrize(("deadline_s", "looked_at"), [(float("inf"), 7), (0.10, 2), (0.08, 1), (1e-6, 0)])
def test_no_candidate_is_examined_for_which_there_is_no_time(profile, constraints, deadline_s, looked_at):
    """With examinations of 0.03 s, all in vain, there is time left for coming to rest; with none at all there is no plan."""
    q, looks, ticks = constraints.kinematics.solve(HERE, profile.home), [], count()
    planner = planner_of(profile, policy="search", search_iterations=1, deadline_s=deadline_s)
    juncture = Hindered(constraints, None, RobotState(0.0, q, np.zeros(6)), 0.1, looks)
    clock = lambda: 0.03 * len(looks) + 1e-4 * next(ticks)  # noqa: E731
    plan = lambda: planner.plan(  # noqa: E731
        belief_at(HERE), goal_at(THERE), Start(np.zeros(3)), torch.Generator(), clock, None, juncture
    )
    if not looked_at:
        with pytest.raises(NoPlan, match="No time"):
            plan()
        assert looks == []
        return
    made = plan()
    assert looks == ["search"] * looked_at + ["stay"] and (made.source, made.refused) == ("stay", "Hindered.")
