"""What a robot profile must hold: every key with its kind, then the relations between them.

An error names the key, what was expected and what was found. Knows no robot and repairs nothing: no key has a default,
none is ignored, no number is taken from a text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from foresight.robots.profile import GripperJoint, ModelSource, RobotProfile

Kind = Callable[[Any, int], Any]  # a value of the YAML and the number of joints -> the parsed value, or _Unfit

RATE_HZ = 50.0, 5000.0  # of a trajectory controller

LIMITS = (
    "position_min",
    "position_max",
    "velocity_max",
    "velocity_law",
    "acceleration_max",
    "jerk_max",
    "torque_max",
    "torque_rate_max",
    "gripper_force_max",
    "joint_speed_max",
    "tip_speed_max",
    "tip_acceleration_max",
    "workspace_min",
    "workspace_max",
)


class _Unfit(Exception):
    """A value is not of the expected kind, which the text says; the key within a mapping, if any."""

    def __init__(self, expected: str, got: object, inside: str = "") -> None:
        super().__init__(expected)
        self.expected, self.got, self.inside = expected, got, inside


def _text(value: Any, joints: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Unfit("a text", value)
    return value


def _prefix(value: Any, joints: int) -> str:
    if not isinstance(value, str):
        raise _Unfit("a text, possibly empty", value)
    return value


def _names(value: Any, joints: int) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value) or len(set(value)) != len(value):
        raise _Unfit("a list of different names", value)
    return tuple(value)


def _joint_names(value: Any, joints: int) -> tuple[str, ...]:
    if len(names := _names(value, joints)) != joints or not names:
        raise _Unfit(f"{joints or 'some'} names, one per joint", value)
    return names


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _positive(value: Any, joints: int) -> float:
    if not _finite(value) or value <= 0:
        raise _Unfit("a finite number above 0", value)
    return float(value)


def _number(value: Any, joints: int) -> float:
    if not _finite(value):
        raise _Unfit("a finite number", value)
    return float(value)


def _numbers(count: int | None = None, positive: bool = False) -> Kind:
    def parse(value: Any, joints: int) -> np.ndarray:
        wanted = joints if count is None else count
        if not isinstance(value, list) or len(value) != wanted or not all(_finite(v) and (v > 0 or not positive) for v in value):
            raise _Unfit(f"{wanted} finite numbers{' above 0' if positive else ''}", value)
        return np.asarray(value, dtype=np.float64)

    return parse


def _optional(kind: Kind) -> Kind:
    def parse(value: Any, joints: int) -> Any:
        if value is None:
            return None
        try:
            return kind(value, joints)
        except _Unfit as unfit:
            raise _Unfit(f"{unfit.expected}{'' if unfit.inside else ', or null'}", unfit.got, unfit.inside) from None

    return parse


def _mapping(kinds: dict[str, Kind]) -> Kind:
    def parse(value: Any, joints: int) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _Unfit(f"a mapping with the keys {sorted(kinds)}", value)
        missing, unknown = sorted(kinds.keys() - value.keys()), sorted(map(str, value.keys() - kinds.keys()))
        if missing or unknown:
            raise _Unfit(f"exactly the keys {sorted(kinds)}", f"missing keys {missing}, unknown keys {unknown}")
        values = {}
        for key, kind in kinds.items():
            try:
                values[key] = kind(value[key], joints)
            except _Unfit as unfit:
                raise _Unfit(unfit.expected, unfit.got, f"{key}.{unfit.inside}" if unfit.inside else key) from None
        return values

    return parse


_PROFILE: dict[str, Kind] = {
    "name": _text,
    "joint_names": _joint_names,
    "position_min": _numbers(),
    "position_max": _numbers(),
    "velocity_max": _numbers(positive=True),
    "velocity_law": _optional(
        _mapping({"offset": _numbers(), "gain": _numbers(positive=True), "upper": _numbers(), "lower": _numbers()})
    ),
    "acceleration_max": _numbers(positive=True),
    "jerk_max": _numbers(positive=True),
    "torque_max": _optional(_numbers(positive=True)),
    "torque_rate_max": _optional(_numbers(positive=True)),
    "gripper_force_max": _optional(_positive),
    "joint_speed_max": _positive,
    "tip_speed_max": _positive,
    "tip_acceleration_max": _positive,
    "workspace_min": _numbers(3),
    "workspace_max": _numbers(3),
    "home": _numbers(),
    "controller_topic": _text,
    "controller_rate_hz": _positive,
    "base_frame": _text,
    "tip_frame": _text,
    "gripper": _optional(
        _mapping(
            {
                "joint": _text,
                "opened": _number,
                "closed": _number,
                "controller_topic": _text,
                "stiffness": _optional(_positive),
                "force_cap": _optional(_positive),
                "source": _text,
            }
        )
    ),
    "model": _optional(
        _mapping(
            {
                "package": _text,
                "arm": _text,
                "gripper": _optional(_text),
                "attachment_site": _optional(_text),
                "tip_site": _text,
                "gripper_prefix": _prefix,
                "joints": _joint_names,
                "gripper_joints": _names,
            }
        )
    ),
    "sources": _mapping({name: _text for name in LIMITS}),
}


def parse(raw: object, origin: str) -> dict[str, Any]:
    """The values of a profile's YAML mapping, each of its kind; ValueError names the first key that is not."""
    if not isinstance(raw, dict):
        raise ValueError(f"{origin}: expected a mapping of names to values, got {type(raw).__name__}.")
    missing, unknown = sorted(_PROFILE.keys() - raw.keys()), sorted(map(str, raw.keys() - _PROFILE.keys()))
    if missing or unknown:
        raise ValueError(f"{origin}: missing keys {missing}, unknown keys {unknown}; expected {sorted(_PROFILE)}.")
    joints = len(raw["joint_names"]) if isinstance(raw["joint_names"], list) else 0
    values = {}
    for key, kind in _PROFILE.items():
        try:
            values[key] = kind(raw[key], joints)
        except _Unfit as unfit:
            where = f"{key}.{unfit.inside}" if unfit.inside else key
            raise ValueError(f"{origin}: key '{where}' must be {unfit.expected}; got {_short(unfit.got)}.") from None
    return values


