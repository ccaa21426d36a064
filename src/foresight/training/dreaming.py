"""Actor and critic learned from what the frozen model imagines, after Dreamer (Hafner et al. 2023, arXiv 2301.04104), for goals.

From rows and goals of the training episodes the actor's motion is imagined for a few blocks. Each block costs 1 until the goal is
near, and nothing at it, so that staying is learned too; what was done in the dataset does not count. The critic learns
lambda-returns as distributions (two-hot) over distances, under a slowly following copy of itself. The actor descends them with
the gradient through dynamics and critic (as the first Dreamer, arXiv 1912.01603), which the short, differentiable rollouts of a
deterministic model allow; noise on its blocks takes the place of an entropy bonus. Blocks are imagined as a tip makes them that
keeps to the steps, and changes of step, of the episodes: beyond those an actor soon finds motions that only the model can do.
What it wants beyond them, or unevenly over a block, costs a little: plans are made anew before a block ends, so what an actor
puts off to its end would never come.

Costs are discounted, distances are not: `n` blocks to go cost (1 - GAMMA**n) / (1 - GAMMA), and the critic's distribution is over
n, as the other critic's, so that both tell the same. Shape letters: B rollouts, H blocks, N distances, as in `model.py` else.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from foresight.training.anti_collapse import follow
from foresight.training.config import TrainConfig
from foresight.training.dataset import REACHED_M, PlayData, hindsight
from foresight.training.precision import autocast
from foresight.world_model.model import WorldModel

BATCH = 256  # rollouts an update
HORIZON = 5  # blocks imagined; the dynamics learned 3
GAMMA, LAMBDA = 0.95, 0.95  # a block's discount, and how far returns look before they ask the critic
FAR_M = 0.16  # [m] from the goal, from where on a block costs 1
FOLLOWS = 0.98  # momentum of the critic's copy
NOISE = 0.2  # of the actions' spread, on the blocks imagined, the same in all steps of a block
UNEVEN = 1.0  # weight of how wanted steps differ from the block's mean under the limits, squared, in the actions' spread
USUAL = 0.99  # share of the steps in the data that limits leave as they are
CHECKED = 2048  # held-out goals that the metric counts


class Errand(NamedTuple):
    """Where rollouts begin and where they should lead, SI units."""

    latent: Float[Tensor, "B D"]
    proprio: Float[Tensor, "B P"]
    goal: tuple[Tensor, Tensor, Tensor, Tensor]  # latent, tip, object as they are told, and which of them are given
    tip: Float[Tensor, "B 3"]  # [m] where the goal is
    object: Float[Tensor, "B 3"]
    k: Float[Tensor, "B"]  # how far away the actor is told the goal is [blocks], at random: it learns not to mind


def draw(
    model: WorldModel, data: PlayData, latents: Float[Tensor, "N D"], episodes: np.ndarray, batch: int, seed: list[int]
) -> Errand:
    """Rows and goals as the other heads learn them: most ahead in the row's episode, some of another."""
    rng = np.random.default_rng(seed)
    drawn = hindsight(data, episodes, batch, model.config.max_blocks, rng)
    put = lambda array: torch.as_tensor(array).to(model.device)  # noqa: E731
    goal, thing = latents[put(drawn.goal)], put(data.object[drawn.goal])
    told = torch.where(put(rng.random((batch, 1)) < 0.5), model.read(goal)[1], thing)
    tip, given = put(data.tip[drawn.goal]), put(drawn.given)
    k = put(rng.integers(1, model.config.max_blocks + 1, batch).astype(np.float32))
    start = latents[put(drawn.row)]
    return Errand(start, put(data.proprio[drawn.row]), (goal, tip, told, given), tip, thing, k)


def away(model: WorldModel, errand: Errand, latent: Float[Tensor, "B D"], proprio: Float[Tensor, "B P"]) -> Float[Tensor, "B"]:
    """[m] from the goal, as proprioception and readouts tell: of tip or object, whichever of those that matter is farther."""
    axes = 3 if model.contract.moves_gripper else 2
    image, point, thing = errand.goal[3].unbind(1)
    tip = (proprio[:, -6:-3] - errand.tip).norm(dim=1) * (image + point).clamp_max(1)
    moved = (model.read(latent)[1] - errand.object)[:, :axes].norm(dim=1) * (image + thing).clamp_max(1)
    return torch.maximum(tip, moved)


