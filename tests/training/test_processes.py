"""One batch in one process and the same batch shared by two are the same update."""

import json
import os
import shutil
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


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
STRATEGIES = ("ddp", "fsdp")


@pytest.fixture(scope="module")
def gradients(tmp_path_factory, write_play):
    """Of one update, by how it is made: the batch is 16 windows in one process, and 8 in each of two."""
    folder = tmp_path_factory.mktemp("gradients")
    play = write_play(folder / "play.h5")
    run([str(WORKER), str(play), "one.pt", "ddp"], folder)
    for strategy in STRATEGIES:
        run([*TORCHRUN, str(WORKER), str(play), f"{strategy}.pt", strategy], folder)
    return {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in ("one", *STRATEGIES)}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("method", [*METHODS, "clone"])
def test_two_processes_make_the_same_gradient_as_one_with_all_of_the_batch(gradients, method, strategy):
    """Of every weight; batch normalisation, lost cameras and what keeps from collapse count over both processes."""
    one, two = gradients["one"], gradients[strategy]
    names = [name for name in one if name.startswith(f"{method}/")]
    assert one.keys() == two.keys() and len(names) > 30
    for name in names:
        size = one[name].abs().max()
        assert (one[name] - two[name]).abs().max() <= 1e-5 + 1e-3 * size, name
    assert any(one[name].abs().max() > 1e-2 for name in names)


def test_divided_weights_learn_what_whole_ones_do(write_play, tmp_path):
    """FSDP's losses and final weights are DDP's, also where it was interrupted; from what it saved one process goes on too."""
    play, worker, state = write_play(tmp_path / "play.h5"), str(WORKER.with_name("some_updates.py")), "m.training.pt"

    def losses(folder: str, strategy: str, last: int, launcher: list[str] = TORCHRUN) -> list[float]:
        (tmp_path / folder).mkdir(exist_ok=True)
        run([*launcher, worker, str(play), "m", strategy, str(last), "losses.json"], tmp_path / folder)
        return json.loads((tmp_path / folder / "losses.json").read_text())

    whole, begun = losses("ddp", "ddp", 6), losses("fsdp", "fsdp", 4)
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "fsdp" / state, tmp_path / "alone" / state)
    assert len(whole) == 6 and begun == pytest.approx(whole[:4], rel=5e-4)  # sums in another order
    assert losses("fsdp", "fsdp", 6) == pytest.approx(whole[4:], rel=5e-4)
    assert losses("alone", "ddp", 6, []) == pytest.approx(whole[4:], rel=5e-4)
    (a, b) = (torch.load(tmp_path / f / state, weights_only=True)["stages"]["world model"] for f in STRATEGIES)
    assert a["learned"].keys() == b["learned"].keys() and a["optimiser"]["state"].keys() == b["optimiser"]["state"].keys()
    for name, weight in a["learned"].items():  # a bias before a norm has no gradient but noise, which Adam makes large
        torch.testing.assert_close(b["learned"][name], weight, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_torchrun_goes_on_with_what_one_process_began(write_play, tmp_path, strategy):
    """Two processes resume, end in one checkpoint, which one process reads, and say once where it is."""
    play = write_play(tmp_path / "play.h5")
    words = f"--data {play} --out {tmp_path / 'm'} --steps 8 --batch 16 --head-steps 3 --decoder-steps 2 --threads 2".split()
    words += "--model.latent 8 --model.encoder-width 8 --model.predictor-width 32 --model.head-width 32".split()

    def interrupt(stage, step, *_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(parse(TrainConfig, "train", "", words), interrupt)
    worker = str(WORKER.with_name("train_anyway.py"))
    told = run([*TORCHRUN, worker, *words, "--strategy", strategy], tmp_path)
    assert told.count("Checkpoint in") == 1 and "2 processes" in (tmp_path / "m" / CARD).read_text()
    assert load(tmp_path / "m").surprise_scale > 0
    assert {p.name for p in tmp_path.iterdir()} == {"m", "play.h5"}
