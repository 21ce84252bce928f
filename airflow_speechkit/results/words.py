"""The words of an answer as columns, read where they lie in its bytes.

Nearly all of an answer is arrays of words, each word written exactly like the one before it but for its times and
its text. The layout is learnt from the first array that has two words. Whatever array repeats it byte by byte is cut
out of the answer and never becomes Python objects; what is left, small, and every array that looks different (a time
as an object, a key twice, an escape, one field more), goes through Python's JSON parser. So the whole document is
checked: what was cut out is a list of objects like the first, and stood where the parser finds an array's content.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_speechkit.results.scan import equal, next_quote, places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Integers = NDArray[np.int64]
    Truths = NDArray[np.bool_]

#: Arrow's offsets into a text are 32 bits wide.
_LARGEST = 2**31

#: The pool that Arrow takes by default keeps what was given back, which for one large answer doubles the peak.
MEMORY = pa.system_memory_pool()

#: How many words are looked at in one go: their arrays stay in the processor's cache.
_WORDS = 1 << 14

#: No answer has this outside of a string (it isn't JSON), and Python's parser hands it to a function of ours.
_MARK = b"-Infinity"

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
    :param read_times: reads a column of its times in milliseconds, see `times`
    """

    start: str
    end: str
    word: str
    unit: bytes
    usual: int
    read_times: Callable[[Bytes, Integers, Integers], tuple[Integers, Truths]]


@dataclass(frozen=True)
class Cut:
    """An answer without its regular arrays of words.

    :param rest: the JSON that is left, with a mark for each array that was cut out
    :param blocks: the words that each mark stands for, in order
    :param words: the words' texts
    :param start_ms: their starts
    :param end_ms: their ends
    """

    rest: bytes
    blocks: list[range]
    words: pa.StringArray
    start_ms: Integers
    end_ms: Integers

    @classmethod
    def nothing(cls, raw: bytes) -> Cut:
        """Leave everything to the JSON parser."""
        none = np.zeros(0, np.int64)
        return cls(raw, [], pa.array([], pa.string()), none, none)

    def without_rest(self) -> Cut:
        """Keep nothing but the columns."""
        return Cut(b"", [], self.words, self.start_ms, self.end_ms)


@dataclass(frozen=True)
class _Layout:
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


def cut_many(raws: Sequence[bytes], wording: Wording) -> list[Cut]:
    """Cut the regular arrays of words out of some answers at once: for small ones that is quicker.

    :param raws: the answers, any bytes
    :param wording: how their API writes a word
    """
    cuts: dict[int, Cut] = {}
    alike: dict[_Layout, list[int]] = {}
    for number, raw in enumerate(raws):
        layout = None if _MARK in raw or len(raw) >= _LARGEST else _learn(raw, wording)
        if layout is None:
            cuts[number] = Cut.nothing(raw)
        else:
            alike.setdefault(layout, []).append(number)
    for layout, numbers in alike.items():
        for group in _groups(raws, numbers):
            cuts.update(zip(group, _cut([raws[number] for number in group], layout, wording), strict=True))
    return [cuts[number] for number in range(len(raws))]


def parse(cut: Cut, load: Callable[[str, Callable[[str], Any]], Any]) -> Any:
    """Parse what is left of an answer, giving back ranges of words where their arrays stood.

    :param load: parses a text with a ``parse_constant``
    :raises ValueError: it isn't JSON
    """
    blocks = iter(cut.blocks)

    def constant(name: str) -> range:
        block = next(blocks, None) if name == _MARK.decode() else None
        if block is None:
            raise ValueError(f"{name} is not JSON")
        return block

    value = load(cut.rest.decode("utf-8-sig"), constant)
    if next(blocks, None) is not None:
        raise ValueError("an array of words stands where none can be")
    return value


def take(values: pa.Array, places: NDArray[Any]) -> pa.Array:
    """Return the values at some places."""
    return pc.take(values, pa.array(places), boundscheck=False, memory_pool=MEMORY)


