"""Pairs camera frames and joint states by capture time and refuses what must not be believed.

Owns no clock: every stamp and `now_s` are float seconds of the one clock its caller runs on. Knows no model, no topics.
It repairs nothing: a frame or a state that is wrong is left out and reported, and while nothing good replaces it
there is no observation, so there is no new plan and the arm comes to rest on the trajectory that it has.
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float, UInt8

from foresight.contract import CameraContract, Contract
from foresight.data import Observation, RobotState
from foresight.interfaces import Kinematics
from foresight.perception.prepare import prepare
from foresight.robots.profile import RobotProfile


class RefusalReason(StrEnum):
    """Why there is no observation."""

    UNKNOWN_CAMERA = "unknown_camera"
    BAD_IMAGE = "bad_image"
    BAD_STATE = "bad_state"
    NO_IMAGE = "no_image"
    NO_STATE = "no_state"
    STALE_IMAGE = "stale_image"
    STALE_STATE = "stale_state"
    FROZEN_STAMP = "frozen_stamp"
    FROZEN_CAMERA = "frozen_camera"
    DARK_CAMERA = "dark_camera"
    CAMERAS_APART = "cameras_apart"
    CLOCK_JUMPED = "clock_jumped"


@dataclass(frozen=True)
class Refusal:
    """Why there is no observation now: the reason, and a sentence with the numbers in it."""

    reason: RefusalReason
    detail: str


@dataclass(frozen=True)
class PerceptionConfig:
    """What counts as fresh, simultaneous and alive."""

    max_image_age_s: float = 0.15  # [s] between capture and use
    max_state_age_s: float = 0.10  # [s] between a joint state's measurement and its use, as the guard has it
    max_state_gap_s: float = 0.05  # [s] between a frame and the joint state nearest to it
    max_skew_s: float = 0.02  # [s] between the cameras' capture times; half a frame period at 30 Hz, rounded up
    frozen_after_s: float = 1.0  # [s] of identical pixels before a camera can count as frozen
    frozen_motion_rad: float = 0.02  # [rad] that a joint must have moved meanwhile, since a still scene has still pixels
    dark_mean: float = 3.0  # [0..255] a frame below this mean and below `dark_deviation` counts as covered
    dark_deviation: float = 2.0  # [0..255]
    memory_s: float = 0.5  # [s] of frames and joint states kept for pairing

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"Perception's {name} must be a finite number above 0, got {value}.")
        if self.memory_s < self.max_image_age_s:
            raise ValueError(
                f"Perception's memory_s ({self.memory_s}) must not be below max_image_age_s ({self.max_image_age_s})."
            )


@dataclass(frozen=True)
class _Frame:
    stamp_s: float
    image: UInt8[np.ndarray, "h w 3"]  # prepared


class _Camera:
    """One camera's recent frames, and for how long its pixels have stood still."""

    def __init__(self, contract: CameraContract) -> None:
        self.contract = contract
        self.frames: deque[_Frame] = deque()
        self.fault: Refusal | None = None  # of the last frame delivered
        self.repeats = 0  # frames with the newest frame's stamp again
        self.checksum = -1
        self.changed_s = 0.0  # when the pixels last changed
        self.changed_q: np.ndarray | None = None  # where the arm was then
        self.moved_rad = 0.0  # farthest that a joint has been from there since

    def watch_pixels(self, stamp_s: float, rgb: np.ndarray, q: np.ndarray | None) -> None:
        """Notes whether the pixels changed, and how far the arm has moved while they did not."""
        checksum = zlib.crc32(np.ascontiguousarray(rgb))
        if checksum != self.checksum:
            self.checksum, self.changed_s, self.changed_q, self.moved_rad = checksum, stamp_s, None, 0.0
        elif self.changed_q is None:
            self.changed_q = q  # measured after the change: the state before it may be that of another scene
        elif q is not None:
            self.moved_rad = max(self.moved_rad, float(np.abs(q - self.changed_q).max()))


