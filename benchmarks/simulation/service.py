"""The service in virtual time: recordings, their processing times, and the quota of checks.

docs/design-waiting.md describes the traces and their reasons.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, replace

import msgspec

from airflow_speechkit.polling.target import PollTarget

QUOTA, QUOTA_WINDOW_S = 2500, 3600.0
#: The round trip; the service reads the operation's state half-way.
LATENCY_S = 0.2
#: The wall-clock time at virtual time 0.
EPOCH_S = 1_795_000_000.0

MEDIAN_AUDIO_S, AUDIO_SIGMA, LONGEST_AUDIO_S = 300.0, 0.9, 4 * 3600.0
SHORT_AUDIO_S = (15.0, 60.0)
NOISE_SIGMA, QUEUE_MEAN_S = 0.3, 10.0
DEFERRED_MEDIAN_S, DEFERRED_SIGMA, DEFERRED_LONGEST_S = 2 * 3600.0, 1.0, 24 * 3600.0


@dataclass(frozen=True)
class Recording:
    """One recording at the service.

    :param target: what the waiting side knows about it
    :param waited_from_s: when the wait for it begins
    """

    target: PollTarget
    submitted_s: float
    ended_s: float
    waited_from_s: float
    task: str = "batch"

    def ended_before(self, start_s: float, by_s: float) -> Recording:
        """The same recording, with a wait that begins at `start_s`, `by_s` after its end."""
        shift_s = start_s - by_s - self.ended_s
        submitted_s = self.submitted_s + shift_s
        return replace(
            self,
            target=msgspec.structs.replace(self.target, submitted_at=EPOCH_S + submitted_s),
            submitted_s=submitted_s,
            ended_s=self.ended_s + shift_s,
            waited_from_s=start_s,
        )


class Service:
    """Makes recordings, from a seed.

    :param factor: processing time, relative to the documented one
    :param noise: sigma of the lognormal noise of the processing time
    :param lengths_known: whether the waiting side knows lengths and numbers of channels
    :param deferred: whether the model is a deferred one
    """

    def __init__(
        self,
        seed: str,
        *,
        factor: float = 1.0,
        noise: float = NOISE_SIGMA,
        lengths_known: bool = True,
        deferred: bool = False,
    ) -> None:
        self._chance = random.Random(seed)
        self._factor = factor
        self._noise = noise
        self._lengths_known = lengths_known
        self._deferred = deferred
        self._made = 0

    def moments(self, number: int, from_s: float, until_s: float) -> list[float]:
        """Random times, in order."""
        return sorted(self._chance.uniform(from_s, until_s) for _ in range(number))

    def recording(self, submitted_s: float, *, short: bool = False, task: str = "batch") -> Recording:
        """Submit one more recording; every second one is stereo.

        :param short: 15 to 60 s and mono, instead of the length of a call
        """
        chance = self._chance
        if short:
            audio_s, channels = chance.uniform(*SHORT_AUDIO_S), 1
        else:
            audio_s = min(MEDIAN_AUDIO_S * math.exp(chance.gauss(0.0, AUDIO_SIGMA)), LONGEST_AUDIO_S)
            channels = 1 + self._made % 2
        if self._deferred:
            took_s = min(DEFERRED_MEDIAN_S * math.exp(chance.gauss(0.0, DEFERRED_SIGMA)), DEFERRED_LONGEST_S)
        else:
            work_s = audio_s / 60.0 * 10.0 * channels * self._factor
            took_s = chance.expovariate(1.0 / QUEUE_MEAN_S) + work_s * math.exp(chance.gauss(0.0, self._noise))
        self._made += 1
        target = PollTarget(
            f"{task} {self._made}",
            EPOCH_S + submitted_s,
            audio_s if self._lengths_known else None,
            channels if self._lengths_known else None,
            "deferred-general" if self._deferred else "general",
        )
        return Recording(target, submitted_s, submitted_s + took_s, submitted_s, task)


class Quota:
    """The service's quota of checks in every 3,600 s."""

    def __init__(self, checks_per_hour: float = QUOTA) -> None:
        self._checks_per_hour = checks_per_hour
        self._answered: deque[float] = deque()
        self._asked: deque[float] = deque()
        #: The largest number of checks in 3,600 s, as a share of the quota.
        self.busiest_share = 0.0

    def takes(self, at_s: float) -> bool:
        """Count a check; return False if it is refused with 429."""
        for times in (self._asked, self._answered):
            while times and times[0] <= at_s - QUOTA_WINDOW_S:
                times.popleft()
        self._asked.append(at_s)
        self.busiest_share = max(self.busiest_share, len(self._asked) / self._checks_per_hour)
        if len(self._answered) >= self._checks_per_hour:
            return False
        self._answered.append(at_s)
        return True
