"""A planner that means ill: the judge sees every kind of touch, and the guard lets none of it happen."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from foresight.control.trajectory import hold
from foresight.data import Box, Trajectory
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile
from sim.adversary import AdversaryConfig, Bout, guarded, run, summarise
from sim.arena import Arena
from sim.proposals import WAYS, quickest


@pytest.fixture(scope="module")
def arena(profile: RobotProfile) -> Arena:
    return Arena(profile)


def fling(arena: Arena, goal: np.ndarray, duration_s: float = 1.5) -> None:
    """Past any guard, straight to a pose [rad]."""
    q, zero, now_s = arena.state().q, np.zeros(6), arena.time_s
    points = (np.array([q, goal]), np.array([zero, zero]), np.array([zero, zero]))
    arena.command(Trajectory(now_s + np.array([0.0, duration_s]), *points))
    arena.advance(duration_s + 0.3)


def test_the_judge_sees_a_touched_keep_out_wherever_it_was_put(arena: Arena, kinematics: MujocoKinematics):
    """Boxes are moved between episodes; ten times one is put in the tip's way, and each time the touch is counted."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        arena.begin(rng)
        begin = arena.truth().tip
        middle = begin + np.array([0.0, 0.14 if begin[1] < 0 else -0.14, 0.0])
        arena._put((Box("keep-out", middle - 0.04, middle + 0.04),))
        fling(arena, kinematics.solve(middle, arena.state().q))
        assert arena.touches["keep-out"] >= 1 and arena.depth_m["keep-out"] > 0, f"seed {seed}"


def test_the_judge_sees_the_table_and_the_arm_itself(arena: Arena):
    """Each has its own count; the closed fingers, which always touch, are no touch."""
    arena.begin(np.random.default_rng(0))
    arena._put(())
    arena.advance(0.5)
    assert set(arena.touches.values()) == {0}
    fling(arena, arena.state().q + np.array([0, 0.6, 0, 0, 0, 0.0]))
    assert arena.touches["table"] >= 1
    arena._put(())
    rng, met = np.random.default_rng(1), 0
    for _ in range(300):
        arena.data.qpos[:6] = rng.uniform(-np.pi, np.pi, 6)
        mujoco.mj_forward(arena.model, arena.data)
        near = min(mujoco.mj_geomDistance(arena.model, arena.data, a, b, 0.1, None) for a, b in far_apart(arena))
        assert ("itself" in arena._touches()) >= (near < -1e-3)
        met += "itself" in arena._touches()
    assert 10 < met < 290


def far_apart(arena: Arena) -> list[tuple[int, int]]:
    """Pairs of geometry that only a folded arm brings together: gripper or wrist against upper arm or base."""
    bodies = [arena.model.body(b).name for b in arena.model.geom_bodyid]
    solid = arena._solid()
    hand = [g for g in solid if bodies[g].startswith("gripper/base") or bodies[g] == "wrist_3_link"]
    return [(a, b) for a in hand for b in solid if bodies[b] in ("upper_arm_link", "base")]


def test_masses_and_friction_differ_as_far_as_asked_and_come_back(arena: Arena):
    """Every body within 30 %, every friction, of surfaces and of joints, within 50 % of the model's, drawn anew for each episode.
    Inertia goes with mass."""
    nominal, model, joints = arena._nominal, arena.model, slice(0, len(arena.profile.joint_names))
    heavy, drawn = nominal["body_mass"] > 0, {"mass": [], "surface": [], "dry": [], "viscous": []}
    for seed in range(3):
        arena.begin(np.random.default_rng(seed))
        ratios = {
            "mass": model.body_mass[heavy] / nominal["body_mass"][heavy],
            "surface": model.geom_friction[:, 0] / nominal["geom_friction"][:, 0],
            "dry": model.dof_frictionloss[joints] / nominal["dof_frictionloss"][joints],
            "viscous": model.dof_damping[joints] / nominal["dof_damping"][joints],
        }
        for name, ratio in ratios.items():
            assert (np.abs(ratio - 1) <= (0.3 if name == "mass" else 0.5)).all(), name
            drawn[name].append(ratio)
        np.testing.assert_allclose(model.body_inertia[heavy], nominal["body_inertia"][heavy] * ratios["mass"][:, None])
    for name, ratios in drawn.items():
        assert np.ptp(ratios) > (0.3 if name == "mass" else 0.5), name
        assert len({ratio[0] for ratio in ratios}) == 3, name


def test_the_joints_friction_is_felt(arena: Arena):
    """Without its drives a turning base comes to rest within 0.4 s."""
    arena.begin(np.random.default_rng(0), cube=False)
    model, data = arena.model, arena.data
    gain, bias = model.actuator_gainprm.copy(), model.actuator_biasprm.copy()
    try:
        model.actuator_gainprm[:6], model.actuator_biasprm[:6] = 0, 0
        data.qvel[0] = 0.2
        mujoco.mj_step(model, data, 200)
        assert abs(data.qvel[0]) < 1e-3
    finally:
        model.actuator_gainprm[:], model.actuator_biasprm[:] = gain, bias


