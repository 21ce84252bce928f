from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from airflow_speechkit.errors import SettingsError, StorageError
from airflow_speechkit.results.flatten import failed_row, flatten
from airflow_speechkit.results.manifest import Manifest
from airflow_speechkit.results.schema import SCHEMA_VERSION, TABLES, VERSION_KEY, Status, Tables
from airflow_speechkit.storage import Folder
from tests.fixtures.manifests import write_rows
from tests.unit.results.answers import chunk, submission, v2, word


@pytest.fixture(params=["disk", "s3"])
def target(request, tmp_path):
    return Folder.at(tmp_path / "lake") if request.param == "disk" else request.getfixturevalue("bucket")


@pytest.fixture
def bucket(lake_bucket):
    return Folder(lake_bucket, "lake/speech", "s3://lake/speech")


def said(operation_id: str = "e03one", day: str = "2026-11-22", text: str = "да"):
    words = [word(f'{text},\n"{number}"', f"{number}s", f"{number}.500s") for number in range(10)]
    answer = v2(chunk("1", *words, text='«Да»; "нет", пусть'), chunk("2"), operation_id=operation_id, day=day)
    return flatten(answer, submission(operation_id))


def read(target: Folder, manifest: Manifest, table: str) -> pa.Table:
    return pa.concat_tables(
        [pq.read_table(pa.BufferReader(target.read(path))) for path in manifest.tables[table].paths]
    )


def names(target: Folder) -> set[str]:
    """The files of the tables."""
    return {name for name in target.names() if not name.startswith("_manifests/")}


def test_parquet_comes_back_as_it_went_with_the_schemas_version_and_statistics(target):
    tables = said()
    manifest = write_rows(target, tables)
    assert manifest.to_json() == {
        "format": "parquet",
        "tables": {
            name: {"paths": [f"{name}/day=2026-11-22/e03one.parquet"] if rows else [], "rows": rows}
            for name, rows in {"recognitions": 1, "utterances": 2, "words": 10, "analyses": 0}.items()
        },
        "operations": 1,
        "identical_channels": 0,
        "unread": {"count": 0, "operations": {}},
    }
    assert Manifest.from_json(json.loads(target.read("_manifests/batch.json")), manifest.url) == manifest
    for schema, table in tables.items():
        if table.num_rows:
            assert read(target, manifest, schema.name).equals(table), schema.name
    file = pq.ParquetFile(pa.BufferReader(target.read("words/day=2026-11-22/e03one.parquet")))
    assert file.schema_arrow.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()
    columns = [file.metadata.row_group(0).column(number) for number in range(file.metadata.num_columns)]
    (column,) = (one for one in columns if one.path_in_schema == "start_ms")
    assert (column.statistics.min, column.statistics.max) == (0, 9000)
    assert column.compression == "ZSTD"


def test_an_operation_that_is_written_again_replaces_exactly_its_own_files(target):
    write_rows(target, said("e03two"))
    write_rows(target, said("e03one"))
    before = {name: target.read(name) for name in target.names()}
    write_rows(target, said("e03one"))
    assert {name: target.read(name) for name in target.names()} == before
    write_rows(target, said("e03one", text="нет"))
    after = {name: target.read(name) for name in target.names()}
    assert {name for name in after if after[name] != before[name]} == {"words/day=2026-11-22/e03one.parquet"}


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_an_exception_in_mid_write_leaves_the_target_as_it_was(target, file_format):
    write_rows(target, said(), file_format=file_format)
    before = {name: target.read(name) for name in target.names()}

    def pieces():
        yield said("e03new")
        yield said(text="нет")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk"):
        write_rows(target, pieces(), file_format=file_format)
    assert {name: target.read(name) for name in target.names()} == before


def test_recognitions_appear_last_so_that_what_is_there_is_complete(target, monkeypatch):
    placed = []
    replace = Folder.replace

    def put_three(self, name, finished):
        if len(placed) == 3:
            raise StorageError("no more")
        replace(self, name, finished)
        placed.append(name)

    monkeypatch.setattr(Folder, "replace", put_three)
    monkeypatch.setattr("airflow_speechkit.results.write.AT_ONCE", 1)
    with pytest.raises(StorageError):
        write_rows(target, said(), said("e03two"))
    assert sorted(placed) == sorted(target.names())
    assert not any(name.startswith("recognitions") for name in placed)


def test_a_target_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        write_rows(Folder.at(tmp_path / "file" / "lake"), said())


