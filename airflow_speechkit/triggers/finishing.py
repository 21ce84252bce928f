"""What a triggerer does with an operation that has ended: the asynchronous half of the sensor's `Checker`."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from airflow_speechkit.archive.keeping import (
    Came,
    Delete,
    Fetch,
    Keep,
    LetGo,
    Pause,
    Reach,
    Step,
    Trouble,
    is_fetched_apart,
    keeping,
    reaching,
)
from airflow_speechkit.errors import (
    AuthenticationError,
    ResultExpiredError,
    SpeechKitError,
    StorageError,
    unexpected,
)
from airflow_speechkit.hooks.archive import is_too_much
from airflow_speechkit.polling.client import RenewedClient
from airflow_speechkit.redaction import where_it_came_from
from airflow_speechkit.triggers import archiving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.hooks.async_client import SpeechKitAsyncClient
    from airflow_speechkit.hooks.speechkit import SpeechKitHook

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Results of v3 that one trigger fetches side by side: a long list leaves places to the other triggers.
FETCHED_AT_ONCE = 4


class Finisher:
    """Archives the answers of what has ended, and tells how it ended.

    :param hook: gives a hook of the service's connection as it is now: one reads its connection, and key, once
    :param archive: the archive's URL; ``None``: answers are not archived
    :param delete_after_archiving: v3: have the service delete a result once it is archived
    """

    def __init__(self, hook: Callable[[], SpeechKitHook], archive: str | None, *, delete_after_archiving: bool) -> None:
        self.failed: list[str] = []
        self.gone: list[str] = []
        #: What kept answers from being archived. The service has them for three days, so a retry can go on.
        self.errors: list[SpeechKitError] = []
        self._hook = hook
        self._archive = archive
        self._delete_after_archiving = delete_after_archiving
        self._places = asyncio.Semaphore(FETCHED_AT_ONCE)
        #: Of operations whose answers can't be archived yet.
        self._troubles: dict[str, Trouble] = {}
        self._let_go: dict[str, Pause] = {}
        self._client: RenewedClient[SpeechKitAsyncClient] | None = None
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

    async def finish(self, operation: Operation) -> bool:
        """Archive the answer of an ended operation, and note how it ended.

        :return: whether it is through. If not, the archive has been away for too long to hold the answer any longer:
            drop it, await `archive_is_back`, and have the answer again
        :raises StorageError: the archive can't be written, for longer than anybody waits for it
        """
        from airflow_speechkit.api.operation import OperationState

        if self._archive is None:
            self._note(operation.id, failed=operation.state is OperationState.FAILED)
            return True
        try:
            how = await self._keep(operation, self._archive)
        except ResultExpiredError:
            self.gone.append(operation.id)
        except StorageError:
            # None of the others could be archived either.
            raise
        except SpeechKitError as error:
            self.errors.append(error)
        except Exception as error:  # noqa: BLE001 - whatever one answer does, the others are archived
            log.error("Operation %s can't be archived: an unexpected %s", operation.id, where_it_came_from(error))
            self.errors.append(unexpected(operation.id, error))
        else:
            if isinstance(how, LetGo):
                self._let_go[operation.id] = how.pause
                return False
            self._note(operation.id, failed=how)
        self._troubles.pop(operation.id, None)
        return True

    async def archive_is_back(self, operation_id: str) -> None:
        """Wait until the archive can be reached, for an operation whose answer had to be dropped.

        :raises StorageError: it can't, for longer than anybody waits for it
        """
        assert self._archive is not None  # noqa: S101 - for the type checker: else nothing is dropped
        steps = reaching(self._troubles[operation_id], self._let_go.pop(operation_id))
        await _drive(steps, partial(_look, self._archive, operation_id))

    def _note(self, operation_id: str, *, failed: bool) -> None:
        if failed:
            self.failed.append(operation_id)

    async def _keep(self, operation: Operation, archive: str) -> bool | LetGo:
        """Archive an answer; return whether the operation has failed."""
        trouble = self._troubles.get(operation.id)
        if trouble is None:
            trouble = Trouble(operation.id, is_too_much, partial(archiving.may_hold, archive))
            self._troubles[operation.id] = trouble
        steps = keeping(operation, delete=self._delete_after_archiving, trouble=trouble)
        # Whoever has its answer already holds a place of the poller's, until the next ending is asked for.
        places = (self._places, archiving.fetching_places.get()) if is_fetched_apart(operation) else ()
        return await _drive(steps, partial(self._carry_out, archive, operation), *places)

    async def _carry_out(self, archive: str, operation: Operation, step: Step) -> Came:
        try:
            match step:
                case Fetch():
                    return await self._ask(lambda client: client.get_recognition(operation.id, seen_done=True))
                case Keep():
                    await archiving.keep(archive, operation, step)
                case Delete():
                    await self._ask(lambda client: client.delete_recognition(operation.id))
                case Pause(seconds):
                    await asyncio.sleep(seconds)
        except SpeechKitError as error:
            return error
        return None

    async def _ask(self, request: Callable[[SpeechKitAsyncClient], Awaitable[T]]) -> T:
        # With the first result: thousands of triggers wait, and each would hold a session all the while.
        async with self._opening:
            if self._client is None:
                client = RenewedClient(lambda: self._hook().async_client())
                self._client = await self._opened.enter_async_context(client)
        try:
            async with self._client.used() as opened:
                return await request(opened)
        except AuthenticationError:
            self._client.refused()
            raise


async def _look(archive: str, operation_id: str, step: Step) -> Came:
    assert isinstance(step, Reach)  # noqa: S101 - all there is but pauses, while nothing is held
    try:
        await archiving.reach(archive, operation_id)
    except SpeechKitError as error:
        return error
    return None


async def _drive(
    steps: Generator[Step, Came, T], carry_out: Callable[[Step], Awaitable[Came]], *places: asyncio.Semaphore
) -> T:
    """Carry out steps, in a place of each kind but for the pauses in which nothing is held."""
    try:
        step = next(steps)
        while True:
            async with AsyncExitStack() as held:
                for place in places:
                    await held.enter_async_context(place)
                while not isinstance(step, Pause) or step.holding:
                    step = steps.send(await carry_out(step))
            # What isn't to be had yet, or can't be archived, doesn't hold up the others.
            await asyncio.sleep(step.seconds)
            step = steps.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
