"""Wait in the triggerer until operations have ended, and archive their answers there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_speechkit.compat import TRIGGERS_HAVE_ON_KILL, task_is_over
from airflow_speechkit.errors import QuotaExceededError, SpeechKitError
from airflow_speechkit.polling.waiting import Finished, Gone, Waiting
from airflow_speechkit.triggers.finishing import Finisher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.polling.poller import Poller

log = logging.getLogger(__name__)

#: Shorter than `[triggerer] on_kill_timeout`, which cuts `on_kill` off after 30 s. Airflow's first answer about a
#: task's state can take half of that.
CANCEL_TIMEOUT_S = 27.0

#: What a trigger has at least that starts when its time is over, or nearly, because no triggerer was there: its
#: operations may have ended long ago, so each is asked for once. Shorter than what is left until Airflow itself ends
#: the deferral.
FIRST_ROUND_S = 120.0
#: Operations that were submitted so recently have not been waited for before: a short `timeout` is meant to be short.
NEW_S = 60.0


class SpeechKitRecognitionTrigger(BaseTrigger):
    """Wait for operations of one connection; ends with one event that carries ids and states, never a result.

    All triggers of a connection in one triggerer share one poller, HTTP session, token and budget.

    :param waiting: what is waited for: the fields of `Waiting`, one mapping for each operation
    :param speechkit_conn_id: the connection (its secrets are read in the triggerer, never kept here)
    :param archive: the archive's URL; ``None``: answers are not archived
    :param deadline: when to give up, in seconds since the epoch: a restarted triggerer goes on with the same one
    :param cancel_on_kill: cancel the operations when a user has ended the task
    :param delete_after_archiving: v3: have the service delete a result once it is archived
    """

    def __init__(
        self,
        *,
        waiting: list[dict[str, Any]],
        speechkit_conn_id: str,
        archive: str | None,
        deadline: float,
        cancel_on_kill: bool = False,
        delete_after_archiving: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waiting = waiting
        self.speechkit_conn_id = speechkit_conn_id
        self.archive = archive
        self.deadline = deadline
        self.cancel_on_kill = cancel_on_kill
        self.delete_after_archiving = delete_after_archiving
        #: What isn't through, and of that what hasn't ended.
        self._left = {one["operation_id"] for one in waiting}
        self._running = set(self._left)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what a triggerer needs to go on: no secret, no result."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "waiting": self.waiting,
                "speechkit_conn_id": self.speechkit_conn_id,
                "archive": self.archive,
                "deadline": self.deadline,
                "cancel_on_kill": self.cancel_on_kill,
                "delete_after_archiving": self.delete_after_archiving,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and end with one event: see `execute_complete` of the sensor for its fields."""
        try:
            event = await self._wait()
        except asyncio.CancelledError:
            # Before 3.3 this is all a trigger hears of a user who ends its task, and a restarting triggerer
            # looks the same: the task's state tells them apart.
            if not TRIGGERS_HAVE_ON_KILL:
                await self._cancel_despite_cancellation()
            raise
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the operations, where that was asked for and the task is really over (Airflow 3.3 and later)."""
        await self._cancel_despite_cancellation()

    async def _cancel_despite_cancellation(self) -> None:
        """See the cancelling through: at each turn of its loop Airflow cancels again what is not gone yet."""
        if not self.cancel_on_kill or not self._running:
            return
        cancelling = asyncio.create_task(self._cancel_if_ended())
        while not cancelling.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(cancelling)

    async def _wait(self) -> dict[str, Any]:
        groups: dict[str, list[Waiting]] = defaultdict(list)
        for one in self.waiting:
            groups[one.get("api_version", "v2")].append(Waiting(**one))
        finisher = Finisher(self._hook, self.archive, delete_after_archiving=self.delete_after_archiving)
        try:
            async with (
                asyncio.timeout(self._time_s(time.time())),
                finisher,
                asyncio.TaskGroup() as tasks,
            ):
                for api_version, waiting in groups.items():
                    tasks.create_task(self._wait_for(api_version, waiting, finisher, tasks))
        except TimeoutError:
            return {"state": "timeout", "left": len(self._left), "of": len(self.waiting)}
        except ExceptionGroup as group:
            error = _first(group)
            if not isinstance(error, SpeechKitError):
                raise
            return _error_event(error)
        if finisher.errors:
            return _error_event(finisher.errors[0])
        return {"state": "finished", "failed": sorted(finisher.failed), "gone": sorted(finisher.gone)}

    def _time_s(self, now: float) -> float:
        """Return how long to wait, in seconds."""
        left_s = self.deadline - now
        if left_s > 0.0 and all(now - one["submitted_at"] <= NEW_S for one in self.waiting):
            return left_s
        return max(left_s, FIRST_ROUND_S)

    async def _wait_for(
        self,
        api_version: str,
        waiting: list[Waiting],
        finisher: Finisher,
        tasks: asyncio.TaskGroup,
        *,
        again: bool = False,
    ) -> None:
        poller = await self._poller(self._hook(), api_version)
        known = {one.operation_id: one for one in waiting}
        # One whose answer is only fetched again has said all there is to say.
        async with poller.waiting(waiting, log=None if again else log) as endings:
            async for ending in endings:
                self._running.discard(ending.operation_id)
                if isinstance(ending, Finished):
                    if finisher.waits_for_result(ending.operation):
                        tasks.create_task(self._fetch(finisher, ending.operation))
                    # An answer of megabytes counts among the poller's until the next one is asked for.
                    elif not await self._finish(finisher, ending.operation):
                        tasks.create_task(self._wait_again(api_version, known[ending.operation_id], finisher, tasks))
                else:
                    if isinstance(ending, Gone):
                        finisher.gone.append(ending.operation_id)
                    else:
                        finisher.errors.append(ending.error)
                    self._left.discard(ending.operation_id)
                # Nor is it kept until the next one comes.
                del ending

    async def _wait_again(
        self, api_version: str, waiting: Waiting, finisher: Finisher, tasks: asyncio.TaskGroup
    ) -> None:
        """Have an answer again that was dropped because the archive was away: within what checks may be spent."""
        await finisher.archive_is_back(waiting.operation_id)
        await self._wait_for(api_version, [waiting], finisher, tasks, again=True)

    async def _fetch(self, finisher: Finisher, operation: Operation) -> None:
        while not await self._finish(finisher, operation):
            await finisher.archive_is_back(operation.id)

    async def _finish(self, finisher: Finisher, operation: Operation) -> bool:
        through = await finisher.finish(operation)
        if through:
            self._left.discard(operation.id)
        return through

    async def _poller(self, hook: SpeechKitHook, api_version: str) -> Poller:
        from airflow.providers.common.compat.sdk import Stats

        from airflow_speechkit.polling.poller import shared_poller

        budget = await hook.check_budget(api_version)
        # Not the trigger itself: others ask through this poller when it is long gone.
        conn_id = self.speechkit_conn_id

        @asynccontextmanager
        async def open_check() -> AsyncIterator[Any]:
            # A hook reads its connection once: another key needs another one.
            async with _hook(conn_id).async_client() as client:
                yield client.get_operation

        return shared_poller((self.speechkit_conn_id, api_version), open_check, budget, stats=Stats)

    def _hook(self) -> SpeechKitHook:
        return _hook(self.speechkit_conn_id)

    async def _cancel_if_ended(self) -> None:
        """Cancel what is still running, but only if the task instance is in a state it doesn't leave by itself.

        A trigger that moves to another triggerer is killed just like one whose task was ended by a user
        (Airflow 3.3.0 to 3.3.2), and after a clear the next attempt already waits for the same operations.
        """
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                if await asyncio.to_thread(task_is_over, self.task_instance):
                    await self._cancel_left()
        except TimeoutError:
            log.warning("Not every operation could be cancelled within %g s", CANCEL_TIMEOUT_S)
        except SpeechKitError as error:
            log.warning("The operations were not cancelled: %s", error)

    async def _cancel_left(self) -> None:
        hook = self._hook()
        versions = {one["operation_id"]: one.get("api_version", "v2") for one in self.waiting}
        pollers: dict[str, Poller] = {}
        async with hook.async_client() as client:
            for operation_id in sorted(self._running):
                version = versions[operation_id]
                if version not in pollers:
                    pollers[version] = await self._poller(hook, version)
                try:
                    # Each request of it goes to the host of the checks, and is one of those that are rationed there.
                    await client.cancel_operation(operation_id, pollers[version].request_allowed)
                    log.info("Asked the service to cancel operation %s", operation_id)
                except QuotaExceededError as error:
                    log.warning("The quota is used up, so the operations from %s on go on: %s", operation_id, error)
                    return
                except SpeechKitError as error:
                    log.warning("Operation %s was not cancelled: %s", operation_id, error)


def _hook(conn_id: str) -> SpeechKitHook:
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

    return SpeechKitHook(conn_id)


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _error_event(error: SpeechKitError) -> dict[str, Any]:
    return {
        "state": "error",
        "kind": type(error).__name__,
        "message": str(error),
        "retry_can_help": error.retry_can_help,
    }
