"""A DuckDB file that another process has open."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from airflow_speechkit.errors import StorageError
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator
from tests.fixtures.manifests import the_call, write_manifest


def _hold(path: str, held: Any, let_go: Any) -> None:
    with duckdb.connect(path):
        held.set()
        let_go.wait()


@pytest.fixture
def let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file behind the connection `warehouse` is open in another process until this is set."""
    path = str(tmp_path / "speech.duckdb")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "duckdb", "host": path}))
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(path, held, let_go))
    process.start()
    try:
        assert held.wait(300)
        yield let_go
    finally:
        let_go.set()
        process.join()


def load(tables: str, **more: Any) -> dict[str, int]:
    return SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=tables, **more).execute({})


class _OnWaiting(logging.Handler):
    """Has the other process close the file once a load says that it waits."""

    def __init__(self, let_go: Any) -> None:
        super().__init__()
        self._let_go = let_go
        self.waited = False

    def emit(self, record: logging.LogRecord) -> None:
        if "waiting for up to 300 s" in record.getMessage():
            self.waited = True
            self._let_go.set()


def test_a_load_waits_for_a_locked_file(tmp_path: Path, let_go: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "airflow_speechkit")
    ours, handler = logging.getLogger("airflow_speechkit"), _OnWaiting(let_go)
    ours.addHandler(handler)
    try:
        assert load(write_manifest(tmp_path, the_call()))["recognitions"] == 7
    finally:
        ours.removeHandler(handler)
    assert handler.waited


@pytest.mark.usefixtures("let_go")
def test_a_file_that_stays_locked_is_an_error(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, the_call())
    with pytest.raises(StorageError, match=r"locked for 0.3 s.*Close") as caught:
        load(manifest, lock_timeout_s=0.3)
    assert caught.value.retry_can_help
