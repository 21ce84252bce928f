"""What can go wrong, by what a person has to do about it.

::

    SpeechKitError
    ├── InvalidRequestError (ValueError)    nothing was sent, nothing was paid
    │   ├── SettingsError                       a keyword, or two that don't go together
    │   ├── ConnectionSettingsError             the Airflow connection
    │   ├── RecordingError                      the recording: missing, unreadable, not what it says
    │   │   └── RecordingNotFoundError          no object has this key, or nothing matches the pattern
    │   └── CostLimitExceededError                 more than `max_billed_seconds`
    ├── RefusedError                            the service answered, and said no
    │   ├── AuthenticationError                 401
    │   ├── PermissionDeniedError               403
    │   ├── OperationNotFoundError              404: it never existed, or its three days are over
    │   ├── QuotaExceededError                  429
    │   └── ServiceFaultError                   5xx
    ├── UnreachableError                        no answer: the host, TLS, a timeout, a broken connection
    ├── AnswerUnreadableError                   an answer that is cut off or isn't what was documented
    ├── NotFinishedError                        there is no result yet
    ├── RecognitionFailedError (RuntimeError)   the operation ended in an error
    ├── SubmissionsFailedError (RuntimeError)   some of several recordings: the others have their operations
    ├── LostError (RuntimeError)
    │   ├── ResultExpiredError                  the service has forgotten the result, no answer is archived
    │   └── SubmissionLostError                 a request may have been taken; its operation id is not known
    └── StorageError                            an archive or a target that can't be read or written
        └── ArchiveError

None of them derives from `AirflowException`: with `soft_fail=True` Airflow turns that kind into a skip in
deferred mode, and a failed recognition would disappear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_speechkit.parsing import writable
from airflow_speechkit.redaction import clean_address, clean_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_QUOTED, _MOST_NAMED = 10, 1000


class SpeechKitError(Exception):
    """The root of the tree: says what happened, to which recording, and whether a retry can help.

    :param what: what happened, in one sentence, without secrets and without any transcript
    :param recording: the recording's address (its credentials are cut)
    :param operation_id: the operation it happened to
    :param hint: what a person can do about it
    :param retry: what a retry of the task will do
    :param retry_can_help: whether running the task again, with nothing changed, can end differently; by default what
        holds for errors of this kind
    :param request_id: the service's ``x-request-id``
    :param server_trace_id: the service's ``x-server-trace-id``
    """

    #: Whether running the task again, with nothing changed, can end differently.
    retry_can_help: bool = False

    #: Whether the service may have accepted the submission all the same. Only then is sending it again a risk:
    #: a second, paid recognition. False for everything that isn't a submission.
    may_have_been_accepted: bool = False

    def __init__(
        self,
        what: str,
        *,
        recording: str | None = None,
        operation_id: str | None = None,
        hint: str | None = None,
        retry: str | None = None,
        retry_can_help: bool | None = None,
        request_id: str | None = None,
        server_trace_id: str | None = None,
    ) -> None:
        if retry_can_help is not None:
            self.retry_can_help = retry_can_help
        # It goes into logs, XComs and records, as UTF-8.
        self.what = clean_text(writable(what))
        self.recording = clean_address(writable(recording)) if recording else None
        self.operation_id = operation_id
        self.hint = hint
        self.retry = retry
        self.request_id = request_id
        self.server_trace_id = server_trace_id
        super().__init__(self._text())

    def about_recording(self, recording: str) -> None:
        """Say which recording it happened to, if that isn't said yet."""
        if self.recording is None:
            self.recording = clean_address(writable(recording))
            self.args = (self._text(),)

    def add_hint(self, hint: str) -> None:
        """Say what else a person can do, or has to know."""
        self.hint = f"{_sentence(self.hint)} {hint}".rstrip() if self.hint else hint
        self.args = (self._text(),)

    def _text(self) -> str:
        about = [
            f"{name} {value}"
            for name, value in (
                ("recording", self.recording),
                ("operation", self.operation_id),
                ("x-request-id", self.request_id),
                ("x-server-trace-id", self.server_trace_id),
            )
            if value
        ]
        sentences = [_sentence(self.what)]
        if about:
            sentences.append(f"[{', '.join(about)}]")
        if self.hint:
            sentences.append(_sentence(self.hint))
        if self.retry:
            sentences.append(_sentence(f"A retry {self.retry}"))
        return " ".join(sentences)

    def to_json(self) -> dict[str, Any]:
        """Return what `error_from_json` makes the same error of."""
        plain = (str, int, float, type(None))
        state = {name: value for name, value in vars(self).items() if isinstance(value, plain)}
        return {**state, "kind": type(self).__name__, "retry_can_help": self.retry_can_help}

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments would be lost by the default reduction, and errors cross processes.
        return (_rebuild, (type(self), dict(self.__dict__)))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def quoted(errors: Sequence[SpeechKitError]) -> str:
    """Quote errors, a line each, and name the recordings of those beyond the first."""
    lines = [f"- {error}" for error in errors[:_MOST_QUOTED]]
    if len(errors) > _MOST_QUOTED:
        lines.append(f"- {and_more(errors[_MOST_QUOTED:])}")
    return "\n".join(lines)


def and_more(errors: Sequence[SpeechKitError]) -> str:
    """Say how many errors there are beside those that were quoted, and of which recordings."""
    names = [one.recording or one.operation_id or one.what for one in errors[:_MOST_NAMED]]
    return f"and {len(errors):,} more: {', '.join(names)}{', …' if len(errors) > _MOST_NAMED else ''}"


def _rebuild(kind: type[SpeechKitError], state: dict[str, object]) -> SpeechKitError:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    Exception.__init__(error, error._text())
    return error


