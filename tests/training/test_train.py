"""Training learns, resumes to the same weights, and calls a collapse a collapse."""

import copy
import dataclasses
import json
import os
import re
import signal
import threading

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Dinov2Config, Dinov2Model

from foresight import cli
from foresight.contract import TIP_AND_GRIPPER
from foresight.data import Goal
from foresight.training import train as training
from foresight.training.config import PRESETS, TrainConfig, command_line, preset_in
from foresight.training.dataset import DatasetError
from foresight.training.health import Health, effective_rank, measure, probe_correlation, probe_error
from foresight.training.learner import WINDOW, Learner, Share, share_of_batch
from foresight.training.log import Log
from foresight.training.resume import Resume, only_training_of
from foresight.training.sharding import restore
from foresight.training.train import (
    CollapseError,
    made_ahead,
    make_fabric,
    make_optimiser,
    parts_of_batch,
    prepare,
    train,
    update,
)
from foresight.world_model.checkpoint import CARD, WEIGHTS, load
from foresight.world_model.model import ModelConfig

SIZES = ModelConfig(latent=8, encoder_width=8, predictor_width=32, predictor_depth=1, head_width=32, max_blocks=4)


def config(play, out, **changes) -> TrainConfig:
    base = TrainConfig(
        data=(play,), out=out, steps=12, batch=16, head_steps=6, decoder_steps=3, sigreg_slices=16, threads=1, model=SIZES
    )
    return dataclasses.replace(base, **changes)


@pytest.mark.usefixtures("any_health")
def test_the_checkpoint_says_what_made_it(play, tmp_path):
    """All stages run and the card repeats the command, the data and the measures."""
    stages = set()
    out = train(config(play, tmp_path / "model"), lambda stage, *_: stages.add(stage))
    assert set(training.STAGES) <= stages
    card = (out / CARD).read_text()
    assert "--steps 12" in card and "23 episodes" in card and "skill" in card
    assert load(out).surprise_scale > 0
    assert not list(tmp_path.glob("*.training.pt")) and not list(tmp_path.glob("*.partial"))


@pytest.mark.usefixtures("any_health")
def test_several_critics_and_a_yaw_readout_are_trained_and_measured(play, tmp_path):
    """The critics end apart, each with an episode of three that it has never seen; the card tells what both are worth."""
    sizes = dataclasses.replace(SIZES, critics=3, yaw=True)
    out = train(config(play, tmp_path / "model", model=sizes, head_steps=300))
    model, card = load(out), (out / CARD).read_text()
    assert "how far the 3 of them differ" in card and "yaw 0." in card
    features = torch.randn(20, model.critic[0].in_features, generator=torch.Generator().manual_seed(0))
    expected = model.expected(model.logits(features))
    assert expected.shape == (3, 20) and (expected.std(0) > 0).all()
    assert torch.equal(model.judge(features), expected.mean(0))
    latents = torch.randn(5, sizes.latent, generator=torch.Generator().manual_seed(1))
    assert model.read_yaw(latents).abs().max() <= np.pi / 4


def test_sub_goals_are_where_episodes_were_on_their_way(play, tmp_path):
    """Nearer to what came than standing still, on ways that differ, with tip positions that come along."""
    settings = config(play, tmp_path / "model", head_steps=400, model=dataclasses.replace(SIZES, subgoals=3, subgoal_blocks=2))
    model, data = prepare(settings)
    spread = torch.randn(3, SIZES.latent, generator=torch.Generator().manual_seed(0))
    latents = (torch.from_numpy(data.tip) - model.position_mean) / model.position_std @ spread
    model.requires_grad_(False)
    state = Resume(settings, data.fingerprint)
    found = training.train_actor_and_critic(model, data, latents, settings, state, Log(None), lambda *_: None)
    assert found["subgoal_share"] < 0.5
    rows = data.starts(data.held_out, 12)[:5]
    goal = Goal(latent=latents[rows[0] + 12].numpy())
    here, proprio = latents[rows], torch.from_numpy(data.proprio[rows])
    ahead, joints = model.subgoals(here, proprio, goal, torch.full((5,), 4.0))
    assert ahead.shape == (5, 3, SIZES.latent) and joints.shape == (5, 3, model.contract.proprio_size)
    assert (ahead.std(1) > 0).all()
    foreseen = joints[..., -6:-3].sub(model.position_mean).div(model.position_std) @ spread
    assert (foreseen - ahead).norm(dim=-1).mean() < 0.5 * ahead.norm(dim=-1).mean(), "the tip is where the latent says it is"
    others = latents[rows[:1] + 12].expand(5, -1)
    torch.testing.assert_close(model.apart(here, proprio, others), model.blocks_to_go(here, proprio, goal))


