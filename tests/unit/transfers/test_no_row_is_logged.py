"""Drivers quote rows in their errors: no row may get into a log, an error, or anything chained to it."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from airflow_speechkit.errors import StorageError
from tests.fixtures.leaks import everything_in_error
from tests.fixtures.manifests import paths_of, recognition, utterance, words_of, write_manifest

SECRET = "паспорт-4509-secret"


def manifest_with_a_secret(folder: Path, **keywords: Any) -> dict[str, Any]:
    said = [utterance("op-1", 0, 1, 0, 100, SECRET)]
    rows = {"recognitions": [recognition("op-1", None)], "utterances": said, "words": words_of(said)}
    return write_manifest(folder, rows, **keywords)


def with_text_for_a_number(manifest: dict[str, Any]) -> dict[str, Any]:
    """Put a word where a number belongs, which the file's reader quotes."""
    (path,) = paths_of(manifest, "words")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(",0,100", f",{SECRET},100").replace('"start_ms": 0', f'"start_ms": "{SECRET}"'))
    return manifest


@pytest.fixture
def failing_load(load, capfd, caplog) -> Callable[..., StorageError]:
    """Run a load that fails, and look through all that it left."""

    def run(manifest: dict[str, Any], **keywords: Any) -> StorageError:
        with caplog.at_level("DEBUG"), pytest.raises(StorageError) as caught:
            load(manifest, **keywords)
        out, err = capfd.readouterr()
        for text in (everything_in_error(caught.value), out, err, caplog.text):
            assert SECRET not in text
        assert SECRET.encode() not in pickle.dumps(caught.value)
        return caught.value

    return run


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_duckdb(file_format, tmp_path, database, failing_load) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE TABLE words (operation_id VARCHAR, word BIGINT)")
    error = failing_load(manifest_with_a_secret(tmp_path, file_format=file_format))
    assert "inserting" in error.what
    assert "words" in error.what
    assert "ConversionException" in error.what
    assert error.retry_can_help is False


def test_duckdb_constraint(tmp_path, database, failing_load) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE TABLE words (operation_id VARCHAR, word VARCHAR PRIMARY KEY)")
        connection.execute("INSERT INTO words VALUES ('op-other', ?)", [SECRET])
    assert "ConstraintException" in failing_load(manifest_with_a_secret(tmp_path)).what


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_a_text_file_with_a_wrong_type(file_format, tmp_path, database, failing_load) -> None:
    error = failing_load(with_text_for_a_number(manifest_with_a_secret(tmp_path, file_format=file_format)))
    assert "words" in error.what


def test_a_truncated_parquet_file(tmp_path, database, failing_load) -> None:
    manifest = manifest_with_a_secret(tmp_path)
    (path,) = paths_of(manifest, "utterances")
    path.write_bytes(path.read_bytes()[:-20])
    assert "utterances" in failing_load(manifest).what


def test_another_database(tmp_path, sqlite_file, failing_load) -> None:
    with closing(sqlite3.connect(sqlite_file)) as connection:
        connection.execute(f"CREATE TABLE words (operation_id TEXT, word TEXT CHECK (word <> '{SECRET}'))")
        connection.commit()
    error = failing_load(manifest_with_a_secret(tmp_path), conn_id="other")
    assert "IntegrityError" in error.what
    assert error.retry_can_help is False


def test_an_error_before_any_row_keeps_its_message(tmp_path, monkeypatch, failing_load) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", f'{{"conn_type": "duckdb", "host": "{tmp_path}/no/such.duckdb"}}')
    error = failing_load(manifest_with_a_secret(tmp_path))
    assert "Connecting" in error.what
    assert "no/such.duckdb" in error.what
