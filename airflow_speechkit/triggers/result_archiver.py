"""Puts the answer of an operation that has ended into the archive, whichever way the task waits."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeVar

from airflow_speechkit.errors import (
    AuthenticationError,
    InvalidRequestError,
    LostError,
    OperationNotFoundError,
    QuotaExceededError,
    RecognitionFailedError,
    SpeechKitError,
    StorageError,
)
from airflow_speechkit.polling.client import RenewedClient
from airflow_speechkit.retry import FailureStreak, RetryPolicy, policy_for
from airflow_speechkit.storage.compressed import Packed
from airflow_speechkit.triggers.archive_access import archive_access

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.hooks.async_client import SpeechKitAsyncClient
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

T = TypeVar("T")

log = logging.getLogger(__name__)

#: A v3 result that breaks off with an error is fetched again: that may have been the service's bad moment. After these
#: the recognition counts as failed.
REFETCH_RETRY = RetryPolicy(5.0, 40.0, give_up_failures=4)
#: The first pause after an answer was dropped is no shorter: having it again costs a check.
DROPPED_S = 60.0
#: Results of v3 that one task fetches side by side, and all of an event loop: each may be of megabytes.
FETCHED_AT_ONCE, FETCHED_IN_LOOP = 4, 16
_places: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

#: Seconds between lines in the log about tries in vain, at least.
WARN_EVERY_S = 60.0

#: Asking again ends in the same way.
_FINAL = (LostError, OperationNotFoundError, InvalidRequestError)


class ResultArchiver:
    """Fetches, archives and deletes the results of what one task waits for. Use it in an ``async with`` statement.

    :param hook: gives a hook of the connection as it is now: one reads its connection, and key, once
    :param archive: the archive's URL
    :param delete_after_archiving: v3: have the service delete a result once it is archived
    """

    def __init__(self, hook: Callable[[], SpeechKitHook], archive: str, *, delete_after_archiving: bool) -> None:
        self._access = archive_access(archive)
        self._delete_after_archiving = delete_after_archiving
        self._places = asyncio.Semaphore(FETCHED_AT_ONCE)
        self._streaks: dict[str, FailureStreak] = {}
        #: Of the archive, whichever operation's answer it should have taken.
        self._archive_streak = FailureStreak()
        self._archive_pause_s = DROPPED_S
        self._warned_at = -math.inf
        # Opened with the first result: thousands of triggers wait, and each would hold a session all the while.
        self._opened = AsyncExitStack()
        self._client = RenewedClient(lambda: hook().async_client(), self._opened)

    async def __aenter__(self) -> ResultArchiver:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    async def archive(self, operation: Operation) -> bool | None:
        """Archive the answer of an operation that has ended.

        :return: whether the operation counts as failed; None where the archive can't be written now and the answer was
            dropped: await `archive_is_back`, and have the answer again. Answers of megabytes, held meanwhile, would
            keep the places of checks from everybody, and fill the memory
        :raises SpeechKitError: it can't be archived; the service keeps a result for three days, so a retry goes on
        """
        if not operation.is_fetched_apart:
            return await self._write(operation)
        refetch = REFETCH_RETRY.pauses_s()
        while True:
            async with self._places, _loop_places():
                broken = None
                try:
                    recognition = await self._request(lambda client: client.get_recognition(operation.id))
                except RecognitionFailedError as error:
                    recognition, broken, pause_s = None, error, next(refetch, 0.0)
                except SpeechKitError as error:
                    recognition, pause_s = None, self._pause_after(operation.id, error)
                else:
                    pause_s = 0.0
                if not pause_s:
                    failed = await self._write(operation, recognition, broken)
                    # One that is too large to be read yet stays with the service for its three days.
                    if failed is False and self._delete_after_archiving and not isinstance(recognition, Packed):
                        await self.delete(operation.id)
                    return failed
            if broken is not None:
                log.warning("Operation %s: %s. It is fetched again in %g s", operation.id, broken.what, pause_s)
            await asyncio.sleep(pause_s)

    async def archive_is_back(self, operation_id: str) -> None:
        """Wait until the archive of a dropped answer can be read again.

        :raises SpeechKitError: it has been out of reach for too long
        """
        await asyncio.sleep(self._archive_pause_s)
        while True:
            try:
                await self._access.look(operation_id)
            except SpeechKitError as error:
                await asyncio.sleep(self._pause_after(operation_id, error))
            else:
                return

    async def delete(self, operation_id: str) -> None:
        """Have the service delete a v3 result that is archived. Best effort: it forgets it in three days anyway."""
        try:
            await self._request(lambda client: client.delete_recognition(operation_id))
        except SpeechKitError as error:
            log.warning("The service still has the result of operation %s: %s", operation_id, error)

    async def _write(
        self, operation: Operation, recognition: bytes | None = None, broken: RecognitionFailedError | None = None
    ) -> bool | None:
        from airflow_speechkit.api.operation import OperationState

        try:
            await self._access.write(lambda archive: archive.keep_operation(operation, recognition, broken))
        except StorageError as error:
            self._archive_pause_s = self._pause_after(operation.id, error, at_least_s=DROPPED_S)
            return None
        self._archive_streak.clear()
        self._streaks.pop(operation.id, None)
        return operation.state is OperationState.FAILED or broken is not None

    def _pause_after(self, operation_id: str, error: SpeechKitError, *, at_least_s: float = 0.0) -> float:
        """Return how long to wait after one more error of an operation, in seconds.

        :raises SpeechKitError: the error, where it can't pass or there have been too many
        """
        # A storage that can't be reached may be there again in a minute; a right that is missing isn't.
        is_archive = isinstance(error, StorageError)
        if isinstance(error, _FINAL) or (is_archive and not error.retry_can_help):
            raise error
        policy = policy_for(error)
        streak = self._archive_streak if is_archive else self._streaks.setdefault(operation_id, FailureStreak())
        now = asyncio.get_running_loop().time()
        is_exhausted = streak.add(policy, now)
        pause_s = max(policy.pause_s(streak.failures), at_least_s)
        # A quota is full again after a while, however long that takes.
        if isinstance(error, QuotaExceededError):
            pause_s = max(pause_s, error.retry_after_s or 0.0)
        elif is_exhausted:
            raise error
        # Where an archive is away, that concerns thousands.
        is_new = now - self._warned_at >= WARN_EVERY_S
        self._warned_at = now if is_new else self._warned_at
        level = logging.WARNING if is_new else logging.DEBUG
        log.log(level, "Operation %s can't be archived yet, the next try is in %g s: %s", operation_id, pause_s, error)
        return pause_s

    async def _request(self, request: Callable[[SpeechKitAsyncClient], Awaitable[T]]) -> T:
        try:
            return await request(await self._client.current())
        except AuthenticationError:
            self._client.refused()
            raise


def _loop_places() -> asyncio.Semaphore:
    for closed in [loop for loop in _places if loop.is_closed()]:
        del _places[closed]
    return _places.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(FETCHED_IN_LOOP))
