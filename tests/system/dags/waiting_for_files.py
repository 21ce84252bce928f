"""Two deferrable sensors, one of them mapped, that wait for files in the folder of the run's configuration."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.sdk import DAG

with DAG("waiting_for_files", schedule=None):
    one = FileSensor(task_id="one", filepath="{{ dag_run.conf['folder'] }}/one", deferrable=True, poke_interval=1)
    mapped = FileSensor.partial(task_id="mapped", deferrable=True, poke_interval=1).expand(
        filepath=["{{ dag_run.conf['folder'] }}/first", "{{ dag_run.conf['folder'] }}/second"]
    )
    [one, mapped] >> EmptyOperator(task_id="end")
