import pytest
import torch

from foresight.contract import CameraContract, Contract
from foresight.world_model.model import ModelConfig, WorldModel

TINY = ModelConfig(latent=8, encoder_width=4, predictor_width=16, predictor_depth=1, head_width=16, max_blocks=4)


@pytest.fixture
def tiny(profile) -> WorldModel:
    """An untrained model of two 16-pixel cameras."""
    torch.manual_seed(0)
    cameras = tuple(CameraContract(n, 32, 32, (0, 0, 32, 32), 16) for n in ("front", "wrist"))
    return WorldModel(Contract(profile.name, profile.joint_names, cameras), TINY).eval().requires_grad_(False)
