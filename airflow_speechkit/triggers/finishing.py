"""What a triggerer does with an operation that has ended: the asynchronous half of the sensor's `Checker`."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_speechkit.archive.keeping import (
    Came,
    Delete,
    Fetch,
    Keep,
    Pause,
    Step,
    is_fetched_apart,
    keep_operation,
    keeping,
)
from airflow_speechkit.errors import ResultExpiredError, SpeechKitError, StorageError
from airflow_speechkit.hooks.archive import is_too_much

if TYPE_CHECKING:
    from types import TracebackType

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.archive.records import Outcome
    from airflow_speechkit.archive.store import Archive
    from airflow_speechkit.hooks.async_client import SpeechKitAsyncClient
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

#: Credentials of the archive's storage may change while a triggerer lives.
ARCHIVE_REOPENED_EVERY_S = 600.0

#: Results of v3 that one trigger fetches side by side: each may be of megabytes.
FETCHED_AT_ONCE = 4


class Finisher:
    """Archives the answers of what has ended, and tells how it ended.

    :param hook: the service's connection
    :param archive: the archive's URL; ``None``: answers are not archived
    :param delete_after_archiving: v3: have the service delete a result once it is archived
    """

    def __init__(self, hook: SpeechKitHook, archive: str | None, *, delete_after_archiving: bool) -> None:
        self.failed: list[str] = []
        self.gone: list[str] = []
        #: What kept answers from being archived. The service has them for three days, so a retry can go on.
        self.errors: list[SpeechKitError] = []
        self._hook = hook
        self._archive = archive
        self._delete_after_archiving = delete_after_archiving
        self._places = asyncio.Semaphore(FETCHED_AT_ONCE)
        self._client: SpeechKitAsyncClient | None = None
        self._opening = asyncio.Lock()
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Finisher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    def waits_for_result(self, operation: Operation) -> bool:
        """Tell whether an ended operation has a result that still has to be fetched, however long that takes."""
        return self._archive is not None and is_fetched_apart(operation)

    async def finish(self, operation: Operation) -> None:
        """Archive the answer of an ended operation, and note how it ended.

        :raises StorageError: the archive can't be written, for longer than anybody waits for it
        """
        from airflow_speechkit.api.operation import OperationState

        try:
            if self._archive is None:
                failed = operation.state is OperationState.FAILED
            else:
                failed = await self._keep(operation, self._archive)
        except ResultExpiredError:
            self.gone.append(operation.id)
        except StorageError:
            # None of the others could be archived either.
            raise
        except SpeechKitError as error:
            self.errors.append(error)
        else:
            if failed:
                self.failed.append(operation.id)

    async def _keep(self, operation: Operation, archive: str) -> bool:
        """Archive an answer; return whether the operation has failed."""
        steps = keeping(operation, delete=self._delete_after_archiving, too_many=is_too_much)
        # Whoever has its answer already holds a place of the poller's, until the next ending is asked for.
        places = self._places if is_fetched_apart(operation) else nullcontext()
        try:
            step = next(steps)
            while True:
                async with places:
                    while not isinstance(step, Pause) or step.holding:
                        step = steps.send(await self._carry_out(step, operation, archive))
                # A result that isn't to be had yet doesn't hold up the others.
                await asyncio.sleep(step.seconds)
                step = steps.send(None)
        except StopIteration as end:
            return bool(end.value)

    async def _carry_out(self, step: Step, operation: Operation, archive: str) -> Came:
        try:
            match step:
                case Fetch():
                    return await (await self._open_client()).get_recognition(operation.id, seen_done=True)
                case Keep():
                    await asyncio.to_thread(_keep_at, archive, operation, step)
                case Delete():
                    await (await self._open_client()).delete_recognition(operation.id)
                case Pause(seconds):
                    await asyncio.sleep(seconds)
        except SpeechKitError as error:
            return error
        return None

    async def _open_client(self) -> SpeechKitAsyncClient:
        # With the first result: thousands of triggers wait, and each would hold a session all the while.
        async with self._opening:
            if self._client is None:
                self._client = await self._opened.enter_async_context(self._hook.async_client())
            return self._client


def _keep_at(url: str, operation: Operation, step: Keep) -> Outcome:
    archive = _open(url, int(time.monotonic() // ARCHIVE_REOPENED_EVERY_S))
    return keep_operation(archive, operation, step.recognition, step.broken)


@lru_cache(maxsize=64)
def _open(url: str, age: int) -> Archive:
    """Open an archive once for all triggers: `age` changes now and then, so that new credentials get in."""
    from airflow_speechkit.hooks.archive import open_archive

    return open_archive(url)
