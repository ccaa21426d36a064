"""Faults of the simulated driver while the arm swings at its speed cap: what the guard notices, and that no limit is broken.

Guard, monitor, failsafe and clock watch as the guard's node runs them, in one loop on simulated time; true states are the judge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from foresight.control.braking import coming_to
from foresight.control.trajectory import derivatives
from foresight.data import Candidate, Trajectory
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile
from foresight.safety.collision import Scene
from foresight.safety.failsafe import UNSURE, Action, FailsafeParams, FailsafeState, failsafe
from foresight.safety.guard import Guard
from foresight.safety.monitor import Driver, Monitor, MonitorConfig
from foresight.safety.watchdog import ClockWatch
from sim.arm import ArmSimulation
from sim.faults import Faults, fault

STEP_S, PLAN_EVERY = 0.004, 25  # [s] of the loop, and in how many of its steps there is a plan
TRANSPORT_S, ON_THE_WAY_S = 0.045, 0.01  # [s] that the guard allows a command to its controller, and that it takes
BEGIN_S = 1000.0  # [s] what the clock shows first
SWING = np.array([0.25, 0.1, -0.1, 0.1, 0.05, 1.4])  # [rad]


@dataclass
class Line:
    """An arm with its guard, and a planner that swings it to and fro."""

    profile: RobotProfile
    kinematics: MujocoKinematics
    faults: Faults = field(default_factory=lambda: Faults(np.random.default_rng(0)))
    causes: list[str] = field(default_factory=list)
    passed: int = 0
    speed: float = 0.0  # [rad/s] the fastest that a joint was commanded

    def __post_init__(self) -> None:
        self.arm = ArmSimulation(self.profile)
        self.guard = Guard(self.profile, self.kinematics, scene=Scene(self.profile), transport_s=TRANSPORT_S)
        self.monitor = Monitor(self.profile, MonitorConfig(), 0.1, Driver(), TRANSPORT_S + STEP_S)
        self.watch, self.state, self.params = ClockWatch(True, MonitorConfig().clock_jump_s), FailsafeState(), FailsafeParams()
        self._steps = 0
        self._ends, self._turn, self._unsure = [self.profile.home, self.profile.home + SWING], 1, False
        self._under_way: list[tuple[float, Trajectory]] = []  # when it arrives, on the arm's time, and what

    @property
    def clock_s(self) -> float:
        return self.arm.time_s + BEGIN_S + self.faults.clock_s(self.arm.time_s)

    def run(self, until_s: float) -> None:
        """On the arm's time."""
        while self.arm.time_s < until_s - 1e-9:
            self._hear_and_act()
            if self._steps % PLAN_EVERY == 0:
                self._plan()
            for due in [due for due in self._under_way if due[0] <= self.arm.time_s + 1e-9]:
                self._under_way.remove(due)
                shift_s = self.clock_s - self.arm.time_s
                self.arm.command(replace(due[1], times_s=due[1].times_s - shift_s))
            self.arm.advance(STEP_S)
            self.speed = max(self.speed, float(np.abs(self.arm._controller.setpoints(np.array([self.arm.time_s]))[1]).max()))
            self._steps += 1

    def _send(self, motion: Trajectory | None) -> None:
        if motion is not None:
            self._under_way.append((self.arm.time_s + ON_THE_WAY_S, motion))

    def _hear_and_act(self) -> None:
        guard, monitor, clock_s = self.guard, self.monitor, self.clock_s
        now, jump_s = self.watch.read(self.arm.time_s, clock_s)
        if jump_s:
            guard.clock_moved(jump_s)
            monitor.clock_jumped(jump_s)
        measured = self.faults.measured(self.arm.state(), self.arm.time_s)
        if measured is not None:
            try:
                monitor.heard_state(replace(measured, stamp_s=clock_s), now)
            except ValueError as error:
                monitor.heard_bad_state(str(error))
            else:
                if not self._unsure and not monitor.leapt and monitor.state is not None:
                    self._send(guard.relieve(monitor.state, clock_s))
        for source in ("heartbeat", "observation", "belief", "plan"):
            monitor.watchdog.seen(source, now)
        flags, _ = monitor.flags(guard, now, clock_s, self.state.action is Action.STOP, True)
        action, self.state = failsafe(flags, self.state, self.params, now.time_s)
        if self.state.cause and (not self.causes or self.causes[-1] != self.state.cause):
            self.causes.append(self.state.cause)
        self._unsure = action >= Action.STOP and (self._unsure or self.state.cause in UNSURE)
        guard.share_max = self.params.slow_share if action is Action.SLOW else 1.0
        if action is Action.LATCH and guard.stopped is None:
            self._send(guard.stop(self.state.cause, monitor.state, clock_s, on_sight=self._unsure))
        elif action is Action.RETREAT:
            guard.wait(self.state.cause)
        elif action in (Action.HOLD, Action.STOP):
            self._send(guard.brake(self.state.cause, monitor.state, clock_s, on_sight=self._unsure))
        elif action <= Action.SLOW:
            guard.resume()
        if action is Action.STOP:
            guard.settle(monitor.state, clock_s)

    def _plan(self) -> None:
        """As a planner does: from the motion in force, or from where the arm is measured."""
        if self.monitor.state is None:
            return
        clock_s, in_force = self.clock_s, self.guard.in_force
        begin_s = clock_s + 0.12
        still = np.zeros(len(SWING))
        q, dq, ddq = (self.monitor.state.q, still, still) if in_force is None else derivatives(in_force, begin_s)[:3]
        if np.abs(q - self._ends[self._turn]).max() < 0.25:
            self._turn = 1 - self._turn
        gentle = replace(
            self.profile, acceleration_max=0.5 * self.profile.acceleration_max, jerk_max=np.minimum(self.profile.jerk_max, 50.0)
        )
        motion = coming_to(self._ends[self._turn], q, dq, ddq, gentle, 0.75, begin_s, straight=True)
        offered = Candidate(motion, self.profile.joint_names, clock_s - 0.1, clock_s - 0.01)
        if self.guard.offer(offered, self.monitor.state, clock_s).ok:
            self.passed += 1
            self._send(self.guard.forward)


