"""What was heard in one recording, column by column, before it is put in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from airflow_speechkit.results.words import MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from airflow_speechkit.results.words import Cut

    Integers = NDArray[np.int64]

#: Stands for a time that isn't given.
NO_TIME = int(np.iinfo(np.int64).min)


def as_text(value: Any) -> str:
    """Return a JSON string; one that is left out is empty, as proto3 has it.

    :raises ValueError: it is no string
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("a text is something else")
    return value


def text_array(values: list[Any]) -> pa.StringArray:
    """Return strings, some of them None, as a column."""
    try:
        return pa.array(values, pa.string(), memory_pool=MEMORY)
    except UnicodeEncodeError:
        # Half of a surrogate pair is JSON, but no character.
        return pa.array([None if value is None else writable(value) for value in values], pa.string())


def writable(text: str) -> str:
    """Replace halves of surrogate pairs, which can't be written, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass
class Speech:
    """The utterances of one recording as they stand in its answer.

    :param cut: the words that were read as columns
    :param channel: of each utterance its channel as the service names it
    :param channel_index: of each utterance its channel counted from 0; -1 where that can't be told
    :param alternatives: of each utterance how many alternatives it has
    :param text: of each alternative the text; `text_raw`, `language` and `speaker` likewise
    :param first: of each alternative its first word, among those of `cut` and, behind them, `word`
    :param count: of each alternative how many words it has
    :param word: the words that were read one by one; `start_ms` and `end_ms` likewise
    """

    cut: Cut
    channel: list[str] = field(default_factory=list)
    channel_index: list[int] = field(default_factory=list)
    alternatives: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    text_raw: list[str | None] = field(default_factory=list)
    language: list[str | None] = field(default_factory=list)
    speaker: list[str | None] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    word: list[str] = field(default_factory=list)
    start_ms: list[int] = field(default_factory=list)
    end_ms: list[int] = field(default_factory=list)

    def utter(self, channel: str, channel_index: int, alternatives: int) -> None:
        """Add an utterance, whose alternatives follow."""
        self.channel.append(channel)
        self.channel_index.append(channel_index)
        self.alternatives.append(alternatives)

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
        :raises ValueError: the words are no words
        """
        self.text.append(text)
        self.text_raw.append(text_raw)
        self.language.append(language)
        self.speaker.append(speaker)
        words = words or []
        if not isinstance(words, list):
            raise ValueError("words are something else")
        if len(words) == 1 and isinstance(words[0], range):
            self.first.append(words[0].start)
            self.count.append(len(words[0]))
            return
        self.first.append(len(self.cut.words) + len(self.word))
        self.count.append(len(words))
        for item in words:
            if not isinstance(item, dict):
                raise ValueError("a word is something else")
            word, start_ms, end_ms = read(item)
            self.word.append(as_text(word))
            self.start_ms.append(NO_TIME if start_ms is None else start_ms)
            self.end_ms.append(NO_TIME if end_ms is None else end_ms)

    @property
    def all_words(self) -> pa.StringArray:
        """The texts of the words that `first` counts."""
        if not self.word:
            return self.cut.words
        return pa.concat_arrays([self.cut.words, text_array(self.word)])

    @property
    def all_starts(self) -> Integers:
        """Their starts."""
        return _with(self.cut.start_ms, self.start_ms)

    @property
    def all_ends(self) -> Integers:
        """Their ends."""
        return _with(self.cut.end_ms, self.end_ms)


def _with(columns: Integers, more: list[int]) -> Integers:
    return np.concatenate([columns, np.array(more, np.int64)]) if more else columns
