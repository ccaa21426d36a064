"""Trains a world model from play data: first the JEPA end to end from pixels, then heads on its frozen latents.

`foresight train --data data/ur5e_play.h5 --out models/ur5e`. Resumable: every draw depends on (seed, step) alone.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from foresight.files import write_atomically
from foresight.training import dataset
from foresight.training.dataset import PlayData, hindsight, jitter
from foresight.training.health import Health, measure
from foresight.world_model import checkpoint
from foresight.world_model.model import ModelConfig, WorldModel
from foresight.world_model.networks import mlp
from foresight.world_model.sigreg import sigreg

WINDOW = 4  # frames, one block apart
STAGES = ("world model", "readouts", "actor and critic", "decoder")
HEALTH_ROWS = 3000
HEAD_BATCH = 768
CONTRAST_WEIGHT = 20.0
Report = Callable[[str, int, int, str], None]  # stage, step, steps, one line of figures


class CollapseError(RuntimeError):
    """The latents have collapsed: training further is waste."""


@dataclass(frozen=True)
class TrainConfig:
    """What to train on, for how long, and how hard each loss pulls."""

    data: Path = Path("data/ur5e_play.h5")  # dataset that `foresight collect` wrote
    out: Path = Path("runs/model")  # checkpoint folder to write
    steps: int = 1800  # updates of encoder and predictor
    batch: int = 96  # windows of 4 frames per update
    head_steps: int = 6000  # updates of actor and critic
    decoder_steps: int = 1200  # updates of the picture decoder
    lr: float = 1e-3  # peak learning rate
    weight_decay: float = 1e-3  # of AdamW, per update and learning rate
    sigreg_weight: float = 0.09  # of the loss that keeps the latents from collapsing
    sigreg_slices: int = 256  # random directions per update
    rollout_weight: float = 0.5  # of 2- and 3-block imagination
    proprio_weight: float = 0.5  # of imagined proprioception
    inverse_weight: float = 0.2  # of inverse dynamics
    readout_weight: float = 0.3  # of a linear proprioception readout from the latent
    seed: int = 0  # of initial weights and of every draw
    episodes: int | None = None  # use only the first episodes of the dataset
    threads: int = os.cpu_count() or 1  # CPU threads
    fresh: bool = False  # forget an interrupted run instead of resuming it
    model: ModelConfig = ModelConfig()

    def __post_init__(self) -> None:
        for name, most in (
            ("steps", 10_000_000), ("head_steps", 10_000_000), ("decoder_steps", 10_000_000),
            ("batch", 100_000), ("sigreg_slices", 100_000), ("threads", 256),
        ):  # fmt: skip
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be at least 1 and at most {most}, got {getattr(self, name)}.")
        if not 0 < self.lr <= 1:
            raise ValueError(f"lr must be above 0 and at most 1, got {self.lr}.")
        for name in (n for n in asdict(self) if n.endswith("_weight") or n == "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {getattr(self, name)}.")
        if not 0 <= self.seed <= 2**31:
            raise ValueError(f"seed must be at least 0 and at most {2**31}, got {self.seed}.")
        if self.episodes is not None and self.episodes < 2:
            raise ValueError(f"episodes must be at least 2 (one is held out), got {self.episodes}.")


class Auxiliary(nn.Module):
    """Heads that help the encoder while it learns and are thrown away afterwards."""

    def __init__(self, latent: int, block: int) -> None:
        super().__init__()
        self.inverse = mlp(2 * latent, 256, block, depth=1)
        self.linear = nn.Linear(latent, 6)


def train(config: TrainConfig, report: Report = lambda *_: None) -> Path:
    """Runs all stages and writes the checkpoint. Interrupted in any stage, the next call goes on from there."""
    torch.set_num_threads(config.threads)
    began = time.monotonic()
    data = dataset.load(config.data, config.episodes)
    torch.manual_seed(config.seed)
    model = WorldModel(data.contract, config.model)
    set_statistics(model, data)
    state = Resume(config, data.fingerprint)
    spent = state.load()
    health = train_world_model(model, data, config, state, report)
    model.eval().requires_grad_(False)
    latents = encode_all(model, data, report)
    metrics = {"health": asdict(health)}
    metrics |= train_readouts(model, data, latents, config, state, report)
    metrics |= train_actor_and_critic(model, data, latents, config, state, report)
    train_decoder(model, data, latents, config, state, report)
    model.surprise_scale.fill_(one_block_error(model, data, latents))
    minutes = (spent + time.monotonic() - began) / 60
    facts = {
        "command": command_line(config),
        "minutes": round(minutes, 1),
        "machine": f"{platform.machine()}, {config.threads} CPU threads",
        "torch": torch.__version__,
        "episodes": len(data.training),
        "held_out_episodes": len(data.held_out),
        "steps_per_episode": int(data.length[0]),
        "data_seed": data.seed,
        "seed": config.seed,
        "metrics": metrics,
    }
    checkpoint.save(model, config.out, model_card(model, facts), facts)
    state.clear()
    return config.out


def set_statistics(model: WorldModel, data: PlayData) -> None:
    """Normalisation from the training episodes."""
    rows = data.starts(data.training, data.contract.block_steps)
    proprio = torch.from_numpy(data.proprio[rows])
    model.proprio_mean.copy_(proprio.mean(0))
    model.proprio_std.copy_(proprio.std(0).clamp_min(1e-3))
    model.action_std.fill_(float(data.block(rows[::7]).std()))
    positions = torch.from_numpy(np.concatenate([data.tip[rows], data.object[rows]]))
    model.position_mean.copy_(positions.mean(0))
    model.position_std.copy_(positions.std(0).clamp_min(1e-3))


# -- stage 1: encoder and predictor ------------------------------------------------------------------------------


def train_world_model(model: WorldModel, data: PlayData, config: TrainConfig, state: Resume, report: Report) -> Health:
    auxiliary = Auxiliary(config.model.latent, data.contract.block_size)
    learned = nn.ModuleDict({"encoder": model.encoder, "predictor": model.predictor, "auxiliary": auxiliary})
    optimiser = torch.optim.AdamW(learned.parameters(), config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.98))
    first = state.restore(STAGES[0], learned, optimiser)
    starts = data.starts(data.training, (WINDOW - 1) * data.contract.block_steps)
    model.encoder.to(memory_format=torch.channels_last)
    health = measure_health(model, data)
    bad_checks = 0
    try:
        for step in range(first, config.steps):
            state.step = step
            set_rate(optimiser, config.lr, step, config.steps)
            learned.train()
            loss, parts = world_model_loss(model, auxiliary, data, starts, config, step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
            optimiser.step()
            state.step = step + 1
            check = (step + 1) % 150 == 0 or step + 1 == config.steps
            if check:
                health = measure_health(model, data)
                bad_checks = bad_checks + 1 if health.collapsed and step >= 300 else 0
                state.save(STAGES[0], learned, optimiser)
                if bad_checks >= 3 or (health.collapsed and step + 1 == config.steps):
                    raise CollapseError(
                        f"The latents collapsed ({health.collapse}), so no checkpoint was made. Raise --sigreg-weight (now "
                        f"{config.sigreg_weight}), lower --lr (now {config.lr}) or raise --steps (now {config.steps}), and add "
                        "--fresh."
                    )
            if check or step % 10 == 0:
                report(
                    STAGES[0],
                    step + 1,
                    config.steps,
                    "  ".join(f"{k} {v:.3f}" for k, v in parts.items()) + f"  | {health}" * check,
                )
    except KeyboardInterrupt:
        state.save(STAGES[0], learned, optimiser)
        raise
    return measure_health(model, data)


def world_model_loss(
    model: WorldModel,
    auxiliary: Auxiliary,
    data: PlayData,
    starts: np.ndarray,
    config: TrainConfig,
    step: int,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """One batch of windows: prediction over 1, 2 and 3 blocks, SIGReg, and the helpers."""
    rng = np.random.default_rng([config.seed, 1, step])
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    rows = rng.choice(starts, config.batch)[:, None] + data.contract.block_steps * np.arange(WINDOW)  # B T
    images = jitter(torch.from_numpy(data.images[rows]), generator)
    blocks = torch.from_numpy(data.block(rows[:, :-1].ravel())).view(config.batch, WINDOW - 1, -1) / model.action_std
    proprio = model.scale_proprio(torch.from_numpy(data.proprio[rows]))
    with torch.autocast("cpu", torch.bfloat16):
        z = model.encoder(images.flatten(0, 1)).float().unflatten(0, (config.batch, WINDOW))
        foreseen, joints = z[:, :-1], proprio[:, :-1]
        errors, proprio_errors = [], []
        for ahead in range(1, WINDOW):  # imagine from every frame at once, each time one block further
            n = WINDOW - ahead
            foreseen, joints = model.predictor(foreseen[:, :n], joints[:, :n], blocks[:, ahead - 1 :])
            errors.append((foreseen.float() - z[:, ahead:]).square().mean())
            proprio_errors.append((joints.float() - proprio[:, ahead:]).square().mean())
        inverse = F.mse_loss(auxiliary.inverse(torch.cat([z[:, :-1], z[:, 1:]], -1)).float(), blocks)
        place = F.mse_loss(auxiliary.linear(z).float(), proprio[..., -6:])
    normal = sigreg(z.transpose(0, 1), config.sigreg_slices, generator)
    loss = (
        errors[0]
        + config.rollout_weight * (errors[1] + errors[2])
        + config.proprio_weight * sum(proprio_errors) / 3
        + config.inverse_weight * inverse
        + config.readout_weight * place
        + config.sigreg_weight * normal
    )
    figures = {"loss": loss, "predict": errors[0], "rollout": errors[2], "sigreg": normal, "inverse": inverse}
    return loss, {name: float(value.detach()) for name, value in figures.items()}


@torch.no_grad()
def measure_health(model: WorldModel, data: PlayData) -> Health:
    """On a fixed draw of held-out rows."""
    was_training = model.training
    model.eval()
    step = data.contract.block_steps
    starts = data.starts(data.held_out, step)
    rows = np.random.default_rng(0).permutation(starts)[:HEALTH_ROWS]
    now, later = (encode_rows(model, data, r) for r in (rows, rows + step))
    foreseen, _ = model.imagine(now, torch.from_numpy(data.proprio[rows]), torch.from_numpy(data.block(rows)))
    model.train(was_training)
    return measure(now, later, foreseen, torch.from_numpy(data.tip[rows]), torch.from_numpy(data.object[rows]))


@torch.no_grad()
def encode_rows(model: WorldModel, data: PlayData, rows: np.ndarray, batch: int = 512) -> Float[Tensor, "N D"]:
    parts = []
    for a in range(0, len(rows), batch):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(model.encode(torch.from_numpy(data.images[rows[a : a + batch]])).float())
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
    loss_of: Callable[[int], tuple[Float[Tensor, ""], str]],
    config: TrainConfig,
    state: Resume,
    report: Report,
    clip: bool = False,
) -> None:
    """Trains one head on frozen latents: `loss_of(step)` gives an update's loss and a line about it. Resumes where it was."""
    head.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(head.parameters(), rate, weight_decay=config.weight_decay)
    try:
        for step in range(state.restore(stage, head, optimiser), steps):
            state.step = step
            set_rate(optimiser, rate, step, steps)
            loss, line = loss_of(step)
            optimise(optimiser, loss, head if clip else None)
            state.step = step + 1
            if step % 50 == 0:
                report(stage, step + 1, steps, line)
    except KeyboardInterrupt:
        state.save(stage, head, optimiser)
        raise
    state.save(stage, head, optimiser)
    head.requires_grad_(False).eval()


