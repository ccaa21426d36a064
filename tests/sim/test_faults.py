"""Each fault does what the table says, for as long as it says, and nothing before or after; the docs list the same faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foresight.data import RobotState
from sim.faults import NAMES, SIMULATED, TABLE, Faults, fault, page

ROOT = Path(__file__).resolve().parents[2]
STATE = RobotState(1.0, np.arange(6.0), 10 + np.arange(6.0))


def frames(value: int) -> dict[str, np.ndarray]:
    return {name: np.full((4, 4, 3), value, np.uint8) for name in ("front", "wrist")}


def at_work(name: str, now_s: float = 1.0, duration_s: float = 0.0, **values: float) -> Faults:
    faults = Faults(np.random.default_rng(0))
    faults.start(name, fault(name, duration_s, values), now_s)
    return faults


def test_the_page_lists_the_table():
    """docs/faults.md is what `python -m sim.faults` prints."""
    assert (ROOT / "docs/faults.md").read_text() == page()
    assert all(f"| `{name}` |" in page() for name in NAMES)


def test_the_names_are_those_that_everybody_uses():
    """Fifteen names, none twice; every fault of the simulator has a row, and every row of the simulator its fault."""
    assert set(NAMES) == {
        "kill", "freeze", "camera_freeze", "camera_black", "image_delay", "packet_loss", "joint_nan", "joint_swap", "clock_jump",
        "protective_stop", "controller_inactive", "speed_slider_zero", "disk_full", "gpu_oom", "wrong_model",
    } and len(NAMES) == 15  # fmt: skip
    assert set(SIMULATED) == {kind.name for kind in TABLE if kind.where == "sim"}


@pytest.mark.parametrize("name", SIMULATED)
def test_without_a_fault_and_after_it_everything_passes(name: str):
    """After its duration a fault leaves no trace."""
    faults = at_work(name, now_s=1.0, duration_s=0.5)
    for now_s in (1.6, 1.7):
        [(_captured_s, shown)] = [(c, f) for c, f in faults.frames(frames(3), now_s) if c == now_s]
        assert set(shown) == {"front", "wrist"} and (shown["front"] == 3).all()
        assert faults.measured(STATE, now_s) is STATE and not faults.lost(now_s)
        assert faults.halted_by(now_s) is None and faults.clock_s(now_s) == 0.0


def test_a_frozen_camera_repeats_its_last_picture_under_new_stamps():
    """The picture from before the fault, captured now."""
    faults = Faults(np.random.default_rng(0))
    faults.frames(frames(1), 0.9)
    faults.start("camera_freeze", fault("camera_freeze", 1.0, {}), 1.0)
    for now_s in (1.1, 1.2):
        [(captured_s, shown)] = faults.frames(frames(2), now_s)
        assert captured_s == now_s and all((rgb == 1).all() for rgb in shown.values())


def test_a_black_camera_is_black():
    """All of them, and the frames themselves are left alone."""
    taken = frames(9)
    [(_, shown)] = at_work("camera_black").frames(taken, 1.1)
    assert all((rgb == 0).all() for rgb in shown.values()) and (taken["front"] == 9).all()


def test_delayed_frames_arrive_in_order_with_the_stamps_of_their_capture():
    """Nothing for delay_s, then each frame as late as the first; none is lost when the fault ends."""
    faults = at_work("image_delay", duration_s=0.5, delay_s=0.2)
    heard = [(now_s, captured_s) for now_s in np.arange(10, 20) / 10 for captured_s, _ in faults.frames(frames(1), float(now_s))]
    assert [captured for _, captured in heard] == sorted(captured for _, captured in heard)
    assert len(heard) == 10 and all(now - captured <= 0.2 + 1e-9 for now, captured in heard)
    assert [now for now, captured in heard if captured == 1.0] == [1.2]


def test_lost_packets_are_as_many_as_was_said():
    """A share of frames, states and commands; the same seed loses the same ones."""
    faults, again = (at_work("packet_loss", share=0.3, duration_s=100.0) for _ in range(2))
    lost = [faults.measured(STATE, 1.0 + i * 1e-3) is None for i in range(3000)]
    assert 0.25 < np.mean(lost) < 0.35
    assert lost == [again.measured(STATE, 1.0 + i * 1e-3) is None for i in range(3000)]


def test_a_joint_is_not_a_number_and_two_joints_are_swapped():
    """Only the joints that were named; velocities are swapped too."""
    q = at_work("joint_nan", joint=2).measured(STATE, 1.1).q
    assert np.flatnonzero(np.isnan(q)).tolist() == [2]
    swapped = at_work("joint_swap", joint=1).measured(STATE, 1.1)
    assert swapped.q.tolist() == [0, 2, 1, 3, 4, 5] and swapped.dq.tolist() == [10, 12, 11, 13, 14, 15]


def test_the_clock_jumps_and_jumps_back():
    """By jump_s, forward or backward."""
    assert at_work("clock_jump", jump_s=-3.0).clock_s(1.1) == -3.0


@pytest.mark.parametrize("name", ["protective_stop", "controller_inactive", "speed_slider_zero"])
def test_a_halt_is_told_by_its_name(name: str):
    """Which of the driver's states is bad follows from it."""
    assert at_work(name).halted_by(1.1) == name


@pytest.mark.parametrize(
    ("name", "duration_s", "values", "says"),
    [
        ("tea_break", 1.0, {}, "Fault 'tea_break' is unknown to the simulator. Available: camera_freeze, camera_black"),
        ("packet_loss", 1.0, {"part": 0.1}, "no parameter 'part'. It has: duration_s, share"),
        ("packet_loss", 1.0, {"share": 1.1}, "share must lie between 0 and 1, got 1.1"),
        ("image_delay", 1.0, {"delay_s": -1.0}, "delay_s must lie between 0 and 10 s, got -1.0"),
        ("clock_jump", 1.0, {"jump_s": float("nan")}, "jump_s must be finite, got nan"),
        ("camera_black", -1.0, {}, "duration_s must be above 0 and at most 3600 s, got -1.0"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, duration_s: float, values: dict, says: str):
    """With what there is."""
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        fault(name, duration_s, values)


def test_a_joint_that_is_not_there_is_refused():
    """With the numbers there are."""
    with pytest.raises(ValueError, match="joint must be a whole number from 0 to 5, got 6"):
        fault("joint_nan", 1.0, {"joint": 6.0}).measured(STATE)
