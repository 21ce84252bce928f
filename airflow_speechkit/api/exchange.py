"""One request to the service: its retries, and the errors that its answers mean. Without I/O."""

from __future__ import annotations

import logging
import random
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
    SpeechKitError,
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

_KINDS: dict[int, type[RefusedError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: OperationNotFoundError,
    408: ServiceFaultError,
    429: QuotaExceededError,
    499: ServiceFaultError,
}
_HINTS = {
    401: "Check the connection's key or token: it is wrong, revoked or expired. The service also answers 401 where the "
    "service account lacks the role ai.speechkit-stt.user",
    403: "Give the service account the role ai.speechkit-stt.user on its folder, and for submissions access to the "
    "bucket (storage.viewer or storage.uploader; for an encrypted bucket also kms.keys.encrypterDecrypter). A new role "
    "takes some minutes to work",
    404: "Check the operation id and the connection: the operation never existed in this folder, or it is older than "
    "three days",
    413: "Upload the recording to a bucket and submit its link",
    429: "Wait, or ask for a higher quota of the folder",
}
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
        attempt = 0
        while True:
            attempt += 1
            pause_s = REQUEST_RETRY.pause_s(attempt) * (0.5 + self.chance() / 2)
            headers = {
                "accept": "application/json",
                "user-agent": self.user_agent,
                "x-client-request-id": str(uuid.uuid4()),
                **({} if request.body is None else {"content-type": "application/json"}),
                **request.headers,
            }
            outcome = yield replace(request, headers=headers)
            error: SpeechKitError
            if isinstance(outcome, Response):
                facts = (request.purpose, outcome.status, headers["x-client-request-id"], *outcome.ids.values())
                log.debug("%s: HTTP %d, x-client-request-id %s, x-request-id %s, x-server-trace-id %s", *facts)
                if 200 <= outcome.status < 300:
                    return outcome
                pause_s = max(pause_s, outcome.retry_after_s or 0.0)
                error = refused(request, outcome)
                is_useful = (
                    outcome.status in _RETRIED and not request.is_submission and pause_s <= REQUEST_RETRY.longest_s
                )
            else:
                assert isinstance(outcome, Fault)  # noqa: S101 - a transport answers each request
                error = _no_answer(request, outcome)
                is_useful = not error.may_have_been_accepted
            if attempt >= (attempts or self.attempts) or not is_useful:
                raise error
            log.warning("The request is sent again in %.0f s: %s", pause_s, error)
            yield Pause(pause_s)


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


def refused(request: Request, response: Response) -> RefusedError:
    """Return the error that a response of status 300 and above means.

    A submission may have been accepted after a timeout in a gateway (408, 499, 504), a bad answer behind one (502), and
    a 500 or 503 that the service didn't write itself. With its own ``google.rpc.Status`` (INTERNAL or UNAVAILABLE) it
    says that it has not taken the request, and its FAQ says that such requests aren't billed.
    """
    status, details = response.status, read_refusal(response.body)
    kind = ServiceFaultError if status >= 500 else _KINDS.get(status, RefusedError)
    hint = _HINTS.get(status)
    retry = "sends the request again" if kind.retry_can_help else "fails in the same way until this is fixed"
    is_unsure = request.is_submission and kind is ServiceFaultError and status != 501
    is_unsure = is_unsure and (status, details.code) not in _NOT_TAKEN
    if is_unsure:
        hint, retry = _MAYBE_TAKEN, "does not submit the recording by itself"
    elif status < 400:
        hint = "Redirects are not followed, because the key would be sent elsewhere: check the host in the connection"
    elif kind is RefusedError and "folder id" in (details.message or "").lower():
        hint = "Remove `folder_id` from the connection, or set it to the service account's own folder"
    elif request.is_submission and kind in (RefusedError, OperationNotFoundError) and status != 413:
        kind = RefusedError
        hint = "Check that the recording matches its settings, and that the link leads to Object Storage"
    return kind(
        f"The service refused {request.purpose} with HTTP {status}"
        + (f': "{details.message}"' if details.message else ""),
        http_status=status,
        grpc_code=details.code,
        retry_after_s=response.retry_after_s if kind is QuotaExceededError else None,
        may_have_been_accepted=is_unsure,
        hint=hint,
        retry=retry,
        recording=request.recording,
        operation_id=request.operation_id,
        **response.ids,
    )


def _no_answer(request: Request, fault: Fault) -> UnreachableError | AnswerUnreadableError:
    is_unsure = request.is_submission and fault.kind is not FaultKind.NOT_SENT
    is_cut = fault.kind is FaultKind.CUT_ANSWER
    what = f"There is no answer to {request.purpose} from {request.host}"
    if is_cut:
        what = f"The answer to {request.purpose} from {request.host} can't be read"
    return (AnswerUnreadableError if is_cut else UnreachableError)(
        f"{what}: {fault.reason}",
        may_have_been_accepted=is_unsure,
        hint=_MAYBE_TAKEN if is_unsure else None,
        retry="does not submit the recording by itself" if is_unsure else "sends the request again",
        recording=request.recording,
        operation_id=request.operation_id,
    )
