"""The words of an answer as columns, read where they lie in its bytes.

Nearly all of an answer is arrays of words, each word written exactly like the one before it but for its times and
its text. The layout is learnt from the first array that has two words; whatever array repeats it byte by byte is
regular, and one that looks different (a time as an object, a key twice, an escape, one field more) is not.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_speechkit.results.scan import equal, next_quote, places
from airflow_speechkit.results.texts import not_as_written, texts_at

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Integers = NDArray[np.int64]
    Truths = NDArray[np.bool_]

#: How many words are looked at in one go: their arrays stay in the processor's cache.
_WORDS = 1 << 14

#: So many arrays are looked at for a layout, and so many bytes of a word: an answer may have a million beginnings of
#: words in it, and no end.
_LEARN_FROM = 1000
_LONGEST_WORD = 4096

_ARRAY = re.compile(rb'"words"\s*:\s*\[\s*(?=\{)')
_STRING = re.compile(rb'"([^"\\]*)"')
_BETWEEN = re.compile(rb"\s*,\s*(?=\{)")
_CLOSE = re.compile(rb"\s*\]")


@dataclass(frozen=True)
class Wording:
    """How an API writes a word.

    :param start: the key of its start
    :param end: the key of its end
    :param word: the key of its text
    :param unit: what its times end with
    :param usual: no usual time is shorter than so many bytes
    :param in_chunks: whether what is around the words repeats itself too, see `chunks`
    :param read_times: reads a column of its times in milliseconds, see `times`
    """

    start: str
    end: str
    word: str
    unit: bytes
    usual: int
    in_chunks: bool
    read_times: Callable[[Bytes, Integers, Integers], tuple[Integers, Truths]]


@dataclass(frozen=True)
class Layout:
    """One word, taken apart: what is the same in every word, and the strings between.

    :param lead: the bytes from the array's key to its first word
    :param before: the bytes from a word's ``{`` to its first value, then from each value to the next one
    :param behind: the bytes from the last value to the word's ``}``
    :param comma: what stands between two words
    :param wanted: which value is the start, the end, the text
    """

    lead: bytes
    before: tuple[bytes, ...]
    behind: bytes
    comma: bytes
    wanted: tuple[int, int, int]

    def begins(self, raw: bytes) -> bool:
        """Tell whether an answer's first array of words begins like this."""
        array = _ARRAY.search(raw)
        return array is not None and array[0] == self.lead and raw.startswith(self.before[0], array.end())

    @classmethod
    def learn(cls, raw: bytes, wording: Wording) -> Layout | None:
        """Learn it from the first plain word that another one follows; None where no array tells it."""
        for array in islice(_ARRAY.finditer(raw), _LEARN_FROM):
            end = raw.find(b"}", array.end(), array.end() + _LONGEST_WORD) + 1
            text = raw[array.end() : end]
            between = _BETWEEN.match(raw, end)
            if between is None or b"\\" in text:
                continue
            try:
                fields: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
            except (ValueError, RecursionError):
                continue
            names = [name for name, _ in fields]
            if len(set(names)) != len(names) or any(isinstance(value, (list, dict)) for _, value in fields):
                continue
            strings = list(_STRING.finditer(text))
            values: dict[str, re.Match[bytes]] = {}
            seen = 0
            for name, value in fields:
                seen += 1
                if isinstance(value, str):
                    values[name] = strings[seen]
                    seen += 1
            # Of another string nobody would see whether it is one.
            if {wording.start, wording.end, wording.word} != values.keys():
                continue
            lefts = [0, *(value.end(1) for value in values.values())]
            rights = [*(value.start(1) for value in values.values()), len(text)]
            *before, behind = [text[left:right] for left, right in zip(lefts, rights, strict=True)]
            places = list(values)
            wanted = (places.index(wording.start), places.index(wording.end), places.index(wording.word))
            return cls(array[0], tuple(before), behind, between[0], wanted)
        return None


@dataclass(frozen=True)
class Arrays:
    """The regular arrays of words in some answers, and their words.

    :param begin: the place of each array's first brace
    :param close: the place behind its last
    :param count: how many words it has
    :param words: the texts of all the words
    :param start_ms: their starts
    :param end_ms: their ends
    """

    begin: Integers
    close: Integers
    count: Integers
    words: pa.StringArray
    start_ms: Integers
    end_ms: Integers


