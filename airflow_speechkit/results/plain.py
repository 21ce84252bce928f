"""The plain reader: one answer, parsed by Python's own JSON parser, whatever its form, into the documented shape.

It accepts both names that proto3's JSON has for a field, numbers in place of texts, times as objects, messages without
their ``result``, and halves of surrogate pairs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from airflow_speechkit.errors import ErrorStatus, read_status
from airflow_speechkit.parsing import MalformedError, decode, parse_each
from airflow_speechkit.redaction import without_secrets
from airflow_speechkit.results.schema import Analysis
from airflow_speechkit.results.values import as_json, text, whole

Json = dict[str, Any]

#: Messages that become rows of `analyses`, by their names in the stream.
_KINDS = {
    "classifierUpdate": Analysis.CLASSIFIER,
    "speakerAnalysis": Analysis.SPEAKER,
    "conversationAnalysis": Analysis.CONVERSATION,
    "summarization": Analysis.SUMMARIZATION,
}
_BOUNDARIES = {Analysis.SPEAKER: "speechBoundaries", Analysis.CONVERSATION: "conversationBoundaries"}


@cache
def snake(name: str) -> str:
    """Return the other name of a field: ``start_time`` for ``startTime``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


#: The names of analyses, both of each.
ANALYSES = tuple(dict.fromkeys(name for camel in _KINDS for name in (camel, snake(camel))))


@dataclass(frozen=True)
class Stream:
    """What ``getRecognition`` answered.

    :param messages: those with a final or a refinement, in the documented shape
    :param analyses: rows of the table `analyses`, without the ids
    :param error: what the stream ended with, if that is an error
    """

    messages: list[Json] = field(default_factory=list)
    analyses: list[Json] = field(default_factory=list)
    error: ErrorStatus | None = None


def read_operation(raw: bytes) -> Json:
    """Parse an Operation.

    :raises MalformedError: it is not one JSON object
    """
    values = _parse(raw)
    if not values:
        raise MalformedError("it isn't JSON, or is cut off")
    if len(values) != 1 or not isinstance(values[0], dict):
        raise MalformedError("an operation is no JSON object, or something stands behind it")
    return values[0]


def read_v2(operation: Json) -> list[Json]:
    """Return the chunks of a v2 operation. Without any the recording is silent.

    :raises MalformedError: something in it isn't what is documented
    """
    response = operation.get("response")
    if not isinstance(response, dict):
        raise MalformedError("the operation is done, but has no `response` (one of API v3 never has)")
    return [
        {
            "channelTag": _channel(_either(chunk, "channelTag")),
            "alternatives": [
                {
                    "text": text(alternative.get("text")),
                    "words": [
                        {
                            "word": text(word.get("word")),
                            "startTime": _duration(_either(word, "startTime")),
                            "endTime": _duration(_either(word, "endTime")),
                        }
                        for word in _objects(alternative.get("words"))
                    ],
                }
                for alternative in _objects(chunk.get("alternatives"))
            ],
        }
        for chunk in _objects(response.get("chunks"))
    ]


def read_v3(raw: bytes) -> Stream:
    """Read what ``getRecognition`` answered: JSON objects after each other, on lines of their own or not.

    :raises MalformedError: something in it isn't what is documented
    """
    found = Stream()
    for stated in _parse(raw):
        if not isinstance(stated, dict):
            raise MalformedError("a message is no JSON object")
        if stated.get("error") is not None:
            return Stream(error=_error(stated["error"]))
        message = stated.get("result", stated)
        if not isinstance(message, dict):
            raise MalformedError("a message is no JSON object")
        found.analyses.extend(read_analyses(message))
        final, refinement = message.get("final"), _either(message, "finalRefinement")
        tag = _channel(_either(message, "channelTag"))
        if isinstance(final, dict):
            cursors = _object(_either(message, "audioCursors"))
            found.messages.append({"channelTag": tag, "final": _update(final), "audioCursors": _index(cursors)})
        elif isinstance(refinement, dict):
            update = _update(_object(_either(refinement, "normalizedText")))
            refined = {**_index(refinement), "normalizedText": update}
            found.messages.append({"channelTag": tag, "finalRefinement": refined})
    return found


