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
from foresight.safety.samples import Motion, Samples, peaks, polynomial

TIP_SPACING_S, TIP_RISE = 0.01, 0.05  # [s] at most between two looks at the tip, and what its speed may rise between them
SAMPLES_HZ = (100.0, 250.0)  # at least, of a gentle motion, and of a slow controller's: its phase is not known
NEAR_RAD = 1e-3  # [rad] from a joint's margin within which positions between samples matter
SAMPLE_ERROR = 2e-4  # [rad/s] by which a speed may rise between two samples
END_RAD_S = 1e-7  # [rad/s] at a trajectory's end; ros2_controllers ignores, silently, one that ends above 1.2e-7
END_RAD_S2 = 1e-4  # [rad/s^2] there: what is begun a little later takes it up, and goes astray by 1e-7 rad within 0.25 s
ROUNDING = 1e-9  # [rad, m] by which a motion that begins beyond a margin or wall may seem to go further: it adds up over motions
LAW_SLOPE = 40.0  # [1/s] by which a velocity limit that depends on position falls at most, per rad
SURE = 0.99  # share of a torque or torque rate limit that is granted: inertia and gravity are known between looks only nearly
CLOSE = 0.96  # of a torque rate limit, from which on it is looked at exactly: the rest is for what inertia does meanwhile
TORQUE_SPACING_S = 0.04  # [s] between two looks at inertia and gravity, which change slowly; accelerations are seen at the rate


class Finding(NamedTuple):
    """What is wrong, and the share of the speed at which it would be right; 0 where no slowing mends it."""

    verdict: Verdict
    share: float = 0.0
    motion: Trajectory | None = None  # what the controller would execute, where nothing is wrong


def findings(
    motion: Trajectory,
    profile: RobotProfile,
    kinematics: MotionKinematics | None,
    config: GuardConfig,
    now_s: float,
    before: Trajectory | None = None,
) -> Iterator[Finding]:
    """What breaks a limit, cheap checks first; each is computed only when those before it found nothing.

    The motion has at least two points, increasing finite times and finite numbers. It takes over from the motion `before`, in the
    midst of a control period. Without kinematics neither tip nor torque is looked at.
    """
    polynomials = Motion(motion, _until(before, float(motion.times_s[0]), 1 / profile.controller_rate_hz))
    yield from _rest(motion, profile)
    yield from _greatest(Reason.ACCELERATION_LIMIT, polynomials.greatest_acceleration, profile, config.limit_tolerance)
    yield from _jerk(polynomials, profile, config)
    samples = polynomials.samples(_rate_hz(polynomials, profile))
    yield from _position(samples, profile, config, now_s)
    yield from _velocity(samples, polynomials, profile, config, now_s)
    if kinematics is None:
        return
    yield from _tip(samples, polynomials.greatest_jerk, profile, kinematics, config, now_s)
    yield from _torque(samples, polynomials, profile, kinematics, config, now_s)


def _until(before: Trajectory | None, begin_s: float, period_s: float) -> Motion | None:
    """The motion before, in the control period in which another takes over; None where it is at rest by then."""
    if before is None or len(before.times_s) < 2 or before.times_s[-1] <= begin_s - period_s:
        return None
    first = max(0, int(np.searchsorted(before.times_s, begin_s - period_s, side="right")) - 1)
    last = max(first + 1, int(np.searchsorted(before.times_s, begin_s)))
    kept = slice(first, last + 1)
    return Motion(Trajectory(before.times_s[kept], before.q[kept], before.dq[kept], before.ddq[kept]))


def _rate_hz(polynomials: Motion, profile: RobotProfile) -> float:
    """The controller's rate, or what is enough for SAMPLE_ERROR given the motion's greatest jerk and acceleration."""
    bend = float((polynomials.greatest_jerk + LAW_SLOPE * polynomials.greatest_acceleration).max())  # [rad/s^3]
    enough, (gentle, slow) = float(np.sqrt(bend / (8 * SAMPLE_ERROR))), SAMPLES_HZ
    return float(np.clip(enough, gentle, max(profile.controller_rate_hz, slow)))


def _rest(motion: Trajectory, profile: RobotProfile) -> Iterator[Finding]:
    for value, limit, unit in ((motion.dq[-1], END_RAD_S, "rad/s"), (motion.ddq[-1], END_RAD_S2, "rad/s^2")):
        size = np.abs(value)
        if not (size <= limit).all():
            j = int(np.argmax(size))
            detail = f"{profile.joint_names[j]} would end at {size[j]:.3g} {unit}, allowed {limit:g} {unit}."
            yield Finding(Verdict(Reason.NOT_AT_REST, detail))


