"""`foresight pursue` gives a goal as the action takes it, tells how it goes and how it ended, and cancels on Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from foresight_msgs.action import Pursue
from foresight_nodes import convert
from foresight_nodes import pursue as command
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

PATIENCE_S = 60.0


class Planner:
    """Answers goals as told: feedback at each turn, and an end after so many of them."""

    def __init__(self, end: int = Pursue.Result.REACHED, turns: int = 5, accepts: bool = True, namespace: str = "") -> None:
        self.end, self.turns, self.goals, self.handle = end, turns, [], None
        self.node, self.executor = Node("planner", namespace=namespace), SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.server = ActionServer(
            self.node, Pursue, "pursue", lambda handle: Pursue.Result(), handle_accepted_callback=self.on_goal,
            goal_callback=lambda goal: GoalResponse.ACCEPT if accepts else GoalResponse.REJECT,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
        )  # fmt: skip

    def on_goal(self, handle) -> None:
        self.goals.append(handle.request)
        self.handle = handle

    def turn(self) -> None:
        self.executor.spin_once(timeout_sec=0.05)
        if self.handle is None:
            return
        self.turns -= 1
        self.handle.publish_feedback(
            Pursue.Feedback(cost_names=["tip"], costs=[0.25], distance_s=1.5, planning_s=0.045, source="actor", elapsed_s=0.7)
        )
        if self.handle.is_cancel_requested:
            self.conclude(Pursue.Result.CANCELLED)
        elif self.turns <= 0:
            self.conclude(self.end)

    def conclude(self, reason: int) -> None:
        handle, self.handle = self.handle, None

        def end(handle):
            handle.canceled() if handle.is_cancel_requested else handle.succeed() if reason == 0 else handle.abort()
            return Pursue.Result(success=reason == 0, reason=reason, detail="Said the planner.", plans=7, elapsed_s=2.5)

        handle.execute(end)

    def serve(self, words: list[str], interrupt: bool = False) -> subprocess.CompletedProcess:
        """The command, served until it has ended; with `interrupt` it gets SIGINT once its goal is pursued."""
        process = subprocess.Popen(
            [sys.executable, "-m", "foresight_nodes.pursue", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        end_s = time.monotonic() + PATIENCE_S
        while process.poll() is None:
            self.turn()
            if interrupt and self.handle is not None:
                process.send_signal(signal.SIGINT)
                interrupt = False
            if time.monotonic() > end_s:
                process.kill()
                pytest.fail("the command does not end")
        out, err = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def vanish(self) -> None:
        """Nobody serves the action any more, as if the process had died: a spin that is not at its end would hold on to it."""
        self.executor.shutdown()
        if self.server is not None:
            self.server.destroy()
        self.server = None

    def close(self) -> None:
        self.vanish()
        self.node.destroy_node()


@pytest.fixture
def planner(request: pytest.FixtureRequest) -> Iterator[Planner]:
    planner = Planner(**getattr(request, "param", {}))
    yield planner
    planner.close()


def test_a_goal_is_reached_and_told(planner: Planner, tmp_path: Path):
    """Tip, object and pictures arrive as given; feedback and the typed end are printed, code 0."""
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "front.png"), picture[..., ::-1])
    words = ["--tip", "0.45", "-0.1", "0.15", "--object", "0.5", "0", "0.02", "--image", f"front={tmp_path / 'front.png'}"]
    words += ["--yaw-deg", "30", "--opening", "0", "--contact", "False"]
    words += ["--keep-out", "0.4", "-0.05", "0", "0.5", "0.05", "0.2", "--tip-speed", "0.1", "--objective", "to_go + 0.1*effort"]
    ended = planner.serve([*words, "--time-limit-s", "9"])
    assert ended.returncode == 0, ended.stderr
    assert "about 1.5 s to go, cost tip 0.25, planned in 45 ms (actor)" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "reached after 2.5 s, 7 plans: Said the planner."
    (goal,) = planner.goals
    assert goal.use_tip and goal.use_object and goal.time_limit_s == 9 and not goal.object_only
    np.testing.assert_allclose(convert.xyz(goal.tip.position), [0.45, -0.1, 0.15])
    np.testing.assert_allclose(convert.xyz(goal.object), [0.5, 0, 0.02])
    assert goal.use_yaw and goal.use_opening and goal.use_contact
    np.testing.assert_allclose([goal.yaw, goal.opening, goal.contact], [np.pi / 6, 0.0, False])
    np.testing.assert_allclose(goal.keep_outs, [0.4, -0.05, 0, 0.5, 0.05, 0.2])
    assert goal.tip_speed_max == 0.1 and goal.objective == "to_go + 0.1*effort"
    (image,) = goal.goal_images
    assert image.header.frame_id == "front" and (convert.image_from_msg(image) == picture).all()


@pytest.mark.parametrize("planner", [{"end": Pursue.Result.UNREACHABLE}], indirect=True)
def test_another_end_is_told_by_its_reason(planner: Planner):
    """Code 1, with the word and the planner's sentence."""
    ended = planner.serve(["--tip", "0.45", "0.1", "0.15"])
    assert ended.returncode == 1 and ended.stdout.splitlines()[-1].startswith("unreachable after 2.5 s, 7 plans: Said")


