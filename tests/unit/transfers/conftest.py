from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

Load = Callable[..., dict[str, int]]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DuckDB file behind the connection `warehouse`."""
    path = tmp_path / "speech.duckdb"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "duckdb", "host": str(path)}))
    return path


@pytest.fixture
def load() -> Load:
    """Run the operator as Airflow would and return what goes into XCom."""

    def run(tables: Any, **keywords: Any) -> dict[str, int]:
        keywords.setdefault("conn_id", "warehouse")
        return SpeechKitToSqlOperator(task_id="load", tables=tables, **keywords).execute({})  # type: ignore[arg-type]

    return run


@pytest.fixture
def ask(database: Path) -> Callable[[str], list[tuple[Any, ...]]]:
    """Query the DuckDB file."""

    def answer(sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(database), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    return answer


@pytest.fixture
def sqlite_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SQLite file behind the connection `other`: a database without a dialect of its own."""
    path = tmp_path / "speech.sqlite"
    sqlite3.connect(path).close()
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path
