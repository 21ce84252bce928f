"""Requirements on reading Ogg Opus."""

from __future__ import annotations

import struct

import pytest

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio import AudioFacts, read_audio
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings
from tests.unit.recordings.sounds import InMemory, decoded_seconds, encoded, ogg


def facts_of(data: bytes) -> AudioFacts:
    return read_audio(InMemory(data), len(data), RecognitionSettings())


def pages_of(data: bytes) -> list[bytearray]:
    starts = [place for place in range(len(data)) if data.startswith(b"OggS\0", place)]
    return [bytearray(data[start:end]) for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


@pytest.mark.parametrize(
    ("seconds", "channels", "rate"), [(0.5, 1, 48_000), (2, 2, 48_000), (3.3333, 1, 16_000), (31.0071, 2, 8_000)]
)
def test_the_length_is_exactly_what_a_decoder_gets(seconds: float, channels: int, rate: int) -> None:
    data = ogg(seconds=seconds, channels=channels, rate=rate)
    facts = facts_of(data)

    assert facts == AudioFacts(
        encoding=AudioEncoding.OGG_OPUS,
        sample_rate_hertz=48_000,
        channels=channels,
        duration_ms=facts.duration_ms,
        size_bytes=len(data),
    )
    assert facts.duration_ms is not None
    assert 0 <= facts.duration_ms - decoded_seconds(data) * 1000 < 1


def test_a_recorder_that_joined_a_running_stream_does_not_make_the_recording_longer() -> None:
    data = ogg(seconds=4)
    joined = b""
    for page in pages_of(data):
        (granule,) = struct.unpack_from("<q", page, 6)
        if granule > 0:
            struct.pack_into("<q", page, 6, granule + 48_000 * 3600)
        joined += page

    assert facts_of(joined).duration_ms == facts_of(data).duration_ms == 4000


def test_a_long_recording_is_read_in_its_head_and_its_tail_only() -> None:
    pages = pages_of(ogg(seconds=5))
    (granule,) = struct.unpack_from("<q", pages[-2], 6)
    middle = bytearray()
    for _ in range(10_000):
        granule += 48_000
        struct.pack_into("<q", pages[3], 6, granule)
        middle += pages[3]
    struct.pack_into("<q", pages[-1], 6, granule + 480)
    data = b"".join([*pages[:-1], bytes(middle), pages[-1]])
    reader = InMemory(data)
    facts = read_audio(reader, len(data), RecognitionSettings())

    assert len(data) > 20_000_000
    assert facts.duration_ms is not None
    assert facts.duration_ms > 10_000_000
    assert sum(length for _, length in reader.reads) < 200_000
    assert {start for start, _ in reader.reads} == {0, len(data) - 65_307}


def test_one_recording_appended_to_another_has_no_length_that_its_ends_could_tell() -> None:
    assert facts_of(ogg(seconds=1) + ogg(seconds=2)).duration_ms is None
    assert facts_of(ogg(seconds=1) + ogg(seconds=40, bit_rate=64_000)).duration_ms is None


def test_what_was_added_behind_the_last_page_does_not_hide_it() -> None:
    data = ogg(seconds=2)

    assert facts_of(data + b"TAG" + bytes(125)).duration_ms == 2000
    assert facts_of(data + bytes(100_000)).duration_ms == 2000


def test_sound_that_spells_a_page_s_beginning_is_not_taken_for_one() -> None:
    pages = pages_of(ogg(seconds=2))
    pages[-1][60:64] = b"OggS"
    pages[-1][64] = 7

    assert facts_of(b"".join(pages)).duration_ms == 2000


def test_a_recording_that_is_cut_off_anywhere_is_refused_or_counted_as_what_is_there() -> None:
    data = ogg(seconds=3)
    ends = set()
    place = 0
    for page in pages_of(data):
        place += len(page)
        ends.add(place)
    for cut in range(1, len(data), 211):
        if cut in ends:
            continue
        with pytest.raises(RecordingError, match=r"truncated|no Opus stream|neither OggOpus|no sound"):
            facts_of(data[:cut])


def test_other_codecs_in_ogg_are_refused_by_name() -> None:
    opus = ogg(seconds=1)
    for data, name in (
        (encoded("flac", "ogg", seconds=1, rate=44_100, bit_rate=None), "FLAC"),
        (opus.replace(b"OpusHead", b"\x01vorbis\0"), "Vorbis"),
        (opus.replace(b"OpusHead", b"Whatever"), "no Opus stream"),
    ):
        with pytest.raises(RecordingError, match=f"holds {name}, and.*libopus"):
            facts_of(data)


def test_a_file_that_was_never_written_to_its_end_is_refused() -> None:
    data = ogg(seconds=2)

    with pytest.raises(RecordingError, match="never written to its end"):
        facts_of(data[:100] + bytes(700_000))
    with pytest.raises(RecordingError, match="no sound"):
        facts_of(b"".join(pages_of(data)[:2]))
