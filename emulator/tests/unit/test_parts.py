"""The emulator's pure parts: clock, quota, billing, links, first bytes, transcripts, faults."""

from __future__ import annotations

import json

import pytest

from speechkit_emulator.audio import wrong_container
from speechkit_emulator.clock import ScaledClock, timestamp
from speechkit_emulator.faults import FaultPlan, UnknownFaultError, read_fault
from speechkit_emulator.operation import billed_seconds
from speechkit_emulator.quota import Quota
from speechkit_emulator.storage import NotALinkError, find_object
from speechkit_emulator.transcript import TranscriptError, read_transcript, spread
from speechkit_emulator.v2 import duration


def test_the_clock_runs_at_its_speed_and_can_be_advanced() -> None:
    clock = ScaledClock(speed=60, wall_s=1000, service_s=5000)
    assert clock.at(1002) == 5120
    assert clock.advanced(3600).at(1002) == 8720
    assert clock.wall_at(5120) == 1002


def test_a_change_of_speed_does_not_make_the_clock_jump() -> None:
    clock = ScaledClock(speed=60, wall_s=1000, service_s=5000)
    slower = clock.at_speed(1, wall_s=1010)
    assert slower.at(1010) == clock.at(1010)
    assert slower.at(1011) == clock.at(1010) + 1


def test_times_are_written_in_whole_seconds_of_utc() -> None:
    assert timestamp(1754772533.9) == "2025-08-09T20:48:53Z"


def test_a_quota_accepts_requests_again_when_its_window_has_moved_on() -> None:
    quota = Quota(2, 3600)
    assert [quota.take(0), quota.take(1), quota.take(2)] == [True, True, False]
    assert [quota.take(3599.9), quota.take(3600), quota.take(3600.5)] == [False, True, False]


@pytest.mark.parametrize(
    ("ms", "channels", "charged"), [(1000, 1, 15), (1000, 2, 15), (1000, 3, 30), (15500, 2, 16), (15500, 4, 32)]
)
def test_billed_seconds_follow_the_price_list(ms: int, channels: int, charged: int) -> None:
    assert billed_seconds(ms, channels) == charged


@pytest.mark.parametrize(
    ("link", "place"),
    [
        ("https://storage.yandexcloud.net/b/dir/a%20b.ogg", ("b", "dir/a b.ogg")),
        ("https://storage.yandexcloud.net/b//k", ("b", "/k")),
        ("https://b.storage.yandexcloud.net//k", ("b", "/k")),
        ("http://127.0.0.1:9000/b//dir//k", ("b", "/dir//k")),
        ("https://storage.yandexcloud.net/b/k?X-Amz-Signature=1", ("b", "k")),
        ("https://b.storage.yandexcloud.net/dir/k", ("b", "dir/k")),
        ("https://my.b.storage.yandexcloud.net/k", ("my.b", "k")),
        ("http://127.0.0.1:9000/b/k", ("b", "k")),
        ("http://localhost:9000/b/%D1%8F", ("b", "я")),
    ],
)
def test_a_link_gives_its_bucket_and_key(link: str, place: tuple[str, str]) -> None:
    assert find_object(link, "http://127.0.0.1:9000") == place


@pytest.mark.parametrize(
    "link",
    [
        "https://example.com/b/k",
        "s3://b/k",
        "http://127.0.0.1:9001/b/k",
        "https://storage.yandexcloud.net/b",
        "https://storage.yandexcloud.net.example.com/b/k",
        "https://storage.yandexcloud.net//k",
        "https://b.storage.yandexcloud.net/",
        "https://[bad",
        "https://storage.yandexcloud.net:99999999/b/k",
        "https://storage.yandexcloud.net/b b/k",
        "https://storage.yandexcloud.net/b/\ud800",
    ],
)
def test_other_links_are_refused(link: str) -> None:
    with pytest.raises(NotALinkError):
        find_object(link, "http://127.0.0.1:9000")


