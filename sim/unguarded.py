"""The agent without its guard, so that what the guard costs can be measured. For simulation: it sends whatever was planned."""

from __future__ import annotations

from foresight.agent import Agent
from foresight.control.trajectory import splice
from foresight.data import Candidate, Reason, RobotState, Verdict
from foresight.safety.guard import Guard


class Unguarded(Guard):
    """Passes everything and presses against whatever holds the arm."""

    def offer(self, candidate: Candidate, state: RobotState | None, now_s: float) -> Verdict:
        self._put_in_force(splice(self.in_force, candidate.trajectory, now_s), now_s)
        self.last = Verdict(Reason.OK, "Not checked.")
        return self.last

    def relieve(self, state: RobotState, now_s: float) -> None:
        return None


class UnguardedAgent(Agent):
    """Agent as it would be without a guard."""

    def _new_guard(self) -> Guard:
        return Unguarded(self.profile, self.kinematics)
