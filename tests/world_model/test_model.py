"""The world model's faces: shapes, units, goals, surprise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from foresight.contract import TIP_AND_GRIPPER
from foresight.data import Goal, Observation
from foresight.planning.residuals import QUARTER
from foresight.world_model.belief import BeliefFilter
from foresight.world_model.model import SYMMETRY, WorldModel
from tests.world_model.conftest import TINY


def observation(stamp_s, tip=(0.4, 0.0, 0.1), seed=0):
    images = np.random.default_rng(seed).integers(0, 255, (2, 16, 16, 3), np.uint8)
    return Observation(stamp_s, images, np.zeros(6), np.zeros(6), np.array(tip), np.zeros(3))


def test_imagination_is_in_physical_units(tiny):
    """An untrained predictor changes nothing: proprioception comes back as it was, in SI units."""
    tiny.proprio_mean.fill_(0.3)
    tiny.proprio_std.fill_(2.0)
    z, p = torch.randn(5, 8), torch.randn(5, 12)
    later, proprio = tiny.imagine(z, p, torch.randn(5, 9))
    torch.testing.assert_close(later, z)
    torch.testing.assert_close(proprio, p)


def test_only_the_given_parts_of_a_goal_matter(tiny):
    """Proposals for an object goal do not change with a latent that is weighted zero."""
    z, p, k = torch.randn(3, 8), torch.randn(3, 12), torch.ones(3)
    spot = np.array([0.5, 0.1, 0.02])
    plain = tiny.propose(z, p, Goal(object=spot), k)
    ignored = tiny.propose(z, p, Goal(latent=np.ones(8, np.float32), object=spot, weights=(0.0, 1.0, 1.0)), k)
    counted = tiny.propose(z, p, Goal(latent=np.ones(8, np.float32), object=spot), k)
    torch.testing.assert_close(plain, ignored)
    assert not torch.allclose(plain, counted)


def test_the_parts_of_a_goal_weigh_as_told(tiny):
    """The heaviest counts alone for as much as it outweighs the others, with them for the rest; equal ones as if unweighed."""
    z, p, whole = torch.randn(3, 8), torch.randn(3, 12), Goal(np.ones(8, np.float32), *np.array([[0.5, 0.1, 0], [0.4, -0.1, 0]]))
    to_go = lambda *weights: tiny.blocks_to_go(z, p, replace(whole, weights=weights))  # noqa: E731
    for same in ((1.0, 1.0, 1.0), (0.1, 0.1, 0.1), (7.0, 7.0, 7.0)):
        features = tiny.features(z, p, *tiny.goal_tensors(replace(whole, weights=same)))
        assert torch.equal(to_go(*same), tiny.judge(features)), "as ever, to the bit"
    assert torch.equal(to_go(3.0, 3.0, 0.0), to_go(1.0, 1.0, 0.0))
    all_of_it, two, one = to_go(1.0, 1.0, 1.0), to_go(1.0, 0.0, 1.0), to_go(0.0, 0.0, 1.0)
    assert min((a - b).abs().min() for a, b in ((all_of_it, two), (two, one), (all_of_it, one))) > 1e-4
    torch.testing.assert_close(to_go(1.0, 0.1, 1.0), 0.1 * all_of_it + 0.9 * two)
    torch.testing.assert_close(to_go(2.0, 0.5, 5.0), 0.1 * all_of_it + 0.3 * two + 0.6 * one)
    assert not torch.allclose(to_go(1.0, 0.1, 1.0), to_go(1.0, 5.0, 1.0))
    goal = replace(whole, weights=(1.0, 0.1, 5.0))
    assert torch.equal(tiny.towards(goal).blocks_to_go(z, p, goal), tiny.blocks_to_go(z, p, goal))


def test_critics_that_differ_are_asked_of_a_weighted_goal_one_by_one(tiny):
    """Their mean is what is to go; how far they differ is of the same weighted blocks."""
    torch.manual_seed(1)
    model = WorldModel(tiny.contract, replace(TINY, critics=3)).requires_grad_(False)
    z, p, tip, thing = torch.randn(3, 8), torch.randn(3, 12), np.array([0.5, 0.1, 0.02]), np.array([0.4, -0.1, 0.02])
    goal, both, only = Goal(tip=tip, object=thing, weights=(1.0, 1.0, 0.25)), Goal(tip=tip, object=thing), Goal(tip=tip)
    each = [model.expected(model.logits(model.features(z, p, *model.goal_tensors(g)))) for g in (both, only)]
    torch.testing.assert_close(model.spread(z, p, goal), (0.25 * each[0] + 0.75 * each[1]).std(0))
    assert torch.equal(model.spread(z, p, both), each[0].std(0))


def test_a_model_with_a_goal_in_mind_says_the_same_of_that_goal_and_of_others(tiny):
    """Bit for bit; and the model itself keeps none in mind."""
    z, p, k = torch.randn(3, 8), torch.randn(3, 12), torch.ones(3)
    goal, other = Goal(latent=np.ones(8, np.float32), tip=np.array([0.5, 0.1, 0.02])), Goal(object=np.array([0.4, 0.0, 0.02]))
    minded = tiny.towards(goal)
    for asked in (goal, other, replace(goal, tip=np.array([0.3, 0.1, 0.02]))):
        assert torch.equal(minded.propose(z, p, asked, k), tiny.propose(z, p, asked, k))
        assert torch.equal(minded.blocks_to_go(z, p, asked), tiny.blocks_to_go(z, p, asked))
    before = tiny.blocks_to_go(z, p, goal)
    tiny.readout[-1].bias.data += 1.0
    assert not torch.equal(tiny.blocks_to_go(z, p, goal), before)


def test_the_critic_stays_within_its_range(tiny):
    """Blocks to go lie between zero and the farthest distance it knows."""
    to_go = tiny.blocks_to_go(torch.randn(50, 8), torch.randn(50, 12), Goal(tip=np.zeros(3)))
    assert ((to_go >= 0) & (to_go <= tiny.config.max_blocks)).all()


def test_one_critic_has_no_spread_and_without_a_readout_there_is_no_yaw(tiny):
    """The sentences say what to train with."""
    with pytest.raises(ValueError, match=r"--model\.critics 3"):
        tiny.spread(torch.randn(2, 8), torch.randn(2, 12), Goal(tip=np.zeros(3)))
    with pytest.raises(ValueError, match=r"--model\.yaw"):
        tiny.read_yaw(torch.randn(2, 8))


def test_images_of_the_wrong_size_are_refused(tiny):
    """Both shapes stand in the message."""
    with pytest.raises(ValueError, match=r"\(2, 16, 16, 3\).*\(2, 8, 8, 3\)"):
        tiny.encode_images(np.zeros((2, 8, 8, 3), np.uint8))


def test_decoded_latents_are_pictures_of_every_camera(tiny):
    """Bytes, one picture a camera."""
    pictures = tiny.decode(torch.randn(4, 8))
    assert pictures.shape == (4, 2, 16, 16, 3) and pictures.dtype == np.uint8


def test_surprise_needs_a_block_of_memory(tiny):
    """Unknown at first; after one block a number: the imagination's error over its usual size."""
    beliefs = BeliefFilter(tiny)
    surprises = [beliefs.update(observation(0.1 * i, seed=3)).surprise for i in range(5)]
    assert all(np.isnan(s) for s in surprises[:3])
    assert surprises[3] == pytest.approx(0.0, abs=1e-6)  # nothing changed, and the untrained predictor says so
    tiny.surprise_scale.fill_(1e-9)  # an untrained encoder hardly tells pictures apart
    assert beliefs.update(observation(0.5, seed=4)).surprise > 1


