"""The planner: the actor proposes, the world model foresees, the critic judges, a search refines.

It knows a model only through `Dynamics`, `Actor` and `Critic`. Time comes in as a clock, chance as a generator: the same
belief, goal, start and generator state give the same plan on a CPU, as long as the deadline does not bind. Where it does, what
the parts of a plan took lately says which of them may begin: all, the actor alone, or none.

Shape letters: S candidate motions, H blocks, K steps in a block, N = H K steps, D latent, P proprioception.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, takewhile

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from foresight.data import Belief, Goal, Plan, Reason, Start, Verdict
from foresight.interfaces import Attentive, Draws, Modes, Search
from foresight.planning.config import PlannerConfig, Policy, fitting
from foresight.planning.constraints import Constraints, Juncture, NoPlan
from foresight.planning.imagination import Imagination, Imagined, Model, Source, Watch
from foresight.planning.legs import landing, next_leg
from foresight.planning.limits import TipLimits
from foresight.planning.objective import DEFAULT, Objective, parse
from foresight.planning.pace import Pace
from foresight.planning.pursuit import refusal as outside
from foresight.planning.pursuit import shown_refusal, unmet
from foresight.planning.search import make
from foresight.planning.search.anytime import Budget, run
from foresight.planning.search.draws import blockwise, coloured
from foresight.planning.search.state import State, comparable
from foresight.planning.subgoals import next_subgoal
from foresight.robots.profile import RobotProfile

EXAMINED = (0, 1, 2, 4, 8, 16, 32)  # ranks of the candidates examined until one keeps to the constraints or the time is up
EXAMINING = 0.6  # of the time that the proposals took is kept for examining what was found, or what that took lately if more
BEYOND = 1  # block further than training imagined, as the shipped planner looks, whose figures are measured so

Chosen = tuple[Imagined, list[str], int]  # the set that holds the best, where each of it comes from, how many were tried


class Planner:
    """Plans the tip's motion for one robot and one model."""

    def __init__(self, model: Model, profile: RobotProfile, config: PlannerConfig = PlannerConfig()) -> None:
        if model.contract.robot != profile.name:
            raise ValueError(
                f"The model was trained on robot '{model.contract.robot}', the profile is '{profile.name}'. "
                "Choose the matching checkpoint or robot."
            )
        model = fitting(model, config.policy)
        trained = getattr(getattr(model, "config", None), "max_blocks", config.horizon)
        if config.horizon > trained:
            raise ValueError(
                f"horizon must be at most {trained} blocks, what this model's critic was trained to count, got {config.horizon}."
            )
        reacts = config.policy == "reactive"
        config = replace(config, horizon=1) if reacts else config
        imagined = getattr(getattr(model, "config", None), "imagined_blocks", config.horizon)
        if config.horizon > imagined + BEYOND:
            warnings.warn(
                f"horizon is {config.horizon} blocks; training imagined {imagined}, and more than {BEYOND} beyond that was never "
                f"measured. Set horizon to {imagined + BEYOND} or less, or judge the plans before an arm moves by them.",
                RuntimeWarning,
                stacklevel=2,
            )
        self.model, self.config, self.contract = model, config, model.contract
        self._foresees = not reacts and getattr(model, "foresees", True)
        self.objective = parse(config.objective)  # may be set anew between two plans
        if wrong := self.objective.refusal(model):
            raise ValueError(wrong)
        self.watch: Watch | None = None  # is shown all that is imagined for a plan
        self._pace = Pace()
        self._tip_speed_max = profile.tip_speed_max
        self.steps = config.horizon * self.contract.block_steps
        self.refine = make(config.refine_method, config.samples, config.elites)
        self.search = make(config.search_method, config.search_samples, config.elites)
        as_tensor = lambda x: torch.as_tensor(x, dtype=torch.float32)  # noqa: E731
        size = profile.workspace_max - profile.workspace_min
        if not (2 * config.wall_margin < size).all():
            raise ValueError(f"wall_margin must leave some of the workspace ({size.tolist()} m), got {config.wall_margin} m.")
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
        juncture: Juncture | None = None,
        afresh: bool = False,
    ) -> Plan:
        """The best motion found from the belief towards the goal within the deadline.

        `previous` (the last plan for the same goal) is shifted by the time passed since and tried again. With a `juncture` the
        plan carries its joint trajectory, which keeps to the constraints from the juncture to rest: it is the cheapest
        candidate of those examined in time that does, else coming to rest, and NoPlan is raised where that does not. `afresh`, a
        hand that is stuck with its object lets go of it and lines up behind it. Where there is no time for the proposals the
        actor's first one stands alone, and NoPlan is raised where there is none for that. Raises
        ValueError for a belief of another model or with values that are not finite, for a goal that lacks what the objective
        looks at, and when no candidate has a finite cost.
        """
        began_s = clock()
        self._pace.begin()
        objective = self.objective_of(goal)
        self._check(belief, objective.refusal(self.model, goal))
        latent, proprio = torch.from_numpy(belief.latent)[None], torch.from_numpy(belief.proprio)[None]
        model = self._towards(goal)
        distance = float(model.blocks_to_go(latent, proprio, goal))
        if not math.isfinite(distance):
            raise ValueError(f"The critic counts {distance} blocks to the goal, which is no finite cost; no plan can be made.")
        constraints = None if juncture is None else juncture.constraints
        leg, limits = None, self._limits_for(goal)
        if constraints is not None and self._searches:
            limits = replace(limits, landing=landing(latent, model, constraints))
            before = None if previous is None else previous.leg
            leg = next_leg(goal, latent, proprio, model, constraints, before, afresh and not self.contract.moves_gripper)
        subgoal = None
        if leg is None and self._searches and self.config.subgoals and distance > self.config.subgoals_beyond:
            subgoal = next_subgoal(goal, latent, proprio, distance, model)
        pursued = leg.goal if leg is not None else subgoal or goal
        imagination = Imagination(
            model if pursued is goal else self._towards(pursued),
            limits,
            self.config,
            latent,
            proprio,
            pursued,
            start,
            objective.fitting(pursued, parse(DEFAULT)),
            constraints if self._searches else None,
            self.watch,
            self._foresees,
        )
        left_s = lambda: self.config.deadline_s - (clock() - began_s)  # noqa: E731
        policy = self._affordable(left_s, [] if juncture is None else ["examining"])
        kept = [] if previous is None else [self._shifted(previous, belief.stamp_s)]
        if policy == "both":
            best, sources, tried = self._propose_and_refine(imagination, kept, generator, clock, began_s)
        elif policy in ("actor", "reactive", "dreamt"):
            asked_s = clock()
            aim = torch.full((1,), float(np.clip(round(distance), 1, max(self.config.aims))))
            motion = self._actor_motion(imagination.model, aim, torch.zeros(1, self.steps, self.contract.step_size))
            best, sources, tried = imagination.imagine(1, motion), ["actor"], 1
            self._pace.took(policy, clock() - asked_s)
        elif policy == "search":
            best, sources, tried = self._search(imagination, kept, generator, clock, began_s)
        else:
            wander = self._rest(start.closed) + self.config.search_noise * self._block_noise(1, generator)
            best, sources, tried = imagination.fixed(wander), ["random"], 1
        if not best.cost.isfinite().any():
            raise ValueError(f"None of the {len(best.cost)} candidates has a finite cost; no plan can be made.")
        not_yet = unmet(goal, latent, proprio, self.model)
        describe = lambda found, i, source: Plan(  # noqa: E731
            stamp_s=belief.stamp_s,
            model_id=belief.model_id,
            dt_s=self.contract.step_s,
            tip_velocity=found.controls[i, :, :3].double().numpy(),
            cost=float(torch.stack(list(found.terms.values())).sum(0)[i]),
            terms={name: float(value[i]) for name, value in found.terms.items()},
            distance=distance * self.contract.block_s,
            imagined=found.latents[i].numpy()[: None if self._foresees else 0],
            candidates=tried,
            planning_s=clock() - began_s,
            source=source,
            leg=leg,
            subgoal=None if subgoal is None else subgoal.latent,
            unmet=not_yet,
            closed=found.controls[i, :, 3].double().numpy() if self.contract.moves_gripper else None,
        )
        if juncture is None:
            return describe(best, best.best(), sources[best.best()])
        chosen = self._keeping(best, sources, describe, imagination, juncture, clock, left_s)
        return replace(chosen, planning_s=clock() - began_s)

    def _affordable(self, left_s: Callable[[], float], after: list[str]) -> Policy:
        """The policy, or the actor alone where there is time for no more, each with what comes after it; else raises NoPlan."""
        for policy in ("both", "actor") if self.config.policy == "both" else (self.config.policy,):
            if self._pace.fits(left_s(), policy, *after):
                return policy
        raise self._no_time(left_s(), policy, *after)

    def _no_time(self, left_s: float, *parts: str) -> NoPlan:
        deadline_ms, left_ms = 1e3 * self.config.deadline_s, 1e3 * max(0.0, left_s)
        parts_ms = ", ".join(f"{part} {1e3 * self._pace.expected_s(part):.0f} ms" for part in dict.fromkeys(parts))
        detail = (
            f"No time for a plan: {left_ms:.0f} of {deadline_ms:.3g} ms are left, and what it still takes goes beyond them "
            f"({parts_ms}). Leave the planner more of the machine, or raise planner.deadline_s (params_file:=...)."
        )
        return NoPlan(Verdict(Reason.NO_TIME, detail), 0)

    def _keeping(
        self,
        best: Imagined,
        sources: list[str],
        describe: Callable[[Imagined, int, str], Plan],
        imagination: Imagination,
        juncture: Juncture,
        clock: Callable[[], float],
        left_s: Callable[[], float],
    ) -> Plan:
        """The cheapest candidate examined that keeps to the constraints, or coming to rest; raises NoPlan where that does not.

        None is examined that would end after the deadline, and but for the cheapest none that leaves no time for coming to rest.
        """
        ranked = comparable(best.cost).argsort(stable=True).tolist()
        looked_at = takewhile(lambda rank: rank == 0 or self._pace.fits(left_s(), "examining", "examining"), EXAMINED)
        ways = ((best, ranked[rank], sources[ranked[rank]]) for rank in looked_at if rank < len(ranked))
        rest = ((imagination.fixed(self._rest(imagination.start.closed)), 0, "stay") for _ in range(1))  # imagined where needed
        refused: list[Verdict] = []
        for found, i, source in chain(ways, rest):
            if not self._pace.fits(left_s(), "examining"):
                break
            asked_s, plan = clock(), describe(found, i, source)
            examined = juncture.examine(plan)
            self._pace.took("examining", clock() - asked_s)
            if examined.verdict.ok:
                return replace(
                    plan,
                    margin_m=examined.margin_m,
                    nearest=examined.nearest,
                    singular_margin=examined.singular_margin,
                    grip_force_n=examined.grip_force_n,
                    trajectory=examined.trajectory,
                    refused=refused[0].detail if refused and source == "stay" else "",
                )
            refused.append(examined.verdict)
        raise NoPlan(refused[0], len(refused)) if refused else self._no_time(left_s(), "examining")

    def _towards(self, goal: Goal) -> Model:
        """The model with the goal in mind, where it can."""
        return self.model.towards(goal) if isinstance(self.model, Attentive) else self.model

    @property
    def _searches(self) -> bool:
        """Whether candidates are compared: the actor alone and the random floor go where they go."""
        return self.config.policy in ("both", "search")

    def _limits_for(self, goal: Goal) -> TipLimits:
        """A goal's cap of the tip's speed leaves the same share of it free as the robot's own."""
        if goal.tip_speed_max is None:
            return self.limits
        return replace(self.limits, speed=self.limits.speed * min(1.0, goal.tip_speed_max / self._tip_speed_max))

    def refusal(self, goal: Goal, constraints: Constraints) -> str | None:
        """Why a goal cannot be pursued: outside the workspace, told or shown, not to be judged, or in a keep-out; else None."""
        unjudged = self.objective_of(goal).refusal(self.model, goal)
        told = outside(goal, constraints.profile) or unjudged or constraints.refusal(goal)
        return told or shown_refusal(goal, self.model, constraints.profile)

    def objective_of(self, goal: Goal) -> Objective:
        """What motions towards this goal are judged by; raises ValueError where the goal's own makes no sense.

        Of the planner's own terms those count that the goal can be judged by.
        """
        return (parse(goal.objective) if goal.objective else self.objective.fitting(goal, self.objective)).wanting(goal)

    def _check(self, belief: Belief, refusal: str | None) -> None:
        if refusal:
            raise ValueError(refusal)
        if belief.model_id != self.model.model_id:
            raise ValueError(
                f"The belief comes from model '{belief.model_id}', the planner holds '{self.model.model_id}'. "
                "Give both nodes the same checkpoint."
            )
        if not (np.isfinite(belief.latent).all() and np.isfinite(belief.proprio).all()):
            raise ValueError("The belief holds values that are not finite; no plan can be made from it.")

    # -- ways to plan -------------------------------------------------------------------------------------------

    def _propose_and_refine(self, imagination: Imagination, kept, generator, clock, began_s) -> Chosen:
        """The actor's proposals, standing still and the motions kept, judged together; then sampling around the best.

        On a busy machine all parts of a plan take longer alike: how long the proposals took tells what may still begin.
        """
        config, asked_s = self.config, clock()
        modes = self.model.modes if isinstance(self.model, Modes) else 1
        aims = torch.tensor(config.aims, dtype=torch.float32).repeat(modes + config.noisy_per_aim)
        noise = config.proposal_noise * self._block_noise(len(aims), generator)
        noise[: modes * len(config.aims)] = 0.0
        each = torch.arange(modes).repeat_interleave(len(config.aims))  # and the likeliest of each aim with noise
        closed = imagination.start.closed
        kept = torch.cat([self._rest(closed), *kept])
        names = ["actor"] * len(aims) + ["stay", "last"][: len(kept)]
        proposals = imagination.imagine(len(names), self._beside(self._actor_motion(imagination.model, aims, noise, each), kept))
        now_s = clock()
        lasted_s = now_s - began_s
        self._pace.took("both", now_s - asked_s)
        examining_s = 0.0 if imagination.constraints is None else max(EXAMINING * lasted_s, self._pace.expected_s("examining"))
        budget = Budget(
            config.iterations, clock, began_s, config.deadline_s - examining_s, lasted_s, config.improvement, config.agreement
        )
        draws, around = self._draws(self.refine, generator), self._around(kept[0], config.refine_noise)
        found = run(self.refine, imagination.fixed, draws, around, budget, proposals)
        sources = ["search"] * len(found.best.cost) if found.improved else names
        return found.best, sources, len(names) + found.tried

    def _search(self, imagination: Imagination, kept, generator, clock, began_s) -> Chosen:
        """Around the motion kept, or standing still: no actor, the critic's cost."""
        config, asked_s = self.config, clock()
        examining_s = 0.0 if imagination.constraints is None else self._pace.expected_s("examining")
        budget = Budget(config.search_iterations, clock, began_s, config.deadline_s - examining_s, agreement=config.agreement)
        around = self._around([self._rest(imagination.start.closed), *kept][-1][0], config.search_noise)
        found = run(self.search, imagination.fixed, self._draws(self.search, generator), around, budget)
        self._pace.took("search", (clock() - asked_s) / found.rounds)
        return found.best, ["search"] * len(found.best.cost), found.tried

    # -- what they start from -----------------------------------------------------------------------------------

    def _rest(self, closed: float) -> Float[Tensor, "1 N U"]:
        """Standing still, the gripper as it is."""
        return F.pad(torch.zeros(1, self.steps, 3), (0, self.contract.step_size - 3), value=closed)

    def _around(self, motion: Float[Tensor, "N U"], spread: float) -> State:
        spreads = F.pad(torch.full((self.steps, 3), spread), (0, self.contract.step_size - 3), value=self.config.gripper_noise)
        return State(motion, spreads)

    def _draws(self, method: Search, generator: torch.Generator) -> Draws:
        """Coloured for iCEM, as its authors have it; constant over a block for the most part for the others."""
        if getattr(method, "coloured", False):
            return coloured(self.steps, self.contract.step_size, generator)
        return blockwise(self.config.horizon, self.contract.block_steps, self.contract.step_size, generator)

    def _block_noise(self, count: int, generator: torch.Generator) -> Float[Tensor, "S N U"]:
        """Unit noise of the tip's velocity that is constant over a block; none of the gripper."""
        noise = torch.randn(count, self.config.horizon, 1, 3, generator=generator)
        noise = noise.expand(-1, -1, self.contract.block_steps, -1).reshape(count, self.steps, 3)
        return F.pad(noise, (0, self.contract.step_size - 3))

    def _shifted(self, previous: Plan, stamp_s: float) -> Float[Tensor, "1 N U"]:
        """The last plan as it goes on from now, at rest after its end."""
        passed = int(np.clip(round((stamp_s - previous.stamp_s) / self.contract.step_s), 0, self.steps))
        rest = np.concatenate([previous.tip_velocity[passed:], np.zeros((passed, 3))])[: self.steps]
        if previous.closed is not None:
            held = np.append(previous.closed[passed:], np.full(passed, previous.closed[-1]))[: self.steps]
            rest = np.column_stack([rest, held])
        return torch.as_tensor(rest, dtype=torch.float32)[None]

    def _actor_motion(
        self, model: Model, aims: Float[Tensor, "S"], noise: Float[Tensor, "S N U"], each: Int[Tensor, "m"] | None = None
    ) -> Source:
        """A motion source that asks the actor anew in every imagined state, each candidate with its own aim.

        Of an actor with several motions the first m candidates take that of their number in `each`, the others the likeliest.
        """
        steps = self.contract.block_steps
        several = each is not None and int(each.max()) > 0

        def motion(h: int, latent: Tensor, proprio: Tensor, goal: Goal, velocity: Tensor) -> Tensor:
            n = len(aims)
            k = (aims - h).clamp_min(1)
            if several:
                m = len(each)
                own = model.propose_each(latent[:m], proprio[:m], goal, k[:m])[torch.arange(m), each]
                proposal = torch.cat([own, model.propose(latent[m:n], proprio[m:n], goal, k[m:])])
            else:
                proposal = model.propose(latent[:n], proprio[:n], goal, k)
            proposal = proposal.unflatten(-1, (-1, self.contract.step_size))
            wanted = torch.cat([proposal[..., :3] / self.contract.step_s, proposal[..., 3:]], -1)
            return wanted + noise[:, h * steps : (h + 1) * steps]

        return motion

    def _beside(self, motion: Source, fixed: Float[Tensor, "S N U"]) -> Source:
        """The motion source's candidates, then fixed ones."""
        steps = self.contract.block_steps
        return lambda h, z, p, goal, v: torch.cat([motion(h, z, p, goal, v), fixed[:, h * steps : (h + 1) * steps]])
