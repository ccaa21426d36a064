"""The latent transformer, and that its fast rollout foresees exactly what the network itself would."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from foresight.interfaces import Rollout
from foresight.planning.search.anytime import Budget, run
from foresight.planning.search.cem import Cem
from foresight.planning.search.draws import white
from foresight.planning.search.state import State
from foresight.planning.shooting import Shooting
from foresight.world_model.eight_bits import LARGE, EightBits, in_eight_bits, multiplies_eight_bits
from foresight.world_model.native import compiled_for
from foresight.world_model.rollout import FastRollout, compiled
from foresight.world_model.transformer import (
    BlockActor,
    LatentTransformer,
    TransformerConfig,
    VisionTransformer,
    attend,
    normalise,
)

SMALL = TransformerConfig(
    block=6, latent=48, depth=3, heads=4, head=16, hidden=96, action_hidden=32, image=28, encoder_depth=1, encoder_hidden=64
)
S, H, D = 5, 6, SMALL.latent


@pytest.fixture(scope="module")
def model() -> LatentTransformer:
    """Small, with every weight and statistic away from where it starts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return stirred(LatentTransformer(SMALL))


def stirred(model: LatentTransformer) -> LatentTransformer:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            size = 0.5 * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.08
            parameter += size * torch.randn(parameter.shape, generator=generator)
        for projector in (model.projector, model.prediction_projector):
            projector.norm.running_mean += torch.randn(projector.norm.running_mean.shape, generator=generator)
            projector.norm.running_var *= 1 + torch.rand(projector.norm.running_var.shape, generator=generator)
    return model.eval()


