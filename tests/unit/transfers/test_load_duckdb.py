from __future__ import annotations

import importlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException, AirflowSkipException

from airflow_speechkit.errors import ConnectionSettingsError, SettingsError, StorageError
from airflow_speechkit.results.flatten import flatten
from airflow_speechkit.storage import Folder
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator, read_sources
from airflow_speechkit.warehouse.ddl import Dialect, Names
from airflow_speechkit.warehouse.duckdb import DuckDB
from airflow_speechkit.warehouse.load import load as load_into
from tests.fixtures.direct import AIRFLOW_3
from tests.fixtures.manifests import (
    analysis,
    paths_of,
    recognition,
    the_call,
    utterance,
    words_of,
    write_manifest,
    write_rows,
)
from tests.unit.results.answers import chunk, v2, word

EVERYTHING = {"recognitions": 7, "utterances": 6, "words": 16, "analyses": 0}


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_every_format_is_loaded_with_its_types(file_format, tmp_path, database, load, ask) -> None:
    rows = the_call()
    rows["analyses"] = [analysis("op-new")]
    assert load(write_manifest(tmp_path / "lake", rows, file_format=file_format)) == EVERYTHING | {"analyses": 1}
    types = dict(ask("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'recognitions'"))
    assert types["labels"] == "JSON"
    assert types["created_at"] == "TIMESTAMP WITH TIME ZONE"
    assert types["duration_ms"] == "BIGINT"
    assert ask(
        "SELECT labels ->> 'call_id', epoch_ms(created_at), model, error_message FROM recognitions "
        "WHERE operation_id = 'op-new'"
    ) == [("17", int(datetime(2026, 11, 22, 10, tzinfo=UTC).timestamp() * 1000), "general", None)]
    assert ask("SELECT payload ->> 'a' FROM analyses") == [("б",)]
    assert ask("SELECT text, text_raw FROM utterances WHERE utterance = 4") == [("Ёлка", None)]


def test_a_rerun_duplicates_nothing_and_replaces_only_its_operations(tmp_path, database, load, ask) -> None:
    manifest = write_manifest(tmp_path / "lake", the_call())
    assert load(manifest) == load(manifest) == EVERYTHING
    said = [utterance("op-new", 0, 1, 0, 100, "заново")]
    again = {"recognitions": [recognition("op-new", "s3://calls/1.ogg")], "utterances": said, "words": words_of(said)}
    load(write_manifest(tmp_path / "lake", again, name="again"))
    assert ask("SELECT count(*) FROM recognitions") == [(7,)]
    assert ask("SELECT text FROM utterances WHERE operation_id = 'op-new'") == [("заново",)]
    assert ask("SELECT count(*) FROM words WHERE operation_id = 'op-old'") == [(3,)]


def test_an_operation_in_two_manifests_is_loaded_once_from_the_later(tmp_path, database, load, ask) -> None:
    first = {"recognitions": [recognition("op-1", None, model="first"), recognition("op-2", None)]}
    later = {"recognitions": [recognition("op-1", None, model="later")]}
    manifests = [write_manifest(tmp_path, rows, name=name) for name, rows in (("a", first), ("b", later))]
    for _ in range(2):  # into new tables, then into those
        load(one for one in manifests)  # as the lazy sequence of a mapped task is: iterable, and no list
        assert ask("SELECT operation_id, model FROM recognitions ORDER BY 1") == [
            ("op-1", "later"),
            ("op-2", "general"),
        ]


def test_new_columns_are_added_and_none_is_dropped(tmp_path, database, load, ask) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE TABLE recognitions (operation_id VARCHAR, mine VARCHAR DEFAULT 'yes')")
        connection.execute("INSERT INTO recognitions VALUES ('op-before', 'kept')")
    load(write_manifest(tmp_path / "lake", the_call()))
    assert ask("SELECT mine, status FROM recognitions WHERE operation_id = 'op-before'") == [("kept", None)]
    assert ask("SELECT mine, status FROM recognitions WHERE operation_id = 'op-new'") == [("yes", "finished")]


def test_a_schema_and_a_prefix_keep_the_tables_apart(tmp_path, database, load, ask) -> None:
    load(write_manifest(tmp_path / "lake", the_call()), schema="Speech data", table_prefix="sk_")
    assert ask('SELECT count(*) FROM "Speech data".sk_words') == [(16,)]
    assert ask('SELECT count(*) FROM "Speech data".sk_dialogue') == [(5,)]


@pytest.mark.parametrize("keywords", [{"table_prefix": "a b"}, {"schema": ""}, {"table_prefix": "x" * 31}])
def test_an_invalid_name_is_refused(keywords, tmp_path, database, load) -> None:
    with pytest.raises(SettingsError):
        load(write_manifest(tmp_path / "lake", the_call()), **keywords)


def test_without_create_missing_tables_are_named(tmp_path, database, load) -> None:
    with pytest.raises(SettingsError, match=r"recognitions.*create=True"):
        load(write_manifest(tmp_path / "lake", the_call()), create=False)


