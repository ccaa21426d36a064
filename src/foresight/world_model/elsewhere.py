"""A model on another device, such as a GPU, for callers whose tensors are on the CPU: what they ask goes there and back.

A plan of the shipped sizes asks about twenty times, which costs a millisecond; whole rollouts on a GPU are `graphs.py`'s matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from foresight.data import Goal
from foresight.world_model.model import WorldModel


def _asked_there(name: str) -> Callable:
    """The model's method of that name, with tensors carried to the model and its answer carried back."""

    def ask(self: Elsewhere, *given: Any) -> Any:
        there = tree_map(lambda x: x.to(self._model.device) if isinstance(x, Tensor) else x, given)
        return tree_map(lambda x: x.cpu() if isinstance(x, Tensor) else x, getattr(self._model, name)(*there))

    return ask


class Elsewhere:
    """As `WorldModel` in operation, on the CPU to whoever asks."""

    device = torch.device("cpu")

    def __init__(self, model: WorldModel) -> None:
        self._model = model
        self.contract, self.config, self.model_id = model.contract, model.config, model.model_id
        self.foresees, self.modes, self.critics, self.reads = model.foresees, model.modes, model.critics, model.reads
        self.subgoal_ways, self.surprise_scale = model.subgoal_ways, model.surprise_scale.cpu()
        self.encode_images, self.decode = model.encode_images, model.decode  # from arrays to arrays

    def dreaming(self) -> Elsewhere:
        return Elsewhere(self._model.dreaming())

    def towards(self, goal: Goal) -> Elsewhere:
        return Elsewhere(self._model.towards(goal))

    imagine = _asked_there("imagine")
    propose = _asked_there("propose")
    propose_each = _asked_there("propose_each")
    blocks_to_go = _asked_there("blocks_to_go")
    spread = _asked_there("spread")
    subgoals = _asked_there("subgoals")
    apart = _asked_there("apart")
    read = _asked_there("read")
    read_yaw = _asked_there("read_yaw")
    read_opening = _asked_there("read_opening")
    read_contact = _asked_there("read_contact")
