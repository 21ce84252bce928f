"""MP3: the first frames, and the frame count that most encoders leave in the very first one."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import AudioFacts, samples_to_ms
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import RangedReader

_BITRATES = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)
#: The two bits of the version: 2.5, reserved, 2, 1.
_RATE_DIVISORS = (4, 0, 2, 1)
_LAYER_3 = 0b01
_MONO = 0b11

#: So many frames in a row make an MP3, a fifth of a second: two or three could be a coincidence in raw samples.
_ENOUGH_FRAMES = 8
_LOOK = 32 * 1024
_SAMPLE = 16 * 1024
#: A file up to this long is read whole where nothing less tells its length (half an hour at 32 kbit/s).
_WHOLE = 8 * 1024 * 1024
_ID3V1_BYTES = 128
_UPLOAD_AGAIN = "Upload the recording again"


@dataclass(frozen=True)
class _Frame:
    """The four bytes at the beginning of a frame."""

    version: int
    rate: int
    channels: int
    bitrate: int
    length: int

    @property
    def samples(self) -> int:
        return 1152 if self.version == 1 else 576

    @property
    def side_info_bytes(self) -> int:
        if self.version == 1:
            return 17 if self.channels == 1 else 32
        return 9 if self.channels == 1 else 17

    def same_stream(self, other: _Frame) -> bool:
        return (self.version, self.rate, self.channels) == (other.version, other.rate, other.channels)


def _frame(header: bytes) -> _Frame | None:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    divisor = _RATE_DIVISORS[header[1] >> 3 & 3]
    bitrate_index, rate_index = header[2] >> 4, header[2] >> 2 & 3
    if not divisor or header[1] >> 1 & 3 != _LAYER_3 or bitrate_index in (0, 15) or rate_index == 3:
        return None
    version = 1 if divisor == 1 else 2
    rate = _RATES[rate_index] // divisor
    bitrate = _BITRATES[version][bitrate_index] * 1000
    length = (144 if version == 1 else 72) * bitrate // rate + (header[2] >> 1 & 1)
    return _Frame(version, rate, 1 if header[3] >> 6 == _MONO else 2, bitrate, length)


def _id3_length(head: bytes) -> int:
    """Return how many bytes an ID3v2 tag at the beginning takes; 0 where there is none."""
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    length = 0
    for byte in head[6:10]:
        length = length << 7 | byte & 0x7F
    return length + (20 if head[5] & 0x10 else 10)


def _find_row(data: bytes) -> tuple[int, list[_Frame]] | None:
    """Return where a row of frames begins in a piece of a file, and the row."""
    place = data.find(b"\xff")
    while 0 <= place < len(data) - 3:
        row = _row(data, place)
        if len(row) >= _ENOUGH_FRAMES:
            return place, row
        place = data.find(b"\xff", place + 1)
    return None


def _row(data: bytes, place: int) -> list[_Frame]:
    """Return the frames that follow one another from a place on."""
    frames: list[_Frame] = []
    while (frame := _frame(data[place : place + 4])) and (not frames or frame.same_stream(frames[0])):
        frames.append(frame)
        place += frame.length
    return frames


def read_mp3(reader: RangedReader, size: int) -> AudioFacts | None:
    """Read the facts of an MP3, None where it isn't one.

    :param size: the whole file's size in bytes
    :raises RecordingError: it is cut off
    """
    tag = _id3_length(reader.read(0, 10))
    if tag >= size:
        raise RecordingError("The MP3 is truncated: not even its tag is whole", todo=_UPLOAD_AGAIN)
    data = reader.read(tag, _LOOK)
    found = _find_row(data)
    if found is None:
        return None
    place, row = found
    first = row[0]
    start = tag + place
    head = data[place : place + first.length]
    counted = _counted_samples(head, first, size - start)
    if counted is None:
        # A header whose counts were never filled in is no sound, and may have a bitrate of its own.
        silent = first.length if _xing(head, first) else 0
        row = row[1:] if silent else row
        counted = _samples_of_even_frames(reader, row, start + silent, size)
        if counted is None and size - start <= _WHOLE:
            counted = _samples_of_all_frames(reader, start + silent, size)
    return AudioFacts(
        encoding=AudioEncoding.MP3,
        sample_rate_hertz=first.rate,
        channels=first.channels,
        duration_ms=None if counted is None else samples_to_ms(counted, first.rate),
        size_bytes=size,
    )


def _xing(head: bytes, first: _Frame) -> int | None:
    """Return where the first frame's Xing (or Info) header begins, None where it has none."""
    place = 4 + first.side_info_bytes
    return place if head[place : place + 4] in (b"Xing", b"Info") else None


def _counted_samples(frame: bytes, first: _Frame, there: int) -> int | None:
    """Return the samples that a Xing, Info or VBRI header in the first frame counts; None where it counts none."""
    frames = declared = trimmed = 0
    if (xing := _xing(frame, first)) is not None and len(frame) >= xing + 8:
        (flags,) = struct.unpack_from(">I", frame, xing + 4)
        place = xing + 8
        if flags & 1 and len(frame) >= place + 4:
            (frames,) = struct.unpack_from(">I", frame, place)
        place += 4 if flags & 1 else 0
        if flags & 2 and len(frame) >= place + 4:
            (declared,) = struct.unpack_from(">I", frame, place)
        place += (4 if flags & 2 else 0) + (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
        # The encoder's delay and padding, twelve bits each, 21 bytes into what LAME and its kin add.
        if frame[place : place + 4] in (b"LAME", b"Lavf", b"Lavc") and len(frame) >= place + 24:
            delays = int.from_bytes(frame[place + 21 : place + 24], "big")
            trimmed = (delays >> 12) + (delays & 0xFFF)
    elif frame[36:40] == b"VBRI" and len(frame) >= 54:
        declared, frames = struct.unpack_from(">II", frame, 46)
    if not frames:
        return None
    # Encoders differ on whether the first frame counts, and tags may follow: a frame's length is let pass.
    if declared > there + first.length:
        raise RecordingError(
            f"The MP3 is truncated: its header promises {declared:,} bytes, {there:,} are there", todo=_UPLOAD_AGAIN
        )
    return max(0, frames * first.samples - trimmed)


def _samples_of_even_frames(reader: RangedReader, row: list[_Frame], start: int, size: int) -> int | None:
    """Work out the samples of a file whose frames are all of one bitrate; None where they aren't.

    Nothing counts the frames then, so the beginning, the middle and the end are looked at.
    """
    for place in ((start + size) // 2, max(start, size - _SAMPLE)):
        found = _find_row(reader.read(place, _SAMPLE))
        if found is None:
            return None
        row = row + found[1]
    first = row[0]
    if any(frame.bitrate != first.bitrate or not frame.same_stream(first) for frame in row):
        return None
    end = size - (_ID3V1_BYTES if reader.read(size - _ID3V1_BYTES, 3) == b"TAG" else 0)
    # A frame of this bitrate is 1152 (or 576) samples in samples * bitrate / 8 / rate bytes, on average.
    return -(-(end - start) * 8 * first.rate // first.bitrate)


def _samples_of_all_frames(reader: RangedReader, start: int, size: int) -> int | None:
    """Count the samples frame by frame; None where the row of frames breaks off before the end."""
    row = _row(reader.read(start, size - start), 0)
    length = sum(frame.length for frame in row)
    if size - start - length > _ID3V1_BYTES + row[0].length:
        return None
    return sum(frame.samples for frame in row)
