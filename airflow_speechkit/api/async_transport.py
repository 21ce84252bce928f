"""Carrying requests from a triggerer, with aiohttp."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, TypeVar

import aiohttp
from yarl import URL

from airflow_speechkit.api.network import ca_file, proxy_for
from airflow_speechkit.api.operation import LARGE_BODY
from airflow_speechkit.api.steps import Fault, FaultKind, Outcome, Pause, Request, Response, Step
from airflow_speechkit.compressed import Body, BrokenBodyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

T = TypeVar("T")
R = TypeVar("R")

_POOL = 32
#: So much is inflated at a time: at worst it becomes a thousand times as much.
_CHUNK_BYTES = 16 << 10
_TOTAL_S = 900.0


class AsyncTransport:
    """One session, of the event loop that it is opened in.

    :param ca_bundle: file of the certificate authorities to trust
    :param sleep: waits that many seconds
    """

    def __init__(
        self, *, ca_bundle: str | None = None, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._ca_bundle = ca_bundle
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None
        # One thread at a time: each takes turns at the interpreter, and the event loop waits for all of theirs.
        self._aside = asyncio.Lock()

    async def open(self) -> None:
        """Open the session."""
        # Reading the authorities takes tens of milliseconds.
        context = await asyncio.to_thread(lambda: ssl.create_default_context(cafile=ca_file(self._ca_bundle)))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=_POOL),
            cookie_jar=aiohttp.DummyCookieJar(),
            # By itself it would inflate whatever comes.
            auto_decompress=False,
            # A proxy is named for each request: a ~/.netrc would put a password of its own in place of the key.
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def drive(
        self, steps: Generator[Step, Outcome, T], *, allowed: Callable[[], Awaitable[None]] | None = None
    ) -> T:
        """Carry a generator of the protocol to its end.

        :param allowed: awaited right before each request that counts against a quota, first or repeated
        """
        outcome: Outcome = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = None
                if isinstance(step, Pause):
                    await self._sleep(step.seconds)
                else:
                    if allowed is not None and step.rationed:
                        await allowed()
                    outcome = await self.send(step.request)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            # A cancelled asker must not keep the others waiting for the token that it went for.
            steps.close()

    async def send(self, request: Request) -> Response | Fault:
        """Send a request and read the answer to its end. Redirects are answers."""
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
                    content = await self._whole(answer, headers.get("content-encoding"))
                except BrokenBodyError as error:
                    return Fault(FaultKind.CUT_ANSWER, str(error))
                except (aiohttp.ClientError, OSError) as error:
                    return Fault(FaultKind.CUT_ANSWER, _what(error, request))
                return Response(answer.status, headers, content)
        except (aiohttp.ClientError, OSError) as error:
            return Fault(_kind(error), _what(error, request))

    async def aside(self, work: Callable[[Response, str], R], response: Response, operation_id: str) -> R:
        """Read a response: a large one in a thread, so that the event loop goes on meanwhile."""
        if len(response.body) < LARGE_BODY:
            return work(response, operation_id)
        async with self._aside:
            return await asyncio.to_thread(work, response, operation_id)

    async def _whole(self, answer: aiohttp.ClientResponse, encoding: str | None) -> bytes:
        body = Body(encoding)
        async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
            body.feed(chunk)
        return body.whole()


def _kind(error: Exception) -> FaultKind:
    never_connected = (
        aiohttp.ClientConnectorError,
        aiohttp.ClientConnectorCertificateError,
        aiohttp.ConnectionTimeoutError,
        aiohttp.ClientHttpProxyError,
    )
    return FaultKind.NOT_SENT if isinstance(error, never_connected) else FaultKind.MAYBE_SENT


def _what(error: Exception, request: Request) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host's name can't be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "")
        return f"the server's certificate isn't trusted ({reason})"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(error, (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError)):
        return "the proxy can't be reached, or refuses"
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return "the connection was refused" if refused else "no connection can be made"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {request.connect_timeout_s:g} s"
    if isinstance(error, TimeoutError):
        return f"nothing came within {request.read_timeout_s:g} s"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection broke in the middle of the answer"
    return f"the connection broke ({type(error).__name__})"