def test_days_are_the_utc_dates_of_created_at_as_hive_has_them(target):
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
    manifest = write_rows(
        target,
        Tables.concat([said("e03a", "2026-11-21"), said("e03b", "2026-11-22")]),
        failed_row(submission("refused-1", submitted_at=late), Status.REFUSED, 3, "no header"),
        flatten(v2(operation_id="e03c", createdAt=None, modifiedAt=None)),
    )
    assert manifest.tables["recognitions"].paths == tuple(
        f"recognitions/day={name}.parquet"
        for name in ("2026-11-21/e03a", "2026-11-22/e03b", "2026-11-22/refused-1", "1970-01-01/e03c")
    )
    assert manifest.tables["words"].paths == ("words/day=2026-11-21/e03a.parquet", "words/day=2026-11-22/e03b.parquet")
    assert (manifest.operations, manifest.tables["words"].rows) == (4, 20)
    for schema in TABLES[:3]:
        for path in manifest.tables[schema.name].paths:
            assert set(pq.read_table(pa.BufferReader(target.read(path)))["recognition_id"].to_pylist()) == {
                path.rsplit("/", 1)[1].removesuffix(".parquet")
            }


def test_rows_without_a_date_do_not_keep_any_reader_from_the_others(tmp_path):
    pieces = [
        said("e03a", "2026-11-21"),
        flatten(v2(chunk("1", word("да", "1s", "2s")), operation_id="e03done", createdAt=None)),
        flatten(v2(chunk("1", word("да", "1s", "2s")), operation_id="e03never", createdAt=None, modifiedAt=None)),
    ]
    write_rows(Folder.at(tmp_path), *pieces)
    expected = {"e03a": "2026-11-21", "e03done": "2026-11-22", "e03never": "1970-01-01"}
    for table in ("recognitions", "words"):
        frame = pd.read_parquet(tmp_path / table)
        assert dict(zip(frame["recognition_id"], frame["day"].astype(str), strict=True)) == expected
        dataset = ds.dataset(tmp_path / table, partitioning="hive")
        columns = dataset.to_table().select(["recognition_id", "day"]).to_pydict()
        assert dict(zip(*columns.values(), strict=True)) == expected
        assert dataset.to_table(filter=ds.field("day") >= "2026-11-22")["recognition_id"].to_pylist() == ["e03done"]
        with duckdb.connect() as connection:
            files = f"'{tmp_path}/{table}/*/*.parquet'"
            found = connection.execute(f"SELECT DISTINCT recognition_id, day::TEXT FROM {files}").fetchall()
            assert dict(found) == expected
            # It has to stay a date: compared with one, a text is an error.
            late = connection.execute(f"SELECT DISTINCT recognition_id FROM {files} WHERE day >= DATE '2026-11-22'")
            assert late.fetchall() == [("e03done",)]
    assert pd.read_parquet(tmp_path / "recognitions")["created_at"].isna().sum() == 2


def nothing_said(operation_id: str = "e03one"):
    return flatten(v2(operation_id=operation_id), submission(operation_id))


def without_any_time(operation_id: str = "e03one"):
    return flatten(v2(chunk("1", word("да", "1s", "2s")), operation_id=operation_id, createdAt=None, modifiedAt=None))


VERSIONS = [
    *((said, file_format) for file_format in ("parquet", "csv", "jsonl")),
    (nothing_said, "parquet"),
    (without_any_time, "parquet"),
    (without_any_time, "csv"),
]


@pytest.mark.parametrize("first", VERSIONS, ids=lambda one: f"{one[0].__name__}-{one[1]}")
def test_an_operations_rows_stand_once_whatever_it_was_before(target, first):
    for version, file_format in VERSIONS[::4]:
        write_rows(target, version("e03one.2"), version("xe03one"), file_format=file_format)
    foreign = {"words/day=2026-11-22/e03one.txt", "words/other_date=2026-11-22/e03one.parquet"}
    for name in foreign:
        target.replace(name, b"somebody else's")
    others = names(target)
    for version, file_format in VERSIONS:
        write_rows(target, first[0](), file_format=first[1])
        manifest = write_rows(target, version(), file_format=file_format)
        ours = {path for table in manifest.tables.values() for path in table.paths}
        assert names(target) == ours | others


def test_new_files_come_before_old_ones_go_and_recognitions_go_first(target, monkeypatch):
    write_rows(target, said(), file_format="csv")
    done = []
    replace, delete = Folder.replace, Folder.delete
    monkeypatch.setattr(Folder, "replace", lambda self, name, to: (done.append(f"+{name}"), replace(self, name, to)))
    monkeypatch.setattr(Folder, "delete", lambda self, name: (done.append(f"-{name}"), delete(self, name)))
    write_rows(target, said())
    tables = [one.split("/")[0] for one in done]
    assert sorted(tables[:2]) == ["+utterances", "+words"]
    assert tables[2:] == ["+recognitions", "-recognitions", "-utterances", "-words", "+_manifests"]


