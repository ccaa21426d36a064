"""No motion that comes too near to the arm itself, its table or a keep-out passes; legal motion does."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import mujoco
import numpy as np
import pytest

from foresight.control.trajectory import hold, sample
from foresight.data import Box, Reason, RobotState, Trajectory
from foresight.robots.geometry import OPEN, ROBOTIQ_CLOSED, _settled, collision_spec, corners
from foresight.robots.profile import load_profile
from foresight.safety.checks import check
from foresight.safety.collision import Scene, scene_from, speed_bounds
from foresight.safety.config import GuardConfig, Margins
from foresight.safety.guard import Guard
from foresight.safety.obstacles import TABLE, boxes_of, to_text
from sim.simulation import Simulation
from tests.motions import candidate, drive, minimum_jerk

OTHERS = {"panda": "gym_hil", "fr3": "gym_hil", "so101": "so101_nexus"}
POST = Box("post", np.array([0.45, 0.10, 0.0]), np.array([0.50, 0.14, 0.20]))
SHELF = Box("shelf", np.array([-0.5, -0.6, 0.5]), np.array([0.3, -0.4, 0.55]))


@pytest.fixture(scope="module")
def scene(profile) -> Scene:
    return Scene(profile)


@pytest.fixture(scope="module")
def crowded(profile) -> Scene:
    return Scene(profile, (POST, SHELF))


@pytest.fixture
def at(kinematics, profile):
    """Joint positions that put the tip there [m]."""

    def at(x: float, y: float, z: float) -> np.ndarray:
        q = kinematics.solve(np.array([x, y, z]), profile.home)
        assert q is not None
        return q

    return at


def towards(q: np.ndarray, target: np.ndarray, duration_s: float = 1.0) -> Trajectory:
    return minimum_jerk(q, target - q, duration_s=duration_s, points=20)


def least(scene: Scene, trajectory: Trajectory, step_s: float = 1e-3) -> float:
    """The least that any pair has left beyond its margin [m], seen at times so close that points move about a millimetre."""
    times = np.arange(trajectory.times_s[0], trajectory.times_s[-1] + step_s, step_s)
    q = sample(trajectory, times)[0]
    found = np.inf
    for row, bound in zip(q, scene.proximity.lower_bounds(q), strict=True):
        pairs = np.flatnonzero(bound < scene._margin + 0.002)
        if len(pairs):
            found = min(found, float((scene.proximity.distances(row, pairs) - scene._margin[pairs]).min()))
    return found


def wandering(rng: np.random.Generator, scene: Scene, low: np.ndarray, high: np.ndarray) -> Trajectory:
    """A random motion, cubic or quintic, from a place that is free."""
    while True:
        q = rng.uniform(low, high)
        if scene.clearance(q).distance_m > scene.resolution_m:
            break
    points, joints = int(rng.integers(2, 7)), len(q)
    times = np.r_[0.0, np.cumsum(rng.uniform(0.05, 0.25, points - 1))]
    ways = np.vstack([np.zeros(joints), rng.normal(0, 1.0, (points - 1, joints)) * np.diff(times)[:, None]])
    dq, ddq = rng.normal(0, 0.4, (2, points, joints))
    return Trajectory(times, q + np.cumsum(ways, axis=0), dq, 3 * ddq if rng.random() < 0.5 else None)


# -- what is found -------------------------------------------------------------------------------------------------


def test_self_collision_is_found_and_named(scene, profile):
    """Folding the forearm onto the base is found, and the two links are named."""
    folded = profile.home.copy()
    folded[1:3] = -2.4, 2.9
    contact = scene.first_contact(towards(profile.home, folded, 3.0), 0.0)
    assert contact is not None and not contact.keep_out
    assert {name.split("/")[0] for name in contact.names} <= {n.split("/")[0] for pair in scene.proximity.names for n in pair}
    assert "table" not in contact.names and contact.margin_m == Margins().self_m
    assert scene.clearance(folded).distance_m < 0


def test_table_is_found_and_named(scene, at):
    """A tip that would go 2 cm under the table is stopped where the fingers reach their margin."""
    contact = scene.first_contact(towards(at(0.45, 0.0, 0.10), at(0.45, 0.0, 0.0)), 0.0)
    assert contact is not None and contact.names[1] == "table" and contact.names[0].startswith("gripper/")
    assert contact.margin_m == Margins().fingers_table_m and not contact.keep_out
    assert contact.margin_m - 1e-4 <= contact.distance_m <= contact.margin_m + scene.resolution_m / 2


def test_post_between_two_free_ends_is_found(crowded, at):
    """Both ends of the motion are free, as are its points; what lies between is found all the same."""
    begin, end = at(0.475, 0.0, 0.15), at(0.475, 0.30, 0.15)
    q = np.stack([begin, end])
    blind = Trajectory(np.array([0.0, 1.0]), q, np.zeros_like(q))
    assert all(crowded.clearance(row).distance_m > 0.01 for row in q)
    contact = crowded.first_contact(blind, 0.0)
    assert contact is not None and contact.keep_out and contact.names[1] == "post" and 0 < contact.time_s < 1


def test_thin_sheet_is_found(profile, at):
    """A keep-out 1 mm thick cannot be jumped over."""
    sheet = Box("sheet", np.array([0.3, 0.12, 0.0]), np.array([0.7, 0.121, 0.5]))
    contact = Scene(profile, (sheet,)).first_contact(towards(at(0.45, 0.0, 0.15), at(0.45, 0.28, 0.15), 0.05), 0.0)
    assert contact is not None and contact.names[1] == "sheet"


def test_what_lies_behind_is_not_found(crowded, at):
    """Only the motion from the given time on counts."""
    there = towards(at(0.475, 0.0, 0.15), at(0.475, 0.30, 0.15))
    assert crowded.first_contact(there, 0.0) is not None
    assert crowded.first_contact(there, 0.999) is None


def test_base_without_collision_geometry_collides(profile, scene):
    """The package only draws the UR5e's base; the gripper is kept from it all the same."""
    assert any(names[0] == "base" or names[1] == "base" for names in scene.proximity.names)


