"""The recorder keeps what was said, writes it when the guard stops, and whatever happens to it stops nobody else."""

from __future__ import annotations

import array
import errno
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from foresight_msgs.msg import GuardState
from foresight_nodes import convert, topics
from foresight_nodes.definitions import definition, type_name
from foresight_nodes.recorder_node import RecorderNode, moving, recorded_topics, stops
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.serialization import deserialize_message, serialize_message
from std_srvs.srv import Trigger

from foresight import cli
from foresight.incidents import pack as packs
from foresight.incidents.pack import Pack
from foresight.incidents.replay import replay
from foresight.perception import prepare
from foresight.world_model.belief import BeliefFilter
from foresight.world_model.checkpoint import load
from tests.ros.conftest import Bench
from tests.ros.test_graph_of_nodes import Line
from tests.ros.test_guard_node import Guarded


class Recorded(Guarded):
    """An active guard with its surroundings, and a recorder that has heard the guard."""

    def __init__(self, bench: Bench, profile, kinematics, start, folder: Path, **parameters) -> None:
        self.recorder = bench.add(RecorderNode, robot="ur5e", folder=str(folder), **{"aftermath_s": 0.05, **parameters})
        self.folder = folder
        bench.bring_up(self.recorder)
        super().__init__(bench, profile, kinematics, start)
        self.diagnostics = bench.listen(topics.DIAGNOSTICS)
        bench.until(lambda: self.recorder._was is not None and self.holds("guard_setup"), "the recorder hears the guard")
        bench.until(lambda: self._plans.get_subscription_count() == 3, "guard, recorder and bench read plans", 0.02)

    def holds(self, topic: str) -> int:
        held = self.recorder._ring.messages(self.recorder._now_ns())
        return sum(message.topic == f"/{topic}" for message in held)

    def stop(self) -> None:
        assert self.bench.call(topics.GUARD_STOP, self.node, Trigger.Request()).success

    def packs(self) -> list[Path]:
        return sorted(self.folder.glob("*")) if self.folder.is_dir() else []

    def written(self, count: int = 1) -> Path:
        """The latest pack, once there are so many."""
        self.bench.until(lambda: self.recorder._written >= count and not self.recorder._writing, "the incident is written")
        assert len(self.packs()) == count
        return Path(self.recorder._last)

    def judged(self, *messages) -> None:
        """The guard has judged these plans and the recorder has heard it."""
        for message in messages:
            before = self.holds("guard_verdict")
            self.offer(message)
            self.bench.until(lambda before=before: self.holds("guard_verdict") > before, "the recorder hears the verdict")


@pytest.fixture
def recorded(bench: Bench, profile, kinematics, start, tmp_path) -> Recorded:
    bench.listen(topics.PLAN)
    return Recorded(bench, profile, kinematics, start, tmp_path / "incidents")


def test_a_stop_writes_an_incident_that_replays_bit_for_bit(bench: Bench, profile, kinematics, start, tmp_path, capsys):
    """Plans that pass, are refused or cannot be read, a stop, and a plan after it: every verdict is made again from one folder.

    The recorder is deactivated while it waits for the aftermath, and writes what it has.
    """
    bench.listen(topics.PLAN)
    recorded = Recorded(bench, profile, kinematics, start, tmp_path / "incidents", aftermath_s=20.0)
    good, late = recorded.plan(), recorded.plan(id=8)
    late.trajectory.header.stamp = convert.stamp(recorded.bench.now_s - 0.05)
    unreadable = recorded.plan(id=2**64 - 1)
    unreadable.trajectory.points[3].velocities = []
    nan = recorded.plan(id=10)
    nan.trajectory.points[2].positions = [float("nan")] * 6
    recorded.judged(good, late, unreadable, nan)
    recorded.stop()
    recorded.judged(recorded.plan(id=11))
    assert recorded.packs() == [] and recorded.recorder.trigger_deactivate() is TransitionCallbackReturn.SUCCESS
    folder = recorded.written()

    result = replay(Pack(folder))
    assert [row.reason for row in result.rows] == ["ok", "stale_plan", "malformed", "not_finite", "stopped"]
    assert result.same and result.missing == 0
    assert [row.replayed_reason for row in result.rows] == ["ok", "stale_plan", "", "not_finite", "stopped"]
    assert cli.main(["replay", str(folder)]) == 0
    assert "All 5 verdicts are the same" in " ".join(capsys.readouterr().out.split())

    told = json.loads((folder / "incident.json").read_text())
    assert folder.name.endswith("_operator_stop") and told["reason"] == "operator_stop" and told["detail"]
    assert told["messages"]["/guard_verdict"] == {"type": "foresight_msgs/msg/GuardVerdict", "count": 5}
    assert told["messages"]["/belief"]["count"] == 0 and told["model_id"] == "toy" and told["versions"]["mujoco"]
    assert told["guard_setup"]["config"]["rest_rad_s"] > 0 and told["robot"] == "ur5e"
    assert told["stop"]["time_s"] == pytest.approx(recorded.bench.now_s, abs=1)


