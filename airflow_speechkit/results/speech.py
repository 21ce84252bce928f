"""What was heard in one recording, before it is put in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from airflow_speechkit.parsing import MalformedError
from airflow_speechkit.results.texts import as_text, text_array

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from airflow_speechkit.results.chunks import Chunks
    from airflow_speechkit.results.cutting import Cut

    Integers = NDArray[np.int64]

#: A channel as the service names it, and counted from 0; -1 where that can't be told.
Channel = tuple[str, int]

#: Stands for a time that isn't given.
NO_TIME = int(np.iinfo(np.int64).min)


@dataclass(frozen=True)
class Columns:
    """Utterances, column by column.

    :param channels: the channels that are heard, each once
    :param channel: of each utterance its place among the channels
    :param alternatives: of each utterance how many alternatives it has
    :param text: of each alternative the text; `text_raw`, `language` and `speaker` likewise
    :param first: of each alternative its first word, see `Speech`
    :param count: of each alternative how many words it has
    """

    channels: Sequence[Channel]
    channel: Integers
    alternatives: Integers
    text: pa.StringArray
    text_raw: pa.StringArray
    language: pa.StringArray
    speaker: pa.StringArray
    first: Integers
    count: Integers

    @property
    def words(self) -> int:
        """How many words the first alternatives have."""
        if len(self.count) == len(self.alternatives):
            return int(self.count.sum())
        return int(self.count[np.cumsum(self.alternatives) - self.alternatives].sum())

    @classmethod
    def joined(cls, pieces: Sequence[Columns]) -> Columns:
        """Put utterances behind one another."""
        if len(pieces) == 1:
            return pieces[0]
        channels = list(dict.fromkeys(channel for piece in pieces for channel in piece.channels))
        place = {channel: number for number, channel in enumerate(channels)}
        places = [np.array([place[one] for one in piece.channels], np.int64) for piece in pieces]
        nothing = text_array([])
        return cls(
            channels=channels,
            channel=joined([own[piece.channel] for own, piece in zip(places, pieces, strict=True)]),
            alternatives=joined([piece.alternatives for piece in pieces]),
            text=pa.concat_arrays([nothing, *(piece.text for piece in pieces)]),
            text_raw=pa.concat_arrays([nothing, *(piece.text_raw for piece in pieces)]),
            language=pa.concat_arrays([nothing, *(piece.language for piece in pieces)]),
            speaker=pa.concat_arrays([nothing, *(piece.speaker for piece in pieces)]),
            first=joined([piece.first for piece in pieces]),
            count=joined([piece.count for piece in pieces]),
        )


def joined(parts: Sequence[Any]) -> Integers:
    """Put columns of whole numbers behind one another."""
    return np.concatenate([np.zeros(0, np.int64), *(np.asarray(part, np.int64) for part in parts)])


@dataclass
class Speech:
    """The utterances of one recording as they stand in its answer.

    The words of an alternative are told by the number of the first and by how many there are, among those that were
    cut out of the answer and, behind them, those that were read one by one.

    :param cut: the words that were read as columns
    """

    cut: Cut
    _pieces: list[Columns] = field(default_factory=list)
    _channel: list[Channel] = field(default_factory=list)
    _alternatives: list[int] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _text_raw: list[str | None] = field(default_factory=list)
    _language: list[str | None] = field(default_factory=list)
    _speaker: list[str | None] = field(default_factory=list)
    _first: list[int] = field(default_factory=list)
    _count: list[int] = field(default_factory=list)
    _word: list[str] = field(default_factory=list)
    _start_ms: list[int] = field(default_factory=list)
    _end_ms: list[int] = field(default_factory=list)

    def utter(self, channel: str, channel_index: int, alternatives: int) -> None:
        """Add an utterance, whose alternatives follow."""
        self._channel.append((channel, channel_index))
        self._alternatives.append(alternatives)

    def say(
        self,
        words: Any,
        read: Callable[[Any], tuple[Any, int | None, int | None]],
        *,
        text: str,
        text_raw: str | None = None,
        language: str | None = None,
        speaker: str | None = None,
    ) -> None:
        """Add an alternative of the last utterance.

        :param words: the range of words that were cut out, or the words themselves, or None
        :param read: takes a word apart into its text, start and end in milliseconds
        :raises MalformedError: the words are no words
        """
        self._text.append(text)
        self._text_raw.append(text_raw)
        self._language.append(language)
        self._speaker.append(speaker)
        words = words or []
        if not isinstance(words, list):
            raise MalformedError("words are something else")
        if len(words) == 1 and isinstance(words[0], range):
            self._first.append(words[0].start)
            self._count.append(len(words[0]))
            return
        self._first.append(len(self.cut.words) + len(self._word))
        self._count.append(len(words))
        for item in words:
            if not isinstance(item, dict):
                raise MalformedError("a word is something else")
            word, start_ms, end_ms = read(item)
            self._word.append(as_text(word))
            self._start_ms.append(NO_TIME if start_ms is None else start_ms)
            self._end_ms.append(NO_TIME if end_ms is None else end_ms)

    def hear(self, chunks: Chunks, channel_of: Callable[[str], Channel]) -> None:
        """Add utterances of one alternative each, which were cut out of the answer.

        :param channel_of: says which channel a tag means
        """
        self._flush()
        tags = chunks.tag.tobytes()
        distinct = bytes(set(tags))
        places = tags.translate(bytes.maketrans(distinct, bytes(range(len(distinct)))))
        nothing = pa.nulls(len(chunks), pa.string())
        self._pieces.append(
            Columns(
                [channel_of(chr(tag)) for tag in distinct],
                np.frombuffer(places, np.uint8).astype(np.int64),
                np.ones(len(chunks), np.int64),
                chunks.text,
                nothing,
                nothing,
                nothing,
                chunks.first,
                chunks.count,
            )
        )

    def _flush(self) -> None:
        if not self._channel:
            return
        channels = list(dict.fromkeys(self._channel))
        place = {channel: number for number, channel in enumerate(channels)}
        self._pieces.append(
            Columns(
                channels,
                np.array([place[channel] for channel in self._channel], np.int64),
                np.array(self._alternatives, np.int64),
                text_array(self._text),
                text_array(self._text_raw),
                text_array(self._language),
                text_array(self._speaker),
                np.array(self._first, np.int64),
                np.array(self._count, np.int64),
            )
        )
        for values in (
            self._channel,
            self._alternatives,
            self._text,
            self._text_raw,
            self._language,
            self._speaker,
            self._first,
            self._count,
        ):
            values.clear()

    def columns(self) -> Columns:
        """Return the utterances."""
        self._flush()
        self._pieces = [Columns.joined(self._pieces)]
        return self._pieces[0]

    @property
    def all_words(self) -> pa.StringArray:
        """The texts of the words that alternatives are told by."""
        if not self._word:
            return self.cut.words
        return pa.concat_arrays([self.cut.words, text_array(self._word)])

    @property
    def all_starts(self) -> Integers:
        """Their starts."""
        return _with(self.cut.start_ms, self._start_ms)

    @property
    def all_ends(self) -> Integers:
        """Their ends."""
        return _with(self.cut.end_ms, self._end_ms)


def _with(columns: Integers, more: list[int]) -> Integers:
    return np.concatenate([columns, np.array(more, np.int64)]) if more else columns
