"""An evaluation as one page that a person can read: report.html, self-contained but for the videos beside it.

Reads results, decides nothing. Failures come first.
"""

# ruff: noqa: E501 - HTML reads better unbroken

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np

from foresight.evaluation.results import EpisodeResult, Quantiles, Report, write_results
from foresight.evaluation.statistics import percentile
from foresight.files import write_atomically

SHOWN = 24  # episodes with a video in the gallery, failures first
LISTED = 400  # rows of the table of all episodes
LIMITS = (
    "Everything here was measured in simulation (MuJoCo). Nothing on this page was measured on a real arm.",
    "The judge reads the simulator's true states; the agent sees camera images and joint states only.",
    "The pictures called “imagined” are decoded by a small decoder that was trained only to show people what the model foresees. "
    "Nothing in planning uses them, and their blur says little about the plan.",
)
SLOW = 0.95  # of real time, below which latencies flatter: simulated time stands still while it waits for a core
SHIFTS = {"none": "as in training", "colour": "another table colour", "camera": "cameras moved by 3 cm"}
INSIDE = ("table", "floor", "cube", "arm", "light", "cameras", "family")  # shifts that training draws too


def write_report(
    folder: Path,
    report: Report,
    episodes: Sequence[EpisodeResult],
    checkpoint: Path | None = None,
    beside: Sequence[Report] = (),
) -> Path:
    """Writes report.json, episodes.json and report.html into the folder; returns the page's path."""
    write_results(folder, report, episodes)
    return write_atomically(folder / "report.html", page(report, episodes, _model_card(checkpoint), beside))


def page(report: Report, episodes: Sequence[EpisodeResult], model_card: str = "", beside: Sequence[Report] = ()) -> str:
    """The HTML. Video sources are relative to the report's folder. `beside`: other models on the same scenes."""
    own = [e for e in episodes if e.policy == report.policy]
    ordered = sorted(own, key=lambda e: (e.success, not e.violations))  # failures first; stable, so by task and seed within
    successes, total = sum(e.success for e in own), len(own)
    sections = [
        _header(report, successes, total),
        _section("Results", _headline(report) + _tiles(report, own)),
        *([_section("Success against training episodes", _efficiency([report, *beside]))] if beside else []),
        _section(*_gallery(ordered)),
        _section("Latency", _latency(report, own)),
        _section("Surprise", _surprise(own)),
        _section("All episodes", _episode_table(ordered)),
        _section(
            "The model",
            f"<pre>{escape(model_card)}</pre>" if model_card else "<p>No model card was found beside the checkpoint.</p>",
        ),
        _section(
            "What these figures do not say",
            "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in (*_caveats(own), *LIMITS)) + "</ul>",
        ),
    ]
    title = f"Foresight: {successes} of {total}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
    )


def _caveats(own: Sequence[EpisodeResult]) -> list[str]:
    slow = [e.real_time for e in own if e.real_time is not None and e.real_time < SLOW]
    if not slow:
        return []
    return [
        f"In {len(slow)} of {len(own)} episodes the simulation ran at less than {SLOW} of real time ({min(slow):.2f} at worst): "
        "the cores were too slow, or other programs took them. Latencies of those episodes are too small and not comparable."
    ]


def _header(report: Report, successes: int, total: int) -> str:
    how = (
        "through the ROS graph, its clock held to real time"
        if report.through == "ros"
        else "in one process; time stands still while the planner thinks"
    )
    facts = {
        "policy": report.policy, "world": SHIFTS.get(report.shift, report.shift), "run": how,
        "scenes": f"--suite {report.suite}, manifest {report.manifest}, each compared with its hash" if report.suite else f"--seed {report.seed}: {report.seed}00000 and on",
        "model": report.model_id, "code": report.git,
        "machine": f"{report.machine.cpu}, {report.machine.cores} cores, {report.machine.memory_gb:.0f} GB, Python {report.machine.python}, torch {report.machine.torch}",
    }  # fmt: skip
    if not report.guarded:
        facts["guard"] = "none: whatever was planned was sent"
    if report.injected_ms:
        facts["latency"] = f"{report.injected_ms:g} ms injected, {'' if report.compensated else 'not '}compensated"
    if not report.subgoals:
        facts["sub-goals"] = "not pursued"
    if report.searching:
        facts["search"] = ", ".join(f"{name} {value}" for name, value in report.searching.items())
    if report.suite:
        facts["world"] = "as the row says"
    if report.not_run:
        facts["not run"] = "; ".join(f"{row}: {why}" for row, why in report.not_run.items())
    if report.interrupted:
        facts["interrupted"] = "not all episodes that were asked for were done; the quick ones end first"
    cells = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(str(value))}</dd></div>" for key, value in facts.items())
    return f"<header><p class=mark>Foresight</p><h1>{successes} of {total} goals reached</h1><dl>{cells}</dl></header>"


