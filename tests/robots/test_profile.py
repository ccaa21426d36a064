"""A robot profile is complete and consistent, or refused with what is wrong in it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields, replace
from importlib.resources import files
from typing import Any

import jaxtyping
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from foresight.robots.profile import RobotProfile, available_robots, load_profile, parse_profile
from foresight.robots.schema import LIMITS
from sim.simulation import OPENS_RAD

ROBOTS = available_robots()


SHIPPED = {n: yaml.safe_load(files("foresight.robots").joinpath(f"profiles/{n}.yaml").read_text()) for n in ROBOTS}


def read(name: str) -> dict[str, Any]:
    """The mapping of a shipped profile, for a test to change."""
    return deepcopy(SHIPPED[name])


def places(value: dict, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every key, those of mappings within included."""
    found = []
    for key, inner in value.items():
        found.append((*path, key))
        if isinstance(inner, dict):
            found += places(inner, (*path, key))
    return found


def changed(raw: dict, path: tuple[str, ...], value: Any) -> dict:
    """A copy with another value at that path."""
    copy = deepcopy(raw)
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


@pytest.fixture
def raw() -> dict:
    return read("ur5e")


@pytest.fixture
def as_in_operation():
    """Without the shape checks that only tests have, which would answer before the profile's own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_the_six_robots_ship():
    """The profiles that ship are these."""
    assert ROBOTS == ["fr3", "panda", "so101", "ur5e", "xarm6", "xarm7"]


@pytest.mark.parametrize("name", ROBOTS)
def test_every_shipped_profile_loads(name):
    """Each profile that ships loads under its own name, and names a source for each limit."""
    profile = load_profile(name)
    assert profile.name == name and set(profile.sources) == set(LIMITS)
    assert (profile.joint_speed_max, profile.tip_speed_max) == (0.8, 0.25)


@pytest.mark.parametrize("name", ROBOTS)
def test_a_limit_that_is_null_has_no_source_but_a_reason(name):
    """Where a limit is null its source says that there is none, and where it is not its source says where from."""
    profile = load_profile(name)
    for limit in LIMITS:
        says_none = profile.sources[limit] in ("none published", "not published by the maker")
        assert says_none is (getattr(profile, limit) is None), limit


def test_unknown_robot_lists_what_is_available():
    """A misspelt robot is answered with the robots there are."""
    with pytest.raises(ValueError, match=r"'ur5' has no profile. Available: .*ur5e"):
        load_profile("ur5")


def test_missing_file_is_named(tmp_path):
    """A path that does not exist is named, and so are the shipped robots."""
    with pytest.raises(FileNotFoundError, match=r"mine.yaml does not exist.*ur5e"):
        load_profile(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("text", ["name: a\nname: b\n", "model: {arm: a, arm: b}\n"], ids=["outer", "inner"])
def test_a_key_given_twice_is_refused(tmp_path, text):
    """The last of two equal keys does not silently win."""
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"mine.yaml: not readable as YAML: key '(name|arm)' is given twice"):
        load_profile(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("text", ["name: [", "", "- a\n- b\n"], ids=["syntax", "empty", "list"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    """Broken YAML, an empty file and a list are refused by the file's name."""
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"mine.yaml: (not readable as YAML|expected a mapping)"):
        load_profile(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("key", [f.name for f in fields(RobotProfile)])
def test_missing_key_is_named(raw, key):
    """Nothing about a robot has a default: any key left out is an error that names it."""
    del raw[key]
    with pytest.raises(ValueError, match=rf"here.yaml: missing keys \['{key}'\]"):
        parse_profile(raw, "here.yaml")


def test_unknown_key_is_named(raw):
    """A misspelt key is an error, not ignored."""
    with pytest.raises(ValueError, match=r"unknown keys \['speed'\]"):
        parse_profile({**raw, "speed": 1.0}, "here.yaml")


@pytest.mark.parametrize(("part", "robot"), [("velocity_law", "fr3"), ("gripper", "ur5e"), ("model", "fr3"), ("sources", "fr3")])
def test_keys_within_a_mapping_are_checked(part, robot):
    """A key left out of a mapping, or one too many, is named with the mapping it belongs to."""
    raw = read(robot)
    key = sorted(raw[part])[0]
    without = {k: v for k, v in raw[part].items() if k != key}
    with pytest.raises(ValueError, match=rf"'{part}' must be exactly the keys .*missing keys \['{key}'\]"):
        parse_profile({**raw, part: without}, "here.yaml")
    with pytest.raises(ValueError, match=rf"'{part}' must be exactly the keys .*unknown keys \['extra'\]"):
        parse_profile({**raw, part: {**raw[part], "extra": 1}}, "here.yaml")


ANY_PLACE = [(name, path) for name in ROBOTS for path in places(read(name))]
UNFIT = [{"a": 1}, [], [None], ["x", 1], True, -1.0, float("nan"), float("inf"), [float("nan")] * 7, " "]


@pytest.mark.usefixtures("as_in_operation")
@pytest.mark.parametrize(("name", "path"), ANY_PLACE, ids=lambda p: p if isinstance(p, str) else ".".join(p))
def test_a_value_of_another_kind_is_refused_by_its_key(name, path):
    """Whatever key of whatever profile holds a value of the wrong kind, the error names key, expected and got."""
    allowed = {"gripper_prefix": " ", "gripper_joints": [], "opened": -1.0, "closed": -1.0}
    for value in UNFIT:
        if path[-1] in allowed and value == allowed[path[-1]]:
            continue
        with pytest.raises(ValueError, match=rf"here.yaml: key '{'.'.join(path)}' must be .+; got .+") as refusal:
            parse_profile(changed(read(name), path, value), "here.yaml")
        assert "\n" not in str(refusal.value)


@pytest.mark.usefixtures("as_in_operation")
@pytest.mark.parametrize("key", ["position_min", "position_max", "velocity_max", "acceleration_max", "jerk_max", "home"])
@pytest.mark.parametrize("value", [[1.0] * 5, [1.0] * 5 + [float("nan")], ["1.0"] * 6], ids=["short", "nan", "text"])
def test_joint_arrays_need_one_finite_number_per_joint(raw, key, value):
    """A list with a number too few, NaN or text is refused by its key, however the profile is made."""
    with pytest.raises(ValueError, match=f"key '{key}' must be 6 finite numbers"):
        parse_profile({**raw, key: value}, "here.yaml")
    if value[0] == 1.0:
        with pytest.raises(ValueError, match=f"{key} needs 6 finite numbers"):
            replace(load_profile("ur5e"), **{key: np.array(value)})


OPTIONAL = ["velocity_law", "torque_max", "torque_rate_max", "gripper_force_max", "gripper", "model"]


@pytest.mark.parametrize("key", [f.name for f in fields(RobotProfile)])
def test_null_is_only_for_what_may_be_unknown(key):
    """Null stands where the maker publishes nothing, and is refused anywhere else."""
    raw = {**read("fr3"), key: None}
    if key in OPTIONAL:
        assert getattr(parse_profile(raw, "here.yaml"), key) is None
    else:
        with pytest.raises(ValueError, match=f"key '{key}' must be "):
            parse_profile(raw, "here.yaml")


POSITIVE = ["velocity_max", "acceleration_max", "jerk_max", "torque_max", "torque_rate_max"]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.sampled_from(POSITIVE), st.integers(0, 6), st.floats(max_value=0.0, allow_nan=False, allow_infinity=False))
def test_no_limit_of_a_joint_is_zero_or_less(key, joint, value):
    """A velocity, acceleration, jerk, torque or torque rate of zero or below is refused, whichever joint has it."""
    raw = read("fr3")
    raw[key] = [*raw[key][:joint], value, *raw[key][joint + 1 :]]
    with pytest.raises(ValueError, match=f"key '{key}' must be 7 finite numbers above 0"):
        parse_profile(raw, "here.yaml")


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 6), st.floats(0.0, 10.0), st.booleans())
def test_home_lies_within_the_position_limits(joint, beyond, above):
    """A home on or beyond a position limit is refused with both."""
    raw = read("fr3")
    raw["home"][joint] = raw["position_max"][joint] + beyond if above else raw["position_min"][joint] - beyond
    with pytest.raises(ValueError, match=r"(home must lie below position_max)|(position_min must lie below home)"):
        parse_profile(raw, "here.yaml")


