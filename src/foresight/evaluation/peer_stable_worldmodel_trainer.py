"""Times the trainer of stable-worldmodel on its own LeWM class. Run by `foresight bench training --peer-python PATH`, in the
environment of that package with its training extra (PATH is its python), so it imports nothing but the script beside it.
Arguments: threads, and cpu or cuda.

What it trains with is what the package's own script for LeWM does (scripts/train/lewm.py of its repository, which the pip package
lacks): spt.Module, a Lightning Trainer, its HDF5 dataset in torch's DataLoader, its SIGReg, AdamW, clipped gradients.

Reads one JSON object a line from standard input: {"data": an HDF5 file, "precision": of the Trainer, "workers": of the
DataLoader, "dropout": of the predictor, "batch": windows, "updates", "sizes": those of the networks}; answers each with one line
that begins with MARK: {"s": of each update, its data included, "cpu_s": of all updates, all threads and workers, "parameters",
"loss": of the last update}. The first answer, unasked, says what was loaded. Weights are random.
"""

import json
import os
import sys
import time
import warnings
from functools import partial
from itertools import pairwise

MARK = "PEER "
FRAMES, WARM_UP = 4, 2  # of a window, of which the first three are seen; updates that are not timed
SIGREG_WEIGHT, SIGREG_SLICES, RATE, DECAY = 0.09, 1024, 5e-5, 1e-3  # as published


def main(threads: int, device: str) -> None:
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    answering = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not come between the answers
    say = lambda answer: print(MARK + json.dumps(answer), file=answering, flush=True)  # noqa: E731
    say(load(torch))
    for line in sys.stdin:
        say(train(torch, device, **json.loads(line)))


def load(torch) -> dict:
    """The packages and their versions."""
    from importlib.metadata import version

    allow_torchvision(torch)
    import stable_worldmodel.wm.lewm.module  # noqa: F401

    names = {"trainer": "stable_pretraining", "lightning": "lightning", "torch": "torch"}
    versions = {name: version(package) for name, package in names.items()}
    return {"package": "stable-worldmodel", "version": version("stable-worldmodel"), **versions}


def train(torch, device: str, data: str, precision: str, workers: int, dropout: float, batch: int, updates: int, sizes: dict):
    """A few updates, each timed from the end of the one before."""
    import lightning
    import stable_pretraining as spt
    from stable_worldmodel.wm.loss import SIGReg

    torch.manual_seed(0)
    loader, action = windows(torch, spt, data, sizes["image"], batch, workers)
    model = network(torch, spt, action, dropout, **sizes)
    steps = WARM_UP + updates
    schedule = {"type": "LinearWarmupCosineAnnealingLR", "warmup_steps": 1, "max_steps": max(100, steps)}
    optimiser = {"type": "AdamW", "lr": RATE, "weight_decay": DECAY}
    module = spt.Module(
        model=model,
        sigreg=SIGReg(knots=17, num_proj=SIGREG_SLICES),
        forward=partial(objective, torch),
        optim={"model_opt": {"modules": "model", "optimizer": optimiser, "scheduler": schedule, "interval": "epoch"}},
    )
    clock = clock_of(lightning)
    trainer = lightning.Trainer(
        accelerator=device if device == "cpu" else "gpu",
        devices=1,
        precision=precision,
        max_steps=steps,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.gradient_clip_val_, trainer.gradient_clip_algorithm_ = 1.0, "norm"  # where spt.Manager moves them, for spt.Module
    trainer.fit(module, datamodule=spt.data.DataModule(train=loader, val=loader))
    ends, used = clock.ends_s[WARM_UP - 1 :], clock.used_s[WARM_UP - 1 :]
    return {
        "s": [later - sooner for sooner, later in pairwise(ends)],
        "cpu_s": used[-1] - used[0],
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": float(trainer.callback_metrics["fit/loss"]),
    }


def windows(torch, spt, data: str, image: int, batch: int, workers: int):
    """Its loader of windows, and the numbers of an action block."""
    import h5py
    from stable_worldmodel.data import HDF5Dataset, column_normalizer

    with h5py.File(data) as file:
        skip = int(file.attrs["frameskip"])
    dataset = HDF5Dataset(
        path=data, frameskip=skip, num_steps=FRAMES, keys_to_load=["pixels", "action"], keys_to_cache=["action"]
    )
    transforms, stats = spt.data.transforms, spt.data.dataset_stats.ImageNet
    dataset.transform = transforms.Compose(
        transforms.ToImage(**stats, source="pixels", target="pixels"),
        transforms.Resize(image, source="pixels", target="pixels"),
        column_normalizer(dataset, "action", "action"),
    )
    ahead = {"persistent_workers": True, "prefetch_factor": 3} if workers else {}
    on_gpu = torch.cuda.is_available()
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=batch, num_workers=workers, shuffle=True, drop_last=True, pin_memory=on_gpu, **ahead
    )
    return loader, skip * dataset.get_dim("action")