@pytest.mark.usefixtures("any_health")
def test_the_card_tells_of_sub_goals_and_the_checkpoint_keeps_them(play, tmp_path):
    """With their number, how far ahead they lie, and their error."""
    sizes = dataclasses.replace(SIZES, subgoals=3, subgoal_blocks=2)
    out = train(config(play, tmp_path / "model", model=sizes))
    assert load(out).subgoal_ways == 3
    assert re.search(r"3 ways, 2 blocks ahead; squared error of the nearest \d+\.\d\d of", (out / CARD).read_text())


@pytest.mark.usefixtures("any_health")
def test_a_critic_does_not_learn_from_its_share_of_the_episodes(play, tmp_path):
    """Where all rows are of episodes that one critic leaves out, only the others have a gradient."""
    model, data = prepare(config(play, tmp_path / "model", model=dataclasses.replace(SIZES, critics=3)))
    latents = torch.randn(len(data.images), SIZES.latent)
    read = torch.zeros(len(data.images), 3)
    training.head_losses(model, data, latents, read, np.array([1, 4, 7]), 32, [0, 3, 0]).critic.backward()
    moved = [critic[0].weight.grad.abs().max() > 0 for critic in (model.critic, *model.other_critics)]
    assert moved == [True, False, True]


@pytest.mark.usefixtures("any_health")
def test_a_model_with_a_gripper_is_trained_and_loads(play, tmp_path):
    """Blocks of four numbers a step, proprioception with the opening; at its goal it stays, the gripper as it is."""
    with h5py.File(play, "a") as file:
        contract, rows = json.loads(file.attrs["contract"]), len(file["tip"])
        file.attrs["contract"] = json.dumps({**contract, "action": TIP_AND_GRIPPER})
        file["gripper"], file["opening"] = np.ones((rows, 1)), np.zeros((rows, 1))
    model = load(train(config(play, tmp_path / "model", head_steps=400)))
    assert model.contract.block_size == 12 and model.action_std.tolist()[3::4] == [0.5] * 3
    goal = Goal(tip=np.array([0.45, 0.0, 0.15]))
    block = model.propose(torch.zeros(1, SIZES.latent), model.proprio_mean[None], goal, torch.ones(1))
    assert (block.view(3, 4)[:, 3] > 0.5).all(), "it has never seen the gripper open"


def test_contact_is_read_from_latents_that_show_it(play, tmp_path):
    """In a world where the hand touches what lies on one side, and only where the data tells."""
    settings = config(play, tmp_path / "model", head_steps=600, model=dataclasses.replace(SIZES, contact=True))
    with pytest.raises(DatasetError, match="whether the hand touches the object"):
        prepare(settings)
    with h5py.File(play, "a") as file:
        file["contact"] = (file["tip"][:, :1] > 0.45).astype(np.float32)
    model, data = prepare(settings)
    latents = torch.from_numpy(data.tip - data.tip.mean(0)) / 0.05 @ torch.eye(3, SIZES.latent)
    model.requires_grad_(False)
    state = Resume(settings, data.fingerprint)
    found = training.train_readouts(model, data, latents, settings, state, Log(None), lambda *_: None)
    assert found["readout_contact"] > 0.9
    chance = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    assert abs(training.balanced_accuracy(chance[0] > 1, chance[1] > 1) - 0.5) < 0.05


@pytest.mark.usefixtures("any_health")
def test_joint_velocities_are_probed_where_the_data_tells_them(play, tmp_path):
    """The first two joints go with the tip's velocity, which a belief holds; what nobody can know has no correlation."""
    with h5py.File(play, "a") as file:
        chance = np.random.default_rng(0).normal(size=(len(file["tip"]), 6)).astype(np.float32)
        known = np.column_stack([file["tip_velocity"][:], file["tip_velocity"][:, :2] + 0.1, chance[:, 5]]).astype(np.float32)
        file["dq"] = known
    out = train(config(play, tmp_path / "model"))
    assert float(re.search(r"joint velocities \| r (-?\d\.\d+)", (out / CARD).read_text())[1]) > 0.99
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    assert abs(probe_correlation((x[:200], x[:200].flip(0)), (x[200:], x[200:].flip(0)))) < 0.3


