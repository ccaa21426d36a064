"""Messages to the core's values and back, both directions, and nowhere else.

Repairs nothing: what does not fit raises ValueError with one line that says what is wrong, expected and present. The one
thing that is arranged is the order of joints, which messages carry by name. Imports no torch.
"""

from __future__ import annotations

import array
import json
import math
from dataclasses import asdict, replace

import numpy as np
from builtin_interfaces.msg import Duration, Time
from foresight_msgs import msg as m
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from foresight.contract import Contract
from foresight.data import Belief, Box, Candidate, Grip, Observation, Plan, RobotState, Trajectory
from foresight.robots.profile import GripperJoint
from foresight.safety.config import GuardConfig, Margins
from foresight.safety.decision import Decision, Setup
from foresight.safety.obstacles import from_text

LAST_NS = 2**31 * 10**9 - 1  # [ns]
ENCODINGS = {"rgb8": slice(None), "bgr8": slice(None, None, -1)}  # encoding -> order of channels that makes it RGB


# -- time, vectors, names ---------------------------------------------------------------------------------------------


def seconds(stamp: Time) -> float:
    """[s] on the clock that the stamp was taken from."""
    return stamp.sec + stamp.nanosec * 1e-9


def stamp(time_s: float) -> Time:
    """What a message can hold: a time before or after that becomes the first or the last."""
    nanoseconds = min(LAST_NS, max(0, round(time_s * 1e9)))
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def header(time_s: float, frame: str = "") -> Header:
    return Header(stamp=stamp(time_s), frame_id=frame)


def vector(value: np.ndarray) -> Vector3:
    return Vector3(x=float(value[0]), y=float(value[1]), z=float(value[2]))


def point(value: np.ndarray) -> Point:
    return Point(x=float(value[0]), y=float(value[1]), z=float(value[2]))


def pose(position: np.ndarray, quaternion_wxyz: np.ndarray) -> Pose:
    w, x, y, z = (float(v) for v in quaternion_wxyz)
    return Pose(position=point(position), orientation=Quaternion(x=x, y=y, z=z, w=w))


def xyz(value: Vector3 | Point) -> np.ndarray:
    return np.array([value.x, value.y, value.z])


def optical_frame(camera: str) -> str:
    """Frame of a camera's images: z forward, x right, y down."""
    return f"{camera}_optical_frame"


# -- cameras ----------------------------------------------------------------------------------------------------------


def image_from_msg(msg: Image, camera: str = "") -> np.ndarray:
    """RGB uint8 (height, width, 3). `camera` is how errors call it; empty: by its frame."""
    name = camera or msg.header.frame_id or "a camera without frame_id"
    if msg.encoding not in ENCODINGS:
        raise ValueError(f"Image of '{name}' has encoding '{msg.encoding}'; expected rgb8 or bgr8. Set the camera's encoding.")
    row = 3 * msg.width
    if msg.step < row or len(msg.data) != msg.step * msg.height:
        raise ValueError(
            f"Image of '{name}' is {msg.width}x{msg.height} px with step {msg.step}: "
            f"expected {row * msg.height} bytes and step {row}, got {len(msg.data)} bytes."
        )
    rows = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)[:, :row]
    return rows.reshape(msg.height, msg.width, 3)[..., ENCODINGS[msg.encoding]]


def image_to_msg(rgb: np.ndarray, stamp_s: float, frame: str) -> Image:
    height, width, _ = rgb.shape
    return Image(
        header=header(stamp_s, frame),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=array.array("B", np.ascontiguousarray(rgb).tobytes()),
    )


def camera_info_to_msg(intrinsics: np.ndarray, width: int, height: int, stamp_s: float, frame: str) -> CameraInfo:
    """An ideal pinhole, without distortion."""
    projection = np.hstack([intrinsics, np.zeros((3, 1))])
    return CameraInfo(
        header=header(stamp_s, frame),
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=intrinsics.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=projection.ravel().tolist(),
    )


# -- joints -----------------------------------------------------------------------------------------------------------


