"""MP3 (ISO 11172-3, 13818-3): its length is what the first frame declares where that is proven, else counted."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError, TruncatedError
from airflow_speechkit.recordings.audio.facts import (
    MAX_CHANNEL_MS,
    SMALL_BYTES,
    TAKE_WHAT_IS_THERE,
    UPLOAD_AGAIN,
    WRITE_AGAIN,
    AudioFacts,
    Scan,
    samples_to_ms,
)
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import Read

#: Of layer III, in kbit/s: of MPEG-1, and of MPEG-2 and 2.5.
_BITRATES = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)
#: By the two bits of the version: 2.5, reserved, 2, 1.
_RATE_DIVISORS = (4, 0, 2, 1)
_LONGEST_FRAME = 1441

#: How much is read at once in search of tags and frames.
_LOOK_BYTES = 32 * 1024
#: More zeros than this are no padding.
_MOST_PADDING = 32 * _LOOK_BYTES
_MOST_TAGS = 256

#: So many frames in a row make an MP3, a fifth of a second: two or three could be a coincidence in raw samples.
_ENOUGH_FRAMES = 8
#: After a tag, and after damage within an MP3, fewer do.
_ENOUGH_FRAMES_INSIDE = 3
#: 8 kbit/s is the lowest bitrate.
_LEAST_BYTES_PER_S = 1000
#: FFmpeg's checksum is always over so many bytes, with zeros in its own place and after the frame.
_SUMMED_BYTES = 190


@dataclass(frozen=True)
class _Stream:
    """What all frames of one stream have in common: only the bitrate varies within it.

    :param samples: of each channel, in a frame
    :param rate: samples a second
    """

    samples: int
    rate: int
    channels: int


@dataclass(frozen=True)
class _Row:
    """Frames of one stream that follow one another.

    :param place: where the first begins
    :param first_bytes: how long the first is
    :param count: how many begin in the piece that was searched; the last may be cut off
    :param end: where the last one ends
    """

    stream: _Stream
    place: int
    first_bytes: int
    count: int
    end: int


def read_mp3(read: Read, size: int, *, exact: bool = False) -> AudioFacts | None:
    """Read the facts of an MP3, None where it isn't one.

    :param read: reads the recording
    :param size: the whole file's size in bytes
    :param exact: whether to read all of it if its length isn't proven otherwise
    :raises RecordingError: it is cut off, or has no sound
    """
    tags_end = skip_tags(read, 0, size) if tag_length(read(0, _LOOK_BYTES)) else 0
    if tags_end >= size:
        raise RecordingError("The MP3 is truncated: nothing comes after its tags", hint=UPLOAD_AGAIN)
    data = read(tags_end, _LOOK_BYTES)
    row = _find_row(data, 0, _ENOUGH_FRAMES_INSIDE if tags_end else _ENOUGH_FRAMES)
    if row is None and tags_end + len(data) >= size:
        row = _only_row(data)
    if row is None:
        return None
    start = tags_end + row.place
    declared = _read_declared(data[row.place : row.place + row.first_bytes], row.stream)
    if declared is not None:
        if _is_proven(read, declared, start, row.first_bytes, size):
            return _facts(row.stream, size, duration_ms=samples_to_ms(declared.samples, row.stream.rate))
        start += row.first_bytes
    sound = size - start
    if exact or sound <= SMALL_BYTES or sound * 1000 > MAX_CHANNEL_MS * _LEAST_BYTES_PER_S // 2:
        return _count(read, row.stream, start, size)
    return _facts(row.stream, size, duration_ms=None, longest_ms=sound * 1000 // _LEAST_BYTES_PER_S)


def tag_length(data: bytes) -> int:
    """Return the length of the tag (ID3, APE) that these bytes begin with, 0 where they don't."""
    if data[:3] == b"ID3" and len(data) >= 10 and max(data[6:10]) < 0x80:
        length = data[6] << 21 | data[7] << 14 | data[8] << 7 | data[9]
        return length + (20 if data[5] & 0x10 else 10)
    if data[:8] == b"APETAGEX" and len(data) >= 32:
        return int.from_bytes(data[12:16], "little") + 32
    return 128 if data[:3] == b"TAG" else 0


