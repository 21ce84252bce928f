"""What an Operation says about itself, without looking at the result inside."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.redaction import without_secrets
from airflow_speechkit.submission import version_of

if TYPE_CHECKING:
    from airflow_speechkit.settings import ApiVersion

#: From this size on a body is read by code that lets other threads run meanwhile, bytes.
LARGE_BODY = 256 * 1024


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

    Takes as long as it takes: a body of `LARGE_BODY` and more belongs into a thread where there is an event
    loop, and leaves the loop alone there.

    :param raw: the body of an answer
    :raises AnswerUnreadableError: it is cut off, isn't JSON, or isn't an Operation
    """
    envelope = (_large_envelope(raw) if len(raw) >= LARGE_BODY else None) or _envelope(raw)
    operation_id = envelope.get("id")
    if not isinstance(operation_id, str) or not operation_id:
        raise AnswerUnreadableError("The answer is JSON, but not an Operation: it has no `id`")
    done = envelope.get("done") or False
    if not isinstance(done, bool):
        raise AnswerUnreadableError("The Operation's `done` is neither true nor false", operation_id=operation_id)
    error = envelope.get("error")
    code, message = _status(error)
    failed = bool(code or message)
    state = OperationState.FAILED if failed else OperationState.DONE if done else OperationState.RUNNING
    return Operation(
        id=operation_id,
        state=state,
        api_version=version_of(envelope, finished=state is OperationState.DONE),
        created_at=_time(envelope.get("createdAt")),
        modified_at=_time(envelope.get("modifiedAt")),
        error_code=(code or 0) if failed else None,
        error_message=without_secrets(message) if failed and message is not None else None,
        raw=raw,
    )


def _envelope(raw: bytes) -> dict[str, Any]:
    try:
        envelope = json.loads(raw)
    except ValueError:
        raise AnswerUnreadableError(
            f"The answer isn't JSON, or is cut off ({len(raw)} bytes)",
            retry="asks again",
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
            ("error", pa.struct([("code", pa.int64()), ("message", pa.string())])),
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
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    return envelope


def _status(error: object) -> tuple[int | None, str | None]:
    if not isinstance(error, dict):
        return None, None
    code, message = error.get("code"), error.get("message")
    if isinstance(code, str) and code.isascii() and code.isdigit():
        code = int(code)
    return (
        code if isinstance(code, int) and not isinstance(code, bool) else None,
        message if isinstance(message, str) else None,
    )


def _time(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
