"""Errors and 429s: what they do to who is asked for and when, in virtual time."""

from __future__ import annotations

import itertools

import pytest

from airflow_speechkit.errors import (
    AnswerUnreadableError,
    AuthenticationError,
    PermissionDeniedError,
    ServiceFaultError,
    SpeechKitError,
    UnreachableError,
)
from airflow_speechkit.polling.rate_limit import RateLimiter
from tests.unit.polling.virtual import LATENCY_S, World, outage

UNREADABLE = AnswerUnreadableError("Not JSON")


def overdue(number: int, limiter: RateLimiter | None = None) -> World:
    """A world in which so many operations have ended."""
    world = World(limiter)
    for one in range(number):
        world.add(str(one), 100.0, age_s=1000.0)
    return world


class TestErrorsEverywhere:
    def test_hold_back_all_and_let_one_at_a_time_try_ever_more_rarely(self) -> None:
        world = overdue(20)
        world.failing = outage()
        world.run(1800.0)
        tries = [at for at, _ in world.asked]
        gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
        # Those under way when the first one failed come first.
        first = next(number for number, gap in enumerate(gaps) if gap > 1.0)
        assert gaps[first:][:5] == pytest.approx([5, 10, 20, 40, 80], abs=1.0)
        assert max(gaps) <= 301.0
        assert len({name for _, name in world.asked}) > 5, "not always the same one"

    def test_are_over_with_the_first_answer(self) -> None:
        world = overdue(20)
        world.failing = outage()
        world.run(1200.0)
        world.failing = lambda _: None
        world.run(until=lambda: len(world.seen) == 1)
        first = world.now
        world.run_until_seen()
        # Each of those that failed waits out its own pause too.
        assert world.now - first < 301.0
        assert not world.given_up

    def test_while_one_tries_hold_back_the_others_until_its_answer_comes(self) -> None:
        world = overdue(20)
        world.failing = outage()
        world.run(1.0)
        number, now = len(world.asked), world.now + 10.0
        assert world.scheduler.turn(now).operation_id is not None
        assert world.scheduler.turn(now + LATENCY_S).operation_id is None
        assert len(world.asked) == number

    def test_of_one_broken_connection_under_many_checks_are_one_failure(self) -> None:
        world = overdue(8)
        names = []
        for number in range(8):
            turn = world.scheduler.turn(world.now + 0.1 * number)
            assert turn.operation_id is not None
            names.append(turn.operation_id)
        now = world.now + 1.0
        for name in names:
            world.scheduler.failed(name, now, UnreachableError("No answer"))
        assert world.scheduler.turn(now).wait_s <= 5.0
        assert world.scheduler.turn(now + 5.1).operation_id is not None

    def test_that_all_were_given_up_for_are_not_held_against_those_who_come_later(self) -> None:
        world = overdue(3)
        world.failing = outage()
        world.run(until=lambda: bool(world.given_up))
        assert sorted(world.given_up) == ["0", "1", "2"]
        world.run(60.0)
        world.add("new", 100.0, age_s=1000.0)
        world.run(until=lambda: len(world.scheduler.pending) == 1 and world.scheduler.is_failing)
        assert world.scheduler.turn(world.now).wait_s <= 5.0

    def test_that_nobody_waited_out_are_not_held_against_those_who_come_later(self) -> None:
        world = overdue(3)
        world.failing = outage()
        world.run(2000.0)
        for one in range(3):
            world.scheduler.forget(str(one))
        world.run(1.0)
        number = len(world.asked)
        world.add("new", 100.0, age_s=1000.0)
        world.run(4.0)
        assert len(world.asked) == number + 1
        assert not world.given_up


class TestErrorsOfOneOperation:
    def test_leave_the_others_alone(self) -> None:
        world = World()
        world.add("bad", age_s=1000.0)
        world.add("good", age_s=1000.0)
        world.failing = lambda name: UNREADABLE if name == "bad" else None
        world.run(600.0)
        asked = [at for at, name in world.asked if name == "bad"]
        assert [later - earlier for earlier, later in itertools.pairwise(asked)] == pytest.approx(
            [5, 10, 20, 40, 80, 160], abs=1.0
        )
        assert len(world.ages("good")) > 2

    def test_are_over_with_its_next_answer(self) -> None:
        world = World()
        world.add("bad", age_s=1000.0, interval_s=1.0)
        failures = iter([True, True, True])
        world.failing = lambda _: UNREADABLE if next(failures, False) else None
        world.run(60.0)
        assert not world.scheduler.is_failing
        assert len(world.asked) > 20


