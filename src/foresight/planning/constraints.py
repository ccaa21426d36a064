"""What a plan must keep to, whatever it costs: batched over candidates roughly, and for the plan that is returned exactly.

The exact part is the guard's own: `safety.collision.Scene` and `safety.checks.examine_motion`, on the joint trajectory that the
plan becomes, from where it joins the motion in force to the end of its braking tail, and `safety.grip` on how hard its gripper
may squeeze. It takes about 4 ms and the cheapest candidate nearly always passes, so candidates are examined one by one after the
search, in the order of their cost: all of them at once would only take longer. What a search must know
of all of them is batched in it already: the tip's speed, acceleration and workspace are kept by projection (`limits.py`), a hand
in a keep-out ranks last (`imagination.py`).
Knows no model and no cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from foresight.control.motion import joint_trajectory
from foresight.control.trajectory import sample
from foresight.data import Box, Goal, Grip, Plan, Reason, RobotState, Trajectory, Verdict
from foresight.planning.around import Blocked, grid
from foresight.planning.hand import hand_slices
from foresight.planning.pushes import CONTACT_M, Pushes
from foresight.planning.singularity import dexterity
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile
from foresight.safety.checks import examine_motion
from foresight.safety.collision import Scene
from foresight.safety.config import GuardConfig
from foresight.safety.grip import GripLimit, grip_refusal
from foresight.safety.limits import Finding
from foresight.safety.obstacles import TABLE
from foresight.safety.slowing import mended

SPARE_M = 0.003  # [m] beyond its margin that a candidate keeps from a keep-out at its knots, 2 cm apart at most
PUSHING_M = 0.03  # [m] over the table at which the tip pushes
PUSHED_M = 0.010  # [m] beyond the margin that a tip that pushes is kept from a keep-out, where there is room for it
ROUND_M = 0.015  # [m] beyond the margin that a way round a keep-out is laid
MARGIN_EVERY_S = 0.1  # [s] between two looks at the margin
DEXTERITY_MIN = 0.03  # [m/rad] half of what the UR5e has at the worst place of its workspace
SINGULAR_EVERY_S, SINGULAR_NOISE = 0.05, 1e-6  # [s] between two looks at that, besides the knots; [m/rad] that counts as none


Slices = tuple[Float[np.ndarray, "G 3"], Float[np.ndarray, "G 3"]]  # lowest and highest corners [m], seen from the tip


class NoPlan(ValueError):
    """No candidate keeps to the constraints, and `reason` is what the cheapest one would break; or none was examined."""

    def __init__(self, verdict: Verdict, examined: int) -> None:
        found = f"None of {examined} motions examined keeps to the constraints; the cheapest: " if examined else ""
        super().__init__(found + verdict.detail)
        self.reason = verdict.reason


@dataclass(frozen=True)
class Examined:
    """A plan as the arm would carry it out, and what the guard's checks say of that."""

    trajectory: Trajectory
    verdict: Verdict
    margin_m: float = float("nan")  # as in the plan, where the verdict is OK
    nearest: str = ""
    singular_margin: float = float("nan")
    grip_force_n: float = float("nan")


