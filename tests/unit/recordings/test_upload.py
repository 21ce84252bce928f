"""Requirements on local recordings that are put into a bucket, against a real S3 server."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.errors import RecordingError
from airflow_speechkit.models import RecordingAddress
from airflow_speechkit.recordings.audio.facts import settle
from airflow_speechkit.recordings.bucket import Bucket, Probe
from airflow_speechkit.recordings.conversion.copies import CopyFolder
from airflow_speechkit.recordings.upload import parse_upload_to, upload_local
from airflow_speechkit.settings import ApiVersion, AudioEncoding, RecognitionSettings
from tests.unit.recordings.sounds import ogg, wav, wav_format, wav_of_chunks

V2 = RecognitionSettings()
V3 = RecognitionSettings(api_version=ApiVersion.V3)
FOLDER = RecordingAddress("calls", "in/", "own")


@pytest.fixture
def client(s3_client: Any) -> Any:
    """A client of a storage with one empty bucket."""
    s3_client.create_bucket(Bucket="calls", CreateBucketConfiguration={"LocationConstraint": "ru-central1"})
    return s3_client


def stored(client: Any, key: str) -> bytes:
    body: bytes = client.get_object(Bucket="calls", Key=key)["Body"].read()
    return body


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def upload(client: Any, path: Path, settings: RecognitionSettings, folder: RecordingAddress = FOLDER) -> Probe:
    return upload_local(CopyFolder(Bucket(client), folder, settings, converts=False), path)


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_pcm_wav_is_unwrapped_for_v2(client: Any, tmp_path: Path, rate: int, channels: int) -> None:
    data = wav(rate, channels, seconds=1)
    probe = upload(client, written(tmp_path, "call 1.wav", data), V2)

    assert stored(client, probe.stored.address.key) == data[-2 * rate * channels :]
    assert probe.stored.address.key.startswith("in/call 1-")
    assert probe.stored.address.key.endswith(".lpcm")
    assert probe.stored.address.conn_id == "own"
    settings = settle(V2, probe.facts)
    assert settings == replace(
        V2, audio_encoding=AudioEncoding.LINEAR16_PCM, sample_rate_hertz=rate, audio_channel_count=channels
    )
    assert (probe.facts.duration_ms, probe.stored.size_bytes) == (1000, 2 * rate * channels)
    assert Bucket(client).probe(probe.stored.address, settings).facts == probe.facts


def test_chunks_behind_the_samples_are_not_uploaded(client: Any, tmp_path: Path) -> None:
    data = wav_of_chunks((b"fmt ", wav_format(8000)), (b"data", b"ab" * 8000), (b"LIST", b"c" * 99))
    probe = upload(client, written(tmp_path, "1.wav", data), V2)

    assert stored(client, probe.stored.address.key) == b"ab" * 8000


def test_samples_behind_the_data_chunk_are_left_out_with_a_warning(
    client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = wav_of_chunks((b"fmt ", wav_format(8000)), (b"data", b"ab" * 8000)) + b"cd" * 24_000
    path = written(tmp_path, "1.wav", data)
    probe = upload(client, path, V2)

    assert stored(client, probe.stored.address.key) == b"ab" * 8000
    assert (probe.facts.duration_ms, probe.facts.longest_ms) == (1000, None)
    assert f"{path}: 48,000 bytes behind its samples are no part of a WAV" in caplog.text
    assert upload(client, path, V3).facts.duration_ms is None


def test_a_local_recording_is_read_completely_if_its_head_does_not_prove_its_length(
    client: Any, tmp_path: Path
) -> None:
    frames = (b"\xff\xfb\x90\xc4" + bytes(413)) * 4_000
    path = written(tmp_path, "1.mp3", frames)

    assert upload(client, path, V2).facts.duration_ms == -(-4_000 * 1152 * 1000 // 44_100)


def test_other_recordings_and_all_for_v3_are_uploaded_unchanged(client: Any, tmp_path: Path) -> None:
    for name, data, wanted in (("1.ogg", ogg(), V2), ("1.wav", wav(44_100), V3)):
        probe = upload(client, written(tmp_path, name, data), wanted)

        assert stored(client, probe.stored.address.key) == data
        assert probe.stored.address.key.endswith(Path(name).suffix)
        assert settle(wanted, probe.facts).sample_rate_hertz is None


def test_the_same_file_gets_the_same_key_and_is_not_written_again(client: Any, tmp_path: Path) -> None:
    made: Counter[str] = Counter()
    client.meta.events.register("before-send.s3.*", lambda event_name, **_: made.update([event_name.split(".")[-1]]))
    path = written(tmp_path, "1.wav", wav(seconds=1))
    first = upload(client, path, V2)
    os.utime(path, (0, 0))
    made.clear()
    second = upload(client, path, V2)

    assert second == first
    assert made == {"HeadObject": 1}
    other = upload(client, written(tmp_path, "1.wav", wav(seconds=2)), V2)
    assert other.stored.address != first.stored.address


def test_a_long_recording_is_uploaded_in_parts_and_keeps_the_same_etag(client: Any, tmp_path: Path) -> None:
    samples = os.urandom(96_000) * 200
    path = written(tmp_path, "long.wav", wav_of_chunks((b"fmt ", wav_format(48_000)), (b"data", samples)))
    first = upload(client, path, V2)

    assert stored(client, first.stored.address.key) == samples
    assert str(first.stored.etag).endswith("-3")
    client.delete_object(Bucket="calls", Key=first.stored.address.key)
    assert upload(client, path, V2).stored.etag == first.stored.etag


def test_an_incomplete_upload_is_repeated(client: Any, tmp_path: Path) -> None:
    path = written(tmp_path, "1.ogg", ogg())
    key = upload(client, path, V2).stored.address.key
    client.put_object(Bucket="calls", Key=key, Body=ogg()[:100])

    assert upload(client, path, V2).stored.address.key == key
    assert stored(client, key) == ogg()


@pytest.mark.parametrize("removed", [False, True])
def test_an_upload_of_a_changing_file_is_not_reused(client: Any, tmp_path: Path, removed: bool) -> None:
    path = written(tmp_path, "1.ogg", ogg())

    def change(**_: object) -> None:
        client.meta.events.unregister("before-call.s3.PutObject", change)
        path.write_bytes(b"x" * len(ogg()))
        if removed:
            path.unlink()

    client.meta.events.register("before-call.s3.PutObject", change)
    with pytest.raises(RecordingError, match=r"changed while it was uploaded.*A retry uploads the new content"):
        upload(client, path, V2)
    assert [one["Size"] for one in client.list_objects_v2(Bucket="calls")["Contents"]] == [0]
    path.write_bytes(ogg())
    again = upload(client, path, V2)
    assert stored(client, again.stored.address.key) == ogg()


@pytest.mark.parametrize(
    ("name", "data", "wanted", "what"),
    [
        ("1.wav", wav(44_100), V2, "44100 Hz.*converted"),
        ("1.wav", wav()[:5_000], V2, "truncated"),
        (
            "1.ogg",
            wav(),
            replace(V2, audio_encoding=AudioEncoding.OGG_OPUS),
            "audio_encoding is LINEAR16_PCM, and the setting says OGG_OPUS",
        ),
        ("1.ogg", b"", V2, "empty"),
        ("1.wav", wav(codec="pcm_alaw"), V2, "A-law"),
    ],
)
def test_a_refused_recording_is_not_uploaded(
    client: Any, tmp_path: Path, name: str, data: bytes, wanted: RecognitionSettings, what: str
) -> None:
    path = written(tmp_path, name, data)

    with pytest.raises(RecordingError, match=what) as refused:
        upload(client, path, wanted)
    assert refused.value.recording == str(path)
    assert "Contents" not in client.list_objects_v2(Bucket="calls")


def test_a_missing_file_or_a_directory_is_refused(client: Any, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"can't be read \(No such file or directory\)"):
        upload(client, tmp_path / "nothing.wav", V2)
    with pytest.raises(RecordingError, match=r"a regular file"):
        upload(client, tmp_path, V2)
    with pytest.raises(RecordingError, match="a regular file"):
        upload(client, Path("/dev/null"), V2)


def test_a_missing_bucket_is_refused(client: Any, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such bucket"):
        upload(client, written(tmp_path, "1.ogg", ogg()), V2, RecordingAddress("nowhere", ""))


def test_the_folder_to_upload_to_is_read_from_its_address() -> None:
    assert parse_upload_to("s3://calls") == RecordingAddress("calls", "")
    assert parse_upload_to("s3://calls/in") == parse_upload_to("s3://calls/in/") == RecordingAddress("calls", "in/")
    assert parse_upload_to("s3://own@calls/a/b") == RecordingAddress("calls", "a/b/", "own")
    for wrong in (
        "calls/in",
        "https://storage.yandexcloud.net/calls/",
        "s3://",
        "s3://calls/*/",
        "s3://a:SECRET@calls/",
    ):
        with pytest.raises(RecordingError) as refused:
            parse_upload_to(wrong)
        assert "SECRET" not in str(refused.value)
