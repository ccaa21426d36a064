"""The same path in joint space, run slower or to a stop: the one repair that the guard makes, and how much near what.

A motion q(s) is run with another time s(t): ds/dt begins at 1 and falls to `share` along a trapezoid of deceleration, so that
position, velocity and acceleration join what went before. Knows no motion in force and no verdicts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from foresight.control.trajectory import Rates, cut, derivatives, splice
from foresight.data import Trajectory
from foresight.robots.profile import RobotProfile
from foresight.safety.config import GuardConfig
from foresight.safety.limits import Finding

POINT_S = 0.01  # [s] between points while the speed changes; quintics through them keep within 0.5 % of the path's jerk
APART_S = 1e-4  # [s] a point of the motion nearer than this to its begin or end is left out: a clock's digits show there
NEAR_S = 0.002  # [s] a regular point nearer to a point of the motion is left out
RISE_S = 0.006  # [s] that a stop's deceleration takes at least to come and to go, so that points so near each other show it
LOOK_S = 0.004  # [s] between two looks at the limits when a stop is sought
HEADROOM = 0.98  # share of the limits that a stop uses
TRIES = 24
HALVINGS = 3  # of the step from the longest stop that was too quick to the one that was not
LONGER = 1.12  # factor from one stop tried to the next
MENDINGS = 4  # slowings of one motion tried
SURER = 0.99  # of the share that a limit asks for
OUTRUN = 1.3  # times the speed that nearness allows, to which a plan may gain while its slowing comes to show
ALIKE = 0.02  # of the share, in which what is in force is as fast


def speed_share(
    distance: float | Float[np.ndarray, "M"], stop: float, slow: float, share_min: float
) -> float | Float[np.ndarray, "M"]:
    """Share of full speed allowed at this distance: 1 from `slow` on, falling linearly to `share_min` at `stop` (one unit)."""
    return np.clip(share_min + (1 - share_min) * (distance - stop) / (slow - stop), share_min, 1.0)


def slowed(trajectory: Trajectory, share: float, ramp_s: float = 0.1, delay_s: float = 0.0) -> Trajectory:
    """The same path at `share` of its speed, reached within `ramp_s` [s] after `delay_s`; ends at rest where the trajectory does.

    `share` must lie above 0 and at most at 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"The share of the speed must lie above 0 and at most at 1, got {share}.")
    begin_s = float(trajectory.times_s[0])
    if delay_s <= 0:
        return _retimed(trajectory, _Slowing(share, ramp_s))
    return splice(trajectory, _retimed(cut(trajectory, begin_s + delay_s), _Slowing(share, ramp_s)), begin_s)


def mended(
    trajectory: Trajectory, found: Finding, judge: Callable[[Trajectory], Finding], config: GuardConfig
) -> tuple[Trajectory, Finding, float] | None:
    """What was found wrong mended by slowing: the motion that passes, its finding and its share; None where none does.

    `found` is what `judge` says of the trajectory as it is.
    """
    share = 1.0
    for _ in range(MENDINGS):
        share *= min(found.share * SURER, SURER)
        if not share >= config.share_min:
            return None
        motion = slowed(trajectory, share, config.slow_ramp_s)
        found = judge(motion)
        if found.verdict.ok:
            return motion, found, share
    return None


def stop_along(in_force: Trajectory, now_s: float, profile: RobotProfile, jerk_share: float = 1.0) -> Trajectory | None:
    """To rest along the path in force, as quickly as joint acceleration and jerk allow; None where it has none to follow.

    Where the path ends before, that is the stop: what is left of it. Deceleration comes and goes at `jerk_share` of the limit.
    """
    left = cut(in_force, now_s)
    remaining_s = float(left.times_s[-1]) - now_s
    if len(left.times_s) < 2 or remaining_s <= 0:
        return None
    _, dq, _ddq, _ = derivatives(left, now_s)
    at_most_s = float(np.max(np.abs(dq) / profile.acceleration_max))
    rise_s = max(RISE_S, float(np.max(profile.acceleration_max / (jerk_share * profile.jerk_max))))
    duration_s, short_s = max(at_most_s + rise_s, 4 * NEAR_S), 0.0
    rise = rise_s / duration_s  # in longer stops as much longer: a path at its jerk's limit leaves a deceleration little to begin
    lasting = lambda s: _Slowing(0.0, s, min(rise, 0.5))  # noqa: E731
    rates = Rates(left)
    for _ in range(TRIES):
        if lasting(duration_s).path_s >= remaining_s:
            return left
        if _keeps(rates, lasting(duration_s), profile):
            break
        duration_s, short_s = duration_s * LONGER, duration_s
    else:
        return left
    for _ in range(HALVINGS if short_s else 0):
        middle_s = (short_s + duration_s) / 2
        short_s, duration_s = (short_s, middle_s) if _keeps(rates, lasting(middle_s), profile) else (middle_s, duration_s)
    return _retimed(left, lasting(duration_s))


