"""One task that submits, waits and archives far more recordings than the quota allows at once."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator

with DAG("thousands", schedule=None, default_args={"retries": 3, "retry_delay": timedelta(seconds=1)}):
    SpeechKitRecognizeOperator(
        task_id="recognize",
        audio="{{ dag_run.conf['audio'] }}",
        speechkit_conn_id="small-quota",
        archive="{{ dag_run.conf['archive'] }}",
        submits_per_hour=100_000,
        poke_interval=1,
        deferrable=True,
    )
