"""The requests to SpeechKit's asynchronous recognition, each as a generator for a transport to drive."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_speechkit.api.credentials import TOKENS, Authorization
from airflow_speechkit.api.exchange import Exchange
from airflow_speechkit.api.http import Outcome, Pause, Request, Response, Step
from airflow_speechkit.api.operation import Operation, OperationState, id_within, read_operation
from airflow_speechkit.api.submission import v2_body, v3_body
from airflow_speechkit.errors import (
    AnswerUnreadableError,
    AuthenticationError,
    NotFinishedError,
    OperationNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RefusedError,
    ResultExpiredError,
    SettingsError,
)
from airflow_speechkit.models import is_operation_id
from airflow_speechkit.retry import RetryPolicy
from airflow_speechkit.settings import ApiVersion, AudioEncoding, RecognitionSettings

if TYPE_CHECKING:
    from collections.abc import Generator

    from airflow_speechkit.api.credentials import Credential, Token
    from airflow_speechkit.api.endpoints import Endpoints

log = logging.getLogger(__name__)

#: "The maximum string length in characters is 50" (v3's reference, GetRecognitionRequest).
_LONGEST_ID = 50
#: In the form of the service's ids, and never one of them.
_UNUSED_ID = "e0300000000000000000"
#: The result may lag some seconds behind "done".
NOT_READY_RETRY = RetryPolicy(1.0, 15.0, give_up_failures=5)


class Service:
    """SpeechKit's asynchronous recognition.

    :param endpoints: where it is
    :param credential: of a service account
    :param user_agent: sent with each request
    :param folder_id: sent as ``x-folder-id`` with API v3; v2 uses the service account's own folder
    :param data_logging_enabled: sent as ``x-data-logging-enabled`` with submissions: whether the service may keep
        the recording. None sends nothing, and the service doesn't keep it
    :param tokens: where tokens are kept
    :param options: of `Exchange`
    """

    def __init__(
        self,
        endpoints: Endpoints,
        credential: Credential,
        *,
        user_agent: str,
        folder_id: str | None = None,
        data_logging_enabled: bool | None = None,
        tokens: dict[tuple[Credential, str], Token] = TOKENS,
        **options: Any,
    ) -> None:
        self._exchange = Exchange(user_agent=user_agent, **options)
        self._authorization = Authorization(self._exchange, endpoints, credential, tokens)
        self._endpoints = endpoints
        self._v3_headers = {"x-folder-id": folder_id} if folder_id else {}
        self._submit_headers: dict[str, str] = {}
        if data_logging_enabled is not None:
            self._submit_headers["x-data-logging-enabled"] = str(data_logging_enabled).lower()

    def authorize(self) -> Generator[Step, Outcome, None]:
        """Fetch a token where one is needed and there is none, so that the next request isn't delayed by that."""
        yield from self._authorization.header()

    def submit(
        self, settings: RecognitionSettings, *, audio_uri: str | None, content: bytes | None = None
    ) -> Generator[Step, Outcome, Operation]:
        """Submit a recording. Costs money, each time.

        :param audio_uri: the recording's https link in Object Storage
        :param content: or the recording itself, API v3 only
        :raises SettingsError: the settings don't allow it; nothing was sent
        """
        request = self._submission(settings, audio_uri, content)
        response = yield from self._perform(request)
        try:
            return read_operation(response.body)
        except AnswerUnreadableError as error:
            what = error.what
        operation_id = id_within(response.body)
        if operation_id is None:
            raise AnswerUnreadableError(
                f"The submission was accepted, but its answer can't be read: {what}",
                may_have_been_accepted=True,
                recording=request.recording,
                hint="Find the operation's id before you submit the recording again: it may be paid for",
                **response.ids,
            )
        # The first status check shows whether it is the right one.
        log.warning("Accepted as operation %s, in an answer that can't be read: %s", operation_id, what)
        return Operation(
            id=operation_id, state=OperationState.RUNNING, api_version=settings.api_version, raw=response.body
        )

    def _submission(self, settings: RecognitionSettings, audio_uri: str | None, content: bytes | None) -> Request:
        if settings.api_version is ApiVersion.V3:
            url = f"{self._endpoints.recognition_v3}/stt/v3/recognizeFileAsync"
            body = v3_body(settings, audio_uri=audio_uri, content=content)
        elif content is None and audio_uri is not None:
            url = f"{self._endpoints.recognition}/speech/stt/v2/longRunningRecognize"
            body = v2_body(audio_uri, settings)
        else:
            raise SettingsError("API v2 takes only a link to the recording", hint="Set api_version='v3'")
        return Request(
            method="POST",
            url=url,
            purpose="the submission",
            headers=self._submit_headers | (self._v3_headers if settings.api_version is ApiVersion.V3 else {}),
            body=body,
            is_submission=True,
            recording=audio_uri,
        )

    def operation(self, operation_id: str, *, attempts: int | None = None) -> Generator[Step, Outcome, Response]:
        """Request an operation, for `operation_of` to read: with v2 the answer may have megabytes.

        :param attempts: how often at most: each is one of the folder's status checks
        """
        return (yield from self._perform(self._of_operation(operation_id), attempts))

    def cancel(self, operation_id: str, *, attempts: int | None = None) -> Generator[Step, Outcome, Response]:
        """Request the cancellation of an operation, best effort; the answer is the operation, for `operation_of`.

        The protocol's definition and the v3 reference say GET, the design guide says POST: POST is tried where GET
        isn't known.

        :param attempts: how often at most with either: each is one of the folder's status checks
        """
        request = self._of_operation(operation_id, ":cancel", "the request to cancel the operation")
        try:
            return (yield from self._perform(request, attempts))
        except RefusedError as error:
            if error.http_status not in (404, 405, 501):
                raise
        return (yield from self._perform(replace(request, method="POST", body=b"{}"), attempts))

    def recognition(self, operation_id: str, *, seen_done: bool) -> Generator[Step, Outcome, Response]:
        """Request a v3 result, several times while it isn't ready, for `check_recognition` to read.

        :param seen_done: whether the operation is known to be done: then 404 means that the result has expired
        :raises NotFinishedError: it isn't ready
        :raises ResultExpiredError: it has expired
        """
        request = self._of_result("GET", f"getRecognition?operation_id={_checked(operation_id)}", operation_id)
        for pause_s in (*NOT_READY_RETRY.pauses_s(), None):
            try:
                return (yield from self._perform(request))
            except RefusedError as error:
                ids = {
                    "operation_id": operation_id,
                    "request_id": error.request_id,
                    "server_trace_id": error.server_trace_id,
                }
                is_ready = error.http_status not in (400, 404) or "not ready" not in error.what.lower()
                if is_ready and error.http_status == 404 and seen_done:
                    what = "The result has expired: the service keeps results for three days"
                    hint = "Submit the recording again. It is paid for again"
                    raise ResultExpiredError(what, hint=hint, **ids) from error
                if is_ready:
                    raise
                if pause_s is None:
                    raise NotFinishedError("The result isn't ready", retry="checks again", **ids) from error
                yield Pause(pause_s)
        raise AssertionError  # pragma: no cover - the last one returns or raises

    def delete_recognition(self, operation_id: str) -> Generator[Step, Outcome, bool]:
        """Delete a v3 result from the service; return whether there was one."""
        request = self._of_result("DELETE", f"deleteRecognition?operationId={_checked(operation_id)}", operation_id)
        try:
            yield from self._perform(request)
        except OperationNotFoundError:
            return False
        return True

    def probe(self, api_version: ApiVersion) -> Generator[Step, Outcome, str]:
        """Check that the key is accepted and may recognise speech, without recognising anything.

        With a valid key an unused operation id isn't found (404). A submission without a recording is then invalid
        (400) where the role is there, and forbidden (403) where it isn't. That the service never accepts one is an
        assumption; nothing could be recognised, so nothing could be charged.

        :return: the result, in a sentence
        :raises SpeechKitError: what is wrong
        """
        # Whether the role is missing shows in the second request.
        with suppress(OperationNotFoundError, PermissionDeniedError):
            yield from self.operation(_UNUSED_ID)
        settings = RecognitionSettings(api_version=api_version, audio_encoding=AudioEncoding.OGG_OPUS)
        try:
            yield from self._perform(self._submission(settings, "", None))
        except QuotaExceededError:
            return f"The key is accepted, and the folder's quota of submissions is used up (API {api_version})"
        except RefusedError as error:
            if error.http_status != 400 or "folder id" in error.what.lower():
                raise
        return f"The service accepts the key and lets it recognise speech (API {api_version})"

    def _of_operation(
        self, operation_id: str, action: str = "", purpose: str = "the request for the operation's state"
    ) -> Request:
        url = f"{self._endpoints.operations}/operations/{_checked(operation_id)}{action}"
        return Request(method="GET", url=url, purpose=purpose, operation_id=operation_id)

    def _of_result(self, method: str, path: str, operation_id: str) -> Request:
        return Request(
            method=method,
            url=f"{self._endpoints.recognition_v3}/stt/v3/{path}",
            purpose=f"the request to {'delete' if method == 'DELETE' else 'fetch'} the result",
            headers=self._v3_headers,
            operation_id=operation_id,
        )

    def _perform(self, request: Request, attempts: int | None = None) -> Generator[Step, Outcome, Response]:
        """Send a request with the credential, and once more with a new token where the service refuses the first."""
        header = yield from self._authorization.header()
        try:
            return (yield from self._exchange.perform(_authorized(request, header), attempts=attempts))
        except AuthenticationError:
            if not self._authorization.renew(header):
                raise
        header = yield from self._authorization.header()
        return (yield from self._exchange.perform(_authorized(request, header), attempts=attempts))


def _authorized(request: Request, header: str) -> Request:
    return replace(request, headers={**request.headers, "authorization": header})


def _checked(operation_id: str) -> str:
    if not is_operation_id(operation_id) or len(operation_id) > _LONGEST_ID:
        raise SettingsError(f"{operation_id!r} isn't an operation id", hint="Ids look like e03sncdp55uvg2tfpso1")
    return operation_id