_UNITS = {Reason.ACCELERATION_LIMIT: ("acceleration_max", "rad/s^2", 2), Reason.JERK_LIMIT: ("jerk_max", "rad/s^3", 3)}


def _greatest(reason: Reason, greatest: Float[np.ndarray, "J"], profile: RobotProfile, tolerance: float) -> Iterator[Finding]:
    name, unit, power = _UNITS[reason]
    limit = getattr(profile, name)
    if not (greatest <= limit * (1 + tolerance)).all():
        j = int(np.argmax(greatest / limit))
        detail = f"{profile.joint_names[j]} would reach {greatest[j]:.4f} {unit}, allowed {limit[j]} {unit}."
        yield Finding(Verdict(reason, detail), float(limit[j] / greatest[j]) ** (1 / power))


def _jerk(polynomials: Motion, profile: RobotProfile, config: GuardConfig) -> Iterator[Finding]:
    """Change of the commanded acceleration over one control period, wherever the period begins.

    The first is the one in which the motion takes over, so what the motion before did in it counts. The exact jerk bounds it;
    only where that is above the limit, for less than a period perhaps, are the periods looked at.
    """
    period_s = 1 / profile.controller_rate_hz
    if (_greatest_jerk(polynomials) <= profile.jerk_max * (1 + config.limit_tolerance)).all():
        return
    periods = polynomials.over(period_s)
    change = polynomial(periods.change, periods.extremes(periods.change))
    yield from _greatest(Reason.JERK_LIMIT, np.abs(change).max((0, 1)) / period_s, profile, config.limit_tolerance)


def _greatest_jerk(polynomials: Motion) -> Float[np.ndarray, "J"]:
    if polynomials.before is None:
        return polynomials.greatest_jerk
    return np.maximum(polynomials.greatest_jerk, polynomials.before.greatest_jerk)


def _position(samples: Samples, profile: RobotProfile, config: GuardConfig, now_s: float) -> Iterator[Finding]:
    """Within the range less its margin, or on the way back from a place in the margin, and never beyond the range itself.

    The range holds between samples too.
    """
    low, high = profile.position_min, profile.position_max
    beyond = np.maximum(samples.q - high, low - samples.q)
    if beyond.max() < -config.position_margin_rad - NEAR_RAD:
        return
    margin = np.minimum(config.position_margin_rad, 0.05 * (high - low))
    inside = np.maximum(0.0, beyond + margin)  # at samples, as a parabola at the end of a rest seems to go further than it does
    further = inside - np.maximum(np.minimum.accumulate(inside), config.position_tolerance_rad)
    for excess, allowed, what in ((peaks(beyond), 0.0, ""), (further, ROUNDING, f" less {margin.max():.2g} rad")):
        if not (excess <= allowed).all():
            i, j = np.unravel_index(int(np.argmax(excess)), excess.shape)
            yield Finding(
                Verdict(
                    Reason.POSITION_LIMIT,
                    f"{profile.joint_names[j]} would reach {samples.q[i, j]:.4f} rad "
                    f"{samples.times_s[i] - now_s:.3f} s from now, allowed {low[j]} to {high[j]} rad{what}.",
                )
            )


def _velocity(
    samples: Samples, polynomials: Motion, profile: RobotProfile, config: GuardConfig, now_s: float
) -> Iterator[Finding]:
    """At the samples, and where an acceleration is zero: between two samples a slow controller's motion may be faster."""
    least, most = profile.velocity_bounds(samples.q.min(0))[0], profile.velocity_bounds(samples.q.max(0))[1]
    between = polynomials.greatest_jerk * np.diff(samples.times_s).max() ** 2 / 8  # that the speed may rise by there
    if (samples.dq.min(0) - between >= least).all() and (samples.dq.max(0) + between <= most).all():
        return  # the limits shrink towards the ends of the joints, so these are the narrowest on the way
    after_s = polynomials.coasting()
    times_s = np.append(samples.times_s, polynomials.starts_s[0] + after_s)
    q, dq = (np.vstack(pair) for pair in zip((samples.q, samples.dq), polynomials.at(after_s), strict=True))
    low, high = profile.velocity_bounds(q)
    bound = np.where(dq >= 0, high, -low) * (1 + config.limit_tolerance)
    excess = np.abs(dq) - bound
    excess[: len(samples.times_s)] = peaks(excess[: len(samples.times_s)])
    if not (excess <= 0).all():
        i, j = np.unravel_index(int(np.argmax(excess)), excess.shape)
        speed, allowed = float(bound[i, j] + excess[i, j]), float(bound[i, j] / (1 + config.limit_tolerance))
        yield Finding(
            Verdict(
                Reason.VELOCITY_LIMIT,
                f"{profile.joint_names[j]} would reach {speed:.4f} rad/s {times_s[i] - now_s:.3f} s from now, "
                f"allowed {allowed:.4f} rad/s there.",
            ),
            float((np.maximum(bound, 0.0) / np.maximum(bound + excess, 1e-9)).min()) if allowed > 0 else 0.0,
        )


