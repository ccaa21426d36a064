"""Loading a world model for a robot, as two nodes do that may share it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from foresight.data import Observation
from foresight.memory import keep_freed_memory
from foresight.robots.profile import RobotProfile, load_profile
from foresight.world_model.model import WorldModel

LoadModel = Callable[[str, str], WorldModel]  # checkpoint folder, device -> model


def load_for(robot: str, path: str, device: str, threads: int, load: LoadModel) -> tuple[WorldModel, RobotProfile]:
    """The model and the robot it was trained for; raises ValueError when that is another robot, or lacks a gripper to move.

    From now on the process keeps the memory that it frees, so that later plans and beliefs ask the system for none.
    """
    keep_freed_memory()
    if threads > 0:
        torch.set_num_threads(threads)
    model, profile = load(path, device), load_profile(robot)
    if (model.contract.robot, model.contract.joint_names) != (profile.name, profile.joint_names):
        raise ValueError(
            f"Checkpoint {path} was trained for robot '{model.contract.robot}' "
            f"with joints {', '.join(model.contract.joint_names)}; "
            f"this robot is '{profile.name}' with joints {', '.join(profile.joint_names)}. Give the checkpoint of this robot."
        )
    if model.contract.moves_gripper:
        profile.gripper_moved()
    return model, profile


def blank_observation(model: WorldModel, profile: RobotProfile) -> Observation:
    """An observation of nothing, to warm the model up with: the first inference is slower than the others."""
    camera = model.contract.cameras[0]
    images = np.zeros((len(model.contract.cameras), camera.size, camera.size, 3), np.uint8)
    opening = 0.0 if model.contract.moves_gripper else None
    return Observation(0.0, images, profile.home, np.zeros_like(profile.home), np.zeros(3), np.zeros(3), opening=opening)
