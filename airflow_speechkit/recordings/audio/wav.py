"""WAV: the chunks of a RIFF file up to its samples."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import AudioFacts, samples_to_ms
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from airflow_speechkit.recordings.audio.facts import RangedReader

_PCM = 0x0001
_EXTENSIBLE = 0xFFFE
#: What follows the format's number in the SubFormat GUID of WAVE_FORMAT_EXTENSIBLE.
_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_FORMATS = {
    0x0002: "Microsoft ADPCM",
    0x0003: "floating-point PCM",
    0x0006: "A-law",
    0x0007: "mu-law",
    0x0011: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0055: "MP3 in a WAV",
}
#: A writer that could not seek back left this, or more, as the size of the samples (sox, ffmpeg).
_UNKNOWN_SIZE = 0x7FFFF000
_MOST_CHUNKS = 64


def read_wav(reader: RangedReader, size: int) -> AudioFacts:
    """Read a WAV's header.

    :param size: the whole file's size in bytes
    :raises RecordingError: it isn't 16-bit PCM, is cut off, or has no samples
    """
    shape: tuple[int, int] | None = None
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
                raise RecordingError("The WAV's samples come before the description of their format")
            return _facts(*shape, place, length, size)
        place += length + length % 2
    raise RecordingError(
        "The WAV has no samples in it: its header is cut off or damaged", todo="Write or upload the recording again"
    )


def _read_format(chunk: bytes) -> tuple[int, int]:
    if len(chunk) < 16:
        raise RecordingError("The WAV's description of its format is cut off", todo="Write the recording again")
    form, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if form == _EXTENSIBLE and len(chunk) >= 40 and chunk[26:40] == _SUBFORMAT_TAIL:
        (form,) = struct.unpack_from("<H", chunk, 24)
    if form != _PCM:
        raise RecordingError(
            f"The WAV holds {_FORMATS.get(form, f'format 0x{form:04x}')}, and the service takes 16-bit PCM only",
            todo="Convert it: ffmpeg -i IN -c:a pcm_s16le OUT.wav",
        )
    if bits != 16:
        raise RecordingError(
            f"The WAV has {bits}-bit samples, and the service takes 16-bit PCM only",
            todo="Convert it: ffmpeg -i IN -c:a pcm_s16le OUT.wav",
        )
    if not channels or not rate:
        raise RecordingError(
            f"The WAV's header says {channels} channels at {rate} Hz", todo="Write the recording again"
        )
    return rate, channels


def _facts(rate: int, channels: int, offset: int, declared: int, size: int) -> AudioFacts:
    there = size - offset
    if declared >= _UNKNOWN_SIZE or declared == 0:
        length = max(there, 0)
    elif declared > there:
        raise RecordingError(
            f"The WAV is truncated: its header promises {declared:,} bytes of samples, {max(there, 0):,} are there",
            todo="Upload the recording again",
        )
    else:
        length = declared
    frame = 2 * channels
    frames = length // frame
    if not frames:
        raise RecordingError("The WAV has a header and not one sample", todo="Write or upload the recording again")
    return AudioFacts(
        encoding=AudioEncoding.WAV,
        sample_rate_hertz=rate,
        channels=channels,
        duration_ms=samples_to_ms(frames, rate),
        size_bytes=size,
        data_offset=offset,
        data_bytes=frames * frame,
    )
