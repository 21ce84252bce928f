"""Run one mapped task for each call, with labels for its rows.

By default it takes two of the emulator's sample calls.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

CALLS = [
    {
        "audio": "s3://recordings/samples/delivery.ogg",
        "labels": {"call_id": "call-001", "channel_0": "agent", "channel_1": "customer"},
    },
    {"audio": "s3://recordings/samples/message.ogg", "labels": {"call_id": "call-005", "channel_0": "customer"}},
]

with DAG(
    dag_id="speechkit_one_task_per_call",
    description=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={
        "calls": Param(CALLS, type="array"),
        "language": Param("en-US", type="string"),
        "target": Param("s3://recordings/tables/", type="string"),
    },
    tags=["speechkit"],
) as dag:

    @dag.task
    def calls(params: dict) -> list[dict]:
        """List the calls with their labels. Replace this by your CRM, table or API."""
        return params["calls"]

    submit = SpeechKitSubmitOperator.partial(
        task_id="submit", language="{{ params.language }}", max_active_tis_per_dagrun=8
    ).expand_kwargs(calls())
    wait = SpeechKitRecognitionSensor.partial(task_id="wait", deferrable=True).expand(operation_id=submit.output)
    rows = SpeechKitTransformOperator(task_id="rows", operation_id=wait.output, target="{{ params.target }}")
    load = SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=rows.output)
