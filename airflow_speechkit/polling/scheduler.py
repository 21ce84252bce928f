"""Which operation to ask for next, and when: all decisions of a poller, without a clock and without I/O.

The asyncio poller and the benchmark's virtual time drive the same object::

    turn = scheduler.turn(now)         # an operation to ask for now, or how long to wait
    scheduler.running(...) / ended(...) / refused(...) / failed(...) / gone(...)

`now` is in seconds, of a clock that nobody sets.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_speechkit.errors import AuthenticationError, ServiceFaultError, UnreachableError
from airflow_speechkit.polling.queue import FairQueue, PendingOperation
from airflow_speechkit.polling.schedule import CheckPlan, DurationKind, DurationModel
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

    :param limiter: shared by all of them
    :param models: what is known already about how long operations take
    """

    def __init__(self, limiter: RateLimiter, models: dict[DurationKind, DurationModel] | None = None) -> None:
        self.limiter = limiter
        self.models = {} if models is None else models
        #: By id; those that were planned longest ago come first.
        self.pending: OrderedDict[str, PendingOperation] = OrderedDict()
        self._queue = FairQueue()
        #: Of each task how many operations it waits for.
        self._tasks: dict[Hashable, int] = {}
        self._breaker = CircuitBreaker()
        self._last_error: SpeechKitError | None = None
        #: How many operations are expected to end in a second.
        self._load = 0.0
        self._replan_at = -math.inf

    def add(self, target: PollTarget, task: Hashable, now: float, age_s: float | None) -> None:
        """Start to wait for an operation on behalf of a task.

        :param age_s: seconds since the submission; None where that isn't on record: it is asked for at once
        """
        self._tasks[task] = self._tasks.get(task, 0) + 1
        age_s = None if age_s is None else max(age_s, 0.0)
        operation = self.pending.get(target.operation_id)
        if operation is None:
            if not self.pending:
                self._breaker.succeeded()
                self._load = 0.0
            operation = self.pending[target.operation_id] = PendingOperation(target, task, now, age_s)
        else:
            operation.add(target, task, now, age_s)
        if not operation.is_being_asked and not operation.streak.failures:
            self._plan(operation, now, self._checks_for_each(now))

    def leave(self, operation_id: str, task: Hashable, now: float) -> None:
        """Stop to wait for an operation on behalf of a task."""
        operation = self.pending.get(operation_id)
        if operation is None or task not in operation.targets:
            return
        self._leave(task)
        operation.remove(task)
        if not operation.targets:
            self._drop(operation)
        elif operation.entry:
            # Its place in the queue was that task's.
            if operation.streak.failures:
                self._queue.put(operation)
            else:
                self._plan(operation, now, self._checks_for_each(now))

    def forget(self, operation_id: str) -> None:
        """Stop to wait for an operation on behalf of all tasks."""
        operation = self.pending.get(operation_id)
        if operation is not None:
            for task in operation.targets:
                self._leave(task)
            self._drop(operation)

    def turn(self, now: float) -> Turn:
        """Return the operation to ask for now, which then counts as asked; or how long there is nothing to do."""
        self._replan_some(now)
        checks = self._checks_for_each(now)
        for _ in range(_REPLANNED_AT_ONCE):
            operation = self._queue.first(now)
            wait_s = min(self._queue.next_due(), self._replan_at if self.pending else math.inf) - now
            if operation is None:
                return Turn(None, wait_s)
            is_reserved = self._queue.has_asked_least(operation.task)
            blocked_s = max(self._breaker.open_until - now, self.limiter.wait_s(now, reserved=is_reserved))
            if blocked_s > 0.0:
                # An operation that is due meanwhile may be allowed to ask sooner.
                return Turn(None, min(blocked_s, wait_s))
            if not self._replan(operation, now, checks):
                self._queue.pop(now)
                operation.is_being_asked, operation.asked_at = True, now
                self.limiter.spend(now)
                self._breaker.request(now)
                return Turn(operation.operation_id, 0.0)
        return Turn(None, 0.0)

    def put_back(self, operation_id: str, now: float) -> None:
        """Ask for an operation again as soon as possible: nothing came of the check."""
        operation = self.pending.get(operation_id)
        if operation is not None:
            operation.is_being_asked = False
            self._put(operation, now)

    def running(self, operation_id: str, now: float, age_s: float | None = None) -> None:
        """Take in that the operation has not ended.

        :param age_s: seconds since it began, by the service's clock
        """
        self._answered(now)
        operation = self.pending.get(operation_id)
        if operation is None:
            return
        operation.set_age(now, None if age_s is None else max(age_s, 0.0))
        asked_age_s, operation.asked_age_s = operation.asked_age_s, operation.age_s(now)
        self._model(operation).still_running(operation.documented_s, operation.asked_age_s, asked_age_s)
        operation.is_being_asked = False
        operation.streak.clear()
        self._plan(operation, now, self._checks_for_each(now))

    def ended(self, operation_id: str, now: float, took_s: float | None = None) -> float | None:
        """Take in that the operation has ended, and forget it.

        :param took_s: how long it took by the service's clock
        :return: how many seconds ago it ended, where that can be told
        """
        self._answered(now)
        operation = self.pending.get(operation_id)
        if operation is None:
            return None
        age_s = max(operation.age_s(now), 1.0)
        if took_s is not None and (
            took_s <= 0.0 or not operation.asked_age_s - _CLOCKS_DIFFER_S <= took_s <= age_s + _CLOCKS_DIFFER_S
        ):
            took_s = None
        if took_s is not None:
            self._model(operation).learn(operation.documented_s, took_s)
        elif operation.asked_age_s > 0.0:
            self._model(operation).learn(operation.documented_s, (operation.asked_age_s + age_s) / 2.0)
        self.forget(operation_id)
        return None if took_s is None else max(age_s - took_s, 0.0)

    def refused(self, operation_id: str, now: float, retry_after_s: float | None = None) -> float:
        """Take in a 429: all pause; return the pause in seconds."""
        pause_s = self.limiter.refused(now, retry_after_s)
        self.put_back(operation_id, now)
        return pause_s

    def gone(self, operation_id: str, now: float) -> None:
        """Take in that the service does not know the operation, and forget it."""
        self._answered(now)
        self.forget(operation_id)

    def failed(self, operation_id: str, now: float, error: SpeechKitError) -> list[str]:
        """Take in that no usable answer came; return which operations to give up: those whose policy is exhausted."""
        everywhere, policy = isinstance(error, _EVERYWHERE), policy_for(error)
        self._last_error = error
        if not everywhere:
            self._answered(now)
        operation = self.pending.get(operation_id)
        if operation is None:
            return []
        operation.is_being_asked = False
        is_exhausted = operation.streak.add(policy, now)
        self._put(operation, now + policy.pause_s(operation.streak.failures))
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
        first = self._queue.first(now)
        return self._queue.next_due() - now if first is None else self.limiter.wait_s(now, reserved=True)

    def reason(self, operation_ids: Iterable[str], now: float) -> str:
        """Return when the first of some operations is asked for next, and why then, for the log."""
        own = [self.pending[one] for one in operation_ids if one in self.pending]
        if not own:
            return "no check is due"
        first = min(own, key=lambda one: (one.is_being_asked, one.due))
        in_s = max(first.due, self._breaker.open_until, now + self.limiter.wait_s(now, reserved=True)) - now
        failures = max(first.streak.failures, self._breaker.streak.failures)
        if failures:
            why = f"{failures} check{'s' if failures > 1 else ''} in a row failed ({self._last_error})"
        elif not first.is_learned:
            why = f"every {first.interval_s:g} s, as set"
        else:
            model = self._model(first)
            why = (
                f"submitted {first.age_s(now):.0f} s ago, expected to take {first.documented_s * model.ratio:.0f} s by "
                f"{first.kind.value} and {model.ended} ended operations"
            )
        limit = f"{len(self.pending)} waiting, {self.limiter.rate(now) * 3600:.0f} checks an hour"
        return f"next check in {in_s:.0f} s: {why}; {limit}"

    def _answered(self, now: float) -> None:
        self.limiter.answered(now)
        self._breaker.succeeded()

    def _leave(self, task: Hashable) -> None:
        self._tasks[task] -= 1
        if not self._tasks[task]:
            del self._tasks[task]
            self._queue.forget_task(task)

    def _drop(self, operation: PendingOperation) -> None:
        del self.pending[operation.operation_id]
        self._load -= operation.load
        self._queue.remove(operation)

    def _model(self, operation: PendingOperation) -> DurationModel:
        model = self.models.get(operation.kind)
        if model is None:
            model = self.models[operation.kind] = DurationModel(operation.kind)
        return model

    def _checks_for_each(self, now: float) -> float:
        waiting = max(len(self.pending), 1)
        checks = self.limiter.rate(now) / max(self._load, 1e-9) + min(self.limiter.available(now) / waiting, 1.0)
        return max(checks, _IDLE_CHECKS) if self.limiter.is_idle(now, waiting) else checks

    def _due_at(self, operation: PendingOperation, now: float, checks: float) -> float:
        age_s, asked_age_s = operation.age_s(now), operation.asked_age_s
        if not operation.age_is_known and asked_age_s <= 0.0:
            return now
        next_age_s = math.inf
        if operation.interval_s is not None:
            next_age_s = (math.floor(asked_age_s / operation.interval_s + 1e-6) + 1.0) * operation.interval_s
        if operation.is_learned:
            if len(self._tasks) > 1:
                own_load = max(operation.load * self._tasks[operation.task] * len(self._tasks), 1e-9)
                checks = max(checks, _OWN_SHARE * self.limiter.rate(now) / own_load)
            plan, model = CheckPlan.for_checks(checks), self._model(operation)
            next_age_s = min(next_age_s, plan.next_age_s(model, operation.documented_s, asked_age_s))
        return now + next_age_s - age_s

    def _plan(self, operation: PendingOperation, now: float, checks: float) -> None:
        load = 0.0
        if operation.is_learned:
            takes_s = self._model(operation).ratio * operation.documented_s
            load = 1.0 / max(takes_s, operation.age_s(now), _SHORTEST_LOAD_S)
        self._load += load - operation.load
        operation.load = load
        self._put(operation, self._due_at(operation, now, checks))

    def _put(self, operation: PendingOperation, due: float) -> None:
        operation.due = due
        self._queue.put(operation)

    def _replan(self, operation: PendingOperation, now: float, checks: float) -> bool:
        """Plan an operation anew, unless that would hardly change anything; return whether it was."""
        if operation.is_being_asked or operation.streak.failures:
            return False
        change_s = max(self._due_at(operation, now, checks), now) - max(operation.due, now)
        if abs(change_s) <= max(0.03 * operation.age_s(now), 1.0):
            return False
        self._plan(operation, now, checks)
        return True

    def _replan_some(self, now: float) -> None:
        if now < self._replan_at:
            return
        self._replan_at, checks = now + _REPLAN_EVERY_S, self._checks_for_each(now)
        for _ in range(min(math.ceil(len(self.pending) / 10), _REPLANNED_AT_ONCE)):
            operation = next(iter(self.pending.values()))
            self.pending.move_to_end(operation.operation_id)
            self._replan(operation, now, checks)
