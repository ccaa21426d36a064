"""All nodes together with a stand-in driver: goals are pursued, refused, cancelled, and any silence leaves the arm at rest."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from foresight_msgs.action import Pursue
from foresight_msgs.msg import GuardState
from foresight_nodes import composed, convert, planner_node, topics
from foresight_nodes.guard_node import GuardNode
from foresight_nodes.mock_driver_node import MockDriverNode
from foresight_nodes.mock_driver_node import test_pattern as picture
from foresight_nodes.part import Part
from foresight_nodes.perception_node import PerceptionNode
from foresight_nodes.planner_node import PlannerNode
from foresight_nodes.soak import Ear
from foresight_nodes.world_model_node import WorldModelNode
from geometry_msgs.msg import Point, Pose
from rclpy.action import ActionClient
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from foresight.control.trajectory import hold
from foresight.data import Reason, Verdict
from foresight.evaluation.guard_judge import Judge
from foresight.planning.constraints import NoPlan
from foresight.planning.planner import Planner
from foresight.robots.kinematics import MujocoKinematics
from foresight.world_model.belief import BeliefFilter
from tests.judge import Obeying
from tests.ros.conftest import Bench, parameters

CONTROLLER = topics.trajectory("joint_trajectory_controller/joint_trajectory")
# random motion is motion
QUICK = {"planner__samples": 6, "planner__elites": 2, "planner__noisy_per_aim": 0, "planner__policy": "random"}
QUICK["planner__deadline_s"] = 60.0  # by the processor's time, of which a busy machine may have little; theirs is simulated


class Line:
    """The whole line from camera to motor, and a client that wants something."""

    def __init__(
        self,
        bench: Bench,
        checkpoint: Path,
        start: np.ndarray,
        planner_checkpoint: Path | None = None,
        driver: Part | None = None,
        guard: dict[str, object] | None = None,
        **planner,
    ) -> None:
        """`driver`: what is the arm and its cameras; None: a stand-in that follows perfectly. `guard`: parameters of its node."""
        self.bench = bench
        common = {"robot": "ur5e", "checkpoint": str(checkpoint)}
        self.driver = driver or bench.add(
            MockDriverNode, robot="ur5e", image_width=64, image_height=48, joint_states_hz=100.0, start=start.tolist()
        )
        self.guard = bench.add(GuardNode, robot="ur5e", **(guard or {}))
        self.perception = bench.add(PerceptionNode, **common)
        self.world_model = bench.add(WorldModelNode, injectable=True, **common)
        self.planner = bench.add(
            PlannerNode, **{**common, "checkpoint": str(planner_checkpoint or checkpoint), **QUICK, **planner}
        )
        self.states, self.commands = bench.listen(topics.JOINT_STATES), bench.listen(CONTROLLER)
        self.plans, self.guard_states = bench.listen(topics.PLAN), bench.listen(topics.GUARD_STATE)
        bench.bring_up(self.guard, self.driver, self.perception, self.world_model, self.planner)
        self.client = ActionClient(bench.node, topics.PURSUE[1], topics.PURSUE[0])
        bench.until(self.client.server_is_ready, "the planner offers pursue")
        self.feedback: list = []

    def pursue(self, **goal):
        """A goal that the planner has accepted."""
        goal = Pursue.Goal(**{"time_limit_s": 60.0, "use_tip": True, "tip": Pose(position=Point(x=0.5, y=0.2, z=0.2)), **goal})
        call = self.client.send_goal_async(goal, feedback_callback=self.feedback.append)
        self.bench.until(call.done, "the goal is answered")
        assert call.result().accepted
        return call.result()

    def result(self, handle, advance_s: float = 0.0) -> Pursue.Result:
        call = handle.get_result_async()
        self.bench.until(call.done, "the result arrives", advance_s)
        return call.result().result

    def move(self) -> None:
        """Until the arm moves on the commands of the planner."""
        self.bench.until(lambda: self.speed() > 0.02, "the arm moves", advance_s=0.02)

    def edit(self, objective: str) -> tuple[bool, str]:
        """What the planner says to a new value of its parameter."""
        answer = self.planner.set_parameters([Parameter("planner.objective", value=objective)])[0]
        return answer.successful, answer.reason

    def speed(self) -> float:
        return max((abs(v) for v in self.states[-1].velocity), default=0.0) if self.states else 0.0


@pytest.fixture
def line(bench: Bench, checkpoint: Path, start: np.ndarray) -> Line:
    return Line(bench, checkpoint, start)


def test_no_goal_no_plan_and_a_goal_moves_the_arm(line: Line):
    """Beliefs alone make no plan; a goal makes plans, and what the guard forwards moves the arm."""
    line.bench.advance(0.4, step_s=0.02)
    assert line.plans == [] and line.speed() == 0.0
    line.pursue()
    line.move()
    line.bench.until(lambda: line.guard_states[-1].accepted >= 3, "several plans pass", advance_s=0.02)
    assert line.guard_states[-1].refused == 0
    line.bench.until(lambda: line.feedback, "feedback arrives")
    said = line.feedback[0].feedback
    assert said.cost_names and len(said.cost_names) == len(said.costs) and said.source == "random"


@pytest.mark.parametrize("silent", ["perception", "world_model", "planner", "guard"])
def test_when_a_node_falls_silent_the_arm_comes_to_rest(line: Line, silent: str):
    """Whatever dies, the last trajectory ends at rest, and no command follows."""
    line.pursue()
    line.move()
    line.bench.silence(getattr(line, silent))
    line.bench.advance(1.2, step_s=0.02)
    assert line.speed() == 0.0
    heard = len(line.commands)
    line.bench.advance(0.5, step_s=0.02)
    assert line.speed() == 0.0 and len(line.commands) == heard


def test_silence_of_the_beliefs_ends_the_goal_as_stale(line: Line):
    """The client is told that beliefs stopped coming."""
    handle = line.pursue()
    line.move()
    line.bench.silence(line.world_model)
    result = line.result(handle, advance_s=0.05)
    assert (result.success, result.reason) == (False, Pursue.Result.STALE) and "No belief for" in result.detail


def test_a_goal_can_be_cancelled(line: Line):
    """It ends with its typed reason, and the arm comes to rest."""
    handle = line.pursue()
    line.move()
    cancelled = handle.cancel_goal_async()
    line.bench.until(cancelled.done, "the cancellation is answered")
    assert line.result(handle, advance_s=0.05).reason == Pursue.Result.CANCELLED
    line.bench.advance(1.2, step_s=0.02)
    assert line.speed() == 0.0


def test_a_goal_times_out(line: Line):
    """The time limit counts on the node's clock, also where no plan may begin yet: the controller is brought to the arm."""
    line.bench.until(lambda: line.guard_states[-1].in_force, "the guard begins with that", advance_s=0.02)
    early = line.result(line.pursue(time_limit_s=0.5), advance_s=0.02)
    assert early.reason == Pursue.Result.TIMED_OUT and 0.5 <= early.elapsed_s < 0.8 and early.plans == 0
    assert "the controller is being brought to where the arm is" in early.detail
    line.pursue()
    line.move()
    result = line.result(line.pursue(time_limit_s=0.5), advance_s=0.02)
    assert result.reason == Pursue.Result.TIMED_OUT and 0.5 <= result.elapsed_s < 0.8 and result.plans > 0


