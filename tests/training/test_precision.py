"""In what numbers a network runs while it learns."""

import pytest
import torch

from foresight.training import precision

HALF, WHOLE = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("wanted", "fast", "kind"), [("auto", True, HALF), ("auto", False, WHOLE), ("bf16", False, HALF), ("fp32", True, WHOLE)]
)
def test_auto_is_bfloat16_where_the_cpu_is_fast_at_it_and_a_choice_is_kept(monkeypatch, wanted, fast, kind):
    """What comes out of a layer tells in what it was multiplied."""
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: fast)
    with precision.autocast(torch.device("cpu"), wanted):
        assert torch.nn.Linear(4, 2)(torch.zeros(1, 4)).dtype == kind
