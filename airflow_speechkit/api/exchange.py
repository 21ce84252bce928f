"""One request to the service: its retries, and the errors that its answers mean. Without I/O."""

from __future__ import annotations

import logging
import random
import time
import uuid
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from airflow_speechkit.api.http import Fault, FaultKind, Outcome, Pause, Request, Response, Step
from airflow_speechkit.errors import (
    AnswerUnreadableError,
    AuthenticationError,
    ErrorStatus,
    OperationNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RefusedError,
    ServiceFaultError,
    UnreachableError,
    read_status,
)
from airflow_speechkit.parsing import MalformedError, parse_object
from airflow_speechkit.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

log = logging.getLogger(__name__)

#: Between attempts of one request. A task never waits longer than the longest pause; the caller retries after that.
REQUEST_RETRY = RetryPolicy(1.0, 30.0)

#: HTTP statuses after which a request that changes nothing is sent again.
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
#: HTTP status and gRPC code with which the service itself says that it has not taken a submission.
_NOT_TAKEN = frozenset({(500, 13), (503, 14)})

_UNTIL_FIXED = "fails in the same way until this is fixed"
_MAYBE_TAKEN = "The service may have accepted it: check before you submit the recording again"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Sends requests, and sends them again where that is safe.

    :param attempts: how often a request is sent at most
    :param now: seconds since the epoch
    :param chance: a number between 0 and 1
    """

    user_agent: str
    attempts: int = 4
    now: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random

    def perform(self, request: Request, *, attempts: int | None = None) -> Generator[Step, Outcome, Response]:
        """Send a request until it succeeds, or until sending it again is unsafe or useless.

        A submission is sent again only where the service certainly has not got it: no connection was made.

        :param attempts: how often at most, in place of the exchange's own number
        :return: a response of status 2xx
        :raises RefusedError: the service refused
        :raises UnreachableError: no answer came
        :raises AnswerUnreadableError: the answer was cut off
        """
        for attempt in count(1):
            is_last = attempt >= (attempts or self.attempts)
            pause_s = REQUEST_RETRY.pause_s(attempt) * (0.5 + self.chance() / 2)
            headers = {
                "accept": "application/json",
                "user-agent": self.user_agent,
                "x-client-request-id": str(uuid.uuid4()),
                **({} if request.body is None else {"content-type": "application/json"}),
                **request.headers,
            }
            outcome = yield replace(request, headers=headers)
            if isinstance(outcome, Response):
                _log_ids(request, headers, outcome)
                if 200 <= outcome.status < 300:
                    return outcome
                asked_for_s = outcome.retry_after_s(self.now())
                is_retried = outcome.status in _RETRIED and not request.is_submission
                if is_last or not is_retried or (asked_for_s or 0.0) > REQUEST_RETRY.longest_s:
                    raise refused(request, outcome, asked_for_s)
                pause_s = max(pause_s, asked_for_s or 0.0)
                log.warning(
                    "The service answered %s with HTTP %d: it is sent again in %.0f s",
                    request.purpose,
                    outcome.status,
                    pause_s,
                )
            elif isinstance(outcome, Fault):
                if is_last or (request.is_submission and outcome.kind is not FaultKind.NOT_SENT):
                    raise _no_answer(request, outcome)
                log.warning(
                    "There is no answer to %s from %s (%s): it is sent again in %.0f s",
                    request.purpose,
                    request.host,
                    outcome.reason,
                    pause_s,
                )
            yield Pause(pause_s)
        raise AssertionError  # pragma: no cover - `count` never ends


def read_refusal(body: bytes) -> ErrorStatus:
    """Read the body of an error: a bare ``google.rpc.Status``, the gateway's form, or the synchronous API's.

    Anything else, such as a proxy's HTML page, is ignored.
    """
    try:
        data = parse_object(body)
        inner = data.get("error")
        return read_status(inner if isinstance(inner, dict) else data) or ErrorStatus()
    except MalformedError:
        return ErrorStatus()


def refused(request: Request, response: Response, retry_after_s: float | None = None) -> RefusedError:
    """Return the error that a response of status 300 and above means.

    A submission may have been accepted after a timeout in a gateway (408, 499, 504), a bad answer behind one (502), and
    a 500 or 503 that the service didn't write itself. With its own ``google.rpc.Status`` (INTERNAL or UNAVAILABLE) it
    says that it has not taken the request, and its FAQ says that such requests aren't billed.

    :param retry_after_s: ``Retry-After``, in seconds
    """
    status, said = response.status, read_refusal(response.body)
    kind: type[RefusedError] = RefusedError
    hint: str | None = None
    retry = _UNTIL_FIXED
    extra: dict[str, Any] = {}
    if status == 401:
        kind = AuthenticationError
        hint = (
            "Check the connection's key or token: it is wrong, revoked or expired. The service also answers 401 where "
            "the service account lacks the role ai.speechkit-stt.user"
        )
    elif status == 403:
        kind = PermissionDeniedError
        hint = "Give the service account the role ai.speechkit-stt.user on its folder"
        if request.is_submission:
            hint += (
                ", and access to the bucket (storage.viewer or storage.uploader; for an encrypted bucket also "
                "kms.keys.encrypterDecrypter). A new role takes some minutes to work"
            )
    elif status == 404 and not request.is_submission:
        kind = OperationNotFoundError
        hint = (
            "Check the operation id and the connection: the operation never existed in this folder, or it is older "
            "than three days"
        )
    elif status == 429:
        kind, extra = QuotaExceededError, {"retry_after_s": retry_after_s}
        hint = "Wait, or ask for a higher quota of the folder"
        retry = "sends the request again"
    elif status >= 500 or status in (408, 499):
        kind = ServiceFaultError
        retry = "sends the request again"
        if request.is_submission and status != 501 and (status, said.code) not in _NOT_TAKEN:
            extra = {"may_have_been_accepted": True}
            hint, retry = _MAYBE_TAKEN, "does not submit the recording by itself"
    elif status < 400:
        hint = "Redirects are not followed, because the key would be sent elsewhere: check the host in the connection"
    elif "folder id" in (said.message or "").lower():
        hint = "Remove `folder_id` from the connection, or set it to the service account's own folder"
    elif status == 413:
        hint = "Upload the recording to a bucket and submit its link"
    elif request.is_submission:
        hint = "Check that the recording matches its settings, and that the link leads to Object Storage"
    return kind(
        f"The service refused {request.purpose} with HTTP {status}" + (f': "{said.message}"' if said.message else ""),
        http_status=status,
        grpc_code=said.code,
        hint=hint,
        retry=retry,
        recording=request.recording,
        operation_id=request.operation_id,
        **response.ids,
        **extra,
    )


def _no_answer(request: Request, fault: Fault) -> UnreachableError | AnswerUnreadableError:
    is_unsure = request.is_submission and fault.kind is not FaultKind.NOT_SENT
    about: dict[str, Any] = {
        "hint": _MAYBE_TAKEN if is_unsure else None,
        "retry": "does not submit the recording by itself" if is_unsure else "sends the request again",
        "recording": request.recording,
        "operation_id": request.operation_id,
    }
    if fault.kind is FaultKind.CUT_ANSWER:
        what = f"The answer to {request.purpose} from {request.host} can't be read: {fault.reason}"
        return AnswerUnreadableError(what, may_have_been_accepted=is_unsure, **about)
    what = f"There is no answer to {request.purpose} from {request.host}: {fault.reason}"
    return UnreachableError(what, may_have_been_accepted=is_unsure, **about)


def _log_ids(request: Request, headers: dict[str, str], response: Response) -> None:
    log.debug(
        "%s: HTTP %d, x-client-request-id %s, x-request-id %s, x-server-trace-id %s",
        request.purpose,
        response.status,
        headers["x-client-request-id"],
        *response.ids.values(),
    )
