"""What is known about one operation that is waited for, by however many."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from airflow_speechkit.polling.forecast import kind_of, work_s
from airflow_speechkit.polling.outage import Failures
from airflow_speechkit.polling.schedule import SHORTEST_SET_INTERVAL_S, interval_slot_after

if TYPE_CHECKING:
    from airflow_speechkit.polling.waiting import Waiting


class Watch:
    """One operation: who waits for it and how, where in its schedule it stands, and how asking for it went.

    :param waiting: how the first one waits for it
    :param now: when that one began to wait
    """

    __slots__ = (
        "arrived_at",
        "asked_age_s",
        "asked_at",
        "asking",
        "behind",
        "catching_up",
        "demand",
        "due",
        "entry",
        "failures",
        "interval_s",
        "kind",
        "known_age_s",
        "learned_age_s",
        "predicted",
        "waiting",
        "wanted",
        "work_s",
    )

    def __init__(self, waiting: Waiting, now: float) -> None:
        self.wanted: list[Waiting] = []
        self.arrived_at = now
        self.asked_age_s = 0.0  # where in the schedule it stands
        self.known_age_s = 0.0  # up to which age it was really seen running
        self.learned_age_s = 0.0  # up to which age that was taken in
        self.due = math.inf
        self.entry = 0  # which entry of a line is its own; 0: none
        self.asking = False
        self.asked_at = -math.inf
        self.behind = False  # it has a past that is not known here
        self.catching_up = False  # and was not seen since
        self.demand = 0.0
        self.failures = Failures()
        self.join(waiting)

    def join(self, waiting: Waiting) -> None:
        """Take in one more who waits for it."""
        self.wanted.append(waiting)
        self._settle()

    def leave(self, waiting: Waiting) -> bool:
        """Take out one who waits no longer; return whether others do."""
        if waiting in self.wanted:
            self.wanted.remove(waiting)
        if self.wanted:
            self._settle()
        return bool(self.wanted)

    def age_s(self, now: float, ahead_s: float) -> float:
        """Return how old it is, in seconds: by the time of day, but at least as long as it is waited for here.

        The clocks of two machines need not agree, and any may be set while somebody waits.

        :param ahead_s: what the time of day is ahead of `now`
        """
        return max(now + ahead_s - self.waiting.submitted_at, now - self.arrived_at)

    def no_older_than(self, age_s: float) -> None:
        """Take in how old it is: the time of day was set back, if it was older before.

        It would not be asked for until it is as old again.
        """
        if self.asked_age_s > age_s:
            self.asked_age_s = age_s
            self.known_age_s = min(self.known_age_s, age_s)
            self.learned_age_s = min(self.learned_age_s, age_s)

    def next_interval_s(self) -> float:
        """Return the age at which the shortest of the set intervals wants it asked for next; infinite without any."""
        return math.inf if self.interval_s is None else interval_slot_after(self.asked_age_s, self.interval_s)

    @property
    def interval_load(self) -> float:
        """How many checks a second the shortest of the set intervals asks for."""
        return 0.0 if self.interval_s is None else 1.0 / max(self.interval_s, SHORTEST_SET_INTERVAL_S)

    def _settle(self) -> None:
        # Of several, what the one says who knows most.
        self.waiting = min(self.wanted, key=lambda one: (one.audio_s is None, one.submitted_at))
        self.kind = kind_of(self.waiting)
        self.work_s = work_s(self.waiting)
        intervals = [one.interval_s for one in self.wanted if one.interval_s is not None]
        self.interval_s = min(intervals, default=None)
        self.predicted = len(intervals) < len(self.wanted)
