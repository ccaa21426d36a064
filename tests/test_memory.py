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
    as_at_first = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}  # glibc's own at a start
    run_it = lambda how: subprocess.run(  # noqa: E731
        [sys.executable, "-c", script, how], env=os.environ | as_at_first, capture_output=True, check=True
    )
    kept, given_back = (int(run_it(how).stdout) for how in ("keep", "give back"))
    assert kept < 100 < 10_000 < given_back
