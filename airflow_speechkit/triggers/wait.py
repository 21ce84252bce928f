"""The one way to wait for operations: in a triggerer, or in a worker.

It polls through the connection's shared poller and archives each answer as it comes, until all operations have ended,
the time is over, or (for a task that is rescheduled between its checks) nothing is due for a while.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import (
    OperationNotFoundError,
    QuotaExceededError,
    ResultExpiredError,
    SpeechKitError,
    StorageError,
    error_from_json,
    unexpected,
)
from airflow_speechkit.redaction import where_it_came_from
from airflow_speechkit.triggers.result_archiver import ResultArchiver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.polling.poller import Poller, Results
    from airflow_speechkit.polling.target import PollTarget
    from airflow_speechkit.settings import ApiVersion

log = logging.getLogger(__name__)

#: The time of a wait that starts when its deadline is over, because no triggerer ran: its operations may have ended
#: long ago, so each is asked for once. Shorter than what is left until Airflow ends the deferral.
FIRST_ROUND_S = 120.0
#: A rescheduled task gives its worker back where nothing is due for so many seconds, and after so many at the latest.
IDLE_S, LONGEST_POKE_S = 10.0, 60.0
#: The task's log gets a line about its wait this often at most, in seconds.
LOG_EVERY_S = 300.0


@dataclass
class WaitResult:
    """What came of a wait.

    :param failed: operations that ended in an error
    :param not_found: operations that the service doesn't know
    :param left: how many have not ended, or have answers that are not archived
    :param of: how many were waited for
    :param error: why the wait was given up, before its time was over
    :param next_check_s: seconds until the next check, where it stopped because nothing was due
    """

    failed: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)
    left: int = 0
    of: int = 0
    error: SpeechKitError | None = None
    next_check_s: float | None = None

    def to_event(self) -> dict[str, Any]:
        """Return a trigger's event: ids and numbers, never a result."""
        return {**vars(self), "error": self.error and self.error.to_json()}

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> WaitResult:
        """Read what `to_event` returned, in this version or the one before."""
        # A wait can end in the triggerer before an upgrade, and its task go on after it. These were its other names.
        given = {"not_found" if name == "gone" else name: value for name, value in event.items() if name != "state"}
        return cls(**{**given, "error": given["error"] and error_from_json(given["error"])})


