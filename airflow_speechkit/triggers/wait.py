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
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import QuotaExceededError, ResultExpiredError, SpeechKitError, StorageError, unexpected
from airflow_speechkit.polling.target import PollOutcome, PollTarget
from airflow_speechkit.redaction import where_it_came_from
from airflow_speechkit.triggers.result_archiver import ResultArchiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.polling.poller import Poller
    from airflow_speechkit.settings import ApiVersion

log = logging.getLogger(__name__)

#: What a wait has at least that starts when its time is over, or nearly, because no triggerer was there: its operations
#: may have ended long ago, so each is asked for once. Shorter than what is left until Airflow itself ends the deferral.
FIRST_ROUND_S = 120.0
#: Operations that were submitted so recently have not been waited for before: a short `timeout` is meant to be short.
NEW_S = 60.0
#: A rescheduled task gives its worker back where nothing is due for so many seconds, and after so many at the latest.
IDLE_S, LONGEST_POKE_S = 10.0, 60.0
IDLE_LOOK_S = 0.5


@dataclass(frozen=True)
class WaitResult:
    """What came of a wait.

    :param failed: operations that ended in an error
    :param gone: operations that the service doesn't know
    :param left: operations that have not ended, or whose answers are not archived
    :param error: why the wait was given up, before its time was over
    :param next_check_s: seconds until the next check, where it stopped because nothing was due
    """

    failed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    error: SpeechKitError | None = None
    next_check_s: float | None = None


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
        #: Operations whose answers were dropped, since the archive can't be written.
        self._dropped: dict[Poller, list[PollTarget]] = defaultdict(list)

    async def run(self, deadline: float, *, exactly: bool = False, stop_when_idle: bool = False) -> WaitResult:
        """Wait.

        :param deadline: when to stop, in seconds since the epoch
        :param exactly: stop then, even if operations were not asked for yet
        :param stop_when_idle: stop where nothing is due for a while
        """
        groups: dict[ApiVersion, list[PollTarget]] = defaultdict(list)
        for target in self._targets.values():
            groups[target.api_version].append(target)
        archiver = None
        if self._archive is not None:
            delete = self._delete_after_archiving
            archiver = ResultArchiver(self._hook, self._archive, delete_after_archiving=delete)
        next_check_s: float | None = None
        try:
            async with (
                asyncio.timeout(self._time_s(deadline, time.time(), exactly=exactly)) as time_left,
                archiver or nullcontext(),
                asyncio.TaskGroup() as tasks,
            ):
                waits = [tasks.create_task(self._wait_for(group, archiver, tasks)) for group in groups.values()]
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
        return WaitResult(sorted(self._failed), sorted(self._gone), sorted(self.left), self._error, next_check_s)

    async def cancel_running(self) -> None:
        """Ask the service to cancel what has not ended: best effort."""
        hook = self._hook()
        async with hook.async_client() as client:
            for operation_id in sorted(self.running):
                poller = await self._poller(self._targets[operation_id].api_version)
                try:
                    # Each request of it goes to the host of the checks, and counts against their quota.
                    await client.cancel_operation(operation_id, poller.request_allowed)
                    log.info("Asked the service to cancel operation %s", operation_id)
                except QuotaExceededError as error:
                    log.warning("The quota is used up, so the operations from %s on go on: %s", operation_id, error)
                    return
                except SpeechKitError as error:
                    log.warning("Operation %s was not cancelled: %s", operation_id, error)

    def _time_s(self, deadline: float, now: float, *, exactly: bool) -> float:
        left_s = deadline - now
        if exactly:
            return max(left_s, 0.0)
        begun = [one.submitted_at for one in self._targets.values()]
        if left_s > 0.0 and all(at is None or now - at <= NEW_S for at in begun):
            return left_s
        return max(left_s, FIRST_ROUND_S)

    async def _idle(self, waits: Sequence[asyncio.Task[None]]) -> float | None:
        """Wait until nothing is due for a while; return the seconds until the next check, None where all have ended.

        A task that starts anew starts with a burst, so what this one has sent has to be earned until then.
        """
        stop_at = time.monotonic() + LONGEST_POKE_S
        while not all(wait.done() for wait in waits):
            await asyncio.wait(waits, timeout=IDLE_LOOK_S)
            pollers = self._pollers.values()
            idle_s = min((one.next_check_in_s() for one in pollers), default=0.0)
            # While checks fail or an answer can't be archived the task stays: it alone knows for how long they do.
            if not self.left or self.running != self.left or any(one.scheduler.is_failing for one in pollers):
                continue
            if idle_s > IDLE_S or time.monotonic() >= stop_at:
                return max([idle_s, *(one.earned_in_s() for one in pollers)])
        return None

    async def _wait_for(
        self,
        targets: Sequence[PollTarget],
        archiver: ResultArchiver | None,
        tasks: asyncio.TaskGroup,
        *,
        again: bool = False,
    ) -> None:
        poller = await self._poller(targets[0].api_version)
        # One whose answer is only fetched again has written all there is to write.
        async with poller.subscribed(targets, log=None if again else log) as results:
            async for result in results:
                operation_id = result.operation_id
                self.running.discard(operation_id)
                if result.operation is None:
                    self._not_answered(result.outcome, operation_id, result.error)
                elif archiver is not None and result.operation.is_fetched_apart:
                    tasks.create_task(self._archive_or_drop(result.operation, poller, archiver, tasks))
                else:
                    # An answer of megabytes counts among the poller's until the next one is asked for.
                    await self._archive_or_drop(result.operation, poller, archiver, tasks)
                # Nor is it kept until the next one comes.
                del result

    def _not_answered(self, outcome: PollOutcome, operation_id: str, error: SpeechKitError | None) -> None:
        self.left.discard(operation_id)
        if outcome is PollOutcome.GONE:
            self._gone.append(operation_id)
        else:
            self._error = self._error or error

    async def _archive_or_drop(
        self, operation: Operation, poller: Poller, archiver: ResultArchiver | None, tasks: asyncio.TaskGroup
    ) -> None:
        # While one waits for the archive no other is tried: one that doesn't answer takes minutes for each.
        if not self._dropped[poller] and await self._archived(archiver, operation):
            return
        self._dropped[poller].append(self._targets[operation.id])
        if len(self._dropped[poller]) == 1:
            tasks.create_task(self._wait_again(poller, archiver, tasks))

    async def _wait_again(self, poller: Poller, archiver: ResultArchiver | None, tasks: asyncio.TaskGroup) -> None:
        """Have answers again that were dropped, all together: within what checks may be spent."""
        assert archiver is not None  # noqa: S101 - without one nothing is dropped
        await archiver.archive_is_back(self._dropped[poller][0].operation_id)
        await self._wait_for(self._dropped.pop(poller), archiver, tasks, again=True)

    async def _archived(self, archiver: ResultArchiver | None, operation: Operation) -> bool:
        """Archive an answer; return False where it was dropped because the archive can't be written now."""
        from airflow_speechkit.api.operation import OperationState

        failed: bool | None = operation.state is OperationState.FAILED
        try:
            if archiver is not None:
                failed = await archiver.archive(operation)
        except ResultExpiredError:
            self._gone.append(operation.id)
        except StorageError:
            # None of the others could be archived either.
            raise
        except SpeechKitError as error:
            self._error = self._error or error
        except Exception as error:  # noqa: BLE001 - one bad answer must not end the others' waits
            log.error("Operation %s can't be archived: an unexpected %s", operation.id, where_it_came_from(error))
            self._error = self._error or unexpected(operation.id, error)
        else:
            if failed is None:
                return False
            if failed:
                self._failed.append(operation.id)
        self.left.discard(operation.id)
        return True

    async def _poller(self, api_version: ApiVersion) -> Poller:
        from airflow.providers.common.compat.sdk import Stats

        from airflow_speechkit.polling.poller import shared_poller

        if api_version not in self._pollers:
            limiter = await self._hook().rate_limiter(api_version, cautious=self.cautious)
            # Not this wait itself: others ask through this poller when it is long gone.
            conn_id = self._conn_id

            @asynccontextmanager
            async def open_check() -> AsyncIterator[Any]:
                # A hook reads its connection once: another key needs another one.
                async with _hook(conn_id).async_client() as client:
                    yield client.get_operation

            self._pollers[api_version] = shared_poller((conn_id, api_version.value), open_check, limiter, stats=Stats)
        return self._pollers[api_version]

    def _hook(self) -> SpeechKitHook:
        return _hook(self._conn_id)


def _hook(conn_id: str) -> SpeechKitHook:
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

    return SpeechKitHook(conn_id)


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