def train_readouts(
    model: WorldModel, data: PlayData, latents: Float[Tensor, "N D"], config: TrainConfig, state: Resume, report: Report
) -> dict[str, float]:
    """Tip and object position from a latent."""
    steps, rows = max(1, config.head_steps // 3), data.starts(data.training, 0)
    truth = (
        torch.from_numpy(np.concatenate([data.tip, data.object], 1)) - model.position_mean.repeat(2)
    ) / model.position_std.repeat(2)

    def loss_of(step: int) -> tuple[Tensor, str]:
        draw = np.random.default_rng([config.seed, 2, step]).choice(rows, 1024)
        loss = F.smooth_l1_loss(model.readout(noisy(latents[draw], config.seed, step)), truth[draw], beta=0.1)
        return loss, f"loss {float(loss.detach()):.4f}"

    train_head(STAGES[1], model.readout, steps, config.lr, loss_of, config, state, report)
    held = data.starts(data.held_out, 0)
    tip, obj = model.read(latents[held])
    errors = [(a - torch.from_numpy(b[held])).norm(dim=1).median().item() * 100 for a, b in ((tip, data.tip), (obj, data.object))]
    report(STAGES[1], steps, steps, f"held out: tip {errors[0]:.2f} cm, object {errors[1]:.2f} cm")
    return {"readout_tip_cm": errors[0], "readout_object_cm": errors[1]}


def noisy(latents: Float[Tensor, "B D"], seed: int, step: int, scale: float = 0.05) -> Float[Tensor, "B D"]:
    """Latents as blurred as imagination makes them, so that heads do not cling to fine detail."""
    generator = torch.Generator().manual_seed(seed * 7_919 + step)
    return latents + scale * torch.randn(latents.shape, generator=generator)


def train_actor_and_critic(
    model: WorldModel,
    data: PlayData,
    latents: Float[Tensor, "N D"],
    config: TrainConfig,
    state: Resume,
    report: Report,
) -> dict[str, float]:
    """Goal-conditioned inverse dynamics and steps to go, with goals in hindsight."""
    heads = nn.ModuleList([model.actor, model.critic])
    read_object = torch.cat([model.read(part)[1] for part in latents.split(8192)])

    def loss_of(step: int) -> tuple[Tensor, str]:
        actor, critic, _ = head_losses(model, data, latents, read_object, data.training, HEAD_BATCH, [config.seed, 3, step])
        return actor + critic, f"actor {float(actor.detach()):.4f}  critic {float(critic.detach()):.4f}"

    train_head(STAGES[2], heads, config.head_steps, config.lr, loss_of, config, state, report, clip=True)
    actor, critic, error = head_losses(model, data, latents, read_object, data.held_out, 8192, [config.seed, 4, 0])
    report(
        STAGES[2],
        config.head_steps,
        config.head_steps,
        f"held out: actor {float(actor):.4f}  critic {float(critic):.4f} ({error:.2f} blocks)",
    )
    return {"actor_loss": float(actor), "critic_loss": float(critic), "critic_error_blocks": error}


def head_losses(
    model: WorldModel,
    data: PlayData,
    latents: Tensor,
    read_object: Tensor,
    episodes: np.ndarray,
    batch: int,
    seed: list[int],
) -> tuple[Tensor, Tensor, float]:
    """Actor and critic loss of one draw, and the critic's mean absolute error [blocks]."""
    rng = np.random.default_rng(seed)
    h = hindsight(data, episodes, batch, model.config.max_blocks, rng)
    z, goal = noisy(latents[h.row], seed[0], seed[-1]), latents[h.goal]
    proprio, given = torch.from_numpy(data.proprio[h.row]), torch.from_numpy(h.given)
    # Half of the object goals as a person would give them, half as the model reads them from a goal image.
    seen = torch.from_numpy(rng.random((batch, 1)) < 0.5)
    goal_object = torch.where(seen, read_object[h.goal], torch.from_numpy(data.object[h.goal]))
    there = torch.from_numpy(h.to_go == 0).unsqueeze(-1)
    block = torch.where(there, 0.0, torch.from_numpy(data.block(h.row)))  # at the goal: stay
    same, to_go = torch.from_numpy(h.same).float(), torch.from_numpy(h.to_go)
    with torch.no_grad():
        features = model.features(z, proprio, goal, torch.from_numpy(data.tip[h.goal]), goal_object, given)
    with torch.autocast("cpu", torch.bfloat16):
        proposal, logits = model.act(features, torch.from_numpy(h.k)), model.critic(features).float()
    actor = ((proposal.float() - block) / model.action_std).square().mean(-1)
    critic = F.cross_entropy(logits, to_go)
    error = (logits.detach().softmax(-1) @ torch.arange(logits.shape[-1], dtype=torch.float32) - to_go).abs().mean()
    return (actor * same).sum() / same.sum(), critic, float(error)


def train_decoder(
    model: WorldModel, data: PlayData, latents: Float[Tensor, "N D"], config: TrainConfig, state: Resume, report: Report
) -> None:
    """Pictures from latents, for people only."""
    rows = data.starts(data.training, 0)

    def loss_of(step: int) -> tuple[Tensor, str]:
        draw = np.random.default_rng([config.seed, 5, step]).choice(rows, 64)
        target = torch.from_numpy(data.images[draw]).movedim(-1, -3).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            picture = model.decoder(latents[draw])
        loss = ((picture.float() - target).square() * (1 + CONTRAST_WEIGHT * contrast(target))).mean()
        return loss, f"loss {float(loss.detach()):.3f}"

    train_head(STAGES[3], model.decoder, config.decoder_steps, 2 * config.lr, loss_of, config, state, report)


def contrast(pictures: Float[Tensor, "B C 3 h w"]) -> Float[Tensor, "B C 1 h w"]:
    """How far each pixel stands out from its surroundings: a small object must not be lost in a large table."""
    side = pictures.shape[-1] // 4 + 1
    around = F.avg_pool2d(pictures.flatten(0, 1), side, 1, side // 2, count_include_pad=False).unflatten(0, pictures.shape[:2])
    return (pictures - around).abs().mean(2, keepdim=True)


@torch.no_grad()
def one_block_error(model: WorldModel, data: PlayData, latents: Float[Tensor, "N D"]) -> float:
    """Mean squared error of imagining one block, held out: the unit of surprise."""
    rows = data.starts(data.held_out, data.contract.block_steps)
    foreseen, _ = model.imagine(latents[rows], torch.from_numpy(data.proprio[rows]), torch.from_numpy(data.block(rows)))
    return float((foreseen - latents[rows + data.contract.block_steps]).square().mean())


# -- small things ----------------------------------------------------------------------------------------------------


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


class Resume:
    """The state of an interrupted run, beside the checkpoint to be: of each stage begun its step, weights and optimiser."""

    def __init__(self, config: TrainConfig, data: str) -> None:
        self.path = config.out.with_name(config.out.name + ".training.pt")
        self.settings, self.data = command_line(config), data
        self.step, self._began, self._spent = 0, time.monotonic(), 0.0
        self._stages: dict[str, dict] = {}
        if config.fresh:
            self.clear()

    def load(self) -> float:
        """Seconds already spent on this run; 0 for a new one."""
        if self.path.exists():
            try:
                saved = torch.load(self.path, weights_only=True)
            except (RuntimeError, UnpicklingError, EOFError, KeyError) as error:
                raise ValueError(f"{self.path}, an interrupted run, is damaged. Add --fresh to forget it.") from error
            if saved["settings"] != self.settings:
                raise ValueError(
                    f"{self.path} holds an interrupted run of `{saved['settings']}`, this one is `{self.settings}`. "
                    "Add --fresh to forget it."
                )
            if saved.get("data") != self.data:
                raise ValueError(
                    f"{self.path} holds an interrupted run on other data ({saved.get('data', 'unnamed')}) than the dataset now "
                    f"is ({self.data}). Put that dataset back, or add --fresh to begin anew on this one."
                )
            self._stages, self._spent = saved["stages"], saved["spent_s"]
        return self._spent

    def restore(self, stage: str, learned: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Puts back what was learned in this stage; the step to go on with."""
        self.step = 0
        saved = self._stages.get(stage)
        if saved is None:
            return 0
        learned.load_state_dict(saved["learned"])
        optimiser.load_state_dict(saved["optimiser"])
        self.step = saved["step"]
        return self.step

    def save(self, stage: str, learned: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self._stages[stage] = {"step": self.step, "learned": learned.state_dict(), "optimiser": optimiser.state_dict()}
        spent = self._spent + time.monotonic() - self._began
        state = {"settings": self.settings, "data": self.data, "spent_s": spent, "stages": self._stages}
        write_atomically(self.path, lambda path: torch.save(state, path))

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def command_line(config: TrainConfig) -> str:
    """The command that repeats this run: every field that differs from its default."""
    default, words = TrainConfig(), ["foresight train"]
    for name, value in asdict(config).items():
        if name in ("threads", "fresh", "model") or value == getattr(default, name):
            continue
        words.append(f"--{name.replace('_', '-')} {value}")
    if config.model != default.model:
        words += [f"--model.{k.replace('_', '-')} {v}" for k, v in asdict(config.model).items() if v != getattr(default.model, k)]
    return " ".join(words)


def model_card(model: WorldModel, facts: dict) -> str:
    """What this model is, what made it, what it measured, what it is not for."""
    m, contract = facts["metrics"], model.contract
    cameras = ", ".join(f"{c.name} {c.width}x{c.height} -> {c.size}x{c.size}" for c in contract.cameras)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    return f"""# World model for {contract.robot}

JEPA with SIGReg, trained end to end from pixels and proprioception; {millions:.2f} M parameters, latent of {model.config.latent}.
Actor, critic, readouts and a picture decoder were trained on its frozen latents. Readouts use the simulator's labels.

| | |
|---|---|
| made by | `foresight collect --episodes {facts["episodes"] + facts["held_out_episodes"]} \
--steps {facts["steps_per_episode"]} --seed {facts["data_seed"]}`, then `{facts["command"]}` |
| data | {facts["episodes"]} episodes of {facts["steps_per_episode"]} steps of {contract.step_s} s for training, \
{facts["held_out_episodes"]} held out; data seed {facts["data_seed"]}, training seed {facts["seed"]} |
| time, machine | {facts["minutes"]} minutes of training; {facts["machine"]}; torch {facts["torch"]} |
| cameras | {cameras} |
| action | {contract.action}; {contract.block_steps} steps of {contract.step_s} s to a block |
| held-out latent health | std {m["health"]["std"]:.2f}, effective rank {m["health"]["rank"]:.1f}, \
one-block skill over persistence {m["health"]["skill"]:.3f} |
| linear probe (median) | tip {m["health"]["tip_cm"]:.2f} cm, object {m["health"]["object_cm"]:.2f} cm |
| readouts (median) | tip {m["readout_tip_cm"]:.2f} cm, object {m["readout_object_cm"]:.2f} cm |
| critic | mean absolute error {m["critic_error_blocks"]:.2f} blocks |

Not for: other robots, other camera mountings than a few centimetres from these, other objects than the cube; \
never tried on a real arm.
"""
