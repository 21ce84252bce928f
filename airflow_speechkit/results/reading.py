"""What the service said, read: one reader for each API, both giving `Speech`.

Both take an answer whose regular words have been cut out (`words.cut_many`), or one that still has them all: the
result is the same, and the tests hold the two together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from airflow_speechkit.parsing import MalformedError, writable
from airflow_speechkit.redaction import without_secrets
from airflow_speechkit.results.chunks import Chunks
from airflow_speechkit.results.cutting import Cut, parse
from airflow_speechkit.results.schema import Analysis
from airflow_speechkit.results.speech import Speech
from airflow_speechkit.results.texts import as_json, as_text
from airflow_speechkit.results.times import duration_column, duration_ms, whole, whole_column
from airflow_speechkit.results.words import Wording
from airflow_speechkit.status import ErrorStatus, read_status

V2_WORDING = Wording("startTime", "endTime", "word", b"s", 4, True, duration_column)
V3_WORDING = Wording("startTimeMs", "endTimeMs", "text", b"", 0, False, whole_column)

_ANALYSES = {
    ("classifierUpdate", "classifier_update"): Analysis.CLASSIFIER,
    ("speakerAnalysis", "speaker_analysis"): Analysis.SPEAKER,
    ("conversationAnalysis", "conversation_analysis"): Analysis.CONVERSATION,
    ("summarization", "summarization"): Analysis.SUMMARIZATION,
}
_ANALYSIS_NAMES = frozenset(name for names in _ANALYSES for name in names)
_BOUNDARIES = {Analysis.SPEAKER: "speechBoundaries", Analysis.CONVERSATION: "conversationBoundaries"}
_OF_ALL_CHANNELS = frozenset({Analysis.CONVERSATION, Analysis.SUMMARIZATION})


@dataclass
class Heard:
    """A result.

    :param speech: the utterances
    :param analyses: rows of the table `analyses`, without the operation's id
    :param error: v3: the error that the stream ended with
    """

    speech: Speech
    analyses: list[dict[str, Any]] = field(default_factory=list)
    error: ErrorStatus | None = None


def read_operation(cut: Cut) -> dict[str, Any]:
    """Parse an Operation.

    :raises MalformedError: it is no JSON object
    """
    values = parse(cut)
    if not values:
        raise MalformedError("it isn't JSON, or is cut off")
    if len(values) != 1 or not isinstance(values[0], dict):
        raise MalformedError("an operation is no JSON object, or something stands behind it")
    return values[0]


def read_v2(response: dict[str, Any], cut: Cut) -> Heard:
    """Read the ``response`` of a v2 operation. Without ``chunks`` nothing was recognised: silence.

    :raises MalformedError: it isn't what is documented
    """
    speech = Speech(cut)
    for chunk in _list(response.get("chunks")):
        if isinstance(chunk, Chunks):
            speech.hear(chunk, lambda tag: (tag, _channel_index(tag, first=1)))
            continue
        if not isinstance(chunk, dict):
            raise MalformedError("a list of objects is something else")
        alternatives = _objects(chunk.get("alternatives"))
        if not alternatives:
            continue
        channel = _channel(_either(chunk, "channelTag", "channel_tag"), first=1)
        speech.utter(channel, _channel_index(channel, first=1), len(alternatives))
        for alternative in alternatives:
            speech.say(alternative.get("words"), _v2_word, text=as_text(alternative.get("text")))
    return Heard(speech)


def read_v3(cut: Cut, *, speakers: bool) -> Heard:
    """Read what ``getRecognition`` answered: JSON objects one after the other, on lines of their own or not.

    :param speakers: whether speaker labelling was asked for: the service then tells the speaker by the channel
    :raises MalformedError: it isn't what is documented
    """
    heard = Heard(Speech(cut))
    utterances: list[_Utterance] = []
    latest: dict[tuple[str, int], _Utterance] = {}
    for stated in parse(cut):
        if not isinstance(stated, dict):
            raise MalformedError("a message is no JSON object")
        if stated.get("error") is not None:
            return Heard(Speech(Cut.nothing(b"")), error=_error(stated["error"]))
        message = stated.get("result", stated)
        if not isinstance(message, dict):
            raise MalformedError("a message is no JSON object")
        # Most messages have none of them, and a result may have hundreds of thousands of messages.
        for (name, snake), kind in () if _ANALYSIS_NAMES.isdisjoint(message) else _ANALYSES.items():
            if isinstance(found := _either(message, name, snake), dict):
                heard.analyses.append(_analysis(kind, found, message))
        update = message.get("final")
        refinement = _either(message, "finalRefinement", "final_refinement")
        if isinstance(update, dict):
            cursors = _object(_either(message, "audioCursors", "audio_cursors"))
            key = (_v3_channel(message, update), whole(_either(cursors, "finalIndex", "final_index")))
            finals = _objects(update.get("alternatives"))
            if key in latest and latest[key].alternatives is None:
                latest[key].alternatives = finals
            else:
                latest[key] = _Utterance(key[0], finals)
                utterances.append(latest[key])
        elif isinstance(refinement, dict):
            update = _object(_either(refinement, "normalizedText", "normalized_text"))
            key = (_v3_channel(message, update), whole(_either(refinement, "finalIndex", "final_index")))
            refined = _objects(update.get("alternatives"))
            if key in latest:
                latest[key].refined = refined
            else:
                latest[key] = _Utterance(key[0], None, refined)
                utterances.append(latest[key])
    for utterance in utterances:
        utterance.tell(heard.speech, speakers)
    return heard


@dataclass
class _Utterance:
    """A final of v3, None where none came, and its refinement if it came."""

    channel: str
    alternatives: list[dict[str, Any]] | None
    refined: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, speech: Speech, speakers: bool) -> None:
        # A refinement normalises the text of the best alternative; its words stay as they were.
        alternatives = self.alternatives or self.refined
        if not alternatives:
            return
        speech.utter(self.channel, _channel_index(self.channel, first=0), len(alternatives))
        for number, alternative in enumerate(alternatives):
            raw = as_text(alternative.get("text")) if self.alternatives else None
            refined = self.refined[number] if number < len(self.refined) else alternative
            speech.say(
                alternative.get("words"),
                _v3_word,
                text=as_text(refined.get("text")),
                text_raw=raw,
                language=_language(alternative) or _language(refined),
                speaker=self.channel if speakers else None,
            )


def _error(stated: Any) -> ErrorStatus:
    """Read an error that may be anything: whatever it is, the result broke off with it."""
    if isinstance(stated, dict):
        return read_status(stated) or ErrorStatus()
    return ErrorStatus(message=without_secrets(stated if isinstance(stated, str) else json.dumps(stated)))


def _v2_word(word: dict[str, Any]) -> tuple[Any, int | None, int | None]:
    return (
        word.get("word"),
        duration_ms(_either(word, "startTime", "start_time")),
        duration_ms(_either(word, "endTime", "end_time")),
    )


def _v3_word(word: dict[str, Any]) -> tuple[Any, int | None, int | None]:
    # Zeros are left out by whoever asked over gRPC.
    return (
        word.get("text"),
        whole(_either(word, "startTimeMs", "start_time_ms")),
        whole(_either(word, "endTimeMs", "end_time_ms")),
    )


def _language(alternative: dict[str, Any]) -> str | None:
    languages = _objects(alternative.get("languages"))
    if not languages:
        return None
    likeliest = max(languages, key=lambda one: float(one.get("probability") or 0))
    return as_text(_either(likeliest, "languageCode", "language_code")) or None


def _v3_channel(message: dict[str, Any], update: dict[str, Any]) -> str:
    tag = _either(message, "channelTag", "channel_tag")
    return _channel(tag if tag not in (None, "") else _either(update, "channelTag", "channel_tag"), first=0)


def _channel(tag: Any, *, first: int) -> str:
    """Return the channel's name: a string, whatever it was written as."""
    if tag is None or tag == "":
        return str(first)
    return str(whole(tag)) if isinstance(tag, int) else as_text(tag)


