"""Every night, load yesterday's calls of a call centre whose telephone system records each side by itself.

A folder for each day has, of each call, `17-in.wav` (the customer), `17-out.wav` (the agent) and `17.json` (what the
telephone system knows of the call). `s3://calls-converted/` has the stereo recordings that the service reads. Needs the
extra `audio`. See docs/recordings.md and docs/cost.md.
"""

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import datetime

from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

with DAG(
    "speechkit_call_centre",
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="Europe/Moscow"),
    start_date=datetime(2026, 11, 1, tz="Europe/Moscow"),
    catchup=False,
    default_args={"retries": 2},
    tags=["speechkit"],
) as dag:
    recognize = SpeechKitRecognizeOperator(
        task_id="recognize",
        audio="s3://calls/{{ data_interval_start.in_timezone('Europe/Moscow') | ds }}/",
        # Two mono files, of any format, become one stereo recording, at half the price.
        pair=("{call}-in.wav", "{call}-out.wav"),
        channel_labels=("customer", "agent"),
        upload_to="s3://calls-converted/",
        labels_from_sidecar="{call}.json",
        sidecar_fields=["call_id", "queue"],
        # Unanswered calls and empty lines cost nothing, and have rows with the reason.
        min_duration_s=5,
        skip_silent=True,
        on_filtered="record",
        # A quarter of the price; results may take a day.
        model="deferred-general",
        # A damaged recording becomes a row with its error, and doesn't stop the other calls.
        on_failure="record",
        deferrable=True,
    )
    rows = SpeechKitTransformOperator(task_id="rows", operation_id=recognize.output, target="s3://lake/speech/")
    load = SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=rows.output)
