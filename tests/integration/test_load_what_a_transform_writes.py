"""From the service's answers to the warehouse: read, written to files and loaded by the code that users run."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from airflow_speechkit.models import Answer, Submission
from airflow_speechkit.results.flatten import flatten
from airflow_speechkit.results.schema import Tables
from airflow_speechkit.settings import ApiVersion, RecognitionSettings
from airflow_speechkit.storage import Folder
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator
from tests.fixtures.manifests import the_call, write_rows
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.views import FIGURES


def chunk(said: dict[str, Any]) -> dict[str, Any]:
    words = said["text"].split()
    length = (said["end_ms"] - said["start_ms"]) / len(words)
    starts = [said["start_ms"] + round(length * i) for i in range(len(words))] + [said["end_ms"]]
    timed = [
        {"word": word, "startTime": f"{starts[i] / 1000:.3f}s", "endTime": f"{starts[i + 1] / 1000:.3f}s"}
        for i, word in enumerate(words)
    ]
    return {"alternatives": [{"text": said["text"], "words": timed}], "channelTag": said["channel"]}


def tables_of_the_call() -> Tables:
    """The hand-made call as raw answers of v2 with their submissions, read."""
    call, parts = the_call(), []
    for row in call["recognitions"]:
        created = row["created_at"].strftime("%Y-%m-%dT%H:%M:%SZ")
        operation: dict[str, Any] = {
            "id": row["operation_id"],
            "done": True,
            "createdAt": created,
            "modifiedAt": created,
        }
        if row["status"] == "failed":
            operation["error"] = {"code": row["error_code"], "message": row["error_message"]}
        else:
            # As the service does: unsorted.
            chunks = [chunk(one) for one in call["utterances"] if one["operation_id"] == row["operation_id"]][::-1]
            operation["response"] = {"chunks": chunks} if chunks else {}
        answer = Answer(row["operation_id"], ApiVersion.V2, json.dumps(operation).encode())
        submission = row["audio_uri"] and Submission(
            operation_id=row["operation_id"],
            fingerprint="f",
            audio_uri=row["audio_uri"],
            settings=RecognitionSettings(),
            submitted_at=datetime(2026, 11, 22, tzinfo=UTC),
            duration_ms=row.get("duration_ms"),
            channels=row.get("channels"),
            labels=json.loads(row["labels"]),
        )
        parts.append(flatten(answer, submission or None))
    return Tables.concat(parts)


@pytest.fixture(params=["parquet", "csv", "jsonl"])
def file_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A database with the connection `warehouse`; yields a function that queries it."""
    if request.param == "duckdb":
        path = str(tmp_path / "speech.duckdb")
        connection: dict[str, Any] = {"conn_type": "duckdb", "host": path}

        def ask(sql: str) -> list[tuple[Any, ...]]:
            with duckdb.connect(path) as opened:
                opened.execute("SET TimeZone = 'UTC'")
                return opened.execute(sql).fetchall()
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        database = server.create_database()
        connection = {
            "conn_type": "postgres", "host": server.host, "port": server.port, "schema": database,
            "login": server.user, "password": server.password,
        }  # fmt: skip

        def ask(sql: str) -> list[tuple[Any, ...]]:
            with closing(psycopg2.connect(server.url(database))) as opened, opened.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()

    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    return ask


def load(manifests: Any) -> dict[str, int]:
    return SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=manifests).execute({})  # type: ignore[arg-type]


def test_rows_are_loaded_unchanged_and_views_give_the_figures(file_format, warehouse, tmp_path) -> None:
    tables = tables_of_the_call()
    manifest = write_rows(Folder.at(tmp_path / "lake"), tables, file_format=file_format).summary()
    manifest = json.loads(json.dumps(manifest))
    for _ in range(2):
        assert load(manifest) == {schema.name: table.num_rows for schema, table in tables.items()}
    for schema, table in tables.items():
        columns = [name for name in schema.arrow.names if name not in ("labels", "settings", "payload")]
        order = ", ".join(schema.key)
        expected = table.sort_by([(name, "ascending") for name in schema.key]).select(columns)
        arrived = warehouse(f"SELECT {', '.join(columns)} FROM {schema.name} ORDER BY {order}")
        assert [dict(zip(columns, row, strict=True)) for row in arrived] == expected.to_pylist()
    for view, (query, figures) in FIGURES.items():
        if view != "word_search":  # its word times are those of the other fixture
            assert warehouse(query) == figures, view
    found = warehouse("SELECT role, start_ms FROM word_search WHERE word_key = 'договор'")
    assert found == [("customer", 5375)]
