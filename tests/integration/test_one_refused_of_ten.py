"""One invalid recording of ten: the error of the failed task, and `on_failure='record'`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

import duckdb
import pytest

from tests.fixtures.direct import OGG
from tests.fixtures.emulator import airflow_connections

if TYPE_CHECKING:
    from pathlib import Path

    from speechkit_emulator.process import EmulatorProcess
    from tests.fixtures.local_airflow import LocalAirflow

DAG_FILE = """
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

when = {"schedule": None, "start_date": datetime(2026, 1, 1, tzinfo=UTC), "catchup": False}
about = {"audio": "PREFIX", "language": "en-US"}
wait = {"poke_interval": 1, "deferrable": True}
for how in ("fail", "record"):
    with DAG(f"submit_{how}", **when):
        ids = SpeechKitSubmitOperator(task_id="submit", on_failure=how, **about).output
        ids = SpeechKitRecognitionSensor(task_id="last", operation_id=ids, on_failure=how, **wait).output
        tables = SpeechKitTransformOperator(task_id="rows", operation_id=ids, target="TABLES").output
        SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=tables)
    with DAG(f"recognize_{how}", **when):
        SpeechKitRecognizeOperator(task_id="last", on_failure=how, **about, **wait)
"""


@pytest.mark.parametrize("way", ["submit", "recognize"])
def test_accepted_recordings_are_passed_on_with_on_failure_record_and_the_error_says_so(
    local_airflow: LocalAirflow, emulator: EmulatorProcess, tmp_path: Path, way: str
) -> None:
    prefix = uuid4().hex
    said = {"channels": [{"utterances": [{"text": "two words"}]}], "processing_s": 0}
    for number in range(10):
        emulator.put(f"{prefix}/{number}.ogg", OGG if number != 3 else b"not audio at all", said)
    dags = tmp_path / "dags"
    dags.mkdir()
    dag = DAG_FILE.replace("PREFIX", f"s3://{emulator.bucket}/{prefix}/").replace("TABLES", str(tmp_path / "tables"))
    (dags / "ten.py").write_text(dag)
    database = tmp_path / "speech.duckdb"
    environment = {
        **airflow_connections(emulator, tmp_path / "archive"),
        "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "duckdb", "host": str(database)}),
    }

    def run(how: str) -> tuple[str, str, list[str]]:
        ran = local_airflow.run(f"{way}_{how}", environment=environment, dags=dags)
        return ran.state, ran.log, ran.xcom("last") if ran.state == "success" else []

    def billed() -> int:
        return sum(f"/{prefix}/" in str(one) for one in emulator.billing())

    state, log, _ = run("fail")
    assert state == "failed"
    assert f"{prefix}/3.ogg" in log
    assert "The others (9) are in the archive, and are not paid for again" in log, log[-8000:]
    assert "on_failure='record' returns them" in log
    assert "status='refused'" in log
    assert billed() == 9

    state, log, ids = run("record")
    assert state == "success", log[-8000:]
    assert [one.startswith("refused-") for one in ids] == [number == 3 for number in range(10)]
    if way == "submit":
        query = "SELECT status, count(*) FROM recognitions GROUP BY status ORDER BY status"
        with duckdb.connect(str(database), read_only=True) as connection:
            assert connection.execute(query).fetchall() == [("finished", 9), ("refused", 1)]
    assert billed() == 9

    emulator.put(f"{prefix}/3.ogg", OGG, said)
    state, log, ids = run("fail")
    assert state == "success", log[-8000:]
    assert len(ids) == 10
    assert not [one for one in ids if one.startswith("refused-")]
    assert billed() == 10
