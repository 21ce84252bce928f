"""An answer without its words: what repeats itself becomes columns, and the rest goes through Python's JSON parser.

So the whole document is checked: what was cut out is a list of objects like the first, and stood where the parser
finds a list's content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from airflow_speechkit.parsing import MalformedError, decode, parse_each
from airflow_speechkit.results import chunks, words
from airflow_speechkit.results.chunks import Chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from airflow_speechkit.results.chunks import Found
    from airflow_speechkit.results.words import Arrays, Layout, Wording

    Integers = NDArray[np.int64]
    Truths = NDArray[np.bool_]

#: Arrow's offsets into a text are 32 bits wide.
_LARGEST = 2**31

#: JSON has no such thing, and Python's parser hands it to a function of ours. An answer that has one of its own is
#: refused: there is then one more than was cut out.
_MARK = b"-Infinity"

_NO_WORDS = pa.array([], pa.string())
_NO_TIMES = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Cut:
    """An answer without its regular arrays of words.

    :param rest: the JSON that is left, with a mark for each array of words, or run of chunks, that was cut out
    :param blocks: what each mark stands for, in order
    :param words: the words' texts
    :param start_ms: their starts
    :param end_ms: their ends
    """

    rest: bytes
    blocks: list[range | Chunks]
    words: pa.StringArray
    start_ms: Integers
    end_ms: Integers

    @classmethod
    def nothing(cls, raw: bytes) -> Cut:
        """Leave everything to the JSON parser."""
        return cls(raw, [], _NO_WORDS, _NO_TIMES, _NO_TIMES)

    def without_rest(self) -> Cut:
        """Keep nothing but the columns."""
        return Cut(b"", [], self.words, self.start_ms, self.end_ms)


def cut_many(raws: Sequence[bytes], wording: Wording) -> list[Cut]:
    """Cut the regular arrays of words out of some answers at once: for small ones that is quicker.

    :param raws: the answers, any bytes
    :param wording: how their API writes a word
    """
    cuts: dict[int, Cut] = {}
    alike: dict[Layout, list[int]] = {}
    layout: Layout | None = None
    for number, raw in enumerate(raws):
        if layout is None or not layout.begins(raw):
            layout = words.Layout.learn(raw, wording)
        if layout is None or len(raw) >= _LARGEST:
            cuts[number] = Cut.nothing(raw)
        else:
            alike.setdefault(layout, []).append(number)
    for layout, numbers in alike.items():
        for group in _groups(raws, numbers):
            cuts.update(zip(group, _cut([raws[number] for number in group], layout, wording), strict=True))
    return [cuts[number] for number in range(len(raws))]


def parse(cut: Cut) -> list[Any]:
    """Parse what is left of an answer, JSON values one behind the other, giving back what was cut out where it stood.

    :raises MalformedError: it isn't JSON
    """
    blocks = iter(cut.blocks)

    def constant(name: str) -> range | Chunks:
        block = next(blocks, None) if name == _MARK.decode() else None
        if block is None:
            raise MalformedError(f"{name} is not JSON")
        return block

    values = [value for value, _ in parse_each(decode(cut.rest), constant=constant)]
    if next(blocks, None) is not None:
        raise MalformedError("words stand where none can be")
    return values


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


def _cut(raws: list[bytes], layout: Layout, wording: Wording) -> list[Cut]:
    """Cut what is written in this layout out of some answers."""
    raw = raws[0] if len(raws) == 1 else b"".join(raws)
    data = np.frombuffer(raw, np.uint8)
    arrays = words.find(raw, data, layout, wording)
    if arrays is None:
        return [Cut.nothing(one) for one in raws]
    limits = np.cumsum([len(one) for one in raws])
    found = chunks.find(raw, data, arrays.begin, arrays.close, limits) if wording.in_chunks else None
    return list(_divided(raw, limits, _spans(arrays, found), arrays))


@dataclass(frozen=True)
class _Spans:
    """What is cut out.

    :param begin: the place of each one's first byte
    :param close: the place behind its last
    :param first: its first array of words
    :param last: its last
    :param is_run: whether it is a run of chunks, or else one array of words
    :param word: of each array its first word
    :param count: of each array how many words it has
    :param chunks: the chunks around the arrays, where any are cut out
    """

    begin: Integers
    close: Integers
    first: Integers
    last: Integers
    is_run: Truths
    word: Integers
    count: Integers
    chunks: Found | None = None

    def block(self, number: int, top: int) -> range | Chunks:
        """Return what the mark of a span stands for.

        :param top: the first word of its answer
        """
        first, last = int(self.first[number]), int(self.last[number])
        if self.chunks is None or not self.is_run[number]:
            begin = int(self.word[first]) - top
            return range(begin, begin + int(self.count[first]))
        run = slice(first, last + 1)
        return Chunks(self.chunks.tag[run], self.chunks.text[run], self.word[run] - top, self.count[run])


def _spans(arrays: Arrays, found: Found | None) -> _Spans:
    word = np.cumsum(arrays.count) - arrays.count
    each = np.arange(len(word))
    if found is None:
        none = np.zeros(len(word), np.bool_)
        return _Spans(arrays.begin, arrays.close, each, each, none, word, arrays.count)
    first = each[~found.right | ~np.append(False, found.joined[:-1])]
    last = each[~found.joined]
    is_run = found.right[first]
    return _Spans(
        np.where(is_run, found.open[first], arrays.begin[first]),
        np.where(is_run, found.close[last], arrays.close[last]),
        first,
        last,
        is_run,
        word,
        arrays.count,
        found,
    )


def _divided(raw: bytes, limits: Integers, spans: _Spans, arrays: Arrays) -> Iterator[Cut]:
    """Give each answer its own of what was found in all of them together."""
    view = memoryview(raw)
    ends = np.searchsorted(spans.begin, limits).tolist()
    word = np.append(spans.word, len(arrays.words))
    first = np.append(spans.first, len(spans.word))
    begins, closes = spans.begin.tolist(), spans.close.tolist()
    done = span = 0
    for limit, end in zip(limits.tolist(), ends, strict=True):
        rest = _MARK.join(
            [
                view[begin:close]
                for begin, close in zip([done, *closes[span:end]], [*begins[span:end], limit], strict=True)
            ]
        )
        top, bottom = int(word[first[span]]), int(word[first[end]])
        blocks = [spans.block(number, top) for number in range(span, end)]
        mine = slice(top, bottom)
        yield Cut(rest, blocks, arrays.words[mine], arrays.start_ms[mine], arrays.end_ms[mine])
        done, span = limit, end
