"""A model that moves the gripper through the graph: planned, passed by the guard, done in simulation, and kept through a stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from foresight_msgs.msg import GuardState
from foresight_nodes import convert, topics
from foresight_nodes.guard_node import GuardNode
from foresight_nodes.models import load_for
from foresight_nodes.part import Part
from foresight_nodes.perception_node import PerceptionNode
from foresight_nodes.planner_node import PlannerNode
from foresight_nodes.sim_node import SimNode
from foresight_nodes.world_model_node import WorldModelNode
from geometry_msgs.msg import Point, Pose
from rclpy.action import ActionClient
from rclpy.lifecycle import TransitionCallbackReturn
from std_srvs.srv import Trigger

from foresight.data import Belief
from foresight.world_model import checkpoint as checkpoints
from foresight.world_model.model import ModelConfig, WorldModel
from sim.scenes import contract
from tests.ros.conftest import Bench, Somebody, parameters

GRIPPER = topics.trajectory("gripper_controller/joint_trajectory")
GOAL = Pose(position=Point(x=0.5, y=0.2, z=0.2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, profile) -> Path:
    """A tiny untrained model of the simulation's cameras that moves the gripper."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("gripping") / "model"
    checkpoints.save(WorldModel(contract(profile, gripper=True), ModelConfig(16, 8, 16, 1, 16, 8)), path, "# Untrained\n", {})
    return path


def closing(path: str, device: str) -> WorldModel:
    """The model, but its actor stays where it is and closes the gripper."""
    model = checkpoints.load_for_planning(path, device)
    still = torch.tensor([0.0, 0.0, 0.0, 1.0]).repeat(model.contract.block_steps)
    model.propose = lambda latent, proprio, goal, k: still.expand(len(latent), -1)
    return model


class Picking(Somebody):
    """Every node in one process, in simulated time that the simulator keeps, at the begin of a pick."""

    def __init__(self, folder: Path) -> None:
        model = {"robot": "ur5e", "checkpoint": str(folder)}
        super().__init__("somebody")
        self.states, self.guard_states, self.plans, self.grips = (
            self.listen(t) for t in (topics.JOINT_STATES, topics.GUARD_STATE, topics.PLAN, GRIPPER)
        )
        # All in one thread: simulated time goes slowly, and a busy machine makes beliefs rare and plans slow.
        patient = {"planner__policy": "actor", "stale_after_s": 60.0, "planner__deadline_s": 60.0}
        made = {
            "sim": (SimNode, {"robot": "ur5e", "task": "pick", "seed": 3, "real_time_factor": 0.3}),
            "guard": (GuardNode, {"robot": "ur5e", "gripper": True}),
            "perception": (PerceptionNode, model),
            "world_model": (WorldModelNode, model),
            "planner": (lambda **options: PlannerNode(closing, **options), {**model, **patient}),
        }
        self.parts: dict[str, Part] = {}
        for name, (kind, given) in made.items():
            self.parts[name] = kind(parameter_overrides=parameters(use_sim_time=True, **given))
        for node in (*self.parts.values(), self.node):
            self.executor.add_node(node)
        for part in self.parts.values():
            assert part.trigger_configure() is TransitionCallbackReturn.SUCCESS
        for name, part in self.parts.items():
            self.until(lambda part=part: part.trigger_activate() is TransitionCallbackReturn.SUCCESS, f"{name} activates")
        self.client = ActionClient(self.node, topics.PURSUE[1], topics.PURSUE[0])
        self.until(self.client.server_is_ready, "the planner offers pursue")
        self.until(lambda: self.guard_states and self.guard_states[-1].action == GuardState.NONE, "motion is allowed")

    def pass_time(self, duration_s: float) -> None:
        """Simulated."""
        end_s = self.now_s + duration_s
        self.until(lambda: self.now_s > end_s, "time goes on")

    @property
    def now_s(self) -> float:
        return convert.seconds(self.states[-1].header.stamp)

    @property
    def knuckle(self) -> float:
        """[rad] of the gripper's joint, as measured."""
        return self.states[-1].position[6]

    def close(self) -> None:
        for part in self.parts.values():
            part.stop()
            part.trigger_cleanup()
        self.executor.shutdown()
        for node in (*self.parts.values(), self.node):
            node.destroy_node()


@pytest.fixture
def picking(folder: Path) -> Iterator[Picking]:
    picking = Picking(folder)
    yield picking
    picking.close()


