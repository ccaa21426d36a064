"""The ROS runner against a graph of known behaviour: it resets, pursues, listens and tells what the judge said."""

import math

import numpy as np
import pytest
from foresight_bringup.graph import Arguments, graph
from foresight_msgs.action import Pursue
from foresight_msgs.msg import Belief, GuardState, Plan, SimState
from foresight_msgs.srv import ResetSimulation
from foresight_nodes import convert, run_episodes, topics
from foresight_nodes.run_episodes import GraphError, Runner
from rclpy.action import ActionServer, CancelResponse
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import Trigger

from foresight.evaluation.config import EvaluateConfig

TICK_S = 0.05  # [s] simulated for each step
TURNS = 6  # of the runner for each step: it reads one message a turn, and a step says six at most
BOX = (0.4, -0.1, 0.0, 0.5, 0.1, 0.2)
PICTURE = np.full((48, 64, 3), 90, np.uint8)


class FakeGraph:
    """Simulator, guard, world model and planner in one node: once pursued, the distance falls by 0.1 m/s until it is zero."""

    def __init__(
        self,
        reaches: bool = True,
        gives_up_after_s: float = math.inf,
        refuses: bool = False,
        dies: bool = False,
        keep_out: tuple[float, ...] = (),
    ) -> None:
        self.keep_out = keep_out
        self.reaches, self.gives_up_after_s, self.refuses, self.dies = reaches, gives_up_after_s, refuses, dies
        self.node = Node("fake_graph")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.now_s, self.reset_s, self.distance, self.held_s, self.plans = 50.0, 0.0, 0.3, 0.0, 0
        self.turns = 0
        self.scenes: list[tuple[str, int, str]] = []
        self.goals: list[Pursue.Goal] = []
        self.guard_resets, self.handle, self.pursued_s, self.ended = 0, None, 0.0, []
        self.state, self.belief, self.plan = (
            topic.publisher(self.node) for topic in (topics.SIM_STATE, topics.BELIEF, topics.PLAN)
        )
        self.guard, self.adopted_s = topics.GUARD_STATE.publisher(self.node), math.inf
        self.images = {camera: topics.image(camera).publisher(self.node) for camera in ("front", "wrist")}
        self.node.create_service(ResetSimulation, "sim/reset", self.on_reset)
        self.node.create_service(Trigger, "guard/reset", self.on_guard_reset)
        self.server = ActionServer(
            self.node,
            Pursue,
            "pursue",
            lambda handle: Pursue.Result(),
            handle_accepted_callback=self.on_goal,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
        )

    def on_reset(self, request, response):
        self.scenes.append((request.task, request.seed, request.shift))
        self.reset_s, self.distance, self.held_s, self.handle = self.now_s, 0.3, 0.0, None
        response.ok, response.message = not self.refuses, "no such task" if self.refuses else ""
        response.time_limit_s, response.stamp, response.keep_out = 6.0, convert.stamp(self.now_s), list(self.keep_out)
        response.goal_images = [convert.image_to_msg(PICTURE, self.now_s, camera) for camera in self.images]
        return response

    def on_guard_reset(self, request, response):
        self.guard_resets, self.adopted_s = self.guard_resets + 1, self.now_s + 4 * TICK_S
        response.success = True
        return response

    def on_goal(self, handle):
        assert self.now_s >= self.adopted_s - 1e-6, "a goal before plans may begin would lose time"
        self.goals.append(handle.request)
        self.handle, self.pursued_s = handle, 0.0

    def end(self, reason):
        handle, self.handle = self.handle, None
        self.ended.append(reason)

        def conclude(handle):
            handle.canceled() if handle.is_cancel_requested else handle.abort()
            return Pursue.Result(reason=reason, detail="said the planner")

        handle.execute(conclude)

    def turn(self) -> None:
        """What the runner's check does: lets a little time pass here, once it has read all that was said before."""
        if self.dies and self.goals:
            raise GraphError("The graph ended: sim was killed.")
        self.executor.spin_once(timeout_sec=0.0)
        self.turns += 1
        if self.turns % TURNS:
            return
        self.now_s += TICK_S
        if self.handle is not None:
            self.pursued_s += TICK_S
            if self.handle.is_cancel_requested:
                self.end(Pursue.Result.CANCELLED)
            elif self.pursued_s > self.gives_up_after_s:
                self.end(Pursue.Result.UNREACHABLE)
            elif self.reaches:
                self.distance = max(0.0, self.distance - 0.1 * TICK_S)
        self.held_s = self.held_s + TICK_S if self.distance < 0.02 else 0.0
        header = convert.header(self.now_s)
        self.state.publish(SimState(
            header=header, task="reach", elapsed_s=self.now_s - self.reset_s, time_limit_s=6.0, success=self.held_s > 0.5,
            held_s=self.held_s, entered=2 if self.keep_out else 0,
            distance=self.distance, real_time_factor=1.0, camera_to_command_s=0.1 + 0.001 * self.plans,
        ))  # fmt: skip
        self.belief.publish(Belief(header=header, model_id="toy", surprise=1.25))
        if math.isfinite(self.adopted_s):
            self.guard.publish(GuardState(header=header, in_force=True, in_force_until=convert.stamp(self.adopted_s)))
        for camera, publisher in self.images.items():
            publisher.publish(convert.image_to_msg(PICTURE, self.now_s, camera))
        if self.handle is not None:
            self.plans += 1
            self.plan.publish(Plan(header=header, id=self.plans, planning_s=0.04, dt_s=0.1, source="actor"))

    def close(self) -> None:
        self.executor.shutdown()
        self.server.destroy()
        self.node.destroy_node()


