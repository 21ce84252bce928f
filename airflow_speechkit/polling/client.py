"""A client that is opened anew where its key was refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Generic, TypeVar

from airflow_speechkit.api.operation import Operation
from airflow_speechkit.errors import SpeechKitError

#: Awaited before each request that goes to the operations host: it waits until the rate limiter lets one out.
Allowed = Callable[[], Awaitable[None]]
Check = Callable[[str, Allowed], Awaitable[Operation]]
OpenCheck = Callable[[], AbstractAsyncContextManager[Check]]

ClientT = TypeVar("ClientT")

log = logging.getLogger(__name__)


class RenewedClient(Generic[ClientT]):
    """One client for many requests. One that was replaced stays open: requests may be under way, and that is rare.

    :param open_client: opens it: reads the connection, and with it the key
    :param opened: closes all of them
    """

    def __init__(self, open_client: Callable[[], AbstractAsyncContextManager[ClientT]], opened: AsyncExitStack) -> None:
        self._open_client = open_client
        self._opened = opened
        self._client: ClientT | None = None
        self._refused = False
        self._opening = asyncio.Lock()

    def refused(self) -> None:
        """Open another client for the next request: its key was refused, and may have been replaced meanwhile."""
        self._refused = True

    async def current(self) -> ClientT:
        """Return the client to send the next request with."""
        async with self._opening:
            if self._client is None:
                self._client = await self._opened.enter_async_context(self._open_client())
            elif self._refused:
                self._refused = False
                try:
                    self._client = await self._opened.enter_async_context(self._open_client())
                except Exception as error:  # noqa: BLE001 - whatever is wrong with the connection now, the old key goes on
                    what = error if isinstance(error, SpeechKitError) else type(error).__name__
                    log.warning("The connection can't be read again, the old key stays in use: %s", what)
            return self._client