def cost_of(metres: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Of a block that begins so far from the goal: nothing within REACHED_M, 1 from FAR_M on, by the logarithm between."""
    return (metres.clamp(REACHED_M, FAR_M) / REACHED_M).log() / math.log(FAR_M / REACHED_M)


class Limits(NamedTuple):
    """What the tip does in a step of the data, at most."""

    step_m: float  # [m]
    change_m: float  # [m] by which a step differs from the one before

    @classmethod
    def of(cls, data: PlayData) -> Limits:
        rows = data.starts(data.training, 2)
        steps, after = data.action[rows, :3], data.action[rows + 1, :3]
        lengths = [np.linalg.norm(moves, axis=1) for moves in (steps, after - steps)]
        return cls(*(float(np.quantile(length, USUAL)) for length in lengths))

    def keep(self, block: Float[Tensor, "B A"], step: Float[Tensor, "B 3"], size: int) -> Float[Tensor, "B A"]:
        """The block as it would be made after `step` [m]; `size` numbers a step, of which the first three are the tip's."""
        made = []
        for wanted in block.unflatten(-1, (-1, size)).unbind(1):
            step = _shortened(step + _shortened(wanted[:, :3] - step, self.change_m), self.step_m)
            made += [step, wanted[:, 3:]]
        return torch.cat(made, -1)


def _shortened(vectors: Float[Tensor, "B 3"], length: float) -> Float[Tensor, "B 3"]:
    return vectors * (length / vectors.norm(dim=-1, keepdim=True).clamp_min(length))


class Dreamer(nn.Module):
    """The two heads, and the copy that follows the critic. `losses(step)` is one update's."""

    def __init__(self, model: WorldModel, data: PlayData, latents: Float[Tensor, "N D"], config: TrainConfig) -> None:
        super().__init__()
        self.actor, self.critic = model.dreamt
        self.slow = copy.deepcopy(self.critic)
        self._learned_from = model.dreaming(), data, latents, config  # a tuple: no part of what is learned here
        self.limits = Limits.of(data)

    def losses(self, step: int) -> dict[str, Float[Tensor, ""]]:
        """Of one draw of rollouts."""
        model, data, latents, config = self._learned_from
        contract = model.contract
        self.slow.requires_grad_(False)
        follow(self.slow, self.critic, FOLLOWS)
        errand = draw(model, data, latents, data.training, BATCH, [config.seed, 6, step])
        noise = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        scale = distances(model)
        features, costs, uneven = [], [], []
        z, proprio = errand.latent, errand.proprio
        with autocast(model.device):
            for _ in range(HORIZON):
                features.append(model.features(z, proprio, *errand.goal))
                costs.append(cost_of(away(model, errand, z, proprio)))
                block = model.act(features[-1], errand.k).float()
                astray = torch.randn(len(block), 1, contract.step_size, generator=noise).expand(-1, contract.block_steps, -1)
                wanted = block + NOISE * model.action_std * astray.flatten(1).to(block)
                block = self.limits.keep(wanted, proprio[:, -3:] * contract.step_s, contract.step_size)
                even = block.detach().unflatten(1, (-1, contract.step_size)).mean(1).repeat(1, contract.block_steps)
                uneven.append(((wanted - even) / model.action_std).square().mean())
                z, proprio = (part.float() for part in model.imagine(z, proprio, block))
            features.append(model.features(z, proprio, *errand.goal))
            seen = torch.stack(features)
            values = self.slow(seen).float().softmax(-1) @ scale  # H+1 B
            logits = self.critic(seen[:-1].detach()).float()
        returns = lambda_returns(torch.stack(costs), values[1:])
        targets = two_hot(returns.detach(), scale)
        critic = -(targets * logits.log_softmax(-1)).sum(-1).mean()
        return {"actor": returns.mean(), "uneven": UNEVEN * torch.stack(uneven).mean(), "critic": critic}


def distances(model: WorldModel) -> Float[Tensor, "N"]:
    """What each number of blocks to go costs."""
    blocks = torch.arange(model.config.max_blocks + 1, device=model.device)
    return (1 - GAMMA**blocks) / (1 - GAMMA)


def lambda_returns(costs: Float[Tensor, "H B"], values: Float[Tensor, "H B"]) -> Float[Tensor, "H B"]:
    """Of each block's state; `values` are of the states one block later."""
    returns, after = [], values[-1]
    for cost, value in zip(costs.flip(0), values.flip(0), strict=True):
        after = cost + GAMMA * ((1 - LAMBDA) * value + LAMBDA * after)
        returns.append(after)
    return torch.stack(returns).flip(0)


def two_hot(values: Float[Tensor, "*n"], scale: Float[Tensor, "N"]) -> Float[Tensor, "*n N"]:
    """Distributions over the scale's two numbers beside each value, of its mean; beyond the ends, all at the end."""
    values = values.clamp(float(scale[0]), float(scale[-1]))
    above = torch.searchsorted(scale, values.contiguous()).clamp(1, len(scale) - 1)
    share = (values - scale[above - 1]) / (scale[above] - scale[above - 1])
    two = torch.zeros(*values.shape, len(scale), device=values.device)
    two.scatter_(-1, above.unsqueeze(-1), share.unsqueeze(-1))
    return two.scatter_(-1, above.unsqueeze(-1) - 1, 1 - share.unsqueeze(-1))


@torch.no_grad()
def imagined_success(model: WorldModel, data: PlayData, latents: Float[Tensor, "N D"], seed: int) -> float:
    """Share of held-out errands not yet done that the model's actor, asked anew after each block, does in imagination.

    It is told how far its critic sees the goal, and has as many blocks as that can count.
    """
    errand, limits, contract = draw(model, data, latents, data.held_out, CHECKED, [seed, 7, 0]), Limits.of(data), model.contract
    z, proprio = errand.latent, errand.proprio
    begun = away(model, errand, z, proprio) < REACHED_M
    done = begun
    for _ in range(model.config.max_blocks):
        features = model.features(z, proprio, *errand.goal)
        block = model.act(features, model.judge(features).round().clamp_min(1))
        block = limits.keep(block, proprio[:, -3:] * contract.step_s, contract.step_size)
        z, proprio = model.imagine(z, proprio, block)
        done = done | (away(model, errand, z, proprio) < REACHED_M)
    return float((done & ~begun).sum() / (~begun).sum().clamp_min(1))
