"""A recorded guard's verdicts come out bit for bit when they are judged again, and whatever was changed is noticed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from foresight.data import Candidate, Grip, Reason, RobotState, Trajectory
from foresight.incidents.pack import IncidentError, Pack
from foresight.incidents.replay import replay
from foresight.robots.profile import profile_text
from foresight.safety.collision import scene_from
from foresight.safety.config import GuardConfig
from foresight.safety.decision import Setup, digest
from foresight.safety.guard import Guard
from foresight.safety.obstacles import TABLE, boxes_of, to_text
from tests.incidents.recordings import RecordedGuard, decision_fields, setup_fields, write
from tests.motions import candidate, drive, minimum_jerk


@pytest.fixture(scope="module")
def recorded(profile, kinematics) -> RecordedGuard:
    """40 rounds at full speed on a wall clock, with plans that are wrong in many ways, and a stop that is reset."""
    around = to_text(TABLE, boxes_of([0.30, 0.10, 0.0, 0.45, 0.30, 0.12]))  # in the way of some of the motions
    setup = Setup(profile_text("ur5e"), GuardConfig(), "m1", 0.01, around)
    scene = scene_from(setup.scene, profile, setup.config)
    guard = RecordedGuard(
        Guard(profile, kinematics, setup.config, setup.model_id, scene=scene, transport_s=setup.transport_s), setup
    )
    rng = np.random.default_rng(1)
    for i, made in enumerate(drive(5, 40, profile, kinematics)):
        now_s, motion = made.now_s, made.trajectory
        if i == 20:
            guard.guard.stop("a test", made.state, now_s)
        wrong = [
            candidate(motion, profile, now_s, model_id="another"),
            candidate(motion, profile, now_s - 1.0, model_id="m1"),
            candidate(replace(motion, q=motion.q + 0.01), profile, now_s, model_id="m1"),
            candidate(replace(motion, q=motion.q * np.nan), profile, now_s, model_id="m1"),
            candidate(replace(motion, dq=motion.dq * 9), profile, now_s, model_id="m1"),
            candidate(replace(motion, ddq=None), profile, now_s, model_id="m1"),
            candidate(replace(motion, times_s=motion.times_s - 0.06), profile, now_s, model_id="m1"),
            candidate(motion, profile, now_s, joint_names=profile.joint_names[::-1], model_id="m1"),
        ]
        guard.offer(wrong[rng.integers(len(wrong))], made.state if i % 5 else None, now_s)
        state = RobotState(made.state.stamp_s, made.state.q + rng.normal(0, 1e-4, 6), made.state.dq)
        guard.offer(candidate(motion, profile, now_s, model_id="m1"), state, now_s)
        if i == 26:
            assert guard.guard.reset(now_s, None).ok
        made.in_force = guard.guard.in_force or made.in_force
    return guard


@pytest.fixture
def fields(recorded, profile) -> tuple[dict, list[dict]]:
    """The messages, to be tampered with."""
    return setup_fields(recorded.setup), [decision_fields(d, profile.joint_names) for d in recorded.decisions]


def replayed(path: Path, setup: dict, verdicts: list[dict]):
    return replay(Pack(write(path / "incident", [setup], verdicts)))


def test_verdicts_are_reproduced_bit_for_bit(tmp_path, recorded, fields):
    """Passed, refused for many reasons, stopped: each comes out with the same words and the same motion in force."""
    result = replayed(tmp_path, *fields)
    assert result.same and len(result.rows) == len(recorded.decisions) and result.missing == 0
    assert [row.replayed_detail for row in result.rows] == [d.verdict.detail for d in recorded.decisions]
    reasons = {d.verdict.reason for d in recorded.decisions}
    assert {Reason.OK, Reason.STOPPED, Reason.WRONG_MODEL, Reason.NOT_FINITE, Reason.STALE_PLAN, Reason.STALE_STATE} <= reasons


def test_an_incident_from_before_profiles_told_of_the_gripper_replays(tmp_path, recorded, profile):
    """Its profile has no such key; all verdicts come out bit for bit."""
    told = yaml.safe_load(recorded.setup.profile)
    del told["gripper"]
    older = replace(recorded.setup, profile=yaml.safe_dump(told))
    verdicts = [decision_fields(replace(d, setup=older.fingerprint), profile.joint_names) for d in recorded.decisions]
    result = replayed(tmp_path, setup_fields(older), verdicts)
    assert result.same and len(result.rows) == len(recorded.decisions)


GRIP = ("grips", "closed", "grip_force_n", "state_opening")


def test_an_incident_from_before_the_grippers_force_was_limited_replays(tmp_path, recorded, profile):
    """Neither its profile nor its verdicts tell of that; all come out bit for bit, and digests are those of then."""
    told = yaml.safe_load(recorded.setup.profile)
    del told["gripper"]["stiffness"], told["gripper"]["force_cap"]
    older = replace(recorded.setup, profile=yaml.safe_dump(told))
    verdicts = [decision_fields(replace(d, setup=older.fingerprint), profile.joint_names) for d in recorded.decisions]
    result = replay(Pack(write(tmp_path / "incident", [setup_fields(older)], verdicts, GRIP)))
    assert result.same and len(result.rows) == len(recorded.decisions)
    then = Candidate(Trajectory(np.arange(2.0), np.zeros((2, 1)), np.ones((2, 1))), ("a",), 1.0, 2.0, "m1")
    assert digest(then) == "a250fc51b6f3610aa27c617a26711dca866b64fa6d9d531faa5a9370156f8ab4"


def test_what_a_plan_does_to_the_gripper_is_judged_again(tmp_path, profile, kinematics):
    """Passed, too hard, not told how far it is open: each comes out again; another force in the record is noticed."""
    setup = Setup(profile_text("ur5e"))
    guard = RecordedGuard(Guard(profile, kinematics), setup)
    begin = kinematics.solve(np.array([0.45, 0.0, 0.20]), profile.home)
    motion = minimum_jerk(begin, np.full(6, 0.01), 0.1, 1.5, points=20)
    for force_n, opening in ((50.0, 0.5), (51.0, 0.5), (50.0, None)):
        state = RobotState(-0.01, begin, np.zeros(6), opening)
        guard.offer(candidate(motion, profile, grip=Grip(1.0, force_n)), state, 0.0)
        guard.guard.in_force = None
    assert [d.verdict.reason for d in guard.decisions] == [Reason.OK, Reason.GRIPPER_FORCE, Reason.BAD_STATE]
    verdicts = [decision_fields(d, profile.joint_names) for d in guard.decisions]
    result = replayed(tmp_path, setup_fields(setup), verdicts)
    assert result.same and [row.replayed_reason for row in result.rows] == ["ok", "gripper_force", "bad_state"]
    (tmp_path / "other").mkdir()
    verdicts[0]["grip_force_n"] = 60.0
    row = replayed(tmp_path / "other", setup_fields(setup), verdicts).rows[0]
    assert row.replayed_reason == "gripper_force" and "a number of the record" in row.differences


def test_a_guard_whose_gripper_moves_replays_so(tmp_path, profile, kinematics):
    """A motion that open fingers would take into a post is refused again; the same record without its gripper is noticed."""
    boxes = boxes_of([0.44, 0.05, 0.0, 0.46, 0.07, 0.11])
    setup = Setup(profile_text("ur5e"), scene=to_text(TABLE, boxes, True))
    guard = RecordedGuard(Guard(profile, kinematics, scene=scene_from(setup.scene, profile, setup.config)), setup)
    begin, end = (kinematics.solve(np.array([0.45, 0.0, height]), profile.home) for height in (0.20, 0.10))
    motion = minimum_jerk(begin, end - begin, 0.1, 1.5, points=20)
    guard.offer(candidate(motion, profile), RobotState(-0.01, begin, np.zeros(6)), 0.0)
    assert guard.decisions[0].verdict.reason is Reason.KEEP_OUT
    verdicts = [decision_fields(d, profile.joint_names) for d in guard.decisions]
    assert replayed(tmp_path, setup_fields(setup), verdicts).same
    closed = setup_fields(setup) | {"scene": to_text(TABLE, boxes)}
    (tmp_path / "closed").mkdir()
    row = replayed(tmp_path / "closed", closed, verdicts).rows[0]
    assert row.replayed_reason == "ok" and "a number of the guard_setup" in row.differences


def last_bit(value: float) -> float:
    return float(np.nextafter(value, np.inf))


@pytest.mark.parametrize("where", ["candidate.q", "candidate.ddq", "candidate.times_s", "in_force.q", "state_q", "now_s"])
def test_a_number_changed_in_its_last_bit_is_noticed(tmp_path, recorded, fields, where):
    """One bit of one number of one accepted plan's record: that verdict differs, all others stay."""
    setup, verdicts = fields
    index = [i for i, d in enumerate(recorded.decisions) if d.verdict.ok][3]
    holder, *inner = where.split(".")
    if inner:
        verdicts[index][holder][inner[0]][7] = last_bit(verdicts[index][holder][inner[0]][7])
    elif holder == "now_s":
        verdicts[index][holder] = last_bit(verdicts[index][holder])
    else:
        verdicts[index][holder][2] = last_bit(verdicts[index][holder][2])
    result = replayed(tmp_path, setup, verdicts)
    assert [row.number for row in result.rows if not row.same] == [index + 1]
    assert "a number of the record" in result.rows[index].differences