@pytest.mark.timeout(600)
def test_the_gripper_closes_on_a_plan_and_stays_closed_through_a_stop(picking: Picking):
    """Open at first; plans that the guard passes close it in simulation; a stop and a reset send it nothing."""
    assert picking.knuckle < 0.02 and picking.grips == [] and np.isnan(picking.guard_states[-1].closed)
    goal = topics.PURSUE[1].Goal(use_tip=True, tip=GOAL, time_limit_s=1e6)
    picking.client.send_goal_async(goal)
    picking.until(lambda: picking.plans, "plans come")
    picking.until(lambda: picking.guard_states[-1].accepted, f"a plan passes; {picking.guard_states[-1].detail}")
    picking.until(lambda: picking.knuckle > 0.7, "the gripper closes")
    assert picking.guard_states[-1].closed == 1.0 and {plan.closed for plan in picking.plans} == {1.0}
    stop = picking.node.create_client(Trigger, "guard/stop")
    picking.until(stop.service_is_ready, "the guard can be stopped")
    stopped = stop.call_async(Trigger.Request())
    picking.until(stopped.done, "the guard stops")
    sent = len(picking.grips)
    assert {plan.grip_force_n for plan in picking.plans} == {50.0}
    assert all(0 <= point.positions[0] <= 0.8 for grip in picking.grips for point in grip.points)
    picking.pass_time(1.0)
    reset = picking.node.create_client(Trigger, "guard/reset")
    picking.until(reset.service_is_ready, "the guard can be reset")
    answer = reset.call_async(Trigger.Request())
    picking.until(answer.done, "the guard is reset")
    assert answer.result().success, answer.result().message
    picking.pass_time(0.5)
    assert picking.knuckle > 0.7 and len(picking.grips) == sent and picking.guard_states[-1].closed == 1.0


def test_the_planner_goes_on_from_the_grippers_last_command(bench: Bench, gripping_checkpoint: Path, start, kinematics):
    """As the guard tells it, else as it was last offered, else as it is measured; random motion leaves it as it is."""
    random = {"planner__policy": "random", "planner__deadline_s": 60.0}
    node = bench.add(PlannerNode, robot="ur5e", checkpoint=str(gripping_checkpoint), **random)
    bench.bring_up(node)
    published: list = []
    node.publish = lambda publisher, message: published.append(message)
    client = ActionClient(bench.node, topics.PURSUE[1], topics.PURSUE[0])
    bench.until(client.server_is_ready, "the planner offers pursue")
    client.send_goal_async(topics.PURSUE[1].Goal(use_tip=True, tip=GOAL, time_limit_s=1e6))
    bench.until(lambda: node._chase is not None, "the goal is pursued")
    model_id = checkpoints.fingerprint(gripping_checkpoint)

    def planned(opening: float) -> float:
        """The command of the plan from a belief in which the gripper is so far open."""
        proprio = np.concatenate([start, [opening], kinematics.tip(start), np.zeros(3)]).astype(np.float32)
        belief = Belief(bench.now_s - 0.05, model_id, np.zeros(16, np.float32), proprio, 1.0)
        node._on_belief(convert.belief_to_msg(belief, "base_link"))
        return published[-1].closed

    def guard_says(closed: float, decided: int = 0) -> None:
        node._on_guard_state(GuardState(header=convert.header(bench.now_s), closed=closed, plan_id=decided, decided_id=decided))

    guard_says(float("nan"))
    assert [planned(0.9), len(node._offered)] == [0.0, 1]
    assert planned(0.1) == 0.0  # as offered, though the guard has not decided yet
    node._offered.clear()
    assert planned(0.1) == 1.0  # as measured
    guard_says(0.0, published[-1].id)
    assert node._offered == {} and planned(0.1) == 0.0  # as the guard says


def test_a_robot_without_a_gripper_joint_is_refused(gripping_checkpoint: Path, profile, tmp_path: Path):
    """By the nodes that load the model: with the robot, what it lacks, who has it and what to do."""
    from foresight.robots.profile import profile_text

    text = profile_text("ur5e")
    begin, end = text.index("gripper:\n"), text.index("model:\n")
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"{text[:begin]}gripper: null\n{text[end:]}")
    with pytest.raises(ValueError, match=r"robot 'ur5e' has no gripper joint \(gripper: null in its profile\)"):
        load_for(str(mine), str(gripping_checkpoint), "cpu", 0, checkpoints.load)
    model, found = load_for("ur5e", str(gripping_checkpoint), "cpu", 0, checkpoints.load)
    assert model.contract.moves_gripper and found.name == profile.name
