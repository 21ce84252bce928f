"""Puts the answer of an operation that has ended into the archive, in whichever mode the task waits."""

from __future__ import annotations

import asyncio
import logging
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_speechkit.archive.layout import RECOGNITION_FILE
from airflow_speechkit.archive.ledger import RESULTS_KEPT
from airflow_speechkit.errors import (
    InvalidRequestError,
    LostError,
    OperationNotFoundError,
    QuotaExceededError,
    RecognitionFailedError,
    SpeechKitError,
    StorageError,
)
from airflow_speechkit.hooks.archive import read_submissions
from airflow_speechkit.retry import FailureStreak, RetryPolicy, policy_for
from airflow_speechkit.storage.compressed import Packed
from airflow_speechkit.triggers.archive_access import archive_access

if TYPE_CHECKING:
    from collections.abc import Mapping

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
#: Seconds between lines in the log about failed tries, at least.
WARN_EVERY_S = 60.0

#: Another request would end in the same way.
_FINAL = (LostError, OperationNotFoundError, InvalidRequestError)


class ResultArchiver:
    """Fetches, archives and deletes the results of what one task waits for.

    :param archive: the archive's URL
    :param delete_after_archiving: v3: have the service delete a result once it is archived
    """

    def __init__(self, archive: str, *, delete_after_archiving: bool) -> None:
        self._access = archive_access(archive)
        self._delete_after_archiving = delete_after_archiving
        self._places = asyncio.Semaphore(FETCHED_AT_ONCE)
        self._streaks: dict[str, FailureStreak] = {}
        #: Of the archive, whichever operation's answer it should have taken.
        self._archive_streak = FailureStreak()
        self._warned_at = -math.inf

    async def archive(self, operation: Operation, poller: Poller) -> bool:
        """Archive the answer of an operation that has ended.

        :param poller: its client fetches what is not in the answer
        :return: whether the operation counts as failed
        :raises StorageError: the archive can't be written now: drop the answer, await `until_back`, and ask for the
            operation again. Answers of megabytes, held meanwhile, would fill the memory
        :raises SpeechKitError: it can't be archived; the service keeps a result for three days, so a retry goes on
        """
        if not operation.is_fetched_apart:
            return await self._write(operation)
        refetch = REFETCH_RETRY.pauses_s()
        while True:
            async with self._places, poller.fetches:
                broken, pause_s = None, 0.0
                recognition: bytes | None = None
                try:
                    recognition = await poller.client.get_recognition(operation.id)
                except RecognitionFailedError as error:
                    broken, pause_s = error, next(refetch, 0.0)
                except SpeechKitError as error:
                    streak = self._streaks.setdefault(operation.id, FailureStreak())
                    pause_s = self._pause_after(operation.id, error, streak)
                if not pause_s:
                    failed = await self._write(operation, recognition, broken)
                    # One that is too large to be read stays with the service for its three days.
                    if not failed and self._delete_after_archiving and not isinstance(recognition, Packed):
                        await self._delete(operation.id, poller)
                    return failed
            if broken is not None:
                log.warning("Operation %s: %s. It is fetched again in %g s", operation.id, broken.what, pause_s)
            await asyncio.sleep(pause_s)

    async def until_back(self, operation_id: str, error: StorageError) -> None:
        """Wait until the archive can be read again.

        :param operation_id: whose answer could not be archived
        :param error: why
        :raises StorageError: it can't come back by itself, or has been out of reach for too long
        """
        pause_s = max(self._pause_after(operation_id, error, self._archive_streak), DROPPED_S)
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._access.run(lambda archive: archive.outcome(operation_id))
            except StorageError as still:
                # A damaged file of this operation says nothing about the archive.
                if not still.retry_can_help:
                    return
                pause_s = self._pause_after(operation_id, still, self._archive_streak)
            else:
                return

    async def _delete(self, operation_id: str, poller: Poller) -> None:
        # Best effort: the service forgets it in three days anyway.
        try:
            await poller.client.delete_recognition(operation_id)
        except SpeechKitError as error:
            log.warning("The result of operation %s was not deleted at the service: %s", operation_id, error)

    async def _write(
        self, operation: Operation, recognition: bytes | None = None, broken: RecognitionFailedError | None = None
    ) -> bool:
        from airflow_speechkit.api.operation import OperationState

        await self._access.run(lambda archive: archive.keep_operation(operation, recognition, broken))
        self._archive_streak.clear()
        self._streaks.pop(operation.id, None)
        return operation.state is OperationState.FAILED or broken is not None

    def _pause_after(self, operation_id: str, error: SpeechKitError, streak: FailureStreak) -> float:
        """Return how long to wait after one more failure, in seconds.

        :raises SpeechKitError: the error, where it can't pass or there have been too many
        """
        # A storage that can't be reached may be back in a minute; a missing right or a damaged file isn't.
        if isinstance(error, _FINAL) or (isinstance(error, StorageError) and not error.retry_can_help):
            raise error
        policy = policy_for(error)
        now = asyncio.get_running_loop().time()
        is_exhausted = streak.add(policy, now)
        pause_s = policy.pause_s(streak.failures)
        # A quota is full again after a while, however long that takes.
        if isinstance(error, QuotaExceededError):
            pause_s = max(pause_s, error.retry_after_s or 0.0)
        elif is_exhausted:
            raise error
        is_new = now - self._warned_at >= WARN_EVERY_S
        self._warned_at = now if is_new else self._warned_at
        level = logging.WARNING if is_new else logging.DEBUG
        log.log(level, "Operation %s can't be archived yet, the next try is in %g s: %s", operation_id, pause_s, error)
        return pause_s


def delete_archived_results(archive: Archive, outcomes: Mapping[str, Outcome | None], hook: SpeechKitHook) -> None:
    """Have the service delete v3 results that were archived before: a task may end between archiving and deleting one.

    :param outcomes: how operations ended, by their ids
    """
    archived = {one: found.at for one, found in outcomes.items() if found and RECOGNITION_FILE in found.files}
    submissions = read_submissions(archive, archived)
    for operation_id, archived_at in archived.items():
        submission = submissions[operation_id]
        if datetime.now(UTC) - (submission.submitted_at if submission else archived_at) >= RESULTS_KEPT:
            continue
        try:
            hook.delete_recognition(operation_id)
        except OperationNotFoundError:
            continue
        except SpeechKitError as error:
            log.warning("The result of operation %s was not deleted at the service: %s", operation_id, error)
            return
