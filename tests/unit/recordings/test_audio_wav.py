"""Requirements on reading WAV."""

from __future__ import annotations

import struct

import pytest

from airflow_speechkit.errors import RecordingError, TruncatedError, UnsupportedFormatError
from airflow_speechkit.recordings.audio.facts import AudioFacts
from airflow_speechkit.recordings.audio.reading import read_audio
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings
from tests.unit.recordings.sounds import InMemory, extensible_format, wav, wav_format, wav_of_chunks


def facts_of(data: bytes) -> AudioFacts:
    return read_audio(InMemory(data), len(data), RecognitionSettings())


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_samples_are_found_behind_other_chunks(rate: int, channels: int) -> None:
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


def test_other_chunks_are_skipped_before_and_after_the_samples() -> None:
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
def test_without_a_declared_size_the_samples_end_with_the_file(declared: int) -> None:
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
        (wav_of_chunks((b"data", bytes(100)), (b"fmt ", wav_format())), "cut off or damaged"),
        (
            wav_of_chunks((b"fmt ", wav_format(4_294_967_295 // 2)), (b"data", bytes(99))),
            "2147483647 Hz: it is damaged",
        ),
        (wav_of_chunks((b"fmt ", wav_format(400_000)), (b"data", bytes(99))), "400000 Hz: it is damaged"),
        (wav_of_chunks((b"fmt ", wav_format(999)), (b"data", bytes(99))), "999 Hz: it is damaged"),
        (wav_of_chunks((b"fmt ", wav_format(form=0x28F)), (b"data", bytes(99))), r"holds G\.722"),
        (wav_of_chunks((b"fmt ", wav_format(form=0x45)), (b"data", bytes(99))), r"holds G\.726"),
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
def test_a_wav_that_the_service_does_not_accept_is_refused_by_name(data: bytes, what: str) -> None:
    with pytest.raises(RecordingError, match=what):
        facts_of(data)


def test_an_impossible_rate_is_refused() -> None:
    data = bytearray(wav_of_chunks((b"fmt ", wav_format(8_000)), (b"data", bytes(160_000))))
    struct.pack_into("<I", data, 24, 4_294_967_295)

    with pytest.raises(RecordingError, match="4294967295 Hz: it is damaged"):
        facts_of(bytes(data))


@pytest.mark.parametrize("missing", [1, 2, 8, 36, 44, 4_096])
def test_a_declared_size_slightly_too_large_is_accepted(missing: int) -> None:
    data = bytearray(wav_of_chunks((b"fmt ", wav_format(8_000)), (b"data", bytes(16_000))))
    struct.pack_into("<I", data, data.index(b"data") + 4, 16_000 + missing)
    facts = facts_of(bytes(data))

    assert (facts.duration_ms, facts.data_bytes, facts.notes) == (1000, 16_000, ())


@pytest.mark.parametrize(
    "behind",
    [bytes(48_000), b"\x01\x02" * 24_000, wav(seconds=3)[:48_000], b"data" + struct.pack("<I", 47_992) + bytes(47_992)],
    ids=["zeros", "samples", "another WAV", "a second data chunk"],
)
@pytest.mark.parametrize("other", [b"", b"LIST" + struct.pack("<I", 4) + b"INFO"])
def test_samples_behind_the_data_chunk_are_noted_and_make_the_length_unknown(behind: bytes, other: bytes) -> None:
    facts = facts_of(wav_of_chunks((b"fmt ", wav_format(8_000)), (b"data", bytes(16_000))) + other + behind)

    assert facts.duration_ms is None
    assert facts.data_bytes == 16_000
    assert facts.longest_ms is not None
    assert facts.longest_ms >= 4000
    assert "48,000 bytes behind its samples are no part of a WAV" in facts.notes[0]


@pytest.mark.parametrize("junk", [b"\0", b"\0\0"])
def test_a_stray_byte_behind_the_samples_is_ignored(junk: bytes) -> None:
    facts = facts_of(wav_of_chunks((b"fmt ", wav_format(8_000)), (b"data", bytes(16_000))) + junk)

    assert (facts.duration_ms, facts.notes) == (1000, ())


def test_chunks_of_odd_length_are_skipped_with_or_without_padding() -> None:
    odd = b"LIST" + struct.pack("<I", 7) + b"INFOabc"
    for filling in (b"", b"\0"):
        body = b"WAVE" + odd + filling + b"fmt " + struct.pack("<I", 16) + wav_format(8_000)
        body += b"data" + struct.pack("<I", 16_000) + bytes(16_000) + odd + filling + odd
        assert facts_of(b"RIFF" + struct.pack("<I", len(body)) + body).duration_ms == 1000


@pytest.mark.parametrize(
    ("place", "form", "value"), [(24, "<I", 80_000), (28, "<I", 64_000), (22, "<H", 2), (32, "<H", 4)]
)
def test_a_header_that_contradicts_itself_leaves_the_length_unknown(place: int, form: str, value: int) -> None:
    data = bytearray(wav_of_chunks((b"fmt ", wav_format(8_000)), (b"data", bytes(160_000))))
    struct.pack_into(form, data, place, value)
    facts = facts_of(bytes(data))

    assert facts.duration_ms is None
    assert facts.longest_ms is not None
    assert facts.longest_ms >= (2_500 if place == 28 else 5_000)
    assert "header contradicts itself" in facts.notes[0]


def test_a_header_without_derived_fields_is_read() -> None:
    data = bytearray(wav_of_chunks((b"fmt ", wav_format(8_000)), (b"data", bytes(16_000))))
    struct.pack_into("<IH", data, 28, 0, 0)

    assert facts_of(bytes(data)).duration_ms == 1000


@pytest.mark.parametrize(("behind", "is_cut_off"), [(b"\x55" * 20_000, True), (bytes(20_000), False)])
def test_sound_behind_the_declared_samples_of_what_is_converted_is_not_lost_silently(
    behind: bytes, is_cut_off: bool
) -> None:
    """A recorder that was stopped after its first header; others fill files up with zeros."""
    data = wav(codec="pcm_alaw") + behind
    with pytest.raises(UnsupportedFormatError) as refused:
        facts_of(data)
    assert isinstance(refused.value, TruncatedError) is is_cut_off
    if is_cut_off:
        assert "20,000 more bytes follow" in str(refused.value)
