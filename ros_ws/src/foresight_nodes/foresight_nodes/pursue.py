"""Gives a goal to a running graph and tells how it goes, where the `ros2` command is missing.

    foresight pursue --tip 0.45 0.1 0.15        (or: python -m foresight_nodes.pursue --help)

Ctrl-C cancels the goal. Exit codes: 0 reached, 1 ended otherwise, 2 bad input or no graph, 130 cancelled by Ctrl-C or SIGTERM.
Knows the action `pursue` and nothing of who serves it.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rclpy
from foresight_bringup.graph import enclave, namespace_of
from foresight_msgs.action import Pursue
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from foresight.command_line import InputError, parse
from foresight.data import SLOWEST
from foresight.safety.obstacles import boxes_of
from foresight_nodes import convert, topics
from foresight_nodes.run import leave

PATIENCE_S = 15.0  # [s] real time for the planner to be found, and for each of its answers; discovery may take 4, or more
SILENT_S = 10.0  # [s] real time without feedback after which the goal is given up: the planner may have ended
GONE_S = 1.0  # [s] real time for which nobody serves the action any more, until the planner counts as ended
AGAIN = "Its goal is lost with it: give it again once `foresight up` says that the graph is active."
TELL_S = 1.0  # [s] between two lines of feedback where there is no terminal to write on one


class PursueError(RuntimeError):
    """The goal cannot be given, or nobody answers; the message is one line."""


@dataclass(frozen=True)
class PursueConfig:
    """What is wanted: one of these, or several at once. Positions are in the base frame."""

    tip: tuple[float, float, float] | None = None
    """X Y Z [m] where the tip should be."""
    object: tuple[float, float, float] | None = None
    """X Y Z [m] where the object should be."""
    image: tuple[str, ...] = ()
    """CAMERA=FILE for each camera of the model: pictures of the scene as wanted, in the size that the camera delivers."""
    object_only: bool = False
    """The pictures are about the object; the arm may end anywhere."""
    yaw_deg: float | None = None
    """[deg] about the vertical by which the object should be turned, up to quarter turns; with --object or --image."""
    opening: float | None = None
    """How far the gripper should be open, 0 closed, 1 open; with --tip, --object or --image."""
    contact: bool | None = None
    """Whether the hand should touch the object; with --tip, --object or --image."""
    keep_out: tuple[float, ...] = ()
    """Boxes [m] that the arm stays out of besides the guard's own: X Y Z of the lowest corner, then of the highest, for each."""
    tip_speed: float | None = None
    """[m/s] that the tip keeps to, where that is less than the robot may go."""
    objective: str = ""
    """How motions are judged, as the planner's parameter `planner.objective`; by default as that says."""
    time_limit_s: float = 20.0
    """[s] on the graph's clock after which the goal is given up."""
    namespace: str = ""
    """Namespace of the graph."""

    def __post_init__(self) -> None:
        if self.tip is None and self.object is None and not self.image:
            raise ValueError("What should be pursued? Give --tip X Y Z, --object X Y Z, --image CAMERA=FILE, or several of them.")
        for name in ("tip", "object"):
            if not all(math.isfinite(value) for value in getattr(self, name) or ()):
                raise ValueError(f"--{name} must be three finite numbers in metres, got {getattr(self, name)}.")
        if self.yaw_deg is not None and not math.isfinite(self.yaw_deg):
            raise ValueError(f"--yaw-deg must be a finite angle in degrees, got {self.yaw_deg}.")
        if self.opening is not None and not 0 <= self.opening <= 1:
            raise ValueError(f"--opening must lie between 0 (closed) and 1 (open), got {self.opening}.")
        try:
            boxes_of(self.keep_out)
        except ValueError as error:
            raise ValueError(f"--keep-out: {error}") from error
        if self.tip_speed is not None and not SLOWEST <= self.tip_speed < math.inf:
            raise ValueError(f"--tip-speed must be finite and at least {SLOWEST} m/s, got {self.tip_speed}.")
        if not 0 < self.time_limit_s <= 3600:
            raise ValueError(f"--time-limit-s must be above 0 and at most 3600 s, got {self.time_limit_s}.")
        if self.object_only and (not self.image or self.object is not None):
            raise ValueError("--object-only is about pictures: give --image with it, and no --object.")
        cameras = [word.partition("=")[0] for word in self.image]
        if len(set(cameras)) < len(cameras):
            raise ValueError(f"--image names a camera twice: {' '.join(cameras)}. Give one picture of each.")
        object.__setattr__(self, "namespace", namespace_of(self.namespace))

    def goal(self) -> Pursue.Goal:
        """As the action takes it. Raises InputError where a picture cannot be read."""
        goal = Pursue.Goal(object_only=self.object_only, time_limit_s=self.time_limit_s, objective=self.objective)
        goal.keep_outs, goal.tip_speed_max = list(self.keep_out), self.tip_speed or 0.0
        if self.tip is not None:
            goal.use_tip, goal.tip = True, convert.pose(np.array(self.tip), np.array([1.0, 0.0, 0.0, 0.0]))
        if self.object is not None:
            goal.use_object, goal.object = True, convert.point(np.array(self.object))
        if self.yaw_deg is not None:
            goal.use_yaw, goal.yaw = True, math.radians(self.yaw_deg)
        if self.opening is not None:
            goal.use_opening, goal.opening = True, float(self.opening)
        if self.contact is not None:
            goal.use_contact, goal.contact = True, self.contact
        goal.goal_images = [_picture(word) for word in self.image]
        return goal


