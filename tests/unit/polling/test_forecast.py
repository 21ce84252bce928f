"""How fast the service is, learned from answers."""

from __future__ import annotations

import math
import random

import pytest
from airflow_speechkit.polling.forecast import Kind, Learned, kind_of, work_s
from airflow_speechkit.polling.waiting import Waiting

from airflow_speechkit.polling.schedule import next_check_age


def recordings(factor: float, number: int, seed: int) -> list[tuple[float, float]]:
    """Documented work and what it took, in seconds."""
    chance = random.Random(seed)
    works = [75.0 * math.exp(chance.gauss(0.0, 0.9)) for _ in range(number)]
    return [(w, chance.expovariate(0.1) + w * factor * math.exp(chance.gauss(0.0, 0.3))) for w in works]


def learn(learned: Learned, work: float, took_s: float, *, stamped: bool) -> None:
    asked = 0.0
    while True:
        following = next_check_age(learned.forecast(work), 15.0, asked)
        if following >= took_s:
            break
        learned.still_running(work, asked, following)
        asked = following
    if stamped:
        learned.ended(work, asked, max(took_s - 1.0, asked), took_s + 1.0)
    else:
        learned.ended(work, asked, asked, following)


@pytest.mark.parametrize("stamped", [True, False], ids=["answers say when it ended", "only between which checks"])
@pytest.mark.parametrize("factor", [1 / 3, 1.0, 2.0])
def test_the_speed_is_learned_from_twenty_recordings(factor: float, stamped: bool) -> None:
    for seed in range(2):
        learned = Learned(Kind.MEASURED)
        for work, took_s in recordings(factor, 20, seed):
            learn(learned, work, took_s, stamped=stamped)
        assert factor / 1.6 < learned.factor < factor * 1.6
        assert learned.endings == 20


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize(("before", "after"), [(1.0, 1 / 3), (1.0, 2.0), (2.0, 1 / 3)])
def test_a_change_of_speed_is_followed_within_twenty_five_recordings(
    before: float, after: float, stamped: bool
) -> None:
    for seed in range(1):
        learned = Learned(Kind.MEASURED)
        for work, took_s in recordings(before, 60, seed):
            learn(learned, work, took_s, stamped=stamped)
        for work, took_s in recordings(after, 25, seed + 50):
            learn(learned, work, took_s, stamped=stamped)
        assert after / 1.6 < learned.factor < after * 1.6


def test_not_yet_alone_says_that_the_service_is_slow() -> None:
    learned = Learned(Kind.MEASURED)
    for _ in range(5):
        learned.still_running(60.0, 0.0, 120.0)
    assert learned.forecast(60.0).median_s > 120.0


def test_one_odd_recording_moves_little() -> None:
    learned = Learned(Kind.MEASURED)
    for work, took_s in recordings(1.0, 60, 1):
        learn(learned, work, took_s, stamped=True)
    before = learned.forecast(75.0).median_s
    learned.ended(75.0, 0.0, 1999.0, 2001.0)
    assert learned.forecast(75.0).median_s < before * 1.25


def test_more_is_known_the_more_was_seen() -> None:
    learned = Learned(Kind.MEASURED)
    first = learned.forecast(60.0).shape
    for work, took_s in recordings(1.0, 40, 2):
        learn(learned, work, took_s, stamped=True)
    assert learned.forecast(60.0).shape < 0.7 * first


def test_what_a_wait_depends_on() -> None:
    assert kind_of(Waiting("a", 0.0, 60.0, 1)) is Kind.MEASURED
    assert kind_of(Waiting("a", 0.0)) is Kind.UNMEASURED
    assert kind_of(Waiting("a", 0.0, 60.0, 1, model="deferred-general")) is Kind.DEFERRED


def test_each_channel_is_work() -> None:
    assert work_s(Waiting("a", 0.0, 60.0, 1)) == pytest.approx(10.0)
    assert work_s(Waiting("a", 0.0, 60.0, 2)) == pytest.approx(20.0)
    assert 10.0 < work_s(Waiting("a", 0.0, 60.0, None)) < 20.0


def test_a_deferred_model_is_expected_to_take_anything_up_to_a_day() -> None:
    forecast = Learned(Kind.DEFERRED).forecast(3600.0)
    assert forecast.done_by(60.0) > 0.005
    assert 0.5 < forecast.done_by(12 * 3600.0) < 0.99
