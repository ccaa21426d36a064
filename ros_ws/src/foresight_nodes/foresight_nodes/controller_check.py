"""Asks the arm's trajectory controller whether it starts each new trajectory from its own last command, as the guard assumes.

ros2_controllers' joint_trajectory_controller starts from the measured state unless a parameter says otherwise. A servo lags, so
each new trajectory would then begin with a step back that no check of the guard's has seen. Never blocks; decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

FROM_COMMAND = ("interpolate_from_desired_state", "open_loop_control")  # any true: from the command; the second in older releases
PATIENCE_S = 1.0  # [s] real time in which a controller that is there has answered
AGAIN_S = 1.0  # [s] real time after which one that has not answered is asked again


class ControllerCheck:
    """One controller's answer. Call `ask` now and then."""

    def __init__(self, node: Node, name: str, heard: Callable[[str], None]) -> None:
        """`heard` is called at each answer with what is wrong, if anything. The name is resolved like a
        topic's: in the node's namespace, unless it begins with a slash."""
        self.name, self.known, self._heard = name, False, heard
        self._began_s, self._asked_s = time.monotonic(), -AGAIN_S
        self.client: Client = node.create_client(GetParameters, f"{name}/get_parameters")
        self._found: dict[str, str] = {}  # parameter -> what the controller said of it

    def ask(self) -> None:
        """Asks a controller that is there until its answer is good: a wrong one may be started again with other parameters.

        One name a question: an unknown one spoils the whole answer.
        """
        now_s = time.monotonic()
        if (self.known and not self.wrong) or now_s < self._asked_s + AGAIN_S or not self.client.service_is_ready():
            return
        self._asked_s = now_s
        for parameter in FROM_COMMAND:
            call = self.client.call_async(GetParameters.Request(names=[parameter]))
            call.add_done_callback(lambda call, parameter=parameter: self._on_answer(parameter, call))

    def _on_answer(self, parameter: str, call: Future) -> None:
        if call.result() is None:
            return
        said = "unknown"
        for value in call.result().values:  # none, or one that is not set, where the parameter is unknown
            if value.type == ParameterType.PARAMETER_BOOL:
                said = str(value.bool_value).lower()
        self._found[parameter] = said
        if len(self._found) == len(FROM_COMMAND):
            self.known = True
            self._heard(self.wrong)

    @property
    def waiting(self) -> bool:
        """Whether an answer may still come soon."""
        return not self.known and time.monotonic() < self._began_s + PATIENCE_S

    @property
    def wrong(self) -> str:
        """Why the controller must not be commanded; empty while it is not known, and where it may."""
        if not self.known or "true" in self._found.values():
            return ""
        found = " and ".join(f"{name} is {said}" for name, said in self._found.items())
        return (
            f"Controller '{self.name}' starts each trajectory where the arm is measured ({found}); expected from its own last "
            f"command, else a lagging arm is jerked at each plan. Set {FROM_COMMAND[0]} to true in its parameters (older "
            f"releases: {FROM_COMMAND[1]}) and start it again; controller_node:='' asks no controller."
        )

    @property
    def summary(self) -> str:
        """For the diagnostics."""
        if not self.known:
            return f"{self.name} has not answered"
        return f"{self.name} starts trajectories from " + ("the measured state" if self.wrong else "its own command")