def inputs(frames: int, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return draw(frames, D), draw(frames - 1, SMALL.block), draw(S, H, SMALL.block)


def by_network(model, latents, executed, blocks) -> torch.Tensor:
    """The whole sequence again at every step, nothing kept."""
    sequence = latents.expand(S, -1, -1)
    actions = torch.cat([executed.expand(S, -1, -1), blocks], 1)
    for _ in range(H):
        sequence = torch.cat([sequence, model(sequence, actions[:, : sequence.shape[1]])[:, -1:]], 1)
    return sequence[:, latents.shape[0] :]


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_kept_keys_and_values_are_exact(model, frames):
    """Cached equals uncached to 1e-5 in fp32, also where the window has slid past the context."""
    latents, executed, blocks = inputs(frames)
    with torch.no_grad():
        expected = by_network(model, latents, executed, blocks)
        found = FastRollout(model).begin(latents, executed).rollout(blocks)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_kept_keys_and_values_are_exact_at_the_published_sizes():
    """The same at 18 M parameters, 192 numbers in a latent, horizon 5; and the count of parameters is the published one."""
    model = stirred(LatentTransformer())
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(18.03, abs=0.02)
    generator = torch.Generator().manual_seed(1)
    latents, blocks = torch.randn(1, 192, generator=generator), torch.randn(2, 5, 10, generator=generator)
    with torch.no_grad():
        found = FastRollout(model).begin(latents, torch.zeros(0, 10)).rollout(blocks)
        sequence = latents.expand(2, 1, -1)
        for h in range(5):
            sequence = torch.cat([sequence, model(sequence, blocks[:, : h + 1])[:, -1:]], 1)
    torch.testing.assert_close(found, sequence[:, 1:], atol=1e-5, rtol=0)


def test_the_gradient_through_the_fast_rollout_is_the_networks(model):
    """Adam through the latents sees the same slope."""
    latents, executed, blocks = inputs(2)
    leaf, other = blocks.clone().requires_grad_(), blocks.clone().requires_grad_()
    FastRollout(model).begin(latents, executed).rollout(leaf).square().sum().backward()
    by_network(model, latents, executed, other).square().sum().backward()
    torch.testing.assert_close(leaf.grad, other.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_candidates_split_over_threads_foresee_the_same(model, count):
    """Sharding changes who computes, not what, also where there are fewer candidates than threads."""
    latents, executed, blocks = inputs(3)
    blocks = blocks[:count]
    with ThreadPoolExecutor(3) as executor, torch.no_grad():
        apart = FastRollout(model, executor=executor, shards=3).begin(latents, executed)
        assert isinstance(apart, Rollout)
        torch.testing.assert_close(
            apart.rollout(blocks), FastRollout(model).begin(latents, executed).rollout(blocks), atol=1e-5, rtol=0
        )


def test_several_robots_share_one_rollout(model):
    """The candidates of two robots, foreseen together and over threads, are those of each alone."""
    (first, executed, blocks), (second, executed_too, blocks_too) = inputs(2, 0), inputs(2, 1)
    with ThreadPoolExecutor(3) as executor, torch.no_grad():
        fast = FastRollout(model, executor=executor, shards=3)
        together = fast.context(torch.stack([first, second]), torch.stack([executed, executed_too]))
        found = fast.rollout(together, torch.cat([blocks, blocks_too]))
        alone = [fast.begin(first, executed).rollout(blocks), fast.begin(second, executed_too).rollout(blocks_too)]
        torch.testing.assert_close(found, torch.cat(alone), atol=1e-5, rtol=0)
        with pytest.raises(ValueError, match=r"5 candidates .* 2 robots"):
            fast.rollout(together, blocks)


def test_what_an_actor_decides_on_the_way_is_foreseen_like_the_rest(model):
    """Blocks chosen in the imagined latents lead to the same latents when they are given beforehand."""
    latents, executed, _ = inputs(3)
    actor, goal = BlockActor(SMALL, hidden=32), torch.randn(S, D, generator=torch.Generator().manual_seed(5))
    fast, aims = FastRollout(model), torch.arange(1.0, S + 1)
    beginning = fast.begin(latents, executed)
    with torch.no_grad():
        blocks, found = fast.follow(beginning.context, S, H, lambda h, z: actor(z, goal, (aims - h).clamp_min(1)))
        torch.testing.assert_close(beginning.rollout(blocks), found, atol=1e-5, rtol=0)
    assert blocks.shape == (S, H, SMALL.block) and (blocks[:, 0] - blocks[:, 1]).abs().max() > 1e-4


def test_prediction_is_causal(model):
    """A block changes nothing before it."""
    latents, executed, blocks = inputs(2)
    changed = blocks.clone()
    changed[:, 3] += 1.0
    beginning = FastRollout(model).begin(latents, executed)
    with torch.no_grad():
        before, after = beginning.rollout(blocks), beginning.rollout(changed)
    torch.testing.assert_close(before[:, :3], after[:, :3], atol=0, rtol=0)
    assert (before[:, 3] - after[:, 3]).abs().max() > 1e-3


def test_one_layer_sees_the_window_and_nothing_older():
    """In one layer's attention the third-last frame matters, the fourth-last does not."""
    one = stirred(LatentTransformer(TransformerConfig(**{**SMALL.__dict__, "depth": 1})))
    latents, executed, blocks = inputs(4)
    with torch.no_grad():
        reach = [_change_in_last(one, latents, executed, blocks, frame) for frame in range(4)]
    assert reach[0] == 0 and min(reach[1:]) > 1e-4


def _change_in_last(model, latents, executed, blocks, frame: int) -> float:
    other = latents.clone()
    other[frame] = torch.randn(D, generator=torch.Generator().manual_seed(9))
    fast = FastRollout(model)
    first = [fast.begin(z, executed).rollout(blocks[:, :1]) for z in (latents, other)]
    return float((first[0] - first[1]).abs().max())


class NearGoal:
    """Ends near a latent."""

    def __init__(self, goal):
        self.goal = goal

    def score(self, latents, controls):
        return (latents[:, -1] - self.goal).square().sum(-1)


vnni = pytest.mark.skipif(not multiplies_eight_bits(), reason="this CPU has no instructions for eight bits (AVX-512 VNNI)")


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.int8, marks=vnni)])
def test_plans_of_fewer_bits_are_as_good_as_those_of_float32(model, dtype):
    """CEM on the same draws: judged in fp32, the plan closes at least 95 % of the way that the fp32 plan closes."""
    shares = []
    few = in_eight_bits(model, *examples()) if dtype == torch.int8 else FastRollout(model, dtype)
    for seed in range(4):
        latents, executed, _ = inputs(1, seed)
        exact = FastRollout(model).begin(latents, executed)
        wanted = 0.7 * torch.randn(1, H, SMALL.block, generator=torch.Generator().manual_seed(100 + seed))
        with torch.no_grad():
            judge = Shooting(exact, NearGoal(exact.rollout(wanted)[:, -1]))
            still, costs = float(judge(torch.zeros(1, H, SMALL.block)).cost), []
            for fast in (FastRollout(model), few):
                evaluate = Shooting(fast.begin(latents, executed), judge.objective)
                start = State(torch.zeros(H, SMALL.block), torch.ones(H, SMALL.block))
                draws = white(H, SMALL.block, torch.Generator().manual_seed(seed))
                found = run(Cem(96, 12), evaluate, draws, start, Budget(15, lambda: 0.0, 0.0))
                costs.append(float(judge(found.best.controls[found.best.cost.argmin()][None]).cost))
        assert costs[0] < 0.5 * still
        shares.append((still - costs[1]) / (still - costs[0]))
    assert min(shares) > 0.95


