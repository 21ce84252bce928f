"""The best times to look."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_speechkit.polling.schedule import (
    LARGEST_GROWTH,
    LONGEST_INTERVAL_S,
    SHORTEST_INTERVAL_S,
    Forecast,
    expected_checks,
    last_check_age,
    next_check_age,
    price_for,
)

forecasts = st.builds(Forecast, st.floats(1.0, 50_000.0), st.floats(0.04, 1.4))
prices = st.floats(0.1, 5000.0)


def cost(forecast: Forecast, price_s: float, ages: list[float]) -> float:
    """Expected price of the checks plus delay, by numbers, for a list of ages to look at."""
    steps = 4000
    total = 0.0
    for i in range(steps):
        share = (i + 0.5) / steps
        ends = forecast.median_s * math.exp(forecast.shape * math.log(share / (1 - share)))
        for checks, age in enumerate(ages, 1):
            if age >= ends:
                total += price_s * checks + age - ends
                break
    return total / steps


def plan(forecast: Forecast, price_s: float, number: int = 60) -> list[float]:
    ages = [0.0]
    for _ in range(number):
        ages.append(next_check_age(forecast, price_s, ages[-1]))
    return ages[1:]


@pytest.mark.parametrize(("median_s", "shape", "price_s"), [(80, 0.17, 10), (300, 0.3, 20), (60, 0.4, 2)])
def test_the_plan_beats_even_and_growing_intervals(median_s: float, shape: float, price_s: float) -> None:
    forecast = Forecast(median_s, shape)
    ours = cost(forecast, price_s, plan(forecast, price_s, 300))
    for interval in (5, 10, 20, 40, 60, 120):
        assert ours < cost(forecast, price_s, [interval * i for i in range(1, 3000)])
    for first, ratio in itertools.product((5.0, 10.0, 60.0), (1.2, 1.5, 2.0)):
        ages = list(itertools.accumulate(first * ratio**i for i in range(60)))
        assert ours < cost(forecast, price_s, ages)


def test_moving_any_check_makes_the_plan_worse() -> None:
    forecast, price_s = Forecast(100.0, 0.2), 12.0
    best = plan(forecast, price_s, 200)
    least = cost(forecast, price_s, best)
    for moved in range(3):
        for by_s in (-12.0, 12.0):
            other = [*best[:moved], best[moved] + by_s, *best[moved + 1 :]]
            assert cost(forecast, price_s, sorted(other)) > least - 0.05


@settings(deadline=None, derandomize=True, max_examples=60)
@given(forecasts, prices)
def test_intervals_are_bounded_and_never_stop(forecast: Forecast, price_s: float) -> None:
    ages = [0.0, *plan(forecast, price_s, 40)]
    for before, after in itertools.pairwise(ages):
        assert after - before >= SHORTEST_INTERVAL_S - 1e-6
        if before:
            longest = min(max(LARGEST_GROWTH * before, forecast.median_s), LONGEST_INTERVAL_S)
            assert after - before <= max(longest, SHORTEST_INTERVAL_S) + 1e-6


@settings(deadline=None, derandomize=True, max_examples=60)
@given(forecasts, prices, st.floats(0.0, 100_000.0))
def test_where_a_schedule_stands_is_a_function_of_the_age(forecast: Forecast, price_s: float, age_s: float) -> None:
    last = last_check_age(forecast, price_s, age_s)
    assert last <= age_s
    assert next_check_age(forecast, price_s, last) > age_s


def test_late_intervals_grow_with_the_time_already_waited() -> None:
    ages = plan(Forecast(60.0, 0.25), 10.0, 60)
    late = [after - before for before, after in itertools.pairwise(ages) if before > 1000.0]
    assert late
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(late))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(forecasts, st.floats(1.2, 12.0))
def test_a_price_gives_about_the_checks_it_was_asked_for(forecast: Forecast, checks: float) -> None:
    price_s = price_for(checks, [forecast])
    if 0.2 < price_s < 20_000.0 and 1e-4 < price_s / forecast.median_s < 20.0:
        assert expected_checks(forecast, price_s) == pytest.approx(checks, rel=0.25)


def test_a_forecast_is_half_done_at_its_median() -> None:
    forecast = Forecast(80.0, 0.2)
    assert forecast.done_by(80.0) == pytest.approx(0.5)
    assert forecast.done_by(0.0) == 0.0
    assert forecast.done_by(1e-3) < 1e-6 < 0.99 < forecast.done_by(1e4)
