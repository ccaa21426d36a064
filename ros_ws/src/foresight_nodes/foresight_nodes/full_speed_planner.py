"""A planner that only wants speed: to and fro between two postures, as fast as is allowed, for trials of the guard.

    python -m foresight_nodes.full_speed_planner ROBOT MOTION_JSON [PRIORITY [PERIOD_S]]

Begins and ends at the words "go" and "idle" of its standard input.

Light, so that many can be kept waiting: one that is killed must be replaced. Looks at nothing and imagines nothing.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import rclpy
from foresight_msgs.msg import GuardState
from jaxtyping import Float
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from foresight.control.braking import BrakingError, coming_to
from foresight.control.trajectory import derivatives, splice
from foresight.data import Plan, Trajectory
from foresight.robots.profile import RobotProfile, load_profile
from foresight_nodes import convert, topics
from foresight_nodes.heartbeat import Heartbeat
from foresight_nodes.real_time import take_priority
from foresight_nodes.run import make_executor

PERIOD_S = 0.1  # [s] between plans, where nothing else was said
LEAD_S = 0.18  # [s] from a plan to the motion that it begins
OBSERVED_S = 0.05  # [s] before its plan at which the pretended observation was made
TURN_S = 0.25  # [s] before the end of its motion at which it turns to the other posture
SAME_S = 1e-5  # [s] between the ends of a motion proposed and of the one commanded, where that is the same
ROUND_TRIPS = "round trips [ms]:"  # first words of the line that it writes when it is told to idle
UNANSWERED = 100  # plans remembered that no command answered yet
GENTLE = 0.5, 0.1  # shares of the acceleration and jerk limits that it uses to gain speed
GENTLE_JERK = 50.0  # [rad/s^3] at most


@dataclass(frozen=True)
class Swing:
    """Two postures [rad] that the guard lets the arm swing between, and the joints' speed [rad/s] on the way."""

    ends: Float[np.ndarray, "2 J"]
    speed: float

    def to_json(self) -> str:
        return json.dumps({"ends": self.ends.tolist(), "speed": self.speed})

    @staticmethod
    def from_json(text: str) -> Swing:
        found = json.loads(text)
        return Swing(np.array(found["ends"], dtype=np.float64), float(found["speed"]))


def swinging(
    target: np.ndarray, q: np.ndarray, dq: np.ndarray, ddq: np.ndarray, profile: RobotProfile, speed: float, start_s: float
) -> Trajectory:
    """To rest at the target, its top speed reached gently enough for a torque rate limit. Raises BrakingError."""
    jerk = np.minimum(GENTLE[1] * profile.jerk_max, GENTLE_JERK)
    gentle = replace(profile, acceleration_max=GENTLE[0] * profile.acceleration_max, jerk_max=jerk)
    return coming_to(target, q, dq, ddq, gentle, speed, start_s, straight=True)