# -- margins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beyond_m", "passes"), [(0.0006, True), (-0.0001, False)])
def test_margin_is_kept_to_the_resolution(scene, at, beyond_m, passes):
    """Coming down to just outside the margin (and half a resolution) passes, to just inside is refused."""
    height = 0.03 - scene.clearance(at(0.45, 0.0, 0.03)).distance_m + beyond_m
    end = at(0.45, 0.0, height)
    assert scene.clearance(end).distance_m == pytest.approx(beyond_m, abs=5e-5)
    contact = scene.first_contact(towards(at(0.45, 0.0, 0.06), end), 0.0)
    assert (contact is None) == passes, contact


@pytest.mark.parametrize("z", [0.022, 0.03])
def test_pushing_low_over_the_table_passes(scene, at, z):
    """The lowest tip that the workspace allows, 4 mm between fingertips and table, may move."""
    assert scene.first_contact(towards(at(0.35, -0.15, z), at(0.60, 0.15, z), 2.0), 0.0) is None


def test_palm_keeps_more_from_the_table_than_fingertips(scene):
    """The greater margin holds for everything but the fingertips."""
    margins = {names[0]: m for names, m in zip(scene.proximity.names, scene._margin, strict=True) if names[1] == "table"}
    assert margins["gripper/right_pad"] == Margins().fingers_table_m < margins["gripper/base"] == Margins().table_m
    assert margins["forearm_link"] == Margins().table_m


def test_neighbours_are_left_out_and_listed(scene):
    """What is never compared is listed with its reason; links two joints apart are compared."""
    reasons = {reason for _, _, reason in scene.proximity.ignored}
    assert reasons == {"neighbours in the chain", "touch at home", "the arm stands there"}
    assert [i for i in scene.proximity.ignored if i[2] == "touch at home"] == [("base:0", "upper_arm_link:3", "touch at home")]
    assert ("upper_arm_link", "wrist_1_link") in scene.proximity.names and ("base", "gripper/base") in scene.proximity.names


