"""A submit on a real Airflow frees its worker when the service refuses, and continues in another triggerer."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from tests.fixtures.airflow import Component, RealAirflow
from tests.fixtures.environment import ROOT

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess

DAG_ID = "deferred_submit"


def test_a_submit_continues_in_another_process_and_pays_once(
    real_airflow: RealAirflow, emulator: EmulatorProcess
) -> None:
    own = uuid4().hex
    recording = (ROOT / "emulator/speechkit_emulator/samples/message.ogg").read_bytes()
    for number in range(6):
        emulator.put(f"{own}/{number}.ogg", recording + bytes([number]), {"processing_s": 0})
    emulator.fault("429", on="submit", times=1, match=own, retry_after="30")
    real_airflow.add_dag(ROOT / "tests/system/dags/deferred_submit.py")
    run_id = real_airflow.trigger(DAG_ID, {"audio": f"s3://{emulator.bucket}/{own}/"})
    real_airflow.wait_for_tasks(DAG_ID, run_id, {("submit", -1): "deferred"})
    real_airflow.kill(Component.TRIGGERER)
    real_airflow.launch(Component.TRIGGERER)
    assert real_airflow.wait_for_run(DAG_ID, run_id) == "success"
    ids = real_airflow.xcom(DAG_ID, run_id, "submit")
    billed = [one["operation_id"] for one in emulator.billing() if f"/{own}/" in str(one)]
    assert len(ids) == 6
    assert sorted(ids) == sorted(billed)
    log = real_airflow.task_log(DAG_ID, run_id, "submit")
    assert "6 recordings: 0 known, 0 are being submitted elsewhere, 6 new" in log
    assert "submitted 5 of 6, refused 0, the next go out at" in log
