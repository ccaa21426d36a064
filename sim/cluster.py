"""Work for a Ray cluster: calls go out to its machines, results come back one by one. Knows nothing of what is made.

Needs the package of the extra `ray`, which nothing else does. Every machine runs the same versions of Foresight and of what it
computes with; one that does not is refused by name, since its results might differ.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

import foresight
import sim
from foresight.versions import versions

LOCAL = "local"  # instead of an address: a new cluster of this machine alone
ADDRESS = re.compile(r"([\w.-]+):(\d{1,5})")
PATIENCE_S = 5.0  # [s] for a cluster to answer, which Ray itself would wait for two minutes
STORE_BYTES = 2**29  # of shared memory for results on their way, of a cluster that is started here
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # no word to anybody, no needless warning
OF_LOCAL = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token_hex(32)}  # else Ray would keep a token in the home folder
AHEAD = 2  # calls out there for each CPU, so that none waits for this process

Call, Result = TypeVar("Call", bound=tuple), TypeVar("Result")


class ClusterError(RuntimeError):
    """The cluster cannot be used; the message is one line that says why and what to do."""


class LostWorkerError(ClusterError):
    """A worker process, or its machine, has gone while it was at work."""


def check_address(address: str) -> None:
    """Raises ValueError for what is no address."""
    if address != LOCAL and not ADDRESS.fullmatch(address):
        raise ValueError(f"--ray must be HOST:PORT of a Ray cluster, or {LOCAL} for a new one of this machine, got '{address}'.")


def check_reachable(address: str) -> None:
    """Raises ClusterError where Ray is not installed, or nobody answers at the address."""
    if find_spec("ray") is None:
        install = ".venv/bin/pip install -c requirements/constraints.txt -e '.[ray]'"
        raise ClusterError(f"--ray needs Ray, which is missing. Run: {install}")
    if address == LOCAL:
        return
    try:
        socket.create_connection(ADDRESS.fullmatch(address).groups(), PATIENCE_S).close()
    except OSError as error:
        raise _unusable(address, error) from error


def _unusable(address: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"No Ray cluster can be used at --ray {address} ({' '.join(str(error).split())}). Start one with `ray start --head`, "
        "and join it from here with `ray start --address HOST:PORT`, with RAY_AUTH_MODE and RAY_AUTH_TOKEN alike; or use "
        f"--ray {LOCAL}."
    )


def run(address: str, cpus: int, work: Callable[..., Result], calls: Sequence[Call]) -> Iterator[tuple[Call, Result]]:
    """Each call with `work(*call)`, in the order in which they are done. `cpus` is for a cluster that is started here.

    Results wait on the machines that made them until this process takes them, `AHEAD` for each CPU at most. Closing the generator
    ends what is still at work. Raises ClusterError, and what `work` raised.
    """
    with _connected(address, cpus) as ray:
        task = ray.remote(num_cpus=1, max_retries=0)(_same_code)
        here, waiting, pending = fingerprint(), list(reversed(calls)), {}
        while waiting or pending:
            while waiting and len(pending) < AHEAD * _cpus(ray, address):
                call = waiting.pop()
                pending[task.remote(here, work, call)] = call
            (done, *_), _ = ray.wait(list(pending))
            call = pending.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                raise LostWorkerError(f"A worker of the Ray cluster was lost ({type(error).__name__}).") from error
            yield call, result


def fingerprint() -> dict[str, str]:
    """What results depend on: versions of what computes, and Foresight's source."""
    source = hashlib.sha256()
    for package in (foresight, sim):
        for path in sorted(Path(package.__file__).parent.rglob("*.py")):
            source.update(path.read_bytes())
    return versions() | {"source": source.hexdigest()[:12]}


def _same_code(expected: dict[str, str], work: Callable[..., Result], call: tuple) -> Result:
    """On a machine of the cluster: the work, if it would be the same at the other end."""
    found = fingerprint()
    if found != expected:
        unlike = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        there, here = (", ".join(f"{name} {of.get(name, 'absent')}" for name in unlike) for of in (found, expected))
        raise ClusterError(f"Machine {platform.node()} of the Ray cluster has {there}; this one has {here}. Set both up alike.")
    return work(*call)


@contextmanager
def _connected(address: str, cpus: int) -> Iterator:
    """Ray, connected to the cluster. One that is started here asks for a token of this process, and ends with its files."""
    for name, value in {**SETTINGS, **(OF_LOCAL if address == LOCAL else {})}.items():
        os.environ.setdefault(name, value)
    import ray

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder, ThreadPoolExecutor(1) as thread:
        # Ray's own handlers of SIGTERM end a process without a word: one it does not put there from another thread, which its
        # processes do not outlive; the other, beneath Python's, is replaced once it is there.
        begun_here = {"num_cpus": cpus, "object_store_memory": STORE_BYTES, "include_dashboard": False, "_temp_dir": folder}
        begin = partial(ray.init, address, log_to_driver=False, logging_level="ERROR", **(begun_here if address == LOCAL else {}))
        try:
            try:
                thread.submit(begin).result()
            except Exception as error:  # whatever Ray throws means the same here
                raise _unusable(address, error) from error
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
            yield ray
        finally:
            thread.submit(ray.shutdown).result()


def _cpus(ray, address: str) -> int:
    """Of all machines there are now: some may join or leave."""
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if not cpus:
        raise ClusterError(f"The Ray cluster at {address} has no CPUs. Join machines with `ray start --address HOST:PORT`.")
    return cpus