def test_a_yaw_readout_needs_data_that_tells_the_orientation(play, tmp_path):
    """One line, before anything is trained."""
    with h5py.File(play, "a") as file:
        positions = file["object"][:, :3]
        del file["object"]
        file["object"] = positions
    with pytest.raises(DatasetError, match="do not tell the object's orientation"):
        train(config(play, tmp_path / "model", model=dataclasses.replace(SIZES, yaw=True)))


@pytest.mark.usefixtures("any_health")
@pytest.mark.parametrize(("stage", "step"), [(0, 11), (1, 51), (2, 101), (3, 51)])
def test_an_interrupted_run_resumes_to_the_same_weights(play, tmp_path, stage, step):
    """Ctrl-C in any stage costs nothing: the resumed run ends bit for bit where an unbroken one does, and repeats no stage."""
    sizes = {"head_steps": 156, "decoder_steps": 60}
    whole = load_file(train(config(play, tmp_path / "whole", **sizes)) / WEIGHTS)

    def interrupt(name, done, *_):
        if name == training.STAGES[stage] and done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "broken", **sizes), interrupt)
    assert not (tmp_path / "broken").exists()
    begun: dict[str, int] = {}
    again = train(config(play, tmp_path / "broken", **sizes), lambda name, done, *_: begun.setdefault(name, done))
    assert all(begun.get(name, 99) > 1 for name in training.STAGES[: stage + 1])
    resumed = load_file(again / WEIGHTS)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.usefixtures("any_health")
def test_another_run_is_not_resumed_by_mistake(play, tmp_path):
    """Different settings beside an interrupted run are refused, unless it is forgotten on purpose."""

    def interrupt(stage, step, *_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "m"), interrupt)
    with pytest.raises(ValueError, match="--fresh"):
        train(config(play, tmp_path / "m", lr=5e-4))
    assert train(config(play, tmp_path / "m", lr=5e-4, fresh=True)).exists()


@pytest.mark.parametrize("changed", ["tip", "pixels_front", "fewer"])
def test_a_run_is_not_resumed_on_other_data(play, tmp_path, changed):
    """A dataset that was changed or collected anew under the same name is refused in one line, with a way out."""

    def interrupt(stage, step, *_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "m"), interrupt)
    with h5py.File(play, "a") as file:
        if changed == "fewer":
            for name in ("ep_len", "ep_offset"):
                kept = file[name][:-1]
                del file[name]
                file[name] = kept
        else:
            file[changed][17] = file[changed][18]
    with pytest.raises(ValueError, match=r"on other data .* --fresh") as told:
        train(config(play, tmp_path / "m"))
    assert "\n" not in str(told.value)
    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "m", fresh=True), interrupt)


def test_a_damaged_interrupted_run_is_told_in_one_line(play, tmp_path):
    """Half a state beside the checkpoint is not resumed, and --fresh forgets it."""
    (tmp_path / "m.training.pt").write_bytes(b"PK half of a")
    with pytest.raises(ValueError, match=r"is damaged. Add --fresh"):
        train(config(play, tmp_path / "m"))


