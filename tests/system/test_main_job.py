"""The main job on a real Airflow: its tasks defer, and resume after the triggerer has archived the answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import duckdb
import pytest

from tests.fixtures.airflow import RealAirflow
from tests.fixtures.environment import ROOT

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess

SAMPLES = ("delivery.ogg", "doctor.ogg")


@pytest.fixture
def prefix(emulator: EmulatorProcess) -> str:
    """A prefix of the bucket with two calls, of this test's own."""
    own = uuid4().hex
    for name in SAMPLES:
        emulator.put(f"{own}/{name}", (ROOT / "emulator/speechkit_emulator/samples" / name).read_bytes())
    return f"s3://{emulator.bucket}/{own}/"


@pytest.fixture
def airflow(real_airflow: RealAirflow, tmp_path: Path) -> RealAirflow:
    real_airflow.add_connection("warehouse", "duckdb", host=str(tmp_path / "speech.duckdb"))
    real_airflow.add_dag(ROOT / "dags/speechkit_to_warehouse.py")
    return real_airflow


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_recordings_become_rows_while_a_trigger_waits(
    airflow: RealAirflow, emulator: EmulatorProcess, prefix: str, tmp_path: Path
) -> None:
    conf = {"audio": prefix, "language": "en-US", "target": f"s3://aws_default@{emulator.bucket}/lake/{uuid4().hex}/"}
    run_id = airflow.trigger("speechkit_to_warehouse", conf)
    assert airflow.wait_for_run("speechkit_to_warehouse", run_id) == "success"
    log = airflow.task_log("speechkit_to_warehouse", run_id, "recognize")
    assert "triggerer_job_runner" in log
    database = tmp_path / "speech.duckdb"
    assert rows(database, "SELECT count(*), min(status), max(status) FROM recognitions") == [
        (2, "finished", "finished")
    ]
    assert rows(database, "SELECT count(DISTINCT channel) FROM words") == [(2,)]