def test_the_public_reader_finds_every_topic_and_the_imagined_latents(recorded: Recorded):
    """The MCAP opens with the mcap package alone: types, schemas and contents; metadata.yaml says the same to rosbag2."""
    plan = recorded.plan()
    plan.imagined = array.array("f", np.arange(12, dtype=np.float32))
    plan.imagined_blocks, plan.imagined_size = 3, 4
    recorded.judged(plan)
    recorded.bench.until(lambda: recorded.holds("diagnostics"), "the recorder hears diagnostics")
    recorded.stop()
    folder = recorded.written()
    with open(folder / "incident.mcap", "rb") as file:
        read = list(make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages())
    plans = [content for _, channel, _, content in read if channel.topic == "/plan"]
    assert [list(p.imagined) for p in plans] == [list(range(12))]
    assert plans[0].trajectory.joint_names == list(recorded.profile.joint_names)
    heard = {channel.topic: schema.name for schema, channel, _, _ in read}
    expected = {"/guard_state", "/guard_setup", "/guard_verdict", "/plan", "/joint_states", "/diagnostics", "/clock"}
    assert expected | {"/joint_trajectory_controller/joint_trajectory"} <= set(heard)
    times = [message.log_time for _, _, message, _ in read]
    assert times == sorted(times)

    bag = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert bag["message_count"] == len(read) and bag["relative_file_paths"] == ["incident.mcap"]
    assert bag["storage_identifier"] == "mcap"
    assert {t["topic_metadata"]["name"]: t["topic_metadata"]["type"] for t in bag["topics_with_message_count"]} == heard


def test_what_is_recorded_gives_the_tensors_that_the_model_was_given(bench: Bench, checkpoint: Path, start, tmp_path):
    """Frames of an incident, prepared as for training, are the live observations bit for bit, and so are their beliefs."""
    recorder = bench.add(RecorderNode, robot="ur5e", folder=str(tmp_path), images_hz=1e3)
    bench.bring_up(recorder)
    beliefs = bench.listen(topics.BELIEF)
    Line(bench, checkpoint, start)

    def heard() -> bool:
        for _ in range(20):  # beside the recorder, which reads every topic, perception would hardly have its turn
            bench.executor.spin_once(timeout_sec=0.0)
        return len(beliefs) >= 8

    bench.until(heard, "beliefs come", advance_s=0.02)
    answer = bench.call(topics.RECORDER_SNAPSHOT, recorder, Trigger.Request())
    assert answer.success, answer.message
    with open(Path(answer.message) / "incident.mcap", "rb") as file:
        read = [(c.topic, deserialize_message(m.data, recorder._kinds[c.topic])) for _, c, m in make_reader(file).iter_messages()]
    at = {(topic, convert.seconds(message.header.stamp)): message for topic, message in read if hasattr(message, "header")}
    model, compared = load(checkpoint), 0
    for (topic, stamp_s), message in at.items():
        frames = [(camera, at.get((f"/{camera.name}/image_raw", stamp_s))) for camera in model.contract.cameras]
        if topic != "/observation" or any(frame is None for _, frame in frames) or ("/belief", stamp_s) not in at:
            continue
        given = convert.observation_from_msg(message, model.contract)
        images = np.stack([prepare(convert.image_from_msg(frame), camera) for camera, frame in frames])
        assert images.dtype == given.images.dtype and images.tobytes() == given.images.tobytes()
        belief = convert.belief_from_msg(at["/belief", stamp_s])
        assert BeliefFilter(model).update(replace(given, images=images)).latent.tobytes() == belief.latent.tobytes()
        compared += 1
    assert compared >= 5


