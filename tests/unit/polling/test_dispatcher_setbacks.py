"""Errors, restarts and clocks that are set: what they do to who is asked for and when."""

from __future__ import annotations

import math

import pytest
from airflow_speechkit.polling.budget import CheckBudget, Limit
from airflow_speechkit.polling.dispatcher import Dispatcher
from airflow_speechkit.polling.outage import LASTING, TRANSIENT, Patience, TooMany

from tests.unit.polling.dispatching import (
    START,
    asked_within,
    call,
    dispatcher,
    first_turn,
)


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
    assert failures >= patience.failures
    assert now - first >= patience.seconds
    assert too_many is (TooMany.EVERYWHERE if everywhere else TooMany.HERE)


def fail_until_too_many(subject: Dispatcher, now: float) -> float:
    too_many = None
    while too_many is None:
        name, now = first_turn(subject, now)
        too_many = subject.failed(name, now, everywhere=True, patience=TRANSIENT)
    assert too_many is TooMany.EVERYWHERE
    return now


def test_an_outage_that_ended_all_waits_is_not_held_against_those_who_wait_later() -> None:
    subject = dispatcher()
    subject.add(call("a"), START)
    subject.add(call("other"), START)
    now = fail_until_too_many(subject, START)
    subject.forget("a")
    subject.add(call("b", now=now + 60.0), now + 60.0)
    name, now = first_turn(subject, now + 60.0)
    assert subject.failed(name, now, everywhere=True, patience=TRANSIENT) is None
    assert subject.turn(now).wait_s <= 5.0


def test_an_outage_that_nobody_waited_out_is_not_held_against_those_who_wait_later() -> None:
    subject = dispatcher()
    subject.add(call("a"), START)
    now = START
    for _ in range(7):
        name, now = first_turn(subject, now)
        subject.failed(name, now, everywhere=True, patience=TRANSIENT)
    subject.forget("a")
    now += 7200.0
    subject.add(call("b", now=now), now)
    name, then = first_turn(subject, now)
    assert then < now + 120.0
    assert subject.failed(name, then, everywhere=True, patience=TRANSIENT) is None


def test_one_broken_connection_under_many_checks_is_one_failure() -> None:
    subject = dispatcher()
    for number in range(20):
        subject.add(call(str(number), age_s=30.0), START)
    now, under_way = START + 600.0, []
    while len(under_way) < 8:
        name, now = first_turn(subject, now)
        under_way.append(name)
    for name in under_way:
        subject.failed(name, now + 0.1, everywhere=True, patience=TRANSIENT)
    assert subject.turn(now + 0.2).wait_s <= 5.0


def test_a_key_refused_once_after_an_hour_without_a_network_ends_no_wait() -> None:
    subject = dispatcher()
    subject.add(call("a", age_s=1000.0), START)
    now = START
    while now < START + 1200.0:
        name, now = first_turn(subject, now)
        assert subject.failed(name, now, everywhere=True, patience=TRANSIENT) is None
    refused = 0
    too_many = None
    while too_many is None:
        name, now = first_turn(subject, now)
        refused += 1
        too_many = subject.failed(name, now, everywhere=True, patience=LASTING)
    assert refused >= LASTING.failures


def restarted(number: int, age_s: float, spread_s: float, start: float = START, **more: object) -> Dispatcher:
    """A triggerer that begins to wait, one after another, for what its predecessor waited for."""
    subject = Dispatcher(CheckBudget.of("v2"))
    for one in range(number):
        subject.add(call(str(one), age_s=age_s - one * spread_s / number, now=start, **more), start)
        if one == number // 2 and (first := subject.turn(start).operation_id) is not None:
            # Its loop doesn't wait until all are there.
            subject.running(first, start)
    return subject


@pytest.mark.parametrize(
    ("number", "age_s", "spread_s", "more"),
    [
        (2000, 36_000.0, 2000.0, {"audio_s": 14_400.0, "channels": 2}),
        (500, 7200.0, 3600.0, {}),
        (500, 36_000.0, 3600.0, {"audio_s": 7200.0, "channels": 2}),
        (300, 30_000.0, 3600.0, {"model": "deferred-general"}),
        (2000, 36_000.0, 2000.0, {"interval_s": 600.0}),
        (500, 7200.0, 3600.0, {"interval_s": 60.0}),
    ],
)
def test_a_restart_asks_one_after_another_at_half_the_rate(
    number: int, age_s: float, spread_s: float, more: dict[str, object]
) -> None:
    subject = restarted(number, age_s, spread_s, **more)
    asked = [at for at, _ in asked_within(subject, 600.0)]
    assert [1 + sum(1 for at in asked if at < seconds) for seconds in (10.0, 60.0, 600.0)] == [3, 17, 167]


