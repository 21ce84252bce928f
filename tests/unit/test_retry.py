"""Pauses after failures, when to give up, and who tries while a host fails."""

from __future__ import annotations

import itertools
import math

import pytest

from airflow_speechkit.errors import (
    AnswerUnreadableError,
    ArchiveError,
    AuthenticationError,
    PermissionDeniedError,
    ServiceFaultError,
    SpeechKitError,
    UnreachableError,
)
from airflow_speechkit.retry import LASTING, TRANSIENT, CircuitBreaker, FailureStreak, RetryPolicy, policy_for

BRIEF = RetryPolicy(give_up_failures=3, give_up_s=10.0)


class TestAPolicy:
    def test_doubles_the_pause_up_to_its_longest(self) -> None:
        pauses = [TRANSIENT.pause_s(failures) for failures in range(1, 10)]
        assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
        assert TRANSIENT.pause_s(10_000) == 300
        assert TRANSIENT.pause_s(0) == 5

    def test_gives_each_pause_until_it_gives_up(self) -> None:
        assert list(RetryPolicy(5.0, 40.0, give_up_failures=4).pauses_s()) == [5, 10, 20, 40]
        assert list(itertools.islice(RetryPolicy(1.0, 2.0).pauses_s(), 5)) == [1, 2, 2, 2, 2]

    @pytest.mark.parametrize(
        ("policy", "failures", "elapsed_s", "expected"),
        [
            (TRANSIENT, 100, 3599, False),
            (TRANSIENT, 7, 9000, False),
            (TRANSIENT, 8, 3600, True),
            (LASTING, 100, 599, False),
            (LASTING, 4, 9000, False),
            (LASTING, 5, 600, True),
            (RetryPolicy(), 10**9, math.inf, False),
        ],
    )
    def test_is_exhausted_when_failures_are_many_and_last(
        self, policy: RetryPolicy, failures: int, elapsed_s: float, expected: bool
    ) -> None:
        assert policy.is_exhausted(failures, elapsed_s) == expected

    @pytest.mark.parametrize(
        ("error", "policy"),
        [
            (UnreachableError("No answer"), TRANSIENT),
            (ServiceFaultError("503", http_status=503), TRANSIENT),
            (ArchiveError("away"), TRANSIENT),
            (AuthenticationError("No", http_status=401), LASTING),
            (PermissionDeniedError("No", http_status=403), LASTING),
            (AnswerUnreadableError("Not JSON"), TRANSIENT),
        ],
        ids=lambda one: type(one).__name__,
    )
    def test_follows_from_what_the_error_says_itself(self, error: SpeechKitError, policy: RetryPolicy) -> None:
        assert policy_for(error) == policy


class TestAStreak:
    def test_needs_both_its_number_and_its_time(self) -> None:
        streak = FailureStreak()
        assert [streak.add(BRIEF, now) for now in (0.0, 1.0, 2.0, 9.9, 10.0)] == [False, False, False, False, True]
        assert streak.failures == 5

    def test_begins_anew_after_a_success(self) -> None:
        streak = FailureStreak()
        for now in (0.0, 5.0, 10.0):
            streak.add(BRIEF, now)
        streak.clear()
        assert streak.failures == 0
        assert not streak.add(BRIEF, 20.0)

    def test_counts_each_policy_by_itself(self) -> None:
        streak = FailureStreak()
        for minute in range(59):
            streak.add(TRANSIENT, 60.0 * minute)
        lasting = [streak.add(LASTING, 3600.0 + 180.0 * number) for number in range(5)]
        assert lasting == [False, False, False, False, True]
        assert streak.failures == 64, "pauses go on growing"


class TestTheCircuitBreaker:
    def test_is_closed_until_something_fails(self) -> None:
        breaker = CircuitBreaker()
        breaker.request(0.0)
        assert breaker.open_until == -math.inf

    def test_opens_for_longer_after_each_failure(self) -> None:
        breaker, now, pauses = CircuitBreaker(), 0.0, []
        for _ in range(8):
            breaker.failed(TRANSIENT, now, now + 1.0)
            pauses.append(breaker.open_until - now - 1.0)
            now = breaker.open_until
        assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]

    def test_does_not_count_what_was_under_way_when_the_last_one_failed(self) -> None:
        breaker = CircuitBreaker()
        for _ in range(8):
            breaker.failed(TRANSIENT, sent_at=0.0, now=1.0)
        assert breaker.streak.failures == 1
        assert breaker.open_until == 6.0
        breaker.failed(TRANSIENT, sent_at=6.0, now=7.0)
        assert breaker.open_until == 17.0

    def test_holds_the_others_back_while_one_tries(self) -> None:
        breaker = CircuitBreaker()
        breaker.failed(TRANSIENT, sent_at=0.0, now=1.0)
        breaker.request(6.0)
        assert breaker.open_until == 11.0

    def test_closes_with_the_first_success(self) -> None:
        breaker = CircuitBreaker()
        breaker.failed(TRANSIENT, sent_at=0.0, now=1.0)
        breaker.succeeded()
        assert breaker.open_until == -math.inf
        assert breaker.streak.failures == 0
        breaker.failed(TRANSIENT, sent_at=0.5, now=2.0)
        assert breaker.open_until == 7.0

    def test_says_when_the_policy_is_exhausted(self) -> None:
        breaker, now, failures, is_exhausted = CircuitBreaker(), 0.0, 0, False
        while not is_exhausted:
            is_exhausted = breaker.failed(LASTING, now, now)
            failures += 1
            now = breaker.open_until
        assert failures >= 5
        assert 600.0 <= now <= 1000.0
