"""What the service can be asked, each as a generator for a transport to drive."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_speechkit.api import v2, v3
from airflow_speechkit.api.exchange import Call, Effect, Exchange
from airflow_speechkit.api.operation import Operation, OperationState, id_within, read_large_operation, read_operation
from airflow_speechkit.api.steps import Outcome, Pause, Response, Step
from airflow_speechkit.compressed import Packed
from airflow_speechkit.errors import (
    AnswerUnreadableError,
    NotFinishedError,
    OperationNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RecognitionFailedError,
    RefusedError,
    ResultExpiredError,
    SettingsError,
)
from airflow_speechkit.models import is_operation_id
from airflow_speechkit.parsing import MalformedError
from airflow_speechkit.redaction import without_secrets
from airflow_speechkit.retry import RetryPolicy
from airflow_speechkit.settings import ApiVersion, AudioEncoding, RecognitionSettings
from airflow_speechkit.status import ErrorStatus, read_status

if TYPE_CHECKING:
    from collections.abc import Generator

    from airflow_speechkit.api.endpoints import Endpoints

log = logging.getLogger(__name__)

#: "The maximum string length in characters is 50" (v3's reference, GetRecognitionRequest).
_LONGEST_ID = 50
#: Of the form that the service's ids have, and never one of them.
_MADE_UP_ID = "e0300000000000000000"
#: A result right after "done" is a race of seconds.
NOT_READY_RETRY = RetryPolicy(1.0, 15.0, give_up_failures=5)
_NO_SUCH_METHOD = (404, 405, 501)


class Service:
    """SpeechKit's asynchronous recognition.

    :param folder_id: sent as ``x-folder-id`` with v3. v2 is never told: the service account's own is used
    :param data_logging_enabled: sent as ``x-data-logging-enabled`` with submissions: whether the service may keep
        the recording. None sends nothing, and then it doesn't
    """

    def __init__(
        self,
        exchange: Exchange,
        endpoints: Endpoints,
        *,
        folder_id: str | None = None,
        data_logging_enabled: bool | None = None,
    ) -> None:
        self.exchange = exchange
        self.endpoints = endpoints
        self.v3_headers = {"x-folder-id": folder_id} if folder_id else {}
        self.submit_headers = (
            {}
            if data_logging_enabled is None
            else {"x-data-logging-enabled": "true" if data_logging_enabled else "false"}
        )

    def submit(
        self, settings: RecognitionSettings, *, audio_uri: str | None, content: bytes | None = None
    ) -> Generator[Step, Outcome, Operation]:
        """Have a recording recognised. Costs money, each time.

        :param audio_uri: the recording's https link in Object Storage
        :param content: or the recording itself, v3 only
        """
        call = self._submission(settings, audio_uri, content)
        response = yield from self.exchange.perform(call)
        try:
            return read_operation(response.body)
        except AnswerUnreadableError as error:
            unreadable = error
        operation_id = id_within(response.body)
        if operation_id is not None:
            # It is paid for, and with its id nothing is lost: the first check says whether it is the right one.
            log.warning("Accepted as operation %s, in an answer that can't be read: %s", operation_id, unreadable.what)
            return Operation(
                id=operation_id, state=OperationState.RUNNING, api_version=settings.api_version, raw=response.body
            )
        raise AnswerUnreadableError(
            f"The submission was accepted, but its answer can't be read: {unreadable.what}",
            may_have_been_accepted=True,
            recording=call.recording,
            hint="Look in the service before it is sent again",
            request_id=response.headers.get("x-request-id"),
            server_trace_id=response.headers.get("x-server-trace-id"),
        )

    def _submission(self, settings: RecognitionSettings, audio_uri: str | None, content: bytes | None) -> Call:
        if settings.api_version is ApiVersion.V2:
            if content is not None or audio_uri is None:
                raise SettingsError("API v2 takes a link, not the recording itself", hint="Choose api_version='v3'")
            return Call(
                "POST",
                self.endpoints.recognition + v2.SUBMIT_PATH,
                "the submission",
                Effect.SUBMISSION,
                self.submit_headers,
                v2.submission_body(audio_uri, settings),
                recording=audio_uri,
            )
        return Call(
            "POST",
            self.endpoints.recognition_v3 + v3.SUBMIT_PATH,
            "the submission",
            Effect.SUBMISSION,
            self.submit_headers | self.v3_headers,
            v3.submission_body(settings, audio_uri=audio_uri, content=content),
            recording=audio_uri,
        )

    def operation(self, operation_id: str, *, attempts: int | None = None) -> Generator[Step, Outcome, Response]:
        """Ask for an operation. The answer is left unread: with v2 it may be megabytes.

        :param attempts: how often at most: each is one of the folder's status checks
        """
        url = f"{self.endpoints.operations}/operations/{_checked(operation_id)}"
        return (
            yield from self.exchange.perform(
                Call("GET", url, "the request for the operation's state", operation_id=operation_id), attempts=attempts
            )
        )

    def cancel(self, operation_id: str, *, attempts: int | None = None) -> Generator[Step, Outcome, Response]:
        """Ask for an operation to be cancelled: best effort, the answer is the operation.

        The protocol's definition and the v3 reference say GET, the design guide says POST: the second is tried
        where the first isn't known.

        :param attempts: how often at most with either: each is one of the folder's status checks
        """
        url = f"{self.endpoints.operations}/operations/{_checked(operation_id)}:cancel"
        call = Call("GET", url, "the request to cancel the operation", operation_id=operation_id)
        try:
            return (yield from self.exchange.perform(call, attempts=attempts))
        except RefusedError as error:
            if error.http_status not in _NO_SUCH_METHOD:
                raise
        call = Call("POST", url, "the request to cancel the operation", body=b"{}", operation_id=operation_id)
        return (yield from self.exchange.perform(call, attempts=attempts))

    def recognition(self, operation_id: str, *, seen_done: bool) -> Generator[Step, Outcome, Response]:
        """Ask for a v3 result, a few times where it isn't ready yet. The answer is left unread.

        :param seen_done: whether the operation is known to be done: then a 404 means that its time is over
        :raises NotFinishedError: it isn't ready
        :raises ResultExpiredError: it is gone
        """
        url = f"{self.endpoints.recognition_v3}{v3.RESULT_PATH}?operation_id={_checked(operation_id)}"
        call = Call("GET", url, "the request for the result", headers=self.v3_headers, operation_id=operation_id)
        pauses = NOT_READY_RETRY.pauses_s()
        while True:
            try:
                return (yield from self.exchange.perform(call))
            except RefusedError as error:
                if error.http_status not in (400, 404):
                    raise
                if "not ready" in error.what.lower():
                    pause_s = next(pauses, None)
                    if pause_s is None:
                        raise NotFinishedError(
                            "The service has no result ready",
                            operation_id=operation_id,
                            retry="asks for it again",
                            request_id=error.request_id,
                            server_trace_id=error.server_trace_id,
                        ) from error
                elif seen_done and error.http_status == 404:
                    raise ResultExpiredError(
                        "The service has forgotten the result: it keeps one for three days",
                        operation_id=operation_id,
                        hint="Submit the recording again, and archive the answer in time",
                        request_id=error.request_id,
                        server_trace_id=error.server_trace_id,
                    ) from error
                else:
                    raise
            yield Pause(pause_s)

    def delete_recognition(self, operation_id: str) -> Generator[Step, Outcome, bool]:
        """Have the service forget a v3 result; return whether it had one."""
        url = f"{self.endpoints.recognition_v3}{v3.DELETE_PATH}?operationId={_checked(operation_id)}"
        call = Call(
            "DELETE", url, "the request to delete the result", headers=self.v3_headers, operation_id=operation_id
        )
        try:
            yield from self.exchange.perform(call)
        except OperationNotFoundError:
            return False
        return True

    def probe(self, api_version: ApiVersion) -> Generator[Step, Outcome, str]:
        """Find out whether the key is accepted and may recognise speech, without recognising anything.

        A made-up operation isn't found where the key is right. A submission without a recording is then
        refused as such (400) where the role is there, and as forbidden where it isn't. That the service never
        accepts one is an assumption; nothing could be recognised, so nothing could be charged.

        :return: what was found, in a sentence
        :raises SpeechKitError: what is wrong
        """
        # A missing role is the second question.
        with suppress(OperationNotFoundError, PermissionDeniedError):
            yield from self.operation(_MADE_UP_ID)
        settings = RecognitionSettings(api_version=api_version, audio_encoding=AudioEncoding.OGG_OPUS)
        try:
            yield from self.exchange.perform(self._submission(settings, "", None))
        except QuotaExceededError:
            return f"The key is accepted, and the folder's quota of submissions is used up (API {api_version})"
        except RefusedError as error:
            if error.http_status != 400 or "folder id" in error.what.lower():
                raise
        return f"The service accepts the key and lets it recognise speech (API {api_version})"


def operation_of(response: Response, operation_id: str) -> Operation:
    """Read the answer to `Service.operation` and `Service.cancel`.

    :raises AnswerUnreadableError: it is cut off, or isn't an Operation
    """
    try:
        body = response.body
        operation = read_large_operation(body, operation_id) if isinstance(body, Packed) else read_operation(body)
        if operation.id != operation_id:
            # Its answer must not get on record, nor end a wait, as another operation's.
            raise AnswerUnreadableError("The answer is about another operation")
        return operation
    except AnswerUnreadableError as error:
        what = error.what
    raise _unreadable(what, response, operation_id)


def check_recognition(response: Response, operation_id: str) -> bytes:
    """Return a v3 result's bytes, where they are whole and no error stands among them; too large ones unread.

    Takes as long as it takes: one that is archived may be deleted from the service at once.

    :raises RecognitionFailedError: one does: the HTTP status has said 200 long before
    :raises AnswerUnreadableError: it is cut off, or is no result
    """
    if isinstance(response.body, Packed):
        if response.body.head().lstrip().startswith(b"{"):
            return response.body
        raise _unreadable("The result is too large to be read, and doesn't begin as one", response, operation_id)
    error = v3.failure_within(response.body)
    if error is None:
        try:
            v3.check_whole(response.body)
        except MalformedError:
            raise _unreadable("The result is cut off, or isn't JSON", response, operation_id) from None
        return response.body
    try:
        status = read_status(error) or ErrorStatus()
    except MalformedError:
        status = ErrorStatus(message=without_secrets(error)) if isinstance(error, str) else ErrorStatus()
    raise RecognitionFailedError(
        f"The result breaks off with an error{f' ({status.code})' if status.code is not None else ''}"
        + (f': "{status.message}"' if status.message else ""),
        code=status.code,
        message=status.message,
        operation_id=operation_id,
        request_id=response.headers.get("x-request-id"),
        server_trace_id=response.headers.get("x-server-trace-id"),
    )


def _unreadable(what: str, response: Response, operation_id: str) -> AnswerUnreadableError:
    return AnswerUnreadableError(
        what,
        operation_id=operation_id,
        retry="asks again",
        request_id=response.headers.get("x-request-id"),
        server_trace_id=response.headers.get("x-server-trace-id"),
    )


def _checked(operation_id: str) -> str:
    if not is_operation_id(operation_id) or len(operation_id) > _LONGEST_ID:
        raise SettingsError(f"{operation_id!r} can't be an operation id", hint="It looks like e03sncdp55uvg2tfpso1")
    return quote(operation_id, safe="")
