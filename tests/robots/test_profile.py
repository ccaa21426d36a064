"""A robot profile is complete and consistent, or refused with what is wrong in it."""

from __future__ import annotations

from dataclasses import fields
from importlib.resources import files

import jaxtyping
import numpy as np
import pytest
import yaml

from foresight.robots.profile import RobotProfile, available_robots, load_profile, parse_profile


@pytest.fixture
def raw() -> dict:
    return yaml.safe_load(files("foresight.robots").joinpath("profiles/ur5e.yaml").read_text())


def test_every_shipped_profile_loads():
    """Each profile that ships loads under its own name, with its home within its limits."""
    for name in available_robots():
        profile = load_profile(name)
        assert profile.name == name
        assert (profile.home > profile.position_min).all() and (profile.home < profile.position_max).all()
        assert profile.velocity_max.min() > 0 and profile.acceleration_max.min() > 0 and profile.jerk_max.min() > 0


def test_unknown_robot_lists_what_is_available():
    """A misspelt robot is answered with the robots there are."""
    with pytest.raises(ValueError, match=r"'ur5' has no profile. Available: .*ur5e"):
        load_profile("ur5")


def test_missing_file_is_named(tmp_path):
    """A path that does not exist is named, and so are the shipped robots."""
    with pytest.raises(FileNotFoundError, match=r"mine.yaml does not exist.*ur5e"):
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


@pytest.fixture
def as_in_operation():
    """Without the shape checks that only tests have, which would answer before the profile's own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("as_in_operation")
@pytest.mark.parametrize("key", ["position_min", "position_max", "velocity_max", "acceleration_max", "jerk_max", "home"])
@pytest.mark.parametrize("value", [[1.0] * 5, [1.0] * 5 + [float("nan")]], ids=["short", "nan"])
def test_joint_arrays_need_one_finite_number_per_joint(raw, key, value):
    """A list with a number too few, or NaN, is refused by its key."""
    with pytest.raises(ValueError, match=f"{key} needs 6 finite numbers"):
        parse_profile({**raw, key: value}, "here.yaml")


def test_contradictions_are_refused(raw):
    """A minimum above its maximum, or a joint named twice, is refused."""
    with pytest.raises(ValueError, match="minimum"):
        parse_profile({**raw, "position_min": [7.0] * 6}, "here.yaml")
    with pytest.raises(ValueError, match="minimum"):
        parse_profile({**raw, "workspace_min": raw["workspace_max"]}, "here.yaml")
    with pytest.raises(ValueError, match="twice"):
        parse_profile({**raw, "joint_names": ["a"] * 6}, "here.yaml")


def test_profile_by_path_equals_profile_by_name(raw, tmp_path):
    """A user's own file is read like a shipped one."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    mine, shipped = load_profile(str(path)), load_profile("ur5e")
    assert np.array_equal(mine.velocity_max, shipped.velocity_max) and mine.joint_names == shipped.joint_names
