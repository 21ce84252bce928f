"""A scheduled run of the README's DAG takes yesterday's recordings, on the installed Airflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import duckdb

from tests.fixtures.emulator import airflow_connections
from tests.fixtures.environment import ROOT
from tests.fixtures.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess

SAMPLE = (ROOT / "emulator/speechkit_emulator/samples/delivery.ogg").read_bytes()
#: The run that begins on the 10th at 02:00 in Moscow, which is the 9th at 23:00 UTC, and no other.
ONE_RUN = """
    start_date=datetime(2025, 3, 9, 2, tz="Europe/Moscow"),
    end_date=datetime(2025, 3, 9, 2, tz="Europe/Moscow"),
    catchup=True,
"""
DAYS = {"2025-03-08": 2, "2025-03-09": 1, "2025-03-10": 0}


def on_one_night(source: str, place: Path, bucket: str) -> str:
    """The DAG with one scheduled run, on a night that is over, and with places of the test's own."""
    for written, own in (
        ('\n    start_date=datetime(2026, 11, 1, tz="Europe/Moscow"),\n    catchup=False,\n', ONE_RUN),
        ('"s3://calls/', f'"s3://{bucket}/'),
        ('"s3://lake/speech/"', f'"{(place / "tables").as_uri()}"'),
        ("deferrable=True", 'deferrable=True, language="en-US"'),
        # The DAG's own retries, without the pause: Airflow 3.3 fails a task that is resumed before its executor has
        # reported the deferral (apache/airflow#72716).
        ('"retries": 2', '"retries": 2, "retry_delay": 1'),
    ):
        assert source.count(written) == 1, written
        source = source.replace(written, own)
    return source


def test_a_scheduled_run_takes_yesterday(emulator: EmulatorProcess, tmp_path: Path, migrated_database: Path) -> None:
    prefix = f"{emulator.bucket}/{uuid4().hex}"
    for day, recordings in DAYS.items():
        for number in range(recordings):
            emulator.put(f"{prefix.partition('/')[2]}/{day}/{number}.ogg", SAMPLE)
    warehouse = tmp_path / "warehouse.duckdb"
    (home := tmp_path / "airflow").mkdir()
    # Its scheduler makes runs of every DAG that its database has: of this one only.
    run = LocalAirflow(home, migrated_database).run_on_schedule(
        "speechkit_nightly",
        on_one_night((ROOT / "dags/speechkit_nightly.py").read_text(), tmp_path, prefix),
        environment={
            **airflow_connections(emulator, (tmp_path / "archive").as_uri()),
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "duckdb", "host": str(warehouse)}),
        },
    )
    assert run.tasks == {(task_id, -1): "success" for task_id in ("recognize", "rows", "load")}, run.log[-5000:]
    assert sum(prefix.partition("/")[2] in str(one) for one in emulator.billing()) == 1
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        assert connection.execute("SELECT audio_uri FROM recognitions").fetchall() == [
            (f"s3://{prefix}/2025-03-09/0.ogg",)
        ]
