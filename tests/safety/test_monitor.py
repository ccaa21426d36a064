"""The monitor turns what was heard, and what was not, into the failsafe's conditions, each with its numbers."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from foresight.data import Reason, RobotState, Verdict
from foresight.safety.config import GuardConfig
from foresight.safety.failsafe import Flags
from foresight.safety.guard import Guard
from foresight.safety.monitor import BEATS_S, Driver, Monitor, MonitorConfig
from foresight.safety.watchdog import Moment
from tests.motions import minimum_jerk

WAY = np.array([0.06, -0.03, 0.05, -0.02, 0.03, 0.04])
SOURCES = ("heartbeat", "observation", "belief", "plan")


def at(time_s: float) -> Moment:
    return Moment(time_s, time_s)


class World:
    """A monitor that has heard everything, of an arm at rest at `start`; time is 10 s."""

    def __init__(self, profile, kinematics, start, driver: Driver = Driver()) -> None:
        self.guard = Guard(profile, kinematics, GuardConfig())
        self.monitor = Monitor(profile, MonitorConfig(), self.guard.config.state_age_max_s, driver)
        self.q, self.profile = start, profile
        self.hear(10.0)

    def hear(self, time_s: float, *without: str, q: np.ndarray | None = None) -> None:
        for name in SOURCES:
            if name not in without:
                self.monitor.watchdog.seen(name, at(time_s))
        if "state" not in without:
            self.measure(time_s, self.q if q is None else q)

    def measure(self, time_s: float, q: np.ndarray, stamp_s: float | None = None) -> None:
        stamp_s = time_s if stamp_s is None else stamp_s
        self.monitor.heard_state(RobotState(stamp_s, q, np.zeros(len(q))), at(time_s))

    def stands(self, time_s: float, stopping: bool = False, simulated: bool = False) -> dict[str, str]:
        flags, said = self.monitor.flags(self.guard, at(time_s), time_s, stopping, simulated)
        assert {f.name for f in fields(Flags) if getattr(flags, f.name)} == set(said)
        return said

    def move(self, start_s: float) -> None:
        self.guard.in_force = minimum_jerk(self.q, WAY, start_s, duration_s=2.0)


@pytest.fixture
def world(profile, kinematics, start) -> World:
    return World(profile, kinematics, start)


def test_all_is_well(world: World):
    """With everything heard of in time nothing stands."""
    assert world.stands(10.05) == {}


def test_before_anything_is_heard(profile, kinematics, start):
    """No heartbeat and no joint state: nothing may move, and a driver that is asked and silent is at fault."""
    driver = Driver(None, None, None)
    monitor = Monitor(profile, MonitorConfig(), 0.1, driver)
    _, said = monitor.flags(Guard(profile, kinematics), at(1.0), 1.0, False, False)
    assert set(said) == {"heartbeat_lost", "state_stale", "controller_inactive", "program_stopped", "speed_slider_zero"}
    assert "No heartbeat of the planner yet" in said["heartbeat_lost"] and "has not been heard of" in said["program_stopped"]


def test_silence_in_motion_and_at_rest(world: World):
    """The heartbeat and the joint states count always; observations, beliefs and plans only while the arm is in motion."""
    assert set(world.stands(11.0)) == {"heartbeat_lost", "state_stale"}
    world.move(10.5)
    said = world.stands(11.0)
    assert set(said) == {"heartbeat_lost", "state_stale", "observation_stale", "belief_stale", "plan_stale"}
    assert said["belief_stale"] == "No belief for 1.000 s, allowed 0.5 s."
    assert set(world.stands(12.6)) == {"heartbeat_lost", "state_stale"}


def test_a_heartbeat_counts_from_when_it_came(world: World):
    """Read 15 ms late it is 15 ms old, to a limit; with simulated time, whose stamps do not tell, it is new."""

    def age_s() -> float:
        return world.monitor.watchdog.age_s("heartbeat", at(11.0))

    for beat in range(5):
        world.monitor.heard_heartbeat(5.0 + beat / 100, 10.0 + beat / 100, at(10.0 + beat / 100))
    world.monitor.heard_heartbeat(5.985, 11.0, at(11.0))
    assert age_s() == pytest.approx(0.015)
    world.monitor.heard_heartbeat(5.0, 11.0, at(11.0))
    assert age_s() == pytest.approx(0.1 - BEATS_S)
    world.monitor.heard_heartbeat(5.0, None, at(11.0))
    assert age_s() == 0.0


def test_a_lifecycle_manager_is_missed_once_it_was_heard(world: World):
    """Where there is none, none is missed; one that falls silent is, whether the arm moves or not."""
    assert "graph_inactive" not in world.stands(11.0)
    world.monitor.watchdog.seen("graph", at(11.0))
    assert "graph_inactive" not in world.stands(11.3)
    said = world.stands(11.4)["graph_inactive"]
    assert said == "No word of the lifecycle manager that every node is active for 0.400 s, allowed 0.36 s."
    world.monitor.watchdog.seen("graph", at(11.7))
    assert "graph_inactive" not in world.stands(11.8)
    assert "graph" in [s.name for s in world.monitor.watchdog.silent(Moment(12.1, 11.7))]  # it speaks in real time


def test_a_source_that_never_spoke_is_not_missed(profile, kinematics, start):
    """A guard without perception's topics judges plans by the stamps they carry."""
    world = World(profile, kinematics, start)
    world.monitor = Monitor(profile, MonitorConfig(), 0.1)
    world.monitor.watchdog.seen("heartbeat", at(10.0))
    world.measure(10.0, start)
    world.move(10.0)
    assert world.stands(10.05) == {}


