"""The errors, by what a person has to do about them.

::

    SpeechKitError
    ├── InvalidRequestError (ValueError)    nothing was sent, nothing was paid
    │   ├── SettingsError                       a keyword, or two that don't go together
    │   ├── ConnectionSettingsError             the Airflow connection
    │   ├── RecordingError                      the recording is missing, unreadable, or differs from its settings
    │   │   ├── RecordingNotFoundError          no object has this key, or nothing matches the pattern
    │   │   └── UnsupportedFormatError          the service doesn't take it as it is; a conversion may help
    │   │       └── TruncatedError                  its end is missing; what there is of it can be converted
    │   └── CostLimitExceededError              more than `max_billed_seconds`
    ├── RefusedError                            the service answered and refused
    │   ├── AuthenticationError                 401
    │   ├── PermissionDeniedError               403
    │   ├── OperationNotFoundError              404: it never existed, or is older than three days
    │   ├── QuotaExceededError                  429
    │   └── ServiceFaultError                   5xx
    ├── UnreachableError                        no answer: the host, TLS, a timeout, a broken connection
    ├── AnswerUnreadableError                   an answer that is cut off or undocumented
    ├── NotFinishedError                        there is no result yet
    ├── RecognitionFailedError (RuntimeError)   the operation ended in an error
    ├── SubmissionsFailedError (RuntimeError)   some of several recordings; the others have their operations
    ├── LostError (RuntimeError)
    │   ├── ResultExpiredError                  the service deleted the result, no answer is archived
    │   └── SubmissionLostError                 a request may have been accepted; its operation id is unknown
    └── StorageError                            an archive or a target that can't be read or written
        └── ArchiveError

None of them derives from `AirflowException`: in deferred mode `soft_fail=True` skips the task after such an error, and
a failed recognition would go unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_speechkit.parsing import MalformedError, parse_code, writable
from airflow_speechkit.redaction import clean_address, clean_text, without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_QUOTED, _MOST_NAMED = 10, 1000


class SpeechKitError(Exception):
    """The root of the tree: what happened, to which recording, and whether a retry can help.

    :param what: what happened, in one sentence, without secrets and without any transcript
    :param recording: the recording's address (its credentials are removed)
    :param operation_id: the operation that it happened to
    :param hint: what a person can do about it
    :param retry: what a retry of the task does; it follows "A retry"
    :param facts: values for the attributes that the kind declares, in place of its own
    """

    #: Whether running the task again, with nothing changed, can end differently.
    retry_can_help: bool = False
    #: Whether the service may have accepted the submission: submitting again may then be paid for twice.
    may_have_been_accepted: bool = False
    #: The service's ``x-request-id`` and ``x-server-trace-id``.
    request_id: str | None = None
    server_trace_id: str | None = None

    def __init__(
        self,
        what: str,
        *,
        recording: str | None = None,
        operation_id: str | None = None,
        hint: str | None = None,
        retry: str | None = None,
        **facts: Any,
    ) -> None:
        # It is written to logs, XComs and records, as UTF-8.
        self.what = clean_text(writable(what))
        self.recording = clean_address(writable(recording)) if recording else None
        self.operation_id = operation_id
        self.hint = hint
        self.retry = retry
        vars(self).update({name: value for name, value in facts.items() if value is not None})
        # From this and its attributes it is made again in another process.
        super().__init__(self.what)

    def about_recording(self, recording: str) -> None:
        """Set the recording that it happened to, if none is set."""
        if self.recording is None:
            self.recording = clean_address(writable(recording))

    def add_hint(self, hint: str) -> None:
        """Add to what a person can do, or has to know."""
        self.hint = f"{_sentence(self.hint)} {hint}" if self.hint else hint

    def __str__(self) -> str:
        facts = {
            "recording": self.recording,
            "operation": self.operation_id,
            "x-request-id": self.request_id,
            "x-server-trace-id": self.server_trace_id,
        }
        about = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
        return " ".join(
            [
                _sentence(self.what),
                *([f"[{about}]"] if about else []),
                *([_sentence(self.hint)] if self.hint else []),
                *([_sentence(f"A retry {self.retry}")] if self.retry else []),
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, for `error_from_json`."""
        plain = (str, int, float, type(None))
        state = {name: value for name, value in vars(self).items() if isinstance(value, plain)}
        return {**state, "kind": type(self).__name__, "retry_can_help": self.retry_can_help}


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def error_from_json(data: dict[str, Any]) -> SpeechKitError:
    """Return the error that `SpeechKitError.to_json` returned.

    :raises ValueError: it isn't one
    """
    kind = globals().get(str(data.get("kind")))
    if not (isinstance(kind, type) and issubclass(kind, SpeechKitError) and isinstance(data.get("what"), str)):
        raise ValueError("This isn't an error's JSON")
    error = kind(data["what"])
    vars(error).update({name: value for name, value in data.items() if name != "kind"})
    return error


def quoted(errors: Sequence[SpeechKitError]) -> str:
    """Return the first errors, a line each, and the recordings of the others."""
    lines = [f"- {error}" for error in errors[:_MOST_QUOTED]]
    if others := errors[_MOST_QUOTED:]:
        names = (one.recording or one.operation_id or one.what for one in others[:_MOST_NAMED])
        lines.append(f"- and {len(others):,} more: {', '.join(names)}")
    return "\n".join(lines)


