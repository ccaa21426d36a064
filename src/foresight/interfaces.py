"""What the parts see of each other: one or two methods each, owned by the part that calls them.

The planner imports this and never the world model. Shape letters as in `data.py`, plus A = 3 K, the numbers of one
action block: K tip displacements [m] in the base frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:  # the core's light parts must not load torch
    from torch import Tensor

    from foresight.data import Goal


@runtime_checkable  # for the shape checks of the tests
class Dynamics(Protocol):
    """Foresees the consequences of actions, in latents."""

    def imagine(
        self, latent: Float["Tensor", "S D"], proprio: Float["Tensor", "S P"], block: Float["Tensor", "S A"]
    ) -> tuple[Float["Tensor", "S D"], Float["Tensor", "S P"]]:
        """The latent and proprioception one block later."""
        ...


@runtime_checkable  # for the shape checks of the tests
class Actor(Protocol):
    """Proposes the next block towards a goal that is `k` blocks away."""

    def propose(
        self, latent: Float["Tensor", "S D"], proprio: Float["Tensor", "S P"], goal: "Goal", k: Float["Tensor", "S"]
    ) -> Float["Tensor", "S A"]: ...


@runtime_checkable  # for the shape checks of the tests
class Critic(Protocol):
    """Estimates the blocks still to go, 0 when the goal is reached."""

    def blocks_to_go(
        self, latent: Float["Tensor", "S D"], proprio: Float["Tensor", "S P"], goal: "Goal"
    ) -> Float["Tensor", "S"]: ...


@runtime_checkable  # for the shape checks of the tests
class Kinematics(Protocol):
    """Joints to tool centre point and back, for one robot."""

    def tip(self, q: Float[np.ndarray, "J"]) -> Float[np.ndarray, "3"]: ...

    def tip_velocity(self, q: Float[np.ndarray, "J"], dq: Float[np.ndarray, "J"]) -> Float[np.ndarray, "3"]: ...

    def tip_motion(
        self, q: Float[np.ndarray, "N J"], dq: Float[np.ndarray, "N J"]
    ) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]: ...

    def dynamics(
        self, q: Float[np.ndarray, "N J"], dq: Float[np.ndarray, "N J"]
    ) -> tuple[Float[np.ndarray, "N J J"], Float[np.ndarray, "N J"]]: ...
