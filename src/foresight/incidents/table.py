"""The verdicts of a replayed incident as a table. Only prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from foresight.incidents.replay import Replay


def print_replay(replay: Replay, summary: dict, console: Console | None = None) -> None:
    """A row a verdict; why the arm was stopped above, each time, the sum below."""
    console = console or Console()
    if summary:
        console.print(Text(f"{summary.get('reason', '')}: {summary.get('detail', '')}"))
    for stop in summary.get("stops", [])[1:]:
        console.print(Text(f"then at {stop['time_s']:.3f} s: {stop['action']}, {stop['reason']}: {stop['detail']}"))
    table = Table("time in s", "no.", "plan", "recorded", "replayed", "same")
    for row in replay.rows:
        same = Text("yes", "green") if row.same else Text("no: " + ", ".join(row.differences), "red")
        again = row.replayed_reason or "(unreadable plan)"
        table.add_row(f"{row.time_s:.4f}", str(row.number), str(row.plan_id), row.reason, again, same)
    if replay.rows:
        console.print(table)
    console.print(Text(conclusion(replay)))


def conclusion(replay: Replay) -> str:
    """One sentence that names what differs."""
    different = [str(row.number) for row in replay.rows if not row.same]
    count = len(replay.rows)
    said = (
        f"{count - len(different)} of {count} verdicts are the same to the last bit; different: number {', '.join(different)}."
        if different
        else f"All {count} verdicts are the same to the last bit."
        if count
        else "No plan was judged in this incident; there is nothing to replay."
    )
    return said + (f" {replay.missing} more were never received by the recorder." if replay.missing else "")
