"""Which operation to ask for next, and when: the decisions of a poller, without a clock and without I/O.

The asyncio poller and the benchmark's virtual time drive the same object::

    turn = dispatcher.turn(now)         # an operation to ask for now, or how long to wait
    dispatcher.running(...) / ended(...) / refused(...) / failed(...) / gone(...)

`now` is in seconds, of a clock that nobody sets: what was spent counts by it. Ages count by the time of day, which is
`ahead_s` ahead of it. Work for each turn is small and does not grow with the number waiting (but for the heap's
logarithm): 10,000 may wait.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_speechkit.polling.forecast import Kind, Learned
from airflow_speechkit.polling.lines import INTERVAL_SHARE, Lines
from airflow_speechkit.polling.outage import Outage, Patience, TooMany
from airflow_speechkit.polling.pricing import Pricing
from airflow_speechkit.polling.schedule import Forecast, interval_slot_before, last_check_age, next_check_age
from airflow_speechkit.polling.watch import Watch

if TYPE_CHECKING:
    from airflow_speechkit.polling.budget import CheckBudget
    from airflow_speechkit.polling.waiting import Waiting

#: What is learned and planned anew is worth no more of the processor than this, however many checks there are.
_LEARN_EVERY_S = 0.1
_LOOK_AGAIN_EVERY_S = 0.2
#: Airflow takes a while to begin to wait for what was just submitted: so old, nobody can have asked for it before.
_NEW_S = 60.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What to do now: ask for `operation_id`, or else come back in `wait_s` seconds (infinite: nothing to do)."""

    operation_id: str | None
    wait_s: float