class Constraints:
    """What always holds for one arm, and what one goal adds."""

    def __init__(
        self,
        profile: RobotProfile,
        kinematics: MujocoKinematics,
        config: GuardConfig = GuardConfig(),
        keep_outs: Sequence[Box] = (),
        table: Box | None = TABLE,
        collision: bool = True,
        tip_speed_max: float | None = None,
        hand: Slices | None = None,
        dexterity_min: float = DEXTERITY_MIN,
        gripper_moves: bool = False,
    ) -> None:
        """`config`, `keep_outs`, `table` and `collision` are the guard's; without `collision` nothing is looked for.

        `hand` is what `hand_slices` makes of the profile, where it is known already. `dexterity_min` [m/rad] is the distance
        from singularities that plans keep (`singularity.py`). Raises ValueError where it is none. `gripper_moves` as `Scene`
        has it.
        """
        if not (np.isfinite(dexterity_min) and dexterity_min >= 0):
            raise ValueError(f"dexterity_min must be a finite number of at least 0 m/rad, got {dexterity_min}.")
        self.dexterity_min = dexterity_min
        self.profile = (
            profile if tip_speed_max is None else replace(profile, tip_speed_max=min(tip_speed_max, profile.tip_speed_max))
        )
        self.kinematics, self.config, self.keep_outs = kinematics, config, tuple(keep_outs)
        self._table, self._collision = table, collision
        self._gripper_moves = gripper_moves
        self.grip_limit = GripLimit.of(profile)
        resolution_m = config.sweep_resolution_m
        self.scene = Scene(profile, self.keep_outs, config.margins, table, resolution_m, gripper_moves) if collision else None
        self._hand = hand

    def of(self, goal: Goal) -> Constraints:
        """With what the goal adds; the same where it adds nothing."""
        if not goal.keep_outs and goal.tip_speed_max is None:
            return self._ready()
        boxes = (*self.keep_outs, *goal.keep_outs)
        made = Constraints(
            self.profile,
            self.kinematics,
            self.config,
            boxes,
            self._table if self._collision else None,
            self._collision or bool(goal.keep_outs),
            goal.tip_speed_max,
            self.hand if self._collision or boxes else None,
            self.dexterity_min,
            self._gripper_moves,
        )
        return made._ready()

    def _ready(self) -> Constraints:
        """Works out now and once what the first plan would have no time for."""
        if self.scene is not None:
            _ = self.hand, self.candidates, self.round, self.places
        if self.keep_outs:
            _ = self.pushes
        return self

    @property
    def hand(self) -> Slices:
        """The hand in slices, seen from the tip."""
        if self._hand is None:
            self._hand = hand_slices(self.profile, self.kinematics)
        return self._hand

    @cached_property
    def candidates(self) -> Blocked:
        """Where no candidate's tip may come."""
        return self._blocked(SPARE_M)

    @cached_property
    def round(self) -> Blocked:
        """What ways are laid round."""
        return self._blocked(ROUND_M)

    def _blocked(self, more_m: float) -> Blocked:
        if self.scene is None or not self.keep_outs:
            return Blocked(np.zeros((0, 3)), np.zeros((0, 3)))
        return Blocked.by(self.keep_outs, self.hand, self.config.margins.keep_out_m + more_m)

    @cached_property
    def places(self) -> Float[np.ndarray, "W 3"]:
        """Where [m] the tip's way round may turn."""
        return grid(self.profile.workspace_min + ROUND_M, self.profile.workspace_max - ROUND_M, 0.05)

    @property
    def pushing_m(self) -> float:
        """Height [m] at which the tip pushes."""
        return max(float(self.profile.workspace_min[2]), PUSHING_M)

    @cached_property
    def pushes(self) -> Pushes:
        """Ways on which an object is pushed round the keep-outs."""
        low, high = self.profile.workspace_min + CONTACT_M, self.profile.workspace_max - CONTACT_M
        low[2] = high[2] = self.pushing_m
        return Pushes(self.keep_outs, self._blocked(PUSHED_M), self.candidates, grid(low, high, 0.025), float(low[2]))

    def refusal(self, goal: Goal) -> str | None:
        """Why no plan can end at the goal: a keep-out covers it."""
        for name in ("tip", "object"):
            place = getattr(goal, name)
            for box in () if place is None else self.keep_outs:
                if box.distance(np.asarray(place, dtype=np.float64)[None])[0] <= 0:
                    return (
                        f"The goal's {name} position {np.round(place, 3).tolist()} m lies in {box.name}, "
                        f"{box.low.tolist()} to {box.high.tolist()} m. Move the goal or take the keep-out away."
                    )
        return None

    def examine(self, plan: Plan, in_force: Trajectory | None, state: RobotState, join_s: float) -> Examined:
        """The plan's joint trajectory from `join_s` on, its stop included, slowed where a limit asks for it; judged exactly.

        Where it moves the gripper, with the force that this may squeeze with.
        """
        trajectory = joint_trajectory(plan, in_force, state, join_s, self.kinematics, self.profile)
        force_n = float("nan")
        if (closed := plan.closed_at(join_s)) is not None:
            force_n = float("nan") if self.grip_limit is None else self.grip_limit.cap_n
            if wrong := grip_refusal(Grip(closed, force_n), state.opening, self.grip_limit):
                return Examined(trajectory, wrong)
        motion, found = trajectory, self._judge(trajectory, join_s)
        if not found.verdict.ok:
            slower = mended(trajectory, found, lambda motion: self._judge(motion, join_s), self.config)
            motion, found = (motion, found) if slower is None else slower[:2]
        if not found.verdict.ok:
            return Examined(motion, found.verdict)
        verdict, singular = self._singular(motion)
        if not verdict.ok or self.scene is None:
            return Examined(motion, verdict if not verdict.ok else found.verdict, singular_margin=singular, grip_force_n=force_n)
        q = sample(motion, _looks(motion, MARGIN_EVERY_S))[0]
        left = self.scene.nearest(q, by_design=False)
        return Examined(motion, found.verdict, left.distance_m, " and ".join(filter(None, left.names)), singular, force_n)

    def _singular(self, motion: Trajectory) -> tuple[Verdict, float]:
        """Whether the motion, its stop included, keeps from singularities, and what is left [m/rad].

        An arm that is too near to one already may only move away from it.
        """
        times = np.union1d(_looks(motion, SINGULAR_EVERY_S), motion.times_s)
        found = dexterity(self.kinematics, sample(motion, times)[0])
        worst = int(found.argmin())
        if found[worst] < min(self.dexterity_min, float(found[0])) - SINGULAR_NOISE:
            return (
                Verdict(
                    Reason.SINGULAR,
                    f"The arm would come within {found[worst]:.4f} m/rad of a singularity in {times[worst] - times[0]:.3f} s, "
                    f"allowed {self.dexterity_min:g} m/rad, or away from it when it is nearer already.",
                ),
                float(found[worst]) - self.dexterity_min,
            )
        return Verdict(Reason.OK), float(found[worst]) - self.dexterity_min

    def _judge(self, motion: Trajectory, join_s: float) -> Finding:
        return examine_motion(motion, self.profile, self.kinematics, self.config, join_s, self.scene)


def _looks(motion: Trajectory, every_s: float) -> Float[np.ndarray, "M"]:
    """Times [s] that far apart or less, from the motion's begin to its end."""
    begin, end = float(motion.times_s[0]), float(motion.times_s[-1])
    return np.linspace(begin, end, int(np.ceil((end - begin) / every_s)) + 1)


@dataclass(frozen=True)
class Juncture:
    """Where a plan is to join what the arm is bound to do, and what it must keep to."""

    constraints: Constraints
    in_force: Trajectory | None
    state: RobotState  # measured
    join_s: float

    def examine(self, plan: Plan) -> Examined:
        return self.constraints.examine(plan, self.in_force, self.state, self.join_s)