def test_a_new_goal_replaces_the_old_one(line: Line):
    """The first client is told; the second is served."""
    first = line.pursue()
    line.pursue()
    assert line.result(first).reason == Pursue.Result.REPLACED


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({"use_tip": False}, "at least one of latent"),
        ({"time_limit_s": 0.0}, "time_limit_s must be above 0"),
        ({"tip": Pose(position=Point(x=2.0))}, "outside the workspace"),
        ({"tip": Pose(position=Point(x=float("nan")))}, "not finite"),
        ({"object_only": True}, "needs goal images"),
        ({"weight_tip": -1.0}, "weights must be"),
        ({"weight_object": 1.0}, "must weigh more than 0"),
    ],
)
def test_an_impossible_goal_is_refused_with_a_sentence(line: Line, goal: dict, said: str):
    """The result's type is REFUSED and its text says why."""
    result = line.result(line.pursue(**goal))
    assert result.reason == Pursue.Result.REFUSED and said in result.detail


def test_goal_images_of_other_cameras_are_refused_and_the_right_ones_accepted(line: Line):
    """Each camera of the model needs its goal image, of its size, named by frame_id."""
    front, wrist, small = (
        convert.image_to_msg(picture(h, 64, 0.1), 0.0, name) for h, name in ((48, "front"), (48, "wrist"), (24, "wrist"))
    )
    assert "'wrist'" in line.result(line.pursue(goal_images=[front], use_tip=False)).detail
    assert "(24, 64, 3)" in line.result(line.pursue(goal_images=[front, small], use_tip=False)).detail
    line.pursue(goal_images=[front, wrist], use_tip=False)
    line.move()


