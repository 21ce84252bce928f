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
    alternatives, count = speech.alternatives, speech.words
    channel = _ranks(speech)
    first = np.cumsum(count) - count
    spoken = count > 0
    opens, closes = np.full(len(count), NO_TIME), np.full(len(count), NO_TIME)
    opens[spoken] = speech.start_ms[first[spoken]]
    closes[spoken] = speech.end_ms[first[spoken] + count[spoken] - 1]

    utterance_of = np.repeat(np.arange(len(alternatives)), alternatives)
    starts = np.full(len(alternatives), NO_TIME)
    begun = np.flatnonzero(opens != NO_TIME)
    # Backwards, so that the first alternative that has a start is the one that stays.
    starts[utterance_of[begun[::-1]]] = opens[begun[::-1]]
    order = _order(starts, speech.answer, channel)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    per_answer = np.bincount(speech.answer, minlength=len(ids))
    number -= (np.cumsum(per_answer) - per_answer)[speech.answer]

    # From here on one value for each alternative.
    answer, channel, number = speech.answer[utterance_of], channel[utterance_of], number[utterance_of]
    alternative = number_within(alternatives)
    recognition_ids, operation_ids = (pa.array([one[place] for one in ids], pa.string()) for place in (0, 1))
    channel_indexes = pa.array(_small(speech.channel_index), mask=speech.channel_index < 0)

    def place(rows: Integers) -> list[pa.Array]:
        """Return the columns that say which alternative a row belongs to."""
        owner, utterance = _small(answer)[rows], utterance_of[rows]
        recognition_id = take(recognition_ids, owner)
        return [
            recognition_id,
            # Mostly the same: then the memory is, too.
            recognition_id if operation_ids.equals(recognition_ids) else take(operation_ids, owner),
            take(speech.channel, utterance),
            take(channel_indexes, utterance),
            pa.array(_small(number)[rows]),
            pa.array(_small(alternative)[rows]),
        ]

    rows = np.argsort(answer * (len(order) + 1) + number, kind="stable")
    text, text_raw, language, speaker = (
        take(column, rows) for column in (speech.text, speech.text_raw, speech.language, speech.speaker)
    )
    times = (_times(opens[rows]), _times(closes[rows]))
    columns = [*place(rows), *times, text, text_raw, pa.array(_small(count)[rows]), language, speaker]
    utterances = pa.Table.from_arrays(columns, schema=UTTERANCES.arrow)

    alternative_of = np.repeat(np.arange(len(count)), count)
    rows = _order(speech.start_ms, answer[alternative_of], channel[alternative_of])
    times = (_times(speech.start_ms[rows]), _times(speech.end_ms[rows]))
    index = pa.array(_small(number_within(count))[rows])
    columns = [*place(alternative_of[rows]), index, take(speech.word, rows), *times]
    return utterances, pa.Table.from_arrays(columns, schema=WORDS.arrow)


def _ranks(speech: Speech) -> Integers:
    """Return of each utterance what its channel is sorted by: the index, then the name; those without one come last."""
    encoded = speech.channel.dictionary_encode()
    names = np.argsort(np.argsort(encoded.dictionary.to_numpy(zero_copy_only=False)))
    index = speech.channel_index
    index = np.where(index < 0, index.max(initial=0) + 1, index)
    ranks: Integers = index * len(names) + names[encoded.indices.to_numpy()]
    return ranks


def _order(start_ms: Integers, answer: Integers, channel: Integers) -> Integers:
    """Return the places of the rows in order: by answer, start, channel and place."""
    timed = start_ms != NO_TIME
    if not timed.all():
        anchor = np.maximum.accumulate(np.where(timed, np.arange(len(timed)), 0))
        anchored = timed[anchor] & (answer[anchor] == answer)
        start_ms = np.where(anchored, start_ms[anchor], NO_TIME)
        channel = np.where(anchored, channel[anchor], -1)
    elif len(start_ms):
        times, channels = int(np.ptp(start_ms)) + 1, int(channel.max()) + 1
        if (int(answer.max()) + 1) * times * channels < 2**63:
            # One number for each row is sorted faster.
            return np.argsort((answer * times + start_ms - start_ms.min()) * channels + channel, kind="stable")
    return np.lexsort((channel, start_ms, answer))


def _small(values: Integers) -> NDArray[np.int32]:
    return values.astype(np.int32)


def _times(values: Integers) -> pa.Array:
    missing = values == NO_TIME
    return pa.array(values, mask=missing) if missing.any() else pa.array(values)