@lru_cache(maxsize=4096)
def read_frame(header: bytes) -> tuple[_Stream, int] | None:
    """Read a frame's first four bytes: its stream and its length in bytes; None where they aren't that.

    Free format, which leaves the bitrate open, is not read.
    """
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    divisor, bitrate_index, rate_index = _RATE_DIVISORS[header[1] >> 3 & 3], header[2] >> 4, header[2] >> 2 & 3
    if not divisor or bitrate_index in (0, 15) or rate_index == 3:
        return None
    rate, samples = _RATES[rate_index] // divisor, 1152 if divisor == 1 else 576
    length = samples * 125 * _BITRATES[divisor == 1][bitrate_index] // rate + (header[2] >> 1 & 1)
    return _Stream(samples, rate, 1 if header[3] >> 6 == 0b11 else 2), length


def _row_at(data: bytes, place: int) -> _Row | None:
    """Return the row of frames that begins at a place, None where there isn't one."""
    if (first := read_frame(data[place : place + 4])) is None:
        return None
    stream, first_bytes = first
    end, count = place + first_bytes, 1
    while (frame := read_frame(data[end : end + 4])) and frame[0] == stream:
        count += 1
        end += frame[1]
    return _Row(stream, place, first_bytes, count, end)


def _find_row(data: bytes, place: int, enough: int, *, last: bool = False) -> _Row | None:
    """Return the first row of at least so many frames from a place on.

    :param last: whether the piece is the recording's end: a row of two frames that reaches it is enough then
    """
    while (place := data.find(b"\xff", place)) >= 0:
        row = _row_at(data, place)
        if row and (row.count >= enough or (last and row.count > 1 and row.end >= len(data))):
            return row
        place += 1
    return None


def _only_row(data: bytes) -> _Row | None:
    """Return the few frames of a recording that has nothing else but a tag or zeros."""
    row = _row_at(data, 0)
    if row is None or (row.count == 1 and row.end > len(data)):
        return None
    rest = data[row.end :].lstrip(b"\0")
    return row if not rest or tag_length(rest) else None


def skip_tags(read: Read, place: int, size: int) -> int:
    """Return where the tags that begin at a place end, and the zeros after them; the place where there are none.

    :param read: reads the recording
    :param place: in bytes
    :param size: the whole file's size in bytes
    """
    padding_from = place
    for _ in range(_MOST_TAGS):
        if place >= size:
            break
        data = read(place, _LOOK_BYTES)
        if length := tag_length(data):
            place = padding_from = place + length
            continue
        zeros = len(data) - len(data.lstrip(b"\0"))
        place += zeros
        if not zeros or (zeros < len(data) and not tag_length(data[zeros:])) or place - padding_from > _MOST_PADDING:
            break
    return place


@dataclass(frozen=True)
class _Declared:
    """What a header in the first frame (Xing, Info) declares; nothing where no checksum proves it.

    :param samples: without those that a decoder drops: the encoder's delay and padding
    :param length: how many bytes all frames have
    """

    samples: int = 0
    length: int = 0


def _read_declared(frame: bytes, stream: _Stream) -> _Declared | None:
    """Read the header in a first frame, None where that is a frame of sound."""
    place = max(frame.find(mark, 4, 40) for mark in (b"Xing", b"Info", b"VBRI"))
    if place < 0:
        return None
    # Encoders that write a checksum write all four of the optional fields.
    if len(frame) < place + 156 or frame[place + 7] & 0x0F != 0x0F:
        return _Declared()
    stored = int.from_bytes(frame[place + 154 : place + 156], "big")
    # LAME sums up what is before the checksum, FFmpeg always as much.
    before = frame[: place + 154]
    padded = (before + b"\0\0" + frame[place + 156 :]).ljust(_SUMMED_BYTES, b"\0")[:_SUMMED_BYTES]
    if not stored or stored not in (_checksum(before), _checksum(padded)):
        return _Declared()
    frames, length = struct.unpack_from(">II", frame, place + 8)
    # Twelve bits each.
    delays = int.from_bytes(frame[place + 141 : place + 144], "big")
    return _Declared(frames * stream.samples - (delays >> 12) - (delays & 0xFFF), length)


