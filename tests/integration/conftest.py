"""A real PostgreSQL as the warehouse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from airflow.providers.postgres.hooks import postgres as airflow_postgres

from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator
from tests.fixtures.postgres import PostgresServer

Ask = Callable[..., list[tuple[Any, ...]]]
Load = Callable[..., dict[str, int]]


@pytest.fixture(params=["psycopg2", "psycopg"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(airflow_postgres, "USE_PSYCOPG3", request.param == "psycopg")
    return str(request.param)


@pytest.fixture
def url(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database behind the connection `warehouse`."""
    database = postgres.create_database()
    connection = {
        "conn_type": "postgres", "host": postgres.host, "port": postgres.port, "schema": database,
        "login": postgres.user, "password": postgres.password, "extra": {"cursor": "dictcursor"},
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    return postgres.url(database)


@pytest.fixture
def ask(url: str) -> Iterator[Ask]:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True

        def answer(sql: str, *values: Any) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return cursor.fetchall() if cursor.description else []

        yield answer


@pytest.fixture
def load() -> Load:
    """Run the operator as Airflow does and return its XCom."""

    def run(tables: Any, **keywords: Any) -> dict[str, int]:
        return SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=tables, **keywords).execute({})  # type: ignore[arg-type]

    return run
