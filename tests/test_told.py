"""A log is told how far long work is; a terminal has its bar."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from foresight import cli, told
from foresight.evaluation.table import LiveTable
from tests.evaluation.test_report import episode


@pytest.mark.parametrize(("terminal", "lines"), [(False, ["2 of 9", "5 of 9", "8 of 9"]), (True, [])])
def test_a_log_gets_a_line_now_and_then(terminal, lines):
    """One at most every so many seconds, the first after as many."""
    out, now_s = io.StringIO(), [100.0]
    tell = told.Told(Console(file=out, force_terminal=terminal), lambda: now_s[0])
    for done in range(9):
        now_s[0] += 10.0
        tell(lambda done=done: [f"{done} of 9"])
    assert out.getvalue().splitlines() == lines


def test_the_bar_and_the_table_of_a_log_say_how_far_they_are(monkeypatch):
    """Each task that has begun and not ended; episodes with their successes by task and policy."""
    monkeypatch.setattr(told, "EVERY_S", 0.0)
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=False)
    bar = Progress(console=console)
    first, second = bar.add_task("first", total=4), bar.add_task("second", total=2, completed=2)
    bar.update(second, completed=2)
    with cli._shown_once_used(bar) as use:
        for done in (1, 2):
            use().update(first, completed=done)
    assert [line for line in out.getvalue().splitlines() if " of " in line] == ["first: 0 of 4", "first: 1 of 4"]
    with LiveTable({("reach", "both"): 2, ("reach", "random"): 1}, console) as table:
        table.add(episode())
        table.add(episode(success=False, policy="random"))
    said = [line for line in out.getvalue().splitlines() if "episodes" in line]
    assert said == [
        "1 of 3 episodes, succeeded: reach (both) 1 of 1",
        "2 of 3 episodes, succeeded: reach (both) 1 of 1, reach (random) 0 of 1",
    ]
