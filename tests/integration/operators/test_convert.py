"""Recordings that the API doesn't take are converted once, and everything but the copy's address is the source's."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import pyarrow.parquet as pq
import pytest
from airflow.exceptions import AirflowException

from airflow_speechkit.cli import main
from airflow_speechkit.errors import RecordingError, SpeechKitError
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from tests.fixtures.direct import OGG, Desk
from tests.unit.recordings.clicks import written


def upload_to(desk: Desk) -> str:
    return f"s3://{desk.bucket}/{desk.prefix}-copies/"


def submit(desk: Desk, audio: Any, **kwargs: Any) -> Any:
    given = {"language": "en-US", "upload_to": upload_to(desk), **kwargs}
    return SpeechKitSubmitOperator(task_id="submit", audio=audio, **given).execute({})


def wait(ids: Any) -> None:
    SpeechKitRecognitionSensor(task_id="wait", operation_id=ids, poke_interval=0.1, deferrable=False).execute({})


def copies(desk: Desk, client: Any) -> list[str]:
    listed = client.list_objects_v2(Bucket=desk.bucket, Prefix=f"{desk.prefix}-copies/")
    return [one["Key"].rpartition("/")[2] for one in listed.get("Contents", ())]


def billed(desk: Desk) -> list[dict[str, Any]]:
    return [one for one in desk.emulator.billing() if f"{desk.prefix}-copies/" in str(one)]


KINDS = {
    "a-law.wav": ("pcm_alaw", "wav", 8_000, "LINEAR16_PCM", "WAV"),
    "pcm.wav": ("pcm_s16le", "wav", 8_000, "LINEAR16_PCM", None),
    "music.flac": ("flac", "flac", 44_100, "LINEAR16_PCM", "WAV"),
    "phone.m4a": ("aac", "mp4", 44_100, "OGG_OPUS", "OGG_OPUS"),
    "browser.webm": ("libopus", "webm", 48_000, "OGG_OPUS", "OGG_OPUS"),
}


@pytest.mark.parametrize("api_version", ["v2", "v3"])
def test_each_kind_is_converted_and_recognised(desk: Desk, emulator_s3: Any, tmp_path: Path, api_version: str) -> None:
    """One prefix with all kinds, to rows."""
    for name, (codec, container, rate, *_) in KINDS.items():
        desk.put(name, written(codec, container, rate))
    root = f"s3://{desk.bucket}/{desk.prefix}"
    ids = submit(desk, f"{root}/", api_version=api_version, labels={"night": "1"})
    archive = desk.archive
    expected = {f"{root}/{name}": kind[3 if api_version == "v2" else 4] for name, kind in KINDS.items()}
    for operation_id in ids:
        submission = archive.submission(operation_id)
        assert submission is not None
        encoding = expected.pop(submission.audio_uri)
        if encoding is None:
            assert submission.submitted_uri is None
        else:
            assert submission.submitted_uri is not None
            assert submission.submitted_uri.startswith(upload_to(desk))
            assert submission.settings.audio_encoding == encoding
        assert submission.duration_ms == pytest.approx(8_000, abs=40)
        assert (submission.channels, submission.billed_seconds) in {(2, 15)}
    assert not expected
    made = len(KINDS) - (api_version == "v3")
    assert len(copies(desk, emulator_s3)) == made

    wait(ids)
    rows = SpeechKitTransformOperator(task_id="rows", operation_id=ids, target=str(tmp_path / "tables"))
    manifest = rows.execute({})
    assert manifest
    found = [
        row
        for path in sorted((tmp_path / "tables" / "recognitions").rglob("*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]
    assert {row["audio_uri"] for row in found} == {f"{root}/{name}" for name in KINDS}
    assert {dict(row["labels"])["night"] if not isinstance(row["labels"], str) else "1" for row in found} == {"1"}
    assert sum(row["submitted_uri"] is not None for row in found) == made
    assert {row["status"] for row in found} == {"finished"}


def test_a_source_is_converted_and_paid_for_once(desk: Desk, emulator_s3: Any) -> None:
    audio = desk.put("1.m4a", written("aac", "mp4", 44_100))
    first = submit(desk, audio)
    [copy] = copies(desk, emulator_s3)
    assert re.fullmatch(r"1-[0-9a-f]{32}\.ogg", copy)
    before = emulator_s3.head_object(Bucket=desk.bucket, Key=f"{desk.prefix}-copies/{copy}")
    assert submit(desk, audio) == first
    # Nobody knows of the submission, and the copy is there.
    again = submit(desk, audio, archive=str(desk.place / "another"))
    assert again != first
    after = emulator_s3.head_object(Bucket=desk.bucket, Key=f"{desk.prefix}-copies/{copy}")
    assert (before["ETag"], before["LastModified"]) == (after["ETag"], after["LastModified"])
    desk.put("1.m4a", written("aac", "mov", 48_000))
    assert submit(desk, audio) not in (first, again)
    assert len(copies(desk, emulator_s3)) == 2


@pytest.mark.parametrize("below", ["", "copies/"])
def test_copies_below_the_same_prefix_are_no_recordings(desk: Desk, emulator_s3: Any, below: str) -> None:
    desk.put("1.flac", written("flac", "flac", 16_000))
    desk.put("2.m4a", written("aac", "mp4", 44_100))
    root = f"s3://{desk.bucket}/{desk.prefix}/"
    first = submit(desk, root, upload_to=f"{root}{below}")
    assert len(first) == 2
    assert submit(desk, root, upload_to=f"{root}{below}") == first
    assert submit(desk, f"{root}**/*.{{flac,m4a,ogg,lpcm}}", upload_to=f"{root}{below}") == first
    assert desk.billed() == 2


def test_a_local_recording_is_converted_once_wherever_it_lies(desk: Desk, emulator_s3: Any, tmp_path: Path) -> None:
    ids = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.flac").write_bytes(written("flac", "flac", 16_000))
        ids.append(submit(desk, str(tmp_path / folder / "1.flac")))
    assert ids[0] == ids[1]
    [copy] = copies(desk, emulator_s3)
    assert copy.endswith(".lpcm")
    submission = desk.archive.submission(ids[0])
    assert submission is not None
    assert submission.settings.sample_rate_hertz == 16_000
    assert len(billed(desk)) == 1


def test_forget_deletes_the_copy_that_no_other_operation_has(
    desk: Desk, emulator_s3: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", connection["login"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", connection["password"])
    audio = desk.put("1.flac", written("flac", "flac", 16_000))
    first, second = submit(desk, audio), submit(desk, audio, literature_text=True)
    [copy] = copies(desk, emulator_s3)
    running = ["archive", "forget", first, second, "--archive", desk.archive_url]
    assert main([*running, "--endpoint-url", desk.emulator.storage_url]) == 1
    assert copies(desk, emulator_s3) == [copy], "the service may still read it"
    wait([first, second])

    def forget(*arguments: str) -> str:
        at = ["--archive", desk.archive_url, "--endpoint-url", desk.emulator.storage_url]
        capsys.readouterr()  # Airflow 2.11 prints its log, and the log of the submission names the copy.
        assert main(["archive", "forget", *arguments, *at]) == 0
        return capsys.readouterr().out

    assert copy not in forget(first)
    assert copies(desk, emulator_s3) == [copy]
    assert copy in forget("--recording", audio, "--dry-run")
    assert copies(desk, emulator_s3) == [copy]
    assert f"Deleted the converted copy {upload_to(desk)}{copy}" in forget("--recording", audio)
    assert not copies(desk, emulator_s3)


@pytest.mark.parametrize("about", [{"convert": "never"}, {"upload_to": None}])
def test_it_is_refused_where_nothing_is_to_be_converted(desk: Desk, emulator_s3: Any, about: dict[str, Any]) -> None:
    audio = desk.put("1.flac", written("flac", "flac", 16_000))
    with pytest.raises(RecordingError, match=r"is FLAC.*1\.flac.*Set `upload_to`"):
        submit(desk, audio, **about)
    assert not copies(desk, emulator_s3)


def test_a_truncated_recording_is_refused_or_taken_by_a_keyword(
    desk: Desk, emulator_s3: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = written("pcm_alaw", "wav", 8_000)
    audio = desk.put("1.wav", data[: len(data) // 2])
    with pytest.raises(RecordingError, match=r"truncated.*1\.wav.*on_truncated='convert'"):
        submit(desk, audio)
    assert not copies(desk, emulator_s3)
    operation_id = submit(desk, audio, on_truncated="convert")
    submission = desk.archive.submission(operation_id)
    assert submission is not None
    assert submission.duration_ms == pytest.approx(4_000, abs=10)
    assert "What can be decoded is taken: 4.0 s" in caplog.text


def test_one_that_cannot_be_decoded_holds_nobody_up(desk: Desk, emulator_s3: Any) -> None:
    desk.put("1.m4a", written("aac", "mp4", 44_100)[:5_000])
    desk.put("2.m4a", written("aac", "mp4", 44_100))
    with pytest.raises(SpeechKitError, match=r"AAC|MP4") as failed:
        submit(desk, f"s3://{desk.bucket}/{desk.prefix}/")
    assert "1.m4a" in str(failed.value)
    assert len(billed(desk)) == 1


def test_audio_streams_are_recordings_of_their_own(desk: Desk, emulator_s3: Any) -> None:
    audio = desk.put("1.mkv", written("aac", "matroska", 44_100, video=True))
    first, second = submit(desk, audio), submit(desk, audio, audio_stream=1)
    assert first != second
    assert submit(desk, audio, audio_stream=1) == second
    with pytest.raises(SpeechKitError, match="`audio_stream` is 2, and the number"):
        submit(desk, audio, audio_stream=2)


def test_one_stream_has_no_second(desk: Desk, emulator_s3: Any, tmp_path: Path) -> None:
    (tmp_path / "1.ogg").write_bytes(OGG)
    for audio in (desk.put(), str(tmp_path / "1.ogg")):
        with pytest.raises(SpeechKitError, match="`audio_stream` is 2, and the number"):
            submit(desk, audio, audio_stream=2)
    assert not desk.billed()


def test_a_source_that_is_replaced_while_it_is_converted_is_not_sent(
    desk: Desk, emulator_s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_speechkit.recordings.bucket import Bucket

    data = written("flac", "flac", 16_000)
    audio = desk.put("1.flac", data)
    read: Callable[..., Any] = Bucket.content

    def replaced(bucket: Bucket, stored: Any) -> Any:
        desk.put("1.flac", written("flac", "flac", 44_100))
        return read(bucket, stored)

    monkeypatch.setattr(Bucket, "content", replaced)
    with pytest.raises(RecordingError, match="replaced") as refused:
        submit(desk, audio)
    assert refused.value.retry_can_help
    assert not copies(desk, emulator_s3)
    assert not billed(desk)


def test_a_copy_that_changes_while_it_waits_is_not_sent(
    desk: Desk, emulator_s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from airflow_speechkit.recordings import source
    from airflow_speechkit.recordings.conversion.copies import CopyFolder

    audio = desk.put("1.flac", written("flac", "flac", 16_000))
    monkeypatch.setattr(source, "VERSION_HOLDS", timedelta(0))
    copies_of = CopyFolder.copies_of

    def spoilt(folder: CopyFolder, *about: Any) -> Any:
        made = copies_of(folder, *about)
        folder.bucket.put(io.BytesIO(b"something else"), made[0].stored.address)
        return made

    monkeypatch.setattr(CopyFolder, "copies_of", spoilt)
    with pytest.raises((RecordingError, AirflowException), match="replaced after it was found"):
        submit(desk, audio)
    assert not billed(desk)


def test_no_more_sources_are_on_the_disk_than_are_converted(
    desk: Desk, emulator_s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_speechkit.recordings.bucket import Bucket
    from airflow_speechkit.recordings.conversion import copies as module

    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.setattr(module, "_SLOTS", BoundedSemaphore(1))
    read: Callable[..., Any] = Bucket.content
    on_disk = []

    def counted(bucket: Bucket, stored: Any) -> Any:
        on_disk.append(len(list(place.iterdir())))
        return read(bucket, stored)

    monkeypatch.setattr(Bucket, "content", counted)
    data = written("flac", "flac", 16_000)
    submit(desk, [desk.put(f"{number}.flac", data) for number in range(4)])
    assert on_disk == [1, 1, 1, 1]
    assert len(copies(desk, emulator_s3)) == 4
