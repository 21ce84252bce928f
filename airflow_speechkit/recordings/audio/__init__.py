"""What a recording is, read from its own bytes: format, rate, channels and length, in few ranged reads.

The name says nothing: half of the failures that people report are a WAV or a WebM that is called ``.ogg``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import UPLOAD_AGAIN, AudioFacts, ProbeMode, RangedReader, samples_to_ms
from airflow_speechkit.recordings.audio.kinds import Remedy, foreign_kind, is_audio_name, unknown_kind
from airflow_speechkit.recordings.audio.mp3 import read_mp3
from airflow_speechkit.recordings.audio.ogg import read_ogg
from airflow_speechkit.recordings.audio.settling import settle
from airflow_speechkit.recordings.audio.wav import read_wav
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from airflow_speechkit.settings import RecognitionSettings

_HEAD_BYTES = 512

#: How much of a file `is_audio` takes: a few frames of an MP3.
AUDIO_HEAD_BYTES = 16 * 1024

__all__ = [
    "AUDIO_HEAD_BYTES",
    "AudioFacts",
    "ProbeMode",
    "RangedReader",
    "is_audio",
    "is_audio_name",
    "read_audio",
    "samples_to_ms",
    "settle",
]


def read_audio(
    reader: RangedReader, size: int, settings: RecognitionSettings, *, name: str = "", exact: bool = False
) -> AudioFacts:
    """Read what a recording is.

    Samples without a header (LPCM) can't be told from noise: they are taken for that where `settings` say so, and where
    the bytes aren't those of another kind.

    :param reader: the recording
    :param size: its size in bytes
    :param settings: what the user says about it
    :param name: the recording's name
    :param exact: whether to read it through where its head and tail don't prove its length
    :raises RecordingError: it is empty, cut off, or nothing that the service takes
    """
    if not size:
        raise RecordingError("The recording is empty (0 bytes)", hint=UPLOAD_AGAIN)
    head = reader.read(0, _HEAD_BYTES)
    if head[:4] == b"OggS":
        return read_ogg(reader, size, exact=exact)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return read_wav(reader, size)
    samples = settings.audio_encoding is AudioEncoding.LINEAR16_PCM
    if (foreign := foreign_kind(head, certain=samples)) is not None:
        raise RecordingError(f"The recording is {foreign[0]}, which the service doesn't accept", hint=foreign[1])
    if (facts := read_mp3(reader, size, exact=exact)) is not None:
        return facts
    if samples:
        return _read_lpcm(settings, size)
    found, hint = unknown_kind(head, name)
    raise RecordingError(f"The recording is {found}", hint=hint)


def _read_lpcm(settings: RecognitionSettings, size: int) -> AudioFacts:
    rate, channels = settings.sample_rate_hertz, settings.audio_channel_count or 1
    if rate is None:
        raise RecordingError("The rate of samples without a header (LPCM) is unknown", hint="Set `sample_rate_hertz`")
    frame = 2 * channels
    if size % frame:
        raise RecordingError(
            f"{size:,} bytes aren't whole 16-bit samples of {channels} channels: it is cut off, or it isn't LPCM",
            hint=f"Check `audio_channel_count`, or: {UPLOAD_AGAIN.lower()}",
        )
    return AudioFacts(
        encoding=AudioEncoding.LINEAR16_PCM,
        sample_rate_hertz=rate,
        channels=channels,
        duration_ms=samples_to_ms(size // frame, rate),
        size_bytes=size,
        data_bytes=size,
    )


def is_audio(head: bytes) -> bool:
    """Return whether a file is audio by its first bytes, also of a kind that the service doesn't take.

    Samples without a header can't be recognised.

    :param head: its first `AUDIO_HEAD_BYTES`, or all of it
    """
    if head[:4] == b"OggS" or (head[:4] == b"RIFF" and head[8:12] == b"WAVE"):
        return True
    foreign = foreign_kind(head)
    if foreign is not None:
        return foreign[1] in (Remedy.CONVERT, Remedy.SILK)
    try:
        return read_mp3(_Head(head), len(head), exact=False) is not None
    except RecordingError:
        # Cut off, without sound, or another kind of MPEG audio: audio all the same.
        return True


class _Head:
    """The beginning of a file as a recording."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def read(self, start: int, length: int) -> bytes:
        """Return `length` bytes from `start` on."""
        return self._head[start : start + length]
