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
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow_speechkit.api.operation import OperationState
from airflow_speechkit.errors import (
    OperationNotFoundError,
    QuotaExceededError,
    SpeechKitError,
    UnreachableError,
    unexpected,
)
from airflow_speechkit.polling.schedule import DurationKind, DurationModel
from airflow_speechkit.polling.scheduler import Scheduler
from airflow_speechkit.polling.target import PollResult, PollTarget
from airflow_speechkit.redaction import where_it_came_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.polling.rate_limit import RateLimiter

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

#: The connection, and the API version.
PollerKey = tuple[str, str]
#: One task's results, one for each operation: `task_done` says that the last one was handled.
Results = asyncio.Queue[PollResult]

_pollers: dict[tuple[asyncio.AbstractEventLoop, PollerKey], Poller] = {}
#: What was spent and learned outlives its loop: `dag.test` runs each trigger in a loop of its own. Not locked: a
#: process of Airflow's runs one such loop at a time.
_known: dict[PollerKey, tuple[RateLimiter, dict[DurationKind, DurationModel]]] = {}


def shared_poller(key: PollerKey, hook: Any, limiter: RateLimiter, *, stats: Any = None) -> Poller:
    """Return the poller of this connection in the running event loop.

    :param key: the connection, and whatever else makes a difference to the client
    :param hook: its `async_client` is opened when the first task waits
    :param limiter: used by the first; those after it only set another limit, where the connection has another one now
    :param stats: Airflow's `Stats`, where the metrics go
    """
    for closed in [one for one in _pollers if one[0].is_closed()]:
        del _pollers[closed]
    loop_key = asyncio.get_running_loop(), key
    if loop_key not in _pollers:
        known = _known.setdefault(key, (limiter, {kind: DurationModel(kind) for kind in DurationKind}))
        _pollers[loop_key] = Poller(key, Scheduler(*known), stats)
    poller = _pollers[loop_key]
    poller.hook = hook
    shared = poller.scheduler.limiter
    shared.limit, shared.window_s = limiter.limit, limiter.window_s
    return poller


