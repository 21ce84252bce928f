"""The order of the rows: by start, then channel, then place in the answer.

What has no start keeps its place behind the one before it. An utterance starts with the first word of its first
alternative that has any; its alternatives stay together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from airflow_speechkit.results.schema import UTTERANCES, WORDS
from airflow_speechkit.results.speech import number_within
from airflow_speechkit.results.values import NO_TIME, take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from airflow_speechkit.results.speech import Speech

    Integers = NDArray[np.int64]


def in_order(ids: Sequence[tuple[str, str | None]], speech: Speech) -> tuple[pa.Table, pa.Table]:
    """Return the tables `utterances` and `words` of some recognitions, one after the other.

    :param ids: of each answer its recognition id, and its operation's id if it has one
    :param speech: what was said, the answers in any order, each one's utterances together
    """
    operation, alternatives, count = speech.answer, speech.alternatives, speech.words
    start_ms, end_ms = speech.start_ms, speech.end_ms
    channel = _ranks(speech)
    first = np.cumsum(count) - count

    utterance_of = np.repeat(np.arange(len(alternatives)), alternatives)
    alternative = number_within(alternatives)
    opens = np.full(len(count), NO_TIME)
    closes = np.full(len(count), NO_TIME)
    spoken = count > 0
    opens[spoken] = start_ms[first[spoken]]
    closes[spoken] = end_ms[first[spoken] + count[spoken] - 1]

    starts = np.full(len(alternatives), NO_TIME)
    begun = np.flatnonzero(opens != NO_TIME)
    # Backwards, so that the first alternative that has a start is the one that stays.
    starts[utterance_of[begun[::-1]]] = opens[begun[::-1]]
    order = _order(starts, operation, channel, np.arange(len(starts)))
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    per_operation = np.bincount(operation, minlength=len(ids))
    number -= (np.cumsum(per_operation) - per_operation)[operation]

    recognition_ids, operation_ids = (pa.array([one[place] for one in ids], pa.string()) for place in (0, 1))
    operation, channel, number = operation[utterance_of], channel[utterance_of], number[utterance_of]
    indexes = pa.array(_small(speech.channel_index), mask=speech.channel_index < 0)

    def place(rows: Integers) -> list[pa.Array]:
        """Return the columns that say which alternative a row belongs to."""
        owner, utterance = _small(operation)[rows], utterance_of[rows]
        recognition_id = take(recognition_ids, owner)
        return [
            recognition_id,
            # Mostly the same: then the memory is, too.
            recognition_id if operation_ids.equals(recognition_ids) else take(operation_ids, owner),
            take(speech.channel, utterance),
            take(indexes, utterance),
            pa.array(_small(number)[rows]),
            pa.array(_small(alternative)[rows]),
        ]

    def text_of(name: str) -> pa.Array:
        return take(getattr(speech, name), rows)

    rows = np.argsort(operation * (len(order) + 1) + number, kind="stable")
    utterances = pa.Table.from_arrays(
        [
            *place(rows),
            _times(opens[rows]),
            _times(closes[rows]),
            text_of("text"),
            text_of("text_raw"),
            pa.array(_small(count)[rows]),
            text_of("language"),
            text_of("speaker"),
        ],
        schema=UTTERANCES.arrow,
    )

    alternative_of = np.repeat(np.arange(len(count)), count)
    rows = _order(start_ms, operation, channel, alternative_of)
    words = pa.Table.from_arrays(
        [
            *place(alternative_of[rows]),
            pa.array(_small(number_within(count))[rows]),
            take(speech.word, rows),
            _times(start_ms[rows]),
            _times(end_ms[rows]),
        ],
        schema=WORDS.arrow,
    )
    return utterances, words


def _ranks(speech: Speech) -> Integers:
    """Return of each utterance what its channel is sorted by: the index, then the name; those without one come last."""
    encoded = speech.channel.dictionary_encode()
    names = np.argsort(np.argsort(encoded.dictionary.to_numpy(zero_copy_only=False)))
    index = speech.channel_index
    index = np.where(index < 0, index.max(initial=0) + 1, index)
    ranks: Integers = index * len(names) + names[encoded.indices.to_numpy()]
    return ranks


def _order(start_ms: Integers, operation: Integers, channel: Integers, group: Integers) -> Integers:
    """Return the places of the rows in order. Those of an operation come together, by place in the answer.

    :param start_ms: the rows' starts
    :param operation: of each group of rows its operation
    :param channel: of each group of rows its channel
    :param group: the rows' groups
    """
    if not len(start_ms):
        return np.zeros(0, np.int64)
    timed = start_ms != NO_TIME
    if timed.all():
        earliest, channels = int(start_ms.min()), int(channel.max()) + 1
        times = int(start_ms.max()) - earliest + 1
        if (int(operation.max()) + 1) * times * channels < 2**63:
            # One number for each row says it all.
            key = start_ms - earliest
            key *= channels
            key += (operation * (times * channels) + channel)[group]
            return np.argsort(key, kind="stable")
    place = np.arange(len(start_ms))
    operation, channel = operation[group], channel[group]
    anchor = np.maximum.accumulate(np.where(timed, place, -1))
    anchored = (anchor >= 0) & (operation[anchor] == operation)
    start_ms = np.where(anchored, start_ms[anchor], NO_TIME)
    channel = np.where(anchored, channel[anchor], -1)
    return np.lexsort((place, np.where(anchored, anchor, -1), channel, start_ms, operation))


def _small(values: Integers) -> NDArray[np.int32]:
    return values.astype(np.int32)


def _times(values: Integers) -> pa.Array:
    missing = values == NO_TIME
    return pa.array(values, mask=missing) if missing.any() else pa.array(values)