def test_arm_already_too_near_may_only_move_away(profile, at):
    """From inside a keep-out's margin the arm may leave, may stay, and may not go nearer."""
    begin = at(0.45, 0.0, 0.15)
    wall = Box("wall", np.array([0.2, 0.047, 0.0]), np.array([0.8, 0.3, 0.6]))
    near = Scene(profile, (wall,))
    assert near.clearance(begin).distance_m < 0
    assert near.first_contact(towards(begin, at(0.45, -0.10, 0.15)), 0.0) is None
    assert near.first_contact(hold(begin, 0.0), 0.0) is None
    closer = near.first_contact(towards(begin, at(0.45, 0.01, 0.15)), 0.0)
    assert closer is not None and closer.names[1] == "wall"
    there_and_back = Trajectory(
        np.array([0.0, 0.5, 1.0]), np.stack([begin, at(0.45, -0.05, 0.15), at(0.45, 0.0, 0.15)]), np.zeros((3, 6))
    )
    assert near.first_contact(there_and_back, 0.0) is not None  # once away, the margin holds again


def test_motions_do_not_creep_further_into_a_margin(profile, at):
    """From inside a margin no motion goes nearer than it began, not by the noise of a distance, again and again."""
    q = at(0.45, 0.0, 0.15)
    near = Scene(profile, (Box("wall", np.array([0.2, 0.080, 0.0]), np.array([0.8, 0.3, 0.6])),))
    begun = near.clearance(q).distance_m
    assert -0.009 < begun < -0.001
    slope = np.array([near.clearance(q + 1e-4 * row).distance_m - begun for row in np.eye(6)]) / 1e-4
    nearer = -slope / (slope @ slope)
    for step_m in (1.9e-6, 0.9e-6, 0.1e-6, 1.9e-9):
        for _ in range(50):
            motion = towards(q, q + step_m * nearer, 0.1)
            if near.first_contact(motion, 0.0) is None:
                q = motion.q[-1]
    assert near.clearance(q).distance_m > begun - 200e-9
    dip = Trajectory(np.array([0.0, 0.1, 0.2]), np.stack([q, q + 1.9e-6 * nearer, q]), np.zeros((3, 6)))
    assert near.first_contact(dip, 0.0) is not None  # another motion could begin in its middle
    assert near.first_contact(hold(q, 0.0), 0.0) is None
    for away_m in (1e-6, 1e-4, 1e-2):
        assert near.first_contact(towards(q, q - away_m * nearer), 0.0) is None


# -- nothing is missed ---------------------------------------------------------------------------------------------


def test_sweep_misses_nothing(crowded):
    """Random motions through a crowded scene: nothing that a millimetre-fine look finds passes, and nothing else is refused."""
    rng, low = np.random.default_rng(5), np.full(6, -np.pi)
    passed = refused = 0
    for _ in range(40):
        motion = wandering(rng, crowded, low, -low)
        contact, left = crowded.first_contact(motion, 0.0), least(crowded, motion)
        if contact is None:
            assert left >= 0, motion
            passed += 1
        else:
            assert left < crowded.resolution_m / 2 + 1e-3, (motion, contact)
            assert contact.distance_m < contact.margin_m + crowded.resolution_m / 2
            refused += 1
    assert passed >= 6 and refused >= 6


def test_motion_bound_bounds_every_point(crowded):
    """No two bodies come nearer to each other than the bound on their motion allows, wherever the joints turn within it."""
    rng, proximity = np.random.default_rng(6), crowded.proximity
    pairs = np.arange(len(proximity.names))
    tightest = 0.0
    for _ in range(25):
        q, turn = rng.uniform(-np.pi, np.pi, 6), rng.uniform(0, 0.15, 6)
        bound = proximity.motion(q[None], turn[None])[0]
        before = proximity.distances(q, pairs)
        for _ in range(6):
            after = proximity.distances(q + turn * rng.choice([-1, 1], 6), pairs)
            apart = (before > 0.01) & (after > 0.01)  # overlapping, a distance is a depth, which is found less exactly
            assert (np.abs(after - before)[apart] <= bound[apart] + 1e-5).all()
            tightest = max(tightest, float((np.abs(after - before)[apart] / np.maximum(bound[apart], 1e-6)).max()))
    assert tightest > 0.5, "the bound is so loose that it says nothing"


