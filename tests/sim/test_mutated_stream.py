"""A stream of joint states and plans, replayed damaged: lost, late, out of order, twice, with flipped bits, cameras swapped.

Whatever reaches the guard, what a controller makes of what it forwards keeps every limit of the profile's YAML, and ends at rest;
the judge shares no code with it. The stream is made anew from a seed, by a planner that drives the arm at its limits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from foresight.control.trajectory import sample
from foresight.data import Candidate, RobotState, Trajectory
from foresight.evaluation.guard_judge import Judge
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile
from foresight.safety.collision import Scene
from foresight.safety.guard import Guard
from tests.judge import Obeying, step
from tests.motions import candidate, drive

ROUNDS = 15  # plans in the stream, at 10 Hz
STATE_S = 0.02  # [s] between joint states
MODEL = Path(__file__).resolve().parents[2] / "models/ur5e"


@dataclass(frozen=True)
class Event:
    """Something that arrives."""

    at_s: float
    what: RobotState | Candidate


@pytest.fixture(scope="module")
def stream(profile: RobotProfile, kinematics: MujocoKinematics) -> list[Event]:
    """Joint states at 50 Hz and plans at 10 Hz of an arm that does as its guard tells it, with a fresh stamp on each."""
    events, guard = [], Guard(profile, kinematics, scene=Scene(profile))
    for made in drive(3, ROUNDS, profile, kinematics):
        for t in made.now_s + np.arange(-0.1, 0.0, STATE_S) + 0.01:
            if t >= 0.95:
                events.append(Event(t + 0.005, RobotState(t, *sample(made.in_force, t))))
        offered = candidate(made.trajectory, profile, made.now_s)
        events.append(Event(made.now_s, offered))
        assert guard.offer(offered, made.state, made.now_s).ok
        made.in_force = guard.in_force
    return sorted(events, key=lambda event: event.at_s)


@dataclass
class Replay:
    """What came of a stream."""

    forwarded: list[Trajectory]
    accepted: int = 0
    refused: int = 0


def replay(events: list[Event], profile: RobotProfile, kinematics: MujocoKinematics, scene: Scene) -> Replay:
    """Feeds a guard, and judges all that it forwards."""
    guard, state, came = Guard(profile, kinematics, scene=scene), None, Replay([])
    arm = Obeying(Judge(profile.name, kinematics))
    for event in sorted(events, key=lambda event: event.at_s):
        if isinstance(event.what, RobotState):
            state = event.what
            motion = guard.relieve(state, event.at_s)
        else:
            verdict = guard.offer(event.what, state, event.at_s)
            came.accepted, came.refused = came.accepted + verdict.ok, came.refused + (not verdict.ok)
            motion = guard.forward if verdict.ok else None
        if motion is not None:
            wrong = arm.receive(motion, event.at_s) + ([] if came.forwarded else step(None, motion, state.q))
            assert wrong == [], f"at {event.at_s:.3f} s: {wrong}"
            came.forwarded.append(motion)
    return came


def drop(share: float) -> Callable:
    return lambda events, rng: [event for event in events if rng.random() >= share]


def delay(longest_s: float) -> Callable:
    return lambda events, rng: [replace(event, at_s=event.at_s + rng.uniform(0, longest_s)) for event in events]


def reorder(events: list[Event], rng: np.random.Generator) -> list[Event]:
    """Neighbours change places, one time in three."""
    times, moved = [event.at_s for event in events], list(events)
    for i in range(len(moved) - 1):
        if rng.random() < 0.33:
            moved[i], moved[i + 1] = moved[i + 1], moved[i]
    return [replace(event, at_s=at_s) for event, at_s in zip(moved, times, strict=True)]


def duplicate(events: list[Event], rng: np.random.Generator) -> list[Event]:
    """Half of all come again, up to 0.2 s later."""
    return events + [replace(event, at_s=event.at_s + rng.uniform(0, 0.2)) for event in events if rng.random() < 0.5]


def flip_bits(events: list[Event], rng: np.random.Generator) -> list[Event]:
    """One bit of one number in every third message."""
    return [replace(event, what=_flipped(event.what, rng)) if rng.random() < 0.33 else event for event in events]


def _flipped(what: RobotState | Candidate, rng: np.random.Generator) -> RobotState | Candidate:
    if isinstance(what, RobotState):
        name = str(rng.choice(["q", "dq", "stamp_s"]))
        return replace(what, **{name: _flip(getattr(what, name), rng)})
    name = str(rng.choice(["times_s", "q", "dq", "ddq", "observation_stamp_s", "plan_stamp_s"]))
    if hasattr(what.trajectory, name):
        return replace(what, trajectory=replace(what.trajectory, **{name: _flip(getattr(what.trajectory, name), rng)}))
    return replace(what, **{name: _flip(getattr(what, name), rng)})


def _flip(value: np.ndarray | float, rng: np.random.Generator) -> np.ndarray | float:
    numbers = np.array(value, dtype=np.float64, ndmin=1)
    i, bit = int(rng.integers(numbers.size)), int(rng.integers(64))
    (word,) = struct.unpack("<Q", struct.pack("<d", numbers.flat[i]))
    (numbers.flat[i],) = struct.unpack("<d", struct.pack("<Q", word ^ (1 << bit)))
    return numbers.reshape(np.shape(value)) if np.ndim(value) else float(numbers[0])


def all_at_once(events: list[Event], rng: np.random.Generator) -> list[Event]:
    return flip_bits(duplicate(reorder(delay(0.1)(drop(0.05)(events, rng), rng), rng), rng), rng)


DAMAGES = {
    "drop 1 %": drop(0.01),
    "drop 10 %": drop(0.10),
    "drop 50 %": drop(0.50),
    "reorder": reorder,
    "duplicate": duplicate,
    "delay to 20 ms": delay(0.02),
    "delay to 100 ms": delay(0.1),
    "delay to 500 ms": delay(0.5),
    "flipped bits": flip_bits,
    "all at once": all_at_once,
}


def test_the_stream_as_it_was_passes_whole(stream, profile: RobotProfile, kinematics: MujocoKinematics):
    """Else the damaged ones would prove nothing: every plan is forwarded, the arm moves fast, and the judge finds no fault."""
    came = replay(stream, profile, kinematics, Scene(profile))
    assert (came.accepted, came.refused) == (ROUNDS, 0)
    assert max(np.abs(motion.dq).max() for motion in came.forwarded) > 0.3


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stream_never_becomes_a_harmful_command(
    damage: str, stream, profile: RobotProfile, kinematics: MujocoKinematics
):
    """Three seeds for each kind of damage: limits hold, motion is continuous, and each forwarded motion ends at rest."""
    scene, passed = Scene(profile), 0
    for seed in range(3):
        came = replay(DAMAGES[damage](stream, np.random.default_rng([seed, len(damage)])), profile, kinematics, scene)
        passed += came.accepted
        assert all(np.abs(motion.dq[-1]).max() < 1e-3 for motion in came.forwarded)
    assert passed > 0 or damage in ("drop 50 %", "delay to 500 ms")


def test_each_damage_damages(stream):
    """No stream comes out as it went in, and none loses more than it says."""
    for name, damage in DAMAGES.items():
        spoiled = damage(stream, np.random.default_rng(5))
        assert str(spoiled) != str(stream), name
        assert len(spoiled) >= 0.35 * len(stream)


def test_the_judge_finds_a_jump_in_a_stream_that_no_guard_has_seen(stream, profile: RobotProfile, kinematics: MujocoKinematics):
    """With half of the plans lost, the bare plans no longer fit together; that they do after the guard is its doing."""
    arm, wrong = Obeying(Judge(profile.name, kinematics)), []
    for event in [event for event in stream if isinstance(event.what, Candidate)][::2]:
        wrong += arm.receive(event.what.trajectory, event.at_s)
    assert {"acceleration", "jerk"} <= {fault.split()[0] for fault in wrong}


# -- pictures ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    """The simulation, and an agent with the shipped model."""
    from foresight.agent import Agent
    from foresight.robots.profile import load_profile
    from sim.simulation import Simulation

    simulation = Simulation(0, load_profile("ur5e"))
    yield simulation, Agent.load(MODEL, deadline_s=float("inf"))
    simulation.close()


def swapped(images: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return dict(zip(images, reversed(images.values()), strict=True))


def upside_down(images: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(image[::-1, ::-1]) for name, image in images.items()}


def noisy(images: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A random bit of every pixel is flipped."""
    return {name: image ^ (1 << rng.integers(0, 8, image.shape)).astype(np.uint8) for name, image in images.items()}


@pytest.mark.slow
@pytest.mark.parametrize("damage", [swapped, upside_down, noisy])
def test_wrong_pictures_lead_to_no_violation(damage, shipped):
    """Perception cannot know that two cameras of equal size were swapped; whatever is then imagined, the arm keeps its limits."""
    simulation, agent = shipped
    rng = np.random.default_rng(0)
    scenario = simulation.reset("push", 7)
    agent.reset()
    agent.set_goal_images(scenario.goal_images, simulation.time_s)
    moved = 0.0
    for _ in range(15):
        now_s, state = simulation.time_s, simulation.state()
        made = agent.step(damage(simulation.images(), rng), state, now_s)
        if made.trajectory is not None:
            simulation.command(made.trajectory)
        simulation.advance(0.1)
        moved = max(moved, float(np.abs(state.dq).max()))
    simulation.advance(2.0)
    judgement = simulation.judgement()
    assert judgement.violations == 0, judgement.violation_detail
    assert np.abs(simulation.state().dq).max() < 0.02 and moved > 0.02
