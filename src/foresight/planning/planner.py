"""The planner: the actor proposes, the world model foresees, the critic judges, sampling refines.

It knows a model only through `Dynamics`, `Actor` and `Critic`. Time comes in as a clock, chance as a generator: the same
belief, goal, start and generator state give the same plan on a CPU, as long as the deadline does not bind.

Shape letters: S candidate motions, H blocks, K steps in a block, N = H K steps, D latent, P proprioception.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from foresight.contract import Contract
from foresight.data import Belief, Goal, Plan, Start
from foresight.interfaces import Actor, Critic, Dynamics
from foresight.planning.config import PlannerConfig
from foresight.planning.limits import TipLimits
from foresight.planning.objective import score
from foresight.robots.profile import RobotProfile


class Model(Dynamics, Actor, Critic, Protocol):
    """What the planner needs of a model."""

    contract: Contract
    model_id: str


@dataclass(frozen=True)
class Imagined:
    """Candidate motions and what would come of them."""

    velocities: Float[Tensor, "S N 3"]  # [m/s] at the knots, after the limits
    latents: Float[Tensor, "S H D"]
    terms: dict[str, Float[Tensor, "S"]]

    @property
    def cost(self) -> Float[Tensor, "S"]:
        return torch.stack(list(self.terms.values())).sum(0)

    def best(self) -> int:
        return int(self.cost.argmin())


class Planner:
    """Plans the tip's motion for one robot and one model."""

    def __init__(self, model: Model, profile: RobotProfile, config: PlannerConfig = PlannerConfig()) -> None:
        if model.contract.robot != profile.name:
            raise ValueError(
                f"The model was trained on robot '{model.contract.robot}', the profile is '{profile.name}'. "
                "Choose the matching checkpoint or robot."
            )
        self.model, self.config, self.contract = model, config, model.contract
        self.steps = config.horizon * self.contract.block_steps
        as_tensor = lambda x: torch.as_tensor(x, dtype=torch.float32)  # noqa: E731
        self.limits = TipLimits(
            min(config.speed_max, profile.tip_speed_max),
            min(config.acceleration_max, profile.tip_acceleration_max),
            as_tensor(profile.workspace_min) + config.wall_margin,
            as_tensor(profile.workspace_max) - config.wall_margin,
        )

    @torch.no_grad()
    def plan(
        self,
        belief: Belief,
        goal: Goal,
        start: Start,
        generator: torch.Generator,
        clock: Callable[[], float],
        previous: Plan | None = None,
    ) -> Plan:
        """The best motion found from the belief towards the goal within the deadline.

        `previous` (the last plan for the same goal) is shifted by the time passed since and tried again. Raises ValueError for
        a belief of another model or with values that are not finite.
        """
        began = clock()
        self._check(belief)
        latent, proprio = torch.from_numpy(belief.latent)[None], torch.from_numpy(belief.proprio)[None]
        distance = float(self.model.blocks_to_go(latent, proprio, goal))
        imagine = lambda count, source: self._imagine(latent, proprio, goal, start, count, source)  # noqa: E731
        if self.config.policy == "both":
            best, source, tried = self._propose_and_refine(imagine, belief, previous, generator, clock, began)
        elif self.config.policy == "actor":
            aim = torch.full((1,), float(np.clip(round(distance), 1, max(self.config.aims))))
            best, source, tried = imagine(1, self._actor_motion(aim, torch.zeros(1, self.steps, 3))), "actor", 1
        elif self.config.policy == "search":
            best, source, tried = self._search(imagine, generator, clock, began)
        else:
            wander = torch.randn(1, self.config.horizon, 1, 3, generator=generator).expand(-1, -1, self.contract.block_steps, -1)
            best, source, tried = (
                imagine(1, fixed(self.config.search_noise * wander.reshape(1, self.steps, 3), self.contract)),
                "random",
                1,
            )
        i = best.best()
        return Plan(
            stamp_s=belief.stamp_s,
            model_id=belief.model_id,
            dt_s=self.contract.step_s,
            tip_velocity=best.velocities[i].double().numpy(),
            cost=float(best.cost[i]),
            terms={name: float(value[i]) for name, value in best.terms.items()},
            distance=distance * self.contract.block_s,
            imagined=best.latents[i].numpy(),
            candidates=tried,
            planning_s=clock() - began,
            source=source[i] if isinstance(source, list) else source,
        )

    def _check(self, belief: Belief) -> None:
        if belief.model_id != self.model.model_id:
            raise ValueError(
                f"The belief comes from model '{belief.model_id}', the planner holds '{self.model.model_id}'. "
                "Give both nodes the same checkpoint."
            )
        if not (np.isfinite(belief.latent).all() and np.isfinite(belief.proprio).all()):
            raise ValueError("The belief holds values that are not finite; no plan can be made from it.")

    # -- ways to search -----------------------------------------------------------------------------------------

    def _propose_and_refine(self, imagine, belief, previous, generator, clock, began) -> tuple[Imagined, list[str] | str, int]:
        """The actor's proposals, the last plan and standing still, judged together; then sampling around the best."""
        config = self.config
        aims = torch.tensor(config.aims, dtype=torch.float32).repeat(1 + config.noisy_per_aim)
        noise = torch.randn(len(aims), config.horizon, 1, 3, generator=generator).expand(-1, -1, self.contract.block_steps, -1)
        noise = (config.proposal_noise * noise).reshape(len(aims), self.steps, 3)
        noise[: len(config.aims)] = 0.0
        kept = [torch.zeros(1, self.steps, 3)] + ([] if previous is None else [self._shifted(previous, belief.stamp_s)])
        names = ["actor"] * len(aims) + ["stay", "last"][: len(kept)]
        actor = self._actor_motion(aims, noise)
        proposals = imagine(
            len(names), lambda h, z, p, goal, v: torch.cat([actor(h, z, p, goal, v), torch.cat(kept)[:, block(h, self.contract)]])
        )
        best, source, tried, lasted = proposals, names, len(names), clock() - began
        spread = config.refine_noise
        for _ in range(config.iterations):
            round_began = clock()
            if round_began - began + lasted > config.deadline_s:
                break
            centre = best.velocities[best.cost.topk(min(config.elites, len(best.cost)), largest=False).indices]
            samples = centre[torch.arange(config.samples) % len(centre)] + spread * self._smooth_noise(config.samples, generator)
            refined = imagine(config.samples, fixed(samples, self.contract))
            tried, spread = tried + config.samples, spread / 2
            if float(refined.cost.min()) < float(best.cost.min()) - config.improvement:
                best, source = refined, "search"
            lasted = clock() - round_began
        return best, source, tried

    def _search(self, imagine, generator, clock, began) -> tuple[Imagined, str, int]:
        """The cross-entropy method from nothing: no actor, the critic's cost."""
        config = self.config
        mean, spread = torch.zeros(self.steps, 3), torch.full((self.steps, 3), config.search_noise)
        best: Imagined | None = None
        for _ in range(config.search_iterations):
            samples = mean + spread * self._smooth_noise(config.search_samples, generator)
            samples[0] = mean
            found = imagine(config.search_samples, fixed(samples, self.contract))
            elites = found.velocities[found.cost.topk(config.elites, largest=False).indices]
            mean, spread = elites.mean(0), elites.std(0).clamp_min(0.02)
            if best is None or float(found.cost.min()) < float(best.cost.min()):
                best = found
        return best, "search", config.search_samples * config.search_iterations

    def _smooth_noise(self, count: int, generator: torch.Generator) -> Float[Tensor, "S N 3"]:
        """Unit noise that is constant over a block for the most part: motion, not tremor."""
        per_block = torch.randn(count, self.config.horizon, 1, 3, generator=generator)
        per_step = torch.randn(count, self.config.horizon, self.contract.block_steps, 3, generator=generator)
        return (0.9 * per_block + 0.44 * per_step).reshape(count, self.steps, 3)

    def _shifted(self, previous: Plan, stamp_s: float) -> Float[Tensor, "1 N 3"]:
        """The last plan as it goes on from now, at rest after its end."""
        passed = int(np.clip(round((stamp_s - previous.stamp_s) / self.contract.step_s), 0, self.steps))
        rest = np.concatenate([previous.tip_velocity[passed:], np.zeros((passed, 3))])[: self.steps]
        return torch.as_tensor(rest, dtype=torch.float32)[None]

    def _actor_motion(self, aims: Float[Tensor, "S"], noise: Float[Tensor, "S N 3"]):
        """A motion source that asks the actor anew in every imagined state, each candidate with its own aim."""

        def motion(h: int, latent: Tensor, proprio: Tensor, goal: Goal, velocity: Tensor) -> Tensor:
            n = len(aims)
            proposal = self.model.propose(latent[:n], proprio[:n], goal, (aims - h).clamp_min(1))
            return proposal.unflatten(-1, (-1, 3)) / self.contract.step_s + noise[:, block(h, self.contract)]

        return motion

    # -- imagination ----------------------------------------------------------------------------------------------

    def _imagine(self, latent, proprio, goal: Goal, start: Start, count: int, source) -> Imagined:
        """Rolls `count` motions forward: `source` says block by block what is wanted, the limits what is possible."""
        dt_s, per_block = self.contract.step_s, self.contract.block_steps
        z, p = latent.expand(count, -1), proprio.expand(count, -1)
        start_velocity = torch.as_tensor(start.velocity, dtype=torch.float32)
        committed = torch.as_tensor(start.committed, dtype=torch.float32)
        position, velocity = p[:, -6:-3], start_velocity.expand(count, -1)
        velocities, latents, to_go = [], [], []
        for h in range(self.config.horizon):
            wanted = source(h, z, p, goal, velocity)
            displacements = []
            for s in range(per_block):
                n, before = h * per_block + s, position
                if n < len(committed):
                    new = committed[n].expand(count, -1)
                    position = position + dt_s * (velocity + new) / 2
                    velocity = new
                else:
                    velocity, position = self.limits.step(position, velocity, wanted[:, s], dt_s)
                velocities.append(velocity)
                displacements.append(position - before)
            z, p = self.model.imagine(z, p, torch.cat(displacements, -1))
            latents.append(z)
            to_go.append(self.model.blocks_to_go(z, p, goal))
        velocities = torch.stack(velocities, 1)
        terms = score(torch.stack(to_go, 1), velocities, start_velocity, dt_s, self.config)
        return Imagined(velocities, torch.stack(latents, 1), terms)


def block(h: int, contract: Contract) -> slice:
    """The steps of block `h`."""
    return slice(h * contract.block_steps, (h + 1) * contract.block_steps)


def fixed(velocities: Float[Tensor, "S N 3"], contract: Contract):
    """A motion source that wants the same whatever is imagined."""
    return lambda h, latent, proprio, goal, velocity: velocities[:, block(h, contract)]
