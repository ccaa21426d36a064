"""A model on another device is, for those who think on the CPU, the model itself."""

import inspect

import numpy as np
import pytest
import torch

from foresight import interfaces
from foresight.contract import CameraContract, Contract
from foresight.data import Belief, Goal, Start
from foresight.planning.config import PlannerConfig
from foresight.planning.planner import Planner
from foresight.world_model.elsewhere import Elsewhere
from foresight.world_model.model import ModelConfig, WorldModel
from tests.world_model.conftest import TINY

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.fixture(scope="module")
def model(profile) -> WorldModel:
    """With all that a planner may ask for, and every number drawn at random."""
    cameras = tuple(CameraContract(n, 32, 32, (0, 0, 32, 32), 16) for n in ("front", "wrist"))
    config = ModelConfig(**{**TINY.__dict__, "critics": 2, "modes": 2, "yaw": True, "contact": True, "subgoals": 3})
    torch.manual_seed(0)
    model = WorldModel(Contract(profile.name, profile.joint_names, cameras), config).eval().requires_grad_(False)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and "std" not in name and "var" not in name:
            value.add_(0.1 * torch.randn(value.shape))
    return model


class There(WorldModel):
    """A model on a device where nothing can be worked out: it tells what came."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__(model.contract, model.config)
        self.came = []

    @property
    def device(self) -> torch.device:
        return torch.device("meta")

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name not in TENSORS or not inspect.ismethod(found):
            return found

        def ask(*given):
            self.came.append((name, {x.device.type for x in given if isinstance(x, torch.Tensor)}))
            return torch.zeros(1), [torch.zeros(2)]

        return ask


def asked_of_models() -> dict[str, list[str]]:
    """What the planner's interfaces ask of a model, and with which parameters."""
    protocols = [p for p in vars(interfaces).values() if inspect.isclass(p) and p.__module__ == interfaces.__name__]
    methods = [m for p in protocols for m in vars(p).items() if inspect.isfunction(m[1]) and hasattr(WorldModel, m[0])]
    return {name: list(inspect.signature(method).parameters)[1:] for name, method in methods if not name.startswith("_")}


ASKED = asked_of_models()
TENSORS = [name for name in ASKED if name != "towards"]  # which gives a model


@pytest.mark.parametrize("name", TENSORS)
def test_every_tensor_goes_there(model, name):
    """Whatever the planner's interfaces know of a model is asked there, with its tensors there."""
    there = There(model)
    getattr(Elsewhere(there), name)(*(None if p == "goal" else torch.zeros(1, 3) for p in ASKED[name]))
    assert there.came == [(name, {"meta"})]


def test_a_goal_is_kept_in_mind_there(model):
    """What has it in mind is on the CPU to whoever asks too."""
    goal = Goal(tip=np.array([0.45, 0.0, 0.1]))
    minded = Elsewhere(model).towards(goal)
    assert isinstance(minded, Elsewhere) and minded._model.goal_tensors(goal) is minded._model.goal_tensors(goal)


@pytest.mark.parametrize("policy", ["both", "actor"])
@pytest.mark.parametrize("device", DEVICES)
def test_plans_are_the_models_own(model, profile, device, policy):
    """The same plan as with the model itself, with sub-goals, several motions and critics; the same latents of images."""
    here, elsewhere = model, Elsewhere(model if device == "cpu" else WorldModel(model.contract, model.config).to(device))
    if device != "cpu":
        elsewhere._model.load_state_dict(model.state_dict())
        elsewhere._model.model_id = elsewhere.model_id = model.model_id
        elsewhere._model.eval().requires_grad_(False)
    images = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), np.uint8)
    np.testing.assert_allclose(elsewhere.encode_images(images), here.encode_images(images), atol=1e-4)
    proprio = np.concatenate([profile.home, [0.45, 0.0, 0.1], np.zeros(3)]).astype(np.float32)
    belief = Belief(0.0, model.model_id, here.encode_images(images), proprio, float("nan"))
    goal = Goal(latent=np.full(model.config.latent, 0.5, np.float32), weights=(1.0, 1.0, 1.0))
    plans = [
        Planner(of, profile, PlannerConfig(policy, subgoals_beyond=0.01)).plan(
            belief, goal, Start(np.zeros(3)), torch.Generator().manual_seed(0), lambda: 0.0
        )
        for of in (here, elsewhere)
    ]
    np.testing.assert_allclose(plans[1].tip_velocity, plans[0].tip_velocity, atol=1e-4)
    np.testing.assert_allclose(plans[1].imagined, plans[0].imagined, atol=1e-3)
    assert plans[1].terms == pytest.approx(plans[0].terms, abs=1e-3)
    if policy == "both":
        assert plans[0].subgoal is not None
    else:
        assert np.abs(plans[0].tip_velocity).max() > 0.01
