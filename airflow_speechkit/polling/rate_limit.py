"""How many requests the operations host may get, and when: pure, the time is passed in.

The documented quotas are 2,500 checks an hour for API v2 and 5 a second for API v3, for the whole folder
(https://yandex.cloud/docs/speechkit/concepts/limits). Whether the service counts clock hours or the last 3,600 s is not
documented; a limit that holds in every stretch of an hour holds for both.

Processes that share a quota don't know of each other. Each backs off after a 429 and recovers slowly: additive
increase, multiplicative decrease, as in TCP.
"""

from __future__ import annotations

import math
from collections import deque

from airflow_speechkit.retry import RetryPolicy
from airflow_speechkit.settings import ApiVersion

#: The documented quotas: requests, and the seconds they are counted over.
QUOTAS = {ApiVersion.V2: (2500.0, 3600.0), ApiVersion.V3: (5.0, 1.0)}
#: The part of a quota that is used unless the connection says otherwise.
DEFAULT_SHARE = 0.8
#: The part of the limit that may go out at once.
BURST_SHARE = 0.25
#: The part of a burst that is kept for tasks that have asked least.
RESERVED_SHARE = 0.1
#: Requests of a burst are this far apart, in seconds, unless the limit asks for more.
BURST_GAP_S = 0.05
#: Where a worker in poke or reschedule mode starts: it can't know which other processes poll.
CAUTIOUS_SHARE = 0.1
#: A triggerer that starts takes this part of the last hour's limit as spent by its predecessor.
SPENT_BEFORE_SHARE = 0.9
#: Requests don't arrive in the rhythm in which they were sent, so the windows are a little longer, in seconds.
_MARGIN_S = {ApiVersion.V2: 2.0, ApiVersion.V3: 0.1}
_SMALLEST_SHARE = 1 / 32
#: From nothing to the whole limit after 429s, in seconds.
_RECOVERY_S = 3600.0
#: Pauses after 429s; at most ten windows.
REFUSED_RETRY = RetryPolicy(120.0, 600.0)


