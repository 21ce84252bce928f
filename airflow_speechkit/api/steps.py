"""What the protocol asks of a transport, and what it is told came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING

from airflow_speechkit.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Between attempts of one request. No task is held up for longer than its longest pause: more is left to the caller.
REQUEST_RETRY = RetryPolicy(1.0, 30.0)
#: Longer than that no ``Retry-After`` is obeyed: the longest of the service's quotas is full again after an hour.
LONGEST_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True)
class Request:
    """An HTTP request.

    :param read_timeout_s: how long nothing may come
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0


@dataclass(frozen=True)
class Response:
    """An HTTP response, read to its end.

    :param headers: names in lower case
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class FaultKind(Enum):
    """How far a request got that has no answer."""

    NOT_SENT = "not sent"
    MAYBE_SENT = "maybe sent"
    CUT_ANSWER = "cut answer"


@dataclass(frozen=True)
class Fault:
    """Why there is no answer.

    :param kind: ``NOT_SENT`` only where the service provably never had the whole request
    :param what: what happened, without secrets, such as "the host name can't be resolved"
    """

    kind: FaultKind
    what: str


@dataclass(frozen=True)
class Send:
    """Step: carry this request.

    :param rationed: whether it counts against one of the service's quotas: whoever keeps a budget is asked before
    """

    request: Request
    rationed: bool = False


@dataclass(frozen=True)
class Pause:
    """Step: wait."""

    seconds: float


Step = Send | Pause
Outcome = Response | Fault | None


def answered(outcome: Outcome) -> Response:
    """Return the response that `Send` was answered with, where it wasn't a fault."""
    if not isinstance(outcome, Response):  # pragma: no cover
        raise TypeError("a transport answers Send with a Response or a Fault")
    return outcome


def backoff_s(attempt: int, chance: float) -> float:
    """Return how long to wait before another attempt: doubling, with a jitter of up to a half.

    :param attempt: how many there have been
    :param chance: a number between 0 and 1
    """
    return REQUEST_RETRY.pause_s(attempt) * (0.5 + chance / 2)


def retry_after_s(response: Response, now: float) -> float | None:
    """Return what ``Retry-After`` says in seconds, `LONGEST_RETRY_AFTER_S` at most; None where it says nothing.

    :param now: seconds since the epoch
    """
    text = response.headers.get("retry-after", "").strip()
    try:
        if text.isascii() and text.isdigit():
            seconds = float(text)
        else:
            # HTTP's dates are in GMT, also one that doesn't say so.
            date = parsedate_to_datetime(text)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ArithmeticError, LookupError, OSError, TypeError, ValueError):
        # The standard library raises most of these over some date or other.
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
