"""When to ask for an operation: learned from those that have ended. Pure, without a clock.

How long an operation takes is taken to be lognormal: a learned ratio to the documented time (10 s for a minute of each
channel, https://yandex.cloud/docs/speechkit/stt/transcribation), and a learned spread. How many checks each operation
may have follows from what the rate limiter has and from how many wait. With many, the first check comes early and the
next ones close together; with one, it comes when the operation has almost certainly ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_speechkit.polling.target import PollTarget

#: Documented: seconds of work for a second of one channel. Short recordings take some seconds more: the queue.
DOCUMENTED_SPEED, QUEUE_S = 10.0 / 60.0, 8.0
#: No two checks of one operation are closer or further apart than this, in seconds.
SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 1.0, 3600.0
#: The part of the checks that the schedule plans to use; the rest is for what was not foreseen.
PLANNED_SHARE = 0.6
#: Checks for one operation are planned between these.
FEWEST_CHECKS, MOST_CHECKS = 1.02, 60.0
#: How much one operation that ends counts against all before it.
_WEIGHT = 0.08
_SMALLEST_SPREAD = 0.1
_NORMAL = NormalDist()


class DurationKind(Enum):
    """What an operation's duration depends on."""

    MEASURED = "the recording's length"
    UNMEASURED = "recordings of unknown length"
    DEFERRED = "a deferred model"


#: Before the first one has ended: the documented time in seconds (of a call of five minutes, every other one stereo),
#: and the spread as the standard deviation of the logarithm.
_PRIORS = {
    DurationKind.MEASURED: (0.0, 0.5),
    DurationKind.UNMEASURED: (75.0, 0.9),
    DurationKind.DEFERRED: (3600.0, 1.2),
}


def duration_kind(target: PollTarget) -> DurationKind:
    """Return what the duration of this operation depends on."""
    if target.model.startswith("deferred-"):
        return DurationKind.DEFERRED
    return DurationKind.UNMEASURED if target.audio_s is None else DurationKind.MEASURED


def documented_s(target: PollTarget) -> float:
    """Return the seconds that an operation should take by the documentation, with the time in the queue."""
    kind = duration_kind(target)
    if kind is DurationKind.MEASURED:
        # One or two channels where their number is unknown: half-way between, in ratio.
        channels = math.sqrt(2.0) if target.channels is None else max(target.channels, 1)
        return QUEUE_S + (target.audio_s or 0.0) * channels * DOCUMENTED_SPEED
    return _PRIORS[kind][0]


class DurationModel:
    """How long operations of one kind take against the documented time: a ratio and its spread, both learned."""

    def __init__(self, kind: DurationKind) -> None:
        self.log_ratio = 0.0
        self.spread = _PRIORS[kind][1]
        self.ended = 0

    @property
    def ratio(self) -> float:
        """How much longer than documented the middle operation takes: 0.5 is twice as fast."""
        return math.exp(self.log_ratio)

    def learn(self, documented_s: float, took_s: float) -> None:
        """Learn from one that has ended, in seconds."""
        self.ended += 1
        # The first ones count as much as each other.
        weight = max(_WEIGHT, 1.0 / (self.ended + 1))
        error = min(max(math.log(max(took_s, 0.5) / documented_s) - self.log_ratio, -2.0), 2.0)
        self.log_ratio += weight * error
        self.spread = max(math.sqrt((1.0 - weight) * self.spread**2 + weight * error**2), _SMALLEST_SPREAD)

    def still_running(self, documented_s: float, age_s: float, asked_age_s: float = 0.0) -> None:
        """Learn from one that has not ended at an age at which most would have: the service is slower than learned.

        :param asked_age_s: the age at which that was known before: what is asked for often teaches no more
        """
        late, before = (
            max((math.log(max(age, 1.0) / documented_s) - self.log_ratio) / self.spread - 1.0, 0.0)
            for age in (age_s, asked_age_s)
        )
        self.log_ratio += 0.5 * _WEIGHT * min(max(late - before, 0.0), 2.0) * self.spread


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """When the checks of each operation come, in standard deviations around the middle of its duration.

    :param first: the first check
    :param step: from one to the next
    """

    first: float
    step: float

    @classmethod
    @lru_cache(maxsize=32)
    def for_checks(cls, checks: float) -> CheckPlan:
        """Return the plan that takes about so many checks for an operation, the one that finds its end included."""
        in_vain = min(max(PLANNED_SHARE * checks, FEWEST_CHECKS), MOST_CHECKS) - 1.0
        first = min(1.5 - 2.0 * math.log(1.0 + in_vain), -_NORMAL.inv_cdf(min(in_vain, 0.5)))
        # Before that hardly any ends.
        first = max(first, -2.5)
        # So many standard deviations are left to cover, on average, from the first check on.
        to_cover = _NORMAL.pdf(first) - first * (1.0 - _NORMAL.cdf(first))
        return cls(first, min(max(to_cover / in_vain, 0.02), 1.0))

    def next_age_s(self, model: DurationModel, documented_s: float, asked_age_s: float) -> float:
        """Return the age at which to ask next, in seconds.

        :param documented_s: what the operation should take by the documentation
        :param asked_age_s: the age at which the last answer was "not yet"; 0 if there was none
        """
        first_s = math.exp(math.log(documented_s) + model.log_ratio + self.first * model.spread)
        if asked_age_s <= 0.0:
            return max(first_s, SHORTEST_INTERVAL_S)
        growth = math.expm1(min(self.step * model.spread, 1.0))
        interval_s = min(max(asked_age_s * growth, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S)
        return max(asked_age_s + interval_s, first_s)
