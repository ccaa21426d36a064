"""The last word before the arm moves: passes checked trajectories, refuses the rest with a reason, stops and stays stopped.

Knows the motion in force, because every command went through it. Refuses to know torch, ROS, clocks and models.
Not thread-safe by design: one thread owns it, so that no verdict is given on a motion another thread replaces.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from foresight.control.braking import BrakingError, braking, coming_to
from foresight.control.trajectory import derivatives, hold, sample, splice
from foresight.data import Candidate, Reason, RobotState, Trajectory, Verdict
from foresight.interfaces import Kinematics
from foresight.robots.profile import RobotProfile
from foresight.safety.checks import check, following_refusal, state_refusal
from foresight.safety.config import GuardConfig


class Guard:
    """Holds the motion in force, and the stop if there is one.

    At start-up nothing is in force: the first trajectory must start at rest where the arm was measured. `in_force`
    is what the controller is to execute, with the last `history_s` of what it has executed. Send that, not the bare
    candidate: a controller goes straight from where it is to the first point that lies ahead, so a candidate that
    begins later would cut off what is in force until then.
    """

    def __init__(
        self,
        profile: RobotProfile,
        kinematics: Kinematics,
        config: GuardConfig | None = None,
        expected_model_id: str | None = None,
    ) -> None:
        self.profile, self.kinematics, self.config = profile, kinematics, config or GuardConfig()
        self.expected_model_id = expected_model_id  # None: a plan of any model is judged
        self.in_force: Trajectory | None = None
        self.stopped: str | None = None  # why; None while motion is allowed
        self.last: Verdict | None = None
        self.counts: Counter[Reason] = Counter()
        self.reliefs = 0
        self._stopped_at_s = 0.0
        self._stop_motion: Trajectory | None = None

    def offer(self, candidate: Candidate, state: RobotState | None, now_s: float) -> Verdict:
        """Judges a candidate; when it is OK it joins the motion in force from its first point on."""
        self.last = self._judge(candidate, state, now_s)
        self.counts[self.last.reason] += 1
        if self.last.ok:
            self.in_force = splice(self.in_force, candidate.trajectory, now_s - self.config.history_s)
        return self.last

    def _judge(self, candidate: Candidate, state: RobotState | None, now_s: float) -> Verdict:
        if self.stopped is not None:
            return Verdict(
                Reason.STOPPED, f"Stopped {now_s - self._stopped_at_s:.2f} s ago ({self.stopped}); reset before offering motion."
            )
        if self.expected_model_id is not None and candidate.model_id != self.expected_model_id:
            return Verdict(
                Reason.WRONG_MODEL, f"The plan comes from model '{candidate.model_id}', expected '{self.expected_model_id}'."
            )
        return check(candidate, self.in_force, state, self.profile, self.kinematics, self.config, now_s)

    def stop(self, detail: str, state: RobotState | None, now_s: float) -> Trajectory | None:
        """Refuses all motion from now on and returns the motion that brings the arm to rest.

        It brakes from the command in force (holds when that is at rest). With nothing in force it brakes the measured
        motion if there is any; with neither there is nothing to stop and None is returned. A second stop returns the
        motion of the first.
        """
        if self.stopped is not None:
            return self._stop_motion
        self.stopped, self._stopped_at_s = detail, now_s
        self._stop_motion = self._motion_to_rest(state, now_s)
        if self._stop_motion is not None:
            self.in_force = splice(self.in_force, self._stop_motion, now_s - self.config.history_s)
        return self._stop_motion

    def _motion_to_rest(self, state: RobotState | None, now_s: float) -> Trajectory | None:
        if self.in_force is not None:
            q, dq, ddq, _ = derivatives(self.in_force, now_s)
        elif state is None or state_refusal(state, self.profile, self.config, now_s) is not None:
            return None  # no ground to command anything
        elif (np.abs(state.dq) <= self.config.measured_rest_rad_s).all():
            return None
        else:
            q, dq, ddq = state.q, state.dq, np.zeros(len(state.q))
        if (np.abs(dq) <= self.config.rest_rad_s).all() and (np.abs(ddq) < 1e-6).all():
            return hold(q, now_s)
        try:
            return braking(q, dq, self.profile, now_s, ddq)
        except BrakingError:
            return hold(q, now_s)  # harsher than braking, and still a stop

    def relieve(self, state: RobotState, now_s: float) -> Trajectory | None:
        """The motion that takes the command back to where the arm is, when something keeps it from following; else None.

        A position servo presses the harder the further the command runs ahead, and the arm leaps when what held it gives way. The measured
        position is compared with all that was commanded in the last `lag_s`, so an arm that merely lags is not held.
        """
        if self.in_force is None or state_refusal(state, self.profile, self.config, now_s) is not None:
            return None
        commanded = sample(self.in_force, np.linspace(state.stamp_s - self.config.lag_s, state.stamp_s, 11))[0]
        apart = float(np.maximum(commanded.min(0) - state.q, state.q - commanded.max(0)).max())
        if not self.config.obstructed_rad < apart <= self.config.tracking_error_max_rad:  # further off it is not held, but elsewhere
            return None
        q, dq, ddq, _ = derivatives(self.in_force, now_s)
        try:
            motion = coming_to(state.q, q, dq, ddq, self.profile, self.config.relief_rad_s, now_s)
        except BrakingError:
            return None
        self.in_force = splice(self.in_force, motion, now_s - self.config.history_s)
        self.reliefs += 1
        return motion

    def reset(self, now_s: float, state: RobotState | None = None) -> Verdict:
        """Allows motion again: not within the cool-down, and not while the arm still moves.

        If the measured state says that the arm is no longer where its last command left it (a person moved it), that
        command is forgotten, and the next trajectory must start where the arm was measured.
        """
        if self.stopped is None:
            return Verdict(Reason.OK, "Not stopped.")
        since = now_s - self._stopped_at_s
        if not since >= self.config.reset_cooldown_s:
            return Verdict(
                Reason.STOPPED, f"Stopped {since:.3f} s ago, a reset is possible after {self.config.reset_cooldown_s} s."
            )
        if self.in_force is not None and now_s < self.in_force.times_s[-1]:
            return Verdict(
                Reason.STOPPED, f"Still braking: at rest in {self.in_force.times_s[-1] - now_s:.3f} s, a reset needs 0 s."
            )
        if state is not None:
            bad = state_refusal(state, self.profile, self.config, now_s)
            if bad is not None:
                return bad
            speed = float(np.abs(state.dq).max())
            if speed > self.config.measured_rest_rad_s:
                return Verdict(
                    Reason.STOPPED,
                    f"The arm still moves at {speed:.4f} rad/s, a reset needs {self.config.measured_rest_rad_s} rad/s.",
                )
            if following_refusal(state, self.in_force, self.profile, self.config) is not None:
                self.in_force = None
        self.stopped, self._stop_motion = None, None
        return Verdict(Reason.OK, f"Reset {since:.2f} s after the stop.")

    def start_afresh(self, now_s: float, state: RobotState | None) -> Verdict:
        """As at start-up: nothing is in force, and the next trajectory must start at rest where the arm was measured.

        For an arm that was put somewhere else, by hand or by a new simulated scene. Refused while a commanded motion goes
        on, while the arm is measured moving, and while a stop holds.
        """
        if self.stopped is not None:
            return Verdict(Reason.STOPPED, f"Stopped ({self.stopped}); reset first.")
        if self.in_force is not None and now_s < self.in_force.times_s[-1]:
            return Verdict(
                Reason.BAD_STATE,
                f"A motion is in force for another {self.in_force.times_s[-1] - now_s:.3f} s; wait 0 s for its end.",
            )
        bad = state_refusal(state, self.profile, self.config, now_s) or following_refusal(state, None, self.profile, self.config)
        if bad is None:
            self.in_force = None
        return bad or Verdict(Reason.OK, "Nothing is in force; the next motion starts where the arm was measured.")
