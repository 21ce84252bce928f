"""How many requests the operations host may get, and when: pure, the time is passed in.

The documented quotas are 2,500 checks an hour for API v2 and 5 a second for API v3, for the whole folder
(https://yandex.cloud/docs/speechkit/concepts/limits). Whether the service counts clock hours or the last 3,600 s is not
documented; a limit that holds for every stretch of an hour holds for both.

Processes that share a quota don't know of each other. Each backs off when the service says "too many", and recovers
slowly: additive increase, multiplicative decrease, as TCP does.
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
#: The part of an hour's limit that may go out at once.
BURST_SHARE = 0.25
#: The part of a burst that is kept for tasks that have asked least.
RESERVED_SHARE = 0.1
#: Of a burst, one request for each operation that is waited for is kept, but at least and at most these parts.
KEPT_SHARES = 1 / 3, 1 / 2
#: Requests of a burst are this far apart, in seconds, unless the limit asks for more.
BURST_GAP_S = 0.05
#: Where a process starts that can't know who else polls: a worker in poke or reschedule mode.
CAUTIOUS_SHARE = 0.1
#: A triggerer that starts takes so much of the last hour as spent by the one before it.
SPENT_BEFORE_SHARE = 0.9
#: Requests don't arrive in the rhythm in which they were sent, so the windows are a little longer, in seconds.
_MARGIN_S = {ApiVersion.V2: 2.0, ApiVersion.V3: 0.1}

# After a 429.
_DECREASE = 0.5
_SMALLEST_SHARE = 1 / 32
#: From nothing to the whole limit, in seconds.
_RECOVERY_S = 3600.0
#: Shorter where the quota is by the second.
REFUSED_RETRY = RetryPolicy(120.0, 600.0)


class RateLimiter:
    """At most `limit` requests in every stretch of `window_s`, and a part of these at once.

    Tokens come back when the requests that spent them leave the window. What was not spent comes in at an even pace, so
    a burst leaves something for the rest of the hour.

    :param limit: requests in each window
    :param window_s: the window's length in seconds
    :param burst_share: the part of the limit that may go out at once
    :param share: the part of the limit to begin with; it grows to the whole of it as after a 429
    :param spent_before: requests that a predecessor is taken to have sent, evenly over the window before the first one
    """

    def __init__(
        self, limit: float, window_s: float, *, burst_share: float = 1.0, share: float = 1.0, spent_before: int = 0
    ) -> None:
        self.limit = limit
        self.window_s = window_s
        self._burst_share = burst_share
        #: The part of the limit that may be used at `_share_at`, and at the last refill.
        self._share, self._share_at, self._share_now = share, 0.0, share
        self._sent: deque[float] = deque()
        #: How many of these went out before the last 429.
        self._sent_before = 0
        self._spent_before = spent_before
        self._tokens = math.inf
        self._tokens_at: float | None = None
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
        window_s += _MARGIN_S[api_version]
        share = CAUTIOUS_SHARE if cautious else 1.0
        if window_s < 60.0:
            return cls(limit, window_s, share=share)
        spent_before = 0 if cautious else int(limit * SPENT_BEFORE_SHARE)
        return cls(limit, window_s, burst_share=BURST_SHARE, share=share, spent_before=spent_before)

    def rate(self, now: float) -> float:
        """Return the requests a second that can be kept up at present."""
        self._refill(now)
        return self.limit * self._share_now / self.window_s

    def available(self, now: float) -> float:
        """Return how many requests may go out at once."""
        self._refill(now)
        return max(min(self._tokens, self._room), 0.0)

    def idle_in_s(self, now: float, waiting: int) -> float:
        """Return in how many seconds there are more requests to spend than have to be kept: 0 if there are.

        :param waiting: how many operations are waited for
        """
        least, most = (share * self._burst for share in KEPT_SHARES)
        missing = min(max(waiting, least), most) - self.available(now)
        return max(missing * self._window_now_s / self._allowed, self._paused_until - now, 0.0)

    def left(self, now: float) -> int:
        """Return how many requests the window that ends now still has."""
        self._refill(now)
        return max(self._room, 0)

    def wait_s(self, now: float, *, reserved: bool = False) -> float:
        """Return how many seconds to wait before the next request may go out: 0 if it may go now.

        :param reserved: whether it may take from what is kept for those who have asked least
        """
        self._refill(now)
        # Of a small burst there is nothing to keep.
        is_kept = not reserved and self._burst_share < 1.0
        needed = 1.0 + (math.floor(self._burst * RESERVED_SHARE) if is_kept else 0.0)
        at = max(self._paused_until, self._last + min(BURST_GAP_S, 0.5 * self._window_now_s / self._allowed))
        expires_at = self._sent[0] + self._window_now_s if self._sent else math.inf
        if self._room_left < 1:
            at = max(at, expires_at)
        if self._room_since < 1:
            at = max(at, min(expires_at, self._grown_at(now)))
        elif self._tokens < needed - 1e-9:
            flow = self._flow
            at = max(at, min(expires_at, now + (needed - self._tokens) / flow if flow > 0.0 else math.inf))
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

    def is_paused(self, now: float) -> bool:
        """Whether a 429 holds back all requests."""
        return now < self._paused_until

    def refused(self, now: float, retry_after_s: float | None = None) -> float:
        """Count a 429: all pause, then go on at half the rate.

        Answers to requests that were under way before the pause began say nothing new.

        :param retry_after_s: what the service asked for: the first pause; those after it are longer by themselves
        :return: the pause, in seconds
        """
        self._refill(now)
        if not self.is_paused(now):
            self._share, self._share_at = max(self._share_now * _DECREASE, _SMALLEST_SHARE), now
            self._sent_before = len(self._sent)
            self._refusals += 1
            pause_s = min(REFUSED_RETRY.pause_s(self._refusals), 10.0 * self.window_s)
            self._paused_until = now + (1.0 if retry_after_s and self._refusals == 1 else pause_s)
            self._tokens = min(self._tokens, 1.0)
        self._paused_until = max(self._paused_until, now + (retry_after_s or 0.0))
        return self._paused_until - now

    @property
    def _allowed(self) -> float:
        return max(self.limit * self._share_now, 1.0)

    @property
    def _window_now_s(self) -> float:
        """The window; where less than one request is allowed in it, one in a longer window."""
        return self.window_s / min(self.limit * self._share_now, 1.0)

    @property
    def _burst(self) -> float:
        # With one only, what comes back would find no room beside what comes in.
        return max(self._allowed * self._burst_share, min(self._allowed, 2.0))

    @property
    def _flow(self) -> float:
        return (self._allowed - self._burst) / self._window_now_s

    @property
    def _room(self) -> int:
        return min(self._room_left, self._room_since)

    @property
    def _room_left(self) -> int:
        return math.floor(max(self.limit, 1.0) + 1e-9) - len(self._sent)

    @property
    def _room_since(self) -> int:
        """How many more the rate allows since the pause after the last 429, or in the window.

        What went out before a 429 doesn't count: against half the limit, nothing could go out for most of an hour.
        """
        allowed = min(1.0 + self._allowed * self._part, self._allowed)
        return math.floor(allowed + 1e-9) - (len(self._sent) - self._sent_before)

    @property
    def _part(self) -> float:
        """The part of the window that has passed since the pause after the last 429."""
        since_s = (self._tokens_at or 0.0) - self._paused_until
        return min(max(since_s, 0.0) / self._window_now_s, 1.0)

    def _grown_at(self, now: float) -> float:
        """Return when there is room for one more because time has passed since a 429, or the limit has grown."""
        number = len(self._sent) - self._sent_before + 1
        if self._part < 1.0:
            return self._paused_until + (number - 1) / self._allowed * self._window_now_s
        share = number / self.limit
        return now + (share - self._share_now) * _RECOVERY_S if share <= 1.0 else math.inf

    def _refill(self, now: float) -> None:
        if self._tokens_at is None:
            self._begin(now)
        assert self._tokens_at is not None  # noqa: S101
        self._share_now = min(self._share + max(now - self._share_at, 0.0) / _RECOVERY_S, 1.0)
        expired_at, expired = now - self._window_now_s, 0
        while self._sent and self._sent[0] <= expired_at:
            self._sent.popleft()
            expired += 1
        self._sent_before = max(self._sent_before - expired, 0)
        # Where all may go out at once there is nothing to pace; and a pause is followed by no burst.
        if self._burst_share >= 1.0:
            self._tokens = self._burst
        elif self._tokens_at >= self._paused_until:
            more = expired + self._flow * max(now - self._tokens_at, 0.0)
            self._tokens = min(self._tokens + more, self._burst)
        if not self._sent:
            # A pause takes what would have come in, and where one is allowed in an hour nothing else does.
            self._tokens = max(self._tokens, 1.0)
        self._tokens_at = now

    def _begin(self, now: float) -> None:
        self._tokens_at = self._share_at = now
        number, self._spent_before = self._spent_before, 0
        self._sent.extend(now - self.window_s + self.window_s * (i + 1) / number for i in range(number))
        self._tokens = min(self._burst, max(self._room, 0))