class RateLimiter:
    """A token bucket that allows at most `limit` requests in every stretch of `window_s`.

    A quarter of the limit may go out at once. The other three quarters come in evenly, and a quarter of each token
    comes back when its request leaves the window: steady demand uses the whole limit.

    :param limit: requests in each window; less than one means one in a longer window
    :param window_s: the window's length in seconds
    :param share: the part of the limit to begin with; it grows to the whole of it as after a 429
    :param spent_before: requests that a predecessor is taken to have sent, evenly over the window before the first one
    """

    def __init__(self, limit: float, window_s: float, *, share: float = 1.0, spent_before: int = 0) -> None:
        self.limit = max(limit, 1.0)
        self.window_s = window_s / min(limit, 1.0)
        self._share = share
        self._spent_before = spent_before
        self._sent: deque[float] = deque()
        self._tokens = 0.0
        #: Up to when tokens have come in. None do during a pause.
        self._filled_at: float | None = None
        self._last = self._paused_until = -math.inf
        self._refusals = 0

    @classmethod
    def for_checks(
        cls,
        api_version: ApiVersion | str,
        *,
        checks_per_hour: float | None = None,
        checks_per_second: float | None = None,
        triggerers: int = 1,
        cautious: bool = False,
    ) -> RateLimiter:
        """Return the limiter of one process for its status checks.

        :param api_version: ``v2`` or ``v3``
        :param checks_per_hour: what all triggerers may spend of v2's quota; 80 % of it by default
        :param checks_per_second: what all triggerers may spend of v3's quota; 80 % of it by default
        :param triggerers: how many triggerers share it
        :param cautious: start at a tenth, as a worker does that can't know who else polls
        """
        api_version = ApiVersion(api_version)
        quota, window_s = QUOTAS[api_version]
        given = checks_per_hour if api_version is ApiVersion.V2 else checks_per_second
        limit = (quota * DEFAULT_SHARE if given is None else given) / max(triggerers, 1)
        has_predecessor = api_version is ApiVersion.V2 and not cautious
        return cls(
            limit,
            window_s + _MARGIN_S[api_version],
            share=CAUTIOUS_SHARE if cautious else 1.0,
            spent_before=int(limit * SPENT_BEFORE_SHARE) if has_predecessor else 0,
        )

    def rate(self, now: float) -> float:
        """Return the requests a second that can be kept up at present."""
        self._refill(now)
        return self._share * self.limit / self.window_s

    def available(self, now: float) -> float:
        """Return how many requests may go out at once."""
        self._refill(now)
        return max(min(self._tokens, self.limit - len(self._sent)), 0.0)

    def is_idle(self, now: float, waiting: int) -> bool:
        """Whether more requests are available than have to be kept for a burst.

        :param waiting: how many operations are waited for
        """
        burst = self._share * self.limit * BURST_SHARE
        return self.available(now) >= min(max(waiting, burst / 3.0), burst / 2.0)

    def left(self, now: float) -> int:
        """Return how many requests the window that ends now still has."""
        return int(max(self.limit - self.sent(now), 0.0))

    def sent(self, now: float) -> int:
        """Return how many requests went out in the window that ends now."""
        self._refill(now)
        return len(self._sent)

    def wait_s(self, now: float, *, reserved: bool = False) -> float:
        """Return how many seconds to wait before the next request may go out: 0 if it may go now.

        :param reserved: whether it may take from what is kept for tasks that have asked least
        """
        self._refill(now)
        at = max(self._paused_until, self._last + min(BURST_GAP_S, 0.5 * self.window_s / self.limit))
        if len(self._sent) + 1 > self.limit:
            at = max(at, self._sent[0] + self.window_s)
        missing = 1.0 - self._tokens
        if not reserved:
            missing += math.floor(self._share * self.limit * BURST_SHARE * RESERVED_SHARE)
        if missing > 1e-9:
            at = max(at, max(now, self._paused_until) + missing / self._flow)
        return max(at - now, 0.0)

    def spend(self, now: float) -> None:
        """Count a request that goes out now, whether `wait_s` allowed it or not."""
        self._refill(now)
        self._last = now
        self._sent.append(now)
        self._tokens -= 1.0

    def answered(self, now: float) -> None:
        """Count an answer that is not a 429."""
        if now >= self._paused_until:
            self._refusals = 0

    def refused(self, now: float, retry_after_s: float | None = None) -> float:
        """Count a 429: pause all requests, send one, and go on at half the rate.

        A 429 to a request that was under way when the pause began doesn't halve the rate again.

        :param retry_after_s: what the service asked for; longer pauses follow if it refuses again right after that
        :return: the pause, in seconds
        """
        self._refill(now)
        if now >= self._paused_until:
            self._refusals += 1
            pause_s = min(REFUSED_RETRY.pause_s(self._refusals), 10.0 * self.window_s)
            pause_s = 1.0 if retry_after_s and self._refusals == 1 else pause_s
            self._paused_until = now + pause_s
            # It recovers during the pause too.
            self._share = min(max(self._share / 2.0, _SMALLEST_SHARE) + pause_s / _RECOVERY_S, 1.0)
        self._paused_until = max(self._paused_until, now + (retry_after_s or 0.0))
        self._filled_at, self._tokens = self._paused_until, 1.0
        return self._paused_until - now

    @property
    def _flow(self) -> float:
        return (1.0 - BURST_SHARE) * self._share * self.limit / self.window_s

    def _refill(self, now: float) -> None:
        if self._filled_at is None:
            number, self._filled_at = self._spent_before, now
            self._sent.extend(now - self.window_s * (1.0 - (i + 1) / number) for i in range(number))
            self._tokens = 1.0 + self.limit - number
        while self._sent and self._sent[0] + self.window_s <= now:
            if self._sent.popleft() + self.window_s > self._filled_at:
                self._tokens += BURST_SHARE * self._share
        if now > self._filled_at:
            self._tokens += self._flow * (now - self._filled_at)
            self._share = min(self._share + (now - self._filled_at) / _RECOVERY_S, 1.0)
            self._filled_at = now
        self._tokens = min(self._tokens, 1.0 + BURST_SHARE * self._share * self.limit)
