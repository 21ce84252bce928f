"""Carrying requests from a worker, with requests."""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, NameResolutionError, ProtocolError, ReadTimeoutError

from airflow_speechkit.api.network import ca_file, proxy_for
from airflow_speechkit.api.steps import Fault, FaultKind, Outcome, Pause, Request, Response, Step
from airflow_speechkit.compressed import Body, BrokenBodyError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

T = TypeVar("T")

_POOL = 32
_CHUNK_BYTES = 64 << 10
#: A connection that was idle for longer isn't trusted with a submission: were it closed at that very moment,
#: nobody could tell whether the submission had arrived.
_FRESH_S = 5.0


class SyncTransport:
    """One pooled session. Threads may share it.

    :param ca_bundle: file of the certificate authorities to trust
    :param sleep: waits that many seconds
    """

    def __init__(self, *, ca_bundle: str | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep
        self._verify = ca_file(ca_bundle)
        self._lock = threading.Lock()
        self._used_at = time.monotonic()
        self._session = requests.Session()
        # Otherwise a ~/.netrc would put a password of its own in place of the key.
        self._session.trust_env = False
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=8, pool_maxsize=_POOL))

    def drive(self, steps: Generator[Step, Outcome, T]) -> T:
        """Carry a generator of the protocol to its end."""
        outcome: Outcome = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = None
                if isinstance(step, Pause):
                    self._sleep(step.seconds)
                else:
                    outcome = self.send(step.request)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            # A task that times out in here must not keep other threads waiting for the token that it went for.
            steps.close()

    def send(self, request: Request) -> Response | Fault:
        """Send a request and read the answer to its end. Redirects are answers."""
        if request.body is not None:
            self._drop_stale_connections()
        body = None if request.body is None else _Body(request.body)
        proxy = proxy_for(request.url)
        try:
            answer = self._session.request(
                request.method,
                request.url,
                headers={**request.headers, "accept-encoding": "gzip"},
                data=body,
                timeout=(request.connect_timeout_s, request.read_timeout_s),
                allow_redirects=False,
                verify=self._verify,
                proxies={"http": proxy, "https": proxy} if proxy else {},
                stream=True,
            )
        except (requests.RequestException, OSError) as error:
            unsent = isinstance(error, requests.ConnectTimeout) or (body is not None and not body.begun)
            return Fault(FaultKind.NOT_SENT if unsent else FaultKind.MAYBE_SENT, _what(error, request))
        with answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            try:
                content_read = Body(headers.get("content-encoding"))
                for chunk in answer.raw.stream(_CHUNK_BYTES, decode_content=False):
                    content_read.feed(chunk)
                content = content_read.whole()
            except BrokenBodyError as error:
                return Fault(FaultKind.CUT_ANSWER, str(error))
            except (HTTPError, OSError) as error:
                return Fault(FaultKind.CUT_ANSWER, _what(error, request))
        self._used_at = time.monotonic()
        return Response(answer.status_code, headers, content)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _drop_stale_connections(self) -> None:
        with self._lock:
            if time.monotonic() - self._used_at > _FRESH_S:
                # A closed session opens new connections when it is asked again.
                self._session.close()
                self._used_at = time.monotonic()


class _Body:
    """A request's body that knows whether any of it has been taken to be sent.

    Nothing is taken before there is a connection and the headers are out. As long as nothing is, the service
    never had the request, whatever kind of error there is.
    """

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self._length = len(data)
        self.begun = False

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(1 << 16):
            yield chunk

    def read(self, size: int = -1) -> bytes:
        self.begun = True
        return self._file.read(size)


def _what(error: BaseException, request: Request) -> str:
    chain = list(_causes(error))
    for one in chain:
        if isinstance(one, (NameResolutionError, socket.gaierror)):
            return "the host's name can't be resolved"
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"the server's certificate isn't trusted ({one.verify_message})"
    for one in chain:
        if isinstance(one, ssl.SSLError):
            return f"TLS failed ({one.reason or type(one).__name__})"
        if isinstance(one, ConnectionRefusedError):
            return "the connection was refused"
        if isinstance(one, requests.ConnectTimeout):
            return f"no connection within {request.connect_timeout_s:g} s"
        if isinstance(one, (requests.ReadTimeout, ReadTimeoutError, TimeoutError)):
            return f"nothing came within {request.read_timeout_s:g} s"
        if isinstance(one, requests.exceptions.ProxyError):
            return "the proxy can't be reached, or refuses"
    if isinstance(error, (requests.exceptions.ChunkedEncodingError, ProtocolError)):
        return "the connection broke in the middle of the answer"
    return f"the connection broke ({type(chain[-1]).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    hint: list[object] = [error]
    while hint:
        one = hint.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        hint += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
