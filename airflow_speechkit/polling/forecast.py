"""How long an operation takes, learned from the ones that ended: pure, no clock.

The service is documented to take 10 s for a minute of each channel (speechkit-api.md §3), and some report it to be
several times faster. What holds here and now is kept as probabilities over a grid: how fast the service is (against
the documentation), how long operations queue, and how much single ones scatter. Each answer narrows it down:

- "not yet" at some age says that it takes longer,
- "done" says that it ended between the last look and this one, or to the second when, if the answer carries
  `modifiedAt`: that is when the operation ended (seen in captured answers).

Old knowledge fades a little with each ending, so a service that changes its speed is followed within a few
recordings; the logistic tails keep one odd recording from moving much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from airflow_speechkit.polling.schedule import Forecast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from airflow_speechkit.polling.waiting import Waiting

#: Documented: seconds of work for a second of one channel.
DOCUMENTED_SPEED = 10.0 / 60.0
#: Standard deviation to scale of a logistic distribution.
_LOGISTIC = math.sqrt(3.0) / math.pi

_FADE = 0.005  # of each cell's weight goes to either neighbour with each ending
_DOUBT = 0.001  # of the weight goes back to what was believed at first
#: Whatever is believed, anything may happen once in a while.
_ANYTHING = 1e-6


class Kind(Enum):
    """What a wait's length depends on."""

    MEASURED = "the recording's length"
    UNMEASURED = "recordings of unknown length"
    DEFERRED = "a deferred model"


@dataclass(frozen=True)
class _Belief:
    """What is believed before the first answer.

    :param work_s: seconds of work by the documentation, where the recording does not tell
    :param factor: most probable ratio to it
    :param factor_spread: standard deviation of the logarithm of that ratio
    :param queues_s: mean queueing times that are thought possible
    :param spreads: standard deviations of the logarithm for single operations that are thought possible
    """

    work_s: float
    factor: float
    factor_spread: float
    queues_s: tuple[float, ...]
    spreads: tuple[float, ...]


_BELIEFS = {
    Kind.MEASURED: _Belief(0.0, 0.8, 0.7, (1.0, 5.0, 15.0, 40.0), (0.1, 0.15, 0.22, 0.3, 0.42, 0.6)),
    # Five minutes, half of them stereo: a telephone call.
    Kind.UNMEASURED: _Belief(75.0, 0.8, 0.9, (0.0,), (0.3, 0.6, 1.0, 1.5)),
    # Nothing but "up to 24 hours" is documented; single reports go from seconds to half a day.
    Kind.DEFERRED: _Belief(3600.0, 1.0, 1.5, (0.0,), (0.4, 0.8, 1.3, 2.0)),
}
_FACTOR_STEP = 0.12
_FACTOR_CELLS = 49


def kind_of(waiting: Waiting) -> Kind:
    """Return what the length of this wait depends on."""
    if waiting.model.startswith("deferred-"):
        return Kind.DEFERRED
    return Kind.UNMEASURED if waiting.audio_s is None else Kind.MEASURED


def work_s(waiting: Waiting) -> float:
    """Return the seconds the service should work on it by its documentation."""
    kind = kind_of(waiting)
    if kind is Kind.MEASURED:
        # One or two channels where their number is unknown: half-way between, in ratio.
        channels = math.sqrt(2.0) if waiting.channels is None else max(waiting.channels, 1)
        return max((waiting.audio_s or 0.0) * channels * DOCUMENTED_SPEED, 1.0)
    return _BELIEFS[kind].work_s


class Learned:
    """What the answers so far tell about one kind of operation."""

    def __init__(self, kind: Kind) -> None:
        # Imported here: DAG files import this module by way of the sensor.
        import numpy as np

        belief = _BELIEFS[kind]
        places = np.arange(_FACTOR_CELLS) - (_FACTOR_CELLS - 1) / 2
        self._log_factors = math.log(belief.factor) + _FACTOR_STEP * places
        self._factors = np.exp(self._log_factors)
        # One row for each pair of queue and spread; the factor's cells run along it.
        rows = [(queue, spread) for queue in belief.queues_s for spread in belief.spreads]
        self._queues = np.array([[queue] for queue, _ in rows])
        self._spreads = np.array([[spread] for _, spread in rows])
        first = np.exp(-0.5 * (_FACTOR_STEP * places / belief.factor_spread) ** 2)
        self._first = np.tile(first, (len(rows), 1)) / (first.sum() * len(rows))
        self._weights = self._first.copy()
        self.endings = 0
        self._sum_up()

    @property
    def factor(self) -> float:
        """How long the work takes against the documentation: 0.5 is twice as fast."""
        return math.exp(self._log_factor)

    def forecast(self, work: float) -> Forecast:
        """Return how long an operation takes whose documented work is `work` seconds."""
        own = work * self.factor
        middle = self._queue_s + own
        share = own / middle
        queue_share = self._queue_s / middle
        variance = (
            (self._spread_square + self._log_factor_variance) * share**2
            + queue_share**2
            + self._queue_variance / middle**2
        )
        return Forecast(middle, math.sqrt(variance) * _LOGISTIC)

    def still_running(self, work: float, since_s: float, age_s: float) -> None:
        """Take in that an operation was not done at `age_s`; at `since_s` that was known already."""
        self._weigh(work, since_s, age_s, math.inf)
        self._sum_up()

    def ended(self, work: float, since_s: float, after_s: float, by_s: float) -> None:
        """Take in that an operation ended between two ages.

        :param since_s: the age up to which it was known before that it had not ended
        :param after_s: the earliest age at which it can have ended, in seconds
        :param by_s: the latest
        """
        self._weigh(work, since_s, after_s, by_s)
        self.endings += 1
        self._fade()
        self._sum_up()

    def _weigh(self, work: float, since_s: float, after_s: float, by_s: float) -> None:
        import numpy as np

        own = work * self._factors
        middle = self._queues + own
        shape = _LOGISTIC * np.sqrt((self._spreads * own) ** 2 + self._queues**2) / middle
        log_middle = np.log(middle)

        def running(age_s: float) -> NDArray[np.float64]:
            """The probability of each cell that it has not ended at this age."""
            place = np.clip((math.log(age_s) - log_middle) / shape, -500.0, 500.0)
            return np.asarray(1.0 / (1.0 + np.exp(place)))

        likelihood = running(after_s) if after_s > 0.0 else np.ones_like(middle)
        if by_s < math.inf:
            likelihood = likelihood - running(max(by_s, 1e-3))
        if since_s > 0.0:
            likelihood = likelihood / np.maximum(running(since_s), 1e-20)
        self._weights *= likelihood + _ANYTHING
        self._weights /= self._weights.sum()

    def _fade(self) -> None:
        import numpy as np

        beside = np.pad(self._weights, ((0, 0), (1, 1)), mode="edge")
        kept = (1.0 - 2.0 * _FADE) * self._weights + _FADE * (beside[:, :-2] + beside[:, 2:])
        self._weights = (1.0 - _DOUBT) * kept + _DOUBT * self._first

    def _sum_up(self) -> None:
        rows = self._weights.sum(axis=1, keepdims=True)
        cells = self._weights.sum(axis=0)
        self._log_factor = float((cells * self._log_factors).sum())
        self._log_factor_variance = float((cells * (self._log_factors - self._log_factor) ** 2).sum())
        self._queue_s = float((rows * self._queues).sum())
        self._queue_variance = float((rows * (self._queues - self._queue_s) ** 2).sum())
        self._spread_square = float((rows * self._spreads**2).sum())
