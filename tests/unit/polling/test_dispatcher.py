"""Which operation is asked for next, in virtual time."""

from __future__ import annotations

import math

import pytest
from airflow_speechkit.polling.budget import CheckBudget
from airflow_speechkit.polling.dispatcher import Dispatcher
from airflow_speechkit.polling.outage import TRANSIENT

from tests.unit.polling.dispatching import (
    START,
    asked_within,
    call,
    dispatcher,
    first_turn,
)


def test_nothing_waits_for_ever() -> None:
    assert dispatcher().turn(START).wait_s == math.inf


def test_the_first_check_comes_when_the_recording_may_be_done() -> None:
    subject = dispatcher()
    subject.add(call("short", audio_s=60.0), START)
    subject.add(call("long", audio_s=3600.0), START)
    due_s = {name: watch.due - START for name, watch in subject.watches.items()}
    assert 2.0 < due_s["short"] < 30.0
    assert 50.0 < due_s["long"] < 1500.0
    assert first_turn(subject)[0] == "short"


def test_a_users_interval_is_kept_whatever_the_prediction() -> None:
    subject = dispatcher()
    subject.add(call("a", audio_s=14_400.0, interval_s=30.0), START)
    now, seen = START, []
    for _ in range(5):
        _, now = first_turn(subject, now)
        seen.append(round(now - START))
        subject.running("a", now)
    assert seen == [30, 60, 90, 120, 150]


def test_a_restart_keeps_the_rhythm_of_a_users_interval() -> None:
    subject = dispatcher()
    subject.add(call("a", age_s=100.0, interval_s=3600.0), START)
    seen = []
    now = START
    for _ in range(2):
        name, now = first_turn(subject, now)
        seen.append(round(now - START))
        subject.running(name, now)
    assert seen == [3500, 7100]


def test_checks_become_rarer_with_the_age() -> None:
    subject = dispatcher()
    subject.add(call("a"), START)
    now, ages = START, []
    while now < START + 7200.0:
        _, now = first_turn(subject, now)
        ages.append(now - START)
        subject.running("a", now)
    assert ages[-1] - ages[-2] > 5.0 * (ages[2] - ages[1])


def test_many_waiting_makes_checks_dear_and_few_makes_them_cheap() -> None:
    few, many = dispatcher(), dispatcher()
    for number in range(3):
        few.add(call(str(number)), START)
    for number in range(1000):
        many.add(call(str(number)), START)

    def checks_of_one(subject: Dispatcher) -> int:
        return len(asked_within(subject, 100.0))

    assert checks_of_one(few) / 3 > 4
    assert checks_of_one(many) / 1000 < 0.5


def test_a_few_overdue_after_a_restart_are_asked_for_soon() -> None:
    subject = Dispatcher(CheckBudget.of("v2"))
    for number in range(10):
        subject.add(call(str(number), age_s=7200.0), START)
    now, names = START, set()
    while len(names) < 10:
        name, now = first_turn(subject, now)
        names.add(name)
        subject.running(name, now)
    assert now - START < 120.0


def test_the_same_operation_twice_is_one() -> None:
    subject = dispatcher()
    subject.add(call("a"), START)
    subject.add(call("a"), START)
    assert len(subject.watches) == 1


def test_a_forgotten_operation_is_not_asked_for() -> None:
    subject = dispatcher()
    subject.add(call("a"), START)
    subject.forget("a")
    assert subject.turn(START + 1000.0).wait_s == math.inf


def test_one_that_is_being_asked_for_is_not_asked_for_twice() -> None:
    subject = dispatcher()
    subject.add(call("a"), START)
    _, now = first_turn(subject)
    assert subject.turn(now + 1000.0).operation_id is None


def test_a_429_pauses_all() -> None:
    subject = dispatcher()
    for name in "ab":
        subject.add(call(name), START)
    name, now = first_turn(subject)
    subject.refused(name, now, 60.0)
    _, then = first_turn(subject, now)
    assert then >= now + 60.0


def test_the_delay_is_told_where_the_service_says_when_it_ended() -> None:
    subject = dispatcher()
    subject.add(call("a"), START)
    subject.add(call("b"), START)
    subject.add(call("c"), START)
    assert subject.ended("a", START + 60.0, 52.0) == pytest.approx(8.0)
    assert subject.ended("b", START + 60.0) is None
    assert subject.ended("c", START + 60.0, 999.0) is None


