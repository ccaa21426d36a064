"""An incident's folder is complete or absent, says what it holds, and is read without the workspace that wrote it."""

from __future__ import annotations

import errno
import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from foresight import cli
from foresight.incidents import pack as packs
from foresight.incidents.pack import Definition, IncidentError, Pack, remove_oldest, write_pack
from foresight.incidents.picture import draw
from foresight.incidents.replay import replay
from foresight.incidents.ring import Recorded
from foresight.incidents.summary import Stop, folder_name, summary
from foresight.robots.profile import profile_text
from foresight.safety.decision import Setup
from foresight.safety.guard import Guard
from tests.incidents.recordings import RecordedGuard, decision_fields, setup_fields, write
from tests.motions import candidate, drive

DEFINITIONS = {topic: Definition("std_msgs/msg/String", "string data") for topic in ("/word", "/silent")}
MESSAGES = [Recorded("/word", 10**18 + i, b"\x00\x01\x00\x00\x03\x00\x00\x00hi\x00") for i in range(3)]
STOP = Stop("stop", "tracking_error", "The arm does not follow.", 12.5, 10**18 + 2)
LATCH = Stop("latch", "operator_stop", "An operator called stop.", 12.75, 10**18 + 3)


def told(dropped: dict[str, int] | None = None) -> dict:
    return summary([STOP, LATCH], MESSAGES, DEFINITIONS, 30.0, dropped or {}, {"robot": "ur5e"})


def test_a_pack_reads_back(tmp_path):
    """Messages by the definitions in the file, the summary as JSON, and rosbag2's view of the same."""
    folder = write_pack(tmp_path / "a/incident", MESSAGES, DEFINITIONS, told({"/word": 4, "/silent": 0}))
    read = list(Pack(folder).messages("std_msgs/msg/String"))
    assert [(m.topic, m.content.data) for m in read] == [("/word", "hi")] * 3
    said = json.loads((folder / "incident.json").read_text())
    assert (said["reason"], said["stop"]["time_s"], said["robot"]) == ("tracking_error", 12.5, "ur5e")
    assert [(s["time_s"], s["action"], s["reason"], s["detail"]) for s in said["stops"]] == [
        (12.5, "stop", "tracking_error", "The arm does not follow."),
        (12.75, "latch", "operator_stop", "An operator called stop."),
    ]
    assert said["messages"]["/word"]["count"] == 3 and said["messages"]["/silent"]["count"] == 0
    assert said["dropped_for_memory"] == {"/word": 4}
    bag = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert bag["message_count"] == 3 and [t["message_count"] for t in bag["topics_with_message_count"]] == [3]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["incident"]


@pytest.mark.parametrize("interruption", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_pack_leaves_nothing(tmp_path, monkeypatch, interruption):
    """A full disk or Ctrl-C halfway leaves no folder, not even a temporary one."""

    def half(path: Path, *_):
        path.write_bytes(b"half of wh")
        raise interruption

    monkeypatch.setattr(packs, "_write_mcap", half)
    with pytest.raises(type(interruption)):
        write_pack(tmp_path / "incident", MESSAGES, DEFINITIONS, told())
    assert list(tmp_path.iterdir()) == []


def test_an_incident_is_never_overwritten(tmp_path):
    """Two in one second get two names; writing on an existing one is refused."""
    when = datetime(2026, 1, 2, 3, 4, 5)
    first = folder_name(tmp_path, when, "../Stop: NOW!")
    assert first.parent == tmp_path and first.name == "2026-01-02_03-04-05_stop_now"
    write_pack(first, MESSAGES, DEFINITIONS, told())
    assert folder_name(tmp_path, when, "stop now").name == "2026-01-02_03-04-05_stop_now_2"
    with pytest.raises(FileExistsError):
        write_pack(first, [], DEFINITIONS, told())


def test_only_the_oldest_whole_incidents_are_removed(tmp_path):
    """By the time in their names; what is being written, a renamed one, a link and other folders stay."""
    when = [datetime(2026, 1, day, 3, 4, 5) for day in (3, 1, 2, 2)]
    made = [write_pack(folder_name(tmp_path, moment, "stop"), MESSAGES, DEFINITIONS, told()) for moment in when]
    kept = write_pack(tmp_path / "the_crash_of_january", MESSAGES, DEFINITIONS, told())
    half = tmp_path / ".2025-01-01_00-00-00_stop.17.partial"
    shutil.copytree(kept, half)
    (tmp_path / "2025-01-01_00-00-00_notes").mkdir()
    (tmp_path / "2025-01-01_00-00-00_link").symlink_to(kept)
    others = {half.name, kept.name, "2025-01-01_00-00-00_notes", "2025-01-01_00-00-00_link"}
    assert remove_oldest(tmp_path, 4) == []
    assert remove_oldest(tmp_path, 2) == [made[1], made[2]]
    assert {path.name for path in tmp_path.iterdir()} == {made[0].name, made[3].name} | others


@pytest.fixture
def incident(tmp_path, profile, kinematics) -> tuple[Path, dict, list[dict]]:
    setup = Setup(profile_text("ur5e"))
    guard = RecordedGuard(Guard(profile, kinematics), setup)
    for made in drive(2, 6, profile, kinematics):
        guard.offer(candidate(made.trajectory, profile, made.now_s), made.state, made.now_s)
        made.in_force = guard.guard.in_force
    fields = setup_fields(setup), [decision_fields(d, profile.joint_names) for d in guard.decisions]
    return write(tmp_path / "incident", [fields[0]], fields[1]), *fields


def test_the_command_line_says_same_different_and_unreadable(tmp_path, capsys, incident):
    """0 when all verdicts are the same, 1 with the names of those that differ, 2 with one line for a file that cannot be used."""
    folder, setup, verdicts = incident
    assert cli.main(["replay", str(folder), "--json", str(tmp_path / "r.json"), "--picture", str(tmp_path / "r.png")]) == 0
    said = json.loads((tmp_path / "r.json").read_text())
    assert (said["verdicts"], said["same"], said["different"]) == (6, 6, []) and (tmp_path / "r.png").stat().st_size > 10_000
    assert cli.main(["replay", str(folder / "incident.mcap")]) == 0

    verdicts[3]["detail"] += " "
    write(tmp_path / "tampered", [setup], verdicts)
    capsys.readouterr()
    assert cli.main(["replay", str(tmp_path / "tampered")]) == 1
    assert "5 of 6 verdicts are the same to the last bit; different: number 4." in " ".join(capsys.readouterr().out.split())

    (tmp_path / "foreign.mcap").write_bytes(b"\x89PNG")
    for path in (tmp_path / "nowhere", tmp_path / "foreign.mcap"):
        assert cli.main(["replay", str(path)]) == 2
        error = capsys.readouterr().err
        assert path.name in error and len(error.splitlines()) == 1


def test_a_picture_needs_a_known_suffix(tmp_path, incident):
    """Said before anything is drawn."""
    pack = Pack(incident[0])
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.pdf"):
        draw(pack, replay(pack), tmp_path / "r.bmp")
    assert draw(pack, replay(pack), tmp_path / "r.svg").read_text().count("shoulder_pan_joint") >= 1


def test_a_summary_that_is_no_json_gives_one_line(tmp_path, incident):
    """The file is named."""
    (incident[0] / "incident.json").write_text("{")
    with pytest.raises(IncidentError, match=r"incident\.json is not JSON"):
        Pack(incident[0])