def _headline(report: Report) -> str:
    def figure(number: float | None, digits: int, unit: str) -> str:
        return "–" if number is None else f"{number:.{digits}f} {unit}"

    shifted = any(task.of_base is not None for task in report.tasks.values())
    rows = []
    for name, task in report.tasks.items():
        rate, (low, high) = task.successes / max(1, task.episodes), task.ci95
        floor = (
            None if not task.random_episodes or task.random_successes is None else task.random_successes / task.random_episodes
        )
        marker = f"<i class=floor style='left:{100 * floor:.1f}%' title='random policy'></i>" if floor is not None else ""
        bar = f"<div class=bar><b style='width:{100 * rate:.1f}%'></b><i class=interval style='left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%'></i>{marker}</div>"
        random = f"{task.random_successes} of {task.random_episodes}" if floor is not None else "not run"
        kept = f"<td class=n>{figure(None if task.of_base is None else 100 * task.of_base, 0, '%')}</td>" if shifted else ""
        near = "–" if task.near_misses is None else task.near_misses
        rows.append(
            f"<tr><th>{escape(name)}</th><td class=n>{task.successes} of {task.episodes}</td><td class=n><strong>{100 * rate:.1f} %</strong></td>{kept}"
            f"<td class=wide>{bar}</td><td class=n>{100 * low:.1f} – {100 * high:.1f} %</td><td class=n>{random}</td>"
            f"<td class=n>{figure(task.time_to_goal_s, 1, 's')}</td><td class=n>{figure(task.path_m, 2, 'm')}</td><td class=n>{figure(task.jerk_m_s3, 0, 'm/s³')}</td>"
            f"<td class='n{' bad' if task.violations else ''}'>{task.violations}</td><td class=n>{near}</td></tr>"
        )
    kept = "<th class=n>of the unshifted kept</th>" if shifted else ""
    return (
        f"<div class=scroll><table><thead><tr><th>task</th><th class=n>reached</th><th class=n>success</th>{kept}<th></th><th class=n>95 % interval</th><th class=n>random policy</th>"
        "<th class=n>time to goal, median</th><th class=n>tip’s way, median</th><th class=n>jerk (rms), median</th><th class=n>limit violations</th><th class=n>near-misses</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{_kept_by_side(report)}"
        "<p class=note>Filled: success rate. Line: Wilson’s 95 % interval. Red tick: the random policy on the same scenes. "
        "A goal counts when the distance is below the threshold and everything rests there for 0.5 s. Violations, near-misses (95 % of a "
        "speed limit, 0.05 rad before a joint’s end, outside the workspace but within its slack, 1 cm of a keep-out), way and jerk are "
        "from true states.</p>"
    )


def _kept_by_side(report: Report) -> str:
    """Of the unshifted success, the mean kept inside and outside of what training draws."""
    lines = []
    for task in (name for name, of in report.tasks.items() if "," not in name and of.episodes):
        kept: dict[bool, list[float]] = {True: [], False: []}
        for name, of in report.tasks.items():
            base, _, shift = name.partition(", ")
            if base == task and of.of_base is not None:
                kept[shift in INSIDE].append(of.of_base)
        words = [
            f"{100 * np.mean(kept[side]):.0f} % {where} of what training draws (lowest factor {100 * min(kept[side]):.0f} %)"
            for side, where in ((True, "inside"), (False, "outside"))
            if kept[side]
        ]
        lines += [f"{task} keeps on average {' and '.join(words)}"] if words else []
    return f"<p>{escape('; '.join(lines))}.</p>" if lines else ""


