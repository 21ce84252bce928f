"""Requirements on reading Ogg Opus."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import AudioFacts
from airflow_speechkit.recordings.audio.reading import read_audio
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings
from tests.unit.recordings.sounds import InMemory, decoded_seconds, encoded, ogg, with_checksum


def facts_of(data: bytes, *, exact: bool = False) -> AudioFacts:
    return read_audio(InMemory(data), len(data), RecognitionSettings(), exact=exact)


def pages_of(data: bytes) -> list[bytearray]:
    pages = []
    place = 0
    while place < len(data):
        body = place + 27 + data[place + 26]
        end = body + sum(data[place + 27 : body])
        pages.append(bytearray(data[place:end]))
        place = end
    return pages


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


def test_the_length_is_right_if_the_counts_do_not_begin_at_zero() -> None:
    data = ogg(seconds=4)
    joined = b""
    for page in pages_of(data):
        (granule,) = struct.unpack_from("<q", page, 6)
        if granule > 0:
            struct.pack_into("<q", page, 6, granule + 48_000 * 3600)
        joined += page

    assert facts_of(joined).duration_ms == facts_of(data).duration_ms == 4000


def long_recording(pages_in_the_middle: int, *, serial: int = 7) -> bytes:
    """Return a recording whose middle is one page of a second, over and over."""
    pages = pages_of(ogg(seconds=5))
    (granule,) = struct.unpack_from("<q", pages[-2], 6)
    middle = pages[3]
    made = [bytes(page) for page in pages[:-1]]
    for _ in range(pages_in_the_middle):
        granule += 48_000
        struct.pack_into("<q", middle, 6, granule)
        made.append(bytes(middle))
    struct.pack_into("<q", pages[-1], 6, granule + 480)
    return numbered([*made, bytes(pages[-1])], serial=serial)


def numbered(pages: Sequence[bytes], *, serial: int) -> bytes:
    """Return pages with one serial number, and a sequence of their own."""
    return b"".join(page[:14] + struct.pack("<II", serial, sequence) + page[22:] for sequence, page in enumerate(pages))


def test_only_head_and_tail_of_a_long_ogg_are_read() -> None:
    data = long_recording(10_000)
    reader = InMemory(data)
    facts = read_audio(reader, len(data), RecognitionSettings())

    assert len(data) > 20_000_000
    assert facts.duration_ms is not None
    assert facts.duration_ms > 10_000_000
    assert sum(length for _, length in reader.reads) < 200_000
    assert {start for start, _ in reader.reads} == {0, len(data) - 65_307}
    assert facts_of(data, exact=True) == facts


def test_an_ogg_is_read_in_pieces() -> None:
    data = long_recording(3_000)
    reader = InMemory(data)
    read_audio(reader, len(data), RecognitionSettings(), exact=True)

    assert len(data) > 10_000_000
    assert max(length for _, length in reader.reads) <= 2 * 1024 * 1024


def without_end(data: bytes) -> bytes:
    """Return a recording whose last page doesn't say that it is the last."""
    pages = pages_of(data)
    pages[-1][5] &= ~4
    return b"".join(pages)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("serials", [(7, 7), (7, 8), (7, 7, 7), (7, 8, 7)], ids=str)
@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("pages", [0, 400])
def test_concatenated_oggs_are_counted_with_any_serials_and_ends(
    pages: int, ended: bool, serials: tuple[int, ...], exact: bool
) -> None:
    links = [long_recording(pages, serial=serial) for serial in serials]
    joined = b"".join(links if ended else map(without_end, links))
    one = facts_of(links[0], exact=True).duration_ms

    assert one is not None
    # Only a stream's last page may cut off the rest of a packet of 20 ms.
    assert 0 <= (facts_of(joined, exact=exact).duration_ms or 0) - (one - 1) * len(serials) <= 21 * len(serials)
    if not pages:
        decodable = b"".join(with_checksum(page) for page in pages_of(joined))
        assert abs(decoded_seconds(decodable) * 1000 - one * len(serials)) < 100


