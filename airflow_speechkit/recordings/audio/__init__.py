"""What a recording is, read from its own bytes: format, rate, channels and length, in few ranged reads.

A name says nothing: half of the failures that people report are a WAV or a WebM that is called ``.ogg``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import AudioFacts, ProbeMode, RangedReader, samples_to_ms
from airflow_speechkit.recordings.audio.foreign import foreign_format, unknown_format
from airflow_speechkit.recordings.audio.mp3 import read_mp3
from airflow_speechkit.recordings.audio.ogg import read_ogg
from airflow_speechkit.recordings.audio.settling import settle
from airflow_speechkit.recordings.audio.wav import read_wav
from airflow_speechkit.settings import AudioEncoding

if TYPE_CHECKING:
    from airflow_speechkit.settings import RecognitionSettings

_HEAD_BYTES = 512

__all__ = ["AudioFacts", "ProbeMode", "RangedReader", "read_audio", "settle"]


def read_audio(
    reader: RangedReader, size: int, settings: RecognitionSettings, *, name: str = "", exact: bool = False
) -> AudioFacts:
    """Read what a recording is.

    Samples without a header (LPCM) can't be told from noise: they are taken for that where `settings` say so, and where
    the bytes aren't those of anything else.

    :param reader: the recording
    :param size: its size in bytes
    :param settings: what the user says about it
    :param name: what it is called
    :param exact: whether to read it through where its head and tail don't prove its length
    :raises RecordingError: it is empty, cut off, or nothing that the service takes
    """
    if not size:
        raise RecordingError("The recording is empty (0 bytes)", hint="Upload the recording again")
    head = reader.read(0, _HEAD_BYTES)
    if head[:4] == b"OggS":
        return read_ogg(reader, size, exact=exact)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return read_wav(reader, size)
    samples = settings.audio_encoding is AudioEncoding.LINEAR16_PCM
    if (foreign := foreign_format(head, certain=samples)) is not None:
        raise RecordingError(f"The recording is {foreign[0]}, and the service doesn't take that", hint=foreign[1])
    if (facts := read_mp3(reader, size, exact=exact)) is not None:
        return facts
    if samples:
        return _read_lpcm(settings, size)
    found, hint = unknown_format(head, name)
    raise RecordingError(f"The recording is {found}", hint=hint)


def _read_lpcm(settings: RecognitionSettings, size: int) -> AudioFacts:
    rate, channels = settings.sample_rate_hertz, settings.audio_channel_count or 1
    if rate is None:
        raise RecordingError(
            "Samples without a header (LPCM) don't say how fast they go", hint="Set `sample_rate_hertz`"
        )
    frame = 2 * channels
    if size % frame:
        raise RecordingError(
            f"{size:,} bytes aren't whole 16-bit samples of {channels} channels: it is cut off, or it isn't LPCM",
            hint="Check `audio_channel_count`, or upload the recording again",
        )
    return AudioFacts(
        encoding=AudioEncoding.LINEAR16_PCM,
        sample_rate_hertz=rate,
        channels=channels,
        duration_ms=samples_to_ms(size // frame, rate),
        size_bytes=size,
        data_bytes=size,
    )
