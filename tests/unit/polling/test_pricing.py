"""What a check may cost."""

from __future__ import annotations

from airflow_speechkit.polling.forecast import Kind
from airflow_speechkit.polling.pricing import Pricing

from airflow_speechkit.polling.schedule import Forecast

RATE = 2000 / 3600


def price_s(moments: list[float], now: float) -> float:
    subject = Pricing()
    for moment in moments:
        subject.arrived(Kind.MEASURED, 60.0, moment, moment)
    subject.set(now, RATE, len(moments), lambda kind, work: Forecast(work, 0.2))
    return subject.price_s


def test_the_more_wait_the_dearer() -> None:
    prices = [price_s([0.0] * number, 0.0) for number in (1, 30, 60, 500)]
    assert prices == sorted(prices)
    assert prices[0] < prices[-1] / 100.0


def test_a_stream_that_is_too_much_makes_checks_dearer_than_what_came_all_at_once() -> None:
    stream = [1800.0 * number / 1500 for number in range(1500)]
    assert price_s(stream, 1800.0) > 2.0 * price_s([1800.0] * 1500, 1800.0)


def test_the_price_is_set_anew_when_a_tenth_more_wait() -> None:
    subject = Pricing()
    prices = []
    for number in range(1, 200):
        subject.arrived(Kind.MEASURED, 60.0, 0.0, 0.0)
        subject.set(0.0, RATE, number, lambda kind, work: Forecast(work, 0.2))
        prices.append(subject.price_s)
    assert prices[-1] > 10.0 * prices[0]
