"""With `identity="content"`, recordings with the same bytes are paid for once, and each address has its own rows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from boto3.s3.transfer import TransferConfig

from airflow_speechkit.cli import main
from airflow_speechkit.errors import RecordingError, SettingsError, SubmissionsFailedError
from airflow_speechkit.models import ObjectVersion
from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.triggers.wait import WaitResult
from tests.fixtures.direct import OGG, Desk, wait_for
from tests.unit.recordings.clicks import written

#: What a multipart upload needs at least.
MIB = 1024 * 1024


def submit(desk: Desk, audio: Any, *, run_id: str = "monday", **kwargs: Any) -> Any:
    ti = type("TaskInstance", (), {"dag_id": "calls", "run_id": run_id, "task_id": "submit", "map_index": -1})()
    given = {"language": "en-US", "identity": "content", **kwargs}
    return SpeechKitSubmitOperator(task_id="submit", audio=audio, **given).execute({"ti": ti})


def wait(ids: Any) -> None:
    wait_for(SpeechKitRecognitionSensor(task_id="wait", operation_id=ids, poke_interval=0.1))


def rows(desk: Desk, ids: Any, name: str = "tables") -> dict[str, list[dict[str, Any]]]:
    target = desk.place / name
    SpeechKitTransformOperator(task_id="rows", operation_id=ids, target=str(target)).execute({})
    return {
        table: [
            row
            for path in sorted((target / table).rglob("*.parquet"))
            for row in pq.ParquetFile(path).read().to_pylist()
        ]
        for table in ("recognitions", "utterances", "words", "analyses")
        if (target / table).exists()
    }


@pytest.mark.parametrize("api_version", ["v2", "v3"])
def test_a_renamed_copy_is_paid_for_once_and_has_rows_of_its_own(desk: Desk, api_version: str) -> None:
    first, copy = desk.put("first.ogg"), desk.put("copy.ogg")
    ids = submit(desk, [first, copy], labels=[{"call_id": "1"}, {"call_id": "2"}], api_version=api_version)
    assert ids[0] == ids[1]
    assert desk.billed() == 1
    wait(ids)
    tables = rows(desk, ids)
    ours = {row["audio_uri"]: row for row in tables["recognitions"]}
    assert set(ours) == {first, copy}
    assert ours[first]["recognition_id"] == ours[first]["operation_id"] == ours[copy]["operation_id"] == ids[0]
    assert ours[copy]["recognition_id"].startswith(f"{ids[0]}-")
    assert [json.loads(ours[one]["labels"])["call_id"] for one in (first, copy)] == ["1", "2"]
    assert ours[first]["billed_seconds"] == 15
    assert ours[copy]["billed_seconds"] == 0
    for same in ("duration_ms", "channels", "status", "words", "utterances", "created_at", "dag_id", "run_id"):
        assert ours[first][same] == ours[copy][same], same
    for table in ("utterances", "words"):
        both = [
            [
                {name: value for name, value in row.items() if name != "recognition_id"}
                for row in tables[table]
                if row["recognition_id"] == ours[one]["recognition_id"]
            ]
            for one in (first, copy)
        ]
        assert both[0] == both[1]
        assert both[0]
    assert rows(desk, ids, "again") == tables, "the same ids, each time"


def test_a_copy_joins_on_another_night(desk: Desk) -> None:
    first = submit(desk, desk.put("first.ogg"), labels={"call_id": "1"})
    wait(first)
    copy = desk.put("copy.ogg")
    assert submit(desk, copy, labels={"call_id": "2"}, run_id="tuesday") == first
    assert submit(desk, copy, labels={"call_id": "3", "team": "red"}, run_id="wednesday", labels_update=True) == first
    assert desk.billed() == 1
    ours = {row["audio_uri"]: row for row in rows(desk, first)["recognitions"]}
    assert json.loads(ours[copy]["labels"]) == {"call_id": "3", "team": "red"}
    assert (ours[copy]["billed_seconds"], ours[copy]["run_id"]) == (0, "tuesday")
    submission = desk.archive.submission(first)
    assert submission is not None
    assert submission.labels == {"call_id": "1"}


def test_a_multipart_upload_has_another_etag_and_is_the_same(desk: Desk, emulator_s3: Any) -> None:
    content = OGG * (6 * MIB // len(OGG) + 1)
    first = desk.put("first.ogg", content)
    before = emulator_s3.head_object(Bucket=desk.bucket, Key=f"{desk.prefix}/first.ogg")["ETag"]
    operation_id = submit(desk, first)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    emulator_s3.upload_fileobj(io.BytesIO(content), desk.bucket, f"{desk.prefix}/first.ogg", Config=config)
    assert emulator_s3.head_object(Bucket=desk.bucket, Key=f"{desk.prefix}/first.ogg")["ETag"] != before
    assert submit(desk, first, run_id="tuesday") == operation_id
    assert desk.billed() == 1
    wait(operation_id)
    assert len(rows(desk, operation_id)["recognitions"]) == 1


def test_a_copy_in_another_bucket_is_the_same(desk: Desk, emulator_s3: Any) -> None:
    first = submit(desk, desk.put("first.ogg"))
    other = f"other-{desk.prefix[:16]}"
    region = {"LocationConstraint": emulator_s3.meta.region_name}
    emulator_s3.create_bucket(Bucket=other, CreateBucketConfiguration=region)
    emulator_s3.put_object(Bucket=other, Key="copy.ogg", Body=OGG)
    assert submit(desk, f"s3://{other}/copy.ogg") == first
    wait(first)
    assert len(rows(desk, first)["recognitions"]) == 2


def test_other_bytes_settings_or_addresses_by_default_are_other_recordings(desk: Desk) -> None:
    first, copy = desk.put("first.ogg"), desk.put("copy.ogg")
    ids = {
        submit(desk, first),
        submit(desk, first, profanity_filter=True),
        submit(desk, desk.put("longer.ogg", OGG + OGG)),
        submit(desk, copy, identity="address"),
    }
    assert len(ids) == 4
    with pytest.raises(SettingsError, match="identity"):
        submit(desk, first, identity="etag")


def test_what_was_submitted_by_its_address_is_not_paid_for_again(desk: Desk) -> None:
    first = desk.put("first.ogg")
    operation_id = submit(desk, first, identity="address")
    wait(operation_id)
    assert submit(desk, first) == operation_id
    # The content of that operation is known now.
    copy = desk.put("copy.ogg")
    assert submit(desk, copy) == operation_id
    assert desk.billed() == 1
    ours = {row["audio_uri"]: row["billed_seconds"] for row in rows(desk, operation_id)["recognitions"]}
    assert ours == {first: 15, copy: 0}


def test_a_recording_is_read_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_speechkit.recordings.source import RecordingSource

    read: list[str] = []
    content = RecordingSource.content

    def counted(self: RecordingSource, one: ObjectVersion) -> Any:
        read.append(one.address.uri)
        return content(self, one)

    monkeypatch.setattr(RecordingSource, "content", counted)
    first = desk.put("first.ogg")
    operation_id = submit(desk, [first])
    assert submit(desk, [first], run_id="tuesday") == operation_id
    assert read == [first]
    desk.put("first.ogg", OGG + OGG)
    assert submit(desk, [first], run_id="tuesday") != operation_id
    assert read == [first, first]


def test_one_that_is_replaced_while_it_is_read_does_not_hold_up_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_speechkit.recordings.source import RecordingSource

    first, other = desk.put("first.ogg"), desk.put("other.ogg", OGG + OGG)
    content = RecordingSource.content

    def late(self: RecordingSource, one: ObjectVersion) -> Any:
        if one.address.uri == first:
            desk.put("first.ogg", OGG * 3)
        return content(self, one)

    monkeypatch.setattr(RecordingSource, "content", late)
    with pytest.raises(RecordingError, match="replaced") as caught:
        submit(desk, [first, other])
    assert caught.value.recording == first
    assert desk.billed() == 1


@pytest.mark.parametrize("which", ["first.ogg", "copy.ogg", "operation"])
def test_forget_by_either_address_leaves_nothing(desk: Desk, which: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, copy = desk.put("first.ogg"), desk.put("copy.ogg")
    [operation_id, _] = submit(desk, [first, copy], labels={"call_id": "secret-17"})
    wait(operation_id)
    rows(desk, operation_id)
    what = [operation_id] if which == "operation" else ["--recording", f"s3://{desk.bucket}/{desk.prefix}/{which}"]
    tables = ["--tables", str(desk.place / "tables")]
    assert main(["archive", "forget", "--archive", desk.archive_url, *what, *tables]) == 0
    statement = capsys.readouterr().out
    assert f"'{operation_id}', '{operation_id}-" in statement
    left = [path for path in Path(desk.archive_url).rglob("*") if path.is_file()]
    for path in left:
        text = path.read_text()
        assert desk.prefix not in text, path
        assert "secret-17" not in text, path
    assert not [path for path in left if "hashes" in path.parts]
    assert not list((desk.place / "tables").rglob("*.parquet"))


def test_forget_finds_an_operation_by_an_address_whose_record_is_damaged(desk: Desk) -> None:
    first, copy = desk.put("first.ogg"), desk.put("copy.ogg")
    [operation_id, _] = submit(desk, [first, copy])
    wait(operation_id)
    [record] = Path(desk.archive_url).rglob("also-*.json")
    record.write_text("{")
    assert main(["archive", "forget", "--archive", desk.archive_url, "--recording", copy]) == 0
    assert list(desk.archive.operations()) == []


def test_verify_export_and_show_know_the_other_address(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    first, copy = desk.put("first.ogg"), desk.put("copy.ogg")
    [operation_id, _] = submit(desk, [first, copy])
    wait(operation_id)
    assert main(["archive", "verify", "--archive", desk.archive_url]) == 0
    exported = str(desk.place / "exported")
    assert main(["archive", "export", "--archive", desk.archive_url, "--to", exported]) == 0
    capsys.readouterr()
    assert main(["archive", "show", "--archive", exported, operation_id]) == 0
    [other] = json.loads(capsys.readouterr().out)["same_content"]
    assert (other["audio_uri"], other["recognition_id"][: len(operation_id)]) == (copy, operation_id)
    assert main(["archive", "show", "--archive", exported, other["recognition_id"]]) == 0
    assert json.loads(capsys.readouterr().out)["operation_id"] == operation_id
    [also] = (desk.place / "archive" / "operations" / operation_id).glob("also-*")
    also.write_text("{}")
    assert main(["archive", "verify", "--archive", desk.archive_url]) == 1


def test_a_renamed_pair_is_the_same(desk: Desk) -> None:
    sides = written("pcm_s16le", "wav", 8_000, 1), written("pcm_alaw", "wav", 8_000, 1)
    for call in ("1", "2"):
        for name, content in zip(("in", "out"), sides, strict=True):
            desk.put(f"{call}-{name}.wav", content)
    # The same first side alone, and with another second one.
    desk.put("3-in.wav", sides[0])
    desk.put("4-in.wav", sides[0])
    desk.put("4-out.wav", sides[0])
    root = f"s3://{desk.bucket}/{desk.prefix}"
    pair, upload_to = ("{call}-in.wav", "{call}-out.wav"), f"{root}-copies/"
    ids = submit(desk, f"{root}/", pair=pair, upload_to=upload_to)
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    wait(ids)
    found = {row["audio_uri"]: row for row in rows(desk, ids)["recognitions"]}
    assert [found[f"{root}/{call}-in.wav"]["paired_uri"] for call in ("1", "2")] == [
        f"{root}/1-out.wav",
        f"{root}/2-out.wav",
    ]
    assert main(["archive", "forget", "--archive", desk.archive_url, "--recording", f"{root}/2-out.wav"]) == 0
    assert desk.archive.entry(ids[0]) is None
    assert desk.archive.entry(ids[2]) is not None


def test_labels_of_each_address_are_corrected_apart(desk: Desk) -> None:
    first, copy = desk.put("first.ogg"), desk.put("copy.ogg")
    [operation_id, _] = submit(desk, [first, copy], labels={"team": "red"})
    wait(operation_id)
    ours = {row["audio_uri"]: row["recognition_id"] for row in rows(desk, operation_id)["recognitions"]}
    file = desk.place / "labels.csv"
    label = ["archive", "label", "--archive", desk.archive_url]

    def labels() -> list[dict[str, str]]:
        found = {row["audio_uri"]: json.loads(row["labels"]) for row in rows(desk, operation_id)["recognitions"]}
        return [found[first], found[copy]]

    file.write_text(f"recognition_id,operation_id,team\n{ours[copy]},{operation_id},blue\n")
    assert main([*label, "--from", str(file)]) == 0
    assert labels() == [{"team": "red"}, {"team": "blue"}]
    file.write_text(f"audio_uri,role\n{first},agent\n{copy},customer\n")
    assert main([*label, "--from", str(file)]) == 0
    assert main([*label, ours[copy], "--remove", "team"]) == 0
    assert labels() == [{"team": "red", "role": "agent"}, {"role": "customer"}]
    assert main([*label, f"{operation_id}-{'0' * 16}", "team=green"]) == 1


def test_only_new_returns_the_operation_for_an_address_that_is_new(desk: Desk) -> None:
    first = desk.put("first.ogg")
    monday = submit(desk, [first], only_new=True)
    wait(monday)
    copy = desk.put("copy.ogg")
    assert submit(desk, [first, copy], only_new=True, run_id="tuesday") == monday
    assert submit(desk, [first, copy], only_new=True, run_id="tuesday") == monday, "a retry returns the same"
    with pytest.raises(AirflowSkipException):
        submit(desk, [first, copy], only_new=True, run_id="wednesday")


def test_a_refused_recording_has_a_row_for_each_address(desk: Desk) -> None:
    bad = b"not audio at all" * 100
    uris = {desk.put(name, bad) for name in ("1.ogg", "2.ogg")}
    with pytest.raises(SubmissionsFailedError) as refused:
        submit(desk, sorted(uris))
    assert all(f"[recording {uri}]" in str(refused.value) for uri in uris)
    ids = submit(desk, sorted(uris), on_failure="record")
    assert len(set(ids)) == 1
    found = rows(desk, ids)["recognitions"]
    assert {row["audio_uri"] for row in found} == uris
    assert len({row["recognition_id"] for row in found}) == 2
    assert {(row["status"], row["operation_id"]) for row in found} == {("refused", None)}
    assert submit(desk, sorted(uris, reverse=True), on_failure="record", run_id="tuesday") == ids
    assert len(rows(desk, ids)["recognitions"]) == 2


@pytest.mark.parametrize("operator", [SpeechKitSubmitOperator, SpeechKitRecognizeOperator])
def test_the_visits_of_a_deferred_task_share_what_they_have_read(desk: Desk, operator: Any) -> None:
    from airflow.providers.common.compat.sdk import TaskDeferred

    uris = [desk.put(f"{number}.ogg", OGG * (number // 2 + 1)) for number in range(6)]
    ti = type("TaskInstance", (), {"dag_id": "calls", "run_id": desk.prefix, "task_id": "submit", "map_index": -1})()
    task = operator(
        task_id="submit",
        audio=uris,
        language="en-US",
        identity="content",
        deferrable=True,
        submits_per_hour=2,
    )
    with pytest.raises(TaskDeferred):
        task.execute({"ti": ti})
    assert desk.billed() == 2
    task.submits_per_hour = 100
    ids = None
    for _ in range(5):
        try:
            ids = task.execute_complete({"ti": ti}, WaitResult().to_event())
            break
        except TaskDeferred:
            continue
    assert desk.billed() == 3
    if ids is not None:
        assert len(ids) == 6
        assert len(set(ids)) == 3