def test_a_full_disk_costs_one_line_and_nothing_else(recorded: Recorded, monkeypatch):
    """Nothing half written, one line in the diagnostics; the guard goes on, and with room again the next incident is written."""

    def full(path, messages, definitions):
        path.write_bytes(b"half of wh")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(packs, "_write_mcap", full)
    recorded.stop()
    recorded.bench.until(lambda: recorded.recorder._error, "the recorder notices")
    recorded.recorder.diagnose()
    recorded.bench.until(
        lambda: any("No space left on device" in s.message for m in recorded.diagnostics for s in m.status), "it is said"
    )
    said = [s for m in recorded.diagnostics for s in m.status if "No space left on device" in s.message]
    assert said[0].name == "/recorder" and said[0].level == DiagnosticStatus.WARN and "\n" not in said[0].message
    assert recorded.packs() == [] and recorded.recorder.active and recorded.node.active
    assert recorded.offer(recorded.plan()).reason == "stopped"  # the guard still answers

    monkeypatch.undo()
    answer = recorded.bench.call(topics.RECORDER_SNAPSHOT, recorded.recorder, Trigger.Request())
    assert answer.success and answer.message == str(recorded.written()) and recorded.recorder._error == ""


def test_a_folder_that_cannot_be_made_is_said_and_nobody_stops(bench: Bench, profile, kinematics, start, tmp_path):
    """A file where the folder should be: the recorder is up, and says in one line that it cannot write."""
    (tmp_path / "incidents").write_text("no folder")
    bench.listen(topics.PLAN)
    recorded = Recorded(bench, profile, kinematics, start, tmp_path / "incidents")
    answer = bench.call(topics.RECORDER_SNAPSHOT, recorded.recorder, Trigger.Request())
    assert not answer.success and str(tmp_path / "incidents") in answer.message and "\n" not in answer.message
    assert recorded.offer(recorded.plan()).reason == "ok"
    assert [p.name for p in tmp_path.iterdir()] == ["incidents"]


def test_stops_in_quick_succession_share_the_next_incident(bench: Bench, profile, kinematics, start, tmp_path, capsys):
    """Stops within the interval after an incident fill no disk and lose nothing: the second holds them all, and replays."""
    bench.listen(topics.PLAN)
    recorded = Recorded(bench, profile, kinematics, start, tmp_path / "incidents", interval_s=10.0)
    for again in (False, True, True):
        if again:
            recorded.live(1.2)
            assert bench.call(topics.GUARD_RESET, recorded.node, Trigger.Request()).success
            bench.until(lambda: recorded.recorder._was.state == GuardState.ACTIVE, "the recorder hears the reset")
        recorded.stop()
        if not again:
            first = recorded.written()
    bench.until(lambda: len(recorded.recorder._stops) == 2, "both are heard")
    recorded.judged(recorded.plan())
    recorded.recorder._step()
    assert len(recorded.packs()) == 1, "not before the interval is over"
    recorded.recorder._last_ns -= 10 * 10**9
    second = recorded.written(2)
    one, two = (json.loads((folder / "incident.json").read_text())["stops"] for folder in (first, second))
    assert [(s["action"], s["reason"]) for s in (*one, *two)] == [("latch", "operator_stop")] * 3
    times = [s["time_s"] for s in (*one, *two)]
    assert times == sorted(set(times)) and all(s["detail"] and s["wall"] for s in two)
    again = replay(Pack(second))
    assert again.same and len(again.rows) == 1
    assert cli.main(["replay", str(second), "--picture", str(tmp_path / "second.png")]) == 0
    assert f"then at {times[2]:.3f} s: latch, operator_stop: " in " ".join(capsys.readouterr().out.split())