def network(torch, spt, action: int, dropout: float, **sizes):
    """Its model; `sizes` are named as those of Foresight's TransformerConfig."""
    from stable_worldmodel.wm.lewm.lewm import LeWM
    from stable_worldmodel.wm.lewm.module import MLP, Embedder, Predictor

    latent, hidden = sizes["latent"], sizes["hidden"]
    encoder = spt.backbone.utils.vit_hf(
        size="tiny",
        patch_size=sizes["patch"],
        image_size=sizes["image"],
        pretrained=False,
        use_mask_token=False,
        hidden_size=latent,
        num_hidden_layers=sizes["encoder_depth"],
        num_attention_heads=sizes["encoder_heads"],
        intermediate_size=sizes["encoder_hidden"],
    )
    width = {"input_dim": latent, "hidden_dim": latent, "output_dim": latent}
    inner = {"depth": sizes["depth"], "heads": sizes["heads"], "dim_head": sizes["head"], "mlp_dim": hidden}
    predictor = Predictor(num_frames=sizes["window"], dropout=dropout, **inner, **width)
    projectors = [MLP(latent, hidden, latent, norm_fn=torch.nn.BatchNorm1d) for _ in range(2)]
    return LeWM(encoder, predictor, Embedder(input_dim=action, emb_dim=latent), *projectors)


def objective(torch, module, batch: dict, stage: str) -> dict:
    """What its LeWM learns: the next latent from the three before, and SIGReg."""
    batch["action"] = torch.nan_to_num(batch["action"], 0.0)
    seen = module.model.encode(batch)
    latents, actions = seen["emb"], seen["act_emb"]
    foreseen = module.model.predict(latents[:, : FRAMES - 1], actions[:, : FRAMES - 1])
    error, apart = (foreseen - latents[:, 1:]).pow(2).mean(), module.sigreg(latents.transpose(0, 1))
    seen["loss"] = error + SIGREG_WEIGHT * apart
    parts = {"pred_loss": error, "sigreg_loss": apart, "loss": seen["loss"]}
    module.log_dict({f"{stage}/{name}": value.detach() for name, value in parts.items()}, on_step=True, sync_dist=True)
    return seen


def clock_of(lightning):
    """A callback that notes when each update ended, and the processor time used until then."""
    import torch

    class Clock(lightning.pytorch.callbacks.Callback):
        def __init__(self) -> None:
            self.ends_s, self.used_s = [], []

        def on_train_batch_end(self, trainer, module, outputs, batch, number) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends_s.append(time.perf_counter())
            self.used_s.append(time.process_time() + sum(map(cpu_s_of, children())))

    return Clock()


def children() -> list[int]:
    import multiprocessing

    return [child.pid for child in multiprocessing.active_children()]


def cpu_s_of(process: int) -> float:
    """Processor time of a process [s], as Linux tells it."""
    try:
        with open(f"/proc/{process}/stat") as file:
            user, system = file.read().rsplit(")", 1)[1].split()[11:13]
    except OSError:
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    from peer_stable_worldmodel import allow_torchvision  # the script beside this one

    sys.path.pop(0)  # this file's folder: its modules have names that those of other packages have too
    main(int(sys.argv[1]), sys.argv[2])
