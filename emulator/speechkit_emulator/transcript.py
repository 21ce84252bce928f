"""What was said in a recording: heard by the recogniser, or written beside the recording by a person.

``KEY.transcript.json`` is described in docs/emulator.md; :func:`read_transcript` is its definition.
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
    :param channels: how many there are, the silent ones included
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


def no_transcript(found: tuple[str, str] | None, languages: Iterable[str]) -> Failure:
    """What an operation ends with that needs a transcript and has none.

    Its code is not one that depends on the request alone: the same recording may be submitted again, once there is a
    transcript.

    :param found: the recording's bucket and key; None if it was sent inline
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
        f"transcript ({ways} to /emulator/transcripts), then submit the recording again; or start the emulator with "
        "--unknown-language",
    )


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
    return transcript_from(document)


def transcript_from(document: Any) -> Transcript:
    """Make a transcript of what its JSON says.

    :raises TranscriptError: naming the field that is wrong, and what may stand there
    """
    try:
        check_sendable(document)
        given = _fields(document, "the transcript", _TRANSCRIPT)
    except BadValueError as error:
        raise TranscriptError(str(error)) from error
    ordered, by_channel = given.get("utterances", []), given.get("channels", [])
    if ordered and by_channel:
        raise TranscriptError("it has both `channels` and `utterances` (in the order of the answer); keep one of them")
    if ordered:
        utterances = _utterances((value.get("channel", 0), value) for value in ordered)
    else:
        said = ((number, value) for number, channel in enumerate(by_channel) for value in channel.get("utterances", []))
        utterances = by_end(list(_utterances(said)))
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


def _utterances(said: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[Utterance, ...]:
    """Give each utterance its times: one that has none begins where the one before it in its channel ends."""
    ends: dict[int, int] = {}
    utterances = []
    for channel, value in said:
        utterance = _utterance(value, channel, ends.get(channel, 0))
        ends[channel] = utterance.end_ms
        utterances.append(utterance)
    return tuple(utterances)


def _utterance(value: Mapping[str, Any], channel: int, begins_ms: int) -> Utterance:
    words = _words(value, begins_ms)
    said = value.get("text") or " ".join(word.word for word in words or ())
    start_ms = value.get("start_ms", words[0].start_ms if words else begins_ms)
    end_ms = value.get("end_ms", words[-1].end_ms if words else start_ms)
    if end_ms < start_ms:
        raise TranscriptError(f"an utterance of channel {channel} starts at {start_ms} ms and ends at {end_ms} ms")
    return Utterance(
        channel=channel,
        words=words,
        text=said,
        normalized_text=value.get("normalized_text") or capitalised(said),
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
    """Words of a text at even distances, a fifth of each being a pause.

    :param end_ms: 400 ms a word where it is not given
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


# The fields of a transcript, and what may stand in each.


def _fields(value: Any, name: str, readers: Mapping[str, Reader[Any]]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadValueError(f"{name} must be an object, not {value!r:.60}")
    try:
        return fields(value, {key: _below(name, reader) for key, reader in readers.items()})
    except BadValueError as error:
        raise BadValueError(f"{name}: {error}" if str(error).startswith("there is no") else str(error)) from error


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
        raise BadValueError(f"{name} must be an object of codes and probabilities, not {value!r:.60}")
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
