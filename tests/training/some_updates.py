"""The first stage of a training, as `torchrun` or plain Python runs it; the first process writes the losses it has seen.

torchrun --nproc-per-node 2 tests/training/some_updates.py DATASET MODEL ddp|fsdp LAST LOSSES.json

LAST is the update before which all processes are interrupted; a run that is there already goes on from its last check.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torch.distributed.tensor import DTensor

from foresight.training import health
from foresight.training import train as training
from foresight.training.config import TrainConfig
from foresight.training.log import Log
from foresight.training.resume import Resume
from foresight.world_model.model import ModelConfig

SIZES = ModelConfig(latent=8, encoder_width=8, predictor_width=32, predictor_depth=1, head_width=32, max_blocks=4)


def run(data: Path, out: Path, strategy: str, last: int) -> list[float]:
    """The losses of updates up to `last`; a check, which is a place to go on from, after every second one."""
    health.COLLAPSED_STD = health.COLLAPSED_RANK = 0.0
    training.CHECK_EVERY = 2
    losses, update = [], training.update

    def watched(module, learner, *rest):
        step, fabric = rest[-2:]
        if step == last:
            raise KeyboardInterrupt
        divided = any(isinstance(p, DTensor) for p in learner.parameters())
        assert divided == (strategy == "fsdp" and fabric.world_size > 1)
        losses.append(update(module, learner, *rest)["loss"])
        return {"loss": losses[-1], "gradient": 0.0}

    training.update = watched
    how = {"threads": 1, "precision": "fp32", "device": "cpu", "accumulate": 2, "anti_collapse": "ema"}
    config = TrainConfig(data=(data,), out=out, steps=6, batch=16, sigreg_slices=16, model=SIZES, strategy=strategy, **how)
    fabric = training.make_fabric(config)
    model, play = training.prepare(config)
    state = Resume(config, play.fingerprint)
    training.load_state(state, config, fabric)
    try:
        training.train_world_model(model, play, config, fabric, state, Log(None), lambda *_: None)
    except KeyboardInterrupt:
        pass
    else:  # whole again, and of use without the other processes
        assert not any(isinstance(p, DTensor) for p in model.parameters())
    return losses if fabric.is_global_zero else []


if __name__ == "__main__":
    data, out, strategy, last, file = sys.argv[1:]
    found = run(Path(data), Path(out), strategy, int(last))
    if found:
        Path(file).write_text(json.dumps(found))
