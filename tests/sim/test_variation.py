"""Families and shifts: what they change, and that nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest

from foresight.data import Trajectory
from foresight.robots.profile import load_profile
from sim.scenes import TEXTURES, Appearance
from sim.simulation import Simulation, Way
from sim.tasks import draw, scene_of
from sim.variation import INSIDE, OUTSIDE, PLAIN, SHIFTS, WIDE, Body, Variation, vary


@pytest.fixture(scope="module")
def simulation():
    simulation = Simulation(0, load_profile("ur5e"), others=2)
    yield simulation
    simulation.close()


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_changes_its_factor_and_no_other(shift):
    """Same start and goal as without it; the same seed draws the same; inside is inside what training draws."""
    plain, varied, again = scene_of("push", 5), scene_of("push", 5, shift), scene_of("push", 5, shift)
    assert varied[1] == again[1]
    np.testing.assert_array_equal(plain[0].goal_cube, varied[0].goal_cube)
    looks = {n for n in Appearance.__dataclass_fields__ if getattr(varied[1].appearance, n) != getattr(Appearance(), n)}
    bodies = {n for n in Body.__dataclass_fields__ if getattr(varied[1].body, n) != getattr(Body(), n)}
    rest = {n for n in ("latency_s", "others") if getattr(varied[1], n) != getattr(Variation(), n)}
    changed = {
        "none": set(), "colour": {"table"}, "camera": {"front_offset", "wrist_offset"},
        "table": {"table"}, "floor": {"floor"}, "cube": {"cube"}, "arm": {"arm"},
        "light": {"light", "ambient", "light_position"},
        "cameras": {"front_offset", "front_turn", "wrist_offset", "wrist_turn"},
        "shadows": {"shadow", "light", "ambient", "light_position"}, "distractors": {"others"},
        "camera_8cm": {"front_offset"}, "cube_size": {"half_m"}, "cube_mass": {"mass_kg"}, "friction": {"friction"},
        "noise": {"noise"}, "latency": {"latency_s"},
    }  # fmt: skip
    if shift in changed:
        assert looks | bodies | rest == changed[shift]
    if shift in INSIDE:
        look = varied[1].appearance
        assert max(np.abs(look.front_offset)) <= PLAIN.front_m and PLAIN.ambient[0] <= look.ambient <= PLAIN.ambient[1]
        assert not look.shadow and look.table_texture == "squares" and not bodies and not rest
    if shift == "camera_8cm":
        assert np.linalg.norm(varied[1].appearance.front_offset) == pytest.approx(0.08)


def test_every_shift_is_seen_or_felt(simulation):
    """Pictures differ from the nominal ones where the look does; nothing that was set remains after it."""
    simulation.reset("push", 4)
    plain = simulation.images()
    for shift in (*INSIDE, *OUTSIDE):
        simulation.reset("push", 4, shift)
        different = any(
            (np.abs(image.astype(int) - plain[name]) > 8).mean() > 0.002 for name, image in simulation.images().items()
        )
        assert different == (shift not in ("cube_mass", "friction", "latency")), shift
    simulation.reset("push", 4)
    for name, image in simulation.images().items():
        np.testing.assert_array_equal(image, plain[name])


def test_a_body_leaves_no_trace_after_it(simulation):
    """The model is bit for bit as it was built, once the nominal cube is back."""
    arrays = ("geom_size", "geom_aabb", "geom_friction", "body_mass", "body_inertia", "dof_invweight0", "body_invweight0")
    arrays += ("bvh_aabb", "dof_length")
    before = {name: getattr(simulation.model, name).copy() for name in arrays}
    simulation.embody(Body(0.03, 0.4, 0.5))
    assert simulation.model.body("cube").mass[0] == 0.4 and simulation.model.geom("cube").size[0] == 0.03
    simulation.embody(Body())
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(simulation.model, name), value)


def test_friction_and_size_are_felt(simulation):
    """A cube that is struck slides farther on half the friction; a large one stands higher."""
    slid = {}
    for friction in (0.5, 1.0):
        simulation.embody(Body(friction=friction))
        simulation.place(draw("reach", np.random.default_rng(0)))
        at = simulation.truth().object
        simulation.data.qvel[simulation._cube_v] = 0.5
        simulation.advance(0.6)
        slid[friction] = np.linalg.norm(simulation.truth().object - at)
    assert slid[0.5] > 1.5 * slid[1.0] > 0.01
    simulation.embody(Body(half_m=0.03))
    simulation.place(draw("reach", np.random.default_rng(0)))
    simulation.advance(0.3)
    assert simulation.truth().object[2] == pytest.approx(0.03, abs=1e-3)
    simulation.embody(Body())


def test_a_family_is_data_and_draws_inside_its_ranges():
    """Ranges as JSON; every draw of looks and bodies lies inside; an Appearance becomes as many numbers as it has names."""
    rng = np.random.default_rng(0)
    looks = [WIDE.look(rng) for _ in range(200)]
    assert {look.table_texture for look in looks} == set(TEXTURES) and max(look.noise for look in looks) <= WIDE.noise
    for body, latency_s, others in (WIDE.bodies(rng) for _ in range(200)):
        assert WIDE.half_m[0] <= body.half_m <= WIDE.half_m[1] and 0 <= latency_s <= WIDE.latency_s[1] and others <= 2
    assert PLAIN.bodies(np.random.default_rng(0)) == (Body(), 0.0, 0)
    assert len(looks[0].numbers()) == len(Appearance.names()) and WIDE.to_json()["noise"] == 8.0


def test_the_way_of_the_tip_is_measured():
    """A metre along a parabola of constant jerk: the length of its chords and the jerk itself."""
    way, t = Way(0.01), 0.01 * np.arange(101)
    for x in 6.0 * t**3 / 6:
        way.add(np.array([x, 0, 0]))
    assert way.path_m == pytest.approx(1.0) and way.jerk_m_s3 == pytest.approx(6.0, rel=1e-3)


def test_the_judge_looks_at_even_times_however_time_is_cut(simulation):
    """The jerk of one motion is the same whether 0.6 s pass in steps of 8 and 60 ms or of 20 ms."""
    jerks = []
    for cuts in ((0.06, 0.008, 0.008, 0.008, 0.008, 0.008) * 6, (0.02,) * 30):
        simulation.restart_clock()
        simulation.place(draw("reach", np.random.default_rng(1)))
        q = simulation.state().q
        goal = simulation.kinematics.solve(simulation.setting.tip + np.array([0, 0.03, 0]), q)
        simulation.command(Trajectory(np.array([0.0, 0.5]), np.array([q, goal]), np.zeros((2, 6))))
        for cut in cuts:
            simulation.advance(cut)
        jerks.append((simulation.judgement().jerk_m_s3, simulation.judgement().path_m))
    assert jerks[0] == pytest.approx(jerks[1], rel=1e-6) and jerks[0][1] > 0.02


def test_unknown_shifts_are_named():
    """With what there is."""
    with pytest.raises(ValueError, match=r"Shift 'fog' is unknown. Available: none, colour"):
        vary("fog", np.random.default_rng(0))


def test_what_is_pushed_to_its_goal_was_not_picked_up(simulation):
    """A cube that lies at its goal counts for a push, and for a pick only after it was lifted."""
    setting = draw("pick", np.random.default_rng(3))
    for task, counts in (("push", True), ("pick", False)):
        simulation.place(replace(setting, task=task, cube=setting.goal_cube))
        simulation.advance(0.8)
        assert simulation.judgement().success == counts
