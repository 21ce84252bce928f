"""SpeechKit for triggers: a client for an event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from airflow_speechkit.errors import AuthenticationError, SpeechKitError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from airflow_speechkit.api.async_transport import AsyncTransport
    from airflow_speechkit.api.http import Outcome, Step
    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.api.service import Service
    from airflow_speechkit.hooks.connection import SpeechKitConnection

T = TypeVar("T")

log = logging.getLogger(__name__)


class SpeechKitAsyncClient:
    """One session with the service, closed with the ``async with`` statement.

    :param connect: reads the connection; called again after a 401, since its key may have been replaced
    """

    def __init__(self, connect: Callable[[], Awaitable[SpeechKitConnection]]) -> None:
        self._connect = connect
        self._opened: tuple[Service, AsyncTransport] | None = None
        self._is_refused = False

    async def __aenter__(self) -> SpeechKitAsyncClient:
        connection = await self._connect()
        # The first import of these takes longer than an event loop should be blocked.
        transport_kind = await asyncio.to_thread(_import_what_waiting_needs)
        transport = transport_kind(ca_bundle=connection.ca_bundle)
        await transport.open()
        self._opened = connection.service(), transport
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._opened is not None:
            _, transport = self._opened
            self._opened = None
            await transport.close()

    async def authorize(self) -> None:
        """Fetch a token where one is needed and there is none."""
        await self._send(lambda service: service.authorize())

    async def get_operation(self, operation_id: str) -> Operation:
        """Ask for the state of an operation, once. A large answer is read in a thread.

        :raises OperationNotFoundError: it never existed, or is older than three days
        """
        from airflow_speechkit.api.operation import operation_of

        response = await self._send(lambda service: service.operation(operation_id, attempts=1))
        return await self._transport.aside(operation_of, response, operation_id)

    async def cancel_operation(self, operation_id: str) -> Operation:
        """Ask for an operation to be cancelled, once: best effort."""
        from airflow_speechkit.api.operation import operation_of

        response = await self._send(lambda service: service.cancel(operation_id, attempts=1))
        return await self._transport.aside(operation_of, response, operation_id)

    async def get_recognition(self, operation_id: str) -> bytes:
        """Fetch the v3 result of an operation that is done, see `SpeechKitHook.get_recognition`."""
        from airflow_speechkit.api.operation import check_recognition

        response = await self._send(lambda service: service.recognition(operation_id, seen_done=True))
        return await self._transport.aside(check_recognition, response, operation_id)

    async def delete_recognition(self, operation_id: str) -> bool:
        """Have the service delete a v3 result; return whether it had one."""
        return await self._send(lambda service: service.delete_recognition(operation_id))

    @property
    def _transport(self) -> AsyncTransport:
        if self._opened is None:
            raise RuntimeError("the client is used outside of its `async with` statement")
        return self._opened[1]

    async def _send(self, request: Callable[[Service], Generator[Step, Outcome, T]]) -> T:
        transport = self._transport
        if self._is_refused:
            self._is_refused = False
            await self._read_connection_again()
        assert self._opened is not None  # noqa: S101 - `_transport` has looked
        try:
            return await transport.drive(request(self._opened[0]))
        except AuthenticationError:
            self._is_refused = True
            raise

    async def _read_connection_again(self) -> None:
        try:
            self._opened = (await self._connect()).service(), self._transport
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the connection now, the old key stays in use
            what = error if isinstance(error, SpeechKitError) else type(error).__name__
            log.warning("The connection can't be read again, the old key stays in use: %s", what)


def _import_what_waiting_needs() -> type[AsyncTransport]:
    import jwt  # noqa: F401
    import pyarrow.json  # noqa: F401
    import requests.utils  # noqa: F401

    from airflow_speechkit.api.async_transport import AsyncTransport

    return AsyncTransport