def _efficiency(reports: Sequence[Report]) -> str:
    """A curve and a table: what each number of training episodes came to, a point for each model, the line through their means."""
    told = sorted((r for r in reports if r.training_episodes), key=lambda r: (r.training_episodes, r.training_seed or 0))
    rows = [name for name in dict.fromkeys(name for r in told for name in r.tasks) if ", " not in name]
    if not rows:
        return "<p>No model tells how many episodes it was trained on.</p>"
    figure, axes = _figure(len(rows))
    for axis, name in zip(axes, rows, strict=True):
        points = [(r.training_episodes, r.tasks[name]) for r in told if name in r.tasks]
        for episodes, task in points:
            rate, (low, high) = 100 * task.successes / max(1, task.episodes), task.ci95
            axis.errorbar(
                episodes, rate, [[rate - 100 * low], [100 * high - rate]], fmt="o", color="#3b6fd4", markersize=4, capsize=2
            )
        counts = sorted({episodes for episodes, _ in points})
        rates = [[100 * t.successes / max(1, t.episodes) for episodes, t in points if episodes == count] for count in counts]
        axis.plot(counts, [np.mean(of) for of in rates], color="#3b6fd4", linewidth=1)
        axis.set_title(name, loc="left")
        axis.set_xscale("log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.set_xlabel("training episodes")
        axis.set_ylim(0, 103)
    axes[0].set_ylabel("success, %")
    body = "".join(
        f"<tr><td class=n>{r.training_episodes}</td><td class=n>{'–' if r.training_seed is None else r.training_seed}</td><td>{escape(r.model_id)}</td>"
        + "".join(
            f"<td class=n>{f'{t.successes} of {t.episodes} [{100 * t.ci95[0]:.0f}, {100 * t.ci95[1]:.0f}]' if (t := r.tasks.get(name)) else '–'}</td>"
            for name in rows
        )
        + "</tr>"
        for r in told
    )
    heads = "".join(f"<th class=n>{escape(name)}</th>" for name in rows)
    return _image(figure, "Success rate against the number of training episodes, with Wilson's 95 % intervals") + (
        f"<div class=scroll><table><thead><tr><th class=n>training episodes</th><th class=n>training seed</th><th>model</th>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table></div><p class=note>Each point is a model on the scenes of the same manifest; bars are Wilson’s 95 % intervals, the line goes through the means.</p>"
    )


def _tiles(report: Report, own: Sequence[EpisodeResult]) -> str:
    def value(number: float | None, unit: str, digits: int = 0) -> str:
        return f"{number:.{digits}f} {unit}" if number is not None else "–"

    tiles = {
        "plans per second": value(report.plan_hz, "Hz", 1),
        "planning, median": value(report.latency_ms.plan.p50, "ms"),
        "planning, p99": value(report.latency_ms.plan.p99, "ms"),
        "camera to command, median": value(report.latency_ms.camera_to_command.p50, "ms"),
        "camera to command, p99": value(report.latency_ms.camera_to_command.p99, "ms"),
        "limit violations": str(sum(e.violations for e in own)),
    }
    return (
        "<div class=tiles>"
        + "".join(f"<div><strong>{v}</strong><span>{escape(k)}</span></div>" for k, v in tiles.items())
        + "</div>"
    )


def _gallery(ordered: Sequence[EpisodeResult]) -> tuple[str, str]:
    failures = sum(not e.success for e in ordered)
    shown = [e for e in ordered if e.video][:SHOWN]
    title = (
        f"{failures} failure{'s' * (failures != 1)}{', then successes' * (failures < len(ordered))}" if failures else "Episodes"
    )
    if not shown:
        return title, "<p>No videos were recorded.</p>"
    cards = []
    for e in shown:
        outcome = (
            f"reached in {e.time_to_goal_s:.1f} s"
            if e.success and e.time_to_goal_s is not None
            else f"{e.reason.rstrip('.')}; {100 * e.final_distance_m:.1f} cm away"
        )
        if e.violations:
            outcome += f"; {e.violations} violations: {e.violation_detail}"
        cards.append(
            f"<figure class={'ok' if e.success else 'failed'}><video src='{escape(e.video, quote=True)}' controls loop muted playsinline preload=metadata></video>"
            f"<figcaption><strong>{escape(e.group)}</strong> seed {e.seed}<span>{escape(outcome)}</span></figcaption></figure>"
        )
    return (
        title,
        f"<p class=note>Left: the cameras now. Middle: the goal. Right: what the model imagined.</p><div class=gallery>{''.join(cards)}</div>",
    )


def _latency(report: Report, own: Sequence[EpisodeResult]) -> str:
    series = {
        "planning": ([ms for e in own for ms in e.planning_ms], report.latency_ms.plan),
        "camera to command": ([ms for e in own for ms in e.camera_to_command_ms], report.latency_ms.camera_to_command),
    }
    if not any(values for values, _ in series.values()):
        return "<p>No latencies were measured.</p>"
    figure, axes = _figure(len(series))
    for axis, colour, (name, (values, quantiles)) in zip(axes, ("#3b6fd4", "#2a9d78"), series.items(), strict=True):
        _histogram(axis, name, values, quantiles, colour)
    where = "camera capture to the command’s arrival at the arm, all processes and transport included" if report.through == "ros" else (
        "camera image in hand to checked command, in one process, without transport"
    )  # fmt: skip
    return (
        _image(figure, "Histograms of planning time and of camera-to-command latency")
        + f"<p class=note>Camera to command: {where}.</p>"
    )


def _histogram(axis, name: str, values: Sequence[float], quantiles: Quantiles, colour: str) -> None:
    axis.set_title(name, loc="left")
    axis.set_xlabel("ms")
    axis.set_yticks([])
    if not values:
        axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes)
        return
    top = max(1.15 * (quantiles.p99 or 0.0), 1.02 * (percentile(values, 99.5) or 1.0))
    axis.hist(np.clip(values, 0, top), bins=40, range=(0, top), color=colour, alpha=0.85)
    axis.set_xlim(0, top)
    axis.margins(y=0.18)
    for label, x in (("p50", quantiles.p50), ("p99", quantiles.p99)):
        if x is not None:
            axis.axvline(x, color="#20242c", linewidth=1, linestyle="-" if label == "p50" else "--")
            axis.annotate(
                f"{label} {x:.0f} ms",
                (x, 0.97),
                xycoords=("data", "axes fraction"),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=8,
            )


