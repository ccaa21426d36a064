"""The commands people are told to type exist and answer: Makefile targets, the README's lines, help texts, set-up's messages."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from foresight import cli
from foresight.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
FORESIGHT = [sys.executable, "-m", "foresight.cli"]
TARGETS = ("help", "setup", "demo", "test", "coverage", "faults", "nightly", "lint", "clean")


def run(*command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=options.pop("cwd", ROOT), capture_output=True, text=True, timeout=60, **options)


def readme_lines() -> list[str]:
    """Every command of README and docs: lines of their shell blocks, and commands in running text and tables."""
    text = "\n".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
    fenced = r"^```(\w*)\n(.*?)^```$"
    blocks = [block for language, block in re.findall(fenced, text, flags=re.MULTILINE | re.DOTALL) if language != "mermaid"]
    prose = re.sub(fenced, "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()] + re.findall(r"`([^`\n]+)`", prose)
    lines = [line.strip().removeprefix("$ ").strip() for line in lines]
    return [line for line in lines if re.match(r"(make|(\.venv/bin/)?foresight|source tools/)\b(?! *[:=.])(?!_)", line)]


def help_of(words: list[str]) -> str:
    """From this process: another one for each takes seconds to import what the benches measure."""
    with contextlib.redirect_stdout(told := io.StringIO()), contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    return told.getvalue()


def test_make_alone_lists_every_target():
    """`make` without a target is a help text that names each target once."""
    told = run("make").stdout
    assert [name for name in TARGETS if len(re.findall(rf"make {name}\b", told)) != 1] == []


def test_every_makefile_target_can_be_planned():
    """`make -n` finds a recipe for each target, and what runs something begins with set-up."""
    for target in TARGETS:
        planned = run("make", "-n", target)
        assert planned.returncode == 0, planned.stderr
        assert ("tools/setup" in planned.stdout) == (target not in ("help", "lint", "clean"))


def test_continuous_integration_runs_what_people_run():
    """.ci/run is executable, valid, and calls `make test`."""
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK) and run("bash", "-n", str(script)).returncode == 0
    assert "make test" in script.read_text().splitlines()


def test_the_readme_shows_the_commands_and_they_exist(monkeypatch):
    """Each command of README and docs is a Makefile target, or a subcommand whose help knows every flag used."""
    monkeypatch.setattr(cli, "_become", lambda command: print(run(*command).stdout) or 0)  # not in place of this process
    lines = readme_lines()
    assert {"make demo", "make test"} <= {line.split("  #")[0].strip() for line in lines}
    helps: dict[str, str] = {}
    for line in lines:
        words = shlex.split(line, comments=True)
        program, rest = Path(words[0]).name, words[1:]
        if program == "make":
            assert rest and rest[0] in TARGETS, line
        elif program == "source":
            assert (ROOT / rest[0]).is_file(), line
        elif rest and not rest[0].startswith("-"):
            assert rest[0] in COMMANDS, f"`{line}`: no subcommand '{rest[0]}'"
            asked = " ".join(rest[:2] if rest[0] == "bench" and len(rest) > 1 else rest[:1])
            told = helps.setdefault(asked, help_of(asked.split()))
            unknown = [w for w in rest if w.startswith("--") and w != "--" and not re.search(rf"{w.split('=')[0]}\b", told)]
            assert not unknown or rest[0] == "env", f"`{line}`: {unknown} not in `foresight {asked} --help`"


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS if name != "up")], ids=" ".join)
def test_help_answers(words):
    """Help comes with exit code 0 and names what it is about."""
    told = run(*FORESIGHT, *words)
    assert told.returncode == 0, told.stderr
    assert "foresight" in told.stdout and "Traceback" not in told.stdout + told.stderr


def test_an_unknown_command_gets_one_line_that_names_the_known_ones():
    """A typing error is answered with what exists."""
    told = run(*FORESIGHT, "evalute")
    assert told.returncode == 2 and len(told.stderr.splitlines()) == 1
    assert "evalute" in told.stderr and all(name in told.stderr for name in COMMANDS)


def test_scripts_are_valid_shell():
    """Every shell script of the repository parses and can be executed (tools/activate is sourced)."""
    for name in ("tools/setup", "tools/activate", "docker/entrypoint.sh", ".ci/run"):
        assert run("bash", "-n", name).returncode == 0, name
        assert name == "tools/activate" or os.access(ROOT / name, os.X_OK), name


def test_the_containers_are_described_consistently():
    """compose.yaml has the three services, and they build stages that the Dockerfile has, from files that exist."""
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS (\w+)$", dockerfile, flags=re.MULTILINE)
    assert set(compose["services"]) == {"sim", "robot", "test"} and {"cpu", "cuda"} <= set(stages)
    assert all(service["build"]["target"] in stages for service in compose["services"].values())
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", dockerfile, flags=re.MULTILINE) for word in line.split()]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert f"torch=={_pin('torch')}" in dockerfile, "the CUDA stage has another PyTorch than requirements/constraints.txt"


def test_torch_is_pinned_wherever_it_is_named():
    """An unpinned torch fetches gigabytes of CUDA packages."""
    assert f'"torch=={_pin("torch")}"' in (ROOT / "pyproject.toml").read_text()


def _pin(package: str) -> str:
    return re.search(rf"^{package}==(\S+)$", (ROOT / "requirements/constraints.txt").read_text(), flags=re.MULTILINE).group(1)


# --- Set-up, in a copy of its files with made-up Pythons -----------------------------------------------------------

FAKE_PYTHON = """#!/bin/bash
# Stands in for python: notes what set-up asks of it, and does as if it had worked.
echo "$*" | head -n 1 >>"$CALLS"
case "$*" in
    *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *"-m colcon"*) mkdir -p install ;;
    *'"%d.%d"'*) echo 3.11 ;;
    *Python.h*) echo "$0" ;;
    -V) echo "Python 3.11.9" ;;
