"""Time of one swept collision check, and what it refuses. Run: python tests/benchmarks/bench_collision.py [--sweep N]

Prints p50, p99 and p99.9 in milliseconds of processor time for 50 points x 6 joints over 1 s, of motions of several kinds; the
share of scripted play and of legal fast plans that is refused; with --sweep N, N random motions compared with a look every
millisecond.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from foresight.control.trajectory import sample
from foresight.data import Box, Trajectory
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import load_profile
from foresight.safety.collision import Scene
from sim.experts import Player
from sim.scenes import CUBE_HALF
from sim.tasks import CUBE_MAX, CUBE_MIN, free_tip
from tests.motions import drive

REPEATS, POINTS = 3000, 50
POST = Box("post", np.array([0.45, 0.15, 0.0]), np.array([0.50, 0.20, 0.30]))
LOW_M, HIGH_M = np.array([0.30, -0.28, 0.05]), np.array([0.66, 0.28, 0.22])
STEP_S, LOOKS = 0.1, 12


def motion(begin: np.ndarray, end: np.ndarray) -> Trajectory:
    """Rest to rest in 1 s, quintic."""
    s, way = np.linspace(0.0, 1.0, POINTS)[:, None], end - begin
    velocity, acceleration = 30 * s**2 - 60 * s**3 + 30 * s**4, 60 * s - 180 * s**2 + 120 * s**3
    return Trajectory(s[:, 0], begin + way * (10 * s**3 - 15 * s**4 + 6 * s**5), way * velocity, way * acceleration)


def motions(kind: str, kinematics: MujocoKinematics, home: np.ndarray, rng: np.random.Generator):
    """Tips move 12 cm over the table, at most at 0.23 m/s. `low`: with 4 to 12 mm between fingertips and table; `turn`: all joints
    at up to 0.8 rad/s; `stuck`: as `free`, from inside the keep-out or its margin; the other kinds begin outside."""
    while True:
        tip = rng.uniform(LOW_M, HIGH_M)
        angle = rng.uniform(-np.pi, np.pi)
        if kind == "low":
            tip[2] = rng.uniform(0.022, 0.030)
        begin = kinematics.solve(tip, home)
        if kind == "turn":
            end = None if begin is None else begin + 0.42 * rng.choice([-1, 1], len(begin))
        else:
            end = None if begin is None else kinematics.solve(tip + 0.12 * np.array([np.cos(angle), np.sin(angle), 0.0]), begin)
        if begin is not None and end is not None:
            yield motion(begin, end)


def timed(scene: Scene, kind: str, kinematics: MujocoKinematics, home: np.ndarray, rng: np.random.Generator) -> None:
    took_s, refused = np.empty(REPEATS), 0
    free = kind != "stuck"
    source = (m for m in motions(kind, kinematics, home, rng) if (scene.clearance(m.q[0]).distance_m >= 0) == free)
    for i, trajectory in zip(range(REPEATS), source, strict=False):
        begin = time.thread_time()
        refused += scene.first_contact(trajectory, 0.0) is not None
        took_s[i] = time.thread_time() - begin
    p50, p99, p999 = 1e3 * np.quantile(took_s, [0.5, 0.99, 0.999])
    print(f"{kind:5} p50 {p50:.3f} ms, p99 {p99:.3f} ms, p99.9 {p999:.3f} ms; {100 * refused / REPEATS:.1f} % refused")


def play(scene: Scene, kinematics: MujocoKinematics, home: np.ndarray, episodes: int) -> None:
    """The scripted play of data collection, as tip paths: which looks are too near?"""
    looks = refused = 0
    low = np.inf
    for seed in range(episodes):
        rng = np.random.default_rng(seed)
        cube = np.array([*rng.uniform(CUBE_MIN, CUBE_MAX), CUBE_HALF])
        tip, player = free_tip(rng, cube[:2]), Player(rng)
        near, before = home, np.zeros(3)
        for _ in range(LOOKS * 5):
            velocity = player.velocity(tip, cube)
            tip, before = tip + STEP_S * (before + velocity) / 2, velocity
            q = kinematics.solve(tip, near)
            if q is None:
                break
            trajectory = Trajectory(np.array([0.0, STEP_S]), np.stack([near, q]), np.zeros((2, len(q))))
            if near is not home:
                inside = ((tip >= kinematics.profile.workspace_min) & (tip <= kinematics.profile.workspace_max)).all()
                looks, refused = looks + inside, refused + (inside and scene.first_contact(trajectory, 0.0) is not None)
                low = min(low, tip[2] if inside else low)
            near = q
    print(f"play: {refused} of {looks} steps refused ({100 * refused / looks:.2f} %), lowest tip {1e3 * low:.0f} mm")


def sweep(scene: Scene, count: int, rng: np.random.Generator) -> None:
    """Random motions anywhere against looks every millisecond: passed although one finds something, refused although none does."""
    missed = refused = needless = 0
    for _ in range(count):
        while True:
            begin = rng.uniform(-np.pi, np.pi, 6)
            if scene.clearance(begin).distance_m > scene.resolution_m:
                break
        n = int(rng.integers(2, 7))
        times = np.r_[0.0, np.cumsum(rng.uniform(0.05, 0.25, n - 1))]
        q = begin + np.r_[np.zeros((1, 6)), np.cumsum(rng.normal(0, 0.6, (n - 1, 6)) * np.diff(times)[:, None], axis=0)]
        dq, ddq = rng.normal(0, 0.4, (2, n, 6))
        trajectory = Trajectory(times, q, dq, 3 * ddq if rng.random() < 0.5 else None)
        contact = scene.first_contact(trajectory, 0.0)
        looked = sample(trajectory, np.arange(0.0, times[-1], 1e-3))[0]
        left = np.inf
        for row, bound in zip(looked, scene.proximity.lower_bounds(looked), strict=True):
            pairs = np.flatnonzero(bound < scene._margin + scene.resolution_m)
            if len(pairs):
                left = min(left, float((scene.proximity.distances(row, pairs) - scene._margin[pairs]).min()))
        refused += contact is not None
        missed += contact is None and left < 0
        needless += contact is not None and left > scene.resolution_m / 2 + 1e-3
    print(f"sweep: {count} random motions, {refused} refused, {missed} missed, {needless} refused without reason")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=int, default=0, help="random motions to compare with a fine look")
    parser.add_argument("--episodes", type=int, default=40, help="of play")
    arguments = parser.parse_args()
    profile = load_profile("ur5e")
    kinematics, rng = MujocoKinematics(profile), np.random.default_rng(0)
    begin = time.perf_counter()
    scene, open_scene = Scene(profile, (POST,)), Scene(profile)
    print(f"scenes built in {(time.perf_counter() - begin) / 2:.2f} s each, {len(scene.proximity.names)} pairs")
    print(f"swept collision check, {POINTS} points x 6 joints over 1 s, {REPEATS} motions each, one keep-out:")
    for kind in ("free", "low", "turn", "stuck"):
        timed(scene, kind, kinematics, profile.home, rng)
    plans = [made for seed in range(25) for made in drive(seed, 40, profile, kinematics)]
    refused = sum(open_scene.first_contact(made.trajectory, made.now_s) is not None for made in plans)
    print(f"legal fast plans: {refused} of {len(plans)} refused ({100 * refused / len(plans):.2f} %)")
    play(open_scene, kinematics, profile.home, arguments.episodes)
    if arguments.sweep:
        sweep(scene, arguments.sweep, rng)


if __name__ == "__main__":
    main()
