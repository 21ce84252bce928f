"""One operation that tasks wait for, and where its checks stand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from airflow_speechkit.polling.schedule import documented_s, duration_kind
from airflow_speechkit.retry import FailureStreak

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_speechkit.polling.target import PollTarget

#: A user's interval is this long at least, in seconds.
_SHORTEST_SET_INTERVAL_S = 0.1


class PendingOperation:
    """Who waits for an operation, how old it is, and how asking for it went.

    :param now: when the first task began to wait
    """

    # Ten thousand may wait.
    __slots__ = (
        "arrived_at", "asked_age_s", "asked_at", "created_at", "documented_s", "due", "entry", "interval_s",
        "is_being_asked", "is_learned", "kind", "load", "streak", "target", "targets",
    )  # fmt: skip

    def __init__(self, task: Hashable, target: PollTarget, now: float) -> None:
        self.targets: dict[Hashable, PollTarget] = {}
        self.arrived_at = now
        self.created_at: float | None = None
        self.asked_age_s = 0.0
        self.asked_at = self.due = -math.inf
        self.is_being_asked = False
        self.entry = 0
        self.load = 0.0
        self.streak = FailureStreak()
        self.add(task, target)

    @property
    def task(self) -> Hashable:
        """The task whose turn it takes: the first of those that wait."""
        return next(iter(self.targets))

    def add(self, task: Hashable, target: PollTarget) -> None:
        """Let one more task wait."""
        self.targets[task] = target
        self._settle()

    def remove(self, task: Hashable) -> None:
        """Let a task wait no longer."""
        self.targets.pop(task, None)
        if self.targets:
            self._settle()

    def _settle(self) -> None:
        # What the task says that knows most.
        known = min(self.targets.values(), key=lambda one: (one.audio_s is None, one.submitted_at is None))
        self.target = known
        self.kind = duration_kind(known)
        self.documented_s = documented_s(known)
        intervals = [one.interval_s for one in self.targets.values() if one.interval_s is not None]
        self.interval_s = max(min(intervals), _SHORTEST_SET_INTERVAL_S) if intervals else None
        self.is_learned = len(intervals) < len(self.targets)

    @property
    def submitted_at(self) -> float | None:
        """When it was submitted, in seconds since the epoch, where that is known."""
        return self.created_at if self.target.submitted_at is None else self.target.submitted_at

    def age_s(self, now: float, epoch_s: float) -> float:
        """Return its age in seconds: by the time of day, but at least as long as it is waited for here.

        The clocks of two machines need not agree, and any may be set while somebody waits.

        :param epoch_s: the time of day at `now`
        """
        submitted_at = self.submitted_at
        return max(0.0 if submitted_at is None else epoch_s - submitted_at, now - self.arrived_at)

    def next_interval_age_s(self) -> float:
        """Return the age at which the shortest of the set intervals wants it asked for; infinite without any."""
        if self.interval_s is None:
            return math.inf
        return (math.floor(self.asked_age_s / self.interval_s + 1e-6) + 1.0) * self.interval_s