@dataclass(eq=False)
class OperationWait:
    """One task's wait.

    :param targets: what is waited for, each operation once
    :param speechkit_conn_id: the connection
    :param archive: the archive's URL; None: answers are not archived
    :param delete_after_archiving: v3: have the service delete a result once it is archived
    :param cautious: start at a tenth of the quota
    """

    targets: Sequence[PollTarget]
    _: KW_ONLY
    speechkit_conn_id: str
    archive: str | None
    delete_after_archiving: bool = False
    cautious: bool = False

    def __post_init__(self) -> None:
        #: Operations that have not ended; and those that have not, or whose answers are not archived.
        self.running = {one.operation_id for one in self.targets}
        self.left = set(self.running)
        self._result = WaitResult(of=len(self.targets))
        self._pollers: dict[ApiVersion, Poller] = {}

    async def run(self, deadline: float, *, exactly: bool = False, stop_when_idle: bool = False) -> WaitResult:
        """Wait.

        :param deadline: when to stop, in seconds since the epoch
        :param exactly: stop then, even if operations were not asked for yet
        :param stop_when_idle: stop where nothing is due for a while
        """
        left_s, result = deadline - time.time(), self._result
        try:
            async with (
                asyncio.timeout(left_s if exactly or left_s > 0.0 else FIRST_ROUND_S) as time_left,
                asyncio.TaskGroup() as tasks,
            ):
                versions = sorted({one.api_version for one in self.targets})
                waits = [tasks.create_task(self._wait_for(one)) for one in versions]
                if stop_when_idle:
                    result.next_check_s = await self._idle(waits)
                    if result.next_check_s is not None:
                        time_left.reschedule(-math.inf)
        except TimeoutError:
            result.error = None
        except ExceptionGroup as group:
            error = _first(group)
            if not isinstance(error, SpeechKitError):
                raise
            result.error = error
        result.left = len(self.left)
        result.failed.sort()
        result.not_found.sort()
        return result

    async def cancel_running(self) -> None:
        """Ask the service to cancel what has not ended: best effort."""
        async with _hook(self.speechkit_conn_id).async_client() as client:
            for target in [one for one in self.targets if one.operation_id in self.running]:
                operation_id = target.operation_id
                poller = await self._poller(target.api_version)
                # It goes to the host of the checks, and counts against their quota.
                await poller.request_allowed()
                try:
                    await client.cancel_operation(operation_id)
                    log.info("Asked the service to cancel operation %s", operation_id)
                except QuotaExceededError as error:
                    log.warning("The quota is used up, so the operations from %s on go on: %s", operation_id, error)
                    return
                except SpeechKitError as error:
                    log.warning("Operation %s was not cancelled: %s", operation_id, error)

    async def _idle(self, waits: Sequence[asyncio.Task[None]]) -> float | None:
        """Wait until nothing is due for a while; return the seconds until the next check, None where all have ended.

        A task that starts anew starts with a burst, so what this one has sent has to be earned until then.
        """
        stop_at = time.monotonic() + LONGEST_POKE_S
        while not all(wait.done() for wait in waits):
            await asyncio.wait(waits, timeout=0.5)
            schedulers = [one.scheduler for one in self._pollers.values()]
            # While checks fail or an answer can't be archived the task stays: it alone knows for how long they do.
            if not self.left or self.running != self.left or any(one.is_failing for one in schedulers):
                continue
            now = time.monotonic()
            idle_s = min((one.next_in_s(now) for one in schedulers), default=0.0)
            if idle_s > IDLE_S or now >= stop_at:
                return max([idle_s, *(one.limiter.sent(now) / one.limiter.rate(now) for one in schedulers)])
        return None

    async def _wait_for(self, api_version: ApiVersion) -> None:
        """Wait for operations of one API. While their archive can't be written, nothing is asked for."""
        poller = await self._poller(api_version)
        archiver = ResultArchiver(self.archive, delete_after_archiving=self.delete_after_archiving)
        targets = [one for one in self.targets if one.api_version is api_version]
        while left := [one for one in targets if one.operation_id in self.left]:
            try:
                async with poller.subscribed(left) as results, asyncio.TaskGroup() as tasks:
                    logged = tasks.create_task(self._log_progress(poller, left))
                    for _ in left:
                        await self._handle_next(results, poller, archiver, tasks)
                    logged.cancel()
            except* StorageError as errors:
                error = _first(errors)
                assert isinstance(error, StorageError)  # noqa: S101 - for the type checker
                await archiver.until_back(left[0].operation_id, error)

    async def _log_progress(self, poller: Poller, targets: Sequence[PollTarget]) -> None:
        while running := [one.operation_id for one in targets if one.operation_id in self.running]:
            next_check = poller.scheduler.next_check(running, time.monotonic())
            log.info("%s of %s operations left, %s", f"{len(running):,}", f"{len(self.targets):,}", next_check)
            await asyncio.sleep(LOG_EVERY_S)

    async def _handle_next(
        self, results: Results, poller: Poller, archiver: ResultArchiver, tasks: asyncio.TaskGroup
    ) -> None:
        result = await results.get()
        try:
            self.running.discard(result.operation_id)
            if isinstance(result.error, SpeechKitError):
                self._take_error(result.operation_id, result.error)
            elif result.error is not None:
                raise result.error
            elif result.operation is not None and result.operation.is_fetched_apart:
                tasks.create_task(self._archive_answer(result.operation, poller, archiver))
            elif result.operation is not None:
                await self._archive_answer(result.operation, poller, archiver)
        finally:
            results.task_done()

    async def _archive_answer(self, operation: Operation, poller: Poller, archiver: ResultArchiver) -> None:
        """Archive an answer.

        :raises StorageError: the archive can't be written: none of the other answers could be archived either
        """
        try:
            if await archiver.archive(operation, poller):
                self._result.failed.append(operation.id)
            self.left.discard(operation.id)
        except StorageError:
            raise
        except SpeechKitError as error:
            self._take_error(operation.id, error)
        except Exception as error:  # noqa: BLE001 - one bad answer must not end the others' waits
            log.error("Operation %s can't be archived: an unexpected %s", operation.id, where_it_came_from(error))
            self._take_error(operation.id, unexpected(operation.id, error))

    def _take_error(self, operation_id: str, error: SpeechKitError) -> None:
        self.left.discard(operation_id)
        if isinstance(error, (OperationNotFoundError, ResultExpiredError)):
            self._result.not_found.append(operation_id)
        else:
            self._result.error = self._result.error or error

    async def _poller(self, api_version: ApiVersion) -> Poller:
        from airflow.providers.common.compat.sdk import Stats

        from airflow_speechkit.polling.poller import shared_poller

        if api_version not in self._pollers:
            hook, key = _hook(self.speechkit_conn_id), (self.speechkit_conn_id, api_version.value)
            limiter = await hook.rate_limiter(api_version, cautious=self.cautious)
            self._pollers[api_version] = shared_poller(key, hook, limiter, stats=Stats)
        return self._pollers[api_version]


def _hook(conn_id: str) -> SpeechKitHook:
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

    return SpeechKitHook(conn_id)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
