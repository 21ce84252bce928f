"""When to try again after errors, and when to give up: pure, the time is passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_speechkit.errors import SpeechKitError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to pause after failures in a row, and how many are too many.

    :param first_s: the pause after the first failure; each further one is twice as long
    :param longest_s: no pause is longer
    :param give_up_failures: failures in a row before giving up, at least …
    :param give_up_s: … and over at least this time, in seconds
    """

    first_s: float = 5.0
    longest_s: float = 300.0
    give_up_failures: float = math.inf
    give_up_s: float = 0.0

    def pause_s(self, failures: int) -> float:
        """Return the pause after so many failures in a row, in seconds."""
        return float(min(self.first_s * 2.0 ** min(max(failures, 1) - 1, 32), self.longest_s))

    def pause_after_s(self, elapsed_s: float) -> float:
        """Return the same pause where nobody has counted the failures: they have come for so many seconds."""
        return min(elapsed_s + self.first_s, self.longest_s)

    def pauses_s(self) -> Iterator[float]:
        """Give each pause until the policy gives up by the number of failures."""
        failures = 1
        while failures <= self.give_up_failures:
            yield self.pause_s(failures)
            failures += 1

    def is_exhausted(self, failures: int, elapsed_s: float) -> bool:
        """Whether to give up after so many failures over so many seconds."""
        return failures >= self.give_up_failures and elapsed_s >= self.give_up_s


#: Errors that can pass by themselves; errors that can't (a revoked key) are given less time.
TRANSIENT = RetryPolicy(give_up_failures=8, give_up_s=3600.0)
LASTING = RetryPolicy(give_up_failures=5, give_up_s=600.0)


def policy_for(error: SpeechKitError) -> RetryPolicy:
    """Return how a wait retries after an error of this kind."""
    return TRANSIENT if error.retry_can_help else LASTING


class FailureStreak:
    """Failures in a row, without a success between them.

    Each policy counts its own: an hour without a network says nothing about a key that is then refused once.
    """

    __slots__ = ("_runs", "failures")

    def __init__(self) -> None:
        self.failures = 0
        self._runs: dict[RetryPolicy, tuple[int, float]] = {}

    def add(self, policy: RetryPolicy, now: float) -> bool:
        """Count one more failure; return whether the policy is exhausted."""
        self.failures += 1
        number, since = self._runs.get(policy, (0, now))
        self._runs[policy] = number + 1, since
        return policy.is_exhausted(number + 1, now - since)

    def clear(self) -> None:
        """Count a success."""
        self.failures = 0
        self._runs.clear()


class CircuitBreaker:
    """Holds back all requests while the host or the credentials fail; one at a time tests whether they work again."""

    def __init__(self) -> None:
        self.streak = FailureStreak()
        #: Nothing goes out before this time.
        self.open_until = -math.inf
        self._failed_at = -math.inf

    def request(self, now: float) -> None:
        """Let a request out: while the breaker is open, the others wait for what comes of it."""
        if self.streak.failures:
            self.open_until = now + TRANSIENT.pause_s(self.streak.failures)

    def failed(self, policy: RetryPolicy, sent_at: float, now: float) -> bool:
        """Count a failure; return whether the policy is exhausted.

        Failures of requests that were under way when the last one was counted don't count: one broken connection may
        take many with it.

        :param sent_at: when the request went out
        """
        if sent_at < self._failed_at:
            return False
        self._failed_at = now
        is_exhausted = self.streak.add(policy, now)
        self.open_until = now + policy.pause_s(self.streak.failures)
        return is_exhausted

    def succeeded(self) -> None:
        """Close: the host answers."""
        self.streak.clear()
        self.open_until = self._failed_at = -math.inf
