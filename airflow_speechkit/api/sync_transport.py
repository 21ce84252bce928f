"""The transport of workers, with requests."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from airflow_speechkit.api.http import Fault, FaultKind, Outcome, Pause, Request, Response, Step
from airflow_speechkit.api.network import ca_file, fault_of, proxy_for
from airflow_speechkit.storage.compressed import Body, BrokenBodyError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")

_POOL = 32
_CHUNK_BYTES = 64 << 10
#: A connection that was idle for longer, in seconds, isn't used for a submission: if the service closes it at that
#: moment, nobody knows whether the submission has arrived.
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
        # Otherwise a password from ~/.netrc replaces the key.
        self._session.trust_env = False
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=8, pool_maxsize=_POOL))

    def drive(self, steps: Generator[Step, Outcome, T]) -> T:
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
                self._sleep(step.seconds)
            else:
                outcome = self.send(step)

    def send(self, request: Request) -> Response | Fault:
        """Send a request and read the answer to its end. Redirects aren't followed."""
        body = None
        if request.body is not None:
            self._drop_stale_connections()
            body = _Body(request.body)
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
            is_unsent = isinstance(error, requests.ConnectTimeout) or (body is not None and not body.is_begun)
            return fault_of(error, request, FaultKind.NOT_SENT if is_unsent else FaultKind.MAYBE_SENT)
        with answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            try:
                content = Body(headers.get("content-encoding"))
                for chunk in answer.raw.stream(_CHUNK_BYTES, decode_content=False):
                    content.feed(chunk)
                response = Response(answer.status_code, headers, content.whole())
            except BrokenBodyError as error:
                return Fault(FaultKind.CUT_ANSWER, str(error))
            except (HTTPError, OSError) as error:
                return fault_of(error, request, FaultKind.CUT_ANSWER)
        self._used_at = time.monotonic()
        return response

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _drop_stale_connections(self) -> None:
        with self._lock:
            if time.monotonic() - self._used_at > _FRESH_S:
                # A closed session opens new connections for the next request.
                self._session.close()
                self._used_at = time.monotonic()


class _Body(io.BytesIO):
    """A request's body that knows whether any of it was read to be sent.

    It is read only after the connection is made and the headers are sent. Until then the service has not got the
    request, whatever the error is.
    """

    is_begun = False

    def read(self, size: int | None = -1) -> bytes:
        self.is_begun = True
        return super().read(size)
