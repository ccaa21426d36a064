"""Every topic, service and action: name, type and quality of service, in one table.

Names are relative; remapping and namespaces work.
"""

from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray
from foresight_msgs.action import Pursue
from foresight_msgs.msg import Belief, Bond, GraphState, GuardSetup, GuardState, GuardVerdict, Observation, Plan, SimState
from foresight_msgs.srv import Inject, ResetSimulation, Step
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool, Float64, Header
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

LATEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)  # the newest one, surely
SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # fits drivers of either kind; a backlog would be stale
SENSOR_OUT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)  # as camera drivers
HISTORY = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)  # all of a moment, to interpolate between
STATES_OUT = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)  # as ros2_control's broadcaster
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
COMMANDS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STANDARD = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


def _promised(period_s: float, qos: QoSProfile) -> QoSProfile:
    """The same, with a message at least that often, and a writer that is known to be gone within half a second."""
    return QoSProfile(
        depth=qos.depth,
        reliability=qos.reliability,
        durability=qos.durability,
        deadline=Duration(seconds=period_s),
        liveliness=LivelinessPolicy.AUTOMATIC,
        liveliness_lease_duration=Duration(seconds=0.5),
    )


PULSE = _promised(0.1, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
PLANS = _promised(0.5, LATEST)
STATE_OUT = _promised(0.3, LATCHED)


@dataclass(frozen=True)
class Topic:
    """A topic's name, message type, and quality of service on either side."""

    name: str
    type: type
    publish_qos: QoSProfile
    subscribe_qos: QoSProfile

    def publisher(self, node: Node):
        return node.create_publisher(self.type, self.name, self.publish_qos)

    def subscription(self, node: Node, callback, events: SubscriptionEventCallbacks | None = None):
        return node.create_subscription(self.type, self.name, callback, self.subscribe_qos, event_callbacks=events)


@dataclass(frozen=True)
class Service:
    """A service's name and type."""

    name: str
    type: type

    def service(self, node: Node, callback):
        return node.create_service(self.type, self.name, callback)


OBSERVATION = Topic("observation", Observation, LATEST, LATEST)  # perception -> world_model, up to 10 Hz
BELIEF = Topic("belief", Belief, LATEST, LATEST)  # world_model -> planner, same rate
PLAN = Topic("plan", Plan, PLANS, PLANS)  # planner -> guard, while a goal is pursued
HEARTBEAT = Topic("heartbeat", Header, PULSE, PULSE)  # planner -> guard, 100 Hz: the process lives
GUARD_STATE = Topic("guard_state", GuardState, STATE_OUT, LATCHED)  # guard -> planner, sim, people; 10 Hz and on change
GUARD_SETUP = Topic("guard_setup", GuardSetup, LATCHED, LATCHED)  # guard -> planner, recorder, once configured
GUARD_VERDICT = Topic("guard_verdict", GuardVerdict, STANDARD, STANDARD)  # guard -> recorder, one a plan
SIM_STATE = Topic("sim_state", SimState, STANDARD, STANDARD)  # sim -> judge, 30 Hz
JOINT_STATES = Topic("joint_states", JointState, STATES_OUT, SENSOR)  # driver or sim -> guard
JOINT_HISTORY = Topic("joint_states", JointState, STATES_OUT, HISTORY)  # the same for perception
CLOCK = Topic("/clock", Clock, SENSOR_OUT, SENSOR)  # sim -> all with use_sim_time, 100 Hz
DIAGNOSTICS = Topic("/diagnostics", DiagnosticArray, STANDARD, QoSProfile(depth=50))  # all -> people, lifecycle_manager; 1 Hz
BOND = Topic("bond", Bond, SENSOR, HISTORY)  # all -> lifecycle_manager, 10 Hz
GRAPH_STATE = Topic("graph_state", GraphState, LATCHED, LATCHED)  # manager -> guard, `foresight up`, people; 10 Hz and on change

HOW_TO_RESET = "To allow motion again once the cause is gone: foresight reset, or the service guard/reset."
PURSUE = ("pursue", Pursue)  # action of the planner
OBJECTIVE = "planner.objective"  # parameter of the planner that takes effect while the node runs, from the next plan on
ENDINGS = (
    "REACHED",
    "TIMED_OUT",
    "UNREACHABLE",
    "CANCELLED",
    "STALE",
    "STOPPED",
    "REPLACED",
    "REFUSED",
    "DEACTIVATED",
    "INFEASIBLE",
)  # of it
GUARD_STOP = Service("~/stop", Trigger)  # of the guard: brings the arm to rest and refuses motion until reset
GUARD_RESET = Service("~/reset", Trigger)  # of the guard: allows motion again
RECORDER_SNAPSHOT = Service("~/snapshot", Trigger)  # of the recorder: writes what it holds
SIM_RESET = Service("~/reset", ResetSimulation)  # of the sim: a new episode
SIM_PAUSE = Service("~/pause", SetBool)  # of the sim
SIM_STEP = Service("~/step", Step)  # of the sim, while paused
INJECT = Service("~/inject", Inject)  # of the sim, and in simulation of any node that has a fault to offer
RESUME = Service("~/resume", Trigger)  # of the lifecycle manager: recovery is allowed again after a latch that outlived its guard
IS_ACTIVE = Service("~/is_active", Trigger)  # of the lifecycle manager: whether the whole graph is active, and why not


def controller_active(name: str) -> Topic:
    """Whether the trajectory controller is active. Adapter of the controller manager, or sim -> guard; on change."""
    return Topic(name, Bool, LATCHED, LATCHED)


def program_running(name: str) -> Topic:
    """Whether the robot's program runs, as ur_robot_driver tells it. Driver -> guard; on change."""
    return Topic(name, Bool, LATCHED, LATCHED)


def speed_scaling(name: str) -> Topic:
    """Where the robot's speed slider stands, as ur_robot_driver tells it. Driver -> guard."""
    return Topic(name, Float64, STANDARD, SENSOR)


def image(camera_topic: str) -> Topic:
    """A camera's images, given its namespace: `front` -> `front/image_raw`. Driver or sim -> perception."""
    return Topic(f"{camera_topic}/image_raw", Image, SENSOR_OUT, SENSOR)


def camera_info(camera_topic: str) -> Topic:
    """A camera's calibration, given its namespace. Driver or sim -> perception."""
    return Topic(f"{camera_topic}/camera_info", CameraInfo, SENSOR_OUT, SENSOR)


def trajectory(controller_topic: str) -> Topic:
    """What the guard lets through, for the arm or for the gripper; the profile or a parameter names it.

    Guard -> controller, which wants none from before its start.
    """
    return Topic(controller_topic, JointTrajectory, COMMANDS, LATEST)


def in_force(controller_topic: str) -> Topic:
    """The same for the planner, which after a restart must know the motion that it joins."""
    return Topic(controller_topic, JointTrajectory, COMMANDS, COMMANDS)


def ending(result: Pursue.Result) -> str:
    """How a pursuit ended, in a word."""
    return next((n.lower() for n in ENDINGS if getattr(Pursue.Result, n) == result.reason), f"reason {result.reason}")
