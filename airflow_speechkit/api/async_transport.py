"""The transport of triggerers, with aiohttp."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, TypeVar

import aiohttp
from yarl import URL

from airflow_speechkit.api.http import Fault, FaultKind, Outcome, Pause, Request, Response, Step
from airflow_speechkit.api.network import ca_file, fault_of, proxy_for
from airflow_speechkit.api.operation import LARGE_BODY
from airflow_speechkit.storage.compressed import Body, BrokenBodyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

T = TypeVar("T")
R = TypeVar("R")

_POOL = 32
#: So much is inflated at a time: at worst it becomes a thousand times as much.
_CHUNK_BYTES = 16 << 10
_TOTAL_S = 900.0
_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)


class AsyncTransport:
    """One session, for the event loop that it is opened in.

    :param ca_bundle: file of the certificate authorities to trust
    :param sleep: waits that many seconds
    """

    def __init__(
        self, *, ca_bundle: str | None = None, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._ca_bundle = ca_bundle
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None
        # One thread at a time: several would share the interpreter's lock, and the event loop would wait for all.
        self._aside = asyncio.Lock()

    async def open(self) -> None:
        """Open the session."""
        # Reading the authorities takes tens of milliseconds.
        context = await asyncio.to_thread(lambda: ssl.create_default_context(cafile=ca_file(self._ca_bundle)))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=_POOL),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Otherwise it inflates any number of bytes.
            auto_decompress=False,
            # Each request names its proxy; a password from ~/.netrc would replace the key.
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def drive(self, steps: Generator[Step, Outcome, T]) -> T:
        """Send the requests of a generator, and return its result."""
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = None
            if isinstance(step, Pause):
                await self._sleep(step.seconds)
            else:
                outcome = await self.send(step)

    async def send(self, request: Request) -> Response | Fault:
        """Send a request and read the answer to its end. Redirects aren't followed."""
        if self._session is None:
            raise RuntimeError("the transport isn't open")
        timeout = aiohttp.ClientTimeout(
            total=_TOTAL_S, sock_connect=request.connect_timeout_s, sock_read=request.read_timeout_s
        )
        try:
            async with self._session.request(
                request.method,
                URL(request.url, encoded=True),
                headers={**request.headers, "accept-encoding": "gzip"},
                data=request.body,
                timeout=timeout,
                allow_redirects=False,
                proxy=proxy_for(request.url),
            ) as answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                try:
                    content = Body(headers.get("content-encoding"))
                    async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                        content.feed(chunk)
                    if content.received_bytes <= _CHUNK_BYTES:
                        return Response(answer.status, headers, content.whole())
                    # Inflating a large one takes long.
                    return Response(answer.status, headers, await asyncio.to_thread(content.whole))
                except BrokenBodyError as error:
                    return Fault(FaultKind.CUT_ANSWER, str(error))
                except (aiohttp.ClientError, OSError) as error:
                    return fault_of(error, request, FaultKind.CUT_ANSWER)
        except (aiohttp.ClientError, OSError) as error:
            return fault_of(
                error, request, FaultKind.NOT_SENT if isinstance(error, _NO_CONNECTION) else FaultKind.MAYBE_SENT
            )

    async def aside(self, work: Callable[[Response, str], R], response: Response, operation_id: str) -> R:
        """Read a response: a large one in a thread, so that the event loop goes on meanwhile."""
        if len(response.body) < LARGE_BODY:
            return work(response, operation_id)
        async with self._aside:
            return await asyncio.to_thread(work, response, operation_id)
