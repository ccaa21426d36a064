"""Writes a guard's decisions as the recorder does, without ROS: by the public MCAP writer, from the repository's .msg files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mcap_ros2.writer import Writer

from foresight.data import Candidate, RobotState, Trajectory, Verdict
from foresight.safety.checks import late_refusal
from foresight.safety.decision import Decision, Setup, outcome
from foresight.safety.guard import Guard

MESSAGES = Path(__file__).resolve().parents[2] / "ros_ws/src/foresight_msgs/msg"
HEADER = "builtin_interfaces/Time stamp\nstring frame_id\n"
LINE = "=" * 80


class RecordedGuard:
    """A guard whose every decision is kept with what it depended on, as the guard node does."""

    def __init__(self, guard: Guard, setup: Setup) -> None:
        self.guard, self.setup, self.decisions = guard, setup, []

    def offer(self, candidate: Candidate, state: RobotState | None, now_s: float) -> Verdict:
        known, number = self.guard.situation(state, now_s), len(self.decisions) + 1
        verdict = late_refusal(candidate, self.setup.transport_s, now_s) or self.guard.offer(candidate, state, now_s)
        result = outcome(verdict, self.guard.in_force)
        self.decisions.append(Decision(number, 100 + number, self.setup.fingerprint, known, candidate, verdict, result))
        return verdict


def setup_fields(setup: Setup) -> dict:
    return {
        "header": {"stamp": {"sec": 0, "nanosec": 0}, "frame_id": ""},
        "fingerprint": setup.fingerprint,
        "robot": "ur5e",
        "profile": setup.profile,
        "config": json.dumps(asdict(setup.config)),
        "scene": setup.scene,
        "model_id": setup.model_id,
        "transport_s": setup.transport_s,
        "versions": "{}",
    }


def decision_fields(decision: Decision, joint_names: tuple[str, ...]) -> dict:
    candidate, situation = decision.candidate, decision.situation
    state, grip = situation.state, candidate.grip if candidate else None
    return {
        "header": {"stamp": {"sec": 0, "nanosec": 0}, "frame_id": ""},
        "number": decision.number,
        "plan_id": decision.plan_id,
        "setup": decision.setup,
        "now_s": situation.now_s,
        "readable": candidate is not None,
        "candidate": _motion(candidate and candidate.trajectory, candidate.joint_names if candidate else ()),
        "model_id": candidate.model_id if candidate else "",
        "observation_stamp_s": candidate.observation_stamp_s if candidate else 0.0,
        "plan_stamp_s": candidate.plan_stamp_s if candidate else 0.0,
        "grips": grip is not None,
        "closed": grip.closed if grip else 0.0,
        "grip_force_n": grip.force_n if grip else 0.0,
        "in_force": _motion(situation.in_force, joint_names),
        "measured": state is not None,
        "state_stamp_s": state.stamp_s if state else 0.0,
        "state_q": state.q.tolist() if state else [],
        "state_dq": state.dq.tolist() if state else [],
        "state_opening": [state.opening] if state and state.opening is not None else [],
        "stopped": situation.stopped is not None,
        "stopped_why": situation.stopped or "",
        "stopped_at_s": situation.stopped_at_s,
        "held": situation.held is not None,
        "held_why": situation.held or "",
        "share_max": situation.share_max,
        "reason": decision.verdict.reason.value,
        "detail": decision.verdict.detail,
        "slowed": decision.verdict.slowed,
        "outcome": decision.outcome,
        "fingerprint": decision.fingerprint,
    }


def write(path: Path, setups: list[dict], verdicts: list[dict], without: tuple[str, ...] = ()) -> Path:
    """A folder with these messages, one a millisecond; `without` fields that their types had not yet."""
    path.mkdir()
    verdicts = [{name: value for name, value in verdict.items() if name not in without} for verdict in verdicts]
    with open(path / "incident.mcap", "wb") as file:
        with Writer(file) as writer:
            setup, verdict = (_schema(writer, name, without) for name in ("GuardSetup", "GuardVerdict"))
            messages = [("/guard_setup", setup, s) for s in setups] + [("/guard_verdict", verdict, v) for v in verdicts]
            for i, (topic, schema, fields) in enumerate(messages):
                writer.write_message(topic, schema, fields, log_time=i * 10**6, publish_time=i * 10**6)
    return path


def _schema(writer: Writer, name: str, without: tuple[str, ...]):
    lines = (MESSAGES / f"{name}.msg").read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if line.split()[1:2] not in [[field] for field in without])
    motion = (MESSAGES / "Motion.msg").read_text()
    time = "int32 sec\nuint32 nanosec\n"
    parts = (("builtin_interfaces/Time", time), ("std_msgs/Header", HEADER), ("foresight_msgs/Motion", motion))
    within = "".join(f"\n{LINE}\nMSG: {kind}\n{content}" for kind, content in parts)
    return writer.register_msgdef(f"foresight_msgs/msg/{name}", text + within)


def _motion(trajectory: Trajectory | None, joint_names: tuple[str, ...]) -> dict:
    if trajectory is None:
        return {"joint_names": [], "times_s": [], "q": [], "dq": [], "ddq": []}
    return {
        "joint_names": list(joint_names),
        "times_s": trajectory.times_s.tolist(),
        "q": trajectory.q.ravel().tolist(),
        "dq": trajectory.dq.ravel().tolist(),
        "ddq": [] if trajectory.ddq is None else trajectory.ddq.ravel().tolist(),
    }
