"""The shared poller of a triggerer: one for each connection and event loop, however many tasks wait.

It carries out what the `Dispatcher` decides. Nothing here reads an answer's body: `check` gives an `Operation`.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.errors import (
    AuthenticationError,
    OperationNotFoundError,
    QuotaExceededError,
    ServiceFaultError,
    SpeechKitError,
    UnreachableError,
)
from airflow_speechkit.polling import registry
from airflow_speechkit.polling.dispatcher import LASTING, TRANSIENT, Dispatcher
from airflow_speechkit.polling.waiting import Ending, Finished, Gone, Unanswered, Waiting

if TYPE_CHECKING:
    from airflow_speechkit.polling.budget import CheckBudget

Check = Callable[[str], Awaitable[Operation]]
OpenCheck = Callable[[], AbstractAsyncContextManager[Check]]
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

#: Checks under way at once, together with large answers that are being handled: this bounds the memory.
AT_ONCE = 8
#: An answer of this size or more counts until whoever waits has handled it, in bytes.
LARGE_ANSWER = 64 * 1024
_GAUGES_EVERY_S = 10.0
#: Operations of one list that are taken in before the event loop gets its turn.
_JOIN_AT_ONCE = 100


class Stats(Protocol):
    """What of Airflow's `Stats` the poller uses."""

    def incr(self, stat: str, count: int = 1) -> object:
        """Count."""

    def gauge(self, stat: str, value: float) -> object:
        """Set a level."""

    def timing(self, stat: str, dt: float) -> object:
        """Record a duration, in milliseconds."""


class _NoStats:
    def incr(self, stat: str, count: int = 1) -> None: ...

    def gauge(self, stat: str, value: float) -> None: ...

    def timing(self, stat: str, dt: float) -> None: ...


