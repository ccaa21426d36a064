"""The live table of a running evaluation. Only prints; computes nothing but the table's own cells."""

from __future__ import annotations

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from foresight.evaluation.results import EpisodeResult
from foresight.evaluation.statistics import percentile, wilson
from foresight.told import Told


class LiveTable:
    """A row per task and policy, growing with every `add`; use as a context manager."""

    def __init__(self, planned: dict[tuple[str, str], int], console: Console | None = None, title: str = "") -> None:
        """`planned` holds the number of episodes of each (task, policy)."""
        self.planned, self.title = planned, title
        self.episodes: list[EpisodeResult] = []
        self._status = ""
        self._live = Live(self._render(), console=console, auto_refresh=False)
        self._tell = Told(self._live.console)

    def __enter__(self) -> "LiveTable":
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._status = ""
        self._refresh()
        self._live.__exit__(*exception)
        if not self._live.console.is_terminal:
            self._live.console.print()  # ends the table's last line

    def add(self, result: EpisodeResult) -> None:
        self.episodes.append(result)
        self._refresh()
        self._tell(lambda: [f"{len(self.episodes)} of {sum(self.planned.values())} episodes, {self._succeeded()}"])

    def status(self, line: str) -> None:
        """One line under the table: what is happening now."""
        self._status = line
        self._refresh()

    def note(self, line: str) -> None:
        """A line that stays, above the table."""
        self._live.console.print(line, style="yellow", highlight=False)

    def _succeeded(self) -> str:
        groups = [[e for e in self.episodes if (e.group, e.policy) == key] for key in self.planned]
        shares = (f"{own[0].group} ({own[0].policy}) {sum(e.success for e in own)} of {len(own)}" for own in groups if own)
        return "succeeded: " + ", ".join(shares)

    def _refresh(self) -> None:
        self._live.update(self._render(), refresh=True)

    def _render(self) -> Group:
        table = Table(title=self.title or None, title_justify="left")
        for heading in ("task", "policy"):
            table.add_column(heading)
        watched = any(e.keep_outs_entered is not None for e in self.episodes)
        for heading in ("runs", "success", "95 %", "time", "plan p50/p99", "violations", *["entered"] * watched):
            table.add_column(heading, justify="right")
        for (task, policy), planned in self.planned.items():
            own = [e for e in self.episodes if (e.group, e.policy) == (task, policy)]
            table.add_row(task, policy, *self._cells(own, planned), *[str(sum(bool(e.keep_outs_entered) for e in own))] * watched)
        return Group(table, Text(self._status, style="dim")) if self._status else Group(table)

    def _cells(self, episodes: list[EpisodeResult], planned: int) -> tuple[str, ...]:
        if not episodes:
            return (f"0/{planned}", "", "", "", "", "")
        successes = sum(e.success for e in episodes)
        low, high = wilson(successes, len(episodes))
        time_s = percentile([e.time_to_goal_s for e in episodes if e.time_to_goal_s is not None], 50)
        plan_ms = [ms for e in episodes for ms in e.planning_ms]
        violations = sum(e.violations for e in episodes)
        return (
            f"{len(episodes)}/{planned}",
            f"{100 * successes / len(episodes):.1f} %",
            f"{100 * low:.0f}-{100 * high:.0f} %",
            f"{time_s:.1f} s" if time_s is not None else "-",
            f"{percentile(plan_ms, 50):.0f}/{percentile(plan_ms, 99):.0f} ms" if plan_ms else "-",
            str(violations) if not violations else f"[bold red]{violations}[/]",
        )