def test_stopping_the_guard_ends_the_goal_and_reset_allows_the_next(line: Line):
    """Stop brakes and ends the pursuit; after reset a new goal moves the arm again."""
    handle = line.pursue()
    line.move()
    assert line.bench.call(topics.GUARD_STOP, line.guard, Trigger.Request()).success
    assert line.result(handle, advance_s=0.02).reason == Pursue.Result.STOPPED
    line.bench.advance(1.5, step_s=0.02)
    assert line.speed() == 0.0
    assert line.bench.call(topics.GUARD_RESET, line.guard, Trigger.Request()).success
    line.bench.until(lambda: line.guard_states[-1].state == GuardState.ACTIVE, "the guard is active again")
    line.pursue()
    line.move()


def test_a_planner_that_starts_again_joins_the_motion_in_force(line: Line):
    """It learns the last command from the controller's topic, so the guard accepts its first plan."""
    line.pursue()
    line.move()
    line.planner.trigger_deactivate()
    line.planner.trigger_cleanup()
    line.bench.advance(1.2, step_s=0.02)
    line.bench.bring_up(line.planner)
    refused = line.guard_states[-1].refused
    line.bench.until(line.client.server_is_ready, "the planner offers pursue again")
    line.bench.until(lambda: line.guard_states[-1].action == GuardState.NONE, "its heartbeat is believed", advance_s=0.02)
    line.pursue()
    line.move()
    assert line.guard_states[-1].refused == refused


