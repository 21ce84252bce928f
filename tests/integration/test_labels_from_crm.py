"""The example DAG with a CRM adds its call ids and roles to the rows of the day's calls."""

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


def test_the_labels_of_a_crm_are_in_the_rows_of_its_calls(
    local_airflow: LocalAirflow, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    prefix = uuid4().hex
    for name in ("in.ogg", "out.ogg"):
        emulator.put(f"{prefix}/{name}", SAMPLE, {})
    calls = [
        (17, "in.ogg", "in", "2026-11-21"),
        (18, "out.ogg", "out", "2026-11-21"),
        (19, "missing.ogg", "in", "2026-11-21"),
        (20, "in.ogg", "in", "2026-11-22"),
    ]
    with duckdb.connect(str(tmp_path / "crm.duckdb")) as crm:
        crm.execute("CREATE TABLE calls (call_id INTEGER, recording TEXT, direction TEXT, call_date DATE)")
        for call_id, name, direction, day in calls:
            address = f"s3://{emulator.bucket}/{prefix}/{name}"
            crm.execute("INSERT INTO calls VALUES (?, ?, ?, ?)", (call_id, address, direction, day))
    run = local_airflow.run(
        "speechkit_labels_from_crm",
        conf={"language": "en-US", "target": (tmp_path / "tables").as_uri()},
        logical_date="2026-11-22T12:00:00",
        environment={
            **airflow_connections(emulator, (tmp_path / "archive").as_uri()),
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "duckdb", "host": str(tmp_path / "speech.duckdb")}),
            "AIRFLOW_CONN_CRM": json.dumps({"conn_type": "duckdb", "host": str(tmp_path / "crm.duckdb")}),
        },
    )
    assert run.state == "success", run.log[-5000:]
    with duckdb.connect(str(tmp_path / "speech.duckdb"), read_only=True) as warehouse:
        found = warehouse.execute("SELECT audio_uri, status, labels FROM recognitions").fetchall()
    labels = {address.rpartition("/")[2]: (status, json.loads(labels)) for address, status, labels in found}
    assert labels == {
        "in.ogg": ("finished", {"call_id": "17", "channel_0": "customer", "channel_1": "agent"}),
        "out.ogg": ("finished", {"call_id": "18", "channel_0": "agent", "channel_1": "customer"}),
        "missing.ogg": ("refused", {"call_id": "19", "channel_0": "customer", "channel_1": "agent"}),
    }