@pytest.mark.parametrize(
    ("head", "encoding", "words"),
    [
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "OGG_OPUS", "ogg header has not been found"),
        (b"OggS" + bytes(24) + b"\x01vorbis", "OGG_OPUS", "ogg header has not been found"),
        (b"OggS" + bytes(24) + b"OpusHead", "OGG_OPUS", None),
        (b"ID3\x04", "MP3", None),
        (b"\xff\xf3\x84", "MP3", None),
        (b"OggS", "MP3", "mp3 header has not been found"),
        (b"", "MP3", "mp3 header has not been found"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "LINEAR16_PCM", None),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "WAV", "wav header has not been found"),
    ],
)
def test_a_wrong_container_is_recognised_by_its_first_bytes(head: bytes, encoding: str, words: str | None) -> None:
    assert wrong_container(head, encoding) == words


@pytest.mark.parametrize(("ms", "text"), [(0, "0s"), (3000, "3s"), (20, "0.020s"), (10179, "10.179s")])
def test_durations_have_no_decimals_or_three(ms: int, text: str) -> None:
    assert duration(ms) == text


def test_words_of_a_text_without_times_are_spread_evenly() -> None:
    words = spread("Hello, big world", 1000, 4000)
    assert [word.word for word in words] == ["hello", "big", "world"]
    assert [word.start_ms for word in words] == [1000, 2000, 3000]
    assert all(word.start_ms < word.end_ms <= 4000 for word in words)


def test_utterances_are_ordered_by_their_end_with_channels_interleaved() -> None:
    document = {
        "channels": [
            {"utterances": [{"text": "one", "start_ms": 0, "end_ms": 5000}]},
            {"utterances": [{"text": "two", "start_ms": 1000, "end_ms": 2000}]},
        ]
    }
    assert [one.text for one in read_transcript(json.dumps(document).encode()).utterances] == ["two", "one"]


def test_silent_channels_are_counted() -> None:
    document = {"channels": [{"utterances": [{"text": "a"}]}, {"utterances": []}, {"utterances": []}]}
    assert read_transcript(json.dumps(document).encode()).channels == 3


def test_utterances_with_a_channel_each_keep_their_order() -> None:
    document = {"utterances": [{"channel": 1, "text": "b", "start_ms": 9000}, {"channel": 0, "text": "a"}]}
    assert [one.channel for one in read_transcript(json.dumps(document).encode()).utterances] == [1, 0]


@pytest.mark.parametrize(
    "content",
    [
        b"nonsense",
        b"[]",
        b'{"channels": [{"utterances": [{"text": "a", "start_ms": 5, "end_ms": 1}]}]}',
    ],
)
def test_an_invalid_transcript_is_refused(content: bytes) -> None:
    with pytest.raises(TranscriptError):
        read_transcript(content)


def test_a_fault_fires_for_times_requests_after_the_first_ones() -> None:
    plan = FaultPlan()
    plan.add(read_fault({"kind": 503, "on": "operation", "times": 2, "after": 1, "match": "e03a"}))
    met = [bool(plan.strike("operation", path)) for path in ("e03a", "e03b", "e03a", "e03a", "e03a")]
    assert met == [False, False, True, True, False]
    assert not plan.strike("submit", "e03a")


def test_a_fault_that_ends_the_request_leaves_later_faults_planned() -> None:
    plan = FaultPlan()
    plan.add(read_fault({"kind": "500"}))
    plan.add(read_fault({"kind": "drop_before"}))
    assert [fault.kind for fault in plan.strike("submit", "")] == ["500"]
    assert [fault.kind for fault in plan.strike("submit", "")] == ["drop_before"]


@pytest.mark.parametrize(
    "value",
    [{}, {"kind": "302"}, {"kind": "500", "on": "lunch"}, {"kind": "500", "oftem": 1}, {"kind": "500", "form": "odd"}],
)
def test_an_unknown_fault_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(UnknownFaultError):
        read_fault(value)
