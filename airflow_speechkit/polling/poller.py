"""The shared poller: one for each connection in an event loop, however many tasks wait.

It carries out what the `Scheduler` decides. Nothing here reads an answer's body: a check gives an `Operation`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from airflow_speechkit.api.operation import Operation, OperationState
from airflow_speechkit.errors import (
    AuthenticationError,
    OperationNotFoundError,
    QuotaExceededError,
    SpeechKitError,
    UnreachableError,
    unexpected,
)
from airflow_speechkit.polling.client import Check, OpenCheck, RenewedClient
from airflow_speechkit.polling.metrics import stat_suffix
from airflow_speechkit.polling.scheduler import Scheduler
from airflow_speechkit.polling.subscription import Log, Subscription
from airflow_speechkit.polling.target import PollOutcome, PollResult, PollTarget
from airflow_speechkit.redaction import where_it_came_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Iterable

    from airflow_speechkit.polling.rate_limit import RateLimiter
    from airflow_speechkit.polling.schedule import DurationKind, DurationModel

log = logging.getLogger(__name__)

#: Checks under way at once, together with large answers that are being handled: this bounds the memory.
AT_ONCE = 8
#: An answer of this size or more counts until the task has handled it, in bytes.
LARGE_ANSWER = 64 * 1024
#: Each task's log gets a line about its wait this often at most, in seconds.
LOG_EVERY_S = 300.0
#: A pause of all checks that lasts so long, in seconds, is in each task's log at once.
_LONG_PAUSE_S = 60.0
#: A request that goes out later than this part of the window after it was spent is spent again.
_LATE_SHARE = 0.05
#: Operations of one list that are taken in before the event loop gets its turn.
_ADDED_AT_ONCE = 100
_GAUGES_EVERY_S = 10.0

_pollers: dict[tuple[asyncio.AbstractEventLoop, Hashable], Poller] = {}
#: What was spent and learned outlives its loop: `dag.test` runs each trigger in a loop of its own. Not locked: a
#: process of Airflow's runs one such loop at a time.
_known: dict[Hashable, tuple[RateLimiter, dict[DurationKind, DurationModel]]] = {}


def shared_poller(key: Hashable, open_check: OpenCheck, limiter: RateLimiter, *, stats: Any = None) -> Poller:
    """Return the poller of this connection in the running event loop.

    :param key: the connection, and whatever else makes a difference to the client
    :param open_check: opens a client, yields its check; used by the first, and again where its key was refused
    :param limiter: used by the first; those after it only set another limit, where the connection has another one now
    :param stats: Airflow's `Stats`, where the metrics go
    """
    for loop_key in [loop_key for loop_key in _pollers if loop_key[0].is_closed()]:
        del _pollers[loop_key]
    loop_key = asyncio.get_running_loop(), key
    if loop_key not in _pollers:
        _pollers[loop_key] = Poller(key, open_check, *_known.setdefault(key, (limiter, {})), stats)
    poller = _pollers[loop_key]
    poller.scheduler.limiter.limit, poller.scheduler.limiter.window_s = limiter.limit, limiter.window_s
    return poller


class Poller:
    """Asks for the operations of all tasks that wait through one connection in one event loop.

    :param key: what it is shared by
    :param open_check: opens the client when the first task waits; closed after the last has left
    :param limiter: of the connection
    :param models: what is known about how long operations take
    :param stats: where the metrics go
    """

    def __init__(
        self,
        key: Hashable,
        open_check: OpenCheck,
        limiter: RateLimiter,
        models: dict[DurationKind, DurationModel],
        stats: Any = None,
    ) -> None:
        self.key = key
        self.scheduler = Scheduler(limiter, models)
        self._stats = stats
        self._stat_suffix = stat_suffix(key)
        self._gauges_at = -math.inf
        self._open_check = open_check
        self._client: RenewedClient[Check]
        self._loop = asyncio.get_running_loop()
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._places = asyncio.Semaphore(AT_ONCE)
        self._woken = asyncio.Event()
        self._waiting_to_send = 0
        self._sending = asyncio.Lock()

    async def request_allowed(self) -> None:
        """Wait until the limiter lets one more request to the operations host out, and spend it.

        Await it before each one that isn't a check's first: a cancel, whatever is sent again.
        """
        self._waiting_to_send += 1
        try:
            async with self._sending:
                limiter = self.scheduler.limiter
                while (wait_s := limiter.wait_s(self._now(), reserved=True)) > 0.0:  # noqa: ASYNC110 - for a time
                    await asyncio.sleep(wait_s + 0.001)
                limiter.spend(self._now())
        finally:
            self._waiting_to_send -= 1
            self._woken.set()

    @asynccontextmanager
    async def subscribed(
        self, targets: Iterable[PollTarget], *, log: Log | None = None, log_every_s: float = LOG_EVERY_S
    ) -> AsyncIterator[Subscription]:
        """Wait for operations as long as the context is open.

        :param targets: what to wait for; the same operation twice is one
        :param log: gets a line at the start, and one now and then with when the next check is due and why
        :param log_every_s: seconds between such lines, at least
        """
        subscription = Subscription(targets, log, log_every_s)
        try:
            await self._subscribe(subscription)
            yield subscription
        finally:
            await self._unsubscribe(subscription)

    def next_check_in_s(self) -> float:
        """Return the seconds until the next check; 0 while one is under way."""
        return self.scheduler.next_in_s(self._now())

    def earned_in_s(self) -> float:
        """Return the seconds in which the limit allows as many checks again as were made since the first task waits."""
        now = self._now()
        return self.scheduler.limiter.sent(now) / self.scheduler.limiter.rate(now)

    async def _subscribe(self, subscription: Subscription) -> None:
        if self._runner is None:
            # Not in the context of the first task: what is logged there is about all of them.
            self._runner = self._loop.create_task(
                self._run(), name=f"speechkit poller {self.key}", context=contextvars.Context()
            )
            self._runner.add_done_callback(self._stopped)
        for number, (operation_id, target) in enumerate(subscription.targets.items(), 1):
            self._subscriptions.setdefault(operation_id, []).append(subscription)
            age_s = None if target.submitted_at is None else time.time() - target.submitted_at
            self.scheduler.add(target, id(subscription), self._now(), age_s)
            if number % _ADDED_AT_ONCE == 0:
                self._woken.set()
                await asyncio.sleep(0)
        self._woken.set()
        self._write_next_check(subscription, self._now())

    async def _unsubscribe(self, subscription: Subscription) -> None:
        now = self._now()
        for operation_id in subscription.targets:
            others = self._subscriptions.get(operation_id, [])
            if subscription in others:
                others.remove(subscription)
                self.scheduler.leave(operation_id, id(subscription), now)
                if not others:
                    del self._subscriptions[operation_id]
        subscription.close()
        if not self._subscriptions and self._runner is not None:
            runner, self._runner = self._runner, None
            self._write_gauges(now, always=True)
            runner.cancel()
            await asyncio.wait([runner])

    async def _run(self) -> None:
        async with aclosing(AsyncExitStack()) as opened, asyncio.TaskGroup() as checks:
            self._client = RenewedClient(self._open_check, opened)
            # A connection that isn't there is found out at once.
            await self._client.current()
            while True:
                await self._places.acquire()
                now = self._now()
                # Whoever was allowed to send and couldn't, or has to cancel in time, comes first.
                turn = None if self._waiting_to_send else self.scheduler.turn(now)
                self._write_gauges(now)
                if turn is None or turn.operation_id is None:
                    self._places.release()
                    await self._sleep(turn.wait_s if turn else float("inf"))
                else:
                    checks.create_task(self._ask(turn.operation_id))

    def _stopped(self, runner: asyncio.Task[None]) -> None:
        """Deliver an error that isn't about a check to all who wait: no connection, a defect."""
        error = None if runner.cancelled() else runner.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is None or self._runner is not runner:
            return
        self._runner = None
        waiting = self._all_subscriptions()
        now = self._now()
        for operation_id in self._subscriptions:
            self.scheduler.forget(operation_id)
        self._subscriptions.clear()
        self._write_gauges(now, always=True)
        for subscription in waiting:
            subscription.put(error)

    async def _sleep(self, seconds: float) -> None:
        self._woken.clear()
        timer = self._loop.call_later(min(seconds, 3600.0) + 0.001, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    async def _ask(self, operation_id: str) -> None:
        try:
            self._count("speechkit.checks")
            await self._check(operation_id)
        except asyncio.CancelledError:
            self.scheduler.put_back(operation_id, self._now())
            raise
        except Exception as error:  # noqa: BLE001 - one bad answer must not end the others' waits
            log.error("The wait for operation %s ends in an unexpected %s", operation_id, where_it_came_from(error))
            self._give_up(operation_id, unexpected(operation_id, error))
        finally:
            self._places.release()
            self._woken.set()

    async def _check(self, operation_id: str) -> None:
        # The first request was spent with its turn. Another one goes out where a token was refused.
        spent_at = self._now()

        async def allowed() -> None:
            nonlocal spent_at
            # Those that had to wait for a token would all go out at once.
            is_late = self._now() - spent_at > min(_LATE_SHARE * self.scheduler.limiter.window_s, 2.0)
            spent_at = -math.inf
            if is_late:
                await self.request_allowed()

        try:
            check = await self._client.current()
            operation = await check(operation_id, allowed)
        except OperationNotFoundError as error:
            self.scheduler.gone(operation_id, self._now())
            self._deliver(PollResult(operation_id, PollOutcome.GONE, error=error))
        except QuotaExceededError as error:
            self._count("speechkit.responses_429")
            now = self._now()
            is_paused = self.scheduler.limiter.is_paused(now)
            pause_s = self.scheduler.refused(operation_id, now, error.retry_after_s)
            for subscription in [] if is_paused else self._all_subscriptions():
                if pause_s >= _LONG_PAUSE_S or subscription.line_is_due(now):
                    subscription.write_line(f"the quota is used up (429): all checks pause for {pause_s:.0f} s", now)
        except SpeechKitError as error:
            self._failed(operation_id, error)
        except (OSError, TimeoutError) as error:
            self._failed(operation_id, UnreachableError(f"The check broke off ({type(error).__name__})"))
        else:
            await self._answered(operation_id, operation)

    async def _answered(self, operation_id: str, operation: Operation) -> None:
        now = self._now()
        if operation.state is OperationState.RUNNING:
            age_s = None if operation.created_at is None else time.time() - operation.created_at.timestamp()
            self.scheduler.running(operation_id, now, age_s)
            for subscription in self._due_lines(operation_id, now):
                self._write_next_check(subscription, now)
            return
        took_s = None
        if operation.created_at is not None and operation.modified_at is not None:
            took_s = (operation.modified_at - operation.created_at).total_seconds()
        delay_s = self.scheduler.ended(operation_id, now, took_s)
        self._count("speechkit.detections")
        if delay_s is not None and self._stats is not None:
            self._stats.timing("speechkit.detection_delay", delay_s * 1000.0)
        handled = self._deliver(PollResult(operation_id, PollOutcome.ENDED, operation))
        if len(operation.raw) >= LARGE_ANSWER:
            # It keeps its place until then.
            for one in handled:
                await one.wait()

    def _failed(self, operation_id: str, error: SpeechKitError) -> None:
        self._count("speechkit.check_errors")
        if isinstance(error, AuthenticationError):
            self._client.refused()
        now = self._now()
        given_up = self.scheduler.failed(operation_id, now, error)
        if not given_up:
            for subscription in self._due_lines(operation_id, now):
                self._write_next_check(subscription, now, f"{error}; ")
        for failed_id in given_up:
            self._give_up(failed_id, error)

    def _give_up(self, operation_id: str, error: SpeechKitError) -> None:
        self.scheduler.forget(operation_id)
        self._deliver(PollResult(operation_id, PollOutcome.UNANSWERED, error=error))

    def _deliver(self, result: PollResult) -> list[asyncio.Event]:
        return [one.put(result) for one in self._subscriptions.pop(result.operation_id, ())]

    def _all_subscriptions(self) -> list[Subscription]:
        return list({id(one): one for others in self._subscriptions.values() for one in others}.values())

    def _due_lines(self, operation_id: str, now: float) -> list[Subscription]:
        return [one for one in self._subscriptions.get(operation_id, ()) if one.line_is_due(now)]

    def _write_next_check(self, subscription: Subscription, now: float, why: str = "") -> None:
        """Write when the first of the task's own operations is asked for next."""
        subscription.write_line(why + self.scheduler.reason(subscription.left, now), now)

    def _now(self) -> float:
        return time.monotonic()

    def _write_gauges(self, now: float, *, always: bool = False) -> None:
        if self._stats is not None and (always or now - self._gauges_at >= _GAUGES_EVERY_S):
            self._gauges_at = now
            self._stats.gauge(f"speechkit.waiting.{self._stat_suffix}", len(self.scheduler.pending))
            self._stats.gauge(f"speechkit.budget_left.{self._stat_suffix}", self.scheduler.limiter.left(now))

    def _count(self, stat: str) -> None:
        if self._stats is not None:
            self._stats.incr(stat)