def test_contradictions_are_refused(raw):
    """A minimum above its maximum, a joint named twice or in another order than in the model, half a gripper: refused."""
    with pytest.raises(ValueError, match="position_min must lie below position_max"):
        parse_profile({**raw, "position_min": [7.0] * 6}, "here.yaml")
    with pytest.raises(ValueError, match="workspace_min must lie below workspace_max"):
        parse_profile({**raw, "workspace_min": raw["workspace_max"]}, "here.yaml")
    with pytest.raises(ValueError, match="'joint_names' must be a list of different names"):
        parse_profile({**raw, "joint_names": ["a"] * 6}, "here.yaml")
    with pytest.raises(ValueError, match="in another order"):
        parse_profile({**raw, "joint_names": raw["joint_names"][::-1]}, "here.yaml")
    with pytest.raises(ValueError, match="go together"):
        parse_profile(changed(raw, ("model", "attachment_site"), None), "here.yaml")
    with pytest.raises(ValueError, match=r"both in model.joints and in model.gripper_joints"):
        parse_profile(changed(raw, ("model", "gripper_joints"), ["elbow_joint"]), "here.yaml")


def test_a_gripper_that_cannot_be_read_is_refused(raw):
    """One joint of the arm, and one that is in the same place open and closed."""
    with pytest.raises(ValueError, match=r"gripper\.joint 'elbow_joint' is a joint of the arm: shoulder_pan_joint"):
        parse_profile(changed(raw, ("gripper", "joint"), "elbow_joint"), "here.yaml")
    with pytest.raises(ValueError, match=r"must be finite and differ, got 0\.8 and 0\.8"):
        parse_profile(changed(raw, ("gripper", "opened"), 0.8), "here.yaml")