def _short(value: object) -> str:
    text = value if isinstance(value, str) and value.startswith("missing keys") else repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def check_consistency(profile: RobotProfile) -> None:
    """Raises ValueError where the profile's values contradict each other, however the profile was made."""
    joints, name = len(profile.joint_names), profile.name
    if len(set(profile.joint_names)) != joints:
        raise ValueError(f"Robot '{name}' names a joint twice: {profile.joint_names}.")
    for key, count, positive in (
        ("position_min", joints, False),
        ("position_max", joints, False),
        ("velocity_max", joints, True),
        ("acceleration_max", joints, True),
        ("jerk_max", joints, True),
        ("torque_max", joints, True),
        ("torque_rate_max", joints, True),
        ("home", joints, False),
        ("workspace_min", 3, False),
        ("workspace_max", 3, False),
    ):
        if (value := getattr(profile, key)) is None and key.startswith("torque"):
            continue
        if value.shape != (count,) or not np.isfinite(value).all():
            raise ValueError(f"Robot '{name}': {key} needs {count} finite numbers, got {value.tolist()}.")
        if positive and not (value > 0).all():
            raise ValueError(f"Robot '{name}': {key} must be above 0, got {value.tolist()}.")
    for key in ("joint_speed_max", "tip_speed_max", "tip_acceleration_max", "controller_rate_hz"):
        if not (np.isfinite(value := getattr(profile, key)) and value > 0):
            raise ValueError(f"Robot '{name}': {key} must be a finite number above 0, got {value}.")
    if not RATE_HZ[0] <= profile.controller_rate_hz <= RATE_HZ[1]:  # jerk is looked at over one period: a long one hides it
        low, high = RATE_HZ
        raise ValueError(
            f"Robot '{name}': controller_rate_hz must lie between {low:g} and {high:g} Hz, got {profile.controller_rate_hz:g}."
        )
    for low, high in (("position_min", "position_max"), ("workspace_min", "workspace_max")):
        _ordered(name, low, getattr(profile, low), high, getattr(profile, high))
    _ordered(name, "position_min", profile.position_min, "home", profile.home)
    _ordered(name, "home", profile.home, "position_max", profile.position_max)
    if (law := profile.velocity_law) is not None:
        for key in ("offset", "gain", "upper", "lower"):
            if (value := getattr(law, key)).shape != (joints,) or not np.isfinite(value).all():
                raise ValueError(f"Robot '{name}': velocity_law.{key} needs {joints} finite numbers, got {value.tolist()}.")
        _ordered(name, "velocity_law.lower", law.lower, "velocity_law.upper", law.upper)
        if not (law.offset <= 0).all():
            raise ValueError(
                f"Robot '{name}': velocity_law.offset must be at most 0, or a joint may move at its end; "
                f"got {law.offset.tolist()}."
            )
    if profile.gripper is not None:
        _check_gripper(name, profile.joint_names, profile.gripper, profile.gripper_force_max)
    if profile.model is not None:
        _check_model(name, profile.joint_names, profile.model)


def _check_gripper(name: str, joint_names: tuple[str, ...], gripper: GripperJoint, force_max: float | None) -> None:
    if gripper.joint in joint_names:
        raise ValueError(f"Robot '{name}': gripper.joint '{gripper.joint}' is a joint of the arm: {', '.join(joint_names)}.")
    if not (np.isfinite([gripper.opened, gripper.closed]).all() and gripper.opened != gripper.closed):
        raise ValueError(
            f"Robot '{name}': gripper.opened and gripper.closed must be finite and differ, "
            f"got {gripper.opened} and {gripper.closed}."
        )
    for key in ("stiffness", "force_cap"):
        if (value := getattr(gripper, key)) is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"Robot '{name}': gripper.{key} must be a finite number above 0, or null, got {value}.")
    if gripper.force_cap is not None and force_max is not None and gripper.force_cap > force_max:
        raise ValueError(
            f"Robot '{name}': gripper.force_cap must be at most gripper_force_max ({force_max} N), got {gripper.force_cap} N."
        )


def _check_model(name: str, joint_names: tuple[str, ...], model: ModelSource) -> None:
    moved = [a for a, b in zip(joint_names, model.joints, strict=True) if a != b and a in model.joints]
    if moved:
        raise ValueError(
            f"Robot '{name}': profile lists joints {joint_names}, its model has {model.joints}: {moved} in another order."
        )
    if (model.gripper is None) != (model.attachment_site is None):
        raise ValueError(
            f"Robot '{name}': model.gripper and model.attachment_site go together, "
            f"got gripper {model.gripper!r} and attachment_site {model.attachment_site!r}."
        )
    if both := sorted(set(model.joints) & set(model.gripper_joints)):
        raise ValueError(f"Robot '{name}': joints {both} are listed both in model.joints and in model.gripper_joints.")


def _ordered(name: str, low_key: str, low: np.ndarray, high_key: str, high: np.ndarray) -> None:
    if not (low < high).all():
        raise ValueError(
            f"Robot '{name}': {low_key} must lie below {high_key} in every minimum and maximum, "
            f"got {low.tolist()} and {high.tolist()}."
        )
