"""``airflow-speechkit archive`` on a disk and in a bucket, run as a command is."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from airflow_speechkit.archive.ledger import Failure
from airflow_speechkit.archive.maintenance import delete_operation
from airflow_speechkit.archive.store import Archive
from airflow_speechkit.archive.submit_rules import SubmitStatus
from airflow_speechkit.cli import main
from airflow_speechkit.errors import ArchiveError, StorageError
from airflow_speechkit.models import Answer
from airflow_speechkit.results.files import FileFormat, write_file
from airflow_speechkit.results.flatten import flatten
from airflow_speechkit.results.schema import Tables
from airflow_speechkit.settings import ApiVersion
from airflow_speechkit.storage import Folder
from airflow_speechkit.warehouse.ddl import Dialect, Names
from airflow_speechkit.warehouse.deletion import delete_rows_in_duckdb, delete_rows_in_files
from tests.fixtures.manifests import write_rows
from tests.unit.archive.world import T0, Clock, Service, answer, archive_at, failure, lost, recording, submitter


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Airflow 2.11 logs to standard output, where a command that runs in its own process only prints."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


class World:
    """An archive with one operation finished, one failed, one running, and one submission lost."""

    def __init__(self, archive: Archive, options: list[str]) -> None:
        self.archive = archive
        self.options = options
        self.clock = Clock()
        self.clock.time = datetime.now(UTC) - timedelta(hours=1)
        self.service = Service(self.clock)
        archive.probe(T0)
        self.service.script["lost"] = [lost()]
        outcomes = submitter(archive, self.service).submit(
            [recording(name) for name in ("done", "failed", "runs", "lost")]
        )
        self.done, self.failed, self.runs = (one.operation_id or "" for one in outcomes[:3])
        self.lost = outcomes[3].fingerprint
        archive.keep(spoken(self.done), now=self.clock.now())
        archive.keep(answer(self.failed), failure(3), now=self.clock.now())

    def run(self, command: str, *arguments: str) -> int:
        return main(["archive", command, *arguments, *self.options])


@pytest.fixture(params=["disk", "s3"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    if request.param == "disk":
        return World(Archive.at(tmp_path / "archive"), ["--archive", str(tmp_path / "archive")])
    endpoint = request.getfixturevalue("s3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    root = f"lake/{tmp_path.name}"
    return World(archive_at(root, endpoint), ["--archive", f"s3://{root}", "--endpoint-url", endpoint])


def spoken(operation_id: str) -> Answer:
    word = {"startTime": "0.100s", "endTime": "0.500s", "word": "да", "confidence": 1}
    chunk = {"alternatives": [{"words": [word], "text": "Да", "confidence": 1}], "channelTag": "1"}
    body = {
        "done": True,
        "response": {
            "@type": "type.googleapis.com/yandex.cloud.ai.stt.v2.LongRunningRecognitionResponse",
            "chunks": [chunk],
        },
        "id": operation_id,
        "createdAt": "2026-11-22T12:00:00Z",
        "createdBy": "aje",
        "modifiedAt": "2026-11-22T12:00:10Z",
    }
    return Answer(operation_id, ApiVersion.V2, json.dumps(body).encode())


def test_list_names_every_operation(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["finished", "failed", "running"]
    assert "s3://calls/done.ogg" in lines[0]
    assert world.run("list", "--state", "failed", "--json") == 0
    [failed] = map(json.loads, capsys.readouterr().out.splitlines())
    assert (failed["operation_id"], failed["error"]["code"]) == (world.failed, 3)


def test_show_leads_from_the_id_to_everything(world: World, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert world.run("show", world.done) == 0
    shown = json.loads(capfdbinary.readouterr().out)
    assert shown["state"] == "finished"
    assert shown["settings"]["language"] == "ru-RU"
    assert shown["labels"] == {"call_id": "done"}
    assert set(shown["files"]) == {"operation.json.gz"}
    assert world.run("show", world.done, "--answer") == 0
    assert capfdbinary.readouterr().out == spoken(world.done).operation
    assert world.run("show", world.runs, "--answer") == 1
    assert world.run("show", "e03unknown") == 1


def test_verify_finds_what_has_neither_answer_nor_reason(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("verify") == 1
    out = capsys.readouterr().out
    assert f"lost     {world.lost}" in out
    assert "3 operations (1 failed, 1 finished, 1 running); 1 problems" in out
    assert world.run("release", world.lost) == 0
    assert world.run("verify") == 0
    world.archive.folder.replace(f"operations/{world.done}/operation.json.gz", gzip.compress(b"{}"))
    assert world.run("verify") == 1
    assert f"damaged  {world.done}" in capsys.readouterr().out


def test_verify_finds_what_the_service_has_deleted_by_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = Archive.at(tmp_path)
    archive.probe(T0)
    service = Service(Clock())
    service.clock.time = datetime.now(UTC) - timedelta(days=4)
    [outcome] = submitter(archive, service).submit([recording()])
    assert main(["archive", "verify", "--archive", str(tmp_path)]) == 1
    assert f"overdue  {outcome.operation_id}" in capsys.readouterr().out
    archive.expire(outcome.operation_id or "", datetime.now(UTC))
    assert main(["archive", "verify", "--archive", str(tmp_path)]) == 0


def test_a_lost_submission_is_adopted(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    [operation_id] = [one for one, name in world.service.operations.items() if name == "lost"]
    assert world.run("adopt", world.lost, operation_id) == 0
    [again] = submitter(world.archive, world.service).submit([recording("lost")])
    assert (again.status, again.operation_id) == (SubmitStatus.JOINED, operation_id)
    assert world.run("adopt", world.lost, operation_id) == 1
    assert "no such lost submission" in capsys.readouterr().err


def test_an_exported_archive_is_an_archive(world: World, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    assert world.run("export", "--to", str(target)) == 0
    assert world.run("export", "--to", str(target)) == 0
    copy = Archive.at(target)
    assert copy.answer(world.done) == spoken(world.done)
    [outcome] = submitter(copy, world.service).submit([recording("done")])
    assert outcome.status is SubmitStatus.REUSED
    assert sorted(copy.folder.names()) == sorted(world.archive.folder.names())


def test_exported_answers_are_plain_files(world: World, tmp_path: Path) -> None:
    assert world.run("export", "--answers", "--to", str(tmp_path / "answers")) == 0
    assert (tmp_path / "answers" / f"{world.done}.json").read_bytes() == spoken(world.done).operation
    tables = tmp_path / "tables"
    assert main(["transform", str(tmp_path / "answers" / f"{world.done}.json"), "--to", str(tables)]) == 0


def test_exported_answers_of_v3_read_back_as_what_they_are(tmp_path: Path) -> None:
    archive = Archive.at(tmp_path / "archive")
    archive.probe(T0)
    done: dict[str, Any] = {"done": True, "description": "STT v3 async recognition"}
    stream = b'{"result":{"final":{"alternatives":[{"text":"a"}]},"channelTag":"0"}}\n'
    for operation_id, more, recognition, why in (
        ("f8d1said", {}, stream, None),
        ("f8d2silent", {}, b"\n", None),
        ("f8d3broken", {}, None, Failure(13, "lost")),
        ("f8d4failed", {"error": {"code": 3, "message": "no header"}}, None, Failure(3, "no header")),
    ):
        operation = json.dumps({**done, "id": operation_id, **more}).encode()
        archive.keep(Answer(operation_id, ApiVersion.V3, operation, recognition), why, now=T0)
    assert main(["archive", "export", "--archive", archive.url, "--answers", "--to", str(tmp_path / "answers")]) == 0
    saved = sorted(map(str, (tmp_path / "answers").iterdir()))
    assert main(["transform", *saved, "--to", str(tmp_path / "tables")]) == 0
    rows = pq.read_table(tmp_path / "tables/recognitions").to_pylist()
    columns = ("operation_id", "api_version", "status", "utterances", "error_code", "error_message")
    assert [tuple(row[column] for column in columns) for row in rows] == [
        ("f8d1said", "v3", "finished", 1, None, None),
        ("f8d2silent", "v3", "finished", 0, None, None),
        ("f8d3broken", "v3", "failed", 0, 13, "lost"),
        ("f8d4failed", "v3", "failed", 0, 3, "no header"),
    ]


def test_there_has_to_be_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archive", "list", "--archive", str(tmp_path / "nothing")]) == 1
    assert "There is no archive" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class TestForget:
    def test_a_deleted_recording_leaves_no_trace_but_that_it_was_deleted(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert world.run("forget", world.done) == 0
        assert f"recognition_id IN ('{world.done}')" in capsys.readouterr().out
        for name in world.archive.folder.names():
            raw = world.archive.folder.read(name)
            raw = gzip.decompress(raw) if name.endswith(".gz") else raw
            assert b"done.ogg" not in raw
            assert b'call_id": "done' not in raw
        [record] = list(world.archive.folder.names("forgotten"))
        kept = json.loads(world.archive.folder.read(record))
        assert kept["operation_id"] == world.done
        assert kept["finished_at"]
        # Its answer comes once more, from a trigger that was slow: it isn't put back.
        world.archive.keep(spoken(world.done), now=T0)
        assert world.archive.answer(world.done) is None
        assert world.archive.submission(world.done) is None

    def test_it_is_paid_for_again_when_it_is_submitted_again(self, world: World) -> None:
        assert world.run("forget", world.done) == 0
        [again] = submitter(world.archive, world.service).submit([recording("done")])
        assert again.status is SubmitStatus.SUBMITTED
        assert again.operation_id != world.done

    def test_one_that_runs_is_deleted_only_on_request(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        assert world.run("forget", world.runs) == 1
        assert "--even-if-running" in capsys.readouterr().err
        assert world.archive.submission(world.runs) is not None
        assert world.run("forget", world.runs, "--even-if-running") == 0
        assert world.archive.submission(world.runs) is None

    def test_every_operation_and_attempt_of_a_recording_is_deleted(self, world: World) -> None:
        submitter(world.archive, world.service, run="again", reuse=False).submit([recording("done")])
        assert world.run("forget", "--recording", "s3://calls/done.ogg", "--even-if-running") == 0
        assert world.run("forget", "--recording", "s3://calls/lost.ogg") == 0
        left = b"".join(world.archive.folder.read(name) for name in world.archive.folder.names("ledger"))
        assert b"done.ogg" not in left
        assert b"lost.ogg" not in left
        assert b"failed.ogg" in left

    def test_nothing_to_delete_is_an_error(self, world: World) -> None:
        assert world.run("forget") == 1
        assert world.run("forget", "e03unknown") == 1
        with pytest.raises(ArchiveError, match="isn't in the archive"):
            delete_operation(world.archive, "e03unknown", now=T0)

    def test_a_dry_run_removes_nothing(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        assert world.run("forget", "--recording", "s3://calls/done.ogg", "--dry-run") == 0
        assert capsys.readouterr().out.split() == [world.done]
        assert world.archive.answer(world.done) is not None

    def test_its_rows_are_removed_from_files_that_others_share(self, world: World, tmp_path: Path) -> None:
        target = Folder.at(tmp_path / "tables")
        both = [flatten(spoken(one), None) for one in (world.done, "e03other")]
        compacted, only = Folder.at(tmp_path / "compacted"), Folder.at(tmp_path / "only")
        write_rows(target, both)
        for folder, pieces in ((compacted, both), (only, both[1:])):
            (tmp_path / "file").unlink(missing_ok=True)
            write_file(tmp_path / "file", Tables.concat(pieces).words, FileFormat.PARQUET)
            folder.replace("words/day=2026-11-22/part-0.parquet", tmp_path / "file")
        assert world.run("forget", world.done, "--tables", target.url, "--tables", compacted.url) == 0
        assert not [name for name in target.names() if world.done in name]
        assert len(list(target.names("words"))) == 1
        for name in only.names():
            assert pq.ParquetFile(compacted.path(name)).read().equals(pq.ParquetFile(only.path(name)).read())
        assert delete_rows_in_files(target, [world.done]) == delete_rows_in_files(compacted, [world.done]) == []

    def test_its_rows_are_removed_from_files_of_version_0_1(self, world: World, tmp_path: Path) -> None:
        target = Folder.at(tmp_path / "tables")
        words = Tables.concat([flatten(spoken(one), None) for one in (world.done, "e03other")]).words
        write_file(tmp_path / "file", words.drop_columns("recognition_id"), FileFormat.PARQUET)
        target.replace("words/batch.parquet", tmp_path / "file")
        assert world.run("forget", world.done, "--tables", target.url) == 0
        assert pq.ParquetFile(target.path("words/batch.parquet")).read()["operation_id"].unique().to_pylist() == [
            "e03other"
        ]

    @pytest.mark.parametrize("file_format", ["csv", "jsonl"])
    def test_a_shared_csv_or_json_lines_file_with_its_rows_is_refused_and_nothing_is_deleted(
        self, world: World, tmp_path: Path, file_format: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target = Folder.at(tmp_path / "tables")
        for name, ids in (("both", (world.done, "e03other")), ("other", ("e03other",))):
            words = Tables.concat([flatten(spoken(one), None) for one in ids]).words
            write_file(tmp_path / name, words, FileFormat(file_format))
        target.replace(f"words/other.{file_format}", tmp_path / "other")
        assert delete_rows_in_files(target, [world.done]) == []
        target.replace(f"words/both.{file_format}", tmp_path / "both")
        assert world.run("forget", world.done, "--tables", target.url) == 1
        assert f"words/both.{file_format} may hold rows of these operations" in capsys.readouterr().err
        assert world.archive.answer(world.done) is not None

    def test_a_refused_recording_s_rows_are_removed_from_duckdb(self, world: World, tmp_path: Path) -> None:
        import duckdb

        database = str(tmp_path / "speech.duckdb")
        with duckdb.connect(database) as connection:
            connection.execute("CREATE TABLE recognitions (recognition_id VARCHAR, operation_id VARCHAR)")
            connection.execute("INSERT INTO recognitions VALUES ('refused-1', NULL), ('e03other', 'e03other')")
        assert delete_rows_in_duckdb(database, ["refused-1"], Names(Dialect.DUCKDB)) == 1
        with duckdb.connect(database) as connection:
            assert connection.execute("SELECT recognition_id FROM recognitions").fetchall() == [("e03other",)]

    def test_its_rows_are_removed_from_duckdb(self, world: World, tmp_path: Path) -> None:
        import duckdb

        database = str(tmp_path / "speech.duckdb")
        with duckdb.connect(database) as connection:
            for table in ("recognitions", "words"):
                connection.execute(f"CREATE TABLE {table} (operation_id VARCHAR, word VARCHAR)")
                connection.execute(f"INSERT INTO {table} VALUES (?, 'a'), ('e03other', 'b')", [world.done])
        assert world.run("forget", world.done, "--duckdb", database) == 0
        with duckdb.connect(database) as connection:
            assert connection.execute("SELECT operation_id FROM words").fetchall() == [("e03other",)]
            assert connection.execute("SELECT operation_id FROM recognitions").fetchall() == [("e03other",)]
        with pytest.raises(StorageError, match="no DuckDB database"):
            delete_rows_in_duckdb(str(tmp_path / "none.duckdb"), [world.done], Names(Dialect.DUCKDB))


def test_keys_in_an_address_are_refused_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archive", "list", "--archive", "s3://AKIAKEY:hunter2@bucket/archive"]) == 1
    assert "hunter2" not in capsys.readouterr().err
