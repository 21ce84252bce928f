"""Values of an answer: times, whole numbers, texts and JSON, one at a time or a column at once.

API v2 writes times as ``google.protobuf.Duration`` (``"3s"``, ``"10.179s"``, ``"0.879999999s"``), v3 as an int64 in a
string of milliseconds. They become whole milliseconds, rounded half to even from the exact decimal.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_speechkit.parsing import MalformedError, writable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

#: Marks a missing time in a column of milliseconds.
NO_TIME = int(np.iinfo(np.int64).min)

#: Arrow's default pool keeps freed memory, which doubles the peak for one large answer.
MEMORY = pa.system_memory_pool()

_DURATION = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,12})?)s", re.ASCII)

#: A Duration of so many characters is a float that is off by less than a hundredth of a millisecond.
_EXACT_LENGTH = 16

#: The largest Duration, in seconds: about 10,000 years.
_LONGEST_S = 315_576_000_000

_DIGITS = b"0123456789"


def duration_ms(value: str) -> int:
    """Return a Duration in milliseconds.

    :param value: such as ``"10.179s"``
    :raises MalformedError: it is not a Duration, or out of range
    """
    match = _DURATION.fullmatch(value)
    if match is None:
        raise MalformedError("a time is not a duration")
    seconds = Decimal(match[1])
    if abs(seconds) > _LONGEST_S:
        raise MalformedError("a time is out of range")
    return int(seconds.scaleb(3).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def whole(value: Any) -> int:
    """Return an int64 of proto3's JSON: a string or a number. A missing one is 0.

    :raises MalformedError: it is not a whole number, or has more than 64 bits
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise MalformedError("a whole number is something else")
    try:
        number = int(value)
    except ValueError:
        # The text of `error` repeats the value.
        raise MalformedError("a whole number is something else") from None
    if not -(2**63) < number < 2**63:
        raise MalformedError("a whole number is out of range")
    return number


def durations_ms(column: pa.StringArray) -> Integers:
    """Return Durations in milliseconds, `NO_TIME` for null.

    :raises MalformedError: see `duration_ms`
    """
    if column.null_count or not len(column):
        return _each(column, duration_ms, NO_TIME)
    offsets, data = _content(column)
    octets, lengths, last = np.frombuffer(data, np.uint8), np.diff(offsets), offsets[1:] - 1
    # Digits and points, with a digit at both ends, then an "s". The cast refuses a second point.
    if (
        not data.translate(None, _DIGITS + b".s")
        and lengths.min() > 1
        and lengths.max() <= _EXACT_LENGTH
        and np.count_nonzero(octets == ord("s")) == len(column)
        and not (octets[last] != ord("s")).any()
        and not (octets[last - 1] == ord(".")).any()
        and not (octets[offsets[:-1]] == ord(".")).any()
    ):
        # Each "s" becomes a leading zero of the next number.
        zeros = octets.copy()
        zeros[last] = ord("0")
        texts = [pa.py_buffer(np.append(0, last).astype(np.int32)), pa.py_buffer(zeros)]
        with suppress(pa.ArrowInvalid):
            seconds = pa.StringArray.from_buffers(len(column), *texts).cast(pa.float64()).to_numpy()
            milliseconds: Integers = np.rint(seconds * 1000).astype(np.int64)
            # A float doesn't tell how to round what is close to a half.
            if seconds.max() <= _LONGEST_S and np.abs(seconds * 1000 - milliseconds).max() < 0.49:
                return milliseconds
    return _each(column, duration_ms, NO_TIME)


def wholes(column: pa.StringArray) -> Integers:
    """Return the whole numbers of a column, 0 for null.

    :raises MalformedError: see `whole`
    """
    if column.null_count:
        column = pc.fill_null(column, "0")
    offsets, data = _content(column)
    lengths = np.diff(offsets)
    if not data.translate(None, _DIGITS) and lengths.min(initial=1) > 0 and lengths.max(initial=1) < 19:
        numbers: Integers = column.cast(pa.int64()).to_numpy()
        return numbers
    return _each(column, whole, 0)


def text(value: Any) -> str:
    """Return a string of proto3's JSON. A missing one is empty; half a surrogate pair becomes U+FFFD.

    :raises MalformedError: it is not a string
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedError("a text is something else")
    return writable(value)


def as_json(value: Any) -> str:
    """Write parsed JSON as text that every database accepts as JSON.

    U+0000, which PostgreSQL refuses, becomes U+FFFD; a number outside of the range of a double becomes null.
    """
    return writable(json.dumps(_storable(value), ensure_ascii=False, separators=(",", ":")))


def take(values: pa.Array, places: NDArray[Any]) -> pa.Array:
    """Return the values at some places, which have to exist."""
    return pc.take(values, pa.array(places), boundscheck=False, memory_pool=MEMORY)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {_storable(name): _storable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_storable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _content(column: pa.StringArray) -> tuple[NDArray[np.int32], bytes]:
    """Return the texts of a column as one, and where in it each begins; the last place is its end."""
    _, ends, content = column.buffers()
    if content is None:
        return np.zeros(len(column) + 1, np.int32), b""
    offsets = np.frombuffer(ends, np.int32)[column.offset : column.offset + len(column) + 1]
    return offsets - offsets[0], content[int(offsets[0]) : int(offsets[-1])].to_pybytes()


def _each(column: pa.StringArray, read: Callable[[str], int], missing: int) -> Integers:
    """Read each distinct value of a column."""
    encoded = column.dictionary_encode("encode")
    values = [missing if value is None else read(value) for value in encoded.dictionary.to_pylist()]
    read_values: Integers = np.array([*values, missing], np.int64)[encoded.indices.to_numpy()]
    return read_values
