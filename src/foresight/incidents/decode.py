"""What the guard recorded, from decoded messages back to the core's values, to the last bit. Repairs nothing."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import TypeVar, get_type_hints

import numpy as np

from foresight.data import Candidate, Grip, Reason, RobotState, Trajectory, Verdict
from foresight.incidents.pack import IncidentError
from foresight.safety.config import GuardConfig
from foresight.safety.decision import Decision, Setup, Situation

T = TypeVar("T")


def setup_from(content: SimpleNamespace) -> Setup:
    """Of a foresight_msgs/msg/GuardSetup."""
    try:
        config = _dataclass(GuardConfig, json.loads(content.config))
        return Setup(content.profile, config, content.model_id, content.transport_s, content.scene)
    except (ValueError, TypeError, AttributeError) as error:
        raise IncidentError(f"A guard_setup message cannot be used: {' '.join(str(error).split())}.") from error


def _dataclass(kind: type[T], raw: dict) -> T:
    """From `dataclasses.asdict`, dataclasses within included; another version's fields are refused."""
    known = {field.name for field in fields(kind)}
    if not isinstance(raw, dict) or raw.keys() != known:
        there = sorted(raw) if isinstance(raw, dict) else raw
        raise ValueError(
            f"{kind.__name__} was recorded as {there}, here it has {sorted(known)}; replay with the version that recorded it"
        )
    hints = get_type_hints(kind)
    return kind(**{name: _dataclass(hints[name], v) if is_dataclass(hints[name]) else v for name, v in raw.items()})


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
                Grip(content.closed, content.grip_force_n) if getattr(content, "grips", False) else None,
            )
        state = None
        if content.measured:
            q, dq = np.array(content.state_q, float), np.array(content.state_dq, float)
            state = RobotState(content.state_stamp_s, q, dq, *getattr(content, "state_opening", ()))
        in_force = _trajectory(content.in_force) if len(content.in_force.times_s) else None
        stopped, held = (
            why if is_so else None for is_so, why in ((content.stopped, content.stopped_why), (content.held, content.held_why))
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