def test_an_episode_depends_on_its_seed_alone(arena: Arena, profile: RobotProfile, kinematics: MujocoKinematics):
    """The same index twice, with another in between, gives the same figures to the last digit."""
    config = AdversaryConfig(episodes=3, duration_s=1.0)
    bouts = [Bout(arena, guarded(profile, kinematics, config.transport_s), config, index).run() for index in (4, 1, 4)]
    assert bouts[0].fastest_m_s == bouts[2].fastest_m_s > 0 and bouts[0].verdicts == bouts[2].verdicts
    assert bouts[0].verdicts != bouts[1].verdicts


def test_no_more_is_commanded_than_a_limit(arena: Arena, profile: RobotProfile, kinematics: MujocoKinematics):
    """Not even where the controller stands beside the arm at first and gets its first plan late, as in this episode."""
    config = AdversaryConfig(seed=14, duration_s=2.0)
    result = Bout(arena, guarded(profile, kinematics, config.transport_s), config, 1).run()
    assert result.verdicts["ok"] and 0 < max(result.commanded.values()) < 1.001


def test_every_way_of_meaning_ill_gets_some_motion_past_the_guard(
    arena: Arena, profile: RobotProfile, kinematics: MujocoKinematics
):
    """Otherwise its episodes would prove nothing: in each way something passes, something is refused, and the arm moves."""
    config = AdversaryConfig(duration_s=2.0, stop_share=0.0)
    results = [
        Bout(arena, guarded(profile, kinematics, config.transport_s), config, index).run() for index in range(2 * len(WAYS))
    ]
    for aim, form in WAYS:
        some = [result for result in results if result.way == f"{aim} {form}"]
        assert sum(result.verdicts["ok"] for result in some) > 0, (aim, form)
        assert sum(result.travelled_rad for result in some) > 0.1, (aim, form)
        assert sum(result.offered - result.verdicts["ok"] for result in some) > 0, (aim, form)
    assert all(result.at_rest for result in results)


def test_without_a_guard_the_same_adversary_does_harm(arena: Arena, profile: RobotProfile, kinematics: MujocoKinematics):
    """What the guard is credited with is its doing: the same proposals sent unchecked break limits and touch things."""

    class Blind:
        """Passes everything."""

        def __init__(self) -> None:
            self.in_force, self.stopped = hold(arena.state().q, arena.time_s), None

        def relieve(self, state, now_s):
            return None

        def offer(self, candidate, state, now_s):
            from foresight.data import Reason, Verdict

            self.in_force = candidate.trajectory
            return Verdict(Reason.OK)

    config = AdversaryConfig(duration_s=2.0, stop_share=0.0)
    harm = [Bout(arena, lambda boxes: Blind(), config, index).run() for index in (3, 5, 9, 11)]
    assert sum(result.violations for result in harm) > 0 and sum(sum(result.touches.values()) for result in harm) > 0


def test_quickest_ends_at_rest_where_it_was_told(profile: RobotProfile):
    """From any moving start, and None where ruckig finds nothing."""
    q, dq = profile.home, np.full(6, 0.2)
    motion = quickest(q, dq, np.zeros(6), q + 0.3, np.full(6, 1.0), np.full(6, 4.0), np.full(6, 50.0), 2.0)
    np.testing.assert_allclose(motion.q[-1], q + 0.3, atol=1e-9)
    np.testing.assert_allclose(motion.dq[[0, -1]], [dq, np.zeros(6)], atol=1e-9)
    assert motion.times_s[0] == 2.0
    assert quickest(q, dq * np.nan, np.zeros(6), q, np.ones(6), np.ones(6), np.ones(6), 0.0) is None


def test_the_figures_count_what_the_episodes_had():
    """The summary of two episodes, run in processes of their own."""
    config = AdversaryConfig(episodes=2, duration_s=0.5, jobs=1)
    results = run(config)
    figures = summarise(config, results, 1.0)
    assert figures["episodes"] == 2 and figures["proposals"] == sum(r.offered for r in results) == 10
    assert figures["violations"] == sum(r.violations for r in results) and len(figures["by_way"]) == 2
    harmed = [replace(results[0], violations=1, violation_detail="tip speed"), results[1]]
    assert summarise(config, harmed, 1.0)["bad"][0]["what"] == "tip speed"


@pytest.mark.parametrize(
    ("given", "says"), [({"episodes": 0}, "--episodes must be 1"), ({"transport_s": 1.0}, "--transport-s must be")]
)
def test_figures_out_of_range_are_named(given: dict, says: str):
    """Before anything starts."""
    with pytest.raises(ValueError, match=says):
        AdversaryConfig(**given)
