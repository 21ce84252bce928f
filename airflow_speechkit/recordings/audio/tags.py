"""Tags around the sound of an MP3: ID3v1, ID3v2, APEv2, Lyrics3, and zeros."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import RangedReader

_LOOK = 32 * 1024
#: More zeros than this are no padding.
_MOST_PADDING = 32 * _LOOK
_MOST_TAGS = 256
_LYRICS_ENDS = (b"LYRICSEND", b"LYRICS200")


def tag_length(data: bytes) -> int:
    """Return how many bytes a tag takes that these bytes begin with, 0 where they don't begin with one."""
    if data[:3] == b"ID3" and len(data) >= 10 and max(data[6:10]) < 0x80:
        length = data[6] << 21 | data[7] << 14 | data[8] << 7 | data[9]
        return length + (20 if data[5] & 0x10 else 10)
    if data[:8] == b"APETAGEX" and len(data) >= 32:
        (length,) = struct.unpack_from("<I", data, 12)
        return int(length) + 32
    if data[:11] == b"LYRICSBEGIN":
        ends = [end + 9 for mark in _LYRICS_ENDS if (end := data.find(mark)) > 0]
        return min(ends, default=0)
    if data[:3] == b"TAG":
        return 227 if data[:4] == b"TAG+" else 128
    return 0


def skip_tags(reader: RangedReader, place: int, size: int) -> int:
    """Return where the tags and the zeros behind them end that begin at a place; the place itself where there are none.

    :param reader: the recording
    :param size: its size in bytes
    """
    padding_from = place
    for _ in range(_MOST_TAGS):
        if place >= size:
            break
        data = reader.read(place, _LOOK)
        if length := tag_length(data):
            place = padding_from = place + length
            continue
        zeros = len(data) - len(data.lstrip(b"\0"))
        place += zeros
        if not zeros or (zeros < len(data) and not tag_length(data[zeros:])) or place - padding_from > _MOST_PADDING:
            break
    return place