@pytest.mark.parametrize(
    ("error", "failures", "seconds"),
    [
        (UnreachableError("No answer"), 8, 3600.0),
        (ServiceFaultError("In trouble", http_status=503), 8, 3600.0),
        (AuthenticationError("No", http_status=401), 5, 600.0),
        (UNREADABLE, 8, 3600.0),
        (PermissionDeniedError("No", http_status=403), 5, 600.0),
    ],
    ids=lambda one: type(one).__name__,
)
def test_errors_end_a_wait_only_when_they_are_many_and_last(
    error: SpeechKitError, failures: int, seconds: float
) -> None:
    world = overdue(1)
    world.failing = outage(error)
    world.run(until=lambda: bool(world.given_up))
    assert len(world.asked) >= failures
    assert seconds <= world.elapsed_s <= seconds + 310.0
    assert not world.scheduler.pending


def test_an_answer_between_them_ends_the_row() -> None:
    world = World()
    world.add("a", age_s=1000.0, interval_s=60.0)
    answers = itertools.cycle([outage()("a")] * 4 + [None])
    world.failing = lambda _: next(answers)
    world.run(4 * 3600.0)
    assert not world.given_up


def test_a_key_refused_once_after_an_hour_without_a_network_ends_no_wait() -> None:
    world = overdue(1)
    world.failing = outage()
    world.run(3000.0)
    world.failing = outage(AuthenticationError("No", http_status=401))
    number = len(world.asked)
    world.run(until=lambda: bool(world.given_up))
    assert len(world.asked) - number >= 5


class TestA429:
    def test_pauses_all_for_as_long_as_the_service_says(self) -> None:
        world = overdue(5, RateLimiter.for_checks("v2"))
        refusals = iter([900.0])
        world.refusing = lambda _: next(refusals, None)
        world.run_until_seen()
        later = sorted(at - world.asked[0][0] for at, _ in world.asked if at > world.asked[0][0] + 5.0)
        assert later[0] >= 900.0

    def test_loses_no_operation_and_ends_no_wait_however_often_it_comes(self) -> None:
        world = overdue(3, RateLimiter.for_checks("v2"))
        world.refusing = lambda _: 0.0
        world.run(12 * 3600.0)
        assert not world.given_up
        assert len(world.asked) < 12 * 8
        world.refusing = lambda _: None
        world.run_until_seen()

    def test_is_no_error(self) -> None:
        world = overdue(1, RateLimiter.for_checks("v2"))
        refusals = iter([0.0])
        world.refusing = lambda _: next(refusals, None)
        world.run(10.0)
        assert not world.scheduler.is_failing


class TestComingBack:
    """What a task needs to know that gives its worker back between its checks."""

    def test_is_as_far_away_as_the_next_check(self) -> None:
        world = World()
        world.add("a", interval_s=600.0)
        assert world.scheduler.next_in_s(world.now) == pytest.approx(600.0)
        world.run(300.0)
        assert world.scheduler.next_in_s(world.now) == pytest.approx(300.0)

    def test_has_to_wait_for_a_check_that_is_under_way(self) -> None:
        world = World()
        world.add("a", age_s=1000.0)
        assert world.scheduler.turn(world.now).operation_id == "a"
        assert world.scheduler.next_in_s(world.now + 100.0) == 0.0

    def test_has_to_wait_for_the_limit(self) -> None:
        world = overdue(2, RateLimiter(1, 600.0))
        world.run(100.0)
        assert world.scheduler.next_in_s(world.now) == pytest.approx(500.0, abs=1.0)

    def test_is_not_possible_while_checks_fail(self) -> None:
        world = overdue(2)
        assert not world.scheduler.is_failing
        world.failing = outage()
        world.run(1.0)
        assert world.scheduler.is_failing
        world.failing = lambda _: None
        world.run_until_seen()
        assert not world.scheduler.is_failing
