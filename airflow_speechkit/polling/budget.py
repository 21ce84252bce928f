"""How many requests the operations host may get, and when: pure, the time is passed in.

The quotas are documented as 2,500 an hour for API v2 and 5 a second for API v3, for the whole folder
(speechkit-api.md §3). Whether the service counts clock hours or the last 3,600 s is not; a budget that holds for
every stretch of an hour holds for both.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from airflow_speechkit.settings import ApiVersion

#: The documented quotas: requests, and the seconds they are counted over.
QUOTAS = {ApiVersion.V2: (2500.0, 3600.0), ApiVersion.V3: (5.0, 1.0)}
#: What of a quota is used unless the connection says otherwise.
DEFAULT_SHARE = 0.8
#: No minute gets more than this part of an hour's budget: a restart is no reason to spend it all.
_MINUTE_SHARE = 1 / 12
#: Requests don't arrive in the rhythm they were sent in.
_MARGIN_S = {ApiVersion.V2: 2.0, ApiVersion.V3: 0.1}

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 300.0
_SLOWEST = 1 / 32
_RECOVERY_S = 60.0
_RECOVERY = 1.25


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many requests in every stretch of so many seconds."""

    requests: int
    seconds: float


class CheckBudget:
    """Requests spent and left, and how fast to go on after the service has said "too many".

    :param limits: all of them hold at once; the first is the quota's own stretch
    :param spent_before: requests that a predecessor is taken to have spent, evenly over the first limit's stretch: a
        restarted triggerer does not know what the last one spent, and must not spend it again
    """

    def __init__(self, limits: tuple[Limit, ...], *, spent_before: int = 0) -> None:
        self.limits = limits
        self._sent: list[deque[float]] = [deque(maxlen=limit.requests) for limit in limits]
        self._spent_before = min(spent_before, limits[0].requests)
        self._paused_until = float("-inf")
        self._pause_s = 0.0
        self._speed = 1.0
        self._slowed_at = float("-inf")
        self._last = float("-inf")

    @classmethod
    def of(
        cls,
        api_version: ApiVersion | str,
        *,
        checks_per_hour: float | None = None,
        checks_per_second: float | None = None,
        triggerers: int = 1,
    ) -> CheckBudget:
        """Return the budget of one triggerer.

        :param api_version: ``v2`` or ``v3``: whose quota it is
        :param checks_per_hour: what all triggerers may spend of v2's quota; 80 % of 2,500 by default
        :param checks_per_second: what all triggerers may spend of v3's quota; 80 % of 5 by default
        :param triggerers: how many triggerers share it
        """
        api_version = ApiVersion(api_version)
        quota, seconds = QUOTAS[api_version]
        asked = checks_per_hour if api_version is ApiVersion.V2 else checks_per_second
        requests = (quota * DEFAULT_SHARE if asked is None else asked) / max(triggerers, 1)
        if requests < 1.0:
            # Less than one in the stretch: one in a longer stretch.
            requests, seconds = 1.0, seconds / requests
        own = Limit(int(requests), seconds + _MARGIN_S[api_version])
        if seconds < 120.0:
            return cls((own,))
        minute = Limit(max(int(requests * _MINUTE_SHARE), 1), 60.0)
        return cls((own, minute), spent_before=int(requests * 0.9))

    @property
    def per_second(self) -> float:
        """The rate that can be kept up, in requests a second."""
        return self.limits[0].requests / self.limits[0].seconds * self._speed

    def start(self, now: float) -> None:
        """Take the predecessor's requests as spent, evenly over the stretch that ends now."""
        if not self._spent_before:
            return
        seconds, number = self.limits[0].seconds, self._spent_before
        self._spent_before = 0
        self._sent[0].extend(now - seconds + seconds * (i + 1) / number for i in range(number))

    def left(self, now: float) -> int:
        """Return how many requests the quota's stretch that ends now still has."""
        limit, sent = self.limits[0], self._sent[0]
        return limit.requests - sum(1 for at in sent if at + limit.seconds > now)

    def wait_s(self, now: float) -> float:
        """Return how many seconds to wait before the next request may go out: 0 if it may go now."""
        free_at = self._paused_until
        for limit, sent in zip(self.limits, self._sent, strict=True):
            if len(sent) == limit.requests:
                free_at = max(free_at, sent[0] + limit.seconds)
        if self._speed < 1.0:
            free_at = max(free_at, self._last + 1.0 / self.per_second)
        return max(free_at - now, 0.0)

    def spend(self, now: float) -> None:
        """Count a request that goes out now, whether `wait_s` allowed it or not."""
        self._last = now
        for sent in self._sent:
            sent.append(now)

    def take_back(self, at: float) -> None:
        """Take in that nothing was sent at `at` after all."""
        for sent in self._sent:
            if at in sent:
                sent.remove(at)

    def answered(self, now: float) -> None:
        """Take in an answer that was not a 429: the pause was long enough, and the rate may rise again."""
        if now >= self._paused_until:
            self._pause_s = 0.0
        if self._speed < 1.0 and now - self._slowed_at >= _RECOVERY_S:
            self._slowed_at = now
            self._speed = min(self._speed * _RECOVERY, 1.0)

    def refused(self, now: float, retry_after_s: float | None = None) -> float:
        """Take in a 429: everything pauses, then goes on at half the rate; return the pause in seconds.

        Answers to requests that were under way before the pause began say nothing new.

        :param retry_after_s: what the service asked for
        """
        if now < self._paused_until:
            if retry_after_s is not None:
                self._paused_until = max(self._paused_until, now + retry_after_s)
            return self._paused_until - now
        self._pause_s = min(max(self._pause_s * 2.0, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        self._speed = max(self._speed / 2.0, _SLOWEST)
        self._slowed_at = now
        self._paused_until = now + max(self._pause_s, retry_after_s or 0.0)
        return self._paused_until - now
