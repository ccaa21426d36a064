"""The simulated arm as ROS sees a real one: joint states, camera images, a joint trajectory topic, and time that does not wait.

With `use_sim_time` it publishes /clock and stamps with simulated time. Without, it stamps with the wall clock; then it must run
at real time, and where the machine is too slow the world stands still for a moment instead of its stamps falling behind.
The node runs on a steady clock and owns one thread: physics, rendering and messages take turns.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from foresight_msgs.msg import GuardState, SimState
from foresight_msgs.srv import Inject, ResetSimulation, Step
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, Float64
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from foresight.evaluation.config import AMONG
from foresight.robots.profile import load_profile
from foresight.safety.watchdog import ClockWatch
from foresight_nodes import convert, topics
from foresight_nodes.diagnostics import Durations
from foresight_nodes.part import Part
from sim.controller import TrajectoryController
from sim.faults import Faults, fault
from sim.simulation import Scenario, Simulation

TICK_S = 0.004  # [s] real time between two turns
CATCH_UP_S = 0.01  # [s] simulated in one turn at most, so that a command that waits is served before time runs past it
BEHIND_S = ClockWatch.KEPT_S  # [s] of real time given up when the simulation is further behind: the guard would see a leap
BEHIND_WALL_S = 0.04  # [s] the same where it stamps with the wall clock: what is behind is taken to be old
SLOW = 0.95  # of the wanted real-time factor; below it the node complains
DEAF_S = 0.1  # [s] simulated after a change of scene: what is commanded so early was under way before it, and the guard latches
CLOCK_START_S = 1.0  # [s] simulated time of the start: a zero stamp means "now" to controllers
STATE_S, FRAME_S, CLOCK_S, TRUTH_S = 1 / 125, 1 / 30, 1 / 100, 1 / 30  # [s] simulated, between messages


@dataclass(frozen=True)
class SimParameters:
    """Parameters of the simulator node."""

    robot: str  # robot profile by name, or path of its YAML file
    controller_topic: str = ""  # where trajectories come from; empty: as the profile says
    program_running_topic: str = "io_and_status_controller/robot_program_running"  # these three as a UR's driver has them
    speed_scaling_topic: str = "speed_scaling_state_broadcaster/speed_scaling"  # [%]
    controller_active_topic: str = "controller_active"
    task: str = "reach"  # of the first episode: reach, push, push_object_goal, pick ... (sim.tasks has them all)
    others: int = 0  # objects that can lie beside the cube; push_among and clutter need 2, and get them as the first task
    seed: int = 0  # of the first episode
    shift: str = "none"  # of the first episode: none, colour or camera
    keep_out: bool = False  # each scene has a keep-out on the straight way to its goal, which nobody sees and the judge watches
    look: str = "fast"  # fast (no shadows) or full
    headless: bool = True  # false opens a window that shows the scene; needs a display
    real_time_factor: float = 1.0  # simulated over real time; other than 1 needs use_sim_time

    def __post_init__(self) -> None:
        if not 0 < self.real_time_factor <= 20:
            raise ValueError(f"real_time_factor must be above 0 and at most 20, got {self.real_time_factor}.")
        if not 0 <= self.others <= 2:
            raise ValueError(f"others must lie between 0 and 2, got {self.others}.")


class Every:
    """Says when the next message of a kind is due, in simulated time."""

    def __init__(self, period_s: float, now_s: float) -> None:
        self.period_s, self.next_s = period_s, now_s

    def due(self, now_s: float) -> bool:
        if now_s < self.next_s - 1e-6:
            return False
        self.next_s = max(self.next_s + self.period_s, now_s)
        return True


class SimNode(Part[SimParameters]):
    """JointTrajectory -> JointState, Image, CameraInfo, Clock; and SimState, which only judges read."""

    def __init__(self, **options) -> None:
        super().__init__("sim", SimParameters, **options)
        self._simulation: Simulation | None = None
        self._window = None
        self._latencies, self._factor = Durations(5000), float("nan")

    def configure(self, parameters: SimParameters) -> None:
        self._settings = parameters
        self._sim_time = self.get_parameter("use_sim_time").value
        if parameters.real_time_factor != 1.0 and not self._sim_time:
            raise ValueError(
                f"real_time_factor {parameters.real_time_factor} needs use_sim_time:=true on every node; "
                "with the wall clock it must be 1."
            )
        self._profile = load_profile(parameters.robot)
        self._others = 2 if parameters.task in AMONG else parameters.others
        self._simulation = Simulation(
            parameters.seed, self._profile, parameters.look, zone=parameters.keep_out, others=self._others
        )
        self._paused, self._factor, self._stalls = False, float("nan"), 0
        self._offset_s = CLOCK_START_S - self._simulation.time_s  # clock minus simulation time, but for faults
        self._faults, self._halted = Faults(np.random.default_rng(parameters.seed)), None
        self._reset(parameters.task, parameters.seed, parameters.shift)
        self._window = None if parameters.headless else _window(self._simulation)
        self._simulation.images()  # a missing GL library is told now, not in the middle of an episode
        self._joint_states, self._truth = topics.JOINT_STATES.publisher(self), topics.SIM_STATE.publisher(self)
        self._clock_publisher = topics.CLOCK.publisher(self) if self._sim_time else None
        self._cameras = {
            name: (topics.image(name).publisher(self), topics.camera_info(name).publisher(self))
            for name in self._simulation.cameras
        }
        topics.trajectory(parameters.controller_topic or self._profile.controller_topic).subscription(self, self._on_trajectory)
        if self._profile.gripper is not None:
            topics.trajectory(self._profile.gripper.controller_topic).subscription(self, self._on_grip)
        topics.GUARD_STATE.subscription(self, self._on_guard_state)
        self._program_running = topics.program_running(parameters.program_running_topic).publisher(self)
        self._speed_scaling = topics.speed_scaling(parameters.speed_scaling_topic).publisher(self)
        self._controller_active = topics.controller_active(parameters.controller_active_topic).publisher(self)
        self._told: tuple[bool, bool] | None = None  # the first two of the driver's states, as published last
        topics.INJECT.service(self, self._on_inject)
        topics.SIM_RESET.service(self, self._on_reset)
        topics.SIM_PAUSE.service(self, self._on_pause)
        topics.SIM_STEP.service(self, self._on_step)
        self.every(TICK_S, self._turn, steady=True)

    def activate(self) -> None:
        self._latencies = Durations(5000)
        now_s = self._simulation.time_s
        self._states, self._frames, self._clocks, self._truths = (Every(p, now_s) for p in (STATE_S, FRAME_S, CLOCK_S, TRUTH_S))
        self._start_running()

    def release(self) -> None:
        if self._window is not None:
            self._window.close()
            self._window = None
        if self._simulation is not None:
            self._simulation.close()
        self._simulation = None

    def report(self) -> dict[str, object]:
        return {
            "real_time_factor": self._factor,
            "stalls": self._stalls if self._simulation else 0,
            "commands": self._commands if self._simulation else 0,
            "camera_to_command_ms_p50": self._latencies.percentile_ms(50),
            "camera_to_command_ms_p99": self._latencies.percentile_ms(99),
            "camera_to_command_count": len(self._latencies),
        }

    # -- time ---------------------------------------------------------------------------------------------------------

    def _clock_s(self) -> float:
        """The present moment on the clock that the graph runs on [s]."""
        return self._simulation.time_s + self._clock_offset_s()

    def _clock_offset_s(self) -> float:
        return self._offset_s + self._faults.clock_s(self._simulation.time_s)

    def _start_running(self) -> None:
        """Ties simulated to real time from now on."""
        self._anchor_real_s, self._anchor_sim_s = time.monotonic(), self._simulation.time_s
        self._rate_real_s, self._rate_sim_s = self._anchor_real_s, self._anchor_sim_s
        if not self._sim_time:
            self._offset_s = time.time() - self._simulation.time_s

    def _turn(self) -> None:
        """Lets the simulation catch up with real time."""
        if not self.active or self._paused:
            return
        real_s, factor = time.monotonic(), self._settings.real_time_factor
        target_s = self._anchor_sim_s + (real_s - self._anchor_real_s) * factor
        self._run_until(min(target_s, self._simulation.time_s + CATCH_UP_S))
        behind_s = (target_s - self._simulation.time_s) / factor
        if behind_s > (BEHIND_S if self._sim_time else BEHIND_WALL_S):
            self._anchor_real_s += behind_s
            self._stalls += 1
            if not self._sim_time:
                self._offset_s += behind_s
        if real_s - self._rate_real_s >= 1.0:
            self._factor = (self._simulation.time_s - self._rate_sim_s) / (real_s - self._rate_real_s)
            self._rate_real_s, self._rate_sim_s = real_s, self._simulation.time_s
            if self._factor < SLOW * factor:
                slow = f"Runs at {self._factor:.2f} of real time, not {factor:.2f}: the cores are too slow or too busy."
                self.complain(slow, seldom=True)

    def _run_until(self, until_s: float) -> None:
        """Physics up to then, with every message at its time."""
        simulation, kinds = self._simulation, (self._states, self._frames, self._clocks, self._truths)
        while simulation.time_s < until_s - 1e-3:
            step_s = min([until_s, *(kind.next_s for kind in kinds)]) - simulation.time_s
            self._halt_or_not()
            self._move_gripper()
            simulation.advance(max(1, math.floor(step_s / 0.002 + 0.5)) * 0.002)
            self._publish_due()

    def _publish_due(self) -> None:
        now_s, stamp_s = self._simulation.time_s, self._clock_s()
        if self._clock_publisher is not None and self._clocks.due(now_s):
            self.publish(self._clock_publisher, Clock(clock=convert.stamp(stamp_s)))
        if self._states.due(now_s):
            self._publish_state(stamp_s)
        if self._frames.due(now_s):
            self._publish_frames(stamp_s)
        if self._truths.due(now_s):
            self._publish_truth(stamp_s)
            self._publish_driver()
            if self._window is not None:
                self._window.sync()

    # -- what leaves --------------------------------------------------------------------------------------------------

    def _publish_state(self, stamp_s: float) -> None:
        state = self._faults.measured(self._simulation.state(), self._simulation.time_s)
        if state is None:
            return
        message = convert.robot_state_to_msg(state, self._profile.joint_names, gripper=self._profile.gripper)
        message.header.stamp = convert.stamp(stamp_s)
        self.publish(self._joint_states, message)

    def _publish_frames(self, stamp_s: float) -> None:
        now_s = self._simulation.time_s
        for captured_s, frames in self._faults.frames(self._simulation.images(), now_s):
            for name, rgb in frames.items():
                images, infos = self._cameras[name]
                frame, at_s = convert.optical_frame(name), stamp_s - (now_s - captured_s)
                self.publish(images, convert.image_to_msg(rgb, at_s, frame))
                self.publish(infos, convert.camera_info_to_msg(*self._simulation.camera_info(name), at_s, frame))

    def _publish_driver(self) -> None:
        """What a UR's driver says of itself."""
        told = self._halted != "protective_stop", self._halted != "controller_inactive"
        self.publish(self._speed_scaling, Float64(data=0.0 if self._halted == "speed_slider_zero" else 100.0))
        if told != self._told:
            self.publish(self._program_running, Bool(data=told[0]))
            self.publish(self._controller_active, Bool(data=told[1]))
            self._told = told

    def _publish_truth(self, stamp_s: float) -> None:
        truth, judgement = self._simulation.truth(), self._simulation.judgement()
        self.publish(
            self._truth,
            SimState(
                header=convert.header(stamp_s, self._profile.base_frame),
                task=self._scenario.task,
                seed=self._scenario.seed,
                shift=self._shift,
                elapsed_s=self._simulation.time_s - self._reset_s,
                time_limit_s=self._scenario.time_limit_s,
                tip=convert.vector(truth.tip),
                tip_velocity=convert.vector(truth.tip_velocity),
                object=convert.pose(truth.object, truth.object_quaternion),
                object_speed=truth.object_speed,
                success=judgement.success,
                held_s=judgement.held_s,
                distance=judgement.distance_m,
                violations=judgement.violations,
                violation_detail=judgement.violation_detail,
                entered=judgement.entered,
                paused=self._paused,
                real_time_factor=0.0 if self._paused else self._factor,
                commands=self._commands,
                camera_to_command_s=self._latency_s,
            ),
        )

    # -- faults -------------------------------------------------------------------------------------------------------

    def _halt_or_not(self) -> None:
        """The arm's own driver brakes it when a fault says so; afterwards it waits for a new command."""
        halted = self._faults.halted_by(self._simulation.time_s)
        if halted is not None and self._halted is None:
            self._simulation.halt()
        if halted != self._halted:
            self._halted = halted
            self._publish_driver()

    def _on_inject(self, request: Inject.Request, response: Inject.Response) -> Inject.Response:
        if not self.active:
            response.ok, response.message = False, "The simulator is not active."
            return response
        try:
            values = dict(zip(request.names, request.values, strict=True))
            what = fault(request.fault, request.duration_s, values)
            what.measured(self._simulation.state())  # a joint that is not there is refused now
        except ValueError as error:
            response.ok, response.message = False, str(error)
            return response
        self._faults.start(request.fault, what, self._simulation.time_s)
        response.ok, response.message = True, f"{request.fault} for {what.duration_s:g} s from {self._clock_s():.3f} s on."
        self.get_logger().warning(f"Injected: {response.message}")
        return response

    # -- what comes ---------------------------------------------------------------------------------------------------

    def _on_trajectory(self, msg: JointTrajectory) -> None:
        if not self.active:
            return
        if self._simulation.time_s - self._reset_s < DEAF_S:
            self.complain("A command that was under way when the scene was changed is not followed: it is of another arm.")
            return
        if self._halted is not None:
            self.complain(f"The controller follows no command: {self._halted}.")
            return
        now_s = self._clock_s()
        try:
            trajectory = convert.trajectory_from_msg(msg, self._profile.joint_names, now_s)
        except ValueError as error:
            self.complain(str(error))
            return
        shifted = replace(trajectory, times_s=trajectory.times_s - self._clock_offset_s())
        if not self._simulation.command(shifted):
            self.complain(f"Trajectory ended {now_s - trajectory.times_s[-1]:.3f} s before it came.")
            return
        self._commands += 1
        self._arrivals[convert.seconds(msg.header.stamp)] = now_s
        while len(self._arrivals) > 20:
            self._arrivals.pop(next(iter(self._arrivals)))

    def _on_grip(self, msg: JointTrajectory) -> None:
        """A command for the gripper, which has a controller of its own: what halts the arm does not halt it."""
        if not self.active:
            return
        now_s, gripper = self._simulation.time_s, self._profile.gripper
        if now_s - self._reset_s < DEAF_S:
            self.complain("A command of the gripper from before the change of scene is not followed.")
            return
        try:
            trajectory = convert.trajectory_from_msg(msg, (gripper.joint,), self._clock_s())
        except ValueError as error:
            self.complain(str(error))
            return
        command = replace(trajectory, times_s=trajectory.times_s - self._clock_offset_s())
        controller = self._grip or TrajectoryController(np.array([gripper.position(self._simulation.opening())]), now_s)
        if not controller.accept(command, now_s):
            self.complain(f"The gripper's command ended {now_s - command.times_s[-1]:.3f} s before it came.")
            return
        self._grip = controller

    def _move_gripper(self) -> None:
        """The gripper follows its controller; before its first command it stays as the reset left it."""
        if self._grip is not None:
            position = float(self._grip.setpoints(self._simulation.time_s)[0][0])
            self._simulation.grip(1 - self._profile.gripper.opening(position))

    def _on_guard_state(self, msg: GuardState) -> None:
        """Measures camera to command: the guard says which images the trajectory came from."""
        arrival_s = self._arrivals.pop(convert.seconds(msg.trajectory_stamp), None) if self._simulation else None
        if arrival_s is not None:
            self._latency_s = arrival_s - convert.seconds(msg.observation_stamp)
            self._latencies.add(self._latency_s)

    def _reset(self, task: str, seed: int, shift: str) -> Scenario:
        self._scenario, self._shift = self._simulation.reset(task, seed, shift), shift
        self._reset_s, self._commands, self._latency_s = self._simulation.time_s, 0, float("nan")
        self._grip: TrajectoryController | None = None  # the gripper's, from its first command on
        self._arrivals: dict[float, float] = {}
        return self._scenario

    def _on_reset(self, request: ResetSimulation.Request, response: ResetSimulation.Response) -> ResetSimulation.Response:
        if not self.active:
            response.ok, response.message = False, "The simulator is not active."
            return response
        shift = request.shift or "none"
        if shift not in ("none", "colour", "camera"):
            response.ok, response.message = False, f"Shift '{shift}' is unknown. Available: none, colour, camera."
            return response
        if request.task in AMONG and self._others < 2:
            lacks = f"Task '{request.task}' needs 2 objects beside the cube, this simulation has {self._others}."
            response.ok, response.message = False, f"{lacks} Start it with others:=2."
            return response
        try:
            scenario = self._reset(request.task, request.seed, shift)
        except ValueError as error:
            response.ok, response.message = False, str(error)
            return response
        stamp_s = self._clock_s()
        self._publish_state(stamp_s)
        self._frames.next_s = max(self._frames.next_s, self._simulation.time_s + STATE_S)
        response.ok, response.stamp, response.time_limit_s = True, convert.stamp(stamp_s), scenario.time_limit_s
        response.goal_images = [convert.image_to_msg(rgb, stamp_s, camera) for camera, rgb in scenario.goal_images.items()]
        if scenario.keep_out is not None:
            response.keep_out = [*scenario.keep_out.low.tolist(), *scenario.keep_out.high.tolist()]
        response.goal_tip, response.goal_object = convert.point(scenario.goal_tip), convert.point(scenario.goal_object)
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not self.active:
            response.success, response.message = False, "The simulator is not active."
            return response
        if self._paused and not request.data:
            self._start_running()
        self._paused = request.data
        self._publish_truth(self._clock_s())
        response.success, response.message = True, f"{'Paused' if self._paused else 'Running'} at {self._clock_s():.3f} s."
        return response

    def _on_step(self, request: Step.Request, response: Step.Response) -> Step.Response:
        if not self.active or not self._paused:
            response.ok, response.message = False, "Step needs an active and paused simulation; call pause first."
        elif not 0 < request.duration_s <= 10:
            response.ok, response.message = False, f"duration_s must be above 0 and at most 10 s, got {request.duration_s}."
        else:
            self._run_until(self._simulation.time_s + request.duration_s)
            response.ok, response.stamp = True, convert.stamp(self._clock_s())
        return response


def _window(simulation: Simulation):
    """MuJoCo's own viewer on the running scene."""
    import mujoco.viewer

    return mujoco.viewer.launch_passive(simulation.model, simulation.data, show_left_ui=False, show_right_ui=False)