Clearances = Callable[[Float[np.ndarray, "M J"]], Float[np.ndarray, "M"]]
TipSpeeds = Callable[[np.ndarray, np.ndarray], Float[np.ndarray, "N"]]


def graded_share(
    motion: Trajectory, profile: RobotProfile, config: GuardConfig, tip_speeds: TipSpeeds | None, clearance: Clearances | None
) -> tuple[float, float]:
    """The share at which the motion is as slow as its nearness to joint limits and obstacles asks, and the time [s] from its
    begin that may pass before it is slowed so; 1 far from both.

    `tip_speeds` maps (N, J) positions and velocities to speeds [m/s]; `clearance` maps (M, J) positions to metres. Looks every
    `config.graded_sample_s`, from where slowing can have shown: what moves at the begin is in force already.
    """
    begin, end = float(motion.times_s[0]), float(motion.times_s[-1])
    times = np.linspace(begin, end, int(np.ceil((end - begin) / config.graded_sample_s)) + 1)
    shares = _shares(motion, times, profile, config, tip_speeds, clearance)
    shares[times < begin + config.slow_ramp_s - APART_S] = 1.0
    first = int(np.argmax(shares < 1))
    return float(shares.min()), max(0.0, float(times[max(first - 1, 0)]) - begin - config.slow_ramp_s)


def outrun(
    motion: Trajectory,
    before: Trajectory | None,
    begin_s: float,
    profile: RobotProfile,
    config: GuardConfig,
    tip_speeds: TipSpeeds | None,
    clearance: Clearances | None,
) -> float:
    """How many times as fast as nearness allows the motion gets while its slowing comes to show; 1 where that is no faster than
    what is in force `before`. Plans that come sooner than slowing shows would else gain speed one from the other.
    """
    times = begin_s + config.slow_ramp_s * np.array([0.25, 0.5, 0.75, 1.0])
    shares = _shares(motion, times, profile, config, tip_speeds, clearance)
    fast = shares < 1 / OUTRUN
    if fast.any() and before is not None:
        fast[fast] = shares[fast] < _shares(before, times[fast], profile, config, tip_speeds, clearance) - ALIKE
    return float(1 / shares[fast].min()) if fast.any() else 1.0


def _shares(
    motion: Trajectory,
    times: Float[np.ndarray, "N"],
    profile: RobotProfile,
    config: GuardConfig,
    tip_speeds: TipSpeeds | None,
    clearance: Clearances | None,
) -> Float[np.ndarray, "N"]:
    """The share of its speed that nearness allows the motion at each of these times."""
    q, dq, _, _ = derivatives(motion, times)
    room = np.where(dq > 0, profile.position_max - q, q - profile.position_min)
    cap = np.minimum(profile.velocity_max, profile.joint_speed_max)
    asked = np.abs(dq) / cap
    slope = (room - config.position_margin_rad) / (config.slow_distance_rad - config.position_margin_rad)
    allowed = np.clip(config.share_min + (1 - config.share_min) * slope, config.share_min, 1.0)
    shares = (allowed / np.maximum(asked, allowed)).min(axis=1)
    if clearance is not None:
        shares = np.minimum(shares, _near_obstacles(q, dq, asked, profile, config, tip_speeds, clearance))
    return shares


def _near_obstacles(
    q: Float[np.ndarray, "N J"],
    dq: Float[np.ndarray, "N J"],
    asked: Float[np.ndarray, "N J"],
    profile: RobotProfile,
    config: GuardConfig,
    tip_speeds: TipSpeeds | None,
    clearance: Clearances,
) -> Float[np.ndarray, "N"]:
    """The share at each posture; where it is slow enough anyway, nobody looks."""
    used = asked.max(1) if tip_speeds is None else np.maximum(asked.max(1), tip_speeds(q, dq) / profile.tip_speed_max)
    shares = np.ones(len(q))
    fast = used > config.share_min
    if fast.any():
        near = speed_share(clearance(q[fast]), config.stop_distance_m, config.slow_distance_m, config.share_min)
        shares[fast] = near / np.maximum(near, used[fast])
    return shares


