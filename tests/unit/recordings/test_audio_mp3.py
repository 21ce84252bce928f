"""Requirements on reading MP3."""

from __future__ import annotations

import struct

import pytest

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.recordings.audio.facts import AudioFacts
from airflow_speechkit.recordings.audio.reading import read_audio
from airflow_speechkit.settings import AudioEncoding, RecognitionSettings
from tests.unit.recordings.sounds import InMemory, decoded_seconds, encoded, mp3


def facts_of(data: bytes, *, exact: bool = False) -> AudioFacts:
    return read_audio(InMemory(data), len(data), RecognitionSettings(), exact=exact)


ID3V2 = b"ID3\x04\0\0"


def seven_bits(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def ms_of_frames(count: int) -> int:
    return -(-count * 1152 * 1000 // 44_100)


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


def test_a_header_without_counts_is_not_used() -> None:
    data = bytearray(mp3(rate=44_100, seconds=20, bit_rate=64_000))
    data[data.index(b"Info") + 7] = 0

    facts = facts_of(bytes(data))

    assert facts.duration_ms is not None
    assert abs(facts.duration_ms - 20_000) < 80


def test_frames_are_counted_after_a_vbri_header() -> None:
    first = bytearray(lone_frames(1))
    first[36:62] = b"VBRI" + struct.pack(">HHHII", 1, 0, 75, 417 * 101, 17) + bytes(8)

    assert facts_of(bytes(first) + lone_frames(100)).duration_ms == ms_of_frames(100)


def test_an_mp3_without_counts_is_read_completely_if_small_or_if_a_limit_depends_on_it() -> None:
    varying = lone_frames(1_000) + lone_frames(1_000, header=b"\xff\xfb\x50\xc4", length=208)
    reader = InMemory(varying * 5)
    facts = read_audio(reader, len(reader.data), RecognitionSettings())

    assert facts_of(varying).duration_ms == ms_of_frames(2_000)
    assert facts.duration_ms is None
    assert facts.longest_ms is not None
    assert facts.longest_ms > ms_of_frames(10_000)
    assert sum(length for _, length in reader.reads) < 200_000
    assert facts_of(reader.data, exact=True).duration_ms == ms_of_frames(10_000)


def test_an_mp3_that_may_be_too_long_is_read_completely_in_pieces() -> None:
    reader = InMemory(lone_frames(1_000) * 20)
    facts = read_audio(reader, len(reader.data), RecognitionSettings())

    assert facts.duration_ms == ms_of_frames(20_000)
    assert max(length for _, length in reader.reads) <= 2 * 1024 * 1024
    assert sum(length for _, length in reader.reads) < len(reader.data) + 300_000


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("field", ["frames", "bytes", "delay"])
def test_a_header_that_contradicts_itself_or_the_file_is_not_used(field: str, exact: bool) -> None:
    data = bytearray(mp3(rate=16_000, seconds=30, quality=0, bit_rate=None))
    place = max(data.find(b"Xing"), data.find(b"Info"))
    for at, value in {"frames": [(8, 3)], "bytes": [(12, 5_000)], "delay": [(141, 0xFFFFFF00)]}[field]:
        struct.pack_into(">I", data, place + at, value)

    assert abs((facts_of(bytes(data), exact=exact).duration_ms or 0) - 30_000) < 150
    # Of another encoder, without a checksum.
    data[place + 120 : place + 124] = bytes(4)
    assert abs((facts_of(bytes(data), exact=exact).duration_ms or 0) - 30_000) < 150


def test_a_header_without_a_checksum_proves_nothing() -> None:
    data = bytearray(mp3(rate=44_100, seconds=120, bit_rate=128_000))
    place = data.index(b"Info")
    data[place + 154 : place + 156] = bytes(2)
    frames = struct.unpack_from(">I", data, place + 8)[0]

    assert facts_of(bytes(data)).duration_ms is None
    assert facts_of(bytes(data), exact=True).duration_ms == ms_of_frames(frames)


@pytest.mark.parametrize("count", [2, 4, 7])
@pytest.mark.parametrize("quality", [None, 0])
def test_concatenated_mp3s_have_the_length_that_a_decoder_gets(quality: int | None, count: int) -> None:
    one = mp3(rate=16_000, seconds=9, quality=quality, bit_rate=None if quality == 0 else 32_000)
    facts = facts_of(one * count)

    assert facts.duration_ms is not None
    # A decoder loses up to a frame of 36 ms at each joint.
    assert abs(facts.duration_ms - decoded_seconds(one * count) * 1000) < 110 + 36 * count
    assert facts.duration_ms >= 9_000 * count


def test_concatenated_mp3s_with_different_rates_are_counted() -> None:
    parts = [
        mp3(rate=44_100, channels=2, seconds=3),
        mp3(rate=8_000, seconds=4, write_id3v1="1"),
        mp3(rate=16_000, seconds=5, write_xing="0", id3v2_version="3"),
    ]
    for joined in (b"".join(parts), b"".join(reversed(parts)), b"\0".join(parts), bytes(700).join(parts)):
        facts = facts_of(joined)
        assert facts.channels == 2
        assert facts.duration_ms is not None
        assert abs(facts.duration_ms - 12_000) < 700


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("tag", ["id3v2 to the end", "id3v2 far behind the end", "ape to the end", "ape"])
def test_sound_within_the_declared_length_of_a_tag_is_counted(tag: str, counted: bool) -> None:
    one = mp3(rate=16_000, seconds=9, bit_rate=32_000, write_xing=str(int(counted)), id3v2_version="0")
    more = one * 3
    ape = b"APETAGEX" + struct.pack("<IIIQI", 2000, len(more), 1, 0, 0)
    joined = {
        "id3v2 to the end": one + ID3V2 + seven_bits(len(more)) + more,
        "id3v2 far behind the end": one + ID3V2 + seven_bits(60_000_000) + more,
        "ape to the end": one + ape + more,
        "ape": one + b"APETAGEX" + struct.pack("<IIIQI", 2000, 0x7FFFFFFF, 1, 0, 0) + more,
    }[tag]
    facts = facts_of(joined, exact=True)
    assert facts.duration_ms is not None
    assert facts.duration_ms > decoded_seconds(joined) * 1000 - 40


def test_bytes_that_are_no_frames_do_not_count() -> None:
    data = lone_frames(100) + b"nothing of the kind " * 400 + bytes(100_000) + lone_frames(100)

    assert facts_of(data).duration_ms == ms_of_frames(200)


def test_with_many_bytes_that_are_no_frames_the_length_is_unknown() -> None:
    data = lone_frames(200) + encoded("mp2", "mp2", rate=44_100, bit_rate=64_000, seconds=5)

    facts = facts_of(data, exact=True)
    assert facts.duration_ms is None
    assert facts.longest_ms is not None
    assert facts.longest_ms > ms_of_frames(200) + 5000


def id3v2(length: int, content: bytes = b"\0") -> bytes:
    return ID3V2 + seven_bits(length) + (content * (length // len(content) + 1))[:length]


APE = b"APETAGEX" + struct.pack("<IIII", 2000, 72, 3, 1 << 31 | 1 << 29) + bytes(8)
TAGS = {
    "two ID3v2": (id3v2(2_000) + id3v2(40_000), b""),
    "three ID3v2 with pictures": (id3v2(300, b"\xff\xfb\x90") + id3v2(90_000, b"\xff\xfb\x90") * 2, b""),
    "ID3v2 and long padding": (id3v2(1_000) + bytes(100_000), b""),
    "APEv2 before": (APE + bytes(2_000), b""),
    "APEv2 behind": (b"", APE + bytes(2_000)),
    "ID3v2 behind": (b"", id3v2(5_000)),
    "ID3v1 behind": (b"", b"TAG" + bytes(125)),
    "APEv2 and ID3v1 behind": (id3v2(10), APE + bytes(2_000) + b"TAG" + bytes(125)),
    "zeros behind": (b"", bytes(60_000)),
    "everything": (id3v2(9) + APE + bytes(2_000), id3v2(800) + bytes(9) + b"TAG" + bytes(125)),
}


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("exact", [False, True])
def test_tags_are_skipped_before_and_after_the_sound(tags: str, exact: bool) -> None:
    before, behind = TAGS[tags]
    whole = mp3(rate=44_100, seconds=5, bit_rate=128_000)
    sound = whole[whole.index(b"\xff\xfb") :]
    uncounted = lone_frames(300)

    assert facts_of(before + sound + behind, exact=exact).duration_ms == 5000
    assert facts_of(before + uncounted + behind, exact=exact).duration_ms == ms_of_frames(300)


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("tags", [(b"", b""), (id3v2(30), b""), (b"", b"TAG" + bytes(125)), (id3v2(9), bytes(300))])
def test_an_mp3_may_have_few_frames(count: int, tags: tuple[bytes, bytes]) -> None:
    for header, length in ((b"\xff\xfb\x90\xc4", 417), (b"\xff\xe3\x48\xc4", 288)):
        facts = facts_of(tags[0] + lone_frames(count, header=header, length=length) + tags[1])

        assert facts.encoding is AudioEncoding.MP3
        assert facts.duration_ms == -(-count * (1152 if length == 417 else 576) * 1000 // facts.sample_rate_hertz)


def test_a_header_without_any_frame_is_refused() -> None:
    first = lone_frames(1)

    with pytest.raises(RecordingError, match="no sound in it: not one whole frame"):
        facts_of(first[:21] + b"Info" + first[25:])


def test_a_tag_with_a_picture_before_the_sound_is_skipped() -> None:
    data = mp3(rate=44_100, seconds=5)
    sound = data[data.index(b"\xff\xfb") :]
    for length in (1_000, 300_000):
        tag = b"ID3\x04\0\0" + bytes(length >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"\xff\xfb\x90" * length
        reader = InMemory(tag[: 10 + length] + sound)
        facts = read_audio(reader, len(reader.data), RecognitionSettings())

        assert facts.duration_ms == 5000
        assert sum(size for _, size in reader.reads) < 200_000


def test_a_tag_at_the_end_is_not_counted_as_sound() -> None:
    sound = lone_frames(1_000)

    assert facts_of(sound).duration_ms == facts_of(sound + b"TAG" + bytes(125)).duration_ms


def test_a_truncated_mp3_is_refused() -> None:
    data = mp3(rate=44_100, seconds=10)

    with pytest.raises(RecordingError, match=r"truncated: its header promises \d+,\d+ bytes"):
        facts_of(data[: len(data) // 2])
    with pytest.raises(RecordingError, match="nothing comes after its tags"):
        facts_of(b"ID3\x04\0\0\0\x01\0\0" + bytes(60))


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_other_mpeg_audio_is_refused_by_name(rate: int) -> None:
    with pytest.raises(RecordingError, match=r"Layer II \(mp2\).*upload_to"):
        facts_of(encoded("mp2", "mp2", rate=rate, bit_rate=64_000))
