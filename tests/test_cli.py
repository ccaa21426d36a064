"""The command line: help with units and defaults, and one line for whatever cannot be used."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from foresight import cli
from tests.waiting import until


def run(capsys, *words: str) -> tuple[int, str, str]:
    try:
        code = cli.main(list(words))
    except SystemExit as leaving:
        code = leaving.code or 0
    out, err = capsys.readouterr()
    return code, out, err


def test_help_lists_every_command_with_a_line(capsys):
    """`foresight --help` names each command and what it does."""
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in ("demo", "collect", "train", "evaluate", "report", "replay", "up", "env"):
        assert any(line.strip().startswith(command + " ") and line.rstrip().endswith(".") for line in out.splitlines())


def test_help_shows_units_and_defaults(capsys):
    """Flags of `evaluate` come with their meaning, unit and default."""
    code, out, _ = run(capsys, "evaluate", "--help")
    text = " ".join(out.split())
    assert code == 0
    for words in (
        "Number of episodes of each task; by default 200, with --suite all scenes of each row.",
        "within 2 cm",
        "(default: 100)",
        "--shift {none,colour,camera,table,",
        "--policy {actor,search,both,reactive,dreamt,random,expert}",
        "--suite {None,clean,far,objects,shift}",
    ):
        assert words in text


def test_overview_loads_no_heavy_library():
    """The overview and a typing error answer without torch, MuJoCo or ROS."""
    code = (
        "import sys; from foresight import cli; cli.main(['--help']); cli.main(['nothing']); "
        "print(sorted({'torch', 'mujoco', 'rclpy', 'cv2', 'sim'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly"], ["fly", "Commands: demo"]),
        (["evaluate", "--task", "lift"], ["'lift'", "'reach', 'push', 'push_object_goal'"]),
        (["evaluate", "--episodes", "0"], ["--episodes", "got 0"]),
        (["evaluate", "--seed", "10000"], ["--seed", "9999", "got 10000"]),
        (["evaluate", "--suite", "clean", "--seed", "3"], ["A suite fixes its scenes", "Leave --seed or --suite out"]),
        (["evaluate", "--suite", "far", "--beside", "x"], ["--beside compares pages of one suite. Give --suite and --report"]),
        (["evaluate", "--rows", "push"], ["--rows picks rows of a suite. Give --suite"]),
        (["evaluate", "--suite", "far", "--rows", "push"], ["suite 'far' has no row 'push'. Available: push_far"]),
        (["evaluate", "--suite", "objects", "--rows", "pick"], ["leave the gripper as it is. Only --policy expert can"]),
        (["evaluate", "--ros", "--shift", "noise"], ["--shift noise is for runs in process"]),
        (["evaluate", "--epsodes", "3"], ["--epsodes"]),
        (["evaluate", "--checkpoint", "nowhere"], ["Checkpoint nowhere does not exist", "foresight train"]),
        (["evaluate", "--task", "reach", "push", "reach"], ["--task names a task twice: reach push reach"]),
        (["collect", "--episodes", "1e99"], ["--episodes", "1e99"]),
        (["train", "--model.latent", "9" * 12], ["latent must be at least 1 and at most 10000"]),
        (["bench", "adversary", "--duration-s", "nan"], ["--duration-s", "got nan"]),
        (["evaluate", "--policy", "actor", "--samples", "9"], ["--samples and --iterations are for --policy both or search"]),
        (["evaluate", "--samples", "5"], ["--samples must lie between 6 and 100000, got 5"]),
        (["evaluate", "--policy", "search", "--iterations", "0"], ["--iterations must lie between 1 and 10000, got 0"]),
        (["evaluate", "--latency-ms", "300"], ["--latency-ms", "got 300"]),
        (["bench", "latency", "--latencies-ms", "50"], ["--latencies-ms must be 0 and then others"]),
        (["bench", "cycles", "--period-ms", "0"], ["--period-ms", "got 0"]),
        (["bench", "planner", "--limit-s", "nan"], ["--limit-s", "got nan"]),
        (["bench", "planner", "--json", "a.png"], ["a.png is the name of the picture beside it"]),
        (["demo", "--episodes", "-1"], ["--episodes", "got -1"]),
        (["report", "nowhere"], ["nowhere/report.json does not exist", "foresight evaluate --report"]),
        (["env"], []),
    ],
)
def test_bad_input_gives_one_line_and_code_2(capsys, words, said):
    """What is wrong and what exists fit into one line, without a trace."""
    code, _, err = run(capsys, *words)
    assert code == 2
    assert all(part in err for part in said)
    assert "Traceback" not in err and len(err.strip().splitlines()) <= 1


def test_interruption_gives_one_line_and_code_130(capsys, monkeypatch):
    """Ctrl-C is answered with one line."""

    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "train", interrupted)
    code, _, err = run(capsys, "train")
    assert code == 130 and "interrupted" in err and "Traceback" not in err


def test_a_full_disk_gives_one_line(capsys, monkeypatch):
    """An error of the file system names the file and is no trace."""

    def full(words):
        raise OSError(28, "No space left on device", "runs/report.json")

    monkeypatch.setitem(cli.COMMANDS, "report", full)
    code, _, err = run(capsys, "report")
    assert code == 2 and "disk is full: runs/report.json" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("name", cli.BENCHES)
def test_every_bench_answers_help(capsys, name):
    """Each bench parses its own flags: --help shows --json and ends with 0."""
    ended = subprocess.run(
        [sys.executable, "-m", "foresight.cli", "bench", name, "--help"], capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0 and "--json" in ended.stdout, ended.stderr


def test_how_pictures_are_drawn_is_settled_before_mujoco_is_imported():
    """MuJoCo reads it once: where a command's modules import it first, nothing can be drawn without a display."""
    script = (
        "import os, sys; from foresight import cli; assert 'mujoco' not in sys.modules\n"
        "try: cli.main(['bench', 'cycles', '--help'])\n"
        "except SystemExit: assert 'mujoco' in sys.modules\n"
        "from sim.rendering import check_rendering; check_rendering(); print(os.environ['MUJOCO_GL'])"
    )
    plain = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, env=plain)
    assert ended.returncode == 0 and ended.stdout.split()[-1], ended.stderr


