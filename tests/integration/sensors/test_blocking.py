"""A sensor that waits in a worker: poked by Airflow, ended by a user, or called by hand."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout

from airflow_speechkit import compat
from airflow_speechkit.errors import RecognitionFailedError, SettingsError
from airflow_speechkit.sensors.recognition import SpeechKitRecognitionSensor
from tests.fixtures.direct import Desk
from tests.integration.sensors.modes import sensor


def checks_of(desk: Desk, operation_id: str) -> int:
    log = desk.emulator.request_log()
    return sum(one["kind"] == "operation" and operation_id in one["path"] for one in log)


@pytest.mark.parametrize("retry_after", ["3000", None])
def test_after_a_429_a_wait_pauses_for_the_retry_after(desk: Desk, retry_after: str | None) -> None:
    ids = desk.emulator.stand_ins(4)
    desk.emulator.fault(429, on="operation", times=None, after=1, retry_after=retry_after)
    before = desk.checks()
    with pytest.raises(AirflowSensorTimeout, match="3 of 4"):
        sensor("poke", ids, timeout=15).poke({})
    # One that was answered, one that was refused, and those that were in progress.
    assert before + 2 <= desk.checks() <= before + 4


def test_a_check_is_one_request(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    desk.emulator.fault(500, on="operation", times=3)
    with pytest.raises(AirflowSensorTimeout):
        sensor("poke", operation_id, timeout=3).poke({})
    assert checks_of(desk, operation_id) == 1


def test_a_list_without_an_archive_is_not_rescheduled(desk: Desk) -> None:
    ids = desk.emulator.stand_ins(2)
    with pytest.raises(SettingsError, match="reschedule"):
        sensor("reschedule", ids, archive=False).poke({})


def test_a_check_by_hand_needs_no_earlier_task(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    found = sensor("poke", operation_id).poke({})
    assert found.is_done
    assert found.xcom_value == operation_id


@contextmanager
def poked(desk: Desk, waiting: SpeechKitRecognitionSensor, operation_id: str) -> Iterator[None]:
    """Have a sensor wait in a thread, as far as its first check; its `timeout` ends it."""

    def poke() -> None:
        # What was cancelled has failed.
        with suppress(AirflowSensorTimeout, RecognitionFailedError):
            waiting.poke({})

    thread = threading.Thread(target=poke)
    thread.start()
    try:
        while thread.is_alive() and not checks_of(desk, operation_id):
            time.sleep(0.05)
        yield
    finally:
        thread.join()


@pytest.mark.parametrize(
    ("state", "asked", "expected"),
    [("failed", True, True), ("running", True, False), (None, True, False), ("failed", False, False)],
)
def test_a_killed_wait_cancels_only_if_requested_and_the_task_is_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, state: str | None, asked: bool, expected: bool
) -> None:
    (operation_id,) = desk.emulator.stand_ins(processing_s=36_000)
    waiting = sensor("poke", operation_id, cancel_on_kill=asked, timeout=8)
    waiting.on_kill()
    monkeypatch.setattr(compat, "read_task_state", lambda task_instance: state)
    with poked(desk, waiting, operation_id):
        waiting.on_kill()
    paths = [one["path"] for one in desk.emulator.request_log() if one["kind"] == "cancel"]
    assert any(operation_id in path for path in paths) == expected


class TaskEndedError(Exception):
    """What Airflow raises wherever the main thread is."""


def test_ending_a_task_ends_its_wait_at_once(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins(processing_s=36_000)

    def end(*_: Any) -> None:
        raise TaskEndedError

    before = signal.signal(signal.SIGUSR1, end)
    ending = threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    ending.start()
    try:
        with pytest.raises(TaskEndedError):
            sensor("poke", operation_id).poke({})
    finally:
        ending.join()
        signal.signal(signal.SIGUSR1, before)
    assert not [one for one in threading.enumerate() if one.name.startswith("speechkit-wait")]
    checks = checks_of(desk, operation_id)
    time.sleep(1.0)
    assert checks_of(desk, operation_id) == checks
