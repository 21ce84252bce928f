"""The main job, once for each way of doing it that a fault can tell apart; a run's configuration says the rest."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.retry_policy import speechkit_retry_policy
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

WAYS = {
    "in_the_triggerer": {},
    "on_a_worker": {"deferrable": False},
    "with_v3": {"api_version": "v3"},
    "resubmitting": {"on_lost_submission": "resubmit"},
}

PLACES = {
    "speechkit_conn_id": "{{ dag_run.conf['speechkit'] }}",
    "archive": "{{ dag_run.conf['archive'] }}",
}


def job(name: str) -> DAG:
    """Return a DAG without tasks."""
    return DAG(
        dag_id=f"recordings_to_rows_{name}",
        schedule=None,
        render_template_as_native_obj=True,
        max_active_runs=64,
        max_active_tasks=64,
        default_args={
            "retries": 3,
            "retry_delay": timedelta(seconds=1),
            "retry_policy": speechkit_retry_policy(quota_delay=timedelta(seconds=5)),
        },
    )


def make_rows(operation_ids: Any) -> None:
    """Transform and load them."""
    rows = SpeechKitTransformOperator(
        task_id="rows", operation_id=operation_ids, target="{{ dag_run.conf['target'] }}", **PLACES
    )
    SpeechKitToSqlOperator(
        task_id="load",
        conn_id="{{ dag_run.conf['warehouse'] }}",
        tables=rows.output,
        views=False,
    )


for name, way in WAYS.items():
    with job(name) as dag:
        submit = SpeechKitSubmitOperator(
            task_id="submit",
            audio="{{ dag_run.conf['audio'] }}",  # type: ignore[arg-type]
            api_version=way.get("api_version"),
            on_lost_submission=way.get("on_lost_submission", "fail"),
            **PLACES,
        )
        wait = SpeechKitRecognitionSensor(
            task_id="wait",
            operation_id=submit.output,
            deferrable=way.get("deferrable", True),
            poke_interval=1,
            **PLACES,
        )
        make_rows(wait.output)
    globals()[dag.dag_id] = dag

with job("in_one_task") as in_one_task:
    recognize = SpeechKitRecognizeOperator(
        task_id="recognize",
        audio="{{ dag_run.conf['audio'] }}",
        deferrable=True,
        poke_interval=1,
        **PLACES,
    )
    make_rows(recognize.output)
