"""What a motion can be blamed for: each residual is 0 where nothing is wanted, in SI units, with the scale that counts as 1.

A term of the objective (`objective.py`) is the norm of a residual over its scale. Positions are scaled by the way that the tip
goes in a block, so that such a term is in blocks, as the critic's is. Knows no weights and no search.

Shape letters: S candidate motions, H blocks, K steps in a block, N = H K steps, D latent, T looks at a motion (H or N).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.data import Box, Goal
from foresight.interfaces import Ensemble, Readout, Readouts

YAW_RAD, OPENING_SHARE = 0.35, 0.5  # [rad] of turning, and share of the gripper's way, that count as 1
QUARTER = torch.pi / 2  # [rad] turn that brings a cube onto itself
BESIDES = {  # parts of a goal beside places, and what reads them
    "yaw": "a readout of the object's orientation (trained with --model.yaw)",
    "opening": "the gripper's opening (trained on data of `foresight collect --task mixed`)",
    "contact": "a readout of contact (trained with --model.contact)",
}
TOWARDS = ("to_go", "time", "latent", "tip", "object", *BESIDES)  # the residuals that are about the goal
KEPT_M = 0.10  # [m] from a keep-out within which the tip is blamed for its nearness
READ_M = 0.01  # [m] to which readouts say where the object is: what they gain below that is mostly noise


@dataclass(frozen=True)
class Scales:
    """What counts as much of a motion."""

    step_s: float  # [s]
    block_steps: int
    speed: float  # [m/s] of the tip
    acceleration: float  # [m/s^2]

    @property
    def block_m(self) -> float:
        """[m] that the tip goes in a block at full speed."""
        return self.speed * self.step_s * self.block_steps


@dataclass(frozen=True)
class Foreseen:
    """What would come of candidate motions: all that a residual may look at."""

    to_go: Float[Tensor, "S H"]  # blocks that the critic sees from the end of each block
    latents: Float[Tensor, "S H D"]
    proprios: Float[Tensor, "S H P"]  # SI units
    positions: Float[Tensor, "S N 3"]  # [m] of the tip at the knots
    velocities: Float[Tensor, "S N 3"]  # [m/s]
    start_velocity: Float[Tensor, "3"]  # [m/s]
    goal: Goal
    model: Readout
    scales: Scales
    keep_outs: Sequence[Box] = ()


class Residual(NamedTuple):
    """Values at each look, and how much of them counts as 1."""

    values: Float[Tensor, "S T n"]
    scale: float


def to_go(foreseen: Foreseen) -> Residual:
    """Blocks still to go, as the critic sees it."""
    return Residual(foreseen.to_go[..., None], 1.0)


def time(foreseen: Foreseen) -> Residual:
    """1 in each block at whose end the goal is a block away or more, falling to 0 at the goal."""
    return Residual(foreseen.to_go.clamp(0, 1)[..., None], 1.0)


def risk(foreseen: Foreseen) -> Residual:
    """Blocks by which the critics differ (standard deviation): how little the model knows of where the motion leads."""
    shape = foreseen.latents.shape[:2]
    spread = foreseen.model.spread(foreseen.latents.flatten(0, 1), foreseen.proprios.flatten(0, 1), foreseen.goal)
    return Residual(spread.unflatten(0, shape)[..., None], 1.0)


def latent(foreseen: Foreseen) -> Residual:
    """From the imagined to the goal's latent, in standard deviations: training keeps each number of a latent near one."""
    goal = _wanted(foreseen.goal.latent, "latent")
    return Residual(foreseen.latents - goal.to(foreseen.latents), float(goal.shape[-1]) ** 0.5)


def tip(foreseen: Foreseen) -> Residual:
    """[m] from the tip to where it is wanted, or to where the goal images show it."""
    ends = foreseen.positions[:, foreseen.scales.block_steps - 1 :: foreseen.scales.block_steps]
    return Residual(ends - _wanted(place(foreseen.goal, foreseen.model, "tip"), "tip").to(ends), foreseen.scales.block_m)


def thing(foreseen: Foreseen) -> Residual:
    """[m] from the object, as the imagined latents show it, to within READ_M of where it is wanted, told or shown."""
    seen = foreseen.model.read(foreseen.latents)[1]
    off = seen - _wanted(place(foreseen.goal, foreseen.model, "object"), "object").to(seen)
    beyond = (1 - READ_M / off.norm(dim=-1, keepdim=True).clamp_min(READ_M)).clamp_min(0)
    return Residual(off * beyond, foreseen.scales.block_m)


def effort(foreseen: Foreseen) -> Residual:
    """Tip velocity [m/s]; full speed counts as 1."""
    return Residual(foreseen.velocities, foreseen.scales.speed)


