"""What the planner may do, how long it may think, and what it weighs."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, TypeVar, get_args

from foresight.planning.objective import DEFAULT, parse
from foresight.planning.search import Method

HORIZON_MAX = 16  # blocks
NOT_BELOW_0 = (
    "noisy_per_aim", "iterations", "proposal_noise", "refine_noise", "search_noise", "gripper_noise", "wall_margin",
    "improvement", "agreement",
)  # fmt: skip
Policy = Literal["both", "actor", "search", "reactive", "dreamt", "random"]
PARTS = {"imagine": "dynamics", "propose": "an actor", "blocks_to_go": "a critic", "read": "readouts"}
AnyModel = TypeVar("AnyModel")


@dataclass(frozen=True)
class PlannerConfig:
    """Search, limits and objective. Costs are in blocks (0.3 s) still to go."""

    # Actor proposals judged and refined in imagination; or one part alone; or the actor's first block, with nothing imagined; or
    # the actor that learned in imagination alone; or random motion.
    policy: Policy = "both"
    horizon: int = 4  # blocks imagined ahead; training imagines 3; more than 4 brings a warning
    aims: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10)  # how many blocks away the actor is told the goal is, one proposal each
    noisy_per_aim: int = 1  # further proposals per aim, with noise on the actor's motion
    proposal_noise: float = 0.04  # [m/s] of those
    refine_method: Method = "predictive_sampling"  # how the proposals are refined: any of `search/`
    samples: int = 48  # of each refinement of the proposals
    iterations: int = 1  # refinements; 0 leaves the choice among proposals
    elites: int = 6
    refine_noise: float = 0.03  # [m/s] first standard deviation of a refinement
    gripper_noise: float = 0.5  # of its command, 0 or 1, in both searches; 0: open or closed is the proposals' choice
    search_method: Method = "cem"  # of the search without an actor
    search_samples: int = 128  # of the search without an actor
    search_iterations: int = 4
    search_noise: float = 0.12  # [m/s]
    speed_max: float = 0.20  # [m/s] of the tip; the true tip runs ahead of its command where a push lets go
    acceleration_max: float = 1.2  # [m/s^2] of the tip
    wall_margin: float = 0.005  # [m] kept from the workspace's walls
    objective: str = DEFAULT  # what is weighed: a sum of terms weight*name(norm=..., growth=...); can be changed while running
    subgoals: bool = True  # pursue sub-goals on the way to a goal that is far, where the model proposes them
    subgoals_beyond: float = 7.0  # blocks from the goal beyond which it is far
    improvement: float = 0.03  # blocks by which a refined motion must beat the best proposal
    agreement: float = 0.0  # [m/s] spread among the elites at which a search ends early; 0 never
    deadline_s: float = 0.080  # [s] for a plan, its examination included: no refinement begins that would end too late for it
    seed: int = 0

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ValueError(f"Policy '{self.policy}' is unknown. Available: {', '.join(get_args(Policy))}.")
        for name in ("refine_method", "search_method"):
            if getattr(self, name) not in get_args(Method):
                raise ValueError(f"{name} '{getattr(self, name)}' is unknown. Available: {', '.join(get_args(Method))}.")
        for name in ("horizon", "samples", "elites", "search_samples", "search_iterations", "deadline_s", "subgoals_beyond"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("speed_max", "acceleration_max"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name} must be a finite number above 0, got {getattr(self, name)}.")
        for name in NOT_BELOW_0:
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {getattr(self, name)}.")
        if self.horizon > HORIZON_MAX:
            raise ValueError(
                f"horizon must be at most {HORIZON_MAX} blocks, what critics are trained to count, got {self.horizon}."
            )
        parse(self.objective)
        if not self.aims or min(self.aims) < 1:
            raise ValueError(f"aims must be one or more whole numbers of at least 1 block, got {self.aims}.")
        if self.elites < 2:
            raise ValueError(f"elites must be at least 2, since the search goes on with their spread, got {self.elites}.")
        if self.elites > min(self.samples, self.search_samples):
            raise ValueError(
                f"elites ({self.elites}) must not exceed samples ({self.samples}) or search_samples ({self.search_samples})."
            )


def fitting(model: AnyModel, policy: Policy) -> AnyModel:
    """The model as the policy uses it. Raises ValueError, in one line, for a model that lacks what the policy needs."""
    for part, name in PARTS.items():
        needed = part != "propose" or policy in ("both", "actor", "reactive")
        if needed and not callable(getattr(model, part, None)):
            raise ValueError(
                f"Policy '{policy}' needs a model with {name}, this one has no `{part}`. "
                "Give a checkpoint that `foresight train` made."
            )
    if policy not in ("reactive", "random") and not getattr(model, "foresees", True):
        raise ValueError(
            f"Policy '{policy}' imagines, and this model has no trained dynamics: it learned by behaviour cloning "
            "(--model.no-dynamics). Use policy 'reactive', or a checkpoint trained without that flag."
        )
    if policy != "dreamt":
        return model
    if not callable(getattr(model, "dreaming", None)):
        raise ValueError("Policy 'dreamt' needs a model with an actor and critic that learned in imagination (--model.dreamt).")
    return model.dreaming()
