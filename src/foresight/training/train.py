"""Trains a world model from play data: first the JEPA end to end from pixels, then heads on its frozen latents.

Or, without dynamics, a clone: first all that reacts end to end from pixels (`cloning.py`), then the same heads go on.

`foresight train --data data/ur5e_play.h5 --out models/ur5e`. Resumable: every draw depends on (seed, step) alone. In several
processes (`torchrun --nproc-per-node 2 -m foresight.cli train ...`) the first stage, which takes nearly all of the time, is
shared and makes the same updates as in one; the heads are then trained by the first process alone.
"""

from __future__ import annotations

import copy
import math
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from lightning_fabric import Fabric
from scipy.stats import spearmanr
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from foresight.planning.residuals import turned
from foresight.training import dataset
from foresight.training.cloning import Cloner, share_of_pairs
from foresight.training.config import TrainConfig, command_line
from foresight.training.dataset import Hindsight, PlayData, hindsight, imitated
from foresight.training.dreaming import Dreamer, imagined_success
from foresight.training.health import Health, measure, probe_correlation
from foresight.training.imitation import imitation_error, modes_apart, nearest
from foresight.training.learner import WINDOW, Learner, Share, share_of_batch
from foresight.training.log import Log
from foresight.training.precision import autocast
from foresight.training.resume import Resume, only_training_of, uninterrupted
from foresight.training.sharding import fsdp, whole
from foresight.world_model import checkpoint
from foresight.world_model.model import SYMMETRY, WorldModel
from foresight.world_model.processes import mean_over_processes, processes

STAGES = ("world model", "readouts", "actor and critic", "decoder")
DREAM = "actor and critic in imagination"  # the stage of a model with --model.dreamt
HEALTH_ROWS = 3000
PROBE_ROWS = 20_000  # at most that a probe is fitted on
HEAD_BATCH = 768
CONTRAST_WEIGHT = 20.0
GRIPPER_STD = 0.5  # of a command that is 0 or 1
MAKERS = 2  # threads that draw batches ahead for a GPU
CHECK_EVERY = 150  # updates between two looks at the latents' health, each of which is a place to resume from
Report = Callable[[str, int, int, str], None]  # stage, step, steps, one line of figures


@runtime_checkable
class Learns(Protocol):
    """A module that gives the loss and its parts of what it is called with: `Learner`, `Cloner`."""

    def after_update(self) -> None:
        """Called when the optimiser has made its step."""


class CollapseError(RuntimeError):
    """The latents have collapsed, or the loss is no number any more: training further is waste."""

    def __init__(self, message: str, health: Health) -> None:
        super().__init__(message)
        self.health = health  # as last measured


def train(config: TrainConfig, report: Report = lambda *_: None, data: PlayData | None = None) -> Path:
    """Runs all stages and writes the checkpoint. Interrupted in any stage, the next call goes on from there.

    `data` is what `config.data` names, where it is in memory already.

    Raises ValueError for a folder that another process trains, an interrupted run of other settings or data, or settings that
    this machine cannot run; DatasetError, FoundationError, CollapseError as they say.
    """
    with only_training_of(config.out) if is_first() else nullcontext():
        began = time.monotonic()
        fabric = make_fabric(config)
        model, data = prepare(config, data)
        state = Resume(config, data.fingerprint)
        data = data.held_on(fabric.device)
        spent = load_state(state, config, fabric)
        with Log(config.logs if fabric.is_global_zero else None) as log:
            report = report if fabric.is_global_zero else lambda *_: None
            if data.skipped:
                report("data", len(data.first), len(data.first) + len(data.skipped), f"| {left_out(data)}")
            health = train_world_model(model, data, config, fabric, state, log, report)
            if not fabric.is_global_zero:
                return config.out
            model.eval().requires_grad_(False)
            latents = encode_all(model, data, report)
            metrics = {"health": asdict(health)}
            metrics |= train_readouts(model, data, latents, config, state, log, report)
            metrics |= train_actor_and_critic(model, data, latents, config, state, log, report)
            metrics |= train_in_imagination(model, data, latents, config, state, log, report)
            train_decoder(model, data, latents, config, state, log, report)
        if model.foresees:
            model.surprise_scale.fill_(one_block_error(model, data, latents))
        minutes = (spent + time.monotonic() - began) / 60
        facts = {
            "command": command_line(config),
            "minutes": round(minutes, 1),
            "machine": machine(fabric, config),
            "torch": torch.__version__,
            "episodes": len(data.training),
            "held_out_episodes": len(data.held_out),
            "steps_per_episode": int(data.length[0]),
            "data_seed": data.seed,
            "seed": config.seed,
            "parameters": {name: parameters(part) for name, part in model.named_children() if parameters(part)},
            "metrics": metrics,
        }
        if data.skipped:
            facts["skipped_episodes"] = list(data.skipped)
        checkpoint.save(model, config.out, model_card(model, facts, config), facts)
        state.clear()
    return config.out


