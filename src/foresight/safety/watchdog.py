"""Which sources have fallen silent, and did the clock jump? Knows no ROS: the caller reads the clocks.

Ages count on the steady clock, since wall clocks step and stamps are the sender's word. With simulated time an age is the lesser
of steady and simulated time passed: while the simulation is slow or paused its arm does not move on, and nothing trips. Not so
of a source that speaks in real time whatever the simulation does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np


class Moment(NamedTuple):
    """Now, on two clocks that do not go back."""

    steady_s: float  # [s] the machine's steady clock
    time_s: float  # [s] the time in which the arm moves: simulated time where there is one, else steady_s again

    def since(self, earlier: "Moment") -> float:
        """[s] passed on both clocks."""
        return min(self.steady_s - earlier.steady_s, self.time_s - earlier.time_s)


NEVER = Moment(-np.inf, -np.inf)


class Silence(NamedTuple):
    """A source that has not been heard of for too long."""

    name: str
    age_s: float  # [s] infinite when it was never seen
    limit_s: float  # [s]


class Watchdog:
    """Remembers when each named source (observation, state, plan, ...) was last seen, and how often its stamp was repeated.

    A source never seen is silent, so that nothing starts before everything has arrived.
    """

    def __init__(self, limits_s: Mapping[str, float], steady: Collection[str] = ()) -> None:
        """`steady`: the sources whose age counts on the steady clock alone."""
        for name, limit in limits_s.items():
            if not np.isfinite(limit) or limit <= 0:
                raise ValueError(f"The silence limit of '{name}' must be finite and greater than 0 s, got {limit}.")
        if unknown := set(steady) - set(limits_s):
            raise ValueError(f"Sources {', '.join(sorted(unknown))} are not watched. Watched: {', '.join(limits_s)}.")
        self.limits_s, self._steady = dict(limits_s), frozenset(steady)
        self._seen: dict[str, Moment] = {}
        self._stamps_s: dict[str, float] = {}
        self.repeats = dict.fromkeys(self.limits_s, 0)  # messages since the last new stamp

    def seen(self, name: str, now: Moment, stamp_s: float | None = None) -> bool:
        """The source has just been heard of; whether that was news. A message with the last one's stamp again is none."""
        if name not in self.limits_s:
            raise KeyError(f"Source '{name}' is not watched. Watched: {', '.join(self.limits_s)}.")
        if stamp_s is not None and stamp_s == self._stamps_s.get(name):
            self.repeats[name] += 1
            return False
        if stamp_s is not None:
            self._stamps_s[name] = stamp_s
        self._seen[name], self.repeats[name] = now, 0
        return True

    def known(self, name: str) -> bool:
        """Whether the source was ever seen."""
        return name in self._seen

    def age_s(self, name: str, now: Moment) -> float:
        """[s] since the source was last seen; infinite when it never was."""
        seen = self._seen.get(name, NEVER)
        return now.steady_s - seen.steady_s if name in self._steady else now.since(seen)

    def silent(self, now: Moment) -> list[Silence]:
        """The sources that exceed their limit now, in the order they were named."""
        ages = {name: self.age_s(name, now) for name in self.limits_s}
        return [Silence(name, age, self.limits_s[name]) for name, age in ages.items() if not age <= self.limits_s[name]]


class Unread:
    """How long a sender's messages lay unread because their reader was busy: beyond the quickest of late, by their stamps.

    The sender's clock may be ahead or behind: that shows in all of them alike.
    """

    LATE = 100  # messages of late

    def __init__(self, most_s: float) -> None:
        self.most_s = most_s
        self._ways_s: deque[float] = deque(maxlen=self.LATE)  # from stamp to reading, plus what the clocks differ by

    def waited_s(self, stamp_s: float, clock_s: float) -> float:
        """[s] of a message that is read at `clock_s`, `most_s` at most."""
        self._ways_s.append(clock_s - stamp_s)
        return min(self.most_s, self._ways_s[-1] - min(self._ways_s))


