"""The parts of an MP3 (ISO 11172-3, 13818-3): frames, tags around them, and the header that counts the frames."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import RangedReader

#: In kbit/s, by MPEG-1 or not and by layer. In layer I hardly anything was ever recorded.
_BITRATES = {
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)
#: By the two bits of the version: 2.5, reserved, 2, 1.
_RATE_DIVISORS = (4, 0, 2, 1)
_SIDE_INFO_BYTES = {(True, 1): 17, (True, 2): 32, (False, 1): 9, (False, 2): 17}

#: No frame of layer III is longer.
LONGEST_FRAME = 1441

#: How much is read at once in search of tags and frames.
LOOK_BYTES = 32 * 1024
#: More zeros than this are no padding.
_MOST_PADDING = 32 * LOOK_BYTES
_MOST_TAGS = 256
_LYRICS_ENDS = (b"LYRICSEND", b"LYRICS200")

_ENCODERS = (b"LAME", b"Lavf", b"Lavc", b"L3.9")
#: FFmpeg's checksum is always over so many bytes, with zeros in its own place and after the frame.
_SUMMED_BYTES = 190


@dataclass(frozen=True)
class Stream:
    """What all frames of one stream have in common: only the bitrate varies within it.

    :param mpeg1: whether it is MPEG-1, with 1152 samples a frame; else 2 or 2.5
    :param layer: II or III, as a number
    :param rate: samples a second
    :param channels: 1 or 2
    """

    mpeg1: bool
    layer: int
    rate: int
    channels: int

    @property
    def frame_samples(self) -> int:
        """The samples of each channel in a frame of layer III."""
        return 1152 if self.mpeg1 else 576


@dataclass(frozen=True)
class Frame:
    """What a frame's first four bytes say.

    :param length: in bytes, the four included
    """

    stream: Stream
    length: int


@lru_cache(maxsize=4096)
def read_frame(header: bytes) -> Frame | None:
    """Read a frame's first four bytes, None where they aren't that, or leave the bitrate open (free format)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    divisor, layer = _RATE_DIVISORS[header[1] >> 3 & 3], 4 - (header[1] >> 1 & 3)
    bitrate_index, rate_index = header[2] >> 4, header[2] >> 2 & 3
    if not divisor or layer not in (2, 3) or bitrate_index in (0, 15) or rate_index == 3:
        return None
    mpeg1, rate = divisor == 1, _RATES[rate_index] // divisor
    bitrate = _BITRATES[mpeg1, layer][bitrate_index] * 1000
    length = (72 if layer == 3 and not mpeg1 else 144) * bitrate // rate + (header[2] >> 1 & 1)
    return Frame(Stream(mpeg1, layer, rate, 1 if header[3] >> 6 == 0b11 else 2), length)


@dataclass(frozen=True)
class Row:
    """Frames of one stream that follow one another.

    :param place: where the first begins
    :param first: the first frame
    :param count: how many begin in the piece that was searched; the last may be cut off
    :param end: where the last one ends
    """

    place: int
    first: Frame
    count: int
    end: int


def row_at(data: bytes, place: int, most: int = 1_000_000) -> Row | None:
    """Return the row of frames that begins at a place, None where there isn't one.

    :param most: how many frames are enough
    """
    if (first := read_frame(data[place : place + 4])) is None:
        return None
    end, count = place + first.length, 1
    while count < most and (frame := read_frame(data[end : end + 4])) and frame.stream == first.stream:
        count += 1
        end += frame.length
    return Row(place, first, count, end)


def find_row(data: bytes, place: int, enough: int, *, last: bool) -> Row | None:
    """Return the first row of at least so many frames from a place on.

    :param last: whether the piece is the recording's end: a row of two frames that reaches it is enough then
    """
    while 0 <= (place := data.find(b"\xff", place)) < len(data) - 3:
        row = row_at(data, place, enough)
        if row and (row.count >= enough or (last and row.count > 1 and row.end >= len(data))):
            return row
        place += 1
    return None