def _surprise(own: Sequence[EpisodeResult]) -> str:
    series = [e for e in own if np.isfinite(e.surprise).any()] if own else []
    if not series:
        return "<p>No surprise was recorded.</p>"
    figure, (axis,) = _figure(1)
    for e in series:
        times = np.linspace(0, e.duration_s, len(e.surprise))
        axis.plot(times, e.surprise, color="#3b6fd4" if e.success else "#c8473d", alpha=0.25 if e.success else 0.8, linewidth=1)
    axis.axhline(1, color="#20242c", linewidth=1, linestyle="--")
    axis.set_xlabel("s into the episode")
    axis.set_ylabel("surprise")
    axis.set_ylim(0, max(2.0, 1.1 * (percentile([s for e in series for s in e.surprise], 99.5) or 2.0)))
    return _image(figure, "Surprise over time, a line for each episode") + (
        "<p class=note>How wrong the last imagined step was, over what is ordinary on held-out data (dashed, 1). Red: episodes that failed.</p>"
    )


def _episode_table(ordered: Sequence[EpisodeResult]) -> str:
    rows = "".join(
        f"<tr><td>{escape(e.group)}</td><td class=n>{e.seed}</td><td class={'good' if e.success else 'bad'}>{escape(e.reason)}</td>"
        f"<td class=n>{f'{e.time_to_goal_s:.1f} s' if e.time_to_goal_s is not None else '–'}</td><td class=n>{100 * e.final_distance_m:.1f} cm</td>"
        f"<td class=n>{e.steps}</td><td class=n>{f'{percentile(e.planning_ms, 50):.0f} ms' if e.planning_ms else '–'}</td>"
        f"<td class='n{' bad' if e.violations else ''}'>{escape(f'{e.violations} {e.violation_detail}'.strip())}</td></tr>"
        for e in ordered[:LISTED]
    )
    more = f"<p class=note>The first {LISTED} of {len(ordered)}; all are in episodes.json.</p>" if len(ordered) > LISTED else ""
    return (
        f"<details{' open' if len(ordered) <= 20 else ''}><summary>{len(ordered)} episodes, failures first</summary><div class=scroll><table><thead><tr><th>task</th>"
        "<th class=n>seed</th><th>end</th><th class=n>time to goal</th><th class=n>final distance</th><th class=n>steps</th><th class=n>planning</th>"
        f"<th class=n>violations</th></tr></thead><tbody>{rows}</tbody></table></div>{more}</details>"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _figure(columns: int):
    from matplotlib.figure import Figure  # without pyplot: no backend, no global state

    figure = Figure(figsize=(9.6, 2.6), layout="constrained", facecolor="none")
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_facecolor("none")
        axis.tick_params(labelsize=8)
    return figure, axes


def _image(figure, words: str) -> str:
    """The figure as an image inside the page."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return f"<img alt='{escape(words, quote=True)}' src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"


def _model_card(checkpoint: Path | None) -> str:
    """The first 60 lines of the checkpoint's card; empty when there is none."""
    if checkpoint is None:
        return ""
    cards = [checkpoint / name for name in ("MODEL_CARD.md", "model_card.md", "README.md")]
    card = next((path for path in cards if path.is_file()), None)
    return "\n".join(card.read_text().splitlines()[:60]) if card else ""


STYLE = """
:root{--ink:#20242c;--faint:#687082;--line:#e3e6ec;--paper:#fff;--ground:#f4f5f8;--blue:#3b6fd4;--good:#1f8a5b;--bad:#c8473d}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 20px 64px}
header{padding:8px 4px 20px}.mark{margin:0;color:var(--blue);font-weight:600;letter-spacing:.02em}
h1{margin:2px 0 18px;font-size:38px;line-height:1.15;letter-spacing:-.02em}h2{margin:0 0 14px;font-size:19px;letter-spacing:-.01em}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:10px 24px;margin:0}dt{color:var(--faint);font-size:12px}dd{margin:0;overflow-wrap:anywhere}
section{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:22px 24px;margin:16px 0}
table{width:100%;border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:8px 10px;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap}
thead th{color:var(--faint);font-weight:500;font-size:12px}tbody tr:last-child>*{border-bottom:0}.n{text-align:right}.wide{width:30%;min-width:140px}.scroll{overflow-x:auto}
.bar{position:relative;height:14px;background:var(--ground);border-radius:7px}.bar b{position:absolute;inset:0 auto 0 0;background:var(--blue);border-radius:7px;opacity:.85}
.bar .interval{position:absolute;top:6px;height:2px;background:var(--ink)}.bar .floor{position:absolute;top:-3px;width:2px;height:20px;background:var(--bad)}
.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}.note{color:var(--faint);font-size:13px;margin:12px 0 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin-top:20px}.tiles div{background:var(--ground);border-radius:10px;padding:12px 14px}
.tiles strong{display:block;font-size:21px;letter-spacing:-.01em}.tiles span{color:var(--faint);font-size:12.5px}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:16px;margin-top:14px}figure{margin:0;border:1px solid var(--line);border-radius:10px;overflow:hidden}
figure.failed{border-color:var(--bad)}video{display:block;width:100%;background:#181a20;aspect-ratio:768/576}figcaption{padding:9px 12px;font-size:13px}figcaption span{display:block;color:var(--faint)}
figure.failed figcaption span{color:var(--bad)}img{display:block;max-width:100%;margin:0 auto}pre{background:var(--ground);border-radius:10px;padding:16px;overflow-x:auto;font-size:12.5px;line-height:1.5;margin:0}
summary{cursor:pointer;color:var(--faint);margin-bottom:8px}ul{margin:0;padding-left:20px}li{margin:4px 0}
"""
