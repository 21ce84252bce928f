"""What the service says when it says no: the forms of its errors, read into ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import (
    AuthenticationError,
    OperationNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RefusedError,
    ServiceFaultError,
)
from airflow_speechkit.parsing import MalformedError, parse_object
from airflow_speechkit.status import ErrorStatus, read_status

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNTIL_MENDED = "ends in the same way until that is mended"


#: HTTP status and gRPC code with which the service itself says that it has not taken a submission.
_NOT_TAKEN = frozenset({(500, 13), (503, 14)})


def read_refusal(body: bytes) -> ErrorStatus:
    """Read an error's body: a bare ``google.rpc.Status``, the gateway's form, or the synchronous API's.

    Anything else (a proxy's HTML page, garbage) says nothing and isn't repeated.
    """
    try:
        data = parse_object(body)
        inner = data.get("error")
        return read_status(inner if isinstance(inner, dict) else data) or ErrorStatus()
    except MalformedError:
        return ErrorStatus()


def refused(
    *,
    what: str,
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    retry_after_s: float | None,
    submission: bool,
    about: Mapping[str, str | None],
) -> RefusedError:
    """Return the error that an answer means.

    Which answers leave open whether a submission was accepted: a gateway that gave up waiting (408, 499, 504),
    one that got nonsense from behind it (502), and a 500 or 503 that isn't in the service's own words. With its
    own ``google.rpc.Status`` (INTERNAL or UNAVAILABLE) the service itself says that it has not taken the
    request, and its FAQ that such requests aren't billed: these may be sent again. 501 and everything below 500
    was refused before anything began, 429 included.

    :param what: what was asked for, such as "submitting the recording"
    :param status: the HTTP status, 300 and above
    :param body: the answer's body
    :param headers: its headers, names in lower case
    :param retry_after_s: what ``Retry-After`` says, seconds
    :param submission: whether it was a submission
    :param about: `recording` and `operation_id`
    """
    refusal = read_refusal(body)
    says = f': "{refusal.message}"' if refusal.message else ""
    said = f"The service refused {what} with HTTP {status}{says}"
    facts: dict[str, Any] = {
        **about,
        "request_id": headers.get("x-request-id"),
        "server_trace_id": headers.get("x-server-trace-id"),
    }
    code = refusal.code
    if status == 401:
        return AuthenticationError(
            said,
            http_status=status,
            grpc_code=code,
            hint="Check the connection's key or token: it is wrong, revoked or run out. The service also answers "
            "so where the service account lacks the role ai.speechkit-stt.user",
            retry=_UNTIL_MENDED,
            **facts,
        )
    if status == 403:
        return PermissionDeniedError(
            said,
            http_status=status,
            grpc_code=code,
            hint="Give the service account the role ai.speechkit-stt.user on its folder"
            + (
                ", and let it read the bucket (storage.viewer or storage.uploader; an encrypted one: "
                "kms.keys.encrypterDecrypter). A new role takes some minutes to work"
                if submission
                else ""
            ),
            retry=_UNTIL_MENDED,
            **facts,
        )
    if status == 404 and not submission:
        return OperationNotFoundError(
            said,
            http_status=status,
            grpc_code=code,
            hint="Check the operation id and the connection: it never existed in this folder, or the three days "
            "that the service keeps it for are over",
            retry=_UNTIL_MENDED,
            **facts,
        )
    if status == 429:
        return QuotaExceededError(
            said,
            http_status=status,
            grpc_code=code,
            retry_after_s=retry_after_s,
            hint="Wait, or have the folder's quota raised",
            retry="sends it again: nothing was taken" if submission else "asks again",
            **facts,
        )
    if status >= 500 or status in (408, 499):
        unsure = submission and status != 501 and (status, code) not in _NOT_TAKEN
        return ServiceFaultError(
            said,
            http_status=status,
            grpc_code=code,
            may_have_been_accepted=unsure,
            hint="It may have been accepted all the same: look before it is sent again" if unsure else None,
            retry="sends nothing again by itself" if unsure else "sends it again" if submission else "asks again",
            **facts,
        )
    if status < 400:
        hint = "A redirect isn't followed, it would carry the key elsewhere: check the connection's host"
    elif "folder id" in (refusal.message or "").lower():
        hint = "Leave `folder_id` out of the connection, or name the service account's own folder"
    elif status == 413:
        hint = "Upload the recording to a bucket and submit its link"
    elif submission:
        hint = "Check that the recording is what its settings say, and that the link leads to Object Storage"
    else:
        hint = None
    return RefusedError(said, http_status=status, grpc_code=code, hint=hint, retry=_UNTIL_MENDED, **facts)