def test_another_reason_is_noticed(tmp_path, recorded, fields):
    """A refusal turned into a pass is told apart in words, too."""
    setup, verdicts = fields
    index = next(i for i, d in enumerate(recorded.decisions) if not d.verdict.ok)
    verdicts[index] |= {"reason": "ok", "detail": ""}
    row = replayed(tmp_path, setup, verdicts).rows[index]
    assert {"reason", "detail", "outcome"} <= set(row.differences) - {"a number of the record"} | {"outcome"}
    assert row.reason == "ok" and row.replayed_reason == recorded.decisions[index].verdict.reason.value


def test_another_guard_config_is_noticed(tmp_path, recorded, fields):
    """With an edited config every verdict is flagged; with its fingerprint forged as well, the verdicts that it alters are."""
    setup, verdicts = fields
    other = replace(recorded.setup, config=GuardConfig(plan_age_max_s=0.001))
    edited = replayed(tmp_path, setup | {"config": json.dumps(asdict(other.config))}, verdicts)
    assert not any(row.same for row in edited.rows)
    forged = [
        decision_fields(replace(d, setup=other.fingerprint), recorded.guard.profile.joint_names) for d in recorded.decisions
    ]
    (tmp_path / "forged").mkdir()
    result = replayed(tmp_path / "forged", setup_fields(other), forged)
    differing = [row for row in result.rows if not row.same]
    assert differing and all("reason" in row.differences or "detail" in row.differences for row in differing)
    assert {row.replayed_reason for row in differing} == {"stale_plan"}


