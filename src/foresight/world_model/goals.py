"""Goals that a person shows rather than tells. Knows the model, no planner and no ROS."""

from __future__ import annotations

import numpy as np
import torch

from foresight.data import Goal
from foresight.perception.prepare import prepare
from foresight.world_model.model import WorldModel


def goal_from_images(model: WorldModel, images: dict[str, np.ndarray], object_only: bool) -> Goal:
    """The goal that the images show: the whole scene, or only where its object is.

    Images may be missing where the model can spare cameras, all but one.
    """
    missing = [c.name for c in model.contract.cameras if c.name not in images]
    if missing and (not model.config.spare_cameras or len(missing) == len(model.contract.cameras)):
        raise ValueError(
            f"Goal images of cameras {missing} are missing. "
            f"The model needs {[c.name for c in model.contract.cameras]}, got {sorted(images)}."
        )
    black = {c.name: np.zeros((c.size, c.size, 3), np.uint8) for c in model.contract.cameras}
    shown = [prepare(images[c.name], c) if c.name in images else black[c.name] for c in model.contract.cameras]
    latent = model.encode_images(np.stack(shown), tuple(c.name in images for c in model.contract.cameras))
    if not object_only:
        return Goal(latent=latent)
    return Goal(object=model.read(torch.from_numpy(latent))[1].numpy().astype(np.float64))
