"""Transcripts of recordings: prepared by a person, or made by the recogniser.

docs/emulator.md describes ``KEY.transcript.json``; :func:`read_transcript` defines it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from speechkit_emulator.bounds import LONGEST_S, BadValueError, check_sendable, fields, number, or_none, text, whole
from speechkit_emulator.refusal import FAILED_PRECONDITION, INTERNAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from speechkit_emulator.bounds import Reader, T

SUFFIX = ".transcript.json"

#: The v3 events that a transcript can have, under their names in the API.
ANALYSES = ("classifierUpdate", "speakerAnalysis", "conversationAnalysis", "summarization")


class TranscriptError(ValueError):
    """A transcript is invalid."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word, spelled out, in lower case."""

    word: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Utterance:
    """The speech of one channel between two pauses.

    :param channel: counted from 0
    :param words: None = the answer has no words
    :param text: as spoken
    :param normalized_text: with digits, capitals and full stops
    :param start_ms: from the start of the recording
    :param end_ms: from the start of the recording
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
    """The error of an operation or of a v3 stream."""

    code: int
    message: str


@dataclass(frozen=True)
class Transcript:
    """The transcript of a recording.

    :param utterances: in the order of the answer
    :param channels: number of channels, silent ones included
    :param duration_ms: of the recording; None = measure the recording
    :param processing_s: service seconds until the operation is done; None = computed from the duration
    :param error: the operation fails with it
    :param stream_error: the v3 result ends with it
    :param stream_error_after: number of events before the stream error
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


def no_transcript(found: tuple[str, str] | None, languages: Iterable[str]) -> Failure:
    """The error of an operation without the transcript that it needs.

    The code means that the same recording can be submitted again, once it has a transcript.

    :param found: the recording's bucket and key; None for an inline recording
    """
    if found is None:
        recording, ways = "the recording in this request", 'POST {"sha256": "…", "transcript": {…}}'
    else:
        bucket, key = found
        recording = f"s3://{bucket}/{key}"
        seed = f'{{"key": {json.dumps(key, ensure_ascii=False)}, "transcript": {{…}}}}'
        ways = f"put one at {recording}{SUFFIX}, or POST {seed}"
    return Failure(
        FAILED_PRECONDITION,
        f"no transcript for {recording}: the emulator recognises en-US only, not {', '.join(languages)}. Add a "
        f"transcript ({ways} to /emulator/transcripts) and submit the recording again, or start the emulator with "
        "--unknown-language",
    )


def capitalised(text: str) -> str:
    """The text with a capital first letter, as the service writes it."""
    return text[:1].upper() + text[1:]


def by_end(utterances: list[Utterance]) -> tuple[Utterance, ...]:
    """Utterances in the order of a recogniser: by their end, channels interleaved."""
    return tuple(sorted(utterances, key=lambda utterance: (utterance.end_ms, utterance.channel)))


