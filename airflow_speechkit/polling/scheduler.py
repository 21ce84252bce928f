"""Which operation to ask for next, and when: all decisions of a poller, without a clock and without I/O.

The asyncio poller and the benchmark's virtual time drive the same object::

    turn = scheduler.turn(now)         # an operation to ask for now, or how long to wait
    scheduler.running(...) / ended(...) / refused(...) / failed(...) / gone(...)

`now` is in seconds, of a clock that nobody sets. Ages count by the time of day, which is `ahead_s` ahead of it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_speechkit.polling.pending import PendingOperation
from airflow_speechkit.polling.queue import DecayingCount, FairQueue
from airflow_speechkit.polling.schedule import CheckPlan, DurationKind, DurationModel
from airflow_speechkit.retry import CircuitBreaker, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_speechkit.polling.rate_limit import RateLimiter
    from airflow_speechkit.polling.target import PollTarget

#: A few operations are planned anew so often, in seconds: what was learned moves what is already planned.
_REPLAN_EVERY_S = 0.2
#: While checks are idle, operations are asked for as early as if there were so many for each.
_IDLE_CHECKS = 10.0
#: Each task may plan with this part of what it would have if all had the same, however many operations others wait for.
_OWN_SHARE = 0.25
#: Operations that are due and planned anew in one go: others share the event loop.
_DROPPED_AT_ONCE = 100
#: No running operation is older, whatever the service says, in seconds.
_OLDEST_S = 7 * 24 * 3600.0
#: An operation counts as one that takes at least this long, in seconds, when the load of all is added up.
_SHORTEST_LOAD_S = 10.0
#: Arrivals count for about this long, in seconds, and the first ones as if they had come over the second.
_ARRIVALS_S, _SHORTEST_ARRIVALS_S = 600.0, 60.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What to do now: ask for `operation_id`, or else come back in `wait_s` seconds (infinite: nothing to do)."""

    operation_id: str | None
    wait_s: float


class ArrivalRate:
    """How many operations begin to be waited for in a second; those longer ago count less."""

    def __init__(self) -> None:
        self._arrived = DecayingCount(_ARRIVALS_S)
        self._since = math.inf

    def add(self, now: float, age_s: float) -> None:
        """Count one that was submitted `age_s` ago."""
        self._arrived.add(math.exp(-age_s / _ARRIVALS_S), now)
        self._since = min(self._since, now - min(age_s, _ARRIVALS_S))

    def per_second(self, now: float) -> float:
        """Return the rate."""
        counted_s = _ARRIVALS_S * -math.expm1(-max(now - self._since, _SHORTEST_ARRIVALS_S) / _ARRIVALS_S)
        return self._arrived.at(now) / counted_s