class _Slowing:
    """s(t) with ds/dt from 1 to `share` in `duration_s`: deceleration rises for `rise` of that, holds, and falls as long."""

    def __init__(self, share: float, duration_s: float, rise: float = 0.3) -> None:
        self.share, self.duration_s, self.rise = share, duration_s, rise
        self.path_s = duration_s * (1 + share) / 2  # by symmetry

    def __call__(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """s [s] and its three derivatives at times t [s] from the beginning."""
        duration, r = self.duration_s, self.rise
        x = np.clip(t / duration, 0.0, 1.0)
        late = x > 0.5
        y = np.where(late, 1 - x, x)  # the second half mirrors the first
        peak = 1 / (1 - r)
        rising = y < r
        level = np.where(rising, peak * y / r, peak)  # of the deceleration, integral 1 over the whole
        fall = np.where(rising, peak * y**2 / (2 * r), peak * (y - r / 2))
        area = np.where(rising, peak * y**3 / (6 * r), peak * (y**2 / 2 - r * y / 2 + r**2 / 6))
        fall, area = np.where(late, 1 - fall, fall), np.where(late, area + x - 0.5, area)
        drop = 1 - self.share
        after = np.maximum(t - duration, 0.0) * self.share
        edge = np.where(rising, peak / r, 0.0) * np.where(late, -1.0, 1.0)
        ended = t > duration
        return (
            duration * (x - drop * area) + after,
            1 - drop * fall,
            np.where(ended, 0.0, -drop * level / duration),
            np.where(ended, 0.0, -drop * edge / duration**2),
        )

    def when(self, s: np.ndarray) -> np.ndarray:
        """The times at which s has these values; beyond the end of a stop, none must be asked for."""
        t = np.where(s > self.path_s, self.duration_s + (s - self.path_s) / max(self.share, 1e-9), 0.0)
        early = s <= self.path_s
        if early.any():
            grid = np.linspace(0.0, self.duration_s, 65)
            sought, found = s[early], np.interp(s[early], self(grid)[0], grid)
            for _ in range(3):
                value, rate, _, _ = self(found)
                found = np.clip(found - (value - sought) / np.maximum(rate, 1e-3), 0.0, self.duration_s)
            t[early] = found
        return t


def _keeps(rates: Rates, slowing: _Slowing, profile: RobotProfile) -> bool:
    t = np.linspace(0.0, slowing.duration_s, max(12, int(np.ceil(slowing.duration_s / LOOK_S)) + 1))
    s, rate, change, edge = (value[:, None] for value in slowing(t))
    dq, ddq, jerk = rates(s[:, 0])
    acceleration = np.abs(ddq * rate**2 + dq * change)
    steepness = np.abs(jerk * rate**3 + 3 * ddq * rate * change + dq * edge)
    gentle = (acceleration[1:] <= np.maximum(HEADROOM * profile.acceleration_max, acceleration[0])).all()
    return bool(gentle and (steepness <= HEADROOM * profile.jerk_max).all())


def _retimed(trajectory: Trajectory, slowing: _Slowing) -> Trajectory:
    start_s = float(trajectory.times_s[0])
    knots = trajectory.times_s - start_s
    end = slowing.path_s if slowing.share == 0 else float(knots[-1])
    inner = slowing.when(knots[knots < end])
    end_t = slowing.duration_s if slowing.share == 0 else float(slowing.when(np.array([end]))[0])
    inner = inner[(inner == 0) | (inner > APART_S) & (inner < end_t - APART_S)]
    duration_s, rise_s = slowing.duration_s, slowing.rise * slowing.duration_s
    bends = np.array([rise_s, duration_s - rise_s, duration_s][duration_s - 2 * rise_s <= NEAR_S :])
    grid = np.arange(0.0, min(duration_s, end_t), POINT_S)
    ramp = np.sort(np.r_[grid[np.abs(grid[:, None] - bends).min(1) > NEAR_S], bends])
    ramp = ramp[ramp < end_t - NEAR_S]
    apart = np.abs(ramp[:, None] - inner[None]).min(1) > NEAR_S
    t = np.unique(start_s + np.r_[inner, ramp[apart], end_t]) - start_s  # in the digits that the clock has there
    s, rate, change, _ = (value[:, None] for value in slowing(t))
    s = np.minimum(s, knots[-1])
    q, dq, ddq, _ = derivatives(trajectory, start_s + s[:, 0])
    q[-1], dq[-1], ddq[-1] = derivatives(trajectory, start_s + min(end, float(knots[-1])))[:3]
    if slowing.share == 0:
        dq[-1] = ddq[-1] = 0.0
        rate[-1] = change[-1] = 0.0
    return Trajectory(start_s + t, q, dq * rate, ddq * rate**2 + dq * change)
