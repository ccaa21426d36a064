"""The judge of `foresight bench guard`: what would the controller have executed, and did it keep the robot's limits?

Of the guard's code it uses only the torques of `MujocoKinematics`, compared with energies in tests/robots/test_kinematics.py: it
has its own polynomials, its own controller, limits read straight from the profile's YAML, tips by MuJoCo one position at a time
and touches by MuJoCo's contacts. It sees commands, never verdicts.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from foresight.data import Trajectory
from foresight.robots.contacts import Contacts
from foresight.robots.kinematics import MujocoKinematics

EPS = 1e-3  # share of a limit that counts as rounding; of the cap where a velocity limit depends on position
POSITION_EPS = 1e-5  # [rad]
WORKSPACE_EPS = 2e-4  # [m]
STOP_WORKSPACE_EPS = 5.1e-3  # [m] for a stop, which a wall of the workspace does not outrank
ROUNDING = 1e-6  # [rad, m]
REST = 1.2e-7  # [rad/s] above which a joint_trajectory_controller ignores a trajectory that ends so
TIP_S = 0.01  # [s] between two tips whose distance gives the speed; one control period where it is greatest
FASTEST = 6  # of those distances, which are looked at period by period
TORQUE_S = 0.04  # [s] between two looks at the torque; its rate is taken over one control period
STEEPEST = 24  # control periods at which the accelerations are locally steepest: the torque is looked at there too
TOUCH_S = 0.005  # [s] between two looks at what the arm touches
TOUCH_EPS = 1e-4  # [m] that two may overlap
INERTIAS = 4  # positions along a motion at which the inertia is taken for that

# Hermite's basis of degree five: rows are powers of s, columns q0, v0 h, a0 h^2, q1, v1 h, a1 h^2.
HERMITE = np.array(
    [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 0.5, 0, 0, 0],
        [-10, -6, -1.5, 10, -4, 0.5],
        [15, 8, 1.5, -15, 7, -1],
        [-6, -3, -0.5, 6, -3, 0.5],
    ]
)
DERIVATIVES = np.stack(  # of the basis with respect to s: itself, the first, the second
    [HERMITE, np.diag(np.arange(1.0, 6), 1) @ HERMITE, np.linalg.matrix_power(np.diag(np.arange(1.0, 6), 1), 2) @ HERMITE]
)


def read(points: Trajectory, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position, velocity and acceleration at times, as a joint_trajectory_controller reads points: held outside, at rest."""
    t, knots = np.clip(times_s, points.times_s[0], points.times_s[-1]), points.times_s
    i = np.minimum(np.searchsorted(knots, t, side="right") - 1, len(knots) - 2)
    h = (knots[i + 1] - knots[i])[:, None]
    s = (t - knots[i])[:, None] / h
    ends = (points.q[i], points.dq[i] * h, points.ddq[i] * h**2, points.q[i + 1], points.dq[i + 1] * h, points.ddq[i + 1] * h**2)
    powers = s ** np.arange(6)
    found = []
    for order, basis in enumerate(powers @ DERIVATIVES):
        found.append(sum(basis[:, n : n + 1] * end for n, end in enumerate(ends)) / h**order)
    outside = (times_s < knots[0]) | (times_s >= knots[-1])
    found[1][outside], found[2][outside] = 0.0, 0.0
    return found[0], found[1], found[2]


class Controller:
    """A joint_trajectory_controller: from its present command straight to the first point of a new message that lies ahead.

    It ignores a message that is past, or does not end at rest.
    """

    def __init__(self, q: np.ndarray, start_s: float) -> None:
        still = np.zeros((2, len(q)))
        self.points = Trajectory(np.array([start_s - 1.0, start_s]), np.stack([q, q]), still, still)

    def receive(self, message: Trajectory, now_s: float) -> bool:
        """Whether it takes the message."""
        ahead = message.times_s > now_s
        if not ahead.any() or not (np.abs(message.dq[-1]) <= REST).all():
            return False
        here = read(self.points, np.array([now_s]))
        self.points = Trajectory(
            np.append(now_s, message.times_s[ahead]),
            *(np.vstack([a, b[ahead]]) for a, b in zip(here, (message.q, message.dq, message.ddq), strict=True)),
        )
        return True


class Nearest(NamedTuple):
    """How far at least the arm was outside its ranges and its workspace until now; of a wall it may not be further beyond it."""

    joints: np.ndarray  # (J,) [rad]
    tip: np.ndarray  # (3,) [m]