def _groups(raws: Sequence[bytes], numbers: list[int]) -> Iterator[list[int]]:
    """Divide the answers into groups that fit into one array of text."""
    group: list[int] = []
    size = 0
    for number in numbers:
        size += len(raws[number])
        if group and size >= _LARGEST:
            yield group
            group, size = [], len(raws[number])
        group.append(number)
    yield group


def _learn(raw: bytes, wording: Wording) -> _Layout | None:
    """Learn the layout from the first plain word that another one follows."""
    for array in _ARRAY.finditer(raw):
        end = raw.find(b"}", array.end()) + 1
        text = raw[array.end() : end]
        between = _BETWEEN.match(raw, end)
        if between is None or b"\\" in text:
            continue
        try:
            fields: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
        except ValueError:
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
        if not {wording.start, wording.end, wording.word} <= values.keys():
            continue
        lefts = [0, *(value.end(1) for value in values.values())]
        rights = [*(value.start(1) for value in values.values()), len(text)]
        *before, behind = [text[left:right] for left, right in zip(lefts, rights, strict=True)]
        places = list(values)
        wanted = (places.index(wording.start), places.index(wording.end), places.index(wording.word))
        return _Layout(array[0], tuple(before), behind, between[0], wanted)
    return None


def _cut(raws: list[bytes], layout: _Layout, wording: Wording) -> list[Cut]:
    """Cut the arrays of this layout out of some answers."""
    raw = raws[0] if len(raws) == 1 else b"".join(raws)
    data = np.frombuffer(raw, np.uint8)
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
    if int(counts.sum()) < len(words):
        found = found[_ranges(tops, counts)]
        begins, closes = words[tops], found.close[np.cumsum(counts) - 1]
    else:
        begins, closes = words[tops], found.close[lasts]
    texts = _strings(raw, found.begin, found.end)
    if texts is None:
        return [Cut.nothing(one) for one in raws]
    return list(_divided(raws, raw, begins, closes, counts, texts, found.start_ms, found.end_ms))


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
    data: Bytes, words: Integers, follow: Integers, layout: _Layout, wording: Wording, found: _Words
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


def _divided(
    raws: list[bytes],
    raw: bytes,
    begins: Integers,
    ends: Integers,
    counts: Integers,
    words: pa.StringArray,
    start_ms: Integers,
    end_ms: Integers,
) -> Iterator[Cut]:
    """Give each answer its own of what was found in all of them together."""
    view = memoryview(raw)
    limits = np.cumsum([len(one) for one in raws])
    arrays = np.searchsorted(begins, limits).tolist()
    before = np.cumsum([0, *counts.tolist()]).tolist()
    opens, closes = begins.tolist(), ends.tolist()
    done = first = 0
    for limit, last in zip(limits.tolist(), arrays, strict=True):
        rest = _MARK.join(
            [
                view[begin:end]
                for begin, end in zip([done, *closes[first:last]], [*opens[first:last], limit], strict=True)
            ]
        )
        top, bottom = before[first], before[last]
        places = (np.array(before[first : last + 1], np.int64) - top).tolist()
        blocks = list(map(range, places[:-1], places[1:]))
        yield Cut(rest, blocks, words[top:bottom], start_ms[top:bottom], end_ms[top:bottom])
        done, first = limit, last


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


def _strings(raw: bytes, begin: NDArray[np.int32], end: NDArray[np.int32]) -> pa.StringArray | None:
    """Take strings out of the answers; None where one of them isn't text."""
    # Every second slot of an array over the answers themselves is a word; the slots between are never looked at.
    offsets = np.empty(2 * len(begin) + 2, np.int32)
    offsets[0], offsets[-1] = 0, len(raw)
    offsets[1:-1:2], offsets[2:-1:2] = begin, end
    slots = pa.StringArray.from_buffers(2 * len(begin) + 1, pa.py_buffer(offsets), pa.py_buffer(raw))
    words: pa.StringArray = take(slots, np.arange(1, 2 * len(begin), 2, dtype=np.int32))
    try:
        words.validate(full=True)
    except pa.ArrowInvalid:
        return None
    content = words.buffers()[2]
    if content is None:
        return words
    text = np.frombuffer(content, np.uint8)
    # A quote within would be a last value that isn't one string.
    return None if (text < ord(" ")).any() or (text == ord('"')).any() else words
