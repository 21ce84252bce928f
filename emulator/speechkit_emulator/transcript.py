"""What was said in a recording: heard by the recogniser, or written beside the recording by a person.

``KEY.transcript.json`` is described in docs/emulator.md; :func:`read_transcript` is its definition.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from speechkit_emulator.bounds import LONGEST_S, check_sendable, number

if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIX = ".transcript.json"

#: Events of API v3 that a transcript may bring along, under the names they have on the wire.
ANALYSES = ("classifierUpdate", "speakerAnalysis", "conversationAnalysis", "summarization")


class TranscriptError(ValueError):
    """A transcript that says something nobody can answer with."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word, spelled out, in lower case."""

    word: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Utterance:
    """What one channel said between two pauses.

    :param channel: counted from 0
    :param words: None where the answer is to have no words
    :param text: as spoken; :param normalized_text: with digits, capitals and stops
    :param speaker: label for speaker labelling, "0" or "1"
    :param refined: whether v3 sends a refinement
    :param languages: (language code, probability)
    """

    channel: int
    words: tuple[Word, ...] | None
    text: str
    normalized_text: str
    start_ms: int
    end_ms: int
    speaker: str | None = None
    refined: bool = True
    languages: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """The error an operation, or a v3 stream, ends with."""

    code: int
    message: str


@dataclass(frozen=True)
class Transcript:
    """A whole recording.

    :param utterances: in the order they are answered in
    :param channels: how many there are, the silent ones included; 0 = as many as utterances tell of
    :param duration_ms: of the recording; None = read from it
    :param processing_s: service seconds until the operation is done; None = by the duration
    :param error: the operation fails with this
    :param stream_error: the v3 result breaks off with this
    :param stream_error_after: after so many events
    :param analyses: v3 events as (kind, channel, payload)
    """

    utterances: tuple[Utterance, ...] = ()
    channels: int = 0
    duration_ms: int | None = None
    processing_s: float | None = None
    error: Failure | None = None
    stream_error: Failure | None = None
    stream_error_after: int = 1
    analyses: tuple[tuple[str, int, Mapping[str, Any]], ...] = field(default=())


def capitalised(text: str) -> str:
    """The text with a capital first letter, as the service writes it."""
    return text[:1].upper() + text[1:]


def by_end(utterances: list[Utterance]) -> tuple[Utterance, ...]:
    """The order in which a recogniser gets done with utterances: by their end, the channels interleaved."""
    return tuple(sorted(utterances, key=lambda utterance: (utterance.end_ms, utterance.channel)))


def read_transcript(content: bytes) -> Transcript:
    """Read a transcript file.

    :raises TranscriptError: naming what is wrong in it
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TranscriptError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise TranscriptError("not a JSON object")
    try:
        check_sendable(document)
        return _transcript(document)
    except TranscriptError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TranscriptError(f"{type(error).__name__}: {error}") from error


def _transcript(document: Mapping[str, Any]) -> Transcript:
    channels = document.get("channels", [])
    utterances = [
        _utterance(utterance, channel) for channel, said in enumerate(channels) for utterance in said["utterances"]
    ]
    given = [(value, _utterance(value, int(value["channel"]))) for value in document.get("utterances", [])]
    if given and utterances:
        raise TranscriptError("either channels, or utterances in the order of the answer, not both")
    analyses = tuple(
        (kind, int(event.get("channel", 0)), event[kind])
        for event in document.get("analyses", [])
        for kind in ANALYSES
        if kind in event
    )
    duration_ms, processing_s = document.get("duration_ms"), document.get("processing_s")
    return Transcript(
        utterances=tuple(utterance for _, utterance in given) or by_end(utterances),
        channels=len(channels),
        duration_ms=None if duration_ms is None else int(duration_ms),
        processing_s=None if processing_s is None else number(0, LONGEST_S)(processing_s, "processing_s"),
        error=_failure(document.get("error")),
        stream_error=_failure(document.get("stream_error")),
        stream_error_after=int((document.get("stream_error") or {}).get("after", 1)),
        analyses=analyses,
    )


def _failure(value: Mapping[str, Any] | None) -> Failure | None:
    return None if value is None else Failure(int(value["code"]), str(value["message"]))


def _utterance(value: Mapping[str, Any], channel: int) -> Utterance:
    words = _words(value)
    text = value.get("text") or " ".join(word.word for word in words or ())
    start_ms = value.get("start_ms", words[0].start_ms if words else 0)
    end_ms = value.get("end_ms", words[-1].end_ms if words else start_ms)
    if end_ms < start_ms:
        raise TranscriptError(f"an utterance of channel {channel} ends before it starts")
    speaker = value.get("speaker")
    return Utterance(
        channel=channel,
        words=words,
        text=text,
        normalized_text=value.get("normalized_text") or capitalised(text),
        start_ms=int(start_ms),
        end_ms=int(end_ms),
        speaker=None if speaker is None else str(speaker),
        refined=bool(value.get("refined", True)),
        languages=tuple((str(code), float(share)) for code, share in value.get("languages", {}).items()),
    )


def _words(value: Mapping[str, Any]) -> tuple[Word, ...] | None:
    if "words" in value:
        if value["words"] is None:
            return None
        return tuple(Word(str(word["word"]), int(word["start_ms"]), int(word["end_ms"])) for word in value["words"])
    return spread(value["text"], int(value.get("start_ms", 0)), value.get("end_ms"))


def spread(text: str, start_ms: int, end_ms: int | None = None) -> tuple[Word, ...]:
    """Words of a text at even distances, a fifth of each being a pause.

    :param end_ms: 400 ms a word where it is not given
    """
    words = text.split()
    span_ms = 400 * len(words) if end_ms is None else int(end_ms) - start_ms
    step_ms = span_ms / len(words) if words else 0.0
    return tuple(
        Word(
            "".join(letter for letter in word.lower() if letter.isalnum() or letter in "'-") or word,
            round(start_ms + index * step_ms),
            round(start_ms + (index + 0.8) * step_ms),
        )
        for index, word in enumerate(words)
    )
