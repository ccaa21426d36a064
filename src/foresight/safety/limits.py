"""Does a motion keep the robot's limits at the controller's rate? Position, speed, acceleration, jerk, tip, torque, rest.

Each finding says what is wrong and how much slower the same path would have to be run. Knows no ages and no motion in force.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from foresight.data import Reason, Trajectory, Verdict
from foresight.interfaces import MotionKinematics
from foresight.robots.profile import RobotProfile
from foresight.safety.config import GuardConfig
from foresight.safety.samples import Motion, Samples, peaks

JERK_PHASES = 4  # of the control periods at which the jerk is looked at, besides those that matter most
SAMPLES_HZ = 250.0  # at least, of a slower controller's motion: its phase is not known
TORQUE_SPACING_S = 0.02  # [s] between two looks at inertia and gravity, which change slowly; accelerations are seen at the rate


class Finding(NamedTuple):
    """What is wrong, and the share of the speed at which it would be right; 0 where no slowing mends it."""

    verdict: Verdict
    share: float = 0.0


def findings(
    motion: Trajectory, profile: RobotProfile, kinematics: MotionKinematics | None, config: GuardConfig, now_s: float
) -> Iterator[Finding]:
    """What breaks a limit, cheap checks first; each is computed only when those before it found nothing.

    The motion has at least two points, increasing finite times and finite numbers. Without kinematics neither tip nor torque
    is looked at.
    """
    polynomials = Motion(motion)
    yield from _rest(motion, profile, config)
    yield from _greatest(Reason.ACCELERATION_LIMIT, polynomials.greatest_acceleration(), profile, config.limit_tolerance)
    yield from _jerk(motion, polynomials, profile, config)
    samples = polynomials.samples(max(profile.controller_rate_hz, SAMPLES_HZ))
    yield from _position(samples, profile, config, now_s)
    yield from _velocity(samples, profile, config, now_s)
    if kinematics is None:
        return
    yield from _tip(samples, profile, kinematics, config, now_s)
    yield from _torque(samples, polynomials, profile, kinematics, config, now_s)


def _rest(motion: Trajectory, profile: RobotProfile, config: GuardConfig) -> Iterator[Finding]:
    allowed = profile.jerk_max * config.join_acceleration_s
    for value, limit, unit in ((motion.dq[-1], config.rest_rad_s, "rad/s"), (motion.ddq[-1], allowed, "rad/s^2")):
        size = np.abs(value)
        if not (size <= limit).all():
            j = int(np.argmax(size / limit))
            yield Finding(
                Verdict(
                    Reason.NOT_AT_REST,
                    f"{profile.joint_names[j]} would end at {size[j]:.5f} {unit}, "
                    f"allowed {np.broadcast_to(limit, size.shape)[j]:.5g} {unit}.",
                )
            )


_UNITS = {Reason.ACCELERATION_LIMIT: ("acceleration_max", "rad/s^2", 2), Reason.JERK_LIMIT: ("jerk_max", "rad/s^3", 3)}


def _greatest(
    reason: Reason, greatest: Float[np.ndarray, "J"], profile: RobotProfile, tolerance: float
) -> Iterator[Finding]:
    name, unit, power = _UNITS[reason]
    limit = getattr(profile, name)
    if not (greatest <= limit * (1 + tolerance)).all():
        j = int(np.argmax(greatest / limit))
        detail = f"{profile.joint_names[j]} would reach {greatest[j]:.4f} {unit}, allowed {limit[j]} {unit}."
        yield Finding(Verdict(reason, detail), float(limit[j] / greatest[j]) ** (1 / power))


def _jerk(motion: Trajectory, polynomials: Motion, profile: RobotProfile, config: GuardConfig) -> Iterator[Finding]:
    """Change of the commanded acceleration over one control period, wherever the period begins, the step into rest included.

    The exact jerk bounds it; only where that is above the limit (for less than a period, perhaps) are the periods looked at:
    those of a fine grid, and those that begin or end at a point or where the acceleration turns.
    """
    period_s = 1 / profile.controller_rate_hz
    into_rest = np.abs(motion.ddq[-1]) / period_s
    if (polynomials.greatest_jerk() + into_rest <= profile.jerk_max * (1 + config.limit_tolerance)).all():
        return
    edges = polynomials.edges(period_s)
    begins = np.concatenate([np.arange(edges[0], edges[-1], period_s / JERK_PHASES), edges, edges - period_s])
    change = polynomials.change(begins[begins >= edges[0]], period_s)
    yield from _greatest(Reason.JERK_LIMIT, np.abs(change).max(0) / period_s, profile, 0.0)


def _position(samples: Samples, profile: RobotProfile, config: GuardConfig, now_s: float) -> Iterator[Finding]:
    """Within the range less its margin, or on the way back from a place in the margin, and never beyond the range itself."""
    low, high = profile.position_min, profile.position_max
    beyond = np.maximum(samples.q - high, low - samples.q)
    if beyond.max() <= -config.position_margin_rad:
        return
    margin = np.minimum(config.position_margin_rad, 0.05 * (high - low))
    inside = np.maximum(0.0, beyond + margin)
    further = inside - np.minimum.accumulate(inside)
    for excess, allowed, what in ((beyond, 0.0, ""), (further, config.position_tolerance_rad, f" less {margin.max():.2g} rad")):
        if not (excess <= allowed).all():
            i, j = np.unravel_index(int(np.argmax(excess)), excess.shape)
            yield Finding(
                Verdict(
                    Reason.POSITION_LIMIT,
                    f"{profile.joint_names[j]} would reach {samples.q[i, j]:.4f} rad {samples.times_s[i] - now_s:.3f} s from now, "
                    f"allowed {low[j]} to {high[j]} rad{what}.",
                )
            )


def _velocity(samples: Samples, profile: RobotProfile, config: GuardConfig, now_s: float) -> Iterator[Finding]:
    low, high = profile.velocity_bounds(samples.q)
    bound = np.where(samples.dq >= 0, high, -low) * (1 + config.limit_tolerance)
    excess = peaks(np.abs(samples.dq) - bound)
    if not (excess <= 0).all():
        i, j = np.unravel_index(int(np.argmax(excess)), excess.shape)
        speed, allowed = float(bound[i, j] + excess[i, j]), float(bound[i, j] / (1 + config.limit_tolerance))
        yield Finding(
            Verdict(
                Reason.VELOCITY_LIMIT,
                f"{profile.joint_names[j]} would reach {speed:.4f} rad/s {samples.times_s[i] - now_s:.3f} s from now, "
                f"allowed {allowed:.4f} rad/s there.",
            ),
            float((np.maximum(bound, 0.0) / np.maximum(bound + excess, 1e-9)).min()) if allowed > 0 else 0.0,
        )


def _tip(
    samples: Samples, profile: RobotProfile, kinematics: MotionKinematics, config: GuardConfig, now_s: float
) -> Iterator[Finding]:
    """Speed of the tip, and its place: inside the workspace, or on the way back into it and never further out."""
    tips, velocities = kinematics.tip_motion(samples.q, samples.dq)
    speeds = peaks(np.sqrt((velocities**2).sum(1)))
    i = int(np.argmax(speeds))
    if not speeds[i] <= profile.tip_speed_max * (1 + config.limit_tolerance):
        yield Finding(
            Verdict(
                Reason.TIP_SPEED_LIMIT,
                f"The tip would reach {speeds[i]:.4f} m/s {samples.times_s[i] - now_s:.3f} s from now, "
                f"allowed {profile.tip_speed_max} m/s.",
            ),
            profile.tip_speed_max / float(speeds[i]),
        )
    outside = np.maximum(0.0, np.maximum(profile.workspace_min - tips, tips - profile.workspace_max))
    further = outside - np.minimum.accumulate(outside)  # beyond the nearest it has been to the workspace
    if not (further <= config.workspace_tolerance_m).all():
        i, axis = np.unravel_index(int(np.argmax(further)), further.shape)
        yield Finding(
            Verdict(
                Reason.WORKSPACE,
                f"The tip would go to {'xyz'[axis]} = {tips[i, axis]:.4f} m {samples.times_s[i] - now_s:.3f} s from now, "
                f"allowed {profile.workspace_min[axis]} to {profile.workspace_max[axis]} m, or back towards it from outside.",
            )
        )


def _torque(
    samples: Samples,
    polynomials: Motion,
    profile: RobotProfile,
    kinematics: MotionKinematics,
    config: GuardConfig,
    now_s: float,
) -> Iterator[Finding]:
    """Inverse dynamics of the package's model, where the profile gives limits.

    Torque is inertia @ ddq + bias. Inertia and bias are read every TORQUE_SPACING_S and taken as linear between; acceleration
    is taken at the controller's rate. The rate of the torque is inertia @ the change of acceleration over a control period, plus
    what bias and inertia change by, the latter with the greatest acceleration.
    """
    if profile.torque_max is None and profile.torque_rate_max is None:
        return
    coarse = samples.every(TORQUE_SPACING_S)
    inertia, bias = kinematics.dynamics(samples.q[coarse], samples.dq[coarse])
    times = samples.times_s[coarse]
    slot = np.clip(np.searchsorted(times, samples.times_s, side="right") - 1, 0, len(times) - 2)
    share = ((samples.times_s - times[slot]) / (times[slot + 1] - times[slot]))[:, None]
    near = inertia[slot] + share[..., None] * (inertia[slot + 1] - inertia[slot])
    margin = 1 + config.limit_tolerance
    if profile.torque_max is not None:
        torque = np.abs(np.einsum("mij,mj->mi", near, samples.ddq) + bias[slot] + share * (bias[slot + 1] - bias[slot]))
        yield from _worst(Reason.TORQUE_LIMIT, torque, profile.torque_max, margin, "Nm", 0.0, samples.times_s, profile, now_s)
    if profile.torque_rate_max is not None:
        period_s = 1 / profile.controller_rate_hz
        edges = polynomials.edges(period_s)
        begins = np.concatenate([samples.times_s, edges, edges - period_s])
        begins = begins[begins >= times[0]]
        slot = np.clip(np.searchsorted(times, begins, side="right") - 1, 0, len(times) - 2)
        near, step = inertia[slot], (times[slot + 1] - times[slot])[:, None]
        change = polynomials.change(begins, period_s) / period_s
        rate = np.einsum("mij,mj->mi", near, change) + (bias[slot + 1] - bias[slot]) / step
        rate = np.abs(rate) + np.einsum(
            "mij,j->mi", np.abs(inertia[slot + 1] - inertia[slot]) / step[..., None], np.abs(samples.ddq).max(0)
        )
        yield from _worst(
            Reason.TORQUE_RATE_LIMIT, rate, profile.torque_rate_max, 1.0, "Nm/s", 1 / 3, begins, profile, now_s
        )


def _worst(
    reason: Reason,
    value: Float[np.ndarray, "M J"],
    limit: Float[np.ndarray, "J"],
    margin: float,
    unit: str,
    power: float,
    times_s: Float[np.ndarray, "M"],
    profile: RobotProfile,
    now_s: float,
) -> Iterator[Finding]:
    if not (value <= limit * margin).all():
        i, j = np.unravel_index(int(np.argmax(value / limit)), value.shape)
        yield Finding(
            Verdict(
                reason,
                f"{profile.joint_names[j]} would need {value[i, j]:.2f} {unit} {times_s[i] - now_s:.3f} s from now, "
                f"allowed {limit[j]} {unit}.",
            ),
            float(limit[j] / value[i, j]) ** power if power else 0.0,
        )