def tag_length(data: bytes) -> int:
    """Return the length of the tag (ID3, APE, Lyrics3) that these bytes begin with, 0 where they don't."""
    if data[:3] == b"ID3" and len(data) >= 10 and max(data[6:10]) < 0x80:
        length = data[6] << 21 | data[7] << 14 | data[8] << 7 | data[9]
        return length + (20 if data[5] & 0x10 else 10)
    if data[:8] == b"APETAGEX" and len(data) >= 32:
        return int.from_bytes(data[12:16], "little") + 32
    if data[:11] == b"LYRICSBEGIN":
        return min((end + 9 for mark in _LYRICS_ENDS if (end := data.find(mark)) > 0), default=0)
    if data[:3] == b"TAG":
        return 227 if data[:4] == b"TAG+" else 128
    return 0


def skip_tags(reader: RangedReader, place: int, size: int) -> int:
    """Return where the tags and the zeros after them end that begin at a place; the place itself where there are none.

    :param reader: the recording
    :param size: its size in bytes
    """
    padding_from = place
    for _ in range(_MOST_TAGS):
        if place >= size:
            break
        data = reader.read(place, LOOK_BYTES)
        if length := tag_length(data):
            place = padding_from = place + length
            continue
        zeros = len(data) - len(data.lstrip(b"\0"))
        place += zeros
        if not zeros or (zeros < len(data) and not tag_length(data[zeros:])) or place - padding_from > _MOST_PADDING:
            break
    return place


@dataclass(frozen=True)
class Declared:
    """What a header in the first frame (Xing, Info of LAME, VBRI) declares.

    :param frames: how many frames follow it; 0 where it doesn't say
    :param length: how many bytes they have, its own included; 0 where it doesn't say
    :param trimmed: samples that a decoder drops: the encoder's delay and padding
    :param checked: whether the header's checksum is right; None where it has none
    """

    frames: int = 0
    length: int = 0
    trimmed: int = 0
    checked: bool | None = None


def read_declared(frame: bytes, about: Stream) -> Declared | None:
    """Read the header in a first frame, None where that is a frame of sound.

    :param frame: the whole frame
    :param about: the stream that it belongs to
    """
    if frame[36:40] == b"VBRI":
        # Its counts have no checksum, and the encoder is out of use: the frames are counted.
        return Declared()
    place = 4 + _SIDE_INFO_BYTES[about.mpeg1, about.channels]
    if frame[place : place + 4] not in (b"Xing", b"Info"):
        return None
    flags, place = _number(frame, place + 4), place + 8
    frames = length = 0
    if flags & 1:
        frames, place = _number(frame, place), place + 4
    if flags & 2:
        length, place = _number(frame, place), place + 4
    place += (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    if frame[place : place + 4] not in _ENCODERS or len(frame) < place + 36:
        return Declared(frames, length)
    # Twelve bits each, 21 bytes into LAME's extension; the checksum of all before it is 34 bytes in.
    delays = int.from_bytes(frame[place + 21 : place + 24], "big")
    return Declared(frames, length, (delays >> 12) + (delays & 0xFFF), _checked(frame, place + 34))


def _number(frame: bytes, place: int) -> int:
    return int(struct.unpack_from(">I", frame, place)[0]) if len(frame) >= place + 4 else 0


def _checked(frame: bytes, place: int) -> bool | None:
    stored = int.from_bytes(frame[place : place + 2], "big")
    if not stored:
        return None
    # LAME sums up what is before the checksum, FFmpeg always as much.
    without = frame[:place] + b"\0\0" + frame[place + 2 :]
    return stored in (_checksum(frame[:place]), _checksum(without.ljust(_SUMMED_BYTES, b"\0")[:_SUMMED_BYTES]))


def _checksum(data: bytes) -> int:
    """Return the CRC-16 of LAME's header: polynomial 0x8005, reflected, from zero."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