def robot_state_from_msg(msg: JointState, joint_names: tuple[str, ...], gripper: GripperJoint | None = None) -> RobotState:
    """The named joints in that order, and how far the gripper is open where it is asked for; other joints are left out.

    NaN passes: the core judges it.
    """
    order = _order(msg.name, joint_names, "Joint state")
    if gripper is not None and gripper.joint not in msg.name:
        raise ValueError(
            f"Joint state lacks {gripper.joint}, the gripper's joint, and the model needs it. Joints in the message: "
            f"{', '.join(msg.name)}. Publish it with them, or name it as the driver does (gripper.joint in the robot profile)."
        )
    for what, values in (("positions", msg.position), ("velocities", msg.velocity)):
        if len(values) != len(msg.name):
            raise ValueError(
                f"Joint state has {len(values)} {what} for {len(msg.name)} joints. "
                "The driver must publish positions and velocities."
            )
    opening = None if gripper is None else gripper.opening(msg.position[list(msg.name).index(gripper.joint)])
    return RobotState(seconds(msg.header.stamp), np.array(msg.position)[order], np.array(msg.velocity)[order], opening)


def robot_state_to_msg(
    state: RobotState, joint_names: tuple[str, ...], frame: str = "", gripper: GripperJoint | None = None
) -> JointState:
    """The arm's joints, and behind them the gripper's where it is asked for; its velocity is not known, which NaN says."""
    message = JointState(
        header=header(state.stamp_s, frame),
        name=list(joint_names),
        position=state.q.tolist(),
        velocity=state.dq.tolist(),
        effort=[],
    )
    if gripper is not None and state.opening is not None:
        message.name.append(gripper.joint)
        message.position.append(gripper.position(state.opening))
        message.velocity.append(math.nan)
    return message


def trajectory_from_msg(msg: JointTrajectory, joint_names: tuple[str, ...], now_s: float) -> Trajectory:
    """As joint_trajectory_controller reads it: joints in any order, a zero stamp means now."""
    order = _order(msg.joint_names, joint_names, "Trajectory")
    if len(msg.joint_names) != len(joint_names):
        raise ValueError(f"Trajectory moves {list(msg.joint_names)}; expected just {list(joint_names)}.")
    trajectory = _trajectory(msg, len(joint_names))
    start_s = seconds(msg.header.stamp) or now_s
    ddq = None if trajectory.ddq is None else trajectory.ddq[:, order]
    trajectory = Trajectory(trajectory.times_s + start_s, trajectory.q[:, order], trajectory.dq[:, order], ddq)
    if not all(np.isfinite(a).all() for a in (trajectory.q, trajectory.dq)) or (np.diff(trajectory.times_s) <= 0).any():
        raise ValueError("Trajectory holds a number that is not finite, or its times do not increase.")
    return trajectory


def trajectory_to_msg(
    trajectory: Trajectory, joint_names: tuple[str, ...], frame: str = "", now_s: float = np.inf
) -> JointTrajectory:
    """header.stamp is the first point's time, or now where that lies ahead; every time_from_start is relative to it."""
    start = stamp(min(float(trajectory.times_s[0]), now_s))
    start_s = seconds(start)
    accelerations = [array.array("d")] * len(trajectory.times_s) if trajectory.ddq is None else _rows(trajectory.ddq)
    since_ns = np.maximum(0, np.rint((trajectory.times_s - start_s) * 1e9)).astype(np.int64).tolist()
    points = [
        JointTrajectoryPoint(
            positions=q, velocities=dq, accelerations=ddq, time_from_start=Duration(sec=ns // 10**9, nanosec=ns % 10**9)
        )
        for ns, q, dq, ddq in zip(since_ns, _rows(trajectory.q), _rows(trajectory.dq), accelerations, strict=True)
    ]
    return JointTrajectory(header=Header(stamp=start, frame_id=frame), joint_names=list(joint_names), points=points)


def _rows(values: np.ndarray) -> list[array.array]:
    """Each row as messages hold numbers, which spares them looking at each."""
    return [array.array("d", row.tobytes()) for row in np.asarray(values, dtype=np.float64)]


def _order(names: list[str], wanted: tuple[str, ...], what: str) -> list[int]:
    present = list(names)
    missing = [name for name in wanted if name not in present]
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}. Joints in the message: {', '.join(present) or 'none'}.")
    return [present.index(name) for name in wanted]


def _trajectory(msg: JointTrajectory, joints: int) -> Trajectory:
    """Joints in the message's order, times relative to its stamp."""
    if not msg.points:
        raise ValueError("Trajectory has no points; expected at least 1.")
    for i, p in enumerate(msg.points):
        if len(p.positions) != joints or len(p.velocities) != joints:
            raise ValueError(
                f"Trajectory point {i} has {len(p.positions)} positions and {len(p.velocities)} velocities; "
                f"expected {joints} of each."
            )
    lengths = {len(p.accelerations) for p in msg.points}
    if lengths not in ({0}, {joints}):
        raise ValueError(
            f"Trajectory points have {sorted(lengths)} accelerations; expected {joints} in each point, or none in any."
        )
    times = np.array([p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in msg.points])
    ddq = np.array([p.accelerations for p in msg.points]) if lengths == {joints} else None
    return Trajectory(times, np.array([p.positions for p in msg.points]), np.array([p.velocities for p in msg.points]), ddq)


