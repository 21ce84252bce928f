"""Which operation is asked for next, and when, in virtual time."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter

import pytest

from airflow_speechkit.errors import AnswerUnreadableError
from airflow_speechkit.polling.rate_limit import RateLimiter
from airflow_speechkit.polling.scheduler import Scheduler
from tests.unit.polling.virtual import START, World

OLD = {"audio_s": 14_400.0, "channels": 2}


def best_s(number: int, limiter: RateLimiter) -> float:
    """How long so many checks take at best."""
    now = START
    for _ in range(number):
        while (wait_s := limiter.wait_s(now, reserved=True)) > 0.0:
            now += wait_s + 1e-4
        limiter.spend(now)
    return now - START


class TestOneOperation:
    def test_is_asked_for_when_it_may_have_ended_and_then_ever_more_rarely(self) -> None:
        world = World(RateLimiter.for_checks("v2"))
        world.add("short", audio_s=60.0)
        world.add("long", audio_s=3600.0)
        world.run(7200.0)
        short, long = world.ages("short"), world.ages("long")
        assert 2.0 < short[0] < 60.0
        assert 50.0 < long[0] < 1500.0
        assert short[-1] - short[-2] > 3.0 * (short[1] - short[0])

    def test_is_asked_for_the_more_often_the_fewer_wait(self) -> None:
        few, many = World(RateLimiter.for_checks("v2")), World(RateLimiter.for_checks("v2"))
        for world, number in ((few, 3), (many, 1000)):
            for one in range(number):
                world.add(str(one))
            world.run(600.0)
        assert len(few.asked) / 3 > 4
        assert len(many.asked) / 1000 < 1.0

    def test_is_one_though_it_is_added_twice_and_asked_for_once_at_a_time(self) -> None:
        world = World()
        world.add("a", audio_s=60.0, age_s=1000.0)
        world.add("a", audio_s=60.0, age_s=1000.0)
        assert len(world.scheduler.pending) == 1
        assert world.scheduler.turn(START).operation_id == "a"
        assert world.scheduler.turn(START + 1000.0).operation_id is None

    def test_is_not_asked_for_once_it_is_forgotten(self) -> None:
        world = World()
        world.add("a")
        world.scheduler.forget("a")
        assert world.scheduler.turn(START + 1000.0).wait_s == math.inf

    def test_is_noticed_within_seconds_where_nothing_else_waits(self) -> None:
        world = World(RateLimiter.for_checks("v2"))
        for number in range(20):
            world.at(600.0 * number, lambda number=number: world.add(f"{number}", 60.0))
        world.run(12_000.0)
        assert statistics.median(world.delays_s().values()) < 5.0

    def test_of_unknown_length_is_noticed_too(self) -> None:
        world = World(RateLimiter.for_checks("v2"))
        for number in range(20):
            world.add(f"{number}", 20.0 + 10 * number, audio_s=None, channels=None)
        world.run_until_seen()
        assert statistics.median(world.delays_s().values()) < 40.0


class TestAnAge:
    def test_that_is_unknown_is_the_one_that_the_service_says(self) -> None:
        world = World(RateLimiter.for_checks("v2"))
        world.add("a", age_s=600.0, submitted_at=None)
        world.run(1.0)
        assert len(world.asked) == 1, "it is asked for at once"
        operation = world.scheduler.pending["a"]
        assert operation.age_s(world.now) == pytest.approx(601.0)
        world.run(300.0)
        assert 1 < len(world.asked) < 40

    @pytest.mark.parametrize("age_s", [6e10, -1e12])
    def test_that_cannot_be_true_delays_no_check(self, age_s: float) -> None:
        world = World(RateLimiter.for_checks("v2"))
        world.add("a", submitted_at=None)
        assert world.scheduler.turn(START).operation_id == "a"
        world.scheduler.running("a", START + 1.0, age_s)
        assert world.scheduler.turn(START + 1.0).wait_s <= 3600.0

    def test_of_an_operation_from_the_future_is_that_of_a_new_one(self) -> None:
        world = World(RateLimiter.for_checks("v2"))
        world.add("a", 30.0, submitted_at=START + 3600.0, audio_s=60.0)
        world.run_until_seen()
        assert world.elapsed_s < 120.0


class TestAUsersInterval:
    def test_is_kept_whatever_the_recording(self) -> None:
        world = World()
        world.add("a", audio_s=14_400.0, interval_s=30.0)
        world.run(160.0)
        assert world.ages("a") == pytest.approx([30, 60, 90, 120, 150], abs=1.0)

    def test_goes_on_after_a_restart(self) -> None:
        world = World()
        world.add("a", age_s=100.0, interval_s=3600.0)
        world.run(7200.0)
        assert world.ages("a") == pytest.approx([3600, 7200], abs=1.0)

    def test_of_nothing_is_a_very_short_one(self) -> None:
        world = World()
        world.add("a", interval_s=0.0)
        world.run(10.0)
        assert 5 < len(world.asked) < 101

    def test_that_is_long_makes_nobody_else_wait_for_the_same_operation(self) -> None:
        world = World(RateLimiter.for_checks("v2"))
        world.add("a", 25.0, audio_s=60.0, interval_s=3600.0, task="rarely")
        world.add("a", 25.0, audio_s=60.0, task="learned")
        world.run_until_seen()
        assert world.elapsed_s < 100.0

    def test_of_all_tasks_that_wait_the_shortest_counts(self) -> None:
        world = World()
        world.add("a", interval_s=600.0, task="rarely")
        world.add("a", interval_s=60.0, task="often")
        world.run(130.0)
        assert world.ages("a") == pytest.approx([60, 120], abs=1.0)

    def test_of_seconds_for_hundreds_does_not_keep_others_from_being_asked_for(self) -> None:
        world = World(RateLimiter.for_checks("v2"))
        for number in range(200):
            world.add(f"often {number}", audio_s=14_400.0, interval_s=10.0)
        for number in range(30):
            world.at(120.0 * number, lambda number=number: world.add(f"{number}", 55.0, task=f"call {number}"))
        world.run(3700.0)
        delays_s = world.delays_s()
        assert len(delays_s) == 30
        assert statistics.median(delays_s.values()) < 30.0
        assert max(delays_s.values()) < 120.0


class TestSeveralTasks:
    def test_that_wait_for_the_same_operation_cost_one_check(self) -> None:
        world = World(RateLimiter.for_checks("v2"))
        world.add("a", 100.0, age_s=1000.0, task="one")
        world.add("a", 100.0, age_s=1000.0, task="other")
        world.run_until_seen()
        assert len(world.asked) == 1
        assert world.scheduler.turn(world.now).wait_s == math.inf

    def test_take_turns_and_each_goes_on_with_what_was_due_first(self) -> None:
        world = World()
        for number in range(3):
            for task in "abc":
                world.add(f"{task}{number}", 1.0, age_s=1000.0 - number, interval_s=10.0, task=task)
        world.run_until_seen()
        asked = [name for _, name in world.asked]
        assert [{name[0] for name in asked[turn : turn + 3]} for turn in (0, 3, 6)] == [set("abc")] * 3

    def test_share_the_checks_of_a_service_that_is_behind(self) -> None:
        world = World(RateLimiter(60, 600.0))
        for number in range(60):
            world.add(f"batch {number}", 1.0, age_s=1000.0)
            world.add(f"call {number}", 1.0, age_s=1000.0, task=f"call {number % 9}")
        world.run(500.0)
        asked = Counter(name.split()[0] for _, name in world.asked)
        assert asked["batch"] >= 0.08 * asked.total()


class TestTheRestOfTheHour:
    """The limit is never exceeded, and none of it is idle while something that may have ended waits."""

    @pytest.mark.parametrize(
        "about",
        [{}, {"audio_s": None, "channels": None}, OLD, {"submitted_at": None}, {"interval_s": 600.0}],
        ids=["lengths known", "lengths unknown", "long", "ages unknown", "a user's interval"],
    )
    def test_is_spent_on_what_has_ended_after_a_restart(self, about: dict[str, object]) -> None:
        world = World(RateLimiter.for_checks("v2"))
        for number in range(2000):
            world.add(str(number), 140.0, age_s=36_000.0 - number, **about)
            if number == 100:
                world.run(1.0)
        world.run_until_seen()
        assert world.elapsed_s <= 1.2 * best_s(2000, RateLimiter.for_checks("v2"))

    @pytest.mark.parametrize("audio_s", [20.0, None])
    def test_is_spent_on_what_has_ended_while_the_task_was_young(self, audio_s: float | None) -> None:
        world = World(RateLimiter.for_checks("v2"))
        for number in range(1000):
            world.add(str(number), 20.0, age_s=100.0, audio_s=audio_s)
        world.run_until_seen()
        assert world.elapsed_s <= 1.2 * best_s(1000, RateLimiter.for_checks("v2")) + 60.0

    def test_is_not_spent_on_what_has_just_begun(self) -> None:
        world = World(RateLimiter.for_checks("v2"))
        for number in range(10):
            world.add(str(number), audio_s=14_400.0)
        world.run(60.0)
        assert not world.asked

    @pytest.mark.parametrize("limiter", [RateLimiter.for_checks("v2"), RateLimiter.for_checks("v2", triggerers=8)])
    def test_is_for_a_call_beside_a_batch_whose_check_comes_within_a_minute(self, limiter: RateLimiter) -> None:
        world = World(limiter)
        for number in range(1000):
            world.add(str(number), 140.0, age_s=200.0)
        for number in range(5):
            world.at(
                30.0 + 400.0 * number,
                lambda number=number: world.add(f"{number} call", 15.0, audio_s=15.0, task=f"call {number}"),
            )
        world.run(2000.0)
        calls = {name: delay for name, delay in world.delays_s().items() if name.endswith("call")}
        assert len(calls) == 5
        assert max(calls.values()) < 60.0
        assert len(world.seen) > 0.8 * 2000.0 * limiter.rate(world.now)


def test_nothing_is_due_where_nothing_waits() -> None:
    assert Scheduler(RateLimiter.for_checks("v2")).turn(START).wait_s == math.inf


def test_a_delay_is_known_where_the_service_says_when_an_operation_ended() -> None:
    world = World()
    for name in "abc":
        world.add(name)
    assert world.scheduler.ended("a", START + 60.0, 52.0) == pytest.approx(8.0)
    assert world.scheduler.ended("b", START + 60.0) is None
    assert world.scheduler.ended("c", START + 60.0, 999.0) is None


def test_what_is_learned_moves_what_is_planned() -> None:
    world = World(RateLimiter.for_checks("v2"))
    for number in range(60):
        world.add(str(number), 29.0 if number < 20 else 200.0, audio_s=3600.0, age_s=10.0 if number < 20 else 0.0)
    planned = {name: operation.due for name, operation in world.scheduler.pending.items()}
    for number in range(20):
        world.scheduler.ended(str(number), START + 30.0, 29.0)
    world.run(40.0)
    left = [name for name, operation in world.scheduler.pending.items() if not operation.is_being_asked]
    assert left
    assert all(world.scheduler.pending[name].due < planned[name] - 60.0 for name in left)


def test_the_log_has_the_next_check_of_a_tasks_own_operations() -> None:
    world = World()
    world.add("a")
    world.add("b", interval_s=6.0)
    assert re.fullmatch(
        r"next check in \d+ s; 2 waiting, 100000 checks an hour", world.scheduler.next_check(["a"], START)
    )
    assert "next check in 6 s" in world.scheduler.next_check(["a", "b"], START)
    world.scheduler.failed("a", START, AnswerUnreadableError("Not JSON"))
    failing = world.scheduler.next_check(["a"], START)
    assert "next check in 5 s" in failing
    assert failing.endswith("failed checks in a row: 1 (Not JSON.)")
