"""Waiting in a worker: functions of the age."""

from __future__ import annotations

import pytest
from airflow_speechkit.polling.blocking import BlockingAllowance, due, next_check, next_poke
from airflow_speechkit.polling.waiting import Waiting

START = 1_795_000_000.0
ALLOWANCE = BlockingAllowance.of("v2")


def test_the_slice_lies_beside_what_the_triggerers_spend_and_within_the_quota() -> None:
    assert ALLOWANCE.per_second * 3600.0 * 4 == pytest.approx(250.0)
    assert BlockingAllowance.of("v2", checks_per_hour=800, side_by_side=1).per_second * 3600.0 == pytest.approx(100.0)
    assert BlockingAllowance.of("v3").per_second * 4 == pytest.approx(0.5)


def test_the_checks_of_one_poke_fit_into_what_the_triggerers_leave_of_each_second_and_of_a_minute() -> None:
    v3 = BlockingAllowance.of("v3")
    assert 4.0 + 1.0 / v3.pause_s <= 5.0
    assert v3.at_once * v3.pause_s <= 60.0
    assert ALLOWANCE.pause_s == 0.0


def test_the_first_poke_waits_for_the_prediction() -> None:
    short, long = Waiting("a", START, 60.0, 1), Waiting("b", START, 3600.0, 2)
    assert START < next_check(short, START, ALLOWANCE) < next_check(long, START, ALLOWANCE)
    assert due([short, long], None, START, ALLOWANCE) == []


@pytest.mark.parametrize("audio_s", [30.0, 300.0, 7200.0, None])
def test_whoever_comes_back_when_told_finds_it_due(audio_s: float | None) -> None:
    waiting, now, since = Waiting("a", START, audio_s, 1), START, None
    for _ in range(30):
        now = next_poke([waiting], 1 if since else 0, now, ALLOWANCE)
        assert due([waiting], since, now + 0.01, ALLOWANCE) == [waiting]
        since = now + 0.01
        now = since


def test_a_sensor_does_not_spend_more_than_its_allowance() -> None:
    waitings = [Waiting(str(number), START, 60.0 + number, 1) for number in range(40)]
    now, since, asked, total = START, None, 0, 0
    while now < START + 4 * 3600.0:
        now = next_poke(waitings, asked, now, ALLOWANCE) + 0.01
        chosen = due(waitings, since, now, ALLOWANCE)
        since, asked = now, len(chosen)
        total += asked
    assert total <= 4 * 62.5 + 2 * len(waitings)


def test_more_than_may_be_asked_for_at_once_all_get_their_turn() -> None:
    waitings = [Waiting(str(number), START, 60.0, 1) for number in range(200)]
    seen: set[str] = set()
    for look in range(20):
        chosen = due(waitings, None, START + 3600.0 + 100.0 * look, ALLOWANCE)
        assert len(chosen) <= ALLOWANCE.at_once
        seen |= {waiting.operation_id for waiting in chosen}
    assert len(seen) == 200


def test_a_users_interval_overrides_the_prediction() -> None:
    waiting = Waiting("a", START, 14_400.0, 2, interval_s=20.0)
    assert next_check(waiting, START, ALLOWANCE) == START + 20.0
    assert next_poke([waiting], 1, START + 20.0, ALLOWANCE) == START + 40.0
    assert due([waiting], START + 20.0, START + 40.0, ALLOWANCE) == [waiting]
    assert due([waiting], START + 20.0, START + 39.0, ALLOWANCE) == []
