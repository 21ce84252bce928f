"""HTTP requests and responses, as the protocol gives them to a transport and gets them back.

The protocol is written as generators: each yields a `Request` to send or a `Pause` to wait, and gets back a `Response`
or a `Fault`. A transport drives them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A longer ``Retry-After`` is cut to this: the longest quota period of the service is an hour.
LONGEST_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """An HTTP request.

    :param purpose: what it is, as errors name it, such as "the request for the operation's state"
    :param is_submission: whether it costs money each time that it arrives
    :param recording: address of the recording that errors name
    :param operation_id: the operation that errors name
    :param connect_timeout_s: limit for the connection to be made, in seconds
    :param read_timeout_s: limit for each time that no bytes come, in seconds
    """

    method: str
    url: str
    purpose: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    is_submission: bool = False
    recording: str | None = None
    operation_id: str | None = None
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0

    @property
    def host(self) -> str:
        """Host and port of the URL."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True)
class Response:
    """An HTTP response, read to its end.

    :param headers: names in lower case
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def ids(self) -> dict[str, Any]:
        """The ids that the service's support asks for, as errors take them."""
        return {
            "request_id": self.headers.get("x-request-id"),
            "server_trace_id": self.headers.get("x-server-trace-id"),
        }

    @property
    def retry_after_s(self) -> float | None:
        """``Retry-After`` in seconds, at most `LONGEST_RETRY_AFTER_S`; None where it is missing or a date."""
        text = self.headers.get("retry-after", "").strip()
        return min(float(text), LONGEST_RETRY_AFTER_S) if text.isascii() and text.isdigit() else None


class FaultKind(Enum):
    """How far a request without a response got."""

    NOT_SENT = "not sent"
    MAYBE_SENT = "maybe sent"
    CUT_ANSWER = "cut answer"


@dataclass(frozen=True)
class Fault:
    """Why there is no response.

    :param kind: ``NOT_SENT`` only where the service certainly has not got the whole request
    :param reason: what happened, without secrets, such as "the connection was refused"
    """

    kind: FaultKind
    reason: str


@dataclass(frozen=True)
class Pause:
    """Wait before the next request."""

    seconds: float


Step = Request | Pause
Outcome = Response | Fault | None