def _tip(
    samples: Samples,
    jerk: Float[np.ndarray, "J"],
    profile: RobotProfile,
    kinematics: MotionKinematics,
    config: GuardConfig,
    now_s: float,
) -> Iterator[Finding]:
    """Speed of the tip, and its place: inside the workspace, or on the way back into it and never further out.

    Looks are so near each other that between them the speed rises by TIP_RISE of its limit at most, given the greatest jerk of
    the joints and a reach of a metre; where a look comes that near, every sample around it is looked at.
    """
    speed_max = config.tip_speed_share * profile.tip_speed_max
    spacing_s = np.clip(np.sqrt(8 * TIP_RISE * speed_max / max(float(jerk.sum()), 1e-9)), 0.0, TIP_SPACING_S)
    coarse = samples.every(float(spacing_s))
    tips, velocities = kinematics.tip_motion(samples.q[coarse], samples.dq[coarse])
    speeds = np.sqrt((velocities**2).sum(1))
    fast = np.flatnonzero(speeds > (1 - TIP_RISE) * speed_max)
    if len(fast) and len(coarse) < len(samples.times_s):
        wanted = np.zeros(len(samples.times_s), dtype=bool)
        for first, last in zip(coarse[np.maximum(fast - 1, 0)], coarse[np.minimum(fast + 1, len(coarse) - 1)], strict=True):
            wanted[first : last + 1] = True
        fine = np.flatnonzero(wanted)
        speeds, looked = peaks(_speeds(samples, fine, kinematics)), fine
    else:
        speeds, looked = peaks(speeds), coarse
    i = int(np.argmax(speeds))
    if not speeds[i] <= speed_max * (1 + config.limit_tolerance):
        yield Finding(
            Verdict(
                Reason.TIP_SPEED_LIMIT,
                f"The tip would reach {speeds[i]:.4f} m/s {samples.times_s[looked[i]] - now_s:.3f} s from now, "
                f"allowed {speed_max:.4g} m/s ({config.tip_speed_share:.0%} of its cap of {profile.tip_speed_max} m/s).",
            ),
            speed_max / float(speeds[i]),
        )
    outside = np.maximum(0.0, np.maximum(profile.workspace_min - tips, tips - profile.workspace_max))
    nearest = np.minimum.accumulate(outside)  # once outside by more than the tolerance, it may not add to it with each motion
    further = outside - np.maximum(nearest, config.workspace_tolerance_m)
    if not (further <= ROUNDING).all():
        i, axis = np.unravel_index(int(np.argmax(further)), further.shape)
        yield Finding(
            Verdict(
                Reason.WORKSPACE,
                f"The tip would go to {'xyz'[axis]} = {tips[i, axis]:.4f} m {samples.times_s[coarse[i]] - now_s:.3f} s from now, "
                f"allowed {profile.workspace_min[axis]} to {profile.workspace_max[axis]} m, or back towards it from outside.",
            )
        )