@pytest.mark.parametrize("planner", [{"turns": 10**6}], indirect=True)
def test_ctrl_c_cancels_the_goal(planner: Planner):
    """The planner is asked to give it up, and the command ends with its answer and code 130."""
    ended = planner.serve(["--tip", "0.45", "0.1", "0.15"], interrupt=True)
    assert ended.returncode == 130 and ended.stdout.splitlines()[-1].startswith("cancelled after") and ended.stderr == ""


@pytest.mark.parametrize("planner", [{"accepts": False}], indirect=True)
def test_a_planner_that_is_not_active_is_told(planner: Planner):
    """A rejected goal gets one line and code 2."""
    ended = planner.serve(["--tip", "0.45", "0.1", "0.15"])
    assert ended.returncode == 2 and "takes no goals now" in ended.stderr and len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("planner", [{"turns": 10**6}], indirect=True)
def test_a_planner_that_falls_silent_is_given_up(planner: Planner, monkeypatch: pytest.MonkeyPatch):
    """It may have died: nobody waits for ever."""
    monkeypatch.setattr(command, "SILENT_S", 0.5)
    monkeypatch.setattr(command, "PATIENCE_S", 3.0)
    node, goal = Node("asking"), command.PursueConfig(tip=(0.45, 0.1, 0.15)).goal()

    def serve() -> None:
        while not planner.goals:
            planner.turn()
        for _ in range(5):  # its answer goes out, then it is silent
            planner.executor.spin_once(timeout_sec=0.1)

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        with pytest.raises(command.PursueError, match="has said nothing for"):
            command.pursue(node, goal, lambda feedback: None, lambda: False)
    finally:
        serving.join()
        node.destroy_node()


@pytest.mark.parametrize("planner", [{"turns": 10**6, "namespace": "ended"}], indirect=True)
def test_a_planner_that_has_ended_is_told_at_once(planner: Planner):
    """And that its goal is lost with it; nobody waits for its silence to last. Apart from what other tests have left behind."""
    node, goal, heard = Node("asking", namespace="ended"), command.PursueConfig(tip=(0.45, 0.1, 0.15)).goal(), threading.Event()

    def serve() -> None:
        while not heard.is_set():
            planner.turn()
        planner.vanish()

    serving, begin_s = threading.Thread(target=serve), time.monotonic()
    serving.start()
    try:
        with pytest.raises(command.PursueError, match=r"has ended.*give it again"):
            command.pursue(node, goal, lambda feedback: heard.set(), lambda: False)
        assert time.monotonic() - begin_s < command.SILENT_S
    finally:
        heard.set()
        serving.join()
        node.destroy_node()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "What should be pursued? Give --tip X Y Z"),
        (["--tip", "0.4", "nan", "0.1"], "--tip must be three finite numbers"),
        (["--tip", "0.4", "0.1"], "--tip"),
        (
            ["--tip", "0.4", "0.1", "0.1", "--time-limit-s", "1e99"],
            "--time-limit-s must be above 0 and at most 3600 s, got 1e+99",
        ),
        (["--tip", "0.4", "0.1", "0.1", "--namespace", "bad name!"], "Namespace 'bad name!' is none"),
        (["--object", "0.4", "0.1", "0.1", "--object-only"], "--object-only is about pictures"),
        (["--object", "0.4", "0.1", "0.1", "--yaw-deg", "nan"], "--yaw-deg must be a finite angle"),
        (["--tip", "0.4", "0.1", "0.1", "--opening", "1.5"], "--opening must lie between 0 (closed) and 1 (open), got 1.5"),
        (["--tip", "0.4", "0.1", "0.1", "--keep-out", "0.4", "0.1", "0"], "--keep-out: Keep-outs need 6 numbers a box"),
        (["--tip", "0.4", "0.1", "0.1", "--tip-speed", "0"], "--tip-speed must be finite and at least 0.001 m/s, got 0"),
        (["--yaw-deg", "10"], "What should be pursued? Give --tip"),
        (["--image", "front"], "--image takes CAMERA=FILE, got 'front'"),
        (["--image", "front=nowhere.png"], "there is no file nowhere.png for camera 'front'"),
        (["--image", "front=a.png", "front=b.png"], "--image names a camera twice"),
        (["--image", f"front={__file__}"], "is no picture that OpenCV reads"),
    ],
)
def test_what_cannot_be_pursued_is_said_in_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture):
    """Before anything of ROS starts."""
    assert command.main(words) == 2
    told = capsys.readouterr().err
    assert says in told and len(told.splitlines()) == 1


def test_without_a_graph_it_says_how_to_start_one():
    """Nobody offers the action: one line after a few seconds, code 2."""
    command_line = [sys.executable, "-m", "foresight_nodes.pursue", "--tip", "0.4", "0.1", "0.1", "--namespace", "nobody"]
    ended = subprocess.run(command_line, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 2 and "foresight up sim" in ended.stderr and len(ended.stderr.splitlines()) == 1