@pytest.fixture
def hears_ctrl_c():
    """Also where a shell that started the tests in the background told them to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("any_health", "hears_ctrl_c")
@pytest.mark.parametrize("stage", [0, 2])
def test_an_update_is_made_whole_or_not_at_all(play, tmp_path, monkeypatch, stage):
    """Ctrl-C in the middle of an update is heard after it: so many updates are saved, and go on to the same weights."""
    whole = load_file(train(config(play, tmp_path / "whole")) / WEIGHTS)
    name, times = ("jitter", 5) if stage == 0 else ("hindsight", 3)
    of = training if stage else __import__("foresight.training.learner", fromlist=["jitter"])
    real, calls = getattr(of, name), []

    def struck(*arguments, **named):
        calls.append(name)
        if len(calls) == times:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **named)

    monkeypatch.setattr(of, name, struck)
    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "broken"))
    saved = torch.load(tmp_path / "broken.training.pt", weights_only=True)
    assert saved["stages"][training.STAGES[stage]]["step"] == times
    resumed = load_file(train(config(play, tmp_path / "broken")) / WEIGHTS)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


@pytest.mark.usefixtures("any_health")
def test_a_vit_with_dropout_and_lost_cameras_resumes_to_the_same_weights(play, tmp_path):
    """What is left out of an update depends on seed and step alone, too."""
    sizes = dataclasses.replace(
        SIZES, encoder="vit", encoder_width=12, encoder_depth=1, patch=8, predictor_dropout=0.3, spare_cameras=True
    )
    few = {"model": sizes, "steps": 4, "head_steps": 3, "decoder_steps": 2}
    whole = load_file(train(config(play, tmp_path / "whole", **few)) / WEIGHTS)

    def interrupt(name, done, *_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(play, tmp_path / "broken", **few), interrupt)
    resumed = load_file(train(config(play, tmp_path / "broken", **few)) / WEIGHTS)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert whole["encoder.absent"].abs().max() > 0


@pytest.mark.parametrize("encoder, fused", [("vit", True), ("residual", False)])
def test_a_fused_optimiser_learns_what_another_does(play, tmp_path, encoder, fused):
    """The same step to float32's rounding; only weights in their usual order are given to it, since it asks for no order."""
    sizes = dataclasses.replace(SIZES, encoder=encoder, encoder_heads=1, encoder_depth=1)
    model, _ = prepare(config(play, tmp_path / "model", model=sizes))
    if encoder == "residual":  # as it is trained
        model.encoder.to(memory_format=torch.channels_last)
    settings = TrainConfig(lr=0.01)
    optimiser = make_optimiser(model.encoder, settings)
    assert optimiser.defaults["fused"] == fused
    other = copy.deepcopy(model.encoder)
    plain = torch.optim.AdamW(other.parameters(), settings.lr, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
    for _ in range(3):
        for mine, theirs in zip(model.encoder.parameters(), other.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            theirs.grad = mine.grad.clone()
        optimiser.step(), plain.step()
    for mine, theirs in zip(model.encoder.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("fused", [True, False])
def test_a_resumed_optimiser_works_as_it_was_made(fused):
    """Not as the one did whose state was saved: that may have been of one process, or of weights in another order."""
    weights = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    made, before = (torch.nn.Linear(2, 3) for _ in range(2))
    saved, optimiser = (torch.optim.AdamW(m.parameters(), fused=f) for m, f in ((before, not fused), (made, fused)))
    before(torch.ones(1, 2)).sum().backward()
    saved.step()
    restore(made, optimiser, weights, saved.state_dict())
    assert [group["fused"] for group in optimiser.param_groups] == [fused] and len(optimiser.state) == 2
    assert torch.equal(made.weight, weights["weight"])


@pytest.mark.usefixtures("any_health")
def test_a_frozen_model_is_learned_around(play, tmp_path):
    """All stages run with a frozen encoder of a random tiny shape, which the checkpoint holds as it was."""
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    frozen = Dinov2Model(Dinov2Config(**shape))
    frozen.save_pretrained(tmp_path / "frozen")
    sizes = dataclasses.replace(SIZES, encoder="foundation", foundation=str(tmp_path / "frozen"), foundation_size=28)
    model = load(train(config(play, tmp_path / "m", model=sizes, steps=3, head_steps=3, decoder_steps=2)))
    for name, value in model.encoder.frozen.state_dict().items():
        torch.testing.assert_close(value, frozen.state_dict()[name], rtol=1e-3, atol=1e-3)
    assert "as frozen eyes" in (tmp_path / "m" / CARD).read_text()


def test_parts_of_a_batch_add_up_to_its_mean_gradient(play, tmp_path):
    """An update in two accumulated parts follows the mean of their two gradients."""
    halves = config(play, tmp_path / "m", accumulate=2, precision="fp32")
    fabric = make_fabric(halves)

    def learner_and_starts():
        model, data = prepare(halves)
        learner = Learner(model, halves).train()
        return model, data, learner, data.starts(data.training, (WINDOW - 1) * data.contract.block_steps)

    model, data, learner, starts = learner_and_starts()
    for part in range(2):
        loss, _ = learner(*share_of_batch(model, data, starts, halves, 0, Share(part, 2), fabric.device))
        (loss / 2).backward()
    torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    model, data, other, starts = learner_and_starts()
    module, optimiser = fabric.setup(other, torch.optim.SGD(other.parameters(), 1e-3))
    batch = parts_of_batch(model, data, starts, halves, 0, fabric)
    figures = update(module, other, optimiser, batch, halves, 0, fabric)
    assert figures["gradient"] > 0
    for mine, theirs in zip(other.parameters(), learner.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("steps", [range(0), range(3, 5), range(2, 40)])
def test_batches_made_ahead_come_in_order_and_once(device, steps):
    """On a GPU they are made by other threads meanwhile; each step gets its own, and leaving early leaves nothing behind."""
    made = []

    def make(step):
        made.append((step, threading.get_ident()))
        return [(step,)]

    assert list(made_ahead(make, steps, torch.device(device))) == [[(step,)] for step in steps]
    assert sorted(step for step, _ in made) == list(steps)
    elsewhere = {thread for _, thread in made} - {threading.get_ident()}
    assert bool(elsewhere) == (device == "cuda" and bool(steps))
    before = threading.active_count()
    early = made_ahead(make, steps, torch.device(device))
    next(early, None)
    early.close()
    assert threading.active_count() == before


@pytest.mark.usefixtures("any_health")
def test_figures_are_logged_for_tensorboard(play, tmp_path):
    """Losses of every stage, gradient norm, learning rate and the latents' health, under the steps they belong to."""
    train(config(play, tmp_path / "m", logs=tmp_path / "logs"))
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"world_model/loss", "world_model/gradient", "world_model/lr", "world_model/rank", "world_model/alarm"} <= tags
    assert {"readouts/loss", "actor_and_critic/critic", "decoder/loss"} <= tags
    assert [e.step for e in events.Scalars("world_model/loss")] == [1, 11, 12]


def test_two_trainings_of_one_folder_are_refused(play, tmp_path):
    """The second is told who is there, in one line; a lock left by a process that died holds nobody."""
    (tmp_path / "m.training.lock").write_text("999999\n")
    with only_training_of(tmp_path / "m"):
        with pytest.raises(ValueError, match=rf"being trained by another process \(number {os.getpid()}\)") as told:
            train(config(play, tmp_path / "m"))
        assert "\n" not in str(told.value)
    assert not list(tmp_path.glob("*.lock"))


@pytest.mark.usefixtures("any_health")
@pytest.mark.parametrize("stage", ["world model", "checkpoint"])
def test_a_disk_that_fills_up_costs_nothing_that_was_saved(play, tmp_path, monkeypatch, capsys, stage):
    """While the state or the checkpoint is written: one line, nothing half-written, and the same command goes on from before."""
    words = ["--data", play, "--out", tmp_path / "m", "--steps", "8", "--batch", "8", "--head-steps", "3", "--decoder-steps", "2"]
    sizes = ["--model.latent", "8", "--model.encoder-width", "8", "--model.predictor-width", "32", "--model.head-width", "32"]
    command = ["train", *map(str, words), *sizes, "--threads", "1"]
    real, forced = os.fsync, []

    def full(descriptor):
        forced.append(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if (".partial" in path) == (stage == "checkpoint") and "m" in path:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert cli.main(command) == 2
    assert forced and "disk is full" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} - {"play.h5"} == ({"m.training.pt"} if stage == "checkpoint" else set())
    assert cli.main(command) == 0
    assert (tmp_path / "m" / WEIGHTS).exists() and not (tmp_path / "m.training.pt").exists()


@pytest.mark.usefixtures("any_health")
def test_damaged_episodes_are_left_out_where_the_user_says_so(play, tmp_path, capsys):
    """Refused with the way out; with it, trained on the others, and the card says how many were left out."""
    with h5py.File(play, "a") as file:
        file["action"][30] = float("nan")
    with pytest.raises(training.dataset.DatasetError, match=r"episode 1: action is \[nan.*--damaged skip"):
        train(config(play, tmp_path / "m"))
    told = []
    out = train(config(play, tmp_path / "m", damaged="skip"), lambda stage, *rest: told.append((stage, *rest)))
    assert told[0][:3] == ("data", 23, 24) and "episode 1" in told[0][3]
    assert "damaged ones left out: 1;" in (out / CARD).read_text() and "--damaged skip" in (out / CARD).read_text()


def test_a_loss_that_is_no_number_ends_training(play, tmp_path, monkeypatch):
    """At once, not after the next check of the latents' health."""
    monkeypatch.setattr(Learner, "penalty", lambda _, z, *rest: (z - z).mean() / 0)
    with pytest.raises(CollapseError, match=r"The loss is nan at update 1, .*--lr"):
        train(config(play, tmp_path / "m", steps=5))


@pytest.mark.usefixtures("any_health")
def test_prediction_beats_persistence_on_a_learnable_world(play, tmp_path):
    """In a world of one moving dot a minute model foresees better than "nothing changes"."""
    seen = []
    train(
        config(play, tmp_path / "m", steps=300, batch=48, head_steps=3, sigreg_weight=0.5, sigreg_slices=64),
        lambda stage, step, steps, line: seen.append(line),
    )
    final = [line for line in seen if "skill" in line][-1]
    assert float(final.split("skill")[1].split()[0]) > 0.3, final


def test_a_collapse_ends_training(play, tmp_path, monkeypatch):
    """Latents that lost their spread for three checks end the run with a remedy in the message."""
    monkeypatch.setattr(training, "measure_health", lambda *_: Health(0.01, 1.2, 0.0, 10.0, 10.0))
    monkeypatch.setattr(training, "CHECK_EVERY", 10)
    begun = []
    with pytest.raises(CollapseError, match="--sigreg-weight"):
        train(config(play, tmp_path / "m", steps=1000, batch=4, sigreg_slices=2), lambda _, step, *rest: begun.append(step))
    assert begun[-1] == 41  # checks at 30, 40, 50, the first two being too early to count


def test_a_collapse_at_the_end_of_a_short_training_makes_no_checkpoint(play, tmp_path, capsys):
    """However few the steps: the command ends with 1 and a line that names the figure and the way out."""
    words = ["--data", play, "--out", tmp_path / "m", "--steps", "3", "--batch", "4", "--sigreg-slices", "4", "--threads", "1"]
    sizes = ["--model.latent", "8", "--model.encoder-width", "8", "--model.predictor-width", "32", "--model.head-width", "32"]
    assert cli.main(["train", *map(str, words), *sizes]) == 1
    told = capsys.readouterr().err
    assert "std 0.0" in told and "--sigreg-weight" in told and "--fresh" in told and len(told.splitlines()) == 1
    assert not (tmp_path / "m").exists()


def test_latents_that_are_no_numbers_are_a_collapse():
    """A diverged training is told as such, not as an error of linear algebra."""
    bad, place = torch.full((500, 16), float("nan")), torch.randn(500, 3)
    assert "std nan" in measure(bad, bad, bad, place, place).collapse


def test_collapse_is_seen_by_spread_and_by_rank():
    """Constant latents and latents on a line are both called collapsed; normal ones are not."""
    normal = torch.randn(500, 16)
    line = torch.randn(500, 1) * torch.ones(16)
    place = normal[:, :3] + 0
    assert not measure(normal, normal + 0.1, normal + 0.1, place, place).collapsed
    assert measure(line, line, line, place, place).collapsed
    assert measure(0 * normal, 0 * normal, 0 * normal, place, place).collapsed


def test_effective_rank_and_probe():
    """Rank of isotropic noise is nearly full; a probe finds what is linearly there and misses what is not."""
    z = torch.randn(2000, 8)
    assert effective_rank(z) == pytest.approx(8, abs=0.2)
    assert probe_error(z, z[:, :3]) < 0.02
    assert probe_error(z, torch.randn(2000, 3)) > 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 10**30},
        {"seed": 2**64},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"sigreg_weight": -1.0},
        {"weight_decay": float("inf")},
        {"seed": -1},
        {"episodes": 1},
    ],
)
def test_numbers_out_of_range_are_refused_by_name(wrong):
    """A flag that cannot work is refused before any work, with its name and the value."""
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be .* got {value}"):
        TrainConfig(**wrong)