def test_joint_states_that_say_nothing_about_now(world: World):
    """Repeated stamps, old stamps and numbers that are not finite have each their name; a good state ends it."""
    for i in range(5):
        world.measure(10.0 + 0.05 * i, world.q, stamp_s=10.0)
    world.hear(10.2, "state")
    assert world.stands(10.2)["state_stamps_frozen"] == "Joint states repeat their stamp (5 times)."
    world.measure(10.25, world.q, stamp_s=10.1)
    assert "0.1500 s old" in world.stands(10.25)["state_stale"]
    world.measure(10.26, np.full(6, np.nan))
    assert "not finite" in world.stands(10.26)["state_invalid"]
    world.monitor.heard_bad_state("Joint states lack elbow_joint.")
    assert world.stands(10.27)["state_invalid"] == "Joint states lack elbow_joint."
    world.measure(10.28, world.q)
    assert world.stands(10.28) == {}


def test_a_leap_is_told_once(world: World):
    """A position that no arm can have reached since the last stamp; fast motion is none."""
    fast = world.q + 0.9 * world.profile.velocity_max * 0.02
    world.measure(10.02, fast)
    assert "state_jumped" not in world.stands(10.02)
    swapped = fast[[1, 0, 2, 3, 4, 5]]
    world.measure(10.04, swapped)
    said = world.stands(10.04)
    assert "was measured at" in said["state_jumped"] and "0.020 s later" in said["state_jumped"]
    assert "state_jumped" not in world.stands(10.05)


@pytest.mark.parametrize("stamps_s", [(10.02, 10.022, 10.024), (10.02, 10.018, 10.024), (10.02, 10.024, 10.022)])
def test_a_leap_is_seen_in_whatever_order_its_states_come(world: World, stamps_s: tuple[float, ...]):
    """An arm that is elsewhere from the second state on."""
    for number, stamp_s in enumerate(stamps_s):
        world.measure(10.03 + 0.002 * number, world.q + (0.5 if number else 0.0), stamp_s=stamp_s)
    said = world.stands(10.04)["state_jumped"]
    assert ("s earlier." in said) == (stamps_s[1] < stamps_s[0])


def test_an_arm_that_is_not_where_it_should_be(world: World):
    """Off its command, moving without one, not yet at rest after a stop."""
    world.move(10.0)
    world.q = world.q + 0.3
    world.measure(15.0, world.q)  # late enough to be no leap
    assert "does not follow" in world.stands(15.0)["not_following"]
    assert "not_at_rest" in world.stands(15.0, stopping=True)
    world.guard.in_force = None
    world.monitor.heard_state(RobotState(15.01, world.q, np.full(6, 0.3)), at(15.01))
    assert "something else commands" in world.stands(15.01, stopping=True)["not_following"]
    assert "not_at_rest" not in world.stands(15.01, stopping=True)