@vnni
@pytest.mark.parametrize("frames", [1, 3])
def test_eight_bits_foresee_nearly_the_same(model, frames):
    """Hardly worse than bfloat16; all large layers, and only those, are in integers."""
    latents, executed, blocks = inputs(frames)
    few = in_eight_bits(model, *examples())
    with torch.no_grad():
        exact, half, found = (
            fast.begin(latents, executed).rollout(blocks)
            for fast in (FastRollout(model), FastRollout(model, torch.bfloat16), few)
        )
    error, half_error = ((x - exact).square().mean().sqrt() for x in (found, half))
    assert 0 < error < 1.5 * half_error < 0.15 * (exact - exact.mean(0)).square().mean().sqrt()
    assert all(isinstance(getattr(layer, name), EightBits) for layer in few.layers for name in LARGE)
    assert not isinstance(few.narrow, EightBits)


def test_one_pass_between_layers_is_what_torch_does(model):
    """Attention to one, two and three frames, and the modulated sum: as in float32, to half a number of the eight bits' 256."""
    native, generator = compiled_for(SMALL), torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator).bfloat16()  # noqa: E731
    rows, inner, per_real, zero = 7, SMALL.heads * SMALL.head, 30.0, 120.0
    wide, bias = [draw(rows, 3 * inner) for _ in range(3)], torch.randn(3, 1, SMALL.heads, generator=generator)
    heads = lambda x: x.float().view(-1, SMALL.heads, SMALL.head)  # noqa: E731
    as_whole = lambda x: (per_real * x + zero).clamp(0, 255)  # noqa: E731
    for count in (1, 2, 3):
        frames = [tuple(frame.split(inner, -1)[1:]) for frame in wide[-count:]]
        q = wide[-1][:, :inner]
        scores = torch.stack([(heads(q) * heads(k)).sum(-1) for k, _ in frames]) + bias[-count:]
        wanted = sum(w[..., None] * heads(v) for w, (_, v) in zip(scores.softmax(0), frames, strict=True)).flatten(1)
        found = native.attend(q, frames, bias[-count:], per_real, zero)
        assert (found.float() - as_whole(wanted)).abs().max() <= 0.501
    x, added, modulation = draw(rows, D), draw(rows, D), draw(rows, 6, D).unbind(1)
    shift, scale, gate = modulation[:3]
    for here, more in ((x, added), (x, None), (x[:1], added), (x[:1], None)):
        total = here if more is None else (here.float() + gate.float() * more.float()).bfloat16()
        wanted = shift.float() + normalise(total.float()) * scale.float()
        found = native.modulate(here, shift, scale, per_real, zero, None if more is None else gate, more)
        assert torch.equal(found[0], total) and (found[1].float() - as_whole(wanted)).abs().max() <= 0.51


def test_eight_bits_are_refused_where_the_cpu_has_no_instructions_for_them(model, monkeypatch):
    """Their sums would overflow there, and take a hundred times as long."""
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(RuntimeError, match=r"no instructions for eight bits.*float32"):
        in_eight_bits(model, *examples())


@vnni
def test_without_a_compiler_plans_are_made_in_torchs_operations_and_that_is_said(model, monkeypatch):
    """Compiled it foresees as well; what is not a number stays so either way."""
    latents, executed, blocks = inputs(3)
    fast = in_eight_bits(model, *examples())
    compiled_for.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(RuntimeWarning, match="native.cpp was not compiled .*no-such-compiler"):
        plain = in_eight_bits(model, *examples())
    compiled_for.cache_clear()
    assert fast.native is not None and plain.native is None
    with torch.no_grad():
        exact, a, b = (r.begin(latents, executed).rollout(blocks) for r in (FastRollout(model), fast, plain))
        lost = [r.begin(latents * torch.nan, executed).rollout(blocks).isnan().all() for r in (fast, plain)]
    assert (a - exact).square().mean() < 1.1 * (b - exact).square().mean() and all(lost)