def _channel_index(channel: str, *, first: int) -> int:
    number = int(channel) if channel.isascii() and channel.isdigit() and len(channel) < 10 else -1
    return max(number - first, -1)


def _analysis(kind: Analysis, found: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    tag = _either(message, "channelTag", "channel_tag")
    if kind is Analysis.SPEAKER:
        # A mono recording's one channel has two speakers.
        speaker = _either(found, "speakerTag", "speaker_tag")
        tag = tag if speaker in (None, "") else speaker
    if kind in _OF_ALL_CHANNELS:
        # Each message of the stream has a channel; that of these means nothing.
        tag = None
    name = _BOUNDARIES.get(kind)
    bounds = found if name is None else _either(found, name, _snake(name))
    timed = kind is not Analysis.SUMMARIZATION and isinstance(bounds, dict)
    return {
        "channel": None if tag in (None, "") else writable(_channel(tag, first=0)),
        "kind": kind.value,
        "start_ms": whole(_either(bounds, "startTimeMs", "start_time_ms")) if timed else None,
        "end_ms": whole(_either(bounds, "endTimeMs", "end_time_ms")) if timed else None,
        "payload": as_json(found),
    }


def _either(message: dict[str, Any], camel: str, snake: str) -> Any:
    """Take a field by either of the names that proto3's JSON has for it."""
    value = message.get(camel)
    return message.get(snake) if value is None else value


def _snake(camel: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in camel)


def _object(value: Any) -> dict[str, Any]:
    """Return a message; one that is left out is empty.

    :raises MalformedError: it is something else
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedError("an object is something else")
    return value


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return a repeated message.

    :raises MalformedError: it is something else
    """
    for item in _list(value):
        if not isinstance(item, dict):
            raise MalformedError("a list of objects is something else")
    return value or []


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedError("a list of objects is something else")
    return value
