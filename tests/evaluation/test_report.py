"""What an evaluation leaves behind: report.json of a fixed shape, a page that shows failures first, videos."""

import re
import socket
from dataclasses import replace
from io import StringIO

import av
import numpy as np
import pytest
from rich.console import Console

from foresight.evaluation.report import page, write_report
from foresight.evaluation.results import EpisodeResult, comparable, read_results, summarise
from foresight.evaluation.table import LiveTable
from foresight.evaluation.video import EpisodeVideo


def episode(task="reach", success=True, policy="both", seed=1, **changes) -> EpisodeResult:
    result = EpisodeResult(
        task=task, seed=seed, shift="none", policy=policy, success=success, time_to_goal_s=2.0 if success else None,
        final_distance_m=0.01 if success else 0.2, violations=0, violation_detail="", steps=20, duration_s=2.0, pursued_s=2.0,
        reason="reached" if success else "timed_out", planning_ms=(40.0, 60.0), camera_to_command_ms=(80.0, 100.0),
        surprise=(float("nan"), 1.0),
    )  # fmt: skip
    return replace(result, **changes)


EPISODES = [
    episode(seed=1),
    episode(seed=2, success=False, violations=2, violation_detail="tip speed at 1.0 s"),
    episode("push", seed=3, time_to_goal_s=4.0),
]
FLOOR = [
    episode(policy="random", success=False, seed=1),
    episode(policy="random", seed=2),
    episode("push", policy="random", success=False, seed=3),
]


def summary(episodes=None):
    return summarise(episodes or EPISODES + FLOOR, policy="both", seed=100, shift="none", model_id="abc")


def test_report_json_has_the_promised_shape():
    """Every key that readers of report.json rely on is there, with its type."""
    raw = summary().to_json()
    assert {"tasks", "latency_ms", "plan_hz", "model_id", "git", "seed", "machine"} <= raw.keys()
    reach = raw["tasks"]["reach"]
    assert {"episodes", "successes", "ci95", "random_successes", "violations", "time_to_goal_s"} <= reach.keys()
    assert (reach["episodes"], reach["successes"], reach["random_successes"], reach["violations"], reach["time_to_goal_s"]) == (
        2,
        1,
        1,
        2,
        2.0,
    )
    assert reach["ci95"][0] < 0.5 < reach["ci95"][1]
    assert raw["latency_ms"] == {"camera_to_command": {"p50": 90.0, "p99": 100.0}, "plan": {"p50": 50.0, "p99": 60.0}}
    assert raw["plan_hz"] == pytest.approx(1.0)  # six plans in six seconds
    assert {"cpu", "cores", "memory_gb", "python", "torch"} == raw["machine"].keys()


def test_the_random_policy_does_not_count_as_ours():
    """Its episodes are the floor only: they change neither successes nor latencies."""
    with_floor, without = summary(), summary(EPISODES)
    assert with_floor.tasks["push"].successes == without.tasks["push"].successes == 1
    assert with_floor.latency_ms == without.latency_ms
    assert without.tasks["push"].random_successes is None


def test_report_names_neither_host_nor_path(tmp_path):
    """What is handed around tells nothing about where it was made."""
    write_report(tmp_path, summary(), EPISODES)
    for file in tmp_path.iterdir():
        words = re.sub(r"base64,[^']*", "", file.read_text())
        assert socket.gethostname() not in re.split(r"\W+", words) and str(tmp_path) not in words


def test_results_are_read_back_as_they_were_written(tmp_path):
    """report.json and episodes.json give the same values again, a surprise not yet known included."""
    write_report(tmp_path, summary(), EPISODES)
    report, episodes = read_results(tmp_path)
    assert report == summary()
    assert [e.seed for e in episodes] == [1, 2, 3] and np.isnan(episodes[0].surprise[0]) and episodes[0].surprise[1] == 1.0


def test_unreadable_results_are_refused_with_what_to_do(tmp_path):
    """A truncated or missing file is named together with the command that makes it."""
    with pytest.raises(FileNotFoundError, match=r"report.json does not exist.*foresight evaluate"):
        read_results(tmp_path)
    write_report(tmp_path, summary(), EPISODES)
    (tmp_path / "report.json").write_text('{"tasks": ')
    with pytest.raises(ValueError, match=r"no readable results.*foresight evaluate"):
        read_results(tmp_path)