class ClockWatch:
    """Compares the ROS clock with the steady clock.

    The wall clock may drift a little against the steady one, never step, and not in small steps either. A simulated clock may
    stand still, catch up with the time that it stood, and run some times faster than real time, where it is told often
    (`FASTEST`); it may not go back, nor leap by more than it stood.
    """

    WINDOW_S = 1.0  # [s] within which steps add up to one; what moves slower drifts
    PARTS = 10  # that the window is kept in: of each the least and the most are known
    FASTEST = 4.0  # times real time that a simulation may run at, where its clock moves every BURST_S or more often
    BURST_S = 0.05  # [s] of steady time that count so; over longer spans a simulated clock moves as real time does
    KEPT_S = 0.12  # [s] that it may have fallen behind little by little and make up for at once, as our simulation does

    def __init__(self, simulated: bool, limit_s: float) -> None:
        if not np.isfinite(limit_s) or limit_s <= 0:
            raise ValueError(f"The limit of a clock jump must be finite and greater than 0 s, got {limit_s}.")
        self.simulated, self.limit_s = simulated, limit_s
        self._clock_s = np.nan
        self._moved_s = np.nan  # when, on the steady clock, the simulated one last moved
        self._spare_s = 0.0  # by how much less it moved than it might: it fell behind, or its reader was kept waiting
        self._apart_s: deque[tuple[float, float, float]] = deque()  # since when; least, most of clock minus steady [s]
        self._least_s = self._most_s = np.nan  # of all of them
        self._beyond_s = 0.0  # by how much the simulated one lately moved more than it might: what is left of small leaps
        self._jumped_s = 0.0  # by how much the simulated clock has jumped in all

    def read(self, steady_s: float, clock_s: float) -> tuple[Moment, float]:
        """Now, and by how much the ROS clock has just jumped [s]; 0 when it has not."""
        if not self.simulated:
            return Moment(steady_s, steady_s), self._step(steady_s, clock_s)
        jump_s = self._leap(steady_s, clock_s)
        self._jumped_s += jump_s
        return Moment(steady_s, clock_s - self._jumped_s), jump_s

    def _leap(self, steady_s: float, clock_s: float) -> float:
        """Of a simulated clock: how much farther it is than it can have come since it last moved, or how far it went back."""
        advanced_s, passed_s, spare_s = clock_s - self._clock_s, steady_s - self._moved_s, self._spare_s
        if not advanced_s or not (clock_s or self._clock_s > 0):  # ROS says 0 until it is told a time
            return 0.0
        self._clock_s, self._moved_s, self._spare_s = clock_s, steady_s, 0.0
        if advanced_s < 0:
            self._beyond_s = 0.0
            return advanced_s - min(passed_s, self.BURST_S)  # it may have stood before
        possible_s = max(passed_s + spare_s, self.FASTEST * min(passed_s, self.BURST_S))
        self._beyond_s = max(0.0, self._beyond_s + advanced_s - possible_s)  # 0 for NaN, the first reading
        if self._beyond_s > self.limit_s:
            self._beyond_s = 0.0
            return advanced_s - passed_s
        behind_s = passed_s - advanced_s
        self._spare_s = min(max(0.0, behind_s + spare_s), max(self.KEPT_S, behind_s))  # and so here
        return 0.0

    def _step(self, steady_s: float, clock_s: float) -> float:
        """Of the wall clock: how much farther from the steady one it is than the nearest, or farthest, that it was of late."""
        apart_s, parts = clock_s - steady_s, self._apart_s
        if not parts or steady_s - parts[-1][0] >= self.WINDOW_S / self.PARTS:
            while len(parts) > 1 and steady_s - parts[0][0] >= self.WINDOW_S + self.WINDOW_S / self.PARTS:
                parts.popleft()  # not the last: whoever was kept waiting compares with what it saw before
            parts.append((steady_s, apart_s, apart_s))
            self._least_s, self._most_s = min(part[1] for part in parts), max(part[2] for part in parts)
        elif not parts[-1][1] <= apart_s <= parts[-1][2]:
            since_s, least_s, most_s = parts.pop()
            parts.append((since_s, min(least_s, apart_s), max(most_s, apart_s)))
            self._least_s, self._most_s = min(self._least_s, apart_s), max(self._most_s, apart_s)
        jump_s = max(apart_s - self._least_s, apart_s - self._most_s, key=abs)
        if not abs(jump_s) > self.limit_s:
            return 0.0
        parts.clear()
        parts.append((steady_s, apart_s, apart_s))
        self._least_s = self._most_s = apart_s
        return jump_s
