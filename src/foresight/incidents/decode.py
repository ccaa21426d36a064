"""What the guard recorded, from decoded messages back to the core's values, to the last bit. Repairs nothing."""

from __future__ import annotations

import json
from dataclasses import fields
from types import SimpleNamespace

import numpy as np

from foresight.data import Candidate, Reason, RobotState, Trajectory, Verdict
from foresight.incidents.pack import IncidentError
from foresight.safety.config import GuardConfig, Margins
from foresight.safety.decision import Decision, Setup, Situation


def setup_from(content: SimpleNamespace) -> Setup:
    """Of a foresight_msgs/msg/GuardSetup."""
    try:
        raw = json.loads(content.config)
        known = {field.name for field in fields(GuardConfig)}
        if raw.keys() != known:
            raise ValueError(
                f"GuardConfig was recorded with fields {sorted(raw.keys() - known)} unknown and {sorted(known - raw.keys())} "
                "missing here; replay with the version that recorded it"
            )
        raw["margins"] = Margins(**raw["margins"])
        return Setup(content.profile, GuardConfig(**raw), content.model_id, content.transport_s, content.scene)
    except (ValueError, TypeError, AttributeError) as error:
        raise IncidentError(f"A guard_setup message cannot be used: {' '.join(str(error).split())}.") from error


def decision_from(content: SimpleNamespace) -> Decision:
    """Of a foresight_msgs/msg/GuardVerdict."""
    try:
        candidate = None
        if content.readable:
            candidate = Candidate(
                _trajectory(content.candidate),
                tuple(content.candidate.joint_names),
                content.observation_stamp_s,
                content.plan_stamp_s,
                content.model_id,
            )
        state = None
        if content.measured:
            state = RobotState(content.state_stamp_s, np.array(content.state_q, float), np.array(content.state_dq, float))
        in_force = _trajectory(content.in_force) if len(content.in_force.times_s) else None
        stopped, held = (
            why if is_so else None
            for is_so, why in ((content.stopped, content.stopped_why), (content.held, content.held_why))
        )
        return Decision(
            content.number,
            content.plan_id,
            content.setup,
            Situation(content.now_s, state, in_force, stopped, content.stopped_at_s, held, content.share_max),
            candidate,
            Verdict(Reason(content.reason), content.detail, content.slowed),
            content.outcome,
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise IncidentError(f"A guard_verdict message cannot be used: {' '.join(str(error).split())}.") from error


def _trajectory(motion: SimpleNamespace) -> Trajectory:
    shape = len(motion.times_s), len(motion.joint_names)
    q, dq, ddq = (np.array(values, float) for values in (motion.q, motion.dq, motion.ddq))
    return Trajectory(
        np.array(motion.times_s, float), q.reshape(shape), dq.reshape(shape), ddq.reshape(shape) if len(ddq) else None
    )
