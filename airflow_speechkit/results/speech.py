"""What was said in some recordings, column by column, in the order of the answers.

Both readers turn an answer into the documented shape, as Arrow's nested columns: `CHUNK` for v2, `MESSAGE` for v3.
From there on everything is columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_speechkit.results.values import durations_ms, take, wholes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from airflow_speechkit.errors import ErrorStatus
    from airflow_speechkit.models import Answer, Submission

    Integers = NDArray[np.int64]
    Truths = NDArray[np.bool_]

    #: An utterance of v3: number of its answer, channel, index of the final.
    Key = tuple[int, str, int]

    #: An answer with its submission, if that is known.
    Submitted = tuple[Answer, Submission | None]

_TEXT = pa.string()


def _object(*texts: str, **fields: pa.DataType) -> pa.StructType:
    return pa.struct([*((name, _TEXT) for name in texts), *fields.items()])


#: A chunk of v2.
CHUNK = _object(
    "channelTag",
    alternatives=pa.list_(_object("text", words=pa.list_(_object("startTime", "endTime", "word")))),
)

_UPDATE = _object(
    "channelTag",
    alternatives=pa.list_(
        _object(
            "text",
            words=pa.list_(_object("startTimeMs", "endTimeMs", "text")),
            languages=pa.list_(_object("languageCode", probability=pa.float64())),
        )
    ),
)
#: A message of v3 with a final or a refinement, or neither.
MESSAGE = _object(
    "channelTag",
    final=_UPDATE,
    finalRefinement=_object("finalIndex", normalizedText=_UPDATE),
    audioCursors=_object("finalIndex"),
)


@dataclass(frozen=True)
class Speech:
    """The utterances of some answers, in the order of the answers and within each.

    Of each utterance:

    :param answer: number of its answer
    :param channel: its channel as the service names it
    :param channel_index: the channel counted from 0, -1 if unknown
    :param alternatives: how many alternatives it has, at least one

    Of each alternative:

    :param text: its text; `text_raw`, `language` and `speaker` likewise
    :param words: how many words it has

    Of each word:

    :param word: its text
    :param start_ms: its start, or `NO_TIME`; `end_ms` likewise
    """

    answer: Integers
    channel: pa.StringArray
    channel_index: Integers
    alternatives: Integers
    text: pa.StringArray
    text_raw: pa.StringArray
    language: pa.StringArray
    speaker: pa.StringArray
    words: Integers
    word: pa.StringArray
    start_ms: Integers
    end_ms: Integers

    @classmethod
    def concat(cls, pieces: Sequence[Speech]) -> Speech:
        """Put the utterances of several answers after each other."""
        if len(pieces) == 1:
            return pieces[0]

        def joined(name: str) -> Any:
            columns = [getattr(piece, name) for piece in pieces]
            return pa.concat_arrays(columns) if isinstance(columns[0], pa.Array) else np.concatenate(columns)

        return cls(**{field.name: joined(field.name) for field in fields(cls)})

    @classmethod
    def empty(cls) -> Speech:
        """Return the speech of a silent answer."""
        return v2_speech(pa.array([], CHUNK), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Reading:
    """What some answers say. An answer is meant by its number among them.

    :param speech: what was said
    :param moments: when each operation was created and last modified, as the service writes it
    :param analyses: the rows that an answer has in the table `analyses`, without the ids
    :param errors: the errors of failed operations
    :param left_out: the answers that are for the plain reader
    """

    speech: Speech
    moments: Sequence[tuple[Any, Any]]
    analyses: Mapping[int, list[dict[str, Any]]] = field(default_factory=dict)
    errors: Mapping[int, ErrorStatus] = field(default_factory=dict)
    left_out: frozenset[int] = frozenset()


def v2_speech(chunks: pa.StructArray, answer: Integers) -> Speech:
    """Return what was said in chunks of v2.

    :param chunks: of the type `CHUNK`, or of one with more fields
    :param answer: of each chunk the number of its answer
    :raises MalformedError: a time is malformed
    :raises ValueError: a list has null among its objects
    """
    alternatives, per_chunk = items(chunks.field("alternatives"))
    spoken = per_chunk > 0
    words, per_alternative = items(alternatives.field("words"))
    nothing = pa.nulls(len(alternatives), _TEXT)
    return Speech(
        answer=answer[spoken],
        **_channels(chunks.field("channelTag").filter(pa.array(spoken)), first=1),
        alternatives=per_chunk[spoken],
        text=_filled(alternatives.field("text")),
        text_raw=nothing,
        language=nothing,
        speaker=nothing,
        words=per_alternative,
        word=_filled(words.field("word")),
        start_ms=durations_ms(words.field("startTime")),
        end_ms=durations_ms(words.field("endTime")),
    )


def v3_speech(messages: pa.StructArray, answer: Integers, speakers: Truths) -> Speech:
    """Return what was said in messages of v3: a final and its refinement are one utterance.

    :param messages: of the type `MESSAGE`, or of one with more fields
    :param answer: of each message the number of its answer
    :param speakers: of each answer whether speaker labelling was asked for: then a channel is a speaker
    :raises MalformedError: a time or an index is malformed
    :raises ValueError: a list has null among its objects, or a message has a final and a refinement
    """
    final, refinement = messages.field("final"), messages.field("finalRefinement")
    normalized = refinement.field("normalizedText")
    is_final, is_refinement = np.asarray(final.is_valid()), np.asarray(refinement.is_valid())
    if (is_final & is_refinement).any():
        raise ValueError("a message has a final and a refinement")
    tags = pc.coalesce(*(_named(one.field("channelTag")) for one in (messages, final, normalized)), "0")
    index = (refinement.field("finalIndex"), messages.field("audioCursors").field("finalIndex"))
    rows = np.flatnonzero(is_final | is_refinement)
    indexes = wholes(take(pc.if_else(pa.array(is_refinement), *index), rows))
    keys = zip(answer[rows].tolist(), take(tags, rows).to_pylist(), indexes.tolist(), strict=True)
    utterances = _paired(zip(is_final[rows].tolist(), keys, rows.tolist(), strict=True))

    # The alternatives of finals and, behind them, those of refinements; -1 finds the 0 that is appended.
    finals, per_final = items(final.field("alternatives"))
    refinements, per_refinement = items(normalized.field("alternatives"))
    final_row, refined_row = (np.array([one[place] for one in utterances], np.int64) for place in (1, 2))
    has_final, has_refined = np.append(per_final, 0)[final_row], np.append(per_refinement, 0)[refined_row]
    begin = np.append(_begins(per_final), 0)[final_row]
    refined_begin = len(finals) + np.append(_begins(per_refinement), 0)[refined_row]

    # A refinement normalises the text of the best alternative; words and raw text are those of the final.
    count = np.where(has_final > 0, has_final, has_refined)
    number = number_within(count)
    place = np.repeat(np.where(has_final > 0, begin, refined_begin), count) + number
    refined_place = np.where(number < np.repeat(has_refined, count), np.repeat(refined_begin, count) + number, place)
    both = (finals, refinements)
    text = pa.concat_arrays([_filled(one.field("text")) for one in both])
    language = pa.concat_arrays([_likeliest(one) for one in both])

    word_lists = [items(one.field("words")) for one in both]
    per_alternative = np.concatenate([counts for _, counts in word_lists])
    word_count = per_alternative[place]
    word_place = np.repeat(_begins(per_alternative)[place], word_count) + number_within(word_count)

    def words(name: str) -> pa.StringArray:
        return take(pa.concat_arrays([found.field(name) for found, _ in word_lists]), word_place)

    spoken = [key for (key, _, _), alternatives in zip(utterances, count.tolist(), strict=True) if alternatives]
    own = np.array([number for number, _, _ in spoken], np.int64)
    channel = pa.array([name for _, name, _ in spoken], _TEXT)
    utterance_of = np.repeat(np.arange(len(spoken)), count[count > 0])
    return Speech(
        answer=own,
        **_channels(channel, first=0),
        alternatives=count[count > 0],
        text=take(text, refined_place),
        text_raw=_only(take(text, place), np.repeat(has_final > 0, count)),
        language=pc.coalesce(take(language, place), take(language, refined_place)),
        speaker=_only(take(channel, utterance_of), speakers[own][utterance_of]),
        words=word_count,
        word=_filled(words("text")),
        start_ms=wholes(words("startTimeMs")),
        end_ms=wholes(words("endTimeMs")),
    )


def number_within(counts: Integers) -> Integers:
    """Number the items of each group from 0.

    :param counts: of each group how many items it has
    """
    return np.arange(int(counts.sum())) - np.repeat(_begins(counts), counts)


def _begins(counts: Integers) -> Integers:
    return np.cumsum(counts) - counts


def _paired(events: Iterable[tuple[bool, Key, int]]) -> list[tuple[Key, int, int]]:
    """Put finals and refinements together.

    :param events: in the order of the stream: whether it is a final, its utterance, and its row
    :return: each utterance, the row of its final and that of its last refinement, -1 for none
    """
    utterances: list[tuple[Key, int, int]] = []
    latest: dict[Key, int] = {}
    for is_final, key, row in events:
        number = latest.get(key)
        if number is None or (is_final and utterances[number][1] >= 0):
            latest[key] = len(utterances)
            utterances.append((key, row, -1) if is_final else (key, -1, row))
        else:
            _, final, refinement = utterances[number]
            utterances[number] = (key, row, refinement) if is_final else (key, final, row)
    return utterances


def _likeliest(alternatives: pa.StructArray) -> pa.StringArray:
    """Return the likeliest language of each alternative."""
    languages, counts = items(alternatives.field("languages"))
    if not len(languages):
        return pa.nulls(len(alternatives), _TEXT)
    owner = np.repeat(np.arange(len(alternatives)), counts)
    probability = pc.fill_null(languages.field("probability"), 0).to_numpy()
    if not np.isfinite(probability).all():
        raise ValueError("a probability is too large")
    ranked = np.lexsort((-probability, owner))
    owners, firsts = np.unique(owner[ranked], return_index=True)
    place = np.full(len(alternatives), -1)
    place[owners] = ranked[firsts]
    return pc.take(_named(languages.field("languageCode")), pa.array(place, mask=place < 0))


def items(lists: pa.ListArray) -> tuple[pa.StructArray, Integers]:
    """Return the objects in some lists, and how many each list has: none where there is no list.

    :raises ValueError: one of the objects is null
    """
    offsets = lists.offsets.to_numpy().astype(np.int64)
    # Unlike `flatten` this copies nothing: a parser makes null lists empty.
    objects = lists.values[int(offsets[0]) : int(offsets[-1])] if len(lists) else lists.values[:0]
    if objects.null_count:
        raise ValueError("a list has null among its objects")
    return objects, np.diff(offsets)


def _channels(tags: pa.StringArray, *, first: int) -> dict[str, Any]:
    """Return the columns about channels.

    :param first: the number of the first channel in this API
    """
    channel = pc.fill_null(_named(tags), str(first))
    encoded = channel.dictionary_encode()
    numbers = (
        int(name) if name.isascii() and name.isdigit() and len(name) < 10 else -1
        for name in encoded.dictionary.to_pylist()
    )
    indexes = np.array([max(number - first, -1) for number in numbers], np.int64)
    return {"channel": channel, "channel_index": indexes[encoded.indices.to_numpy()]}


def _named(texts: pa.Array) -> pa.Array:
    """Return texts with null for empty ones: proto3 leaves both out."""
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _filled(texts: pa.Array) -> pa.Array:
    return pc.fill_null(texts, "") if texts.null_count else texts


def _only(texts: pa.Array, where: Truths) -> pa.Array:
    return pc.if_else(pa.array(where), texts, None)
