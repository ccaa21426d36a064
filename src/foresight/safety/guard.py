"""The last word before the arm moves: passes checked trajectories, refuses the rest with a reason, stops and stays stopped.

Knows the motion in force, because every command went through it. Refuses to know torch, ROS, clocks and models.
Not thread-safe by design: one thread owns it, so that no verdict is given on a motion another thread replaces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from foresight.control.braking import BrakingError, braking, coming_to
from foresight.control.trajectory import cut, derivatives, hold, sample, splice
from foresight.data import Candidate, Grip, Reason, RobotState, Trajectory, Verdict
from foresight.interfaces import MotionKinematics
from foresight.robots.profile import RobotProfile
from foresight.safety.checks import SAME_S, examine, examine_motion, following_refusal, state_refusal
from foresight.safety.collision import Scene
from foresight.safety.config import GuardConfig
from foresight.safety.decision import Situation
from foresight.safety.grip import JITTER, GripLimit
from foresight.safety.limits import Finding, findings
from foresight.safety.slowing import graded_share, mended, outrun, slowed, stop_along

SOONER_S = 0.015  # [s] by which a stop that leaves the path must rest sooner than one that does not
OUTSIDE_M = 0.005  # [m] beyond the workspace to which a stop takes the tip at most
OUTSIDE_S = 0.1  # [s] by which such a stop must rest sooner than one that keeps to the workspace
SOON_S = 0.005  # [s] by which a stop must rest sooner than what is in force, to be one
ASK_S = 0.02  # [s] after which a stop is sought again where none was found
RAMPS = 1.0, 2.0, 4.0  # of the usual time in which a candidate is slowed; the next where the last would need too much of a joint
RELIEF_SHARES = 1.0, 0.5, 0.25  # of the joints' speed in a relief; the next where the last would be too fast for the tip
RELIEF_RAD = 0.05  # [rad] that reliefs after the first go in all without a new plan: what hangs below its command would sink
RELIEF_JERK = 0.03  # of the jerk limit, for reliefs of robots with a limit of the torque's rate
ADOPTIONS = 10  # times that the way to adopt an arm is made slower, where it would break a limit
ADOPTED_S = 1e-3  # [s] that such a way takes at least
SLOWER = 0.98  # of its speed at least, each time
NOT_QUITE = 1.5  # times the jerk that seems right that a stop is tried with: what is found is of its worst instant
JERK_SHARES = 1.0, 0.3, 0.08, 0.04, 0.02  # of the jerk limit, for stops that would otherwise change a joint's torque too fast


@dataclass(frozen=True)
class Deviation:
    """How far the arm was from all that it had lately been told to do."""

    rad: float = 0.0  # [rad]
    stamp_s: float = -np.inf  # of the joint state that told it
    leapt: bool = False  # it came faster than an arm that is held can fall behind


class Guard:
    """Holds the motion in force, and the stop if there is one.

    At start-up nothing is in force: the first trajectory must start at rest where the arm was measured, and the controller is
    taken to hold it just there. Where it may hold another command, as on every real arm, it is first brought there by `adopt`.
    `in_force` is what the controller is to execute, with the last `history_s` of what it has executed; before its first point
    the controller is on its way there. After an OK verdict send `forward`, not the bare candidate: a controller goes straight
    from where it is to the first point that lies ahead, so a candidate that begins later would cut off what is in force until
    then. Nothing is clamped; the one repair is that a candidate that is a little too fast is slowed along its path, which the
    verdict says.
    """

    def __init__(
        self,
        profile: RobotProfile,
        kinematics: MotionKinematics | None,
        config: GuardConfig | None = None,
        expected_model_id: str | None = None,
        clearance: Callable[[Float[np.ndarray, "M J"]], Float[np.ndarray, "M"]] | None = None,
        scene: Scene | None = None,
        transport_s: float = 0.0,
    ) -> None:
        """`clearance` [m] of joint positions from obstacles slows motion near them; None: the scene's, where there is one.

        Without a scene collisions are not looked for. `transport_s`: what is sent may be so long on its way to the controller
        [s]; the guard's own motions begin that much later, and the first motion leaves it that long.
        """
        if kinematics is None and profile.model is not None:
            raise ValueError(f"Robot '{profile.name}' has a model; the guard needs its kinematics to check tip and torque.")
        self.profile, self.kinematics, self.config = profile, kinematics, config or GuardConfig()
        self.scene, self.transport_s = scene, transport_s
        self.clearance = scene.room if clearance is None and scene is not None else clearance
        self.expected_model_id = expected_model_id  # None: a plan of any model is judged
        self.in_force: Trajectory | None = None
        self.forward: Trajectory | None = None  # to send after an OK verdict: what is in force from then on
        self.stopped: str | None = None  # why, until reset; None while motion is allowed
        self.held: str | None = None  # why, until resumed; None while motion is allowed
        self.share_max = 1.0  # share of its speed that a candidate keeps at most
        self.last: Verdict | None = None
        self.counts: Counter[Reason] = Counter()
        self.reliefs = 0
        self.grip_limit = GripLimit.of(profile)
        self.gripping: tuple[Grip, float] | None = None  # what the gripper is to do, and from when [s]; None: stay as it is
        self.gripped: float | None = None  # its last command, 0 open, 1 closed; None: not known
        self._deviation = Deviation()
        self._yielded_rad = 0.0  # that reliefs have gone since the last accepted plan
        self._left: Float[np.ndarray, "J"] | None = None  # [rad] where the command stood that a stop made the guard forget
        self._stopped_at_s = 0.0
        self._stop_motion: Trajectory | None = None
        self._braked = False
        self._sought_s = -np.inf  # when a stop was last sought and none was found that rests sooner than what is in force
        self._remember()

    def succeed(self, other: Guard, now_s: float) -> None:
        """Takes over what another guard of the same robot has in force, while it goes on, and where it left the controller."""
        motion = other.in_force
        if motion is not None and now_s < motion.times_s[-1] <= now_s + self.config.duration_max_s / self.config.share_min:
            self.in_force, self._left = motion, other._left
        else:
            self._left = other._left if motion is None else motion.q[-1]
        self.gripped = other.gripped

    def offer(self, candidate: Candidate, state: RobotState | None, now_s: float) -> Verdict:
        """Judges a candidate; when it is OK it, or itself slowed, joins the motion in force from its first point on."""
        motion = None
        self._remember()
        self.last = self._latched(candidate, now_s)
        if self.last is None:
            self.last, motion = self._judge(candidate, state, now_s)
        self.counts[self.last.reason] += 1
        if motion is not None:
            self._put_in_force(motion, now_s)
            self._yielded_rad = 0.0
            if candidate.grip is None or self.gripping is None or candidate.grip != self.gripping[0]:
                self.gripping = candidate.grip and (candidate.grip, float(candidate.trajectory.times_s[0]))
        return self.last

    def grip(self, state: RobotState, now_s: float) -> float | None:
        """A new command for the gripper, 0 open, 1 closed, to be sent; None while its last one stays. Ask at each joint state.

        It runs ahead of the fingers as measured by what the grip's force allows, until they are where they should be. While
        motion is stopped or held, and where it is not known how far it is open, it keeps its last command and drops nothing.
        """
        if self.gripping is None or self.grip_limit is None or now_s + self.transport_s < self.gripping[1]:
            return None
        if state_refusal(state, self.profile, self.config, now_s) is not None:
            return None
        grip, last = self.gripping[0], self.gripped
        command = self.grip_limit.command(grip, state.opening)
        if command is None or command == last or (last is not None and abs(command - last) <= JITTER and command != grip.closed):
            return None
        self.gripped = command
        return command

    def situation(self, state: RobotState | None, now_s: float) -> Situation:
        """All that a verdict given now depends on, besides the candidate and what the guard was built with."""
        return Situation(now_s, state, self.in_force, self.stopped, self._stopped_at_s, self.held, self.share_max)

    def forget_grip(self) -> None:
        """Nobody knows any more how the gripper was left; it stays so until the next plan."""
        self.gripping = self.gripped = None

    def restore(self, situation: Situation) -> None:
        """As it was in that situation, for judging once more what it judged then."""
        self.in_force, self.stopped, self._stopped_at_s = situation.in_force, situation.stopped, situation.stopped_at_s
        self.held, self.share_max = situation.held, situation.share_max

    def _put_in_force(self, motion: Trajectory, now_s: float) -> None:
        self.forward, self.in_force = motion, splice(self.in_force, motion, now_s - self.config.history_s)

    def _remember(self) -> None:
        self._before = (
            self.in_force, self.forward, self.stopped, self._stopped_at_s, self._stop_motion, self.held, self._braked,
            self.gripping, self._yielded_rad,
        )  # fmt: skip

    def retract(self) -> None:
        """As before the last `offer`, `brake`, `stop` or relief, whose motion was not sent: it would have come too late.

        To be called before the clock moves again: then nothing is taken back.
        """
        self._sought_s = -np.inf
        (
            self.in_force, self.forward, self.stopped, self._stopped_at_s, self._stop_motion, self.held, self._braked,
            self.gripping, self._yielded_rad,
        ) = self._before  # fmt: skip

    def _latched(self, candidate: Candidate, now_s: float) -> Verdict | None:
        if self.stopped is not None:
            return Verdict(
                Reason.STOPPED, f"Stopped {now_s - self._stopped_at_s:.2f} s ago ({self.stopped}); reset before offering motion."
            )
        if self.held is not None:
            return Verdict(Reason.HELD, f"Motion is held: {self.held}")
        if self.expected_model_id is not None and candidate.model_id != self.expected_model_id:
            return Verdict(
                Reason.WRONG_MODEL, f"The plan comes from model '{candidate.model_id}', expected '{self.expected_model_id}'."
            )
        return None

    def _judge(self, candidate: Candidate, state: RobotState | None, now_s: float) -> tuple[Verdict, Trajectory | None]:
        """The verdict, and the motion to put in force when it is OK."""
        more = replace(self.config, points_max=2 * self.config.points_max, spacing_min_s=SAME_S)  # slowing adds some
        by = lambda config: lambda motion: self._examine(replace(candidate, trajectory=motion), state, now_s, config)  # noqa: E731
        found, trajectory, kept, why = self._examine(candidate, state, now_s), candidate.trajectory, 1.0, ""
        if not found.verdict.ok:
            slower = mended(trajectory, found, by(more), self.config)
            if slower is None:
                return found.verdict, None
            why = found.verdict.detail
            trajectory, found, kept = slower
        # Of a trajectory that began already only what is left was examined: its past may hold any numbers.
        motion = found.motion if trajectory.times_s[0] < now_s else trajectory
        near, delay_s = graded_share(motion, *self._nearness)
        share = min(near, self.share_max / kept)
        if share < 1:
            longer = replace(more, duration_max_s=more.duration_max_s / share)  # it is slower by our own word
            asked = self.share_max / kept < 1
            slower, share = self._gentler(motion, share, 0.0 if asked else delay_s, by(longer))
            where = "near a joint limit or an obstacle" if near < self.share_max / kept else "as long as the failsafe asks for it"
            said = f"Slowed to {kept * share:.2f} of its speed {where}"
            if slower.verdict.ok:
                join_s = max(float(trajectory.times_s[0]), now_s)
                gained = outrun(slower.motion, self.in_force, join_s, *self._nearness) if near < 1 else 1.0
                if gained > 1:
                    detail = f"it would first get {gained:.2f} times as fast as is allowed there, faster than what is in force."
                    return Verdict(Reason.VELOCITY_LIMIT, f"{said}, {detail}"), None
                return Verdict(Reason.OK, f"{said}. {why}".rstrip(), kept * share), slower.motion
            if asked:
                return replace(slower.verdict, detail=f"{said}: {slower.verdict.detail}"), None
            # A joint has nothing left for it; all limits hold.
            return Verdict(Reason.OK, f"Not slowed. {said}: {slower.verdict.detail}", kept), found.motion
        return (Verdict(Reason.OK, f"Slowed to {kept:.2f} of its speed. {why}", kept) if why else found.verdict), found.motion

    def _gentler(
        self, motion: Trajectory, share: float, delay_s: float, judge: Callable[[Trajectory], Finding]
    ) -> tuple[Finding, float]:
        """The motion at that share of its speed after `delay_s`, what is found of it, and the share.

        Slowing takes acceleration and jerk of its own: where a joint has too little left it is slowed earlier and longer, and at
        last slower as a whole.
        """
        for times in RAMPS:
            ramp_s = times * self.config.slow_ramp_s
            gentle = slowed(motion, share, ramp_s, delay_s - (ramp_s - self.config.slow_ramp_s))
            found = judge(gentle)
            if found.verdict.ok:
                return found, share
        slower = mended(gentle, found, judge, self.config)
        return (found, share) if slower is None else (slower[1], share * slower[2])

    def _examine(
        self, candidate: Candidate, state: RobotState | None, now_s: float, config: GuardConfig | None = None
    ) -> Finding:
        built = self.profile, self.kinematics, config or self.config
        return examine(candidate, self.in_force, state, *built, now_s, self.scene, self.transport_s)

    def _examine_own(self, motion: Trajectory, now_s: float, config: GuardConfig | None = None) -> Finding:
        built = self.profile, self.kinematics, config or self.config
        return examine_motion(motion, *built, now_s, self.scene, self.in_force)

    @property
    def _nearness(self) -> tuple:
        """What tells how slow a motion must be near joint limits and obstacles."""
        return self.profile, self.config, self._tip_speeds, self.clearance

    def _tip_speeds(self, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
        if self.kinematics is None:
            return np.zeros(len(q))
        return np.linalg.norm(self.kinematics.tip_motion(q, dq)[1], axis=1)

    def stop(
        self, detail: str, state: RobotState | None, now_s: float, on_sight: bool = False, ahead_s: float | None = None
    ) -> Trajectory | None:
        """Refuses all motion from now on and returns what brings the arm to rest, to be sent.

        It brakes from the command in force (holds when that is at rest). With nothing in force, and where the controller was
        left not known, it brakes the measured motion if there is any; without either there is nothing to stop and None is
        returned. A second stop returns the motion of the first. `on_sight`, `ahead_s`, and to be asked again: as for `brake`.
        """
        self._remember()
        if self.stopped is not None and (not self.unbraked(now_s) or now_s < self._sought_s + ASK_S):
            return self._stop_motion
        if self.stopped is None:
            self.stopped, self._stopped_at_s, self.gripping = detail, now_s, None
        seen = not on_sight or self._in_sight(state, now_s)
        self._stop_motion = self._begin(self._motion_to_rest(state, now_s, ahead_s), now_s) if seen else None
        return self._stop_motion

    def unbraked(self, now_s: float) -> bool:
        """Whether a stop holds that has not braked, out of sight or for want of one, and what is in force goes on."""
        moves = self.in_force is not None and now_s < self.in_force.times_s[-1]
        return self.stopped is not None and self._stop_motion is None and bool(moves)

    def brake(
        self, detail: str, state: RobotState | None, now_s: float, on_sight: bool = False, ahead_s: float | None = None
    ) -> Trajectory | None:
        """Refuses all motion until `resume`, and returns what brings the arm to rest, to be sent.

        None when nothing needs to be sent: at rest, braking already, or stopped. `on_sight`: only once the arm is measured
        where it is commanded, since it may have been put elsewhere; until then it goes on to the end of what is in force. So it
        does where no stop was found that rests sooner: ask again, one may be found a little later. The motion begins after
        `ahead_s` [s], by default `transport_s`.
        """
        if self.stopped is not None or self._braked or now_s < self._sought_s + ASK_S:
            return None
        self._remember()
        self.held, self.gripping = detail, None
        if self.in_force is None or now_s >= self.in_force.times_s[-1] or (on_sight and not self._in_sight(state, now_s)):
            return None
        motion = self._motion_to_rest(state, now_s, ahead_s)
        self._braked = motion is not None
        return self._begin(motion, now_s)

    def _begin(self, motion: Trajectory | None, now_s: float) -> Trajectory | None:
        """Puts the guard's own motion in force; returns what the controller is to execute from now on."""
        if motion is None:
            return None
        self._put_in_force(splice(self.in_force, motion, now_s), now_s)
        return self.forward

    def _in_sight(self, state: RobotState | None, now_s: float) -> bool:
        """Whether the arm is measured where it is commanded: as near as an arm that nothing holds."""
        if self.in_force is None:
            return self._at_rest(state, now_s)
        if state is None or state_refusal(state, self.profile, self.config, now_s) is not None:
            return False
        return self._apart(state) <= self.config.obstructed_rad

    def _at_rest(self, state: RobotState | None, now_s: float) -> bool:
        """Whether the arm is measured at rest, just now."""
        if state is None or state_refusal(state, self.profile, self.config, now_s) is not None:
            return False
        return following_refusal(state, None, self.profile, self.config) is None

    def _apart(self, state: RobotState) -> float:
        """How far [rad] the arm is measured from all that it was told in the last `lag_s`."""
        assert self.in_force is not None
        told = sample(self.in_force, np.linspace(state.stamp_s - self.config.lag_s, state.stamp_s, 11))[0]
        return float(np.maximum(told.min(0) - state.q, state.q - told.max(0)).max())

    def wait(self, detail: str) -> None:
        """Refuses all motion until `resume`; what is in force goes on to its end."""
        self.held, self.gripping = detail, None

    def resume(self) -> None:
        """Allows motion again after `brake` or `wait`."""
        self.held, self._braked, self._sought_s = None, False, -np.inf

    def settle(self, state: RobotState | None, now_s: float) -> bool:
        """Whether the arm is measured at rest and nothing is in force; forgets a commanded motion that has ended.

        After it the next trajectory must start where the arm was measured.
        """
        if self.in_force is not None and now_s < self.in_force.times_s[-1]:
            return False
        if not self._at_rest(state, now_s):
            return False
        self._leave()
        return True

    def _leave(self) -> None:
        """Nothing is in force any more; the controller is left at the last command."""
        if self.in_force is not None:
            self.in_force, self._left = None, self.in_force.q[-1]

    def forget_command(self) -> None:
        """With nothing in force: whoever put the arm elsewhere took the controller along, as a new simulated scene does."""
        self._left = None

    def adopt(self, state: RobotState | None, now_s: float) -> Trajectory | None:
        """With nothing in force: what brings the controller's command from wherever it stands to where the arm is, to be sent.

        One point, `adopt_s` ahead, to which a controller goes gently from its last command: an arm sags, or was held. Later where
        the command is known to have been left so far off that it would break a limit. A trajectory that begins sooner is refused,
        and a stop lets the command go on to the arm, which stands there already. None with something in force, while motion is
        stopped or held, and while the arm is not measured at rest.
        """
        if self.in_force is not None or self.stopped is not None or self.held is not None or not self._at_rest(state, now_s):
            return None
        end_s = now_s + self._adopting_s(state, now_s)
        q, self._left = np.array(state.q, dtype=np.float64)[None], None
        return self._begin(Trajectory(np.array([end_s]), q, np.zeros_like(q), np.zeros_like(q)), now_s)

    def _adopting_s(self, state: RobotState, now_s: float) -> float:
        """How long [s] a controller that was left elsewhere needs to where the arm is, within the limits of joints and tip."""
        lasts_s = self.config.adopt_s
        if self._left is None:
            return lasts_s
        ends, still = np.stack([self._left, state.q]), np.zeros((2, len(state.q)))
        for _ in range(ADOPTIONS):
            left_s = max(lasts_s - self.transport_s, ADOPTED_S)  # of it, when the controller gets it
            way = Trajectory(now_s + np.array([0.0, left_s]), ends, still, still)
            shares = [found.share for found in findings(way, self.profile, self.kinematics, self.config, now_s) if found.share]
            if not shares:  # what is left no slowing mends: where the arm was put
                break
            lasts_s /= min(SLOWER, *shares)
        return lasts_s

    def clock_moved(self, by_s: float) -> None:
        """The clock that trajectories are stamped on has jumped; what is in force goes on where it is."""
        moved = lambda m: None if m is None else replace(m, times_s=m.times_s + by_s)  # noqa: E731
        self.in_force, self.forward, self._stop_motion = map(moved, (self.in_force, self.forward, self._stop_motion))
        if self.gripping is not None:
            self.gripping = self.gripping[0], self.gripping[1] + by_s
        self._stopped_at_s += by_s
        self._remember()  # what was before is on the clock of before
        self._sought_s += by_s
        self._deviation = replace(self._deviation, stamp_s=self._deviation.stamp_s + by_s)

    def _motion_to_rest(self, state: RobotState | None, now_s: float, ahead_s: float | None) -> Trajectory | None:
        """None where there is none that rests sooner than what is in force."""
        begin_s = now_s + (self.transport_s if ahead_s is None else ahead_s)
        if self.in_force is None:
            return self._brake_measured(state, now_s, begin_s)
        end_s = self.in_force.times_s[-1]
        motion = self.stopping(begin_s)
        if begin_s >= end_s or motion.times_s[-1] <= end_s - SOON_S:
            return motion
        self._sought_s = now_s
        return None

    def stopping(self, now_s: float) -> Trajectory | None:
        """The motion that would bring the arm to rest if it had to stop now; None with nothing in force. Changes nothing.

        Along the path in force where its joints can stop on it as soon, else the quickest, else what is in force: each was
        checked like a candidate, the last one when it was put in force. The workspace alone does not outrank a stop: where none
        that keeps to it rests within OUTSIDE_S as soon, one that leaves it by OUTSIDE_M at most is taken.
        """
        if self.in_force is None:
            return None
        now_s = max(now_s, float(self.in_force.times_s[0]))  # what the controller is on its way to is at rest
        q, dq, ddq, _ = derivatives(self.in_force, now_s)
        if (np.abs(dq) <= self.config.rest_rad_s).all() and (np.abs(ddq) < 1e-6).all():
            return hold(q, now_s)
        outside: Trajectory | None = None  # the first that breaks nothing but the workspace
        gentle = 1.0  # share of the jerk limit at which a torque's rate, which goes with it, would have been within its limit
        for jerk_share in JERK_SHARES:
            if jerk_share > NOT_QUITE * gentle:
                continue
            gentle = 0.0
            for motion in self._ways_to_rest(q, dq, ddq, now_s, jerk_share):
                if motion.times_s[-1] > self.in_force.times_s[-1] - SOON_S:
                    continue  # what is in force does as well
                found = self._examine_own(motion, now_s)
                if found.verdict.ok:
                    late = outside is not None and motion.times_s[-1] > outside.times_s[-1] + OUTSIDE_S
                    return outside if late else motion
                if found.verdict.reason is Reason.WORKSPACE:
                    soft = replace(self.config, workspace_tolerance_m=max(OUTSIDE_M, self.config.workspace_tolerance_m))
                    found = self._examine_own(motion, now_s, soft)
                    outside = motion if outside is None and found.verdict.ok else outside
                if found.verdict.reason is Reason.TORQUE_RATE_LIMIT:  # whose share of the speed is its third root
                    gentle = max(gentle, jerk_share * found.share**3)
            if not gentle:
                break  # less jerk would not mend it
        return cut(self.in_force, now_s) if outside is None else outside

    def _ways_to_rest(self, q: np.ndarray, dq: np.ndarray, ddq: np.ndarray, now_s: float, jerk_share: float) -> list[Trajectory]:
        """Along the path and the quickest, in this order unless the quickest rests much sooner."""
        along = stop_along(self.in_force, now_s, self.profile, jerk_share)
        try:
            quickest = braking(q, dq, replace(self.profile, jerk_max=jerk_share * self.profile.jerk_max), now_s, ddq)
        except BrakingError:
            return [] if along is None else [along]
        if along is None:
            return [quickest]
        sooner_s = float(along.times_s[-1] - quickest.times_s[-1])
        return [quickest, along] if sooner_s > SOONER_S else [along, quickest]

    def _brake_measured(self, state: RobotState | None, now_s: float, begin_s: float) -> Trajectory | None:
        """With nothing in force: brakes an arm that something else moves, from where it will be by then.

        Not where the controller is known to have been left: it rests there, and a command from elsewhere would make it leap.
        """
        if self._left is not None or state is None or state_refusal(state, self.profile, self.config, now_s) is not None:
            return None  # no ground to command anything
        speed = np.abs(state.dq)
        if (speed <= self.config.measured_rest_rad_s).all() or not (speed <= self.profile.velocity_max).all():
            return None  # it rests; or no arm is so fast, and such a velocity was not measured
        try:
            motion = braking(state.q + (begin_s - state.stamp_s) * state.dq, state.dq, self.profile, begin_s)
        except BrakingError:
            return None
        inside = (motion.q >= self.profile.position_min) & (motion.q <= self.profile.position_max)
        return motion if inside.all() else None  # too late: nothing is commanded where no joint can be

    def relieve(self, state: RobotState, now_s: float) -> Trajectory | None:
        """What takes the command back to where the arm is, to be sent, when something keeps it from following; else None.

        A position servo presses the harder the further the command runs ahead, and the arm leaps when what held it gives way. The
        measured position is compared with all that was commanded in the last `lag_s`, so an arm that merely lags is not held.
        """
        if self.in_force is None or now_s < self.in_force.times_s[0]:  # its command is on its way to the arm already
            self._deviation = Deviation()
            return None
        if state_refusal(state, self.profile, self.config, now_s) is not None:
            return None
        apart, before, speed = self._apart(state), self._deviation, self.profile.joint_speed_max
        since_s = min(max(0.0, state.stamp_s - before.stamp_s), self.config.lag_s)
        leapt = bool(apart - before.rad > speed * since_s + self.config.obstructed_rad)
        obstructed = apart > self.config.obstructed_rad
        self._deviation = Deviation(apart, float(state.stamp_s), obstructed and (before.leapt or leapt))
        if not obstructed or self._deviation.leapt or apart > self.config.tracking_error_max_rad:
            return None  # an arm that is elsewhere all at once, or far, is not held: it was put there
        begin_s = now_s + self.transport_s
        q, dq, ddq, _ = derivatives(self.in_force, begin_s)
        back_rad = float(np.abs(state.q - q).max())
        self._remember()
        if self._yielded_rad and self._yielded_rad + back_rad > RELIEF_RAD:
            return None
        gentle = self.profile
        if gentle.torque_rate_max is not None:  # joints that are not synchronised, as here, all change their torque at once
            gentle = replace(gentle, jerk_max=RELIEF_JERK * gentle.jerk_max)
        for share in RELIEF_SHARES:
            try:
                motion = coming_to(state.q, q, dq, ddq, gentle, share * self.config.relief_rad_s, begin_s)
            except BrakingError:
                return None
            if self._examine_own(motion, now_s).verdict.ok:
                self.reliefs += 1
                self._yielded_rad += back_rad
                self._begin(motion, now_s)
                if self.stopped is not None:
                    self._stop_motion = self.forward
                return self.forward
        return None

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
                self._leave()
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
            self._leave()
        return bad or Verdict(Reason.OK, "Nothing is in force; the next motion starts where the arm was measured.")