# -- what travels between Foresight's nodes ---------------------------------------------------------------------------


def observation_to_msg(observation: Observation, contract: Contract, frame: str) -> m.Observation:
    _, height, width, _ = observation.images.shape
    return m.Observation(
        header=header(observation.stamp_s, frame),
        contract=contract.fingerprint,
        cameras=[c.name for c in contract.cameras],
        seen=list(observation.seen or [True] * len(contract.cameras)),
        height=height,
        width=width,
        images=array.array("B", observation.images.tobytes()),
        q=observation.q.tolist(),
        dq=observation.dq.tolist(),
        tip=observation.tip,
        tip_velocity=observation.tip_velocity,
        opening=math.nan if observation.opening is None else observation.opening,
    )


def observation_from_msg(msg: m.Observation, contract: Contract) -> Observation:
    if msg.contract != contract.fingerprint:
        raise ValueError(
            f"Observation was prepared for contract {msg.contract or '(none)'}, the model's is {contract.fingerprint}. "
            "Give perception and world_model the same checkpoint."
        )
    cameras, joints = [camera.name for camera in contract.cameras], len(contract.joint_names)
    if list(msg.cameras) != cameras:
        raise ValueError(f"Observation has cameras {', '.join(msg.cameras) or 'none'}; expected {', '.join(cameras)}.")
    if len(msg.seen) != len(cameras):
        raise ValueError(f"Observation tells of {len(msg.seen)} cameras whether they are seen; expected {len(cameras)}.")
    if (len(msg.q), len(msg.dq)) != (joints, joints):
        raise ValueError(f"Observation has {len(msg.q)} positions and {len(msg.dq)} velocities; expected {joints} of each.")
    shape = (len(msg.cameras), msg.height, msg.width, 3)
    if len(msg.images) != math.prod(shape):
        raise ValueError(f"Observation images should be {shape}: {math.prod(shape)} bytes; got {len(msg.images)}.")
    images = np.frombuffer(msg.images, np.uint8).reshape(shape).copy()
    seen = None if all(msg.seen) else tuple(msg.seen)
    return Observation(
        seconds(msg.header.stamp),
        images,
        np.array(msg.q),
        np.array(msg.dq),
        np.array(msg.tip),
        np.array(msg.tip_velocity),
        seen,
        None if math.isnan(msg.opening) else msg.opening,
    )


def belief_to_msg(belief: Belief, frame: str) -> m.Belief:
    return m.Belief(
        header=header(belief.stamp_s, frame),
        model_id=belief.model_id,
        surprise=float(belief.surprise),
        latent=_floats(belief.latent),
        proprio=_floats(belief.proprio),
    )


def belief_from_msg(msg: m.Belief) -> Belief:
    return Belief(
        seconds(msg.header.stamp),
        msg.model_id,
        np.array(msg.latent, np.float32),
        np.array(msg.proprio, np.float32),
        float(msg.surprise),
    )


def plan_to_msg(
    plan: Plan, trajectory: Trajectory, joint_names: tuple[str, ...], plan_stamp_s: float, plan_id: int, frame: str
) -> m.Plan:
    blocks, size = plan.imagined.shape
    closed = plan.closed_at(float(trajectory.times_s[0]))
    return m.Plan(
        header=header(plan.stamp_s, frame),
        plan_stamp=stamp(plan_stamp_s),
        id=plan_id,
        model_id=plan.model_id,
        dt_s=float(plan.dt_s),
        tip_velocity=[vector(v) for v in plan.tip_velocity],
        cost=float(plan.cost),
        cost_names=list(plan.terms),
        costs=[float(v) for v in plan.terms.values()],
        distance_s=float(plan.distance),
        candidates=int(plan.candidates),
        planning_s=float(plan.planning_s),
        source=plan.source,
        margin_m=float(plan.margin_m),
        nearest=plan.nearest,
        singular_margin=float(plan.singular_margin),
        trajectory=trajectory_to_msg(trajectory, joint_names),
        closed=math.nan if closed is None else closed,
        grip_force_n=float(plan.grip_force_n),
        imagined_blocks=blocks,
        imagined_size=size,
        imagined=_floats(plan.imagined),
    )


