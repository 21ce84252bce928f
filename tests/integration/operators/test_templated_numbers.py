"""Limits and times of operators are rendered from params and variables in an Airflow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.fixtures.direct import OGG
from tests.fixtures.emulator import airflow_connections

if TYPE_CHECKING:
    from pathlib import Path

    from speechkit_emulator.process import EmulatorProcess
    from tests.fixtures.local_airflow import LocalAirflow

DAG_FILE = """
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

with DAG(
    "numbers",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"few": 1, "hours": 1.5, "again": False, "nothing": Param(None, type=["null", "integer"])},
):
    about = {"audio": "AUDIO", "language": "en-US"}
    # A model for which no other task has paid.
    SpeechKitSubmitOperator(
        task_id="over_the_limit", max_billed_seconds="{{ params.few }}", model="general:rc", **about
    )
    SpeechKitSubmitOperator(task_id="no_limit", max_billed_seconds="{{ params.nothing }}", **about)
    SpeechKitSubmitOperator.partial(task_id="mapped", max_billed_seconds="{{ var.value.many }}", **about).expand(
        submits_per_hour=[100_000, "{{ var.value.many }}"]
    )
    recognize = SpeechKitRecognizeOperator(
        task_id="recognize",
        max_billed_seconds="{{ var.value.many }}",
        reuse="{{ not params.again }}",
        timeout="{{ params.hours * 3600 }}",
        poke_interval="{{ params.few }}",
        deferrable=True,
        **about,
    )
    wait = SpeechKitRecognitionSensor(
        task_id="wait",
        operation_id=recognize.output,
        timeout="{{ params.hours * 3600 }}",
        poke_interval="{{ params.few }}",
        mode="reschedule",
    )
    rows = SpeechKitTransformOperator(
        task_id="rows", operation_id=wait.output, target="TARGET", memory_mib="{{ params.few * 64 }}"
    )
    SpeechKitToSqlOperator(
        task_id="load", conn_id="warehouse", tables=rows.output, lock_timeout_s="{{ params.hours * 60 }}"
    )
"""


def test_numbers_are_rendered_from_params_and_variables(
    local_airflow: LocalAirflow, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    key = f"{uuid4().hex}.ogg"
    emulator.put(key, OGG, {"channels": [{"utterances": [{"text": "two words"}]}], "processing_s": 0})
    dags = tmp_path / "dags"
    dags.mkdir()
    dag = DAG_FILE.replace("AUDIO", f"s3://{emulator.bucket}/{key}").replace("TARGET", str(tmp_path / "tables"))
    (dags / "numbers.py").write_text(dag)
    run = local_airflow.run(
        "numbers",
        environment={
            **airflow_connections(emulator, tmp_path / "archive"),
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "duckdb", "host": str(tmp_path / "speech.duckdb")}),
            "AIRFLOW_VAR_MANY": "3600",
        },
        dags=dags,
    )
    refused = {("over_the_limit", -1), ("no_limit", -1)}
    assert {task for task, state in run.tasks.items() if state == "failed"} == refused, run.log[-20_000:]
    assert {state for task, state in run.tasks.items() if task not in refused} == {"success"}, run.log[-20_000:]
    assert "would be billed 15 seconds, and `max_billed_seconds` is 1" in run.log
    assert "`max_billed_seconds` must be a whole number, 1 at least, not 'None'" in run.log
    assert run.xcom("rows")["rows"]["words"] == 2
    assert sum(key in str(one) for one in emulator.billing()) == 1