def test_what_is_learned_moves_what_is_planned_already() -> None:
    subject = dispatcher()
    for number in range(30):
        subject.add(call(str(number), audio_s=3600.0), START)
    planned = {name: watch.due for name, watch in subject.watches.items()}
    now = START + 30.0
    for number in range(10):
        subject.ended(str(number), now, 29.0)
        now += 1.0
        subject.turn(now)
    for _ in range(60):
        now += 1.0
        subject.turn(now)
    left = [name for name, watch in subject.watches.items() if not watch.asking]
    assert all(subject.watches[name].due < planned[name] - 60.0 for name in left)


def test_the_reason_says_when_and_why() -> None:
    subject = dispatcher()
    subject.add(call("a"), START)
    subject.add(call("b", interval_s=60.0), START)
    assert "next check in" in subject.reason("a", START)
    assert "expected to take" in subject.reason("a", START)
    assert "UTC" in subject.reason("a", START)
    assert "every 60 s, as it was set" in subject.reason("b", START)
    subject.failed("a", START, everywhere=False, patience=TRANSIENT)
    assert "backing off after 1 failed check" in subject.reason("a", START)


def test_leaving_entries_behind_does_not_grow_the_heap() -> None:
    subject = dispatcher()
    for number in range(5000):
        subject.add(call(str(number)), START)
        if number % 10:
            subject.forget(str(number))
    assert len(subject._lines) <= 4 * len(subject.watches) + 65


def test_the_shortest_interval_of_all_who_wait_decides() -> None:
    subject = dispatcher()
    predicted = call("a", audio_s=14_400.0, channels=2)
    often, rarely = call("a", interval_s=30.0), call("a", interval_s=600.0)
    subject.add(predicted, START)
    planned = subject.watches["a"].due
    assert planned > START + 60.0
    subject.add(rarely, START)
    assert subject.watches["a"].due == pytest.approx(min(planned, START + 600.0))
    subject.add(often, START)
    assert subject.watches["a"].due == pytest.approx(START + 30.0)
    subject.leave(often, START)
    assert subject.watches["a"].due == pytest.approx(min(planned, START + 600.0), rel=1e-9)
    subject.leave(predicted, START)
    assert subject.watches["a"].due == pytest.approx(START + 600.0)
    subject.leave(rarely, START)
    assert not subject.watches


def test_a_prediction_is_asked_for_sooner_than_somebody_elses_long_interval() -> None:
    subject = dispatcher()
    subject.add(call("a", audio_s=60.0, interval_s=3600.0), START)
    subject.add(call("a", audio_s=60.0), START)
    assert first_turn(subject)[1] < START + 60.0


def test_who_knows_the_recording_decides_about_its_prediction() -> None:
    subject = dispatcher()
    subject.add(call("a", audio_s=None, channels=None), START)
    subject.add(call("a", audio_s=3600.0), START)
    assert subject.watches["a"].work_s == pytest.approx(600.0)


def test_set_intervals_of_seconds_leave_half_the_rate_to_the_others() -> None:
    delays_s = {}
    for many in (0, 200):
        subject = Dispatcher(CheckBudget.of("v2"))
        for number in range(many):
            subject.add(call(f"often {number}", audio_s=14_400.0, channels=2, interval_s=10.0), START)
        now, delays, coming = START, [], [START + 36.0 * number for number in range(100)]
        while len(delays) < 100:
            while coming and coming[0] <= now:
                subject.add(call(f"{coming[0]}", now=coming.pop(0)), now)
            turn = subject.turn(now)
            if turn.operation_id is None:
                now = min([now + turn.wait_s + 1e-3, *coming[:1]])
            elif turn.operation_id.startswith("often") or now < float(turn.operation_id) + 55.0:
                subject.running(turn.operation_id, now)
            else:
                delays.append(now - float(turn.operation_id) - 55.0)
                subject.ended(turn.operation_id, now, 55.0)
        delays_s[many] = sorted(delays)[50]
    assert delays_s[200] < delays_s[0] + 10.0


def test_set_intervals_alone_have_the_whole_rate() -> None:
    subject = dispatcher(3600)
    for number in range(200):
        subject.add(call(str(number), audio_s=7200.0, interval_s=10.0), START)
    assert len(asked_within(subject, 600.0)) > 500


def test_an_interval_of_zero_is_a_very_short_one() -> None:
    subject = dispatcher()
    subject.add(call("a", interval_s=0.0), START)
    assert first_turn(subject)[1] < START + 1.0