def read_transcript(content: bytes) -> Transcript:
    """Read a transcript file.

    :raises TranscriptError: if it is invalid; the error names the field
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TranscriptError(f"not JSON: {error}") from error
    return transcript_from(document)


def transcript_from(document: Any) -> Transcript:
    """Read a transcript from its JSON.

    :raises TranscriptError: if it is invalid; the error names the field and the values that are allowed
    """
    try:
        check_sendable(document)
        given = _fields(document, "the transcript", _TRANSCRIPT)
    except BadValueError as error:
        raise TranscriptError(str(error)) from error
    ordered, by_channel = given.get("utterances", []), given.get("channels", [])
    if ordered and by_channel:
        raise TranscriptError("it has both `channels` and `utterances`; keep one of them")
    if ordered:
        utterances = _utterances((value.get("channel", 0), value) for value in ordered)
    else:
        values = (
            (number, value) for number, channel in enumerate(by_channel) for value in channel.get("utterances", [])
        )
        utterances = by_end(list(_utterances(values)))
    stream_error = given.get("stream_error")
    return Transcript(
        utterances=utterances,
        channels=max([len(by_channel), *(utterance.channel + 1 for utterance in utterances)]),
        duration_ms=given.get("duration_ms"),
        processing_s=given.get("processing_s"),
        error=_failure(given.get("error")),
        stream_error=_failure(stream_error),
        stream_error_after=(stream_error or {}).get("after", 1),
        analyses=tuple(
            (kind, event.get("channel", 0), event[kind])
            for event in given.get("analyses", [])
            for kind in ANALYSES
            if kind in event
        ),
    )


def _failure(value: Mapping[str, Any] | None) -> Failure | None:
    return None if value is None else Failure(value.get("code", INTERNAL), value.get("message", ""))


def _utterances(values: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[Utterance, ...]:
    """Give each utterance its times: without a start, it begins at the end of the previous one in its channel."""
    ends: dict[int, int] = {}
    utterances = []
    for channel, value in values:
        utterance = _utterance(value, channel, ends.get(channel, 0))
        ends[channel] = utterance.end_ms
        utterances.append(utterance)
    return tuple(utterances)


def _utterance(value: Mapping[str, Any], channel: int, begins_ms: int) -> Utterance:
    words = _words(value, begins_ms)
    text = value.get("text") or " ".join(word.word for word in words or ())
    start_ms = value.get("start_ms", words[0].start_ms if words else begins_ms)
    end_ms = value.get("end_ms", words[-1].end_ms if words else start_ms)
    if end_ms < start_ms:
        raise TranscriptError(f"an utterance of channel {channel} starts at {start_ms} ms and ends at {end_ms} ms")
    return Utterance(
        channel=channel,
        words=words,
        text=text,
        normalized_text=value.get("normalized_text") or capitalised(text),
        start_ms=start_ms,
        end_ms=end_ms,
        speaker=value.get("speaker"),
        refined=value.get("refined", True),
        languages=tuple(value.get("languages", {}).items()),
    )


def _words(value: Mapping[str, Any], begins_ms: int) -> tuple[Word, ...] | None:
    if "words" in value:
        if value["words"] is None:
            return None
        return tuple(
            Word(word.get("word", ""), word.get("start_ms", 0), word.get("end_ms", word.get("start_ms", 0)))
            for word in value["words"]
        )
    return spread(value.get("text", ""), value.get("start_ms", begins_ms), value.get("end_ms"))


def spread(text: str, start_ms: int, end_ms: int | None = None) -> tuple[Word, ...]:
    """Spread the words of a text evenly; a fifth of each word's time is a pause.

    :param end_ms: None = 400 ms a word
    """
    words = text.split()
    span_ms = 400 * len(words) if end_ms is None else end_ms - start_ms
    step_ms = span_ms / len(words) if words else 0.0
    return tuple(
        Word(
            "".join(letter for letter in word.lower() if letter.isalnum() or letter in "'-") or word,
            round(start_ms + index * step_ms),
            round(start_ms + (index + 0.8) * step_ms),
        )
        for index, word in enumerate(words)
    )


# The readers of a transcript's fields.


def _fields(value: Any, name: str, readers: Mapping[str, Reader[Any]]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadValueError(f"{name} must be an object, not {value!r:.60}")
    try:
        return fields(value, {key: _below(name, reader) for key, reader in readers.items()})
    except BadValueError as error:
        raise BadValueError(f"{name}: {error}" if str(error).startswith("unknown field") else str(error)) from error


def _below(parent: str, reader: Reader[T]) -> Reader[T]:
    return lambda value, name: reader(value, f"{parent}.{name}")


def _each(reader: Reader[T]) -> Reader[list[T]]:
    def read(value: Any, name: str) -> list[T]:
        if not isinstance(value, list):
            raise BadValueError(f"{name} must be a list, not {value!r:.60}")
        return [reader(item, f"{name}[{place}]") for place, item in enumerate(value)]

    return read


def _object_of(readers: Mapping[str, Reader[Any]]) -> Reader[dict[str, Any]]:
    return lambda value, name: _fields(value, name, readers)


def _boolean(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise BadValueError(f"{name} must be true or false, not {value!r:.60}")
    return value


def _languages(value: Any, name: str) -> dict[str, float]:
    if not isinstance(value, dict):
        raise BadValueError(f"{name} must be an object of language codes and probabilities, not {value!r:.60}")
    return {code: number(0, 1)(share, f"{name}.{code}") for code, share in value.items()}


def _anything(value: Any, name: str) -> Any:
    return value


_TIME_MS = whole(0, int(LONGEST_S) * 1000)
_CHANNEL = whole(0, 99)
_WORD = {"word": text, "start_ms": _TIME_MS, "end_ms": _TIME_MS}
_UTTERANCE: dict[str, Reader[Any]] = {
    "text": text,
    "normalized_text": text,
    "start_ms": _TIME_MS,
    "end_ms": _TIME_MS,
    "words": or_none(_each(_object_of(_WORD))),
    "speaker": or_none(text),
    "refined": _boolean,
    "languages": _languages,
}
_FAILURE: dict[str, Reader[Any]] = {"code": whole(1, 16), "message": text}
_TRANSCRIPT: dict[str, Reader[Any]] = {
    "duration_ms": or_none(_TIME_MS),
    "processing_s": or_none(number(0, LONGEST_S)),
    "channels": _each(_object_of({"utterances": _each(_object_of(_UTTERANCE))})),
    "utterances": _each(_object_of({**_UTTERANCE, "channel": _CHANNEL})),
    "analyses": _each(_object_of({"channel": _CHANNEL, **dict.fromkeys(ANALYSES, _anything)})),
    "error": or_none(_object_of(_FAILURE)),
    "stream_error": or_none(_object_of({**_FAILURE, "after": whole(0, 10**9)})),
}
