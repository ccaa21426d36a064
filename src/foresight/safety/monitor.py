"""From what was heard to the failsafe's flags, each with a sentence. Knows no ROS and owns no clock: the caller says when.

Does no image work: what is wrong with a camera is perception's word.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from foresight.data import Reason, RobotState, Trajectory, Verdict
from foresight.robots.profile import RobotProfile
from foresight.safety.checks import following_refusal, state_refusal
from foresight.safety.failsafe import Flags
from foresight.safety.guard import Guard
from foresight.safety.watchdog import NEVER, Moment, Unread, Watchdog

CAMERAS = {"frozen_stamp": "camera_stamps_frozen", "frozen_camera": "camera_frozen", "dark_camera": "camera_dark"}
ZERO_PERCENT, FULL_PERCENT = 0.1, 99.9  # of the speed slider, up to which it stands at zero, and from which on at its end
BEATS_S = 0.03  # [s] of silence that a heartbeat of 100 Hz is granted at least
OWN = (Reason.HELD, Reason.STOPPED)  # refusals that say nothing about the plan


@dataclass(frozen=True)
class MonitorConfig:
    """When a source counts as silent, and a measurement as odd."""

    command_timeout_s: float = 0.1  # [s] T_cmd: from the planner's last heartbeat to the begin of braking; 0.04 to 0.5
    observation_age_s: float = 0.5  # [s] since the last observation, in motion
    belief_age_s: float = 0.5  # [s] since the last belief, in motion
    plan_age_s: float = 0.5  # [s] since the last plan, in motion
    graph_age_s: float = 0.36  # [s] real time since the lifecycle manager, where there is one, last said that all are active
    clock_jump_s: float = 0.05  # [s] within a second, of the ROS clock against the steady clock
    state_leap: float = 3.0  # times the joint's greatest speed at which a measured position has leapt
    state_leap_rad: float = 0.05  # [rad] that a measured position may change beyond that
    obstructed_s: float = 0.1  # [s] since the guard last yielded to what holds the arm, for which it counts as held
    near_limit_rad: float = 0.1  # [rad] from the end of a joint's range within which plans are slowed
    refusals_max: int = 10  # plans refused in a row before motion is held
    refusals_s: float = 0.5  # [s] between two refusals that count as in a row
    camera_report_s: float = 3.0  # [s] for which perception's last word on the cameras holds

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not np.isfinite(value) or value <= 0:
                raise ValueError(f"MonitorConfig.{f.name} must be finite and greater than 0, got {value}.")
        if not 0.04 <= self.command_timeout_s <= 0.5:
            raise ValueError(f"MonitorConfig.command_timeout_s must lie between 0.04 and 0.5 s, got {self.command_timeout_s}.")


@dataclass(frozen=True)
class Driver:
    """What the robot's driver says of itself; None where it has not said it yet, True or 100 where nobody is to be asked."""

    controller_active: bool | None = True
    program_running: bool | None = True
    speed_scaling: float | None = 100.0  # [%]
    controller_wrong: str = ""  # why the trajectory controller must not be commanded


