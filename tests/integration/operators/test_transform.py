"""Archived answers, answers of the service and saved answers become the same tables."""

from __future__ import annotations

import inspect
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_speechkit.archive.maintenance import delete_operation
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.cli import main
from airflow_speechkit.errors import (
    AnswerUnreadableError,
    ArchiveError,
    ConnectionSettingsError,
    NotFinishedError,
    ServiceFaultError,
    SettingsError,
    SpeechKitError,
    StorageError,
)
from airflow_speechkit.hooks.speechkit import SpeechKitHook
from airflow_speechkit.hooks.storage import object_storage_path
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator
from tests.fixtures.direct import Desk, wait_for
from tests.fixtures.manifests import paths_of

FAILED = {"code": 3, "message": "Unsupported audio"}


def ended(desk: Desk, *ids: str, **more: Any) -> Any:
    return wait_for(
        SpeechKitRecognitionSensor(
            task_id="wait", operation_id=list(ids), poke_interval=0.1, on_failure="record", **more
        )
    )


def transform(desk: Desk, **kwargs: Any) -> dict[str, Any]:
    operator = SpeechKitTransformOperator(task_id="rows", **{"target": str(desk.place / "t"), **kwargs})
    # Airflow 2.11's wrapper works in the main thread only.
    manifest = inspect.unwrap(type(operator).execute)(operator, {})
    assert json.loads(json.dumps(manifest)) == manifest
    return manifest


def rows(manifest: dict[str, Any], table: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found = [row for path in paths_of(manifest, table) for row in pq.ParquetFile(path).read().to_pylist()]
    assert len(found) == manifest["rows"][table]
    return found


def test_files_are_named_after_their_operation_and_replaced_by_the_next_run(desk: Desk) -> None:
    first, second = desk.emulator.stand_ins(2)
    ended(desk, first, second)
    manifest = transform(desk, operation_id=first)
    assert rows(manifest, "words")
    assert [path.name for path in paths_of(manifest, "words")] == [f"{first}.parquet"]
    transform(desk, operation_id=second)
    before = sorted(file for file in (desk.place / "t").rglob("*"))
    assert transform(desk, operation_id=first) == manifest
    assert sorted(file for file in (desk.place / "t").rglob("*")) == before


def test_the_manifest_does_not_depend_on_the_order_of_operations(desk: Desk) -> None:
    first, second = desk.emulator.stand_ins(2)
    ended(desk, first, second)
    one, other = (transform(desk, operation_id=ids)["manifest"] for ids in ([first, second], (second, first)))
    assert one == other


def test_overlapping_lists_have_their_rows_once_even_if_written_concurrently(
    desk: Desk,
) -> None:
    ids = desk.emulator.stand_ins(6)
    ended(desk, *ids)
    lists = (ids[:4], ids[2:], ids)
    transform(desk, operation_id=lists[0])
    barrier = threading.Barrier(len(lists))

    with ThreadPoolExecutor(len(lists)) as pool:

        def at_once(some: list[str]) -> dict[str, Any]:
            barrier.wait(timeout=600)
            return transform(desk, operation_id=some)

        manifests = list(pool.map(at_once, lists))
    assert [one["operations"] for one in manifests] == [4, 4, 6]
    assert len({one["manifest"] for one in manifests}) == 3
    with duckdb.connect() as connection:
        for table in ("recognitions", "words"):
            query = f"SELECT count(*), count(DISTINCT recognition_id) FROM '{desk.place}/t/{table}/*/*.parquet'"
            assert connection.execute(query).fetchall() == [(manifests[-1]["rows"][table], 6)]


def test_without_an_archive_the_service_or_saved_files_are_read(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    from_service = transform(desk, operation_id=operation_id, archive=False)
    ended(desk, operation_id)
    from_archive = transform(desk, operation_id=operation_id)
    answer = desk.archive.answer(operation_id)
    assert answer is not None
    saved = desk.place / f"{operation_id}.json"
    saved.write_bytes(answer.operation)
    desk.environment.delenv("AIRFLOW_CONN_SPEECHKIT_DEFAULT")
    from_file = transform(desk, files=str(saved), file_format="parquet", target=str(desk.place / "saved"))
    assert rows(from_service, "words") == rows(from_archive, "words") == rows(from_file, "words")


def test_failed_and_refused_recordings_become_rows_with_their_status(desk: Desk) -> None:
    (failed,) = desk.emulator.stand_ins(error=FAILED)
    desk.on_record(failed)
    missing = f"s3://{desk.bucket}/{desk.prefix}/none.ogg"
    submit = SpeechKitSubmitOperator(
        task_id="submit", audio=[missing, desk.put()], labels={"call_id": "17"}, language="en-US", on_failure="record"
    )
    ids = ended(desk, failed, *submit.execute({}))
    manifest = transform(desk, operation_id=ids)
    found = {row["recognition_id"]: row for row in rows(manifest, "recognitions")}
    assert [found[one]["status"] for one in ids] == ["failed", "refused", "finished"]
    assert found[failed]["error_code"] == 3
    assert found[failed]["error_message"] == "Unsupported audio"
    assert found[ids[1]]["audio_uri"] == missing
    assert found[ids[1]]["error_message"]
    assert json.loads(found[ids[1]]["labels"]) == {"call_id": "17"}

    database = str(desk.place / "speech.duckdb")
    desk.environment.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "duckdb", "host": database}))
    SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=manifest).execute({})
    with duckdb.connect(database, read_only=True) as connection:
        loaded = connection.execute("SELECT recognition_id, status FROM recognitions").fetchall()
    assert sorted(loaded) == sorted(zip(ids, ("failed", "refused", "finished"), strict=True))


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_tables_go_to_a_bucket_through_a_connection(desk: Desk, file_format: str) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    ended(desk, operation_id)
    target = f"s3://aws_default@{desk.bucket}/{desk.prefix}/tables"
    manifest = transform(desk, operation_id=operation_id, target=target, file_format=file_format)
    assert manifest["format"] == file_format
    listed = desk.emulator.s3().list_objects_v2(Bucket=desk.bucket, Prefix=f"{desk.prefix}/tables/")["Contents"]
    assert {one["Key"].rpartition("tables/")[2].partition("/")[0] for one in listed} >= {"words", "recognitions"}
    assert desk.emulator.secret_access_key not in json.dumps(manifest)


