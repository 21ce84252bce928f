"""The order of the rows: by start, then channel, then place in the answer.

What has no start keeps its place behind the one before it. An utterance starts with the first word of its first
alternative that has any; its alternatives stay together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from airflow_speechkit.results.schema import UTTERANCES, WORDS
from airflow_speechkit.results.speech import NO_TIME, Columns, joined
from airflow_speechkit.results.texts import take, text_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from airflow_speechkit.results.speech import Speech

    Integers = NDArray[np.int64]


def in_order(ids: Sequence[tuple[str, str | None]], speeches: Sequence[Speech]) -> tuple[pa.Table, pa.Table]:
    """Return the tables `utterances` and `words` of some recognitions, one after the other.

    :param ids: of each its recognition id, and the operation's, if there is one
    :param speeches: what was heard in each of them
    """
    columns = [speech.columns() for speech in speeches]
    heard = Columns.joined(columns)
    operation = np.repeat(np.arange(len(speeches)), [len(one.channel) for one in columns])
    distinct = sorted(heard.channels, key=lambda channel: (channel[1] < 0, channel[1], channel[0]))
    place_of = {one: number for number, one in enumerate(distinct)}
    channel = np.array([place_of[one] for one in heard.channels], np.int64)[heard.channel]
    alternatives, count = heard.alternatives, heard.count
    texts = [speech.all_words for speech in speeches]
    before = np.cumsum([0, *(len(text) for text in texts)])
    first = heard.first + np.repeat(before[:-1], [len(one.first) for one in columns])
    start_ms = joined([speech.all_starts for speech in speeches])
    end_ms = joined([speech.all_ends for speech in speeches])

    utterance_of = np.repeat(np.arange(len(alternatives)), alternatives)
    alternative = _number_within(alternatives)
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
    number -= np.searchsorted(operation, operation)

    recognition_ids, operation_ids = (pa.array([one[place] for one in ids], pa.string()) for place in (0, 1))
    names = text_array([name for name, _ in distinct])
    indexes = pa.array([None if index < 0 else index for _, index in distinct], pa.int32())
    operation, channel, number = operation[utterance_of], channel[utterance_of], number[utterance_of]

    def known(rows: Integers) -> list[pa.Array]:
        """Return the columns that say which alternative a row belongs to."""
        named, owner = _small(channel)[rows], _small(operation)[rows]
        recognition_id = take(recognition_ids, owner)
        return [
            recognition_id,
            # Mostly the same: then the memory is, too.
            recognition_id if operation_ids.equals(recognition_ids) else take(operation_ids, owner),
            take(names, named),
            take(indexes, named),
            pa.array(_small(number)[rows]),
            pa.array(_small(alternative)[rows]),
        ]

    def said(name: str) -> pa.Array:
        return take(getattr(heard, name), rows)

    rows = np.argsort(operation * (len(order) + 1) + number, kind="stable")
    utterances = pa.Table.from_arrays(
        [
            *known(rows),
            _times(opens[rows]),
            _times(closes[rows]),
            said("text"),
            said("text_raw"),
            pa.array(_small(count)[rows]),
            said("language"),
            said("speaker"),
        ],
        schema=UTTERANCES.arrow,
    )

    alternative_of = np.repeat(np.arange(len(count)), count)
    word_index = _small(_number_within(count))
    place = first[alternative_of] + word_index
    rows = _order(start_ms[place], operation, channel, alternative_of)
    alternative_of, word_index, place = alternative_of[rows], word_index[rows], place[rows]
    words = pa.Table.from_arrays(
        [
            *known(alternative_of),
            pa.array(word_index),
            take(texts[0] if len(texts) == 1 else pa.concat_arrays([*texts, text_array([])]), place),
            _times(start_ms[place]),
            _times(end_ms[place]),
        ],
        schema=WORDS.arrow,
    )
    return utterances, words


def _order(start_ms: Integers, operation: Integers, channel: Integers, group: Integers) -> Integers:
    """Return the places of the rows in order; they come by operation and then by place in the answer.

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
        if (int(operation[-1]) + 1) * times * channels < 2**63:
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


def _number_within(counts: Integers) -> Integers:
    """Count from 0 in each group."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def _small(values: Integers) -> NDArray[np.int32]:
    return values.astype(np.int32)


def _times(values: Integers) -> pa.Array:
    missing = values == NO_TIME
    return pa.array(values, mask=missing) if missing.any() else pa.array(values)