esac
"""
NO_PYTHON = "#!/bin/bash\n[ \"$1\" = -V ] && echo 'Python {version}'\nexit {code}\n"


@pytest.fixture
def checkout(tmp_path):
    """What tools/setup reads, in a folder of its own."""
    for name in ("tools", "requirements", "ros_ws/colcon_defaults.yaml", "pyproject.toml"):
        source, target = ROOT / name, tmp_path / "foresight" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    (tmp_path / "foresight/ros_ws/src/package").mkdir(parents=True)
    return tmp_path / "foresight"


def set_up(checkout: Path, pythons: dict[str, str], **variables: str) -> subprocess.CompletedProcess:
    """Runs tools/setup as a user who is not root, where these Pythons (name -> script) are the only ones."""
    tools = checkout.parent / "bin"
    tools.mkdir(exist_ok=True)
    needed = "bash sh env cat cut find grep head ldconfig mkdir mktemp cp rm sed sha256sum sort tail uname wc xargs dirname"
    for name in (*needed.split(), "cmake", "g++", "ninja"):
        found = shutil.which(name, path=f"{os.environ['PATH']}:/sbin:/usr/sbin")
        if found and not (tools / name).exists():
            (tools / name).symlink_to(found)
    ordinary = {"python3": NO_PYTHON.format(version="3.9.2", code=1), "id": "#!/bin/bash\necho 1000\n"}
    for name, script in {**ordinary, **pythons}.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    environment = {"PATH": str(tools), "CALLS": str(checkout.parent / "calls"), "HOME": str(checkout.parent), **variables}
    return run("bash", str(checkout / "tools/setup"), cwd=checkout, env=environment)


def calls(checkout: Path) -> list[str]:
    """What set-up asked of Python since the last look: "venv", "pip", "colcon"."""
    log = checkout.parent / "calls"
    asked = re.findall(r"-m (venv|pip(?= --disable)|colcon)", log.read_text())
    log.write_text("")
    return asked


def test_set_up_does_each_step_once_and_again_only_when_its_inputs_change(checkout):
    """A second run asks nothing of pip or colcon; new pins bring pip back, a changed package only colcon."""
    python = {"python3.11": FAKE_PYTHON}
    first = set_up(checkout, python)
    assert first.returncode == 0, first.stderr
    assert calls(checkout) == ["venv", "pip", "pip", "colcon"]

    again = set_up(checkout, python)
    assert (again.returncode, again.stdout, calls(checkout)) == (0, "", [])

    (checkout / "ros_ws/src/package/new.msg").write_text("float64 x")
    assert set_up(checkout, python).returncode == 0
    assert calls(checkout) == ["colcon"]

    with (checkout / "requirements/constraints.txt").open("a") as constraints:
        constraints.write("one-more==1.0\n")
    assert set_up(checkout, python).returncode == 0
    assert calls(checkout) == ["pip", "pip", "colcon"]


def test_a_moved_checkout_is_set_up_anew(checkout):
    """A virtual environment carries its path inside, so a copy of the folder does not use the old one."""
    assert set_up(checkout, {"python3.11": FAKE_PYTHON}).returncode == 0
    calls(checkout)
    moved = checkout.rename(checkout.parent / "elsewhere")
    told = set_up(moved, {"python3.11": FAKE_PYTHON})
    assert "making it anew" in told.stdout and calls(moved) == ["venv", "pip", "pip", "colcon"]


@pytest.mark.parametrize(
    ("pythons", "variables", "says"),
    [
        ({}, {}, ("No Python >= 3.11", "3.9.2", "apt-get install python3.11")),
        ({"python3": "#!/bin/bash\n[ \"$1\" = -V ] && echo 'Python 3.14.1'\n[[ \"$2\" != *'(3, 13)'* ]]\n"}, {},
         ("ROS 2 wheels exist for CPython 3.11 to 3.13", "3.14.1", "PYTHON=python3.12 make setup")),
        ({}, {"ROS_DISTRO": "humble"}, ("'humble' is sourced", "Python >= 3.11", "Jazzy or newer")),
    ],
    ids=["no python", "too new", "sourced ROS 2 too old"],
)  # fmt: skip
def test_set_up_says_what_to_do_where_the_python_does_not_fit(checkout, pythons, variables, says):
    """No usable interpreter ends in a few plain lines, before anything is made."""
    told = set_up(checkout, pythons, **variables)
    assert told.returncode == 1 and not (checkout / ".venv").exists()
    assert all(part in told.stderr for part in says), told.stderr


def test_set_up_names_the_missing_packages_to_those_who_may_not_install_them(checkout):
    """Without a GL library and without root, the apt line to run is printed and nothing is half done."""
    blind = FAKE_PYTHON.replace("case", '[[ "$*" == *mujoco.Renderer* ]] && exit 1\ncase', 1)
    told = set_up(checkout, {"python3.11": blind})
    assert told.returncode == 1 and "sudo apt-get install --no-install-recommends libegl1 libgl1" in told.stderr
    assert "colcon" not in calls(checkout)
