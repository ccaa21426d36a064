"""The gradient of one update for every way against collapse and a clone, as `torchrun` or Python runs it; the first saves it.

torchrun --nproc-per-node 2 tests/training/one_update.py DATASET FILE ddp|fsdp
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed

from foresight.training.anti_collapse import METHODS
from foresight.training.cloning import Cloner, share_of_pairs
from foresight.training.config import TrainConfig
from foresight.training.learner import WINDOW, Learner, Share, share_of_batch
from foresight.training.sharding import whole
from foresight.training.train import make_fabric, prepare
from foresight.world_model.model import ModelConfig

SIZES = ModelConfig(
    latent=8, encoder_width=8, predictor_width=32, predictor_depth=1, head_width=32, max_blocks=4, spare_cameras=True
)


def gradients(data: Path, strategy: str, batch: int = 16) -> dict[str, torch.Tensor]:
    """Of every weight, by method and name. Starts from weights that are no longer symmetric."""
    found = {}
    how = {"threads": 1, "precision": "fp32", "device": "cpu", "strategy": strategy}
    base = TrainConfig(data=(data,), batch=batch, sigreg_slices=16, model=SIZES, **how)
    fabric = make_fabric(base)
    for method in (*METHODS, "clone"):
        if method == "clone":
            config = replace(base, model=replace(SIZES, dynamics=False, critics=2))
        else:
            config = replace(base, anti_collapse=method)
        model, play = prepare(config)
        learner = Learner(model, config) if model.foresees else Cloner(model, config)
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        module = fabric.setup_module(learner)
        module.train()
        starts = play.starts(play.training, (WINDOW - 1) * play.contract.block_steps)
        share = Share(fabric.global_rank, fabric.world_size)
        if model.foresees:
            batch = share_of_batch(model, play, starts, config, 0, share, fabric.device)
        else:
            batch = share_of_pairs(model, play, config, 0, share, fabric.device)
        loss, figures = module(*batch)
        fabric.backward(loss)
        found |= {f"{method}/{name}": whole(p.grad).clone() for name, p in learner.named_parameters() if p.grad is not None}
        found |= {f"{method}/buffer/{name}": b.clone().float() for name, b in learner.named_buffers()}
        figures = torch.stack(list(figures.values()))
        found[f"{method}/figures"] = fabric.all_reduce(figures, reduce_op="mean")
    return found if fabric.is_global_zero else {}


if __name__ == "__main__":
    result = gradients(Path(sys.argv[1]), sys.argv[3])
    if result:
        torch.save(result, sys.argv[2])
    if distributed.is_initialized():  # a process that ends while its group still runs threads may abort
        distributed.barrier()
        distributed.destroy_process_group()