def test_whoever_may_not_delete_can_write_as_long_as_nothing_is_left_over(target, monkeypatch):
    def refused(path):
        raise PermissionError("AccessDenied")

    monkeypatch.setattr(target.fs, "rm_file", refused)
    for _ in range(2):
        write_rows(target, said())
    with pytest.raises(StorageError, match=r"readers see twice.*Can't remove .*give the") as raised:
        write_rows(target, said(), file_format="csv")
    assert raised.value.retry_can_help is False
    assert "recognitions/day=2026-11-22/e03one.parquet" in str(raised.value)
    assert len(names(target)) == 6


def test_a_bucket_is_asked_for_the_days_that_are_written_whatever_the_number_of_operations(bucket, monkeypatch):
    listed = []
    find = type(bucket.fs).find
    monkeypatch.setattr(
        type(bucket.fs), "find", lambda self, path, **more: (listed.append(more), find(self, path, **more))[1]
    )
    write_rows(bucket, *(said(f"e03{number:03}") for number in range(20)))
    assert {one["prefix"].split("/", 1)[1] for one in listed} == {"day=1970-01-01/", "day=2026-11-22/"}
    assert len(listed) == 8


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_no_operations_are_no_files_and_a_manifest_that_says_so(target, file_format):
    manifest = write_rows(target, Tables.empty(), file_format=file_format)
    assert {name: table for name, table in manifest.tables.items() if table.rows or table.paths} == {}
    assert list(target.names()) == ["_manifests/batch.json"]


def test_duckdb_the_dataset_reader_and_pandas_read_the_files_as_they_are(tmp_path):
    tables = said()
    for file_format in ("parquet", "csv", "jsonl"):
        write_rows(Folder.at(tmp_path / file_format), tables, file_format=file_format)
    file = "day=2026-11-22/e03one"
    words = [tuple(row.values()) for row in tables.words.select(["word", "start_ms", "end_ms"]).to_pylist()]
    recognition = (datetime(2026, 11, 22, 10, tzinfo=UTC), 61_500, 2, None, '{"call_id": "17", "агент": "Анна"}')
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for ending, source in (
            ("parquet", "'{}.parquet'"),
            ("csv", "read_csv('{}.csv', all_varchar=false)"),
            ("jsonl", "read_json('{}.jsonl')"),
        ):
            table = source.format(tmp_path / ending / "words" / file)
            assert connection.execute(f"SELECT word, start_ms, end_ms FROM {table}").fetchall() == words
            table = source.format(tmp_path / ending / "recognitions" / file)
            created, *rest = connection.execute(
                f"SELECT epoch_ms(created_at::TIMESTAMPTZ), duration_ms, channels, error_code FROM {table}"
            ).fetchone()
            assert datetime.fromtimestamp(created / 1000, UTC) == recognition[0]
            assert tuple(rest) == recognition[1:4]
        label = connection.execute(
            f"SELECT labels->>'call_id' FROM '{tmp_path}/parquet/recognitions/{file}.parquet'"
        ).fetchone()
        assert label == ("17",)
    for ending in ("parquet", "csv"):
        dataset = ds.dataset(tmp_path / ending / "utterances" / f"{file}.{ending}", format=ending)
        assert dataset.to_table()["text"].to_pylist() == tables.utterances["text"].to_pylist()
    assert pd.read_parquet(tmp_path / "parquet" / "words" / f"{file}.parquet")["start_ms"].tolist() == [
        row[1] for row in words
    ]
    assert pd.read_csv(tmp_path / "csv" / "words" / f"{file}.csv")["word"].tolist() == [row[0] for row in words]
    frame = pd.read_json(tmp_path / "jsonl" / "words" / f"{file}.jsonl", lines=True)
    assert frame["word"].tolist() == [row[0] for row in words]


def test_ids_that_paths_would_not_take_are_made_to_fit_and_stay_apart(tmp_path):
    ids = ["../e03 one*/день", "../e03 one*/ночь", "_hidden", "e" * 300]
    manifest = write_rows(Folder.at(tmp_path), *(said(one) for one in ids))
    files = [path.removeprefix("words/day=2026-11-22/") for path in manifest.tables["words"].paths]
    assert len(set(files)) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9][\w.-]{1,130}\.parquet", one, re.ASCII) for one in files), files
    dataset = ds.dataset(tmp_path / "words", partitioning="hive")
    assert sorted(set(dataset.to_table()["recognition_id"].to_pylist())) == sorted(ids)


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path):
    with pytest.raises(SettingsError, match="orc"):
        write_rows(Folder.at(tmp_path), said(), file_format="orc")
    assert not list(tmp_path.iterdir())