@pytest.fixture
def play():
    """Runs one episode against a fake graph of the given behaviour."""
    opened = []

    def run(task="reach", asked="none", **behaviour):
        graph = FakeGraph(**behaviour)
        runner = Runner(graph.turn, ("front", "wrist"))
        opened.extend([runner, graph])
        return graph, *runner.episode(task, 700, "camera", lambda line: None, asked)

    yield run
    for each in opened:
        each.close()


def test_an_episode_is_what_the_judge_says(play):
    """Success, time and distance come from the judge; the goal is the scene's images; the guard starts afresh."""
    graph, result, _, goal_images = play()
    assert result.success and result.reason == "reached" and result.final_distance_m < 0.02
    assert 3.0 < result.time_to_goal_s < 4.5  # 28 cm at 10 cm/s, and half a second at rest
    assert graph.scenes == [("reach", 700, "camera")] and graph.guard_resets == 1
    assert [image.header.frame_id for image in graph.goals[0].goal_images] == ["front", "wrist"] and not graph.goals[
        0
    ].object_only
    assert set(goal_images) == {"front", "wrist"} and (goal_images["front"] == PICTURE).all()
    assert graph.ended == [Pursue.Result.CANCELLED]  # nothing is left running


def test_what_was_measured_is_kept(play):
    """Planning times, camera-to-command latencies, surprise and frames of the episode are there."""
    _, result, heard, _ = play()
    assert len(result.planning_ms) > 10 and set(result.planning_ms) == {40.0}
    assert (
        len(set(result.camera_to_command_ms)) == len(result.camera_to_command_ms) > 10 and min(result.camera_to_command_ms) >= 100
    )
    assert set(result.surprise) == {1.25}
    assert len(heard.frames) > 10 and set(heard.frames[0][0]) == {"front", "wrist"}


def test_without_success_the_limit_ends_the_episode(play):
    """A planner that gets nowhere is cancelled at the time limit, and the result says so."""
    graph, result, _, _ = play(reaches=False)
    assert not result.success and result.time_to_goal_s is None and result.reason == "timed_out"
    assert 6.0 <= result.duration_s < 6.5 and graph.ended == [Pursue.Result.CANCELLED]


