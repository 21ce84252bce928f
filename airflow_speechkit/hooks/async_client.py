"""SpeechKit for triggers: a client for an event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from airflow_speechkit.api.operation import Operation, check_recognition, operation_of
from airflow_speechkit.errors import AuthenticationError, SpeechKitError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from airflow_speechkit.api.async_transport import AsyncTransport
    from airflow_speechkit.api.http import Outcome, Response, Step
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

    async def __aenter__(self) -> SpeechKitAsyncClient:
        connection = await self._connect()
        # The first import of these takes longer than an event loop should be blocked.
        transport_kind = await asyncio.to_thread(_import_what_waiting_needs)
        self._service: Service = connection.service()
        self._transport: AsyncTransport = transport_kind(ca_bundle=connection.ca_bundle)
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def authorize(self) -> None:
        """Fetch a token where one is needed and there is none."""
        await self._send(lambda service: service.authorize())

    async def get_operation(self, operation_id: str) -> Operation:
        """Request the state of an operation, once. A large answer is read in a thread.

        :raises OperationNotFoundError: it never existed, or is older than three days
        """
        return await self._read(lambda service: service.operation(operation_id, attempts=1), operation_of, operation_id)

    async def cancel_operation(self, operation_id: str) -> Operation:
        """Request the cancellation of an operation, once: best effort."""
        return await self._read(lambda service: service.cancel(operation_id, attempts=1), operation_of, operation_id)

    async def get_recognition(self, operation_id: str) -> bytes:
        """Fetch the v3 result of an operation that is done, see `SpeechKitHook.get_recognition`."""
        steps = lambda service: service.recognition(operation_id, seen_done=True)  # noqa: E731
        return await self._read(steps, check_recognition, operation_id)

    async def delete_recognition(self, operation_id: str) -> bool:
        """Have the service delete a v3 result; return whether it had one."""
        return await self._send(lambda service: service.delete_recognition(operation_id))

    async def _read(
        self,
        request: Callable[[Service], Generator[Step, Outcome, Response]],
        read: Callable[[Response, str], T],
        operation_id: str,
    ) -> T:
        response = await self._send(request)
        return await self._transport.aside(read, response, operation_id)

    async def _send(self, request: Callable[[Service], Generator[Step, Outcome, T]]) -> T:
        try:
            return await self._transport.drive(request(self._service))
        except AuthenticationError:
            await self._read_connection_again()
            raise

    async def _read_connection_again(self) -> None:
        try:
            self._service = (await self._connect()).service()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the connection now, the old key stays in use
            what = error if isinstance(error, SpeechKitError) else type(error).__name__
            log.warning("The connection can't be read again, the old key stays in use: %s", what)


def _import_what_waiting_needs() -> type[AsyncTransport]:
    import jwt  # noqa: F401
    import pyarrow.json  # noqa: F401
    import requests.utils  # noqa: F401

    from airflow_speechkit.api.async_transport import AsyncTransport

    return AsyncTransport
