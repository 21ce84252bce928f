"""In which order operations are asked for: each by its own time, tasks in turn. Pure, without a clock."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_speechkit.polling.pending import PendingOperation

#: Checks count for this long against the task that made them, in seconds.
_REMEMBERED_S = 3600.0


class FairQueue:
    """Operations by when they are due, and of those that are due one of each task in turn.

    A task that has nothing due loses its turn, and comes next when it has: one recording doesn't wait behind a batch of
    thousands. What was put in anew or removed falls out by itself.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._scheduled: list[tuple[float, int, PendingOperation]] = []
        self._due: dict[Hashable, list[tuple[float, int, PendingOperation]]] = defaultdict(list)
        #: Start-time fair queueing: the task with the smallest tag is next, and each check raises its tag by one.
        self._turns: list[tuple[float, int, Hashable]] = []
        self._tags: dict[Hashable, float] = {}
        self._tag = 0.0
        #: Checks of each task, those longer ago counting less, and when that was worked out.
        self._usage: dict[Hashable, tuple[float, float]] = {}
        self._kept = 0

    def put(self, operation: PendingOperation) -> None:
        """Schedule an operation for when it is `due`."""
        operation.entry = next(self._numbers)
        heapq.heappush(self._scheduled, (operation.due, operation.entry, operation))
        if len(self._scheduled) > 2 * self._kept + 64:
            self._scheduled = [one for one in self._scheduled if one[2].entry == one[1]]
            heapq.heapify(self._scheduled)
            self._kept = len(self._scheduled)

    def remove(self, operation: PendingOperation) -> None:
        """Take an operation out."""
        operation.entry = 0

    def forget_task(self, task: Hashable) -> None:
        """Forget a task that has nothing left to wait for."""
        self._due.pop(task, None)
        self._tags.pop(task, None)
        self._usage.pop(task, None)

    def first(self, now: float) -> PendingOperation | None:
        """Return the operation whose turn it is, None if none is due."""
        while self._scheduled and self._scheduled[0][0] <= now:
            due, entry, operation = heapq.heappop(self._scheduled)
            if operation.entry == entry:
                task = operation.task
                if not self._due[task]:
                    tag = max(self._tags.get(task, -math.inf), self._tag - 1.0)
                    self._tags[task] = tag
                    heapq.heappush(self._turns, (tag, next(self._numbers), task))
                heapq.heappush(self._due[task], (due, entry, operation))
        while self._turns:
            waiting = self._due.get(self._turns[0][2])
            while waiting and waiting[0][2].entry != waiting[0][1]:
                heapq.heappop(waiting)
            if waiting:
                return waiting[0][2]
            heapq.heappop(self._turns)
        return None

    def next_due(self) -> float:
        """Return when the next one is due that isn't yet, infinite if there is none."""
        while self._scheduled and self._scheduled[0][2].entry != self._scheduled[0][1]:
            heapq.heappop(self._scheduled)
        return self._scheduled[0][0] if self._scheduled else math.inf

    def pop(self, now: float) -> PendingOperation:
        """Take out the operation that `first` returned: it is asked for now."""
        tag, _, task = heapq.heappop(self._turns)
        waiting = self._due[task]
        _, _, operation = heapq.heappop(waiting)
        operation.entry = 0
        self._tag = max(self._tag, tag)
        self._tags[task] = tag + 1.0
        self._usage[task] = self._used(task, now) + 1.0, now
        if waiting:
            heapq.heappush(self._turns, (tag + 1.0, next(self._numbers), task))
        return operation

    def drop_first(self) -> PendingOperation:
        """Take out the operation that `first` returned without a check."""
        _, _, operation = heapq.heappop(self._due[self._turns[0][2]])
        operation.entry = 0
        return operation

    def has_asked_least(self, task: Hashable, now: float) -> bool:
        """Whether a task has made no more checks in the last hour than the others on average."""
        own = self._used(task, now)
        return own < 1.0 or own * len(self._usage) <= sum(self._used(one, now) for one in self._usage)

    def _used(self, task: Hashable, now: float) -> float:
        checks, at = self._usage.get(task, (0.0, now))
        return checks * math.exp((at - now) / _REMEMBERED_S)
