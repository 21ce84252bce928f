"""The chunks of a v2 answer as columns, read where they lie in its bytes.

Around its words a chunk is written like every other: ``{"alternatives": [{"words": […], "text": "…", "confidence": 1}],
"channelTag": "1"}``. The layout is learnt from the first one; whatever repeats it byte by byte but for the text and
the tag becomes columns, and never Python objects. One that looks different (two alternatives, an escape, one field
more) is left to the JSON parser, and those beside it are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from airflow_speechkit.results.scan import equal
from airflow_speechkit.results.texts import not_as_written, texts_at

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Integers = NDArray[np.int64]
    Truths = NDArray[np.bool_]

_LEAD = re.compile(rb'\{\s*"alternatives"\s*:\s*\[\s*\{\s*"words"\s*:\s*\[\s*\Z')
#: What is behind the words: what leads to the text, the text, what leads to the tag, the tag, the end.
_TAIL = re.compile(
    rb'(\s*\]\s*,\s*"text"\s*:\s*")([^"\\]*)'
    rb'("\s*(?:,\s*"confidence"\s*:\s*-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\s*)?\}\s*\]'
    rb'\s*,\s*"channelTag"\s*:\s*")([^"\\])("\s*\})'
)
_COMMA = re.compile(rb"\s*,\s*")
_LEARN_FROM = 8
#: No lead is longer: it is looked for backwards from the words.
_LONGEST_LEAD = 256


@dataclass(frozen=True)
class Chunks:
    """Some chunks that follow one another, each with one alternative.

    :param tag: of each its channel's tag, which is one byte
    :param text: of each its text
    :param first: of each its first word, among those that were cut out of the answer
    :param count: of each how many words it has
    """

    tag: NDArray[np.uint8]
    text: pa.StringArray
    first: Integers
    count: Integers

    def __len__(self) -> int:
        return len(self.tag)


@dataclass(frozen=True)
class Layout:
    """One chunk, taken apart: what is the same in every one.

    :param lead: the bytes from its brace to its first word
    :param to_text: the bytes from the last word to the text
    :param to_tag: the bytes from the text to the channel's tag
    :param behind: the bytes from the tag to the closing brace
    :param comma: what stands between two chunks
    """

    lead: bytes
    to_text: bytes
    to_tag: bytes
    behind: bytes
    comma: bytes

    @classmethod
    def learn(cls, raw: bytes, begin: int, close: int) -> Layout | None:
        """Learn it from a chunk that another one follows; None where it is written in another way.

        :param begin: where its words begin
        :param close: where they end
        """
        lead = _LEAD.search(raw, max(begin - _LONGEST_LEAD, 0), begin)
        tail = _TAIL.match(raw, close)
        if lead is None or tail is None:
            return None
        comma = _COMMA.match(raw, tail.end())
        if comma is None or not raw.startswith(lead[0], comma.end()):
            return None
        return cls(lead[0], tail[1], tail[3], tail[5], comma[0])


@dataclass(frozen=True)
class Found:
    """Chunks, in the order in which their words stand in the answers.

    :param open: the place of each one's opening brace
    :param close: the place behind its closing brace
    :param right: whether it is written like the first
    :param joined: whether the next one follows it
    :param tag: its channel's tag
    :param text: its text
    """

    open: Integers
    close: Integers
    right: Truths
    joined: Truths
    tag: NDArray[np.uint8]
    text: pa.StringArray


def find(raw: bytes, data: Bytes, begins: Integers, closes: Integers, limits: Integers) -> Found | None:
    """Find the chunks around regular arrays of words.

    :param raw: the answers, one behind the other
    :param data: the same
    :param begins: where the arrays' words begin
    :param closes: where they end
    :param limits: of each answer where it ends
    :return: None where none of the first is written as a chunk usually is, or a text is no text
    """
    first = zip(begins[:_LEARN_FROM].tolist(), closes[:_LEARN_FROM].tolist(), strict=True)
    layout = next(filter(None, (Layout.learn(raw, *array) for array in first)), None)
    if layout is None:
        return None
    limits = limits[np.searchsorted(limits, begins, side="right")]
    right = equal(data, begins - len(layout.lead), layout.lead) & equal(data, closes, layout.to_text)
    text = closes + len(layout.to_text)
    # Seen from the next chunk, whose place is known; a tag is one byte.
    joint = layout.behind + layout.comma + layout.lead
    tag = np.append(begins[1:] - len(joint) - 1, 0)
    joined = np.append(limits[1:] == limits[:-1], False) & (tag - len(layout.to_tag) >= text)
    joined &= equal(data, tag + 1, joint) & equal(data, tag - len(layout.to_tag), layout.to_tag)
    for number in np.flatnonzero(right & ~joined).tolist():
        # The last of an answer, or one before a chunk that is written differently.
        end = raw.find(b'"', int(text[number]))
        tag[number] = end + len(layout.to_tag)
        right[number] = (
            end >= 0 and raw.startswith(layout.to_tag, end) and raw.startswith(layout.behind, tag[number] + 1)
        )
    close = tag + 1 + len(layout.behind)
    right &= close <= limits
    texts = texts_at(raw, np.where(right, text, 0), np.where(right, tag - len(layout.to_tag), 0))
    if texts is None:
        return None
    tags = data[np.where(right, tag, 0)]
    right &= ~not_as_written(texts) & (tags > ord(" ")) & (tags < 0x7F) & (tags != ord('"')) & (tags != ord("\\"))
    joined[:-1] &= right[:-1] & right[1:]
    return Found(begins - len(layout.lead), close, right, joined & right, tags, texts)