class _Place:
    """One of the `AT_ONCE` places, given back when all who were handed the answer have handled it."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self.holders = 1

    def leave(self) -> None:
        self.holders -= 1
        if self.holders == 0:
            self._places.release()


class Endings:
    """The endings of what one task waits for, each as it comes: an asynchronous iterator."""

    def __init__(self, waitings: Iterable[Waiting], log: Log | None, log_every_s: float) -> None:
        self.waitings = {waiting.operation_id: waiting for waiting in waitings}
        self.left = set(self.waitings)
        self._log = log
        self._log_every_s = log_every_s
        self._logged_at = float("-inf")
        self._ready: deque[tuple[Ending | BaseException, _Place | None]] = deque()
        self._arrived = asyncio.Event()
        self._handling: _Place | None = None

    def __aiter__(self) -> AsyncIterator[Ending]:
        return self

    async def __anext__(self) -> Ending:
        self._handled()
        while not self._ready:
            if not self.left:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        ending, self._handling = self._ready.popleft()
        if isinstance(ending, BaseException):
            raise ending
        return ending

    def put(self, ending: Ending, place: _Place | None) -> None:
        """Hand on an ending, with the place that it holds until it is handled."""
        self.left.discard(ending.operation_id)
        self._ready.append((ending, place))
        self._arrived.set()

    def fail(self, error: BaseException) -> None:
        """Hand on that nothing more will come."""
        self._ready.append((error, None))
        self._arrived.set()

    def close(self) -> None:
        """Give back all places."""
        self._handled()
        for _, place in self._ready:
            if place is not None:
                place.leave()
        self._ready.clear()

    def say(self, reason: Callable[[], str], now: float) -> None:
        """Log a line about the wait, if the last one is long enough ago."""
        if self._log is not None and now - self._logged_at >= self._log_every_s:
            self._logged_at = now
            of = f"{len(self.left)} of {len(self.waitings)} operations to go; " if len(self.waitings) > 1 else ""
            self._log.info("%s%s", of, reason())

    def _handled(self) -> None:
        if self._handling is not None:
            self._handling.leave()
            self._handling = None


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
        self._open_check = open_check
        self._stats: Stats = stats or _NoStats()
        self._loop = asyncio.get_running_loop()
        self._clock_offset = time.time() - self._loop.time()
        self.dispatcher = Dispatcher(budget)
        self._subscribers: dict[str, list[Endings]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._places = asyncio.Semaphore(AT_ONCE)
        self._woken = asyncio.Event()
        self._gauges_at = float("-inf")

    def count_request(self) -> None:
        """Count a request to the operations host that the poller didn't send: a cancel, a retry inside the client."""
        self.dispatcher.budget.spend(self._now())

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
            await self._leave(endings)

    async def _join(self, endings: Endings) -> None:
        if self._runner is None:
            self.dispatcher = registry.enter(self._loop, self.key, self)
            self._runner = self._loop.create_task(self._run(), name=f"speechkit poller {self.key}")
            self._runner.add_done_callback(self._stopped)
        for number, (operation_id, waiting) in enumerate(endings.waitings.items(), 1):
            self._subscribers.setdefault(operation_id, []).append(endings)
            self.dispatcher.add(waiting, self._now())
            if number % _JOIN_AT_ONCE == 0:
                self._woken.set()
                await asyncio.sleep(0)
        self._woken.set()
        watches = self.dispatcher.watches
        here = [watches[operation_id] for operation_id in endings.left if operation_id in watches]
        if here:
            first = min(here, key=lambda watch: watch.due).waiting.operation_id
            endings.say(lambda: self.dispatcher.reason(first, self._now()), self._now())

    async def _leave(self, endings: Endings) -> None:
        for operation_id in endings.waitings:
            others = self._subscribers.get(operation_id, [])
            if endings in others:
                others.remove(endings)
                if not others:
                    del self._subscribers[operation_id]
                    self.dispatcher.forget(operation_id)
        endings.close()
        if not self._subscribers and self._runner is not None:
            runner, self._runner = self._runner, None
            registry.leave(self._loop, self.key, self)
            runner.cancel()
            await asyncio.wait([runner])

    async def _run(self) -> None:
        async with self._open_check() as check, asyncio.TaskGroup() as asking:
            while True:
                await self._places.acquire()
                now = self._now()
                turn = self.dispatcher.turn(now)
                self._gauges(now)
                if turn.operation_id is None:
                    self._places.release()
                    await self._sleep(turn.wait_s)
                else:
                    asking.create_task(self._ask(check, turn.operation_id))

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
        for endings in waiting.values():
            endings.fail(error)

    async def _sleep(self, seconds: float) -> None:
        self._woken.clear()
        timer = self._loop.call_later(min(seconds, 3600.0) + 0.001, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    async def _ask(self, check: Check, operation_id: str) -> None:
        place = _Place(self._places)
        dispatcher = self.dispatcher
        try:
            self._stats.incr("speechkit.checks")
            operation = await check(operation_id)
        except asyncio.CancelledError:
            dispatcher.put_back(operation_id, self._now())
            raise
        except OperationNotFoundError as error:
            dispatcher.gone(operation_id, self._now())
            self._deliver(Gone(operation_id, error), None)
        except QuotaExceededError as error:
            self._stats.incr("speechkit.responses_429")
            pause_s = dispatcher.refused(operation_id, self._now(), error.retry_after_s)
            for endings in self._subscribers.get(operation_id, ()):
                endings.say(lambda: f"the quota is used up (429): all checks pause for {pause_s:.0f} s", self._now())
        except SpeechKitError as error:
            self._failed(operation_id, error)
        except (OSError, TimeoutError) as error:
            self._failed(operation_id, UnreachableError(f"The check broke off ({type(error).__name__})"))
        else:
            self._answered(operation_id, operation, place)
        finally:
            place.leave()
            self._woken.set()

    def _answered(self, operation_id: str, operation: Operation, place: _Place) -> None:
        now = self._now()
        if operation.state is OperationState.RUNNING:
            self.dispatcher.running(operation_id, now)
            if operation_id in self.dispatcher.watches:
                for endings in self._subscribers.get(operation_id, ()):
                    endings.say(lambda: self.dispatcher.reason(operation_id, now), now)
            return
        watch = self.dispatcher.watches.get(operation_id)
        took_s = None
        if operation.created_at is not None and operation.modified_at is not None:
            took_s = (operation.modified_at - operation.created_at).total_seconds()
        delay_s = self.dispatcher.ended(operation_id, now, took_s)
        self._stats.incr("speechkit.detections")
        if delay_s is not None:
            self._stats.timing("speechkit.detection_delay", delay_s * 1000.0)
        checks = watch.checks if watch is not None else 1
        held = place if len(operation.raw) >= LARGE_ANSWER else None
        self._deliver(Finished(operation_id, operation, checks, delay_s), held)

    def _failed(self, operation_id: str, error: SpeechKitError) -> None:
        self._stats.incr("speechkit.check_errors")
        now = self._now()
        too_many = self.dispatcher.failed(
            operation_id,
            now,
            everywhere=isinstance(error, UnreachableError | ServiceFaultError | AuthenticationError),
            patience=TRANSIENT if error.retry_can_help else LASTING,
        )
        if too_many is None:
            for endings in self._subscribers.get(operation_id, ()):
                if operation_id in self.dispatcher.watches:
                    endings.say(lambda: f"{error}; {self.dispatcher.reason(operation_id, now)}", now)
            return
        for failed_id in list(self._subscribers) if too_many.everywhere else [operation_id]:
            self.dispatcher.forget(failed_id)
            self._deliver(Unanswered(failed_id, error, too_many.failures, too_many.for_s), None)

    def _deliver(self, ending: Ending, place: _Place | None) -> None:
        for endings in self._subscribers.pop(ending.operation_id, ()):
            if place is not None:
                place.holders += 1
            endings.put(ending, place)

    def _now(self) -> float:
        # Ages need the epoch, and a budget a clock that never jumps: the loop's, set by the wall clock once.
        return self._loop.time() + self._clock_offset

    def _gauges(self, now: float) -> None:
        if now - self._gauges_at >= _GAUGES_EVERY_S:
            self._gauges_at = now
            self._stats.gauge("speechkit.waiting", len(self.dispatcher.watches))
            self._stats.gauge("speechkit.budget_left", self.dispatcher.budget.left(now))


def shared_poller(key: Hashable, open_check: OpenCheck, budget: CheckBudget, *, stats: Stats | None = None) -> Poller:
    """Return the poller of this connection in the running event loop; it begins with the first who waits.

    :param key: the connection, and whatever else makes a difference to the client
    :param open_check: opens a client, yields its check; used by the first only
    :param budget: used by the first only, as long as it has the same limits
    :param stats: where the metrics go
    """
    return registry.current(asyncio.get_running_loop(), key) or Poller(key, open_check, budget, stats)
