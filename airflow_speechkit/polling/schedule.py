"""When to look next at something whose end is only known as a distribution: pure arithmetic.

A check costs (quota), and so does not knowing (delay). With a price for one check, in seconds of delay, the best times
to look follow from the distribution of the time an operation takes: this is the inspection problem of reliability
engineering (Barlow, Hunter and Proschan, "Optimum Checking Procedures", J. SIAM 11, 1963). It is solved here by
dynamic programming over a grid of ages, for a log-logistic distribution: a closed form, near to the lognormal in the
middle, and heavier in the tail, where its best intervals grow in proportion to the time already waited.

Everything scales with the median, so one table for each shape and price (both rounded) serves all recordings.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The grid of ages, in units of the shape around the median: from 0.2 % done to all but 1 in 10 million.
_FIRST, _LAST, _STEP = -6.0, 16.0, 0.125
#: Shapes and prices are rounded to these ratios: the optimum is flat, and tables are shared.
_SHAPE_RATIO, _PRICE_RATIO = 1.07, 1.15
#: No interval is shorter than this, in seconds: it is about the time the answer takes to come.
SHORTEST_INTERVAL_S = 1.0
#: No interval is longer than this share of the time already waited, nor than `LONGEST_INTERVAL_S`.
LARGEST_GROWTH = 1.0
LONGEST_INTERVAL_S = 3600.0
#: A user's interval is this long at least, in seconds.
SHORTEST_SET_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long an operation takes, from its submission: log-logistic.

    :param median_s: half of such operations are done by this age, in seconds
    :param shape: scale of the logistic distribution of the logarithm; 0.55 times its standard deviation
    """

    median_s: float
    shape: float

    def done_by(self, age_s: float) -> float:
        """Return the probability that it has ended by this age."""
        if age_s <= 0.0:
            return 0.0
        return 1.0 / (1.0 + math.exp(min((math.log(self.median_s / age_s)) / self.shape, 700.0)))


@dataclass(frozen=True, slots=True)
class _Table:
    """The best plan for one shape and one price, with ages in units of the median.

    :param ages: the grid
    :param following: for each age at which the answer was "not yet", the index of the age to look at next
    :param first: the same for an operation that was never asked for
    :param checks: how many checks the plan takes on average
    """

    ages: Sequence[float]
    following: Sequence[int]
    first: int
    checks: float


@lru_cache(maxsize=64)
def _grid(shape_step: int) -> tuple[float, ...]:
    shape = _SHAPE_RATIO**shape_step
    return tuple(math.exp(shape * (_FIRST + _STEP * i)) for i in range(int((_LAST - _FIRST) / _STEP) + 1))


@lru_cache(maxsize=1024)
def _table(shape_step: int, price_step: int) -> _Table:
    price = _PRICE_RATIO**price_step
    ages = _grid(shape_step)
    size = len(ages)
    places = [_FIRST + _STEP * i for i in range(size)]
    done = [1.0 / (1.0 + math.exp(-place)) for place in places]
    left = [1.0 / (1.0 + math.exp(place)) for place in places]
    waited = [0.0] * size  # integral of `done` over the age
    for i in range(1, size):
        waited[i] = waited[i - 1] + (done[i] + done[i - 1]) / 2 * (ages[i] - ages[i - 1])
    cost = [0.0] * size
    following = [size - 1] * size
    checks = [1.0] * size

    def cost_of(i: int, j: int) -> float:
        return price * left[i] + waited[j] - waited[i] - done[i] * (ages[j] - ages[i]) + cost[j]

    for i in range(size - 2, -1, -1):
        # The later the last look, the later the next: the best `j` never grows as `i` falls.
        best_j = following[i + 1] if i < size - 2 else size - 1
        best = cost_of(i, best_j)
        worse = 0
        for j in range(best_j - 1, i, -1):
            candidate = cost_of(i, j)
            if candidate < best:
                best, best_j, worse = candidate, j, 0
            else:
                worse += 1
                if worse > 8:
                    break
        cost[i], following[i] = best, best_j
        checks[i] = 1.0 + left[best_j] / left[i] * checks[best_j]
    return _Table(ages, tuple(following), following[0], checks[0])


