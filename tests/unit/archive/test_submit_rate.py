"""How many submits may go out now, and when the next may."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_speechkit.archive.submit_queue import MIN_SUBMITS_OF_A_VISIT, SubmitRateLimiter
from tests.unit.archive.world import T0

HOUR = timedelta(hours=1)
PATIENCE = timedelta(hours=2)


def minutes(number: float) -> datetime:
    return T0 + timedelta(minutes=number)


def test_the_quota_comes_back_in_the_order_in_which_it_was_used() -> None:
    limiter = SubmitRateLimiter(3, PATIENCE)
    for minute in (0, 10, 20):
        assert limiter.delay_s(minutes(minute)) == 0
        limiter.sent_at.append(minutes(minute))
    assert [limiter.delay_s(minutes(30), number) for number in (1, 2, 3)] == [1800, 2400, 3000]
    assert limiter.delay_s(minutes(30), 99) == 3000, "more than an hour's quota can't go out at once"
    assert limiter.delay_s(minutes(60)) == 0


def test_one_that_was_not_needed_does_not_count() -> None:
    limiter = SubmitRateLimiter(1, PATIENCE)
    limiter.sent_at.append(T0)
    limiter.take_back()
    assert limiter.delay_s(T0) == 0


def test_what_went_out_before_counts_but_for_what_is_older_than_an_hour() -> None:
    limiter = SubmitRateLimiter(3, PATIENCE)
    limiter.add_sent([minutes(-10), minutes(-61), minutes(-50), minutes(90)], minutes(0))
    assert limiter.delay_s(minutes(0)) == 600, "one that is dated ahead has just gone out"
    assert limiter.delay_s(minutes(0), 3) == 3600


@given(
    quota=st.integers(1, 120),
    sent=st.lists(st.integers(0, 3599), max_size=200),
    left=st.integers(1, 1000),
)
def test_a_deferred_task_may_send_50_when_back_or_the_rest_or_the_hours_quota(
    quota: int, sent: list[int], left: int
) -> None:
    limiter = SubmitRateLimiter(quota, PATIENCE)
    limiter.add_sent([T0 - timedelta(seconds=ago) for ago in sent], T0)
    number = min(left, MIN_SUBMITS_OF_A_VISIT, quota)
    at = limiter.resume_at(left, T0)
    if at is None:
        assert limiter.delay_s(T0) == 0 or limiter.delay_s(T0, number) <= 5
        return
    assert limiter.delay_s(T0) > 0
    assert at - T0 <= HOUR
    for _ in range(number):
        assert limiter.delay_s(at) == 0
        limiter.sent_at.append(at)


def test_no_task_defers_for_less_than_it_takes_to_come_back() -> None:
    limiter = SubmitRateLimiter(2, PATIENCE)
    limiter.add_sent([minutes(-59.95)] * 2, T0)
    assert limiter.delay_s(T0) == pytest.approx(3)
    assert limiter.resume_at(10, T0) is None


class TestPauses:
    def test_a_pause_is_twice_the_last_one_up_to_ten_minutes(self) -> None:
        limiter, now, lengths = SubmitRateLimiter(500, PATIENCE), T0, []
        for _ in range(9):
            pause_s = limiter.pause(now)
            assert pause_s is not None
            lengths.append(pause_s)
            now += timedelta(seconds=pause_s)
        assert lengths == [10, 20, 40, 80, 160, 320, 600, 600, 600]

    def test_it_goes_on_growing_in_the_next_process(self) -> None:
        first = SubmitRateLimiter(500, PATIENCE)
        first.pause(T0)
        assert first.refused_since == T0
        assert SubmitRateLimiter(500, PATIENCE, first.refused_since).pause(minutes(5)) == 310

    def test_it_begins_anew_once_something_is_accepted(self) -> None:
        limiter = SubmitRateLimiter(500, PATIENCE, T0)
        limiter.refused_since = None
        assert limiter.pause(minutes(60)) == 10

    def test_it_is_as_long_as_the_service_asks_for_within_patience(self) -> None:
        assert SubmitRateLimiter(500, PATIENCE).pause(T0, 1800.0) == 1800
        assert SubmitRateLimiter(500, PATIENCE).pause(T0, 86400.0) == 7200

    def test_several_answers_to_requests_concurrency_make_one_pause(self) -> None:
        limiter = SubmitRateLimiter(500, PATIENCE)
        assert limiter.pause(T0) == 10
        assert limiter.pause(T0 + timedelta(seconds=1)) is None
        assert limiter.delay_s(T0 + timedelta(seconds=1)) == 9

    def test_patience_is_over_when_nothing_was_accepted_for_so_long(self) -> None:
        limiter = SubmitRateLimiter(500, PATIENCE)
        assert not limiter.is_exhausted(minutes(600)), "no submit was refused"
        limiter.pause(T0)
        assert not limiter.is_exhausted(minutes(119))
        assert limiter.is_exhausted(minutes(120))

    def test_a_refusal_for_the_quota_ends_the_visit_and_trouble_does_not(self) -> None:
        refused, troubled = SubmitRateLimiter(500, PATIENCE), SubmitRateLimiter(500, PATIENCE)
        refused.pause(T0, over_quota=True)
        troubled.pause(T0)
        assert refused.resume_at(100, T0) == T0 + timedelta(seconds=10)
        assert troubled.resume_at(100, T0) is None
        assert refused.resume_at(100, T0 + timedelta(seconds=10)) is None
