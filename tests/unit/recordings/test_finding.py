"""What lies beside recordings is left out, and no recording with it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_speechkit.errors import RecordingNotFoundError
from airflow_speechkit.recordings.bucket import Bucket
from airflow_speechkit.recordings.finder import Choice, find_recordings
from airflow_speechkit.recordings.pattern import parse_pattern
from tests.unit.recordings.sounds import mp3, ogg, wav

BESIDE = {
    "in/": b"",
    "in/1.ogg.transcript.json": b'{"channels": []}',
    "in/notes.txt": b"not a recording",
    "in/UPPER.TXT": b"ID please",
    "in/.DS_Store": b"\0\0\0\1Bud1",
    "in/._1.ogg": b"\0\5\x16\7",
    "in/_SUCCESS": b"",
    "in/sub_$folder$": b"",
    "in/sub/": b"",
    "in/part-0.parquet": b"PAR1",
    "in/page.html": b"<html></html>",
    "in/calls.zip": b"PK\3\4",
    "in/utf16.csv": "a;b".encode("utf-16"),
}


@pytest.fixture
def client(s3_client: Any) -> Any:
    s3_client.create_bucket(Bucket="calls", CreateBucketConfiguration={"LocationConstraint": "ru-central1"})
    return s3_client


def find(client: Any, objects: dict[str, bytes], text: str, choice: Choice | None = None) -> list[str]:
    """Return the keys of the recordings."""
    for key, data in objects.items():
        client.put_object(Bucket="calls", Key=key, Body=data)
    try:
        found = find_recordings(Bucket(client), parse_pattern(text), choice or Choice())
    except RecordingNotFoundError:
        return []
    return [one.address.key for one in found]


def test_only_audio_is_selected_and_one_line_counts_the_rest(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    sound = ogg()
    with caplog.at_level(logging.INFO, "airflow_speechkit.recordings.finder"):
        keys = find(client, {**BESIDE, "in/1.ogg": sound, "in/sub/2.OGG": sound}, "s3://calls/in/")
    assert keys == ["in/1.ogg", "in/sub/2.OGG"]
    [line] = [record.getMessage() for record in caplog.records]
    assert f"2 recordings. Left out: 0 by `include` and `exclude`, {len(BESIDE)} that aren't audio (such as in/" in line


def test_nothing_is_logged_if_nothing_is_left_out(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "airflow_speechkit.recordings.finder"):
        find(client, {"1.ogg": ogg()}, "s3://calls/")
    assert not caplog.records


@pytest.mark.parametrize(
    "data",
    [
        ogg(),
        mp3(),
        b"ID3\4\0\0\0\x01\x1c\x20" + bytes(20_000) + mp3(),
        wav(),
        b"fLaC" + bytes(100),
        b"\0\0\0\x20ftypM4A " + bytes(100),
        b"#!AMR\n" + bytes(100),
    ],
    ids=["ogg", "mp3", "mp3 with a long tag", "wav", "flac", "m4a", "amr"],
)
@pytest.mark.parametrize("name", ["in/17", "in/17.tmp", "in/17.json"])
def test_a_file_with_the_first_bytes_of_audio_is_a_recording_with_any_name(client: Any, name: str, data: bytes) -> None:
    assert find(client, {name: data}, "s3://calls/in/") == [name]


@pytest.mark.parametrize("name", ["in/1.m4a", "in/1.FLAC", "in/1.amr", "in/1.pcm", "in/1.ogg", "in/1.sln16"])
@pytest.mark.parametrize("data", [b"", b"anything"])
def test_a_file_with_an_audio_extension_is_always_a_recording(client: Any, name: str, data: bytes) -> None:
    assert find(client, {name: data}, "s3://calls/in/") == [name]


def test_an_extension_in_the_glob_is_a_recording(client: Any) -> None:
    objects = {"1.dat": b"samples", "2.DAT": b"samples", "3.dat/": b"", "4.json": b"{}"}
    assert find(client, objects, "s3://calls/*.dat") == ["1.dat"]
    assert find(client, objects, "s3://calls/*.{ogg,dat}") == ["1.dat"]
    assert find(client, objects, "s3://calls/**") == []


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        (Choice(include=["*.ogg"]), ["in/1.ogg", "in/a/2.ogg", "in/a/test.ogg"]),
        (Choice(include=["*.ogg", "*.wav"], exclude=["test*"]), ["in/1.ogg", "in/a/2.ogg", "in/a/3.wav"]),
        (Choice(exclude=["a/"]), ["in/1.ogg"]),
        (Choice(exclude=["in/a/**"]), ["in/1.ogg"]),
        (Choice(exclude=["a/*.ogg"]), ["in/1.ogg", "in/a/3.wav"]),
        (Choice(include=["a/[!t]*"]), ["in/a/2.ogg", "in/a/3.wav"]),
        (Choice(include=["*.{ogg,wav}"], exclude=["{te,x}*"]), ["in/1.ogg", "in/a/2.ogg", "in/a/3.wav"]),
        (Choice(include=["{1.ogg,a/*.wav}"]), ["in/1.ogg", "in/a/3.wav"]),
        (Choice(include=["*.json"]), []),
        (Choice(exclude=["*"]), []),
    ],
    ids=str,
)
def test_include_and_exclude_select_objects(client: Any, choice: Choice, found: list[str]) -> None:
    objects = {"in/1.ogg": b"x", "in/a/2.ogg": b"x", "in/a/3.wav": b"x", "in/a/test.ogg": b"x", "in/a/x.json": b"{}"}
    assert find(client, objects, "s3://calls/in/", choice) == found


def test_excluded_objects_are_not_read(client: Any) -> None:
    read: list[str] = []
    client.meta.events.register("before-call.s3.GetObject", lambda **about: read.append(str(about)))
    find(client, {"1.ogg": b"x", "1.json": b"{}", "_SUCCESS": b""}, "s3://calls/", Choice(exclude=["*.json"]))
    assert not read


def test_the_error_for_an_empty_listing_counts_what_was_left_out(client: Any) -> None:
    for key in ("in/1.json", "in/2.ogg"):
        client.put_object(Bucket="calls", Key=key, Body=b"{}")
    with pytest.raises(RecordingNotFoundError, match=r"out: 1 by `include` and `exclude`, 1 that .* as in/1\.json"):
        find_recordings(Bucket(client), parse_pattern("s3://calls/in/"), Choice(exclude=["*.ogg"]))
