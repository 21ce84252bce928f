"""Requirements on reading MP3."""

from __future__ import annotations

import struct

import pytest

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio import AudioFacts, read_audio
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings
from tests.unit.recordings.sounds import InMemory, decoded_seconds, encoded, mp3


def facts_of(data: bytes) -> AudioFacts:
    return read_audio(InMemory(data), len(data), RecognitionSettings())


def lone_frames(count: int, *, header: bytes = b"\xff\xfb\x90\xc4", length: int = 417) -> bytes:
    return (header + bytes(length - 4)) * count


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 2), (22_050, 1), (44_100, 2), (48_000, 1)])
@pytest.mark.parametrize("quality", [None, 0])
def test_the_length_is_what_a_decoder_gets_for_any_rate_and_bitrate(
    rate: int, channels: int, quality: int | None
) -> None:
    data = mp3(rate=rate, channels=channels, seconds=3.7, quality=quality, bit_rate=None if quality == 0 else 32_000)
    facts = facts_of(data)

    assert (facts.encoding, facts.sample_rate_hertz, facts.channels) == (AudioEncoding.MP3, rate, channels)
    assert facts.duration_ms is not None
    assert 0 <= facts.duration_ms - decoded_seconds(data) * 1000 < 1


@pytest.mark.parametrize("quality", [None, 0])
def test_the_length_is_right_where_no_header_counts_the_frames(quality: int | None) -> None:
    data = mp3(rate=44_100, seconds=20, quality=quality, bit_rate=None if quality == 0 else 64_000, write_xing="0")
    facts = facts_of(data)

    assert facts.duration_ms is not None
    assert abs(facts.duration_ms - decoded_seconds(data) * 1000) < 27


def test_a_header_whose_counts_were_never_filled_in_counts_nothing() -> None:
    data = bytearray(mp3(rate=44_100, seconds=20, bit_rate=64_000))
    data[data.index(b"Info") + 7] = 0

    facts = facts_of(bytes(data))

    assert facts.duration_ms is not None
    assert abs(facts.duration_ms - 20_000) < 80


def test_a_vbri_header_is_understood() -> None:
    first = bytearray(lone_frames(1))
    first[36:62] = b"VBRI" + struct.pack(">HHHII", 1, 0, 75, 417 * 101, 100) + bytes(8)

    assert facts_of(bytes(first) + lone_frames(100)).duration_ms == -(-100 * 1152 * 1000 // 44_100)


def test_a_long_file_of_varying_bitrate_without_any_count_has_no_length_rather_than_a_wrong_one() -> None:
    slow = lone_frames(6_000, header=b"\xff\xfb\x50\xc4", length=208)
    data = lone_frames(20_000) + slow

    assert facts_of(lone_frames(2_000) + slow).duration_ms == -(-8_000 * 1152 * 1000 // 44_100)
    assert len(data) > 8 * 1024 * 1024
    assert facts_of(data).duration_ms is None


def test_a_tag_with_a_picture_before_the_sound_is_stepped_over() -> None:
    data = mp3(rate=44_100, seconds=5)
    sound = data[data.index(b"\xff\xfb") :]
    for length in (1_000, 300_000):
        tag = b"ID3\x04\0\0" + bytes(length >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"\xff\xfb\x90" * length
        reader = InMemory(tag[: 10 + length] + sound)
        facts = read_audio(reader, len(reader.data), RecognitionSettings())

        assert facts.duration_ms == 5000
        assert sum(size for _, size in reader.reads) < 70_000


def test_a_tag_at_the_end_is_not_counted_as_sound() -> None:
    sound = lone_frames(1_000)

    assert facts_of(sound).duration_ms == facts_of(sound + b"TAG" + bytes(125)).duration_ms


def test_a_file_that_is_cut_off_is_refused() -> None:
    data = mp3(rate=44_100, seconds=10)

    with pytest.raises(RecordingError, match=r"truncated: its header promises \d+,\d+ bytes"):
        facts_of(data[: len(data) // 2])
    with pytest.raises(RecordingError, match="not even its tag"):
        facts_of(b"ID3\x04\0\0\0\x01\0\0" + bytes(60))


def test_layer_two_is_not_mp3() -> None:
    with pytest.raises(RecordingError, match="neither OggOpus nor MP3 nor WAV"):
        facts_of(encoded("mp2", "mp2", rate=44_100, bit_rate=64_000))
