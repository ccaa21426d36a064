"""The world model as a ROS node: a belief for each observation it was trained for."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from foresight_nodes import convert, topics
from foresight_nodes.world_model_node import WorldModelNode
from rclpy.lifecycle import TransitionCallbackReturn

from foresight.data import Observation
from foresight.world_model.checkpoint import fingerprint, load, read_contract
from tests.ros.conftest import Bench


@pytest.fixture
def believing(bench: Bench, checkpoint: Path):
    """An active node, what it publishes, and a way to observe."""
    node, beliefs = bench.add(WorldModelNode, robot="ur5e", checkpoint=str(checkpoint)), bench.listen(topics.BELIEF)
    bench.bring_up(node)
    return node, beliefs, bench.publisher(topics.OBSERVATION), read_contract(checkpoint)


def observation(stamp_s: float, seed: int = 0) -> Observation:
    images = np.random.default_rng(seed).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    return Observation(stamp_s, images, np.arange(6.0), np.zeros(6), np.array([0.4, 0.0, 0.2]), np.array([0.0, 0.1, 0.0]))


def test_the_first_observation_becomes_a_belief(bench: Bench, believing, checkpoint: Path):
    """With the stamp of the images, the checkpoint's id, the measured proprioception and an unknown surprise."""
    _, beliefs, observe, contract = believing
    observe.publish(convert.observation_to_msg(observation(bench.now_s), contract, "base_link"))
    bench.until(lambda: beliefs, "a belief arrives")
    belief = convert.belief_from_msg(beliefs[0])
    assert belief.stamp_s == pytest.approx(bench.now_s, abs=1e-6) and belief.model_id == fingerprint(checkpoint)
    assert belief.proprio[:6] == pytest.approx(np.arange(6.0)) and belief.tip == pytest.approx([0.4, 0.0, 0.2])
    assert np.isnan(belief.surprise)
    assert np.isfinite(belief.latent).all() and len(belief.latent) == 16


def test_after_a_block_the_surprise_is_known(bench: Bench, believing):
    """Three steps later the foreseen latent can be compared with the seen one."""
    _, beliefs, observe, contract = believing
    for i in range(4):
        observe.publish(convert.observation_to_msg(observation(bench.now_s + 0.1 * i, i), contract, "base_link"))
        bench.until(lambda i=i: len(beliefs) == i + 1, "a belief arrives")
    assert [np.isfinite(b.surprise) for b in beliefs] == [False, False, False, True]


def test_an_observation_for_another_model_is_refused(bench: Bench, believing):
    """No belief; the diagnostics name both contracts."""
    _, beliefs, observe, contract = believing
    diagnostics = bench.listen(topics.DIAGNOSTICS)
    message = convert.observation_to_msg(observation(bench.now_s), contract, "base_link")
    message.contract = "another"
    observe.publish(message)
    bench.until(
        lambda: any("contract another" in s.message and contract.fingerprint in s.message for m in diagnostics for s in m.status),
        "it is told",
    )
    assert beliefs == []


def test_an_observation_on_which_the_device_fails_is_dropped_and_the_next_one_believed(
    bench: Bench, believing, monkeypatch: pytest.MonkeyPatch
):
    """No belief; the diagnostics say what failed and where; the node goes on."""
    node, beliefs, observe, contract = believing
    diagnostics = bench.listen(topics.DIAGNOSTICS)
    with monkeypatch.context() as patch:
        patch.setattr(node._filter, "update", lambda _: (_ for _ in ()).throw(RuntimeError("CUDA error: no device")))
        observe.publish(convert.observation_to_msg(observation(bench.now_s), contract, "base_link"))
        said = "The model failed on cpu; this observation is dropped. CUDA error: no device"
        bench.until(lambda: any(said in s.message for m in diagnostics for s in m.status), "it is told")
    assert beliefs == []
    observe.publish(convert.observation_to_msg(observation(bench.now_s + 0.1), contract, "base_link"))
    bench.until(lambda: beliefs, "a belief arrives")
    assert convert.belief_from_msg(beliefs[0]).stamp_s == pytest.approx(bench.now_s + 0.1, abs=1e-6)


def test_a_truncated_checkpoint_is_refused(bench: Bench, checkpoint: Path, tmp_path: Path):
    """Half a weights file is no model: one line, no traceback."""
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    heard = bench.listen(topics.DIAGNOSTICS)
    node = bench.add(WorldModelNode, robot="ur5e", checkpoint=str(broken))
    bench.until(lambda: heard, "diagnostics arrive")
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    bench.until(lambda: any("damaged" in s.message for m in heard for s in m.status), "the reason is told")


def test_a_checkpoint_of_another_robot_is_refused(bench: Bench, checkpoint: Path, tmp_path: Path):
    """Both robots are named."""
    other = shutil.copytree(checkpoint, tmp_path / "other")
    config = other / "config.json"
    config.write_text(config.read_text().replace('"ur5e"', '"fr3"'))
    heard = bench.listen(topics.DIAGNOSTICS)
    node = bench.add(WorldModelNode, robot="ur5e", checkpoint=str(other))
    bench.until(lambda: heard, "diagnostics arrive")
    assert node.trigger_configure() is TransitionCallbackReturn.FAILURE
    bench.until(
        lambda: any("robot 'fr3'" in s.message and "'ur5e'" in s.message for m in heard for s in m.status), "the reason is told"
    )


@pytest.mark.parametrize("trained", ["checkpoint", "sparing_checkpoint"])
def test_a_lost_camera_is_believed_without_only_by_a_model_trained_so(bench: Bench, request, trained: str):
    """There the belief is the model's of what is seen, whatever the lost one shows; another model makes none and says why."""
    folder = request.getfixturevalue(trained)
    beliefs, diagnostics = bench.listen(topics.BELIEF), bench.listen(topics.DIAGNOSTICS)
    bench.bring_up(bench.add(WorldModelNode, robot="ur5e", checkpoint=str(folder)))
    lost = replace(observation(bench.now_s), seen=(True, False))
    bench.publisher(topics.OBSERVATION).publish(convert.observation_to_msg(lost, read_contract(folder), "base_link"))
    if trained == "checkpoint":
        said = "Cameras wrist are lost. This model needs all; one trained with --model.spare-cameras does not."
        bench.until(lambda: any(said in s.message for m in diagnostics for s in m.status), "it is told")
        assert beliefs == []
    else:
        bench.until(lambda: beliefs, "a belief arrives")
        expected = load(folder).encode_images(lost.images, lost.seen)
        np.testing.assert_allclose(convert.belief_from_msg(beliefs[0]).latent, expected, atol=1e-5)
