"""One invalid recording of ten: the error of the failed task, and `on_failure='record'`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

import duckdb

from tests.fixtures.direct import OGG
from tests.fixtures.emulator import airflow_connections

if TYPE_CHECKING:
    from pathlib import Path

    from speechkit_emulator.process import EmulatorProcess
    from tests.fixtures.local_airflow import FinishedRun, LocalAirflow

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
    with DAG(how, **when):
        ids = SpeechKitSubmitOperator(task_id="submit", on_failure=how, **about).output
        ids = SpeechKitRecognitionSensor(task_id="wait", operation_id=ids, on_failure=how, **wait).output
        tables = SpeechKitTransformOperator(task_id="rows", operation_id=ids, target="TABLES").output
        SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=tables)
        SpeechKitRecognizeOperator(task_id="recognize", on_failure=how, **about, **wait)
"""


def test_accepted_recordings_are_passed_on_with_on_failure_record_and_the_error_says_so(
    local_airflow: LocalAirflow, emulator: EmulatorProcess, tmp_path: Path
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

    def run(how: str) -> FinishedRun:
        return local_airflow.run(how, environment=environment, dags=dags)

    def billed() -> int:
        return sum(f"/{prefix}/" in str(one) for one in emulator.billing())

    ran = run("fail")
    assert {task_id: state for (task_id, _), state in ran.tasks.items()} == {
        "submit": "failed",
        "recognize": "failed",
        **dict.fromkeys(("wait", "rows", "load"), "upstream_failed"),
    }
    assert f"{prefix}/3.ogg" in ran.log
    errors = [line for line in ran.log.splitlines() if f"[recording s3://{emulator.bucket}/{prefix}/3.ogg]" in line]
    assert len(errors) == 2, ran.log[-8000:]
    for error in errors:
        assert "The others (9) are in the archive, and are not paid for again" in error
        assert "on_failure='record' returns them" in error
        assert "status='refused'" in error
    assert billed() == 9

    ran = run("record")
    assert ran.state == "success", ran.log[-8000:]
    for task_id in ("wait", "recognize"):
        assert [one.startswith("refused-") for one in ran.xcom(task_id)] == [number == 3 for number in range(10)]
    query = "SELECT status, count(*) FROM recognitions GROUP BY status ORDER BY status"
    with duckdb.connect(str(database), read_only=True) as connection:
        assert connection.execute(query).fetchall() == [("finished", 9), ("refused", 1)]
    assert billed() == 9

    emulator.put(f"{prefix}/3.ogg", OGG, said)
    ran = run("fail")
    assert ran.state == "success", ran.log[-8000:]
    assert ran.xcom("wait") == ran.xcom("recognize")
    assert len(ran.xcom("wait")) == 10
    assert not [one for one in ran.xcom("wait") if one.startswith("refused-")]
    assert billed() == 10
