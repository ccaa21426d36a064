"""The watchdog names what has fallen silent, whatever the simulated clock does; the clock watch tells a jump from drift."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.safety.watchdog import ClockWatch, Moment, Silence, Unread, Watchdog


def real(time_s: float) -> Moment:
    """Without simulated time both clocks are one."""
    return Moment(time_s, time_s)


def test_seen_in_time_is_not_silent():
    """A source within its limit is not reported; one beyond it is, with age and limit."""
    watchdog = Watchdog({"observation": 0.5, "state": 0.1})
    assert watchdog.seen("observation", real(10.0)) and watchdog.seen("state", real(10.0))
    assert watchdog.silent(real(10.0625)) == []
    assert watchdog.silent(real(10.25)) == [Silence("state", 0.25, 0.1)]
    watchdog.seen("state", real(10.25))
    assert watchdog.silent(real(10.25)) == []


def test_never_seen_is_silent():
    """Before its first message a source is silent for ever, so nothing starts without it."""
    watchdog = Watchdog({"plan": 0.5})
    assert watchdog.silent(real(3.0)) == [Silence("plan", float("inf"), 0.5)] and not watchdog.known("plan")


def test_the_same_stamp_again_is_no_news():
    """A driver that repeats itself ages, and its repeats are counted; a new stamp, also an earlier one, is news."""
    watchdog = Watchdog({"state": 0.1})
    assert watchdog.seen("state", real(1.0), 5.0)
    assert not watchdog.seen("state", real(1.05), 5.0) and not watchdog.seen("state", real(1.2), 5.0)
    assert watchdog.repeats["state"] == 2 and watchdog.silent(real(1.2)) == [Silence("state", pytest.approx(0.2), 0.1)]
    assert watchdog.seen("state", real(1.25), 4.0) and watchdog.repeats["state"] == 0 and watchdog.silent(real(1.25)) == []


@pytest.mark.parametrize(("rate", "passed_s", "age_s"), [(0.0, 60.0, 0.0), (0.25, 0.2, 0.05), (1.0, 0.2, 0.2), (10.0, 0.2, 0.2)])
def test_an_age_counts_the_slower_clock(rate: float, passed_s: float, age_s: float):
    """Paused or slow, a simulated arm moves as far as its clock says; faster than real time, real silence counts."""
    watchdog = Watchdog({"heartbeat": 0.1})
    watchdog.seen("heartbeat", Moment(1000.0, 7.0))
    now = Moment(1000.0 + passed_s, 7.0 + rate * passed_s)
    assert watchdog.age_s("heartbeat", now) == pytest.approx(age_s)
    assert bool(watchdog.silent(now)) == (age_s > 0.1)


def test_a_source_that_speaks_in_real_time_is_missed_in_real_time():
    """However slow the simulation is."""
    watchdog = Watchdog({"heartbeat": 0.1, "graph": 0.1}, steady=("graph",))
    for name in watchdog.limits_s:
        watchdog.seen(name, Moment(1000.0, 7.0))
    assert watchdog.silent(Moment(1000.2, 7.0)) == [Silence("graph", pytest.approx(0.2), 0.1)]


def test_unknown_source_and_bad_limit_are_refused():
    """A misspelt source, or a limit that could never be exceeded, is an error that names it."""
    with pytest.raises(KeyError, match=r"'plans' is not watched. Watched: plan"):
        Watchdog({"plan": 0.5}).seen("plans", real(0.0))
    with pytest.raises(ValueError, match=r"Sources plans are not watched. Watched: plan"):
        Watchdog({"plan": 0.5}, steady=("plans",))
    for limit in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="plan"):
            Watchdog({"plan": limit})
        with pytest.raises(ValueError, match="clock jump"):
            ClockWatch(False, limit)


def jumps(watch: ClockWatch, readings: list[tuple[float, float]]) -> list[float]:
    return [round(watch.read(*reading)[1], 6) for reading in readings]


def test_a_step_of_the_wall_clock_is_a_jump_and_reported_once():
    """Either way, by more than the limit, against the steady clock; time itself goes on steadily."""
    watch = ClockWatch(False, 0.05)
    assert jumps(watch, [(5.0, 1e9), (5.01, 1e9 + 0.01), (5.02, 1e9 + 1.02), (5.03, 1e9 + 1.03)]) == [0, 0, 1.0, 0]
    assert jumps(watch, [(5.04, 1e9 - 0.96), (5.05, 1e9 - 0.95)]) == [-2.0, 0]
    assert watch.read(5.06, 1e9)[0] == Moment(5.06, 5.06)


def test_small_steps_within_a_second_add_up():
    """A clock that is moved by 10 ms ten times a second has jumped, not drifted."""
    watch = ClockWatch(False, 0.05)
    assert any(jumps(watch, [(0.1 * i, 0.11 * i) for i in range(20)]))


@pytest.mark.parametrize("apart_s", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("began_s", np.arange(0.0, 1.0, 0.13).tolist())
def test_two_steps_within_a_second_are_one_whenever_they_come(began_s: float, apart_s: float):
    """Each just under the limit, either way; the same two seconds apart are not."""
    for sign in (1.0, -1.0):
        for between_s, found in ((apart_s, [sign * 0.098]), (2.5, [])):
            watch, steady_s = ClockWatch(False, 0.05), np.arange(0.0, 6.0, 0.005)
            steps = [1.0 + began_s, 1.0 + began_s + between_s]
            told = jumps(watch, [(t, 1e3 + t + sign * 0.049 * sum(t >= step for step in steps)) for t in steady_s.tolist()])
            assert [jump for jump in told if jump] == [pytest.approx(jump, abs=1e-6) for jump in found]


@pytest.mark.parametrize("waited_s", [0.5, 1.05, 1.2, 3.0, 100.0])
@pytest.mark.parametrize("step_s", [-3600.0, -0.1, 0.1, 3600.0])
def test_a_step_while_nobody_read_is_seen_afterwards(waited_s: float, step_s: float):
    """However long the reader was kept waiting: it compares with what it saw last."""
    watch = ClockWatch(False, 0.05)
    read = [(5.0 + t, 1e3 + t) for t in np.arange(0.0, 2.0, 0.01).tolist()]
    later_s = read[-1][0] + waited_s
    told = jumps(watch, [*read, *((later_s + t, 995.0 + later_s + t + step_s) for t in (0.0, 0.01, 0.02))])
    assert told[: len(read)] == [0] * len(read) and told[len(read) :] == [pytest.approx(step_s, abs=1e-6), 0, 0]


def test_drift_of_the_wall_clock_is_no_jump():
    """A clock that is slewed by 500 ppm for an hour has never jumped."""
    watch = ClockWatch(False, 0.05)
    steady_s = np.arange(0.0, 3600.0, 0.1)
    assert not any(jumps(watch, [(t, t * 1.0005) for t in steady_s.tolist()]))


def test_simulated_time_may_stand_catch_up_and_run_fast():
    """A simulation that is paused, kept waiting or faster than real time has a clock that does not jump."""
    watch = ClockWatch(True, 0.05)
    assert jumps(watch, [(5.0, 0.0), (5.01, 0.01), (9.0, 0.01), (9.0, 0.02), (9.01, 0.06)]) == [0, 0, 0, 0, 0]
    assert jumps(watch, [(9.5, 0.06), (9.5, 0.55), (9.51, 0.59), (9.515, 0.61)]) == [0, 0, 0, 0]
    assert watch.read(9.52, 0.62)[0] == Moment(9.52, 0.62)


@pytest.mark.parametrize("jump_s", [0.1, 1.0, 60.0, -0.1, -1.0])
def test_simulated_time_that_leaps_or_goes_back_has_jumped(jump_s: float):
    """By what it moved beyond the time passed; the time of the failsafe goes on as if it had not, and so after it jumps back."""
    watch, steady_s = ClockWatch(True, 0.05), np.arange(5.0, 5.3, 0.005)
    found = jumps(watch, [(t, t - 5.0 + (jump_s if 5.1 <= t < 5.2 else 0.0)) for t in steady_s.tolist()])
    told = [j for j in found if j]
    assert told == [pytest.approx(jump_s, abs=0.006), pytest.approx(-jump_s, abs=0.006)]
    assert watch.read(5.3, 0.3)[0].time_s == pytest.approx(0.3, abs=0.02)


def test_small_leaps_of_simulated_time_add_up():
    """Each by less than the limit beyond what it may; the time of the failsafe goes on about as fast as it may."""
    watch = ClockWatch(True, 0.05)
    readings = [watch.read(5.0 + 0.005 * i, 1.0 + 0.069 * i) for i in range(201)]
    assert sum(jump_s > 0 for _, jump_s in readings) > 50
    assert readings[-1][0].time_s - readings[0][0].time_s < ClockWatch.FASTEST * 1.0 * 2


def test_simulated_time_that_begins_late_has_not_jumped():
    """Until ROS is told a time it says 0; the first one told is compared with nothing."""
    assert jumps(ClockWatch(True, 0.05), [(4.0, 0.0), (5.0, 0.0), (5.005, 1000.0), (5.01, 1000.005)]) == [0, 0, 0, 0]
    assert jumps(ClockWatch(True, 0.05), [(5.0, 1000.0), (5.005, 1000.005)]) == [0, 0]


def test_simulated_time_that_goes_back_to_zero_has_gone_back():
    """And ages do not shrink while it reads 0."""
    watch = ClockWatch(True, 0.05)
    moments = [watch.read(*reading) for reading in ((5.0, 30.0), (5.005, 0.0), (5.01, 0.0), (5.015, 0.005), (5.02, 0.01))]
    assert [jump_s for _, jump_s in moments] == [0, pytest.approx(-30.0, abs=0.006), 0, 0, 0]
    times_s = [moment.time_s for moment, _ in moments]
    assert (np.diff(times_s) >= 0).all() and times_s[-1] == pytest.approx(30.015, abs=0.006)


@pytest.mark.parametrize("stall_s", [0.06, 0.2, 0.5])
def test_a_reader_that_is_kept_waiting_takes_that_for_no_jump(stall_s: float):
    """Whenever it is kept waiting: between hearing a time and reading the clocks, too. The next time told makes up for it."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        watch, told_s, steady_s, stall_at_s = ClockWatch(True, 0.05), 0.0, 0.0, float(rng.uniform(1.0, 1.05))
        while steady_s < 2.0:
            heard_s = 0.01 * np.floor(steady_s / 0.01)  # what was told last
            if steady_s >= stall_at_s:
                steady_s, stall_at_s = steady_s + stall_s, np.inf  # it heard, and only then reads
            assert watch.read(100.0 + steady_s, 5.0 + heard_s)[1] == 0.0, (stall_s, told_s, steady_s)
            steady_s += float(rng.uniform(0.001, 0.005))


