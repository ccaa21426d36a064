"""Goals that a person shows rather than tells. Knows the model, no planner and no ROS."""

from __future__ import annotations

import numpy as np
import torch

from foresight.data import Goal
from foresight.perception.prepare import prepare
from foresight.world_model.model import WorldModel


def goal_from_images(model: WorldModel, images: dict[str, np.ndarray], object_only: bool) -> Goal:
    """The goal that the images show: the whole scene, or only where its object is."""
    missing = [c.name for c in model.contract.cameras if c.name not in images]
    if missing:
        raise ValueError(
            f"Goal images of cameras {missing} are missing. "
            f"The model needs {[c.name for c in model.contract.cameras]}, got {sorted(images)}."
        )
    latent = model.encode_images(np.stack([prepare(images[c.name], c) for c in model.contract.cameras]))
    if not object_only:
        return Goal(latent=latent)
    return Goal(object=model.read(torch.from_numpy(latent))[1].numpy().astype(np.float64))
