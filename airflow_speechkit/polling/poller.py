"""The shared poller of a triggerer: one for each connection and event loop, however many tasks wait.

It carries out what the `Dispatcher` decides. Nothing here reads an answer's body: a check gives an `Operation`.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import logging
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.errors import (
    AuthenticationError,
    OperationNotFoundError,
    QuotaExceededError,
    ServiceFaultError,
    SpeechKitError,
    UnreachableError,
    unexpected,
)
from airflow_speechkit.polling import registry
from airflow_speechkit.polling.client import OpenCheck, RenewedClient
from airflow_speechkit.polling.dispatcher import Dispatcher
from airflow_speechkit.polling.endings import Endings, Log, Place
from airflow_speechkit.polling.metrics import Gauges, NoStats, Stats
from airflow_speechkit.polling.outage import LASTING, TRANSIENT, TooMany
from airflow_speechkit.polling.waiting import Ending, Finished, Gone, Unanswered, Waiting
from airflow_speechkit.redaction import where_it_came_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Iterable

    from airflow_speechkit.polling.budget import CheckBudget

log = logging.getLogger(__name__)

#: Checks under way at once, together with large answers that are being handled: this bounds the memory.
AT_ONCE = 8
#: An answer of this size or more counts until whoever waits has handled it, in bytes.
LARGE_ANSWER = 64 * 1024
#: A request that goes out so long after it was spent, in seconds, went out then: budgets have more margin than this.
_PROMPT_S = 0.05
#: Operations of one list that are taken in before the event loop gets its turn.
_JOIN_AT_ONCE = 100


class Poller:
    """Asks for the operations of all who wait through one connection in one event loop.

    :param key: what it is shared by
    :param open_check: opens the client, with the first who waits; closed after the last has left
    :param budget: of the connection
    :param stats: where the metrics go
    """

    def __init__(self, key: Hashable, open_check: OpenCheck, budget: CheckBudget, stats: Stats | None = None) -> None:
        self.key = key
        self.budget = budget
        self.dispatcher = Dispatcher(budget)
        self._stats: Stats = stats or NoStats()
        self._gauges = Gauges(self._stats, key)
        self._client = RenewedClient(open_check)
        self._loop = asyncio.get_running_loop()
        self._subscribers: dict[str, list[Endings]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._places = asyncio.Semaphore(AT_ONCE)
        self._woken = asyncio.Event()
        self._asking_permission = 0
        self._permission = asyncio.Lock()

    async def request_allowed(self) -> None:
        """Wait until the budget lets one more request to the operations host out, and spend it.

        Await it before each one that isn't a check's first: a cancel, whatever is sent again. It doesn't matter
        whether anybody waits.
        """
        current = registry.current(self._loop, self.key)
        if current is not None and current is not self:
            await current.request_allowed()
            return
        self._asking_permission += 1
        try:
            async with self._permission:
                while True:
                    budget, now = self._budget_now(), self._now()
                    wait_s = budget.wait_s(now)
                    if wait_s <= 0.0:
                        # Nothing was awaited since the look at the budget.
                        budget.spend(now)
                        return
                    await asyncio.sleep(wait_s + 0.001)
        finally:
            self._asking_permission -= 1
            self._woken.set()

    @asynccontextmanager
    async def waiting(
        self, waitings: Iterable[Waiting], *, log: Log | None = None, log_every_s: float = 300.0
    ) -> AsyncIterator[Endings]:
        """Wait for operations as long as the context is open.

        :param waitings: what to wait for; the same operation twice is one
        :param log: gets a line at the start, and one now and then with when the next check is due and why
        :param log_every_s: seconds between such lines, at least
        """
        if "numpy" not in sys.modules:
            # Learning needs it, and its first import is longer than an event loop should be away.
            await asyncio.to_thread(importlib.import_module, "numpy")
        # From here to the registration in `_join` nothing may be awaited.
        current = registry.current(self._loop, self.key)
        if current is not None and current is not self:
            # Another one was opened since this one was asked for.
            async with current.waiting(waitings, log=log, log_every_s=log_every_s) as endings:
                yield endings
            return
        endings = Endings(waitings, log, log_every_s)
        try:
            await self._join(endings)
            yield endings
        finally:
            await self._stop_waiting(endings)

    async def _join(self, endings: Endings) -> None:
        if self._runner is None:
            self.dispatcher = registry.enter(self._loop, self.key, self)
            # Not in the context of the one who happens to be first: what is logged there is about all of them.
            self._runner = self._loop.create_task(
                self._run(), name=f"speechkit poller {self.key}", context=contextvars.Context()
            )
            self._runner.add_done_callback(self._stopped)
        for number, (operation_id, waiting) in enumerate(endings.waitings.items(), 1):
            self._subscribers.setdefault(operation_id, []).append(endings)
            self.dispatcher.add(waiting, self._now())
            if number % _JOIN_AT_ONCE == 0:
                self._woken.set()
                await asyncio.sleep(0)
        self._woken.set()
        self._say_next_check(endings, self._now())

    async def _stop_waiting(self, endings: Endings) -> None:
        now = self._now()
        for operation_id, waiting in endings.waitings.items():
            others = self._subscribers.get(operation_id, [])
            if endings in others:
                others.remove(endings)
                self.dispatcher.leave(waiting, now)
                if not others:
                    del self._subscribers[operation_id]
        endings.close()
        if not self._subscribers and self._runner is not None:
            runner, self._runner = self._runner, None
            registry.leave(self._loop, self.key, self)
            self._tell_gauges(now)
            runner.cancel()
            await asyncio.wait([runner])

    async def _run(self) -> None:
        async with self._client, asyncio.TaskGroup() as asking:
            while True:
                await self._places.acquire()
                now = self._now()
                # Whoever was allowed to send and couldn't, or has to cancel in time, comes first.
                turn = None if self._asking_permission else self.dispatcher.turn(now)
                if self._gauges.are_due(now):
                    self._tell_gauges(now)
                if turn is None or turn.operation_id is None:
                    self._places.release()
                    await self._sleep(turn.wait_s if turn else float("inf"))
                else:
                    asking.create_task(self._ask(turn.operation_id, now))

    def _stopped(self, runner: asyncio.Task[None]) -> None:
        """Tell all who wait that polling has ended by an error that isn't about a check: no connection, a defect."""
        error = None if runner.cancelled() else runner.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is None or self._runner is not runner:
            return
        self._runner = None
        registry.leave(self._loop, self.key, self)
        waiting = {id(endings): endings for others in self._subscribers.values() for endings in others}
        for operation_id in self._subscribers:
            self.dispatcher.forget(operation_id)
        self._subscribers.clear()
        self._tell_gauges(self._now())
        for endings in waiting.values():
            endings.fail(error)

    async def _sleep(self, seconds: float) -> None:
        self._woken.clear()
        timer = self._loop.call_later(min(seconds, 3600.0) + 0.001, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    async def _ask(self, operation_id: str, spent_at: float) -> None:
        place = Place(self._places)
        permit = _Permit(self, spent_at)
        try:
            self._stats.incr("speechkit.checks")
            await self._check(operation_id, permit, place)
        except asyncio.CancelledError:
            self.dispatcher.put_back(operation_id, self._now())
            raise
        except Exception as error:  # noqa: BLE001 - whatever one answer does, the others are waited for
            log.error("The wait for operation %s ends in an unexpected %s", operation_id, where_it_came_from(error))
            self.dispatcher.forget(operation_id)
            self._deliver(Unanswered(operation_id, unexpected(operation_id, error)), None)
        finally:
            permit.close()
            place.leave()
            self._woken.set()

    async def _check(self, operation_id: str, permit: _Permit, place: Place) -> None:
        dispatcher = self.dispatcher
        try:
            async with self._client.used() as check:
                operation = await check(operation_id, permit.allowed)
        except OperationNotFoundError as error:
            dispatcher.gone(operation_id, self._now())
            self._deliver(Gone(operation_id, error), None)
        except QuotaExceededError as error:
            self._stats.incr("speechkit.responses_429")
            now = self._now()
            pause_s = dispatcher.refused(operation_id, now, error.retry_after_s)
            for endings in self._due_lines(operation_id, now):
                endings.say(f"the quota is used up (429): all checks pause for {pause_s:.0f} s", now)
        except SpeechKitError as error:
            self._failed(operation_id, error)
        except (OSError, TimeoutError) as error:
            self._failed(operation_id, UnreachableError(f"The check broke off ({type(error).__name__})"))
        else:
            self._answered(operation_id, operation, place)

    def _answered(self, operation_id: str, operation: Operation, place: Place) -> None:
        now = self._now()
        if operation.state is OperationState.RUNNING:
            self.dispatcher.running(operation_id, now)
            for endings in self._due_lines(operation_id, now):
                self._say_next_check(endings, now)
            return
        took_s = None
        if operation.created_at is not None and operation.modified_at is not None:
            took_s = (operation.modified_at - operation.created_at).total_seconds()
        delay_s = self.dispatcher.ended(operation_id, now, took_s)
        self._stats.incr("speechkit.detections")
        if delay_s is not None:
            self._stats.timing("speechkit.detection_delay", delay_s * 1000.0)
        held = place if len(operation.raw) >= LARGE_ANSWER else None
        self._deliver(Finished(operation_id, operation), held)

    def _failed(self, operation_id: str, error: SpeechKitError) -> None:
        self._stats.incr("speechkit.check_errors")
        if isinstance(error, AuthenticationError):
            self._client.refused()
        now = self._now()
        too_many = self.dispatcher.failed(
            operation_id,
            now,
            everywhere=isinstance(error, UnreachableError | ServiceFaultError | AuthenticationError),
            patience=TRANSIENT if error.retry_can_help else LASTING,
        )
        if too_many is None:
            for endings in self._due_lines(operation_id, now):
                self._say_next_check(endings, now, f"{error}; ")
            return
        for failed_id in list(self._subscribers) if too_many is TooMany.EVERYWHERE else [operation_id]:
            self.dispatcher.forget(failed_id)
            self._deliver(Unanswered(failed_id, error), None)

    def _deliver(self, ending: Ending, place: Place | None) -> None:
        for endings in self._subscribers.pop(ending.operation_id, ()):
            if place is not None:
                place.holders += 1
            endings.put(ending, place)

    def _due_lines(self, operation_id: str, now: float) -> list[Endings]:
        return [endings for endings in self._subscribers.get(operation_id, ()) if endings.line_is_due(now)]

    def _say_next_check(self, endings: Endings, now: float, why: str = "") -> None:
        """Tell a task when the first of its own operations is asked for next."""
        known = self.dispatcher.watches
        here = [watch for operation_id in endings.left if (watch := known.get(operation_id)) is not None]
        if here:
            first = min(here, key=lambda watch: (watch.asking, watch.due))
            endings.say(why + self.dispatcher.reason(first.waiting.operation_id, now), now)

    def _now(self) -> float:
        """Return what the budget counts by, a clock that nobody sets, and tell the dispatcher the time of day."""
        now = time.monotonic()
        self.dispatcher.ahead_s = time.time() - now
        return now

    def _budget_now(self) -> CheckBudget:
        budget = registry.dispatcher_of(self._loop, self.key, self).budget
        budget.start(self._now())
        return budget

    def _tell_gauges(self, now: float) -> None:
        self._gauges.tell(now, waiting=len(self.dispatcher.watches), budget_left=self.dispatcher.budget.left(now))


class _Permit:
    """What one check may send: once what was spent with its turn, if it is prompt, and then what the budget allows.

    A check may have to wait for a token first. Had many done so, they would all go out at the same moment.
    """

    def __init__(self, poller: Poller, spent_at: float) -> None:
        self._poller = poller
        self._budget = poller.dispatcher.budget
        self._spent_at: float | None = spent_at

    async def allowed(self) -> None:
        """Wait until one more request may go out."""
        spent_at, self._spent_at = self._spent_at, None
        if spent_at is not None:
            if time.monotonic() - spent_at <= _PROMPT_S:
                return
            self._budget.take_back(spent_at)
        await self._poller.request_allowed()

    def close(self) -> None:
        """Take back what nothing was sent for."""
        if self._spent_at is not None:
            self._budget.take_back(self._spent_at)
            self._spent_at = None


def shared_poller(key: Hashable, open_check: OpenCheck, budget: CheckBudget, *, stats: Stats | None = None) -> Poller:
    """Return the poller of this connection in the running event loop; it begins with the first who waits.

    :param key: the connection, and whatever else makes a difference to the client
    :param open_check: opens a client, yields its check; used by the first, and again where its key was refused
    :param budget: used by the first only, as long as it has the same limits
    :param stats: where the metrics go
    """
    return registry.current(asyncio.get_running_loop(), key) or Poller(key, open_check, budget, stats)
