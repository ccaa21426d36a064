"""Kinematics agree with the robot's full MuJoCo model and with themselves, for every robot that has a model."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.model import NoModelError, arm_spec, drop_drawn, package_file, robot_spec
from foresight.robots.profile import RobotProfile, available_robots, load_profile

SEEDS = range(5)
MODELLED = ("fr3", "panda", "so101", "ur5e")
REACHING = ("fr3", "panda", "ur5e")  # six joints or more


def near_home(profile: RobotProfile, seed: int) -> np.ndarray:
    return profile.home + np.random.default_rng(seed).uniform(-0.4, 0.4, len(profile.home))


@pytest.fixture(scope="module", params=MODELLED)
def arm(request) -> MujocoKinematics:
    return MujocoKinematics(load_profile(request.param))


@pytest.fixture(scope="module", params=REACHING)
def reaching(request) -> MujocoKinematics:
    return MujocoKinematics(load_profile(request.param))


def package_tip(profile: RobotProfile, q: np.ndarray) -> np.ndarray:
    """The tool centre point in the package's own model, joints named as the package names them."""
    source = profile.model
    if source.gripper is None:
        model = mujoco.MjModel.from_xml_path(str(package_file(source.package, source.arm)))
        names = source.joints
    else:
        model, names = robot_spec(profile).compile(), profile.joint_names
    data = mujoco.MjData(model)
    for name, value in zip(names, q, strict=True):
        data.joint(name).qpos[0] = value
    mujoco.mj_forward(model, data)
    return data.site(source.gripper_prefix + source.tip_site).xpos


def test_robots_without_a_model_say_so():
    """Every profile either has working kinematics or refuses them in one line that names the robot and what is left."""
    assert tuple(n for n in available_robots() if load_profile(n).model is not None) == MODELLED
    for name in ("xarm6", "xarm7"):
        profile = load_profile(name)
        for build in (MujocoKinematics, robot_spec, arm_spec):
            with pytest.raises(NoModelError, match=rf"'{name}' has no model .*its limits are checked all the same"):
                build(profile)
        assert profile.velocity_bounds(profile.home)[1].max() == 0.8


@pytest.mark.parametrize("seed", SEEDS)
def test_tip_is_the_site_of_the_package_model(arm, seed):
    """The tip equals the tool centre point of the unreduced model, gripper fingers and all."""
    q = near_home(arm.profile, seed)
    assert arm.tip(q) == pytest.approx(package_tip(arm.profile, q), abs=1e-9)


@pytest.mark.parametrize("name", ["fr3", "panda"])
@pytest.mark.parametrize("seed", SEEDS)
def test_franka_tip_follows_the_published_geometry(name, seed):
    """Franka's Denavit-Hartenberg parameters, multiplied by hand, put the fingertips where the model has them."""
    kinematics = MujocoKinematics(load_profile(name))
    q = near_home(kinematics.profile, seed)
    rows = [  # a [m], d [m], alpha [quarter turns] of each joint, after Craig
        (0, 0.333, 0),
        (0, 0, -1),
        (0, 0.316, 1),
        (0.0825, 0, 1),
        (-0.0825, 0.384, -1),
        (0, 0, 1),
        (0.088, 0, 1),
    ]
    pose = np.eye(4)
    for (a, d, quarters), angle in zip(rows, q, strict=True):
        ca, sa, ct, st = np.cos(quarters * np.pi / 2), np.sin(quarters * np.pi / 2), np.cos(angle), np.sin(angle)
        pose = pose @ [[ct, -st, 0, a], [st * ca, ct * ca, -sa, -d * sa], [st * sa, ct * sa, ca, d * ca], [0, 0, 0, 1]]
    beyond = 0.107 + 0.0038 + 0.145  # [m] flange, coupling, to between the fingertips of the 2F-85
    assert kinematics.tip(q) == pytest.approx((pose @ [0, 0, beyond, 1])[:3], abs=1e-6)


def test_fr3_and_panda_have_one_geometry_and_their_own_limits():
    """The same joints put both tips at the same place; each model has its own profile's names and ranges."""
    fr3, panda = (MujocoKinematics(load_profile(n)) for n in ("fr3", "panda"))
    q = near_home(fr3.profile, 0)
    assert np.array_equal(fr3.tip(q), panda.tip(q))
    for arm in (fr3, panda):
        assert tuple(arm.model.joint(i).name for i in range(arm.model.njnt)) == arm.profile.joint_names
        assert np.array_equal(arm.model.jnt_range[:, 0], arm.profile.position_min)
        assert np.array_equal(arm.model.jnt_range[:, 1], arm.profile.position_max)