def is_first() -> bool:
    """Whether this process is the one that writes; torchrun numbers them."""
    return os.environ.get("RANK", "0") == "0"


def make_fabric(config: TrainConfig) -> Fabric:
    """Devices and processes: those that torchrun tells of, otherwise this process on one device."""
    here, everywhere = (int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    gpus = torch.cuda.device_count()
    if config.batch % (everywhere * config.accumulate):
        raise ValueError(
            f"batch ({config.batch}) must be a multiple of processes x accumulate ({everywhere} x {config.accumulate}), so that "
            "all parts are of one size."
        )
    if config.device == "cuda" and gpus < here:
        raise ValueError(f"device cuda needs a GPU for each of the {here} processes here; {gpus} can be seen. Use --device cpu.")
    device = "cuda" if config.device != "cpu" and gpus >= here else "cpu"
    torch.set_num_threads(max(1, config.threads // here))
    strategy = "auto" if everywhere == 1 else fsdp(everywhere) if config.strategy == "fsdp" else "ddp"
    fabric = Fabric(accelerator=device, devices=here, num_nodes=everywhere // here, strategy=strategy, precision="32-true")
    fabric.launch()
    return fabric


def prepare(config: TrainConfig, data: PlayData | None = None) -> tuple[WorldModel, PlayData]:
    """The data in memory, if it is not there yet, and a new model that knows its statistics."""
    data = data or dataset.load(*config.data, episodes=config.episodes, damaged=config.damaged)
    if config.model.yaw and not np.isfinite(data.yaw[data.starts(np.arange(len(data.first)), 0)]).all():
        raise dataset.DatasetError(
            f"Datasets {', '.join(map(str, config.data))} do not tell the object's orientation in every row, which --model.yaw "
            "needs. Collect them with this version of `foresight collect`, or train without it."
        )
    if config.model.contact and not np.isfinite(data.contact).all():
        raise dataset.DatasetError(
            f"Datasets {', '.join(map(str, config.data))} do not tell in every row whether the hand touches the object, which "
            "--model.contact needs. Collect them with this version of `foresight collect`, or train without it."
        )
    torch.manual_seed(config.seed)
    model = WorldModel(data.contract, config.model)
    set_statistics(model, data)
    return model, data


def load_state(state: Resume, config: TrainConfig, fabric: Fabric) -> float:
    """Seconds already spent on the run, which all processes read from one folder."""
    if config.fresh and fabric.is_global_zero:
        state.clear()
    fabric.barrier()
    spent = state.load()
    fabric.barrier()  # nobody writes before all have read
    return spent


def left_out(data: PlayData) -> str:
    return f"damaged episodes left out: {len(data.skipped)}, first {data.skipped[0]}"


def machine(fabric: Fabric, config: TrainConfig) -> str:
    where = f"{platform.machine()}, {config.threads} CPU threads"
    if fabric.device.type == "cuda":
        where += f", {torch.cuda.get_device_name(fabric.device)}"
    return where + (f", {fabric.world_size} processes" if fabric.world_size > 1 else "")


def set_statistics(model: WorldModel, data: PlayData) -> None:
    """Normalisation from the training episodes."""
    rows = data.starts(data.training, data.contract.block_steps)
    proprio = torch.from_numpy(data.proprio[rows])
    model.proprio_mean.copy_(proprio.mean(0))
    model.proprio_std.copy_(proprio.std(0).clamp_min(1e-3))
    blocks = data.block(rows[::7]).reshape(-1, data.contract.block_steps, data.contract.step_size)
    spread = model.action_std.view(data.contract.block_steps, data.contract.step_size)
    spread[:, :3] = float(blocks[..., :3].std())
    spread[:, 3:] = GRIPPER_STD
    positions = torch.from_numpy(np.concatenate([data.tip[rows], data.object[rows]]))
    model.position_mean.copy_(positions.mean(0))
    model.position_std.copy_(positions.std(0).clamp_min(1e-3))


# -- stage 1: encoder and predictor ------------------------------------------------------------------------------


def train_world_model(
    model: WorldModel, data: PlayData, config: TrainConfig, fabric: Fabric, state: Resume, log: Log, report: Report
) -> Health:
    """Leaves the model on the device it learned on, and no group of processes behind."""
    learner = Learner(model, config) if model.foresees else Cloner(model, config)
    divided = processes() > 1 and config.strategy == "fsdp"
    to_be_whole = {name: copy.deepcopy(getattr(model, name)) for name in learner.names} if divided else {}
    if config.model.encoder == "residual" and not divided:  # which needs its tensors in one piece
        model.encoder.to(memory_format=torch.channels_last)
    module = fabric.setup_module(learner)
    optimiser = fabric.setup_optimizers(make_optimiser(learner, config))
    model.to(fabric.device)
    first = state.restore(learner.stage, learner, optimiser)
    starts = data.starts(data.training, (WINDOW - 1) * data.contract.block_steps)
    if not len(starts) and model.foresees:
        raise dataset.DatasetError(
            f"No episode of {', '.join(map(str, config.data))} has {(WINDOW - 1) * data.contract.block_steps + 1} rows, as a "
            "window of frames needs. Collect longer ones with `foresight collect --steps`."
        )
    health = shared_health(model, data, fabric)
    bad_checks = 0
    make = lambda step: parts_of_batch(model, data, starts, config, step, fabric)  # noqa: E731
    drawn = made_ahead(make, range(first, config.steps), fabric.device)
    try:
        for step in range(first, config.steps):
            state.step = step
            with uninterrupted():
                set_rate(optimiser, config.lr, step, config.steps)
                figures = update(module, learner, optimiser, next(drawn), config, step, fabric)
                state.step = step + 1
            check = (step + 1) % CHECK_EVERY == 0 or step + 1 == config.steps
            if not math.isfinite(figures["loss"]):
                raise CollapseError(
                    f"The loss is {figures['loss']} at update {step + 1}, so no checkpoint was made. Lower --lr "
                    f"(now {config.lr}); the same command with --fresh begins anew.",
                    health,
                )
            if check:
                health = shared_health(model, data, fabric)
                bad_checks = bad_checks + 1 if health.collapsed and step >= 2 * CHECK_EVERY else 0
                state.save(learner.stage, learner, optimiser, writes=fabric.is_global_zero)
                if fabric.is_global_zero:
                    log.write(learner.stage, step + 1, asdict(health) | {"alarm": float(health.collapsed)})
                if bad_checks >= 3 or (health.collapsed and step + 1 == config.steps):
                    raise CollapseError(
                        f"The latents collapsed ({health.collapse}), so no checkpoint was made. {remedy(config)}, lower --lr "
                        f"(now {config.lr}) or raise --steps (now {config.steps}), and add --fresh.",
                        health,
                    )
            if check or step % 10 == 0:
                log.write(learner.stage, step + 1, figures | {"lr": optimiser.param_groups[0]["lr"]})
                line = "  ".join(f"{k} {v:.3f}" for k, v in figures.items() if k != "gradient")
                report(learner.stage, step + 1, config.steps, line + f"  | {health}" * check)
    except KeyboardInterrupt:
        if processes() == 1:  # of several, each may have been interrupted at another update: the last check's state stands
            state.save(learner.stage, learner, optimiser)
        raise
    finally:
        drawn.close()
    for name, part in to_be_whole.items():
        part.load_state_dict(whole(getattr(model, name).state_dict()))
        setattr(model, name, part.to(fabric.device))
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
    return health


def make_optimiser(learner: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The first stage's, for what is learned in it.

    Fused, it reads and writes each weight once an update. Not among several processes: its rounding depends on where a weight
    lies in its tensor, and divided tensors are to learn what whole ones do. Nor where weights are not in their usual order
    (channels_last): on a CPU it takes weight, gradient and its own state as they lie in memory, whether or not that is one order.
    """
    learned = [p for p in learner.parameters() if p.requires_grad]
    fused = processes() == 1 and all(p.is_contiguous() for p in learned)
    return torch.optim.AdamW(learned, config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=fused)


def parts_of_batch(
    model: WorldModel, data: PlayData, starts: np.ndarray, config: TrainConfig, step: int, fabric: Fabric
) -> Iterator[tuple]:
    """What this process works through in one update, on its device, as the learner is called with it; one part after another."""
    for part in range(config.accumulate):
        share = Share(part * fabric.world_size + fabric.global_rank, fabric.world_size * config.accumulate)
        if model.foresees:
            yield share_of_batch(model, data, starts, config, step, share, fabric.device)
        else:
            yield share_of_pairs(model, data, config, step, share, fabric.device)


def made_ahead(make: Callable[[int], Iterable[tuple]], steps: range, device: torch.device) -> Iterator[Iterable[tuple]]:
    """`make` of each step in turn. For a GPU the processor makes the next ones meanwhile: they depend on nothing else."""
    if device.type == "cpu":
        yield from map(make, steps)
        return
    with ThreadPoolExecutor(MAKERS) as makers:
        made_whole = lambda step: list(make(step))  # noqa: E731
        waiting = deque(makers.submit(made_whole, step) for step in steps[: 2 * MAKERS])
        for step in steps:
            made = waiting.popleft().result()
            waiting.extend(makers.submit(made_whole, later) for later in range(step, steps.stop)[2 * MAKERS :][:1])
            yield made


def update(
    module: nn.Module,
    learner: Learns,
    optimiser: torch.optim.Optimizer,
    batch: Iterable[tuple],
    config: TrainConfig,
    step: int,
    fabric: Fabric,
) -> dict[str, float]:
    """One step of the optimiser on a batch that is shared by all processes and worked through in parts; the losses' means."""
    module.train()
    optimiser.zero_grad(set_to_none=True)
    if config.model.predictor_dropout:
        torch.manual_seed(hash((config.seed, step, fabric.global_rank)) % 2**63)
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(batch, 1):
        waits = fabric.world_size > 1 and number < config.accumulate
        with fabric.no_backward_sync(module) if waits else nullcontext():
            loss, figures = module(*part)
            fabric.backward(loss / config.accumulate)
        sums = {name: value + sums.get(name, 0) for name, value in figures.items()}
    norm = fabric.clip_gradients(module, optimiser, max_norm=1.0, error_if_nonfinite=False)
    optimiser.step()
    learner.after_update()
    with torch.no_grad():
        means = mean_over_processes(torch.stack(list(sums.values())) / config.accumulate).tolist()
    return dict(zip(sums, means, strict=True)) | {"gradient": float(whole(norm))}


def remedy(config: TrainConfig) -> str:
    """What most likely keeps the latents from collapsing next time."""
    if not config.model.dynamics:
        return "Look at the data, in which the actor found nothing to tell apart"
    if config.anti_collapse == "none":
        return "Nothing kept them from it: choose --anti-collapse sigreg"
    if config.anti_collapse == "ema":
        return f"Raise --ema-momentum (now {config.ema_momentum}) or choose --anti-collapse sigreg"
    weight = f"{config.anti_collapse}_weight"
    return f"Raise --{weight.replace('_', '-')} (now {getattr(config, weight)})"


def shared_health(model: WorldModel, data: PlayData, fabric: Fabric) -> Health:
    """As the first process measures it, so that all decide alike."""
    return fabric.broadcast(measure_health(model, data))


@torch.no_grad()
def measure_health(model: WorldModel, data: PlayData) -> Health:
    """On a fixed draw of held-out rows."""
    was_training = model.training
    model.eval()
    step = data.contract.block_steps
    starts = data.starts(data.held_out, step)
    rows = np.random.default_rng(0).permutation(starts)[:HEALTH_ROWS]
    now, later = (encode_rows(model, data, r) for r in (rows, rows + step))
    foreseen = now  # as good as "nothing changes", where there are no dynamics
    if model.foresees:
        foreseen, _ = model.imagine(now, to(model, data.proprio[rows]), to(model, data.block(rows)))
    model.train(was_training)
    now, later, foreseen = now.cpu(), later.cpu(), foreseen.cpu()
    return measure(now, later, foreseen, torch.from_numpy(data.tip[rows]), torch.from_numpy(data.object[rows]))


@torch.no_grad()
def encode_rows(model: WorldModel, data: PlayData, rows: np.ndarray, batch: int = 512) -> Float[Tensor, "N D"]:
    parts = []
    for a in range(0, len(rows), batch):
        with autocast(model.device):
            parts.append(model.encode(data.frames(rows[a : a + batch]).to(model.device)).float())
    return torch.cat(parts)


def encode_all(model: WorldModel, data: PlayData, report: Report) -> Float[Tensor, "N D"]:
    rows, chunks = np.arange(len(data.images)), []
    for chunk in np.array_split(rows, max(1, len(rows) // 8192)):
        chunks.append(encode_rows(model, data, chunk))
        report("encoding", int(chunk[-1]) + 1, len(rows), "")
    return torch.cat(chunks)


# -- stage 2: heads on frozen latents ------------------------------------------------------------------------------


def train_head(
    stage: str,
    head: nn.Module,
    steps: int,
    rate: float,
    loss_of: Callable[[int], dict[str, Float[Tensor, ""]]],
    config: TrainConfig,
    state: Resume,
    log: Log,
    report: Report,
    clip: bool = False,
) -> None:
    """Trains one head on frozen latents: `loss_of(step)` gives the losses of an update by name. Resumes where it was."""
    head.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(head.parameters(), rate, weight_decay=config.weight_decay)
    try:
        for step in range(state.restore(stage, head, optimiser), steps):
            state.step = step
            with uninterrupted():
                set_rate(optimiser, rate, step, steps)
                losses = loss_of(step)
                optimise(optimiser, sum(losses.values()), head if clip else None)
                state.step = step + 1
            if step % 50 == 0:
                figures = {name: float(loss.detach()) for name, loss in losses.items()}
                log.write(stage, step + 1, figures)
                report(stage, step + 1, steps, "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    except KeyboardInterrupt:
        state.save(stage, head, optimiser)
        raise
    state.save(stage, head, optimiser)
    head.requires_grad_(False).eval()


def train_readouts(
    model: WorldModel, data: PlayData, latents: Float[Tensor, "N D"], config: TrainConfig, state: Resume, log: Log, report: Report
) -> dict[str, float]:
    """Tip and object position from a latent, and yaw and contact where the model reads them."""
    steps, rows = max(1, config.head_steps // 3), data.starts(data.training, 0)
    truth = to(model, np.concatenate([data.tip, data.object], 1))
    truth = (truth - model.position_mean.repeat(2)) / model.position_std.repeat(2)

    angle = SYMMETRY * to(model, data.yaw)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    touching = to(model, data.contact)

    def loss_of(step: int) -> dict[str, Tensor]:
        draw = np.random.default_rng([config.seed, 2, step]).choice(rows, 1024)
        blurred = noisy(latents[draw], config.seed, step)
        losses = {"loss": F.smooth_l1_loss(model.readout(blurred), truth[draw], beta=0.1)}
        if model.yaw_readout is not None:
            losses["yaw"] = F.mse_loss(model.yaw_readout(blurred), circle[draw])
        if model.contact_readout is not None:
            losses["contact"] = F.binary_cross_entropy_with_logits(model.contact_readout(blurred)[:, 0], touching[draw])
        return losses

    more = [head for head in (model.yaw_readout, model.contact_readout) if head is not None]
    head = nn.ModuleList([model.readout, *more]) if more else model.readout
    train_head(STAGES[1], head, steps, config.lr, loss_of, config, state, log, report)
    held = data.starts(data.held_out, 0)
    tip, obj = model.read(latents[held])
    errors = [(a - to(model, b[held])).norm(dim=1).median().item() * 100 for a, b in ((tip, data.tip), (obj, data.object))]
    metrics = {"readout_tip_cm": errors[0], "readout_object_cm": errors[1]}
    line = f"held out: tip {errors[0]:.2f} cm, object {errors[1]:.2f} cm"
    if model.yaw_readout is not None:
        off = turned(model.read_yaw(latents[held]), to(model, data.yaw[held]))
        metrics["readout_yaw_deg"] = math.degrees(float(off.abs().median()))
        line += f", yaw {metrics['readout_yaw_deg']:.1f} deg"
    if model.contact_readout is not None:
        metrics["readout_contact"] = balanced_accuracy(model.read_contact(latents[held]) > 0.5, touching[held] > 0.5)
        line += f", contact {100 * metrics['readout_contact']:.1f} %"
    if np.isfinite(data.dq).all():
        metrics["probe_dq_r"] = joint_velocity_probe(model, data, latents)
        line += f", joint velocities r {metrics['probe_dq_r']:.3f}"
    report(STAGES[1], steps, steps, line)
    return metrics


def balanced_accuracy(said: Bool[Tensor, "N"], true: Bool[Tensor, "N"]) -> float:
    """Mean of the shares that are right among those that are true and among those that are not; 0.5 is chance."""
    shares = [float((said[true == value] == value).float().mean()) for value in (True, False) if (true == value).any()]
    return float(np.mean(shares))


def joint_velocity_probe(model: WorldModel, data: PlayData, latents: Float[Tensor, "N D"]) -> float:
    """How well a linear probe reads joint velocities from a belief (latent and proprioception): r on held-out episodes."""

    def belief(episodes: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = data.starts(episodes, 0)
        rows = rows[:: max(1, len(rows) // PROBE_ROWS)]
        proprio = model.scale_proprio(to(model, data.proprio[rows]))
        return torch.cat([latents[rows], proprio], 1).cpu(), torch.from_numpy(data.dq[rows])

    return probe_correlation(belief(data.training), belief(data.held_out))


def noisy(latents: Float[Tensor, "B D"], seed: int, step: int, scale: float = 0.05) -> Float[Tensor, "B D"]:
    """Latents as blurred as imagination makes them, so that heads do not cling to fine detail."""
    generator = torch.Generator().manual_seed(seed * 7_919 + step)
    return latents + scale * torch.randn(latents.shape, generator=generator).to(latents.device)


def train_actor_and_critic(
    model: WorldModel,
    data: PlayData,
    latents: Float[Tensor, "N D"],
    config: TrainConfig,
    state: Resume,
    log: Log,
    report: Report,
) -> dict[str, float]:
    """Goal-conditioned inverse dynamics and steps to go, with goals in hindsight."""
    heads = nn.ModuleList([model.actor, model.critic, *model.other_critics, *filter(None, [model.subgoal_head])])
    read_object = torch.cat([model.read(part)[1] for part in latents.split(8192)])

    def loss_of(step: int) -> dict[str, Tensor]:
        found = head_losses(model, data, latents, read_object, data.training, HEAD_BATCH, [config.seed, 3, step])
        losses = {"actor": found.actor, "critic": found.critic}
        return losses if found.subgoal is None else losses | {"sub-goal": found.subgoal}

    train_head(STAGES[2], heads, config.head_steps, config.lr, loss_of, config, state, log, report, clip=True)
    found = head_losses(model, data, latents, read_object, data.held_out, 8192, [config.seed, 4, 0])
    actor, critic, error = float(found.actor), float(found.critic), float(found.errors.mean())
    metrics = {"actor_loss": actor, "critic_loss": critic, "critic_error_blocks": error}
    line = f"held out: actor {actor:.4f}  critic {critic:.4f} ({error:.2f} blocks)"
    if found.spread is not None:
        metrics["critic_spread_r"] = float(spearmanr(found.spread.cpu(), found.errors.cpu()).statistic)
        line += f"  spread against error r {metrics['critic_spread_r']:.2f}"
    if model.modes > 1:
        metrics["actor_modes_apart"] = modes_apart(model, found.features, found.k)
        line += f"  its {model.modes} motions {metrics['actor_modes_apart']:.2f} apart"
    if found.subgoal_share is not None:
        metrics["subgoal_share"] = float(found.subgoal_share)
        line += f"  sub-goal {metrics['subgoal_share']:.2f} of standing still"
    report(STAGES[2], config.head_steps, config.head_steps, line)
    return metrics


class HeadLosses(NamedTuple):
    """What actor and critics make of one draw."""

    features: Float[Tensor, "B G"]  # that they saw
    k: Float[Tensor, "B"]  # [blocks] that the actor was told
    actor: Float[Tensor, ""]
    critic: Float[Tensor, ""]  # sum over the critics
    errors: Float[Tensor, "B"]  # [blocks] of the critics' mean
    spread: Float[Tensor, "B"] | None  # [blocks] standard deviation of the critics; None: there is one
    subgoal: Float[Tensor, ""] | None = None  # None: the model proposes none
    subgoal_share: Float[Tensor, ""] | None = None  # squared error of the best way's latent, in that of standing still


def head_losses(
    model: WorldModel,
    data: PlayData,
    latents: Tensor,
    read_object: Tensor,
    episodes: np.ndarray,
    batch: int,
    seed: list[int],
) -> HeadLosses:
    """Of one draw. Of M critics, each learns from all episodes but its Mth of them, so that they differ where data is scarce."""
    rng = np.random.default_rng(seed)
    h = hindsight(data, episodes, batch, model.config.max_blocks, rng)
    z, goal = noisy(latents[h.row], seed[0], seed[-1]), latents[h.goal]
    proprio, given = to(model, data.proprio[h.row]), to(model, h.given)
    # Half of the object goals as a person would give them, half as the model reads them from a goal image.
    seen = to(model, rng.random((batch, 1)) < 0.5)
    goal_object = torch.where(seen, read_object[h.goal], to(model, data.object[h.goal]))
    block = to(model, imitated(data, h))
    same, to_go = to(model, h.same).float(), to(model, h.to_go)
    with torch.no_grad():
        features = model.features(z, proprio, goal, to(model, data.tip[h.goal]), goal_object, given)
    with autocast(model.device):
        actor, logits = imitation_error(model, features, to(model, h.k), block), model.logits(features).float()
    critics = np.arange(model.critics)[:, None]
    learns = to(model, (model.critics == 1) | (h.episode % model.critics != critics)).float()
    misses = F.cross_entropy(logits.flatten(0, 1), to_go.repeat(model.critics), reduction="none").view_as(learns)
    critic = ((misses * learns).sum(1) / learns.sum(1).clamp_min(1)).sum()
    expected = model.expected(logits.detach())
    spread = expected.std(0) if model.critics > 1 else None
    subgoal = share = None
    if model.subgoal_ways:
        subgoal, share = subgoal_losses(model, data, latents, h, z, features)
    losses = (actor * same).sum() / same.sum(), critic, (expected.mean(0) - to_go).abs(), spread
    return HeadLosses(features, to(model, h.k), *losses, subgoal, share)


def subgoal_losses(
    model: WorldModel, data: PlayData, latents: Tensor, h: Hindsight, z: Float[Tensor, "B D"], features: Float[Tensor, "B G"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Of the states `subgoal_blocks` after the rows, or of the goals where those come first; and the error's share.

    Only the nearest way of each row learns from it, but for a little, so that ways come apart where episodes went several
    (`nearest`).
    """
    ahead = h.row + data.contract.block_steps * np.minimum(h.k, model.config.subgoal_blocks).astype(np.int64)
    counts = to(model, h.same & (h.k > 0)).float()
    moved = (to(model, data.proprio[ahead]) - to(model, data.proprio[h.row])) / model.proprio_std
    with autocast(model.device):
        changes = model.propose_changes(features, to(model, h.k))
    errors = changes.float() - torch.cat([latents[ahead] - z, moved], -1)[:, None]
    latent, joints = (part.square().mean(-1) for part in errors.split([model.config.latent, moved.shape[-1]], -1))
    loss = (nearest(latent + joints) * counts).sum() / counts.sum().clamp_min(1)
    still = (latents[ahead] - latents[h.row]).square().mean(-1)
    return loss, (latent.detach().amin(1) * counts).sum() / (still * counts).sum().clamp_min(1e-9)


def train_in_imagination(
    model: WorldModel, data: PlayData, latents: Float[Tensor, "N D"], config: TrainConfig, state: Resume, log: Log, report: Report
) -> dict[str, float]:
    """A second actor and critic, for a model that has them; how many held-out goals each actor reaches in imagination."""
    if not model.dreamt:
        return {}
    dreamer = Dreamer(model, data, latents, config)
    train_head(DREAM, dreamer, config.dream_steps, config.lr, dreamer.losses, config, state, log, report, clip=True)
    dreamt, plain = (imagined_success(of, data, latents, config.seed) for of in (model.dreaming(), model))
    line = f"held out, reached in imagination: {100 * dreamt:.1f} %, by the other actor {100 * plain:.1f} %"
    report(DREAM, config.dream_steps, config.dream_steps, line)
    return {"dreamt_imagined_success": dreamt, "actor_imagined_success": plain}


def train_decoder(
    model: WorldModel, data: PlayData, latents: Float[Tensor, "N D"], config: TrainConfig, state: Resume, log: Log, report: Report
) -> None:
    """Pictures from latents, for people only."""
    rows = data.starts(data.training, 0)

    def loss_of(step: int) -> dict[str, Tensor]:
        draw = np.random.default_rng([config.seed, 5, step]).choice(rows, 64)
        target = data.frames(draw).to(model.device).movedim(-1, -3).float() / 127.5 - 1
        with autocast(model.device):
            picture = model.decoder(latents[draw])
        return {"loss": ((picture.float() - target).square() * (1 + CONTRAST_WEIGHT * contrast(target))).mean()}

    train_head(STAGES[3], model.decoder, config.decoder_steps, 2 * config.lr, loss_of, config, state, log, report)


def contrast(pictures: Float[Tensor, "B C 3 h w"]) -> Float[Tensor, "B C 1 h w"]:
    """How far each pixel stands out from its surroundings: a small object must not be lost in a large table."""
    side = pictures.shape[-1] // 4 + 1
    around = F.avg_pool2d(pictures.flatten(0, 1), side, 1, side // 2, count_include_pad=False).unflatten(0, pictures.shape[:2])
    return (pictures - around).abs().mean(2, keepdim=True)


@torch.no_grad()
def one_block_error(model: WorldModel, data: PlayData, latents: Float[Tensor, "N D"]) -> float:
    """Mean squared error of imagining one block, held out: the unit of surprise."""
    rows = data.starts(data.held_out, data.contract.block_steps)
    foreseen, _ = model.imagine(latents[rows], to(model, data.proprio[rows]), to(model, data.block(rows)))
    return float((foreseen - latents[rows + data.contract.block_steps]).square().mean())


# -- small things ----------------------------------------------------------------------------------------------------


def to(model: WorldModel, array: np.ndarray) -> Tensor:
    """The array where the model is."""
    return torch.from_numpy(array).to(model.device)


def set_rate(optimiser: torch.optim.Optimizer, peak: float, step: int, steps: int) -> None:
    """Linear warm-up over 3 % of the steps, then half a cosine to zero."""
    warm = max(1, round(0.03 * steps))
    rate = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    for group in optimiser.param_groups:
        group["lr"] = peak * rate


def optimise(optimiser: torch.optim.Optimizer, loss: Tensor, parameters: nn.Module | None = None) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if parameters is not None:
        nn.utils.clip_grad_norm_(parameters.parameters(), 1.0)
    optimiser.step()


def parameters(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


def model_card(model: WorldModel, facts: dict, config: TrainConfig) -> str:
    """What this model is, what made it, what it measured, what it is not for."""
    m, contract = facts["metrics"], model.contract
    cameras = ", ".join(f"{c.name} {c.width}x{c.height} -> {c.size}x{c.size}" for c in contract.cameras)
    millions = parameters(model) / 1e6
    names = {"sigreg": "SIGReg", "vicreg": "VICReg", "infonce": "InfoNCE", "ema": "an EMA teacher", "none": "nothing"}
    eyes = f"with {config.model.foundation} as frozen eyes" if model.foundation else "end to end from pixels"
    episodes = facts["episodes"] + facts["held_out_episodes"] + len(facts.get("skipped_episodes", ()))
    yaw = f", yaw {m['readout_yaw_deg']:.1f} deg" if "readout_yaw_deg" in m else ""
    yaw += f", contact right in {100 * m['readout_contact']:.1f} % (balanced)" if "readout_contact" in m else ""
    spread = ""
    if "critic_spread_r" in m:
        spread = f"; rank correlation of that with how far the {model.critics} of them differ {m['critic_spread_r']:.2f}"
    probe = ""
    if "probe_dq_r" in m:
        probe = f"| linear probe of the belief for joint velocities | r {m['probe_dq_r']:.3f} (median of the joints) |\n"
    modes = ""
    if "actor_modes_apart" in m:
        modes = f"\n| actor | {model.modes} motions at once, {m['actor_modes_apart']:.2f} of the actions' spread apart |"
    subgoals = ""
    if "subgoal_share" in m:
        subgoals = (
            f"\n| sub-goals | {model.subgoal_ways} ways, {model.config.subgoal_blocks} blocks ahead; squared error of the "
            f"nearest {m['subgoal_share']:.2f} of standing still's |"
        )
    sizes = ", ".join(f"{name} {count / 1e6:.3f} M" for name, count in facts["parameters"].items())
    dreamt = ""
    if "dreamt_imagined_success" in m:
        own, other = (f"{100 * m[name]:.1f} %" for name in ("dreamt_imagined_success", "actor_imagined_success"))
        dreamt = f"\n| learned in imagination | actor and critic, {config.dream_steps} updates; held-out goals reached in "
        dreamt += f"imagination {own}, by the other actor {other} |"
    skill = f"one-block skill over persistence {m['health']['skill']:.3f}" if model.foresees else "no dynamics"
    skipped = f"; damaged ones left out: {len(facts['skipped_episodes'])}" if "skipped_episodes" in facts else ""
    kind, way = "World model", f"JEPA with {names[config.anti_collapse]} against collapse, trained"
    if not model.foresees:
        kind, way = "Clone", "Behaviour cloning without dynamics (policy `reactive` alone can run it), trained"
    return f"""# {kind} for {contract.robot}

{way} {eyes} and proprioception; {millions:.2f} M parameters, latent of {model.config.latent}.
Actor, critic, readouts and a picture decoder were trained on its frozen latents. Readouts use the simulator's labels.

| | |
|---|---|
| made by | `foresight collect --episodes {episodes} \
--steps {facts["steps_per_episode"]} --seed {facts["data_seed"]}`, then `{facts["command"]}` |
| data | {facts["episodes"]} episodes of {facts["steps_per_episode"]} steps of {contract.step_s} s for training, \
{facts["held_out_episodes"]} held out{skipped}; data seed {facts["data_seed"]}, training seed {facts["seed"]} |
| time, machine | {facts["minutes"]} minutes of training; {facts["machine"]}; torch {facts["torch"]} |
| parameters | {sizes} |
| cameras | {cameras} |
| action | {contract.action}; {contract.block_steps} steps of {contract.step_s} s to a block |
| held-out latent health | std {m["health"]["std"]:.2f}, effective rank {m["health"]["rank"]:.1f}, \
{skill} |
| linear probe (median) | tip {m["health"]["tip_cm"]:.2f} cm, object {m["health"]["object_cm"]:.2f} cm |
| readouts (median) | tip {m["readout_tip_cm"]:.2f} cm, object {m["readout_object_cm"]:.2f} cm{yaw} |
{probe}| critic | mean absolute error {m["critic_error_blocks"]:.2f} blocks{spread} |{modes}{subgoals}{dreamt}

Not for: other robots, other camera mountings than a few centimetres from these, other objects than the cube; \
never tried on a real arm.
"""