def test_lower_bound_is_below_the_distance(crowded):
    """What the boxes around two bodies are apart, the bodies are apart at least."""
    rng, proximity = np.random.default_rng(7), crowded.proximity
    q = rng.uniform(-np.pi, np.pi, (60, 6))
    for row, bound in zip(q, proximity.lower_bounds(q), strict=True):
        distance = proximity.distances(row, np.arange(len(bound)))
        assert (bound <= np.maximum(distance, 0.0) + 1e-6).all()


@pytest.mark.parametrize("quintic", [False, True])
def test_speed_bound_bounds_every_instant(quintic):
    """No speed between two points is above the bound of its segment."""
    rng = np.random.default_rng(8)
    for _ in range(100):
        times = np.r_[0.0, np.cumsum(rng.uniform(0.02, 0.5, 4))]
        q, dq, ddq = rng.normal(0, 1, (3, 5, 6))
        motion = Trajectory(times, q, dq, ddq if quintic else None)
        fine = np.linspace(0, times[-1], 400)[:-1]
        segment = np.searchsorted(times, fine, side="right") - 1
        assert (np.abs(sample(motion, fine)[1]) <= speed_bounds(motion)[segment] + 1e-9).all()


def test_distances_agree_with_the_simulator(profile, scene):
    """The frozen gripper is where the simulator's physics closes it, to 0.2 mm."""
    simulation = Simulation(0, profile)
    q = simulation.data.qpos[:6].copy()
    scene.proximity.distances(q, np.zeros(1, dtype=int))
    model, data = scene.proximity._model, scene.proximity._data
    for side in ("left", "right"):
        for part in ("pad", "follower", "driver", "coupler", "spring_link"):
            name = f"gripper/{side}_{part}"
            assert np.abs(data.xpos[model.body(name).id] - simulation.data.body(name).xpos).max() < 2e-4, name


# -- what stays possible -------------------------------------------------------------------------------------------


def test_legal_fast_plans_pass(scene, profile, kinematics):
    """Of the legal fast plans of the tests, fewer than 1 % are refused."""
    plans = [made for seed in range(4) for made in drive(seed, 40, profile, kinematics)]
    refused = [made for made in plans if scene.first_contact(made.trajectory, made.now_s) is not None]
    print(f"refused {len(refused)} of {len(plans)} legal plans ({100 * len(refused) / len(plans):.2f} %)")
    assert len(refused) < 0.01 * len(plans)


def test_the_room_shrinks_towards_a_post_and_not_over_the_table(crowded, at):
    """Approaching a post the room shrinks to nothing; over the open table it is wide, however low the push."""
    motion = towards(at(0.475, -0.2, 0.15), at(0.475, 0.06, 0.15))
    q = sample(motion, np.linspace(0, 1, 20))[0]
    along = crowded.room(q)
    assert along.shape == (20,) and np.allclose(along, [crowded.room(row[None])[0] for row in q])
    assert along[0] > 0.05 and along[-1] < 0.02 and (np.diff(along) <= 1e-9).all()
    assert crowded.room(at(0.40, -0.2, 0.024)[None])[0] > 0.05 > crowded.clearance(at(0.40, -0.2, 0.024)).distance_m


def test_the_nearest_on_a_way_is_the_least_of_its_clearances(crowded, at):
    """To the last digit and with the same names, whatever counts."""
    q = sample(towards(at(0.475, -0.2, 0.15), at(0.475, 0.06, 0.15)), np.linspace(0, 1, 20))[0]
    for by_design in (True, False):
        each = [crowded.clearance(row, by_design=by_design) for row in q]
        assert crowded.nearest(q, by_design=by_design) == min(each, key=lambda clearance: clearance.distance_m)
    assert crowded.nearest(q[:1], 0.001, False) == (0.001, ("", ""))