def test_a_snapshot_loses_no_stop_that_waits(bench: Bench, profile, kinematics, start, tmp_path):
    """Asked for while a stop waits for its aftermath, it is a folder of its own."""
    bench.listen(topics.PLAN)
    recorded = Recorded(bench, profile, kinematics, start, tmp_path / "incidents", aftermath_s=1.0)
    recorded.stop()
    assert bench.call(topics.RECORDER_SNAPSHOT, recorded.recorder, Trigger.Request()).success
    assert recorded.written(2).name.endswith("operator_stop")


def test_a_stop_that_becomes_a_latch_is_listed_as_both(bench: Bench, profile, kinematics, start, tmp_path):
    """The latch has its own line, and the incident waits for its aftermath."""
    bench.listen(topics.PLAN)
    recorded = Recorded(bench, profile, kinematics, start, tmp_path / "incidents", aftermath_s=0.3)
    recorded.node._evaluate(program_stopped=True)
    bench.until(lambda: recorded.recorder._stops, "the stop is heard")
    recorded.stop()
    told = json.loads((recorded.written() / "incident.json").read_text())
    assert [(s["action"], s["reason"]) for s in told["stops"]] == [("stop", "program_stopped"), ("latch", "operator_stop")]
    assert told["reason"] == "program_stopped" and told["stops"][0]["received_ns"] == told["stop"]["received_ns"]


@pytest.mark.parametrize("moves", [True, False])
def test_a_guard_that_dies_in_motion_leaves_an_incident(recorded: Recorded, moves: bool):
    """Nobody says that the arm stops; the silence does. Of a guard that dies at rest there is nothing to tell."""
    if moves:
        recorded.judged(recorded.plan())
    recorded.bench.until(lambda: moving(recorded.recorder._was) is moves, "the recorder hears whether the arm moves")
    recorded.bench.kill(recorded.node)
    recorded.bench.until(lambda: recorded.recorder._silent, "the silence is noticed")
    if not moves:
        assert not recorded.recorder._stops and not recorded.packs()
        return
    folder = recorded.written()
    told = json.loads((folder / "incident.json").read_text())
    assert folder.name.endswith("_guard_silent") and told["reason"] == "guard silent"
    assert [s["action"] for s in told["stops"]] == ["unknown"] and "No guard_state for 0." in told["detail"]
    result = replay(Pack(folder))
    assert [row.reason for row in result.rows] == ["ok"] and result.same
    new, recorder = GuardState(state=GuardState.ACTIVE, action=GuardState.STOP, cause="controller_inactive"), recorded.recorder
    recorder._on_guard_state(new)
    assert not recorder._stops, "a new guard that waits for the controller stops nothing"


def test_a_recorder_that_was_kept_waiting_takes_no_guard_for_silent(recorded: Recorded):
    """What the guard said meanwhile is read first."""
    recorded.judged(recorded.plan())
    recorded.bench.until(lambda: moving(recorded.recorder._was), "the recorder hears that the arm moves")
    time.sleep(0.5)
    recorded.recorder._step()
    assert not recorded.recorder._silent and not recorded.recorder._stops


def test_simulated_time_that_goes_back_leaves_an_incident(recorded: Recorded):
    """It stops the guard, so it is recorded as any stop."""
    recorded.bench.turn_back(50.0)
    recorded.bench.until(lambda: recorded.recorder._written, "the incident is written")
    assert recorded.packs()[0].name.endswith("_simulator_reset")


def test_only_the_newest_incidents_stay(bench: Bench, profile, kinematics, start, tmp_path):
    """With room for two, the third incident ends the first."""
    bench.listen(topics.PLAN)
    recorded = Recorded(bench, profile, kinematics, start, tmp_path / "incidents", keep_packs=2)
    names = []
    for _ in range(3):
        answer = bench.call(topics.RECORDER_SNAPSHOT, recorded.recorder, Trigger.Request())
        names.append(answer.message)
    assert answer.success and [str(path) for path in recorded.packs()] == names[1:] and recorded.recorder._written == 3


