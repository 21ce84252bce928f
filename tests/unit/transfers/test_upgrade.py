"""Tables of version 0.1 in DuckDB and SQLite become this version's. PostgreSQL: tests/integration/test_load_keys.py."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from airflow_speechkit.errors import SettingsError, StorageError
from tests.fixtures import version_0_1
from tests.fixtures.manifests import the_call, write_manifest


@pytest.fixture
def old(database: Path) -> Path:
    with duckdb.connect(str(database)) as connection:
        for statement in version_0_1.statements("duckdb"):
            connection.execute(statement)
    return database


def test_tables_of_duckdb_are_upgraded_and_keep_their_rows(tmp_path, old, load, ask) -> None:
    load(write_manifest(tmp_path, version_0_1.NEW_ROWS))
    assert ask(version_0_1.RECOGNITIONS) == version_0_1.UPGRADED
    assert ask(version_0_1.ANALYSES) == version_0_1.NUMBERED
    assert ask("SELECT recognition_id, word FROM words ORDER BY ALL") == [
        ("op-new", "новое"),
        ("op-old", "до"),
        ("op-old", "свидания"),
    ]
    assert ask("SELECT count(*), count(mine) FROM own") == [(3, 3)]
    assert ask("SELECT text FROM dialogue WHERE recognition_id = 'op-old'") == [("до свидания",)]
    assert ask("SELECT comment FROM duckdb_columns() WHERE column_name = 'recognition_id'")[0][0]


def test_a_second_load_into_duckdb_creates_nothing(tmp_path, old, load, ask, caplog) -> None:
    manifest = write_manifest(tmp_path, version_0_1.NEW_ROWS)
    load(manifest)
    assert "Creating" in caplog.text
    caplog.clear()
    load(manifest)
    assert "Creating" not in caplog.text
    assert ask(version_0_1.ANALYSES) == version_0_1.NUMBERED


def test_rows_of_a_table_that_was_upgraded_by_hand_get_a_load_time(tmp_path, database, load, ask) -> None:
    load(write_manifest(tmp_path / "1", the_call()), views=False)
    with duckdb.connect(str(database)) as connection:
        connection.execute("ALTER TABLE recognitions DROP COLUMN loaded_at")
    load(write_manifest(tmp_path / "2", version_0_1.NEW_ROWS))
    assert ask("SELECT count(*) FROM recognitions WHERE loaded_at IS NULL") == [(0,)]


def test_without_create_the_error_names_old_tables(tmp_path, old, load) -> None:
    with pytest.raises(SettingsError, match=r'version 0.1.*"recognitions".*`create=True`'):
        load(write_manifest(tmp_path, version_0_1.NEW_ROWS), create=False)


def test_tables_of_another_database_get_the_columns(tmp_path, sqlite_file, load) -> None:
    with closing(sqlite3.connect(sqlite_file)) as connection, connection:
        for statement in version_0_1.statements("generic"):
            connection.execute(statement)
    for _ in range(2):
        load(write_manifest(tmp_path, version_0_1.NEW_ROWS), conn_id="other")
        with closing(sqlite3.connect(sqlite_file)) as connection:
            assert connection.execute(version_0_1.RECOGNITIONS).fetchall() == version_0_1.UPGRADED
            # Those that were there have no number.
            assert connection.execute(version_0_1.ANALYSES).fetchall() == [
                ("op-new", 0, "summarization"),
                ("op-old", None, "classifier"),
                ("op-old", None, "summarization"),
            ]


def test_a_failed_upgrade_of_another_database_changes_nothing(tmp_path, sqlite_file, load) -> None:
    with closing(sqlite3.connect(sqlite_file)) as connection, connection:
        for statement in version_0_1.statements("generic"):
            connection.execute(statement)
        connection.execute("CREATE TRIGGER no BEFORE UPDATE ON words BEGIN SELECT raise(ABORT, 'no'); END")
        shape = connection.execute("SELECT sql FROM sqlite_master").fetchall()
    with pytest.raises(StorageError, match="Nothing was changed"):
        load(write_manifest(tmp_path, version_0_1.NEW_ROWS), conn_id="other")
    with closing(sqlite3.connect(sqlite_file)) as connection:
        assert connection.execute("SELECT sql FROM sqlite_master").fetchall() == shape