def test_the_command_names_what_differs_from_the_defaults():
    """The card's command is short and whole."""
    assert command_line(TrainConfig()) == "foresight train"
    assert command_line(dataclasses.replace(PRESETS["tiny"], batch=64)) == "foresight train --preset tiny --batch 64"
    spare = ModelConfig(spare_cameras=True)
    assert command_line(TrainConfig(model=spare, threads=7)) == "foresight train --model.spare-cameras"
    assert command_line(TrainConfig(lr=5e-4, model=ModelConfig(latent=64))) == "foresight train --lr 0.0005 --model.latent 64"


def test_a_preset_is_what_other_flags_override(capsys):
    """Wherever it stands on the line, and in the help's defaults."""
    assert preset_in(["--lr", "1", "--preset", "tiny"]).model.latent == preset_in(["--preset=tiny"]).model.latent == 192
    assert preset_in([]) == TrainConfig()
    with pytest.raises(SystemExit):
        cli.main(["train", "--preset", "tiny", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "default: 192" in told and "default: vit" in told


@pytest.mark.parametrize(("wrong", "says"), [({"batch": 15, "accumulate": 2}, "multiple"), ({"device": "cuda"}, "GPU")])
def test_what_this_machine_cannot_run_is_refused(play, tmp_path, monkeypatch, wrong, says):
    """A batch that cannot be cut into equal parts, and a GPU that is not there."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=says):
        make_fabric(config(play, tmp_path / "m", **wrong))