def test_clearance_beyond_its_range_names_nobody(scene, profile):
    """What is farther than the range is not looked at."""
    assert scene.clearance(profile.home, 0.001) == (0.001, ("", ""))


# -- in the guard --------------------------------------------------------------------------------------------------


def judged(offered: Trajectory, scene: Scene, profile, kinematics):
    start = offered.q[0]
    slow = replace(GuardConfig(), duration_max_s=10.0)
    state = RobotState(-0.01, start, np.zeros(len(start)))
    wide = replace(profile, workspace_min=np.full(3, -2.0), workspace_max=np.full(3, 2.0), tip_speed_max=2.0)
    return check(candidate(offered, profile), hold(start, -1.0), state, wide, kinematics, slow, 0.0, scene)


def rest_to_rest(begin: np.ndarray, end: np.ndarray, duration_s: float = 4.0) -> Trajectory:
    s = np.linspace(0.0, 1.0, 41)[:, None]
    way = end - begin
    q = begin + way * (10 * s**3 - 15 * s**4 + 6 * s**5)
    dq = way * (30 * s**2 - 60 * s**3 + 30 * s**4) / duration_s
    return Trajectory(duration_s * s[:, 0], q, dq, way * (60 * s - 180 * s**2 + 120 * s**3) / duration_s**2)


def test_guard_says_which_kind_of_contact(profile, kinematics, crowded, at):
    """Table and arm are a collision, a box is a keep-out, and both numbers are told; without a scene neither is looked for."""
    into_post = rest_to_rest(at(0.475, 0.0, 0.15), at(0.475, 0.30, 0.15))
    verdict = judged(into_post, crowded, profile, kinematics)
    assert verdict.reason is Reason.KEEP_OUT and "post" in verdict.detail and "allowed 0.01 m" in verdict.detail
    into_table = rest_to_rest(at(0.45, -0.1, 0.10), at(0.45, -0.1, 0.0))
    verdict = judged(into_table, crowded, profile, kinematics)
    assert verdict.reason is Reason.COLLISION and "table" in verdict.detail
    assert judged(into_post, None, profile, kinematics).ok and judged(into_table, None, profile, kinematics).ok


def test_guard_passes_its_scene_on(profile, kinematics, crowded, at):
    """A guard with a scene refuses what one without passes."""
    begin = at(0.475, 0.03, 0.15)
    motion = rest_to_rest(begin, at(0.475, 0.12, 0.15), 1.5)
    state = RobotState(-0.01, begin, np.zeros(6))
    blind, seeing = (Guard(profile, kinematics, scene=s).offer(candidate(motion, profile), state, 0.0) for s in (None, crowded))
    assert blind.ok and seeing.reason is Reason.KEEP_OUT


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_never_pass(scene, profile, bad):
    """NaN is refused by its name, whatever asks."""
    q = profile.home.copy()
    q[2] = bad
    with pytest.raises(ValueError, match="1 of 6 numbers are not finite"):
        scene.clearance(q)
    for name in ("q", "dq", "ddq", "times_s"):
        motion = rest_to_rest(profile.home, profile.home + 0.01)
        getattr(motion, name).flat[-1] = bad
        with pytest.raises(ValueError, match="not finite"):
            scene.first_contact(motion, 0.0)
    with pytest.raises(ValueError, match="not finite"):
        scene.first_contact(hold(profile.home, 0.0), bad)


