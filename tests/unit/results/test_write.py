from __future__ import annotations

import json
from datetime import UTC, datetime

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import s3fs

from airflow_speechkit.errors import SettingsError, StorageError
from airflow_speechkit.folder import Folder
from airflow_speechkit.results.flatten import failed_row, flatten
from airflow_speechkit.results.many import write_many
from airflow_speechkit.results.schema import ANALYSES, SCHEMA_VERSION, TABLES, VERSION_KEY, Status, Tables
from airflow_speechkit.results.write import Manifest, write_tables
from tests.fixtures.s3 import CREDENTIALS
from tests.unit.results.saying import chunk, submission, v2, word


@pytest.fixture(params=["disk", "s3"])
def target(request, tmp_path):
    return Folder.at(tmp_path / "lake") if request.param == "disk" else request.getfixturevalue("bucket")


@pytest.fixture
def bucket(s3_client, s3_endpoint):
    s3_client.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": CREDENTIALS["region_name"]})
    fs = s3fs.S3FileSystem(
        key=CREDENTIALS["aws_access_key_id"],
        secret=CREDENTIALS["aws_secret_access_key"],
        endpoint_url=s3_endpoint,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    return Folder(fs, "lake/speech", "s3://lake/speech")


def said(operation_id: str = "e03one", day: str = "2026-11-22", text: str = "да"):
    words = [word(f'{text},\n"{number}"', f"{number}s", f"{number}.500s") for number in range(10)]
    answer = v2(chunk("1", *words, text='«Да»; "нет", пусть'), chunk("2"), operation_id=operation_id, day=day)
    return flatten(answer, submission(operation_id))


def read(target: Folder, manifest: Manifest, table: str) -> pa.Table:
    names = [path.removeprefix(f"{target.url}/") for path in manifest.tables[table].paths]
    return pa.concat_tables([pq.read_table(pa.BufferReader(target.read(name))) for name in names])


def test_parquet_comes_back_as_it_went_with_the_schemas_version_and_statistics(target):
    tables = said()
    manifest = write_tables(tables, target, name="e03one", row_group_rows=4)
    assert manifest.to_json() == {
        "format": "parquet",
        "name": "e03one",
        "tables": {
            name: {"paths": [f"{target.url}/{name}/e03one.parquet"], "rows": rows}
            for name, rows in {"recognitions": 1, "utterances": 2, "words": 10, "analyses": 0}.items()
        },
        "operations": 1,
        "identical_channels": 0,
        "unread": {"count": 0, "operations": {}},
    }
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
    for schema, table in tables.items():
        assert read(target, manifest, schema.name).equals(table), schema.name
    file = pq.ParquetFile(pa.BufferReader(target.read("words/e03one.parquet")))
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [4, 4, 2]
    assert file.schema_arrow.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()
    column = file.metadata.row_group(1).column(8)
    assert (column.path_in_schema, column.statistics.min, column.statistics.max) == ("start_ms", 4000, 7000)
    assert column.compression == "ZSTD"


def test_a_second_run_replaces_exactly_its_own_files_and_they_are_the_same_to_the_byte(target):
    write_tables(said("e03two"), target, name="e03two")
    write_tables(said("e03one"), target, name="e03one")
    before = {name: target.read(name) for name in target.names()}
    write_tables(said("e03one"), target, name="e03one")
    assert {name: target.read(name) for name in target.names()} == before
    write_tables(said("e03one", text="нет"), target, name="e03one")
    after = {name: target.read(name) for name in target.names()}
    assert {name for name in after if after[name] != before[name]} == {"words/e03one.parquet"}


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_an_exception_in_mid_write_leaves_the_target_as_it_was(target, file_format):
    write_tables(said(), target, name="batch", file_format=file_format)
    before = {name: target.read(name) for name in target.names()}

    def pieces():
        yield said("e03new")
        yield said("e03newer")
        raise RuntimeError("the disk is full")

    for name in ("batch", "other"):
        with pytest.raises(RuntimeError, match="disk"):
            write_tables(pieces(), target, name=name, file_format=file_format, row_group_rows=2, buffer_bytes=1)
    assert {name: target.read(name) for name in target.names()} == before


def test_recognitions_appear_last_so_that_what_is_there_is_complete(target, monkeypatch):
    placed = []
    put = Folder.put

    def put_two(self, name, finished):
        if len(placed) == 2:
            raise StorageError("no more")
        placed.append(name)
        put(self, name, finished)

    monkeypatch.setattr(Folder, "put", put_two)
    with pytest.raises(StorageError):
        write_tables(said(), target, name="e03one")
    assert list(target.names()) == sorted(placed)
    assert not any(name.startswith("recognitions") for name in placed)


def test_a_target_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        write_tables(said(), Folder.at(tmp_path / "file" / "lake"), name="e03one")


def test_partitions_are_the_utc_dates_of_created_at_as_hive_has_them(target):
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
    pieces = [
        said("e03a", "2026-11-21"),
        said("e03b", "2026-11-22"),
        failed_row(submission("refused-1", submitted_at=late), Status.REFUSED, 3, "no header"),
        flatten(v2(operation_id="e03c", createdAt=None, modifiedAt=None)),
    ]
    manifest = write_tables(pieces, target, name="batch", partition_by_date=True)
    assert manifest.tables["recognitions"].paths == tuple(
        f"{target.url}/recognitions/created_date={date}/batch.parquet"
        for date in ("1970-01-01", "2026-11-21", "2026-11-22")
    )
    assert manifest.operations == 4
    assert manifest.tables["words"].rows == 20
    assert pq.read_table(pa.BufferReader(target.read("recognitions/created_date=2026-11-22/batch.parquet")))[
        "recognition_id"
    ].to_pylist() == ["e03b", "refused-1"]
    assert set(
        pq.read_table(pa.BufferReader(target.read("words/created_date=2026-11-21/batch.parquet")))[
            "operation_id"
        ].to_pylist()
    ) == {"e03a"}


def test_rows_without_a_date_do_not_keep_any_reader_from_the_others(tmp_path):
    pieces = [
        said("e03a", "2026-11-21"),
        flatten(v2(chunk("1", word("да", "1s", "2s")), operation_id="e03done", createdAt=None)),
        flatten(v2(chunk("1", word("да", "1s", "2s")), operation_id="e03never", createdAt=None, modifiedAt=None)),
    ]
    write_tables(pieces, Folder.at(tmp_path), name="batch", partition_by_date=True)
    expected = {"e03a": "2026-11-21", "e03done": "2026-11-22", "e03never": "1970-01-01"}
    for table in ("recognitions", "words"):
        frame = pd.read_parquet(tmp_path / table)
        assert dict(zip(frame["operation_id"], frame["created_date"].astype(str), strict=True)) == expected
        dataset = ds.dataset(tmp_path / table, partitioning="hive")
        columns = dataset.to_table().select(["operation_id", "created_date"]).to_pydict()
        assert dict(zip(*columns.values(), strict=True)) == expected
        assert dataset.to_table(filter=ds.field("created_date") >= "2026-11-22")["operation_id"].to_pylist() == [
            "e03done"
        ]
        with duckdb.connect() as connection:
            files = f"'{tmp_path}/{table}/*/*.parquet'"
            found = connection.execute(f"SELECT DISTINCT operation_id, created_date::TEXT FROM {files}").fetchall()
            assert dict(found) == expected
            # It has to stay a date: compared with one, a text is an error.
            late = connection.execute(
                f"SELECT DISTINCT operation_id FROM {files} WHERE created_date >= DATE '2026-11-22'"
            )
            assert late.fetchall() == [("e03done",)]
    assert pd.read_parquet(tmp_path / "recognitions")["created_at"].isna().sum() == 2


LAYOUTS = [
    {"file_format": file_format, "day": day}
    for file_format in ("parquet", "csv", "jsonl")
    for day in (None, "2026-11-21", "2026-11-22")
]


def write_as(target, layout, name="batch"):
    day, file_format = layout["day"], layout["file_format"]
    return write_tables(
        said("e03one", day or "2026-11-22"), target, name=name, file_format=file_format, partition_by_date=bool(day)
    )


@pytest.mark.parametrize("first", LAYOUTS[::4], ids=str)
def test_a_second_run_replaces_the_first_whatever_its_format_and_dates_were(target, first):
    for name in ("batch.2", "xbatch"):
        write_as(target, first, name)
    foreign = {"words/batch.txt", "words/other_date=2026-11-22/batch.parquet"}
    for name in foreign:
        target.replace(name, b"somebody else's")
    others = set(target.names())
    for second in LAYOUTS:
        write_as(target, first)
        manifest = write_as(target, second)
        ours = {path.removeprefix(f"{target.url}/") for table in manifest.tables.values() for path in table.paths}
        assert set(target.names()) == ours | others


def test_new_files_come_before_old_ones_go_and_recognitions_go_first(target, monkeypatch):
    write_as(target, {"file_format": "parquet", "day": "2026-11-21"})
    done = []
    put, delete = Folder.put, Folder.delete
    monkeypatch.setattr(Folder, "put", lambda self, name, path: (done.append(f"+{name}"), put(self, name, path)))
    monkeypatch.setattr(Folder, "delete", lambda self, name: (done.append(f"-{name}"), delete(self, name)))
    write_as(target, {"file_format": "parquet", "day": "2026-11-22"})
    assert [one.split("/")[0] for one in done] == [
        *("+analyses", "+utterances", "+words", "+recognitions"),
        *("-recognitions", "-utterances", "-words", "-analyses"),
    ]


def test_whoever_may_not_delete_can_write_as_long_as_nothing_is_left_over(target, monkeypatch):
    def refused(path):
        raise PermissionError("AccessDenied")

    monkeypatch.setattr(target.fs, "rm_file", refused)
    layout = {"file_format": "parquet", "day": "2026-11-21"}
    for _ in range(2):
        write_as(target, layout)
    with pytest.raises(StorageError, match=r"new files are in place, but 4 of an earlier.*right to delete") as raised:
        write_as(target, {**layout, "day": "2026-11-22"})
    assert raised.value.retry_can_help is False
    assert "recognitions/created_date=2026-11-21/batch.parquet" in str(raised.value)
    assert len(list(target.names())) == 8


def test_under_a_name_of_the_users_the_files_of_other_dates_stay(tmp_path):
    for operation_id, day in (("e03one", "2026-11-21"), ("e03two", "2026-11-22"), ("e03two", "2026-11-22")):
        answer = v2(chunk("1", word("да", "0s", "1s")), operation_id=operation_id, day=day)
        write_many(
            lambda _, answer=answer: (answer, None),
            [operation_id],
            Folder.at(tmp_path),
            name="calls",
            partition_by_date=True,
            anew=False,
        )
    assert sorted(path.parent.name for path in tmp_path.glob("words/*/calls.parquet")) == [
        "created_date=2026-11-21",
        "created_date=2026-11-22",
    ]


def test_whoever_may_not_list_can_write(target, monkeypatch, caplog):
    def refused(*_, **__):
        raise PermissionError("AccessDenied")

    write_as(target, {"file_format": "parquet", "day": None})
    monkeypatch.setattr(Folder, "_found", refused)
    monkeypatch.setattr(type(target.fs), "find", refused)
    manifest = write_as(target, {"file_format": "parquet", "day": None})
    assert manifest.tables["words"].rows > 0
    assert "isn't looked for" in caplog.text


def test_a_bucket_is_asked_for_what_may_be_left_over_and_not_for_all_it_has(bucket, monkeypatch):
    write_tables(said("e03one"), bucket, name="e03one")
    listed = []
    find = type(bucket.fs).find
    monkeypatch.setattr(
        type(bucket.fs), "find", lambda self, path, **more: (listed.append(more), find(self, path, **more))[1]
    )
    write_tables(said("e03two"), bucket, name="e03two")
    assert len(listed) == 8
    assert {one["prefix"].split("/")[1] for one in listed} == {"e03two.", "created_date="}


def test_one_piece_can_hold_several_dates(tmp_path):
    both = Tables.concat([said("e03a", "2026-11-21"), said("e03b", "2026-11-22")])
    manifest = write_tables(both, Folder.at(tmp_path), name="batch", partition_by_date=True)
    assert [len(table.paths) for table in manifest.tables.values()] == [2, 2, 2, 2]
    dataset = ds.dataset(tmp_path / "words", partitioning="hive")
    assert dataset.count_rows(filter=ds.field("created_date") == "2026-11-21") == 10


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_no_rows_are_files_with_the_same_columns(target, file_format):
    manifest = write_tables([], target, name="none", file_format=file_format)
    assert {name: table.rows for name, table in manifest.tables.items()} == {schema.name: 0 for schema in TABLES}
    assert manifest.operations == 0
    if file_format == "parquet":
        for schema in TABLES:
            assert read(target, manifest, schema.name).schema.equals(schema.arrow, check_metadata=False)
    if file_format == "csv":
        header = target.read("analyses/none.csv").decode().strip()
        assert header == ",".join(f'"{name}"' for name in ANALYSES.arrow.names)


def test_duckdb_the_dataset_reader_and_pandas_read_the_files_as_they_are(tmp_path):
    tables = said()
    for file_format in ("parquet", "csv", "jsonl"):
        write_tables(tables, Folder.at(tmp_path / file_format), name="e03one", file_format=file_format)
    words = [tuple(row.values()) for row in tables.words.select(["word", "start_ms", "end_ms"]).to_pylist()]
    recognition = (datetime(2026, 11, 22, 10, tzinfo=UTC), 61_500, 2, None, '{"call_id": "17", "агент": "Анна"}')
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for ending, source in (
            ("parquet", "'{}.parquet'"),
            ("csv", "read_csv('{}.csv', all_varchar=false)"),
            ("jsonl", "read_json('{}.jsonl')"),
        ):
            table = source.format(tmp_path / ending / "words" / "e03one")
            assert connection.execute(f"SELECT word, start_ms, end_ms FROM {table}").fetchall() == words
            table = source.format(tmp_path / ending / "recognitions" / "e03one")
            created, *rest = connection.execute(
                f"SELECT epoch_ms(created_at::TIMESTAMPTZ), duration_ms, channels, error_code FROM {table}"
            ).fetchone()
            assert datetime.fromtimestamp(created / 1000, UTC) == recognition[0]
            assert tuple(rest) == recognition[1:4]
        label = connection.execute(
            f"SELECT labels->>'call_id' FROM '{tmp_path}/parquet/recognitions/e03one.parquet'"
        ).fetchone()
        assert label == ("17",)
    for ending in ("parquet", "csv"):
        dataset = ds.dataset(tmp_path / ending / "utterances" / f"e03one.{ending}", format=ending)
        assert dataset.to_table()["text"].to_pylist() == tables.utterances["text"].to_pylist()
    assert pd.read_parquet(tmp_path / "parquet" / "words" / "e03one.parquet")["start_ms"].tolist() == [
        row[1] for row in words
    ]
    assert pd.read_csv(tmp_path / "csv" / "words" / "e03one.csv")["word"].tolist() == [row[0] for row in words]
    frame = pd.read_json(tmp_path / "jsonl" / "words" / "e03one.jsonl", lines=True)
    assert frame["word"].tolist() == [row[0] for row in words]


def test_a_name_that_paths_would_not_take_is_made_to_fit(tmp_path):
    manifest = write_tables(said(), Folder.at(tmp_path), name="../e03 one*/день")
    assert manifest.tables["words"].paths == (f"{tmp_path}/words/_e03_one______.parquet",)


@pytest.mark.parametrize("wrong", [{"file_format": "orc"}, {"row_group_rows": 0}, {"buffer_bytes": 0}])
def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path, wrong):
    with pytest.raises(SettingsError):
        write_tables(said(), Folder.at(tmp_path), name="e03one", **wrong)
    assert not list(tmp_path.iterdir())


def test_rows_are_gathered_into_row_groups_however_they_come(tmp_path):
    pieces = (said(f"e03{number:03d}") for number in range(30))
    write_tables(pieces, Folder.at(tmp_path), name="batch", row_group_rows=100)
    file = pq.ParquetFile(tmp_path / "words" / "batch.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [100, 100, 100]
    file.close()
