"""Answers that somebody saved in a file: which API they came from, and of which operation."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.results.answer import Answer
from airflow_speechkit.settings import ApiVersion


def read_saved(raw: bytes, stem: str) -> Answer:
    """Tell which API a saved answer came from, and of which operation.

    :param raw: an operation of API v2; of API v3 what getRecognition gave, with or without its operation before it;
        gzipped or not
    :param stem: the file's name without its ending: the operation's id where the answer doesn't tell it
    :raises AnswerUnreadableError: it is no answer
    """
    try:
        if raw.startswith(b"\x1f\x8b"):
            raw = gzip.decompress(raw)
        text = raw.decode("utf-8-sig")
        first, end = json.JSONDecoder().raw_decode(text, len(text) - len(text.lstrip()))
        if not isinstance(first, dict):
            raise ValueError
        rest = text[end:].strip()
        second = json.JSONDecoder().raw_decode(rest)[0] if rest else None
    except (ValueError, EOFError, zlib.error, RecursionError, gzip.BadGzipFile) as error:
        raise AnswerUnreadableError("It is cut off, or is not JSON") from error
    if "done" in first or ("id" in first and ("response" in first or "error" in first)):
        operation_id = str(first.get("id") or stem)
        if second is not None:
            return Answer(operation_id, ApiVersion.V3, text[:end].encode(), rest.encode())
        if "response" not in first and "error" not in first and first.get("done") is True:
            raise AnswerUnreadableError(
                "It is the operation of a v3 recognition, which has no result in it: save what getRecognition answers"
            )
        return Answer(operation_id, ApiVersion.V2, raw)
    if _is_message(first):
        operation_id = _requested_id(first) or stem
        operation = json.dumps({"done": True, "id": operation_id}).encode()
        return Answer(operation_id, ApiVersion.V3, operation, raw)
    raise AnswerUnreadableError("It is neither a finished operation (API v2) nor what getRecognition gave (API v3)")


def _is_message(message: dict[str, Any]) -> bool:
    """Tell whether this is a message of v3's stream."""
    inner = message.get("result", message)
    return isinstance(inner, dict) and bool({"sessionUuid", "audioCursors", "channelTag", "final"} & inner.keys())


def _requested_id(message: dict[str, Any]) -> str | None:
    """Return the operation's id as v3's messages repeat it; the service also says ``undefined`` there."""
    session = message.get("result", message).get("sessionUuid")
    request_id = session.get("userRequestId") if isinstance(session, dict) else None
    return request_id if isinstance(request_id, str) and request_id not in ("", "undefined") else None
