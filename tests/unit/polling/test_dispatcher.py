"""Which operation is asked for next, in virtual time."""

from __future__ import annotations

import math

import pytest

from airflow_speechkit.polling.budget import CheckBudget, Limit
from airflow_speechkit.polling.dispatcher import LASTING, TRANSIENT, Dispatcher, Patience
from airflow_speechkit.polling.waiting import Waiting

START = 1_795_000_000.0


def dispatcher(per_hour: int = 2000) -> Dispatcher:
    return Dispatcher(CheckBudget((Limit(per_hour, 3600.0),)))


def call(name: str, age_s: float = 0.0, now: float = START, **more: object) -> Waiting:
    about = {"audio_s": 300.0, "channels": 1, **more}
    return Waiting(name, now - age_s, **about)  # type: ignore[arg-type]


def first_turn(subject: Dispatcher, now: float = START) -> tuple[str, float]:
    """The next operation to be asked for, and when."""
    while True:
        turn = subject.turn(now)
        if turn.operation_id is not None:
            return turn.operation_id, now
        assert turn.wait_s < math.inf
        now += turn.wait_s + 1e-4


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
        now = START
        while now < START + 100.0:
            turn = subject.turn(now)
            if turn.operation_id is not None:
                subject.running(turn.operation_id, now)
            else:
                now += min(turn.wait_s, 5.0) + 1e-4
        return sum(watch.checks for watch in subject.watches.values())

    assert checks_of_one(few) / 3 > 4
    assert checks_of_one(many) / 1000 < 0.5


def test_thousands_overdue_after_a_restart_are_spread_within_the_budget() -> None:
    subject = Dispatcher(CheckBudget.of("v2"))
    for number in range(3000):
        subject.add(call(str(number), age_s=number * 1.0 + 200.0), START)
    now, sent = START, []
    while now < START + 600.0:
        turn = subject.turn(now)
        if turn.operation_id is None:
            now += turn.wait_s + 1e-4
        else:
            sent.append(now)
            subject.running(turn.operation_id, now)
    assert 200 < len(sent) <= 600
    assert max(sum(1 for at in sent if minute <= at < minute + 60.0) for minute in sent[::50]) <= 167


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


def test_errors_of_the_host_hold_back_all_and_one_at_a_time_tries_again() -> None:
    subject = dispatcher()
    for number in range(20):
        subject.add(call(str(number), age_s=1000.0), START)
    now, tries, names = START, [], set()
    while now < START + 1800.0:
        name, now = first_turn(subject, now)
        tries.append(now)
        names.add(name)
        assert subject.turn(now).operation_id is None
        assert subject.failed(name, now, everywhere=True, patience=TRANSIENT) is None
    assert len(tries) < 15
    assert len(names) > 5
    _, now = first_turn(subject, now)
    subject.running(name, now)
    _, then = first_turn(subject, now)
    assert then - now < 60.0


def test_errors_of_one_operation_leave_the_others_alone() -> None:
    subject = dispatcher()
    subject.add(call("bad", age_s=1000.0), START)
    subject.add(call("good", age_s=1000.0), START)
    now = START
    asked = {"bad": 0, "good": 0}
    while now < START + 600.0:
        name, now = first_turn(subject, now)
        asked[name] += 1
        if name == "bad":
            subject.failed(name, now, everywhere=False, patience=TRANSIENT)
        else:
            subject.running(name, now)
    assert 0 < asked["bad"] < 12
    assert asked["good"] > 2


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("patience", [TRANSIENT, LASTING, Patience(3, 30.0)])
def test_errors_end_a_wait_only_when_they_are_many_and_last(everywhere: bool, patience: Patience) -> None:
    subject = dispatcher()
    subject.add(call("a", age_s=1000.0), START)
    now, failures, first, too_many = START, 0, math.inf, None
    while too_many is None:
        name, now = first_turn(subject, now)
        first = min(first, now)
        failures += 1
        too_many = subject.failed(name, now, everywhere=everywhere, patience=patience)
    assert failures == too_many.failures >= patience.failures
    assert now - first == pytest.approx(too_many.for_s)
    assert too_many.for_s >= patience.seconds
    assert too_many.everywhere is everywhere


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
    assert len(subject._heap) <= 4 * len(subject.watches) + 65