def test_the_page_stands_alone_and_shows_failures_first():
    """Nothing is loaded from elsewhere but the videos beside it; failed episodes come before successes."""
    videos = [replace(e, video=f"videos/{e.task}_{e.seed}.mp4") for e in EPISODES]
    html = page(summary(), videos, "# Card <b>")
    assert re.findall(r"<video src='([^']+)'", html) == ["videos/reach_2.mp4", "videos/reach_1.mp4", "videos/push_3.mp4"]
    sources = re.findall(r"""(?:src|href)=['"]([^'"]{1,12})""", html)
    assert all(s.startswith(("data:", "videos/")) for s in sources)
    assert "1 failure, then successes" in html and "tip speed at 1.0 s" in html and "# Card &lt;b&gt;" in html


def test_the_page_can_be_made_of_little():
    """One failed episode without plans, videos or surprise still gives a page that says what was not measured."""
    bare = episode(success=False, planning_ms=(), camera_to_command_ms=(), surprise=())
    html = page(summary([bare]), [bare])
    assert "No latencies were measured" in html and "No videos were recorded" in html


def trained(episodes, successes, seed=0, manifest="abc"):
    runs = [episode("push", seed=i, success=i < successes, row="push") for i in range(10)]
    return runs, summarise(
        runs, policy="both", seed=0, shift="none", model_id=f"m{episodes}", suite="clean", manifest=manifest,
        training={"episodes": episodes, "seed": seed},
    )  # fmt: skip


def test_the_page_draws_success_against_training_episodes(tmp_path):
    """Of models on the same scenes, with their intervals; reports on other scenes, or that do not tell, are refused."""
    runs, report = trained(2500, 9)
    for name, other in (("a", trained(100, 3)), ("b", trained(100, 5, seed=1)), ("other", trained(300, 7, manifest="xyz"))):
        write_report(tmp_path / name, other[1], other[0])
    html = page(report, runs, beside=comparable([tmp_path / "a", tmp_path / "b"], "clean", "abc"))
    assert "Success against training episodes" in html and "3 of 10 [11, 60]" in html and "5 of 10" in html and "9 of 10" in html
    assert "Success against training episodes" not in page(report, runs)
    with pytest.raises(ValueError, match=r"'clean' xyz, this is 'clean' abc; rates on other scenes do not compare"):
        comparable([tmp_path / "other"], "clean", "abc")
    write_report(tmp_path / "silent", replace(report, training_episodes=None), runs)
    with pytest.raises(ValueError, match="does not tell how many episodes"):
        comparable([tmp_path / "silent"], "clean", "abc")


def picture(level):
    return {name: np.full((128, 128, 3), level, np.uint8) for name in ("front", "wrist")}


def test_a_video_shows_now_goal_and_imagined(tmp_path):
    """Three columns, one row a camera; each panel has the picture that was given."""
    path = tmp_path / "videos/a.mp4"
    with EpisodeVideo(path, picture(120)) as video:
        for _ in range(5):
            video.add(picture(60), np.full((2, 32, 32, 3), 200, np.uint8), "reach 0.1 s", imagined_s=1.5)
    frames = [f.to_ndarray(format="rgb24") for f in av.open(str(path)).decode(video=0)]
    assert len(frames) == 5
    for column, level in enumerate((60, 120, 200)):
        for row in range(2):
            assert abs(int(frames[-1][32 + 256 * row + 128, 256 * column + 128].mean()) - level) < 8


@pytest.mark.parametrize("ending", ["discard", "interrupt"])
def test_a_video_that_is_not_wanted_or_not_finished_leaves_no_file(tmp_path, ending):
    """Neither a discarded nor an interrupted recording leaves anything in the folder."""
    try:
        with EpisodeVideo(tmp_path / "a.mp4", picture(0)) as video:
            video.add(picture(0), None, "")
            if ending == "interrupt":
                raise KeyboardInterrupt
            video.discard()
    except KeyboardInterrupt:
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_live_table_counts_what_was_added():
    """The last table printed holds episodes, rate and interval of each policy."""
    console = Console(record=True, width=140, force_terminal=True, file=StringIO())
    with LiveTable({("reach", "both"): 2, ("reach", "random"): 1}, console) as table:
        for e in EPISODES[:2] + FLOOR[:1]:
            table.add(e)
    text = console.export_text()
    assert "2/2" in text and "50.0 %" in text and "9-91 %" in text and "50/60 ms" in text


def test_a_slow_simulation_is_told_on_the_page():
    """With how many episodes it concerns; at full speed, and in process, nothing is said."""
    slow = [replace(e, real_time=0.87) for e in EPISODES]
    fast = [replace(e, real_time=0.99) for e in EPISODES]
    report = summarise(slow, policy="both", seed=1, shift="none", model_id="m", through="ros")
    own = sum(e.policy == "both" for e in slow)
    assert f"In {own} of {own} episodes" in page(report, slow) and "0.87 at worst" in page(report, slow)
    assert "not comparable" not in page(report, fast) and "not comparable" not in page(report, EPISODES)