def test_a_planner_that_gives_up_ends_the_episode_with_its_words(play):
    """The typed reason and the planner's sentence are in the result, soon after it gave up."""
    _, result, _, _ = play(reaches=False, gives_up_after_s=1.0)
    assert not result.success and result.reason == "unreachable: said the planner" and result.duration_s < 3.0


def test_object_goals_are_asked_for_as_such(play):
    """push_object_goal tells the planner that the arm in the goal images does not matter."""
    graph, *_ = play(task="push_object_goal")
    assert graph.goals[0].object_only


@pytest.mark.parametrize(("asked", "told"), [("told", list(BOX)), ("untold", [])])
def test_the_planner_is_told_of_a_keep_out_or_is_not(play, asked, told):
    """The goal brings the scene's box, or nothing; either way the judge's count of the times the arm came into it is kept."""
    graph, result, _, _ = play(asked=asked, keep_out=BOX)
    assert list(graph.goals[0].keep_outs) == told and result.keep_outs_entered == 2


def test_without_a_keep_out_none_is_counted_and_one_that_is_missing_is_told(play):
    """Nothing to come into is no 0; a simulator that puts no box where one is asked for is no run with keep-outs."""
    assert play()[1].keep_outs_entered is None
    with pytest.raises(GraphError, match="0 keep-outs, asked for was 'told'"):
        play(asked="told")


@pytest.mark.parametrize(("keep_out", "put"), [("told", True), ("untold", True), ("none", None)])
def test_the_graph_of_a_run_with_keep_outs_puts_them(keep_out, put):
    """The runner starts the graph with arguments that it knows, and the simulator has a keep-out in each scene or none."""
    command = run_episodes._graph_command(EvaluateConfig(ros=True, keep_out=keep_out))
    arguments = Arguments(**dict(word.split(":=", 1) for word in command if ":=" in word))
    (simulator,) = (process for process in graph("sim", arguments).processes if process.executable == "sim")
    assert dict(simulator.parameters).get("keep_out") is put


def test_a_refused_scene_and_a_dying_graph_give_one_line(play):
    """What went wrong is a GraphError with a sentence, not silence."""
    with pytest.raises(GraphError, match="refused the scene: no such task"):
        play(refuses=True)
    with pytest.raises(GraphError, match="sim was killed"):
        play(dies=True)


@pytest.mark.parametrize(("task", "others"), [("pick", False), ("push", False), ("clutter", True), ("push_among", True)])
def test_objects_lie_beside_the_cube_where_a_task_needs_them(task: str, others: bool):
    """The simulator is started with them; else the graph is as ever."""
    command = run_episodes._graph_command(EvaluateConfig(task=("reach", task), ros=True))
    assert ("others:=2" in command) == others and len(command) == 6 + others


def test_a_task_for_the_gripper_needs_a_model_that_moves_it(checkpoint, tmp_path, capsys):
    """One line with the model's actions and what to do, before anything starts."""
    words = ["--task", "pick", "--ros", "--checkpoint", str(checkpoint), "--report", str(tmp_path / "report")]
    assert run_episodes.main(words) == 2
    told = capsys.readouterr().err
    assert "--task pick needs a model that moves the gripper" in told and len(told.splitlines()) == 1
    assert not (tmp_path / "report").exists()


def test_the_log_gives_the_reason_of_a_graph_that_ended(tmp_path):
    """The last error is quoted without the logger's prefixes."""
    log = tmp_path / "graph.log"
    log.write_text("[sim]   hello\n[manager] [ERROR] [17.3] [manager]: Node 'sim': no GL library.\n[foresight]  stopped.\n")
    assert run_episodes._last_words(log) == "The graph ended: Node 'sim': no GL library."
    log.write_text("foresight up: Another Foresight runs already on domain 0.\n")
    assert "Another Foresight runs already on domain 0." in run_episodes._last_words(log)


@pytest.mark.parametrize("words", [["--policy", "actor", "--report", "x"], []])
def test_what_the_runner_cannot_do_is_refused_before_anything_starts(words, capsys):
    """Another policy than the shipped planner's, or no folder for the report: one line and code 2."""
    assert run_episodes.main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
