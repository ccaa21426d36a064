"""Observation to belief: encode, remember, and compare what is seen with what was foreseen a block earlier."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch

from foresight.data import Belief, Observation
from foresight.world_model.model import WorldModel, proprio_of

STAMP_TOLERANCE_S = 0.05  # how far from a whole block the compared belief may lie


class BeliefFilter:
    """Keeps the short-term memory of one robot: the beliefs of the last two blocks and the tip between them."""

    def __init__(self, model: WorldModel) -> None:
        self.model = model
        self._memory: deque[Belief] = deque()

    def reset(self) -> None:
        """Forget: the next belief has no surprise."""
        self._memory.clear()

    def update(self, observation: Observation) -> Belief:
        """The belief of a new observation. An observation older than the last one clears the memory."""
        if self._memory and observation.stamp_s <= self._memory[-1].stamp_s:
            self.reset()
        latent = self.model.encode_images(observation.images, observation.seen)
        proprio = proprio_of(observation, self.model.contract)
        belief = Belief(observation.stamp_s, self.model.model_id, latent, proprio, float("nan"))
        belief = Belief(belief.stamp_s, belief.model_id, latent, proprio, self._surprise(belief))
        self._memory.append(belief)
        while self._memory[0].stamp_s < observation.stamp_s - 2 * self.model.contract.block_s:
            self._memory.popleft()
        return belief

    @torch.no_grad()
    def _surprise(self, seen: Belief) -> float:
        """Squared error of the one-block imagination over its held-out mean; NaN without a belief one block ago or dynamics."""
        block_s, steps = self.model.contract.block_s, self.model.contract.block_steps
        if not (self._memory and self.model.foresees):
            return float("nan")
        earlier = min(self._memory, key=lambda b: abs(seen.stamp_s - b.stamp_s - block_s))
        if abs(seen.stamp_s - earlier.stamp_s - block_s) > STAMP_TOLERANCE_S:
            return float("nan")
        path = [b for b in self._memory if b.stamp_s >= earlier.stamp_s] + [seen]
        stamps = np.linspace(earlier.stamp_s, seen.stamp_s, steps + 1)
        tips = np.stack([np.interp(stamps, [b.stamp_s for b in path], [float(b.tip[i]) for b in path]) for i in range(3)], axis=1)
        block = np.diff(tips, axis=0)
        if self.model.contract.moves_gripper:  # commands are not remembered: what was open was told to be
            opening = np.interp(stamps[1:], [b.stamp_s for b in path], [float(b.proprio[-7]) for b in path])
            block = np.column_stack([block, opening < 0.5])
        as_batch = lambda x: torch.as_tensor(x, dtype=torch.float32, device=self.model.device)[None]  # noqa: E731
        foreseen, _ = self.model.imagine(
            as_batch(earlier.latent), as_batch(earlier.proprio), as_batch(block.ravel())
        )
        error = (foreseen[0] - as_batch(seen.latent)[0]).square().mean()
        return float(error / self.model.surprise_scale)
