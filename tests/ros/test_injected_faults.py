"""`foresight inject` as a person calls it, while the arm moves: what the nodes do about it, and that they go on afterwards.

Faults of joints and clock are in tests/sim/test_faults_in_motion.py, those of processes in test_crash_matrix.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from foresight_msgs.action import Pursue
from foresight_msgs.msg import GuardState
from foresight_nodes import convert, topics
from foresight_nodes.part import Part
from foresight_nodes.sim_node import SimNode

from tests.ros.conftest import Bench
from tests.ros.test_graph_of_nodes import Line

PERIOD_S = 0.1  # [s] between two observations


def inject(bench: Bench, *words: str) -> str:
    """What the command says, while the nodes go on."""
    command = [sys.executable, "-m", "foresight_nodes.inject", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    bench.until(lambda: process.poll() is not None, "the command ends", advance_s=0.02)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    return said


@pytest.fixture
def line(bench: Bench, checkpoint: Path, start: np.ndarray) -> Line:
    return Line(bench, checkpoint, start)


def test_a_gpu_out_of_memory_costs_one_belief_and_a_complaint(line: Line):
    """The pursuit goes on, and the guard holds nothing."""
    bench, beliefs, diagnostics = line.bench, line.bench.listen(topics.BELIEF), line.bench.listen(topics.DIAGNOSTICS)
    handle = line.pursue()
    line.move()
    begun = len(line.guard_states)
    assert "the next inference runs out of memory" in inject(bench, "gpu_oom")
    told = "Out of memory on cpu; this observation is dropped. Injected."
    bench.until(lambda: any(s.message == told for m in diagnostics for s in m.status), "it is told", advance_s=0.02)
    accepted = line.guard_states[-1].accepted
    bench.until(lambda: line.guard_states[-1].accepted >= accepted + 3, "plans go on", advance_s=0.02)
    gaps_s = np.diff([convert.seconds(belief.header.stamp) for belief in beliefs])
    assert np.sum(gaps_s > 1.5 * PERIOD_S) == 1 and gaps_s.max() < 2.5 * PERIOD_S
    assert {state.action for state in line.guard_states[begun:]} == {GuardState.NONE}
    assert not handle.get_result_async().done()


def test_beliefs_of_another_model_end_the_pursuit_and_the_arm_comes_to_rest(line: Line):
    """With the reason REFUSED and both models' names; afterwards a new goal moves the arm."""
    bench, beliefs = line.bench, line.bench.listen(topics.BELIEF)
    handle = line.pursue()
    line.move()
    assert "another model's fingerprint" in inject(bench, "wrong_model")
    result = line.result(handle, advance_s=0.02)
    model_id = line.world_model.report()["model_id"]
    assert result.reason == Pursue.Result.REFUSED
    assert f"model 'not-{model_id}'" in result.detail and f"the planner holds '{model_id}'" in result.detail
    planned = len(line.plans)
    bench.until(lambda: line.speed() == 0.0, "the arm is at rest", advance_s=0.02)
    assert len(line.plans) == planned
    bench.until(lambda: beliefs[-1].model_id == model_id, "the fault is over", advance_s=0.02)
    line.pursue()
    line.move()


class World(Bench):
    """A bench on whose clock the simulated world moves."""

    sim: SimNode | None = None

    def configure(self, *parts: Part) -> None:
        super().configure(*parts)
        for sim in [part for part in parts if isinstance(part, SimNode)]:
            self.sim, sim._paused, sim._offset_s = sim, True, self.now_s - sim._simulation.time_s

    def _tell_time(self) -> None:
        if self.sim is not None and self.sim.active:
            self.sim._run_until(self.now_s - self.sim._clock_offset_s())
        super()._tell_time()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_pictures_that_come_late_leave_the_arm_at_rest(world: World, simulated_checkpoint: Path, start: np.ndarray):
    """Perception takes none and says why, and the goal ends as STALE; with fresh pictures a new one moves the arm."""
    line = Line(world, simulated_checkpoint, start, driver=world.add(SimNode, robot="ur5e"))
    diagnostics, handle = world.listen(topics.DIAGNOSTICS), line.pursue()
    line.move()
    assert "image_delay for 2 s" in inject(world, "image_delay", "--set", "delay_s=0.4", "--duration-s", "2")
    result = line.result(handle, advance_s=0.02)
    assert result.reason == Pursue.Result.STALE and "No belief for" in result.detail
    assert "stale_image" in {pair.value for m in diagnostics for s in m.status for pair in s.values if pair.key == "refusal"}
    assert line.speed() < 0.01
    world.until(lambda: line.perception.report()["refusal"] == "", "pictures are fresh again", advance_s=0.02)
    line.pursue()
    line.move()


DRIVER = {
    "controller_active_topic": "controller_active",
    "speed_scaling_topic": "speed_scaling_state_broadcaster/speed_scaling",
}


@pytest.mark.parametrize(
    ("fault", "cause", "action", "within_s"),
    [
        ("camera_freeze", "camera_frozen", GuardState.HOLD, 1.0 + 0.3),  # told only after 1 s of the same pixels
        ("camera_black", "camera_dark", GuardState.HOLD, 0.3),
        ("controller_inactive", "controller_inactive", GuardState.STOP, 0.1),
        ("speed_slider_zero", "speed_slider_zero", GuardState.STOP, 0.1),
    ],
)
def test_a_fault_of_camera_or_driver_is_named_by_the_guard_and_leaves_the_arm_at_rest(
    world: World, simulated_checkpoint: Path, start: np.ndarray, fault: str, cause: str, action: int, within_s: float
):
    """The cause comes in time, the arm rests within a second of it without a violation; once it is over, a goal moves the arm."""
    line = Line(world, simulated_checkpoint, start, driver=world.add(SimNode, robot="ur5e"), guard=DRIVER)
    truths = world.listen(topics.SIM_STATE)
    line.pursue()
    line.move()
    assert line.guard_states[-1].action == GuardState.NONE
    since = len(line.guard_states)
    lasts_s = within_s + 1.2
    said = inject(world, fault, "--duration-s", f"{lasts_s:g}")
    assert f"{fault} for {lasts_s:g} s from" in said
    begun_s = float(said.split(" from ")[1].split(" s ")[0])

    def told() -> list[GuardState]:
        return [state for state in line.guard_states[since:] if state.cause == cause]

    world.until(told, f"the guard says {cause}", advance_s=0.02)
    assert {state.action for state in told()} == {action} and not told()[0].latched
    told_s = convert.seconds(told()[0].header.stamp)
    assert begun_s <= told_s <= begun_s + within_s
    world.advance(max(0.0, told_s + 1.0 - world.now_s), step_s=0.02)
    assert line.speed() < 0.01
    world.until(lambda: line.guard_states[-1].action == GuardState.NONE, "the guard allows motion again", advance_s=0.02)
    assert world.now_s > begun_s + lasts_s, "not before the fault is over"
    line.pursue()
    line.move()
    assert truths[-1].violations == 0, truths[-1].violation_detail
