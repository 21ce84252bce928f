"""WAV: the chunks of a RIFF file up to its samples."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import CONVERT, UPLOAD_AGAIN, WRITE_AGAIN, AudioFacts, samples_to_ms
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import RangedReader

_PCM = 0x0001
_EXTENSIBLE = 0xFFFE
#: What follows the format's number in the SubFormat GUID of WAVE_FORMAT_EXTENSIBLE.
_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_FORMATS = {
    0x02: "Microsoft ADPCM", 0x03: "floating-point PCM", 0x06: "A-law", 0x07: "mu-law", 0x11: "IMA ADPCM",
    0x22: "TrueSpeech", 0x31: "GSM 6.10", 0x40: "G.721", 0x42: "G.723.1", 0x45: "G.726", 0x50: "MPEG audio Layer II",
    0x55: "MP3", 0x64: "G.726", 0x65: "G.722", 0x83: "G.729", 0xFF: "AAC", 0x28F: "G.722",
}  # fmt: skip
#: Recorders have rates between these; what declares another one is damaged.
_RATES = range(1_000, 384_001)
_MOST_CHANNELS = 64
#: Recorders write their whole file's size here, or a block too much: as players do, what is there is taken.
_MISSING_BYTES = 4096
#: A writer that could not seek back left this, or more, as the size of the samples (sox, ffmpeg).
_UNKNOWN_SIZE = 0x7FFFF000
_MOST_CHUNKS = 64


@dataclass(frozen=True)
class _Format:
    """What the samples are, as the header describes them.

    :param bytes_per_s: 0 where it doesn't say
    :param frame_bytes: a sample of every channel; 0 where it doesn't say
    """

    rate: int
    channels: int
    bytes_per_s: int
    frame_bytes: int

    @property
    def frame(self) -> int:
        return 2 * self.channels

    @property
    def contradiction(self) -> str | None:
        """What about it can't be right: players go by rate and channels alone."""
        right = self.rate * self.frame
        if self.frame_bytes in (0, self.frame) and self.bytes_per_s in (0, right):
            return None
        return (
            f"its header contradicts itself: {self.rate} Hz and {self.channels} channels of 16 bits are {self.frame} "
            f"bytes a sample and {right:,} a second, and it says {self.frame_bytes} and {self.bytes_per_s:,}; "
            "its length is unknown"
        )

    @property
    def least_bytes_per_s(self) -> int:
        """What a second takes at least, whichever of its statements is right."""
        return min(self.rate * self.frame, self.bytes_per_s or self.rate * self.frame, 2 * self.rate)


def read_wav(reader: RangedReader, size: int) -> AudioFacts:
    """Read a WAV's header.

    :param size: the whole file's size in bytes
    :raises RecordingError: it isn't 16-bit PCM, is cut off, or has no samples
    """
    shape: _Format | None = None
    place = 12
    for _ in range(_MOST_CHUNKS):
        header = reader.read(place, 8)
        if len(header) < 8:
            break
        name, length = struct.unpack("<4sI", header)
        place += 8
        if name == b"fmt ":
            shape = _read_format(reader.read(place, min(length, 40)))
        elif name == b"data":
            if shape is None:
                raise RecordingError(
                    "The WAV's samples come before the description of their format",
                    hint="Write the recording again: ffmpeg -f s16le -ar RATE -ac CHANNELS -i IN OUT.wav",
                )
            return _facts(reader, shape, place, length, size)
        place = _next_chunk(reader, place + length)
    raise RecordingError("The WAV has no samples in it: its header is cut off or damaged", hint=WRITE_AGAIN)


def _next_chunk(reader: RangedReader, end: int) -> int:
    """Return where the next chunk begins: on an even place, though not every writer fills up what is odd."""
    if end % 2 and _is_name(reader.read(end, 4)) and not _is_name(reader.read(end + 1, 4)):
        return end
    return end + end % 2


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def _chunks_end(reader: RangedReader, place: int, size: int) -> int:
    """Return where the chunks end that begin at a place; the place itself where none does."""
    for _ in range(_MOST_CHUNKS):
        header = reader.read(place, 8)
        if len(header) < 8 or not _is_name(header[:4]):
            break
        (length,) = struct.unpack_from("<I", header, 4)
        if header[:4] in (b"data", b"RIFF") or place + 8 + length > size:
            break
        place = min(size, _next_chunk(reader, place + 8 + length))
    return place


def _read_format(chunk: bytes) -> _Format:
    if len(chunk) < 16:
        raise RecordingError("The WAV's description of its format is cut off", hint=WRITE_AGAIN)
    form, channels, rate, bytes_per_s, frame_bytes, bits = struct.unpack_from("<HHIIHH", chunk)
    if form == _EXTENSIBLE and len(chunk) >= 40 and chunk[26:40] == _SUBFORMAT_TAIL:
        (form,) = struct.unpack_from("<H", chunk, 24)
    if form != _PCM or bits != 16:
        found = f"{bits}-bit samples" if form == _PCM else _FORMATS.get(form, f"format 0x{form:04x}")
        raise RecordingError(f"The WAV holds {found}, and the service takes 16-bit PCM only", hint=CONVERT)
    if not 1 <= channels <= _MOST_CHANNELS or rate not in _RATES:
        raise RecordingError(
            f"The WAV's header says {channels} channels at {rate} Hz: it is damaged",
            hint="Write the recording again, or give its samples their true rate: "
            "sox -t raw -r RATE -e signed -b 16 -c CHANNELS SAMPLES OUT.wav",
        )
    return _Format(rate, channels, bytes_per_s, frame_bytes)


def _facts(reader: RangedReader, shape: _Format, offset: int, declared: int, size: int) -> AudioFacts:
    there = max(0, size - offset)
    notes = [shape.contradiction] if shape.contradiction else []
    unknown = declared >= _UNKNOWN_SIZE or (declared == 0 and _chunks_end(reader, offset, size) < size)
    if not unknown and declared > there + _MISSING_BYTES:
        raise RecordingError(
            f"The WAV is truncated: its header promises {declared:,} bytes of samples, {there:,} are there",
            hint=UPLOAD_AGAIN,
        )
    frames = (there if unknown else min(declared, there)) // shape.frame
    if not frames:
        raise RecordingError("The WAV has a header and not one sample", hint=WRITE_AGAIN)
    if not unknown and declared <= there:
        behind = size - _chunks_end(reader, _next_chunk(reader, offset + declared), size)
        if behind > shape.frame:
            notes.append(
                f"{behind:,} bytes behind its samples are no part of a WAV ({behind / shape.frame / shape.rate:.1f} s, "
                f"if they are samples: {declared:,} bytes are declared as such). They are left out where it is "
                "unwrapped, and make its length unknown where it is sent as it is"
            )
    return AudioFacts(
        encoding=AudioEncoding.WAV,
        sample_rate_hertz=shape.rate,
        channels=shape.channels,
        duration_ms=None if notes else samples_to_ms(frames, shape.rate),
        size_bytes=size,
        data_offset=offset,
        data_bytes=frames * shape.frame,
        longest_ms=there * 1000 // shape.least_bytes_per_s if notes else None,
        notes=tuple(notes),
    )
