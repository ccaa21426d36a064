"""Does the guard keep its promise? Legal, adversarial, mutated and random plans are offered; a judge looks at all that passes.

Every plan joins a motion that is going on, so joining is part of the test, and every sequence ends with a stop. Messages take up
to the transport's time to the controller. A part of the sequences happens over a table and among keep-outs, none of which may be
touched. The judge (`guard_judge.py`) shares with the guard only the torques of the robot's model (`MujocoKinematics`), which
`tests/robots/test_kinematics.py` compares with energies. Knows no ROS; one process a job, each chunk reproducible from its seed.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cache
from os import cpu_count
from pathlib import Path

import numpy as np

from foresight.control.trajectory import hold
from foresight.data import Box, Candidate, RobotState, Trajectory
from foresight.evaluation.guard_judge import Controller, Judge, Nearest, broken, read, touch
from foresight.evaluation.guard_plans import LegalPlans, mutated
from foresight.evaluation.results import git_commit, machine
from foresight.files import write_atomically
from foresight.robots.contacts import Contacts
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile, available_robots, load_profile
from foresight.safety.checks import check
from foresight.safety.collision import Scene
from foresight.safety.config import GuardConfig
from foresight.safety.guard import ASK_S, Guard
from foresight.safety.obstacles import TABLE
from foresight.workers import deaf_to_interrupts

CHUNK = 2000  # plans a worker makes before it reports
TRANSPORT_S = 0.045  # [s] to the controller, as the guard node allows by default
STEPS = 8  # joins in one sequence
MUTANTS = 30  # offered at a join before the legal plan, on average
EPOCHS_S = (0.0, 1.76e9)  # clocks that begin at zero, and wall clocks, whose seconds have fewer digits left
ALLOWANCE_S = 0.02  # [s] beyond v/a that a stop may last before it is counted as late
UNMADE = 1000  # joins without a legal plan, beside as many as plans are wanted, after which a chunk is given up
AMONG = 0.2  # of the sequences of a robot with a model happen among obstacles
KEEP_OUTS = 4  # in them at most
HALF_M = (0.02, 0.15)  # [m] half a keep-out's sides
STARTS = 100  # draws of a start, or of keep-outs, that touch nothing
BELIEVED_RAD = 1e-6  # [rad] between what is executed and what the guard takes to be
STAYS = 0.15  # of the mutants that pass
SHOWN = 20  # violations that are described
SAVE_S = 20.0  # [s] between two savings of what is counted
FAULTS = Path("runs/faults/stop.json")  # where `make faults` leaves its stops
TIMED_PLANS = 50  # legal plans whose checks are timed


@dataclass(frozen=True)
class BenchGuardConfig:
    """What the bench offers."""

    plans: int = 1_000_000
    """Plans offered per robot profile."""
    profiles: tuple[str, ...] = ()
    """Robots by name; by default all that ship with Foresight."""
    seed: int = 0
    """The same seed gives the same plans and verdicts."""
    jobs: int = 0
    """Processes; 0 means one per CPU core."""
    timed: int = 4000
    """Checks of which the time is taken, with collision and without."""
    json: Path | None = None
    """File for the figures, written as they grow; the same bench on the same code goes on where it was interrupted."""
    faults: Path | None = None
    """File that `foresight bench faults --json` wrote; its `stop` (planners killed and frozen) is put beside these figures. By
    default that of `make faults`, runs/faults/stop.json, where it is there."""

    def __post_init__(self) -> None:
        for name, low, high in (("plans", 1, 10**9), ("timed", 1, 10**6), ("seed", 0, 2**31), ("jobs", 0, 256)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"--{name} must lie between {low} and {high}, got {getattr(self, name)}.")
        if len(set(self.profiles)) < len(self.profiles):
            raise ValueError(f"--profiles names a robot twice: {' '.join(self.profiles)}. Name each once.")
        for name in self.profiles:
            load_profile(name)  # says which there are
        if self.faults is not None:
            stops(self.faults)


@dataclass
class Tally:
    """What has been counted for one profile."""

    plans: int = 0
    among: int = 0  # of them among obstacles
    among_passed: int = 0
    unmade: int = 0  # joins for which no legal plan was found; nothing was offered
    passed: int = 0
    slowed: int = 0
    stops: int = 0
    late_stops: int = 0
    legal: int = 0
    legal_passed: int = 0
    legal_slowed: int = 0
    violations: int = 0
    offering_s: float = 0.0
    total_s: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    refused_legal: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)

    @classmethod
    def from_saved(cls, saved: dict) -> Tally:
        return cls(**{**saved, **{name: Counter(saved[name]) for name in ("reasons", "refused_legal")}})

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)
        del self.shown[SHOWN:]

    def to_json(self) -> dict[str, object]:
        return {
            "plans": self.plans,
            "plans_among_obstacles": self.among,
            "passed_among_obstacles": self.among_passed,
            "violations": self.violations,
            "legal_pass_rate": self.legal_passed / self.legal if self.legal else None,
            "legal_unslowed_rate": (self.legal_passed - self.legal_slowed) / self.legal if self.legal else None,
            "legal": self.legal,
            "legal_slowed": self.legal_slowed,
            "passed": self.passed,
            "slowed": self.slowed,
            "stops": self.stops,
            "late_stops": self.late_stops,
            "reasons": dict(self.reasons.most_common()),
            "refused_legal": dict(self.refused_legal.most_common()),
            "described": self.shown,
            "offer_ms_mean": 1e3 * self.offering_s / max(1, self.plans),
            "plan_ms_mean": 1e3 * self.total_s / max(1, self.plans),
        }


def bench(config: BenchGuardConfig, progress: Callable[[str, int, int], None] = lambda *_: None) -> dict[str, object]:
    """Runs everything; `progress` is told profile, plans offered so far and plans in all."""
    names = config.profiles or tuple(available_robots())
    found: dict[str, object] = {"machine": asdict(machine()), "git": git_commit(), "seed": config.seed}
    found["profiles"], begun = earlier(config, found["git"])
    faults = config.faults or (FAULTS if FAULTS.exists() else None)
    if faults:
        found["stop"], found["stop_from"] = stops(faults), str(faults)
    found["check_ms"] = check_times("fr3", repeats=config.timed)
    with_collision = check_times("fr3", collision=True, repeats=config.timed)
    found["check_ms"] |= {f"{name}_with_collision": with_collision[name] for name in ("p50", "p99", "p999")}
    found["check_ms"] |= {
        "legal": legal_check_times("fr3", repeats=config.timed),
        "legal_with_collision": legal_check_times("fr3", collision=True, repeats=config.timed),
    }
    jobs = config.jobs or cpu_count() or 1
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))

    def save() -> None:
        if config.json:
            write_atomically(config.json, json.dumps(found | ({"begun": begun} if begun else {}), indent=2) + "\n")

    try:
        for name in (name for name in names if name not in found["profiles"]):
            if name not in begun:
                begun[name] = {"of": config.plans, "chunks": [], "tally": vars(Tally())}
            total, done = Tally.from_saved(begun[name]["tally"]), begun[name]["chunks"]
            with deaf_to_interrupts():
                waiting = {pool.submit(_chunk, chunk): chunk[2] for chunk in chunks(config, name) if chunk[2] not in done}
            saved_s = time.monotonic()
            for future in as_completed(waiting):
                total.add(future.result())
                done.append(waiting[future])
                begun[name]["tally"] = vars(total)
                progress(name, total.plans, config.plans)
                if time.monotonic() - saved_s > SAVE_S:
                    save()
                    saved_s = time.monotonic()
            del begun[name]
            found["profiles"] = {**found["profiles"], name: {**total.to_json(), "judged": judged(name)}}
            save()
    except BaseException:  # an error or Ctrl-C: what is still being offered is made again by the next run
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.terminate()
        save()
        raise
    pool.shutdown()
    return found


def stops(path: Path) -> dict[str, dict]:
    """By signal, what `bench faults` found. Raises ValueError where the file is not its own."""
    try:
        found = json.loads(path.read_text())["stop"]
        return {number: found[number] for number in ("kill", "freeze", "guard") if number in found} or found["kill"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--faults: {path} is no file of `foresight bench faults --json` ({error!r}). Name one.") from error


def judged(name: str) -> list[str]:
    """What the judge looks at; of a robot without a model it sees the joints only."""
    profile = load_profile(name)
    if profile.model is None:
        return ["joints"]
    torques = [what for what in ("torque", "torque_rate") if getattr(profile, f"{what}_max") is not None]
    return ["joints", "tip", "workspace", *torques, "scene"]


def earlier(config: BenchGuardConfig, git: str) -> tuple[dict[str, object], dict[str, dict]]:
    """What an interrupted run of the same bench on the same, committed code has left in its file.

    Figures of the robots that it finished, and of those that it began: the chunks done and what was counted in them.
    """
    try:
        found = json.loads(config.json.read_text()) if config.json else {}
        same = (found["git"], found["seed"]) == (git, config.seed) and git != "unknown" and not git.endswith("+")
        profiles = {name: figures for name, figures in found["profiles"].items() if same and figures["plans"] == config.plans}
        begun = {name: part for name, part in found.get("begun", {}).items() if same and part["of"] == config.plans}
        for part in begun.values():
            Tally.from_saved(part["tally"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or not written by this bench: it is replaced
        return {}, {}
    return profiles, begun


def chunks(config: BenchGuardConfig, name: str) -> Iterator[tuple[str, int, int, int]]:
    for number, begin in enumerate(range(0, config.plans, CHUNK)):
        yield name, config.seed, number, min(CHUNK, config.plans - begin)


def summary(found: dict) -> str:
    """A line for each profile, and the time of a check."""
    lines = []
    for name, figures in found["profiles"].items():
        rate = figures["legal_pass_rate"]
        legal = "no legal plan was made" if rate is None else f"{100 * rate:.2f} % of {figures['legal']} legal plans passed"
        legal += "" if rate is None else f", {100 * figures['legal_unslowed_rate']:.2f} % unslowed"
        lines.append(
            f"{name}: {figures['violations']} violations in {figures['plans']} plans, {figures['plans_among_obstacles']} of them "
            f"among obstacles, and {figures['stops']} stops ({figures['late_stops']} of them longer than "
            f"v/a + {1e3 * ALLOWANCE_S:.0f} ms); "
            f"{figures['passed']} passed, {figures['slowed']} of them slowed; {legal}; "
            f"{figures['plan_ms_mean']:.2f} ms of CPU a plan; judged: {', '.join(figures['judged'])}"
        )
        lines += [f"  {line}" for line in figures["described"]]
    times = found["check_ms"]
    for what, some in (
        ("an easy plan", times),
        ("legal, fast plans", times["legal"]),
        ("the same with collision", times["legal_with_collision"]),
    ):
        lines.append(
            f"one check of {times['points']} points x {times['joints']} joints, {what}: p50 {some['p50']:.2f}, "
            f"p99 {some['p99']:.2f}, p99.9 {some['p999']:.2f} ms"
        )
    if "stop" in found:
        lines.append(f"stops of killed and frozen planners: from {found['stop_from']}")
    return "\n".join(lines)


@cache
def _robot(name: str) -> tuple[RobotProfile, MujocoKinematics | None, Judge, LegalPlans]:
    """What one process needs of a robot, made once."""
    profile = load_profile(name)
    kinematics = MujocoKinematics(profile) if profile.model is not None else None
    judge = Judge(name, kinematics)
    return profile, kinematics, judge, LegalPlans(profile, kinematics, judge)


def _chunk(task: tuple[str, int, int, int]) -> Tally:
    name, seed, number, plans = task
    begin, tally = time.process_time(), Tally()
    profile, kinematics, judge, legal = _robot(name)
    rng = np.random.default_rng([seed, number, *name.encode()])
    with np.errstate(all="ignore"):
        obstacles = None if kinematics is None else Obstacles.drawn(profile, rng)
        while tally.plans < plans and tally.unmade < UNMADE + plans:  # a robot for which none can be made comes to an end
            among = obstacles if rng.random() < AMONG else None
            Sequence(profile, kinematics, judge, legal, rng, tally, obstacles=among).run(plans)
    tally.total_s = time.process_time() - begin
    return tally


@dataclass(frozen=True)
class Obstacles:
    """A table and keep-outs, as the guard sees them and as the judge does."""

    scene: Scene
    contacts: Contacts

    @classmethod
    def drawn(cls, profile: RobotProfile, rng: np.random.Generator) -> Obstacles:
        """Keep-outs in the workspace, none of them where the arm is at home."""
        for _ in range(STARTS):
            middles = rng.uniform(profile.workspace_min, profile.workspace_max, (int(rng.integers(1, KEEP_OUTS + 1)), 3))
            halves = rng.uniform(*HALF_M, middles.shape)
            boxes = [Box(f"keep-out {i}", m - h, m + h) for i, (m, h) in enumerate(zip(middles, halves, strict=True))]
            scene = Scene(profile, boxes)
            nearest = scene.clearance(profile.home)
            if nearest.distance_m > 0 or not nearest.names[1].startswith("keep-out"):
                break
        else:
            boxes, scene = [], Scene(profile)
        return cls(scene, Contacts(profile, TABLE, boxes))

    def start(self, legal: LegalPlans, rng: np.random.Generator) -> np.ndarray:
        """Where the arm touches nothing."""
        for _ in range(STARTS):
            q = legal.start(rng)
            if not self.contacts.deepest(q[None])[0]:
                return q
        return legal.profile.home.copy()


class Sequence:
    """One arm from rest, its command brought to it, offered plan after plan, and stopped at a moment of chance's choosing."""

    def __init__(
        self,
        profile: RobotProfile,
        kinematics: MujocoKinematics | None,
        judge: Judge,
        legal: LegalPlans,
        rng: np.random.Generator,
        tally: Tally,
        make_guard: Callable[..., Guard] = Guard,
        obstacles: Obstacles | None = None,
    ) -> None:
        """What is legal says a judge who sees no obstacles, so among them no plan counts as legal."""
        self.profile, self.judge, self.legal, self.rng, self.tally = profile, judge, legal, rng, tally
        self.now_s = float(rng.choice(EPOCHS_S) + rng.uniform(0, 100))
        self.obstacles = obstacles
        scene = None if obstacles is None else obstacles.scene
        self.guard = make_guard(profile, kinematics, transport_s=TRANSPORT_S, scene=scene)
        start = legal.start(rng) if obstacles is None else obstacles.start(legal, rng)
        self.controller = Controller(start, self.now_s)
        self.earlier: Trajectory | None = None
        self.nearest: Nearest | None = None  # that the arm was to its ranges and its workspace until the last message came
        speed = np.minimum(profile.velocity_max, profile.joint_speed_max)
        self.bound_s = float((speed / profile.acceleration_max).max()) + ALLOWANCE_S
        self.arrives_s = self.now_s  # when the controller gets the last message
        self.controller.receive(self.guard.adopt(self._measured(), self.now_s), self.now_s + float(rng.uniform(0, TRANSPORT_S)))
        self.now_s = float(self.controller.points.times_s[-1])

    def run(self, plans: int) -> None:
        for _ in range(STEPS):
            if self.tally.plans >= plans:
                return
            self.now_s = max(self.now_s, self.arrives_s) + float(self.rng.uniform(0.01, 0.3))
            plan = self.legal.make(self.controller.points, self.now_s + float(10 ** self.rng.uniform(-2.5, -0.7)), self.rng)
            if plan is None:
                self.tally.unmade += 1
                continue
            candidate = Candidate(plan, self.profile.joint_names, self.now_s - 0.1, self.now_s - 0.01)
            if not self._mutants(candidate, plans):
                self._offer(candidate, legal=self.obstacles is None)
            self.earlier = plan
        self.now_s = max(self.now_s, self.arrives_s) + float(self.rng.uniform(0, 0.3))
        began_s, motion = self.now_s, self.guard.stop("the bench", None, self.now_s)
        while motion is None and self.guard.unbraked(self.now_s):
            self.now_s += ASK_S
            motion = self.guard.stop("the bench", None, self.now_s)
        if motion is not None:
            self.tally.stops += 1
            late = float(motion.times_s[-1]) - began_s > TRANSPORT_S + self.bound_s
            self.tally.late_stops += late and float(np.abs(motion.dq).max()) > 0  # a hold has no duration of its own
            self._execute(motion, "stop", self.now_s + TRANSPORT_S, stop=True)

    def _mutants(self, candidate: Candidate, plans: int) -> bool:
        """Offers mutants; of those that pass some stay in force, and the arm then has another motion than the one the legal plan
        joins. The others are judged and taken back."""
        before = self.guard.situation(None, self.now_s), self.controller.points, self.nearest
        for _ in range(int(self.rng.integers(0, 2 * MUTANTS))):
            if self.tally.plans >= plans:
                return True
            if self._offer(mutated(candidate, self.earlier, self.rng), legal=False):
                if self.rng.random() < STAYS:
                    return True
                self.guard.restore(before[0])
                self.controller.points, self.nearest = before[1:]
        return self.tally.plans >= plans

    def _offer(self, candidate: Candidate, legal: bool) -> bool:
        tally = self.tally
        begin = time.process_time()
        verdict = self.guard.offer(candidate, self._measured(), self.now_s)
        tally.offering_s += time.process_time() - begin
        tally.plans += 1
        tally.among += self.obstacles is not None
        tally.reasons[verdict.reason.value] += 1
        tally.legal += legal
        if not verdict.ok:
            if legal:
                tally.refused_legal[verdict.reason.value] += 1
            return False
        tally.passed += 1
        tally.among_passed += self.obstacles is not None
        tally.slowed += verdict.slowed < 1
        tally.legal_passed += legal
        tally.legal_slowed += legal and verdict.slowed < 1
        what = f"{'legal' if legal else 'mutant'}, slowed to {verdict.slowed:.2f}"
        self._execute(self.guard.forward, what, max(self.now_s, float(candidate.trajectory.times_s[0])))
        return True

    def _measured(self) -> RobotState:
        """Some milliseconds old, behind its command, with a little noise."""
        lag_s = float(self.rng.uniform(0, 0.05))
        q, dq, _ = (value[0] for value in read(self.controller.points, np.array([self.now_s - lag_s])))
        return RobotState(self.now_s - 0.01, q + self.rng.normal(0, 1e-5, len(q)), dq)

    def _execute(self, message: Trajectory, what: str, begins_s: float, stop: bool = False) -> None:
        """The controller gets it before the motion `begins_s`, within the transport's time."""
        before = self.controller.points
        self.arrives_s = self.now_s + float(self.rng.uniform(0, min(TRANSPORT_S, max(0.0, begins_s - self.now_s))))
        taken = self.controller.receive(message, self.arrives_s)
        after = self.controller.points
        self.nearest = self.judge.nearest(before, self.arrives_s, self.nearest)
        phase_s = float(self.rng.uniform(0, 1)) / self.judge.rate_hz
        used = self.judge.use(before, after, phase_s, self.nearest, stop)
        times = self.rng.uniform(self.arrives_s, max(self.arrives_s, after.times_s[-1]), 8)
        believed = np.abs(read(self.guard.in_force, times)[0] - read(after, times)[0]).max()
        used["believed"] = float(believed) / BELIEVED_RAD  # what the guard holds in force is what is executed
        used["ignored"] = 0.0 if taken else float("inf")
        if self.obstacles is not None:
            used |= touch(self.obstacles.contacts, after)
        wrong = broken(used)
        if wrong:
            self.tally.violations += 1
            self.tally.shown.append(f"{self.profile.name}, {what}: {', '.join(wrong)} at {self.now_s:.6f} s")


