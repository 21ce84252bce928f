"""`only_new` passes on recordings that no other run of the DAG received."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_speechkit.operators.submit import SpeechKitSubmitOperator
from tests.fixtures.direct import Desk


def run_new(desk: Desk, run_id: str, dag_id: str = "calls") -> Any:
    ti = type("TaskInstance", (), {"dag_id": dag_id, "run_id": run_id, "task_id": "submit", "map_index": -1})()
    audio = f"s3://{desk.bucket}/{desk.prefix}/"
    operator = SpeechKitSubmitOperator(task_id="submit", audio=audio, language="en-US", only_new=True)
    return operator.execute({"ti": ti})


def archive_answers(ids: list[str]) -> None:
    from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
    from tests.fixtures.direct import wait_for

    wait_for(SpeechKitRecognitionSensor(task_id="wait", operation_id=ids, poke_interval=0.2))


def test_only_new_passes_on_recordings_that_no_other_run_received(desk: Desk) -> None:
    desk.put("1.ogg")
    first = run_new(desk, "monday")
    assert len(first) == 1
    archive_answers(first)
    assert run_new(desk, "monday") == first, "a retry returns the same"
    with pytest.raises(AirflowSkipException):
        run_new(desk, "tuesday")
    desk.put("2.ogg")
    second = run_new(desk, "tuesday")
    assert len(second) == 1
    assert second != first
    archive_answers(second)
    assert run_new(desk, "tuesday") == second


def test_a_cleared_run_gets_the_operations_again_that_it_shares_with_another_run(desk: Desk) -> None:
    desk.put("1.ogg")
    first = run_new(desk, "monday")
    assert run_new(desk, "tuesday") == first, "no task has waited for it yet"
    archive_answers(first)
    assert run_new(desk, "tuesday") == first, "its rows are still to be loaded"
    assert run_new(desk, "monday") == first
    with pytest.raises(AirflowSkipException):
        run_new(desk, "wednesday")


def test_recordings_passed_to_another_dag_are_new_to_this_one(desk: Desk) -> None:
    desk.put("1.ogg")
    first = run_new(desk, "monday")
    archive_answers(first)
    assert run_new(desk, "monday", "quality") == first
    with pytest.raises(AirflowSkipException):
        run_new(desk, "tuesday", "quality")
    assert desk.billed() == 1
