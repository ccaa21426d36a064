"""In what numbers networks are run while they learn. Losses and weights are float32 whatever is chosen."""

from __future__ import annotations

from typing import Literal

import torch

from foresight.world_model.rollout import multiplies_bfloat16

Precision = Literal["auto", "bf16", "fp32"]


def autocast(device: torch.device, precision: Precision = "auto") -> torch.autocast:
    """bfloat16 or float32, as `precision` says; auto: bfloat16, but on a CPU that would take many times as long for it."""
    fast = device.type != "cpu" or multiplies_bfloat16()
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" or (precision == "auto" and fast))
