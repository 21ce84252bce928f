"""SpeechKit for triggers: a client for an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from airflow_speechkit.api.async_transport import AsyncTransport
    from airflow_speechkit.api.http import Outcome, Step
    from airflow_speechkit.api.operation import Operation
    from airflow_speechkit.api.service import Service
    from airflow_speechkit.hooks.connection import SpeechKitConnection

    Allowed = Callable[[], Awaitable[None]]

T = TypeVar("T")


class SpeechKitAsyncClient:
    """One session with the service, closed with the ``async with`` statement.

    :param connect: reads the connection
    """

    def __init__(self, connect: Callable[[], Awaitable[SpeechKitConnection]]) -> None:
        self._connect = connect
        self._opened: tuple[Service, AsyncTransport] | None = None

    async def __aenter__(self) -> SpeechKitAsyncClient:
        connection = await self._connect()
        # The first import of these takes longer than an event loop should be away.
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

    async def get_operation(self, operation_id: str, allowed: Allowed | None = None) -> Operation:
        """Ask how far an operation is, once: whoever waits asks again anyway, within what it may spend.

        A large answer is read in a thread, and the event loop goes on meanwhile.

        :param allowed: awaited right before each request that counts: the first one, which may have to wait for a
            token until then, and another one where the token was refused
        :raises OperationNotFoundError: it never existed, or is older than three days
        """
        from airflow_speechkit.api.operation import operation_of

        response = await self._drive(self._service.operation(operation_id, attempts=1), allowed)
        return await self._transport.aside(operation_of, response, operation_id)

    async def cancel_operation(self, operation_id: str, allowed: Allowed | None = None) -> Operation:
        """Ask for an operation to be cancelled, once: best effort.

        :param allowed: awaited right before each request that counts: the first one, another one where the token was
            refused, and another one where the service knows cancelling by another method
        """
        from airflow_speechkit.api.operation import operation_of

        response = await self._drive(self._service.cancel(operation_id, attempts=1), allowed)
        return await self._transport.aside(operation_of, response, operation_id)

    async def get_recognition(self, operation_id: str) -> bytes:
        """Fetch the v3 result of an operation that is done, see `SpeechKitHook.get_recognition`."""
        from airflow_speechkit.api.operation import check_recognition

        response = await self._drive(self._service.recognition(operation_id, seen_done=True))
        return await self._transport.aside(check_recognition, response, operation_id)

    async def delete_recognition(self, operation_id: str) -> bool:
        """Have the service forget a v3 result; return whether it had one."""
        return await self._drive(self._service.delete_recognition(operation_id))

    @property
    def _service(self) -> Service:
        return self._open()[0]

    @property
    def _transport(self) -> AsyncTransport:
        return self._open()[1]

    def _open(self) -> tuple[Service, AsyncTransport]:
        if self._opened is None:
            raise RuntimeError("the client is used outside of its `async with` statement")
        return self._opened

    async def _drive(self, steps: Generator[Step, Outcome, T], allowed: Allowed | None = None) -> T:
        return await self._transport.drive(steps, allowed=allowed)


def _import_what_waiting_needs() -> type[AsyncTransport]:
    import jwt  # noqa: F401
    import pyarrow.json  # noqa: F401
    import requests.utils  # noqa: F401

    from airflow_speechkit.api.async_transport import AsyncTransport

    return AsyncTransport
