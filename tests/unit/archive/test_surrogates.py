"""Half of a surrogate pair, which JSON can hold and UTF-8 can't, in what is kept on record and what becomes of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_speechkit.api.operation import read_operation
from airflow_speechkit.archive.inspection import verify
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.errors import ArchiveError
from airflow_speechkit.results.flatten import failed_row, flatten
from airflow_speechkit.results.many import write_many
from airflow_speechkit.results.schema import Status
from airflow_speechkit.storage import Folder
from tests.unit.archive.world import Clock, Service, failure_of, recording, submitter

HALF = "a\ud83d"
REPLACED = "a\N{REPLACEMENT CHARACTER}"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = Archive.at(tmp_path / "archive")
    made.probe(datetime.now(UTC))
    return made


def submitted(archive: Archive, **about: object) -> str:
    [outcome] = submitter(archive, Service(Clock())).submit([recording(**about)])
    assert outcome.error is None
    assert outcome.operation_id is not None
    return outcome.operation_id


def test_a_label_is_kept_escaped_and_read_back_as_it_was(archive: Archive) -> None:
    operation_id = submitted(archive, labels={HALF: HALF, "b": "привет"})
    submission = archive.submission(operation_id)
    assert submission is not None
    assert submission.labels == {HALF: HALF, "b": "привет"}
    file = archive.folder.read(f"operations/{operation_id}/submission.json")
    assert b'"a\\ud83d": "a\\ud83d"' in file
    assert "привет".encode() in file


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_an_error_and_a_label_with_one_become_rows_with_u_fffd(
    archive: Archive, tmp_path: Path, file_format: str
) -> None:
    operation_id = submitted(archive, labels={"a": HALF})
    raw = b'{"id":"%s","done":true,"error":{"code":3,"message":"a\\ud83d"}}' % operation_id.encode()
    archive.keep_operation(read_operation(raw), None)
    assert verify(archive, datetime.now(UTC)).operations == {"failed": 1}
    failure = failure_of(archive, operation_id)
    assert failure is not None
    assert failure.message == REPLACED
    answer, submission = archive.answer(operation_id), archive.submission(operation_id)
    assert answer is not None
    assert submission is not None
    target = Folder.at(tmp_path / "tables")
    manifest = write_many(lambda _: (answer, submission), [operation_id], target, file_format=file_format)
    assert not manifest.unread
    for rows in (flatten(answer, submission), failed_row(submission, Status.LOST, 3, HALF)):
        [row] = rows.recognitions.to_pylist()
        assert (row["error_message"], json.loads(row["labels"])) == (REPLACED, {"a": REPLACED})


def test_an_archives_error_about_a_damaged_record_does_not_quote_it(archive: Archive) -> None:
    operation_id = submitted(archive)
    archive.folder.replace(f"operations/{operation_id}/outcome.json", b'{"archive_version":1,"stage":"hunter2"}')
    with pytest.raises(ArchiveError, match="is damaged") as caught:
        archive.outcome(operation_id)
    assert caught.value.__context__ is None
    assert "hunter2" not in str(caught.value)


def test_an_errors_own_text_can_be_written() -> None:
    error = ArchiveError(f"What is called {HALF}", recording=f"s3://calls/{HALF}.ogg")
    assert str(error).encode().decode() == f"What is called {REPLACED}. [recording s3://calls/{REPLACED}.ogg]"
