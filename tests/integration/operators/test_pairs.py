"""Two mono recordings of a call are one stereo recording: paid for once, at half the price, with both in the tables."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from airflow_speechkit.cli import main
from airflow_speechkit.errors import RecordingError, RecordingNotFoundError, SettingsError, SpeechKitError
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from tests.fixtures.direct import Desk
from tests.unit.recordings.clicks import written

PAIR = ("{call}-in.wav", "{call}-out.wav")
A_LAW = written("pcm_alaw", "wav", 8_000, 1)
PCM = written("pcm_s16le", "wav", 16_000, 1)


def submit(desk: Desk, audio: Any, **kwargs: Any) -> Any:
    upload_to = f"s3://{desk.bucket}/{desk.prefix}-copies/"
    given = {"language": "en-US", "upload_to": upload_to, "pair": PAIR, **kwargs}
    return SpeechKitSubmitOperator(task_id="submit", audio=audio, **given).execute({})


def rows(ids: Any, target: Path) -> dict[str, dict[str, Any]]:
    SpeechKitRecognitionSensor(task_id="wait", operation_id=ids, poke_interval=0.1, deferrable=False).execute({})
    SpeechKitTransformOperator(task_id="rows", operation_id=ids, target=str(target)).execute({})
    found = [
        row for path in (target / "recognitions").rglob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()
    ]
    return {row["audio_uri"]: row for row in found}


def copies(desk: Desk, client: Any) -> list[str]:
    listed = client.list_objects_v2(Bucket=desk.bucket, Prefix=f"{desk.prefix}-copies/")
    return [one["Key"].rpartition("/")[2] for one in listed.get("Contents", ())]


def billed(desk: Desk) -> int:
    return sum(f"{desk.prefix}-copies/" in str(one) for one in desk.emulator.billing())


@pytest.mark.parametrize("api_version", ["v2", "v3"])
def test_a_prefix_with_pairs_becomes_a_row_for_each_pair(
    desk: Desk, emulator_s3: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, api_version: str
) -> None:
    caplog.set_level(logging.INFO)
    for call in ("1", "2"):
        desk.put(f"{call}-in.wav", A_LAW)
        desk.put(f"{call}-out.wav", PCM)
    desk.put("other.flac", written("flac", "flac", 16_000))
    root = f"s3://{desk.bucket}/{desk.prefix}"
    about: dict[str, Any] = {
        "api_version": api_version,
        "channel_labels": ["agent", "customer"],
        "labels_from_key": r"(?P<call_id>[^/-]+)(-(in|out))?\.\w+$",
    }
    ids = submit(desk, f"{root}/", **about)
    assert len(ids) == 3
    assert billed(desk) == 3
    assert "Found 2 pairs, 0 recordings whose other side is missing, 1 that match neither" in caplog.text
    assert "2 recordings became 1: 2 pairs are billed 30 seconds, 30 less than apart" in caplog.text
    assert submit(desk, f"{root}/", **about) == ids
    assert billed(desk) == 3
    assert len(copies(desk, emulator_s3)) == 3

    found = rows(ids, tmp_path / "tables")
    assert set(found) == {f"{root}/1-in.wav", f"{root}/2-in.wav", f"{root}/other.flac"}
    pair = found[f"{root}/1-in.wav"]
    assert pair["paired_uri"] == f"{root}/1-out.wav"
    assert re.fullmatch(rf"{root}-copies/1-in-[0-9a-f]{{32}}\.(lpcm|wav)", pair["submitted_uri"])
    assert (pair["channels"], pair["billed_seconds"], pair["duration_ms"]) == (2, 15, 8_000)
    assert json.loads(pair["labels"]) == {"call_id": "1", "channel_0": "agent", "channel_1": "customer"}
    assert found[f"{root}/other.flac"]["paired_uri"] is None
    assert json.loads(found[f"{root}/other.flac"]["labels"]) == {"call_id": "other"}


def test_a_replaced_side_is_another_submission(desk: Desk, emulator_s3: Any) -> None:
    first, second = desk.put("1-in.wav", A_LAW), desk.put("1-out.wav", PCM)
    root = first.removesuffix("1-in.wav")
    [one] = submit(desk, root)
    desk.put("1-out.wav", A_LAW)
    [two] = submit(desk, root)
    [again] = submit(desk, [(first, second)], pair=None)
    [the_other_way_round] = submit(desk, [(second, first)], pair=None)
    assert again == two
    assert len({one, two, the_other_way_round}) == 3
    assert len(copies(desk, emulator_s3)) == 3


def test_a_lone_side_goes_alone(desk: Desk, emulator_s3: Any) -> None:
    audio = desk.put("1-out.wav", PCM)
    root = audio.removesuffix("1-out.wav")
    [alone] = submit(desk, root, channel_labels=["agent", "customer"])
    submission = desk.archive.submission(alone)
    assert submission is not None
    assert (submission.audio_uri, submission.paired_uri, submission.channels) == (audio, None, 1)
    assert submission.labels == {"channel_0": "customer"}
    desk.put("1-in.wav", PCM)
    [pair] = submit(desk, root)
    assert pair != alone


def test_a_lone_side_fails_by_a_keyword_and_holds_nobody_up(desk: Desk, emulator_s3: Any) -> None:
    audio = desk.put("1-out.wav", PCM)
    desk.put("2-in.wav", PCM)
    desk.put("2-out.wav", PCM)
    root = audio.removesuffix("1-out.wav")
    with pytest.raises(SpeechKitError, match=r"other side of this call is missing: s3://.*1-in\.wav") as failed:
        submit(desk, root, on_lone_side="fail")
    assert failed.value.recording == audio
    assert billed(desk) == 1


def test_a_list_of_pairs_with_other_recordings_between(desk: Desk, emulator_s3: Any) -> None:
    first, second, other = (desk.put(one, PCM) for one in ("a.wav", "b.wav", "c.wav"))
    ids = submit(desk, [[first, second], other], pair=None, labels=[{"call_id": "1"}, {"call_id": "2"}])
    found = [desk.archive.submission(one) for one in ids]
    assert [(one.audio_uri, one.paired_uri, one.labels) for one in found if one] == [
        (first, second, {"call_id": "1"}),
        (other, None, {"call_id": "2"}),
    ]
    keys = [f"{desk.prefix}/{one}" for one in ("a.wav", "b.wav")]
    assert submit(desk, [keys, f"{desk.prefix}/c.wav"], pair=None, bucket=desk.bucket) == ids


def test_labels_by_address_may_name_either_side(desk: Desk, emulator_s3: Any) -> None:
    first, second = desk.put("1-in.wav", PCM), desk.put("1-out.wav", PCM)
    labels = {second: {"a": "second", "b": "second"}, first: {"a": "first"}}
    [pair] = submit(desk, [first, second], labels=labels)
    submission = desk.archive.submission(pair)
    assert submission is not None
    assert submission.labels == {"a": "first", "b": "second"}


def test_a_sidecar_of_one_side_is_enough(desk: Desk, emulator_s3: Any) -> None:
    for call, side in (("1", "in"), ("2", "out")):
        desk.put(f"{call}-in.wav", PCM)
        root = desk.put(f"{call}-out.wav", A_LAW).rpartition("/")[0]
        body = json.dumps({"queue": call}).encode()
        emulator_s3.put_object(Bucket=desk.bucket, Key=f"{desk.prefix}/{call}-{side}.json", Body=body)
    about: dict[str, Any] = {"labels_from_sidecar": "{stem}.json", "sidecar_fields": ["queue"]}
    ids = submit(desk, f"{root}/", **about)
    assert [one.labels for one in map(desk.archive.submission, ids) if one] == [{"queue": "1"}, {"queue": "2"}]
    emulator_s3.put_object(Bucket=desk.bucket, Key=f"{desk.prefix}/1-out.json", Body=b"no JSON")
    with pytest.raises(RecordingError, match=r"1-out\.json can't be used"):
        submit(desk, f"{root}/", **about)


def test_local_files_are_joined_too(desk: Desk, emulator_s3: Any, tmp_path: Path) -> None:
    for name, data in (("1-in.wav", A_LAW), ("1-out.wav", PCM)):
        (tmp_path / name).write_bytes(data)
    files = [str(tmp_path / "1-in.wav"), str(tmp_path / "1-out.wav")]
    ids = submit(desk, files)
    assert submit(desk, [files], pair=None) == ids
    [submission] = map(desk.archive.submission, ids)
    assert submission is not None
    assert submission.paired_uri is not None
    assert re.search(r"-copies/1-in-[0-9a-f]{32}\.wav$", submission.audio_uri)
    assert re.search(r"-copies/1-out-[0-9a-f]{32}\.wav$", submission.paired_uri)
    assert len(copies(desk, emulator_s3)) == 3
    assert billed(desk) == 1


@pytest.mark.parametrize(
    "about", [{"upload_to": None}, {"convert": "never"}, {"pair": None, "channel_labels": ["a", "b"]}]
)
def test_what_pairs_need_is_checked_before_anything_is_sent(desk: Desk, emulator_s3: Any, about: Any) -> None:
    desk.put("1-in.wav", PCM)
    root = desk.put("other.wav", PCM).removesuffix("other.wav")
    with pytest.raises(SettingsError, match=r"`upload_to`|there are no pairs"):
        submit(desk, root, **{"api_version": "v3", **about})
    assert not desk.billed()


def test_a_side_of_a_list_that_is_not_there_is_named(desk: Desk, emulator_s3: Any) -> None:
    first = desk.put("1-in.wav", PCM)
    missing = first.replace("-in", "-out")
    with pytest.raises(RecordingNotFoundError, match=re.escape(missing)):
        submit(desk, [(first, missing)], pair=None)
    [row] = submit(desk, [(missing, first)], pair=None, on_failure="record")
    submission = desk.archive.submission(row)
    assert submission is not None
    assert submission.audio_uri == missing
    with pytest.raises(RecordingError, match="are the same recording"):
        submit(desk, [(first, first)], pair=None)
    assert not billed(desk)


@pytest.mark.parametrize("replaced", ["1-in.wav", "1-out.wav"])
def test_a_side_that_is_replaced_while_it_is_joined_is_not_sent(
    desk: Desk, emulator_s3: Any, monkeypatch: pytest.MonkeyPatch, replaced: str
) -> None:
    from airflow_speechkit.recordings.bucket import Bucket

    root = desk.put("1-in.wav", PCM).removesuffix("1-in.wav")
    desk.put("1-out.wav", PCM)
    read: Callable[..., Any] = Bucket.content

    def replacing(bucket: Bucket, stored: Any) -> Any:
        desk.put(replaced, A_LAW)
        return read(bucket, stored)

    monkeypatch.setattr(Bucket, "content", replacing)
    with pytest.raises(RecordingError, match=rf"replaced.*{replaced}") as refused:
        submit(desk, root)
    assert refused.value.retry_can_help
    assert not copies(desk, emulator_s3)
    assert not billed(desk)


def test_a_copy_that_is_there_already_says_what_it_saves(
    desk: Desk, emulator_s3: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    root = desk.put("1-in.wav", PCM).removesuffix("1-in.wav")
    desk.put("1-out.wav", PCM)
    submit(desk, root)
    caplog.clear()
    submit(desk, root, literature_text=True)
    assert "1 pair is billed 15 seconds, 15 less than apart" in caplog.text
    assert len(copies(desk, emulator_s3)) == 1


def test_a_pair_is_left_out_only_if_both_sides_are_silent(desk: Desk, emulator_s3: Any) -> None:
    header = PCM.index(b"data") + 8
    silence = PCM[:header] + bytes(len(PCM) - header)
    for name, data in (("1-in", silence), ("1-out", silence), ("2-in", silence), ("2-out", PCM)):
        root = desk.put(f"{name}.wav", data).rpartition("/")[0]
    left_out, sent = submit(desk, f"{root}/", skip_silent=True, on_filtered="record")
    found = desk.archive.submission(left_out)
    assert found is not None
    assert (found.filter_reason, found.audio_uri, found.paired_uri) == (
        "silent",
        f"{root}/1-in.wav",
        f"{root}/1-out.wav",
    )
    assert submit(desk, f"{root}/", skip_silent=True) == [sent]
    assert billed(desk) == 1


def test_forget_finds_a_pair_by_either_side(
    desk: Desk, emulator_s3: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", connection["login"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", connection["password"])
    sides = [desk.put("1-in.wav", PCM), desk.put("1-out.wav", PCM)]
    [pair] = submit(desk, sides)
    SpeechKitRecognitionSensor(task_id="wait", operation_id=[pair], poke_interval=0.1, deferrable=False).execute({})
    [copy] = copies(desk, emulator_s3)
    at = ["--archive", desk.archive_url, "--endpoint-url", desk.emulator.storage_url]
    for side in sides:
        capsys.readouterr()
        assert main(["archive", "forget", "--recording", side, "--dry-run", *at]) == 0
        assert {pair, f"s3://{desk.bucket}/{desk.prefix}-copies/{copy}"} <= set(capsys.readouterr().out.split())
    assert main(["archive", "forget", "--recording", sides[1], *at]) == 0
    assert not copies(desk, emulator_s3)
    for side in sides:
        assert emulator_s3.head_object(Bucket=desk.bucket, Key=side.partition(f"{desk.bucket}/")[2])
