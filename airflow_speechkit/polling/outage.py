"""Errors in a row: when to try again, and when they are too many. Pure, the time is passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

_FIRST_BACKOFF_S = 5.0
_LONGEST_BACKOFF_S = 300.0


@dataclass(frozen=True, slots=True)
class Patience:
    """When errors in a row are too many: as many as `failures`, and over at least `seconds`."""

    failures: int
    seconds: float


#: Errors that can pass by themselves; errors that can't (a revoked key) are given less time.
TRANSIENT = Patience(8, 3600.0)
LASTING = Patience(5, 600.0)


class TooMany(Enum):
    """Whose errors in a row have used up the patience."""

    HERE = "of one operation"
    EVERYWHERE = "of all operations"


class Failures:
    """Errors in a row, without a usable answer between them.

    Each kind is judged by itself: an hour without a network says nothing about a key that is then refused once.
    """

    __slots__ = ("_runs", "number")

    def __init__(self) -> None:
        self.number = 0
        self._runs: dict[Patience, tuple[int, float]] = {}

    def add(self, patience: Patience, now: float) -> bool:
        """Take in one more; return whether those of its kind are too many by now."""
        self.number += 1
        number, since = self._runs.get(patience, (0, now))
        self._runs[patience] = number + 1, since
        return number + 1 >= patience.failures and now - since >= patience.seconds

    def clear(self) -> None:
        """Take in a usable answer."""
        self.number = 0
        self._runs.clear()

    @property
    def backoff_s(self) -> float:
        """How long to wait before the next try, in seconds."""
        return min(_FIRST_BACKOFF_S * 2.0 ** min(max(self.number - 1, 0), 10), _LONGEST_BACKOFF_S)


class Outage:
    """The host or the credentials fail, whatever the operation: all back off together, one at a time tries again."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.until = -math.inf
        self._failed_at = -math.inf

    @property
    def number(self) -> int:
        """How many failures in a row there are; 0: there is no outage."""
        return self.failures.number

    def trying(self, now: float) -> None:
        """Hold the others back: one goes out to see whether the outage is over."""
        if self.number:
            self.until = now + self.failures.backoff_s

    def failed(self, patience: Patience, asked_at: float, now: float) -> bool:
        """Take in a failure; return whether they are too many by now.

        Those of requests that were under way already when the last one came say nothing new: one broken connection
        may take many with it.
        """
        if asked_at < self._failed_at:
            return False
        self._failed_at = now
        too_many = self.failures.add(patience, now)
        self.until = now + self.failures.backoff_s
        return too_many

    def over(self) -> None:
        """Take in that the host answers, or that nobody is left who would want to know."""
        self.failures.clear()
        self.until = self._failed_at = -math.inf