def test_yielding_counts_for_a_moment(world: World):
    """From the guard's relief on, and for a tenth of a second."""
    world.monitor.relieved(at(10.0))
    assert "obstructed" in world.stands(10.05)
    world.measure(10.15, world.q)
    assert "obstructed" not in world.stands(10.15)


def test_near_the_end_of_a_joint(world: World):
    """Named, with the room that is left."""
    q = world.q.copy()
    q[2] = world.profile.position_max[2] - 0.04
    world.measure(20.0, q)
    assert world.stands(20.0)["near_limit"].startswith(f"{world.profile.joint_names[2]} is 0.040 rad from its limit")


@pytest.mark.parametrize(
    ("refusal", "condition"),
    [("frozen_stamp", "camera_stamps_frozen"), ("frozen_camera", "camera_frozen"), ("dark_camera", "camera_dark")],
)
def test_perceptions_word_on_the_cameras(world: World, refusal: str, condition: str):
    """It holds until perception says otherwise, or has been silent itself for three seconds."""
    world.monitor.heard_camera(refusal, "Camera 'front' is odd.", at(10.0))
    assert world.stands(10.05)[condition] == "Camera 'front' is odd."
    assert condition not in world.stands(13.1)
    world.monitor.heard_camera(refusal, "Odd.", at(14.0))
    world.monitor.heard_camera("stale_image", "Old.", at(14.1))  # the age of the observations tells that
    assert condition not in world.stands(14.1)


def test_plan_after_plan_refused(world: World):
    """Ten in a row; an accepted one, a pause, or the guard's own holding ends the count."""
    bad, held = Verdict(Reason.DISCONTINUOUS, "no"), Verdict(Reason.HELD, "held")
    for i in range(9):
        world.monitor.decided(bad, at(10.0 + 0.1 * i))
    world.hear(10.8)
    assert world.stands(10.8) == {}
    world.monitor.decided(bad, at(10.85))
    assert world.stands(10.85) == {"plan_refused_repeatedly": "10 plans were refused in a row, allowed 9."}
    for i in range(6):
        world.monitor.decided(held, at(10.9 + 0.1 * i))
    assert "plan_refused_repeatedly" not in world.stands(11.4)
    world.monitor.decided(bad, at(11.5))
    world.monitor.decided(Verdict(Reason.OK), at(11.6))
    assert world.monitor._refusals == 0


def test_a_clock_that_jumps_is_told_once_and_takes_the_state_with_it(world: World):
    """On the wall clock as a jump, with simulated time as a reset; joint states from before say nothing about now."""
    world.monitor.clock_jumped(0.4)
    said = world.stands(10.05)
    assert "0.400 s" in said["clock_jumped"] and "state_stale" in said
    assert "clock_jumped" not in world.stands(10.06)
    world.monitor.clock_jumped(-9.0)
    assert "9.000 s" in world.stands(10.07, simulated=True)["simulator_reset"]


def test_what_the_driver_says(world: World):
    """Each of its words has its condition; at half its speed an arm is not where the guard takes it to be."""
    for said, condition in (
        ({"controller_active": False}, "controller_inactive"),
        ({"program_running": False}, "program_stopped"),
        ({"speed_scaling": 0.0}, "speed_slider_zero"),
        ({"speed_scaling": float("nan")}, "speed_slider_zero"),
        ({"speed_scaling": 0.5}, "speed_scaled"),
        ({"speed_scaling": 98.0}, "speed_scaled"),
    ):
        world.monitor.driver = replace(Driver(), **said)
        assert set(world.stands(10.05)) == {condition}
    world.monitor.driver = Driver(speed_scaling=99.99)
    assert world.stands(10.05) == {}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"command_timeout_s": 0.03}, "between 0.04 and 0.5 s, got 0.03"),
        ({"command_timeout_s": 0.6}, "between 0.04 and 0.5 s, got 0.6"),
        ({"plan_age_s": 0.0}, "plan_age_s must be finite and greater than 0"),
        ({"near_limit_rad": float("inf")}, "near_limit_rad must be finite"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(values, said):
    """T_cmd has a range; the rest must be finite and positive."""
    with pytest.raises(ValueError, match=said):
        MonitorConfig(**values)