def smooth(foreseen: Foreseen) -> Residual:
    """Change of the tip velocity [m/s] in a step; that of full acceleration counts as 1."""
    velocities = foreseen.velocities
    before = foreseen.start_velocity.expand(len(velocities), 1, 3)
    return Residual(torch.diff(torch.cat([before, velocities], 1), dim=1), foreseen.scales.acceleration * foreseen.scales.step_s)


def keep_out(foreseen: Foreseen) -> Residual:
    """[m] by which the tip is nearer than KEPT_M to a keep-out, box by box; nothing where there are none."""
    positions = foreseen.positions
    if not foreseen.keep_outs:
        return Residual(torch.zeros_like(positions[..., :1]), KEPT_M)
    near = [(KEPT_M - distance(positions, box)).clamp_min(0) for box in foreseen.keep_outs]
    return Residual(torch.stack(near, -1), KEPT_M)


def yaw(foreseen: Foreseen) -> Residual:
    """[rad] by which the object is turned from how it is wanted, as imagined latents show it; a quarter turn is none."""
    seen = foreseen.model.read_yaw(foreseen.latents)
    return Residual(turned(seen, _wanted(foreseen.goal.yaw, "yaw"))[..., None], YAW_RAD)


def opening(foreseen: Foreseen) -> Residual:
    """From the gripper's imagined opening to the one wanted."""
    seen = foreseen.model.read_opening(foreseen.proprios)
    return Residual((seen - _wanted(foreseen.goal.opening, "opening").to(seen))[..., None], OPENING_SHARE)


def contact(foreseen: Foreseen) -> Residual:
    """Probability that the hand touches the object where it should not, or does not where it should."""
    seen = foreseen.model.read_contact(foreseen.latents)
    return Residual((seen - _wanted(foreseen.goal.contact, "contact").to(seen))[..., None], 1.0)


def turned(yaw: Float[Tensor, "*n"], wanted: Float[Tensor, "*#n"]) -> Float[Tensor, "*n"]:
    """From one orientation to another [rad], up to quarter turns: +-pi/4."""
    return (yaw - wanted.to(yaw) + QUARTER / 2).remainder(QUARTER) - QUARTER / 2


def distance(points: Float[Tensor, "*n 3"], box: Box) -> Float[Tensor, "*n"]:
    """As `Box.distance`: how far outside each point lies [m]; below 0 inside."""
    low, high = (torch.as_tensor(corner).to(points) for corner in (box.low, box.high))
    beyond = torch.maximum(low - points, points - high)
    return beyond.clamp_min(0).norm(dim=-1) + beyond.amax(-1).clamp_max(0)


def place(goal: Goal, model: Readout, name: str) -> Float[Tensor, "3"] | None:
    """[m] Where tip or object are wanted: as told, else as the goal images show them; None where neither says so."""
    if (told := _part(goal, name)) is not None:
        return torch.as_tensor(told)
    if (shown := _part(goal, "latent")) is None:
        return None
    return model.read(torch.as_tensor(shown)[None])[("tip", "object").index(name)][0]


def lacking(name: str, goal: Goal) -> str:
    """What the residual of that name needs and the goal has not; empty when it has all."""
    needs = {"latent": ("latent",), "tip": ("tip", "latent"), "object": ("object", "latent")}
    needs = (needs | {part: (part,) for part in BESIDES}).get(name, ())
    return "" if not needs or any(_part(goal, part) is not None for part in needs) else " or ".join(needs)


def unknown(name: str, model: object) -> str:
    """What the residual of that name needs and the model has not; empty when it has all."""
    if name in BESIDES and not (isinstance(model, Readouts) and name in model.reads):
        return BESIDES[name]
    differ = isinstance(model, Ensemble) and model.critics > 1
    return "several critics (trained with --model.critics 3)" if name == "risk" and not differ else ""


def _wanted(part, name: str) -> Tensor:
    if part is None:
        raise ValueError(f"Term '{name}' needs a goal that has one; this goal has none. Leave the term out.")
    return torch.as_tensor(part, dtype=torch.float32)


def _part(goal: Goal, name: str):
    """That part of the goal; None where it has none, or one that weighs nothing."""
    weights = dict(zip(("latent", "tip", "object"), goal.weights, strict=True))
    return getattr(goal, name) if weights.get(name, 1.0) > 0 else None


class Kind(NamedTuple):
    """A residual by name, with the norm that it has unless told otherwise."""

    residual: Callable[[Foreseen], Residual]
    norm: str


KINDS = {
    "to_go": Kind(to_go, "sum"), "time": Kind(time, "sum"), "latent": Kind(latent, "l2"), "tip": Kind(tip, "l2"),
    "object": Kind(thing, "l2"), "effort": Kind(effort, "l2"), "smooth": Kind(smooth, "l2"), "keep_out": Kind(keep_out, "sum"),
    "risk": Kind(risk, "sum"), "yaw": Kind(yaw, "l1"), "opening": Kind(opening, "l1"), "contact": Kind(contact, "l1"),
}  # fmt: skip