class Monitor:
    """Collects what the guard's node hears, and says which conditions stand."""

    def __init__(
        self, profile: RobotProfile, config: MonitorConfig, state_age_max_s: float, driver: Driver = Driver(), lead_s: float = 0.0
    ) -> None:
        """`lead_s`: from a decision to brake until the controller begins to [s]."""
        self.profile, self.config, self.driver = profile, config, driver
        silence_s = config.command_timeout_s - lead_s
        self._unread = Unread(max(0.0, silence_s - BEATS_S))
        self.watchdog = Watchdog(
            {
                "heartbeat": silence_s,
                "state": state_age_max_s,
                "observation": config.observation_age_s,
                "belief": config.belief_age_s,
                "plan": config.plan_age_s,
                "graph": config.graph_age_s,
            },
            steady=("graph",),
        )
        self.state: RobotState | None = None  # the last good one
        self._bad_state = ""  # what is wrong with the last joint state
        self._leap = ""
        self._jump_s = 0.0
        self._camera, self._camera_at = ("", ""), NEVER
        self._refusals, self._refused_at = 0, NEVER
        self._relieved_at = NEVER
        self._astray: tuple[RobotState | None, Trajectory | None, str] = (None, None, "")  # last looked at, and what was found

    # -- what is heard ------------------------------------------------------------------------------------------------

    def heard_heartbeat(self, stamp_s: float, clock_s: float | None, now: Moment) -> None:
        """A heartbeat counts from when it came, not from when a busy reader got to it.

        `clock_s`: the time that its stamp belongs to; None where that does not tell, as with simulated time.
        """
        waited_s = 0.0 if clock_s is None else self._unread.waited_s(stamp_s, clock_s)
        self.watchdog.seen("heartbeat", Moment(now.steady_s - waited_s, now.time_s - waited_s))

    def heard_state(self, state: RobotState, now: Moment) -> None:
        """A joint state with the joints that it should have."""
        if not (np.isfinite(state.q).all() and np.isfinite(state.dq).all() and np.isfinite(state.stamp_s)):
            self.heard_bad_state("Joint states come with numbers that are not finite.")
            return
        self._bad_state = ""
        if not self.watchdog.seen("state", now, state.stamp_s):
            return
        before, self.state = self.state, state
        if before is not None:
            apart_s = abs(state.stamp_s - before.stamp_s)  # of messages that came out of order, too
            allowed = self.config.state_leap * self.profile.velocity_max * apart_s
            beyond = np.abs(state.q - before.q) - allowed
            j = int(np.argmax(beyond))
            if beyond[j] > self.config.state_leap_rad:
                self._leap = (
                    f"{self.profile.joint_names[j]} was measured at {before.q[j]:.3f} rad and at {state.q[j]:.3f} rad "
                    f"{apart_s:.3f} s {'later' if state.stamp_s > before.stamp_s else 'earlier'}."
                )

    @property
    def leapt(self) -> bool:
        """Whether the measured position has leapt since the flags were last asked for."""
        return bool(self._leap)

    def heard_bad_state(self, detail: str) -> None:
        """A joint state of which nothing can be used."""
        self._bad_state = detail

    def heard_camera(self, refusal: str, detail: str, now: Moment) -> None:
        """Perception's word on its sources: its reason not to observe (perception.RefusalReason), empty when it does."""
        self._camera, self._camera_at = (CAMERAS.get(refusal, ""), detail), now

    def relieved(self, now: Moment) -> None:
        """The guard has just taken its command back to an arm that something holds."""
        self._relieved_at = now

    def decided(self, verdict: Verdict, now: Moment) -> None:
        """What became of a plan."""
        if verdict.ok:
            self._refusals = 0
        elif verdict.reason not in OWN:
            self._refusals = 1 + (self._refusals if now.since(self._refused_at) <= self.config.refusals_s else 0)
            self._refused_at = now

    def clock_jumped(self, jump_s: float) -> None:
        """The ROS clock has moved; joint states from before it say nothing about now."""
        self._jump_s, self.state = jump_s, None

    # -- what stands --------------------------------------------------------------------------------------------------

    def flags(self, guard: Guard, now: Moment, clock_s: float, stopping: bool, simulated: bool) -> tuple[Flags, dict[str, str]]:
        """The conditions that stand, and a sentence for each. `clock_s` is the ROS clock, which stamps are on.

        Reports a leap or a jump once. `stopping`: a stop is on, after which the arm must be measured at rest.
        """
        old = state_refusal(self.state, self.profile, guard.config, clock_s)
        found = {
            **self._clock(simulated),
            **self._driver(),
            **self._arm(guard, now, stopping, seen=old is None),
            **self._sources(guard, now, clock_s, old),
        }
        self._jump_s, self._leap = 0.0, ""
        return Flags(**dict.fromkeys(found, True)), found

    def _clock(self, simulated: bool) -> dict[str, str]:
        if not self._jump_s:
            return {}
        if simulated and self._jump_s < 0:
            return {"simulator_reset": f"Simulated time went back by {-self._jump_s:.3f} s."}
        detail = f"The ROS clock moved by {self._jump_s:.3f} s against the steady clock, allowed {self.config.clock_jump_s} s."
        return {"clock_jumped": detail}

    def _driver(self) -> dict[str, str]:
        driver, found = self.driver, {}
        if not driver.controller_active:
            found["controller_inactive"] = _said("The trajectory controller", "is not active", driver.controller_active)
        if driver.controller_wrong:
            found["controller_inactive"] = driver.controller_wrong
        if not driver.program_running:
            found["program_stopped"] = _said("The robot's program", "does not run", driver.program_running)
        scaling = driver.speed_scaling
        if scaling is None or not scaling > ZERO_PERCENT:
            found["speed_slider_zero"] = _said("The robot's speed slider", f"stands at {scaling} %", scaling)
        elif scaling < FULL_PERCENT:
            found["speed_scaled"] = (
                f"The robot's speed slider stands at {scaling:.4g} %, 100 % is needed: the arm would go on while the guard "
                "takes it to be at rest. The guard caps the speed itself (profile: joint_speed_max, tip_speed_max)."
            )
        return found

    def _arm(self, guard: Guard, now: Moment, stopping: bool, seen: bool) -> dict[str, str]:
        """What the measured arm does: leap, go elsewhere, be kept from its command, come near a limit."""
        found = {"state_jumped": self._leap} if self._leap else {}
        if stopping and guard.in_force is not None:
            found["not_at_rest"] = "The arm has not been measured at rest since the stop."
        state = self.state
        if state is None or not seen:
            return found
        if self._astray[0] is not state or self._astray[1] is not guard.in_force:  # asked far more often than either changes
            astray = following_refusal(state, guard.in_force, self.profile, guard.config)
            self._astray = state, guard.in_force, astray.detail if astray else ""
        if self._astray[2]:
            found["not_following"] = self._astray[2]
        if now.since(self._relieved_at) <= self.config.obstructed_s:
            found["obstructed"] = "Something holds the arm; its command goes back to where it is."
        room = np.minimum(state.q - self.profile.position_min, self.profile.position_max - state.q)
        j = int(np.argmin(room))
        if room[j] < self.config.near_limit_rad:
            found["near_limit"] = (
                f"{self.profile.joint_names[j]} is {room[j]:.3f} rad from its limit; "
                f"full speed needs {self.config.near_limit_rad} rad."
            )
        return found

    def _sources(self, guard: Guard, now: Moment, clock_s: float, old: Verdict | None) -> dict[str, str]:
        """Who has fallen silent; `old` is what is wrong with the last good joint state."""
        found, in_motion = {}, guard.in_force is not None and clock_s < guard.in_force.times_s[-1]
        silent = {s.name: s for s in self.watchdog.silent(now)}
        if "heartbeat" in silent:
            found["heartbeat_lost"] = _silence("heartbeat of the planner", *silent["heartbeat"][1:])
        if "graph" in silent and self.watchdog.known("graph"):
            found["graph_inactive"] = _silence("word of the lifecycle manager that every node is active", *silent["graph"][1:])
        if self._bad_state:
            found["state_invalid"] = self._bad_state
        if "state" in silent and self.watchdog.repeats["state"]:
            found["state_stamps_frozen"] = f"Joint states repeat their stamp ({self.watchdog.repeats['state']} times)."
        elif "state" in silent:
            found["state_stale"] = _silence("joint state", *silent["state"][1:])
        elif old is not None:
            found["state_stale"] = old.detail
        if self._camera[0] and now.since(self._camera_at) <= self.config.camera_report_s:
            found[self._camera[0]] = self._camera[1]
        for name in ("observation", "belief", "plan"):
            if in_motion and name in silent and self.watchdog.known(name):  # plans carry their own ages; this sees it sooner
                found[f"{name}_stale"] = _silence(name, *silent[name][1:])
        if self._refusals >= self.config.refusals_max and now.since(self._refused_at) <= self.config.refusals_s:
            found["plan_refused_repeatedly"] = (
                f"{self._refusals} plans were refused in a row, allowed {self.config.refusals_max - 1}."
            )
        return found


def _silence(what: str, age_s: float, limit_s: float) -> str:
    if np.isinf(age_s):
        return f"No {what} yet, one every {limit_s:.3g} s is needed."
    return f"No {what} for {age_s:.3f} s, allowed {limit_s:.3g} s."


def _said(who: str, what: str, value: object) -> str:
    return f"{who} has not been heard of." if value is None else f"{who} {what}."