@dataclass(frozen=True)
class ErrorStatus:
    """An error as the service writes it: a ``google.rpc.Status``.

    :param code: the gRPC code, where there is one
    :param message: the service's text, on one line and without secrets, where there is one
    """

    code: int | None = None
    message: str | None = None


def read_status(error: object) -> ErrorStatus | None:
    """Read the service's ``error`` in each of its spellings; None where it is ``null``, ``{}``, or OK without a text.

    :raises MalformedError: it isn't an object
    """
    if error is None:
        return None
    if not isinstance(error, dict):
        raise MalformedError("an error isn't an object")
    codes = (parse_code(error.get(name)) for name in ("code", "grpcCode", "grpc_code"))
    code = next((one for one in codes if one is not None), None)
    messages = (error.get(name) for name in ("message", "error_message"))
    message = next((one for one in messages if isinstance(one, str)), None)
    if not code and not message:
        return None
    return ErrorStatus(code, None if message is None else without_secrets(message))


class InvalidRequestError(SpeechKitError, ValueError):
    """Nothing was sent and nothing was paid: the input has to change first."""


class SettingsError(InvalidRequestError):
    """A keyword has an invalid value, or two of them don't go together."""


class ConnectionSettingsError(InvalidRequestError):
    """The Airflow connection lacks something, or contradicts itself."""


class RecordingError(InvalidRequestError):
    """The recording is missing, can't be read, or differs from its settings."""


class RecordingNotFoundError(RecordingError):
    """No object has this key, or a prefix or pattern matches nothing."""


class UnsupportedFormatError(RecordingError):
    """The service doesn't take the recording as it is. It can be converted, if something decodes it."""


class TooLongError(UnsupportedFormatError):
    """The recording is longer than the service takes, or larger however it is encoded. Its parts can be submitted."""


class TruncatedError(UnsupportedFormatError):
    """The end of the recording is missing. What there is of it can be converted."""


class CostLimitExceededError(InvalidRequestError):
    """Submitting would cost more than ``max_billed_seconds``, or the cost isn't known beforehand."""


class RefusedError(SpeechKitError):
    """The service answered and refused."""

    http_status: int | None = None
    #: The ``code`` of the ``google.rpc.Status`` in the body.
    grpc_code: int | None = None


class AuthenticationError(RefusedError):
    """401: the key or token is wrong, revoked or expired, or (says the service's FAQ) a role is missing."""


class PermissionDeniedError(RefusedError):
    """403: the service account lacks a role, or can't read the recording."""


class OperationNotFoundError(RefusedError):
    """404: the operation never existed in this folder, or is older than three days."""


class QuotaExceededError(RefusedError):
    """429: the folder's quota is used up."""

    retry_can_help = True
    #: ``Retry-After`` of the answer, in seconds.
    retry_after_s: float | None = None


class ServiceFaultError(RefusedError):
    """5xx: the service fails. A submission may have been accepted, except after 501."""

    retry_can_help = True


class UnreachableError(SpeechKitError):
    """No answer came: the host can't be reached, or the connection broke."""

    retry_can_help = True


class AnswerUnreadableError(SpeechKitError):
    """An answer that is cut off, isn't JSON, or lacks what every such answer has."""

    retry_can_help = True


def unexpected(operation_id: str, error: BaseException) -> AnswerUnreadableError:
    """Return the error for an unexpected one while an operation's answer was processed. Its traceback is in the log.

    :param error: the unexpected error; its own text may hold a part of the answer, and is left out
    """
    return AnswerUnreadableError(
        f"Processing the operation's answer failed with an unexpected {type(error).__name__}",
        operation_id=operation_id,
        hint="Report it with the traceback in the log. The service keeps the answer for three days",
        retry="checks again",
    )


class NotFinishedError(SpeechKitError):
    """There is no result yet: the operation is running, or its result isn't ready."""

    retry_can_help = True


class RecognitionFailedError(SpeechKitError, RuntimeError):
    """The operation ended in an error of the service."""

    #: The error's gRPC code and text.
    code: int | None = None
    message: str | None = None


class SubmissionsFailedError(SpeechKitError, RuntimeError):
    """Several of the recordings have no operation; all the others have theirs."""

    errors: Sequence[SpeechKitError] = ()

    @classmethod
    def of(cls, errors: Sequence[SpeechKitError], recordings: int) -> SubmissionsFailedError:
        """Return the error of several recordings.

        :param errors: one for each of them
        :param recordings: number of all recordings
        """
        return cls(
            f"{len(errors)} of {recordings} recordings have no operation; the others have theirs:\n{quoted(errors)}",
            retry="submits only these, and pays for nothing twice",
            retry_can_help=any(error.retry_can_help for error in errors),
            errors=tuple(errors),
        )


class LostError(SpeechKitError, RuntimeError):
    """Something that was paid for, or may have been, is lost."""


class ResultExpiredError(LostError):
    """The service has deleted the result, and no answer is in the archive."""


class SubmissionLostError(LostError):
    """A submission may have been accepted, but its operation id never came back."""


class StorageError(SpeechKitError):
    """A file or object can't be read or written."""

    retry_can_help = True


class ArchiveError(StorageError):
    """The archive can't be read or written. This is never treated as an empty archive."""