def test_memory_is_bounded_and_verdicts_outlive_images(bench: Bench, profile, kinematics, start, tmp_path):
    """At 1 MB, images give way; the verdict from before them is still there."""
    bench.listen(topics.PLAN)
    recorded = Recorded(bench, profile, kinematics, start, tmp_path / "incidents", memory_max_mb=1, images_hz=1e6)
    recorded.judged(recorded.plan())
    images = bench.publisher(topics.image("front"))
    picture = convert.image_to_msg(np.zeros((128, 128, 3), np.uint8), bench.now_s, "front_optical_frame")
    ring, sent_s = recorded.recorder._ring, time.monotonic()
    while not ring.dropped:
        assert time.monotonic() - sent_s < 30
        images.publish(picture)
        bench.executor.spin_once(timeout_sec=0.05)
        assert ring.held <= 2**20
    assert set(ring.dropped) == {"/front/image_raw"} and recorded.holds("guard_verdict") == 1
    assert recorded.holds("front/image_raw") >= 15


def test_a_stop_is_known_from_the_guards_state():
    """Stop and latch of an active guard are stops, also one after the other, and a hold or retreat in motion.

    Going on is not, nor a hold at rest.
    """
    active, held = GuardState(state=GuardState.ACTIVE), GuardState(state=GuardState.ACTIVE, action=GuardState.HOLD)
    stop = GuardState(state=GuardState.ACTIVE, action=GuardState.STOP)
    latch = GuardState(state=GuardState.STOPPED, action=GuardState.LATCH)
    leaving = GuardState(state=GuardState.INACTIVE, header=convert.header(5.0), in_force_until=convert.stamp(5.3))
    rested = GuardState(state=GuardState.INACTIVE, header=convert.header(5.0), in_force_until=convert.stamp(4.0))
    assert stops(active, stop) and stops(active, latch) and stops(held, latch) and stops(active, leaving)
    assert stops(stop, latch)
    braked, yielding = (
        GuardState(state=GuardState.ACTIVE, action=action, header=leaving.header, in_force_until=leaving.in_force_until)
        for action in (GuardState.HOLD, GuardState.RETREAT)
    )
    assert stops(active, braked) and stops(active, yielding) and not stops(held, braked) and not stops(braked, yielding)
    others = [(latch, latch), (latch, stop), (stop, stop), (stop, active), (active, held)]
    others += [(active, rested), (stop, leaving), (rested, stop), (rested, leaving)]
    assert not any(stops(before, now) for before, now in others)


def test_a_recorder_that_is_frozen_holds_up_nobody(bench: Bench, profile, kinematics, start, tmp_path):
    """With the recorder's process stopped by SIGSTOP, the guard answers two hundred plans as fast as with none."""
    bench.listen(topics.PLAN)
    guarded, verdicts = Guarded(bench, profile, kinematics, start), bench.listen(topics.GUARD_VERDICT)
    message = guarded.plan()

    def durations() -> np.ndarray:
        taken = []
        for _ in range(200):
            begin_s = time.monotonic()
            guarded.node._on_plan(message)
            taken.append(time.monotonic() - begin_s)
        return np.array(taken)

    alone = durations()
    command = "from foresight_nodes.run import recorder; recorder()"
    options = ["--ros-args", "-p", "robot:=ur5e", "-p", f"folder:={tmp_path}"]
    recorder = subprocess.Popen([sys.executable, "-c", command, *options])
    try:
        publisher = guarded.node._publish_verdict
        bench.until(lambda: publisher.get_subscription_count() == 2, "the recorder listens")
        recorder.send_signal(signal.SIGSTOP)
        frozen = durations()
    finally:
        recorder.send_signal(signal.SIGKILL)
        recorder.wait()
    quick, before = (np.quantile(taken[50:], 0.1) for taken in (frozen, alone))  # of any call: being held up would slow each
    assert quick < before + 0.03, f"{quick:.4f} s, with no recorder {before:.4f} s"
    bench.until(lambda: verdicts, "verdicts go out")


def test_definitions_hold_all_types_within():
    """Every recorded topic's definition is parsed by the public decoder, and decodes what ROS has serialised."""
    from mcap.records import Schema

    for topic in recorded_topics(("controller/joint_trajectory",), ("front",)):
        schema = Schema(1, definition(topic.type).encode(), "ros2msg", type_name(topic.type))
        decode = DecoderFactory().decoder_for("cdr", schema)
        decode(bytes(serialize_message(topic.type())))