def test_concatenated_oggs_of_any_lengths_are_counted() -> None:
    for first, second in ((400, 100), (100, 400), (1_000, 300), (2_000, 20)):
        joined = long_recording(first) + long_recording(second)
        facts = facts_of(joined)

        assert facts.duration_ms is not None
        assert abs(facts.duration_ms - (first + second + 10) * 1000) < 1_500
    mixed = ogg(seconds=1, channels=2) + ogg(seconds=2)
    assert (facts_of(mixed).duration_ms, facts_of(mixed).channels) == (3000, 2)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("pages", [0, 1_500])
@pytest.mark.parametrize("lie", ["all zero", "an hour more at the end", "half of it"])
def test_counts_that_contradict_the_packets_are_not_used(lie: str, pages: int, exact: bool) -> None:
    data = long_recording(pages)
    made = b""
    for page in pages_of(data):
        (granule,) = struct.unpack_from("<q", page, 6)
        if lie == "all zero":
            granule = 0
        elif lie == "half of it":
            granule //= 2
        elif page[5] & 4:
            granule += 48_000 * 3600
        struct.pack_into("<q", page, 6, granule)
        made += page

    right = facts_of(data, exact=True).duration_ms
    assert right is not None
    assert abs((facts_of(made, exact=exact).duration_ms or 0) - right) < 25


def test_a_stream_of_another_codec_beside_the_opus_stream_is_ignored() -> None:
    pages = pages_of(ogg(seconds=2))
    index = bytearray(numbered([bytes(pages[0]).replace(b"OpusHead", b"fishead\0")], serial=5))

    assert facts_of(b"".join([index, *pages])).duration_ms == 2000


def test_an_ogg_without_its_first_page_is_refused() -> None:
    with pytest.raises(RecordingError, match="beginning is missing: no stream begins"):
        facts_of(b"".join(pages_of(ogg(seconds=2))[2:]))


def test_bytes_between_the_pages_are_skipped() -> None:
    pages = pages_of(ogg(seconds=2))

    assert facts_of(b"".join([*pages[:-1], bytearray(5_000), pages[-1]])).duration_ms == 2000


def test_bytes_behind_the_last_page_are_ignored() -> None:
    data = ogg(seconds=2)

    assert facts_of(data + b"TAG" + bytes(125)).duration_ms == 2000
    assert facts_of(data + bytes(100_000)).duration_ms == 2000


def test_sound_that_contains_the_page_signature_is_not_a_page() -> None:
    pages = pages_of(ogg(seconds=2))
    pages[-1][60:64] = b"OggS"
    pages[-1][64] = 7

    assert facts_of(b"".join(pages)).duration_ms == 2000


def test_an_ogg_truncated_within_a_page_is_refused() -> None:
    data = ogg(seconds=3)
    ends = set()
    place = 0
    for page in pages_of(data):
        place += len(page)
        ends.add(place)
    for cut in range(1, len(data), 211):
        if cut in ends:
            continue
        with pytest.raises(RecordingError, match=r"truncated|another codec|no sound|a text|no known format"):
            facts_of(data[:cut])


def test_other_codecs_in_ogg_are_refused_by_name() -> None:
    opus = ogg(seconds=1)
    for data, name in (
        (encoded("flac", "ogg", seconds=1, rate=44_100, bit_rate=None), "FLAC"),
        (opus.replace(b"OpusHead", b"\x01vorbis\0"), "Vorbis"),
        (opus.replace(b"OpusHead", b"Whatever"), "another codec"),
    ):
        with pytest.raises(RecordingError, match=f"holds {name}, and.*upload_to"):
            facts_of(data)


def test_an_ogg_that_was_not_written_completely_is_refused() -> None:
    data = ogg(seconds=2)

    with pytest.raises(RecordingError, match="never written to its end"):
        facts_of(data[:100] + bytes(700_000))
    with pytest.raises(RecordingError, match="no sound"):
        facts_of(b"".join(pages_of(data)[:2]))
