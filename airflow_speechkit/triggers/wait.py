"""The one way to wait for operations: in a triggerer, or in a worker.

It polls through the connection's shared poller and archives each answer as it comes, until all operations have ended,
the time is over, or (for a task that is rescheduled between its checks) nothing is due for a while.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import (
    QuotaExceededError,
    ResultExpiredError,
    SpeechKitError,
    StorageError,
    error_from_json,
    unexpected,
)
from airflow_speechkit.polling.target import PollOutcome, PollResult, PollTarget
from airflow_speechkit.redaction import where_it_came_from
from airflow_speechkit.triggers.result_archiver import ResultArchiver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.polling.poller import Poller, Subscription
    from airflow_speechkit.settings import ApiVersion

log = logging.getLogger(__name__)

#: The least time of a wait that starts when its deadline is over, or nearly, because no triggerer ran: its operations
#: may have ended long ago, so each is asked for once. Shorter than what is left until Airflow ends the deferral.
FIRST_ROUND_S = 120.0
#: Operations that were submitted so recently have not been waited for before: a short `timeout` stays short.
NEW_S = 60.0
#: A rescheduled task gives its worker back where nothing is due for so many seconds, and after so many at the latest.
IDLE_S, LONGEST_POKE_S = 10.0, 60.0
#: The task's log gets a line about its wait this often at most, in seconds.
LOG_EVERY_S = 300.0


@dataclass(frozen=True)
class WaitResult:
    """What came of a wait.

    :param failed: operations that ended in an error
    :param gone: operations that the service doesn't know
    :param left: how many have not ended, or have answers that are not archived
    :param of: how many were waited for
    :param error: why the wait was given up, before its time was over
    :param next_check_s: seconds until the next check, where it stopped because nothing was due
    """

    failed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    left: int = 0
    of: int = 0
    error: SpeechKitError | None = None
    next_check_s: float | None = None

    def to_event(self) -> dict[str, Any]:
        """Return a trigger's event: ids and numbers, never a result.

        :return: ``state``: ``finished`` (with the ids that ``failed`` and those that are ``gone``), ``timeout`` (with
            how many are ``left``), both with how many there were (``of``); or ``error``, with `SpeechKitError.to_json`
        """
        if self.error is not None:
            return {"state": "error", **self.error.to_json()}
        if self.left:
            return {"state": "timeout", "left": self.left, "of": self.of}
        return {"state": "finished", "failed": self.failed, "gone": self.gone, "of": self.of}

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> WaitResult:
        """Read what `to_event` returned.

        :raises ValueError: it is no such event
        """
        numbers = {name: value for name, value in event.items() if name != "state"}
        if event.get("state") == "error":
            return cls(error=error_from_json(numbers))
        if event.get("state") in ("timeout", "finished"):
            return cls(**numbers)
        raise ValueError("This is no event of a wait")


class OperationWait:
    """One task's wait.

    :param targets: what is waited for
    :param speechkit_conn_id: the connection
    :param archive: the archive's URL; None: answers are not archived
    :param delete_after_archiving: v3: have the service delete a result once it is archived
    """

    def __init__(
        self,
        targets: Sequence[PollTarget],
        *,
        speechkit_conn_id: str,
        archive: str | None,
        delete_after_archiving: bool = False,
    ) -> None:
        self._targets = {one.operation_id: one for one in targets}
        self._conn_id = speechkit_conn_id
        self._archive = archive
        self._delete_after_archiving = delete_after_archiving
        #: Start at a tenth of the quota.
        self.cautious = False
        #: Operations that have not ended; and those that have not, or whose answers are not archived.
        self.running = set(self._targets)
        self.left = set(self._targets)
        self._failed: list[str] = []
        self._gone: list[str] = []
        self._error: SpeechKitError | None = None
        self._pollers: dict[ApiVersion, Poller] = {}

    async def run(self, deadline: float, *, exactly: bool = False, stop_when_idle: bool = False) -> WaitResult:
        """Wait.

        :param deadline: when to stop, in seconds since the epoch
        :param exactly: stop then, even if operations were not asked for yet
        :param stop_when_idle: stop where nothing is due for a while
        """
        by_version: dict[ApiVersion, list[str]] = defaultdict(list)
        for target in self._targets.values():
            by_version[target.api_version].append(target.operation_id)
        next_check_s: float | None = None
        try:
            async with (
                asyncio.timeout(self._time_s(deadline, time.time(), exactly=exactly)) as time_left,
                asyncio.TaskGroup() as tasks,
            ):
                waits = [tasks.create_task(self._wait_for(*group)) for group in by_version.items()]
                if stop_when_idle:
                    next_check_s = await self._idle(waits)
                    if next_check_s is not None:
                        time_left.reschedule(-math.inf)
        except TimeoutError:
            self._error = None
        except ExceptionGroup as group:
            error = _first(group)
            if not isinstance(error, SpeechKitError):
                raise
            self._error = error
        return WaitResult(
            sorted(self._failed), sorted(self._gone), len(self.left), len(self._targets), self._error, next_check_s
        )

    async def cancel_running(self) -> None:
        """Ask the service to cancel what has not ended: best effort."""
        async with _hook(self._conn_id).async_client() as client:
            for operation_id in sorted(self.running):
                poller = await self._poller(self._targets[operation_id].api_version)
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

    def _time_s(self, deadline: float, now: float, *, exactly: bool) -> float:
        left_s = deadline - now
        begun = [one.submitted_at for one in self._targets.values()]
        if exactly or (left_s > 0.0 and all(at is None or now - at <= NEW_S for at in begun)):
            return max(left_s, 0.0)
        return max(left_s, FIRST_ROUND_S)

    async def _idle(self, waits: Sequence[asyncio.Task[None]]) -> float | None:
        """Wait until nothing is due for a while; return the seconds until the next check, None where all have ended.

        A task that starts anew starts with a burst, so what this one has sent has to be earned until then.
        """
        stop_at = time.monotonic() + LONGEST_POKE_S
        while not all(wait.done() for wait in waits):
            await asyncio.wait(waits, timeout=0.5)
            pollers = self._pollers.values()
            # While checks fail or an answer can't be archived the task stays: it alone knows for how long they do.
            if not self.left or self.running != self.left or any(one.scheduler.is_failing for one in pollers):
                continue
            idle_s = min((one.next_check_in_s() for one in pollers), default=0.0)
            if idle_s > IDLE_S or time.monotonic() >= stop_at:
                return max([idle_s, *(one.earned_in_s() for one in pollers)])
        return None

    async def _wait_for(self, api_version: ApiVersion, operation_ids: Sequence[str]) -> None:
        """Wait for operations of one API. While their archive can't be written, nothing is asked for."""
        poller = await self._poller(api_version)
        archiver = None
        if self._archive is not None:
            archiver = ResultArchiver(self._archive, delete_after_archiving=self._delete_after_archiving)
        while left := [one for one in operation_ids if one in self.left]:
            try:
                async with (
                    poller.subscribed(self._targets[one] for one in left) as subscription,
                    asyncio.TaskGroup() as fetching,
                ):
                    await self._handle_results(subscription, poller, archiver, fetching)
            except ExceptionGroup as group:
                error = _first(group)
                if archiver is None or not isinstance(error, StorageError):
                    raise
                await archiver.until_back(left[0], error)

    async def _handle_results(
        self,
        subscription: Subscription,
        poller: Poller,
        archiver: ResultArchiver | None,
        fetching: asyncio.TaskGroup,
    ) -> None:
        log_at = -math.inf
        while not subscription.is_over:
            if time.monotonic() >= log_at and subscription.left:
                log_at = time.monotonic() + LOG_EVERY_S
                progress = f"{len(subscription.left):,} operations left, " if len(self._targets) > 1 else ""
                log.info("%s%s", progress, poller.reason(subscription))
            try:
                async with asyncio.timeout(LOG_EVERY_S) as silence:
                    result = await subscription.next()
            except TimeoutError:
                if silence.expired():
                    continue
                raise
            self.running.discard(result.operation_id)
            if result.operation is None:
                self._not_answered(result)
            elif archiver is not None and result.operation.is_fetched_apart:
                fetching.create_task(self._archive_answer(result.operation, poller, archiver))
            else:
                # A large answer counts among the poller's until the next one is asked for.
                await self._archive_answer(result.operation, poller, archiver)
            del result

    def _not_answered(self, result: PollResult) -> None:
        self.left.discard(result.operation_id)
        if result.outcome is PollOutcome.GONE:
            self._gone.append(result.operation_id)
        else:
            self._error = self._error or result.error

    async def _archive_answer(self, operation: Operation, poller: Poller, archiver: ResultArchiver | None) -> None:
        """Archive an answer.

        :raises StorageError: the archive can't be written: none of the other answers could be archived either
        """
        from airflow_speechkit.api.operation import OperationState

        failed = operation.state is OperationState.FAILED
        try:
            if archiver is not None:
                failed = await archiver.archive(operation, poller)
        except ResultExpiredError:
            self._gone.append(operation.id)
        except StorageError:
            raise
        except SpeechKitError as error:
            self._error = self._error or error
        except Exception as error:  # noqa: BLE001 - one bad answer must not end the others' waits
            log.error("Operation %s can't be archived: an unexpected %s", operation.id, where_it_came_from(error))
            self._error = self._error or unexpected(operation.id, error)
        else:
            if failed:
                self._failed.append(operation.id)
        self.left.discard(operation.id)

    async def _poller(self, api_version: ApiVersion) -> Poller:
        from airflow.providers.common.compat.sdk import Stats

        from airflow_speechkit.polling.poller import shared_poller

        if api_version not in self._pollers:
            hook = _hook(self._conn_id)
            limiter = await hook.rate_limiter(api_version, cautious=self.cautious)
            self._pollers[api_version] = shared_poller((self._conn_id, api_version.value), hook, limiter, stats=Stats)
        return self._pollers[api_version]


def _hook(conn_id: str) -> SpeechKitHook:
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

    return SpeechKitHook(conn_id)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
