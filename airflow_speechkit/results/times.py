"""Times of the service as whole milliseconds, rounded half to even from the exact decimal.

v2 writes a ``google.protobuf.Duration``: ``"3s"``, ``"10.179s"``, ``"0.879999999s"``; v3 an int64 as a string of
milliseconds. Each is read twice here: one value at a time, whatever its form, and whole columns of those bytes that
the service really sends.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_speechkit.parsing import MalformedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Truths = NDArray[np.bool_]

_DURATION = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,12})?)s", re.ASCII)

#: A Duration's range, in seconds: about 10,000 years.
_LONGEST_S = 315_576_000_000

_ZEROS = np.uint64(0x3030303030303030)


def duration_ms(value: Any) -> int | None:
    """Return a v2 time in milliseconds; None for one that is not given.

    :param value: ``"10.179s"``, or ``{"seconds": …, "nanos": …}`` from clients that asked over gRPC
    :raises MalformedError: it is neither
    """
    if value is None:
        return None
    if isinstance(value, dict):
        seconds, nanos = whole(value.get("seconds")), whole(value.get("nanos"))
        exact = Decimal(seconds) + Decimal(nanos).scaleb(-9)
    else:
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise MalformedError("a time is not a duration")
        exact = Decimal(match[1])
    if abs(exact) > _LONGEST_S:
        raise MalformedError("a time is out of range")
    return int(exact.scaleb(3).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def whole(value: Any, *, bits: int = 64) -> int:
    """Return an integer of proto3's JSON: a string or a number; one that is left out is 0.

    :raises MalformedError: it is no whole number, or does not fit
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise MalformedError("a whole number is something else")
    try:
        number = int(value)
    except ValueError:
        # Its own text would repeat what stands there.
        raise MalformedError("a whole number is something else") from None
    if not -(2 ** (bits - 1)) < number < 2 ** (bits - 1):
        raise MalformedError("a whole number is out of range")
    return number


def duration_column(data: NDArray[np.uint8], begin: Integers, end: Integers) -> tuple[Integers, Truths]:
    """Read v2's durations where they lie.

    :param data: the answer's bytes
    :param begin: for each value the place of its first byte
    :param end: for each value the place of its ``s``
    :return: milliseconds, and which of them could be read
    """
    if int(end.min(initial=10)) < 10:
        return _decimals(data, begin, end)
    # Nearly all have the form d.ddds, with up to five digits before the point; some have no point.
    values, readable = _thousandths(data, end, end - begin)
    if not readable.all():
        others = np.flatnonzero(~readable)
        values[others], read = whole_column(data, begin[others], end[others])
        values[others] *= 1000
        readable[others] = read & (end[others] - begin[others] <= 11)
        others = others[~readable[others]]
        values[others], readable[others] = _decimals(data, begin[others], end[others])
    return values, readable


def whole_column(data: NDArray[np.uint8], begin: Integers, end: Integers) -> tuple[Integers, Truths]:
    """Read v3's milliseconds where they lie.

    The arguments and the result are those of `duration_column`, but that `end` is behind the last digit.
    """
    length = end - begin
    short = (length >= 1) & (length <= 8) & (end >= 8)
    if short.all():
        return _eight_digits(_eights(data, end - 8), 8 - length)
    values, readable = np.zeros(len(begin), np.int64), (length >= 1) & (length <= 18)
    values[short], readable[short] = _eight_digits(_eights(data, end[short] - 8), 8 - length[short])
    others = np.flatnonzero(readable & ~short)
    for place in range(int(length[others].max(initial=0))):
        here = place < length[others]
        digit = data[np.minimum(begin[others] + place, len(data) - 1)] - np.uint8(ord("0"))
        readable[others] &= ~here | (digit <= 9)
        values[others] = np.where(here, values[others] * 10 + digit, values[others])
    return values, readable


def _thousandths(data: NDArray[np.uint8], end: Integers, length: Integers) -> tuple[Integers, Truths]:
    """Read ``d.ddd`` … ``ddddd.ddd``."""
    eight = _eights(data, end - 8)
    without_point = (eight & np.uint64(0xFFFFFF0000000000)) | ((eight & np.uint64(0xFFFFFFFF)) << np.uint64(8))
    values, readable = _eight_digits(without_point, np.maximum(9 - length, 1))
    readable &= (eight & np.uint64(0xFF00000000)) == np.uint64(ord(".") << 32)
    readable &= (length >= 5) & (length <= 9)
    long = np.flatnonzero(length == 9)
    digit = data[end[long] - 9] - np.uint8(ord("0"))
    values[long] += digit * np.int64(10_000_000)
    readable[long] &= digit <= 9
    return values, readable


def _eights(data: NDArray[np.uint8], at: Integers) -> NDArray[np.uint64]:
    """Load eight bytes from each of these places on; the first is the lowest of the number."""
    return np.ndarray((max(len(data) - 7, 0),), "<u8", data, strides=(1,))[at]


def _eight_digits(digits: NDArray[np.uint64], foreign: Integers) -> tuple[Integers, Truths]:
    """Read eight decimal digits at once.

    :param digits: eight bytes each, see `_eights`
    :param foreign: how many of the first bytes are something else, and count as zeros
    """
    bits = (foreign << 3).astype(np.uint64)
    digits = ((digits ^ _ZEROS) >> bits) << bits
    readable = ((digits | (digits + np.uint64(0x0606060606060606))) & np.uint64(0xF0F0F0F0F0F0F0F0)) == 0
    # Neighbours join: digits to pairs, pairs to fours, fours to the number.
    digits = (digits * np.uint64(2561) >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    digits = (digits * np.uint64(6553601) >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    return (digits * np.uint64(42949672960001) >> np.uint64(32)).astype(np.int64), readable


def _decimals(data: NDArray[np.uint8], begin: Integers, end: Integers) -> tuple[Integers, Truths]:
    """Read any duration without a sign and of up to 18 digits."""
    length = end - begin
    readable = (length >= 1) & (length <= 19)
    values = np.zeros(len(begin), np.int64)
    decimals = np.full(len(begin), -1, np.int64)
    digits = np.zeros(len(begin), np.int64)
    for place in range(int(np.minimum(length, 19).max(initial=0))):
        here = place < length
        byte = data[np.minimum(begin + place, len(data) - 1)]
        digit = byte - np.uint8(ord("0"))
        is_digit = here & (digit <= 9)
        is_point = here & (byte == ord(".")) & (decimals < 0) & (digits > 0)
        readable &= is_digit | is_point | ~here
        values = np.where(is_digit, values * 10 + digit, values)
        decimals = np.where(is_point, 0, np.where(is_digit & (decimals >= 0), decimals + 1, decimals))
        digits += is_digit
    readable &= (decimals != 0) & (digits <= 18) & (digits - np.maximum(decimals, 0) <= 11) & (decimals <= 12)
    decimals = np.where(readable, np.maximum(decimals, 0), 0)
    values = np.where(readable, values, 0)
    scaled = values * 10 ** np.maximum(3 - decimals, 0)
    unit = 10 ** np.maximum(decimals - 3, 0)
    quotient, rest = np.divmod(scaled, unit)
    up = (2 * rest > unit) | ((2 * rest == unit) & (unit > 1) & (quotient % 2 == 1))
    return quotient + up, readable