class Dispatcher:
    """Spends one budget on all that wait, where a check tells most.

    :param budget: shared by all of them
    :param learned: what is known already about how long operations take
    """

    def __init__(self, budget: CheckBudget, learned: dict[Kind, Learned] | None = None) -> None:
        self.budget = budget
        self.watches: dict[str, Watch] = {}
        self.learned: dict[Kind, Learned] = {} if learned is None else learned
        #: What the time of day, in seconds since the epoch, is ahead of `now`.
        self.ahead_s = 0.0
        self._lines = Lines()
        self._catching_up = 0
        self._round: deque[str] = deque()
        self._pricing = Pricing()
        self._interval_load = 0.0
        self._learned_at = -math.inf
        self._looked_again_at = -math.inf
        self._outage = Outage()

    # what comes and goes

    def add(self, waiting: Waiting, now: float) -> None:
        """Start to wait for an operation.

        For one that is waited for already, the one who wants it asked for sooner decides from now on.
        """
        watch = self.watches.get(waiting.operation_id)
        if watch is not None:
            self._change(watch, now, waiting, joins=True)
            return
        if not self.watches:
            self.budget.start(now)
            self._outage.over()
        watch = self.watches[waiting.operation_id] = Watch(waiting, now)
        self._round.append(waiting.operation_id)
        self._count(watch, now)
        age_s = watch.age_s(now, self.ahead_s)
        if age_s > _NEW_S:
            watch.asked_age_s = self._last_age_s(watch, age_s)
        if watch.asked_age_s > 0.0:
            # It has a past that is not known here (a restart, or nobody waited): look once soon, in the line of those.
            watch.behind = watch.catching_up = True
            self._catching_up += 1
            self._weigh(watch, now)
            self._put_behind(watch, now)
        else:
            self._plan(watch, now)

    def leave(self, waiting: Waiting, now: float) -> None:
        """Stop to wait for an operation on behalf of one who did, with what `add` was given."""
        watch = self.watches.get(waiting.operation_id)
        if watch is None:
            return
        if len(watch.wanted) > 1:
            self._change(watch, now, waiting, joins=False)
        else:
            self.forget(waiting.operation_id)

    def forget(self, operation_id: str) -> None:
        """Stop to wait for an operation, whoever does."""
        watch = self.watches.pop(operation_id, None)
        if watch is not None:
            self._pricing.change_demand(-watch.demand)
            self._interval_load -= watch.interval_load
            self._seen(watch)
            self._lines.leave_out(watch)

    # whose turn it is

    def turn(self, now: float) -> Turn:
        """Return the operation to ask for now, which then counts as asked; or how long there is nothing to do."""
        self._reprice(now)
        self._look_again_at_some(now)
        while (first := self._lines.first(now)) is not None:
            watch, at = first
            wait_s = max(at, self._outage.until) - now
            if wait_s <= 0.0:
                wait_s = self.budget.wait_s(now)
            if wait_s > 0.0:
                return Turn(None, wait_s)
            if self._can_wait(watch, now):
                self._weigh(watch, now)
                self._set_due(watch, *self._next(watch, now))
                continue
            self._lines.take(watch, now, self.budget.per_second)
            watch.asking, watch.asked_at = True, now
            self.budget.spend(now)
            self._outage.trying(now)
            return Turn(watch.waiting.operation_id, 0.0)
        return Turn(None, math.inf)

    def put_back(self, operation_id: str, now: float) -> None:
        """Ask for it as soon as may be: nothing was sent, or nothing came of it."""
        watch = self.watches.get(operation_id)
        if watch is None:
            return
        watch.asking = False
        if watch.catching_up:
            watch.due = now
            self._lines.put_behind(watch, in_front=True)
        else:
            self._set_due(watch, max(watch.due, now), not watch.predicted)

    # what the answer was

    def running(self, operation_id: str, now: float) -> None:
        """Take in that the operation is not done yet."""
        self._answered(now)
        watch = self.watches.get(operation_id)
        if watch is None:
            return
        age_s = watch.age_s(now, self.ahead_s)
        if age_s > watch.learned_age_s and self._may_learn(now):
            self._learned(watch.kind).still_running(watch.work_s, watch.learned_age_s, age_s)
            watch.learned_age_s = age_s
        watch.asked_age_s = watch.known_age_s = age_s
        watch.asking = False
        watch.failures.clear()
        self._seen(watch)
        self._plan(watch, now)

    def ended(self, operation_id: str, now: float, took_s: float | None = None) -> float | None:
        """Take in that the operation has ended, and forget it; return the delay in seconds, where it can be told.

        :param took_s: how long it took by the service's clock, from `createdAt` to `modifiedAt`
        """
        self._answered(now)
        watch = self.watches.get(operation_id)
        if watch is None:
            return None
        age_s = watch.age_s(now, self.ahead_s)
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

    def failed(self, operation_id: str, now: float, *, everywhere: bool, patience: Patience) -> TooMany | None:
        """Take in that no usable answer came; return whose errors are too many, if they are.

        :param everywhere: the host or the credentials may fail, not this operation: all back off together, and one at
            a time tries again, another one each time
        :param patience: how many of this kind are too many
        """
        if not everywhere:
            self._answered(now)
        watch = self.watches.get(operation_id)
        if watch is None:
            return None
        watch.asking = False
        too_many = watch.failures.add(patience, now)
        self._set_due(watch, now + watch.failures.backoff_s, not watch.predicted)
        if everywhere and self._outage.failed(patience, watch.asked_at, now):
            # Whoever begins to wait after this begins to count anew.
            self._outage.over()
            return TooMany.EVERYWHERE
        return TooMany.HERE if too_many else None

    # why

    def reason(self, operation_id: str, now: float) -> str:
        """Return when the operation is asked for next, and why then."""
        watch = self.watches[operation_id]
        age_s = watch.age_s(now, self.ahead_s)
        in_s = max(watch.due, self._outage.until, now) - now
        at = datetime.fromtimestamp(now + in_s + self.ahead_s, UTC)
        failures = max(watch.failures.number, self._outage.number)
        if failures:
            why = f"backing off after {failures} failed check{'s' if failures > 1 else ''}"
        elif watch.catching_up:
            why = "not asked for since this triggerer began to wait, as others before it"
        elif not watch.predicted or watch.next_interval_s() < self._predicted_age_s(watch):
            why = f"every {watch.interval_s:.0f} s, as it was set"
        else:
            learned, forecast = self._learned(watch.kind), self._forecast(watch)
            why = (
                f"expected to take {forecast.median_s:.0f} s by {watch.kind.value} and {learned.endings} endings, "
                f"so done by now with a probability of {100 * forecast.done_by(age_s):.0f} %"
            )
        share = f"{len(self.watches)} waiting on a budget of {self.budget.per_second * 3600:.0f} checks an hour"
        return f"next check in {in_s:.0f} s, at {at:%H:%M:%S} UTC: submitted {age_s:.0f} s ago, {why}; {share}"

    # in here

    def _answered(self, now: float) -> None:
        self.budget.answered(now)
        self._outage.over()

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

    def _count(self, watch: Watch, now: float) -> None:
        """Take in who waits for an operation, as far as that makes checks dearer for all."""
        self._interval_load += watch.interval_load
        if watch.predicted:
            submitted_at = now - watch.age_s(now, self.ahead_s)
            self._pricing.arrived(watch.kind, watch.work_s, submitted_at, now)
        self._weigh(watch, now)
        self._reprice(now)

    def _weigh(self, watch: Watch, now: float) -> None:
        demand = 0.0
        if watch.predicted:
            demand = self._pricing.demand_of(self._forecast(watch).median_s, watch.age_s(now, self.ahead_s))
        self._pricing.change_demand(demand - watch.demand)
        watch.demand = demand

    def _change(self, watch: Watch, now: float, waiting: Waiting, *, joins: bool) -> None:
        was_predicted = watch.predicted
        self._interval_load -= watch.interval_load
        (watch.join if joins else watch.leave)(waiting)
        self._interval_load += watch.interval_load
        if watch.predicted and not was_predicted:
            self._pricing.arrived(watch.kind, watch.work_s, now - watch.age_s(now, self.ahead_s), now)
        if watch.asking or watch.catching_up or watch.failures.number:
            self._weigh(watch, now)
        else:
            self._plan(watch, now)

    def _seen(self, watch: Watch) -> None:
        self._catching_up -= watch.catching_up
        watch.catching_up = False

    def _last_age_s(self, watch: Watch, age_s: float) -> float:
        """Return the age at which it would have been asked for last, 0 if that was not due yet."""
        by_interval = 0.0 if watch.interval_s is None else interval_slot_before(age_s, watch.interval_s)
        if not watch.predicted:
            return by_interval
        return max(by_interval, last_check_age(self._forecast(watch), self._pricing.price_s, age_s))

    def _predicted_age_s(self, watch: Watch) -> float:
        return next_check_age(self._forecast(watch), self._pricing.price_s, watch.asked_age_s)

    def _next(self, watch: Watch, now: float) -> tuple[float, bool]:
        """Return when it is to be asked for next, and whether that is by a user's interval."""
        age_s = watch.age_s(now, self.ahead_s)
        watch.no_older_than(age_s)
        next_age_s = by_interval_s = watch.next_interval_s()
        if watch.predicted:
            next_age_s = min(by_interval_s, self._predicted_age_s(watch))
        return now + next_age_s - age_s, next_age_s == by_interval_s

    def _can_wait(self, watch: Watch, now: float) -> bool:
        """Whether what was learned since it was planned says: later."""
        if watch.failures.number or watch.catching_up:
            return False
        return self._next(watch, now)[0] > now + 1.0

    def _plan(self, watch: Watch, now: float) -> None:
        self._weigh(watch, now)
        due, by_interval = self._next(watch, now)
        if watch.behind and self._catching_up and due < now + self._lines.behind_s(self.budget.per_second):
            # As long as there are some that nobody has looked at, a second look waits in the same line.
            self._put_behind(watch, now)
        else:
            self._set_due(watch, due, by_interval)

    def _put_behind(self, watch: Watch, now: float) -> None:
        watch.due = now + self._lines.behind_s(self.budget.per_second)
        self._lines.put_behind(watch)

    def _set_due(self, watch: Watch, due: float, by_interval: bool) -> None:
        watch.due = due
        self._lines.put(watch, by_interval=by_interval)

    def _look_again_at_some(self, now: float) -> None:
        """Plan a few anew, round and round: what was learned moves what is already planned, and so does the clock."""
        if now - self._looked_again_at < _LOOK_AGAIN_EVERY_S:
            return
        self._looked_again_at = now
        for _ in range(min(4 + len(self.watches) // 100, len(self._round))):
            operation_id = self._round.popleft()
            watch = self.watches.get(operation_id)
            if watch is None:
                continue
            self._round.append(operation_id)
            if watch.asking or watch.failures.number or watch.due <= now or (watch.behind and self._catching_up):
                continue
            if abs(self._next(watch, now)[0] - watch.due) > 1.0:
                self._plan(watch, now)

    def _reprice(self, now: float) -> None:
        per_second = self.budget.per_second
        left = per_second - min(self._interval_load, INTERVAL_SHARE * per_second)
        self._pricing.set(now, left, len(self.watches), lambda kind, work: self._learned(kind).forecast(work))