def test_a_setup_that_is_not_in_the_file_is_noticed(tmp_path, recorded, fields):
    """A verdict of a guard whose setup was not recorded cannot pass for reproduced."""
    setup, verdicts = fields
    verdicts[4]["setup"] = "0" * 64
    result = replayed(tmp_path, setup, verdicts)
    assert [row.number for row in result.rows if not row.same] == [5]
    assert "its guard_setup is not in the file" in result.rows[4].differences


def test_lost_verdicts_are_counted(tmp_path, fields):
    """Gaps in the numbers are messages that never arrived; a restart is none."""
    setup, verdicts = fields
    assert replayed(tmp_path, setup, verdicts[:10] + verdicts[13:]).missing == 3
    (tmp_path / "restart").mkdir()
    assert replayed(tmp_path / "restart", setup, verdicts[10:20] + verdicts[:5]).missing == 0


def test_an_unreadable_plan_has_nothing_to_replay(tmp_path, recorded, fields):
    """It is listed with the reason it was refused for, and still guarded by its fingerprint."""
    setup, _ = fields
    unreadable = replace(recorded.decisions[0], candidate=None)
    result = replayed(tmp_path, setup, [decision_fields(unreadable, recorded.guard.profile.joint_names)])
    assert result.same and result.rows[0].replayed_reason == ""


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text", "absent"])
def test_a_damaged_file_gives_one_line(tmp_path, fields, damage):
    """Cut, altered, foreign or missing: said in one line that names the file."""
    path = write(tmp_path / "incident", [fields[0]], fields[1]) / "incident.mcap"
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage == "flipped":
        middle = len(content) // 3
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :])
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"no incident\n" * 50}[damage])
    with pytest.raises(IncidentError) as told:
        replay(Pack(path.parent))
    assert "incident.mcap" in str(told.value) and len(str(told.value).splitlines()) == 1


def test_a_bag_that_is_no_incident_is_refused(tmp_path, fields):
    """Without a guard_setup there is nothing to rebuild a guard from."""
    write(tmp_path / "foreign", [], [])
    with pytest.raises(IncidentError, match="no incident of Foresight"):
        replay(Pack(tmp_path / "foreign"))


@pytest.mark.parametrize("config", ["{}", "[]", "no JSON", json.dumps({**asdict(GuardConfig()), "another": 1.0})])
def test_a_config_of_another_version_is_refused(tmp_path, fields, config):
    """What this version's guard does not know, or lacks, is named in one line instead of being filled in."""
    with pytest.raises(IncidentError, match="guard_setup message cannot be used") as told:
        replayed(tmp_path, fields[0] | {"config": config}, fields[1])
    assert len(str(told.value).splitlines()) == 1


def test_digests_tell_kinds_and_bits_apart():
    """Text is not its number, 0 is not -0, an array is not its transpose, and nothing is not empty."""
    values = ["1", 1, 1.0, True, None, (), "", 0.0, -0.0, np.zeros((2, 3)), np.zeros((3, 2)), (1, 2), ((1,), 2), 2**64 - 1]
    digests = [digest(value) for value in values]
    assert len(set(digests)) == len(values) - 1 and digest(1) == digest(True)  # no record holds both
