"""Weights, gradients and the optimiser's state divided among processes (FSDP2), and whole again where they are kept.

Fabric's own FSDPStrategy refuses to run without a GPU; its ModelParallelStrategy with torch's `fully_shard` runs anywhere. What
is saved is whole: one process, DDP and FSDP go on from each other's files. What is not divided passes through here unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from foresight.training.cloning import Cloner
from foresight.training.learner import Learner


def fsdp(processes: int) -> ModelParallelStrategy:
    """For a `Learner` or a `Cloner`: each of its parts is whole only while it is at work."""
    return ModelParallelStrategy(_shard, data_parallel_size=processes, tensor_parallel_size=1)


def _shard(learner: Learner | Cloner, mesh: DeviceMesh) -> Learner | Cloner:
    for part in learner.parts():
        fully_shard(part, mesh=mesh["data_parallel"], reshard_after_forward=True)
    return learner


def whole(state: Any) -> Any:
    """A tensor, or a dict or list of what may hold some, with every divided tensor put together. All processes take part."""
    if isinstance(state, dict):
        return {name: whole(value) for name, value in state.items()}
    if isinstance(state, list):
        return [whole(value) for value in state]
    return state.full_tensor() if isinstance(state, DTensor) else state


def restore(learned: nn.Module, optimiser: torch.optim.Optimizer, weights: dict[str, Any], state: dict[str, Any]) -> None:
    """Puts whole weights and a whole optimiser's state back, divided as what they are put into."""
    now = learned.state_dict()
    learned.load_state_dict({name: _as(now.get(name), value) for name, value in weights.items()})
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    of_each = {i: {n: _as(parameters[i], v) for n, v in values.items()} for i, values in state["state"].items()}
    # How it is worked out is the optimiser's own affair, and may have been another where the state was saved.
    pairs = zip(state["param_groups"], optimiser.param_groups, strict=True)
    groups = [{**saved, "fused": group.get("fused")} for saved, group in pairs]
    optimiser.load_state_dict({**state, "state": of_each, "param_groups": groups})


def _as(like: torch.Tensor | None, value: Any) -> Any:
    """A whole tensor divided as `like` is, if it is of that shape. Every process has it whole, so none is sent."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
