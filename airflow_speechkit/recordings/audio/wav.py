"""WAV: the chunks of a RIFF file up to its samples."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError, TruncatedError, UnsupportedFormatError
from airflow_speechkit.recordings.audio.facts import CONVERT, TAKE_WHAT_IS_THERE, WRITE_AGAIN, AudioFacts, samples_to_ms
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_speechkit.recordings.audio.facts import Read

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
#: A writer that could not seek back left 0, or this and more, as the size of the samples (sox, ffmpeg).
_UNKNOWN_SIZE = 0x7FFFF000
_MOST_CHUNKS = 64
#: How much is read behind the samples to tell sound from zeros, which some recorders fill files up with.
_TRIED_BYTES = 64 * 1024


def read_wav(read: Read, size: int) -> AudioFacts:
    """Read a WAV's header.

    :param read: reads the recording
    :param size: the whole file's size in bytes
    :raises RecordingError: it isn't 16-bit PCM, is cut off, or has no samples
    """
    form = b""
    for name, place, length in _chunks(read, 12):
        if name == b"fmt ":
            form = read(place, min(length, 40))
            if len(form) < 16:
                raise RecordingError("The WAV's description of its format is cut off", hint=WRITE_AGAIN)
        elif name == b"data" and form:
            return _facts(read, form, place, length, size)
    raise RecordingError("The WAV has no samples in it: its header is cut off or damaged", hint=WRITE_AGAIN)


def _chunks(read: Read, place: int) -> Iterator[tuple[bytes, int, int]]:
    """Give the name of each chunk, where its content begins, and how long it says that is."""
    for _ in range(_MOST_CHUNKS):
        header = read(place, 8)
        if len(header) < 8:
            return
        name, length = struct.unpack("<4sI", header)
        yield name, place + 8, length
        place += 8 + length
        # The next one begins on an even place, though not every writer fills up what is odd.
        if place % 2 and not (_is_name(read(place, 4)) and not _is_name(read(place + 1, 4))):
            place += 1


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and name.isascii() and name.decode().isprintable()


def _facts(read: Read, form: bytes, offset: int, declared: int, size: int) -> AudioFacts:
    there = max(0, size - offset)
    unknown = declared == 0 or declared >= _UNKNOWN_SIZE
    if not unknown and declared > there + _MISSING_BYTES:
        raise TruncatedError(
            f"The WAV is truncated: its header promises {declared:,} bytes of samples, {there:,} are there",
            hint=TAKE_WHAT_IS_THERE,
        )
    try:
        rate, channels, notes = _read_format(form)
    except UnsupportedFormatError:
        # What converts it reads what the header declares, and no more.
        end = _chunks_end(read, offset, size)
        if not unknown and size - end > _MISSING_BYTES and any(read(end, _TRIED_BYTES)):
            raise TruncatedError(
                f"The WAV is truncated: its header declares {declared:,} bytes of samples, and "
                f"{size - end:,} more bytes follow that are no part of a WAV",
                hint=TAKE_WHAT_IS_THERE,
            ) from None
        raise
    frame = 2 * channels
    frames = (there if unknown else min(declared, there)) // frame
    if not frames:
        raise RecordingError("The WAV has a header and not one sample", hint=WRITE_AGAIN)
    if not unknown and (behind := size - _chunks_end(read, offset, size)) > frame:
        notes.append(
            f"{behind:,} bytes behind its samples are no part of a WAV. They are left out where it is unwrapped, and "
            "make its length unknown where it is sent as it is"
        )
    least_bytes_per_s = min(2 * rate, int.from_bytes(form[8:12], "little") or 2 * rate)
    return AudioFacts(
        encoding=AudioEncoding.WAV,
        sample_rate_hertz=rate,
        channels=channels,
        duration_ms=None if notes else samples_to_ms(frames, rate),
        size_bytes=size,
        data_offset=offset,
        data_bytes=frames * frame,
        longest_ms=there * 1000 // least_bytes_per_s if notes else None,
        notes=tuple(notes),
    )


def _read_format(chunk: bytes) -> tuple[int, int, list[str]]:
    """Return the rate, the channels, and what is unusual about them."""
    form, channels, rate, bytes_per_s, frame_bytes, bits = struct.unpack_from("<HHIIHH", chunk)
    if form == _EXTENSIBLE and len(chunk) >= 40 and chunk[26:40] == _SUBFORMAT_TAIL:
        (form,) = struct.unpack_from("<H", chunk, 24)
    if form != _PCM or bits != 16:
        found = f"{bits}-bit samples" if form == _PCM else _FORMATS.get(form, f"format 0x{form:04x}")
        raise UnsupportedFormatError(f"The WAV holds {found}, and the service takes 16-bit PCM only", hint=CONVERT)
    if not 1 <= channels <= _MOST_CHANNELS or rate not in _RATES:
        raise RecordingError(f"The WAV's header says {channels} channels at {rate} Hz: it is damaged", hint=WRITE_AGAIN)
    # Either may be left out, as 0.
    if frame_bytes in (0, 2 * channels) and bytes_per_s in (0, 2 * channels * rate):
        return rate, channels, []
    return (
        rate,
        channels,
        [
            f"Its header contradicts itself ({rate} Hz, {channels} channels, {frame_bytes} bytes a sample, "
            f"{bytes_per_s:,} bytes a second), so its length is unknown"
        ],
    )


def _chunks_end(read: Read, samples: int, size: int) -> int:
    """Return where the chunks end that begin with the one of the samples."""
    end = size
    for name, place, length in _chunks(read, samples - 8):
        if place != samples and (not _is_name(name) or name in (b"data", b"RIFF") or place + length > size):
            break
        end = min(size, place + length)
    return end
