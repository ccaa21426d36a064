"""What the parts see of each other: one or two methods each, owned by the part that calls them.

The planner imports this and never the world model. Shape letters as in `data.py`, plus A = 3 K, the numbers of one
action block: K tip displacements [m] in the base frame (A = 4 K, each with the gripper's command, 0 open, 1 closed, for a model
that moves it). In a search: S candidates, N steps, U numbers of one control.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:  # the core's light parts must not load torch
    from torch import Tensor

    from foresight.data import Goal
    from foresight.planning.search.state import Round, State


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
class Modes(Protocol):
    """An actor that knows several ways to a goal."""

    modes: int

    def propose_each(
        self, latent: Float["Tensor", "S D"], proprio: Float["Tensor", "S P"], goal: "Goal", k: Float["Tensor", "S"]
    ) -> Float["Tensor", "S M A"]: ...


@runtime_checkable  # for the shape checks of the tests
class Critic(Protocol):
    """Estimates the blocks still to go, 0 when the goal is reached."""

    def blocks_to_go(
        self, latent: Float["Tensor", "S D"], proprio: Float["Tensor", "S P"], goal: "Goal"
    ) -> Float["Tensor", "S"]: ...


@runtime_checkable  # for the shape checks of the tests
class Ensemble(Protocol):
    """Several critics that learned apart: where they differ, little is known."""

    critics: int

    def spread(
        self, latent: Float["Tensor", "S D"], proprio: Float["Tensor", "S P"], goal: "Goal"
    ) -> Float["Tensor", "S"]:
        """Standard deviation of their estimates [blocks]."""
        ...


@runtime_checkable  # for the shape checks of the tests
class Attentive(Protocol):
    """A model that can keep in mind what it makes of one goal."""

    def towards(self, goal: "Goal") -> "Attentive":
        """The same model with that worked out once. For one plan: neither model nor goal may change meanwhile."""
        ...


@runtime_checkable  # for the shape checks of the tests
class Subgoals(Protocol):
    """A coarser predictor: where the way to a goal leads, without the motion that goes it. W ways."""

    subgoal_ways: int  # 0: it proposes none

    def subgoals(
        self, latent: Float["Tensor", "S D"], proprio: Float["Tensor", "S P"], goal: "Goal", k: Float["Tensor", "S"]
    ) -> tuple[Float["Tensor", "S W D"], Float["Tensor", "S W P"]]:
        """Latents and proprioception some blocks ahead on the ways to a goal that is `k` blocks away."""
        ...

    def apart(
        self, latent: Float["Tensor", "S D"], proprio: Float["Tensor", "S P"], other: Float["Tensor", "S D"]
    ) -> Float["Tensor", "S"]:
        """Blocks from each to its other."""
        ...


@runtime_checkable  # for the shape checks of the tests
class Readout(Protocol):
    """Tells where things are in a latent."""

    def read(self, latent: Float["Tensor", "*n D"]) -> tuple[Float["Tensor", "*n 3"], Float["Tensor", "*n 3"]]:
        """Tip and object position [m]."""
        ...


@runtime_checkable  # for the shape checks of the tests
class Readouts(Protocol):
    """What else of a latent, or of proprioception, can be told, and so be wanted."""

    reads: frozenset[str]  # of "yaw", "opening", "contact"

    def read_yaw(self, latent: Float["Tensor", "*n D"]) -> Float["Tensor", "*n"]:
        """The object's orientation about the vertical [rad], within a turn that brings it onto itself."""
        ...

    def read_opening(self, proprio: Float["Tensor", "*n P"]) -> Float["Tensor", "*n"]:
        """How far the gripper is open, 0 closed, 1 open."""
        ...

    def read_contact(self, latent: Float["Tensor", "*n D"]) -> Float["Tensor", "*n"]:
        """Probability that the hand touches the object."""
        ...


@runtime_checkable  # for the shape checks of the tests
class Rollout(Protocol):
    """Foresees whole candidates from one belief: the dynamics with what all candidates share already worked out."""

    def rollout(self, controls: Float["Tensor", "S N U"]) -> Float["Tensor", "S H D"]:
        """The latents after each of the H blocks that the controls make."""
        ...


@runtime_checkable  # for the shape checks of the tests
class Objective(Protocol):
    """Scores a rollout; the lower the better."""

    def score(self, latents: Float["Tensor", "S H D"], controls: Float["Tensor", "S N U"]) -> Float["Tensor", "S"]: ...


@runtime_checkable  # for the shape checks of the tests
class Candidates(Protocol):
    """Candidates as they would be carried out, and what each costs."""

    @property
    def controls(self) -> Float["Tensor", "S N U"]: ...

    @property
    def cost(self) -> Float["Tensor", "S"]: ...

    def detach(self) -> "Candidates":
        """The same without the way back to the gradient."""
        ...


Draws: TypeAlias = Callable[[int], "Tensor"]  # the number of candidates to their unit noise, (S, N, U)


@runtime_checkable  # for the shape checks of the tests
class Search(Protocol):
    """One way to look for cheap controls: proposes candidates, and learns from what they cost.

    What it knows is a value that is handed in and returned. It owns no clock, no generator, no model.
    """

    @property
    def elites(self) -> int:
        """How many of a round's best must agree for an early end."""
        ...

    def start(self, state: "State", known: Candidates | None = None) -> "State":
        """What it knows before the first round, from candidates that are known already where there are any."""
        ...

    def differentiates(self, state: "State") -> bool:
        """Whether the next round needs the gradient of the cost."""
        ...

    def propose(self, state: "State", draws: Draws) -> Float["Tensor", "S N U"]: ...

    def learn(self, state: "State", outcome: "Round") -> "State": ...


@runtime_checkable  # for the shape checks of the tests
class Kinematics(Protocol):
    """Joints to tool centre point and back, for one robot."""

    def tip(self, q: Float[np.ndarray, "J"]) -> Float[np.ndarray, "3"]: ...

    def tip_velocity(self, q: Float[np.ndarray, "J"], dq: Float[np.ndarray, "J"]) -> Float[np.ndarray, "3"]: ...


@runtime_checkable  # for the shape checks of the tests
class MotionKinematics(Protocol):
    """What the guard needs of a robot's model, many joint positions at a time."""

    def tip_motion(
        self, q: Float[np.ndarray, "N J"], dq: Float[np.ndarray, "N J"]
    ) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
        """Positions [m] and velocities [m/s] of the tool centre point in the base frame."""
        ...

    def dynamics(
        self, q: Float[np.ndarray, "N J"], dq: Float[np.ndarray, "N J"]
    ) -> tuple[Float[np.ndarray, "N J J"], Float[np.ndarray, "N J"]]:
        """Inertia matrices [kg m^2] and torques [Nm] without acceleration."""
        ...

    def torques(
        self, q: Float[np.ndarray, "N J"], dq: Float[np.ndarray, "N J"], ddq: Float[np.ndarray, "N J"]
    ) -> Float[np.ndarray, "N J"]:
        """Joint torques [Nm] of that motion, without contacts and friction."""
        ...
