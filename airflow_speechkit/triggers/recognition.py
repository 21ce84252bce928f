"""Wait in the triggerer until operations have ended, and archive their answers there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_speechkit.compat import TERMINAL_TASK_STATES, TRIGGERS_HAVE_ON_KILL, read_task_state
from airflow_speechkit.errors import RecognitionFailedError, ResultExpiredError, SpeechKitError, StorageError
from airflow_speechkit.hooks.archive import RETRY_PAUSES_S
from airflow_speechkit.polling.waiting import Finished, Gone, Waiting
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.polling.poller import Poller

log = logging.getLogger(__name__)

#: Credentials of the archive's storage may change while a triggerer lives.
ARCHIVE_REOPENED_EVERY_S = 600.0

#: Shorter than `[triggerer] on_kill_timeout`, which cuts `on_kill` off after 30 s. Airflow's first answer about a
#: task's state can take half of that.
CANCEL_TIMEOUT_S = 27.0


@dataclass
class _Ended:
    """How operations have ended, but for those that finished."""

    failed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unanswered: list[SpeechKitError] = field(default_factory=list)


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
        self._left = {one["operation_id"] for one in waiting}

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
                await self._insist()
            raise
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the operations, where that was asked for and the task is really over (Airflow 3.3 and later)."""
        await self._insist()

    async def _insist(self) -> None:
        """See the cancelling through: at each turn of its loop Airflow cancels again what is not gone yet."""
        if not self.cancel_on_kill or not self._left:
            return
        cancelling = asyncio.create_task(self._cancel_if_ended())
        while not cancelling.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(cancelling)

    async def _wait(self) -> dict[str, Any]:
        ended = _Ended()
        groups: dict[str, list[Waiting]] = defaultdict(list)
        for one in self.waiting:
            groups[one.get("api_version", "v2")].append(Waiting(**one))
        try:
            async with asyncio.timeout(max(0.0, self.deadline - time.time())), asyncio.TaskGroup() as tasks:
                for api_version, waiting in groups.items():
                    tasks.create_task(self._wait_for(api_version, waiting, ended))
        except TimeoutError:
            return {"state": "timeout", "left": len(self._left), "of": len(self.waiting)}
        except ExceptionGroup as group:
            error = _first(group)
            if not isinstance(error, SpeechKitError):
                raise
            return _error_event(error)
        if ended.unanswered:
            return _error_event(ended.unanswered[0])
        return {"state": "finished", "failed": sorted(ended.failed), "gone": sorted(ended.gone)}

    async def _wait_for(self, api_version: str, waiting: list[Waiting], ended: _Ended) -> None:
        hook = self._hook()
        async with AsyncExitStack() as opened:
            # Of v2 the check itself brings the result.
            client = await opened.enter_async_context(hook.async_client()) if api_version == "v3" else None
            poller = await self._poller(hook, api_version)
            endings = await opened.enter_async_context(poller.waiting(waiting, log=log))
            async for ending in endings:
                if isinstance(ending, Finished):
                    await self._finish(ending, client, ended)
                elif isinstance(ending, Gone):
                    ended.gone.append(ending.operation_id)
                else:
                    ended.unanswered.append(ending.error)
                self._left.discard(ending.operation_id)

    async def _finish(self, ending: Finished, client: Any, ended: _Ended) -> None:
        try:
            failed = await self._keep(ending, client)
        except ResultExpiredError:
            ended.gone.append(ending.operation_id)
        except StorageError:
            # None of the others could be archived either.
            raise
        except SpeechKitError as error:
            ended.unanswered.append(error)
        else:
            if failed:
                ended.failed.append(ending.operation_id)

    async def _poller(self, hook: SpeechKitHook, api_version: str) -> Poller:
        from airflow.providers.common.compat.sdk import Stats

        from airflow_speechkit.polling.poller import shared_poller

        budget = await hook.check_budget(api_version)

        @asynccontextmanager
        async def open_check() -> AsyncIterator[Any]:
            async with hook.async_client() as client:
                yield client.get_operation

        return shared_poller((self.speechkit_conn_id, api_version), open_check, budget, stats=Stats)

    async def _keep(self, ending: Finished, client: Any) -> bool:
        """Archive an answer, or leave it to the next try of the task: the service has it for three days.

        :return: whether the operation has failed
        """
        from airflow_speechkit.api.operation import OperationState

        operation_id = ending.operation_id
        failed = ending.operation.state is OperationState.FAILED
        if self.archive is None:
            return failed
        # The operation says for certain what was guessed of one that no archive knows.
        fetch = ending.operation.api_version is ApiVersion.V3 and not failed
        if fetch and client is None:
            async with self._hook().async_client() as opened:
                return await self._keep(ending, opened)
        recognition: bytes | None = None
        broken: RecognitionFailedError | None = None
        for pause_s in (*RETRY_PAUSES_S, None):
            try:
                if fetch and recognition is None:
                    recognition = await client.get_recognition(operation_id, seen_done=True)
                await asyncio.to_thread(_archive, self.archive, ending, recognition, None)
                break
            except RecognitionFailedError as error:
                # A v3 result that breaks off with an error, which may have been the service's bad moment.
                broken = error
            except SpeechKitError as error:
                if pause_s is None or not error.retry_can_help:
                    raise
                log.warning("Operation %s can't be archived yet; again in %g s: %s", operation_id, pause_s, error)
            if pause_s is None:
                await asyncio.to_thread(_archive, self.archive, ending, None, broken)
                return True
            await asyncio.sleep(pause_s)
        if fetch and self.delete_after_archiving:
            await self._delete(client, operation_id)
        return failed

    async def _delete(self, client: Any, operation_id: str) -> None:
        try:
            await client.delete_recognition(operation_id)
        except SpeechKitError as error:
            # It is archived, and the service forgets it after three days anyway.
            log.warning("The service still has the result of operation %s: %s", operation_id, error)

    def _hook(self) -> SpeechKitHook:
        from airflow_speechkit.hooks.speechkit import SpeechKitHook

        return SpeechKitHook(self.speechkit_conn_id)

    async def _cancel_if_ended(self) -> None:
        """Cancel what is still running, but only if the task instance is in a state it doesn't leave by itself.

        A trigger that moves to another triggerer is killed just like one whose task was ended by a user
        (Airflow 3.3.0 to 3.3.2), and after a clear the next attempt already waits for the same operations.
        """
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                if await self._is_over():
                    await self._cancel_left()
        except TimeoutError:
            log.warning("Not every operation could be cancelled within %g s", CANCEL_TIMEOUT_S)
        except SpeechKitError as error:
            log.warning("The operations were not cancelled: %s", error)

    async def _is_over(self) -> bool:
        try:
            state = await asyncio.to_thread(read_task_state, self.task_instance)
        except Exception as error:  # noqa: BLE001 - whatever hides the state, not knowing it forbids to cancel
            log.warning("The task's state can't be read (%s): its operations go on", type(error).__name__)
            return False
        if state not in TERMINAL_TASK_STATES:
            log.info("The task is %s: its operations go on", state)
            return False
        return True

    async def _cancel_left(self) -> None:
        async with self._hook().async_client() as client:
            for operation_id in sorted(self._left):
                try:
                    await client.cancel_operation(operation_id)
                    log.info("Asked the service to cancel operation %s", operation_id)
                except SpeechKitError as error:
                    log.warning("Operation %s was not cancelled: %s", operation_id, error)


@lru_cache(maxsize=64)
def _open(url: str, age: int) -> Archive:
    """Open an archive once for all triggers: `age` changes now and then, so that new credentials get in."""
    from airflow_speechkit.hooks.archive import open_archive

    return open_archive(url)


def _archive(url: str, ending: Finished, recognition: bytes | None, broken: RecognitionFailedError | None) -> None:
    from airflow_speechkit.hooks.archive import keep_operation

    archive = _open(url, int(time.monotonic() // ARCHIVE_REOPENED_EVERY_S))
    keep_operation(archive, ending.operation, recognition, broken)


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