def examples() -> tuple[torch.Tensor, torch.Tensor]:
    """Frames and blocks from which ranges are learned; no test plans with these."""
    generator = torch.Generator().manual_seed(77)
    return torch.randn(32, 3, D, generator=generator), torch.randn(256, H, SMALL.block, generator=generator)


def test_a_failing_compiler_is_replaced_and_said():
    """Planning goes on uncompiled, and a warning says why; the compiler is not tried again."""
    calls = []

    def broken(graph, example):
        calls.append(1)
        raise RuntimeError("no C++ compiler found")

    double = compiled(lambda x: 2 * x, backend=broken)
    with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler found"):
        assert float(double(torch.tensor(2.0))) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(double(torch.tensor(3.0))) == 6
    assert len(calls) == 1


def test_many_sizes_of_a_search_stay_compiled():
    """More sets of shapes than torch's own limit are each compiled once."""
    compiled_for = []

    def backend(graph, example):
        compiled_for.append(example[0].shape)
        return graph.forward

    double = compiled(lambda x: 2 * x, backend=backend)
    for _ in range(2):
        for n in range(2, 14):
            assert torch.equal(double(torch.ones(n)), torch.full((n,), 2.0))
    assert len(compiled_for) == 12


def test_impossible_settings_are_refused(model):
    """The messages name what is wrong."""
    latents, executed, _ = inputs(3)
    with pytest.raises(ValueError, match="3 frames have 2 blocks"):
        FastRollout(model).begin(latents, executed[:1])
    with pytest.raises(ValueError, match="shards"):
        FastRollout(model, shards=2)
    with pytest.raises(ValueError, match="training mode"):
        FastRollout(LatentTransformer(SMALL))
    with pytest.raises(ValueError, match="multiple of patch"):
        TransformerConfig(image=30)


def test_the_class_token_is_that_of_all_tokens_through_every_layer():
    """The last layer, made for one token alone, gives it and every gradient as if all had been made."""
    torch.manual_seed(0)
    eyes = VisionTransformer(replace(SMALL, encoder_depth=3)).double()
    images = torch.randn(2, 3, SMALL.image, SMALL.image, dtype=torch.float64)
    found, gradients = eyes(images), []

    def of_all(images: torch.Tensor) -> torch.Tensor:
        x = torch.cat([eyes.first.expand(len(images), -1, -1), eyes.embed(images).flatten(2).mT], 1) + eyes.position
        for layer in eyes.layers:
            x = layer(x)
        return eyes.norm(x)[:, 0]

    expected, weights = of_all(images), torch.randn(2, SMALL.latent, dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    for latents in (found, expected):
        gradients.append(torch.autograd.grad((latents * weights).sum(), list(eyes.parameters())))
    for mine, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("tokens", [257, 17])
def test_attention_by_plain_products_is_about_as_exact_as_the_fused_kernel(tokens):
    """In bfloat16, forwards and backwards, with logits that spread by 2: off by 1 % at most, and by less than twice as much."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda spread: spread * torch.randn(2, 3, tokens, 64, generator=generator, dtype=torch.float64)  # noqa: E731
    exact, weights = [draw(2**0.5), draw(2**0.5), draw(1.0)], draw(1.0).bfloat16()

    def made(function, dtype) -> list[torch.Tensor]:
        given = [x.to(dtype).requires_grad_() for x in exact]
        out = function(*given)
        return [out.detach(), *torch.autograd.grad(out, given, weights.to(dtype))]

    truth = made(F.scaled_dot_product_attention, torch.float64)
    plain, fused = (made(function, torch.bfloat16) for function in (attend, F.scaled_dot_product_attention))
    for mine, theirs, wanted in zip(plain, fused, truth, strict=True):
        off, of_fused = ((x.double() - wanted).norm() / wanted.norm() for x in (mine, theirs))
        assert off < 0.01 and off < 2 * of_fused
