"""Runs episodes through the ROS graph in real time and writes their report, seeing the graph as any user does.

    foresight evaluate --ros --task push --episodes 30         (or: python -m foresight_nodes.run_episodes --help)

Starts `foresight_bringup.up sim`, and for each episode asks the simulator for a scene, sends its goal images to `pursue`, and
takes the judge's word from `sim_state`. Frames are kept while an episode runs and encoded after it, so that recording does not
disturb what is measured. Knows nothing of the true state but what the judge says.
"""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import tyro
from foresight_bringup.graph import enclave
from foresight_bringup.processes import Child, ending_with_parent, stop
from foresight_msgs.action import Pursue
from foresight_msgs.msg import Belief, GuardState, Plan, SimState
from foresight_msgs.srv import ResetSimulation
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from foresight.command_line import interrupt_on_sigterm
from foresight.evaluation.config import AMONG, EvaluateConfig, KeepOutName, check_gripping
from foresight.evaluation.report import SLOW, write_report
from foresight.evaluation.results import EpisodeResult, Report, summarise
from foresight.evaluation.table import LiveTable
from foresight.evaluation.video import EpisodeVideo, episode_line, imagined_pictures
from foresight.files import write_atomically
from foresight_nodes import convert, topics
from foresight_nodes.run import leave, make_executor

START_TIMEOUT_S = 120.0  # [s] real time for the graph to become active
ANSWER_TIMEOUT_S = 10.0  # [s] real time for a service or an action server to answer
GUARD_AGAIN_S = 0.1  # [s] between two requests to the guard to start afresh
ASK_AGAIN_S = 3.0  # [s] real time without an answer after which a service is asked again
SILENCE_S = 5.0  # [s] real time without the simulator's state after which the run is given up
SETTLE_S = 0.8  # [s] simulated, for the judge to see the arm at rest after the planner is done
FRAME_S = 0.1  # [s] between two frames of a video
EVERY_ONE = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE)  # measured, so none may be lost


class GraphError(RuntimeError):
    """The graph did not start, ended, or does not answer; the message is one line."""


@dataclass
class Heard:
    """What one episode heard from the graph."""

    plans: list[Plan] = field(default_factory=list)
    surprise: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    frames: list[tuple[dict[str, np.ndarray], SimState, Plan | None]] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)