def test_a_prefix_of_ids_reads_the_archive_without_calling_the_service(desk: Desk) -> None:
    ids = desk.emulator.stand_ins(3)
    ended(desk, *ids)
    asked = desk.emulator.requests()
    assert transform(desk, operation_prefix="")["operations"] == 3
    assert transform(desk, operation_prefix=ids[0])["operations"] == 1
    assert desk.emulator.requests() == asked
    with pytest.raises(AirflowSkipException):
        transform(desk, operation_prefix="none")


def test_one_unreadable_answer_of_many_is_reported_or_fails(desk: Desk) -> None:
    good, bad = desk.place / "good.json", desk.place / "bad.json"
    (operation_id,) = desk.emulator.stand_ins()
    ended(desk, operation_id)
    answer = desk.archive.answer(operation_id)
    assert answer is not None
    good.write_bytes(answer.operation)
    bad.write_bytes(answer.operation[: len(answer.operation) // 2])
    with pytest.raises(AnswerUnreadableError, match="1 of 2") as raised:
        transform(desk, files=[str(good), str(bad)], on_unread="fail")
    assert "on_unread='report'" in str(raised.value)
    assert not placed(desk)
    manifest = transform(desk, files=[str(good), str(bad)])
    assert manifest["unread"]["count"] == 1
    assert rows(manifest, "words")
    before = placed(desk)
    for given in ({"files": str(bad)}, {"files": [str(good), str(bad)], "on_unread": "fail"}):
        with pytest.raises(AnswerUnreadableError, match="nothing is written"):
            transform(desk, **given)
    assert placed(desk) == before


def placed(desk: Desk) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in (desk.place / "t").rglob("*") if file.is_file()}


@pytest.mark.parametrize("on_unread", ["report", "fail"])
def test_an_operation_is_not_left_out_for_a_temporary_service_error(desk: Desk, on_unread: str) -> None:
    ids = desk.emulator.stand_ins(3)
    transform(desk, operation_id=ids, archive=False)
    before = placed(desk)
    desk.environment.setattr(SpeechKitHook, "get_answer", _out_of_order_for(ids[1]))
    with pytest.raises(ServiceFaultError):
        transform(desk, operation_id=ids, archive=False, on_unread=on_unread)
    assert placed(desk) == before


def _out_of_order_for(one: str) -> Any:
    get_answer = SpeechKitHook.get_answer

    def get(self: SpeechKitHook, operation_id: str) -> Any:
        if operation_id == one:
            raise ServiceFaultError("The service is out of order", http_status=503)
        return get_answer(self, operation_id)

    return get


def test_an_unfinished_operation_fails_if_named_and_is_reported_if_of_a_prefix(desk: Desk) -> None:
    (done,) = desk.emulator.stand_ins()
    ended(desk, done)
    running = desk.on_record("e03running")
    transform(desk, operation_id=done)
    before = placed(desk)
    with pytest.raises(NotFinishedError, match="SpeechKitRecognitionSensor"):
        transform(desk, operation_id=[done, running])
    assert placed(desk) == before
    manifest = transform(desk, operation_prefix="")
    assert manifest["operations"] == 1
    assert list(manifest["unread"]["operations"]) == [running]
    with pytest.raises(AnswerUnreadableError, match="1 of 2"):
        transform(desk, operation_prefix="", on_unread="fail")
    with pytest.raises(AirflowSkipException, match="None of the 1 operations"):
        transform(desk, operation_prefix="e03running")


def test_a_forgotten_operation_is_left_out_and_the_others_are_transformed(desk: Desk) -> None:
    (done,) = desk.emulator.stand_ins()
    forgotten = desk.on_record("e03gone")
    ended(desk, done)
    delete_operation(
        Archive.at(desk.archive_url), forgotten, now=datetime(2026, 11, 28, tzinfo=UTC), even_if_running=True
    )
    manifest = transform(desk, operation_id=[done, forgotten])
    assert manifest["operations"] == 1
    assert "archive forget" in manifest["unread"]["operations"][forgotten]
    with pytest.raises(AnswerUnreadableError, match="archive forget"):
        transform(desk, operation_id=[done, forgotten], on_unread="fail")


def test_a_prefix_does_not_include_operations_removed_from_the_archive(desk: Desk) -> None:
    (done,) = desk.emulator.stand_ins()
    ended(desk, done)
    (Path(desk.archive_url) / "operations" / "e03removed").mkdir()
    manifest = transform(desk, operation_prefix="", on_unread="fail")
    assert (manifest["operations"], manifest["unread"]["count"]) == (1, 0)


def test_files_of_saved_answers_are_named_after_their_operations(desk: Desk) -> None:
    ids = desk.emulator.stand_ins(2)
    ended(desk, *ids)
    saved = []
    for number, operation_id in enumerate(ids):
        answer = desk.archive.answer(operation_id)
        assert answer is not None
        saved.append(desk.place / "a folder" / f"{number}.json")
        saved[-1].parent.mkdir(exist_ok=True)
        saved[-1].write_bytes(answer.operation)
    paths = [str(one) for one in saved]
    assert transform(desk, files=paths[0])["manifest"].endswith(f"/{ids[0]}.json")
    from_files = transform(desk, files=[*paths, paths[0]])
    from_archive = transform(desk, operation_id=ids[::-1])
    assert from_files["manifest"] == from_archive["manifest"]
    assert from_files["unread"]["count"] == 0
    by_command = desk.place / "by command"
    assert main(["transform", *paths, "--to", str(by_command)]) == 0
    assert (by_command / "_manifests" / Path(from_files["manifest"]).name).is_file()


def test_two_saved_answers_of_one_operation_have_its_rows_once(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    ended(desk, operation_id)
    answer = desk.archive.answer(operation_id)
    assert answer is not None
    paths = [desk.place / "first.json", desk.place / "second.json"]
    for path in paths:
        path.write_bytes(answer.operation)
    manifest = transform(desk, files=[str(path) for path in paths])
    assert [row["operation_id"] for row in rows(manifest, "recognitions")] == [operation_id]
    assert list(manifest["unread"]["operations"]) == [str(paths[1])]
    with pytest.raises(AnswerUnreadableError, match=f"holds operation {operation_id}, as .*first.json does"):
        transform(desk, files=[str(path) for path in paths], on_unread="fail")


def test_the_error_for_an_unreadable_saved_answer_has_a_hint(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    ended(desk, operation_id)
    answer = desk.archive.answer(operation_id)
    assert answer is not None
    key = f"{desk.prefix}/saved.json"
    desk.emulator.s3().put_object(Bucket=desk.bucket, Key=key, Body=answer.operation)
    saved = f"s3://aws_default@{desk.bucket}/{key}"
    assert [path.stem for path in paths_of(transform(desk, files=saved), "words")] == [operation_id]
    other = desk.place / "other.json"
    other.write_bytes(answer.operation.replace(operation_id.encode(), b"e03other"))
    before = placed(desk)

    def refused(path: str, **more: Any) -> bytes:
        raise PermissionError("AccessDenied")

    desk.environment.setattr(object_storage_path(saved).fs, "cat_file", refused)
    with pytest.raises(StorageError, match="right to read") as raised:
        transform(desk, files=[str(other), saved])
    assert raised.value.retry_can_help is False
    assert placed(desk) == before


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        ({}, SettingsError, "Exactly one"),
        ({"operation_id": "e03", "files": "x.json"}, SettingsError, "Exactly one"),
        ({"operation_id": []}, SettingsError, "empty"),
        ({"files": []}, SettingsError, "empty"),
        ({"operation_prefix": "", "archive": False}, SettingsError, "archive"),
        ({"operation_id": "e03neverwas000000000"}, SpeechKitError, "SpeechKitRecognitionSensor"),
        ({"operation_id": "e03neverwas000000000", "archive": False}, SpeechKitError, "e03neverwas000000000"),
        ({"operation_id": "e03a", "speechkit_conn_id": "nobody"}, ConnectionSettingsError, "nobody"),
        ({"operation_id": "e03a", "target": "s3://nobody@bucket/t"}, ConnectionSettingsError, "nobody"),
        ({"operation_id": "e03a", "archive": "s3://nobody@bucket/t"}, ConnectionSettingsError, "nobody"),
        ({"operation_id": "e03a", "file_format": "xlsx"}, SettingsError, "xlsx"),
        ({"operation_id": "e03a", "memory_mib": 0}, SettingsError, "memory"),
        ({"operation_id": "e03a", "side_by_side": 0}, SettingsError, "side_by_side"),
        ({"files": "/no/such/file.json"}, SpeechKitError, "/no/such/file.json"),
    ],
    ids=str,
)
def test_the_error_for_invalid_input_has_a_hint(
    desk: Desk, given: dict[str, Any], kind: type[SpeechKitError], expected: str
) -> None:
    with pytest.raises(kind) as raised:
        transform(desk, **given)
    assert expected in str(raised.value)


def test_an_unreachable_target_or_archive_is_an_error(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    ended(desk, operation_id)
    Path(desk.place / "file").write_text("")
    with pytest.raises(StorageError) as raised:
        transform(desk, operation_id=operation_id, target=str(desk.place / "file" / "t"))
    assert not isinstance(raised.value, ArchiveError)
    with pytest.raises(StorageError):
        transform(desk, operation_id=operation_id, target="s3://there-is-no-such-bucket/t")
    with pytest.raises(SpeechKitError):
        transform(desk, operation_id=operation_id, archive="s3://there-is-no-such-bucket/archive")


def test_a_temporary_archive_error_is_retried_and_nothing_is_left_out(desk: Desk) -> None:
    first, second = desk.emulator.stand_ins(2)
    ended(desk, first, second)
    for file in (Path(desk.archive_url) / "operations" / first).iterdir():
        file.unlink()
        file.mkdir()
    with pytest.raises(ArchiveError):
        transform(desk, operation_id=[first, second])
