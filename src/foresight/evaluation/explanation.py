"""One plan as a picture: the candidates, what they cost, what was imagined, and how far it keeps from its limits.

Draws what it is given; the replay that makes it is `sim.explain`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from foresight.control.trajectory import derivatives
from foresight.data import Belief, Goal, Plan, Trajectory
from foresight.files import write_atomically
from foresight.planning.constraints import Constraints
from foresight.planning.imagination import Imagined
from foresight.planning.objective import Objective
from foresight.planning.residuals import Foreseen
from foresight.planning.singularity import dexterity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOK_S = 0.01  # [s] between two looks at the margins
BARS = 24  # candidates whose cost is shown, cheapest first
FAINT, ELITE, CHOSEN, BOX = "0.75", "tab:blue", "tab:red", "tab:orange"


@dataclass(frozen=True)
class Account:
    """How a plan came about. Sets are in the order in which they were imagined: proposals, then refinements."""

    title: str
    plan: Plan
    belief: Belief
    goal: Goal  # as given; on a way round keep-outs the candidates were judged by the goal of the plan's leg
    objective: Objective
    sets: tuple[tuple[Foreseen, Imagined], ...]
    elites: int
    constraints: Constraints
    images: dict[str, UInt8[np.ndarray, "height width 3"]]  # what the cameras saw
    imagined: UInt8[np.ndarray, "H C h w 3"]  # what the model's decoder makes of the plan's latents
    subgoal: UInt8[np.ndarray, "C h w 3"] | None = None  # the same of its sub-goal, where one was pursued

    def chosen(self) -> tuple[int, int]:
        """Set and row of the candidate that became the plan."""
        for s, (_, found) in enumerate(self.sets):
            same = (found.controls[..., :3].double().numpy() == self.plan.tip_velocity).all((1, 2))
            if same.any():
                return s, int(same.argmax())
        raise ValueError("The plan is none of the candidates that were imagined for it.")


def draw(account: Account, path: Path) -> Path:
    """Writes the picture as .png; raises ValueError for another suffix."""
    if path.suffix != ".png":
        raise ValueError(f"A picture's name must end in .png, got {path}.")
    figure = compose(account)
    return write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))


def compose(account: Account) -> Figure:
    """The picture: six charts over the frames."""
    from matplotlib.figure import Figure

    cameras, blocks = len(account.images), len(account.imagined)
    figure = Figure(figsize=(16, 9 + 1.8 * cameras), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(9, 1.8 * cameras))
    axes = upper.subplots(2, 3)
    _paths(axes[0, 0], account, 0, 1)
    _paths(axes[0, 1], account, 1, 2)
    _costs(axes[0, 2], account)
    _horizon(axes[1, 0], account)
    _distances(axes[1, 1], account)
    _shares(axes[1, 2], account)
    _frames(lower.subplots(cameras, blocks + 1 + (account.subgoal is not None), squeeze=False), account)
    plan = account.plan
    near = f"{plan.margin_m:.3f} m beyond the margin of {plan.nearest}" if plan.nearest else "nothing near"
    figure.suptitle(
        f"{account.title}: {plan.source}, cost {plan.cost:.3f} blocks of {account.objective}, {plan.distance:.2f} s to go, "
        f"{plan.candidates} candidates, {near}",
        fontsize=10,
    )
    return figure


def _paths(axis, account: Account, x: int, y: int) -> None:
    """Where the tip would go: every candidate, the elites of the last set, the plan; keep-outs, goal and the leg's goal."""
    from matplotlib.patches import Rectangle

    set_, row = account.chosen()
    tip = account.belief.tip
    for s, (foreseen, found) in enumerate(account.sets):
        best = set(found.cost.argsort()[: account.elites].tolist()) if s == len(account.sets) - 1 else set()
        for i, way in enumerate(foreseen.positions.numpy()):
            on, elite = np.vstack([tip, way]), i in best
            axis.plot(
                on[:, x], on[:, y], color=ELITE if elite else FAINT, linewidth=1.0 if elite else 0.5, zorder=2 if elite else 1
            )
    on = np.vstack([tip, account.sets[set_][0].positions[row].numpy()])
    axis.plot(on[:, x], on[:, y], color=CHOSEN, linewidth=2, zorder=3, label="the plan")
    axis.plot([], [], color=ELITE, label="elites")
    axis.plot([], [], color=FAINT, label="other candidates")
    for box in account.constraints.keep_outs:
        corner, size = (box.low[x], box.low[y]), (box.high[x] - box.low[x], box.high[y] - box.low[y])
        axis.add_patch(Rectangle(corner, *size, color=BOX, alpha=0.5, label="keep-out"))
    leg = account.goal if account.plan.leg is None else account.plan.leg.goal
    for goal, marker in ((account.goal, "*"), *([(leg, "P")] if leg is not account.goal else [])):
        for name, place in _places(goal, account).items():
            axis.plot(place[x], place[y], marker, markersize=11, label=f"{name} wanted{', of this leg' if marker == 'P' else ''}")
    axis.set_xlabel(f"{'xyz'[x]} [m]")
    axis.set_ylabel(f"{'xyz'[y]} [m]")
    axis.set_title("tip, from above" if y == 1 else "tip, from the side")
    axis.set_aspect("equal", adjustable="datalim")
    axis.legend(fontsize=7, loc="best")


def _places(goal: Goal, account: Account) -> dict[str, Float[np.ndarray, "3"]]:
    import torch

    model = account.sets[0][0].model
    seen = (
        {} if goal.latent is None else dict(zip(("tip", "object"), model.read(torch.as_tensor(goal.latent)[None]), strict=True))
    )
    told = {"tip": goal.tip, "object": goal.object}
    return {n: told[n] if told[n] is not None else seen[n][0].numpy() for n in told if told[n] is not None or n in seen}


