"""An incident as a picture: each joint's position and velocity within its limits, the verdicts, and the moment of each stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foresight.files import write_atomically
from foresight.incidents.decode import setup_from
from foresight.incidents.pack import IncidentError, Pack
from foresight.incidents.replay import SETUP, Replay, profile_of
from foresight.robots.profile import RobotProfile

STATE = "sensor_msgs/msg/JointState"
LIMIT, STOP = {"color": "tab:red", "linestyle": "--", "linewidth": 0.8}, {"color": "black", "linewidth": 1.2}


def check_name(path: Path) -> None:
    """Raises ValueError for a picture that is not a .png, .svg or .pdf."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"A picture's name must end in .png, .svg or .pdf, got {path}.")


def draw(pack: Pack, replay: Replay, path: Path) -> Path:
    """Writes a .png, .svg or .pdf. Raises ValueError for another suffix."""
    check_name(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    profile = next((profile_of(setup_from(message.content)) for message in pack.messages(SETUP)), None)
    if profile is None:
        raise IncidentError(f"{pack.path} holds no {SETUP}, so the limits are not known.")
    times, q, dq = _measured(pack, profile)
    stops = pack.summary.get("stops") or [pack.summary.get("stop") or {}]
    stops_s = [stop["time_s"] for stop in stops if "time_s" in stop]
    begin_s = min([*times[:1], *(row.time_s for row in replay.rows[:1])], default=0.0)
    joints = len(profile.joint_names)
    figure, axes = plt.subplots(joints + 1, 2, figsize=(13, 1.6 * (joints + 1)), sharex=True, layout="constrained", squeeze=False)
    still = np.ones_like(q)
    for side, values, limits, unit in (
        (0, q, (profile.position_min * still, profile.position_max * still), "rad"),
        (1, dq, profile.velocity_bounds(q), "rad/s"),
    ):
        for j, name in enumerate(profile.joint_names):
            axis = axes[j, side]
            axis.plot(times - begin_s, values[:, j], linewidth=0.9)
            for limit in limits:
                axis.plot(times - begin_s, limit[:, j], **LIMIT)
            axis.set_ylabel(f"{name}\n[{unit}]", fontsize=7)
    _verdicts(axes[joints, 0], replay, begin_s)
    _verdicts(axes[joints, 1], replay, begin_s)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
        for stop_s in stops_s:
            axis.axvline(stop_s - begin_s, **STOP)
    for axis in axes[joints]:
        axis.set_xlabel(f"time [s] since {begin_s:.3f} s of the guard's clock; black: stops, red: limits", fontsize=7)
    figure.suptitle(f"{pack.summary.get('reason', pack.path.parent.name)}: {pack.summary.get('detail', '')}", fontsize=9)
    try:
        return write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110))
    finally:
        plt.close(figure)


def _measured(pack: Pack, profile: RobotProfile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times [s], positions and velocities of the profile's joints, where a message has them all."""
    rows = []
    for message in pack.messages(STATE):
        content = message.content
        where = {name: i for i, name in enumerate(content.name)}
        if not (where.keys() >= set(profile.joint_names) and len(where) == len(content.position) == len(content.velocity)):
            continue
        order = [where[name] for name in profile.joint_names]
        stamp = content.header.stamp
        values = [*(content.position[i] for i in order), *(content.velocity[i] for i in order)]
        rows.append([stamp.sec + stamp.nanosec * 1e-9, *values])
    joints = len(profile.joint_names)
    table = np.array(rows, float).reshape(-1, 1 + 2 * joints)
    return table[:, 0], table[:, 1 : 1 + joints], table[:, 1 + joints :]


def _verdicts(axis, replay: Replay, begin_s: float) -> None:
    """A dot a verdict, a line a reason; a cross where the replay differs."""
    reasons = sorted({row.reason for row in replay.rows}, key=lambda reason: (reason != "ok", reason))
    for i, reason in enumerate(reasons):
        at = [row.time_s - begin_s for row in replay.rows if row.reason == reason]
        axis.plot(at, [i] * len(at), "o", markersize=3, color="tab:green" if reason == "ok" else "tab:orange")
    different = [row for row in replay.rows if not row.same]
    axis.plot([row.time_s - begin_s for row in different], [reasons.index(row.reason) for row in different], "x", color="tab:red")
    axis.set_yticks(range(len(reasons)), reasons, fontsize=7)
    axis.set_ylim(-0.5, max(len(reasons) - 0.5, 0.5))
    axis.set_ylabel("verdicts", fontsize=7)