def test_a_gripper_may_not_be_allowed_more_force_than_it_has(raw):
    """The cap is at most the maker's maximum, however the profile is made; where no maximum is published any cap will do."""
    with pytest.raises(ValueError, match=r"gripper\.force_cap must be at most gripper_force_max \(235\.0 N\), got 235\.1 N"):
        parse_profile(changed(raw, ("gripper", "force_cap"), 235.1), "here.yaml")
    profile = parse_profile(changed(raw, ("gripper", "force_cap"), 235.0), "here.yaml")
    assert profile.gripper_moved().force_cap == 235 and replace(profile, gripper_force_max=None).gripper_moved()
    with pytest.raises(ValueError, match=r"gripper\.stiffness must be a finite number above 0, or null, got nan"):
        replace(profile, gripper=replace(profile.gripper, stiffness=float("nan")))


@pytest.mark.parametrize("key", ["stiffness", "force_cap"])
def test_a_gripper_whose_force_has_no_limit_is_not_moved(raw, key):
    """Null says that it is not known: a model that moves the gripper is refused, with what is missing."""
    profile = parse_profile(changed(raw, ("gripper", key), None), "here.yaml")
    with pytest.raises(ValueError, match=rf"no limit of its force is known for robot 'ur5e': .*{key}.* None N.*Give both"):
        profile.gripper_moved()


def test_the_grippers_joint_tells_its_opening_and_back():
    """As the simulation counts it: 0 rad is open, 0.8 rad closed; beyond its ends it is open or closed, and NaN stays."""
    gripper = load_profile("ur5e").gripper_moved()
    assert [gripper.opening(q) for q in (0.0, 0.2, 0.8, 0.81, -0.01)] == pytest.approx([1.0, 0.75, 0.0, 0.0, 1.0])
    assert [gripper.position(share) for share in (1.0, 0.75, 0.0)] == pytest.approx([0.0, 0.2, 0.8])
    assert np.isnan(gripper.opening(float("nan"))) and (gripper.opened, gripper.closed) == (0.0, OPENS_RAD)


def test_a_robot_without_a_gripper_joint_says_so():
    """A model that moves the gripper needs one: the robot, what it lacks, who has it, and what to do."""
    with pytest.raises(ValueError, match=r"robot 'fr3' has no gripper joint .*have one: ur5e\. Give its joint"):
        load_profile("fr3").gripper_moved()


def test_a_velocity_law_that_lets_a_joint_run_through_its_end_is_refused():
    """An offset above 0 would allow speed at the end of the joint, ends in the wrong order would allow none anywhere."""
    raw = read("fr3")
    with pytest.raises(ValueError, match=r"velocity_law.offset must be at most 0.*0.1"):
        parse_profile(changed(raw, ("velocity_law", "offset"), [0.1] * 7), "here.yaml")
    with pytest.raises(ValueError, match=r"velocity_law.lower must lie below velocity_law.upper"):
        parse_profile(changed(raw, ("velocity_law", "lower"), [9.0] * 7), "here.yaml")


def test_profile_by_path_equals_profile_by_name(raw, tmp_path):
    """A user's own file is read like a shipped one."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    mine, shipped = load_profile(str(path)), load_profile("ur5e")
    assert np.array_equal(mine.velocity_max, shipped.velocity_max) and mine.joint_names == shipped.joint_names
