"""The example DAGs, unedited, with the emulator's samples and connections, on the installed Airflow.

`make test-airflow-2.11` runs it on the oldest supported one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speechkit_emulator.process import EmulatorProcess
from tests.fixtures.local_airflow import LocalAirflow


def test_with_imported_connections_the_samples_become_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrated_database: Path
) -> None:
    import duckdb

    home, file = tmp_path / "airflow", tmp_path / "connections.json"
    home.mkdir()
    airflow = LocalAirflow(home, migrated_database)
    # The emulator's connections name a DuckDB file in the folder that it was started in.
    monkeypatch.chdir(tmp_path)
    with EmulatorProcess("--samples", recognisers=2) as emulator:
        file.write_text(json.dumps(emulator.airflow_connections()))
        imported = airflow.command("connections", "import", "--overwrite", str(file), env=airflow.environment)
        assert imported.returncode == 0, imported.stdout
        for dag_id in ("speechkit_to_warehouse", "speechkit_one_task_per_call"):
            run = airflow.run(dag_id)
            assert run.state == "success", run.log[-5000:]
            assert set(run.tasks.values()) == {"success"}
        assert len(emulator.billing()) == 6, "the second DAG's calls were among the first one's"
    with duckdb.connect(str(tmp_path / "speech.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM recognitions").fetchone() == (6,)
        (words,) = connection.execute("SELECT count(*) FROM words").fetchone() or (0,)
    assert words > 180
