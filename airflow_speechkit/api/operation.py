"""What an Operation says about itself, without looking at the result inside."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.models import is_operation_id, version_of
from airflow_speechkit.parsing import MalformedError, parse_json, parse_time
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.status import read_status

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_speechkit.compressed import Packed

#: From this size on a body is read by code that lets other threads run meanwhile, bytes.
LARGE_BODY = 256 * 1024

#: Nothing is looked for further behind in the answer to a submission, which has hundreds of bytes.
_LONGEST_SUBMITTED = 64 * 1024
#: The service has `done` and `response` first.
_BEGINS_WITH_RESULT = re.compile(rb'\s*\{[^{\[]*"response"\s*:\s*\{')
#: A string, a bracket, a colon or comma, or anything else that has no space in it.
_TOKEN = re.compile(rb'\s*+("(?:[^"\\]++|\\.)*+"|[][{}:,]|[^]["{}:,\s]++)', re.DOTALL)


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


def read_operation(raw: bytes) -> Operation:
    """Read the envelope of an Operation.

    What is inside of a result doesn't matter here: a finished recognition is paid for, so its answer has to be
    archived whatever the readers of results think of it later. Times that are none count as not given.

    Takes as long as it takes: a body of `LARGE_BODY` and more belongs into a thread where there is an event
    loop, and leaves the loop alone there.

    :param raw: the body of an answer
    :raises AnswerUnreadableError: it is cut off, isn't JSON, or isn't an Operation
    """
    envelope = (_large_envelope(raw) if len(raw) >= LARGE_BODY else None) or _envelope(raw)
    operation_id = envelope.get("id")
    if not isinstance(operation_id, str) or not operation_id:
        raise AnswerUnreadableError("The answer is JSON, but not an Operation: it has no `id`")
    if not is_operation_id(operation_id):
        raise AnswerUnreadableError("The Operation's `id` is none that an operation can have")
    done = envelope.get("done")
    done = False if done is None else done
    if not isinstance(done, bool):
        raise AnswerUnreadableError("The Operation's `done` is neither true nor false", operation_id=operation_id)
    try:
        error = read_status(envelope.get("error"))
    except MalformedError:
        raise AnswerUnreadableError("The Operation's `error` is no object", operation_id=operation_id) from None
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


def read_large_operation(raw: Packed, operation_id: str) -> Operation:
    """Read what can be told of an Operation that is too large to be read whole: its result is inside, so it is done.

    :param raw: the body of an answer
    :param operation_id: whom it was asked for
    :raises AnswerUnreadableError: it doesn't begin as an Operation with a result does
    """
    if not _BEGINS_WITH_RESULT.match(raw.head()):
        raise AnswerUnreadableError("The answer is too large to be read, and doesn't begin as an Operation does")
    return Operation(id=operation_id, state=OperationState.DONE, api_version=ApiVersion.V2, raw=raw)


def id_within(raw: bytes) -> str | None:
    """Find the operation's id in an answer that can't be read: it is cut off, say, or something in it is no JSON.

    :param raw: the body of an answer
    :return: the ``id`` of the outermost object, if it stands there once, whole, and an operation can have it
    """
    found: list[str] = []
    depth, name, is_value = 0, b"", False
    raw = raw[:_LONGEST_SUBMITTED].removeprefix(b"\xef\xbb\xbf")
    token = _TOKEN.match(raw)
    if token is None or token[1] != b"{":
        return None
    while token is not None:
        text = token[1]
        depth += (text in b"{[") - (text in b"}]")
        if depth < 1:
            break
        if depth == 1 and text.startswith(b'"'):
            if not is_value:
                name = text
            elif name == b'"id"':
                behind = _TOKEN.match(raw, token.end())
                if behind is not None and behind[1] not in b",}":
                    # A quotation mark too many: the id may go on behind it.
                    return None
                found.append(text[1:-1].decode("utf-8", "replace"))
        is_value = text == b":"
        token = _TOKEN.match(raw, token.end())
    return found[0] if len(found) == 1 and is_operation_id(found[0]) else None


def _envelope(raw: bytes) -> dict[str, Any]:
    try:
        envelope = parse_json(raw, lenient=True)
    except MalformedError:
        # The other parser passes over what this one stumbles on in a result: nesting, endless numbers.
        envelope = _large_envelope(raw) if raw.lstrip().startswith(b"{") else None
        if envelope is None:
            raise AnswerUnreadableError(
                f"The answer isn't JSON, or is cut off ({len(raw)} bytes)", retry="asks again"
            ) from None
    if not isinstance(envelope, dict):
        raise AnswerUnreadableError("The answer is JSON, but not an Operation")
    return envelope


def _large_envelope(raw: bytes) -> dict[str, Any] | None:
    """Read the envelope's fields without holding the interpreter; None where the exact way has to judge."""
    import pyarrow as pa
    import pyarrow.json as pj

    if not raw.rstrip().endswith(b"}"):
        raise AnswerUnreadableError(f"The answer is cut off ({len(raw)} bytes)", retry="asks again")
    schema = pa.schema(
        [
            ("done", pa.bool_()),
            ("id", pa.string()),
            ("description", pa.string()),
            ("createdAt", pa.string()),
            ("modifiedAt", pa.string()),
            ("error", pa.struct([("code", pa.int64()), ("message", pa.string()), ("error_message", pa.string())])),
            ("response", pa.struct([("@type", pa.string())])),
        ]
    )
    try:
        table = pj.read_json(
            pa.BufferReader(raw),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(raw) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=schema, newlines_in_values=True, unexpected_field_behavior="ignore"
            ),
        )
        if table.num_rows != 1:
            return None
        envelope: dict[str, Any] = table.to_pylist()[0]
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    return envelope


def _time(text: object) -> datetime | None:
    try:
        return parse_time(text)
    except MalformedError:
        return None
