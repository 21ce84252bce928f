"""Requirements on reading WAV."""

from __future__ import annotations

import struct

import pytest

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio import AudioFacts, read_audio
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings
from tests.unit.recordings.sounds import InMemory, extensible_format, wav, wav_format, wav_of_chunks


def facts_of(data: bytes) -> AudioFacts:
    return read_audio(InMemory(data), len(data), RecognitionSettings())


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_samples_are_found_behind_every_other_chunk(rate: int, channels: int) -> None:
    data = wav(rate, channels, seconds=1.5)
    facts = facts_of(data)

    assert (facts.encoding, facts.sample_rate_hertz, facts.channels) == (AudioEncoding.WAV, rate, channels)
    assert facts.duration_ms == 1500
    assert data[facts.data_offset - 8 : facts.data_offset - 4] == b"data"
    assert facts.data_bytes == len(data) - facts.data_offset == int(rate * 1.5) * 2 * channels


def test_the_extensible_format_is_read() -> None:
    data = wav_of_chunks((b"fmt ", extensible_format(16_000, 2)), (b"data", bytes(64_000)))

    assert facts_of(data).duration_ms == 1000
    with pytest.raises(RecordingError, match="floating-point PCM"):
        facts_of(wav_of_chunks((b"fmt ", extensible_format(16_000, 2, form=3)), (b"data", bytes(64_000))))


def test_chunks_of_any_length_are_stepped_over_and_what_follows_the_samples_is_no_sound() -> None:
    data = wav_of_chunks(
        (b"JUNK", bytes(100_001)),
        (b"fmt ", wav_format(8_000)),
        (b"LIST", b"INFOISFT" + struct.pack("<I", 5) + b"Lavf\0"),
        (b"data", bytes(16_000)),
        (b"LIST", bytes(5_000)),
    )
    facts = facts_of(data)

    assert facts.duration_ms == 1000
    assert facts.data_bytes == 16_000


@pytest.mark.parametrize("declared", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_recorder_that_could_not_seek_back_left_no_size_and_the_file_s_end_counts(declared: int) -> None:
    data = bytearray(wav_of_chunks((b"fmt ", wav_format(8_000)), (b"data", bytes(16_001))))
    struct.pack_into("<I", data, data.index(b"data") + 4, declared)

    assert facts_of(bytes(data)).duration_ms == 1001
    assert facts_of(bytes(data)).data_bytes == 16_002


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (wav()[:5_000], "truncated: its header promises 32,000 bytes of samples, 4,922 are there"),
        (wav()[:40], "cut off or damaged"),
        (wav()[:18], "cut off or damaged"),
        (wav()[:30], "description of its format is cut off"),
        (wav_of_chunks((b"fmt ", wav_format()), (b"data", b"")), "not one sample"),
        (wav_of_chunks((b"data", bytes(100)), (b"fmt ", wav_format())), "before the description"),
        (wav_of_chunks((b"fmt ", wav_format(bits=24)), (b"data", bytes(99))), "24-bit samples"),
        (wav_of_chunks((b"fmt ", wav_format(channels=0)), (b"data", bytes(99))), "0 channels"),
        (wav_of_chunks((b"fmt ", wav_format(0)), (b"data", bytes(99))), "at 0 Hz"),
        (wav_of_chunks((b"fmt ", wav_format(form=0x99)), (b"data", bytes(99))), "format 0x0099"),
        (wav_of_chunks(*[(b"JUNK", b"")] * 100, (b"fmt ", wav_format())), "cut off or damaged"),
        (wav(codec="pcm_alaw"), "A-law"),
        (wav(codec="pcm_mulaw"), "mu-law"),
        (wav(codec="adpcm_ms"), "Microsoft ADPCM"),
        (wav(codec="pcm_s24le"), "24-bit samples"),
        (wav(codec="pcm_f32le"), "floating-point"),
    ],
    ids=lambda given: given if isinstance(given, str) else f"{len(given)} bytes",
)
def test_what_the_service_would_not_understand_is_refused_by_name(data: bytes, what: str) -> None:
    with pytest.raises(RecordingError, match=what):
        facts_of(data)
