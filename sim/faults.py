"""What can go wrong on purpose: the one table of faults, and what the simulated driver's do to frames and states.

Knows no ROS and no clock: times are the simulation's and come from the caller, chance comes from the generator passed in.

    python -m sim.faults        prints docs/faults.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from foresight.data import RobotState

Frames = dict[str, UInt8[np.ndarray, "h w 3"]]  # RGB by camera


@dataclass(frozen=True)
class Kind:
    """One row of the table."""

    name: str
    where: Literal["process", "sim", "world_model"]  # what it happens to: a process of the graph, or what this node makes
    does: str
    then: str  # what the graph is to do about it


TABLE = (
    Kind("kill", "process", "SIGKILL to the process of a node.",
         "Noticed within 0.5 s, the arm at rest within 1 s, the node started anew, the graph back within 15 s."),
    Kind("freeze", "process", "SIGSTOP to the process of a node, SIGCONT after the duration.",
         "As kill; a process that stays frozen for 2 s is ended."),
    Kind("disk_full", "process", "Every file that the process writes fails to grow.",
         "What was being saved is absent, not half written; motion goes on."),
    Kind("camera_freeze", "sim", "Every camera repeats its last picture under new stamps.",
         "Perception reports it; the arm holds."),
    Kind("camera_black", "sim", "Every camera delivers black pictures.", "Perception reports it; the arm holds."),
    Kind("image_delay", "sim", "Frames arrive late by delay_s, with the stamps of their capture.",
         "Perception takes none that is too old, and says so; without plans the arm comes to rest on what it has."),
    Kind("packet_loss", "sim", "A share of all frames and joint states is lost. Commands are reliable: DDS sends them again.",
         "Motion goes on, slower; no limit is broken."),
    Kind("joint_nan", "sim", "Joint number `joint` is measured as NaN.", "Refused by name; the arm comes to rest."),
    Kind("joint_swap", "sim", "Joint number `joint` and the next are measured in each other's place.",
         "The guard sees a leap, or an arm that does not follow, and stops it."),
    Kind("clock_jump", "sim", "The clock and all stamps jump by jump_s, and back at the end.",
         "Noticed on the steady clock; the arm comes to rest. A command that is just on its way is read in the new time."),
    Kind("protective_stop", "sim", "The arm brakes and follows nothing; its program no longer runs.",
         "No plan is forwarded until it runs again; then the guard starts from the measured state."),
    Kind("controller_inactive", "sim", "The arm brakes; its trajectory controller is no longer active.",
         "As protective_stop."),
    Kind("speed_slider_zero", "sim", "The arm brakes; its speed slider stands at 0 %.", "As protective_stop."),
    Kind("gpu_oom", "world_model", "The next inference runs out of memory, once.",
         "One belief less, a complaint, and on it goes."),
    Kind("wrong_model", "world_model", "Beliefs carry the fingerprint of another model.",
         "The planner refuses them; the arm comes to rest."),
)  # fmt: skip
NAMES = tuple(kind.name for kind in TABLE)


@dataclass(frozen=True)
class Fault:
    """Base of what the simulated driver can do wrong; by itself it does nothing."""

    duration_s: float = 2.0  # [s] simulated

    def __post_init__(self) -> None:
        for f in fields(self):
            if not np.isfinite(getattr(self, f.name)):
                raise ValueError(f"{f.name} must be finite, got {getattr(self, f.name)}.")
        if not 0 < self.duration_s <= 3600:
            raise ValueError(f"duration_s must be above 0 and at most 3600 s, got {self.duration_s}.")

    def pictures(self, now: Frames, before: Frames) -> Frames:
        return now

    def measured(self, state: RobotState) -> RobotState:
        return state


@dataclass(frozen=True)
class CameraFreeze(Fault):
    def pictures(self, now: Frames, before: Frames) -> Frames:
        return before or now


@dataclass(frozen=True)
class CameraBlack(Fault):
    def pictures(self, now: Frames, before: Frames) -> Frames:
        return {camera: np.zeros_like(rgb) for camera, rgb in now.items()}


@dataclass(frozen=True)
class ImageDelay(Fault):
    delay_s: float = 0.4  # [s]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.delay_s <= 10:
            raise ValueError(f"delay_s must lie between 0 and 10 s, got {self.delay_s}.")


@dataclass(frozen=True)
class PacketLoss(Fault):
    share: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must lie between 0 and 1, got {self.share}.")


@dataclass(frozen=True)
class JointNan(Fault):
    joint: float = 0.0  # counted from 0 in the profile's order

    def measured(self, state: RobotState) -> RobotState:
        q = state.q.copy()
        q[_joint(self.joint, len(q))] = np.nan
        return replace(state, q=q)


@dataclass(frozen=True)
class JointSwap(Fault):
    joint: float = 0.0  # counted from 0 in the profile's order; swapped with the one after it

    def measured(self, state: RobotState) -> RobotState:
        order, j = np.arange(len(state.q)), _joint(self.joint, len(state.q) - 1)
        order[[j, j + 1]] = j + 1, j
        return replace(state, q=state.q[order], dq=state.dq[order])


@dataclass(frozen=True)
class ClockJump(Fault):
    jump_s: float = 1.0  # [s] forward; below 0 backward


@dataclass(frozen=True)
class Halt(Fault):
    """The arm's own driver brakes it, and follows no command while it lasts."""


