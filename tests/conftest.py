"""Checks every shape of `foresight` at run time while tests run, and builds the robot once."""

from __future__ import annotations

import os

from jaxtyping import install_import_hook

os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run on the CPU; it counts while Triton is imported, by whomever
_hook = install_import_hook("foresight", "beartype.beartype")  # before anything of foresight is imported

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from foresight.robots.kinematics import MujocoKinematics  # noqa: E402
from foresight.robots.profile import RobotProfile, load_profile  # noqa: E402
from tests.motions import MIDDLE  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes (`-n 2 --dist loadgroup`) one runs the tests of nodes, which keep time; others go file by file."""
    for item in items:
        file = item.path.relative_to(item.config.rootpath)
        item.add_marker(pytest.mark.xdist_group("nodes" if file.parts[:2] == ("tests", "ros") else str(file)))


@pytest.fixture(scope="session")
def profile() -> RobotProfile:
    return load_profile("ur5e")


@pytest.fixture(scope="session")
def kinematics(profile: RobotProfile) -> MujocoKinematics:
    return MujocoKinematics(profile)


@pytest.fixture(scope="session")
def start(profile: RobotProfile, kinematics: MujocoKinematics) -> np.ndarray:
    """Joint positions [rad] with the tip in the middle of the workspace."""
    return kinematics.solve(MIDDLE, profile.home)
