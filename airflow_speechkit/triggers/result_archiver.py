"""Puts the answer of an operation that has ended into the archive, in whichever mode the task waits.

An archive that doesn't answer holds each thread that uses it for minutes. In the event loop's own threads that would
stop everything else that the triggers of this process do there, so each archive has a few threads of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import RECOGNITION_FILE
from airflow_speechkit.archive.ledger import RESULTS_KEPT
from airflow_speechkit.errors import (
    ArchiveError,
    InvalidRequestError,
    LostError,
    OperationNotFoundError,
    QuotaExceededError,
    RecognitionFailedError,
    SpeechKitError,
    StorageError,
)
from airflow_speechkit.retry import FailureStreak, RetryPolicy, policy_for
from airflow_speechkit.storage.compressed import Packed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.speechkit import SpeechKitHook
    from airflow_speechkit.polling.poller import Poller

log = logging.getLogger(__name__)

#: A v3 result that breaks off with an error is fetched again: that may have been temporary. After these the recognition
#: counts as failed.
REFETCH_RETRY = RetryPolicy(5.0, 40.0, give_up_failures=4)
#: The first pause after an answer was dropped is no shorter: having it again costs a check.
DROPPED_S = 60.0
#: Results of v3 that one task fetches side by side.
FETCHED_AT_ONCE = 4
#: Threads for one archive.
WRITTEN_AT_ONCE = 4
#: Credentials of the archive's storage may change while a triggerer runs.
REOPENED_EVERY_S = 600.0
#: An archive that has not answered for so long counts as out of reach: its own timeouts add up to many minutes. Enough
#: for the largest answer on a slow line, and for a burst of answers that are queued.
ANSWERS_WITHIN_S = 600.0

#: Another request would end in the same way.
_FINAL = (LostError, OperationNotFoundError, InvalidRequestError)


class ResultArchiver:
    """Fetches, archives and deletes the results of what one task waits for.

    :param url: the archive's; None: nothing is archived
    :param delete_after_archiving: v3: have the service delete a result once it is archived
    """

    def __init__(self, url: str | None, *, delete_after_archiving: bool) -> None:
        self._url = url
        self._delete_after_archiving = delete_after_archiving
        self._places = asyncio.Semaphore(FETCHED_AT_ONCE)
        #: Of the archive, whichever operation's answer it should have taken.
        self._archive_streak = FailureStreak()

    async def archive(self, operation: Operation, poller: Poller) -> bool:
        """Archive the answer of an operation that has ended.

        :param poller: its client fetches what is not in the answer
        :return: whether the operation counts as failed
        :raises StorageError: the archive can't be written now: drop the answer, await `until_back`, and ask for the
            operation again. Answers of megabytes, held meanwhile, would fill the memory
        :raises SpeechKitError: it can't be archived; the service keeps a result for three days, so a retry goes on
        """
        if self._url is None or not operation.is_fetched_apart:
            return await self._write(operation)
        breaks, streak = REFETCH_RETRY.pauses_s(), FailureStreak()
        while True:
            async with self._places, poller.fetches:
                try:
                    recognition = await poller.client.get_recognition(operation.id)
                except SpeechKitError as error:
                    if not isinstance(error, RecognitionFailedError):
                        pause_s = _pause_after(error, streak)
                    elif not (pause_s := next(breaks, 0.0)):
                        return await self._write(operation, broken=error)
                    log.warning("The result of operation %s is fetched again in %g s: %s", operation.id, pause_s, error)
                else:
                    failed = await self._write(operation, recognition)
                    # One that is too large to be read stays with the service for its three days.
                    if self._delete_after_archiving and not isinstance(recognition, Packed):
                        await self._delete(operation.id, poller)
                    return failed
            await asyncio.sleep(pause_s)

    async def until_back(self, operation_id: str, error: StorageError) -> None:
        """Wait until the archive can be read again.

        :param operation_id: whose answer could not be archived
        :param error: why
        :raises StorageError: it can't come back by itself, or has been out of reach for too long
        """
        pause_s = max(_pause_after(error, self._archive_streak), DROPPED_S)
        while True:
            log.warning("Operation %s can't be archived yet, the next try is in %g s: %s", operation_id, pause_s, error)
            await asyncio.sleep(pause_s)
            try:
                return await use_archive(str(self._url), lambda archive: archive.outcome(operation_id))
            except StorageError as still:
                # A damaged file of this operation says nothing about the archive.
                if not still.retry_can_help:
                    return
                pause_s, error = _pause_after(still, self._archive_streak), still

    async def _delete(self, operation_id: str, poller: Poller) -> None:
        # Best effort: the service deletes it after three days.
        try:
            await poller.client.delete_recognition(operation_id)
        except SpeechKitError as error:
            log.warning("The result of operation %s was not deleted at the service: %s", operation_id, error)

    async def _write(
        self, operation: Operation, recognition: bytes | None = None, broken: RecognitionFailedError | None = None
    ) -> bool:
        from airflow_speechkit.api.operation import OperationState

        if self._url is not None:
            await use_archive(self._url, lambda archive: archive.keep_operation(operation, recognition, broken))
            self._archive_streak.clear()
        return operation.state is OperationState.FAILED or broken is not None


async def use_archive(url: str, do: Callable[[Archive], object]) -> None:
    """Do something with an archive, in one of its threads.

    :param url: the archive's
    :param do: is not called any more once nothing waits for it
    :raises StorageError: it can't be done, or the archive doesn't answer
    """
    from asgiref.sync import sync_to_async

    to_do = [do]

    def work() -> None:
        if to_do:
            to_do.pop()(_opened(url, int(time.monotonic() // REOPENED_EVERY_S)))

    # By asgiref, since Airflow 3.0 and 3.1 find the triggerer's event loop from no other thread. Shielded, since they
    # lose the triggerer's connection to its supervisor when they are cancelled while they look something up.
    working = asyncio.shield(sync_to_async(work, thread_sensitive=False, executor=_threads(url))())
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            await working
    except TimeoutError:
        raise ArchiveError(f"The archive at {url} has not answered for {ANSWERS_WITHIN_S:g} s") from None
    finally:
        to_do.clear()


def _pause_after(error: SpeechKitError, streak: FailureStreak) -> float:
    """Count one more failure; return how long to wait then, in seconds.

    :raises SpeechKitError: the error, where it can't pass or there have been too many
    """
    # A storage that can't be reached may be back in a minute; a missing right or a damaged file isn't.
    if isinstance(error, _FINAL) or (isinstance(error, StorageError) and not error.retry_can_help):
        raise error
    policy = policy_for(error)
    is_exhausted = streak.add(policy, asyncio.get_running_loop().time())
    pause_s = policy.pause_s(streak.failures)
    # A quota is full again after a while, however long that takes.
    if isinstance(error, QuotaExceededError):
        return max(pause_s, error.retry_after_s or 0.0)
    if is_exhausted:
        raise error
    return pause_s


@cache
def _threads(url: str) -> ThreadPoolExecutor:
    """Return an archive's threads: this process waits for a few archives."""
    return ThreadPoolExecutor(WRITTEN_AT_ONCE, thread_name_prefix="speechkit-archive")


@lru_cache(maxsize=64)
def _opened(url: str, age: int) -> Archive:
    """Open an archive once for all: `age` changes now and then, so that new credentials are used."""
    from airflow_speechkit.hooks.archive import open_archive

    return open_archive(url)


def delete_archived_results(outcomes: Mapping[str, Outcome | None], hook: SpeechKitHook) -> None:
    """Have the service delete v3 results that were archived before: a task may end between archiving and deleting one.

    :param outcomes: how operations ended, by their ids
    """
    for operation_id, outcome in outcomes.items():
        if outcome is None or RECOGNITION_FILE not in outcome.files or datetime.now(UTC) - outcome.at >= RESULTS_KEPT:
            continue
        try:
            hook.delete_recognition(operation_id)
        except SpeechKitError as error:
            log.warning("The result of operation %s was not deleted at the service: %s", operation_id, error)
            return
