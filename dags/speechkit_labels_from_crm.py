"""Every night, load yesterday's calls from a CRM's list, with its call ids and roles as labels."""

from airflow.providers.common.compat.sdk import DAG, AirflowSkipException, BaseHook, Param
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import datetime

from airflow_speechkit.operators.recognize import SpeechKitRecognizeOperator
from airflow_speechkit.operators.transform import SpeechKitTransformOperator
from airflow_speechkit.transfers.sql import SpeechKitToSqlOperator

with DAG(
    "speechkit_labels_from_crm",
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="Europe/Moscow"),
    start_date=datetime(2026, 11, 1, tz="Europe/Moscow"),
    catchup=False,
    params={
        "language": Param("ru-RU", type="string"),
        "target": Param("s3://lake/speech/", type="string"),
    },
    tags=["speechkit"],
) as dag:

    @dag.task(multiple_outputs=True)
    def calls(data_interval_start=None) -> dict[str, list]:
        """Read the day's calls from the CRM: recordings, and labels in the same order."""
        day = data_interval_start.in_timezone("Europe/Moscow").to_date_string()
        found = BaseHook.get_hook("crm").get_records(
            f"SELECT recording, call_id, direction FROM calls WHERE call_date = DATE '{day}' ORDER BY call_id"
        )
        if not found:
            raise AirflowSkipException(f"The CRM has no calls on {day}")
        return {
            "audio": [recording for recording, _, _ in found],
            "labels": [
                {
                    "call_id": str(call_id),
                    # In this telephone exchange, the left channel of an incoming call is the customer.
                    "channel_0": "customer" if direction == "in" else "agent",
                    "channel_1": "agent" if direction == "in" else "customer",
                }
                for _, call_id, direction in found
            ],
        }

    of_the_day = calls()
    recognize = SpeechKitRecognizeOperator(
        task_id="recognize",
        audio=of_the_day["audio"],
        labels=of_the_day["labels"],
        language="{{ params.language }}",
        # A missing recording becomes a row with its error, and does not stop the other calls.
        on_failure="record",
        deferrable=True,
    )
    rows = SpeechKitTransformOperator(task_id="rows", operation_id=recognize.output, target="{{ params.target }}")
    load = SpeechKitToSqlOperator(task_id="load", conn_id="warehouse", tables=rows.output)
