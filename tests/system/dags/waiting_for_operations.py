"""Sensors that wait for the operations of the run's configuration."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_speechkit.retry_policy import speechkit_retry_policy
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor

HOW: dict[str, Any] = {"deferrable": True, "poke_interval": 1}


def named(name: str) -> str:
    return f"{{{{ dag_run.conf['{name}'] }}}}"


with DAG("operations_of_a_mapped_task", schedule=None):
    SpeechKitRecognitionSensor.partial(task_id="mapped", **HOW).expand(operation_id=[named("first"), named("second")])

with DAG("operations_waited_for_in_workers", schedule=None):
    for mode in ("poke", "reschedule"):
        SpeechKitRecognitionSensor(task_id=mode, operation_id=named(mode), deferrable=False, mode=mode, poke_interval=1)

with DAG("operations_of_tasks_that_are_ended", schedule=None):
    SpeechKitRecognitionSensor(task_id="cancels", operation_id=named("cancels"), cancel_on_kill=True, **HOW)
    SpeechKitRecognitionSensor(task_id="leaves", operation_id=named("leaves"), **HOW)
    SpeechKitRecognitionSensor(task_id="cleared", operation_id=named("cleared"), cancel_on_kill=True, **HOW)

with DAG("operations_that_fail", schedule=None):
    SpeechKitRecognitionSensor(
        task_id="retried",
        operation_id=named("retried"),
        soft_fail=True,
        retries=1,
        retry_delay=timedelta(seconds=1),
        **HOW,
    )
    SpeechKitRecognitionSensor(
        task_id="hopeless",
        operation_id=named("hopeless"),
        retries=5,
        retry_delay=timedelta(hours=1),
        retry_policy=speechkit_retry_policy(),
        **HOW,
    )