def test_a_folder_is_no_file_for_figures(capsys, tmp_path):
    """--json with the name of a folder is refused before the episodes, not after them."""
    assert cli.main(["evaluate", "--json", str(tmp_path), "--episodes", "1"]) == 2
    assert f"{tmp_path} is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["collect", "--out"],
        ["train", "--out"],
        ["evaluate", "--json"],
        ["evaluate", "--report"],
        ["demo", "--out"],
        ["replay", "nowhere", "--json"],
        ["replay", "nowhere", "--picture"],
        ["bench", "guard", "--json"],
        ["bench", "adversary", "--json"],
        ["bench", "planner", "--json"],
        ["bench", "latency", "--json"],
        ["bench", "cycles", "--json"],
        ["bench", "keep_out", "--json"],
    ],
    ids=" ".join,
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(capsys, tmp_path, words):
    """A file stands where the folder should be made: one line that names the flag, at once."""
    (tmp_path / "file").write_text("kept")
    code, _, err = run(capsys, *words, str(tmp_path / "file" / "results" / "a.png"[: None if "--picture" in words else 1]))
    assert code == 2 and f"{words[-1]}: cannot write in" in err and len(err.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("words", [["collect", "--out"], ["replay", "nowhere", "--json"], ["bench", "adversary", "--json"]])
def test_a_folder_is_no_file(capsys, tmp_path, words):
    """The name of a folder where a file is wanted is refused before the work."""
    code, _, err = run(capsys, *words, str(tmp_path))
    assert code == 2 and f"{words[-1]}: {tmp_path} is a folder" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("content", ["years of work", "[]", '{"tasks": {}}'])
def test_an_evaluation_replaces_nothing_but_reports(capsys, tmp_path, content):
    """--json and --report leave what Foresight did not write as it is; one line before the first episode."""
    file, folder = tmp_path / "mine.json", tmp_path / "thesis"
    folder.mkdir()
    for path in (file, folder / "report.html"):
        path.write_text(content)
    for words in (["evaluate", "--json", str(file)], ["evaluate", "--report", str(folder)], ["demo", "--out", str(folder)]):
        code, _, err = run(capsys, *words)
        assert (
            code == 2
            and "would be replaced" in err + "would be replaced" * ("would replace" in err)
            and len(err.splitlines()) == 1
        )
    assert file.read_text() == (folder / "report.html").read_text() == content


def test_an_evaluation_may_replace_its_own_report(tmp_path):
    """The same command twice is no error; neither is a folder in which only a graph's log came to stand."""
    from foresight.evaluation.config import EvaluateConfig
    from foresight.evaluation.report import write_report
    from tests.evaluation.test_report import EPISODES, summary

    write_report(tmp_path / "report", summary(), EPISODES)
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed/graph.log").touch()
    for folder in ("report", "failed"):
        cli._check_places(EvaluateConfig(json=tmp_path / "report/report.json", report=tmp_path / folder))
        assert (tmp_path / folder).is_dir() and any((tmp_path / folder).iterdir())  # nothing was removed either


def test_a_report_quotes_the_card_of_its_own_model(capsys, tmp_path):
    """The shipped model's card stands on a page about the shipped model only; another checkpoint is refused."""
    from foresight.evaluation.report import write_report
    from foresight.world_model.checkpoint import fingerprint
    from tests.evaluation.test_report import EPISODES, summary

    shipped = cli.ROOT / "models/ur5e"
    for model_id, quoted in ((fingerprint(shipped), True), ("of-another", False)):
        write_report(tmp_path, replace(summary(), model_id=model_id), EPISODES)
        code, out, _ = run(capsys, "report", str(tmp_path))
        assert code == 0 and ("World model for ur5e" in (tmp_path / "report.html").read_text()) == quoted
        assert ("No model card on the page" in out and "of-another" in out) != quoted
    code, _, err = run(capsys, "report", str(tmp_path), "--checkpoint", str(shipped))
    assert code == 2 and "the report is of of-another" in err and len(err.splitlines()) == 1


@pytest.mark.flaky(reruns=2)  # a worker that has only begun to start when its parent ends cannot be told not to say so
@pytest.mark.timeout(120)
@pytest.mark.parametrize("key", ["sigterm", "ctrl-c"])
@pytest.mark.parametrize(
    "words",
    [
        ["collect", "--episodes", "1000", "--jobs", "2", "--out", "play.h5"],
        ["collect", "--episodes", "1000", "--jobs", "2", "--out", "play.h5", "--ray", "local", "--steps", "4"],
        ["evaluate", "--episodes", "1000", "--jobs", "2"],
        ["bench", "guard", "--jobs", "2", "--timed", "1"],
        ["bench", "adversary", "--jobs", "2"],
    ],
    ids=lambda words: " ".join(words[: 1 + (words[0] == "bench")] + words[7:8]),
)
def test_an_interrupted_command_ends_with_its_workers(tmp_path, words, key):
    """Code 130, one line, no trace, and no process is left of those that it has started, workers still starting included."""
    command = [sys.executable, "-m", "foresight.cli", *words]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until(lambda: process.poll() is not None or len(session(process.pid)) >= 4, "two workers beside the command and a helper")
        if key == "ctrl-c":
            os.killpg(process.pid, signal.SIGINT)
        else:
            if "--ray" in words:  # whose head, which hears this too, would be waited for half a minute while it starts
                until(lambda: list(tmp_path.glob("play.parts/*.h5")), "the cluster works")
            time.sleep(1.0)
            process.terminate()
            os.killpg(process.pid, signal.SIGTERM)  # as `timeout` does, right after it
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err, err
        until(lambda: not session(process.pid), "nobody is left")
    finally:
        for pid in session(process.pid):
            os.kill(pid, signal.SIGKILL)


def session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of, *_ = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_defect_keeps_its_trace(monkeypatch):
    """What is our own fault is not dressed up as the user's."""

    def broken(words):
        raise RuntimeError("a defect")

    monkeypatch.setitem(cli.COMMANDS, "report", broken)
    with pytest.raises(RuntimeError):
        cli.main(["report"])


def test_configuration_survives_the_way_through_the_command_line():
    """The words handed to the ROS runner give the same configuration again."""
    import tyro

    from foresight.evaluation.config import EvaluateConfig

    config = EvaluateConfig(task=("push",), episodes=7, shift="camera", report=Path("a b"), random_episodes=0, ros=True)
    assert tyro.cli(EvaluateConfig, args=config.to_arguments()) == config


def test_a_dependency_that_is_missing_names_itself(capsys, monkeypatch):
    """A library that is not installed gives a line and a way out."""

    def missing(words):
        raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")

    monkeypatch.setitem(cli.COMMANDS, "collect", missing)
    code, _, err = run(capsys, "collect")
    assert code == 2 and "mujoco" in err and "make setup" in err


@pytest.mark.parametrize("wrong", ["nonsense", "glfw"])
def test_no_gl_library_gives_one_line_and_what_to_install(wrong):
    """Where pictures cannot be drawn, `evaluate` and `collect` say so before they start, and how to mend it."""
    run = (
        "import sys; from sim.rendering import check_rendering, RenderingError\n"
        "try: check_rendering()\nexcept RenderingError as e: print(e)"
    )
    variables = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")} | {"MUJOCO_GL": wrong}
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", run], capture_output=True, text=True, check=True, timeout=60, env=variables
    ).stdout
    assert len(out.splitlines()) == 1 and f"MUJOCO_GL={wrong}" in out and "libosmesa6" in out


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_training_replaces_nothing_but_a_checkpoint(kind, tmp_path, capsys):
    """A folder with other files in it, a file and a link stay what they are; the line says what is in the way."""
    out, kept = tmp_path / "precious", tmp_path / "elsewhere"
    kept.mkdir()
    (kept / "thesis.txt").write_text("years")
    if kind == "folder":
        kept.rename(out)
    elif kind == "file":
        out.write_text("years")
    else:
        out.symlink_to(kept)
    assert cli.main(["train", "--data", str(tmp_path / "no.h5"), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert str(out) in told and len(told.splitlines()) == 1
    assert (out / "thesis.txt" if kind != "file" else out).read_text() == "years" and out.is_symlink() == (kind == "link")
