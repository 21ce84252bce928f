"""What the first frame of an MP3 says about all of them: the headers called Xing, Info (LAME) and VBRI."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.mpeg import Frame

_ENCODERS = (b"LAME", b"Lavf", b"Lavc", b"L3.9")
#: What FFmpeg sums up however short the frame is, with zeros in the sum's own place and behind the frame.
_SUMMED_BYTES = 190


@dataclass(frozen=True)
class Declared:
    """What a header in the first frame declares.

    :param frames: how many frames follow it; 0 where it doesn't say
    :param length: how many bytes they have, its own included; 0 where it doesn't say
    :param trimmed: samples that a decoder drops again: the encoder's delay and padding
    :param checked: whether the header's checksum fits; None where it has none
    """

    frames: int = 0
    length: int = 0
    trimmed: int = 0
    checked: bool | None = None


def read_declared(frame: bytes, about: Frame) -> Declared | None:
    """Read the header in a first frame, None where that is a frame of sound.

    :param frame: the whole frame
    :param about: what its first four bytes say
    """
    if frame[36:40] == b"VBRI":
        # Its counts have no checksum, and the encoder is gone: the frames are counted.
        return Declared()
    place = 4 + about.side_info_bytes
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
    # Twelve bits each, 21 bytes into what LAME and its kin add; the checksum of all before it is 34 bytes in.
    delays = int.from_bytes(frame[place + 21 : place + 24], "big")
    return Declared(frames, length, (delays >> 12) + (delays & 0xFFF), _checked(frame, place + 34))


def _number(frame: bytes, place: int) -> int:
    return int(struct.unpack_from(">I", frame, place)[0]) if len(frame) >= place + 4 else 0


def _checked(frame: bytes, place: int) -> bool | None:
    stored = int.from_bytes(frame[place : place + 2], "big")
    if not stored:
        return None
    # LAME sums up what stands before the checksum, FFmpeg always as much.
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
