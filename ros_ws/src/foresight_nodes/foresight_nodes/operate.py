"""What an operator says to a running graph: stop, reset, and how motions are judged; where the `ros2` command is missing.

    foresight stop
    foresight reset
    foresight objective "to_go(growth=1) + 0.5*effort"        (or: python -m foresight_nodes.operate stop ...)

Exit codes: 0 done, 1 refused, 2 bad input or no graph. Each is one call of a service that `ros2 service call` reaches as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import tyro
from foresight_bringup.graph import namespace_of
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from std_srvs.srv import Trigger

from foresight.command_line import InputError, parse
from foresight_nodes.ask import PATIENCE_S, Asker, asker
from foresight_nodes.topics import OBJECTIVE

GUARD_S = 5.0  # [s] for the guard to be found and to answer, before the lifecycle manager is asked


@dataclass(frozen=True)
class Where:
    """Which graph is meant."""

    namespace: str = ""
    """Namespace of the graph."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "namespace", namespace_of(self.namespace))


@dataclass(frozen=True)
class ObjectiveConfig(Where):
    """The objective that holds from the next plan on; without one the present one is told."""

    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")] = ""
    """A sum of weight*term, for instance "to_go(growth=1) + 0.5*effort"; terms are listed where an unknown one is refused."""


def stop(ask: Asker, _: Where) -> tuple[bool, str]:
    """Bring the arm to rest and refuse all motion until `foresight reset`."""
    return _answer(ask(Trigger, "guard/stop", Trigger.Request()), "guard")


def reset(ask: Asker, _: Where) -> tuple[bool, str]:
    """Allow motion again after a stop that holds: ask the guard, or the lifecycle manager where that guard is gone."""
    said = ask(Trigger, "guard/reset", Trigger.Request(), GUARD_S)
    if said is not None and (said.success or "not active" not in said.message):
        return _answer(said, "guard")
    return _answer(ask(Trigger, "lifecycle_manager/resume", Trigger.Request()), "guard, nor a lifecycle manager,")


def objective(ask: Asker, config: ObjectiveConfig) -> tuple[bool, str]:
    """Change how motions are judged while the planner runs; without TEXT, tell how they are."""
    if not config.text:
        found = ask(GetParameters, "planner/get_parameters", GetParameters.Request(names=[OBJECTIVE]))
        return _answer(found and Trigger.Response(success=True, message=found.values[0].string_value), "planner")
    value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=config.text)
    request = SetParameters.Request(parameters=[Parameter(name=OBJECTIVE, value=value)])
    found = ask(SetParameters, "planner/set_parameters", request)
    if found is None or found.results[0].successful:
        return _answer(found and Trigger.Response(success=True, message=f"From the next plan on: {config.text}"), "planner")
    return False, found.results[0].reason


def _answer(said: Trigger.Response | None, who: str) -> tuple[bool, str]:
    if said is None:
        raise InputError(
            f"No {who} answers within {PATIENCE_S:.0f} s. Does a graph run on this domain? Start one: foresight up sim."
        )
    return said.success, said.message


WORDS: dict[str, tuple[type, Callable[[Asker, Where], tuple[bool, str]]]] = {
    "stop": (Where, stop), "reset": (Where, reset), "objective": (ObjectiveConfig, objective),
}  # fmt: skip


def main(words: list[str] | None = None) -> int:
    name, *words = sys.argv[1:] if words is None else words
    kind, do = WORDS[name]
    try:
        config = parse(kind, name, do.__doc__, words)
        with asker("operate", config.namespace) as ask:
            done, said = do(ask, config)
    except (InputError, ValueError) as error:
        print(f"foresight {name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(said if done else f"foresight {name}: refused. {said}", file=sys.stdout if done else sys.stderr, flush=True)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
