"""What the model was trained on and operation must repeat: cameras, sizes, rates, robot, action definition.

Stored as JSON with every dataset and checkpoint, and compared at every border. Knows no files, no ROS.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

TIP = "tip displacement, base frame, m"
TIP_AND_GRIPPER = f"{TIP}; gripper, 0 open, 1 closed"


@dataclass(frozen=True)
class CameraContract:
    """One camera: the frames it delivers, and the square they are cut and shrunk to."""

    name: str
    width: int  # [px] of the delivered frame
    height: int  # [px]
    crop: tuple[int, int, int, int]  # x, y, width, height [px] kept of the delivered frame
    size: int  # [px] side of the prepared square image


@dataclass(frozen=True)
class Contract:
    """The border between the world and a model.

    An action is the tip's displacement [m] in the base frame over one step of `step_s`, and for a model that moves the gripper
    its command for that step; a block is `block_steps` of them, and the model foresees block by block. Images are RGB, 8 bit.
    """

    robot: str
    joint_names: tuple[str, ...]
    cameras: tuple[CameraContract, ...]
    step_s: float = 0.1
    block_steps: int = 3
    action: str = TIP  # or TIP_AND_GRIPPER

    @property
    def block_s(self) -> float:
        return self.step_s * self.block_steps

    @property
    def moves_gripper(self) -> bool:
        return self.action == TIP_AND_GRIPPER

    @property
    def step_size(self) -> int:
        """Numbers in the action of one step."""
        return 3 + self.moves_gripper

    @property
    def block_size(self) -> int:
        """Numbers in one action block, step by step."""
        return self.step_size * self.block_steps

    @property
    def proprio_size(self) -> int:
        """Numbers in the proprioception vector: joints, the gripper's opening where it is moved, tip position, tip velocity."""
        return len(self.joint_names) + self.moves_gripper + 6

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name this contract."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:12]

    def compare(self, other: "Contract") -> list[str]:
        """One sentence for each difference, with both values; empty when the two agree."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{key}: expected {mine[key]}, got {theirs[key]}" for key in mine if mine[key] != theirs[key]]

    def to_json(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_json(raw: dict) -> "Contract":
        cameras = tuple(CameraContract(**{**c, "crop": tuple(c["crop"])}) for c in raw["cameras"])
        return Contract(**{**raw, "joint_names": tuple(raw["joint_names"]), "cameras": cameras})