class Scheduler:
    """Spends the checks that a rate limiter allows on all operations that are waited for.

    :param limiter: shared by all of them
    :param models: what is known already about how long operations take
    """

    def __init__(self, limiter: RateLimiter, models: dict[DurationKind, DurationModel] | None = None) -> None:
        self.limiter = limiter
        self.models = {} if models is None else models
        self.pending: OrderedDict[str, PendingOperation] = OrderedDict()
        self.ahead_s = 0.0
        self._queue = FairQueue()
        self._tasks: dict[Hashable, int] = {}
        #: How many operations something was learned about since they were planned: the first of `pending`.
        self._misplanned = 0
        self._is_idle = False
        #: Checks a second, when it was last looked at how many there are for each operation.
        self._rate = 0.0
        self._replanned_at = -math.inf
        self._breaker = CircuitBreaker()
        self._load = 0.0
        self._arrivals = ArrivalRate()

    # what is waited for

    def add(self, target: PollTarget, task: Hashable, now: float) -> None:
        """Start to wait for an operation on behalf of a task."""
        self._tasks[task] = self._tasks.get(task, 0) + 1
        operation = self.pending.get(target.operation_id)
        if operation is not None:
            operation.add(task, target)
            if not operation.is_being_asked and not operation.streak.failures:
                self._plan(operation, now)
            return
        if not self.pending:
            self._breaker.succeeded()
        self.pending[target.operation_id] = operation = PendingOperation(task, target, now)
        if operation.is_learned:
            self._arrivals.add(now, operation.age_s(now, now + self.ahead_s))
        self._plan(operation, now)

    def leave(self, operation_id: str, task: Hashable, now: float) -> None:
        """Stop to wait for an operation on behalf of a task."""
        operation = self.pending.get(operation_id)
        if operation is None or task not in operation.targets:
            return
        self._left(task, now)
        operation.remove(task)
        if not operation.targets:
            self._drop(operation_id)
        elif operation.entry:
            # Its place in the queue was that task's.
            if operation.streak.failures:
                self._put(operation, operation.due)
            else:
                self._plan(operation, now)

    def forget(self, operation_id: str, now: float) -> None:
        """Stop to wait for an operation, whoever does."""
        operation = self.pending.get(operation_id)
        if operation is not None:
            for task in operation.targets:
                self._left(task, now)
            self._drop(operation_id)

    # whose turn it is

    def turn(self, now: float) -> Turn:
        """Return the operation to ask for now, which then counts as asked; or how long there is nothing to do."""
        wait_s = self._replan_some(now)
        checks = self._checks_for_each(now)
        for _ in range(_DROPPED_AT_ONCE):
            operation = self._queue.first(now)
            if operation is None:
                return Turn(None, min(self._queue.next_due() - now, wait_s))
            is_reserved = self._queue.has_asked_least(operation.task, now)
            blocked_s = max(self._breaker.open_until - now, self.limiter.wait_s(now, reserved=is_reserved))
            if blocked_s > 0.0:
                # Whoever is due meanwhile may be allowed to ask sooner.
                return Turn(None, min(blocked_s, self._queue.next_due() - now, wait_s))
            if operation.streak.failures or not self._is_misplanned(operation, now, checks):
                self._queue.pop(now)
                operation.is_being_asked, operation.asked_at = True, now
                self.limiter.spend(now)
                self._breaker.request(now)
                return Turn(operation.target.operation_id, 0.0)
            # What was learned since it was planned says: later.
            self._queue.drop_first()
            self._plan(operation, now, checks)
        return Turn(None, 0.0)

    def put_back(self, operation_id: str, now: float) -> None:
        """Ask for it as soon as may be: nothing was sent, or nothing came of it."""
        operation = self.pending.get(operation_id)
        if operation is not None:
            operation.is_being_asked = False
            self._put(operation, now)

    # what the answer was

    def running(self, operation_id: str, now: float, created_at: float | None = None) -> None:
        """Take in that the operation has not ended.

        :param created_at: when it began by the service, in seconds since the epoch
        """
        self._answered(now)
        operation = self.pending.get(operation_id)
        if operation is None:
            return
        if created_at is not None:
            operation.created_at = min(max(created_at, now + self.ahead_s - _OLDEST_S), now + self.ahead_s)
        asked_age_s, operation.asked_age_s = operation.asked_age_s, operation.age_s(now, now + self.ahead_s)
        self._model(operation).still_running(operation.documented_s, operation.asked_age_s, asked_age_s)
        self._misplanned = len(self.pending)
        operation.is_being_asked = False
        operation.streak.clear()
        self._plan(operation, now)

    def ended(self, operation_id: str, now: float, took_s: float | None = None) -> float | None:
        """Take in that the operation has ended, and forget it; return the delay in seconds, where it can be told.

        :param took_s: how long it took by the service's clock
        """
        self._answered(now)
        operation = self.pending.get(operation_id)
        if operation is None:
            return None
        age_s = max(operation.age_s(now, now + self.ahead_s), 1.0)
        # The clocks need not agree to the second, and a stamp may be anything.
        is_stamped = took_s is not None and took_s > 0.0 and operation.asked_age_s - 5.0 <= took_s <= age_s + 5.0
        learned_s = took_s if took_s is not None and is_stamped else (operation.asked_age_s + age_s) / 2.0
        if is_stamped or operation.asked_age_s > 0.0:
            self._model(operation).learn(operation.documented_s, learned_s)
        self.forget(operation_id, now)
        return max(age_s - took_s, 0.0) if took_s is not None and is_stamped else None

    def refused(self, operation_id: str, now: float, retry_after_s: float | None = None) -> float:
        """Take in a 429: all pause; return the pause in seconds."""
        pause_s = self.limiter.refused(now, retry_after_s)
        self.put_back(operation_id, now)
        return pause_s

    def gone(self, operation_id: str, now: float) -> None:
        """Take in that the service does not know the operation, and forget it."""
        self._answered(now)
        self.forget(operation_id, now)

    def failed(self, operation_id: str, now: float, *, everywhere: bool, policy: RetryPolicy) -> list[str]:
        """Take in that no usable answer came; return which operations to give up: those whose policy is exhausted.

        :param everywhere: the host or the credentials may fail, not this operation: all back off together
        """
        if not everywhere:
            self._answered(now)
        operation = self.pending.get(operation_id)
        if operation is None:
            return []
        operation.is_being_asked = False
        is_exhausted = operation.streak.add(policy, now)
        self._put(operation, now + policy.pause_s(operation.streak.failures))
        if everywhere and self._breaker.failed(policy, operation.asked_at, now):
            # Whoever begins to wait after this begins to count anew.
            self._breaker.succeeded()
            return list(self.pending)
        return [operation_id] if is_exhausted else []

    # when, and why

    @property
    def is_failing(self) -> bool:
        """Whether the last check, or the last one of any operation, was in vain."""
        return bool(self._breaker.streak.failures or any(one.streak.failures for one in self.pending.values()))

    def next_in_s(self, now: float) -> float:
        """Return the seconds until the next check; 0 while one is under way."""
        if any(one.is_being_asked for one in self.pending.values()):
            return 0.0
        first = self._queue.first(now)
        due = self._queue.next_due() if first is None else now + self.limiter.wait_s(now, reserved=True)
        return due - now

    def reason(self, operation_id: str, now: float) -> str:
        """Return when the operation is asked for next, and why then."""
        operation = self.pending[operation_id]
        in_s = max(operation.due, self._breaker.open_until, now + self.limiter.wait_s(now, reserved=True)) - now
        at = datetime.fromtimestamp(now + in_s + self.ahead_s, UTC)
        failures = max(operation.streak.failures, self._breaker.streak.failures)
        if failures:
            why = f"retrying after {failures} failed check{'s' if failures > 1 else ''}"
        elif not operation.is_learned:
            why = f"every {operation.interval_s:g} s, as it was set"
        else:
            model = self._model(operation)
            expected_s = operation.documented_s * model.ratio
            age_s = operation.age_s(now, now + self.ahead_s)
            why = (
                f"submitted {age_s:.0f} s ago, expected to take {expected_s:.0f} s by {operation.kind.value} and "
                f"{model.ended} that ended"
            )
        limit = f"{len(self.pending)} waiting, {self.limiter.rate(now) * 3600:.0f} checks an hour"
        return f"next check in {in_s:.0f} s, at {at:%H:%M:%S} UTC: {why}; {limit}"

    # in here

    def _answered(self, now: float) -> None:
        self.limiter.answered(now)
        self._breaker.succeeded()

    def _left(self, task: Hashable, now: float) -> None:
        self._tasks[task] -= 1
        if not self._tasks[task]:
            del self._tasks[task]
            self._queue.forget_task(task, now)

    def _drop(self, operation_id: str) -> None:
        operation = self.pending.pop(operation_id)
        self._load -= operation.load
        self._queue.remove(operation)
        self._misplanned = len(self.pending)

    def _model(self, operation: PendingOperation) -> DurationModel:
        model = self.models.get(operation.kind)
        if model is None:
            model = self.models[operation.kind] = DurationModel(operation.kind)
        return model

    def _checks_for_each(self, now: float) -> float:
        load = max(self._load, self._arrivals.per_second(now), 1e-9)
        at_once = min(self.limiter.available(now) / max(len(self.pending), 1), 1.0)
        self._rate = self.limiter.rate(now)
        checks = self._rate / load + at_once
        return max(checks, _IDLE_CHECKS) if self._is_idle else checks

    def _due_at(self, operation: PendingOperation, now: float, checks: float) -> float:
        age_s = operation.age_s(now, now + self.ahead_s)
        # The time of day may have been set back.
        operation.asked_age_s = min(operation.asked_age_s, age_s)
        if operation.submitted_at is None and operation.asked_age_s <= 0.0:
            return now
        next_age_s = operation.next_interval_age_s()
        if operation.is_learned:
            if len(self._tasks) > 1:
                own_load = max(operation.load * self._tasks[operation.task] * len(self._tasks), 1e-9)
                checks = max(checks, _OWN_SHARE * self._rate / own_load)
            plan = CheckPlan.for_checks(checks)
            learned_s = plan.next_age_s(self._model(operation), operation.documented_s, operation.asked_age_s)
            next_age_s = min(next_age_s, learned_s)
        return now + next_age_s - age_s

    def _plan(self, operation: PendingOperation, now: float, checks: float | None = None) -> None:
        load = 0.0
        if operation.is_learned:
            takes_s = self._model(operation).ratio * operation.documented_s
            load = 1.0 / max(takes_s, operation.age_s(now, now + self.ahead_s), _SHORTEST_LOAD_S)
        self._load += load - operation.load
        operation.load = load
        self._put(operation, self._due_at(operation, now, self._checks_for_each(now) if checks is None else checks))

    def _is_misplanned(self, operation: PendingOperation, now: float, checks: float) -> bool:
        """Whether it would be planned for another time now; a few hundredths of its age don't matter."""
        due, age_s = self._due_at(operation, now, checks), operation.age_s(now, now + self.ahead_s)
        return abs(max(due, now) - max(operation.due, now)) > max(0.03 * age_s, 1.0)

    def _put(self, operation: PendingOperation, due: float) -> None:
        operation.due = due
        self._queue.put(operation)

    def _replan_some(self, now: float) -> float:
        """Plan a few operations anew where something was learned; return when to go on with the others, in seconds.

        While checks are idle, all are planned as if there were more checks for each.
        """
        idle_in_s = self.limiter.idle_in_s(now, len(self.pending))
        was_idle, self._is_idle = self._is_idle, idle_in_s <= 0.0
        if self._is_idle and not was_idle:
            self._misplanned = len(self.pending)
        if self._misplanned and now - self._replanned_at >= _REPLAN_EVERY_S:
            self._replanned_at, checks = now, self._checks_for_each(now)
            for _ in range(min(4 + len(self.pending) // 50, self._misplanned)):
                operation_id = next(iter(self.pending))
                self.pending.move_to_end(operation_id)
                self._misplanned -= 1
                operation = self.pending[operation_id]
                if operation.is_being_asked or operation.streak.failures or operation.due <= now:
                    continue
                if self._is_misplanned(operation, now, checks):
                    self._plan(operation, now, checks)
        if self._misplanned:
            return _REPLAN_EVERY_S
        return math.inf if self._is_idle or not self.pending else idle_in_s
