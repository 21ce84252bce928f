"""The example DAG on whichever Airflow is installed; `make test-airflow-2.11` runs it on the oldest one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fixtures.emulator import airflow_connections
from tests.fixtures.environment import ROOT
from tests.fixtures.local_airflow import LocalAirflow

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess

RECORDING = ROOT / "dags" / "samples" / "delivery.ogg"


def test_a_recording_becomes_rows(
    local_airflow: LocalAirflow, emulator: EmulatorProcess, emulator_s3: Any, tmp_path: Path
) -> None:
    import duckdb

    emulator_s3.upload_file(str(RECORDING), emulator.bucket, "oldest/delivery.ogg")
    warehouse = tmp_path / "warehouse.duckdb"
    run = local_airflow.run(
        "speechkit_to_warehouse",
        conf={
            "audio": f"s3://{emulator.bucket}/oldest/",
            "language": "en-US",
            "target": (tmp_path / "tables").as_uri(),
        },
        environment={
            **airflow_connections(emulator, (tmp_path / "archive").as_uri()),
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "duckdb", "host": str(warehouse)}),
        },
    )
    assert run.state == "success", run.log[-5000:]
    assert run.tasks == {(task_id, -1): "success" for task_id in ("recognize", "rows", "load")}
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM recognitions").fetchone() == (1,)
        (words,) = connection.execute("SELECT count(*) FROM words").fetchone() or (0,)
    assert words > 10
