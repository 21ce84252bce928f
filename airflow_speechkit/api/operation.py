"""Answers about an operation: its state, without the result inside, and the result of API v3."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import AnswerUnreadableError, ErrorStatus, RecognitionFailedError, read_status
from airflow_speechkit.models import is_operation_id, version_of
from airflow_speechkit.parsing import MalformedError, decode, parse_columns, parse_each, parse_object, parse_time
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.storage.compressed import Packed

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from airflow_speechkit.api.http import Response

#: From this size on, in bytes, a body is parsed by code that lets other threads run meanwhile.
LARGE_BODY = 256 * 1024

#: The answer to a submission has some hundred bytes: an id is not searched further than this.
_LONGEST_SUBMITTED = 64 * 1024
#: The service has `done` and `response` first.
_BEGINS_WITH_RESULT = re.compile(rb'\s*\{[^{\[]*"response"\s*:\s*\{')
#: The outermost object up to the first field with fields of its own, and an `id` in it.
_FLAT_FIELDS = re.compile(rb"\s*\{([^{}\[\]]*)")
_ID = re.compile(rb'(?:^|,)\s*"id"\s*:\s*"([\w-]+)"\s*(?=,|$)')


class OperationState(Enum):
    """How far an operation is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An Operation of the service.

    :param id: the operation id
    :param state: ``FAILED`` as soon as there is an error, even where ``done`` is still false
    :param api_version: the API it came from
    :param created_at: aware, UTC
    :param modified_at: aware, UTC; of a finished operation: when it finished
    :param error_code: a gRPC code, of a failed operation
    :param error_message: the service's text about it, without secrets
    :param raw: the answer, byte for byte; with v2 the result is inside
    """

    id: str
    state: OperationState
    api_version: ApiVersion
    created_at: datetime | None = None
    modified_at: datetime | None = None
    error_code: int | None = None
    error_message: str | None = None
    # A transcript is inside, and a repr ends up in logs.
    raw: bytes = field(default=b"", repr=False)

    @property
    def is_fetched_apart(self) -> bool:
        """Whether its result has to be fetched by a request of its own."""
        return self.api_version is ApiVersion.V3 and self.state is OperationState.DONE


def operation_of(response: Response, operation_id: str) -> Operation:
    """Read the answer to a status check or a cancellation.

    :param operation_id: the operation that was requested
    :raises AnswerUnreadableError: it is cut off, isn't an Operation, or is another one
    """
    body = response.body
    try:
        operation = _read_too_large(body, operation_id) if isinstance(body, Packed) else read_operation(body)
    except AnswerUnreadableError as error:
        raise _unreadable(error.what, response, operation_id) from None
    if operation.id != operation_id:
        # It must not be archived as this operation's, nor end its wait.
        raise _unreadable("The answer is about another operation", response, operation_id)
    return operation


def check_recognition(response: Response, operation_id: str) -> bytes:
    """Return the bytes of a v3 result, if they are complete and hold no error; too large ones unread.

    The result may be deleted from the service as soon as it is archived, so all of it is parsed.

    :raises RecognitionFailedError: there is an error among the messages, although the HTTP status is 200
    :raises AnswerUnreadableError: it is cut off, or isn't a result
    """
    body = response.body
    try:
        if isinstance(body, Packed):
            if not body.head().lstrip().startswith(b"{"):
                raise MalformedError("it doesn't begin with an object")
            return body
        # One message at a time: a whole result as Python objects takes many times its size.
        for message, _ in parse_each(decode(body)):
            if not isinstance(message, dict):
                raise MalformedError("a message isn't an object")
            if (error := message.get("error")) is not None:
                raise _failed(error, response, operation_id)
            if not isinstance(message.get("result", message), dict):
                raise MalformedError("a result isn't an object")
    except MalformedError:
        raise _unreadable("The result is cut off, or isn't JSON", response, operation_id) from None
    return body


def _failed(error: object, response: Response, operation_id: str) -> RecognitionFailedError:
    status = read_status(error if isinstance(error, dict) else {"message": error}) or ErrorStatus()
    return RecognitionFailedError(
        "The result ends with an error"
        + (f" (code {status.code})" if status.code is not None else "")
        + (f': "{status.message}"' if status.message else ""),
        code=status.code,
        message=status.message,
        operation_id=operation_id,
        **response.ids,
    )


def _unreadable(what: str, response: Response, operation_id: str) -> AnswerUnreadableError:
    return AnswerUnreadableError(what, operation_id=operation_id, retry="checks again", **response.ids)


def read_operation(raw: bytes) -> Operation:
    """Read the envelope of an Operation, but not the result inside: it is archived whatever it holds.

    Times that can't be read are None. A body of `LARGE_BODY` and more takes so long that it belongs into a thread
    where there is an event loop.

    :param raw: the body of an answer
    :raises AnswerUnreadableError: it is cut off, isn't JSON, or isn't an Operation
    """
    envelope = _envelope(raw)
    operation_id = envelope.get("id")
    if not isinstance(operation_id, str) or not is_operation_id(operation_id):
        raise AnswerUnreadableError("The answer isn't an Operation: it has no valid `id`")
    done = envelope.get("done") or False
    if not isinstance(done, bool):
        raise AnswerUnreadableError("The Operation's `done` is neither true nor false", operation_id=operation_id)
    try:
        error = read_status(envelope.get("error"))
    except MalformedError:
        raise AnswerUnreadableError("The Operation's `error` isn't an object", operation_id=operation_id) from None
    state = OperationState.FAILED if error else OperationState.DONE if done else OperationState.RUNNING
    return Operation(
        id=operation_id,
        state=state,
        api_version=version_of(envelope, finished=state is OperationState.DONE),
        created_at=_time(envelope.get("createdAt")),
        modified_at=_time(envelope.get("modifiedAt")),
        error_code=(error.code or 0) if error else None,
        error_message=error.message if error else None,
        raw=raw,
    )


def _read_too_large(raw: Packed, operation_id: str) -> Operation:
    # Only a result makes an Operation this large, so it is done.
    if not _BEGINS_WITH_RESULT.match(raw.head()):
        raise AnswerUnreadableError("The answer is too large to parse, and doesn't begin like an Operation")
    return Operation(id=operation_id, state=OperationState.DONE, api_version=ApiVersion.V2, raw=raw)


def id_within(raw: bytes) -> str | None:
    """Find the operation id in an answer to a submission that can't be parsed: it is cut off, or isn't quite JSON.

    :param raw: the body of the answer
    :return: the ``id``, if there is exactly one before the first field with fields of its own
    """
    fields = _FLAT_FIELDS.match(raw[:_LONGEST_SUBMITTED].removeprefix(b"\xef\xbb\xbf"))
    ids = [one.decode() for one in _ID.findall(fields[1])] if fields else []
    return ids[0] if len(ids) == 1 and is_operation_id(ids[0]) else None


def _envelope(raw: bytes) -> dict[str, Any]:
    # Each reads something that the other refuses: one an error's code as a text, the other deep nesting in a result.
    readers: list[Callable[[bytes], dict[str, Any]]] = [partial(parse_object, lenient=True), _read_columns]
    for read in reversed(readers) if len(raw) >= LARGE_BODY else readers:
        with suppress(MalformedError):
            return read(raw)
    raise AnswerUnreadableError(
        f"The answer isn't an Operation, or is cut off ({len(raw)} bytes)", retry="checks again"
    )


def _read_columns(raw: bytes) -> dict[str, Any]:
    """Read the envelope's fields without holding the interpreter's lock."""
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("id", "description", "createdAt", "modifiedAt")]
    error = pa.struct([("code", pa.int64()), ("message", pa.string()), ("error_message", pa.string())])
    schema = pa.schema(
        [*texts, ("done", pa.bool_()), ("error", error), ("response", pa.struct([("@type", pa.string())]))]
    )
    try:
        if raw.lstrip().startswith(b"{") and raw.rstrip().endswith(b"}"):
            rows: list[dict[str, Any]] = parse_columns(raw, schema).to_pylist()
            if len(rows) == 1:
                return rows[0]
    except (pa.ArrowException, UnicodeDecodeError):
        pass
    raise MalformedError("it isn't one JSON object with such fields")


def _time(text: object) -> datetime | None:
    try:
        return parse_time(text)
    except MalformedError:
        return None
