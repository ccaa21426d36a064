"""Lets something go wrong on purpose in a running simulation: processes by signal, the rest by service.

    foresight inject kill --node planner        (or: python -m foresight_nodes.inject --help)

Processes are those that `foresight up` has written down; only they are ever signalled. Knows the names from sim.faults, and
nothing of what the faults do there.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from foresight_bringup import record
from foresight_bringup.graph import namespace_of
from foresight_msgs.srv import Inject

from foresight.command_line import InputError, parse
from foresight_nodes.ask import PATIENCE_S, asker
from sim.faults import NAMES, TABLE


class InjectError(RuntimeError):
    """The fault cannot be set off; the message is one line."""


@dataclass(frozen=True)
class InjectConfig:
    """Which fault, where, and for how long. Faults: see docs/faults.md."""

    fault: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FAULT")] = ""
    """Name of the fault."""
    node: str = ""
    """Node whose process is meant; kill, freeze and disk_full need it."""
    duration_s: float = 0.0
    """[s] how long; 0: the fault's own default (processes: 2 s)."""
    set: tuple[str, ...] = field(default=())
    """Parameters of the fault, as name=number, for instance delay_s=0.6."""
    namespace: str = ""
    """Namespace of the graph."""

    def __post_init__(self) -> None:
        if self.fault not in NAMES:
            wrong = f"Fault '{self.fault}' is unknown" if self.fault else "Name the fault that is to be set off"
            raise InjectError(f"{wrong}. Available: {', '.join(NAMES)}.")
        if not 0 <= self.duration_s <= 3600:
            raise InjectError(f"--duration-s must lie between 0 and 3600 s, got {self.duration_s}.")
        try:
            object.__setattr__(self, "namespace", namespace_of(self.namespace))
        except ValueError as error:
            raise InjectError(f"--namespace: {error}") from None
        self.values()

    def values(self) -> dict[str, float]:
        found = {}
        for word in self.set:
            name, _, value = word.partition("=")
            try:
                found[name] = float(value)
            except ValueError:
                raise InjectError(f"--set takes name=number, got '{word}'.") from None
            if not math.isfinite(found[name]):
                raise InjectError(f"--set takes finite numbers, got '{word}'.")
        return found


def inject(config: InjectConfig) -> str:
    """Sets the fault off; returns a sentence on what happens now. Raises InjectError."""
    where = next(kind.where for kind in TABLE if kind.name == config.fault)
    if config.node not in ("", where) and where != "process":
        raise InjectError(f"{config.fault} is a fault of {where}, not of '{config.node}'. Leave --node out.")
    if config.set and where != "sim":  # which knows its faults' parameters
        raise InjectError(f"{config.fault} has no parameters, got {', '.join(config.set)}. Only --duration-s can be given.")
    if where != "process":
        return _ask(where, config)
    return _signal(config, find(config.node, config.namespace))


def find(node: str, namespace: str = "") -> record.Running:
    """The process of a node, among those that `foresight up` has started in this domain. Raises InjectError."""
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    running = record.read(record.path(domain, namespace))
    if not running:
        where = f"domain {domain}" + (f", namespace {namespace}" if namespace else "")
        raise InjectError(f"No graph of `foresight up` runs on {where}. Start one: foresight up sim.")
    for process in running:
        if node in process.nodes:
            return process
    there = ", ".join(name for process in running for name in process.nodes)
    raise InjectError(f"--node must be one of {there}; got '{node or 'nothing'}'.")


def _signal(config: InjectConfig, process: record.Running) -> str:
    who, duration_s = f"{config.node} (pid {process.pid})", config.duration_s or 2.0
    if config.fault == "kill":
        process.send(signal.SIGKILL)
        return f"SIGKILL sent to {who}."
    if config.fault == "freeze":
        return _for_a_while(
            process, duration_s, f"{who} was frozen for {duration_s:g} s",
            lambda: process.send(signal.SIGSTOP), lambda: process.send(signal.SIGCONT),
        )  # fmt: skip
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    return _for_a_while(
        process, duration_s, f"{who} could write to no file for {duration_s:g} s",
        lambda: resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, hard)),
        lambda: resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard)),
    )  # fmt: skip


def _for_a_while(process: record.Running, duration_s: float, said: str, begin: Callable, end: Callable) -> str:
    """Undone whatever interrupts it, unless the process has ended meanwhile."""
    end_s = time.monotonic() + duration_s
    begin()
    try:
        while time.monotonic() < end_s and process.alive():
            time.sleep(0.02)
    finally:
        alive = process.alive()
        if alive:
            end()
    return f"{said}." if alive else f"{said}, or less: it has ended meanwhile."


def _ask(node: str, config: InjectConfig) -> str:
    values = config.values()
    request = Inject.Request(fault=config.fault, duration_s=config.duration_s, names=list(values), values=list(values.values()))
    with asker("inject", config.namespace) as ask:
        answer = ask(Inject, f"{node}/inject", request)
    if answer is None:
        raise InjectError(f"{node}/inject does not answer within {PATIENCE_S:.0f} s. Does `foresight up sim` run on this domain?")
    if not answer.ok:
        raise InjectError(answer.message)
    return answer.message


def main(words: list[str] | None = None) -> int:
    about = "Lets something go wrong on purpose in a running simulation.\n\n" + "\n".join(
        f"{kind.name} ({kind.where}): {kind.does}" for kind in TABLE
    )
    try:
        print(inject(parse(InjectConfig, "inject", about, sys.argv[1:] if words is None else words)))
    except (InjectError, InputError) as error:
        print(f"foresight inject: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nforesight inject: interrupted; the fault has ended.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