class Poller:
    """Asks for the operations of all tasks that wait through one connection in one event loop.

    :param key: what it is shared by
    :param scheduler: decides what to ask for
    :param stats: where the metrics go
    """

    hook: Any

    def __init__(self, key: PollerKey, scheduler: Scheduler, stats: Any = None) -> None:
        self.key = key
        self.scheduler = scheduler
        #: Open while a task waits.
        self.client: Any = None
        self.fetches = asyncio.Semaphore(RESULTS_AT_ONCE)
        self._stats = stats
        self._gauges_at = -math.inf
        self._waiting: dict[str, list[Results]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    async def request_allowed(self) -> None:
        """Wait until the limiter lets one more request to the operations host out, and spend it: for a cancel."""
        limiter, now = self.scheduler.limiter, time.monotonic()
        wait_s = limiter.wait_s(now, reserved=True)
        # The checks go on after it.
        limiter.spend(now + wait_s)
        await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def subscribed(self, targets: Iterable[PollTarget]) -> AsyncIterator[Results]:
        """Wait for operations as long as the context is open; each gets one result.

        :param targets: what is waited for, each operation once
        """
        results, targets = Results(), list(targets)
        try:
            if self._runner is None:
                # Not in the context of the first task: what is logged there is about all of them.
                self._runner = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
            for number, target in enumerate(targets, 1):
                self._waiting.setdefault(target.operation_id, []).append(results)
                age_s = None if target.submitted_at is None else time.time() - target.submitted_at
                self.scheduler.add(target, results, time.monotonic(), age_s)
                if number % _ADDED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            self._woken.set()
            yield results
        finally:
            await self._unsubscribe(results, targets)

    async def _unsubscribe(self, results: Results, targets: Iterable[PollTarget]) -> None:
        for target in targets:
            others = self._waiting.get(target.operation_id, [])
            if results in others:
                others.remove(results)
                if not others:
                    del self._waiting[target.operation_id]
                    self.scheduler.forget(target.operation_id)
        while not results.empty():
            results.get_nowait()
            results.task_done()
        if not self._waiting and self._runner is not None:
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
                    turn = self.scheduler.turn(time.monotonic())
                    self._write_gauges()
                    if turn.operation_id is None:
                        places.release()
                        self._woken.clear()
                        # Not `wait_for`: that of Python 3.11 can swallow the cancellation.
                        with suppress(TimeoutError):
                            async with asyncio.timeout(min(turn.wait_s, 3600.0) + 0.001):
                                await self._woken.wait()
                    else:
                        checks.create_task(self._ask(places, turn.operation_id))
        except Exception as error:  # noqa: BLE001 - no connection, or a defect: it ends the waits of all tasks
            if self._runner is asyncio.current_task():
                self._runner = None
                for operation_id in list(self._waiting):
                    await self._deliver(PollResult(operation_id, error=error))
                self._write_gauges(always=True)

    async def _ask(self, places: asyncio.Semaphore, operation_id: str) -> None:
        try:
            await self._check(operation_id)
        except asyncio.CancelledError:
            self.scheduler.put_back(operation_id, time.monotonic())
            raise
        except Exception as error:  # noqa: BLE001 - one bad answer must not end the others' waits
            log.error("The wait for operation %s ends in an unexpected %s", operation_id, where_it_came_from(error))
            await self._deliver(PollResult(operation_id, error=unexpected(operation_id, error)))
        finally:
            places.release()
            self._woken.set()

    async def _check(self, operation_id: str) -> None:
        turn_at = time.monotonic()
        try:
            await self.client.authorize()
            if time.monotonic() - turn_at > _LATE_S:
                self.scheduler.put_back(operation_id, time.monotonic())
                return
            self._count("speechkit.checks")
            operation = await self.client.get_operation(operation_id)
        except OperationNotFoundError as error:
            self.scheduler.answered(time.monotonic())
            await self._deliver(PollResult(operation_id, error=error))
        except QuotaExceededError as error:
            self._count("speechkit.responses_429")
            pause_s = self.scheduler.refused(operation_id, time.monotonic(), error.retry_after_s)
            log.warning("The quota of status checks is used up (429): all checks pause for %.0f s", pause_s)
        except (SpeechKitError, OSError) as error:
            if not isinstance(error, SpeechKitError):
                error = UnreachableError(f"The check broke off ({type(error).__name__})")
            self._count("speechkit.check_errors")
            for failed_id in self.scheduler.failed(operation_id, time.monotonic(), error):
                await self._deliver(PollResult(failed_id, error=error))
        else:
            await self._answered(operation)

    async def _answered(self, operation: Operation) -> None:
        now, created_at, ended_at = time.monotonic(), operation.created_at, operation.modified_at
        if operation.state is OperationState.RUNNING:
            age_s = None if created_at is None else time.time() - created_at.timestamp()
            self.scheduler.running(operation.id, now, age_s)
            return
        took_s = (ended_at - created_at).total_seconds() if created_at and ended_at else None
        delay_s = self.scheduler.ended(operation.id, now, took_s)
        self._count("speechkit.detections")
        if delay_s is not None and self._stats is not None:
            self._stats.timing("speechkit.detection_delay", delay_s * 1000.0)
        await self._deliver(PollResult(operation.id, operation))

    async def _deliver(self, result: PollResult) -> None:
        self.scheduler.forget(result.operation_id)
        waiting = self._waiting.pop(result.operation_id, [])
        for results in waiting:
            results.put_nowait(result)
        if result.operation is not None and len(result.operation.raw) >= LARGE_ANSWER:
            for results in waiting:
                await results.join()

    def _write_gauges(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if self._stats is not None and (always or now - self._gauges_at >= _GAUGES_EVERY_S):
            self._gauges_at = now
            # StatsD has no tags: the connection and the API version are in the name. Airflow drops other characters.
            suffix = ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", part)[:100] for part in self.key)
            self._stats.gauge(f"speechkit.waiting.{suffix}", len(self.scheduler.pending))
            self._stats.gauge(f"speechkit.budget_left.{suffix}", self.scheduler.limiter.left(now))

    def _count(self, stat: str) -> None:
        if self._stats is not None:
            self._stats.incr(stat)