@pytest.mark.parametrize("seed", SEEDS)
def test_jacobian_is_the_derivative_of_the_tip(arm, seed):
    """Each column of the Jacobian is what a small turn of that joint does to the tip and to the tool's orientation."""
    q, step = near_home(arm.profile, seed), 1e-6
    joints = len(q)
    differences = np.stack([(arm.tip(q + step * e) - arm.tip(q - step * e)) / (2 * step) for e in np.eye(joints)], axis=1)
    jacobian = arm.jacobian(q)
    assert jacobian.shape == (6, joints)
    assert jacobian[:3] == pytest.approx(differences, abs=1e-7)
    for column, e in zip(jacobian[3:].T, np.eye(joints), strict=True):
        spin = (arm.rotation(q + step * e) - arm.rotation(q - step * e)) / (2 * step) @ arm.rotation(q).T
        assert column == pytest.approx([spin[2, 1], spin[0, 2], spin[1, 0]], abs=1e-7)
    dq = np.random.default_rng(seed).normal(size=joints)
    assert arm.tip_velocity(q, dq) == pytest.approx(differences @ dq, abs=1e-6)


def body_states(data: mujoco.MjData, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of mass (B, 3) [m] and axes of inertia (B, 3, 3) of the model's bodies, by its kinematics alone."""
    data.qpos[:] = q
    mujoco.mj_kinematics(data.model, data)
    return data.xipos.copy(), data.ximat.reshape(-1, 3, 3).copy()


def inertia_by_motion(data: mujoco.MjData, q: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Joint-space inertia (J, J) [kg m^2]: by kinetic energies of bodies whose velocities are differences of places."""
    model, axes = data.model, body_states(data, q)[1]  # (B, 3, 3)
    moves, spins = [], []
    for e in np.eye(model.nv):
        (ahead, turned), (behind, unturned) = body_states(data, q + step * e), body_states(data, q - step * e)
        moves.append((ahead - behind) / (2 * step))
        skew = (turned - unturned) / (2 * step) @ np.swapaxes(axes, 1, 2)
        spins.append(np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=1))
    along = np.einsum("jbk,bka->jba", np.stack(spins), axes)  # about each body's own axes of inertia
    linear = np.einsum("jbk,ibk,b->ji", np.stack(moves), np.stack(moves), model.body_mass)
    return linear + np.einsum("jba,iba,ba->ji", along, along, model.body_inertia) + np.diag(model.dof_armature)


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_torques_follow_from_the_energies(arm, seed):
    """Lagrange's equations, from masses and places of the bodies of a new model. Judge and guard both go by these torques."""
    model, rng, step = arm_spec(arm.profile).compile(), np.random.default_rng(seed), 1e-4
    data = mujoco.MjData(model)
    q, (dq, ddq) = near_home(arm.profile, seed), rng.normal(size=(2, model.nv))
    inertia = inertia_by_motion(data, q)
    changes = [
        (inertia_by_motion(data, q + step * e) - inertia_by_motion(data, q - step * e)) / (2 * step) for e in np.eye(model.nv)
    ]
    heights = [(body_states(data, q + step * e)[0] - body_states(data, q - step * e)[0]) / (2 * step) for e in np.eye(model.nv)]
    weight = np.array([-(model.body_mass[:, None] * height * model.opt.gravity).sum() for height in heights])
    along = np.einsum("k,kij->ij", dq, changes) @ dq  # of the momentum, as the arm moves
    bias = along - np.array([dq @ change @ dq / 2 for change in changes]) + weight
    found_inertia, found_bias = arm.dynamics(q[None], dq[None])
    assert found_inertia[0] == pytest.approx(inertia, rel=1e-5, abs=1e-6)
    assert found_bias[0] == pytest.approx(bias, rel=1e-5, abs=1e-4)
    assert arm.torques(q[None], dq[None], ddq[None])[0] == pytest.approx(inertia @ ddq + bias, rel=1e-5, abs=1e-4)
    assert np.abs(weight).max() > 0.1 and np.abs(bias - weight).max() > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_joint_velocity_inverts_tip_velocity(reaching, seed):
    """The joint velocity found for a tip velocity produces it, and does not turn the tool."""
    q, wanted = near_home(reaching.profile, seed), np.random.default_rng(seed).uniform(-0.2, 0.2, 3)
    twist = reaching.jacobian(q) @ reaching.joint_velocity(q, wanted)
    assert twist[:3] == pytest.approx(wanted, abs=2e-3) and twist[3:] == pytest.approx(np.zeros(3), abs=2e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_five_joints_give_the_tip_its_velocity(seed):
    """An arm that cannot hold its tool's orientation still moves its tip as wanted, whatever turn is wanted too."""
    arm = MujocoKinematics(load_profile("so101"))
    rng = np.random.default_rng(seed)
    q, wanted = near_home(arm.profile, seed), rng.uniform(-0.2, 0.2, 3)
    dq = arm.joint_velocity(q, wanted, rng.uniform(-1, 1, 3))
    assert arm.tip_velocity(q, dq) == pytest.approx(wanted, abs=2e-3)


def test_tips_of_many_are_the_tips_of_each(arm):
    """Many at once give what each gives alone, and none give none."""
    q = np.stack([near_home(arm.profile, s) for s in SEEDS])
    assert np.array_equal(arm.tips(q), np.stack([arm.tip(row) for row in q]))
    assert arm.tips(np.zeros((0, q.shape[1]))).shape == (0, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_solve_reaches_the_tip_with_the_tool_upright(arm, seed):
    """Inverse kinematics puts the tip within a fifth of a millimetre of any point near home, upright where the arm can."""
    rng, profile = np.random.default_rng(seed), arm.profile
    target = arm.tip(profile.home) + rng.uniform(-0.05, 0.05, 3)
    q = arm.solve(target, profile.home)
    assert q is not None and np.linalg.norm(arm.tip(q) - target) <= 2.1e-4
    assert (q >= profile.position_min).all() and (q <= profile.position_max).all()
    if profile.name in REACHING:
        assert np.linalg.norm(arm.tilt(arm.rotation(q))) <= 1e-3


def test_solve_says_when_a_point_is_out_of_reach(arm):
    """A point beyond the arm's length has no solution, and none is invented."""
    assert arm.solve(np.array([3.0, 0.0, 0.2]), arm.profile.home) is None


def test_home_is_over_the_workspace(arm):
    """At home the tip is in the workspace or a hand's breadth above it, from where the guard lets it down."""
    tip, profile = arm.tip(arm.profile.home), arm.profile
    assert (tip > profile.workspace_min).all() and (tip[:2] < profile.workspace_max[:2]).all()
    assert tip[2] < profile.workspace_max[2] + 0.05


@pytest.mark.parametrize("corner", range(8))
def test_the_workspace_is_within_reach(arm, corner):
    """The arm can put its tip at every corner of its workspace."""
    profile = arm.profile
    chosen = np.array([corner & 1, corner & 2, corner & 4]) > 0
    target, q = np.where(chosen, profile.workspace_max, profile.workspace_min), profile.home
    begin = arm.tip(q)
    for share in np.linspace(0.05, 1.0, 20):
        q = arm.solve(begin + share * (target - begin), q)
        assert q is not None, f"stuck at {share:.2f} of the way"


def test_profile_of_other_joints_is_refused(profile):
    """A profile whose joint order is not the model's is refused, naming both."""
    names = profile.joint_names
    with pytest.raises(ValueError, match=r"profile lists joints .* its model has"):
        MujocoKinematics(replace(profile, joint_names=(names[1], names[0], *names[2:])))


@pytest.mark.parametrize("name", MODELLED)
def test_a_joint_that_the_profile_forgets_is_not_frozen_silently(name):
    """A profile that leaves out a joint of the arm or of the gripper, or names one that is not there, is refused."""
    profile = load_profile(name)
    source = profile.model
    for change in (
        {"gripper_joints": source.gripper_joints[1:]},
        {"gripper_joints": (*source.gripper_joints, "sixth_finger")},
        {"joints": (*source.joints[:-1], "no_such_joint")},
    ):
        with pytest.raises(ValueError, match=rf"'{name}': profile lists joints .* its model has"):
            robot_spec(replace(profile, joint_names=tuple("abcdefg"[: len(source.joints)]), model=replace(source, **change)))


def test_a_package_that_is_not_there_is_named(profile):
    """A missing package, or a file missing in it, is told with what to do or where it was looked for."""
    with pytest.raises(FileNotFoundError, match=r"Package 'no_such_package'.*make setup"):
        robot_spec(replace(profile, model=replace(profile.model, package="no_such_package")))
    with pytest.raises(FileNotFoundError, match=r"'ogbench' has no file 'arm.xml'"):
        robot_spec(replace(profile, model=replace(profile.model, arm="arm.xml")))


@pytest.mark.parametrize("name", ["so101", "ur5e"])
def test_the_base_can_be_touched(name):
    """Where the package lets nothing touch the arm's base, the arm that is frozen for checks has one that can be touched."""
    model = arm_spec(load_profile(name)).compile()
    base = model.body("base").id
    solid = [i for i in range(model.ngeom) if model.geom_bodyid[i] == base and model.geom_contype[i]]
    assert solid and not any(g.contype for g in robot_spec(load_profile(name)).body("base").geoms)


@pytest.mark.parametrize("name", MODELLED)
def test_what_is_only_drawn_is_left_out_and_weighs_nothing(name):
    """Without what is only drawn the arm has the same bodies, masses and solid geometry, and fewer meshes."""
    whole, bare = (arm_spec(load_profile(name)) for _ in range(2))
    drop_drawn(bare)
    assert all(geom.contype or geom.conaffinity or not geom.parent.explicitinertial for geom in bare.geoms)
    assert {mesh.name for mesh in bare.meshes} == {geom.meshname for geom in bare.geoms} - {""}
    whole, bare = whole.compile(), bare.compile()
    for value in ("body_mass", "body_inertia", "body_ipos", "body_iquat", "body_parentid", "jnt_range", "dof_damping"):
        np.testing.assert_array_equal(getattr(bare, value), getattr(whole, value))
    solid = (whole.geom_contype | whole.geom_conaffinity) > 0
    kept = (bare.geom_contype | bare.geom_conaffinity) > 0
    for value in ("geom_bodyid", "geom_type", "geom_pos", "geom_quat", "geom_size", "geom_contype", "geom_conaffinity"):
        np.testing.assert_array_equal(getattr(bare, value)[kept], getattr(whole, value)[solid])
    assert bare.nmesh < whole.nmesh
