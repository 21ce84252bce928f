"""A database without a dialect of its own, here SQLite: plain SQL, inserts in batches."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_speechkit.errors import SettingsError
from tests.fixtures.manifests import recognition, the_call, write_manifest

EVERYTHING = {"recognitions": 7, "utterances": 6, "words": 16, "analyses": 0}


def ask(path: Any, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_a_rerun_duplicates_nothing(tmp_path, sqlite_file, load) -> None:
    manifest = write_manifest(tmp_path / "lake", the_call())
    for _ in range(2):
        assert load(manifest, conn_id="other") == EVERYTHING
    assert ask(sqlite_file, "SELECT count(*), count(DISTINCT operation_id) FROM recognitions") == [(7, 7)]
    assert ask(sqlite_file, "SELECT count(*) FROM words") == [(16,)]
    silent = "SELECT created_at, labels, duration_ms FROM recognitions WHERE operation_id = 'op-silent'"
    assert ask(sqlite_file, silent) == [("2026-11-22 10:00:00.000000", "{}", 5000)]


def test_more_recognitions_than_a_statement_has_parameters_are_replaced(tmp_path, sqlite_file, load) -> None:
    rows = {"recognitions": [recognition(f"op-{number}", None) for number in range(2_100)]}
    manifest = write_manifest(tmp_path / "lake", rows)
    for _ in range(2):
        assert load(manifest, conn_id="other")["recognitions"] == 2_100
        assert ask(sqlite_file, "SELECT count(*), count(DISTINCT operation_id) FROM recognitions") == [(2_100, 2_100)]


def test_new_columns_are_added(tmp_path, sqlite_file, load) -> None:
    ask(sqlite_file, "CREATE TABLE tiny_recognitions (operation_id TEXT, mine TEXT)")
    load(write_manifest(tmp_path, the_call()), conn_id="other", table_prefix="tiny_")
    assert ask(sqlite_file, "SELECT mine, status FROM tiny_recognitions WHERE operation_id = 'op-new'") == [
        (None, "finished")
    ]


def test_a_failed_load_changes_nothing(tmp_path, sqlite_file, load) -> None:
    load(write_manifest(tmp_path, the_call()), conn_id="other")
    again = write_manifest(tmp_path, {"recognitions": [recognition("op-new", None)]}, name="again")
    file = Path(again["manifest"])
    file.write_text(
        file.read_text().replace(
            '"words": {"paths": ["words-again.parquet"], "rows": 0}',
            '"words": {"paths": ["words-again.parquet"], "rows": 1}',
        )
    )
    with pytest.raises(Exception, match="hold 0 rows for `words`"):
        load(again, conn_id="other")
    assert ask(sqlite_file, "SELECT count(*) FROM words WHERE operation_id = 'op-new'") == [(13,)]


def test_a_schema_that_needs_quotes_is_refused(tmp_path, sqlite_file, load) -> None:
    with pytest.raises(SettingsError, match="schema"):
        load(write_manifest(tmp_path, the_call()), conn_id="other", schema="a b; DROP TABLE x")