def _costs(axis, account: Account) -> None:
    """The cheapest candidates of all sets, cost by term; in red the plan, hatched those that would enter a keep-out."""
    rows = [(float(found.cost[i]), s, i) for s, (_, found) in enumerate(account.sets) for i in range(len(found.cost))]
    rows = sorted(row for row in rows if np.isfinite(row[0]))[:BARS]
    chosen, below = account.chosen(), np.zeros(len(rows))
    for term in account.plan.terms:
        height = np.array([float(account.sets[s][1].terms[term][i]) for _, s, i in rows])
        bars = axis.bar(range(len(rows)), height, bottom=below, label=term)
        below += height
        for bar, (_, s, i) in zip(bars, rows, strict=True):
            entered = account.sets[s][1].entered
            bar.set_hatch("//" if entered is not None and entered[i] > 0 else "")
            bar.set_edgecolor(CHOSEN if (s, i) == chosen else "none")
    axis.set_xlabel("candidates, in the order of their rank")
    axis.set_ylabel("cost [blocks]")
    axis.set_title("cost by term; red: the plan, hatched: enters a keep-out", fontsize=10)
    axis.legend(fontsize=7)


def _horizon(axis, account: Account) -> None:
    """Cost by term of the plan along its horizon, before the mean; red dots: where blocks end."""
    s, row = account.chosen()
    foreseen, _ = account.sets[s]
    end_s = account.plan.dt_s * len(account.plan.tip_velocity)
    for name, cost in account.objective.along(foreseen).items():
        values = cost[row].numpy()
        axis.plot(end_s * (1 + np.arange(len(values))) / len(values), values, marker=".", label=name)
    axis.set_xlabel("time from the observation [s]")
    axis.set_ylabel("cost [blocks]")
    axis.set_title("cost of the plan over the horizon")
    axis.legend(fontsize=7)


def _looks(trajectory: Trajectory) -> Float[np.ndarray, "M"]:
    begin, end = float(trajectory.times_s[0]), float(trajectory.times_s[-1])
    return np.linspace(begin, end, int(np.ceil((end - begin) / LOOK_S)) + 1)


def _distances(axis, account: Account) -> None:
    """What is left of the distances that must be kept, along the joint trajectory and its stop."""
    trajectory, constraints = account.plan.trajectory, account.constraints
    times = _looks(trajectory)
    q = derivatives(trajectory, times)[0]
    if constraints.scene is not None:
        left = [constraints.scene.clearance(row, by_design=False).distance_m for row in q]
        axis.plot(times - account.plan.stamp_s, left, label="table, keep-outs, itself (at most 0.1 m is looked for)")
    tips = constraints.kinematics.tips(q)
    room = np.minimum(tips - constraints.profile.workspace_min, constraints.profile.workspace_max - tips).min(1)
    axis.plot(times - account.plan.stamp_s, room, label="tip to the workspace's nearest wall")
    _to_the_stop(axis, 0.0, "left [m]", "margins: distances")


def _shares(axis, account: Account) -> None:
    """Which share of each limit the joint trajectory uses, and of what its gripper may squeeze with where it moves that."""
    trajectory, constraints = account.plan.trajectory, account.constraints
    profile, times = constraints.profile, _looks(trajectory)
    q, dq, ddq, jerk = derivatives(trajectory, times)
    slowest, fastest = profile.velocity_bounds(q)
    middle, half = (profile.position_max + profile.position_min) / 2, (profile.position_max - profile.position_min) / 2
    tip_speed = np.linalg.norm(constraints.kinematics.tip_motion(q, dq)[1], axis=1)
    used = {
        "joint position": (np.abs(q - middle) / half).max(1),
        "joint velocity": (np.maximum(dq / fastest, dq / slowest)).max(1),
        "joint acceleration": (np.abs(ddq) / profile.acceleration_max).max(1),
        "joint jerk": (np.abs(jerk) / profile.jerk_max).max(1),
        "tip speed": tip_speed / profile.tip_speed_max,
        "singularity: least distance over distance": constraints.dexterity_min / dexterity(constraints.kinematics, q).clip(1e-9),
    }
    if constraints.grip_limit is not None and np.isfinite(account.plan.grip_force_n):
        used["gripper force"] = np.full(len(times), account.plan.grip_force_n / constraints.grip_limit.cap_n)
    for name, share in used.items():
        axis.plot(times - account.plan.stamp_s, share, label=name, linewidth=1.0)
    _to_the_stop(axis, 1.0, "share of the limit used", "margins: limits, the joint that is nearest to its own")


def _to_the_stop(axis, limit: float, what: str, title: str) -> None:
    """Labels of a chart along the joint trajectory and its stop, with a line at its limit."""
    axis.axhline(limit, color=CHOSEN, linestyle="--", linewidth=0.8)
    axis.set_xlabel("time from the observation [s], to the end of the stop")
    axis.set_ylabel(what)
    axis.set_title(title)
    axis.legend(fontsize=7)


def _frames(axes, account: Account) -> None:
    """A row a camera: what it saw, what the model imagines at the end of each block, and the sub-goal where there is one."""
    end_s, blocks = account.plan.dt_s * len(account.plan.tip_velocity), len(account.imagined)
    whens = ["now", *(f"imagined, {end_s * b / blocks:.1f} s ahead" for b in range(1, blocks + 1)), "sub-goal"]
    for c, (name, image) in enumerate(account.images.items()):
        pictures = [image, *account.imagined[:, c], *([] if account.subgoal is None else [account.subgoal[c]])]
        for axis, picture, when in zip(axes[c], pictures, whens, strict=False):
            axis.imshow(picture)
            axis.set_axis_off()
            axis.set_title(f"{name} {when}", fontsize=8)