def read_analyses(message: Json) -> list[Json]:
    """Return the rows of the table `analyses` that a message of v3 holds, without the ids.

    :raises MalformedError: a time or a channel is malformed
    """
    found = ((kind, _either(message, name)) for name, kind in _KINDS.items())
    return [_analysis(kind, said, message) for kind, said in found if isinstance(said, dict)]


def _parse(raw: bytes) -> list[Any]:
    # `NaN` and its like are no JSON, but Arrow's parser accepts them too.
    return [value for value, _ in parse_each(decode(raw), constant=float)]


def _analysis(kind: Analysis, said: Json, message: Json) -> Json:
    tag = _either(message, "channelTag")
    if kind is Analysis.SPEAKER and (speaker := _either(said, "speakerTag")) not in (None, ""):
        # The one channel of a mono recording has two speakers.
        tag = speaker
    elif kind in (Analysis.CONVERSATION, Analysis.SUMMARIZATION):
        # They are about all channels; the stream still gives each message one.
        tag = None
    bounds = _either(said, _BOUNDARIES[kind]) if kind in _BOUNDARIES else said
    is_timed = kind is not Analysis.SUMMARIZATION and isinstance(bounds, dict)
    return {
        "channel": _channel(tag),
        "kind": kind.value,
        "start_ms": whole(_either(bounds, "startTimeMs")) if is_timed else None,
        "end_ms": whole(_either(bounds, "endTimeMs")) if is_timed else None,
        "payload": as_json(said),
    }


def _update(update: Json) -> Json:
    return {
        "channelTag": _channel(_either(update, "channelTag")),
        "alternatives": [
            {
                "text": text(alternative.get("text")),
                "words": [
                    {
                        "text": text(word.get("text")),
                        "startTimeMs": str(whole(_either(word, "startTimeMs"))),
                        "endTimeMs": str(whole(_either(word, "endTimeMs"))),
                    }
                    for word in _objects(alternative.get("words"))
                ],
                "languages": [
                    {
                        "languageCode": text(_either(one, "languageCode")),
                        "probability": float(one.get("probability") or 0),
                    }
                    for one in _objects(alternative.get("languages"))
                ],
            }
            for alternative in _objects(update.get("alternatives"))
        ],
    }


def _index(message: Json) -> Json:
    return {"finalIndex": str(whole(_either(message, "finalIndex")))}


def _duration(value: Any) -> str | None:
    """Return a time of v2 as text; clients that asked over gRPC save ``{"seconds": …, "nanos": …}``."""
    if isinstance(value, dict):
        seconds = whole(value.get("seconds")) + Decimal(whole(value.get("nanos"))).scaleb(-9)
        return f"{seconds:f}s"
    if value is None or isinstance(value, str):
        return value
    raise MalformedError("a time is not a duration")


def _channel(tag: Any) -> str | None:
    if tag is None or tag == "":
        return None
    return str(whole(tag)) if isinstance(tag, int) else text(tag)


def _error(stated: Any) -> ErrorStatus:
    """Read an error of any type: the stream broke off with it."""
    if isinstance(stated, dict):
        return read_status(stated) or ErrorStatus()
    return ErrorStatus(message=without_secrets(stated if isinstance(stated, str) else json.dumps(stated)))


def _either(message: Json, name: str) -> Any:
    """Return a field by either of its names."""
    value = message.get(name)
    return message.get(snake(name)) if value is None else value


def _object(value: Any) -> Json:
    """Return a message. A missing one is empty.

    :raises MalformedError: it is something else
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedError("an object is something else")
    return value


def _objects(value: Any) -> list[Json]:
    """Return a list of messages. A missing one is empty.

    :raises MalformedError: it is something else
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise MalformedError("a list of objects is something else")
    return value