def find(raw: bytes, data: Bytes, layout: Layout, wording: Wording) -> Arrays | None:
    """Find the arrays of words that are written in this layout.

    :param raw: the answers, one behind the other
    :param data: the same
    :return: None where the words are no text
    """
    words = places(data, "{")
    words = words[equal(data, words, layout.before[0])]
    found = _Words.of(len(words))
    for at in range(0, len(words), _WORDS):
        span = slice(at, at + _WORDS)
        # Where a word ends if the next one follows it.
        following = np.append(words[at + 1 : at + 1 + _WORDS], len(raw))[: len(words[span])]
        _read_words(data, words[span], following - len(layout.behind + layout.comma), layout, wording, found[span])
    if b"\\" in raw:
        escapes = places(data, "\\")
        found.right[:] &= np.searchsorted(escapes, words) == np.searchsorted(escapes, found.close)

    found.joined[-1] = False
    tops = np.flatnonzero(~np.append(False, found.joined[:-1]))
    tops = tops[equal(data, words[tops] - len(layout.lead), layout.lead)]
    lasts = np.flatnonzero(~found.joined)
    lasts = lasts[np.searchsorted(lasts, tops)]
    wrong = np.flatnonzero(~found.right)
    regular = np.searchsorted(wrong, tops) == np.searchsorted(wrong, lasts, side="right")
    regular &= _closed(data, found.close[lasts])
    tops, lasts = tops[regular], lasts[regular]
    counts = lasts - tops + 1
    begin, close = words[tops], found.close[lasts].astype(np.int64)
    if int(counts.sum()) < len(words):
        found = found[_ranges(tops, counts)]
    texts = texts_at(raw, found.begin, found.end)
    # A quote within would be a last value that isn't one string.
    if texts is None or not_as_written(texts).any():
        return None
    return Arrays(begin, close, counts, texts, found.start_ms, found.end_ms)


@dataclass(frozen=True)
class _Words:
    """What was found out about some words.

    :param begin: the place of the text's first byte
    :param end: the place behind the text
    :param close: the place behind the word's brace
    :param right: whether it is written like the first word
    :param joined: whether another word follows it
    :param start_ms: when it starts
    :param end_ms: when it ends
    """

    begin: NDArray[np.int32]
    end: NDArray[np.int32]
    close: NDArray[np.int32]
    right: Truths
    joined: Truths
    start_ms: Integers
    end_ms: Integers

    @classmethod
    def of(cls, size: int) -> _Words:
        places = [np.empty(size, np.int32) for _ in range(3)]
        truths = [np.empty(size, np.bool_) for _ in range(2)]
        times = [np.empty(size, np.int64) for _ in range(2)]
        return cls(places[0], places[1], places[2], truths[0], truths[1], times[0], times[1])

    def __getitem__(self, which: slice | Integers) -> _Words:
        return _Words(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


def _read_words(
    data: Bytes, words: Integers, follow: Integers, layout: Layout, wording: Wording, found: _Words
) -> None:
    """Read the words that begin at these braces, if they are words.

    :param follow: for each the end of its last value, if another word follows it
    :param found: takes what was found out
    """
    start, end, text = layout.wanted
    units = [wording.unit if value in (start, end) else b"" for value in range(len(layout.before))]
    begins = [words + len(layout.before[0])]
    ends: list[Integers] = []
    found.right[:] = True
    for constant, unit in zip(layout.before[1:], units, strict=False):
        ends.append(next_quote(data, begins[-1] + (wording.usual if unit else 0)))
        same = equal(data, ends[-1] - len(unit), unit + constant)
        if unit and not same.all():
            odd = np.flatnonzero(~same)
            ends[-1][odd] = next_quote(data, begins[-1][odd])
            same[odd] = equal(data, ends[-1][odd] - len(unit), unit + constant)
        found.right[:] &= same
        begins.append(ends[-1] + len(constant))
    # That the next word begins as it should is known.
    joint = units[-1] + layout.behind + layout.comma
    found.joined[:] = (follow >= begins[-1]) & equal(data, follow - len(units[-1]), joint)
    last = np.flatnonzero(~found.joined)
    ends.append(follow)
    ends[-1][last] = next_quote(data, begins[-1][last])
    found.right[last] &= equal(data, ends[-1][last] - len(units[-1]), units[-1] + layout.behind)
    for value, times in ((start, found.start_ms), (end, found.end_ms)):
        times[:], readable = wording.read_times(data, begins[value], ends[value] - len(wording.unit))
        found.right[:] &= readable
    found.begin[:], found.end[:] = begins[text], ends[text]
    found.close[:] = ends[-1] + len(layout.behind)


def _ranges(tops: Integers, counts: Integers) -> Integers:
    """Return all the places of some ranges."""
    return np.repeat(tops - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))


def _closed(data: Bytes, at: NDArray[Any]) -> Truths:
    """Tell where, spaces aside, an array ends."""
    closed = equal(data, at, b"]")
    text = data.data
    for number in np.flatnonzero(~closed).tolist():
        closed[number] = _CLOSE.match(text, int(at[number])) is not None
    return closed