class Runner(Node):
    """Sees the graph from outside. `spin` is the only place where it waits."""

    def __init__(self, check: Callable[[], None], cameras: tuple[str, ...]) -> None:
        super().__init__("episode_runner")
        self._check = check  # raises when waiting makes no sense any more
        self._executor = make_executor()
        self._executor.add_node(self)
        self.state: SimState | None = None
        self.guard: GuardState | None = None
        self.heard, self.since_s = Heard(), math.inf  # nothing is kept before the first reset
        self._state_real_s, self._frames, self._next_frame_s = time.monotonic(), {}, 0.0
        self.reset_client = self.create_client(ResetSimulation, "sim/reset")
        self.guard_reset_client = self.create_client(Trigger, "guard/reset")
        self.active_client = self.create_client(Trigger, "lifecycle_manager/is_active")
        self.pursue_client = ActionClient(self, Pursue, "pursue")
        self.create_subscription(SimState, topics.SIM_STATE.name, self._on_state, EVERY_ONE)
        topics.GUARD_STATE.subscription(self, lambda msg: setattr(self, "guard", msg))
        self.create_subscription(Plan, topics.PLAN.name, self._on_plan, EVERY_ONE)
        self.create_subscription(Belief, topics.BELIEF.name, self._on_belief, EVERY_ONE)
        for camera in cameras:
            topics.image(camera).subscription(self, lambda msg, camera=camera: self._on_image(camera, msg))
        self._cameras = cameras

    # -- waiting ------------------------------------------------------------------------------------------------------

    def spin(self, until: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Serves messages until the condition holds. Raises GraphError when that takes longer than `timeout_s` of real time."""
        end_s = time.monotonic() + timeout_s
        while not until():
            self._check()
            if time.monotonic() > end_s:
                raise GraphError(f"{what} did not answer within {timeout_s:.0f} s.")
            self._executor.spin_once(timeout_sec=0.05)

    def call(self, client: Any, request: Any, what: str) -> Any:
        """A service's answer. Asks again after a while: an answer is lost when the server has not yet seen its client."""
        self.spin(client.service_is_ready, ANSWER_TIMEOUT_S, what)
        asked = [client.call_async(request)]

        def answered() -> bool:
            if time.monotonic() > begin_s + ASK_AGAIN_S * len(asked):
                asked.append(client.call_async(request))
            return any(call.done() for call in asked)

        begin_s = time.monotonic()
        self.spin(answered, ANSWER_TIMEOUT_S, what)
        return next(call for call in asked if call.done()).result()

    def wait(self, future: Future, what: str, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        self.spin(future.done, timeout_s, what)
        return future.result()

    def wait_until_active(self) -> None:
        """Returns once the lifecycle manager says that every node is active."""
        end_s = time.monotonic() + START_TIMEOUT_S
        while True:
            self.spin(self.active_client.service_is_ready, max(0.1, end_s - time.monotonic()), "The lifecycle manager")
            if self.call(self.active_client, Trigger.Request(), "The lifecycle manager").success:
                return
            if time.monotonic() > end_s:
                raise GraphError(f"The graph did not become active within {START_TIMEOUT_S:.0f} s.")
            for _ in range(4):
                self._check()
                self._executor.spin_once(timeout_sec=0.05)

    def silent(self) -> bool:
        return time.monotonic() - self._state_real_s > SILENCE_S

    # -- what the graph says ------------------------------------------------------------------------------------------

    def begin(self, since_s: float) -> None:
        """Keeps what was captured or decided after that moment of the graph's clock, and forgets the rest."""
        self.heard, self.since_s, self.state = Heard(), since_s, None
        self._frames, self._next_frame_s, self._state_real_s = {}, since_s, time.monotonic()

    def _on_state(self, msg: SimState) -> None:
        if convert.seconds(msg.header.stamp) <= self.since_s:
            return
        self.state, self._state_real_s = msg, time.monotonic()
        self.heard.factors.append(msg.real_time_factor)
        latency_s = msg.camera_to_command_s
        if math.isfinite(latency_s) and (not self.heard.latency_s or latency_s != self.heard.latency_s[-1]):
            self.heard.latency_s.append(latency_s)

    def _on_plan(self, msg: Plan) -> None:
        if convert.seconds(msg.header.stamp) > self.since_s:
            self.heard.plans.append(msg)

    def _on_belief(self, msg: Belief) -> None:
        if convert.seconds(msg.header.stamp) > self.since_s:
            self.heard.surprise.append(msg.surprise)

    def _on_image(self, camera: str, msg: Image) -> None:
        stamp_s = convert.seconds(msg.header.stamp)
        if stamp_s < self._next_frame_s - 1e-3:
            return
        self._frames[camera] = convert.image_from_msg(msg)
        if len(self._frames) == len(self._cameras) and self.state is not None:
            self.heard.frames.append((dict(self._frames), self.state, self.heard.plans[-1] if self.heard.plans else None))
            self._frames.clear()
            self._next_frame_s = max(self._next_frame_s + FRAME_S, stamp_s)

    def _at_hand(self) -> bool:
        """Whether the guard has brought the controller to where the arm is, so that plans may begin."""
        if self.guard is None or not self.guard.in_force:
            return False
        return convert.seconds(self.guard.in_force_until) <= convert.seconds(self.guard.header.stamp)

    # -- one episode --------------------------------------------------------------------------------------------------

    def episode(
        self, task: str, seed: int, shift: str, status: Callable[[str], None], keep_out: KeepOutName = "none"
    ) -> tuple[EpisodeResult, Heard, dict[str, np.ndarray]]:
        """Reset, pursue, and listen until the judge says success, the time is over, or the planner has given up.

        `keep_out`: whether the goal tells of the keep-out on its way; "none" where there is none.
        """
        scene = self.call(self.reset_client, ResetSimulation.Request(task=task, seed=seed, shift=shift), "The simulator")
        if not scene.ok:
            raise GraphError(f"The simulator refused the scene: {scene.message}")
        if (len(scene.keep_out) > 0) != (keep_out != "none"):
            raise GraphError(f"The simulator's scene has {len(scene.keep_out) // 6} keep-outs, asked for was '{keep_out}'.")
        self.begin(convert.seconds(scene.stamp))
        # By then the guard has heard where the arm now is; a leap that it saw after the reset would latch.
        self.spin(lambda: len(self.heard.surprise) >= 2, ANSWER_TIMEOUT_S, "The world model (no beliefs of the new scene)")
        until_s = time.monotonic() + ANSWER_TIMEOUT_S
        while not (answer := self.call(self.guard_reset_client, Trigger.Request(), "The guard")).success:
            if time.monotonic() > until_s:  # it waits for the last motion of the episode before to end
                raise GraphError(f"The guard refused to start afresh: {answer.message}")
            again_s = time.monotonic() + GUARD_AGAIN_S
            self.spin(lambda until_s=again_s: time.monotonic() > until_s, ANSWER_TIMEOUT_S, "The guard")
        self.guard, until_s = None, time.monotonic() + ANSWER_TIMEOUT_S
        self.spin(lambda: self._at_hand() or time.monotonic() > until_s, 2 * ANSWER_TIMEOUT_S, "The guard")
        self.spin(self.pursue_client.server_is_ready, ANSWER_TIMEOUT_S, "The planner")
        goal = Pursue.Goal(
            goal_images=scene.goal_images,
            object_only=task == "push_object_goal",
            keep_outs=scene.keep_out if keep_out == "told" else [],
            time_limit_s=scene.time_limit_s,
        )
        handle = self.wait(self.pursue_client.send_goal_async(goal), "The planner")
        start_s = self.state.elapsed_s
        if not handle.accepted:
            raise GraphError("The planner rejected the goal; its log says why.")
        before = len(self.heard.surprise)  # beliefs until now span the reset, which no model foresees
        result = handle.get_result_async()
        pursued_s, over_s = self._follow(result, start_s, scene.time_limit_s, lambda s: status(_status(task, s, start_s)))
        if not result.done():
            self.wait(handle.cancel_goal_async(), "The planner")
        outcome = self.wait(result, "The planner").result
        state, heard = self.state, self.heard
        goal_images = {image.header.frame_id: convert.image_from_msg(image) for image in scene.goal_images}
        episode = EpisodeResult(
            task=task,
            seed=seed,
            shift=shift,
            policy="both",
            success=state.success,
            time_to_goal_s=over_s if state.success else None,
            final_distance_m=state.distance,
            violations=state.violations,
            violation_detail=state.violation_detail,
            steps=len(heard.plans),
            duration_s=over_s,
            pursued_s=pursued_s,
            reason=_reason(state, outcome),
            planning_ms=tuple(1e3 * p.planning_s for p in heard.plans),
            camera_to_command_ms=tuple(1e3 * s for s in heard.latency_s),
            surprise=tuple(heard.surprise[before:]),
            real_time=_real_time(heard),
            keep_outs_entered=None if keep_out == "none" else state.entered,
        )
        return episode, heard, goal_images

    def _follow(self, result: Future, start_s: float, limit_s: float, status: Callable[[SimState], None]) -> tuple[float, float]:
        """Listens to the end of the episode; how long the planner pursued, and how long the episode took [s simulated]."""
        done_s: float | None = None
        shown_s = 0.0
        while True:
            self._check()
            self._executor.spin_once(timeout_sec=0.05)
            elapsed_s = self.state.elapsed_s - start_s
            if done_s is None and result.done():
                done_s = elapsed_s
            if self.state.success or elapsed_s > limit_s or (done_s is not None and elapsed_s > done_s + SETTLE_S):
                return (elapsed_s if done_s is None else done_s), elapsed_s
            if self.silent():
                raise GraphError(f"The simulator has been silent for {SILENCE_S:.0f} s.")
            if time.monotonic() - shown_s > 0.25:
                status(self.state)
                shown_s = time.monotonic()

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self.destroy_node()


def run(config: EvaluateConfig) -> Report:
    """The whole evaluation; report.json, report.html and videos lie in `config.report` afterwards."""
    from foresight.world_model.checkpoint import load

    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: interrupted.append(received))
    model = load(config.checkpoint)  # to show what was imagined, and to refuse a bad checkpoint before anything starts
    check_gripping(config.task, lambda: model.contract.moves_gripper)
    folder = config.report
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "graph.log"
    episodes: list[EpisodeResult] = []
    slow = False  # an episode was, and that was said
    planned = {(task, "both"): config.episodes for task in config.task} | {
        (task, "random"): config.random_floor for task in config.task if config.random_floor
    }
    with open(log, "w") as out:
        graph = Child(
            "the graph",
            subprocess.Popen(
                ending_with_parent(_graph_command(config)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ),
        )

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt
        if graph.process.poll() is not None:
            raise GraphError(f"{_last_words(log)} The whole log: {log.name} in the report's folder.")

    rclpy.init(args=["--ros-args", "--enclave", enclave("", "operator")], signal_handler_options=SignalHandlerOptions.NO)
    runner = Runner(check, tuple(camera.name for camera in model.contract.cameras))
    try:
        with LiveTable(planned, title=f"through the ROS graph, seed {config.seed}, shift {config.shift}") as table:
            table.status("starting the graph")
            runner.wait_until_active()
            for task in config.task:
                for index in range(config.episodes):
                    label = f"{task} {index + 1}/{config.episodes}: "
                    result, heard, goal_images = runner.episode(
                        task,
                        config.episode_seed(index),
                        config.shift,
                        lambda line, label=label: table.status(label + line),
                        config.keep_out,
                    )
                    name = f"{task}_{index:03d}.mp4"
                    if index < config.videos or not result.success:
                        table.status(label + "writing the video")
                        _record(folder / "videos" / name, heard, goal_images, model, check)
                        result = replace(result, video=f"videos/{name}")
                    episodes.append(result)
                    table.add(result)
                    slow = slow or _warn_if_slow(heard, label, table)
            table.status("stopping the graph")
            runner.close()
            stop([graph], pump=lambda: time.sleep(0.05))
            episodes += _random_floor(config, table)
    except KeyboardInterrupt:
        if not episodes:
            raise KeyboardInterrupt("No episode was done; there is no report.") from None
    finally:
        stop([graph], pump=lambda: time.sleep(0.05))
    report = summarise(
        episodes,
        policy="both",
        seed=config.seed,
        shift=config.shift,
        keep_out=config.keep_out,
        model_id=model.model_id,
        through="ros",
        interrupted=len(episodes) < sum(planned.values()),
    )
    write_report(folder, report, episodes, config.checkpoint)
    return report


def _graph_command(config: EvaluateConfig) -> list[str]:
    """What starts the graph that the episodes run in."""
    command = [sys.executable, "-m", "foresight_bringup.up", "sim", f"robot:={config.robot}", f"checkpoint:={config.checkpoint}"]
    command += ["keep_out:=true"] if config.keep_out != "none" else []
    return [*command, "others:=2"] if {*AMONG} & {*config.task} else command


def _random_floor(config: EvaluateConfig, table: LiveTable) -> list[EpisodeResult]:
    """The random policy on the same scenes, in process: it needs no graph to miss its goals."""
    from sim.episodes import random_floor

    table.status("the random policy, for comparison")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt_on_sigterm()
    return random_floor(config, table.add)


def _record(path: Path, heard: Heard, goal_images: dict[str, np.ndarray], model: Any, check: Callable[[], None]) -> None:
    shown = -1
    with EpisodeVideo(path, goal_images, round(1 / FRAME_S)) as video:
        for images, state, message in heard.frames:
            check()
            plan = convert.plan_from_msg(message) if message else None
            imagined = imagined_pictures(model, plan) if plan is not None and message.id != shown else None
            shown = message.id if message else shown
            ahead_s = len(plan.tip_velocity) * plan.dt_s if plan is not None else 0.0
            video.add(
                images,
                imagined,
                episode_line(state.task, state.elapsed_s, state.distance, plan, state.success),
                ahead_s,
                state.success,
            )


def _status(task: str, state: SimState, start_s: float) -> str:
    what = "tip" if task == "reach" else "cube"
    return f"{state.elapsed_s - start_s:.1f} of {state.time_limit_s:.0f} s, {what} {100 * state.distance:.1f} cm from its goal"


def _real_time(heard: Heard) -> float | None:
    """Seconds simulated in a second, on average."""
    factors = [f for f in heard.factors if math.isfinite(f) and f > 0]
    return round(float(np.mean(factors)), 3) if factors else None


def _warn_if_slow(heard: Heard, label: str, table: LiveTable) -> bool:
    """Whether it was; for the first such episode, as the report counts them all."""
    factor = _real_time(heard)
    if factor is None or factor >= SLOW:
        return False
    table.note(
        f"{label}the simulation ran at {factor:.2f} of real time: the cores are too slow, or other programs take them. "
        "Latencies are not comparable. The report counts further such episodes."
    )
    return True


def _reason(state: SimState, outcome: Pursue.Result) -> str:
    """How it ended, in the planner's words, and the judge's where they differ."""
    said = topics.ending(outcome)
    if state.success:
        return "reached"
    if outcome.reason == Pursue.Result.REACHED:
        return "the planner said reached, the judge did not"
    return "timed_out" if outcome.reason == Pursue.Result.CANCELLED else f"{said}: {outcome.detail}" if outcome.detail else said


def _last_words(log: Path) -> str:
    """The last error in the graph's log without the logger's prefix, else the last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\[(ERROR|FATAL)\]|foresight up: |Error: ", line)]
    words = re.sub(r"^(\[[^\]]*\]\s*)+:?\s*", "", (errors or lines or ["it said nothing"])[-1])
    return f"The graph ended: {words.rstrip('.')}."


def main(words: list[str] | None = None) -> int:
    config = tyro.cli(EvaluateConfig, prog="run_episodes", args=words)
    if config.policy != "both":
        print(
            f"foresight: --ros runs the planner as shipped, --policy both; got {config.policy}. Leave --ros out to compare "
            "policies.",
            file=sys.stderr,
        )
        return 2
    if config.report is None:
        print("foresight: run_episodes needs --report FOLDER.", file=sys.stderr)
        return 2
    try:
        report = run(config)
        if config.json:
            write_atomically(config.json, json.dumps(report.to_json(), indent=2) + "\n")
        if report.interrupted:
            raise KeyboardInterrupt(f"What was done until then stands in {config.report / 'report.html'}")
    except KeyboardInterrupt as interruption:
        print(f"\nforesight: interrupted; the arm is at rest and the graph has ended. {interruption}", file=sys.stderr)
        return 130
    except (GraphError, RuntimeError, OSError, ValueError) as error:
        print(f"foresight: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"Written: {config.report / 'report.html'}")
    return 0


if __name__ == "__main__":
    leave(main())
