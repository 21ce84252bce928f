"""Triggerers that wait with the provider's `Scheduler`, in virtual time."""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING

from simulation.service import EPOCH_S, LATENCY_S

from airflow_speechkit.polling.rate_limit import RateLimiter
from airflow_speechkit.polling.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from simulation.service import Quota, Recording


class Triggerer:
    """Uses a scheduler as the poller does.

    :param recordings: the recordings to wait for
    :param stamped: whether answers have the time of the end (`modifiedAt`, in whole seconds)
    :param checks_per_hour: the connection's setting
    """

    def __init__(
        self,
        recordings: Iterable[Recording],
        quota: Quota,
        *,
        stamped: bool = True,
        checks_per_hour: float | None = None,
    ) -> None:
        self._scheduler = Scheduler(RateLimiter.for_checks("v2", checks_per_hour=checks_per_hour))
        self._quota = quota
        self._stamped = stamped
        self._coming = deque(sorted(recordings, key=lambda one: one.waited_from_s))
        self._waiting: dict[str, Recording] = {}
        self._under_way: deque[tuple[float, str]] = deque()
        self.start_s = self._coming[0].waited_from_s
        #: The times of answered and of refused checks; the recordings whose end was seen, with the time.
        self.answered_s: list[float] = []
        self.refused_s: list[float] = []
        self.seen: list[tuple[Recording, float]] = []

    @property
    def delays_s(self) -> list[float]:
        """The delay of each recording: from its end to the answer that shows it."""
        return [seen_s - recording.ended_s for recording, seen_s in self.seen]

    def step(self, now_s: float) -> float:
        """Process everything that is due; return the time of the next step."""
        while self._coming and self._coming[0].waited_from_s <= now_s:
            recording = self._coming.popleft()
            self._waiting[recording.target.operation_id] = recording
            submitted_at = recording.target.submitted_at
            age_s = None if submitted_at is None else EPOCH_S + now_s - submitted_at
            self._scheduler.add(recording.target, recording.task, now_s, age_s)
        while self._under_way and self._under_way[0][0] <= now_s:
            self._answer(self._under_way.popleft()[1], now_s)
        while (turn := self._scheduler.turn(now_s)).operation_id is not None:
            self._under_way.append((now_s + LATENCY_S, turn.operation_id))
        next_s = [now_s + turn.wait_s + 1e-4]
        if self._coming:
            next_s.append(self._coming[0].waited_from_s)
        if self._under_way:
            next_s.append(self._under_way[0][0])
        return min(next_s)

    def _answer(self, operation_id: str, now_s: float) -> None:
        recording = self._waiting[operation_id]
        looked_s = now_s - LATENCY_S / 2
        if not self._quota.takes(looked_s):
            self.refused_s.append(now_s)
            self._scheduler.refused(operation_id, now_s)
            return
        self.answered_s.append(now_s)
        if recording.ended_s > looked_s:
            self._scheduler.running(operation_id, now_s)
            return
        took_s = float(math.floor(recording.ended_s) - math.floor(recording.submitted_s))
        self._scheduler.ended(operation_id, now_s, took_s if self._stamped else None)
        self.seen.append((recording, now_s))
        del self._waiting[operation_id]


def run(triggerers: Sequence[Triggerer], *, until_s: float = math.inf) -> None:
    """Run the triggerers in parallel, until all ends are seen or the time is over."""
    events = [(triggerer.start_s, number) for number, triggerer in enumerate(triggerers)]
    heapq.heapify(events)
    while events:
        now_s, number = heapq.heappop(events)
        next_s = triggerers[number].step(now_s)
        if next_s < until_s:
            heapq.heappush(events, (next_s, number))
