"""How long the parts of a plan take, so that none begins that would end after the deadline. Owns no clock."""

from __future__ import annotations

AGAIN = 0.97  # of what a part was expected to take is expected in the next plan, where there was no time for it
AGAIN_SOON = 0.8  # likewise, of a part that was timed once: the first time is often slow and tells little


class Pace:
    """What each part of a plan is expected to take [s], learned from plan to plan; one that was never timed takes nothing.

    One part that took long makes no slow machine: what is expected at most doubles at a time. What there was no time for is
    expected to take a little less with each plan, and so is tried again.
    """

    def __init__(self) -> None:
        self._expected_s: dict[str, float] = {}
        self._left_out: set[str] = set()
        self._once: set[str] = set()  # parts that were timed once

    def begin(self) -> None:
        """To be called before each plan."""
        again = lambda part: AGAIN_SOON if part in self._once else AGAIN  # noqa: E731
        self._expected_s |= {part: again(part) * self.expected_s(part) for part in self._left_out}
        self._left_out.clear()

    def expected_s(self, part: str) -> float:
        return self._expected_s.get(part, 0.0)

    def fits(self, left_s: float, *parts: str) -> bool:
        """Whether the time that is left is enough for these parts, one after the other."""
        enough = sum(map(self.expected_s, parts)) <= left_s
        self._left_out.update(() if enough else parts)
        return enough

    def took(self, part: str, took_s: float) -> None:
        before_s = self.expected_s(part)
        (self._once.discard if part in self._expected_s else self._once.add)(part)
        self._expected_s[part] = min(took_s, 2 * before_s) if before_s > 0 else took_s
        self._left_out.discard(part)
