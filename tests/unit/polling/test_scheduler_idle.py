"""Checks that would stay idle, and the share of each task, in virtual time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from airflow_speechkit.polling.rate_limit import RateLimiter
from tests.unit.polling.test_scheduler import best_s
from tests.unit.polling.virtual import World

UNKNOWN = {"audio_s": None, "channels": None}


def hourly(checks: float) -> Callable[[], RateLimiter]:
    return lambda: RateLimiter.for_checks("v2", checks_per_hour=checks)


class TestIdleChecks:
    """Those that are asked for first are the oldest: what is learned from them says little about the others."""

    @pytest.mark.parametrize(
        "limiter",
        [hourly(400), hourly(2_400), lambda: RateLimiter.for_checks("v3")],
        ids=["one for each an hour", "six for each an hour", "v3"],
    )
    @pytest.mark.parametrize(
        "about",
        [{}, UNKNOWN, UNKNOWN | {"model": "deferred-general"}],
        ids=["lengths known", "lengths unknown", "a deferred model"],
    )
    def test_are_spent_on_what_has_only_just_ended(
        self, limiter: Callable[[], RateLimiter], about: dict[str, object]
    ) -> None:
        world, chance = World(limiter()), random.Random(1)
        for number in range(400):
            audio_s = 300.0 * math.exp(chance.gauss(0.0, 0.9))
            took_s = 5.0 + audio_s / 6.0
            world.add(str(number), took_s, age_s=took_s + 1.0, **{"audio_s": audio_s, **about})
        world.run_until_seen()
        # Whatever the limit, what has only just ended may be asked for a little later.
        assert world.elapsed_s <= 1.2 * best_s(400, limiter()) + 30.0

    def test_are_few_for_what_runs_for_hours(self) -> None:
        world = World(RateLimiter.for_checks("v2"))
        for number in range(20):
            world.add(str(number), **UNKNOWN)
        world.run(4 * 3600.0)
        assert len(world.asked) < 4 * 2000 / 4

    def test_are_not_spent_by_a_user_s_interval(self) -> None:
        world = World(hourly(24_000)())
        for number in range(20):
            world.add(str(number), interval_s=600.0)
        world.run(1000.0)
        assert len(world.asked) == 20

    def test_are_not_spent_while_the_service_refuses(self) -> None:
        world = World(hourly(24_000)())
        for number in range(20):
            world.add(str(number), 60.0, age_s=30.0)
        world.refusing = lambda _: 0.0
        world.run(100.0)
        assert len(world.asked) <= 8

    def test_leave_a_burst_for_what_comes(self) -> None:
        limiter = RateLimiter.for_checks("v2")
        world = World(limiter)
        for number in range(300):
            world.at(12.0 * number, lambda number=number: world.add(str(number), **UNKNOWN))
        world.run(3600.0)
        assert limiter.available(world.now) >= 0.3 * 0.25 * limiter.limit


class TestOneTaskBesideABatch:
    @pytest.mark.parametrize(
        ("audio_s", "is_known"), [(30.0, True), (30.0, False), (300.0, True), (600.0, True), (300.0, False)]
    )
    def test_is_checked_within_a_minute_of_its_end(self, audio_s: float, is_known: bool) -> None:
        for seed in range(2):
            world, chance = World(RateLimiter.for_checks("v2")), random.Random(seed)
            for number in range(1000):
                world.add(str(number), 20.0, age_s=chance.uniform(20.0, 600.0), audio_s=30.0)
            took_s = chance.expovariate(0.1) + audio_s / 6.0 * math.exp(chance.gauss(0.0, 0.3))
            about = {"audio_s": audio_s, "channels": 1} if is_known else UNKNOWN
            world.at(chance.uniform(0.0, 1500.0), lambda: world.add("call", took_s, task="call", **about))  # noqa: B023
            world.run_until_seen("call")
            assert world.delays_s()["call"] < 60.0

    def test_that_joins_while_the_operation_is_asked_for_by_an_interval_is_planned_too(self) -> None:
        world = World()
        world.add("a", 1000.0, interval_s=10.0, task="one")
        world.add("b", 1000.0, task="another")
        world.refusing = lambda _: 1.0
        world.run(until=lambda: any(name == "a" for _, name in world.asked))
        world.add("a", task="other")
        world.run(1.0)
        world.refusing = lambda _: None
        world.run_until_seen("a")
