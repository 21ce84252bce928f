"""The shared poller: one for each connection in an event loop, however many tasks wait.

It carries out what the `Scheduler` decides. Nothing here reads an answer's body: a check gives an `Operation`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import re
import time
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from airflow_speechkit.api.operation import OperationState
from airflow_speechkit.errors import (
    OperationNotFoundError,
    QuotaExceededError,
    SpeechKitError,
    UnreachableError,
    unexpected,
)
from airflow_speechkit.polling.scheduler import Scheduler
from airflow_speechkit.polling.target import PollOutcome, PollResult, PollTarget
from airflow_speechkit.redaction import where_it_came_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Iterable
    from contextlib import AbstractAsyncContextManager

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.polling.rate_limit import RateLimiter
    from airflow_speechkit.polling.schedule import DurationKind, DurationModel

log = logging.getLogger(__name__)

#: Checks under way at once, together with large answers that are being handled: this bounds the memory.
AT_ONCE = 8
#: An answer of this size or more counts until the task has handled it, in bytes.
LARGE_ANSWER = 64 * 1024
#: Results of v3 that all tasks of an event loop fetch at once: each may be of megabytes.
RESULTS_AT_ONCE = 16
#: A check that had to wait so long for a token, in seconds, takes another turn: otherwise all of them go out together.
_LATE_S = 1.0
#: Operations of one list that are taken in before the event loop gets its turn.
_ADDED_AT_ONCE = 100
_GAUGES_EVERY_S = 10.0

_pollers: dict[tuple[asyncio.AbstractEventLoop, Hashable], Poller] = {}
#: What was spent and learned outlives its loop: `dag.test` runs each trigger in a loop of its own. Not locked: a
#: process of Airflow's runs one such loop at a time.
_known: dict[Hashable, tuple[RateLimiter, dict[DurationKind, DurationModel]]] = {}


class Client(Protocol):
    """The service, as the poller uses it."""

    async def authorize(self) -> None:
        """Fetch a token where one is needed and there is none."""

    async def get_operation(self, operation_id: str) -> Operation:
        """Ask for the state of an operation, once."""


class Hook(Protocol):
    """An Airflow connection."""

    def async_client(self) -> AbstractAsyncContextManager[Any]:
        """Return a `Client` of the connection."""


def shared_poller(key: Hashable, hook: Hook, limiter: RateLimiter, *, stats: Any = None) -> Poller:
    """Return the poller of this connection in the running event loop.

    :param key: the connection, and whatever else makes a difference to the client
    :param hook: opens the client when the first task waits
    :param limiter: used by the first; those after it only set another limit, where the connection has another one now
    :param stats: Airflow's `Stats`, where the metrics go
    """
    for loop_key in [loop_key for loop_key in _pollers if loop_key[0].is_closed()]:
        del _pollers[loop_key]
    loop_key = asyncio.get_running_loop(), key
    if loop_key not in _pollers:
        _pollers[loop_key] = Poller(key, *_known.setdefault(key, (limiter, {})), stats)
    poller = _pollers[loop_key]
    poller.hook = hook
    shared = poller.scheduler.limiter
    shared.limit, shared.window_s = limiter.limit, limiter.window_s
    return poller


class Subscription:
    """The results of what one task waits for.

    :param targets: what is waited for; the same operation twice is one
    """

    def __init__(self, targets: Iterable[PollTarget]) -> None:
        self.targets = {target.operation_id: target for target in targets}
        #: Operations of which no result was put in yet.
        self.left = set(self.targets)
        self._results: asyncio.Queue[PollResult | BaseException] = asyncio.Queue()
        self._is_handling = False

    @property
    def is_over(self) -> bool:
        """Whether `next` has given all results."""
        return not self.left and self._results.empty()

    async def next(self) -> PollResult:
        """Return the next result; the one before counts as handled then."""
        self._handled()
        result = await self._results.get()
        self._is_handling = True
        if isinstance(result, BaseException):
            raise result
        return result

    def put(self, result: PollResult | BaseException) -> None:
        """Deliver a result, or an error in place of all that is left."""
        if isinstance(result, PollResult):
            self.left.discard(result.operation_id)
        self._results.put_nowait(result)

    async def all_handled(self) -> None:
        """Wait until the task has handled all results that were put in."""
        await self._results.join()

    def close(self) -> None:
        """Take all as handled."""
        self._handled()
        while not self._results.empty():
            self._results.get_nowait()
            self._results.task_done()

    def _handled(self) -> None:
        if self._is_handling:
            self._is_handling = False
            self._results.task_done()


class Poller:
    """Asks for the operations of all tasks that wait through one connection in one event loop.

    :param key: what it is shared by
    :param limiter: of the connection
    :param models: what is known about how long operations take
    :param stats: where the metrics go
    """

    hook: Hook

    def __init__(
        self, key: Hashable, limiter: RateLimiter, models: dict[DurationKind, DurationModel], stats: Any = None
    ) -> None:
        self.key = key
        self.scheduler = Scheduler(limiter, models)
        #: Open while a task waits.
        self.client: Any = None
        self.fetches = asyncio.Semaphore(RESULTS_AT_ONCE)
        self._stats = stats
        self._stat_suffix = _stat_suffix(key)
        self._gauges_at = -math.inf
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._sending = asyncio.Lock()

    async def request_allowed(self) -> None:
        """Wait until the limiter lets one more request to the operations host out, and spend it: for a cancel."""
        async with self._sending:
            limiter = self.scheduler.limiter
            while (wait_s := limiter.wait_s(time.monotonic(), reserved=True)) > 0.0:  # noqa: ASYNC110 - for a time
                await asyncio.sleep(wait_s + 0.001)
            limiter.spend(time.monotonic())
        self._woken.set()

    @asynccontextmanager
    async def subscribed(self, targets: Iterable[PollTarget]) -> AsyncIterator[Subscription]:
        """Wait for operations as long as the context is open."""
        subscription = Subscription(targets)
        try:
            await self._subscribe(subscription)
            yield subscription
        finally:
            await self._unsubscribe(subscription)

    def reason(self, subscription: Subscription) -> str:
        """Return when a task's next check is due, and why, for its log."""
        return self.scheduler.reason(subscription.left, time.monotonic())

    def next_check_in_s(self) -> float:
        """Return the seconds until the next check; 0 while one is under way, or while checks fail."""
        return 0.0 if self.scheduler.is_failing else self.scheduler.next_in_s(time.monotonic())

    def earned_in_s(self) -> float:
        """Return the seconds in which the limit allows as many checks again as this process has made."""
        limiter, now = self.scheduler.limiter, time.monotonic()
        return limiter.sent(now) / limiter.rate(now)

    async def _subscribe(self, subscription: Subscription) -> None:
        if self._runner is None:
            # Not in the context of the first task: what is logged there is about all of them.
            self._runner = asyncio.get_running_loop().create_task(
                self._run(), name=f"speechkit poller {self.key}", context=contextvars.Context()
            )
        for number, (operation_id, target) in enumerate(subscription.targets.items(), 1):
            self._subscriptions.setdefault(operation_id, []).append(subscription)
            age_s = None if target.submitted_at is None else time.time() - target.submitted_at
            self.scheduler.add(target, id(subscription), time.monotonic(), age_s)
            if number % _ADDED_AT_ONCE == 0:
                self._woken.set()
                await asyncio.sleep(0)
        self._woken.set()

    async def _unsubscribe(self, subscription: Subscription) -> None:
        for operation_id in subscription.targets:
            others = self._subscriptions.get(operation_id, [])
            if subscription in others:
                others.remove(subscription)
                self.scheduler.leave(operation_id, id(subscription), time.monotonic())
                if not others:
                    del self._subscriptions[operation_id]
        subscription.close()
        if not self._subscriptions and self._runner is not None:
            runner, self._runner = self._runner, None
            self._write_gauges(always=True)
            runner.cancel()
            await asyncio.wait([runner])

    async def _run(self) -> None:
        places = asyncio.Semaphore(AT_ONCE)
        try:
            async with self.hook.async_client() as client, asyncio.TaskGroup() as checks:
                self.client = client
                while True:
                    await places.acquire()
                    # A request that was allowed to go out comes first: a cancel has little time.
                    turn = None if self._sending.locked() else self.scheduler.turn(time.monotonic())
                    self._write_gauges()
                    if turn is None or turn.operation_id is None:
                        places.release()
                        await self._sleep(turn.wait_s if turn else 3600.0)
                    else:
                        checks.create_task(self._ask(client, places, turn.operation_id))
        except Exception as error:  # noqa: BLE001 - no connection, or a defect: it ends the waits of all tasks
            if self._runner is asyncio.current_task():
                self._end_all(error)

    def _end_all(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        self._runner = None
        waiting = {id(one): one for others in self._subscriptions.values() for one in others}
        for operation_id in self._subscriptions:
            self.scheduler.forget(operation_id)
        self._subscriptions.clear()
        self._write_gauges(always=True)
        for subscription in waiting.values():
            subscription.put(error)

    async def _sleep(self, seconds: float) -> None:
        self._woken.clear()
        timer = asyncio.get_running_loop().call_later(min(seconds, 3600.0) + 0.001, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    async def _ask(self, client: Client, places: asyncio.Semaphore, operation_id: str) -> None:
        try:
            await self._check(client, operation_id)
        except asyncio.CancelledError:
            self.scheduler.put_back(operation_id, time.monotonic())
            raise
        except Exception as error:  # noqa: BLE001 - one bad answer must not end the others' waits
            log.error("The wait for operation %s ends in an unexpected %s", operation_id, where_it_came_from(error))
            await self._give_up(operation_id, unexpected(operation_id, error))
        finally:
            places.release()
            self._woken.set()

    async def _check(self, client: Client, operation_id: str) -> None:
        turn_at = time.monotonic()
        try:
            await client.authorize()
            if time.monotonic() - turn_at > _LATE_S:
                self.scheduler.put_back(operation_id, time.monotonic())
                return
            self._count("speechkit.checks")
            operation = await client.get_operation(operation_id)
        except OperationNotFoundError as error:
            self.scheduler.gone(operation_id, time.monotonic())
            await self._deliver(PollResult(operation_id, PollOutcome.GONE, error=error))
        except QuotaExceededError as error:
            self._count("speechkit.responses_429")
            pause_s = self.scheduler.refused(operation_id, time.monotonic(), error.retry_after_s)
            log.warning("The quota of status checks is used up (429): all checks pause for %.0f s", pause_s)
        except SpeechKitError as error:
            await self._failed(operation_id, error)
        except (OSError, TimeoutError) as error:
            await self._failed(operation_id, UnreachableError(f"The check broke off ({type(error).__name__})"))
        else:
            await self._answered(operation)

    async def _answered(self, operation: Operation) -> None:
        now = time.monotonic()
        if operation.state is OperationState.RUNNING:
            age_s = None if operation.created_at is None else time.time() - operation.created_at.timestamp()
            self.scheduler.running(operation.id, now, age_s)
            return
        took_s = None
        if operation.created_at is not None and operation.modified_at is not None:
            took_s = (operation.modified_at - operation.created_at).total_seconds()
        delay_s = self.scheduler.ended(operation.id, now, took_s)
        self._count("speechkit.detections")
        if delay_s is not None and self._stats is not None:
            self._stats.timing("speechkit.detection_delay", delay_s * 1000.0)
        await self._deliver(PollResult(operation.id, PollOutcome.ENDED, operation))

    async def _failed(self, operation_id: str, error: SpeechKitError) -> None:
        self._count("speechkit.check_errors")
        for failed_id in self.scheduler.failed(operation_id, time.monotonic(), error):
            await self._give_up(failed_id, error)

    async def _give_up(self, operation_id: str, error: SpeechKitError) -> None:
        self.scheduler.forget(operation_id)
        await self._deliver(PollResult(operation_id, PollOutcome.UNANSWERED, error=error))

    async def _deliver(self, result: PollResult) -> None:
        subscriptions = self._subscriptions.pop(result.operation_id, [])
        for one in subscriptions:
            one.put(result)
        if result.operation is not None and len(result.operation.raw) >= LARGE_ANSWER:
            for one in subscriptions:
                await one.all_handled()

    def _write_gauges(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if self._stats is not None and (always or now - self._gauges_at >= _GAUGES_EVERY_S):
            self._gauges_at = now
            self._stats.gauge(f"speechkit.waiting.{self._stat_suffix}", len(self.scheduler.pending))
            self._stats.gauge(f"speechkit.budget_left.{self._stat_suffix}", self.scheduler.limiter.left(now))

    def _count(self, stat: str) -> None:
        if self._stats is not None:
            self._stats.incr(stat)


def _stat_suffix(key: Hashable) -> str:
    """Return what a poller's gauges end in. StatsD has no tags: the connection and the API version are in the name.

    Airflow drops a name with other characters, or with more than 250.
    """
    parts = []
    for part in map(str, key if isinstance(key, tuple) else (key,)):
        accepted = re.sub(r"[^A-Za-z0-9_-]", "_", part)[:100]
        parts.append(accepted if accepted == part else f"{accepted[:91]}_{sha256(part.encode()).hexdigest()[:8]}")
    return ".".join(parts)