def _speeds(samples: Samples, at: np.ndarray, kinematics: MotionKinematics) -> Float[np.ndarray, "K"]:
    return np.sqrt((kinematics.tip_motion(samples.q[at], samples.dq[at])[1] ** 2).sum(1))


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
    is taken at the controller's rate.
    """
    if profile.torque_max is None and profile.torque_rate_max is None:
        return
    coarse = samples.every(TORQUE_SPACING_S)
    inertia, bias = kinematics.dynamics(samples.q[coarse], samples.dq[coarse])
    times = samples.times_s[coarse]
    if profile.torque_max is not None:
        at_most = np.abs(inertia).max(0) @ np.abs(samples.ddq).max(0) + np.abs(bias).max(0)
        if not (at_most <= SURE * profile.torque_max).all():
            slot = np.clip(np.searchsorted(times, samples.times_s, side="right") - 1, 0, len(times) - 2)
            share = ((samples.times_s - times[slot]) / (times[slot + 1] - times[slot]))[:, None]
            near = inertia[slot] + share[..., None] * (inertia[slot + 1] - inertia[slot])
            torque = (near @ samples.ddq[..., None])[..., 0] + bias[slot] + share * (bias[slot + 1] - bias[slot])
            when = np.broadcast_to(samples.times_s[:, None], torque.shape)
            yield from _worst(Reason.TORQUE_LIMIT, np.abs(torque), SURE * profile.torque_max, "Nm", 0.0, when, profile, now_s)
    if profile.torque_rate_max is not None:
        yield from _torque_rate(times, inertia, bias, samples, polynomials, profile, kinematics, now_s)


def _torque_rate(
    times_s: Float[np.ndarray, "C"],
    inertia: Float[np.ndarray, "C J J"],
    bias: Float[np.ndarray, "C J"],
    samples: Samples,
    polynomials: Motion,
    profile: RobotProfile,
    kinematics: MotionKinematics,
    now_s: float,
) -> Iterator[Finding]:
    """Inertia @ the change of acceleration over a control period, plus what bias and inertia change by.

    A bound tells in which pieces it may come CLOSE to the limit. There it is read, nearly, where it would be extreme if inertia
    did not change between two looks at it. Where that is CLOSE too, inverse dynamics at both ends of the period have the last
    word.
    """
    step = np.diff(times_s)[:, None]
    drift, turning = np.diff(bias, axis=0) / step, np.diff(inertia, axis=0) / step[..., None]
    limit, period_s = profile.torque_rate_max, 1 / profile.controller_rate_hz
    slow = np.abs(drift) + np.abs(turning) @ np.abs(samples.ddq).max(0)
    if (np.abs(inertia).max(0) @ _greatest_jerk(polynomials) + slow.max(0) <= CLOSE * limit).all():
        return

    periods = polynomials.over(period_s, times_s)
    slot = np.clip(np.searchsorted(times_s, periods.begins_s + periods.lengths_s / 2, side="right") - 1, 0, len(times_s) - 2)
    near, turning = inertia[slot] + (periods.begins_s - times_s[slot])[:, None, None] * turning[slot], turning[slot]
    drift = drift[slot]
    change, after = (np.abs(polynomial(cubics, periods.extremes(cubics))).max(0) for cubics in (periods.change, periods.after))
    heaviest = np.abs(near) + periods.lengths_s[:, None, None] * np.abs(turning)
    at_most = (heaviest @ (change / period_s)[..., None] + np.abs(turning) @ after[..., None])[..., 0] + np.abs(drift)
    piece, joint = np.nonzero(~(at_most <= CLOSE * limit))
    if not len(piece):
        return

    some, near, turning = periods.of(piece), near[piece, joint], turning[piece, joint]
    turns = some.extremes((near * some.change).sum(-1, keepdims=True))  # they turn where they would with inertia constant
    change, after = (polynomial(cubics, turns) for cubics in (some.change, some.after))
    rate = ((near + turns * turning) * (change / period_s) + turning * after).sum(-1) + drift[piece, joint]
    turn, which = np.nonzero(~(np.abs(rate) <= CLOSE * limit[joint]))
    piece, into_s = np.unique(np.stack([piece[which], turns[turn, which, 0]]), axis=1)
    piece = piece.astype(int)
    # Of the piece and not of the time: where one ends and the next begins, the acceleration may step.
    change, after = (polynomial(cubics[:, piece], into_s[:, None]) for cubics in (periods.change, periods.after))
    begins_s = periods.begins_s[piece] - polynomials.starts_s[0] + into_s
    torque, later = (
        kinematics.torques(*polynomials.at(begins_s + by_s), ddq) for by_s, ddq in ((0.0, after - change), (period_s, after))
    )
    when = np.broadcast_to((begins_s + polynomials.starts_s[0])[:, None], torque.shape)
    yield from _worst(
        Reason.TORQUE_RATE_LIMIT, np.abs(later - torque) / period_s, SURE * limit, "Nm/s", 1 / 3, when, profile, now_s
    )


def _worst(
    reason: Reason,
    value: Float[np.ndarray, "M J"],
    limit: Float[np.ndarray, "J"],
    unit: str,
    power: float,
    times_s: Float[np.ndarray, "M J"],
    profile: RobotProfile,
    now_s: float,
) -> Iterator[Finding]:
    if not (value <= limit).all():
        i, j = np.unravel_index(int(np.argmax(value / limit)), value.shape)
        yield Finding(
            Verdict(
                reason,
                f"{profile.joint_names[j]} would need {value[i, j]:.2f} {unit} {times_s[i, j] - now_s:.3f} s from now, "
                f"allowed {limit[j]} {unit}.",
            ),
            float(limit[j] / value[i, j]) ** power if power else 0.0,
        )
