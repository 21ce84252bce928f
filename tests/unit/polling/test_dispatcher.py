"""Which operation is asked for next, in virtual time."""

from __future__ import annotations

import math

import pytest

from airflow_speechkit.polling.budget import CheckBudget, Limit
from airflow_speechkit.polling.dispatcher import Dispatcher
from airflow_speechkit.polling.outage import LASTING, TRANSIENT, Patience, TooMany
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


def asked_within(subject: Dispatcher, seconds: float, start: float = START) -> list[tuple[float, str]]:
    """What is asked for and when, where nothing ever ends."""
    now, asked = start, []
    while now < start + seconds:
        turn = subject.turn(now)
        if turn.operation_id is None:
            now += min(turn.wait_s, 5.0) + 1e-4
        else:
            asked.append((now - start, turn.operation_id))
            subject.running(turn.operation_id, now)
    return asked


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
