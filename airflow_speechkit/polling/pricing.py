"""What a check may cost, in seconds of delay that it has to save: pure.

The budget has to do for all that wait and for what comes after them. The price is set so that the plans use a part of
it, no more and not much less: where few wait, checks are cheap, where many do, they are dear.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING

from airflow_speechkit.polling.schedule import Forecast, price_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_speechkit.polling.forecast import Kind

#: What part of the budget the schedules plan to use: the rest is for what was not foreseen.
PLANNED_SHARE = 0.58
#: Checks for one operation that are planned at most (plenty).
MOST_CHECKS = 60.0
#: And at least (scarce): of a stream that is too much for the budget, where a check in vain is missing for ever; and of
#: what came all at once, which is over some time, so that waiting until it is surely done only makes it later.
FEWEST_CHECKS, FEWEST_CHECKS_AT_ONCE = 1.05, 1.4
#: What has been coming for so many seconds is a stream.
_STREAM_S = 600.0
#: Arrivals are counted over this stretch, and never over less than the second, in seconds.
_ARRIVALS_S, _SHORTEST_ARRIVALS_S = 1800.0, 300.0
#: How long a wait counts at least when the demand of those who wait is estimated, in seconds.
_SHORTEST_WAIT_S = 900.0
#: The price is set anew after this many seconds, or when so many times as many wait: a restart brings thousands.
_REPRICE_S, _REPRICE_GROWTH = 10.0, 1.1
_SAMPLE = 24


class Pricing:
    """The price of a check, kept up with what arrives and what waits."""

    def __init__(self) -> None:
        #: As dear as it gets, until the first one waits.
        self.price_s = math.inf
        self._arrivals: list[float] = []
        self._since = math.inf
        self._demand = 0.0
        self._sample: deque[tuple[Kind, float]] = deque(maxlen=_SAMPLE)
        self._set_at = -math.inf
        self._set_for = 0

    def arrived(self, kind: Kind, work_s: float, submitted_at: float, now: float) -> None:
        """Count an operation that is waited for from now on."""
        if submitted_at > now - _ARRIVALS_S:
            heapq.heappush(self._arrivals, submitted_at)
        self._since = min(self._since, max(submitted_at, now - _ARRIVALS_S))
        self._sample.append((kind, work_s))

    def demand_of(self, median_s: float, age_s: float) -> float:
        """Return how many such operations end in a second for each one that waits."""
        return 1.0 / max(median_s, age_s, _SHORTEST_WAIT_S)

    def change_demand(self, by: float) -> None:
        """Add to the demand of all that wait."""
        self._demand += by

    def set(
        self, now: float, checks_per_second: float, waiting: int, forecast: Callable[[Kind, float], Forecast]
    ) -> None:
        """Set the price anew, if the last time is long enough ago or many have come since.

        :param checks_per_second: what the budget can keep up
        :param waiting: how many wait
        :param forecast: how long an operation of a kind and work takes
        """
        due = now - self._set_at >= _REPRICE_S or waiting > self._set_for * _REPRICE_GROWTH
        if not due or not self._sample:
            return
        self._set_at, self._set_for = now, waiting
        while self._arrivals and self._arrivals[0] < now - _ARRIVALS_S:
            heapq.heappop(self._arrivals)
        counted_s = max(min(_ARRIVALS_S, now - self._since), _SHORTEST_ARRIVALS_S)
        load = max(len(self._arrivals) / counted_s, self._demand)
        checks = MOST_CHECKS if load <= 0.0 else PLANNED_SHARE * checks_per_second / load
        checks = min(max(checks, self._fewest_checks(now)), MOST_CHECKS)
        self.price_s = price_for(checks, [forecast(kind, work) for kind, work in self._sample])

    def _fewest_checks(self, now: float) -> float:
        if not self._arrivals:
            return FEWEST_CHECKS
        # 0 for what came just now, 1 for a stream.
        stream = min(2.0 * (now - sum(self._arrivals) / len(self._arrivals)) / _STREAM_S, 1.0)
        return FEWEST_CHECKS_AT_ONCE + (FEWEST_CHECKS - FEWEST_CHECKS_AT_ONCE) * stream
