"""Finds what the arguments leave open: the parameter file and the world model that belong to a robot, and whether that model
moves the gripper. Knows folders only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from foresight_bringup.graph import Arguments

SHIPPED = "models"  # folder of the checkout that holds a world model for each robot


def complete(arguments: Arguments, prefix: Path, share: Path) -> Arguments:
    """The arguments with files found and paths made absolute. Raises ValueError with one line when a named file is missing.

    `prefix` and `share` are where this package is installed: the checkout lies above the one, config/ in the other.
    """
    robot = Path(arguments.robot).stem
    params_file = Path(arguments.params_file or share / "config" / f"{robot}.yaml")
    if arguments.params_file and not params_file.is_file():
        there = ", ".join(sorted(str(path) for path in (share / "config").glob("*.yaml")))
        raise ValueError(f"No parameter file {params_file}. Shipped: {there}.")
    checkpoint = Path(arguments.checkpoint) if arguments.checkpoint else _shipped(prefix, robot)
    return replace(
        arguments,
        params_file=str(params_file.absolute()) if params_file.is_file() else "",
        checkpoint=str(checkpoint.absolute()),
        gripper=arguments.gripper or _moves_gripper(checkpoint),
        robot=str(Path(arguments.robot).absolute()) if Path(arguments.robot).is_file() else arguments.robot,
    )


def _moves_gripper(checkpoint: Path) -> str:
    """Whether the world model's actions move the gripper; false where that cannot be read, which the nodes say better."""
    try:
        return str("gripper" in json.loads((checkpoint / "config.json").read_text())["contract"]["action"]).lower()
    except (OSError, ValueError, KeyError, TypeError):
        return "false"


def _shipped(prefix: Path, robot: str) -> Path:
    """models/<robot> of the checkout above the workspace; where there is none, the first place it was looked for."""
    candidates = [parent / SHIPPED / robot for parent in prefix.absolute().parents]
    return next((path for path in candidates if path.is_dir()), Path(SHIPPED) / robot)