def test_a_planner_with_another_model_refuses_the_belief(bench: Bench, checkpoint: Path, start: np.ndarray, tmp_path: Path):
    """The goal ends as refused, and both model ids are named."""
    other = shutil.copytree(checkpoint, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    line = Line(bench, checkpoint, start, other)
    result = line.result(line.pursue(), advance_s=0.02)
    assert result.reason == Pursue.Result.REFUSED and "The belief comes from model" in result.detail
    assert line.plans == []


def test_composed_the_nodes_share_one_model_and_do_the_same(bench: Bench, checkpoint: Path, start: np.ndarray):
    """One process, one loaded model: the line moves the arm as it does with separate nodes."""
    overrides = parameters(use_sim_time=True, robot="ur5e", checkpoint=str(checkpoint), **QUICK)
    driver = bench.add(MockDriverNode, robot="ur5e", image_width=64, image_height=48, joint_states_hz=100.0, start=start.tolist())
    guard, states = bench.add(GuardNode, robot="ur5e"), bench.listen(topics.JOINT_STATES)
    parts: list[Part] = [bench.adopt(part) for part in composed.nodes(parameter_overrides=overrides)]
    bench.bring_up(guard, driver, *parts)
    assert parts[1]._model is parts[2]._model
    client = ActionClient(bench.node, topics.PURSUE[1], topics.PURSUE[0])
    bench.until(client.server_is_ready, "the planner offers pursue")
    client.send_goal_async(Pursue.Goal(time_limit_s=60.0, use_tip=True, tip=Pose(position=Point(x=0.5, y=0.2, z=0.2))))
    bench.until(lambda: max(abs(v) for v in states[-1].velocity) > 0.02, "the arm moves", advance_s=0.02)


def test_the_objective_is_edited_while_the_arm_moves_and_shown_in_plans(line: Line):
    """The parameter takes effect with the next plan; a goal may bring an objective of its own; both show their terms."""
    line.pursue()
    line.move()
    assert list(line.plans[-1].cost_names) == ["to_go", "effort", "smooth"]
    assert line.edit("to_go + 0.2*time") == (True, "")
    line.bench.until(lambda: list(line.plans[-1].cost_names) == ["to_go", "time"], "the edit shows", advance_s=0.02)
    assert line.plans[-1].cost == pytest.approx(sum(line.plans[-1].costs))
    line.pursue(objective="tip + 0.5*smooth(norm=square)")
    line.bench.until(lambda: list(line.plans[-1].cost_names) == ["tip", "smooth"], "the goal's own shows", advance_s=0.02)


@pytest.mark.parametrize(
    ("objective", "said"),
    [("", "at least one term"), ("nan*to_go", "finite"), ("hope", "'hope'"), ("object", "needs a goal with")],
)
def test_a_bad_edit_of_the_objective_is_refused_and_changes_nothing(line: Line, objective: str, said: str):
    """One line says why, for the parameter as for a goal's own; the arm goes on as it did."""
    line.pursue()
    line.move()
    done, why = line.edit(objective)
    assert not done and said in why and "\n" not in why
    line.bench.until(lambda: line.guard_states[-1].accepted >= 3, "plans go on", advance_s=0.02)
    assert list(line.plans[-1].cost_names) == ["to_go", "effort", "smooth"]
    if objective:
        result = line.result(line.pursue(objective=objective))
        assert result.reason == Pursue.Result.REFUSED and said in result.detail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoPlan(Verdict(Reason.KEEP_OUT, "In the way."), 8), "the cheapest: In the way."),
        (NoPlan(Verdict(Reason.NO_TIME, "No time for a plan."), 0), "No time for a plan."),
        (torch.OutOfMemoryError("CUDA out of memory"), "The model failed: CUDA out of memory"),
        (RuntimeError("CUDA error: no device"), "The model failed: CUDA error: no device"),
    ],
)
def test_without_plans_the_arm_comes_to_rest_and_the_goal_ends_as_infeasible(
    bench: Bench, checkpoint: Path, start: np.ndarray, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
):
    """Nothing is published, every cycle without a plan is counted, for want of time as a miss too.

    The goal is given up after a while, not at once.
    """
    line, failed = Line(bench, checkpoint, start, pursuit__infeasible_s=1.5), []

    def fail(*arguments):
        failed.append(line.planner.now_s())
        raise error

    handle = line.pursue()
    line.move()
    before = line.planner.report()
    monkeypatch.setattr(line.planner._planner, "plan", fail)
    result, after = line.result(handle, advance_s=0.02), line.planner.report()
    assert (result.success, result.reason) == (False, Pursue.Result.INFEASIBLE) and said in result.detail
    assert after["plans"] == before["plans"] and after["without_plan"] == len(failed) >= 5
    assert after["deadline_misses"] == (len(failed) if "No time" in said else 0)
    assert after["cycles"] - before["cycles"] == len(failed) and 1.5 <= failed[-1] - failed[0] < 2.0
    bench.advance(0.5, step_s=0.02)
    assert line.speed() == 0.0


def test_a_plan_that_comes_later_than_its_motion_is_dropped_and_the_next_one_is_not(line: Line, monkeypatch: pytest.MonkeyPatch):
    """The clock passes the time at which the motion was to begin while it is planned: a miss, and nothing is published."""
    line.pursue()
    line.move()
    plan, now_s, late_s = line.planner._planner.plan, line.planner.now_s, []

    def linger(*arguments):
        late_s.append(0.3)
        return plan(*arguments)

    before = line.planner.report()
    assert before["deadline_misses"] == 0
    with monkeypatch.context() as patch:
        patch.setattr(line.planner, "now_s", lambda: now_s() + sum(late_s))
        patch.setattr(line.planner._planner, "plan", linger)
        line.bench.until(lambda: late_s, "a plan is made", advance_s=0.02)
        late = line.planner.report()
    assert (len(late_s), late["deadline_misses"], late["plans"]) == (1, 1, before["plans"])
    line.bench.until(lambda: line.planner.report()["plans"] > before["plans"], "the next plan is offered", advance_s=0.02)
    assert line.planner.report()["deadline_misses"] == 1