def _checksum(data: bytes) -> int:
    """Return the CRC-16 of LAME's header: polynomial 0x8005, reflected, from zero."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def _is_proven(read: Read, declared: _Declared, start: int, first_bytes: int, size: int) -> bool:
    """Whether what the first frame declares fits the bytes that are there.

    :raises RecordingError: the recording is shorter
    """
    if declared.samples <= 0:
        return False
    if declared.length > size - start + first_bytes:
        raise TruncatedError(
            f"The MP3 is truncated: its header promises {declared.length:,} bytes, {size - start:,} are there",
            hint=TAKE_WHAT_IS_THERE,
        )
    # Encoders differ on whether the first frame counts. Tags may follow, and nothing else.
    ends = (start + declared.length, start + declared.length + first_bytes)
    return any(end >= size - first_bytes or _only_tags(read, end, size) for end in ends)


def _only_tags(read: Read, place: int, size: int) -> bool:
    """Return whether nothing but tags follows. The length that a long tag declares proves nothing."""
    if size - place > 4 * _LOOK_BYTES or skip_tags(read, place, size) < size:
        return False
    return _find_row(read(place, size - place), 0, _ENOUGH_FRAMES_INSIDE, last=True) is None


def _count(read: Read, first: _Stream, start: int, size: int) -> AudioFacts:
    """Count the frames from a place on, whatever is between them.

    :raises RecordingError: there is none
    """
    seconds, channels = Fraction(), 0
    sound = skipped = 0  # bytes of frames, and bytes that are neither frames nor zeros
    stream: _Stream | None = first
    scan = Scan(read, size)
    place = start
    while place < size:
        data, at, last = scan.at(place, _LOOK_BYTES)
        row = _row_at(data, at)
        if row is None or not (row.stream == stream or (last and row.end >= len(data))):
            row, stream = _find_row(data, at, _ENOUGH_FRAMES_INSIDE, last=last), None
        # A row that begins at the piece's end is found in the next one.
        end = row.place if row else len(data) - (0 if last else _ENOUGH_FRAMES_INSIDE * _LONGEST_FRAME)
        skipped += end - at - data.count(0, at, end)
        if row is None:
            place += end - at
            continue
        # A last frame that is cut off counts: some decoders fill it up.
        stream = row.stream
        channels = max(channels, stream.channels)
        sound += row.end - row.place
        seconds += Fraction(row.count * stream.samples, stream.rate)
        place += row.end - at
    if not channels:
        raise RecordingError("The MP3 has no sound in it: not one whole frame", hint=WRITE_AGAIN)
    duration_ms, stream = ceil(seconds * 1000), _Stream(first.samples, first.rate, channels)
    if skipped * 10 <= sound:
        return _facts(stream, size, duration_ms=duration_ms)
    # Sound of another kind, such as layer II: the length is unknown.
    return _facts(stream, size, duration_ms=None, longest_ms=duration_ms + skipped * 1000 // _LEAST_BYTES_PER_S)


def _facts(stream: _Stream, size: int, duration_ms: int | None, longest_ms: int | None = None) -> AudioFacts:
    return AudioFacts(
        encoding=AudioEncoding.MP3,
        sample_rate_hertz=stream.rate,
        channels=stream.channels,
        duration_ms=duration_ms,
        longest_ms=longest_ms,
        size_bytes=size,
    )
