"""A sensor that waits on a worker: poked by Airflow, rescheduled, or asked by hand."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from airflow_speechkit import compat
from airflow_speechkit.errors import (
    SettingsError,
)
from airflow_speechkit.sensors import recognition
from tests.fixtures.direct import Desk
from tests.integration.sensors.modes import sensor


@pytest.mark.parametrize("retry_after", ["30", None])
def test_a_blocking_wait_stops_at_a_429_for_as_long_as_the_service_says(desk: Desk, retry_after: str | None) -> None:
    ids = desk.emulator.stand_ins(4)
    waiting = sensor("poke", ids)
    desk.emulator.fault(429, on="operation", times=None, after=1, retry_after=retry_after)
    before = desk.checks()
    assert not waiting.poke({}).is_done
    assert desk.checks() == before + 2, "one that was answered, one that was refused"
    pause_s = waiting._get_next_poke_interval(0.0, lambda: 0.0, 1)
    assert pause_s > (29 if retry_after else 4)
    assert not waiting.poke({}).is_done
    assert desk.checks() == before + 2, "too early"
    left_s = waiting._get_next_poke_interval(0.0, lambda: waiting.timeout - 3.0, 1)
    assert left_s == pytest.approx(3), "the time that the user allows is kept"


def test_of_a_list_with_both_apis_each_second_has_no_more_than_v3_allows(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(recognition, "time", SimpleNamespace(time=time.time, sleep=slept.append))
    ids = [*desk.emulator.stand_ins(), *desk.emulator.stand_ins(2, api="v3")]
    desk.connect(extra={"archive": desk.archive_url, "checks_per_hour": 2000, "checks_per_second": 4})
    assert sensor("poke", ids).poke({}).is_done
    assert [pause >= 1 for pause in slept] == [True, True]


def test_a_list_without_an_archive_is_not_rescheduled(desk: Desk) -> None:
    ids = desk.emulator.stand_ins(2)
    with pytest.raises(SettingsError, match="reschedule"):
        sensor("reschedule", ids, archive=False).poke({})


def test_a_check_by_hand_needs_nothing_before_it(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    found = sensor("poke", operation_id).poke({})
    assert found.is_done
    assert found.xcom_value == operation_id


def test_a_blocking_check_is_one_request(desk: Desk) -> None:
    (operation_id,) = desk.emulator.stand_ins()
    desk.emulator.fault(500, on="operation", times=3)
    before = desk.checks()
    assert not sensor("poke", operation_id).poke({}).is_done
    assert desk.checks() == before + 1


@pytest.mark.parametrize(
    ("state", "asked", "expected"),
    [("failed", True, True), ("running", True, False), (None, True, False), ("failed", False, False)],
)
def test_a_blocking_wait_that_is_killed_cancels_only_where_asked_for_and_the_task_is_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, state: str | None, asked: bool, expected: bool
) -> None:
    (operation_id,) = desk.emulator.stand_ins(processing_s=36_000)
    waiting = sensor("poke", operation_id, cancel_on_kill=asked)
    waiting.on_kill()
    assert not waiting.poke({}).is_done
    monkeypatch.setattr(compat, "read_task_state", lambda task_instance: state)
    waiting.on_kill()
    paths = [one["path"] for one in desk.emulator.request_log() if one["kind"] == "cancel"]
    assert any(operation_id in path for path in paths) == expected