class Judge:
    """The limits of one robot as its YAML has them. `kinematics` is None for a robot without a model."""

    def __init__(self, profile: str, kinematics: MujocoKinematics | None) -> None:
        path = Path(profile) if profile.endswith((".yaml", ".yml")) else None
        path = path or Path(str(files("foresight.robots").joinpath("profiles", f"{profile}.yaml")))
        raw = yaml.safe_load(path.read_text())
        self.rate_hz, self.kinematics = float(raw["controller_rate_hz"]), kinematics
        names = ("position_min", "position_max", "velocity_max", "acceleration_max", "jerk_max", "workspace_min", "workspace_max")
        self.limits = {name: np.array(raw[name], dtype=float) for name in names}
        self.cap = np.minimum(self.limits["velocity_max"], float(raw["joint_speed_max"]))
        self.tip_speed = float(raw["tip_speed_max"])
        self.torque, self.torque_rate = (raw[name] and np.array(raw[name]) for name in ("torque_max", "torque_rate_max"))
        self.law = raw["velocity_law"] and {name: np.array(row) for name, row in raw["velocity_law"].items()}

    def nearest(self, points: Trajectory, until_s: float, earlier: Nearest | None) -> Nearest:
        """Of what is executed of these points until then, and earlier."""
        begin_s = float(points.times_s[0])
        q = read(points, np.linspace(begin_s, max(begin_s, until_s), 2 + int(max(0.0, until_s - begin_s) / TIP_S)))[0]
        joints = _outside(q, self.limits["position_min"], self.limits["position_max"]).min(0)
        tip = np.zeros(3)
        if self.kinematics is not None:
            tip = _outside(self.kinematics.tips(q), self.limits["workspace_min"], self.limits["workspace_max"]).min(0)
        return Nearest(joints, tip) if earlier is None else Nearest(*map(np.minimum, earlier, (joints, tip)))

    def use(
        self,
        before: Trajectory | None,
        after: Trajectory,
        phase_s: float = 0.0,
        nearest: Nearest | None = None,
        stop: bool = False,
    ) -> dict[str, float]:
        """How much of each limit the motion takes at the controller's rate; above 1 + EPS it is broken.

        `before` is what was executed until `after` begins; a step between them counts. Positions, workspace and rest are given
        as 1 + what lies beyond them [rad, m, rad/s], less their own tolerance, so that the same threshold holds. `nearest`: of
        all that was executed until then. A stop may leave the workspace by STOP_WORKSPACE_EPS.
        """
        joints, tip = nearest or (np.inf, np.inf)
        period = 1 / self.rate_hz
        begin, end = float(after.times_s[0]), float(after.times_s[-1])
        times = begin + phase_s + period * np.arange(-3, int((end - begin) / period) + 4)
        if before is not None:
            times = times[times >= before.times_s[0]]  # what was executed until then was judged then
        q, dq, ddq = read(after, times)
        early = times < begin
        if before is not None:
            q[early], dq[early], ddq[early] = read(before, times[early])
        used = {
            "position": self._beyond(q, self.limits["position_min"], self.limits["position_max"], POSITION_EPS, joints),
            "velocity": self._velocity(q, dq, period),
            "acceleration": self._greatest([ddq, np.diff(dq, axis=0) / period], self.limits["acceleration_max"]),
            "jerk": self._greatest([np.diff(ddq, axis=0) / period], self.limits["jerk_max"]),
            "rest": 1.0 + max(0.0, float(np.abs(after.dq[-1]).max()) - REST) / REST,
        }
        if self.kinematics is not None:
            wall_m = STOP_WORKSPACE_EPS if stop else WORKSPACE_EPS
            used |= self._tip(q, period, wall_m, tip) | self._torques(q, dq, ddq, period)
        return used

    def _greatest(self, values: list[np.ndarray], limit: np.ndarray) -> float:
        return max(_or_infinite(np.abs(value) / limit) for value in values)

    def _velocity(self, q: np.ndarray, dq: np.ndarray, period: float) -> float:
        high, low = self.cap + 0 * q, -self.cap + 0 * q
        if self.law:
            o, g, upper, lower = (self.law[name] for name in ("offset", "gain", "upper", "lower"))
            high = np.minimum(high, np.maximum(0.0, o + np.sqrt(np.maximum(0.0, g * (upper - q)))))
            low = np.maximum(low, -np.maximum(0.0, o + np.sqrt(np.maximum(0.0, g * (q - lower)))))
        excess = np.maximum(dq - high, low - dq) / self.cap
        return max(1.0 + _or_infinite(excess), _or_infinite(np.abs(np.diff(q, axis=0)) / period / self.cap))

    def _beyond(
        self, value: np.ndarray, low: np.ndarray, high: np.ndarray, tolerance: float, nearest: np.ndarray | float
    ) -> float:
        """Beyond the range and its tolerance, or further than at its nearest until then."""
        outside = _outside(value, low, high)
        least = np.minimum(np.minimum.accumulate(outside), nearest)
        further = outside - np.maximum(least, tolerance)  # which is not granted anew to each motion
        return 1.0 + max(0.0, _or_infinite(further) - ROUNDING) / tolerance

    def _tip(self, q: np.ndarray, period: float, wall_m: float, nearest: np.ndarray | float) -> dict[str, float]:
        stride = max(1, round(TIP_S / period))
        tips = self.kinematics.tips(q[::stride])
        speeds = np.linalg.norm(np.diff(tips, axis=0), axis=1) / (stride * period)
        box = self._beyond(tips, self.limits["workspace_min"], self.limits["workspace_max"], wall_m, nearest)
        if stride > 1:
            around = np.argsort(speeds)[-FASTEST:, None] * stride + np.arange(2 * stride) - stride // 2
            around = np.unique(np.clip(around, 0, len(q) - 1))
            apart, fine = np.diff(around), np.diff(self.kinematics.tips(q[around]), axis=0)
            speeds = np.append(speeds, np.linalg.norm(fine, axis=1) / (apart * period))
        return {"tip_speed": _or_infinite(speeds / self.tip_speed), "workspace": box}

    def _torques(self, q: np.ndarray, dq: np.ndarray, ddq: np.ndarray, period: float) -> dict[str, float]:
        used = {}
        steepest = self._steepest(q, ddq, STEEPEST)
        at = np.union1d(np.arange(0, len(q) - 1, max(1, round(TORQUE_S / period))), steepest)
        torque = self.kinematics.torques(q[at], dq[at], ddq[at])
        if self.torque is not None:
            used["torque"] = _or_infinite(np.abs(torque) / self.torque)
        if self.torque_rate is not None:
            after = self.kinematics.torques(q[at + 1], dq[at + 1], ddq[at + 1])
            used["torque_rate"] = _or_infinite(np.abs(after - torque) / period / self.torque_rate)
        return used

    def _steepest(self, q: np.ndarray, ddq: np.ndarray, count: int) -> np.ndarray:
        """Periods whose change of acceleration asks some joint for about the most, no two of a joint from one ascent."""
        changes = np.diff(ddq, axis=0)
        parts = [part for part in np.array_split(np.arange(len(changes)), INERTIAS) if len(part)]
        at = q[[part[len(part) // 2] for part in parts]]
        inertias = self.kinematics.dynamics(at, np.zeros_like(at))[0]
        steps = np.concatenate([changes[part] @ inertia.T for part, inertia in zip(parts, inertias, strict=True)])
        share = np.abs(steps / (1.0 if self.torque_rate is None else self.torque_rate))
        padded = np.pad(share, ((1, 1), (0, 0)), constant_values=-np.inf)
        share[(share < padded[:-2]) | (share <= padded[2:])] = 0.0  # what is no local maximum
        return np.argpartition(share.max(1), -min(count, len(share)))[-count:]


def touch(contacts: Contacts, motion: Trajectory) -> dict[str, float]:
    """How deep the arm gets into anything on its way; above 1 + EPS more than TOUCH_EPS."""
    times = np.append(np.arange(motion.times_s[0], motion.times_s[-1], TOUCH_S), motion.times_s[-1])
    depth, what = contacts.deepest(read(motion, times)[0])
    return {f"touch of {what}" if what else "touch": 1.0 + max(0.0, depth - TOUCH_EPS) / TOUCH_EPS}


def broken(used: dict[str, float]) -> list[str]:
    """The limits that are broken, with how much of each is taken."""
    return [f"{name} {value:.4f}" for name, value in used.items() if not value <= 1 + EPS]


def _outside(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, np.maximum(low - value, value - high))


def _or_infinite(value: np.ndarray) -> float:
    """The greatest, or infinity where one is not a number: what cannot be judged is no pass."""
    if not value.size:
        return 0.0
    greatest = float(np.max(value))
    return greatest if np.isfinite(greatest) else float("inf")