@pytest.mark.parametrize("waited_s", [0.05, 0.15, 0.3])
@pytest.mark.parametrize("behind_s", [0.04, 0.12])
def test_a_clock_that_fell_behind_little_by_little_may_catch_up_unheard(behind_s: float, waited_s: float):
    """At half its speed for a while; its reader is kept waiting while it makes up for that. A leap beyond it is still one."""
    for leap_s in (0.0, 0.1):
        watch, steady_s, clock_s = ClockWatch(True, 0.05), 100.0, 5.0
        for _ in range(round(behind_s / 0.005)):
            assert watch.read(steady_s, clock_s)[1] == 0.0
            steady_s, clock_s = steady_s + 0.01, clock_s + 0.005
        caught_up_s = waited_s + behind_s
        jump_s = watch.read(steady_s + waited_s, clock_s + caught_up_s + leap_s)[1]
        possible_s = max(caught_up_s, 4 * 0.05) + 0.05
        assert (jump_s != 0) == (caught_up_s + leap_s > possible_s + 1e-9), (behind_s, waited_s, leap_s)
    assert jump_s != 0 or waited_s < 0.15


def test_a_clock_that_goes_back_after_a_pause_goes_back_by_what_it_did():
    """The pause is no part of it, but for what may have passed on the clock as well."""
    assert jumps(ClockWatch(True, 0.05), [(1.0, 9.0), (61.0, 8.0)]) == [0, pytest.approx(-1.0, abs=0.06)]


@pytest.mark.parametrize("ahead_s", [0.0, 3.0, -1e6])
def test_a_message_that_lay_unread_is_known_by_its_stamp(ahead_s: float):
    """Whatever the sender's clock says: beside messages that were read at once, one read later waited by so much, to a limit."""
    unread = Unread(0.02)
    assert [unread.waited_s(k / 100 + ahead_s, k / 100 + 0.001) for k in range(10)] == pytest.approx([0.0] * 10, abs=1e-9)
    assert unread.waited_s(0.10 + ahead_s, 0.10 + 0.016) == pytest.approx(0.015, abs=1e-9)
    assert unread.waited_s(0.11 + ahead_s, 0.11 + 0.9) == 0.02


def test_a_sender_whose_clock_is_set_back_is_believed_again():
    """After as many messages as are counted, what the clock was before no longer matters."""
    unread = Unread(0.02)
    unread.waited_s(0.0, 0.0)
    waits_s = [unread.waited_s(k / 100 - 5.0, k / 100) for k in range(1, 1 + Unread.LATE)]
    assert waits_s[0] == 0.02 and waits_s[-1] == pytest.approx(0.0, abs=1e-9)