class RoundTrips:
    """Times from each plan to the command that answers it, told by where both end; a plan that is refused has no answer."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, float]] = deque(maxlen=UNANSWERED)  # end of the motion and when it was sent [s]
        self.ms: list[float] = []

    def sent(self, end_s: float, at_s: float) -> None:
        self._sent.append((end_s, at_s))

    def answered(self, end_s: float, heard_s: float) -> None:
        """By the oldest plan that ends as the command does; those before it were refused."""
        for number, (sent_end_s, sent_s) in enumerate(self._sent):
            if abs(end_s - sent_end_s) < SAME_S:
                self.ms.append(1e3 * (heard_s - sent_s))
                for _ in range(number + 1):
                    self._sent.popleft()
                return


class FullSpeedPlanner(Node):
    """JointState and the motion in force in, Plan and heartbeat out, while it is told to go."""

    def __init__(self, profile: RobotProfile, swing: Swing, period_s: float = PERIOD_S) -> None:
        super().__init__("planner")
        self._profile, self._swing = profile, swing
        self._in_force: Trajectory | None = None
        self._in_force_s = 0.0  # when it last changed
        self._q: np.ndarray | None = None
        self._target = 0
        self._id, self._heartbeat = time.time_ns() // 1_000_000, None
        self._trips = RoundTrips()  # since it was told to go
        self.wanted = threading.Event()
        self._plans = topics.PLAN.publisher(self)
        self._beats = topics.HEARTBEAT.publisher(self)  # found by the guard before the first beat
        topics.JOINT_STATES.subscription(self, self._on_state)
        topics.in_force(profile.controller_topic).subscription(self, self._on_command)
        topics.GUARD_STATE.subscription(self, self._on_guard_state)
        self.create_timer(period_s, self._plan)

    def matched(self) -> bool:
        return min(self._plans.get_subscription_count(), self._beats.get_subscription_count()) > 0 and self._q is not None

    def obey(self) -> None:
        """Begins and ends to beat, as it was told."""
        if self.wanted.is_set() and self._heartbeat is None:
            self._heartbeat = Heartbeat(self)
        elif not self.wanted.is_set() and self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
            print(f"{ROUND_TRIPS} {json.dumps(self._trips.ms)}", flush=True)
            self._trips = RoundTrips()

    def _on_state(self, msg: JointState) -> None:
        self._q = convert.robot_state_from_msg(msg, self._profile.joint_names).q

    def _on_command(self, msg: JointTrajectory) -> None:
        heard, now_s = time.perf_counter(), time.time()
        new = convert.trajectory_from_msg(msg, self._profile.joint_names, now_s)
        self._in_force, self._in_force_s = splice(self._in_force, new, now_s - 0.5), now_s
        self._trips.answered(float(new.times_s[-1]), heard)

    def _on_guard_state(self, msg: GuardState) -> None:
        """Where nothing is in force the next motion starts where the arm is measured."""
        if not msg.in_force and convert.seconds(msg.header.stamp) > self._in_force_s:
            self._in_force = None

    def _plan(self) -> None:
        if self._heartbeat is None or self._q is None:
            return
        now_s = time.time()
        q, dq, ddq = self._start(now_s + LEAD_S)
        if self._in_force is None or now_s + LEAD_S + TURN_S > self._in_force.times_s[-1]:
            self._target = int(np.argmax(np.abs(self._swing.ends - q).max(axis=1)))
        try:
            motion = swinging(self._swing.ends[self._target], q, dq, ddq, self._profile, self._swing.speed, now_s + LEAD_S)
        except BrakingError as error:
            self.get_logger().warning(str(error))
            return
        self._id += 1
        nothing = np.zeros((0, 4), np.float32)
        plan = Plan(now_s - OBSERVED_S, "full-speed", 0.1, np.zeros((1, 3)), 0.0, {}, 0.0, nothing, 1, 0.0, "full speed")
        names, frame = self._profile.joint_names, self._profile.base_frame
        message = convert.plan_to_msg(plan, motion, names, time.time(), self._id, frame)
        self._trips.sent(float(motion.times_s[-1]), time.perf_counter())
        self._plans.publish(message)

    def _start(self, join_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._in_force is None:
            return self._q, np.zeros_like(self._q), np.zeros_like(self._q)
        return derivatives(self._in_force, join_s)[:3]


def main() -> int:
    profile, swing = load_profile(sys.argv[1]), Swing.from_json(sys.argv[2])
    rclpy.init(args=[])
    node = FullSpeedPlanner(profile, swing, float(sys.argv[4]) if len(sys.argv) > 4 else PERIOD_S)
    ended = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            (node.wanted.set if line.strip() == "go" else node.wanted.clear)()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    executor = make_executor()
    executor.add_node(node)
    if len(sys.argv) > 3:
        take_priority(int(sys.argv[3]))
    gc.collect()
    gc.freeze()
    print("loaded", flush=True)
    told = False
    while not ended.is_set():
        executor.spin_once(timeout_sec=0.01)
        node.obey()
        if not told and node.matched():
            told = True
            print("matched", flush=True)
    node.wanted.clear()
    node.obey()
    return 0


if __name__ == "__main__":
    sys.exit(main())