def _picture(word: str) -> Image:
    import cv2

    camera, separator, file = word.partition("=")
    if not (camera and separator and file):
        raise InputError(f"--image takes CAMERA=FILE, got '{word}'. For example: front=wanted.png.")
    if not Path(file).is_file():
        raise InputError(f"--image: there is no file {file} for camera '{camera}'.")
    bgr = cv2.imread(file, cv2.IMREAD_COLOR)
    if bgr is None:
        raise InputError(f"--image: {file} is no picture that OpenCV reads. Give a .png or .jpg.")
    return convert.image_to_msg(np.ascontiguousarray(bgr[..., ::-1]), 0.0, camera)


def pursue(node: Node, goal: Pursue.Goal, say: Callable[[Pursue.Feedback], None], cancelled: Callable[[], bool]) -> Pursue.Result:
    """Gives the goal, tells feedback, and returns the result; cancels it once `cancelled`. Raises PursueError."""
    executor, client = SingleThreadedExecutor(), ActionClient(node, *reversed(topics.PURSUE))
    executor.add_node(node)
    heard_s = time.monotonic()

    def until(holds: Callable[[], bool], patience_s: float, otherwise: str) -> None:
        end_s = time.monotonic() + patience_s
        while not holds():
            if time.monotonic() > end_s:
                raise PursueError(otherwise)
            executor.spin_once(timeout_sec=0.05)

    def on_feedback(message) -> None:
        nonlocal heard_s
        heard_s = time.monotonic()
        say(message.feedback)

    try:
        missing = f"No planner is found within {PATIENCE_S:.0f} s. Does a graph run on this domain? Start one: foresight up sim."
        until(lambda: cancelled() or client.server_is_ready(), PATIENCE_S, missing)
        if cancelled():
            return Pursue.Result(reason=Pursue.Result.CANCELLED, detail="Interrupted before a planner was found.")
        asked = client.send_goal_async(goal, feedback_callback=on_feedback)
        until(asked.done, PATIENCE_S, f"The planner does not answer within {PATIENCE_S:.0f} s. See its log.")
        handle, heard_s = asked.result(), time.monotonic()
        if not handle.accepted:
            raise PursueError("The planner takes no goals now: it is not active. `foresight up` says why.")
        result, told, there_s = handle.get_result_async(), False, time.monotonic()
        while not result.done():
            executor.spin_once(timeout_sec=0.05)
            there_s = time.monotonic() if client.server_is_ready() else there_s
            if time.monotonic() - there_s > GONE_S:
                raise PursueError(f"The planner has ended, so the arm comes to rest. {AGAIN}")
            silent = time.monotonic() - heard_s > SILENT_S
            if (cancelled() or silent) and not told:
                told, end_s = True, time.monotonic() + PATIENCE_S
                handle.cancel_goal_async()
            if told and time.monotonic() > end_s:
                raise PursueError(
                    f"The planner has said nothing for {time.monotonic() - heard_s:.0f} s, and does not answer that the goal is "
                    f"cancelled. Without a planner the arm comes to rest. {AGAIN}"
                )
        return result.result().result
    finally:
        executor.shutdown()
        client.destroy()


@dataclass
class Line:
    """Feedback on one line of a terminal, or else as a line now and then."""

    terminal: bool
    said_s: float = -math.inf
    width: int = 0

    def __call__(self, feedback: Pursue.Feedback) -> None:
        text = told(feedback)
        if self.terminal:
            print("\r" + text.ljust(self.width), end="", flush=True)
            self.width = len(text)
        elif time.monotonic() - self.said_s > TELL_S:
            print(text, flush=True)
            self.said_s = time.monotonic()

    def end(self) -> None:
        if self.width:
            print()


def told(feedback: Pursue.Feedback) -> str:
    """How it goes, in a line."""
    costs = ", ".join(f"{name} {cost:.2f}" for name, cost in zip(feedback.cost_names, feedback.costs, strict=False))
    return (
        f"{feedback.elapsed_s:5.1f} s: about {feedback.distance_s:.1f} s to go, cost {costs or 'none'}, "
        f"planned in {1e3 * feedback.planning_s:.0f} ms ({feedback.source})"
    )


def main(words: list[str] | None = None) -> int:
    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: interrupted.append(received))
    try:
        about = "Gives a goal to a running graph and tells how it goes; Ctrl-C cancels it."
        config = parse(PursueConfig, "pursue", about, sys.argv[1:] if words is None else words)
        goal = config.goal()
        place = ["--ros-args", "--enclave", enclave(config.namespace, "operator")]
        rclpy.init(args=place, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node(f"foresight_pursue_{os.getpid()}", namespace=config.namespace or None)
        line = Line(sys.stdout.isatty())
        try:
            result = pursue(node, goal, line, lambda: bool(interrupted))
        finally:
            line.end()
            node.destroy_node()
    except (InputError, PursueError, ValueError) as error:
        print(f"foresight pursue: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{topics.ending(result)} after {result.elapsed_s:.1f} s, {result.plans} plans: {result.detail}", flush=True)
    return 130 if interrupted else 0 if result.success else 1


if __name__ == "__main__":
    leave(main())
