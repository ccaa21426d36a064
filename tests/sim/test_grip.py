"""The force between fingertips and cube, as the physics has it, stays below the profile's cap, and the cube is lifted."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from foresight.data import Grip
from foresight.safety.grip import GripLimit
from foresight.safety.guard import Guard
from sim.collect import collect_episode
from sim.experts import Expert
from sim.simulation import Simulation
from sim.tasks import draw
from sim.variation import Body

LOOK_S = 0.01  # [s] between two looks at the joint states


def squeeze_n(simulation: Simulation) -> float:
    """The greater of the normal forces [N] of the two fingers on the cube."""
    model, data, sides = simulation.model, simulation.data, {"left": 0.0, "right": 0.0}
    for i, pair in enumerate(data.contact.geom[: data.ncon]):
        names = [model.geom(int(geom)).name for geom in pair]
        for side in sides:
            if "cube" in names and any(side in name for name in names):
                force = np.zeros(6)
                mujoco.mj_contactForce(model, data, i, force)
                sides[side] += force[0]
    return max(sides.values())


def closed_on_a_cube(profile, half_m: float, yaw: float, grip: Grip | None) -> tuple[float, float]:
    """Greatest and last squeeze [N] of fingers that close on a cube for 2.5 s; without a grip they are told to close at once."""
    simulation, peak_n = Simulation(0, profile), 0.0
    guard = Guard(profile, simulation.kinematics)
    simulation.judging = False
    simulation.embody(Body(half_m=half_m))
    setting = draw("pick", np.random.default_rng(0))
    simulation.place(replace(setting, tip=np.array([0.45, 0.0, max(0.03, half_m)]), cube=np.array([0.45, 0.0]), cube_yaw=yaw))
    guard.gripping = None if grip is None else (grip, 0.0)
    if grip is None:
        simulation.grip(1.0)
    for _ in range(round(2.5 / LOOK_S)):
        command = guard.grip(simulation.state(), simulation.time_s)
        if command is not None:
            simulation.grip(command)
        for _ in range(round(LOOK_S / 0.002)):
            simulation.advance(0.002)
            peak_n = max(peak_n, squeeze_n(simulation))
    simulation.close()
    return peak_n, squeeze_n(simulation)


@pytest.mark.parametrize("half_m", [0.01, 0.02, 0.0251, 0.03, 0.039])
def test_the_true_squeeze_keeps_to_the_cap(profile, half_m):
    """Of cubes from 2 to 8 cm, at the impact and after it. Told to close at once, the fingers hit them with far more."""
    cap_n = GripLimit.of(profile).cap_n
    peak_n, held_n = closed_on_a_cube(profile, half_m, 0.0, Grip(1.0, cap_n))
    assert 0.6 * cap_n < held_n <= peak_n <= cap_n
    assert closed_on_a_cube(profile, half_m, 0.0, None)[0] > 2 * cap_n


@pytest.mark.parametrize("force_n", [30.0, 40.0])
def test_less_is_squeezed_where_less_is_asked_for(profile, force_n):
    """And not much less than that, or nothing would be held."""
    peak_n, held_n = closed_on_a_cube(profile, 0.0251, 0.3, Grip(1.0, force_n))
    assert 0.5 * force_n < held_n <= peak_n <= force_n


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_script_whose_commands_are_kept_to_the_cap_lifts_and_places_the_cube(profile, seed):
    """The expert's commands go through the guard's limit; its fingers need longer, and it squeezes no more than allowed."""
    simulation = Simulation(seed, profile)
    expert, guard, cap_n = Expert(simulation), Guard(profile, simulation.kinematics), GripLimit.of(profile).cap_n
    scenario, peak_n = simulation.reset("pick", seed), 0.0
    expert.set_goal_images({}, simulation.time_s)
    while not simulation.judgement().success and simulation.time_s < 3 * scenario.time_limit_s:
        step = expert.step({}, simulation.state(), simulation.time_s)
        simulation.command(step.trajectory)
        guard.gripping = Grip(step.closed, cap_n), simulation.time_s
        for _ in range(round(0.1 / LOOK_S)):
            command = guard.grip(simulation.state(), simulation.time_s)
            if command is not None:
                simulation.grip(command)
            simulation.advance(LOOK_S)
            peak_n = max(peak_n, squeeze_n(simulation))
    judged = simulation.judgement()
    simulation.close()
    assert judged.success and judged.lifted and judged.violations == 0 and expert.skill.fumbles == 0
    assert 0.5 * cap_n < peak_n <= cap_n


def test_what_is_collected_closes_as_a_plan_may(profile):
    """The recorded command is open or closed; the fingers are told no more than the cap allows, and lift the cube."""
    simulation, told = Simulation(0, profile, others=2), []
    grip = simulation.grip
    simulation.grip = lambda closed: (told.append((closed, simulation.opening())), grip(closed))
    episode = collect_episode(simulation, np.random.default_rng(0), 60, "pick")
    simulation.close()
    limit = GripLimit.of(profile)
    ahead = np.array([closed - (1 - opening) for closed, opening in told])
    assert len(told) > 250 and limit.stiffness * ahead.max() <= limit.cap_n + 1e-9
    assert set(np.unique(episode["gripper"])) == {0.0, 1.0} and episode["object"][:, 2].max() > 0.06