def test_a_slow_first_inference_skips_nothing(line: Line, profile, kinematics, start, monkeypatch: pytest.MonkeyPatch):
    """The first plan takes 0.3 s, its motion would have begun by then: it is dropped, and the arm moves from rest, by the next.

    A controller that does as it is told keeps every limit from there on: it is led into the midst of no motion.
    """
    arm, wrong, late_s = Obeying(Judge(profile.name, kinematics), hold(start, 0.0)), [], []
    told: list[JointTrajectory] = []
    plan, now_s = line.planner._planner.plan, line.planner.now_s

    def linger(*arguments):
        late_s.append(0.3)
        return plan(*arguments)

    def obey(msg: JointTrajectory) -> None:
        now_s = line.bench.now_s
        told.append(msg)
        wrong.extend(arm.receive(convert.trajectory_from_msg(msg, profile.joint_names, now_s), now_s))

    CONTROLLER.subscription(line.bench.node, obey)
    line.pursue()
    with monkeypatch.context() as patch:
        patch.setattr(line.planner, "now_s", lambda: now_s() + sum(late_s))
        patch.setattr(line.planner._planner, "plan", linger)
        line.bench.until(lambda: late_s, "a plan is made", advance_s=0.02)
    assert line.planner.report()["deadline_misses"] == 1 and line.plans == [] and line.speed() == 0.0
    line.move()
    line.bench.until(lambda: line.guard_states[-1].accepted >= 3, "several plans pass", advance_s=0.02)
    assert len(told) >= 3 and wrong == []


def test_no_first_inference_is_left_for_the_first_belief_or_plan(
    bench: Bench, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    """The first is slower than the others: world model and planner have used their models before they are active."""
    used: list[str] = []
    for kind, name in ((BeliefFilter, "update"), (Planner, "plan")):
        work = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *a, name=name, work=work: used.append(name) or work(*a))
    for node, name in ((WorldModelNode, "update"), (PlannerNode, "plan")):
        used.clear()
        bench.configure(bench.add(node, robot="ur5e", checkpoint=str(checkpoint), **(QUICK if node is PlannerNode else {})))
        assert name in used


def test_diagnostics_tell_how_long_plans_took_and_which_took_too_long(
    bench: Bench, checkpoint: Path, start: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    """By the processor's time: of plans of 20 ms one takes 90 ms, past `planner.deadline_s`, and one 150 ms, past a cycle too.

    The soak keeps each, and finds that the arm was on a motion to rest in the one past a cycle.
    """
    line = Line(bench, checkpoint, start, planner__deadline_s=0.08)
    plan, took_s, heard = line.planner._planner.plan, [], line.bench.listen(topics.DIAGNOSTICS)

    def take(*arguments):
        took_s.append({3: 0.09, 5: 0.15}.get(len(took_s), 0.02))
        return replace(plan(*arguments), planning_s=took_s[-1])

    monkeypatch.setattr(planner_node, "time", SimpleNamespace(perf_counter=lambda: sum(took_s)))
    monkeypatch.setattr(line.planner._planner, "plan", take)
    ear = Ear(lambda: None)
    ear.listening = True
    line.bench.executor.add_node(ear)
    line.pursue()

    def told() -> dict[str, str]:
        of_planner = [status for message in heard for status in message.status if status.name == "/planner"]
        figures = {value.key: value.value for value in of_planner[-1].values} if of_planner else {}
        return figures if int(figures.get("cycles", 0)) > 10 else {}

    line.bench.until(told, "it is told", advance_s=0.02)
    figures = told()
    taken_ms = 1e3 * np.array(took_s[: int(figures["cycles"])])
    for percent in (50, 99):
        assert float(figures[f"planning_ms_p{percent}"]) == pytest.approx(np.percentile(taken_ms, percent), abs=1e-3)
    line.bench.until(lambda: len(ear.cycles.took_ms) >= len(taken_ms), "the soak has heard it too")
    ear.destroy_node()
    assert ear.cycles.took_ms[: len(taken_ms)] == pytest.approx(taken_ms, abs=0.06), "each is told once"
    assert ear.cycles.missed == {"in_motion_to_rest": 1, "at_rest": 0, "uncovered": 0}
    counts = {name: int(figures[name]) for name in ("cycles_too_long", "deadline_overruns", "deadline_misses", "without_plan")}
    assert counts == {"cycles_too_long": 1, "deadline_overruns": 2, "deadline_misses": 0, "without_plan": 0}


BOX = [0.40, -0.25, 0.0, 0.44, -0.21, 0.2]  # [m]


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({"keep_outs": BOX[:5]}, "6 numbers a box"),
        ({"keep_outs": [*BOX[3:], *BOX[:3]]}, "low below its high"),
        ({"keep_outs": [0.45, 0.15, 0.0, 0.55, 0.25, 0.25]}, "lies in the goal's keep-out 1"),
        ({"tip_speed_max": float("nan")}, "tip_speed_max"),
        ({"tip_speed_max": -0.1}, "tip_speed_max"),
        ({"use_yaw": True, "yaw": 0.5}, "trained with --model.yaw"),
        ({"use_contact": True}, "trained with --model.contact"),
        ({"use_opening": True, "opening": 2.0}, "between 0 (closed) and 1 (open)"),
    ],
)
def test_a_goal_with_impossible_constraints_is_refused(line: Line, goal: dict, said: str):
    """A box that is none, one that covers the goal, and a speed that is none: each with its sentence."""
    result = line.result(line.pursue(**goal))
    assert result.reason == Pursue.Result.REFUSED and said in result.detail