class Perception:
    """Keeps the last half second of frames and joint states, and makes an observation of the newest that agree.

    A stamp that goes backwards (a restarted simulation, a corrected clock) makes it forget everything and start again.
    """

    def __init__(
        self,
        contract: Contract,
        profile: RobotProfile,
        kinematics: Kinematics,
        config: PerceptionConfig = PerceptionConfig(),
        spare_cameras: tuple[str, ...] = (),
    ) -> None:
        """`spare_cameras`: those the model can do without, so that one that fails costs its view and not the observation."""
        if (contract.robot, contract.joint_names) != (profile.name, profile.joint_names):
            raise ValueError(
                f"The model expects robot '{contract.robot}' with joints {', '.join(contract.joint_names)}; the profile is "
                f"'{profile.name}' with joints {', '.join(profile.joint_names)}. Use the checkpoint of this robot."
            )
        self.contract, self.kinematics, self.config, self.spare_cameras = contract, kinematics, config, spare_cameras
        self.reset()
        if unknown := [name for name in spare_cameras if name not in self._cameras]:
            raise ValueError(
                f"Cameras {', '.join(unknown)}, which may be missing, are not in the model. Cameras: {', '.join(self._cameras)}."
            )

    def reset(self) -> None:
        """Forgets all frames, joint states and faults."""
        self._cameras = {camera.name: _Camera(camera) for camera in self.contract.cameras}
        self.lost: dict[str, Refusal] = {}  # cameras left out when last observed, and why
        self._states: deque[RobotState] = deque()
        self._state_fault: Refusal | None = None
        self._state_repeats = 0
        self._jump: Refusal | None = None

    def add_image(self, camera: str, stamp_s: float, rgb: np.ndarray) -> Refusal | None:
        """Takes a frame as delivered (RGB, 8 bit, full size); says why when it is not taken."""
        if camera not in self._cameras:
            return Refusal(
                RefusalReason.UNKNOWN_CAMERA, f"Camera '{camera}' is not in the model. Cameras: {', '.join(self._cameras)}."
            )
        source = self._cameras[camera]
        try:
            image = prepare(rgb, source.contract)
        except ValueError as error:
            source.fault = Refusal(RefusalReason.BAD_IMAGE, str(error))
            return source.fault
        if not np.isfinite(stamp_s):
            source.fault = Refusal(
                RefusalReason.BAD_IMAGE, f"Camera '{camera}' delivered a frame with stamp {stamp_s}; expected finite seconds."
            )
            return source.fault
        if source.frames and stamp_s == source.frames[-1].stamp_s:
            source.repeats += 1
            return Refusal(
                RefusalReason.FROZEN_STAMP, f"Camera '{camera}' delivered stamp {stamp_s:.3f} s again ({source.repeats} times)."
            )
        jumped = self._forget_if_backwards(f"Camera '{camera}'", stamp_s, source.frames[-1].stamp_s if source.frames else -np.inf)
        source = self._cameras[camera]  # a new one if the clock jumped
        source.fault, source.repeats = None, 0
        source.watch_pixels(stamp_s, rgb, self._states[-1].q if self._states else None)
        source.frames.append(_Frame(stamp_s, image))
        self._prune(source.frames)
        return jumped

    def add_state(self, state: RobotState) -> Refusal | None:
        """Takes a measured joint state in the contract's joint order; says why when it is not taken."""
        problem = self._problem_of(state)
        if problem:
            self._state_fault = Refusal(RefusalReason.BAD_STATE, problem)
            return self._state_fault
        if self._states and state.stamp_s == self._states[-1].stamp_s:
            self._state_repeats += 1
            return Refusal(
                RefusalReason.FROZEN_STAMP, f"Joint states repeat stamp {state.stamp_s:.3f} s ({self._state_repeats} times)."
            )
        jumped = self._forget_if_backwards("Joint states", state.stamp_s, self._states[-1].stamp_s if self._states else -np.inf)
        self._state_fault, self._state_repeats = None, 0
        self._states.append(state)
        self._prune(self._states)
        return jumped

    def observe(self, now_s: float) -> Observation | Refusal:
        """The newest common capture time as an observation; the same one again while nothing newer has come.

        Of the cameras that can be spared, those that alone would be refused are left out, as long as a camera remains.
        """
        alone = {name: self._observe({name: self._cameras[name]}, now_s) for name in self.spare_cameras}
        self.lost = {name: found for name, found in alone.items() if isinstance(found, Refusal)}
        kept = {name: camera for name, camera in self._cameras.items() if name not in self.lost}
        return self._observe(kept, now_s) if kept else next(iter(self.lost.values()))

    def _observe(self, cameras: dict[str, _Camera], now_s: float) -> Observation | Refusal:
        refusal = self._fault_of_sources(cameras) or self._age_refusal(cameras, now_s)
        if refusal:
            return refusal
        frames = self._newest_together(cameras)
        if isinstance(frames, Refusal):
            return frames
        stamp_s = min(frame.stamp_s for frame in frames)
        refusal = self._frame_refusal(cameras, frames, stamp_s, now_s)
        if refusal:
            return refusal
        measured = self._state_at(stamp_s)
        if isinstance(measured, Refusal):
            return measured
        q, dq, opening = measured
        self._jump = None
        tip, tip_velocity = self.kinematics.tip(q), self.kinematics.tip_velocity(q, dq)
        shown = dict(zip(cameras, (frame.image for frame in frames), strict=True))
        images = np.stack([shown.get(c.name, np.zeros((c.size, c.size, 3), np.uint8)) for c in self.contract.cameras])
        seen = None if len(shown) == len(images) else tuple(c.name in shown for c in self.contract.cameras)
        return Observation(stamp_s, images, q, dq, tip, tip_velocity, seen, opening)

    def _problem_of(self, state: RobotState) -> str:
        joints = len(self.contract.joint_names)
        for name, value in (("positions", state.q), ("velocities", state.dq)):
            if value.shape != (joints,):
                return (
                    f"Joint state has {name} of shape {value.shape}; expected {(joints,)}: "
                    f"{', '.join(self.contract.joint_names)}."
                )
            if not np.isfinite(value).all():
                wrong = self.contract.joint_names[int(np.argmin(np.isfinite(value)))]
                return f"Joint state {name} of '{wrong}' are not finite: {value.tolist()}. Check the driver."
        if self.contract.moves_gripper and (state.opening is None or not np.isfinite(state.opening)):
            return f"Joint state tells that the gripper is open by {state.opening}; the model needs a number from 0 to 1."
        return "" if np.isfinite(state.stamp_s) else f"Joint state has stamp {state.stamp_s}; expected finite seconds."

    def _forget_if_backwards(self, source: str, stamp_s: float, newest_s: float) -> Refusal | None:
        if stamp_s >= newest_s:
            return None
        self.reset()
        self._jump = Refusal(
            RefusalReason.CLOCK_JUMPED,
            f"{source} went back from {newest_s:.3f} s to {stamp_s:.3f} s; everything before is forgotten. Starts again when "
            "all sources have reported.",
        )
        return self._jump

    def _prune(self, stamped: deque) -> None:
        while stamped[0].stamp_s < stamped[-1].stamp_s - self.config.memory_s:
            stamped.popleft()

    def _fault_of_sources(self, cameras: dict[str, _Camera]) -> Refusal | None:
        """What the last delivery of a source was wrong with, or which source has delivered nothing."""
        if self._state_fault:
            return self._state_fault
        for camera in cameras.values():
            if camera.fault:
                return camera.fault
        silent = [name for name, camera in cameras.items() if not camera.frames]
        if silent:
            return self._jump or Refusal(
                RefusalReason.NO_IMAGE, f"No frame yet from camera {', '.join(silent)}. Check its driver and topic."
            )
        if not self._states:
            return self._jump or Refusal(RefusalReason.NO_STATE, "No joint state yet. Check the robot driver and its topic.")
        return None

    def _age_refusal(self, cameras: dict[str, _Camera], now_s: float) -> Refusal | None:
        """Whether a source's newest datum is too old, or lies in the future of the caller's clock."""
        sources = [
            (f"camera '{n}'", c.frames[-1].stamp_s, c.repeats, self.config.max_image_age_s, RefusalReason.STALE_IMAGE)
            for n, c in cameras.items()
        ]
        sources.append(
            (
                "joint states",
                self._states[-1].stamp_s,
                self._state_repeats,
                self.config.max_state_age_s,
                RefusalReason.STALE_STATE,
            )
        )
        for name, stamp_s, repeats, limit_s, stale in sources:
            age_s = now_s - stamp_s
            if age_s > limit_s and repeats:
                return Refusal(
                    RefusalReason.FROZEN_STAMP,
                    f"The {name} still come with stamp {stamp_s:.3f} s ({repeats} repeats); it is {age_s:.3f} s old. Restart "
                    "the driver.",
                )
            if age_s > limit_s:
                return Refusal(
                    stale,
                    f"The newest of {name} is {age_s:.3f} s old; at most {limit_s:.3f} s is allowed. Check its driver and the "
                    "network.",
                )
            if age_s < -self.config.max_state_age_s:
                return Refusal(
                    RefusalReason.CLOCK_JUMPED,
                    f"The newest of {name} is {-age_s:.3f} s in the future of this clock. Set use_sim_time alike everywhere, "
                    "or synchronise the clocks.",
                )
        return None

    def _newest_together(self, cameras: dict[str, _Camera]) -> list[_Frame] | Refusal:
        """One frame of each camera, as new as possible, with capture times that agree; in the contract's order."""
        sources = list(cameras.values())
        for reference in reversed(sources[0].frames):
            frames = [min(camera.frames, key=lambda frame: abs(frame.stamp_s - reference.stamp_s)) for camera in sources]
            stamps = [frame.stamp_s for frame in frames]
            if max(stamps) - min(stamps) <= self.config.max_skew_s:
                return frames
        newest = ", ".join(f"{name} {camera.frames[-1].stamp_s:.3f} s" for name, camera in cameras.items())
        return Refusal(
            RefusalReason.CAMERAS_APART,
            f"No frames agree within {self.config.max_skew_s:.3f} s; newest: {newest}. Synchronise the cameras.",
        )

    def _frame_refusal(self, cameras: dict[str, _Camera], frames: list[_Frame], stamp_s: float, now_s: float) -> Refusal | None:
        if now_s - stamp_s > self.config.max_image_age_s:
            return Refusal(
                RefusalReason.STALE_IMAGE,
                f"The newest frames that agree are {now_s - stamp_s:.3f} s old; at most {self.config.max_image_age_s:.3f} s "
                "is allowed.",
            )
        for camera, frame in zip(cameras.values(), frames, strict=True):
            name, still_s = camera.contract.name, camera.frames[-1].stamp_s - camera.changed_s
            if still_s > self.config.frozen_after_s and camera.moved_rad > self.config.frozen_motion_rad:
                return Refusal(
                    RefusalReason.FROZEN_CAMERA,
                    f"Camera '{name}' has shown the same pixels for {still_s:.2f} s while a joint moved "
                    f"{camera.moved_rad:.3f} rad. Restart it.",
                )
            mean, deviation = float(frame.image.mean()), float(frame.image.std())
            if mean < self.config.dark_mean and deviation < self.config.dark_deviation:
                return Refusal(
                    RefusalReason.DARK_CAMERA,
                    f"Camera '{name}' sees black (mean {mean:.1f} of 255, deviation {deviation:.1f}). Uncover it, or turn on "
                    "the light.",
                )
        return None

    def _state_at(self, stamp_s: float) -> tuple[Float[np.ndarray, "J"], Float[np.ndarray, "J"], float | None] | Refusal:
        """Joint positions and velocities at a capture time, linear between the two states around it; the nearest's opening.

        Beyond the newest state, or before the oldest, the nearest is carried on with its own velocity, for at most
        `max_state_gap_s`.
        """
        times = np.array([state.stamp_s for state in self._states])
        after = int(np.searchsorted(times, stamp_s))
        nearest = self._states[int(np.argmin(np.abs(times - stamp_s)))]
        gap_s = stamp_s - nearest.stamp_s
        if abs(gap_s) > self.config.max_state_gap_s:
            return Refusal(
                RefusalReason.STALE_STATE,
                f"The joint state nearest to the frames is {abs(gap_s):.3f} s away; at most {self.config.max_state_gap_s:.3f} "
                "s is allowed.",
            )
        if after in (0, len(times)):
            return nearest.q + gap_s * nearest.dq, nearest.dq.copy(), nearest.opening
        before, behind = self._states[after - 1], self._states[after]
        share = (stamp_s - before.stamp_s) / (behind.stamp_s - before.stamp_s)
        q, dq = ((1 - share) * a + share * b for a, b in ((before.q, behind.q), (before.dq, behind.dq)))
        return q, dq, nearest.opening
