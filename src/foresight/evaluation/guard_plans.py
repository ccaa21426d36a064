"""The plans of `foresight bench guard`: legal ones near the limits, and everything that is done to plans by what is broken.

Knows limits only to make plans; whether one is legal says the judge. Chance comes from a generator passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from ruckig import InputParameter, Result, Ruckig, RuckigError, Synchronization
from ruckig import Trajectory as RuckigTrajectory

from foresight.data import Candidate, Trajectory
from foresight.evaluation.guard_judge import Judge, read
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile
from foresight.safety.config import GuardConfig

NEAR = 0.98  # share of the limits that a legal plan may take, and towards which it is made
TIP_SHARE = GuardConfig.tip_speed_share  # of the tip's cap that commands are granted
TORQUE_NEAR = 0.95  # the same of torques and their rates, which are not looked at everywhere
PHASES = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6)  # of the controller at which a plan must be legal as well
APART_S = 1e-4  # [s] between two points: a guard takes no nearer ones
MARGIN = 0.1  # [rad] a legal plan keeps from the ends of its joints


class LegalPlans:
    """Time-optimal motions of ruckig within NEAR of every limit, through points at which they are exact."""

    def __init__(self, profile: RobotProfile, kinematics: MujocoKinematics | None, judge: Judge) -> None:
        self.profile, self.kinematics, self.judge = profile, kinematics, judge
        reach = profile.position_max - profile.position_min
        self.low = profile.position_min + np.minimum(MARGIN, 0.05 * reach) + 1e-3
        self.high = profile.position_max - np.minimum(MARGIN, 0.05 * reach) - 1e-3

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """Joint positions with the tip inside the workspace, now and then with the last joint near its end."""
        for _ in range(200):
            q = np.clip(self.profile.home + rng.normal(0, 0.35, len(self.low)), self.low, self.high)
            if rng.random() < 0.2:
                q[-1] = (self.low if rng.random() < 0.5 else self.high)[-1] + 0.0
            if self.kinematics is None or self._inside(self.kinematics.tip(q)):
                return q
        return self.profile.home.copy()

    def make(self, points: Trajectory, join_s: float, rng: np.random.Generator) -> Trajectory | None:
        """From what `points` command at `join_s` to rest somewhere else; None where none was found that is legal."""
        state = [value[0] for value in read(points, np.array([join_s]))]
        target = self._target(state[0], rng)
        if target is None:
            return None
        speed, jerk, acceleration = NEAR * self.judge.cap, NEAR * self.profile.jerk_max, NEAR * self.profile.acceleration_max
        if not (np.abs(state[1]) < speed).all() or not (np.abs(state[2]) < acceleration).all():
            return None
        for _ in range(4):
            plan = _ruckig(state, target, speed, acceleration, jerk, join_s, float(rng.uniform(0.02, 0.06)))
            if plan is None:
                return None
            used = self.judge.use(points, plan)
            if max(used["position"], used.get("workspace", 1.0)) > 1.0:
                return None
            if _within(used):
                return plan if self._legal(points, plan) else None
            speed = np.maximum(
                speed * min(1.0, NEAR / max(used.get("tip_speed", 0.1) / TIP_SHARE, used["velocity"])), np.abs(state[1]) + 1e-6
            )
            jerk = jerk * min(1.0, NEAR / max(used.get("torque_rate", 0.1) * NEAR / TORQUE_NEAR, used["jerk"]))
        return None

    def _legal(self, points: Trajectory, plan: Trajectory) -> bool:
        """Whatever the controller's phase, and clear of the ends of the joints."""
        period_s = 1 / self.judge.rate_hz
        q = read(plan, np.arange(plan.times_s[0], plan.times_s[-1], 4 * period_s))[0]
        clear = (q >= np.minimum(self.low - 5e-4, q[0])).all() and (q <= np.maximum(self.high + 5e-4, q[0])).all()
        return bool(clear) and all(_within(self.judge.use(points, plan, share * period_s)) for share in PHASES)

    def _target(self, q: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        size = 10 ** rng.uniform(-1.7, -0.2)
        for _ in range(6):
            target = np.clip(q + rng.normal(0, size, len(q)) * (rng.random(len(q)) < 0.7), self.low, self.high)
            if np.abs(target - q).max() > 1e-4 and (self.kinematics is None or self._inside(self.kinematics.tip(target))):
                return target
        return None

    def _inside(self, tip: np.ndarray) -> bool:
        return bool((tip > self.profile.workspace_min + 1e-3).all() and (tip < self.profile.workspace_max - 1e-3).all())


def _within(used: dict[str, float]) -> bool:
    shares = {**used, "tip_speed": used.get("tip_speed", 0.0) / TIP_SHARE}
    shares |= {name: used[name] * NEAR / TORQUE_NEAR for name in ("torque", "torque_rate") if name in used}
    return all(value <= NEAR + 0.005 for name, value in shares.items() if name not in ("position", "workspace", "rest"))


def _ruckig(state, target, speed, acceleration, jerk, join_s: float, spacing_s: float) -> Trajectory | None:
    problem, found = InputParameter(len(target)), RuckigTrajectory(len(target))
    problem.synchronization = Synchronization.Phase
    problem.current_position, problem.current_velocity, problem.current_acceleration = (v.tolist() for v in state)
    problem.target_position = target.tolist()
    problem.max_velocity, problem.max_acceleration, problem.max_jerk = speed.tolist(), acceleration.tolist(), jerk.tolist()
    try:
        if Ruckig(len(target)).calculate(problem, found) not in (Result.Working, Result.Finished):
            return None
    except RuckigError:
        return None
    if found.duration > 4.5:
        return None
    wanted = np.concatenate(
        [np.cumsum([*joint.brake.t, *joint.t]) for joint in found.profiles[0]] + [np.arange(0, found.duration, spacing_s)]
    )
    wanted = np.unique(wanted[(wanted > APART_S) & (wanted < found.duration - APART_S)])
    apart = np.append(True, np.diff(wanted) > APART_S)
    times = join_s + np.concatenate([[0.0], wanted[apart], [found.duration]])
    q, dq, ddq = (np.array(v) for v in zip(*(found.at_time(float(t))[:3] for t in times - join_s), strict=True))
    q[0], dq[0], ddq[0] = state
    dq[-1], ddq[-1] = 0.0, 0.0
    return Trajectory(times, q, dq, ddq)


Mutation = Callable[[Candidate, Trajectory | None, np.random.Generator], Candidate]


def mutated(candidate: Candidate, other: Trajectory | None, rng: np.random.Generator) -> Candidate:
    """The candidate with one thing, sometimes two, done to it; `other` is an earlier plan to confuse it with."""
    for _ in range(1 + (rng.random() < 0.15)):
        if not len(candidate.trajectory.times_s):  # nothing more can be done to nothing
            break
        name = NAMES[int(rng.integers(len(NAMES)))]
        candidate = MUTATIONS[name](candidate, other, rng)
    return candidate


def _with(candidate: Candidate, **changes: np.ndarray) -> Candidate:
    return replace(candidate, trajectory=replace(candidate.trajectory, **changes))


def _copied(candidate: Candidate, rng: np.random.Generator) -> tuple[str, np.ndarray, tuple[int, int]]:
    """One of the three arrays, copied, and a place in it."""
    name = ("q", "dq", "ddq")[int(rng.integers(3))]
    array = getattr(candidate.trajectory, name).copy()
    return name, array, (int(rng.integers(array.shape[0])), int(rng.integers(array.shape[1])))


def _faster(candidate, _, rng):
    """The same path, a little or much faster: each limit is broken in turn, slightly more often than grossly."""
    t = candidate.trajectory
    factor = 1 + 10 ** rng.uniform(-3.3, 0.3)
    times = t.times_s[0] + (t.times_s - t.times_s[0]) / factor
    return _with(candidate, times_s=times, dq=t.dq * factor, ddq=t.ddq * factor**2)


def _warped(candidate, _, rng):
    """Other times for the same points."""
    t = candidate.trajectory
    return _with(candidate, times_s=t.times_s[0] + (t.times_s - t.times_s[0]) * rng.uniform(0.5, 1.5))


def _wider(candidate, _, rng):
    """A joint goes further: towards the ends of joints and the walls of the workspace."""
    t, j = candidate.trajectory, int(rng.integers(candidate.trajectory.q.shape[1]))
    factor = np.ones(t.q.shape[1])
    factor[j] = 1 + 10 ** rng.uniform(-3, 1)
    return _with(candidate, q=t.q[0] + (t.q - t.q[0]) * factor, dq=t.dq * factor, ddq=t.ddq * factor)


def _not_a_number(candidate, _, rng):
    name, array, place = _copied(candidate, rng)
    array[place] = (np.nan, np.inf, -np.inf, 1e300, 5e-324)[int(rng.integers(5))]
    return _with(candidate, **{name: array})


def _bit_flip(candidate, _, rng):
    name, array, place = _copied(candidate, rng)
    array.view(np.uint64)[place] ^= np.uint64(1) << np.uint64(rng.integers(64))
    return _with(candidate, **{name: array})


def _nudged(candidate, _, rng):
    name, array, place = _copied(candidate, rng)
    array[place] += rng.normal() * 10 ** rng.uniform(-7, 1)
    return _with(candidate, **{name: array})


def _noisy(candidate, _, rng):
    t, size = candidate.trajectory, 10 ** rng.uniform(-9, -1)
    return _with(candidate, q=t.q + rng.normal(0, size, t.q.shape), dq=t.dq + rng.normal(0, size, t.q.shape))


def _swapped_points(candidate, _, rng):
    t = candidate.trajectory
    order = np.arange(len(t.times_s))
    i, j = rng.integers(len(order), size=2)
    order[[i, j]] = order[[j, i]]
    return _with(candidate, q=t.q[order], dq=t.dq[order], ddq=t.ddq[order], times_s=t.times_s[order])


def _swapped_joints(candidate, _, rng):
    t = candidate.trajectory
    order = rng.permutation(t.q.shape[1])
    if rng.random() < 0.5:
        return replace(candidate, joint_names=tuple(candidate.joint_names[k] for k in order))
    return _with(candidate, q=t.q[:, order], dq=t.dq[:, order], ddq=t.ddq[:, order])


def _scaled(candidate, _, rng):
    """One array in another unit or with another sign."""
    name, array, _ = _copied(candidate, rng)
    return _with(candidate, **{name: array * (-1.0, 180 / np.pi, np.pi / 180, 1e3, 1.01, 0.0)[int(rng.integers(6))]})


def _dropped(candidate, _, rng):
    t = candidate.trajectory
    kept = rng.random(len(t.times_s)) > rng.uniform(0, 0.6)
    return _with(candidate, **{name: getattr(t, name)[kept] for name in ("times_s", "q", "dq", "ddq")})


def _cut_off(candidate, _, rng):
    """Without its end, or without its beginning."""
    t = candidate.trajectory
    i = int(rng.integers(1, max(2, len(t.times_s))))
    part = slice(None, i) if rng.random() < 0.5 else slice(i, None)
    return _with(candidate, **{name: getattr(t, name)[part] for name in ("times_s", "q", "dq", "ddq")})


def _spliced(candidate, other, rng):
    """The beginning of one plan and the end of another."""
    t = candidate.trajectory
    if other is None:
        return candidate
    i, j = int(rng.integers(1, len(t.times_s) + 1)), int(rng.integers(0, len(other.times_s)))
    shift = t.times_s[i - 1] + 10 ** rng.uniform(-4, -1) - other.times_s[j] if rng.random() < 0.5 else 0.0
    return _with(
        candidate,
        times_s=np.append(t.times_s[:i], other.times_s[j:] + shift),
        **{name: np.vstack([getattr(t, name)[:i], getattr(other, name)[j:]]) for name in ("q", "dq", "ddq")},
    )


def _stale_plan(candidate, other, rng):
    """An earlier plan, as it was or moved to now."""
    if other is None:
        return candidate
    shift = candidate.trajectory.times_s[0] - other.times_s[0] if rng.random() < 0.5 else 0.0
    return replace(candidate, trajectory=replace(other, times_s=other.times_s + shift))


def _late(candidate, _, rng):
    t = candidate.trajectory
    return _with(candidate, times_s=t.times_s + rng.normal() * 10 ** rng.uniform(-6, 0))


def _aged(candidate, _, rng):
    age = rng.normal() * 10 ** rng.uniform(-2, 1)
    return replace(candidate, observation_stamp_s=candidate.observation_stamp_s - age, plan_stamp_s=candidate.plan_stamp_s - age)


def _random(candidate, _, rng):
    t = candidate.trajectory
    size = 10 ** rng.uniform(-3, 1)
    times = t.times_s[0] + np.cumsum(rng.uniform(0, 0.2, t.times_s.shape))
    q, dq, ddq = (rng.normal(0, size, t.q.shape) for _ in range(3))
    return _with(candidate, times_s=times, q=t.q[0] + q, dq=dq, ddq=ddq)


def _pulse(candidate, _, rng):
    """Two points so near each other that a controller may step over what is between them."""
    t, i = candidate.trajectory, int(rng.integers(len(candidate.trajectory.times_s)))
    gap = 10 ** rng.uniform(-7, -2)
    blow = rng.normal(0, 10 ** rng.uniform(-6, 1), t.q.shape[1])
    arrays = {name: np.insert(getattr(t, name), i, getattr(t, name)[i], axis=0) for name in ("q", "dq", "ddq")}
    arrays[("q", "dq", "ddq")[int(rng.integers(3))]][i] += blow
    return _with(candidate, times_s=np.insert(t.times_s, i, t.times_s[i] - gap), **arrays)


MUTATIONS: dict[str, Mutation] = {
    function.__name__.strip("_"): function
    for function in (
        _faster, _faster, _warped, _wider, _not_a_number, _bit_flip, _nudged, _noisy, _swapped_points, _swapped_joints, _scaled,
        _dropped, _cut_off, _spliced, _stale_plan, _late, _aged, _random, _pulse,
    )
}  # fmt: skip
NAMES = (*MUTATIONS, "faster", "wider", "nudged", "noisy")  # these come near the limits, so they come more often
