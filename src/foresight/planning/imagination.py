"""Imagines candidate motions of the tip under the limits, and scores them. Knows a model only through its interfaces.

Shape letters: S candidate motions, H blocks, K steps in a block, N = H K steps, D latent, P proprioception, U numbers of a
step: the tip's velocity, and the gripper's command where the model moves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.contract import Contract
from foresight.data import Goal, Start
from foresight.interfaces import Actor, Critic, Dynamics, Readout
from foresight.planning.config import PlannerConfig
from foresight.planning.constraints import Constraints
from foresight.planning.limits import TipLimits
from foresight.planning.objective import Objective
from foresight.planning.residuals import Foreseen, Scales
from foresight.planning.search.state import comparable

BARRIER, BARRIER_PER_M = 1e3, 1e4  # blocks, far beyond any cost: candidates that enter a keep-out rank last
NOISE_M = 1e-4  # [m] deeper than at the start that counts as no deeper


@runtime_checkable  # for the shape checks of the tests
class Model(Dynamics, Actor, Critic, Readout, Protocol):
    """What the planner needs of a model."""

    contract: Contract
    model_id: str


# Block number, latents, proprioception, goal and velocities now, to what is wanted in each step of the block, (S, K, U): tip
# velocity [m/s] and, where the model moves it, the gripper's command: closed from 0.5 on.
Source = Callable[[int, Tensor, Tensor, Goal, Tensor], Tensor]


@dataclass(frozen=True)
class Imagined:
    """Candidate motions and what would come of them."""

    controls: Float[Tensor, "S N U"]  # tip velocities [m/s] at the knots, after the limits, and the gripper's command, 0 or 1
    latents: Float[Tensor, "S H D"]
    terms: dict[str, Float[Tensor, "S"]]
    entered: Float[Tensor, "S"] | None = None  # [m] that the tip goes deeper into where it may not be than it was at the start

    @property
    def cost(self) -> Float[Tensor, "S"]:
        """By which candidates are ranked: those that go where they may not come after all others, the shallower the better."""
        cost = torch.stack(list(self.terms.values())).sum(0)
        return cost if self.entered is None else cost + (self.entered > 0) * (BARRIER + BARRIER_PER_M * self.entered)

    def best(self) -> int:
        return int(comparable(self.cost).argmin())

    def detach(self) -> Imagined:
        terms = {name: term.detach() for name, term in self.terms.items()}
        entered = None if self.entered is None else self.entered.detach()
        return Imagined(self.controls.detach(), self.latents.detach(), terms, entered)


Watch = Callable[[Objective, Foreseen, Imagined], None]


@dataclass(frozen=True)
class Imagination:
    """One belief, goal and start, from which motions are imagined."""

    model: Model
    limits: TipLimits
    config: PlannerConfig
    latent: Float[Tensor, "1 D"]
    proprio: Float[Tensor, "1 P"]
    goal: Goal
    start: Start
    objective: Objective
    constraints: Constraints | None = None
    watch: Watch | None = None  # is shown all that is imagined, for people
    foresees: bool = True  # otherwise latents and proprioception stay as they are seen

    def fixed(self, controls: Float[Tensor, "S N U"]) -> Imagined:
        """What would come of motions that want the same whatever is imagined."""
        steps = self.model.contract.block_steps
        return self.imagine(len(controls), lambda h, z, p, goal, v: controls[:, h * steps : (h + 1) * steps])

    def imagine(self, count: int, source: Source) -> Imagined:
        """Rolls `count` motions forward: `source` says block by block what is wanted, the limits what is possible."""
        dt_s, per_block = self.model.contract.step_s, self.model.contract.block_steps
        z, p = self.latent.expand(count, -1), self.proprio.expand(count, -1)
        start_velocity = torch.as_tensor(self.start.velocity, dtype=torch.float32)
        committed = torch.as_tensor(self.start.committed, dtype=torch.float32)
        position, velocity = p[:, -6:-3], start_velocity.expand(count, -1)
        positions, velocities, gripping, latents, proprios = [], [], [], [], []
        as_it_is = torch.full((count, 1), self.start.closed)
        for h in range(self.config.horizon):
            wanted = source(h, z, p, self.goal, velocity)
            actions = []
            for s in range(per_block):
                n, before = h * per_block + s, position
                if n < len(committed):
                    new = committed[n].expand(count, -1)
                    position = position + dt_s * (velocity + new) / 2
                    velocity = new
                else:
                    velocity, position = self.limits.step(position, velocity, wanted[:, s, :3], dt_s)
                positions.append(position)
                velocities.append(velocity)
                actions.append(position - before)
                if self.model.contract.moves_gripper:
                    gripping.append(as_it_is if n < len(committed) else (wanted[:, s, 3:] >= 0.5).float())
                    actions.append(gripping[-1])
            if self.foresees:
                z, p = self.model.imagine(z, p, torch.cat(actions, -1))
            latents.append(z)
            proprios.append(p)
        ahead, joints = torch.stack(latents, 1), torch.stack(proprios, 1)
        to_go = self.model.blocks_to_go(ahead.flatten(0, 1), joints.flatten(0, 1), self.goal)
        foreseen = Foreseen(
            to_go.unflatten(0, ahead.shape[:2]),
            ahead,
            joints,
            torch.stack(positions, 1),
            torch.stack(velocities, 1),
            start_velocity,
            self.goal,
            self.model,
            Scales(dt_s, per_block, self.config.speed_max, self.config.acceleration_max),
            () if self.constraints is None else self.constraints.keep_outs,
        )
        terms, entered = self.objective.score(foreseen), self._entered(foreseen)
        controls = torch.cat([foreseen.velocities, torch.stack(gripping, 1)], -1) if gripping else foreseen.velocities
        imagined = Imagined(controls, foreseen.latents, terms, entered)
        if self.watch is not None:
            self.watch(self.objective, foreseen, imagined)
        return imagined

    def _entered(self, foreseen: Foreseen) -> Float[Tensor, "S"] | None:
        if self.constraints is None or not self.constraints.keep_outs:
            return None
        blocked = self.constraints.candidates
        deeper = blocked.depth(foreseen.positions).amax(1) - blocked.depth(self.proprio[:, -6:-3])
        return (deeper - NOISE_M).clamp_min(0)
