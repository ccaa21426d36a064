"""One plan with a latent transformer of random weights, as the benchmark times it: encode, context, search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foresight.evaluation.peer import Took
from foresight.planning.search.anytime import Budget, run
from foresight.planning.search.cem import Cem
from foresight.planning.search.draws import white
from foresight.planning.search.state import Scored, State
from foresight.planning.shooting import Shooting
from foresight.world_model.eight_bits import in_eight_bits
from foresight.world_model.graphs import Graphed
from foresight.world_model.rollout import Beginning, Context, FastRollout
from foresight.world_model.transformer import BlockActor, LatentTransformer, TransformerConfig

AIMS = (1, 2, 3, 4, 5, 6, 8, 10)  # how many blocks away the actor is told the goal is, one proposal each
EXAMPLE_BLOCKS = 5  # ahead, in the rollouts that tell eight bits their range
HEED = 0.2  # standard deviation of the weights by which actions modulate the predictor
SPREAD_AROUND_PROPOSAL = 0.3  # of the candidates, where 1 is that without an actor


@dataclass(frozen=True)
class Search:
    """How much is searched."""

    samples: int
    iterations: int
    horizon: int = 5  # blocks
    actor: bool = False  # whether an actor's proposals seed the search

    @property
    def elites(self) -> int:
        return min(30, self.samples // 4)


@dataclass(frozen=True)
class LatentDistance:
    """The squared distance of the last latent to the goal's, as the peer's cost has it."""

    goal: Float[Tensor, "1 D"]

    def score(self, latents: Float[Tensor, "S H D"], controls: Float[Tensor, "S H A"]) -> Float[Tensor, "S"]:
        return (latents[:, -1] - self.goal).square().sum(-1)


class LatentPlanning:
    """Networks of random weights and two images, from which plans are made.

    `dtype` is float32, bfloat16, or int8 for `eight_bits.py`; `device` is where all of it runs, on a GPU as recorded graphs.
    """

    def __init__(
        self,
        sizes: TransformerConfig,
        dtype: torch.dtype,
        executor: Executor,
        shards: int,
        device: str = "cpu",
        rollouts: type[FastRollout] = FastRollout,
        compile: Callable[[Callable], Callable] | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.model, self.actor = LatentTransformer(sizes).eval(), BlockActor(sizes).eval()
        for layer in self.model.layers:  # which heed no action before they are trained: one plan would be as good as another
            nn.init.normal_(layer.modulate.weight, std=HEED)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        images, blocks = torch.randn(2, 3, sizes.image, sizes.image), torch.randn(256, EXAMPLE_BLOCKS, sizes.block)
        self.device, capture = torch.device(device), None if device == "cpu" else Graphed
        self.model.to(device)
        if dtype == torch.int8:  # the rollout; the rest is done in bfloat16
            with torch.no_grad():
                self.fast = in_eight_bits(self.model, self.model.encode(images)[:, None], blocks, executor, shards)
            dtype = torch.bfloat16
        else:
            self.fast = rollouts(self.model, dtype, executor=executor, shards=shards, compile=compile, capture=capture)
        self.encoder, self.images = self.model.to(dtype), images.to(device, dtype)
        self.actor.to(device, dtype)
        self.sizes, self.dtype, self.executor, self.shards = sizes, dtype, executor, shards
        self.encode = self._encode if capture is None else capture(self._encode)
        self.follow = self._follow if capture is None else capture(self._follow)

    def plan(self, search: Search) -> Took:
        """The time of one plan."""
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        self.found(search)
        return Took(time.perf_counter() - began_s, time.process_time() - began_cpu_s)

    def found(self, search: Search, seed: int = 0) -> Float[Tensor, "H A"]:
        """One plan, on the CPU. The same seed gives the same draws on one device."""
        with torch.inference_mode():
            return self._plan(search, torch.Generator(self.device).manual_seed(seed)).cpu()

    def costs(self, plans: Float[Tensor, "S H A"]) -> Float[Tensor, "S"]:
        """What these plans cost as this one foresees them, on the CPU."""
        with torch.inference_mode():
            return self._shooting()(plans.to(self.device)).cost.cpu()

    def _shooting(self) -> Shooting:
        images = self.images.split(1) if self.device.type == "cpu" else [self.images]
        now, goal = torch.cat(self._in_parts(self.encode, images)).split(1)
        return Shooting(self.fast.begin(now, self.images.new_zeros(0, self.sizes.block)), LatentDistance(goal))

    def _plan(self, search: Search, generator: torch.Generator) -> Float[Tensor, "H A"]:
        evaluate = self._shooting()
        still = torch.zeros(search.horizon, self.sizes.block, device=self.device)
        start, known = State(still, torch.ones_like(still)), None
        if search.actor:
            known = self._proposals(evaluate.dynamics, evaluate.objective, still)
            start = State(still, torch.full_like(still, SPREAD_AROUND_PROPOSAL))  # about the best of the known
        draws, budget = white(*still.shape, generator), Budget(search.iterations, time.perf_counter, 0.0)
        found = run(Cem(search.samples, search.elites), evaluate, draws, start, budget, known)
        return found.best.controls[found.best.cost.argmin()]

    def _in_parts(self, function: Callable, parts: Sequence[Tensor]) -> list:
        """What the function makes of each part, each in a thread of its own where there are several."""
        return [function(parts[0])] if len(parts) == 1 else list(self.executor.map(function, parts))

    def _encode(self, images: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        with torch.inference_mode():
            return self.encoder.encode(images).float()

    def _proposals(self, beginning: Beginning, objective: LatentDistance, still: Float[Tensor, "H A"]) -> Scored:
        aims = torch.tensor(AIMS, dtype=self.dtype, device=self.device)
        blocks, latents = self.follow(beginning.context, objective.goal, aims, still)  # so few that sharing them costs more
        return Scored(blocks, objective.score(latents, blocks))

    def _follow(self, context: Context, goal: Float[Tensor, "1 D"], aims: Float[Tensor, "S"], still: Float[Tensor, "H A"]):
        """Blocks by the actor in as many steps as `still` has, each aim its own way, and the latents after them."""
        goals = goal.to(self.dtype).expand(len(aims), -1)
        ask = lambda h, latents: self.actor(latents.to(self.dtype), goals, (aims - h).clamp_min(1)).float()  # noqa: E731
        with torch.inference_mode():
            return self.fast.follow(context, len(aims), len(still), ask)

    def rollout_s(self, samples: int, horizon: int, history: int, robots: int) -> float:
        """Wall time of one rollout [s], the context of `history` frames included, of `samples` candidates of each robot."""
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(*shape, generator=generator).to(self.device)  # noqa: E731
        latents, executed = draw(robots, history, self.sizes.latent), draw(robots, history - 1, self.sizes.block)
        blocks = draw(robots * samples, horizon, self.sizes.block)
        began_s = time.perf_counter()
        with torch.inference_mode():
            self.fast.rollout(self.fast.context(latents, executed), blocks).cpu()
        return time.perf_counter() - began_s