def test_without_create_columns_that_the_table_lacks_are_left_out_with_a_warning(tmp_path, database, load, ask, caplog):
    manifest = write_manifest(tmp_path / "lake", the_call())
    load(manifest)
    with duckdb.connect(str(database)) as connection:
        for view in ("dialogue", "talk_time", "words_per_minute", "interruptions", "word_search"):
            connection.execute(f"DROP VIEW {view}")
        connection.execute("DROP VIEW current_recognitions")
        connection.execute("ALTER TABLE recognitions DROP COLUMN model")
    load(manifest, create=False)
    assert ask("SELECT count(*) FROM recognitions") == [(7,)]
    assert "no column for model" in caplog.text


def test_partitions_and_patterns_in_a_path_are_taken_literally(tmp_path, database, load, ask) -> None:
    load(write_manifest(tmp_path / "date=2026-11-22" / "a*[b]?c", the_call()))
    load(write_manifest(tmp_path / "date=2026-11-22" / "plain", the_call()))
    assert ask("SELECT count(*) FROM words") == [(16,)]


def test_an_empty_batch_creates_the_tables(tmp_path, database, load, ask) -> None:
    for file_format in ("parquet", "csv", "jsonl"):
        manifest = write_manifest(tmp_path, {"recognitions": []}, file_format=file_format)
        assert load(manifest) == dict.fromkeys(EVERYTHING, 0)
    assert ask("SELECT count(*) FROM words") == [(0,)]


def test_files_that_changed_since_the_transform_are_not_loaded(tmp_path, database, load, ask) -> None:
    load(write_manifest(tmp_path, the_call()))
    manifest = write_manifest(tmp_path, the_call())
    file = Path(manifest["manifest"])
    file.write_text(file.read_text().replace('"rows": 16', '"rows": 17'))
    with pytest.raises(StorageError, match="16 rows for `words`, the manifest says 17"):
        load(manifest)
    assert ask("SELECT count(*) FROM words") == [(16,)]


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_files_of_an_earlier_version_are_refused(file_format, tmp_path, database, load) -> None:
    manifest = write_manifest(tmp_path, {"recognitions": [recognition("op-1", None)]}, file_format=file_format)
    (path,) = paths_of(manifest, "recognitions")
    if file_format == "parquet":
        pq.write_table(pq.read_table(path).drop_columns("recognition_id"), path)
    else:
        path.write_text(path.read_text().replace("recognition_id", "of_another_name"))
    with pytest.raises(SettingsError, match=r"earlier version.*Run the transform again") as caught:
        load(manifest)
    assert caught.value.retry_can_help is False


def test_the_error_names_a_missing_file_and_rows_are_kept(tmp_path, database, load, ask) -> None:
    manifest = write_manifest(tmp_path, the_call())
    load(manifest)
    paths_of(manifest, "words")[0].unlink()
    with pytest.raises(StorageError, match=r"words-batch.parquet does not exist") as caught:
        load(manifest)
    assert caught.value.retry_can_help is False
    assert ask("SELECT count(*) FROM words") == [(16,)]


def test_a_database_in_memory_is_refused(tmp_path, monkeypatch, load) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "duckdb"}))
    with pytest.raises(ConnectionSettingsError, match="in memory"):
        load(write_manifest(tmp_path, the_call()))


def test_a_connection_that_is_no_database_is_refused(tmp_path, monkeypatch, load) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "http", "host": "localhost"}))
    with pytest.raises(ConnectionSettingsError, match="no hook for a database"):
        load(write_manifest(tmp_path, the_call()))


@pytest.mark.parametrize(
    "tables",
    [
        "{{ ti }}",
        5,
        None,
        [],
        (),
        {},
        {"manifest": 1},
        {"manifest": "x"},
        {"tables": {}},
        "s3://lake/batch.json",
        [["x"]],
    ],
)
def test_anything_but_a_manifest_is_refused(tables: Any, database, load) -> None:
    with pytest.raises(SettingsError):
        load(tables)


def test_paths_of_manifests_are_accepted(tmp_path, database, load, ask) -> None:
    one = write_manifest(tmp_path, the_call())["manifest"]
    other = write_manifest(tmp_path, {"recognitions": [recognition("op-2", None)]}, name="other")
    assert load(one) == EVERYTHING
    assert load([one, other])["recognitions"] == 8
    assert ask("SELECT count(*) FROM recognitions") == [(8,)]