def plan_from_msg(msg: m.Plan) -> Plan:
    imagined = np.array(msg.imagined, np.float32).reshape(msg.imagined_blocks, msg.imagined_size)
    return Plan(
        seconds(msg.header.stamp),
        msg.model_id,
        msg.dt_s,
        np.array([xyz(v) for v in msg.tip_velocity]).reshape(-1, 3),
        msg.cost,
        dict(zip(msg.cost_names, msg.costs, strict=True)),
        msg.distance_s,
        imagined,
        msg.candidates,
        msg.planning_s,
        msg.source,
        msg.margin_m,
        msg.nearest,
        msg.singular_margin,
    )


def candidate_from_msg(msg: m.Plan) -> Candidate:
    """What the guard judges: joints in the message's own order, since a wrong order is for the guard to refuse."""
    relative = _trajectory(msg.trajectory, len(msg.trajectory.joint_names))
    trajectory = replace(relative, times_s=relative.times_s + seconds(msg.trajectory.header.stamp))
    return Candidate(
        trajectory,
        tuple(msg.trajectory.joint_names),
        seconds(msg.header.stamp),
        seconds(msg.plan_stamp),
        msg.model_id,
        None if math.isnan(msg.closed) else Grip(msg.closed, msg.grip_force_n),
    )


def setup_to_msg(setup: Setup, robot: str, versions: dict[str, str], now_s: float) -> m.GuardSetup:
    return m.GuardSetup(
        header=header(now_s),
        fingerprint=setup.fingerprint,
        robot=robot,
        profile=setup.profile,
        config=json.dumps(asdict(setup.config)),
        scene=setup.scene,
        model_id=setup.model_id,
        transport_s=float(setup.transport_s),
        versions=json.dumps(versions),
    )


def guard_from_msg(msg: m.GuardSetup) -> tuple[GuardConfig, bool, Box | None, tuple[Box, ...]]:
    """What a guard insists on, whether it looks for collisions, its table and its keep-outs."""
    try:
        raw = json.loads(msg.config)
        config = GuardConfig(**{**raw, "margins": Margins(**raw["margins"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The guard's setup cannot be used ({error}). Start guard and planner from the same version.") from error
    return config, bool(msg.scene), *(from_text(msg.scene)[:2] if msg.scene else (None, ()))


def decision_to_msg(decision: Decision, joint_names: tuple[str, ...]) -> m.GuardVerdict:
    """`joint_names` are the robot profile's. Read back in the core, without ROS (`foresight.incidents.pack`)."""
    candidate, situation, verdict = decision.candidate, decision.situation, decision.verdict
    message = m.GuardVerdict(
        header=header(situation.now_s),
        number=decision.number,
        plan_id=decision.plan_id,
        setup=decision.setup,
        now_s=situation.now_s,
        readable=candidate is not None,
        in_force=_motion(situation.in_force, joint_names),
        measured=situation.state is not None,
        stopped=situation.stopped is not None,
        stopped_why=situation.stopped or "",
        stopped_at_s=float(situation.stopped_at_s),
        held=situation.held is not None,
        held_why=situation.held or "",
        share_max=float(situation.share_max),
        reason=verdict.reason.value,
        detail=verdict.detail,
        slowed=float(verdict.slowed),
        outcome=decision.outcome,
        fingerprint=decision.fingerprint,
    )
    if candidate is not None:
        message.candidate, message.model_id = _motion(candidate.trajectory, candidate.joint_names), candidate.model_id
        message.observation_stamp_s, message.plan_stamp_s = candidate.observation_stamp_s, candidate.plan_stamp_s
        if candidate.grip is not None:
            message.grips, message.closed, message.grip_force_n = True, candidate.grip.closed, candidate.grip.force_n
    if situation.state is not None:
        state = situation.state
        message.state_stamp_s, message.state_q, message.state_dq = state.stamp_s, _doubles(state.q), _doubles(state.dq)
        message.state_opening = [] if state.opening is None else [state.opening]
    return message


def _motion(trajectory: Trajectory | None, joint_names: tuple[str, ...]) -> m.Motion:
    if trajectory is None:
        return m.Motion()
    return m.Motion(
        joint_names=list(joint_names),
        times_s=_doubles(trajectory.times_s),
        q=_doubles(trajectory.q),
        dq=_doubles(trajectory.dq),
        ddq=_doubles(np.empty(0) if trajectory.ddq is None else trajectory.ddq),
    )


def _doubles(values: np.ndarray) -> array.array:
    return array.array("d", np.ascontiguousarray(values, np.float64).tobytes())


def _floats(values: np.ndarray) -> array.array:
    return array.array("f", np.ascontiguousarray(values, np.float32).tobytes())
