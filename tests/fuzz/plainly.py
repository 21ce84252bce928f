"""Answers read plainly: with `json` and `Decimal`, value by value, as slowly as need be. What the fuzzer compares with.

Takes more than the real readers do, which refuse many a value that this reads: what they do take has to be the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

#: What reading ends in where there is nothing to be read.
REFUSED = (ValueError, TypeError, AttributeError, KeyError, ArithmeticError, RecursionError)

Word = tuple[str, int | None, int | None]
KINDS = {
    "classifierUpdate": "classifier",
    "speakerAnalysis": "speaker_analysis",
    "conversationAnalysis": "conversation_analysis",
    "summarization": "summarization",
}


@dataclass
class Plain:
    """What stands in an answer.

    :param utterances: as they stand there: channel, its index, and of each alternative text, raw text, language, words
    :param analyses: channel, kind and message of each
    """

    error: tuple[int | None, str] | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None
    utterances: list[tuple[str, int | None, list[tuple[str, str | None, str | None, list[Word]]]]] = field(
        default_factory=list
    )
    analyses: list[tuple[str | None, str, Any]] = field(default_factory=list)


def read(operation: bytes, recognition: bytes | None) -> Plain:
    """Read an answer of v2, or of v3 with its recognition."""
    envelope = one(operation)
    plain = Plain(error=status(envelope.get("error")))
    plain.created_at, plain.finished_at = moment(envelope.get("createdAt")), moment(envelope.get("modifiedAt"))
    if plain.error is None and envelope.get("done") is not True:
        raise ValueError
    if plain.error is None and recognition is None:
        for chunk in envelope["response"].get("chunks") or []:
            v2_chunk(plain, chunk)
    elif plain.error is None:
        v3_stream(plain, recognition or b"")
    return plain


def v2_chunk(plain: Plain, chunk: dict[str, Any]) -> None:
    tag = either(chunk, "channelTag", "channel_tag")
    channel = "1" if tag in (None, "") else str(tag)
    alternatives = [
        (
            text(alternative.get("text")),
            None,
            None,
            [
                (
                    text(word.get("word")),
                    duration_ms(either(word, "startTime", "start_time")),
                    duration_ms(either(word, "endTime", "end_time")),
                )
                for word in alternative.get("words") or []
            ],
        )
        for alternative in chunk.get("alternatives") or []
    ]
    if alternatives:
        plain.utterances.append((writable(channel), index_of(channel, 1), alternatives))


def v3_stream(plain: Plain, stream: bytes) -> None:
    found: list[dict[str, Any]] = []
    latest: dict[Any, dict[str, Any]] = {}
    for stated in each(stream):
        if stated.get("error") is not None:
            error = stated["error"]
            told = status(error) if isinstance(error, dict) else (None, squeezed(json_text(error)))
            plain.error = told or (None, "")
            plain.utterances, plain.analyses = [], []
            return
        message = stated.get("result", stated)
        for name, kind in KINDS.items():
            analysis = either(message, name, snake(name))
            if isinstance(analysis, dict):
                tag = either(message, "channelTag", "channel_tag")
                if kind == "speaker_analysis":
                    own = either(analysis, "speakerTag", "speaker_tag")
                    tag = tag if own in (None, "") else own
                if kind in ("conversation_analysis", "summarization") or tag in (None, ""):
                    tag = None
                plain.analyses.append((None if tag is None else writable(str(tag)), kind, analysis))
        final, refinement = message.get("final"), either(message, "finalRefinement", "final_refinement")
        if isinstance(final, dict):
            cursors = either(message, "audioCursors", "audio_cursors") or {}
            key = v3_channel(message, final), int(either(cursors, "finalIndex", "final_index") or 0)
            if key not in latest or latest[key]["final"] is not None:
                latest[key] = {"channel": key[0], "final": None, "refined": []}
                found.append(latest[key])
            latest[key]["final"] = final.get("alternatives") or []
        elif isinstance(refinement, dict):
            update = either(refinement, "normalizedText", "normalized_text") or {}
            key = v3_channel(message, update), int(either(refinement, "finalIndex", "final_index") or 0)
            if key not in latest:
                latest[key] = {"channel": key[0], "final": None, "refined": []}
                found.append(latest[key])
            latest[key]["refined"] = update.get("alternatives") or []
    for one_of in found:
        alternatives = []
        for number, said in enumerate(one_of["final"] or one_of["refined"]):
            refined = one_of["refined"][number] if number < len(one_of["refined"]) else said
            alternatives.append(
                (
                    text(refined.get("text")),
                    text(said.get("text")) if one_of["final"] else None,
                    language(said) or language(refined),
                    [
                        (
                            text(word.get("text")),
                            int(either(word, "startTimeMs", "start_time_ms") or 0),
                            int(either(word, "endTimeMs", "end_time_ms") or 0),
                        )
                        for word in said.get("words") or []
                    ],
                )
            )
        if alternatives:
            plain.utterances.append((writable(one_of["channel"]), index_of(one_of["channel"], 0), alternatives))


def rows(plain: Plain) -> tuple[list[tuple], list[tuple]]:
    """Put what was said in order: the rows of `words` and of `utterances`, as tuples."""
    early: tuple = (float("-inf"),)
    spoken, told, anchor, word_anchor, place = [], [], early, early, 0
    for number, (channel, index, alternatives) in enumerate(plain.utterances):
        order = (index is None, index or 0, channel)
        starts = [words[0][1] for _, _, _, words in alternatives if words and words[0][1] is not None]
        anchor = (starts[0], order, number) if starts else anchor
        told.append((anchor, number))
        for alternative, (_, _, _, words) in enumerate(alternatives):
            for word_index, (_, start, _) in enumerate(words):
                word_anchor = (start, order, place) if start is not None else word_anchor
                spoken.append((word_anchor, place, number, alternative, word_index))
                place += 1
    rank = {number: place for place, (_, number) in enumerate(sorted(told))}
    words_rows = []
    for _, _, number, alternative, word_index in sorted(spoken):
        channel, index, alternatives = plain.utterances[number]
        word, start, end = alternatives[alternative][3][word_index]
        words_rows.append((channel, index, rank[number], alternative, word_index, word, start, end))
    utterance_rows = []
    for _, number in sorted(told):
        channel, index, alternatives = plain.utterances[number]
        for alternative, (said, raw, spoken_language, words) in enumerate(alternatives):
            opens, closes = (words[0][1], words[-1][2]) if words else (None, None)
            utterance_rows.append(
                (channel, index, rank[number], alternative, opens, closes, said, raw, len(words), spoken_language)
            )
    return words_rows, utterance_rows


def one(raw: bytes) -> dict[str, Any]:
    found = json.loads(raw.decode("utf-8-sig"))
    if not isinstance(found, dict):
        raise TypeError
    return found


def each(raw: bytes) -> list[Any]:
    found, rest = [], raw.decode("utf-8-sig").strip(" \t\r\n")
    while rest:
        value, end = json.JSONDecoder().raw_decode(rest)
        found.append(value)
        rest = rest[end:].lstrip(" \t\r\n")
    return found


def status(error: Any) -> tuple[int | None, str] | None:
    """Return an error's code and message; None for one that says nothing."""
    if error is None:
        return None
    codes = [code(error.get(name)) for name in ("code", "grpcCode", "grpc_code")]
    messages = [error.get(name) for name in ("message", "error_message") if isinstance(error.get(name), str)]
    known = [one for one in codes if one is not None]
    if not any(known[:1]) and not any(messages[:1]):
        return None
    return (known[0] if known else None), squeezed(messages[0]) if messages else ""