@pytest.fixture
def line(profile: RobotProfile, kinematics: MujocoKinematics) -> Line:
    line = Line(profile, kinematics)
    line.run(1.22)
    assert line.passed > 5 and line.speed > 0.7 and line.causes[1:] == []  # moving fast, after it waited for the first state
    line.causes.clear()
    return line


def inject(name: str, duration_s: float, **values: float) -> Callable[[Line], None]:
    return lambda line: line.faults.start(name, fault(name, duration_s, values), line.arm.time_s)


@pytest.mark.parametrize("jump_s", [0.1, 0.5, 1.0, 10.0, -0.1, -1.0])
def test_a_clock_that_jumps_stops_the_arm_within_its_limits(line: Line, jump_s: float):
    """To and back again: each time the motion in force goes on in the new time, and the arm comes to rest on it.

    Not while a command is on its way: a controller reads that one in the new time, which nobody can mend.
    """
    line.run(1.25)
    before = line.passed
    inject("clock_jump", 1.5, jump_s=jump_s)(line)
    line.run(line.arm.time_s + 4.0)
    assert line.arm.violations == [] and line.speed < 0.81
    first, second = ("clock_jumped", "simulator_reset") if jump_s > 0 else ("simulator_reset", "clock_jumped")
    assert line.causes.index(first) < line.causes.index(second)
    assert line.passed > before + 5, "and moves on afterwards"


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_lost_joint_states_break_no_limit(line: Line, share: float):
    """Motion goes on, or waits for a state; nothing latches."""
    inject("packet_loss", 2.0, share=share)(line)
    line.run(line.arm.time_s + 3.0)
    assert line.arm.violations == [] and line.speed < 0.81 and line.guard.stopped is None and line.passed > 10


@pytest.mark.parametrize("joint", [0, 2, 4])
def test_joints_in_each_others_place_stop_the_arm(line: Line, joint: int):
    """The measured position leaps, and an arm that is not where it is told to be is not commanded on."""
    inject("joint_swap", 2.0, joint=float(joint))(line)
    line.run(line.arm.time_s + 3.0)
    assert line.arm.violations == [] and line.speed < 0.81
    assert {"state_jumped", "not_following"} & set(line.causes) and line.guard.stopped
    assert line.arm.moved_s < line.arm.time_s - 1.0


def test_a_joint_that_is_no_number_stops_the_arm(line: Line):
    inject("joint_nan", 2.0, joint=3.0)(line)
    line.run(line.arm.time_s + 1.9)
    assert line.arm.violations == [] and line.speed < 0.81 and "state_invalid" in line.causes
    assert line.arm.moved_s < line.arm.time_s - 1.0