def test_wrong_boxes_margins_and_resolutions_are_refused(profile):
    """A box turned inside out, a negative margin and an endless resolution are named, with their numbers."""
    with pytest.raises(ValueError, match="low below its high"):
        Box("upside down", np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        Box("nowhere", np.zeros(3), np.array([1.0, np.nan, 1.0]))
    with pytest.raises(ValueError, match="got 7"):
        boxes_of([0.0] * 7)
    with pytest.raises(ValueError, match="table_m"):
        Margins(table_m=-0.001)
    with pytest.raises(ValueError, match="resolution"):
        Scene(profile, resolution_m=np.nan)
    assert [box.name for box in boxes_of([0.0, 0.0, 0.0, 1.0, 1.0, 1.0] * 2)] == ["keep-out 1", "keep-out 2"]


def test_scene_comes_back_from_its_text(profile):
    """What stands around the arm is the same to the last bit after a way through text; other text is refused."""
    boxes = boxes_of([0.1, 0.2, 1 / 3, 0.4, 0.5, 0.6])
    scene = scene_from(to_text(TABLE, boxes), profile, GuardConfig(margins=Margins(keep_out_m=0.03)))
    assert scene is not None and scene.margins.keep_out_m == 0.03
    assert to_text(scene.table, scene.boxes) == to_text(TABLE, boxes) and (scene.boxes[0].low == boxes[0].low).all()
    assert scene_from("", profile, GuardConfig()) is None
    with pytest.raises(ValueError, match="'table' and 'boxes'"):
        scene_from('{"boxes": []}', profile, GuardConfig())


BESIDE = Box("beside", np.array([0.44, 0.05, 0.0]), np.array([0.46, 0.07, 0.11]))
BETWEEN = Box("between", np.array([0.445, -0.005, 0.0]), np.array([0.455, 0.005, 0.06]))  # the fingers, when they are open
BELOW = Box("below", np.array([0.35, -0.10, 0.0]), np.array([0.55, 0.10, 0.03]))


def test_a_gripper_that_moves_comes_back_from_the_scenes_text(profile, at):
    """A post beside the tip that closed fingers pass and open ones would hit. A text that tells nothing means closed, as ever."""
    down = towards(at(0.45, 0.0, 0.20), at(0.45, 0.0, 0.10))
    found = {}
    for moves in (False, True):
        text = to_text(TABLE, (BESIDE,), moves)
        assert ("gripper" in text) == moves
        found[moves] = scene_from(text, profile, GuardConfig()).first_contact(down, 0.0)
    assert found[False] is None and found[True].names[1] == "beside"
    told_open = to_text(TABLE, (BESIDE,))[:-1] + ', "gripper": 0.0}'  # as it was told once
    assert scene_from(told_open, profile, GuardConfig()).first_contact(down, 0.0) is not None


def at_many_openings(profile, box: Box, q: np.ndarray):
    """The arm at q beside the box, with its gripper at 25 openings from open to closed, as physics settles it."""
    spec = collision_spec(profile)
    spec.worldbody.add_geom(
        name="box", type=mujoco.mjtGeom.mjGEOM_BOX, pos=(box.low + box.high) / 2, size=(box.high - box.low) / 2
    )
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[:] = q
    for poses in _settled(profile, np.linspace(OPEN, ROBOTIQ_CLOSED, 25)):
        for name, pose in poses.items():
            model.body(name).pos, model.body(name).quat = pose
        mujoco.mj_kinematics(model, data)
        yield model, data


def gripper_pieces(model: mujoco.MjModel, data: mujoco.MjData) -> dict[str, np.ndarray]:
    """Corners [m] of each."""
    names = {i: model.geom(i).name for i in range(model.ngeom)}
    return {
        name: data.geom_xpos[i] + corners(model, i) @ data.geom_xmat[i].reshape(3, 3).T
        for i, name in names.items()
        if name.startswith("gripper/")
    }


def test_a_gripper_that_moves_holds_all_its_openings(profile):
    """No piece leaves the hull that stands for it by more than 0.2 mm, in any direction, however far the gripper is open."""
    directions = np.random.default_rng(9).normal(size=(2000, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    model = collision_spec(profile, gripper_moves=True).compile()
    data = mujoco.MjData(model)
    data.qpos[:] = profile.home
    mujoco.mj_kinematics(model, data)
    held = {name: (directions @ places.T).max(axis=1) for name, places in gripper_pieces(model, data).items()}
    for opened in at_many_openings(profile, POST, profile.home):
        for name, places in gripper_pieces(*opened).items():
            assert ((directions @ places.T).max(axis=1) - held[name]).max() < 2e-4, name


@pytest.mark.parametrize("box", [BESIDE, BETWEEN, BELOW], ids=lambda box: box.name)
def test_no_opening_of_a_gripper_that_moves_comes_too_near(profile, at, box):
    """Where the arm may come down to, the gripper keeps its margin from open to closed, and keeps hardly more than that."""
    motion = towards(at(0.45, 0.0, 0.25), at(0.45, 0.0, 0.05), 2.0)
    contact = Scene(profile, (box,), gripper_moves=True).first_contact(motion, 0.0)
    assert contact is not None and contact.names[1] == box.name
    q, least_m = sample(motion, np.array([contact.time_s]))[0][0], np.inf
    for model, data in at_many_openings(profile, box, q):
        stands = model.geom("box").id
        others = (i for i in range(model.ngeom) if i != stands)
        least_m = min(least_m, *(mujoco.mj_geomDistance(model, data, i, stands, 1.0, None) for i in others))
    assert Margins().keep_out_m - 2e-4 < least_m < Margins().keep_out_m + 2e-3


def test_a_gripper_that_moves_has_the_pairs_and_fingertips_of_a_closed_one(profile, scene):
    """What may touch, and what may come as near to the table as a fingertip, does not depend on its moving."""
    moving = Scene(profile, gripper_moves=True).proximity
    assert moving.names == scene.proximity.names and moving.ignored == scene.proximity.ignored
    assert (moving.finger == scene.proximity.finger).all()


def test_guard_slows_beside_a_keep_out(profile, kinematics, at):
    """The same fast motion is slowed where a wall stands a few centimetres beside it, and not in the open."""
    motion = rest_to_rest(at(0.40, 0.0, 0.15), at(0.55, 0.0, 0.15), 1.4)
    state = RobotState(-0.01, motion.q[0], np.zeros(6))
    shares = []
    for y in (0.065, 0.30):
        wall = Box("wall", np.array([0.3, y, 0.0]), np.array([0.7, y + 0.05, 0.2]))
        verdict = Guard(profile, kinematics, scene=Scene(profile, (wall,))).offer(candidate(motion, profile), state, 0.0)
        assert verdict.ok, verdict
        shares.append(verdict.slowed)
    assert shares[0] < 1.0 == shares[1]


def test_box_tells_how_far_outside_a_point_is():
    """Distances are Euclidean outside and to the nearest face inside, below 0."""
    box = Box("unit", np.zeros(3), np.ones(3))
    points = np.array([[0.5, 0.5, 0.9], [0.5, 0.5, 1.2], [1.3, 1.4, 0.5], [0.0, 0.5, 0.5]])
    assert np.allclose(box.distance(points), [-0.1, 0.2, 0.5, 0.0])


# -- other robots --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OTHERS)
def test_other_robots_load(name):
    """Each robot with a model is free at home, folds into itself somewhere, and has fingers."""
    if find_spec(OTHERS[name]) is None:
        pytest.skip(f"package '{OTHERS[name]}' is not installed")
    profile = load_profile(name)
    scene = Scene(profile)
    assert scene.clearance(profile.home).distance_m > 0 and scene.proximity.finger.any()
    rng = np.random.default_rng(1)
    poses = rng.uniform(profile.position_min, profile.position_max, (200, len(profile.home)))
    assert any(0 <= scene.clearance(q).distance_m for q in poses) and any(scene.clearance(q).distance_m < 0 for q in poses)


def test_a_link_that_never_leaves_the_table_slows_nothing():
    """The SO-101's shoulder turns 24 mm above its table whatever the arm does; near the table at all is another matter."""
    profile = load_profile("so101")
    scene = Scene(profile)
    assert scene.clearance(profile.home).distance_m < 0.03 and "shoulder" in scene.clearance(profile.home).names
    assert scene.room(profile.home[None])[0] > GuardConfig.slow_distance_m
