"""Every night, load yesterday's recordings into the warehouse. This is the README's DAG.

The run starts at 02:00 in Moscow. Its data interval began at 02:00 yesterday, so the interval's date in Moscow is
yesterday, on Airflow 2.11 and on Airflow 3. (`{{ ds }}` is another day, see docs/nightly.md.)
"""

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import datetime

from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

with DAG(
    "speechkit_nightly",
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="Europe/Moscow"),
    start_date=datetime(2026, 11, 1, tz="Europe/Moscow"),
    catchup=False,
    default_args={"retries": 2},
) as dag:
    recognize = SpeechKitRecognizeOperator(
        task_id="recognize",
        audio="s3://calls/{{ data_interval_start.in_timezone('Europe/Moscow') | ds }}/",
        deferrable=True,
    )
    rows = SpeechKitTransformOperator(task_id="rows", operation_id=recognize.output, target="s3://lake/speech/")
    load = SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=rows.output)
