"""The planner's benchmark: what it writes, and what it says when the peer cannot be run. Sizes are tiny, the peer is a stub."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from foresight.evaluation import bench_planner, peer
from foresight.evaluation.bench_planner import BenchPlannerConfig, bench, write
from foresight.evaluation.latent_planning import LatentPlanning, Search
from foresight.evaluation.peer import Peer, PeerError
from foresight.world_model.transformer import TransformerConfig

TINY = TransformerConfig(
    block=4, latent=24, depth=2, heads=2, head=8, hidden=32, action_hidden=16, image=28, encoder_depth=1, encoder_hidden=32
)
STUB = """
import json, sys
print("loading", flush=True)
print("PEER " + json.dumps({"package": "stub", "told": sys.argv[1:]}), flush=True)
for line in sys.stdin:
    wanted = json.loads(line)
    print("CEM solve time: ...")
    print("PEER " + json.dumps({"s": wanted["samples"] * wanted["iterations"] / 100, "cpu_s": 1.0}), flush=True)
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    def use(text: str) -> Path:
        script = tmp_path / "peer.py"
        script.write_text(text)
        monkeypatch.setattr(peer, "SCRIPT", script)
        return Path(sys.executable)

    return use


def test_the_file_holds_every_row_with_its_ratio_and_the_curves(tmp_path, monkeypatch, stub):
    """Rows for every search in each type, the peer's in the same run, the arm's; curves with a line through each; a picture."""
    monkeypatch.setattr(bench_planner, "CURVES", {"samples": (8, 16), "robots": (1, 2)})
    monkeypatch.setattr(bench_planner, "ARM_PLANS", 2)
    monkeypatch.setattr(bench_planner, "QUALITY_SEARCH", Search(16, 2))
    cases = (("a", Search(16, 2), (300, 30)), ("b", Search(16, 1, actor=True), (300, 30)))
    monkeypatch.setattr(bench_planner, "CASES", cases)
    config = BenchPlannerConfig(tmp_path / "f.json", stub(STUB), threads=2, repeats=2)
    path, picture = write(config.json, bench(config, sizes=TINY))
    figures = json.loads(path.read_text())
    kinds = list(bench_planner._kinds("cpu", lambda line: None))
    assert kinds[-1] == "float32"
    assert {"machine", "threads", "rows", "curves", "peer", "load_average"} <= set(figures) and figures["threads"] == 2
    latent, arm = figures["rows"][:-4], figures["rows"][-4:]
    assert [row["name"] for row in latent] == [f"{name}, {dtype}" for name in "ab" for dtype in kinds]
    for row in latent:
        assert row["peer_s"] == 90 and len(row["ours_all_s"]) == len(row["peer_all_s"]) == 2
        assert row["ratio"] == pytest.approx(90 / min(row["ours_all_s"])) and row["device"] == "cpu"
    assert [row["peer_s"] for row in arm] == [None] * 4 and all(row["ours_s"] > 0 for row in arm)
    assert [row["samples"] for row in arm] == [17 + 48, 17 + 48, 512, 1]
    assert set(figures["quality"]) == set(kinds) and figures["quality"]["float32"] == 1
    assert set(figures["curves"]) == {"samples", "robots"} and len(figures["curves"]["samples"]["s"]) == 2
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_numbers_that_the_cpu_has_no_instructions_for_are_left_out_and_that_is_said(monkeypatch):
    """They would take a hundred times as long; on a GPU the CPU does not matter."""
    said: list[str] = []
    monkeypatch.setattr(bench_planner, "INSTRUCTIONS", {"int8": lambda: False, "bfloat16": lambda: True})
    assert list(bench_planner._kinds("cpu", said.append)) == ["bfloat16", "float32"]
    assert said == ["without int8: this CPU has no instructions for it"]
    assert bench_planner._kinds("cuda", said.append) == bench_planner.KINDS["cuda"] and len(said) == 1


def test_one_plan_is_better_than_another():
    """A network that heeds no action, as predictors begin, would make all plans equal, and each kind's as good as float32's."""
    with ThreadPoolExecutor(2) as executor:
        planning = LatentPlanning(TINY, torch.float32, executor, 2)
        costs = planning.costs(torch.randn(16, 5, TINY.block, generator=torch.Generator().manual_seed(0)))
        found, still = planning.costs(planning.found(Search(64, 5))[None]), planning.costs(torch.zeros(1, 5, TINY.block))
    assert costs.std() > 0.01 * costs.mean() and found < costs.min() and found < 0.98 * still


def test_the_peer_is_told_its_threads_and_where_to_plan(stub):
    """The same device as ours, by default the processor."""
    for device in ("cpu", "cuda"):
        with Peer(stub(STUB), 3, device) as one:
            assert one.loaded["told"] == ["3", device]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    """Before anything is timed, with what to do."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"--device cuda: no GPU can be seen.*Leave --device out"):
        BenchPlannerConfig(Path("f.json"), device="cuda")


def test_a_peer_that_breaks_says_what_it_said_last(stub):
    """One line with the exit code and the peer's last words; also when it breaks in the middle."""
    with pytest.raises(PeerError, match=r"code 1.*No module named 'stable_worldmodel_'"):
        Peer(stub("import stable_worldmodel_"), 1)
    broken = 'print(\'PEER {"package": "x"}\', flush=True); input(); print("out of memory"); raise SystemExit(3)'
    with Peer(stub(broken), 1) as one:
        with pytest.raises(PeerError, match=r"code 3.*out of memory"):
            one.plan(1, 1, 1)


def test_a_missing_python_is_named():
    """The path that does not exist and what is wanted there."""
    with pytest.raises(PeerError, match=r"nowhere/python does not exist.*stable-worldmodel"):
        Peer(Path("nowhere/python"), 1)


@pytest.mark.parametrize("field, value", [("threads", 0), ("repeats", -1), ("limit_s", 0.0)])
def test_nonsense_settings_are_refused(field, value):
    """The message names the flag."""
    with pytest.raises(ValueError, match="--" + field.replace("_", "-")):
        BenchPlannerConfig(Path("f.json"), **{field: value})
