"""`foresight inject` signals only processes that `foresight up` wrote down, and says in one line what cannot be done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from foresight_bringup import record
from foresight_msgs.srv import Inject
from foresight_nodes import inject, topics
from foresight_nodes.inject import InjectConfig, InjectError
from foresight_nodes.part import Part

from tests.ros.conftest import Bench


@pytest.fixture
def planner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A process that the record of a running graph calls the planner's."""
    monkeypatch.setattr(record.tempfile, "gettempdir", lambda: str(tmp_path))
    script = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    record.write(record.path(os.environ["ROS_DOMAIN_ID"], ""), {"planner": (("planner",), process.pid)})
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def state_of(process: subprocess.Popen) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_kill_ends_the_process_of_a_node(planner: subprocess.Popen):
    """By SIGKILL, and a second kill finds no graph."""
    assert f"planner (pid {planner.pid})" in inject.inject(InjectConfig("kill", node="planner"))
    assert planner.wait(10) == -signal.SIGKILL
    with pytest.raises(InjectError, match=r"No graph of `foresight up` runs on domain .*foresight up sim"):
        inject.inject(InjectConfig("kill", node="planner"))


def test_freeze_stops_the_process_and_lets_it_go_on(planner: subprocess.Popen):
    """It is stopped for the duration; afterwards it answers."""
    begin_s = time.monotonic()
    command = [sys.executable, "-c", (
        "import sys; from foresight_bringup import record; record.tempfile.gettempdir = lambda: sys.argv[1]\n"
        "from foresight_nodes.inject import main; sys.exit(main(['freeze', '--node', 'planner', '--duration-s', '0.5']))"
    ), record.tempfile.gettempdir()]  # fmt: skip
    told = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while state_of(planner) != "T":
        assert time.monotonic() - begin_s < 20 and told.poll() is None
    assert "was frozen for 0.5 s" in told.communicate(timeout=20)[0]
    assert state_of(planner) != "T"
    planner.stdin.write("awake\n")
    assert planner.stdout.readline() == "awake\n"


def test_a_full_disk_is_one_on_which_no_file_grows(planner: subprocess.Popen):
    """The limit is there while it lasts and as it was afterwards."""
    import resource

    limits, seen = resource.prlimit(planner.pid, resource.RLIMIT_FSIZE), []
    process = inject.find("planner")
    inject._for_a_while(
        process, 0.05, "x",
        lambda: (resource.prlimit(planner.pid, resource.RLIMIT_FSIZE, (0, limits[1])),
                 seen.append(resource.prlimit(planner.pid, resource.RLIMIT_FSIZE)[0])),
        lambda: resource.prlimit(planner.pid, resource.RLIMIT_FSIZE, limits),
    )  # fmt: skip
    assert seen == [0]
    assert "could write to no file" in inject.inject(InjectConfig("disk_full", node="planner", duration_s=0.05))
    assert resource.prlimit(planner.pid, resource.RLIMIT_FSIZE) == limits


def test_a_number_that_the_system_gave_to_another_process_is_not_signalled(planner: subprocess.Popen):
    """The record names a process by its pid and by when it began."""
    process = inject.find("planner")
    stranger = record.Running("planner", ("planner",), process.pid, process.began - 1)
    assert not stranger.send(signal.SIGKILL) and planner.poll() is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tea_break"], "Fault 'tea_break' is unknown. Available: kill, freeze, disk_full, camera_freeze"),
        (["kill"], "--node must be one of planner; got 'nothing'"),
        (["kill", "--node", "moon"], "--node must be one of planner; got 'moon'"),
        (["camera_black", "--node", "planner"], "camera_black is a fault of sim, not of 'planner'"),
        (["freeze", "--node", "planner", "--set", "depth=2"], "freeze has no parameters, got depth=2"),
        (["gpu_oom", "--set", "depth=2"], "gpu_oom has no parameters, got depth=2. Only --duration-s can be given."),
        (["wrong_model", "--set", "depth=2"], "wrong_model has no parameters, got depth=2. Only --duration-s can be given."),
        (["camera_black", "--namespace", "bad name!"], "--namespace: Namespace 'bad name!' is none: expected words of letters"),
        (["camera_black", "--set", "depth=nan"], "--set takes finite numbers, got 'depth=nan'"),
        (["kill", "--node", "planner", "--duration-s", "nan"], "--duration-s must lie between 0 and 3600 s, got nan"),
        (["kill", "--node", "planner", "--duration-s", "-1"], "--duration-s must lie between 0 and 3600 s, got -1.0"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words, says, planner: subprocess.Popen, capsys: pytest.CaptureFixture):
    """Nothing is signalled; the line names what there is."""
    assert inject.main(words) == 2
    told = capsys.readouterr().err
    assert says in told and len(told.splitlines()) == 1 and planner.poll() is None


@dataclass(frozen=True)
class NoParameters:
    """None."""


class Faulty(Part[NoParameters]):
    """A node with a fault to offer."""

    def configure(self, parameters: NoParameters) -> None:
        self.offer_faults({"gpu_oom": lambda duration_s: "Set off."})


def test_a_node_whose_faults_have_no_parameters_takes_none(bench: Bench):
    """Whoever calls its service: nothing is set off, and what was given too much is named."""
    node = bench.add(Faulty, "world_model", NoParameters, injectable=True)
    bench.configure(node)
    given, plain = Inject.Request(fault="gpu_oom", names=["depth"], values=[2.0]), Inject.Request(fault="gpu_oom")
    refused = bench.call(topics.INJECT, node, given)
    assert not refused.ok and refused.message == "gpu_oom has no parameters, got depth; only duration_s counts."
    assert bench.call(topics.INJECT, node, plain).message == "Set off."