def test_constraints_of_a_goal_hold_while_it_moves_and_the_margin_is_shown(line: Line):
    """A keep-out and a speed cap: plans come, pass the guard and tell their margin."""
    line.pursue(keep_outs=BOX, tip_speed_max=0.1)
    line.move()
    line.bench.until(lambda: line.guard_states[-1].accepted >= 3, "several plans pass", advance_s=0.02)
    assert all(np.isfinite(plan.margin_m) and plan.margin_m >= -1e-6 for plan in line.plans)
    assert all(np.isfinite(plan.singular_margin) and plan.singular_margin >= 0 for plan in line.plans)
    speeds = [np.hypot(np.hypot(v.x, v.y), v.z) for plan in line.plans for v in plan.tip_velocity]
    assert 0.02 < max(speeds) <= 0.1


POST = [0.40, 0.07, 0.0, 0.50, 0.11, 0.30]  # [m] across the straight way from the tip to BEHIND
BEHIND = [0.45, 0.25, 0.12]  # [m]


@pytest.mark.parametrize("told", [True, False])
def test_plans_go_round_a_keep_out_of_the_goal_by_the_joints_that_were_published(
    bench: Bench, checkpoint: Path, start: np.ndarray, kinematics: MujocoKinematics, told: bool
):
    """Straight to the told place where the goal has none, round it where it has: by the arm's joints and MuJoCo's own tip."""
    searches = {"policy": "search", "search_samples": 64, "search_iterations": 2, "objective": "3*tip + 0.1*effort"}
    searches["deadline_s"] = 5.0  # simulated time stands still meanwhile
    line = Line(bench, checkpoint, start, **{f"planner__{name}": value for name, value in searches.items()})
    tips: list[np.ndarray] = []

    def there() -> bool:
        q = dict(zip(line.states[-1].name, line.states[-1].position, strict=True))
        tips.append(kinematics.tip(np.array([q[name] for name in line.planner._profile.joint_names])))
        return np.linalg.norm(tips[-1] - BEHIND) < 0.03

    line.pursue(tip=Pose(position=Point(**dict(zip("xyz", BEHIND, strict=True)))), keep_outs=POST if told else [])
    bench.until(there, "the tip is behind the post", advance_s=0.02)
    inside = [bool((POST[:3] < tip).all() and (tip < POST[3:]).all()) for tip in tips]
    assert any(inside) == (not told)


def test_the_planner_knows_the_guards_keep_outs(bench: Bench, checkpoint: Path, start: np.ndarray):
    """The guard's parameter reaches the planner by guard_setup: a goal inside is refused by name, one beside it is pursued."""
    line = Line(bench, checkpoint, start, guard={"keep_outs": [0.45, 0.15, 0.0, 0.55, 0.25, 0.25]})
    bench.until(lambda: line.planner._constraints.keep_outs, "the planner hears of it")
    result = line.result(line.pursue())
    assert result.reason == Pursue.Result.REFUSED and "lies in keep-out 1" in result.detail
    line.pursue(tip=Pose(position=Point(x=0.5, y=-0.2, z=0.2)))
    line.move()
