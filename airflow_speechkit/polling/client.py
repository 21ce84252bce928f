"""A client that is opened anew where its key was refused."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.errors import SpeechKitError

if TYPE_CHECKING:
    from types import TracebackType

#: Awaited before each request that goes to the operations host: it waits until the rate limiter lets one out.
Allowed = Callable[[], Awaitable[None]]
Check = Callable[[str, Allowed], Awaitable[Operation]]
OpenCheck = Callable[[], AbstractAsyncContextManager[Check]]

ClientT = TypeVar("ClientT")

log = logging.getLogger(__name__)


class RenewedClient(Generic[ClientT]):
    """One client for many requests, open as long as the ``async with`` statement.

    One that was replaced stays open until then, since requests may be under way; keys are replaced rarely.

    :param open_client: opens it: reads the connection, and with it the key
    """

    def __init__(self, open_client: Callable[[], AbstractAsyncContextManager[ClientT]]) -> None:
        self._open_client = open_client
        self._opened = AsyncExitStack()
        self._client: ClientT | None = None
        self._refused = False

    async def __aenter__(self) -> Self:
        self._refused = False
        self._client = await self._opened.enter_async_context(self._open_client())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    def refused(self) -> None:
        """Open another client for the next request: its key was refused, and may have been replaced meanwhile."""
        self._refused = True

    async def current(self) -> ClientT:
        """Return the client to send the next request with."""
        if self._refused:
            self._refused = False
            try:
                self._client = await self._opened.enter_async_context(self._open_client())
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the connection now, the old key goes on
                what = error if isinstance(error, SpeechKitError) else type(error).__name__
                log.warning("The connection can't be read again, the old key stays in use: %s", what)
        assert self._client is not None  # noqa: S101
        return self._client
