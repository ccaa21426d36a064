"""One batch in one process and the same batch shared by two are the same update."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from foresight.command_line import parse
from foresight.training.anti_collapse import METHODS
from foresight.training.config import TrainConfig
from foresight.training.train import train
from foresight.world_model.checkpoint import CARD, load

pytestmark = pytest.mark.timeout(300)  # [s] processes that load torch, one after the other
WORKER = Path(__file__).with_name("one_update.py")


def run(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def gradients(tmp_path_factory, write_play):
    """Of one update, by number of processes: the batch is 16 windows in one process, and 8 in each of two."""
    folder = tmp_path_factory.mktemp("gradients")
    play = write_play(folder / "play.h5")
    run([str(WORKER), str(play), "one.pt"], folder)
    run(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(WORKER), str(play), "two.pt"], folder)
    return [torch.load(folder / name, weights_only=True) for name in ("one.pt", "two.pt")]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_make_the_same_gradient_as_one_with_all_of_the_batch(gradients, method):
    """Of every weight; batch normalisation, lost cameras and what keeps from collapse count over both processes."""
    one, two = gradients
    names = [name for name in one if name.startswith(f"{method}/")]
    assert one.keys() == two.keys() and len(names) > 30
    for name in names:
        size = one[name].abs().max()
        assert (one[name] - two[name]).abs().max() <= 1e-5 + 1e-3 * size, name
    assert any(one[name].abs().max() > 1e-2 for name in names)


def test_torchrun_goes_on_with_what_one_process_began(write_play, tmp_path):
    """Two processes resume, end in one checkpoint, and say once where it is."""
    play = write_play(tmp_path / "play.h5")
    words = f"--data {play} --out {tmp_path / 'm'} --steps 8 --batch 16 --head-steps 3 --decoder-steps 2 --threads 2".split()
    words += "--model.latent 8 --model.encoder-width 8 --model.predictor-width 32 --model.head-width 32".split()

    def interrupt(stage, step, *_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(parse(TrainConfig, "train", "", words), interrupt)
    worker = str(WORKER.with_name("train_anyway.py"))
    told = run(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", worker, *words], tmp_path)
    assert told.count("Checkpoint in") == 1 and "2 processes" in (tmp_path / "m" / CARD).read_text()
    assert load(tmp_path / "m").surprise_scale > 0
    assert {p.name for p in tmp_path.iterdir()} == {"m", "play.h5"}
