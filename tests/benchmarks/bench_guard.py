"""Time of one guard check on a typical trajectory. Run: python tests/benchmarks/bench_guard.py

Prints p50, p99 and p99.9 in milliseconds, for 12 points x 6 joints over 0.5 s.
"""

from __future__ import annotations

import time

import numpy as np

from foresight.control.trajectory import hold
from foresight.data import Candidate, RobotState, Trajectory
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import load_profile
from foresight.safety.checks import check
from foresight.safety.config import GuardConfig

REPEATS = 5000


def main() -> None:
    profile = load_profile("ur5e")
    kinematics, config = MujocoKinematics(profile), GuardConfig()
    s = np.linspace(0.0, 1.0, 12)[:, None]
    way = np.array([0.03, -0.02, 0.03, -0.01, 0.02, 0.02])  # [rad], rest to rest in 0.5 s
    q = profile.home + way * (10 * s**3 - 15 * s**4 + 6 * s**5)
    dq = way * (30 * s**2 - 60 * s**3 + 30 * s**4) / 0.5
    candidate = Candidate(Trajectory(0.5 * s[:, 0], q, dq), profile.joint_names, -0.1, -0.01)
    in_force, state = hold(profile.home, -1.0), RobotState(-0.01, profile.home, np.zeros(6))
    took_s = np.empty(REPEATS)
    for i in range(REPEATS):
        begin = time.perf_counter()
        verdict = check(candidate, in_force, state, profile, kinematics, config, 0.0)
        took_s[i] = time.perf_counter() - begin
        assert verdict.ok, verdict
    p50, p99, p999 = 1e3 * np.quantile(took_s, [0.5, 0.99, 0.999])
    print(f"guard check, {len(s)} points x {len(way)} joints, {REPEATS} times:")
    print(f"p50 {p50:.3f} ms, p99 {p99:.3f} ms, p99.9 {p999:.3f} ms")


if __name__ == "__main__":
    main()
