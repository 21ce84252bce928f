"""In which order operations are asked for: each when it is due, tasks in turn. Pure, the time is passed in."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING

from airflow_speechkit.polling.schedule import documented_s, duration_kind
from airflow_speechkit.retry import FailureStreak

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_speechkit.polling.target import PollTarget

#: A user's interval is this long at least, in seconds.
_SHORTEST_SET_INTERVAL_S = 0.1
#: The numbers of checks by which tasks are compared are halved this often, in seconds.
_HALVED_EVERY_S = 1800.0


class PendingOperation:
    """An operation that tasks wait for.

    :param target: what the first task knows about it
    :param task: that task
    :param now: when it began to wait, in seconds
    :param age_s: seconds since the submission; None where that isn't on record
    """

    # Ten thousand may wait.
    __slots__ = (
        "age_is_known", "asked_age_s", "asked_at", "began_at", "documented_s", "due", "entry", "interval_s",
        "is_being_asked", "is_learned", "kind", "load", "operation_id", "streak", "targets",
    )  # fmt: skip

    def __init__(self, target: PollTarget, task: Hashable, now: float, age_s: float | None) -> None:
        self.operation_id = target.operation_id
        self.targets: dict[Hashable, PollTarget] = {}
        self.began_at = now
        self.age_is_known = False
        self.asked_age_s = 0.0
        self.asked_at = self.due = -math.inf
        self.is_being_asked = False
        self.entry = 0
        self.load = 0.0
        self.streak = FailureStreak()
        self.add(target, task, now, age_s)

    @property
    def task(self) -> Hashable:
        """The task whose turn it takes: the first of those that wait."""
        return next(iter(self.targets))

    def add(self, target: PollTarget, task: Hashable, now: float, age_s: float | None) -> None:
        """Let one more task wait."""
        self.set_age(now, age_s)
        self.targets[task] = target
        self._combine()

    def remove(self, task: Hashable) -> None:
        """Let a task wait no longer."""
        self.targets.pop(task, None)
        if self.targets:
            self._combine()

    def set_age(self, now: float, age_s: float | None) -> None:
        """Set the age in seconds, unless it is known already. From then on it counts by a clock that nobody sets."""
        if age_s is not None and not self.age_is_known:
            self.began_at, self.age_is_known = min(now - age_s, self.began_at), True

    def age_s(self, now: float) -> float:
        """Return the seconds since the submission, as far as that is known."""
        return now - self.began_at

    def _combine(self) -> None:
        # One of the tasks may know more than the others.
        best = min(self.targets.values(), key=lambda one: one.audio_s is None)
        self.kind, self.documented_s = duration_kind(best), documented_s(best)
        intervals = [one.interval_s for one in self.targets.values() if one.interval_s is not None]
        self.interval_s = max(min(intervals), _SHORTEST_SET_INTERVAL_S) if intervals else None
        self.is_learned = len(intervals) < len(self.targets)


class FairQueue:
    """Operations by when they are due; of those that are due, tasks take turns.

    One recording doesn't wait behind a batch of thousands. An entry of the heaps that isn't its operation's last one is
    skipped.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._scheduled: list[tuple[float, int, PendingOperation]] = []
        #: Of each task what is due, in the order of turns.
        self._due: dict[Hashable, list[tuple[float, int, PendingOperation]]] = {}
        #: Checks of each task, and of all of them.
        self._checks: Counter[Hashable] = Counter()
        self._all_checks = 0
        self._halved_at = -math.inf
        self._length = 0

    def put(self, operation: PendingOperation) -> None:
        """Schedule an operation for when it is `due`, in place of an earlier time."""
        self._length += not operation.entry
        operation.entry = next(self._numbers)
        heapq.heappush(self._scheduled, (operation.due, operation.entry, operation))
        if len(self._scheduled) > 2 * self._length + 64:
            self._scheduled = [one for one in self._scheduled if one[2].entry == one[1]]
            heapq.heapify(self._scheduled)

    def remove(self, operation: PendingOperation) -> None:
        """Take an operation out."""
        self._length -= bool(operation.entry)
        operation.entry = 0

    def forget_task(self, task: Hashable) -> None:
        """Forget a task that has nothing left to wait for."""
        self._all_checks -= self._checks.pop(task, 0)

    def first(self, now: float) -> PendingOperation | None:
        """Return the operation whose turn it is, None if none is due."""
        while self._scheduled and self._scheduled[0][0] <= now:
            entry = heapq.heappop(self._scheduled)
            if entry[2].entry == entry[1]:
                heapq.heappush(self._due.setdefault(entry[2].task, []), entry)
        while self._due:
            task, due = next(iter(self._due.items()))
            while due and due[0][2].entry != due[0][1]:
                heapq.heappop(due)
            if due:
                return due[0][2]
            del self._due[task]
        return None

    def next_due(self) -> float:
        """Return when the next one is due that isn't yet, infinite if there is none."""
        while self._scheduled and self._scheduled[0][2].entry != self._scheduled[0][1]:
            heapq.heappop(self._scheduled)
        return self._scheduled[0][0] if self._scheduled else math.inf

    def pop(self, now: float) -> PendingOperation:
        """Take out the operation that `first` returned, and count a check of its task."""
        task, due = next(iter(self._due.items()))
        operation = heapq.heappop(due)[2]
        self.remove(operation)
        self._due[task] = self._due.pop(task)
        if now - self._halved_at >= _HALVED_EVERY_S:
            self._halved_at = now
            self._checks = Counter({one: number // 2 for one, number in self._checks.items()})
            self._all_checks = self._checks.total()
        self._checks[task] += 1
        self._all_checks += 1
        return operation

    def has_asked_least(self, task: Hashable) -> bool:
        """Whether a task has made no more checks in the last hour than the others on average."""
        return self._checks[task] * len(self._checks) <= self._all_checks