def check_times(name: str, collision: bool = False, points: int = 50, repeats: int = 4000) -> dict[str, object]:
    """Milliseconds of one check of a plan of `points` points over 1 s that passes every check, on one core."""
    profile = load_profile(name)
    kinematics = MujocoKinematics(profile)
    s = np.linspace(0.0, 1.0, points)[:, None]
    way = np.where(np.arange(len(profile.home)) % 2, -0.03, 0.04)
    plan = Trajectory(
        s[:, 0] + 0.05,
        profile.home + way * (10 * s**3 - 15 * s**4 + 6 * s**5),
        way * (30 * s**2 - 60 * s**3 + 30 * s**4),
        way * (60 * s - 180 * s**2 + 120 * s**3),
    )
    took_s = _timed(plan, kinematics, Scene(profile) if collision else None, repeats)
    if took_s is None:
        raise RuntimeError("The plan that is timed must pass, and does not.")
    return {"profile": name, "points": points, "joints": len(profile.home), **_quantiles(took_s)}


def legal_check_times(name: str, collision: bool = False, points: int = 50, repeats: int = 4000) -> dict[str, object]:
    """The same of legal, fast plans from rest, some repeats of each; with collision each among other keep-outs.

    Plans of fewer points get more of them on their way, which they thus leave as it is; those that do not pass are left out.
    """
    profile, kinematics, _, legal = _robot(name)
    rng, took_s = np.random.default_rng(0), []
    plans = min(TIMED_PLANS, repeats)
    with np.errstate(all="ignore"):
        while len(took_s) < plans:
            obstacles = Obstacles.drawn(profile, rng) if collision else None
            start = legal.start(rng) if obstacles is None else obstacles.start(legal, rng)
            plan = legal.make(hold(start, -1.0), 0.05, rng)
            if plan is None or len(plan.times_s) > points:
                continue
            took = _timed(_filled(plan, points), kinematics, obstacles and obstacles.scene, repeats // plans)
            took_s += [] if took is None else [took]
    return {"plans": plans, **_quantiles(np.concatenate(took_s))}


def _filled(plan: Trajectory, points: int) -> Trajectory:
    """The same motion with as many points: further ones in the middle of the longest gaps."""
    times_s = plan.times_s
    while len(times_s) < points:
        i = int(np.argmax(np.diff(times_s)))
        times_s = np.insert(times_s, i + 1, times_s[i : i + 2].mean())
    given, values = np.isin(times_s, plan.times_s), read(plan, times_s)
    for value, own in zip(values, (plan.q, plan.dq, plan.ddq), strict=True):
        value[given] = own
    return Trajectory(times_s, *values)


def _timed(plan: Trajectory, kinematics: MujocoKinematics, scene: Scene | None, repeats: int) -> np.ndarray | None:
    """Seconds of each check of a plan from rest; None where it does not pass."""
    profile, config, start = kinematics.profile, GuardConfig(), plan.q[0]
    candidate = Candidate(plan, profile.joint_names, -0.1, -0.01)
    in_force, state = hold(start, -1.0), RobotState(-0.01, start, np.zeros(len(start)))
    took_s = np.empty(repeats)
    for i in range(repeats):
        begin = time.perf_counter()
        verdict = check(candidate, in_force, state, profile, kinematics, config, 0.0, scene)
        took_s[i] = time.perf_counter() - begin
        if not verdict.ok:
            return None
    return took_s


def _quantiles(took_s: np.ndarray) -> dict[str, float]:
    p50, p99, p999 = (1e3 * np.quantile(took_s, [0.5, 0.99, 0.999])).tolist()
    return {"p50": p50, "p99": p99, "p999": p999}
