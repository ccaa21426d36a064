"""Memory that a process keeps."""

import os
import subprocess
import sys


def test_freed_memory_is_kept():
    """Tensors of half a megabyte, again and again: without it every one brings its pages anew (glibc only)."""
    script = """
import resource, sys, torch
from foresight.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(60):
    if turn == 10:
        before = faults()
    tensors = [torch.ones(1 << 17) for _ in range(40)]
    del tensors
print(faults() - before)
"""
    kept, given_back = (int(run_it(script, how)) for how in ("keep", "give back"))
    assert kept < 100 < 10_000 < given_back


def test_plans_ask_the_system_for_no_memory():
    """Iteration after iteration, plan after plan: what a search of 300 needs is there since the first, but for some pages."""
    script = """
import resource, sys, torch
from concurrent.futures import ThreadPoolExecutor
from foresight.evaluation.latent_planning import LatentPlanning, Search, TransformerConfig
from foresight.memory import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
with ThreadPoolExecutor(2) as executor:
    planning = LatentPlanning(TransformerConfig(depth=1, image=28, encoder_depth=1), torch.float32, executor, 2)
    for turn in range(8):
        if turn == 4:
            before = faults()
        planning.plan(Search(300, 4))
print(faults() - before)
"""
    kept, given_back = (int(run_it(script, how)) for how in ("keep", "give back"))
    assert kept < 2000 < 100_000 < given_back


def run_it(script: str, how: str) -> str:
    as_at_first = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}  # glibc's own at a start
    found = subprocess.run([sys.executable, "-c", script, how], env=os.environ | as_at_first, capture_output=True, check=True)
    return found.stdout.decode()
