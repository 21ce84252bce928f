"""MPEG audio frames (ISO 11172-3, 13818-3): the four bytes that each begins with, and rows of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

#: In kbit/s, by MPEG-1 or not and by layer.
_BITRATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)
#: The two bits of the version: 2.5, reserved, 2, 1.
_RATE_DIVISORS = (4, 0, 2, 1)
_MONO = 0b11

#: No frame of layer III is longer.
LONGEST_FRAME = 1441

#: 640 kbit/s at 8 kHz.
_LONGEST_FREE_FRAME = 6 * 1024
_ENOUGH_HOPS = 4


@dataclass(frozen=True)
class Frame:
    """What a frame's first four bytes say.

    :param mpeg1: whether it is MPEG-1, with 1152 samples a frame; else 2 or 2.5
    :param layer: I, II or III, as a number
    :param rate: samples a second
    :param channels: 1 or 2
    :param length: in bytes; 0 where its bitrate is free
    """

    mpeg1: bool
    layer: int
    rate: int
    channels: int
    length: int

    @property
    def samples(self) -> int:
        """Return how many samples of each channel a frame of layer III holds."""
        return 1152 if self.mpeg1 else 576

    @property
    def side_info_bytes(self) -> int:
        """Return how much of layer III's own follows the four bytes."""
        if self.mpeg1:
            return 17 if self.channels == 1 else 32
        return 9 if self.channels == 1 else 17

    def same_stream(self, other: Frame) -> bool:
        """Tell whether both may belong to one stream: only the bitrate varies within one."""
        return (self.mpeg1, self.layer, self.rate, self.channels) == (
            other.mpeg1,
            other.layer,
            other.rate,
            other.channels,
        )


@lru_cache(maxsize=4096)
def read_frame(header: bytes) -> Frame | None:
    """Read a frame's first four bytes, None where they aren't that."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    divisor, layer = _RATE_DIVISORS[header[1] >> 3 & 3], 4 - (header[1] >> 1 & 3)
    bitrate_index, rate_index = header[2] >> 4, header[2] >> 2 & 3
    if not divisor or layer == 4 or bitrate_index == 15 or rate_index == 3:
        return None
    mpeg1 = divisor == 1
    rate = _RATES[rate_index] // divisor
    bitrate = _BITRATES[mpeg1, layer][bitrate_index] * 1000
    padding = header[2] >> 1 & 1
    if not bitrate:
        length = 0
    elif layer == 1:
        length = (12 * bitrate // rate + padding) * 4
    else:
        length = (72 if layer == 3 and not mpeg1 else 144) * bitrate // rate + padding
    return Frame(mpeg1, layer, rate, 1 if header[3] >> 6 == _MONO else 2, length)


@dataclass(frozen=True)
class Row:
    """Frames that follow one another.

    :param place: where the first begins
    :param frames: those that begin in the piece that was looked at; the last may be cut off
    :param end: where the last one ends
    """

    place: int
    frames: tuple[Frame, ...]
    end: int


def row_at(data: bytes, place: int, most: int = 1_000_000) -> Row | None:
    """Return the row of frames that begins at a place, None where there isn't one.

    :param most: how many frames are enough
    """
    frames: list[Frame] = []
    end = place
    while (frame := read_frame(data[end : end + 4])) and frame.length and len(frames) < most:
        if frames and not frame.same_stream(frames[0]):
            break
        frames.append(frame)
        end += frame.length
    return Row(place, tuple(frames), end) if frames else None


def find_row(data: bytes, place: int, enough: int, *, last: bool) -> Row | None:
    """Return the first row of at least so many frames from a place on.

    :param last: whether the piece is the recording's end: a row of two frames that reaches it is enough then
    """
    while 0 <= (place := data.find(b"\xff", place)) < len(data) - 3:
        row = row_at(data, place, enough)
        if row and (len(row.frames) >= enough or (last and len(row.frames) > 1 and row.end >= len(data))):
            return row
        place += 1
    return None


def free_format(data: bytes) -> bool:
    """Tell whether a piece begins with frames whose bitrate is free: equal headers at equal distances."""
    frame = read_frame(data[:4])
    if frame is None or frame.length:
        return False
    place = 4
    while (place := data.find(data[:2], place, _LONGEST_FREE_FRAME)) >= 0:
        end, hops = place, 0
        # One byte more or less is padding.
        while hops < _ENOUGH_HOPS and (
            found := next((at for at in (end, end + 1, end - 1) if read_frame(data[at : at + 4]) == frame), None)
        ):
            end, hops = found + place, hops + 1
        if hops == _ENOUGH_HOPS:
            return True
        place += 1
    return False
