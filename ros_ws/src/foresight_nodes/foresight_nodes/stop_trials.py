"""One lane of stop trials: a simulated arm of one robot, the real guard process, and planners that are killed at full speed.

    python -m foresight_nodes.stop_trials CONFIG_JSON       prints one JSON line a trial

The judge is the simulation's true state at 500 Hz. `foresight bench faults` runs several lanes side by side.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from foresight_bringup.processes import ending_with_parent
from foresight_msgs.msg import GuardState
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from trajectory_msgs.msg import JointTrajectory

from foresight.data import Candidate, RobotState
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile, load_profile
from foresight.safety.collision import Scene
from foresight.safety.guard import Guard
from foresight_nodes import convert, topics
from foresight_nodes.full_speed_planner import ROUND_TRIPS, Swing, swinging
from foresight_nodes.run import make_executor, share_no_memory
from foresight_nodes.transitions import Managed
from sim.arm import STEP_S, ArmSimulation

Signal = Literal["kill", "freeze", "guard"]
REST_RAD_S = 0.02  # [rad/s] a joint at rest is slower
ALLOWANCE_S = 0.02  # [s] beside T_cmd and v/a
SETTLE_S = 0.15  # [s] after the end of a trajectory at which an arm that follows it is at rest
ROOM_RAD = 0.4  # [rad] that every joint keeps from its limits
QUIET_S = 0.1  # [s] of rest that end a trial
FAST = 0.95  # of the swing's top speed; the signal is sent above it
STATES_S = 0.008  # [s] between joint states
CATCH_UP_S = 0.05  # [s] simulated in one turn at most, so that a machine that is too slow is noticed
STALL_S = 0.02  # [s] by which the judge may be late during a trial; one in which it was later is run again
PATIENCE_S = 60.0  # [s] for the guard to be there, for the arm to be fast
JUDGE_PRIORITY = 40  # the guard asks for 50
MATCH_S = 8.0  # [s] for a planner that has loaded to be matched: discovery takes 4 at most, or never comes
TRIES = 10  # planners that are started for one trial at most
POOL = 3  # planners kept waiting
SMALL_RAD = 0.1  # [rad] of the swings in which round trips are measured


class TrialError(RuntimeError):
    """A trial could not be run; the message is one line."""


@dataclass(frozen=True)
class LaneConfig:
    """What one lane runs."""

    robot: str
    kill: int
    freeze: int
    guard: int  # trials in which the guard itself is killed
    seed: int
    round_trip_s: float = 0.0  # [s] of undisturbed planning in which round trips are measured
    round_trip_hz: float = 10.0  # plans a second meanwhile
    command_timeout_s: float = 0.1  # [s] T_cmd of the guard


@dataclass(frozen=True)
class Trial:
    """What became of one signal."""

    robot: str
    signal: Signal
    rest_s: float  # [s] from the signal to rest
    bound_s: float  # [s] allowed
    speed: float  # [rad/s] of the fastest joint at the signal
    violations: tuple[str, ...]
    stalls: int  # runs thrown away before, because the judge itself was late
    unmatched: int  # planners that DDS did not match in time, replaced before

    @property
    def stopped(self) -> bool:
        return self.rest_s <= self.bound_s


def bound_s(profile: RobotProfile, command_timeout_s: float) -> float:
    """T_cmd + v/a + 20 ms, with the speed that the arm is allowed and the acceleration of its weakest joint [s]."""
    speed = np.minimum(profile.velocity_max, profile.joint_speed_max)
    return command_timeout_s + float((speed / profile.acceleration_max).max()) + ALLOWANCE_S


def find_swing(profile: RobotProfile, seed: int) -> Swing:
    """From near home, passed by the guard as it is both ways, the last joint near its speed cap. Raises TrialError."""
    rng, kinematics, scene = np.random.default_rng(seed), MujocoKinematics(profile), Scene(profile)
    home = np.clip(profile.home, profile.position_min + ROOM_RAD, profile.position_max - ROOM_RAD)  # nearer motion is slowed
    speed = 0.97 * float(min(profile.joint_speed_max, profile.velocity_max[-1]))
    room = profile.position_max[-1] - home[-1], home[-1] - profile.position_min[-1]
    for share in np.linspace(1.0, 0.0, 60):
        way = share * rng.uniform(-0.3, 0.3, len(home))
        way[-1] = (1.0 if room[0] > room[1] else -1.0) * min(1.8, 0.8 * max(room))
        ends = np.array([home, home + way])
        if all(_passes(ends[i], ends[1 - i], speed, profile, kinematics, scene) for i in (0, 1)):
            return Swing(ends, speed)
    raise TrialError(f"No swing near home at {speed:.2f} rad/s passes the guard of {profile.name}.")


def _passes(
    begin: np.ndarray, end: np.ndarray, speed: float, profile: RobotProfile, kinematics: MujocoKinematics, scene: Scene
) -> bool:
    still, guard = np.zeros_like(begin), Guard(profile, kinematics, scene=scene)
    motion = swinging(end, begin, still, still, profile, speed, 1.1)
    verdict = guard.offer(Candidate(motion, profile.joint_names, 0.95, 1.0), RobotState(1.0, begin, still), 1.0)
    return verdict.ok and verdict.slowed == 1.0


class Lane(Node):
    """The arm, and what drives it. `turn` keeps it at real time and serves messages; all else calls that while it waits."""

    def __init__(self, config: LaneConfig) -> None:
        super().__init__("arm")
        self.config, self.profile = config, load_profile(config.robot)
        self.swing = find_swing(self.profile, config.seed)
        self.rng = np.random.default_rng(config.seed)
        self._executor = make_executor()
        self._executor.add_node(self)
        self._states = topics.JOINT_STATES.publisher(self)
        topics.trajectory(self.profile.controller_topic).subscription(self, self._on_command)
        self._guard_says = "not heard of."
        topics.GUARD_STATE.subscription(self, self._on_guard_state)
        self._planners: deque[subprocess.Popen] = deque()
        self._guard_process: subprocess.Popen | None = None
        self.moving_s = self.late_s = 0.0
        self.unmatched = 0
        self._wall_s, self._mono_s = time.time(), time.monotonic()
        self.arm = ArmSimulation(self.profile, start_s=self._wall_s)
        self._published_s = 0.0

    # -- time ---------------------------------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Wall time that does not jump: what stamps are on and what the arm's time follows."""
        return self._wall_s + (time.monotonic() - self._mono_s)

    def turn(self) -> None:
        """Physics towards now, each step judged; then messages."""
        now_s = self.now_s()
        self.late_s = max(self.late_s, now_s - self.arm.time_s)
        until_s = min(now_s, self.arm.time_s + CATCH_UP_S)
        while self.arm.time_s + STEP_S <= until_s:
            self.arm.advance(STEP_S)
            if np.abs(self.arm.data.qvel).max() >= REST_RAD_S:
                self.moving_s = self.arm.time_s
            if self.arm.time_s - self._published_s >= STATES_S - 1e-6:
                self._published_s = self.arm.time_s
                self._states.publish(convert.robot_state_to_msg(self.arm.state(), self.profile.joint_names))
        self._executor.spin_once(timeout_sec=0.001)

    def until(self, holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        end_s = time.monotonic() + patience_s
        while not holds():
            if time.monotonic() > end_s:
                raise TrialError(f"{self.profile.name}: not within {patience_s:.0f} s: {what}. The guard: {self._guard_says}")
            self.turn()

    def speed(self) -> float:
        return float(np.abs(self.arm.data.qvel).max())

    def _on_command(self, msg: JointTrajectory) -> None:
        self.arm.command(convert.trajectory_from_msg(msg, self.profile.joint_names, self.arm.time_s))

    def _on_guard_state(self, msg: GuardState) -> None:
        self._guard_says = f"{msg.why or msg.cause} {msg.reason}: {msg.detail}".strip()

    # -- processes ----------------------------------------------------------------------------------------------------

    def start_guard(self) -> None:
        """The real process, brought up as the lifecycle manager does."""
        executable = Path(get_package_prefix("foresight_nodes")) / "lib/foresight_nodes/guard"
        parameters = {"robot": self.config.robot, "monitor.command_timeout_s": self.config.command_timeout_s}
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={json.dumps(value)}")]
        self._guard_process = subprocess.Popen(
            ending_with_parent([str(executable), "--ros-args", "--log-level", "error", *words]),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        guard = Managed.of(self, "guard")
        self.until(guard.is_there, "the guard appears")
        for steps in (guard.prepare(time.monotonic() + PATIENCE_S), guard.activate(PATIENCE_S)):
            for _ in steps:
                self.turn()
        for client in (guard.change_client, guard.state_client):
            self.destroy_client(client)

    def _start_planner(self, swing: Swing, *how: str) -> None:
        command = [sys.executable, "-m", "foresight_nodes.full_speed_planner", self.config.robot, swing.to_json(), *how]
        process = subprocess.Popen(
            ending_with_parent(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip
        os.set_blocking(process.stdout.fileno(), False)
        self._planners.append(process)

    def planner(self) -> subprocess.Popen:
        """The planner that waits longest, matched with the guard; one that DDS does not match is replaced, and counted."""
        for self.unmatched in range(TRIES):
            while len(self._planners) < POOL:
                self._start_planner(self.swing)
            process = self._planners.popleft()
            end_s = time.monotonic() + PATIENCE_S
            while not getattr(process, "matched", False) and time.monotonic() < end_s:
                said = _said(process)
                process.matched = "matched" in said
                if "loaded" in said:
                    end_s = time.monotonic() + MATCH_S
                self.turn()
            if process.matched:
                return process
            process.kill()
            process.wait()
        raise TrialError(f"{self.profile.name}: {TRIES} planners were not matched, {MATCH_S:.0f} s each. {self._guard_says}")

    def end(self) -> None:
        """Ends every process that it started."""
        self._end_planners()
        if self._guard_process:
            self._guard_process.kill()
            self._guard_process.wait()

    def _end_planners(self) -> None:
        for process in self._planners:
            process.kill()
        for process in self._planners:
            process.wait()
        self._planners.clear()

    # -- trials -------------------------------------------------------------------------------------------------------

    def trial(self, number: Signal) -> Trial:
        """One signal at full speed; again while the judge itself was kept waiting, five times at most.

        When the guard dies nothing more comes, and the judge may be late.
        """
        for stalls in range(6):
            made = self._once(number, stalls)
            if number == "guard" or self.late_s <= STALL_S:
                break
        return made

    def _once(self, number: Signal, stalls: int) -> Trial:
        planner, before = self.planner(), len(self.arm.violations)
        unmatched = self.unmatched
        self.late_s = 0.0
        planner.stdin.write("go\n")
        self.until(lambda: self.speed() >= FAST * self.swing.speed, "the arm is fast")
        dawdle_s = self.now_s() + float(self.rng.uniform(0.0, 0.6))
        self.until(lambda: self.now_s() >= dawdle_s and self.speed() >= FAST * self.swing.speed, "the arm is fast at some time")
        speed, signal_s = self.speed(), self.now_s()
        if number == "guard":
            self._guard_process.kill()
        else:
            planner.send_signal(signal.SIGKILL if number == "kill" else signal.SIGSTOP)
        self.moving_s = signal_s
        self.until(lambda: self.arm.time_s - self.moving_s >= QUIET_S, "the arm is at rest", 15.0)
        allowed_s = bound_s(self.profile, self.config.command_timeout_s)
        if number == "guard":  # its last word may have been on its way when it died
            allowed_s = float(self.arm._controller.trajectory.times_s[-1]) - signal_s + SETTLE_S
        made = Trial(
            self.profile.name, number, self.moving_s - signal_s, allowed_s, speed,
            tuple(str(v) for v in self.arm.violations[before:]), stalls, unmatched,
        )  # fmt: skip
        self._clear(planner, number)
        return made

    def round_trips(self) -> list[float]:
        """Milliseconds from each plan sent to its command received, by the planner's own clock, both ways through DDS.

        Of a planner that makes small swings, whose plans have about 50 points over a second, and that does not wait for a core.
        """
        self._end_planners()
        begin, end = self.swing.ends
        share = min(1.0, SMALL_RAD / np.abs(end - begin).max())
        swing = Swing(np.array([begin, begin + share * (end - begin)]), self.swing.speed)
        self._start_planner(swing, str(JUDGE_PRIORITY + 1), str(1.0 / self.config.round_trip_hz))
        planner = self.planner()
        while planner.stdout.readline():  # what it wrote before
            pass
        planner.stdin.write("go\n")
        end_s = self.now_s() + self.config.round_trip_s
        self.until(lambda: self.now_s() >= end_s, "the time is over", self.config.round_trip_s + PATIENCE_S)
        planner.stdin.write("idle\n")
        lines: list[str] = []

        def told() -> bool:
            lines.append(planner.stdout.readline() or "")
            return lines[-1].startswith(ROUND_TRIPS)

        self.until(told, "the planner tells its round trips")
        self._planners.append(planner)
        return json.loads(lines[-1].removeprefix(ROUND_TRIPS))

    def _clear(self, planner: subprocess.Popen, number: Signal) -> None:
        """A planner that can go on waits for the next trial; a guard is started anew."""
        if number == "kill":
            planner.wait()
            return
        planner.stdin.write("idle\n")
        if number == "freeze":
            planner.send_signal(signal.SIGCONT)
        self._planners.append(planner)
        if number == "guard":
            self._guard_process.wait()
            self.start_guard()
            for waiting in self._planners:
                waiting.matched = True  # with the guard before; the new one is found within the time that a trial waits
        self.until(lambda: self.arm.time_s - self.moving_s >= 3 * QUIET_S, "the arm stays at rest", 15.0)


def _go_first() -> None:
    """The judge's own threads before others where the system allows it, a little behind the guard; not what it starts."""
    try:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setscheduler(int(thread), os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(JUDGE_PRIORITY))
    except OSError:
        pass  # then it may be late, which it sees


def _said(process: subprocess.Popen) -> str:
    """The next line of a planner, empty where there is none yet."""
    if process.poll() is not None:
        raise TrialError(f"A planner ended with exit code {process.returncode}.")
    return process.stdout.readline() or ""


def main() -> int:
    def interrupt(number: int, _: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    config = LaneConfig(**json.loads(sys.argv[1]))
    share_no_memory()  # nor does what it starts: the locks of hundreds of killed planners would stay, and the judge wait at them
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    lane = None
    try:
        lane = Lane(config)
        _go_first()
        lane.start_guard()
        for number in [*["kill"] * config.kill, *["freeze"] * config.freeze, *["guard"] * config.guard]:
            print(json.dumps(asdict(lane.trial(number))), flush=True)
        if config.round_trip_s:
            print(json.dumps({"robot": config.robot, "round_trips_ms": lane.round_trips()}), flush=True)
    except (TrialError, RuntimeError, ValueError) as error:
        print(json.dumps({"error": " ".join(str(error).split())}), flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever ends the lanes: this one ends its nodes first
        if lane is not None:
            lane.end()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