def code(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    return value if type(value) is int and -(2**31) <= value < 2**31 else None


def moment(value: Any) -> datetime | None:
    if value is None:
        return None
    found = datetime.fromisoformat(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def duration_ms(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, dict):
        exact = Decimal(int(value.get("seconds") or 0)) + Decimal(int(value.get("nanos") or 0)) / 10**9
    else:
        if not value.endswith("s"):
            raise ValueError
        exact = Decimal(value[:-1])
    return int((exact * 1000).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def text(value: Any) -> str:
    return writable(value or "")


def writable(value: str) -> str:
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def squeezed(value: str) -> str:
    return " ".join(writable(value[:4000]).split())[:500]


def json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def language(alternative: dict[str, Any]) -> str | None:
    languages = alternative.get("languages") or []
    if not languages:
        return None
    best = max(languages, key=lambda one: float(one.get("probability") or 0))
    return text(either(best, "languageCode", "language_code")) or None


def v3_channel(message: dict[str, Any], update: dict[str, Any]) -> str:
    tag = either(message, "channelTag", "channel_tag")
    tag = either(update, "channelTag", "channel_tag") if tag in (None, "") else tag
    return "0" if tag in (None, "") else str(tag)


def index_of(channel: str, first: int) -> int | None:
    if not (channel.isascii() and channel.isdigit() and len(channel) < 10) or int(channel) < first:
        return None
    return int(channel) - first


def either(message: dict[str, Any], camel: str, other: str) -> Any:
    value = message.get(camel)
    return message.get(other) if value is None else value


def snake(camel: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in camel)
