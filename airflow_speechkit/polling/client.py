"""A client that is opened anew where its key was refused."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.errors import SpeechKitError

if TYPE_CHECKING:
    from types import TracebackType

#: Awaited before each request that goes to the operations host: it waits until the budget lets one out.
Allowed = Callable[[], Awaitable[None]]
Check = Callable[[str, Allowed], Awaitable[Operation]]
OpenCheck = Callable[[], AbstractAsyncContextManager[Check]]

ClientT = TypeVar("ClientT")

log = logging.getLogger(__name__)


class _Opened(Generic[ClientT]):
    """An open client, closed with its last user once it has been replaced."""

    def __init__(self, client: ClientT, opened: AsyncExitStack) -> None:
        self.client = client
        self._opened = opened
        self._users = 0
        self._replaced = False

    @asynccontextmanager
    async def used(self) -> AsyncIterator[ClientT]:
        self._users += 1
        try:
            yield self.client
        finally:
            self._users -= 1
            if self._replaced and not self._users:
                await self._opened.aclose()

    async def replaced(self) -> None:
        self._replaced = True
        if not self._users:
            await self._opened.aclose()


class RenewedClient(Generic[ClientT]):
    """One client for many requests, open as long as the ``async with`` statement.

    :param open_client: opens it: reads the connection, and with it the key
    """

    def __init__(self, open_client: Callable[[], AbstractAsyncContextManager[ClientT]]) -> None:
        self._open_client = open_client
        self._opened: _Opened[ClientT] | None = None
        self._refused = False

    async def __aenter__(self) -> Self:
        self._refused = False
        self._opened = await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._opened is not None:
            opened, self._opened = self._opened, None
            await opened.replaced()

    def refused(self) -> None:
        """Take in that its key was refused: a user may have put another one into the connection."""
        self._refused = True

    @asynccontextmanager
    async def used(self) -> AsyncIterator[ClientT]:
        """Give out what to ask with: to each who asks until its own ``async with`` ends."""
        if self._refused:
            self._refused = False
            await self._reopen()
        assert self._opened is not None  # noqa: S101
        async with self._opened.used() as client:
            yield client

    async def _reopen(self) -> None:
        try:
            opened = await self._open()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the connection now, the old key goes on
            what = error if isinstance(error, SpeechKitError) else type(error).__name__
            log.warning("The connection can't be read again, the key there is goes on: %s", what)
            return
        before, self._opened = self._opened, opened
        if before is not None:
            await before.replaced()

    async def _open(self) -> _Opened[ClientT]:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(self._open_client())
            return _Opened(client, stack.pop_all())