@pytest.mark.parametrize(
    "damage", ["", "[" * 100_000, "[]", "{}", '{"tables": {"words": {}}}', "\udcff", '{"format": "orc"}'], ids=range(7)
)
def test_the_error_names_a_damaged_or_missing_manifest(damage: str, tmp_path, database, load) -> None:
    manifest = write_manifest(tmp_path, the_call())
    file = Path(manifest["manifest"])
    file.write_text(damage, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(StorageError, match=r"_manifests/batch.json is not a manifest, or is damaged") as caught:
        load(manifest)
    assert not caught.value.retry_can_help
    file.unlink()
    with pytest.raises(StorageError, match=r"_manifests/batch.json does not exist"):
        load(manifest)


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_hundreds_of_files_are_loaded_in_their_order(file_format, tmp_path, database, load, ask) -> None:
    pieces = [flatten(v2(chunk("1", word("да", "1s", "2s")), operation_id=f"e03{n:03}")) for n in range(300)]
    manifest = write_rows(Folder.at(tmp_path / "lake"), *pieces, file_format=file_format).summary()
    assert load(manifest) == load(manifest) == {"recognitions": 300, "utterances": 300, "words": 300, "analyses": 0}
    ids = [row[0] for row in ask("SELECT operation_id FROM words ORDER BY rowid")]
    assert ids == [f"e03{n:03}" for n in range(300)]
    paths_of(manifest, "words")[200].unlink()
    with pytest.raises(StorageError, match=r"words/day=2026-11-22/e03200\..* does not exist"):
        load(manifest)


@pytest.mark.parametrize("rendered", [[], iter(())])
def test_a_load_without_manifests_is_skipped(rendered: Any, database) -> None:
    operator = SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables="{{ ti.xcom_pull('rows') }}")
    operator.tables = rendered
    with pytest.raises(AirflowSkipException, match="nothing to load"):
        operator.execute({})  # type: ignore[arg-type]
    assert not database.exists()


def test_the_error_names_a_missing_connection(tmp_path, load) -> None:
    with pytest.raises(AirflowNotFoundException, match="nobody"):
        load(write_manifest(tmp_path, the_call()), conn_id="nobody")


def test_the_error_names_a_connection_without_its_provider(tmp_path, monkeypatch, load) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "nonsense"}))
    with pytest.raises(ConnectionSettingsError, match=r"'warehouse' of the type 'nonsense'.*provider") as caught:
        load(write_manifest(tmp_path, the_call()))
    assert caught.value.retry_can_help is False


def _text(path: Path) -> None:
    path.write_text("not a database" * 1000)


@pytest.mark.parametrize(
    ("name", "make", "hint"),
    [
        ("no/such.duckdb", None, "the folder has to exist"),
        ("text.duckdb", _text, "has to be a database"),
        ("text.duckdb/below.duckdb", lambda path: _text(path.parent), "Check the path"),
        ("folder", Path.mkdir, "Check the path"),
    ],
)
def test_a_file_that_can_not_be_opened_is_an_error_with_a_hint(name, make, hint, tmp_path, monkeypatch, load) -> None:
    path = tmp_path / "place" / name
    path.parent.parent.mkdir(exist_ok=True)
    (tmp_path / "place").mkdir(exist_ok=True)
    if make is not None:
        make(path)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "duckdb", "host": str(path)}))
    with pytest.raises(StorageError, match=rf"Connecting to the DuckDB file failed.*{name}.*{hint}") as caught:
        load(write_manifest(tmp_path, the_call()))
    assert caught.value.retry_can_help is False
    assert "A retry fails in the same way" in str(caught.value)


def test_a_view_of_the_users_own_is_kept(tmp_path, database, load, ask, caplog) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE VIEW dialogue AS SELECT 1 AS mine")
    load(write_manifest(tmp_path, the_call()))
    assert ask("SELECT * FROM dialogue") == [(1,)]
    assert "was not created by this package" in caplog.text
    assert ask("SELECT count(*) FROM current_recognitions") == [(5,)]


def test_rows_are_loaded_if_a_view_cannot_be_created(tmp_path, database, load, ask, capfd) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE TABLE recognitions (operation_id VARCHAR, duration_ms VARCHAR)")
    assert load(write_manifest(tmp_path, the_call())) == EVERYTHING
    assert ask("SELECT count(*) FROM recognitions") == [(7,)]
    assert "The rows are loaded; the views were left as they are" in capfd.readouterr().out


def test_outlets_get_the_row_counts(tmp_path, database) -> None:
    from airflow.providers.common.compat.sdk import Asset

    place = "airflow.sdk.execution_time.context" if AIRFLOW_3 else "airflow.utils.context"
    # Airflow's own: it is empty, and false, until an outlet is asked for.
    asset, events = Asset("duckdb://speech"), importlib.import_module(place).OutletEventAccessors()
    operator = SpeechKitToSqlOperator(
        task_id="load", conn_id="warehouse", tables=write_manifest(tmp_path, the_call()), outlets=[asset]
    )
    operator.execute({"outlet_events": events})  # type: ignore[typeddict-item]
    assert events[asset].extra == {"rows": EVERYTHING}


def test_concurrent_loads_in_one_process_duplicate_nothing(tmp_path, database, ask) -> None:
    sources = read_sources(write_manifest(tmp_path, the_call()))

    def run(_: int) -> None:
        with closing(duckdb.connect(str(database))) as connection:
            load_into(DuckDB(connection, Names(Dialect.DUCKDB)), sources, create=True)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [None] * 4
    assert ask("SELECT count(*), count(DISTINCT recognition_id) FROM recognitions") == [(7, 7)]
    assert ask("SELECT count(*) FROM words") == [(16,)]
