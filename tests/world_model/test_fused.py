"""The fused kernels foresee what `FastRollout` foresees. Triton's interpreter runs them on the CPU (`tests/conftest.py`)."""

import sys
from dataclasses import replace

import pytest
import torch

from foresight.world_model.fused import FusedRollout, Tiling
from foresight.world_model.rollout import FastRollout
from foresight.world_model.transformer import LatentTransformer, TransformerConfig
from tests.world_model.test_transformer import stirred

KERNELS = "foresight.world_model.fused_kernels"
try:
    import triton
    import triton.language as tl
    from triton.runtime import interpreter

    from foresight.world_model import fused_kernels
except ImportError:
    triton = None
needs_triton = pytest.mark.skipif(triton is None, reason="`make kernels` installs Triton (700 MB) and runs these")

SMALL = TransformerConfig(
    block=6, latent=48, depth=2, heads=4, head=16, hidden=256, action_hidden=32, image=28, encoder_depth=1, encoder_hidden=64
)
TILING = Tiling(rows=16, splits=2)  # two heads and two chunks of hidden units to a program
S, H, D = 21, 4, SMALL.latent  # S is no multiple of a tile's rows, H is more than the window


def model_of(config: TransformerConfig) -> LatentTransformer:
    torch.manual_seed(0)
    return stirred(LatentTransformer(config))


@pytest.fixture(scope="module")
def model() -> LatentTransformer:
    """Small, with every weight and statistic away from where it starts."""
    return model_of(SMALL)


def inputs(frames: int, robots: int = 1):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return draw(robots, frames, D), draw(robots, frames - 1, SMALL.block), draw(S - S % robots, H, SMALL.block)


def foreseen(rollout: FastRollout, latents, executed, blocks) -> torch.Tensor:
    with torch.no_grad():
        return rollout.rollout(rollout.context(latents, executed), blocks)


@pytest.fixture
def numbers_not_bits(monkeypatch):
    """Triton's interpreter multiplies the bits of bfloat16 as if they were integers. Here it multiplies the numbers."""
    plain = interpreter.InterpreterBuilder.create_dot

    def create_dot(self, a, b, *rest):
        a, b = (self.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
        return plain(self, a, b, *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@needs_triton
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_kernels_foresee_what_the_fast_rollout_foresees(model, frames):
    """To 1e-5 in float32, as the window fills and after it has slid past the context."""
    expected = foreseen(FastRollout(model), *inputs(frames))
    assert expected.std() > 0.1
    found = foreseen(FusedRollout(model, torch.float32, TILING), *inputs(frames))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@needs_triton
@pytest.mark.parametrize("window", [1, 2])
def test_smaller_windows_are_kept_too(window):
    """A window of one frame is attended to without any other, and one of two with one."""
    narrow = model_of(replace(SMALL, window=window))
    expected = foreseen(FastRollout(narrow), *inputs(3))
    torch.testing.assert_close(foreseen(FusedRollout(narrow, torch.float32, TILING), *inputs(3)), expected, atol=1e-5, rtol=0)


@needs_triton
def test_candidates_of_several_robots_begin_where_their_robot_is(model):
    """Two robots' frames differ, and each candidate sees those of its own."""
    expected = foreseen(FastRollout(model), *inputs(3, robots=2))
    found = foreseen(FusedRollout(model, torch.float32, TILING), *inputs(3, robots=2))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@needs_triton
@pytest.mark.parametrize("frames", [1, 3])
def test_blocks_that_are_decided_on_the_way_lead_where_the_fast_rollout_leads(model, frames):
    """To 1e-5 in float32: each block depends on the latent before it, so every step's latent has to be whole in time."""
    latents, executed, blocks = inputs(frames)
    decide = lambda h, latent: blocks[:, h] * latent[:, : SMALL.block].tanh()  # noqa: E731
    found = []
    for rollout in (FastRollout(model), FusedRollout(model, torch.float32, TILING)):
        with torch.no_grad():
            found.append(rollout.follow(rollout.context(latents, executed), S, H, decide))
    assert found[0][0].std() > 0.1
    for expected, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, expected, atol=1e-5, rtol=0)


@needs_triton
def test_in_bfloat16_the_error_is_that_of_the_fast_rollout(model, numbers_not_bits):
    """The interpreter cuts off what a GPU would round, so up to twice the error is allowed."""
    exact, half = (foreseen(FastRollout(model, dtype), *inputs(2)) for dtype in (torch.float32, torch.bfloat16))
    found = foreseen(FusedRollout(model, tiling=TILING), *inputs(2))
    error, half_error = ((x - exact).square().mean().sqrt() for x in (found, half))
    assert 0 < error < 2 * half_error < 0.1 * exact.std()


@needs_triton
def test_the_same_inputs_give_the_same_bits(model):
    """Again, and whoever else is in the batch: a candidate's place does not change what is foreseen for it."""
    rollout = FusedRollout(model, torch.float32, TILING)
    latents, executed, blocks = inputs(2)
    first = foreseen(rollout, latents, executed, blocks[:, :2])
    fewer = foreseen(rollout, latents, executed, blocks[17:19, :2])
    torch.testing.assert_close(fewer, first[17:19], atol=1e-6, rtol=0)
    assert torch.equal(foreseen(rollout, latents, executed, blocks[:, :2]), first)


@needs_triton
def test_where_a_gradient_is_wanted_there_is_one(model):
    """The kernels have none; it is the fast rollout's."""
    latents, executed, blocks = inputs(2)
    slopes = []
    for rollout in (FastRollout(model), FusedRollout(model, torch.float32, TILING)):
        leaf = blocks.clone().requires_grad_()
        rollout.rollout(rollout.context(latents, executed), leaf).square().sum().backward()
        slopes.append(leaf.grad)
    assert slopes[0].abs().max() > 1e-3
    torch.testing.assert_close(slopes[1], slopes[0], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": 56}, "latent must be a sum of two powers of two.*56"),
        ({"latent": 1, "encoder_heads": 1}, "latent must be a sum of two powers of two.*1"),
        ({"head": 24}, "head must be a power of two.*24"),
        ({"heads": 3}, r"heads \(3\) must be a multiple of splits \(2\)"),
        ({"hidden": 96}, r"hidden \(96\) must be a multiple of splits \(2\) times chunk \(64\)"),
        ({"window": 4}, "window must be at most 3.*4"),
    ],
)
def test_networks_that_the_kernels_cannot_run_are_refused(change, message):
    """The messages name the size and what it should be."""
    sizes = {"encoder_heads": 1, **change}
    with pytest.raises(ValueError, match=message):
        FusedRollout(LatentTransformer(replace(SMALL, **sizes)).eval(), tiling=TILING)


@pytest.mark.parametrize(
    ("change", "message"), [({"rows": 24}, "rows.*24"), ({"warps": 3}, "warps.*3"), ({"splits": 0}, "splits.*0")]
)
def test_tilings_that_no_kernel_can_have_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Tiling(**change)


def test_without_triton_the_refusal_says_what_to_install(model, monkeypatch):
    monkeypatch.delitem(sys.modules, KERNELS, raising=False)
    monkeypatch.delattr("foresight.world_model.fused_kernels", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ValueError, match="pip install triton"):
        FusedRollout(model, tiling=TILING)


@needs_triton
def test_without_a_gpu_the_refusal_says_where_to_move_the_model(model, monkeypatch):
    monkeypatch.setattr(fused_kernels, "INTERPRETED", False)
    with pytest.raises(ValueError, match=r"on cpu.*model\.cuda\(\)"):
        FusedRollout(model, tiling=TILING)
