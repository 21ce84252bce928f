"""Which operation to ask for next, and when: all decisions of a poller, without a clock and without I/O.

The asyncio poller and the benchmark's virtual time drive the same object::

    turn = scheduler.turn(now)         # an operation to ask for now, or how long to wait
    scheduler.running(...) / ended(...) / refused(...) / failed(...)

`now` is in seconds, of a clock that nobody sets.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_speechkit.errors import AuthenticationError, ServiceFaultError, UnreachableError
from airflow_speechkit.polling.schedule import CheckPlan, DurationKind, DurationModel, documented_s, duration_kind
from airflow_speechkit.polling.target import PendingOperation
from airflow_speechkit.retry import CircuitBreaker, policy_for

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from airflow_speechkit.errors import SpeechKitError
    from airflow_speechkit.polling.rate_limit import RateLimiter
    from airflow_speechkit.polling.target import PollTarget

#: So often, in seconds, a tenth of the operations is planned anew, but not more than so many: what was learned and what
#: has come in since moves what was planned.
_REPLAN_EVERY_S = 1.0
_REPLANNED_AT_ONCE = 250
#: While checks are idle, operations are asked for as early as if there were so many for each.
_IDLE_CHECKS = 10.0
#: Each task may plan with this part of what it would have if all had the same, however many operations others wait for.
_OWN_SHARE = 0.25
#: The numbers of checks by which tasks are compared are counted for so long, in seconds.
_COUNTED_S = 3600.0
#: An operation counts as one that takes at least this long, in seconds, when the load of all is added up.
_SHORTEST_LOAD_S = 10.0
#: The clocks of two machines may differ by this, in seconds.
_CLOCKS_DIFFER_S = 5.0
#: These say nothing about the operation that was asked for: the host or the credentials fail.
_EVERYWHERE = (UnreachableError, ServiceFaultError, AuthenticationError)


@dataclass(frozen=True, slots=True)
class Turn:
    """What to do now: ask for `operation_id`, or else come back in `wait_s` seconds (infinite: nothing to do)."""

    operation_id: str | None
    wait_s: float


class Scheduler:
    """Spends the checks that a rate limiter allows on all operations that are waited for.

    Of the operations that are due, tasks take turns: one recording doesn't wait behind a batch of thousands.

    :param limiter: shared by all of them
    :param models: what is known already about how long operations take
    """

    def __init__(self, limiter: RateLimiter, models: dict[DurationKind, DurationModel] | None = None) -> None:
        self.limiter = limiter
        self.models = models or {kind: DurationModel(kind) for kind in DurationKind}
        #: By id; those that were planned longest ago come first.
        self.pending: OrderedDict[str, PendingOperation] = OrderedDict()
        #: Of each task: the operations that it waits for, when it had its last turn, and its checks in this hour.
        self._tasks: Counter[Hashable] = Counter()
        self._turn_at: dict[Hashable, float] = {}
        self._checks: Counter[Hashable] = Counter()
        self._counted_until = -math.inf
        self._breaker = CircuitBreaker()
        self._last_error: SpeechKitError | None = None
        #: How many operations are expected to end in a second.
        self._load = 0.0
        self._replan_at = -math.inf

    def add(self, target: PollTarget, task: Hashable, now: float, age_s: float | None) -> None:
        """Start to wait for an operation on behalf of a task. An operation that is waited for already stays one.

        :param age_s: seconds since the submission; None where that isn't on record: it is asked for at once
        """
        if not self.pending:
            self._breaker.succeeded()
            self._load = 0.0
        operation = self.pending.get(target.operation_id)
        if operation is None:
            operation = self.pending[target.operation_id] = PendingOperation(target, task, now)
            operation.set_age(now, None if age_s is None else max(age_s, 0.0))
            self._tasks[task] += 1
        operation.join(target)
        self._replan(operation, now, self._checks_for_each(now))

    def forget(self, operation_id: str) -> None:
        """Stop to wait for an operation."""
        operation = self.pending.pop(operation_id, None)
        if operation is None:
            return
        self._load -= operation.load
        self._tasks[operation.task] -= 1
        if not self._tasks[operation.task]:
            for of_tasks in (self._tasks, self._turn_at, self._checks):
                of_tasks.pop(operation.task, None)

    def turn(self, now: float) -> Turn:
        """Return the operation to ask for now, which then counts as asked; or how long there is nothing to do."""
        if not self.pending:
            return Turn(None, math.inf)
        self._replan_some(now)
        blocked_s = max(self._breaker.open_until - now, self.limiter.wait_s(now, reserved=True))
        if blocked_s > 0.0:
            return Turn(None, min(blocked_s, self._replan_at - now))
        operation, wait_s = self._first(now)
        if operation is None:
            return Turn(None, wait_s)
        # A tenth of a burst is kept for the tasks that have asked least. One of theirs may be due meanwhile.
        has_asked_least = self._checks[operation.task] * len(self._checks) <= self._checks.total()
        blocked_s = self.limiter.wait_s(now, reserved=has_asked_least)
        if blocked_s > 0.0:
            return Turn(None, min(blocked_s, wait_s))
        operation.due, operation.asked_at = math.inf, now
        if now >= self._counted_until:
            self._counted_until = now + _COUNTED_S
            self._checks.clear()
        self._checks[operation.task] += 1
        self._turn_at[operation.task] = now
        self.limiter.spend(now)
        self._breaker.request(now)
        return Turn(operation.target.operation_id, 0.0)

    def answered(self, now: float) -> None:
        """Take in that the service answers, whatever the answer says about an operation."""
        self.limiter.answered(now)
        self._breaker.succeeded()

    def put_back(self, operation_id: str, now: float) -> None:
        """Ask for an operation again as soon as possible: nothing came of the check."""
        operation = self.pending.get(operation_id)
        if operation is not None:
            operation.due = now

    def running(self, operation_id: str, now: float, age_s: float | None = None) -> None:
        """Take in that the operation has not ended.

        :param age_s: seconds since it began, by the service's clock
        """
        self.answered(now)
        operation = self.pending.get(operation_id)
        if operation is None:
            return
        operation.set_age(now, None if age_s is None else max(age_s, 0.0))
        asked_age_s, operation.asked_age_s = operation.asked_age_s, operation.age_s(now)
        model = self.models[duration_kind(operation.target)]
        model.still_running(documented_s(operation.target), operation.asked_age_s, asked_age_s)
        operation.streak.clear()
        self._plan(operation, now, self._checks_for_each(now))

    def ended(self, operation_id: str, now: float, took_s: float | None = None) -> float | None:
        """Take in that the operation has ended, and forget it.

        :param took_s: how long it took by the service's clock
        :return: how many seconds ago it ended, where that is known
        """
        self.answered(now)
        operation = self.pending.get(operation_id)
        if operation is None:
            return None
        age_s, asked_age_s = max(operation.age_s(now), 1.0), operation.asked_age_s
        if took_s is not None and not max(asked_age_s - _CLOCKS_DIFFER_S, 1e-9) <= took_s <= age_s + _CLOCKS_DIFFER_S:
            took_s = None
        if took_s is not None or asked_age_s > 0.0:
            learned_s = (asked_age_s + age_s) / 2.0 if took_s is None else took_s
            self.models[duration_kind(operation.target)].learn(documented_s(operation.target), learned_s)
        self.forget(operation_id)
        return None if took_s is None else max(age_s - took_s, 0.0)

    def refused(self, operation_id: str, now: float, retry_after_s: float | None = None) -> float:
        """Take in a 429: all pause; return the pause in seconds."""
        self.put_back(operation_id, now)
        return self.limiter.refused(now, retry_after_s)

    def failed(self, operation_id: str, now: float, error: SpeechKitError) -> list[str]:
        """Take in that no usable answer came; return which operations to give up: those whose policy is exhausted."""
        everywhere, policy = isinstance(error, _EVERYWHERE), policy_for(error)
        self._last_error = error
        if not everywhere:
            self.answered(now)
        operation = self.pending.get(operation_id)
        if operation is None:
            return []
        is_exhausted = operation.streak.add(policy, now)
        operation.due = now + policy.pause_s(operation.streak.failures)
        if everywhere and self._breaker.failed(policy, operation.asked_at, now):
            # A task that begins to wait after this begins to count anew.
            self._breaker.succeeded()
            return list(self.pending)
        return [operation_id] if is_exhausted else []

    @property
    def is_failing(self) -> bool:
        """Whether the last check, or the last one of any operation, brought no usable answer."""
        return bool(self._breaker.streak.failures or any(one.streak.failures for one in self.pending.values()))

    def next_in_s(self, now: float) -> float:
        """Return the seconds until the next check; 0 while one is under way."""
        if any(one.is_being_asked for one in self.pending.values()):
            return 0.0
        first = min((one.due for one in self.pending.values()), default=math.inf)
        return max(first - now, self.limiter.wait_s(now, reserved=True))

    def next_check(self, operation_ids: Iterable[str], now: float) -> str:
        """Return when the first of some operations is asked for next, and what delays it, for the log."""
        own = [self.pending[one] for one in operation_ids if one in self.pending]
        due = min((now if one.is_being_asked else one.due for one in own), default=now)
        in_s = max(due, self._breaker.open_until, now + self.limiter.wait_s(now, reserved=True)) - now
        failures = max([self._breaker.streak.failures, *(one.streak.failures for one in own)])
        failing = f"; failed checks in a row: {failures} ({self._last_error})" if failures else ""
        limit = f"{len(self.pending)} waiting, {self.limiter.rate(now) * 3600:.0f} checks an hour"
        return f"next check in {in_s:.0f} s; {limit}{failing}"

    def _first(self, now: float) -> tuple[PendingOperation | None, float]:
        """Return the operation whose turn it is, and the seconds until another one is due or planned anew."""
        first, first_key = None, (math.inf, math.inf)
        next_at = self._replan_at
        for operation in self.pending.values():
            due = operation.due
            if due > now:
                next_at = min(next_at, due)
            elif (key := (self._turn_at.get(operation.task, -math.inf), due)) < first_key:
                first, first_key = operation, key
        return first, next_at - now

    def _checks_for_each(self, now: float) -> float:
        waiting = max(len(self.pending), 1)
        checks = self.limiter.rate(now) / max(self._load, 1e-9) + min(self.limiter.available(now) / waiting, 1.0)
        return max(checks, _IDLE_CHECKS) if self.limiter.is_idle(now, waiting) else checks

    def _replan_some(self, now: float) -> None:
        if now < self._replan_at:
            return
        self._replan_at, checks = now + _REPLAN_EVERY_S, self._checks_for_each(now)
        for _ in range(min(math.ceil(len(self.pending) / 10), _REPLANNED_AT_ONCE)):
            operation_id, operation = next(iter(self.pending.items()))
            self.pending.move_to_end(operation_id)
            self._replan(operation, now, checks)

    def _replan(self, operation: PendingOperation, now: float, checks: float) -> None:
        if not operation.is_being_asked and not operation.streak.failures:
            self._plan(operation, now, checks)

    def _plan(self, operation: PendingOperation, now: float, checks: float) -> None:
        """Set when an operation is due, where each may have so many checks."""
        age_s, asked_age_s = operation.age_s(now), operation.asked_age_s
        next_age_s = math.inf
        if operation.interval_s < math.inf:
            next_age_s = (math.floor(asked_age_s / operation.interval_s + 1e-6) + 1.0) * operation.interval_s
        if operation.is_learned:
            model, expected_s = self.models[duration_kind(operation.target)], documented_s(operation.target)
            load = 1.0 / max(model.ratio * expected_s, age_s, _SHORTEST_LOAD_S)
            self._load += load - operation.load
            operation.load = load
            if len(self._tasks) > 1:
                own_load = load * self._tasks[operation.task] * len(self._tasks)
                checks = max(checks, _OWN_SHARE * self.limiter.rate(now) / own_load)
            next_age_s = min(next_age_s, CheckPlan.for_checks(checks).next_age_s(model, expected_s, asked_age_s))
        is_unknown = not operation.age_is_known and asked_age_s <= 0.0
        operation.due = now if is_unknown else now + next_age_s - age_s
