"""The plain reader: one answer, parsed by Python's own JSON parser, whatever its form, into the documented shape.

It accepts both names that proto3's JSON has for a field, numbers in place of texts, times as objects, messages without
their ``result``, and halves of surrogate pairs.
"""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from airflow_speechkit.errors import ErrorStatus, read_status
from airflow_speechkit.parsing import MalformedError, decode, parse_each
from airflow_speechkit.redaction import without_secrets
from airflow_speechkit.results.schema import Analysis
from airflow_speechkit.results.speech import CHUNK, MESSAGE, Reading, Speech, v2_speech, v3_speech
from airflow_speechkit.results.values import as_json, text, whole
from airflow_speechkit.settings import ApiVersion

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_speechkit.models import Answer, Submission

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


def read_plainly(answer: Answer, submission: Submission | None) -> Reading:
    """Read an answer.

    :param submission: what was submitted, if that is known
    :raises MalformedError: something in it isn't what is documented
    """
    operation = read_operation(answer.operation)
    moments = [(operation.get("createdAt"), operation.get("modifiedAt"))]
    error = read_status(operation.get("error"))
    # A failed operation can have a response too, and need not be done.
    if error is not None:
        return Reading(Speech.empty(), moments, errors={0: error})
    if operation.get("done") is not True:
        raise MalformedError("the operation is not done")
    if answer.api_version is ApiVersion.V2:
        response = operation.get("response")
        if not isinstance(response, dict):
            raise MalformedError("the operation is done, but has no `response` (one of API v3 never has)")
        # Without chunks the recording is silent.
        chunks = pa.array([_chunk(one) for one in _objects(response.get("chunks"))], CHUNK)
        return Reading(v2_speech(chunks, np.zeros(len(chunks), np.int64)), moments)
    if answer.recognition is None:
        raise MalformedError("what `getRecognition` answered is missing")
    found: list[Json] = []
    analyses: list[Json] = []
    for message in _parse(answer.recognition):
        if isinstance(message, dict):
            if message.get("error") is not None:
                return Reading(Speech.empty(), moments, errors={0: _stream_error(message["error"])})
            message = message.get("result", message)
        if not isinstance(message, dict):
            raise MalformedError("a message is no JSON object")
        analyses += read_analyses(message)
        names = ("channelTag", "final", "finalRefinement", "audioCursors")
        tag, final, refinement, cursors = (either(message, name) for name in names)
        if final is not None or refinement is not None:
            found.append(
                _message(
                    {
                        "channelTag": tag,
                        "final": final,
                        "finalRefinement": refinement if final is None else None,
                        "audioCursors": {} if cursors is None else cursors,
                    }
                )
            )
    messages = pa.array(found, MESSAGE)
    speech = v3_speech(messages, np.zeros(len(messages), np.int64), np.array([with_speakers(submission)]))
    return Reading(speech, moments, {0: analyses})


def read_operation(raw: bytes) -> Json:
    """Parse an Operation.

    :raises MalformedError: it is not one JSON object
    """
    values = _parse(raw)
    if not values:
        raise MalformedError("it isn't JSON, or is cut off")
    if len(values) != 1 or not isinstance(values[0], dict):
        raise MalformedError("an operation is no JSON object, or more text follows it")
    return values[0]


def read_analyses(message: Json) -> list[Json]:
    """Return the rows of the table `analyses` that a message of v3 holds, without the ids.

    :raises MalformedError: a time or a channel is malformed
    """
    found = ((kind, either(message, name)) for name, kind in _KINDS.items())
    return [_analysis(kind, payload, message) for kind, payload in found if isinstance(payload, dict)]


def with_speakers(submission: Submission | None) -> bool:
    """Return whether a channel of the answer is a speaker, since speaker labelling was asked for."""
    return submission is not None and submission.settings.speaker_labeling


def _parse(raw: bytes) -> list[Any]:
    # `NaN` and its like are no JSON, but Arrow's parser accepts them too.
    return [value for value, _ in parse_each(decode(raw), constant=float)]


def _analysis(kind: Analysis, payload: Json, message: Json) -> Json:
    tag = either(message, "channelTag")
    if kind is Analysis.SPEAKER and (speaker := either(payload, "speakerTag")) not in (None, ""):
        # The one channel of a mono recording has two speakers.
        tag = speaker
    elif kind in (Analysis.CONVERSATION, Analysis.SUMMARIZATION):
        # They are about all channels; the stream still gives each message one.
        tag = None
    bounds = either(payload, _BOUNDARIES[kind]) if kind in _BOUNDARIES else payload
    is_timed = kind is not Analysis.SUMMARIZATION and isinstance(bounds, dict)
    return {
        "channel": _channel(tag),
        "kind": kind.value,
        "start_ms": whole(either(bounds, "startTimeMs")) if is_timed else None,
        "end_ms": whole(either(bounds, "endTimeMs")) if is_timed else None,
        "payload": as_json(payload),
    }


def _stream_error(stated: Any) -> ErrorStatus:
    """Read an error of any type: the stream broke off with it."""
    if isinstance(stated, dict):
        return read_status(stated) or ErrorStatus()
    return ErrorStatus(message=without_secrets(stated if isinstance(stated, str) else json.dumps(stated)))


def _duration(value: Any) -> str | None:
    """Return a time of v2 as text; clients that asked over gRPC save ``{"seconds": …, "nanos": …}``."""
    if isinstance(value, dict):
        seconds = whole(value.get("seconds")) + Decimal(whole(value.get("nanos"))).scaleb(-9)
        return f"{seconds:f}s"
    if value is None or isinstance(value, str):
        return value
    raise MalformedError("a time is not a duration")


def _number(value: Any) -> str:
    return str(whole(value))


def _channel(tag: Any) -> str | None:
    if tag is None or tag == "":
        return None
    return _number(tag) if isinstance(tag, int) else text(tag)


def either(message: Json, name: str) -> Any:
    """Return a field by either of its names."""
    value = message.get(name)
    return message.get(snake(name)) if value is None else value


def _objects(value: Any) -> list[Json]:
    """Return a list of messages. A missing one is empty.

    :raises MalformedError: it is something else
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise MalformedError("a list of objects is something else")
    return value


#: What reads a field that isn't just a text.
_FIELDS: dict[str, Callable[[Any], Any]] = {
    "channelTag": _channel,
    **dict.fromkeys(("startTime", "endTime"), _duration),
    **dict.fromkeys(("startTimeMs", "endTimeMs", "finalIndex"), _number),
    "probability": lambda value: float(value or 0),
}


def _shaped(kind: pa.DataType) -> Callable[[Any], Any]:
    """Return what brings parsed JSON into the shape of a type. It raises `MalformedError` for what doesn't fit."""
    if pa.types.is_list(kind):
        item = _shaped(kind.value_type)
        return lambda value: [item(one) for one in _objects(value)]
    if not pa.types.is_struct(kind):
        return text
    fields = [(one.name, snake(one.name), _FIELDS.get(one.name) or _shaped(one.type)) for one in kind]

    def shape(value: Any) -> Json | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise MalformedError("an object is something else")
        return {
            name: read(value.get(other) if (own := value.get(name)) is None else own) for name, other, read in fields
        }

    return shape


_chunk = _shaped(CHUNK)
_message = _shaped(MESSAGE)
