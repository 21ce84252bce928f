"""Load the recordings of the run's configuration into the warehouse.

Connections: `speechkit_default` (its `archive` is the place for submissions and answers), `aws_default` (Object
Storage), `warehouse` (any SQL connection). Another run, or a cleared task, pays for nothing twice and duplicates no
rows. By default it takes the emulator's sample calls.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

with DAG(
    dag_id="speechkit_to_warehouse",
    description=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={
        "audio": Param("s3://recordings/samples/", type="string", description="a recording, a prefix or a glob"),
        "language": Param("en-US", type="string"),
        "target": Param("s3://recordings/tables/", type="string", description="folder for the Parquet files"),
    },
    tags=["speechkit"],
):
    recognize = SpeechKitRecognizeOperator(
        task_id="recognize", audio="{{ params.audio }}", language="{{ params.language }}", deferrable=True
    )
    rows = SpeechKitTransformOperator(task_id="rows", operation_id=recognize.output, target="{{ params.target }}")
    load = SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=rows.output)
