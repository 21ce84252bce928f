"""Waits on a real Airflow: with a killed triggerer, a user's actions and failed recognitions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_speechkit.archive.store import Archive
from tests.fixtures.airflow import Component, RealAirflow
from tests.fixtures.environment import ROOT

if TYPE_CHECKING:
    from speechkit_emulator.process import EmulatorProcess

#: In the service's seconds: longer than any test, unless it puts the clock forward.
LONG_S = 40_000


@pytest.fixture
def airflow(real_airflow: RealAirflow) -> RealAirflow:
    real_airflow.add_dag(ROOT / "tests/system/dags/waiting_for_operations.py")
    return real_airflow


@pytest.fixture
def archive(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, airflow_settings: dict[str, str]) -> Archive:
    """The bucket's archive that the triggerer writes into."""
    from airflow_speechkit.hooks.archive import open_archive

    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", airflow_settings["AIRFLOW_CONN_AWS_DEFAULT"])
    return open_archive(airflow_settings["AIRFLOW__SPEECHKIT__ARCHIVE"])


def cancelled(emulator: EmulatorProcess, *ids: str) -> list[str]:
    paths = [one["path"] for one in emulator.request_log() if one["kind"] == "cancel"]
    return [one for one in ids if any(one in path for path in paths)]


def wait_until(so: Any, what: str, timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while not so():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.5)


def test_mapped_waits_continue_in_another_triggerer_after_a_kill(
    airflow: RealAirflow, emulator: EmulatorProcess, archive: Archive
) -> None:
    first, second = emulator.stand_ins(2, processing_s=LONG_S, result_bytes=300_000)
    run_id = airflow.trigger("operations_of_a_mapped_task", {"first": first, "second": second})
    deferred = {("mapped", 0): "deferred", ("mapped", 1): "deferred"}
    airflow.wait_for_tasks("operations_of_a_mapped_task", run_id, deferred)
    wait_until(lambda: any(first in one["path"] for one in emulator.request_log()), "a check by the triggerer")
    airflow.kill(Component.TRIGGERER)
    emulator.advance(LONG_S)
    airflow.launch(Component.TRIGGERER)
    assert airflow.wait_for_run("operations_of_a_mapped_task", run_id) == "success"
    handed_on = [airflow.xcom("operations_of_a_mapped_task", run_id, "mapped", map_index=index) for index in range(2)]
    assert handed_on == [first, second]
    for operation_id in (first, second):
        answer = archive.answer(operation_id)
        assert answer is not None
        assert len(answer.operation) > 100_000


def test_waits_in_workers_end_like_waits_in_the_triggerer(
    airflow: RealAirflow, emulator: EmulatorProcess, archive: Archive
) -> None:
    poke, reschedule = emulator.stand_ins(2, processing_s=600)
    run_id = airflow.trigger("operations_waited_for_in_workers", {"poke": poke, "reschedule": reschedule})
    assert airflow.wait_for_run("operations_waited_for_in_workers", run_id) == "success"
    assert airflow.xcom("operations_waited_for_in_workers", run_id, "poke") == poke
    assert airflow.xcom("operations_waited_for_in_workers", run_id, "reschedule") == reschedule
    assert all(archive.answer(one) for one in (poke, reschedule))


def test_only_a_task_that_is_over_cancels_and_only_if_requested(
    airflow: RealAirflow, emulator: EmulatorProcess
) -> None:
    dag_id = "operations_of_tasks_that_are_ended"
    names = ("cancels", "leaves", "cleared")
    ids = dict(zip(names, emulator.stand_ins(3, processing_s=LONG_S), strict=True))
    run_id = airflow.trigger(dag_id, ids)
    airflow.wait_for_tasks(dag_id, run_id, {(name, -1): "deferred" for name in names})
    for name in names:
        wait_until(lambda name=name: any(ids[name] in one["path"] for one in emulator.request_log()), "a check")

    airflow.clear(dag_id, run_id, "cleared")
    airflow.mark(dag_id, run_id, "leaves", "failed")
    airflow.mark(dag_id, run_id, "cancels", "failed")
    wait_until(lambda: cancelled(emulator, ids["cancels"]), "the cancellation")

    def logged(name: str) -> bool:
        return "its operations are not cancelled" in airflow.task_log(dag_id, run_id, name)

    wait_until(lambda: logged("cleared"), "the first trigger of the cleared task to end")
    assert cancelled(emulator, *ids.values()) == [ids["cancels"]]

    emulator.advance(LONG_S)
    airflow.wait_for_tasks(dag_id, run_id, {("cleared", -1): "success"})
    assert cancelled(emulator, *ids.values()) == [ids["cancels"]]


def test_a_failed_recognition_is_not_skipped_and_no_retry_checks_it_again(
    airflow: RealAirflow, emulator: EmulatorProcess
) -> None:
    failures = emulator.stand_ins(2, error={"code": 3, "message": "Unsupported audio"})
    run_id = airflow.trigger("operations_that_fail", dict(zip(("retried", "hopeless"), failures, strict=True)))
    assert airflow.wait_for_run("operations_that_fail", run_id) == "failed"
    tries = {
        ti["task_id"]: (ti["state"], ti["try_number"]) for ti in airflow.task_instances("operations_that_fail", run_id)
    }
    assert tries == {"retried": ("failed", 2), "hopeless": ("failed", 1)}
    checks = [one["path"] for one in emulator.request_log() if one["kind"] == "operation"]
    assert [sum(operation_id in path for path in checks) for operation_id in failures] == [1, 1]
    for attempt in (1, 2):
        assert "RecognitionFailedError" in airflow.task_log("operations_that_fail", run_id, "retried", attempt=attempt)
