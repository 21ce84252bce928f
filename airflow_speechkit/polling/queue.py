"""In which order operations are asked for: each by its own time, tasks in turn. Pure, without a clock."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_speechkit.polling.pending import PendingOperation

#: Checks count for this long against the task that made them, in seconds.
_REMEMBERED_S = 3600.0


class DecayingCount:
    """A count in which what is longer ago counts less.

    :param over_s: after so many seconds it counts 1/e
    """

    __slots__ = ("_at", "_count", "_over_s")

    def __init__(self, over_s: float) -> None:
        self._over_s = over_s
        self._count = self._at = 0.0

    def add(self, number: float, now: float) -> None:
        """Count so many more."""
        self._count, self._at = self.at(now) + number, now

    def at(self, now: float) -> float:
        """Return the count."""
        return self._count * math.exp((self._at - now) / self._over_s)


class FairQueue:
    """Operations by when they are due, and of those that are due one of each task in turn.

    A task that has nothing due loses its turn, and comes next when it has: one recording doesn't wait behind a batch of
    thousands. What was put in anew or removed falls out by itself.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._scheduled: list[tuple[float, int, PendingOperation]] = []
        #: Of each task that has a turn.
        self._due: dict[Hashable, list[tuple[float, int, PendingOperation]]] = {}
        #: Start-time fair queueing: the task with the smallest tag is next, and each check raises its tag by one.
        self._turns: list[tuple[float, int, Hashable]] = []
        self._tags: dict[Hashable, float] = {}
        self._tag = 0.0
        #: Checks of each task, and of all these together.
        self._used: dict[Hashable, DecayingCount] = {}
        self._used_together = DecayingCount(_REMEMBERED_S)
        self._length = 0

    def put(self, operation: PendingOperation) -> None:
        """Schedule an operation for when it is `due`."""
        self._length += not operation.entry
        operation.entry = next(self._numbers)
        heapq.heappush(self._scheduled, (operation.due, operation.entry, operation))
        self._tidy_up()

    def remove(self, operation: PendingOperation) -> None:
        """Take an operation out."""
        self._length -= bool(operation.entry)
        operation.entry = 0
        self._tidy_up()

    def forget_task(self, task: Hashable, now: float) -> None:
        """Forget a task that has nothing left to wait for."""
        self._tags.pop(task, None)
        if (used := self._used.pop(task, None)) is not None:
            self._used_together.add(-used.at(now), now)

    def first(self, now: float) -> PendingOperation | None:
        """Return the operation whose turn it is, None if none is due."""
        while self._scheduled and self._scheduled[0][0] <= now:
            due, entry, operation = heapq.heappop(self._scheduled)
            if operation.entry == entry:
                task = operation.task
                if task not in self._due:
                    self._due[task] = []
                    self._take_turn(task, max(self._tags.get(task, -math.inf), self._tag - 1.0))
                heapq.heappush(self._due[task], (due, entry, operation))
        while self._turns:
            task = self._turns[0][2]
            waiting = self._due[task]
            while waiting and waiting[0][2].entry != waiting[0][1]:
                heapq.heappop(waiting)
            if waiting:
                return waiting[0][2]
            heapq.heappop(self._turns)
            del self._due[task]
        return None

    def next_due(self) -> float:
        """Return when the next one is due that isn't yet, infinite if there is none."""
        while self._scheduled and self._scheduled[0][2].entry != self._scheduled[0][1]:
            heapq.heappop(self._scheduled)
        return self._scheduled[0][0] if self._scheduled else math.inf

    def pop(self, now: float) -> PendingOperation:
        """Take out the operation that `first` returned: it is asked for now."""
        operation = self.drop_first()
        tag, _, task = heapq.heappop(self._turns)
        self._tag = max(self._tag, tag)
        self._take_turn(task, tag + 1.0)
        self._used.setdefault(task, DecayingCount(_REMEMBERED_S)).add(1.0, now)
        self._used_together.add(1.0, now)
        return operation

    def drop_first(self) -> PendingOperation:
        """Take out the operation that `first` returned without a check."""
        _, _, operation = heapq.heappop(self._due[self._turns[0][2]])
        operation.entry = 0
        self._length -= 1
        return operation

    def has_asked_least(self, task: Hashable, now: float) -> bool:
        """Whether a task has made no more checks in the last hour than the others on average."""
        used = self._used.get(task)
        own = 0.0 if used is None else used.at(now)
        return own < 1.0 or own * len(self._used) <= self._used_together.at(now) + 1e-6

    def _tidy_up(self) -> None:
        if len(self._scheduled) > 2 * self._length + 64:
            self._scheduled = [one for one in self._scheduled if one[2].entry == one[1]]
            heapq.heapify(self._scheduled)

    def _take_turn(self, task: Hashable, tag: float) -> None:
        self._tags[task] = tag
        heapq.heappush(self._turns, (tag, next(self._numbers), task))
