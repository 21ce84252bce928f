"""Which operation to ask for next, and when: the decisions of a poller, without a clock and without I/O.

The asyncio poller and the benchmark's virtual time drive the same object::

    turn = dispatcher.turn(now)         # an operation to ask for now, or how long to wait
    dispatcher.running(...) / ended(...) / refused(...) / failed(...) / forget(...)

All times are seconds since the epoch. Work for each turn is small and does not grow with the number waiting (but for
the heap's logarithm): 10,000 may wait.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_speechkit.polling.forecast import Kind, Learned, kind_of, work_s
from airflow_speechkit.polling.pricing import Pricing
from airflow_speechkit.polling.schedule import Forecast, last_check_age, next_check_age

if TYPE_CHECKING:
    from airflow_speechkit.polling.budget import CheckBudget
    from airflow_speechkit.polling.waiting import Waiting

#: What is learned and planned anew is worth no more of the processor than this, however many checks there are.
_LEARN_EVERY_S = 0.1
_LOOK_AGAIN_EVERY_S = 0.2
_SAMPLE = 24

_FIRST_BACKOFF_S = 5.0
_LONGEST_BACKOFF_S = 300.0


@dataclass(frozen=True, slots=True)
class Patience:
    """When errors in a row are too many: as many as `failures`, and over at least `seconds`."""

    failures: int
    seconds: float

    def is_over(self, failures: int, for_s: float) -> bool:
        """Whether both bounds are reached."""
        return failures >= self.failures and for_s >= self.seconds


#: Errors that can pass by themselves; errors that can't (a revoked key) are given less time.
TRANSIENT = Patience(8, 3600.0)
LASTING = Patience(5, 600.0)


@dataclass(frozen=True, slots=True)
class Turn:
    """What to do now: ask for `operation_id`, or else come back in `wait_s` seconds (infinite: nothing to do)."""

    operation_id: str | None
    wait_s: float


@dataclass(frozen=True, slots=True)
class TooManyErrors:
    """Errors in a row have used up the patience.

    :param everywhere: of all operations, not of one
    :param failures: how many
    :param for_s: seconds since the first
    """

    everywhere: bool
    failures: int
    for_s: float


class Watch:
    """What is known about one operation that is waited for."""

    __slots__ = (
        "arrived_at",
        "asked_age_s",
        "asking",
        "checks",
        "demand",
        "due",
        "failed_since",
        "failures",
        "kind",
        "known_age_s",
        "learned_age_s",
        "waiting",
        "work_s",
    )

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.kind = kind_of(waiting)
        self.work_s = work_s(waiting)
        self.asked_age_s = 0.0  # where in the schedule it stands
        self.known_age_s = 0.0  # up to which age it was really seen running
        self.learned_age_s = 0.0  # up to which age that was taken in
        self.due = math.inf
        self.asking = False
        self.checks = 0
        self.demand = 0.0
        self.failures = 0
        self.failed_since = 0.0


class Dispatcher:
    """Spends one budget on all that wait, where a check tells most.

    :param budget: shared by all of them
    :param learned: what is known already about how long operations take
    """

    def __init__(self, budget: CheckBudget, learned: dict[Kind, Learned] | None = None) -> None:
        self.budget = budget
        self.watches: dict[str, Watch] = {}
        self.learned: dict[Kind, Learned] = {} if learned is None else learned
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._round: deque[str] = deque()
        self._pricing = Pricing()
        self._learned_at = -math.inf
        self._looked_again_at = -math.inf
        self._catching_up_until = -math.inf
        self._outage_failures = 0
        self._outage_since = 0.0
        self._outage_until = -math.inf

    # what comes and goes

    def add(self, waiting: Waiting, now: float) -> None:
        """Start to wait for an operation; a second time for the same one changes nothing."""
        if waiting.operation_id in self.watches:
            return
        if not self.watches:
            self.budget.start(now)
        self._reprice(now)
        watch = Watch(waiting)
        self.watches[waiting.operation_id] = watch
        self._round.append(waiting.operation_id)
        submitted_at = min(waiting.submitted_at, now)
        self._pricing.arrived(watch.kind, watch.work_s, submitted_at, now)
        age_s = now - submitted_at
        if waiting.interval_s is None:
            watch.asked_age_s = last_check_age(self._forecast(watch), self._pricing.price_s, age_s)
        self._plan(watch, now)
        if watch.asked_age_s > 0.0:
            # It has a past that is not known here (a restart, or nobody waited): look once soon, but one after another
            # at half the rate, so that thousands of them don't take the budget from the others.
            self._catching_up_until = max(self._catching_up_until, now) + 2.0 / self.budget.per_second
            if self._catching_up_until < watch.due:
                self._set_due(watch, self._catching_up_until)

    def forget(self, operation_id: str) -> None:
        """Stop to wait for an operation; its entry in the heap falls out by itself."""
        watch = self.watches.pop(operation_id, None)
        if watch is not None:
            self._pricing.change_demand(-watch.demand)

    # whose turn it is

    def turn(self, now: float) -> Turn:
        """Return the operation to ask for now, which then counts as asked; or how long there is nothing to do."""
        self._reprice(now)
        self._look_again_at_some(now)
        heap = self._heap
        while heap:
            due, _, operation_id = heap[0]
            watch = self.watches.get(operation_id)
            if watch is None or watch.asking or watch.due != due:
                heapq.heappop(heap)
                continue
            wait_s = max(due, self._outage_until) - now
            if wait_s <= 0.0:
                wait_s = self.budget.wait_s(now)
            if wait_s > 0.0:
                return Turn(None, wait_s)
            heapq.heappop(heap)
            if self._can_wait(watch, now):
                self._plan(watch, now)
                continue
            watch.asking = True
            watch.checks += 1
            self.budget.spend(now)
            if self._outage_failures:
                # One at a time until an answer comes.
                self._outage_until = now + _backoff_s(self._outage_failures)
            return Turn(operation_id, 0.0)
        return Turn(None, math.inf)

    def put_back(self, operation_id: str, now: float) -> None:
        """Ask for it later after all: nothing was sent, or nothing came of it."""
        watch = self.watches.get(operation_id)
        if watch is not None:
            watch.asking = False
            self._set_due(watch, max(watch.due, now))

    # what the answer was

    def running(self, operation_id: str, now: float) -> None:
        """Take in that the operation is not done yet."""
        self._answered(now)
        watch = self.watches.get(operation_id)
        if watch is None:
            return
        age_s = max(now - watch.waiting.submitted_at, 0.0)
        if age_s > watch.learned_age_s and self._may_learn(now):
            self._learned(watch.kind).still_running(watch.work_s, watch.learned_age_s, age_s)
            watch.learned_age_s = age_s
        watch.asked_age_s = watch.known_age_s = age_s
        watch.asking = False
        watch.failures = 0
        self._plan(watch, now)

    def ended(self, operation_id: str, now: float, took_s: float | None = None) -> float | None:
        """Take in that the operation has ended, and forget it; return the delay in seconds, where it can be told.

        :param took_s: how long it took by the service's clock, from `createdAt` to `modifiedAt`
        """
        self._answered(now)
        watch = self.watches.get(operation_id)
        if watch is None:
            return None
        age_s = max(now - watch.waiting.submitted_at, 0.0)
        after_s, by_s, delay_s = watch.known_age_s, max(age_s, watch.known_age_s + 1.0), None
        # Both stamps are in whole seconds, and the clocks need not agree to the second.
        if took_s is not None and took_s > 0.0 and after_s - 5.0 <= took_s <= age_s + 5.0:
            after_s, by_s = max(took_s - 1.0, 0.0), took_s + 1.0
            delay_s = max(age_s - took_s, 0.0)
        if self._may_learn(now):
            self._learned(watch.kind).ended(watch.work_s, min(watch.learned_age_s, after_s), after_s, by_s)
        self.forget(operation_id)
        return delay_s

    def refused(self, operation_id: str, now: float, retry_after_s: float | None = None) -> float:
        """Take in a 429: all pause, and this one stays first in line; return the pause in seconds."""
        pause_s = self.budget.refused(now, retry_after_s)
        self.put_back(operation_id, now)
        return pause_s

    def gone(self, operation_id: str, now: float) -> None:
        """Take in that the service does not know the operation, and forget it."""
        self._answered(now)
        self.forget(operation_id)

    def failed(self, operation_id: str, now: float, *, everywhere: bool, patience: Patience) -> TooManyErrors | None:
        """Take in that no usable answer came; return whose errors are too many, if they are.

        :param everywhere: the host or the credentials may fail, not this operation: all back off together, and one at
            a time tries again, another one each time
        :param patience: how many are too many
        """
        if everywhere:
            if not self._outage_failures:
                self._outage_since = now
            self._outage_failures += 1
            self._outage_until = now + _backoff_s(self._outage_failures)
        else:
            self._answered(now)
        watch = self.watches.get(operation_id)
        if watch is not None:
            if not watch.failures:
                watch.failed_since = now
            watch.failures += 1
            watch.asking = False
            self._set_due(watch, now + _backoff_s(watch.failures))
        if everywhere and patience.is_over(self._outage_failures, now - self._outage_since):
            return TooManyErrors(True, self._outage_failures, now - self._outage_since)
        if watch is not None and patience.is_over(watch.failures, now - watch.failed_since):
            return TooManyErrors(False, watch.failures, now - watch.failed_since)
        return None

    # why

    def reason(self, operation_id: str, now: float) -> str:
        """Return when the operation is asked for next, and why then."""
        watch = self.watches[operation_id]
        waiting = watch.waiting
        due_at = max(watch.due, self._outage_until)
        when = f"next check in {max(due_at - now, 0.0):.0f} s, at {datetime.fromtimestamp(due_at, UTC):%H:%M:%S} UTC"
        if watch.failures or self._outage_failures:
            number = max(watch.failures, self._outage_failures)
            why = f"backing off after {number} failed check{'s' if number > 1 else ''}"
        elif waiting.interval_s is not None:
            why = f"every {waiting.interval_s:.0f} s, as it was set"
        else:
            learned, forecast = self._learned(watch.kind), self._forecast(watch)
            done = forecast.done_by(now - waiting.submitted_at)
            why = (
                f"expected to take {forecast.median_s:.0f} s by {watch.kind.value} and {learned.endings} endings, "
                f"so done by now with a probability of {100 * done:.0f} %"
            )
        age = f"submitted {now - waiting.submitted_at:.0f} s ago"
        share = f"{len(self.watches)} waiting on a budget of {self.budget.per_second * 3600:.0f} checks an hour"
        return f"{when}: {age}, {why}; {share}"

    # in here

    def _answered(self, now: float) -> None:
        self.budget.answered(now)
        self._outage_failures = 0
        self._outage_until = -math.inf

    def _may_learn(self, now: float) -> bool:
        if now - self._learned_at < _LEARN_EVERY_S:
            return False
        self._learned_at = now
        return True

    def _learned(self, kind: Kind) -> Learned:
        learned = self.learned.get(kind)
        if learned is None:
            learned = self.learned[kind] = Learned(kind)
        return learned

    def _forecast(self, watch: Watch) -> Forecast:
        return self._learned(watch.kind).forecast(watch.work_s)

    def _planned(self, watch: Watch) -> float:
        waiting = watch.waiting
        if waiting.interval_s is not None:
            # Whole intervals since the submission, so that a restart keeps the rhythm.
            number = math.floor(watch.asked_age_s / waiting.interval_s + 1e-6) + 1
            return waiting.submitted_at + number * waiting.interval_s
        return waiting.submitted_at + next_check_age(self._forecast(watch), self._pricing.price_s, watch.asked_age_s)

    def _can_wait(self, watch: Watch, now: float) -> bool:
        """Whether what was learned since it was planned says: later."""
        if watch.failures or watch.waiting.interval_s is not None:
            return False
        never_seen = watch.asked_age_s > 0.0 and watch.known_age_s == 0.0
        return not never_seen and self._planned(watch) > now + 1.0

    def _plan(self, watch: Watch, now: float) -> None:
        middle_s = self._forecast(watch).median_s
        demand = self._pricing.demand_of(middle_s, now - watch.waiting.submitted_at)
        self._pricing.change_demand(demand - watch.demand)
        watch.demand = demand
        self._set_due(watch, self._planned(watch))

    def _set_due(self, watch: Watch, due: float) -> None:
        watch.due = due
        heapq.heappush(self._heap, (due, next(self._order), watch.waiting.operation_id))
        if len(self._heap) > 4 * len(self.watches) + 64:
            self._heap = [entry for entry in self._heap if (w := self.watches.get(entry[2])) and w.due == entry[0]]
            heapq.heapify(self._heap)

    def _look_again_at_some(self, now: float) -> None:
        """Plan a few anew, round and round: what was learned moves what is already planned."""
        if now - self._looked_again_at < _LOOK_AGAIN_EVERY_S:
            return
        self._looked_again_at = now
        for _ in range(min(4 + len(self.watches) // 100, len(self._round))):
            operation_id = self._round.popleft()
            watch = self.watches.get(operation_id)
            if watch is None:
                continue
            self._round.append(operation_id)
            if watch.asking or watch.failures or watch.waiting.interval_s is not None or watch.due <= now:
                continue
            due = self._planned(watch)
            if abs(due - watch.due) > 1.0 and (due < watch.due or watch.known_age_s == watch.asked_age_s):
                self._plan(watch, now)

    def _reprice(self, now: float) -> None:
        self._pricing.set(now, self.budget.per_second, lambda kind, work: self._learned(kind).forecast(work))


def _backoff_s(failures: int) -> float:
    return min(_FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 10), _LONGEST_BACKOFF_S)
