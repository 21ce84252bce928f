"""Answers saved in files: their API and their operation."""

from __future__ import annotations

import json
from typing import Any

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.models import Answer, is_operation_id, version_of
from airflow_speechkit.parsing import decode, parse_each, parse_json, writable
from airflow_speechkit.results.plain import either, snake
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.storage.compressed import LARGEST_ANSWER_BYTES, check_size, inflated, is_gzip

_NAMES = (
    *("sessionUuid", "audioCursors", "responseWallTimeMs", "channelTag", "partial", "final", "finalRefinement"),
    *("eouUpdate", "statusCode", "classifierUpdate", "speakerAnalysis", "conversationAnalysis", "summarization"),
)
#: What v3's messages have in them: the reader takes either spelling, and any of them alone.
_OF_MESSAGES = frozenset({*_NAMES, *map(snake, _NAMES)})


def read_saved(raw: bytes, stem: str, most_bytes: int = LARGEST_ANSWER_BYTES) -> Answer:
    """Parse a saved answer: its API and its operation.

    :param raw: an operation of API v2; of API v3 what getRecognition gave, with or without its operation before it,
        or an operation that failed; gzipped or not, in a JSON array or not
    :param stem: the file's name without its ending: the operation id if the answer has none
    :param most_bytes: how large it may be, inflated
    :raises AnswerUnreadableError: it isn't an answer, or it is too large
    """
    try:
        if is_gzip(raw):
            raw = inflated(raw, most_bytes)
        check_size(len(raw), most_bytes)
        text = decode(raw)
        if text.lstrip().startswith("["):
            # Many clients save the messages of v3 as an array.
            text = "\n".join(map(json.dumps, parse_json(text)))
            raw = text.encode()
        each = parse_each(text)
        first, end = next(each, (None, 0))
        second, _ = next(each, (None, 0))
        rest = text[end:].strip()
    except (ValueError, RecursionError):
        first = None
    if not isinstance(first, dict):
        # Not from within `except`: the parser's own error holds the answer.
        raise AnswerUnreadableError("It is cut off, or is not JSON")
    stem = writable(stem)
    if "done" in first or ("id" in first and ("response" in first or "error" in first)):
        operation_id = first["id"] if is_operation_id(first.get("id")) else stem
        if second is not None:
            if first.get("response") is not None:
                raise AnswerUnreadableError(
                    "More text follows the operation: the file has several answers, or a broken one",
                    hint="Save each answer in a file of its own",
                )
            return Answer(operation_id, ApiVersion.V3, text[:end].encode(), rest.encode())
        finished = first.get("done") is True and first.get("error") is None
        version = version_of({**first, "id": operation_id}, finished=finished)
        if finished and version is ApiVersion.V3:
            raise AnswerUnreadableError(
                "It is the operation of a v3 recognition, which has no result: save the answer of getRecognition"
            )
        return Answer(operation_id, version, raw)
    if _is_message(first):
        operation_id = _requested_id(first) or stem
        operation = json.dumps({"done": True, "id": operation_id}).encode()
        return Answer(operation_id, ApiVersion.V3, operation, raw)
    raise AnswerUnreadableError("It is neither a finished operation (API v2) nor what getRecognition gave (API v3)")


def _is_message(message: dict[str, Any]) -> bool:
    """Whether this is a message of v3's stream, or the error that it ended with."""
    if message.get("error") is not None:
        return True
    inner = message.get("result", message)
    return isinstance(inner, dict) and not _OF_MESSAGES.isdisjoint(inner)


def _requested_id(message: dict[str, Any]) -> str | None:
    """Return the operation's id as v3's messages repeat it; the service also says ``undefined`` there."""
    found: Any = message.get("result", message)
    for name in ("sessionUuid", "userRequestId"):
        found = either(found, name) if isinstance(found, dict) else None
    return found if is_operation_id(found) and found != "undefined" else None