def error_from_json(data: dict[str, Any]) -> SpeechKitError:
    """Return the error that `SpeechKitError.to_json` described.

    :raises ValueError: it describes none
    """
    kind = globals().get(str(data.get("kind")))
    if not (isinstance(kind, type) and issubclass(kind, SpeechKitError) and isinstance(data.get("what"), str)):
        raise ValueError("This describes no error")
    absent = dict.fromkeys(("recording", "operation_id", "hint", "retry", "request_id", "server_trace_id"))
    return _rebuild(kind, {**absent, **{name: value for name, value in data.items() if name != "kind"}})


class InvalidRequestError(SpeechKitError, ValueError):
    """Nothing was sent and nothing was paid: the input has to change first."""


class SettingsError(InvalidRequestError):
    """A keyword has a value that the service would not take, or two of them don't go together."""


class ConnectionSettingsError(InvalidRequestError):
    """The Airflow connection lacks something, or says two things at once."""


class RecordingError(InvalidRequestError):
    """The recording is missing, can't be read, or isn't what its settings say."""


class RecordingNotFoundError(RecordingError):
    """No object has this key, or a prefix or glob matches nothing."""


class CostLimitExceededError(InvalidRequestError):
    """Sending would cost more than ``max_billed_seconds``, or its cost can't be told beforehand."""


class RefusedError(SpeechKitError):
    """The service answered, and the answer was no.

    :param http_status: the HTTP status
    :param grpc_code: the ``code`` of the ``google.rpc.Status`` in the body, if there was one
    :param may_have_been_accepted: whether it was a submission that the service may have taken all the same
    """

    def __init__(
        self,
        what: str,
        *,
        http_status: int | None = None,
        grpc_code: int | None = None,
        may_have_been_accepted: bool = False,
        **about: Any,
    ) -> None:
        super().__init__(what, **about)
        self.http_status = http_status
        self.grpc_code = grpc_code
        self.may_have_been_accepted = may_have_been_accepted


class AuthenticationError(RefusedError):
    """401: the key or token is wrong, revoked or run out. The service's FAQ: also a missing role."""


class PermissionDeniedError(RefusedError):
    """403: the service account lacks a role, or can't read the recording."""


class OperationNotFoundError(RefusedError):
    """404: the operation never existed in this folder, or is older than the three days it is kept."""


class QuotaExceededError(RefusedError):
    """429: the folder's quota is used up.

    :param retry_after_s: what the answer's ``Retry-After`` says, if it has one
    """

    retry_can_help = True

    def __init__(self, what: str, *, retry_after_s: float | None = None, **about: Any) -> None:
        super().__init__(what, **about)
        self.retry_after_s = retry_after_s


class ServiceFaultError(RefusedError):
    """5xx: the service is in trouble. To a submission that leaves open whether it was accepted, but for 501."""

    retry_can_help = True


class UnreachableError(SpeechKitError):
    """No answer came: the host can't be reached, or the connection broke.

    :param may_have_arrived: whether the service may have taken the request all the same
    """

    retry_can_help = True

    def __init__(self, what: str, *, may_have_arrived: bool = False, **about: Any) -> None:
        super().__init__(what, **about)
        self.may_have_arrived = may_have_arrived
        self.may_have_been_accepted = may_have_arrived


class AnswerUnreadableError(SpeechKitError):
    """An answer that is cut off, isn't JSON, or lacks what every such answer has.

    :param may_have_been_accepted: whether it was the answer to a submission: its operation id is lost with it
    """

    retry_can_help = True

    def __init__(self, what: str, *, may_have_been_accepted: bool = False, **about: Any) -> None:
        super().__init__(what, **about)
        self.may_have_been_accepted = may_have_been_accepted


def unexpected(operation_id: str, error: BaseException) -> AnswerUnreadableError:
    """Turn an unexpected error into one of the operation whose answer led to it. Its traceback is in the log.

    :param error: the unexpected error; its own text may repeat what was read, and is left out
    """
    return AnswerUnreadableError(
        f"What was done with the operation's answer ended in an unexpected {type(error).__name__}",
        operation_id=operation_id,
        hint="Report it, with the traceback in the log; the answer is at the service for three days",
        retry="asks again",
    )


class NotFinishedError(SpeechKitError):
    """A result was asked for, and there is none yet: the operation is running, or its result isn't ready."""

    retry_can_help = True


class RecognitionFailedError(SpeechKitError, RuntimeError):
    """The operation ended in an error of the service.

    :param code: the error's ``code`` (a gRPC code)
    :param message: the error's ``message``
    """

    def __init__(self, what: str, *, code: int | None = None, message: str | None = None, **about: Any) -> None:
        super().__init__(what, **about)
        self.code = code
        self.message = message


class SubmissionsFailedError(SpeechKitError, RuntimeError):
    """Several of the recordings that were given have no operation; all the others have theirs.

    :param errors: what happened to each
    :param of: how many recordings there were
    """

    def __init__(self, errors: Sequence[SpeechKitError], *, of: int) -> None:
        super().__init__(
            f"{len(errors)} of {of} recordings have no operation; the others have theirs:\n{quoted(errors)}",
            retry="pays for nothing twice: it asks for these only",
            retry_can_help=any(error.retry_can_help for error in errors),
        )
        self.errors = tuple(errors)


class LostError(SpeechKitError, RuntimeError):
    """Something that was paid for, or may have been, can't be had any more."""


class ResultExpiredError(LostError):
    """The service has forgotten the result, and no answer is in the archive."""


class SubmissionLostError(LostError):
    """A submit request may have been taken, but its operation id never came back."""


class StorageError(SpeechKitError):
    """A file or object can't be read or written."""

    retry_can_help = True


class ArchiveError(StorageError):
    """The archive can't be read or written. It is never taken for an empty one."""