def test_what_is_new_does_not_wait_behind_a_restart() -> None:
    subject = restarted(2000, 36_000.0, 2000.0)
    subject.add(call("new", audio_s=60.0), START)
    assert "new" in {name for _, name in asked_within(subject, 120.0)}


def test_a_recording_that_is_waited_for_a_little_late_is_no_restart() -> None:
    subject = dispatcher()
    for number in range(20):
        subject.add(call(str(number), audio_s=10.0, age_s=40.0), START)
    assert len(asked_within(subject, 1.0)) >= 20


def test_a_long_stream_of_those_whose_past_is_unknown_gets_more_than_half_the_rate() -> None:
    subject = restarted(3000, 36_000.0, 2000.0, audio_s=14_400.0)
    asked = [at for at, _ in asked_within(subject, 3600.0)]
    assert 0.65 < sum(1 for at in asked if at > 1200.0) / (2400.0 * subject.budget.per_second) < 0.85


def test_those_who_left_do_not_keep_others_waiting_behind_them() -> None:
    subject = restarted(2000, 36_000.0, 2000.0)
    for number in range(1999):
        subject.forget(str(number))
    subject.add(call("late", age_s=36_000.0), START)
    assert {name for _, name in asked_within(subject, 10.0)} == {"1999", "late"}


def test_an_operation_from_the_future_is_a_new_one() -> None:
    subject = dispatcher()
    subject.add(call("a", age_s=-3600.0, audio_s=60.0), START)
    _, then = first_turn(subject)
    assert then - START < 30.0


def test_ages_count_by_the_time_of_day_and_the_budget_does_not() -> None:
    subject = Dispatcher(CheckBudget((Limit(10, 3600.0),)))
    now = 1000.0
    subject.ahead_s = START - now
    subject.add(call("before", audio_s=14_400.0, channels=2), now)
    subject.budget.spend(now)
    subject.ahead_s += 3600.0
    subject.add(call("after", audio_s=60.0, now=START + 3600.0), now)
    assert first_turn(subject, now + 60.0)[0] in ("before", "after")
    assert subject.budget.left(now + 60.0) == 8
    assert subject.watches["after"].age_s(now + 60.0, subject.ahead_s) == pytest.approx(60.0)
    assert subject.watches["before"].age_s(now + 60.0, subject.ahead_s) == pytest.approx(3660.0)


def test_a_clock_that_is_set_back_delays_nothing() -> None:
    subject = dispatcher()
    for name, interval_s in (("a", None), ("b", 60.0)):
        subject.add(call(name, interval_s=interval_s), START)
    subject.ahead_s = -7200.0
    seen = {name for _, name in asked_within(subject, 300.0)}
    assert seen == {"a", "b"}


@pytest.mark.parametrize("interval_s", [60.0, None])
def test_a_clock_that_is_set_forward_and_back_delays_nothing(interval_s: float | None) -> None:
    subject = dispatcher()
    subject.add(call("a", audio_s=3600.0, interval_s=interval_s), START)
    asked_within(subject, 900.0)
    subject.ahead_s = 3600.0
    asked_within(subject, 600.0, START + 900.0)
    subject.ahead_s = 0.0
    asked = [at for at, _ in asked_within(subject, 3600.0, START + 1500.0)]
    assert asked[0] < 330.0
    watch = subject.watches["a"]
    assert watch.learned_age_s <= watch.known_age_s <= watch.asked_age_s <= 5100.0


def test_intervals_move_with_the_clock() -> None:
    subject = dispatcher()
    subject.add(call("a", interval_s=3600.0), START)
    subject.ahead_s = 3000.0
    asked = [at for at, _ in asked_within(subject, 900.0)]
    assert asked == pytest.approx([600.0], abs=5.0)
