"""A submit of the recordings of the run's configuration that frees its worker while the quota is used up."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_speechkit.operators.submit import SpeechKitSubmitOperator

with DAG("deferred_submit", schedule=None):
    SpeechKitSubmitOperator(task_id="submit", audio="{{ dag_run.conf['audio'] }}", language="en-US", deferrable=True)
