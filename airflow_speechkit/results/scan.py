"""Looking for bytes in an answer, a whole column of places at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Integers = NDArray[np.int64]
    Truths = NDArray[np.bool_]

#: How many bytes are looked at in one go: they stay in the processor's cache.
_SPAN = 1 << 18

#: No string is looked at for its end any further, in bytes: words and times are shorter, and longer ones are read
#: plainly. Damaged answers have strings of megabytes.
_LONGEST_STRING = 1024

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


def places(data: Bytes, byte: str) -> Integers:
    """Find a byte that is rare: eight bytes at a time are looked at for whether it is among them."""
    found = []
    for begin in range(0, len(data), _SPAN):
        here = np.zeros(_SPAN, np.bool_)
        span = data[begin : begin + _SPAN]
        np.equal(span, ord(byte), out=here[: len(span)])
        eights = np.flatnonzero(here.view(np.uint64) != 0)
        within = np.flatnonzero(here.view(np.uint64)[eights].view(np.bool_))
        found.append((eights[within >> 3] << 3) + (within & 7) + begin)
    return np.concatenate(found)


def equal(data: Bytes, at: NDArray[Any], constant: bytes) -> Truths:
    """Tell where the same bytes stand, and at least as many behind them as make the next multiple of eight."""
    eights = -(-len(constant) // 8)
    windows = np.ndarray((max(len(data) - 8 * eights + 1, 0),), f"V{8 * eights}", data, strides=(1,))
    same: Truths = (at >= 0) & (at < len(windows))
    if not same.all():
        same[same] = equal(data, at[same], constant)
        return same
    there = windows[at].view("<u8").reshape(-1, eights)
    wanted = np.frombuffer(constant.ljust(8 * eights, b"\0"), "<u8")
    counted = np.frombuffer((b"\xff" * len(constant)).ljust(8 * eights, b"\0"), "<u8")
    for number in range(eights):
        column = there[:, number]
        same &= (column if counted[number] == _ALL else column & counted[number]) == wanted[number]
    return same


def next_quote(data: Bytes, at: Integers) -> Integers:
    """Find the first quote from each of these places on, eight bytes at a time.

    :return: of each its place; the data's end where none is near: no word is that long
    """
    found = np.full(len(at), len(data), np.int64)
    eights = np.ndarray((max(len(data) - 7, 0),), "<u8", data, strides=(1,))
    left = np.arange(len(at))
    for _ in range(_LONGEST_STRING // 8):
        if not len(left):
            break
        inside = at < len(eights)
        if not inside.all():
            # No word of an answer begins or ends in its last eight bytes: there its brackets are closed.
            left, at = left[inside], at[inside]
        difference = eights[at] ^ np.uint64(0x2222222222222222)
        zeros = (difference - np.uint64(0x0101010101010101)) & ~difference & np.uint64(0x8080808080808080)
        lowest = zeros & (~zeros + np.uint64(1))
        place = ((lowest >> np.uint64(7)) * np.uint64(0x0001020304050607)) >> np.uint64(56)
        hit = zeros != 0
        if hit.all():
            found[left] = at + place.astype(np.int64)
            break
        found[left[hit]] = at[hit] + place[hit].astype(np.int64)
        left, at = left[~hit], at[~hit] + 8
    return found
