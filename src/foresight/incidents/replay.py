"""Judges a recorded incident's candidates once more and compares every answer bit for bit. Knows no ROS.

A verdict is a pure function of what its record holds, so any difference means that the record, or the code, was changed.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass

import yaml

from foresight.data import Verdict
from foresight.incidents.decode import decision_from, setup_from
from foresight.incidents.pack import IncidentError, Pack
from foresight.robots.kinematics import MujocoKinematics
from foresight.robots.profile import RobotProfile, read_profile
from foresight.safety.checks import late_refusal
from foresight.safety.collision import scene_from
from foresight.safety.decision import Decision, Setup, outcome
from foresight.safety.guard import Guard
from foresight.versions import versions

SETUP, VERDICT = "foresight_msgs/msg/GuardSetup", "foresight_msgs/msg/GuardVerdict"
# Keys that profiles have got since incidents are recorded, and what they were before.
SINCE = {"gripper": None, "gripper.stiffness": None, "gripper.force_cap": None}


@dataclass(frozen=True)
class Replayed:
    """A recorded verdict beside the one given now, and in what they differ."""

    time_s: float  # [s] the guard's clock
    number: int
    plan_id: int
    reason: str
    detail: str
    replayed_reason: str  # empty: the plan could not be read, so there was nothing to judge
    replayed_detail: str
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        return not self.differences


@dataclass(frozen=True)
class Replay:
    """All verdicts of an incident, judged again."""

    rows: tuple[Replayed, ...]
    missing: int  # verdicts whose messages the recorder never received
    recorded_versions: dict[str, str]

    @property
    def same(self) -> bool:
        return all(row.same for row in self.rows)

    def to_json(self) -> dict[str, object]:
        return {
            "verdicts": len(self.rows),
            "same": sum(row.same for row in self.rows),
            "different": [row.number for row in self.rows if not row.same],
            "missing": self.missing,
            "versions": {"recorded": self.recorded_versions, "here": versions()},
            "rows": [{**asdict(row), "same": row.same} for row in self.rows],
        }


def rebuild(setup: Setup) -> Guard:
    """A guard as the recorded one. Raises ValueError where the profile makes no sense here."""
    profile = profile_of(setup)
    kinematics = None if profile.model is None else MujocoKinematics(profile)
    scene = scene_from(setup.scene, profile, setup.config)
    return Guard(profile, kinematics, setup.config, setup.model_id or None, scene=scene, transport_s=setup.transport_s)


def profile_of(setup: Setup) -> RobotProfile:
    return read_profile(setup.profile, "the recorded robot profile", SINCE)


def judge_again(decision: Decision, setup: Setup, guard: Guard) -> tuple[Verdict, str] | None:
    """The verdict and its outcome now; None where there is no candidate to judge."""
    if decision.candidate is None:
        return None
    guard.restore(decision.situation)
    now_s = decision.situation.now_s
    verdict = late_refusal(decision.candidate, setup.transport_s, now_s)
    verdict = verdict or guard.offer(decision.candidate, decision.situation.state, now_s)
    return verdict, outcome(verdict, guard.in_force)


def replay(pack: Pack) -> Replay:
    """Every verdict of the pack. Raises IncidentError when it holds no guard_setup, or something cannot be read."""
    setups: dict[str, tuple[Setup, bool]] = {}  # by the fingerprint they claim; whether it is theirs
    recorded: dict[str, str] = {}
    for message in pack.messages(SETUP):
        setup = setup_from(message.content)
        setups[message.content.fingerprint] = setup, setup.fingerprint == message.content.fingerprint
        recorded = _versions(message.content.versions)
    if not setups:
        raise IncidentError(f"{pack.path} holds no {SETUP}: it is no incident of Foresight, or the guard never configured.")
    try:
        guards = {fingerprint: rebuild(setup) for fingerprint, (setup, _) in setups.items()}
    except (ValueError, OSError, yaml.YAMLError) as error:
        raise IncidentError(f"{pack.path}: the guard cannot be rebuilt: {' '.join(str(error).split())}.") from error

    rows, numbers = [], []
    for message in pack.messages(VERDICT):
        decision = decision_from(message.content)
        numbers.append(decision.number)
        known = setups.get(decision.setup)
        again = judge_again(decision, known[0], guards[decision.setup]) if known else None
        differences = []
        if decision.fingerprint != message.content.fingerprint:
            differences.append("a number of the record")
        if not known:
            differences.append("its guard_setup is not in the file")
        elif not known[1]:
            differences.append("a number of the guard_setup")
        if again:
            differences += _differences(decision, *again)
        rows.append(_row(decision, again, tuple(differences)))
    return Replay(tuple(rows), _missing(numbers), recorded)


def _differences(decision: Decision, verdict: Verdict, result: str) -> list[str]:
    unequal = [name for name, value in vars(verdict).items() if value != getattr(decision.verdict, name)]
    return unequal + (["outcome"] if result != decision.outcome else [])


def _row(decision: Decision, again: tuple[Verdict, str] | None, differences: tuple[str, ...]) -> Replayed:
    said = decision.verdict
    return Replayed(
        decision.situation.now_s,
        decision.number,
        decision.plan_id,
        said.reason.value,
        said.detail,
        again[0].reason.value if again else "",
        again[0].detail if again else "",
        differences,
    )


def _missing(numbers: list[int]) -> int:
    """Gaps in the counting; a guard that was started anew counts from 1 again."""
    return sum(max(0, after - before - 1) for before, after in itertools.pairwise(numbers))


def _versions(text: str) -> dict[str, str]:
    try:
        return {str(k): str(v) for k, v in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise IncidentError(f"A guard_setup message cannot be used: versions are not JSON: {error}.") from error