class ProtectiveStop(Halt):
    pass


class ControllerInactive(Halt):
    pass


class SpeedSliderZero(Halt):
    pass


SIMULATED: dict[str, type[Fault]] = {
    "camera_freeze": CameraFreeze, "camera_black": CameraBlack, "image_delay": ImageDelay, "packet_loss": PacketLoss,
    "joint_nan": JointNan, "joint_swap": JointSwap, "clock_jump": ClockJump, "protective_stop": ProtectiveStop,
    "controller_inactive": ControllerInactive, "speed_slider_zero": SpeedSliderZero,
}  # fmt: skip


def fault(name: str, duration_s: float, values: Mapping[str, float]) -> Fault:
    """The fault by name; a duration of 0 means its default. Raises ValueError with what there is."""
    if name not in SIMULATED:
        raise ValueError(f"Fault '{name}' is unknown to the simulator. Available: {', '.join(SIMULATED)}.")
    known = [f.name for f in fields(SIMULATED[name]) if f.name != "duration_s"]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"Fault '{name}' has no parameter '{unknown[0]}'. It has: {', '.join(['duration_s', *known])}.")
    return SIMULATED[name](**({"duration_s": duration_s} if duration_s else {}), **values)


@dataclass
class Faults:
    """Those that are at work, and what is under way because of them."""

    rng: np.random.Generator
    _until: dict[str, tuple[Fault, float]] = field(default_factory=dict)
    _before: Frames = field(default_factory=dict)
    _late: list[tuple[float, float, Frames]] = field(default_factory=list)  # due, captured, frames

    def start(self, name: str, what: Fault, now_s: float) -> None:
        """One of a name at a time: a second one takes the first one's place."""
        self._until[name] = what, now_s + what.duration_s

    def at_work(self, now_s: float) -> dict[str, Fault]:
        self._until = {name: (what, until_s) for name, (what, until_s) in self._until.items() if now_s < until_s}
        return {name: what for name, (what, _) in self._until.items()}

    def halted_by(self, now_s: float) -> str | None:
        """The fault that keeps the arm from following commands, or None."""
        return next((name for name, what in self.at_work(now_s).items() if isinstance(what, Halt)), None)

    def clock_s(self, now_s: float) -> float:
        """By how much the clock is wrong [s]."""
        return sum(what.jump_s for what in self.at_work(now_s).values() if isinstance(what, ClockJump))

    def lost(self, now_s: float) -> bool:
        """Whether the next packet is lost."""
        return any(isinstance(what, PacketLoss) and self.rng.random() < what.share for what in self.at_work(now_s).values())

    def measured(self, state: RobotState, now_s: float) -> RobotState | None:
        """What arrives of a joint state; None when nothing does."""
        if self.lost(now_s):
            return None
        for what in self.at_work(now_s).values():
            state = what.measured(state)
        return state

    def frames(self, taken: Frames, now_s: float) -> list[tuple[float, Frames]]:
        """What arrives when these frames are taken: capture time and frames, oldest first."""
        delay_s, shown = 0.0, taken
        for what in self.at_work(now_s).values():
            shown = what.pictures(shown, self._before)
            delay_s = max(delay_s, what.delay_s if isinstance(what, ImageDelay) else 0.0)
        self._before = shown
        shown = {camera: rgb for camera, rgb in shown.items() if not self.lost(now_s)}
        due_s = max([now_s + delay_s, *(late[0] for late in self._late)])  # none overtakes another
        self._late.append((due_s, now_s, shown))
        due = [late for late in self._late if late[0] <= now_s + 1e-9]
        self._late = [late for late in self._late if late[0] > now_s + 1e-9]
        return [(captured_s, frames) for _, captured_s, frames in due]


def _joint(number: float, joints: int) -> int:
    if number != int(number) or not 0 <= number < joints:
        raise ValueError(f"joint must be a whole number from 0 to {joints - 1}, got {number}.")
    return int(number)


def page() -> str:
    """docs/faults.md."""
    lines = [
        "# Faults that can be set off on purpose",
        "",
        "In simulation, while `foresight up sim` runs:",
        "`foresight inject NAME [--node NODE] [--duration-s S] [--set parameter=value]`.",
        "The faults of the simulator are also the service `sim/inject`, those of the world model `world_model/inject`",
        "(`foresight_msgs/srv/Inject`). Made by `python -m sim.faults`.",
        "",
        "| fault | of | what it does | parameters | what follows |",
        "|---|---|---|---|---|",
    ]
    for kind in TABLE:
        own = [f for f in fields(SIMULATED[kind.name]) if f.name != "duration_s"] if kind.name in SIMULATED else []
        values = ", ".join(f"`{f.name}={f.default:g}`" for f in own)
        lines.append(f"| `{kind.name}` | {kind.where} | {kind.does} | {values} | {kind.then} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
