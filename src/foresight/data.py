"""What crosses a boundary between the parts: frozen values with shapes, units and frames.

Knows no ROS, no clock, no device. Positions are in the robot's base frame, SI units and radians
throughout. `stamp_s` is always the capture time of the image a datum comes from, in seconds of the
clock that the caller runs on (wall, ROS or simulated); it travels unchanged from camera to motor.

Shape letters: C cameras, h w image height and width, J joints, P proprioception, D latent,
H horizon in blocks, K steps in a block, N trajectory points, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float32, UInt8


@dataclass(frozen=True)
class RobotState:
    """Measured joint state, in the order of the robot profile."""

    stamp_s: float
    q: Float[np.ndarray, "J"]  # [rad]
    dq: Float[np.ndarray, "J"]  # [rad/s]
    opening: float | None = None  # of the gripper, 0 closed, 1 open; None: not told


@dataclass(frozen=True)
class Observation:
    """One model-ready datum: prepared images and the joint state at their capture time."""

    stamp_s: float
    images: UInt8[np.ndarray, "C h w 3"]  # RGB, cameras in the order of the model's contract
    q: Float[np.ndarray, "J"]  # [rad]
    dq: Float[np.ndarray, "J"]  # [rad/s]
    tip: Float[np.ndarray, "3"]  # [m] tool centre point in the base frame
    tip_velocity: Float[np.ndarray, "3"]  # [m/s]
    seen: tuple[bool, ...] | None = None  # which cameras are there, the images of others are black; None: all
    opening: float | None = None  # of the gripper, 0 closed, 1 open; None: not told


@dataclass(frozen=True)
class Belief:
    """What the model makes of an observation, and how surprised it was."""

    stamp_s: float
    model_id: str
    latent: Float32[np.ndarray, "D"]
    proprio: Float32[np.ndarray, "P"]  # [q, the gripper's opening where the model moves it, tip, tip_velocity], SI units
    surprise: float  # one-step imagination error over its held-out mean; 1 is ordinary, NaN is "not yet known"

    @property
    def tip(self) -> Float32[np.ndarray, "3"]:
        return self.proprio[-6:-3]

    @property
    def tip_velocity(self) -> Float32[np.ndarray, "3"]:
        return self.proprio[-3:]


@dataclass(frozen=True)
class Box:
    """An axis-aligned volume in the base frame: a keep-out, the table, a workspace."""

    name: str
    low: Float[np.ndarray, "3"]  # [m]
    high: Float[np.ndarray, "3"]  # [m]

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all() and (self.low < self.high).all()):
            raise ValueError(f"Box '{self.name}' needs finite corners, each low below its high, got {self.low} to {self.high} m.")

    def distance(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N"]:
        """How far outside each point lies [m]; below 0 inside, then minus the way to the nearest face."""
        beyond = np.maximum(self.low - points, points - self.high)
        return np.linalg.norm(np.maximum(beyond, 0.0), axis=1) + np.minimum(beyond.max(axis=1), 0.0)


KEEP_OUTS_MAX = 16  # that a goal may bring
SLOWEST = 0.001  # [m/s] that a goal may cap the tip's speed at


@dataclass(frozen=True)
class Goal:
    """What is wanted: any of a scene seen in a goal image, a tip position, an object position.

    A part that is None does not matter; a weight of 0 takes a part out as well. Of the others each counts in the critic's blocks
    to go by its weight (`levels`); actor and readouts take each that has one. `yaw`, `opening` and `contact` are wanted
    besides, as the model's readouts tell them. `objective` is how motions towards the goal are judged, as `planning.objective`
    writes it; empty: as the planner judges. `keep_outs` and `tip_speed_max` hold for this goal.
    """

    latent: Float32[np.ndarray, "D"] | None = None
    tip: Float[np.ndarray, "3"] | None = None  # [m]
    object: Float[np.ndarray, "3"] | None = None  # [m]
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of latent, tip, object
    objective: str = ""
    keep_outs: tuple[Box, ...] = ()  # for the whole arm to stay out of, besides those that always hold
    tip_speed_max: float | None = None  # [m/s], where it is less than the robot may go
    yaw: float | None = None  # [rad] of the object about the vertical, whichever of its sides that brings to the front
    opening: float | None = None  # of the gripper, 0 closed, 1 open
    contact: bool | None = None  # whether the hand touches the object

    def __post_init__(self) -> None:
        if self.latent is None and self.tip is None and self.object is None:
            raise ValueError("A goal needs at least one of latent (goal image), tip, object; all are None.")
        if len(self.weights) != 3 or not all(np.isfinite(self.weights)) or min(self.weights) < 0:
            raise ValueError(f"Goal weights must be three finite numbers >= 0 (latent, tip, object), got {self.weights}.")
        if not self.levels:
            raise ValueError(f"A part that the goal has must weigh more than 0, got {self.weights} (latent, tip, object).")
        if len(self.keep_outs) > KEEP_OUTS_MAX:
            raise ValueError(
                f"A goal may bring at most {KEEP_OUTS_MAX} keep-outs, got {len(self.keep_outs)}: each costs time before "
                "the first plan and in every one. Put what lies together into one box, or tell the guard of those that last."
            )
        if self.tip_speed_max is not None and not SLOWEST <= self.tip_speed_max < np.inf:
            raise ValueError(f"A goal's tip_speed_max must be finite and at least {SLOWEST} m/s, got {self.tip_speed_max}.")
        if self.yaw is not None and not np.isfinite(self.yaw):
            raise ValueError(f"A goal's yaw must be a finite angle in rad, got {self.yaw}.")
        if self.opening is not None and not 0 <= self.opening <= 1:
            raise ValueError(f"A goal's opening must lie between 0 (closed) and 1 (open), got {self.opening}.")

    @property
    def levels(self) -> list[tuple[float, tuple[bool, bool, bool]]]:
        """Shares that sum to 1, each with the parts (latent, tip, object) wanted together in it, from all parts to the heaviest.

        A part is wanted in as much as its weight is of the greatest: with a tip of 1 and an object of 0.25 both in a quarter,
        the tip alone in the rest. Parts of one weight make one level.
        """
        parts = (self.latent, self.tip, self.object)
        weights = [0.0 if part is None else weight for part, weight in zip(parts, self.weights, strict=True)]
        steps = sorted({0.0, *weights})
        return [((b - a) / steps[-1], tuple(weight >= b for weight in weights)) for a, b in pairwise(steps)]


@dataclass(frozen=True)
class Start:
    """Where a plan begins: the motion already commanded, which the plan joins.

    `velocity` is the commanded tip velocity at the observation's stamp; `committed` are the commanded tip
    velocities at the ends of the first steps, which the arm will execute whatever is planned.
    """

    velocity: Float[np.ndarray, "3"]  # [m/s]
    committed: Float[np.ndarray, "n 3"] = field(default_factory=lambda: np.zeros((0, 3)))  # [m/s]
    closed: float = 1.0  # the gripper's last command, 0 open, 1 closed


@dataclass(frozen=True)
class Trajectory:
    """Joint positions, velocities and accelerations at increasing times; quintic between points, holding the last after it.

    The point at `times_s[0]` is where the motion joins the one before. Without accelerations the motion is cubic between
    points, as a joint_trajectory_controller reads it; the guard passes no such trajectory.
    """

    times_s: Float[np.ndarray, "N"]  # absolute [s], strictly increasing
    q: Float[np.ndarray, "N J"]  # [rad]
    dq: Float[np.ndarray, "N J"]  # [rad/s]
    ddq: Float[np.ndarray, "N J"] | None = None  # [rad/s^2]


@dataclass(frozen=True)
class Leg:
    """A part of the way to a goal that keep-outs lie before or that is tried afresh, and the turns that were chosen for it."""

    goal: Goal
    tip_turn: Float[np.ndarray, "3"] | None = None  # [m] that the tip goes to first
    object_turn: Float[np.ndarray, "3"] | None = None  # [m] that the object is pushed to first, or last; None: it is not pushed


@dataclass(frozen=True)
class Grip:
    """What a gripper is to do: how far to close, and how hard its fingers may squeeze what stops them before."""

    closed: float  # 0 open, 1 closed
    force_n: float  # [N] at most


@dataclass(frozen=True)
class Plan:
    """The chosen motion of the tip and why it was chosen.

    Between knots the tip velocity is linear, so displacement i is `dt_s * (v[i-1] + v[i]) / 2`.
    """

    stamp_s: float  # of the observation; knot i is at stamp_s + (i + 1) * dt_s
    model_id: str
    dt_s: float
    tip_velocity: Float[np.ndarray, "HK 3"]  # [m/s] at the knots
    cost: float
    terms: dict[str, float]  # cost by term, same unit as cost (blocks still to go)
    distance: float  # critic's estimate of the time to go now [s]
    imagined: Float32[np.ndarray, "H D"]
    candidates: int
    planning_s: float
    source: str  # which proposal won: "actor", "search", "stay" ...
    # Least distance [m] beyond what must be kept to table, keep-outs and itself, up to 0.1 m, pairs that are near by design (the
    # hand over the table) aside; NaN: not examined.
    margin_m: float = float("nan")
    nearest: str = ""  # between what that is; empty when nothing is near
    # Least distance [m/rad] from a singularity beyond what must be kept, along the trajectory; NaN: not examined.
    singular_margin: float = float("nan")
    trajectory: Trajectory | None = None  # what the arm would do, its stop included; None: not examined
    leg: Leg | None = None  # pursued on the way round keep-outs, or afresh; None: the goal itself was
    subgoal: Float32[np.ndarray, "D"] | None = None  # pursued on the way to a goal that is far; None: the goal itself was
    refused: str = ""  # why the cheapest motion examined was not taken, where this one stands still instead
    unmet: str = ""  # what of the goal's object, yaw, opening and contact does not hold now, with both values
    closed: Float[np.ndarray, "HK"] | None = None  # the gripper's command in each step, 0 open, 1 closed; None: it is not moved
    grip_force_n: float = float("nan")  # [N] that its fingers squeeze with at most; NaN: it is not moved, or not examined

    def closed_at(self, time_s: float) -> float | None:
        """The gripper's command in the step that this time lies in, after the last one the last; None where it is not moved."""
        if self.closed is None:
            return None
        return float(self.closed[min(int((time_s - self.stamp_s) / self.dt_s + 1e-6), len(self.closed) - 1)])


