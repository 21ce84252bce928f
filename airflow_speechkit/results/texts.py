"""Texts as columns, taken out of an answer's bytes or made of Python's strings."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_speechkit.parsing import MalformedError, writable

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The pool that Arrow takes by default keeps what was given back, which for one large answer doubles the peak.
MEMORY = pa.system_memory_pool()


def take(values: pa.Array, places: NDArray[Any]) -> pa.Array:
    """Return the values at some places."""
    return pc.take(values, pa.array(places), boundscheck=False, memory_pool=MEMORY)


def texts_at(raw: bytes, begin: NDArray[Any], end: NDArray[Any]) -> pa.StringArray | None:
    """Take texts out of bytes, fewer than 2 GB; None where one of them isn't UTF-8.

    :param begin: for each the place of its first byte
    :param end: for each the place behind its last
    """
    # Every second slot of an array over the bytes themselves is a text; the slots between are never looked at.
    offsets = np.empty(2 * len(begin) + 2, np.int32)
    offsets[0], offsets[-1] = 0, len(raw)
    offsets[1:-1:2], offsets[2:-1:2] = begin, end
    slots = pa.StringArray.from_buffers(2 * len(begin) + 1, pa.py_buffer(offsets), pa.py_buffer(raw))
    texts: pa.StringArray = take(slots, np.arange(1, 2 * len(begin), 2, dtype=np.int32))
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return None
    return texts


def not_as_written(texts: pa.StringArray) -> NDArray[np.bool_]:
    """Tell which of some texts aren't what they stand for: one with a quote, a backslash or a control character."""
    _, ends, content = texts.buffers()
    found = np.zeros(len(texts), np.bool_)
    if content is None:
        return found
    data = np.frombuffer(content, np.uint8)
    wrong = (data < ord(" ")) | (data == ord('"')) | (data == ord("\\"))
    if wrong.any():
        offsets = np.frombuffer(ends, np.int32)[: len(texts) + 1]
        found[np.searchsorted(offsets, np.flatnonzero(wrong), side="right") - 1] = True
    return found


def text_array(values: list[Any]) -> pa.StringArray:
    """Return strings, some of them None, as a column."""
    try:
        return pa.array(values, pa.string(), memory_pool=MEMORY)
    except UnicodeEncodeError:
        # Half of a surrogate pair is JSON, but no character.
        return pa.array([None if value is None else writable(value) for value in values], pa.string())


def as_json(value: Any) -> str:
    """Write parsed JSON as one text that every database takes for JSON.

    What JSON or PostgreSQL can't hold is replaced: the character U+0000 by U+FFFD, a number that is too large by null.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = ""
    if not text or "\\u0000" in text:
        text = json.dumps(_storable(value), ensure_ascii=False, separators=(",", ":"))
    return writable(text)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {_storable(name): _storable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_storable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(value: Any) -> str:
    """Return a JSON string; one that is left out is empty, as proto3 has it.

    :raises MalformedError: it is no string
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedError("a text is something else")
    return value