def _steps(forecast: Forecast, price_s: float) -> tuple[int, int]:
    price = min(max(price_s / forecast.median_s, 1e-5), 50.0)
    shape = min(max(forecast.shape, 0.03), 1.5)
    return round(math.log(shape, _SHAPE_RATIO)), round(math.log(price, _PRICE_RATIO))


def expected_checks(forecast: Forecast, price_s: float) -> float:
    """Return how many checks the best plan takes on average, the one that finds the end included.

    :param price_s: what a check may cost: seconds of delay that one more of them has to save
    """
    return _table(*_steps(forecast, price_s)).checks


def next_check_age(forecast: Forecast, price_s: float, asked_age_s: float) -> float:
    """Return the age, in seconds, at which to look next.

    :param forecast: how long it takes
    :param price_s: what a check may cost: seconds of delay that one more of them has to save
    :param asked_age_s: the age at which the last answer was "not yet"; 0 if it was never asked for
    """
    return _following(_table(*_steps(forecast, price_s)), forecast.median_s, asked_age_s)


def last_check_age(forecast: Forecast, price_s: float, age_s: float) -> float:
    """Return the age of the check that an operation of this age would have had last, 0 if none was due yet.

    The schedule is a function of the age, so whoever starts to wait for an old operation knows where it stands.
    """
    table = _table(*_steps(forecast, price_s))
    asked_age_s = 0.0
    while (following_s := _following(table, forecast.median_s, asked_age_s)) <= age_s:
        asked_age_s = following_s
    return asked_age_s


def _following(table: _Table, median_s: float, asked_age_s: float) -> float:
    if asked_age_s <= 0.0:
        return max(table.ages[table.first] * median_s, SHORTEST_INTERVAL_S)
    place = bisect_right(table.ages, asked_age_s / median_s) - 1
    if place < 0:
        interval_s = table.ages[table.first] * median_s - asked_age_s
    else:
        # Beyond the grid, and at the end of it, the intervals go on growing as the age does.
        place = min(place, len(table.ages) - 24)
        interval_s = asked_age_s * (table.ages[table.following[place]] / table.ages[place] - 1.0)
    longest_s = min(max(LARGEST_GROWTH * asked_age_s, median_s), LONGEST_INTERVAL_S)
    return asked_age_s + max(min(interval_s, longest_s), SHORTEST_INTERVAL_S)


def interval_slot_before(age_s: float, interval_s: float) -> float:
    """Return the last whole multiple of a user's interval, 0 if there was none yet.

    :param age_s: seconds since the submission: the rhythm counts from there, so that a restart keeps it
    """
    interval_s = max(interval_s, SHORTEST_SET_INTERVAL_S)
    return math.floor(age_s / interval_s + 1e-6) * interval_s


def interval_slot_after(age_s: float, interval_s: float) -> float:
    """Return the next whole multiple of a user's interval.

    :param age_s: seconds since the submission
    """
    return interval_slot_before(age_s, interval_s) + max(interval_s, SHORTEST_SET_INTERVAL_S)


def price_for(checks: float, forecasts: Sequence[Forecast]) -> float:
    """Return the price, in seconds, at which the best plans take this many checks on average.

    One price for all is what makes the whole delay smallest: each check goes where it saves most.

    :param checks: checks for one operation, at least a little over 1: the check that finds the end is one
    :param forecasts: a sample of what is waited for
    """
    low, high = round(math.log(0.1, _PRICE_RATIO)), round(math.log(24 * 3600.0, _PRICE_RATIO))
    while high - low > 1:
        middle = (low + high) // 2
        price_s = _PRICE_RATIO**middle
        mean = sum(expected_checks(forecast, price_s) for forecast in forecasts) / len(forecasts)
        if mean > checks:
            low = middle
        else:
            high = middle
    return float(_PRICE_RATIO**high)