@dataclass(frozen=True)
class Candidate:
    """A trajectory offered to the guard, with what the guard needs to judge its age."""

    trajectory: Trajectory
    joint_names: tuple[str, ...]
    observation_stamp_s: float
    plan_stamp_s: float  # when planning finished
    model_id: str = ""
    grip: Grip | None = field(default=None, metadata={"since": "gripper force"})  # with the motion; None: it is not moved


class Reason(StrEnum):
    """Why the guard decided as it did. OK is the only one that lets a trajectory pass."""

    OK = "ok"
    NOT_FINITE = "not_finite"
    WRONG_JOINTS = "wrong_joints"
    MALFORMED = "malformed"
    DISCONTINUOUS = "discontinuous"
    POSITION_LIMIT = "position_limit"
    VELOCITY_LIMIT = "velocity_limit"
    ACCELERATION_LIMIT = "acceleration_limit"
    JERK_LIMIT = "jerk_limit"
    TORQUE_LIMIT = "torque_limit"
    TORQUE_RATE_LIMIT = "torque_rate_limit"
    TIP_SPEED_LIMIT = "tip_speed_limit"
    GRIPPER_FORCE = "gripper_force"
    # By the planner alone, for good motion, not for safety: near a singularity joints would have to be fast, and the guard looks
    # at the joints' limits themselves.
    SINGULAR = "singular"
    NO_TIME = "no_time"  # by the planner alone: the deadline left none for a plan
    WORKSPACE = "workspace"
    COLLISION = "collision"
    KEEP_OUT = "keep_out"  # by the guard of its own boxes, by the planner of a goal's too
    NOT_AT_REST = "not_at_rest"
    STALE_OBSERVATION = "stale_observation"
    STALE_PLAN = "stale_plan"
    STALE_STATE = "stale_state"
    BAD_STATE = "bad_state"
    WRONG_MODEL = "wrong_model"
    HELD = "held"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Verdict:
    """The guard's answer: the reason, and a sentence with both numbers in it."""

    reason: Reason
    detail: str = ""
    slowed: float = 1.0  # share of the speed asked for; below 1 when the guard slowed the candidate along its path

    @property
    def ok(self) -> bool:
        return self.reason is Reason.OK