def test_time_that_goes_backwards_clears_the_memory(tiny):
    """A reset simulation or a corrected clock gives no false surprise."""
    beliefs = BeliefFilter(tiny)
    for i in range(5):
        beliefs.update(observation(10 + 0.1 * i, seed=3))
    assert np.isnan(beliefs.update(observation(1.0, seed=9)).surprise)


def test_a_long_silence_gives_no_surprise(tiny):
    """Beliefs older than two blocks are no ground for comparison."""
    beliefs = BeliefFilter(tiny)
    beliefs.update(observation(0.0))
    assert np.isnan(beliefs.update(observation(2.0, seed=5)).surprise)


def test_what_a_model_does_not_read_it_says_how_to_get(tiny):
    """Yaw, opening and contact are there where the model was made for them."""
    assert tiny.reads == frozenset()
    latent, proprio = torch.zeros(2, TINY.latent), torch.zeros(2, tiny.contract.proprio_size)
    for read, value in ((tiny.read_yaw, latent), (tiny.read_contact, latent), (tiny.read_opening, proprio)):
        with pytest.raises(ValueError, match=r"Train one"):
            read(value)


def test_readouts_beside_places(tiny):
    """The opening stands before tip and tip velocity; a contact is a probability."""
    contract = replace(tiny.contract, action=TIP_AND_GRIPPER)
    model = WorldModel(contract, replace(TINY, contact=True, yaw=True))
    assert model.reads == {"yaw", "opening", "contact"}
    assert 2 * np.pi / SYMMETRY == pytest.approx(QUARTER), "planner and readout mean the same turn"
    assert model.read_opening(torch.arange(13.0)[None]).item() == 6.0
    probability = model.read_contact(torch.randn(5, TINY.latent))
    assert probability.shape == (5,) and ((0 < probability) & (probability < 1)).all()
