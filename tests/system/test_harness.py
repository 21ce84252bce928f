"""The Airflow of the system tests is a real one: tasks defer, and resume after its processes were killed."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.fixtures.airflow import Component, RealAirflow

DAG_ID = "waiting_for_files"
WAITING = [("one", -1), ("mapped", 0), ("mapped", 1)]


@pytest.fixture
def deferred_run(real_airflow: RealAirflow, tmp_path: Path) -> str:
    """The id of a run whose three sensors are deferred."""
    real_airflow.add_connection("fs_default", "fs")
    real_airflow.add_dag(Path(__file__).parent / "dags" / "waiting_for_files.py")
    run_id = real_airflow.trigger(DAG_ID, {"folder": str(tmp_path)})
    real_airflow.wait_for_tasks(DAG_ID, run_id, dict.fromkeys(WAITING, "deferred"))
    return run_id


def let_go(folder: Path) -> None:
    for name in ("one", "first", "second"):
        (folder / name).touch()


def test_deferred_tasks_resume(real_airflow: RealAirflow, deferred_run: str, tmp_path: Path) -> None:
    let_go(tmp_path)
    assert real_airflow.wait_for_run(DAG_ID, deferred_run) == "success"
    assert set(real_airflow.task_states(DAG_ID, deferred_run).values()) == {"success"}
    assert "triggerer_job_runner" in real_airflow.task_log(DAG_ID, deferred_run, "mapped", map_index=1)


def test_deferred_tasks_resume_in_another_triggerer_after_a_kill(
    real_airflow: RealAirflow, deferred_run: str, tmp_path: Path
) -> None:
    processes = real_airflow.process(Component.TRIGGERER).processes()
    assert len(processes) > 1
    real_airflow.kill(Component.TRIGGERER)
    real_airflow.launch(Component.TRIGGERER)
    # A killed process stays a zombie until its parent reaps it, which takes a moment.
    _, alive = psutil.wait_procs(processes, timeout=600)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    let_go(tmp_path)
    assert real_airflow.wait_for_run(DAG_ID, deferred_run) == "success"


def test_deferred_tasks_resume_after_a_kill_of_the_scheduler(
    real_airflow: RealAirflow, deferred_run: str, tmp_path: Path
) -> None:
    real_airflow.kill(Component.SCHEDULER)
    let_go(tmp_path)
    real_airflow.launch(Component.SCHEDULER)
    assert real_airflow.wait_for_run(DAG_ID, deferred_run) == "success"
